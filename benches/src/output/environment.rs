//! The facts about the machine, and their diagnosis, for people.

use bytesize::ByteSize;
use serde_json::Value;

use crate::machine::diagnosis::verdict::{Outcome, Verdict};
use crate::machine::environment::Environment;
use crate::machine::environment::device::Device;
use crate::machine::environment::numa::Node;
use crate::machine::environment::pages::HugePages;
use crate::machine::environment::process::Process;
use crate::machine::environment::system::System;
use crate::machine::fact::Fact;
use crate::output::grid::{grid, printable};

/// All facts as tables that fit 80 columns. The reasons for what is unknown stand at the end.
pub(crate) fn table(facts: &Environment) -> String {
    let mut text = grid(&[], &machine(facts));
    if let Fact::Known(nodes) = &facts.numa {
        text += &titled(&["node", "CPUs", "memory", "free", "huge pages", "distances"], &numa(nodes));
    }
    if let Fact::Known(devices) = &facts.devices
        && !devices.is_empty()
    {
        let heads = ["device", "port", "state", "link", "Gb/s", "MTU", "packet", "node", "PCIe", "GB/s"];
        text += &titled(&heads, &links(devices));
        let heads = ["device", "netdev", "type", "board", "firmware", "driver"];
        text += &titled(&heads, &boards(devices));
        text += &titled(&["port", "GID", "address", "protocol", "use"], &gids(devices));
    }
    let reasons = reasons(facts);
    if !reasons.is_empty() {
        text += &titled(&["unknown", "reason"], &reasons);
    }
    text
}

fn titled(heads: &[&str], rows: &[Vec<String>]) -> String {
    format!("\n{}", grid(heads, rows))
}

fn size(bytes: &u64) -> String {
    ByteSize::b(*bytes).display().iec().to_string()
}

/// `2.0 MiB: 512 of 1024 free`
fn huge_pages(all: &[HugePages]) -> String {
    let some = all.iter().filter(|pages| pages.pages > 0);
    let some: Vec<_> = some
        .map(|pages| format!("{}: {} of {} free", size(&pages.page_bytes), pages.free, pages.pages))
        .collect();
    if some.is_empty() { "none set aside".into() } else { some.join("; ") }
}

fn machine(facts: &Environment) -> Vec<Vec<String>> {
    let Environment { system, process, gpu, devices, numa } = facts;
    let mut rows = system_rows(system);
    rows.extend(process_rows(process));
    let nodes = numa.brief(|nodes| nodes.len().to_string());
    let devices = devices.brief(|devices| match devices.len() {
        0 => "none".into(),
        count => count.to_string(),
    });
    let driver = gpu.driver.brief(|driver| driver.as_ref().map_or("none".into(), |v| format!("NVIDIA {v}")));
    rows.extend([("NUMA nodes", nodes), ("RDMA devices", devices), ("GPU driver", driver)]);
    for gpu in gpu.devices.known().into_iter().flatten() {
        let node = gpu.numa_node.brief(|node| node.map_or("unknown".into(), |node| node.to_string()));
        rows.push(("GPU", format!("{}, {}, node {node}", gpu.pci, gpu.model.brief(String::clone))));
    }
    rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect()
}

fn system_rows(system: &System) -> Vec<(&'static str, String)> {
    let words = |fact: &Fact<String>| fact.brief(String::clone);
    let list = |fact: &Fact<Vec<String>>| {
        fact.brief(|all| if all.is_empty() { "none".into() } else { all.join(", ") })
    };
    let available = system.available_bytes.brief(size);
    vec![
        ("kernel", words(&system.kernel)),
        ("processor", words(&system.cpu)),
        ("CPUs", system.cpus.brief(|cpus| format!("{} ({cpus})", cpus.count()))),
        ("memory", format!("{}, {available} available", system.ram_bytes.brief(size))),
        ("huge pages", system.huge_pages.brief(|all| huge_pages(all))),
        (
            "transparent",
            format!(
                "{}, shared memory: {}",
                words(&system.transparent_huge_pages),
                words(&system.transparent_shared)
            ),
        ),
        ("libibverbs", words(&system.libibverbs)),
        ("modules", list(&system.modules)),
        ("device files", list(&system.uverbs)),
    ]
}

fn process_rows(process: &Process) -> Vec<(&'static str, String)> {
    let lock = if process.may_lock_all.known() == Some(&true) { " (CAP_IPC_LOCK lifts it)" } else { "" };
    let memory = process.memory_limit.brief(|limit| {
        limit.as_ref().map_or("none".into(), |limit| format!("{} ({})", size(&limit.bytes), limit.file))
    });
    let quota = process.cpu_quota.brief(|quota| {
        quota.as_ref().map_or("none".into(), |quota| format!("{:.2} CPUs ({})", quota.cores, quota.file))
    });
    let (cpus, nodes) =
        (process.cpus.brief(ToString::to_string), process.memory_nodes.brief(ToString::to_string));
    vec![
        ("may run on", format!("CPUs {cpus}, with memory of nodes {nodes}")),
        ("locked memory", format!("{}{lock}", process.locked_memory.brief(ToString::to_string))),
        ("memory limit", memory),
        ("CPU quota", quota),
    ]
}

fn numa(nodes: &[Node]) -> Vec<Vec<String>> {
    let row = |node: &Node| {
        let distances = |all: &Vec<u32>| all.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        vec![
            node.node.to_string(),
            node.cpus.brief(ToString::to_string),
            node.ram_bytes.brief(size),
            node.free_bytes.brief(size),
            node.huge_pages.brief(|all| huge_pages(all)),
            node.distances.brief(distances),
        ]
    };
    nodes.iter().map(row).collect()
}

fn links(devices: &[Device]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for device in devices {
        let node = device.numa_node.brief(|node| node.map_or("-".into(), |node| node.to_string()));
        let (link, carries) = match &device.pcie {
            None => ("-".into(), "-".into()),
            Some(pcie) => (
                format!("{} x{}", pcie.gt_per_s.brief(ToString::to_string), pcie.width.brief(u32::to_string)),
                pcie.gb_per_s.brief(|gb| format!("{gb:.1}")),
            ),
        };
        for port in device.ports.known().into_iter().flatten() {
            rows.push(vec![
                device.name.clone(),
                port.port.to_string(),
                port.state.brief(String::clone),
                port.link.brief(String::clone),
                port.gbit_per_s.brief(f64::to_string),
                port.netdev_mtu.brief(u32::to_string),
                port.packet_bytes.brief(u32::to_string),
                node.clone(),
                link.clone(),
                carries.clone(),
            ]);
        }
    }
    rows
}

fn boards(devices: &[Device]) -> Vec<Vec<String>> {
    let row = |device: &Device| {
        let ports = device.ports.known().into_iter().flatten();
        let netdevs: Vec<_> = ports.map(|port| port.netdev.brief(String::clone)).collect();
        let version = device.driver_version.known().map(|version| format!(" {version}"));
        vec![
            device.name.clone(),
            netdevs.join(" "),
            device.hca_type.brief(String::clone),
            device.board.brief(String::clone),
            device.firmware.brief(String::clone),
            device.driver.brief(String::clone) + &version.unwrap_or_default(),
        ]
    };
    devices.iter().map(row).collect()
}

fn gids(devices: &[Device]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for device in devices {
        for port in device.ports.known().into_iter().flatten() {
            for gid in port.gids.known().into_iter().flatten() {
                rows.push(vec![
                    format!("{}/{}", device.name, port.port),
                    gid.index.to_string(),
                    gid.gid.clone().unwrap_or("unknown".into()),
                    gid.protocol.clone().unwrap_or("unknown".into()),
                    format!("{}: {}", gid.role.label(), gid.why),
                ]);
            }
        }
    }
    rows
}

/// Everything that is unknown in the JSON of the facts, by its path there, with the reason.
fn reasons(facts: &Environment) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    collect(&serde_json::to_value(facts).unwrap_or_default(), "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            if let (1, Some(Value::String(why))) = (fields.len(), fields.get("unknown")) {
                found.push(vec![path.into(), why.clone()]);
                return;
            }
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                collect(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                // What has a name or a number of its own is called by it.
                let own = ["name", "node", "port", "pci", "index"].iter().find_map(|key| item.get(key));
                let own = match own {
                    Some(Value::String(name)) => name.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => at.to_string(),
                };
                collect(item, &format!("{path}[{own}]"), found);
            }
        }
        _ => {}
    }
}

/// A line for each verdict.
pub(crate) fn verdicts(all: &[Verdict]) -> String {
    let line = |verdict: &Verdict| {
        let (mark, text) = match &verdict.outcome {
            Outcome::Fine(seen) => ("ok", seen.clone()),
            Outcome::Finding { what, mend } => ("WRONG", format!("{what}. Mend: {mend}")),
            Outcome::Unknown(why) => ("unknown", why.clone()),
        };
        format!("{mark:<7}  {:<13}  {}\n", verdict.check, printable(&text))
    };
    all.iter().map(line).collect()
}
