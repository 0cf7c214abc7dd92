//! Which rail of the producer each rail of the reader reads from.

use crate::device::gid::{Gid, GidKind, rank};
use crate::rail::reach;
use crate::wire::RailEnd;

/// Two rails, by their places in both sides' lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The reader's rail.
    pub ours: usize,
    /// The producer's.
    pub theirs: usize,
}

/// A producer's rail, and how many lanes it has. `None`: the rail is no verbs rail, or its 64 bytes
/// are not valid.
pub type Offered = (Option<RailEnd>, u32);

/// As [`pair`], where the names of the rails of both sides are known. Where every rail of the
/// reader has a counterpart of the same name, each goes to that one if it can talk to it: hosts of
/// one kind name their rails alike, and fabrics are built so that these are on one switch. So a
/// rank that drives its near rails reads from the same rails of a producer that offers all of its
/// own.
#[must_use]
pub fn pair_named(
    (ours, our_names): (&[Option<RailEnd>], &[&str]),
    (theirs, their_names): (&[Offered], &[&str]),
) -> Vec<Pair> {
    let place = |name: &str| {
        let mut places = (0..theirs.len()).filter(|&at| their_names.get(at) == Some(&name));
        // A name that two rails have says nothing.
        places.next().filter(|&at| places.next().is_none() && theirs[at].0.is_some())
    };
    let counterparts: Option<Vec<_>> = our_names.iter().map(|name| place(name)).collect();
    pair_by(ours, theirs, counterparts.filter(|all| all.len() == ours.len()).as_deref())
}

/// Pairs each of `ours` (`None`: it is down) with the best of `theirs` that it can reach. A rail
/// that reaches none has no pair.
///
/// Where both sides have equally many rails, the first goes to the first and so on, since fabrics
/// are built so that these are on one switch. Where two such rails cannot talk, and where the
/// counts differ, a rail goes to the nearest and least loaded one that it can talk to. A rail is
/// nearer if its address is of a better kind, and among those of one kind if it is of the same
/// subnet, as far as addresses tell.
#[must_use]
pub fn pair(ours: &[Option<RailEnd>], theirs: &[Offered]) -> Vec<Pair> {
    pair_by(ours, theirs, None)
}

/// Pairs each of `ours` with its counterpart if it can talk to it: the one in `named`, or the one
/// at the same place if both sides have equally many. The others get the nearest.
fn pair_by(ours: &[Option<RailEnd>], theirs: &[Offered], named: Option<&[usize]>) -> Vec<Pair> {
    let mut load: Vec<u64> = theirs.iter().map(|&(_, lanes)| lanes.into()).collect();
    let offered = theirs.iter().filter(|(end, _)| end.is_some()).count();
    let mut pairs = Vec::with_capacity(ours.len());
    for (index, our) in ours.iter().enumerate() {
        let Some(our) = our else { continue };
        let counterpart = match named {
            Some(named) => named.get(index).copied(),
            None if offered == ours.len() => {
                (0..theirs.len()).filter(|&at| theirs[at].0.is_some()).nth(index)
            }
            None => None,
        };
        let counterpart = counterpart.filter(|&at| distance(our, &theirs[at]).is_some());
        let best = || nearest(our, theirs, &load).first().copied();
        match counterpart.or_else(best) {
            Some(theirs) => {
                load[theirs] += 1;
                pairs.push(Pair { ours: index, theirs });
            }
            None => tracing::warn!(rail = index, "no rail of the producer can be reached from this one"),
        }
    }
    pairs
}

/// The producer's rails that `our` can reach, best first.
#[must_use]
pub fn nearest(our: &RailEnd, theirs: &[Offered], load: &[u64]) -> Vec<usize> {
    let mut found: Vec<_> = theirs
        .iter()
        .enumerate()
        .filter_map(|(at, offered)| Some((distance(our, offered)?, load.get(at).copied().unwrap_or(0), at)))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, _, at)| at).collect()
}

/// A sort key by which the nearest rail comes first, or `None` for one that cannot be reached: how
/// good the worse of the two addresses is, then whether they are of one subnet.
fn distance(our: &RailEnd, (their, _): &Offered) -> Option<((bool, GidKind), bool)> {
    let (kind, gid) = reach(our, their.as_ref()?).ok()?;
    let &(_, own) = our.addresses.iter().find(|&&(k, _)| k == kind)?;
    Some((rank(kind, own).max(rank(kind, gid)), !same_subnet(own, gid)))
}

/// Compares the first 64 bits of GIDs, which for InfiniBand are the subnet's, and the first three
/// bytes of IPv4 addresses, since the netmask is not known.
fn same_subnet(a: Gid, b: Gid) -> bool {
    match (a.ipv4(), b.ipv4()) {
        (Some(a), Some(b)) => a.octets()[..3] == b.octets()[..3],
        _ => a.subnet_prefix() == b.subnet_prefix(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::LinkLayer;

    fn gid(text: &str) -> Gid {
        Gid(text.parse::<std::net::Ipv6Addr>().unwrap().octets())
    }

    fn roce(ip: &str) -> RailEnd {
        RailEnd {
            link: LinkLayer::Ethernet,
            needs_grh: true,
            lid: 0,
            pkey: 0xFFFF,
            addresses: vec![(GidKind::RoceV2Ipv4, gid(&format!("::ffff:{ip}")))],
        }
    }

    fn six(ip: &str) -> RailEnd {
        RailEnd { addresses: vec![(GidKind::RoceV2Ipv6, gid(ip))], ..roce("0.0.0.0") }
    }

    fn ib(lid: u16, gid_: &str) -> RailEnd {
        RailEnd {
            link: LinkLayer::InfiniBand,
            needs_grh: false,
            lid,
            pkey: 0xFFFF,
            addresses: vec![(GidKind::InfiniBand, gid(gid_))],
        }
    }

    fn paired(ours: &[RailEnd], theirs: &[(RailEnd, u32)]) -> Vec<(usize, usize)> {
        let theirs: Vec<_> = theirs.iter().map(|(end, lanes)| (Some(end.clone()), *lanes)).collect();
        let ours: Vec<_> = ours.iter().cloned().map(Some).collect();
        pair(&ours, &theirs).into_iter().map(|p| (p.ours, p.theirs)).collect()
    }

    #[test]
    fn equal_counts_go_index_to_index_whatever_load_and_subnet() {
        let ours = [roce("10.0.0.1"), roce("10.0.1.1")];
        let theirs = [(roce("10.0.1.2"), 9), (roce("10.0.0.2"), 0)];
        assert_eq!(paired(&ours, &theirs), [(0, 0), (1, 1)]);
    }

    #[test]
    fn near_rails_read_from_the_rails_of_the_same_names() {
        // One flat subnet, so addresses do not tell; the second rank of a host, and all of a
        // producer.
        let names: Vec<_> = (0..8).map(|at| format!("mlx5_{at}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let rail = |host: u8, at: usize| roce(&format!("10.0.0.{}", host * 100 + at as u8));
        let theirs: Vec<Offered> = (0..8).map(|at| (Some(rail(2, at)), 0)).collect();
        let ours: Vec<_> = (4..8).map(|at| Some(rail(1, at))).collect();
        let paired = |names_of_ours: &[&str], names_of_theirs: &[&str]| {
            let pairs = pair_named((&ours, names_of_ours), (&theirs, names_of_theirs));
            pairs.into_iter().map(|pair| pair.theirs).collect::<Vec<_>>()
        };
        assert_eq!(paired(&names[4..], &names), [4, 5, 6, 7]);
        // Where a name is missing or not unique, load and place decide, as without names.
        assert_eq!(paired(&["mlx5_4", "mlx5_5", "mlx5_6", "bond0"], &names), [0, 1, 2, 3]);
        assert_eq!(paired(&names[4..], &["mlx5_4"; 8]), [0, 1, 2, 3]);
        // Rails that cannot talk get the nearest all the same.
        let ours = [Some(six("fd00::1"))];
        let theirs = [(Some(roce("10.0.0.2")), 0), (Some(six("fd00::2")), 0)];
        let pairs = pair_named((&ours, &["mlx5_0"]), (&theirs, &["mlx5_0", "mlx5_1"]));
        assert_eq!(pairs, [Pair { ours: 0, theirs: 1 }]);
    }

    #[test]
    fn a_pair_that_cannot_talk_is_avoided() {
        let ours = [roce("10.0.0.1"), six("fd00::1"), ib(3, "fe80::3")];
        let theirs = [(six("fd00::2"), 0), (roce("10.0.0.2"), 0), (roce("10.0.0.3"), 0)];
        // The first's counterpart has no IPv4 address; the InfiniBand rail can reach none.
        assert_eq!(paired(&ours, &theirs), [(0, 1), (1, 0)]);
        assert_eq!(paired(&[ib(3, "fe80::3")], &theirs), []);
    }

    #[test]
    fn unequal_counts_go_to_the_same_subnet_first_then_by_load() {
        let ours = [roce("10.0.0.1"), roce("10.0.1.1"), roce("10.0.2.1")];
        let theirs = [(roce("10.0.1.2"), 1), (roce("10.0.0.2"), 5)];
        assert_eq!(paired(&ours, &theirs), [(0, 1), (1, 0), (2, 0)]);
        let ours = vec![roce("10.0.0.1"); 4];
        let theirs = [(roce("10.0.0.2"), 0), (roce("10.0.0.3"), 1)];
        assert_eq!(paired(&ours, &theirs), [(0, 0), (1, 0), (2, 1), (3, 0)]);
        // InfiniBand subnets are compared by their prefix.
        let ours = [ib(1, "fec0:0:0:1::1")];
        let theirs = [(ib(2, "fec0:0:0:2::2"), 0), (ib(3, "fec0:0:0:1::3"), 7)];
        assert_eq!(paired(&ours, &theirs), [(0, 1)]);
    }

    #[test]
    fn a_rail_with_a_169_254_address_is_the_last_choice() {
        let theirs = [(roce("169.254.7.7"), 0), (six("fd00::2"), 9)];
        let ours = RailEnd {
            addresses: [roce("10.0.0.1").addresses, six("fd00::1").addresses].concat(),
            ..roce("10.0.0.1")
        };
        assert_eq!(paired(&[ours], &theirs), [(0, 1)]);
    }

    #[test]
    fn rails_of_other_transports_are_passed_over() {
        let theirs = [(None, 0), (Some(roce("10.0.0.2")), 0), (None, 0)];
        let pairs = pair(&[Some(roce("10.0.0.1"))], &theirs);
        assert_eq!(pairs, [Pair { ours: 0, theirs: 1 }]);
        // The place of a rail that is down counts.
        let pairs = pair(&[None, Some(roce("10.0.0.1"))], &theirs);
        assert_eq!(pairs, [Pair { ours: 1, theirs: 1 }]);
        assert_eq!(nearest(&roce("10.0.0.1"), &theirs, &[0, 0, 0]), [1]);
    }
}
