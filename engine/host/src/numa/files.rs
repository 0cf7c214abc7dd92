//! The files of the system that tell of NUMA nodes and of what a thread may use.

use std::fs;
use std::path::Path;

use super::list::NumberList;

/// The file with what the calling thread may use.
const STATUS: &str = "proc/thread-self/status";
/// The folder with a folder for each node.
const NODES: &str = "sys/devices/system/node";

/// The list of this name in the status of the calling thread.
pub(super) fn status(root: &Path, name: &str) -> Option<NumberList> {
    let status = fs::read_to_string(root.join(STATUS)).ok()?;
    NumberList::parse(status.lines().find_map(|line| line.strip_prefix(name))?)
}

/// The nodes of the host, each with its CPUs.
pub(super) fn nodes(root: &Path) -> Option<Vec<(u8, NumberList)>> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir(root.join(NODES)).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let node = name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<u8>().ok());
        let Some(node) = node else { continue };
        let cpus = fs::read_to_string(entry.path().join("cpulist")).ok()?;
        nodes.push((node, NumberList::parse(&cpus)?));
    }
    Some(nodes)
}
