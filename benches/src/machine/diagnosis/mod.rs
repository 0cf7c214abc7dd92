//! The facts about the machine, judged: what would make reads slow or fail, and how to mend it.

pub(crate) mod devices;
pub(crate) mod peers;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod verdict;

use crate::machine::environment::Environment;
use verdict::{Check, Verdict};

/// All verdicts, one line or more for each check. The checks of RDMA are left out where there is no
/// device.
pub(crate) fn judge(facts: &Environment) -> Vec<Verdict> {
    let mut all = Vec::new();
    let mut check = Check::new("RDMA devices");
    match facts.devices.get() {
        Err(why) => check.unknown(why),
        Ok(devices) if devices.is_empty() => check.finding(
            "this host has no RDMA device: the transports shm and tcp work, verbs does not",
            "modprobe mlx5_ib (or the driver of your NIC; `lspci -nn` shows which NIC there is)",
        ),
        Ok(_) => {}
    }
    let devices = facts.devices.known().map(Vec::as_slice).unwrap_or_default();
    all.extend(check.end(|| devices.iter().map(|device| &*device.name).collect::<Vec<_>>().join(", ")));
    if !devices.is_empty() {
        all.extend(devices::library(&facts.system));
        all.extend(devices::uverbs(&facts.system));
        all.extend(devices::device_files(&facts.system));
        all.extend(process::locked_memory(facts));
        all.extend(ports::state(devices));
        all.extend(ports::rate(devices));
        all.extend(ports::mtu(devices));
        all.extend(ports::gid(devices));
        all.extend(devices::pcie(devices));
        all.extend(process::numa(facts, devices));
        all.extend(devices::gpu(facts));
    }
    all.extend(process::huge_pages(&facts.system));
    all.extend(process::memory_limit(facts));
    all.extend(process::cpu_quota(facts));
    all
}
