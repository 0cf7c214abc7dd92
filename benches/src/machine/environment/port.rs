//! A port of an RDMA device.

use serde::Serialize;

use super::gids::{self, GidRow, Role};
use super::interfaces::Interfaces;
use crate::machine::fact::Fact;
use crate::machine::source::Source;

/// What RoCE needs of an Ethernet frame besides the data of a packet, by the kernel's reckoning:
/// the route header (40), UDP (8), the transport headers (12, 4 and 28) and a checksum (4).
const ROCE_HEADERS: u32 = 96;

/// A port, and what its link is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Port {
    /// Its number; the first is 1.
    pub(crate) port: u32,
    /// Its state, as `ACTIVE` or `DOWN`.
    pub(crate) state: Fact<String>,
    /// The state of its link, as `LinkUp` or `Disabled`.
    pub(crate) physical: Fact<String>,
    /// `Ethernet` (RoCE) or `InfiniBand`.
    pub(crate) link: Fact<String>,
    /// The rate of its link, in Gb/s.
    pub(crate) gbit_per_s: Fact<f64>,
    /// The address that InfiniBand's subnet manager gave it; null on Ethernet.
    pub(crate) lid: Fact<Option<u16>>,
    /// Its network interface.
    pub(crate) netdev: Fact<String>,
    /// The MTU of that interface, in bytes.
    pub(crate) netdev_mtu: Fact<u32>,
    /// The most data of a packet, in bytes.
    pub(crate) packet_bytes: Fact<u32>,
    /// The entries of its GID table that are not empty.
    pub(crate) gids: Fact<Vec<GidRow>>,
}

impl Port {
    /// The port number `port` of the device at `device`, a folder in sysfs.
    pub(crate) fn read(source: &Source, device: &str, port: u32, interfaces: &Interfaces) -> Self {
        let at = format!("{device}/ports/{port}");
        // A state is written as its number and its name: `4: ACTIVE`.
        let state = |file: &str| {
            let name = |text: &str| Some(text.split_once(": ")?.1.to_owned());
            source.parsed(&format!("{at}/{file}"), "state of a port", name)
        };
        let link = source.parsed(&format!("{at}/link_layer"), "link layer", |text| {
            ["Ethernet", "InfiniBand"].contains(&text).then(|| text.to_owned())
        });
        let infiniband = link.as_ref().is_ok_and(|link| link == "InfiniBand");
        // `400 Gb/sec (4X NDR)`
        let rate = source.parsed(&format!("{at}/rate"), "rate of a link", |text| {
            let rate = text.split_once(" Gb/sec")?.0.parse::<f64>().ok()?;
            (rate.is_finite() && rate > 0.0).then_some(rate)
        });
        let lid = source.parsed(&format!("{at}/lid"), "LID", |text| {
            u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        });
        let gids = gids::read(source, &at, infiniband, interfaces);
        let netdev = netdev(source, device, port, &gids);
        let netdev_mtu = match &netdev {
            Ok(name) => interfaces.mtu(name),
            Err(why) => Fact::Unknown(why.clone()),
        };
        let packet_bytes = match &netdev_mtu {
            _ if infiniband => Err("sysfs does not have it for InfiniBand: run ibv_devinfo".into()),
            Fact::Known(mtu) => roce_packet(*mtu).ok_or(format!("an MTU of {mtu} carries no RoCE packet")),
            Fact::Unknown(why) => Err(why.clone()),
        };
        Self {
            port,
            state: state("state").into(),
            physical: state("phys_state").into(),
            lid: if infiniband { lid.map(Some).into() } else { Fact::Known(None) },
            link: link.into(),
            gbit_per_s: rate.into(),
            netdev: netdev.into(),
            netdev_mtu,
            packet_bytes: packet_bytes.into(),
            gids: gids.into(),
        }
    }

    /// Whether the port is up. `None`: it is not known.
    pub(crate) fn active(&self) -> Option<bool> {
        self.state.known().map(|state| state == "ACTIVE")
    }

    /// Whether its link is Ethernet. `false` also where it is not known.
    pub(crate) fn is_ethernet(&self) -> bool {
        self.link.known().is_some_and(|link| link == "Ethernet")
    }

    /// The entry of the GID table that is used.
    pub(crate) fn used(&self) -> Option<&GidRow> {
        self.gids.known()?.iter().find(|row| row.role == Role::Used)
    }
}

/// The most data of a RoCE packet on an interface with this MTU: a power of two from 256 to 4096.
fn roce_packet(mtu: u32) -> Option<u32> {
    let room = mtu.checked_sub(ROCE_HEADERS)?;
    [4096, 2048, 1024, 512, 256].into_iter().find(|&bytes| bytes <= room)
}

/// The network interface behind a port: the one of the GID that is used, or of any GID, or else the
/// one that its PCI device has, if it has a single one.
fn netdev(
    source: &Source,
    device: &str,
    port: u32,
    gids: &Result<Vec<GidRow>, String>,
) -> Result<String, String> {
    let rows = gids.iter().flatten();
    let best = rows.filter(|row| row.netdev.is_some()).min_by_key(|row| match row.role {
        Role::Used => 0,
        Role::Spare => 1,
        Role::Rejected => 2,
    });
    if let Some(name) = best.and_then(|row| row.netdev.clone()) {
        return Ok(name);
    }
    let folder = format!("{device}/device/net");
    match &*source.names(&folder)? {
        [only] => Ok(only.clone()),
        all => Err(format!("{folder}: has {} interfaces, and no GID names that of port {port}", all.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_leaves_room_for_a_packet() {
        assert_eq!([9000, 4192, 4191, 1500, 352].map(roce_packet), [4096, 4096, 2048, 1024, 256].map(Some));
        assert_eq!([351, 95, 0].map(roce_packet), [None; 3]);
    }
}
