//! The checks of ports: state, rate, MTU and address.

use std::collections::BTreeMap;

use kvrail_host::gid::GidKind;

use super::verdict::{Check, Verdict};
use crate::machine::environment::device::Device;
use crate::machine::environment::gids::GidRow;
use crate::machine::environment::port::Port;

/// The MTU that a packet of 4096 bytes needs, rounded up as administrators do.
const MTU: u32 = 4200;

/// Every port, with the name by which rails are configured: `mlx5_0/1`.
fn all(devices: &[Device]) -> impl Iterator<Item = (&Device, &Port, String)> {
    devices.iter().flat_map(|device| {
        let ports = device.ports.known().into_iter().flatten();
        ports.map(move |port| (device, port, format!("{}/{}", device.name, port.port)))
    })
}

/// The ports that are up. One that is down is a finding of its own, and has neither rate nor
/// address.
fn active(devices: &[Device]) -> impl Iterator<Item = (&Device, &Port, String)> {
    all(devices).filter(|(_, port, _)| port.active() == Some(true))
}

/// The interface's name, to write into a command.
fn interface(port: &Port) -> &str {
    port.netdev.known().map_or("INTERFACE", String::as_str)
}

/// Ports are up.
pub(crate) fn state(devices: &[Device]) -> Vec<Verdict> {
    let mut check = Check::new("port state");
    let mut count = 0;
    for device in devices {
        if let Some(ports) = check.need(device.ports.get())
            && ports.is_empty()
        {
            check.unknown(format!("{}: has no port", device.name));
        }
    }
    for (_, port, name) in all(devices) {
        count += 1;
        let Some(state) = check.need(port.state.get()) else { continue };
        if port.active() == Some(true) {
            continue;
        }
        let mend = match (port.is_ethernet(), state.as_str()) {
            (true, _) => format!("ip link set dev {} up; then check cable and switch", interface(port)),
            // An InfiniBand port with a link waits in this state for its subnet manager.
            (false, "INIT" | "ARMED") => {
                "systemctl start opensm (or another subnet manager of the fabric)".into()
            }
            (false, _) => format!("check cable and switch; ibportstate -D 0 {} enable", port.port),
        };
        let physical = port.physical.known().map(|link| format!(" ({link})")).unwrap_or_default();
        check.finding(format!("{name} is {state}{physical}"), mend);
    }
    check.end(|| match count {
        1 => "1 port, ACTIVE".into(),
        count => format!("{count} ports, all ACTIVE"),
    })
}

/// Ports of one kind of board run at one rate.
pub(crate) fn rate(devices: &[Device]) -> Vec<Verdict> {
    let mut check = Check::new("port rate");
    let mut best: BTreeMap<&str, f64> = BTreeMap::new();
    let mut seen = Vec::new();
    for (device, port, name) in active(devices) {
        let Some(&rate) = check.need(port.gbit_per_s.get()) else { continue };
        // Boards that are not known are compared with each other.
        let board = device.board.known().map_or("", String::as_str);
        let most = best.entry(board).or_insert(rate);
        *most = most.max(rate);
        seen.push((board, rate, port, name));
    }
    for (board, rate, port, name) in &seen {
        let most = best[board];
        if *rate < most {
            check.finding(
                format!("{name} runs at {rate} Gb/s, and others of its board at {most} Gb/s"),
                format!("check cable and switch port; ethtool {} shows what was negotiated", interface(port)),
            );
        }
    }
    check.end(|| {
        let rates: Vec<_> = best.values().map(|rate| format!("{rate} Gb/s")).collect();
        if rates.is_empty() { "no port is up".into() } else { rates.join(", ") }
    })
}

/// Ethernet ports have one MTU, with room for the largest packet.
pub(crate) fn mtu(devices: &[Device]) -> Vec<Verdict> {
    let mut check = Check::new("MTU");
    let mut seen = Vec::new();
    for (_, port, name) in active(devices).filter(|(_, port, _)| port.is_ethernet()) {
        if let Some(&mtu) = check.need(port.netdev_mtu.get()) {
            seen.push((mtu, port, name));
        }
    }
    let most = seen.iter().map(|(mtu, ..)| *mtu).max();
    let mut differ = false;
    for (mtu, port, name) in &seen {
        if let Some(most) = most.filter(|most| mtu < most) {
            differ = true;
            check.finding(
                format!("{name} has {mtu}, and others have {most}: a path has the lower one"),
                format!("ip link set dev {} mtu {most}", interface(port)),
            );
        }
    }
    if let Some((mtu, port, _)) = seen.first()
        && !differ
        && let Some(&bytes) = port.packet_bytes.known()
        && bytes < 4096
    {
        check.finding(
            format!("the ports have {mtu}, so packets carry {bytes} bytes and could carry 4096"),
            format!("ip link set dev {} mtu {MTU}, for each port and in the switch", interface(port)),
        );
    }
    check.end(|| most.map_or("no Ethernet port is up".into(), |most| format!("{most} on each Ethernet port")))
}

/// Each port has an address that a peer can reach.
pub(crate) fn gid(devices: &[Device]) -> Vec<Verdict> {
    let mut check = Check::new("GID");
    let mut kinds = Vec::new();
    for (_, port, name) in active(devices) {
        if check.need(port.gids.get()).is_none() {
            continue;
        }
        let mend = || match port.is_ethernet() {
            true => format!("ip addr add ADDRESS/PREFIX dev {}", interface(port)),
            false => "systemctl restart opensm (the subnet manager gives the address)".into(),
        };
        match port.used() {
            None => check.finding(format!("{name} has no address that can be used"), mend()),
            Some(row) if reaches_one_segment(row) => {
                let address = row.gid.as_deref().unwrap_or_default();
                check.finding(
                    format!("{name} has only GID {} ({address}), which no router forwards", row.index),
                    mend(),
                );
            }
            Some(row) => kinds.extend(row.kind.filter(|kind| !kinds.contains(kind))),
        }
    }
    check.end(|| {
        let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        if kinds.is_empty() { "no port is up".into() } else { kinds.join(", ") }
    })
}

/// Whether packets of this address stay in one layer-2 segment.
fn reaches_one_segment(row: &GidRow) -> bool {
    let local = row.gid.as_deref().is_some_and(|gid| gid.starts_with("169.254."));
    local || matches!(row.kind, Some(GidKind::RoceV2LinkLocal | GidKind::RoceV1))
}
