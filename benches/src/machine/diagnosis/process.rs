//! The checks of what this process may have: locked memory, CPUs near its NICs, huge pages, and
//! what its control groups leave it.

use std::collections::BTreeMap;

use bytesize::ByteSize;

use super::verdict::{Check, Verdict};
use crate::machine::environment::Environment;
use crate::machine::environment::device::Device;
use crate::machine::environment::process::Bound;
use crate::machine::environment::system::System;

/// As much memory may be locked as the machine has.
pub(crate) fn locked_memory(facts: &Environment) -> Vec<Verdict> {
    let mut check = Check::new("locked memory");
    let exempt = facts.process.may_lock_all.known() == Some(&true);
    let mut seen = String::new();
    if let Some(&bound) = check.need(facts.process.locked_memory.get()) {
        seen = if exempt { format!("{bound}, and CAP_IPC_LOCK lifts it") } else { bound.to_string() };
        // A limit beyond the machine's memory limits nothing.
        let ram = facts.system.ram_bytes.known().copied().unwrap_or(u64::MAX);
        if let Bound::Bytes(bytes) = bound
            && bytes < ram
            && !exempt
        {
            check.finding(
                format!("{bound} at most, and memory that is registered is locked"),
                "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1)",
            );
        }
    }
    check.end(|| seen)
}

/// This process may run, and have memory, on the NUMA node of each NIC.
pub(crate) fn numa(facts: &Environment, devices: &[Device]) -> Vec<Verdict> {
    let mut check = Check::new("NUMA node");
    let Some(nodes) = check.need(facts.numa.get()) else { return check.end(String::new) };
    if nodes.len() == 1 {
        return check.end(|| "the machine has one".into());
    }
    let mut by_node: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for device in devices.iter().filter(|device| device.pcie.is_some()) {
        match check.need(device.numa_node.get()) {
            Some(Some(node)) => by_node.entry(*node).or_default().push(&device.name),
            Some(None) => {
                check.unknown(format!("{}: the machine does not say on which node it is", device.name))
            }
            None => {}
        }
    }
    let cpus = check.need(facts.process.cpus.get());
    let memory = check.need(facts.process.memory_nodes.get());
    for (&number, names) in &by_node {
        let names = names.join(", ");
        let Some(node) = nodes.iter().find(|node| node.node == number) else {
            check.unknown(format!("{names}: node {number} is not listed"));
            continue;
        };
        let Some(near) = check.need(node.cpus.get()) else { continue };
        let bind = format!("numactl --cpunodebind={number} --membind={number} kvrail-bench ...");
        if let Some(cpus) = cpus
            && !cpus.meets(near)
        {
            let what = format!("{names}: on node {number}, and this process may run on CPUs {cpus} only");
            check.finding(what, format!("{bind} (docker: --cpuset-cpus={near})"));
        } else if let Some(memory) = memory
            && !memory.has(number)
        {
            let what =
                format!("{names}: on node {number}, and this process gets memory of nodes {memory} only");
            check.finding(what, format!("{bind} (docker: --cpuset-mems={number})"));
        }
    }
    check.end(|| "this process may run near each NIC".into())
}

/// Memory to read into, and memory that is published, can be in huge pages.
pub(crate) fn huge_pages(system: &System) -> Vec<Verdict> {
    let mut check = Check::new("huge pages");
    let own = check.need(system.transparent_huge_pages.get());
    if own.is_some_and(|choice| choice == "never") {
        check.finding(
            "transparent huge pages are off for memory to read into: it is in small pages",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        );
    }
    let shared = check.need(system.transparent_shared.get());
    if shared.is_some_and(|choice| ["never", "deny"].contains(&choice.as_str())) {
        check.finding(
            "transparent huge pages are off for shared memory, which kvrail publishes: it is in small pages",
            "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        );
    }
    check.end(|| {
        let word = |choice: Option<&String>| choice.cloned().unwrap_or_default();
        format!("transparent: {}, shared memory: {}", word(own), word(shared))
    })
}

/// The word that lifts a limit of a control group, in the version that has this file.
fn lifted(file: &str) -> &'static str {
    if file.ends_with("memory.limit_in_bytes") || file.ends_with("cpu.cfs_quota_us") { "-1" } else { "max" }
}

/// No control group leaves this process less memory than the machine has.
pub(crate) fn memory_limit(facts: &Environment) -> Vec<Verdict> {
    let mut check = Check::new("memory limit");
    let limit = check.need(facts.process.memory_limit.get());
    if let Some(Some(limit)) = limit
        && let Some(&ram) = check.need(facts.system.ram_bytes.get())
        && limit.bytes < ram
    {
        let size = |bytes| ByteSize::b(bytes).display().iec();
        check.finding(
            format!("{} allows {} of {}", limit.file, size(limit.bytes), size(ram)),
            format!(
                "echo {} > {} (docker: --memory; Kubernetes: resources.limits.memory)",
                lifted(&limit.file),
                limit.file
            ),
        );
    }
    check.end(|| "none".into())
}

/// No control group leaves this process less CPU time than the CPUs on which it may run have.
pub(crate) fn cpu_quota(facts: &Environment) -> Vec<Verdict> {
    let mut check = Check::new("CPU quota");
    let quota = check.need(facts.process.cpu_quota.get());
    if let Some(Some(quota)) = quota
        && let Some(cpus) = check.need(facts.process.cpus.get())
        && quota.cores < cpus.count() as f64
    {
        check.finding(
            format!("{} allows {:.2} of {} CPUs", quota.file, quota.cores, cpus.count()),
            format!(
                "echo {} > {} (docker: --cpus; Kubernetes: resources.limits.cpu)",
                lifted(&quota.file),
                quota.file
            ),
        );
    }
    check.end(|| "none".into())
}
