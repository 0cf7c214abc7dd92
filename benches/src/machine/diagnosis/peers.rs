//! What differs between two hosts that is to be the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::verdict::{Check, Outcome, Verdict};

/// The most characters of a peer's text that a line repeats.
const QUOTED: usize = 80;

/// The verdicts about this host's facts and those of a peer, both as `env --json` writes them.
pub(crate) fn compare(own: &Value, peer: &Value) -> Vec<Verdict> {
    let mut all = Vec::new();
    if ports(own).is_empty() || ports(peer).is_empty() {
        let mut check = Check::new("peer ports");
        match (ports(own).is_empty(), ports(peer).is_empty()) {
            (true, true) => {}
            (own, _) => check.finding(
                format!("{} has no RDMA port that is up", if own { "this host" } else { "the peer" }),
                "kvrail-bench doctor, on that host",
            ),
        }
        all.extend(check.end(|| "neither host has one".into()));
    } else {
        let count = |facts| BTreeSet::from([ports(facts).len().to_string()]);
        all.extend(same("peer ports", count(own), count(peer), "give --rails the same ports on both"));
        for (name, field, mend) in [
            ("peer link", "link", "read between ports of one kind"),
            ("peer rate", "gbit_per_s", "mlxlink -d DEVICE (cable, switch port); the slower port bounds"),
            ("peer packet", "packet_bytes", "ip link set dev INTERFACE mtu 4200, on the host that has less"),
        ] {
            let of = |facts| ports(facts).iter().map(|port| words(&port[field])).collect();
            all.extend(same(name, of(own), of(peer), mend));
        }
        let protocol = |facts| ports(facts).iter().map(|port| protocol(port)).collect();
        let mend = "give the interface an IPv4 address (ip addr add ...), or --gid-index";
        all.extend(same("peer GID", protocol(own), protocol(peer), mend));
    }
    // These may differ without harm, and are the first question when one host is slower.
    for (name, path) in [
        ("peer kernel", "/system/kernel"),
        ("peer library", "/system/libibverbs"),
        ("peer CPU", "/system/cpu"),
    ] {
        all.push(noted(name, &[own, peer].map(|facts| words(facts.pointer(path).unwrap_or(&Value::Null)))));
    }
    for (name, field) in [("peer firmware", "firmware"), ("peer driver", "driver_version")] {
        let of = |facts: &Value| {
            let devices = facts["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
            let all: BTreeSet<_> = devices.iter().map(|device| words(&device[field])).collect();
            all.into_iter().collect::<Vec<_>>().join(" ")
        };
        all.push(noted(name, &[of(own), of(peer)]));
    }
    all
}

/// The ports that are up.
fn ports(facts: &Value) -> Vec<&Value> {
    let devices = facts["devices"].as_array().into_iter().flatten();
    let ports = devices.flat_map(|device| device["ports"].as_array().into_iter().flatten());
    ports.filter(|port| port["state"] == "ACTIVE").collect()
}

/// The protocol of the GID that a port uses.
fn protocol(port: &Value) -> String {
    let gids = port["gids"].as_array().into_iter().flatten();
    let used = gids.into_iter().find(|gid| gid["role"] == "used");
    used.map_or("none".into(), |gid| words(&gid["protocol"]))
}

/// A value in words. A reason for an unknown one would differ without meaning.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(QUOTED).collect(),
        Value::Number(number) => number.to_string(),
        _ => "unknown".into(),
    }
}

/// A finding where the two hosts differ.
fn same(name: &'static str, own: BTreeSet<String>, peer: BTreeSet<String>, mend: &str) -> Vec<Verdict> {
    let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(" ");
    let mut check = Check::new(name);
    if own.contains("unknown") || peer.contains("unknown") {
        check.unknown(format!("here {}, there {}", list(&own), list(&peer)));
    } else if own != peer {
        check.finding(format!("{} here, {} there", list(&own), list(&peer)), mend);
    }
    check.end(|| list(&own))
}

fn noted(name: &'static str, [own, peer]: &[String; 2]) -> Verdict {
    let seen =
        if own == peer { own.clone() } else { format!("differs, without harm: {own} here, {peer} there") };
    Verdict { check: name, outcome: Outcome::Fine(seen) }
}
