//! On which CPUs a process runs that drives certain rails: those of the rails' NUMA node. Its
//! memory follows, because the kernel takes a page from the node of the thread that first touches
//! it.

use std::fmt;

use anyhow::Context;
use kvrail_host::numa::NodePlacement;
use serde::{Deserialize, Serialize};

use crate::machine::environment::Environment;
use crate::machine::environment::device::Device;
use crate::machine::environment::numbers::Numbers;
use crate::machine::environment::port::Port;

/// Where a process is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// On these CPUs of this node.
    Node { node: u32, cpus: Numbers },
    /// Nowhere, and why.
    Anywhere(String),
}

/// CPUs on which a process may run, as the kernel writes a list of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cpus(String);

impl Placement {
    /// The placement of a process that drives the rails with these names.
    pub(crate) fn of<'a>(facts: &Environment, rails: impl IntoIterator<Item = &'a str>) -> Self {
        let mut nodes = Vec::new();
        for rail in rails {
            let Some((device, _)) = find(facts, rail) else {
                return Self::Anywhere(format!("{rail} is no NIC port of this machine"));
            };
            match device.numa_node.get() {
                Ok(Some(node)) => nodes.push(*node),
                Ok(None) => return Self::Anywhere(format!("the NUMA node of {rail} is not known")),
                Err(why) => return Self::Anywhere(why.into()),
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        match nodes[..] {
            [] => Self::Anywhere("no rail has a NUMA node".into()),
            [node] => Self::on(facts, node),
            _ => Self::Anywhere(format!("its rails are on {} NUMA nodes", nodes.len())),
        }
    }

    /// The CPUs of the node on which this process may run.
    fn on(facts: &Environment, node: u32) -> Self {
        let nodes = match facts.numa.get() {
            Ok(nodes) => nodes,
            Err(why) => return Self::Anywhere(why.into()),
        };
        let cpus = nodes.iter().find(|found| found.node == node).and_then(|found| found.cpus.known());
        let (allowed, memory) = (facts.process.cpus.known(), facts.process.memory_nodes.known());
        match NodePlacement::new(
            node,
            cpus.map(|cpus| &**cpus),
            allowed.map(|cpus| &**cpus),
            memory.map(|nodes| &**nodes),
        ) {
            Ok(placed) => Self::Node { node, cpus: Numbers(placed.cpus().clone()) },
            Err(why) => Self::Anywhere(why.to_string()),
        }
    }

    /// The CPUs to which the process is bound.
    pub(crate) fn cpus(&self) -> Option<Cpus> {
        match self {
            Self::Node { cpus, .. } => Some(Cpus(cpus.to_string())),
            Self::Anywhere(_) => None,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node, cpus } => write!(f, "NUMA node {node}, CPUs {cpus}"),
            Self::Anywhere(why) => write!(f, "not bound: {why}"),
        }
    }
}

impl Cpus {
    /// The list.
    pub(crate) fn list(&self) -> &str {
        &self.0
    }

    /// Binds the calling thread, and those that it starts, to these CPUs.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub(crate) fn bind(&self) -> anyhow::Result<()> {
        let cpus = Numbers::parse(&self.0).with_context(|| format!("`{}` is no list of CPUs", self.0))?;
        cpus.bind().with_context(|| format!("cannot bind a process to CPUs {cpus}: give --numa off"))
    }
}

/// The device and the port that a rail's name means: `mlx5_0`, or `mlx5_0:2` for its second port.
pub(crate) fn find<'a>(facts: &'a Environment, rail: &str) -> Option<(&'a Device, &'a Port)> {
    let (name, port) = match rail.split_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (rail, 1),
    };
    let device = facts.devices.known()?.iter().find(|device| device.name == name)?;
    Some((device, device.ports.known()?.iter().find(|found| found.port == port)?))
}

/// The names of the ports that are up.
pub(crate) fn active_ports(facts: &Environment) -> Vec<String> {
    let devices = facts.devices.known().into_iter().flatten();
    devices
        .flat_map(|device| {
            let ports = device.ports.known().into_iter().flatten();
            let up = ports.filter(|port| port.active() == Some(true));
            up.map(|port| match port.port {
                1 => device.name.clone(),
                number => format!("{}:{number}", device.name),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::source::Source;
    use crate::machine::tree::{Tree, device, port};

    fn placed(tree: &Tree, rails: &[&str]) -> String {
        Placement::of(&Environment::read(&Source::at(&tree.root)), rails.iter().copied()).to_string()
    }

    #[test]
    fn a_process_goes_to_the_node_of_its_rails() {
        let tree = Tree::reference();
        assert_eq!(placed(&tree, &["mlx5_0"]), "NUMA node 0, CPUs 0-95,192-287");
        assert_eq!(placed(&tree, &["mlx5_4", "mlx5_7:1"]), "NUMA node 1, CPUs 96-191,288-383");
        assert_eq!(placed(&tree, &["mlx5_3", "mlx5_4"]), "not bound: its rails are on 2 NUMA nodes");
        assert_eq!(placed(&tree, &["shm0"]), "not bound: shm0 is no NIC port of this machine");
        assert_eq!(placed(&tree, &["mlx5_0:2"]), "not bound: mlx5_0:2 is no NIC port of this machine");
        tree.write(&format!("{}/numa_node", device(0)), "-1\n");
        assert_eq!(placed(&tree, &["mlx5_0"]), "not bound: the NUMA node of mlx5_0 is not known");
    }

    #[test]
    fn a_control_group_leaves_some_cpus_or_nodes() {
        let tree = Tree::reference();
        let allow = |cpus: &str, nodes: &str| {
            tree.write(
                "proc/self/status",
                format!("Name:\tx\nCapEff:\t0\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{nodes}\n"),
            );
        };
        allow("8-15,200-203", "0-1");
        assert_eq!(placed(&tree, &["mlx5_0"]), "NUMA node 0, CPUs 8-15,200-203");
        assert_eq!(placed(&tree, &["mlx5_4"]), "not bound: this process may not run on NUMA node 1");
        allow("0-383", "0");
        assert_eq!(placed(&tree, &["mlx5_4"]), "not bound: this process gets no memory of NUMA node 1");
    }

    #[test]
    fn ports_that_are_down_are_no_rails() {
        let tree = Tree::reference();
        let active = || active_ports(&Environment::read(&Source::at(&tree.root)));
        assert_eq!(active().len(), 8);
        tree.write(&format!("{}/state", port(1)), "1: DOWN\n");
        assert_eq!(active()[..2], ["mlx5_0", "mlx5_2"]);
    }

    #[test]
    fn a_thread_is_bound_to_the_cpus_of_a_list() {
        let here = Environment::read(&Source::at(std::path::Path::new("/")));
        let Some(first) = here.process.cpus.known().and_then(|cpus| cpus.iter().next()) else {
            return eprintln!("SKIPPED: this system does not say on which CPUs a process may run");
        };
        let bound = std::thread::spawn(move || {
            Cpus(first.to_string()).bind().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
        });
        assert_eq!(bound.join().unwrap(), first.to_string());
        let error = Cpus("100000".into()).bind().unwrap_err().to_string();
        assert!(error.contains("--numa off"), "{error}");
    }
}
