//! The NUMA nodes on which this thread may run.

use std::fs;

/// The nodes that have a processor on which the calling thread may run, and how many nodes the host
/// has. `None`: the system does not say.
#[must_use]
pub fn allowed_nodes() -> Option<(Vec<u8>, usize)> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut nodes = Vec::new();
    for entry in fs::read_dir("/sys/devices/system/node").ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let node = name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<u8>().ok());
        let Some(node) = node else { continue };
        nodes.push((node, fs::read_to_string(entry.path().join("cpulist")).ok()?));
    }
    Some((nodes_of(allowed, &nodes), nodes.len()))
}

/// Those nodes that have one of the allowed processors.
fn nodes_of(allowed: &str, nodes: &[(u8, String)]) -> Vec<u8> {
    let allowed: Vec<_> = ranges(allowed).collect();
    let has_one = |cpus: &str| {
        ranges(cpus).any(|(from, to)| allowed.iter().any(|&(first, last)| first <= to && from <= last))
    };
    let mut found: Vec<_> = nodes.iter().filter(|(_, cpus)| has_one(cpus)).map(|&(node, _)| node).collect();
    found.sort_unstable();
    found
}

/// The ranges of a list as the kernel writes it: `0-3,8`.
fn ranges(list: &str) -> impl Iterator<Item = (u32, u32)> {
    list.trim().split(',').filter_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some((from.parse().ok()?, to.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_near_the_nodes_of_its_processors() {
        let nodes = [(1, "8-15,24-31\n".to_owned()), (0, "0-7,16-23\n".to_owned()), (2, String::new())];
        assert_eq!(nodes_of("\t3", &nodes), [0]);
        assert_eq!(nodes_of("\t8-11,30", &nodes), [1]);
        assert_eq!(nodes_of("\t0-31", &nodes), [0, 1], "a node without processors is not one of them");
        assert_eq!(nodes_of("", &nodes), []);
    }

    #[test]
    fn this_thread_runs_on_a_node_of_this_host() {
        let Some((allowed, all)) = allowed_nodes() else {
            return eprintln!("SKIPPED: this host says nothing of its NUMA nodes");
        };
        assert!(!allowed.is_empty() && allowed.len() <= all, "{allowed:?} of {all}");
    }
}
