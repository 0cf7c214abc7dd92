//! A port: its state, how much its link carries, and which addresses it has.
#![allow(unsafe_code, reason = "libibverbs")]

use std::mem;

use bitflags::bitflags;
use rdma_mummy_sys as sys;

use super::context::Context;
use super::gid::{self, Gid, GidEntry, GidOwner, GidSelection, GidType};
use super::interfaces::Interfaces;
use crate::config::VerbsConfig;
use crate::error::{Errno, RailError};
use crate::wire::{LinkLayer, Mtu};

bitflags! {
    /// The `flags` of `struct ibv_port_attr`. Bits without a name are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct PortFlags: u8 {
        /// `IBV_QPF_GRH_REQUIRED`: packets need a global route header.
        const GRH_REQUIRED = 1;
    }
}

/// Entries of a GID table that are looked at. mlx5 has 256.
const MAX_GIDS: usize = 1024;

/// What a port is, at the time of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortInfo {
    pub(crate) link: LinkLayer,
    pub(crate) active: bool,
    pub(crate) state: &'static str,
    pub(crate) mtu: Mtu,
    pub(crate) lid: u16,
    pub(crate) needs_grh: bool,
    /// The rate at which the link signals, in bits per second.
    pub(crate) bits_per_sec: u64,
}

impl PortInfo {
    /// The most payload that the link carries, in bytes per second: the rate less the headers of
    /// full packets. That is 49.0 GB/s for 400 Gb/s RoCE with 4096 bytes per packet.
    pub(crate) fn bytes_per_sec(&self) -> u64 {
        let overhead = match self.link {
            // Preamble, gap, Ethernet, IPv4, UDP, BTH, ICRC, FCS.
            LinkLayer::Ethernet => 8 + 12 + 14 + 20 + 8 + 12 + 4 + 4,
            // LRH, BTH, ICRC, VCRC.
            LinkLayer::InfiniBand => 8 + 12 + 4 + 2,
        };
        let mtu = u64::from(self.mtu.bytes());
        (u128::from(self.bits_per_sec / 8) * u128::from(mtu) / u128::from(mtu + overhead)) as u64
    }
}

/// Queries the port. A port that is down is no error here.
pub(crate) fn query(context: &Context, port: u8) -> Result<PortInfo, RailError> {
    // SAFETY: integers, for which zero is a value.
    let mut attr: sys::ibv_port_attr = unsafe { mem::zeroed() };
    // SAFETY: an open context, and a local that is as long as the function is told.
    let errno = unsafe { sys::ibv_query_port(context.as_ptr(), port, &raw mut attr) };
    context.check("ibv_query_port", errno)?;
    let link = match attr.link_layer {
        // 0 is "unspecified": InfiniBand drivers of the time before RoCE say that.
        0 | 1 => LinkLayer::InfiniBand,
        _ => LinkLayer::Ethernet,
    };
    Ok(PortInfo {
        link,
        active: attr.state == sys::ibv_port_state::IBV_PORT_ACTIVE,
        state: state(attr.state),
        // A port that is not up may report none.
        mtu: Mtu::from_code(attr.active_mtu).unwrap_or(Mtu::B1024),
        lid: attr.lid,
        needs_grh: link == LinkLayer::Ethernet
            || PortFlags::from_bits_retain(attr.flags).contains(PortFlags::GRH_REQUIRED),
        bits_per_sec: speed(attr.active_speed, attr.active_speed_ex) * width(attr.active_width),
    })
}

const fn state(state: u32) -> &'static str {
    match state {
        sys::ibv_port_state::IBV_PORT_NOP => "in no state",
        sys::ibv_port_state::IBV_PORT_DOWN => "down",
        sys::ibv_port_state::IBV_PORT_INIT => "initializing (no subnet manager yet)",
        sys::ibv_port_state::IBV_PORT_ARMED => "armed",
        sys::ibv_port_state::IBV_PORT_ACTIVE => "active",
        sys::ibv_port_state::IBV_PORT_ACTIVE_DEFER => "active, deferred",
        _ => "in an unknown state",
    }
}

/// Bits per second of one lane of the link, by the numbers of the InfiniBand specification (Vol. 1,
/// PortInfo).
const fn speed(code: u8, extended: u32) -> u64 {
    let code = if extended != 0 { extended } else { code as u32 };
    match code {
        1 => 2_500_000_000,
        2 => 5_000_000_000,
        4 | 8 => 10_000_000_000,
        16 => 14_062_500_000,
        32 => 25_781_250_000,
        64 => 53_125_000_000,
        128 => 106_250_000_000,
        256 => 212_500_000_000,
        _ => 10_000_000_000,
    }
}

const fn width(code: u8) -> u64 {
    match code {
        2 => 4,
        4 => 8,
        8 => 12,
        16 => 2,
        _ => 1,
    }
}

/// The partition key at the configured index.
pub(crate) fn pkey(context: &Context, port: u8, index: u16) -> Result<u16, RailError> {
    let mut key = 0;
    // SAFETY: an open context, and a local to write to.
    let failed = unsafe { sys::ibv_query_pkey(context.as_ptr(), port, index.into(), &raw mut key) };
    let key = u16::from_be(key);
    // A key of 0 is an empty entry.
    if failed != 0 || key & 0x7FFF == 0 {
        return Err(RailError::NoPkey { device: context.name.clone(), port, index });
    }
    Ok(key)
}

/// The addresses to use among the port's.
pub(crate) fn gids(context: &Context, port: u8, config: &VerbsConfig) -> Result<GidSelection, RailError> {
    let selection = gid::select(&entries(context, port)?, config.gid_index);
    if selection.chosen.is_empty() {
        let reasons: Vec<_> =
            selection.rejected.iter().map(|(index, why)| format!("GID {index}: {why}")).collect();
        let seen = if reasons.is_empty() { "its table is empty".into() } else { reasons.join("; ") };
        return Err(RailError::NoUsableGid { device: context.name.clone(), port, seen });
    }
    Ok(selection)
}

/// The port's GID table, with the owner of each entry.
fn entries(context: &Context, port: u8) -> Result<Vec<GidEntry>, RailError> {
    // SAFETY: an array of integers, for which zero is a value.
    let empty: sys::ibv_gid_entry = unsafe { mem::zeroed() };
    let mut table = vec![empty; MAX_GIDS];
    // SAFETY: an open context, and an array of MAX_GIDS entries, each as long as the call assumes.
    let got = unsafe { sys::ibv_query_gid_table(context.as_ptr(), table.as_mut_ptr(), MAX_GIDS, 0) };
    let got = usize::try_from(got).map_err(|_| {
        // The call returns minus an errno, which fits. 95 comes from a libibverbs older than
        // rdma-core 32.
        context.error("ibv_query_gid_table", Errno(i32::try_from(-got).unwrap_or(libc::EIO)))
    })?;
    let interfaces = match Interfaces::of_this_namespace() {
        Ok(interfaces) => Some(interfaces),
        Err(error) => {
            tracing::warn!(%error, "the interfaces cannot be listed: any GID may be another container's");
            None
        }
    };
    let entries = table[..got.min(MAX_GIDS)]
        .iter()
        .filter(|entry| entry.port_num == u32::from(port))
        .map(|entry| GidEntry {
            index: entry.gid_index,
            gid: gid_of(entry),
            gid_type: match entry.gid_type {
                sys::IBV_GID_TYPE_IB => GidType::InfiniBand,
                sys::IBV_GID_TYPE_ROCE_V1 => GidType::RoceV1,
                sys::IBV_GID_TYPE_ROCE_V2 => GidType::RoceV2,
                other => GidType::Unknown(other),
            },
            owner: interfaces
                .as_ref()
                .map_or(GidOwner::Unknown, |all| all.owner(entry.ndev_ifindex, gid_of(entry))),
        })
        .collect();
    Ok(entries)
}

fn gid_of(entry: &sys::ibv_gid_entry) -> Gid {
    // SAFETY: both members of the union are 16 bytes of plain integers.
    Gid(unsafe { entry.gid.raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the SoftRoCE guest every address belongs to this namespace: the GID table and the
    /// interfaces agree.
    #[test]
    fn addresses_of_the_guests_devices_are_found_on_their_interfaces() {
        if std::env::var_os("KVRAIL_LANE").is_none_or(|lane| lane != "fabric") {
            return;
        }
        for device in crate::devices().unwrap() {
            let table = entries(&Context::open(&device).unwrap(), 1).unwrap();
            let here = |entry: &GidEntry| matches!(&entry.owner, GidOwner::Here(netdev) if netdev.up);
            assert!(table.len() >= 2 && table.iter().all(here), "{device}: {table:?}");
        }
    }

    #[test]
    fn a_400_gbit_port_carries_49_gigabytes() {
        let port = PortInfo {
            link: LinkLayer::Ethernet,
            active: true,
            state: "active",
            mtu: Mtu::B4096,
            lid: 0,
            needs_grh: true,
            bits_per_sec: 400_000_000_000,
        };
        assert_eq!(port.bytes_per_sec() / 100_000_000, 490);
        // NDR signals four lanes of 106.25 Gb/s.
        assert_eq!(speed(128, 0) * width(2), 425_000_000_000);
        assert_eq!(speed(32, 0) * width(2), 103_125_000_000);
        assert_eq!(speed(128, 256), 212_500_000_000);
        let slow = PortInfo { mtu: Mtu::B1024, ..port };
        assert!(slow.bytes_per_sec() < port.bytes_per_sec());
    }
}
