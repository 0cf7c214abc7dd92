//! The NUMA nodes: their CPUs, their memory, and how far they are from each other.

use serde::Serialize;

use super::numbers::Numbers;
use super::pages::{self, HugePages};
use crate::machine::fact::Fact;
use crate::machine::memory::kib;
use crate::machine::source::{Source, malformed};

const NODES: &str = "/sys/devices/system/node";

/// One node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Node {
    /// Its number.
    pub(crate) node: u32,
    /// Its CPUs. A node of memory alone has none.
    pub(crate) cpus: Fact<Numbers>,
    /// Its memory, in bytes.
    pub(crate) ram_bytes: Fact<u64>,
    /// What is free of it, in bytes.
    pub(crate) free_bytes: Fact<u64>,
    /// Huge pages that are set aside on it.
    pub(crate) huge_pages: Fact<Vec<HugePages>>,
    /// The distance to each node, in the order of nodes; 10 is its own memory.
    pub(crate) distances: Fact<Vec<u32>>,
}

/// The nodes of the machine.
///
/// # Errors
///
/// The kernel lists none.
pub(crate) fn read(source: &Source) -> Result<Vec<Node>, String> {
    let numbers = source.names(NODES)?;
    let numbers = numbers.iter().filter_map(|name| name.strip_prefix("node")?.parse::<u32>().ok());
    let nodes: Vec<_> = numbers.map(|node| read_node(source, node)).collect();
    if nodes.is_empty() { Err(format!("{NODES}: has no node")) } else { Ok(nodes) }
}

fn read_node(source: &Source, node: u32) -> Node {
    let at = format!("{NODES}/node{node}");
    let cpulist = format!("{at}/cpulist");
    let cpus = source.text(&cpulist, 64 << 10);
    let cpus = cpus.and_then(|text| {
        Numbers::parse(&text).ok_or_else(|| malformed(&cpulist, text.trim_end(), "list of CPUs"))
    });
    let meminfo = source.text(&format!("{at}/meminfo"), 64 << 10);
    // Each line begins with "Node 0 ", and continues like /proc/meminfo.
    let memory = |name: &str| -> Result<u64, String> {
        let text = meminfo.as_ref().map_err(String::clone)?;
        let label = format!("Node {node} ");
        let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(&label).unwrap_or(line)).collect();
        kib(&lines.join("\n"), name).ok_or_else(|| format!("{at}/meminfo: no line gives {name} in kB"))
    };
    let distances = source.parsed(&format!("{at}/distance"), "row of distances", |row| {
        row.split_whitespace().map(|distance| distance.parse().ok()).collect()
    });
    Node {
        node,
        cpus: cpus.into(),
        ram_bytes: memory("MemTotal").into(),
        free_bytes: memory("MemFree").into(),
        huge_pages: pages::read(source, &format!("{at}/hugepages")).into(),
        distances: distances.into(),
    }
}
