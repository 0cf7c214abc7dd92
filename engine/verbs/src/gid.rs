//! Which of a port's addresses to use, and why.
//!
//! A RoCE port has a table of GIDs: one per IP address of its netdev and RoCE version, in no useful order.
//! Taking the first, or always number 3, is how systems end up talking RoCE v1 over a link-local address.
//! Here every entry is classified, each with a reason; of each kind the best is kept, and two ports use the
//! best kind that both have.
//!
//! What is best, in this order: an entry whose netdev is in this network namespace (containers that
//! share a device see each other's entries); an address that reaches beyond its link by assignment
//! and not by accident (IPv4's 169.254/16 is what a host gives itself when nobody gave it any); the
//! [kind](GidKind); the lowest index.

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
    /// Whose it is.
    pub holder: Holder,
}

/// Whose an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An interface of this network namespace, which has the address.
    Here(Netdev),
    /// Nobody's that is known: of an InfiniBand port, or the kernel does not say.
    Unknown,
    /// An interface of another network namespace: no interface of this one has this index and this
    /// address.
    Elsewhere {
        /// The index that the table gives it, which counts in its own namespace.
        index: u32,
    },
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

/// How good an address is, the least the best: IPv4 addresses that hosts give themselves come after
/// all others, then the kind counts.
pub(crate) fn standing(kind: GidKind, gid: Gid) -> (bool, GidKind) {
    (gid.ipv4().is_some_and(|ip| ip.is_link_local()), kind)
}

/// Classifies a table. With `forced` only that entry is looked at, and taken even with its netdev down.
///
/// The addresses that come out are in the order in which they are worth using (see the
/// [module](self)).
#[must_use]
pub fn select(entries: &[Entry], forced: Option<u8>) -> Selection {
    let mut selection = Selection::default();
    let mut ranked = Vec::new();
    for entry in entries {
        match judge(entry, forced) {
            Ok((away, gid)) => ranked.push(((away, standing(gid.kind, gid.gid), gid.index), gid)),
            Err(why) => selection.rejected.push((entry.index, why)),
        }
    }
    ranked.sort_by_key(|&(rank, _)| rank);
    for ((away, ..), gid) in ranked {
        match selection.chosen.iter().find(|chosen| chosen.kind == gid.kind) {
            Some(better) => {
                let away =
                    if away == AWAY { "its netdev is not in this network namespace, and " } else { "" };
                let why = format!("{}: {away}GID {} is as good or better", gid.gid, better.index);
                selection.rejected.push((gid.index.into(), why));
            }
            None => selection.chosen.push(gid),
        }
    }
    selection.rejected.sort_by_key(|&(index, _)| index);
    selection
}

/// The rank of what is another network namespace's.
const AWAY: u8 = 2;

/// What an entry is and whose (0: of an interface of this namespace, 1: not known, [`AWAY`]), or
/// why it is of no use.
fn judge(entry: &Entry, forced: Option<u8>) -> Result<(u8, LocalGid), String> {
    let Entry { index, gid, protocol, holder } = entry;
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
    if let Holder::Here(Netdev { name, up: false }) = holder
        && forced.is_none()
    {
        return Err(format!("{gid}: its netdev {name} is down"));
    }
    if gid.ipv4().is_some_and(|ip| ip.is_loopback() || ip.is_unspecified()) {
        return Err(format!("{gid}: not an address that a peer could reach"));
    }
    let away = match holder {
        Holder::Here(_) => 0,
        Holder::Unknown => 1,
        Holder::Elsewhere { .. } => AWAY,
    };
    Ok((away, LocalGid { kind, gid, index }))
}

/// The best kind that both have, with the places in their lists. Each list is in the order in which
/// its side would use its addresses, as [`select`] returns it.
///
/// A kind is as good as the worse of the two addresses. One that its own side put behind an address
/// of a worse [kind](GidKind) is there for a reason that its bytes do not show (it is another
/// network namespace's), and comes last.
#[must_use]
pub fn common(ours: &[LocalGid], theirs: &[(GidKind, Gid)]) -> Option<(LocalGid, Gid)> {
    let ours_as: Vec<_> = ours.iter().map(|our| (our.kind, our.gid)).collect();
    let candidates = ours.iter().enumerate().filter_map(|(place, &our)| {
        let at = theirs.iter().position(|&(kind, _)| kind == our.kind)?;
        let gid = theirs[at].1;
        let put_back = put_back(&ours_as, place) || put_back(theirs, at);
        let worse = standing(our.kind, our.gid).max(standing(our.kind, gid));
        Some(((put_back, worse), (our, gid)))
    });
    candidates.min_by_key(|&(rank, _)| rank).map(|(_, found)| found)
}

/// Whether the address at `place` stands behind one that would come after it by itself.
fn put_back(list: &[(GidKind, Gid)], place: usize) -> bool {
    let (kind, gid) = list[place];
    list[..place].iter().any(|&(other, at)| standing(other, at) > standing(kind, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32, gid: &str, protocol: Protocol, up: Option<bool>) -> Entry {
        let gid = Gid(gid.parse::<Ipv6Addr>().unwrap().octets());
        let holder = up.map_or(Holder::Unknown, |up| Holder::Here(Netdev { name: "eth0".into(), up }));
        Entry { index, gid, protocol, holder }
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

    /// Every pair of addresses and holders, in both orders of the table: which one is used.
    #[test]
    fn of_any_two_entries_the_better_one_comes_first() {
        let here = Holder::Here(Netdev { name: "eth0".into(), up: true });
        let holders = [here, Holder::Unknown, Holder::Elsewhere { index: 7 }];
        let addresses = [
            ("::ffff:10.0.0.1", RoceV2),
            ("2001:db8::1", RoceV2),
            ("fe80::1", RoceV2),
            ("2001:db8::1", RoceV1),
            ("::ffff:169.254.9.9", RoceV2),
            ("::ffff:169.254.9.9", RoceV1),
        ];
        let mut all = Vec::new();
        for holder in &holders {
            for &(address, protocol) in &addresses {
                all.push(Entry { holder: holder.clone(), ..entry(0, address, protocol, None) });
            }
        }
        for (better, good) in all.iter().enumerate() {
            for worse in &all[better + 1..] {
                for (good_at, worse_at) in [(0, 1), (1, 0)] {
                    let mut table = [
                        Entry { index: good_at, ..good.clone() },
                        Entry { index: worse_at, ..worse.clone() },
                    ];
                    table.sort_by_key(|entry| entry.index);
                    let first = select(&table, None).chosen[0];
                    assert_eq!(u32::from(first.index), good_at, "{table:?}");
                }
            }
        }
    }

    #[test]
    fn what_another_namespace_has_is_used_where_there_is_nothing_else_and_told_where_there_is() {
        let mut table = [entry(0, "::ffff:10.0.0.1", RoceV2, None), entry(3, "::ffff:10.0.0.2", RoceV2, UP)];
        table[0].holder = Holder::Elsewhere { index: 2 };
        let selection = select(&table, None);
        assert_eq!(chosen(&table, None), [(GidKind::RoceV2Ipv4, 3)]);
        assert!(selection.rejected[0].1.contains("not in this network namespace"), "{selection:?}");
        assert_eq!(chosen(&table[..1], None), [(GidKind::RoceV2Ipv4, 0)]);
        // By number it is taken whoever has it.
        assert_eq!(chosen(&table, Some(0)), [(GidKind::RoceV2Ipv4, 0)]);
    }

    #[test]
    fn two_ports_avoid_what_is_bad_on_either_side() {
        use GidKind::{RoceV2Ipv4, RoceV2Ipv6, RoceV2LinkLocal};
        let gid = |text: &str| Gid(text.parse::<Ipv6Addr>().unwrap().octets());
        let local = |list: &[(GidKind, &str)]| -> Vec<LocalGid> {
            list.iter().map(|&(kind, text)| LocalGid { kind, gid: gid(text), index: 0 }).collect()
        };
        let remote = |list: &[(GidKind, &str)]| -> Vec<(GidKind, Gid)> {
            list.iter().map(|&(kind, text)| (kind, gid(text))).collect()
        };
        let good = [(RoceV2Ipv4, "::ffff:10.0.0.1"), (RoceV2Ipv6, "fd00::1"), (RoceV2LinkLocal, "fe80::1")];
        // Its own IPv4 address is one that nobody gave it.
        let alone =
            [(RoceV2Ipv6, "fd00::2"), (RoceV2LinkLocal, "fe80::2"), (RoceV2Ipv4, "::ffff:169.254.0.2")];
        // Its IPv4 address is another namespace's: it put it last.
        let beside = [(RoceV2Ipv6, "fd00::3"), (RoceV2LinkLocal, "fe80::3"), (RoceV2Ipv4, "::ffff:10.0.0.3")];
        for (ours, theirs, kind) in [
            (good, good, RoceV2Ipv4),
            (good, alone, RoceV2Ipv6),
            (alone, good, RoceV2Ipv6),
            (good, beside, RoceV2Ipv6),
            (beside, good, RoceV2Ipv6),
            (alone, beside, RoceV2Ipv6),
        ] {
            let found = common(&local(&ours), &remote(&theirs)).unwrap();
            assert_eq!(found.0.kind, kind, "{ours:?} and {theirs:?}");
        }
        // Where there is nothing else it will do.
        let found = common(&local(&alone[2..]), &remote(&beside[2..])).unwrap();
        assert_eq!(found.1, gid("::ffff:10.0.0.3"));
        let found = common(&local(&good), &remote(&beside[1..])).unwrap();
        assert_eq!(found.0.kind, RoceV2LinkLocal, "rather than an address that was put last");
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
        let theirs = [(GidKind::RoceV2Ipv4, v4), (GidKind::RoceV2Ipv6, v6)];
        assert_eq!(common(&ours, &theirs).map(|(l, g)| (l.index, g)), Some((3, v4)));
        assert_eq!(common(&ours, &theirs[1..]).map(|(l, g)| (l.index, g)), Some((4, v6)));
        assert_eq!(common(&ours, &[(GidKind::InfiniBand, v6)]), None);
    }
}
