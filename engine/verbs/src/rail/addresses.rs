//! A rail's addresses, and whether two rails can reach each other by their addresses.

use crate::device::gid::{self, Gid, GidKind, LocalGid};
use crate::device::port::PortInfo;
use crate::error::Unreachable;
use crate::wire::{LinkLayer, MAX_ADDRESSES, Mtu, RailEnd};

/// A port's addresses and limits as they are now.
#[derive(Clone, Debug)]
pub(crate) struct LocalPort {
    pub(crate) info: PortInfo,
    pub(crate) mtu: Mtu,
    pub(crate) pkey: u16,
    pub(crate) gids: Vec<LocalGid>,
}

impl LocalPort {
    /// The addresses as peers get them.
    pub(crate) fn end(&self) -> RailEnd {
        RailEnd {
            link: self.info.link,
            needs_grh: self.info.needs_grh,
            lid: if self.info.link == LinkLayer::InfiniBand { self.info.lid } else { 0 },
            pkey: self.pkey,
            addresses: self.gids.iter().take(MAX_ADDRESSES).map(|gid| (gid.kind, gid.gid)).collect(),
        }
    }

    /// The address to use towards a peer's rail, of the kind that [`reach`] chooses.
    pub(crate) fn towards(&self, remote: &RailEnd) -> Result<LocalGid, Unreachable> {
        let chosen = reach(&self.end(), remote)?;
        let found = self.gids.iter().find(|gid| gid.kind == chosen.0).copied();
        found.ok_or(Unreachable::Kinds { ours: Vec::new(), theirs: vec![chosen.0] })
    }

    /// The address of one kind.
    pub(crate) fn of_kind(&self, kind: GidKind) -> Option<LocalGid> {
        self.gids.iter().find(|gid| gid.kind == kind).copied()
    }
}

/// The kind and the remote address by which two rails can talk, as far as their addresses tell.
///
/// # Errors
///
/// Why they cannot.
pub fn reach(ours: &RailEnd, theirs: &RailEnd) -> Result<(GidKind, Gid), Unreachable> {
    if ours.link != theirs.link {
        return Err(Unreachable::LinkLayer { ours: ours.link, theirs: theirs.link });
    }
    // The top bit tells full members of a partition from limited ones; at least one must be full.
    let (a, b) = (ours.pkey, theirs.pkey);
    if (a ^ b) & 0x7FFF != 0 || (a | b) & 0x8000 == 0 {
        return Err(Unreachable::Partition { ours: a, theirs: b });
    }
    let local: Vec<_> = ours.addresses.iter().map(|&(kind, gid)| LocalGid { kind, gid, index: 0 }).collect();
    match gid::common(&local, &theirs.addresses) {
        Some((our, gid)) => Ok((our.kind, gid)),
        None => Err(Unreachable::Kinds {
            ours: ours.addresses.iter().map(|a| a.0).collect(),
            theirs: theirs.addresses.iter().map(|a| a.0).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rail(link: LinkLayer, pkey: u16, addresses: &[(GidKind, &str)]) -> RailEnd {
        let gid = |text: &str| Gid(text.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let addresses = addresses.iter().map(|&(kind, text)| (kind, gid(text))).collect();
        RailEnd { link, needs_grh: false, lid: 1, pkey, addresses }
    }

    #[test]
    fn reachability_follows_link_partition_and_address() {
        use GidKind::{RoceV2Ipv4, RoceV2Ipv6, RoceV2LinkLocal};
        use LinkLayer::{Ethernet, InfiniBand};
        let v4 = rail(Ethernet, 0xFFFF, &[(RoceV2Ipv4, "::ffff:10.0.0.1"), (RoceV2LinkLocal, "fe80::1")]);
        let v6 = rail(Ethernet, 0xFFFF, &[(RoceV2Ipv6, "fd00::1")]);
        let both = rail(Ethernet, 0x7FFF, &[(RoceV2Ipv6, "fd00::2"), (RoceV2Ipv4, "::ffff:10.0.0.2")]);
        let ib = rail(InfiniBand, 0xFFFF, &[(GidKind::InfiniBand, "fe80::2")]);
        let other = rail(InfiniBand, 0x8001, &[(GidKind::InfiniBand, "fe80::3")]);
        assert_eq!(reach(&v4, &both).unwrap().0, RoceV2Ipv4);
        assert_eq!(reach(&v6, &both).unwrap().0, RoceV2Ipv6);
        assert!(matches!(reach(&v4, &v6), Err(Unreachable::Kinds { .. })));
        assert!(matches!(reach(&v4, &ib), Err(Unreachable::LinkLayer { .. })));
        assert!(matches!(reach(&ib, &other), Err(Unreachable::Partition { .. })));
        assert!(reach(&ib, &ib).is_ok());
        // Two limited members of a partition do not talk.
        assert!(matches!(reach(&both, &both), Err(Unreachable::Partition { .. })));
    }
}
