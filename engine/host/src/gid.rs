//! Which of a port's addresses to use, and why.
//!
//! A RoCE port has a table of GIDs: one for each IP address of its netdev and each RoCE version, in
//! no useful order. A program that takes the first entry, or always number 3, may get RoCE v1 over
//! a link-local address. [`select`] classifies every entry, with a reason, and keeps the best entry
//! of each kind; [`common`] finds the best kind that two ports have in common.
//!
//! Entries are compared by these properties, in this order:
//!
//! 1. Its netdev is in this network namespace. Containers that share a device see each other's
//!    entries.
//! 2. It is not of 169.254/16, from which an IPv4 host without a configured address takes one.
//! 3. The [kind](GidKind).
//! 4. The lowest index.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A 128-bit address: an IPv6 address, an IPv4 address mapped into one, or an InfiniBand GID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// Whether it is 0: the table's entry is empty.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        u128::from_be_bytes(self.0) == 0
    }

    /// The IPv4 address that is mapped into it, if there is one.
    #[must_use]
    pub fn ipv4(self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self.0).to_ipv4_mapped()
    }

    /// Whether it is of `fe80::/10` and reaches no further than its link.
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        self.0[0] == 0xFE && self.0[1] & 0xC0 == 0x80
    }

    /// The first 64 bits: on InfiniBand, those of the subnet.
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

/// The kind of an address. Two ports can talk if both have an address of one kind. The best comes
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum GidKind {
    /// An InfiniBand port's address.
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
    /// All kinds, best first.
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

/// The protocol that an entry of the table is for: `enum ibv_gid_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GidType {
    /// InfiniBand.
    InfiniBand,
    /// RoCE v1.
    RoceV1,
    /// RoCE v2.
    RoceV2,
    /// A type that this version does not know.
    Unknown(u32),
}

/// An entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Its place in the table.
    pub index: u32,
    /// The address.
    pub gid: Gid,
    /// Which protocol it is for.
    pub gid_type: GidType,
    /// Which interface has it.
    pub owner: GidOwner,
}

/// Which interface has an entry's address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the kernel names an interface of this namespace, of another, or none"
)]
pub enum GidOwner {
    /// An interface of this network namespace, which has the address.
    Here(Netdev),
    /// Not known: it is an InfiniBand port's, or the kernel does not say.
    Unknown,
    /// An interface of another network namespace: no interface of this one has this index and this
    /// address.
    Elsewhere {
        /// The index of its interface in its own namespace.
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

/// An address of a port that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalGid {
    /// Its kind.
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

/// Which entries of a table are used, and why the others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GidSelection {
    /// The addresses to use, one per kind, best first.
    pub chosen: Vec<LocalGid>,
    /// The other entries by their index, each with its reason, for logs and errors.
    pub rejected: Vec<(u32, String)>,
}

/// A sort key by which the best address comes first: IPv4 addresses of 169.254/16 come after all
/// others, then the kind counts.
#[must_use]
pub fn rank(kind: GidKind, gid: Gid) -> (bool, GidKind) {
    (gid.ipv4().is_some_and(|ip| ip.is_link_local()), kind)
}

/// Chooses addresses from a table, best first (see the [module](self)).
///
/// With `forced`, only the entry of that index is considered, and it is taken even if its netdev is
/// down.
#[must_use]
pub fn select(entries: &[GidEntry], forced: Option<u8>) -> GidSelection {
    let mut selection = GidSelection::default();
    let mut ranked = Vec::new();
    for entry in entries {
        match classify(entry, forced) {
            Ok((away, gid)) => ranked.push(((away, rank(gid.kind, gid.gid), gid.index), gid)),
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

/// The rank of an entry that another network namespace has.
const AWAY: u8 = 2;

/// The entry's address and rank (0: of an interface of this namespace, 1: not known, [`AWAY`]), or
/// why it cannot be used.
fn classify(entry: &GidEntry, forced: Option<u8>) -> Result<(u8, LocalGid), String> {
    let GidEntry { index, gid, gid_type, owner } = entry;
    let gid = *gid;
    let index = u8::try_from(*index).map_err(|_| format!("{gid}: a QP can name indices up to 255"))?;
    if let Some(forced) = forced
        && forced != index
    {
        return Err(format!("{gid}: gid_index {forced} is configured"));
    }
    if gid.is_zero() {
        return Err("empty".into());
    }
    let kind = match gid_type {
        GidType::InfiniBand => GidKind::InfiniBand,
        GidType::RoceV1 => GidKind::RoceV1,
        GidType::RoceV2 if gid.ipv4().is_some() => GidKind::RoceV2Ipv4,
        GidType::RoceV2 if gid.is_link_local() => GidKind::RoceV2LinkLocal,
        GidType::RoceV2 => GidKind::RoceV2Ipv6,
        GidType::Unknown(code) => return Err(format!("{gid}: GID type {code} is not known")),
    };
    if let GidOwner::Here(Netdev { name, up: false }) = owner
        && forced.is_none()
    {
        return Err(format!("{gid}: its netdev {name} is down"));
    }
    if gid.ipv4().is_some_and(|ip| ip.is_loopback() || ip.is_unspecified()) {
        return Err(format!("{gid}: not an address that a peer could reach"));
    }
    let away = match owner {
        GidOwner::Here(_) => 0,
        GidOwner::Unknown => 1,
        GidOwner::Elsewhere { .. } => AWAY,
    };
    Ok((away, LocalGid { kind, gid, index }))
}

/// The pair of addresses, of the best kind that both sides have. Each list is in the order in which
/// its side would use its addresses, as [`select`] returns it.
///
/// A kind is as good as the worse of its two addresses. A side lists an address that another
/// network namespace has behind addresses of a worse [kind](GidKind); the address itself does not
/// show that. Such a kind comes last.
#[must_use]
pub fn common(ours: &[LocalGid], theirs: &[(GidKind, Gid)]) -> Option<(LocalGid, Gid)> {
    let ours_as: Vec<_> = ours.iter().map(|our| (our.kind, our.gid)).collect();
    let candidates = ours.iter().enumerate().filter_map(|(place, &our)| {
        let at = theirs.iter().position(|&(kind, _)| kind == our.kind)?;
        let gid = theirs[at].1;
        let late = listed_late(&ours_as, place) || listed_late(theirs, at);
        let worse = rank(our.kind, our.gid).max(rank(our.kind, gid));
        Some(((late, worse), (our, gid)))
    });
    candidates.min_by_key(|&(rank, _)| rank).map(|(_, found)| found)
}

/// Whether the address at `place` is listed behind one that [`rank`] would put after it.
fn listed_late(list: &[(GidKind, Gid)], place: usize) -> bool {
    let (kind, gid) = list[place];
    list[..place].iter().any(|&(other, at)| rank(other, at) > rank(kind, gid))
}

#[cfg(test)]
mod tests;
