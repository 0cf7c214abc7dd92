//! NUMA nodes: on which of them this thread may run, and how its memory comes from one of them.
//!
//! The kernel takes a page from the node of the thread that touches it first. So memory is placed
//! by a thread that runs on the node's CPUs, and no other call is needed. Where another policy was
//! set from outside, as numactl(8) does, that policy decides.

mod files;
mod list;
mod placement;

use std::path::Path;

use self::files::{nodes, status};
pub use self::list::NumberList;
pub use self::placement::{NodePlacement, NotPlaced};

/// The nodes that have a processor on which the calling thread may run, and how many nodes the host
/// has. `None`: the system does not say.
#[must_use]
pub fn allowed_nodes() -> Option<(Vec<u8>, usize)> {
    let root = Path::new("/");
    let allowed = status(root, "Cpus_allowed_list:")?;
    let nodes = nodes(root)?;
    Some((nodes_of(&allowed, &nodes), nodes.len()))
}

/// The node of all devices whose nodes are given, if each has one and it is the same one.
pub fn common(nodes: impl IntoIterator<Item = Option<u8>>) -> Option<u8> {
    let mut nodes = nodes.into_iter();
    let first = nodes.next()??;
    nodes.all(|node| node == Some(first)).then_some(first)
}

/// Those nodes that have one of the allowed processors.
fn nodes_of(allowed: &NumberList, nodes: &[(u8, NumberList)]) -> Vec<u8> {
    let near = nodes.iter().filter(|(_, cpus)| cpus.meets(allowed));
    let mut found: Vec<_> = near.map(|&(node, _)| node).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_near_the_nodes_of_its_processors() {
        let list = |text| NumberList::parse(text).unwrap();
        let nodes = [(1, list("8-15,24-31\n")), (0, list("0-7,16-23\n")), (2, list(""))];
        assert_eq!(nodes_of(&list("\t3"), &nodes), [0]);
        assert_eq!(nodes_of(&list("\t8-11,30"), &nodes), [1]);
        assert_eq!(nodes_of(&list("\t0-31"), &nodes), [0, 1], "a node without processors is not one of them");
        assert_eq!(nodes_of(&list(""), &nodes), []);
    }

    #[test]
    fn devices_have_a_node_in_common_or_none() {
        assert_eq!(common([Some(1), Some(1)]), Some(1));
        for none in [&[][..], &[None], &[Some(0), Some(1)], &[Some(0), None]] {
            assert_eq!(common(none.iter().copied()), None, "{none:?}");
        }
    }

    #[test]
    fn this_thread_runs_on_a_node_of_this_host() {
        let Some((allowed, all)) = allowed_nodes() else {
            return eprintln!("SKIPPED: this host says nothing of its NUMA nodes");
        };
        assert!(!allowed.is_empty() && allowed.len() <= all, "{allowed:?} of {all}");
    }
}
