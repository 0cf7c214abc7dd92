//! Running on the CPUs of a NUMA node, so that memory comes from it.

use std::io;
use std::path::Path;
use std::thread::{self, Builder};

use rustix::thread::{CpuSet, sched_setaffinity};

use super::files::{nodes, status};
use super::list::NumberList;

/// The CPUs of a NUMA node on which a thread may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlacement {
    node: u32,
    cpus: NumberList,
}

/// Why a thread and its memory cannot be placed on a NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPlaced {
    /// The system does not say which CPUs the node has, or which the thread may use.
    #[error("the CPUs of NUMA node {node} are not known")]
    Unknown {
        /// The node.
        node: u32,
    },
    /// None of the node's CPUs may be used.
    #[error("this process may not run on NUMA node {node}")]
    NoCpus {
        /// The node.
        node: u32,
    },
    /// The control group gives no memory of the node.
    #[error("this process gets no memory of NUMA node {node}")]
    NoMemory {
        /// The node.
        node: u32,
    },
}

impl NotPlaced {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Unknown { .. } => 3040,
            Self::NoCpus { .. } => 3041,
            Self::NoMemory { .. } => 3042,
        }
    }
}

impl NodePlacement {
    /// The placement on `node`, which has the CPUs `cpus`, of a thread that may run on the CPUs
    /// `allowed` and may use memory of `memory_nodes`. `None` stands for a list that is not known.
    ///
    /// # Errors
    ///
    /// The thread cannot run there, or gets no memory there, or that is not known.
    pub fn new(
        node: u32,
        cpus: Option<&NumberList>,
        allowed: Option<&NumberList>,
        memory_nodes: Option<&NumberList>,
    ) -> Result<Self, NotPlaced> {
        let (Some(cpus), Some(allowed)) = (cpus, allowed) else { return Err(NotPlaced::Unknown { node }) };
        let cpus = cpus.common(allowed);
        if cpus.count() == 0 {
            return Err(NotPlaced::NoCpus { node });
        }
        if memory_nodes.is_some_and(|nodes| !nodes.has(node)) {
            return Err(NotPlaced::NoMemory { node });
        }
        Ok(Self { node, cpus })
    }

    /// The placement of the calling thread on `node`, by the system whose files are below `root`:
    /// `/`, or a copy of them in a test. `None`: the host has one node, so no placement is needed.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of(root: &Path, node: u8) -> Result<Option<Self>, NotPlaced> {
        let all = nodes(root).unwrap_or_default();
        let cpus = all.iter().find(|(number, _)| *number == node).map(|(_, cpus)| cpus);
        if all.len() == 1 && cpus.is_some() {
            return Ok(None);
        }
        let allowed = status(root, "Cpus_allowed_list:");
        let memory = status(root, "Mems_allowed_list:");
        Self::new(node.into(), cpus, allowed.as_ref(), memory.as_ref()).map(Some)
    }

    /// The number of the node.
    #[must_use]
    pub const fn node(&self) -> u32 {
        self.node
    }

    /// Those CPUs of the node on which the thread may run.
    #[must_use]
    pub const fn cpus(&self) -> &NumberList {
        &self.cpus
    }

    /// Does `work` on a thread that is bound to these CPUs, so that memory that it touches first
    /// comes from the node, as far as the node has some left. The calling thread waits, and is not
    /// bound itself.
    ///
    /// # Errors
    ///
    /// The system has no thread left, or did not let the thread be bound; nothing was done.
    ///
    /// # Panics
    ///
    /// Where `work` panics.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> io::Result<R> {
        thread::scope(|scope| {
            let placed = || {
                self.cpus.bind()?;
                Ok(work())
            };
            let thread = Builder::new().name("kvrail-place".into()).spawn_scoped(scope, placed)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl NumberList {
    /// Binds the calling thread, and the threads that it starts, to the CPUs of this list. Numbers
    /// from `CpuSet::MAX_CPU` on are left out.
    ///
    /// # Errors
    ///
    /// The kernel refuses it: none of the CPUs may be used.
    pub fn bind(&self) -> io::Result<()> {
        let mut set = CpuSet::new();
        for cpu in self.iter().take_while(|&cpu| (cpu as usize) < CpuSet::MAX_CPU) {
            set.set(cpu as usize);
        }
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// The files of a host of two nodes. They are removed when it is dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("kvrail-numa-{name}-{}", std::process::id()));
            let tree = Self(root);
            tree.write("sys/devices/system/node/node0/cpulist", "0-95,192-287\n");
            tree.write("sys/devices/system/node/node1/cpulist", "96-191,288-383\n");
            tree.write("sys/devices/system/node/online", "0-1\n");
            tree.allow("0-383", "0-1");
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn allow(&self, cpus: &str, nodes: &str) {
            let text = format!("Name:\tx\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{nodes}\n");
            self.write("proc/thread-self/status", &text);
        }

        fn placed(&self, node: u8) -> String {
            match NodePlacement::of(&self.0, node) {
                Ok(Some(placed)) => format!("{}: {}", placed.node(), placed.cpus()),
                Ok(None) => "one node".into(),
                Err(why) => why.to_string(),
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn memory_comes_from_the_node_that_was_named_where_that_is_allowed() {
        let tree = Tree::new("allowed");
        assert_eq!([tree.placed(0), tree.placed(1)], ["0: 0-95,192-287", "1: 96-191,288-383"]);
        assert_eq!(tree.placed(2), "the CPUs of NUMA node 2 are not known");
        tree.allow("8-15,200-203", "0-1");
        assert_eq!(tree.placed(0), "0: 8-15,200-203");
        assert_eq!(tree.placed(1), "this process may not run on NUMA node 1");
        tree.allow("0-383", "0");
        assert_eq!(tree.placed(1), "this process gets no memory of NUMA node 1");
    }

    #[test]
    fn a_host_of_one_node_places_nothing_and_one_that_says_nothing_is_an_error() {
        let tree = Tree::new("one");
        fs::remove_dir_all(tree.0.join("sys/devices/system/node/node1")).unwrap();
        assert_eq!(tree.placed(0), "one node");
        assert_eq!(tree.placed(1), "the CPUs of NUMA node 1 are not known");
        fs::remove_dir_all(tree.0.join("sys")).unwrap();
        assert_eq!(tree.placed(0), "the CPUs of NUMA node 0 are not known");
    }

    #[test]
    fn work_runs_on_the_cpus_and_leaves_the_caller_where_it_was() {
        let mine = || status(Path::new("/"), "Cpus_allowed_list:");
        let Some(before) = mine() else {
            return eprintln!("SKIPPED: this system does not say on which CPUs a thread may run");
        };
        let first = before.iter().next().unwrap();
        let one = NumberList::parse(&first.to_string()).unwrap();
        let placed = NodePlacement::new(0, Some(&one), Some(&before), None).unwrap();
        assert_eq!(placed.run(mine).unwrap(), Some(one));
        assert_eq!(mine(), Some(before));
        let none = NodePlacement { node: 0, cpus: NumberList::parse("100000").unwrap() };
        assert!(none.run(|| panic!("it must not run elsewhere")).is_err());
    }
}
