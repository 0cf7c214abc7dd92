//! Which of a port's addresses to use, and why.
//!
//! A RoCE port has a table of GIDs: one per IP address of its netdev and RoCE version, in no useful order.
//! Taking the first, or always number 3, is how systems end up talking RoCE v1 over a link-local address.
//! Here every entry is classified, each with a reason; of each kind the best is kept, and two ports use the
//! best kind that both have.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A 128-bit address: an IPv6 address, an IPv4 address mapped into one, or an InfiniBand GID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// Whether nothing is in the table's entry.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        u128::from_be_bytes(self.0) == 0
    }

    /// The IPv4 address that it stands for, if it does.
    #[must_use]
    pub fn ipv4(self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self.0).to_ipv4_mapped()
    }

    /// `fe80::/10`: reaches no further than its link.
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        self.0[0] == 0xFE && self.0[1] & 0xC0 == 0x80
    }

    /// The InfiniBand subnet that it is of.
    #[must_use]
    pub const fn subnet_prefix(self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ipv4() {
            Some(ip) => ip.fmt(f),
            None => Ipv6Addr::from(self.0).fmt(f),
        }
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What two ports must have in common, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GidKind {
    /// Of an InfiniBand port.
    InfiniBand = 1,
    /// RoCE v2 over IPv4: routable.
    RoceV2Ipv4 = 2,
    /// RoCE v2 over IPv6: routable.
    RoceV2Ipv6 = 3,
    /// RoCE v2 over a link-local IPv6 address: one layer-2 segment.
    RoceV2LinkLocal = 4,
    /// RoCE v1: one layer-2 segment.
    RoceV1 = 5,
}

impl GidKind {
    /// All, best first.
    pub const ALL: [Self; 5] =
        [Self::InfiniBand, Self::RoceV2Ipv4, Self::RoceV2Ipv6, Self::RoceV2LinkLocal, Self::RoceV1];

    /// The kind with this number on the wire.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == code)
    }

    /// Whether `gid` can be of this kind.
    #[must_use]
    pub fn fits(self, gid: Gid) -> bool {
        match self {
            _ if gid.is_zero() => false,
            Self::InfiniBand | Self::RoceV1 => true,
            Self::RoceV2Ipv4 => gid.ipv4().is_some(),
            Self::RoceV2Ipv6 => gid.ipv4().is_none() && !gid.is_link_local(),
            Self::RoceV2LinkLocal => gid.is_link_local(),
        }
    }
}

impl fmt::Display for GidKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InfiniBand => "InfiniBand",
            Self::RoceV2Ipv4 => "RoCE v2 over IPv4",
            Self::RoceV2Ipv6 => "RoCE v2 over IPv6",
            Self::RoceV2LinkLocal => "RoCE v2, link-local",
            Self::RoceV1 => "RoCE v1",
        })
    }
}

/// What an entry of the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// InfiniBand.
    InfiniBand,
    /// RoCE v1.
    RoceV1,
    /// RoCE v2.
    RoceV2,
    /// Something that this version does not know.
    Unknown(u32),
}

/// An entry of a port's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: u32,
    /// The address.
    pub gid: Gid,
    /// What it is for.
    pub protocol: Protocol,
    /// The netdev that has the address, where there is one.
    pub netdev: Option<Netdev>,
}

/// The network device behind a RoCE port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netdev {
    /// Its name.
    pub name: String,
    /// Whether it is up and has a carrier.
    pub up: bool,
}

/// An address that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalGid {
    /// What it is.
    pub kind: GidKind,
    /// The address.
    pub gid: Gid,
    /// Its place in the table.
    pub index: u8,
}

impl fmt::Display for LocalGid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GID {} ({}, {})", self.index, self.gid, self.kind)
    }
}

/// What became of the entries of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The usable ones, one per kind, best first.
    pub chosen: Vec<LocalGid>,
    /// The others, each with its reason, for logs and errors.
    pub rejected: Vec<(u32, String)>,
}

/// Classifies a table. With `forced` only that entry is looked at, and taken even with its netdev down.
#[must_use]
pub fn select(entries: &[Entry], forced: Option<u8>) -> Selection {
    let mut selection = Selection::default();
    let mut ranked: Vec<(u8, LocalGid)> = Vec::new();
    for entry in entries {
        match judge(entry, forced) {
            Ok((rank, gid)) => ranked.push((rank, gid)),
            Err(why) => selection.rejected.push((entry.index, why)),
        }
    }
    ranked.sort_by_key(|&(rank, gid)| (gid.kind, rank, gid.index));
    for (_, gid) in ranked {
        match selection.chosen.iter().find(|chosen| chosen.kind == gid.kind) {
            Some(better) => {
                let why = format!("{}: GID {} is as good or better", gid.gid, better.index);
                selection.rejected.push((gid.index.into(), why));
            }
            None => selection.chosen.push(gid),
        }
    }
    selection.rejected.sort_by_key(|&(index, _)| index);
    selection
}

/// The entry's kind and, within the kind, its rank (0 is best), or why it is of no use.
fn judge(entry: &Entry, forced: Option<u8>) -> Result<(u8, LocalGid), String> {
    let Entry { index, gid, protocol, netdev } = entry;
    let gid = *gid;
    let index = u8::try_from(*index).map_err(|_| format!("{gid}: a QP can name indices up to 255"))?;
    if let Some(forced) = forced
        && forced != index
    {
        return Err(format!("{gid}: gid_index {forced} was asked for"));
    }
    if gid.is_zero() {
        return Err("empty".into());
    }
    let kind = match protocol {
        Protocol::InfiniBand => GidKind::InfiniBand,
        Protocol::RoceV1 => GidKind::RoceV1,
        Protocol::RoceV2 if gid.ipv4().is_some() => GidKind::RoceV2Ipv4,
        Protocol::RoceV2 if gid.is_link_local() => GidKind::RoceV2LinkLocal,
        Protocol::RoceV2 => GidKind::RoceV2Ipv6,
        Protocol::Unknown(code) => return Err(format!("{gid}: GID type {code} is not known")),
    };
    if let Some(Netdev { name, up: false }) = netdev
        && forced.is_none()
    {
        return Err(format!("{gid}: its netdev {name} is down"));
    }
    // An address that reaches only this host or link is the last of its kind.
    let rank = match gid.ipv4() {
        Some(ip) if ip.is_loopback() || ip.is_unspecified() => {
            return Err(format!("{gid}: not an address that a peer could reach"));
        }
        Some(ip) if ip.is_link_local() => 1,
        _ => 0,
    };
    Ok((rank, LocalGid { kind, gid, index }))
}

/// The best kind that both have, with the places in their lists.
#[must_use]
pub fn common(ours: &[LocalGid], theirs: &[(GidKind, Gid)]) -> Option<(LocalGid, Gid)> {
    ours.iter().find_map(|&our| {
        let &(_, gid) = theirs.iter().find(|&&(kind, _)| kind == our.kind)?;
        Some((our, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32, gid: &str, protocol: Protocol, up: Option<bool>) -> Entry {
        let gid = Gid(gid.parse::<Ipv6Addr>().unwrap().octets());
        Entry { index, gid, protocol, netdev: up.map(|up| Netdev { name: "eth0".into(), up }) }
    }

    fn chosen(entries: &[Entry], forced: Option<u8>) -> Vec<(GidKind, u8)> {
        select(entries, forced).chosen.iter().map(|g| (g.kind, g.index)).collect()
    }

    const UP: Option<bool> = Some(true);
    use Protocol::{RoceV1, RoceV2};

    #[test]
    fn a_usual_table_gives_the_routable_address_first() {
        // As mlx5 has it: v1 and v2 of the link-local address, then of the IPv4 one, then of an IPv6 one.
        let table = [
            entry(0, "fe80::1", RoceV1, UP),
            entry(1, "fe80::1", RoceV2, UP),
            entry(2, "::ffff:10.0.0.7", RoceV1, UP),
            entry(3, "::ffff:10.0.0.7", RoceV2, UP),
            entry(4, "fd00::7", RoceV2, UP),
        ];
        use GidKind::{RoceV2Ipv4, RoceV2Ipv6, RoceV2LinkLocal};
        assert_eq!(
            chosen(&table, None),
            [(RoceV2Ipv4, 3), (RoceV2Ipv6, 4), (RoceV2LinkLocal, 1), (GidKind::RoceV1, 0)]
        );
        assert_eq!(chosen(&table, Some(1)), [(RoceV2LinkLocal, 1)]);
        assert_eq!(chosen(&table, Some(9)), []);
        // SoftRoCE: GID 0 link-local, GID 1 IPv4, both v2.
        assert_eq!(
            chosen(&[entry(0, "fe80::2", RoceV2, UP), entry(1, "::ffff:10.9.0.1", RoceV2, UP)], None),
            [(RoceV2Ipv4, 1), (RoceV2LinkLocal, 0)]
        );
    }

    #[test]
    fn an_address_without_ipv4_is_as_usable() {
        assert_eq!(chosen(&[entry(0, "2001:db8::1", RoceV2, UP)], None), [(GidKind::RoceV2Ipv6, 0)]);
    }

    #[test]
    fn what_cannot_be_reached_is_not_chosen_and_says_why() {
        let table = [
            entry(0, "::", RoceV2, UP),
            entry(1, "::ffff:127.0.0.1", RoceV2, UP),
            entry(2, "::ffff:10.0.0.1", RoceV2, Some(false)),
            entry(3, "::ffff:10.0.0.2", Protocol::Unknown(9), UP),
            entry(256, "::ffff:10.0.0.3", RoceV2, UP),
        ];
        let selection = select(&table, None);
        assert_eq!(selection.chosen, []);
        let reasons: Vec<_> = selection.rejected.iter().map(|(i, why)| (*i, why.as_str())).collect();
        assert_eq!(
            reasons,
            [
                (0, "empty"),
                (1, "127.0.0.1: not an address that a peer could reach"),
                (2, "10.0.0.1: its netdev eth0 is down"),
                (3, "10.0.0.2: GID type 9 is not known"),
                (256, "10.0.0.3: a QP can name indices up to 255"),
            ]
        );
        // Whoever asks for it by number knows better.
        assert_eq!(chosen(&table, Some(2)), [(GidKind::RoceV2Ipv4, 2)]);
    }

    #[test]
    fn of_one_kind_the_address_that_reaches_furthest_wins_then_the_lowest_index() {
        let table = [
            entry(2, "::ffff:169.254.1.1", RoceV2, UP),
            entry(5, "::ffff:10.0.0.2", RoceV2, UP),
            entry(4, "::ffff:10.0.0.1", RoceV2, UP),
        ];
        let selection = select(&table, None);
        assert_eq!(selection.chosen.iter().map(|g| g.index).collect::<Vec<_>>(), [4]);
        assert_eq!(selection.rejected[0], (2, "169.254.1.1: GID 4 is as good or better".into()));
    }

    #[test]
    fn an_infiniband_port_has_one_kind() {
        let table = [
            entry(0, "fe80::f452:1403:1:1", Protocol::InfiniBand, None),
            entry(1, "fe80::f452:1403:1:2", Protocol::InfiniBand, None),
        ];
        assert_eq!(chosen(&table, None), [(GidKind::InfiniBand, 0)]);
    }

    #[test]
    fn two_ports_use_the_best_kind_that_both_have() {
        let v4: Ipv6Addr = "::ffff:10.0.0.9".parse().unwrap();
        let v6: Ipv6Addr = "fd00::9".parse().unwrap();
        let (v4, v6) = (Gid(v4.octets()), Gid(v6.octets()));
        let table = [entry(3, "::ffff:10.0.0.7", RoceV2, UP), entry(4, "fd00::7", RoceV2, UP)];
        let ours = select(&table, None).chosen;
        let theirs = [(GidKind::RoceV2Ipv6, v6), (GidKind::RoceV2Ipv4, v4)];
        assert_eq!(common(&ours, &theirs).map(|(l, g)| (l.index, g)), Some((3, v4)));
        assert_eq!(common(&ours, &theirs[..1]).map(|(l, g)| (l.index, g)), Some((4, v6)));
        assert_eq!(common(&ours, &[(GidKind::InfiniBand, v6)]), None);
    }
}
