//! Which address is chosen from which table.

use super::*;

fn entry(index: u32, gid: &str, gid_type: GidType, up: Option<bool>) -> GidEntry {
    let gid = Gid(gid.parse::<Ipv6Addr>().unwrap().octets());
    let owner = up.map_or(GidOwner::Unknown, |up| GidOwner::Here(Netdev { name: "eth0".into(), up }));
    GidEntry { index, gid, gid_type, owner }
}

fn chosen(entries: &[GidEntry], forced: Option<u8>) -> Vec<(GidKind, u8)> {
    select(entries, forced).chosen.iter().map(|g| (g.kind, g.index)).collect()
}

const UP: Option<bool> = Some(true);
use GidType::{RoceV1, RoceV2};

#[test]
fn a_usual_table_gives_the_routable_address_first() {
    // mlx5 lists v1 and v2 of the link-local address, then of the IPv4 one, then of an IPv6 one.
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
fn a_table_without_an_ipv4_address_gives_the_ipv6_address() {
    assert_eq!(chosen(&[entry(0, "2001:db8::1", RoceV2, UP)], None), [(GidKind::RoceV2Ipv6, 0)]);
}

#[test]
fn an_unusable_address_is_rejected_with_the_reason() {
    let table = [
        entry(0, "::", RoceV2, UP),
        entry(1, "::ffff:127.0.0.1", RoceV2, UP),
        entry(2, "::ffff:10.0.0.1", RoceV2, Some(false)),
        entry(3, "::ffff:10.0.0.2", GidType::Unknown(9), UP),
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
    // A forced index is chosen although its netdev is down.
    assert_eq!(chosen(&table, Some(2)), [(GidKind::RoceV2Ipv4, 2)]);
}

#[test]
fn within_a_kind_169_254_comes_last_and_then_the_lowest_index_wins() {
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
    let here = GidOwner::Here(Netdev { name: "eth0".into(), up: true });
    let holders = [here, GidOwner::Unknown, GidOwner::Elsewhere { index: 7 }];
    let addresses = [
        ("::ffff:10.0.0.1", RoceV2),
        ("2001:db8::1", RoceV2),
        ("fe80::1", RoceV2),
        ("2001:db8::1", RoceV1),
        ("::ffff:169.254.9.9", RoceV2),
        ("::ffff:169.254.9.9", RoceV1),
    ];
    let mut all = Vec::new();
    for owner in &holders {
        for &(address, gid_type) in &addresses {
            all.push(GidEntry { owner: owner.clone(), ..entry(0, address, gid_type, None) });
        }
    }
    for (better, good) in all.iter().enumerate() {
        for worse in &all[better + 1..] {
            for (good_at, worse_at) in [(0, 1), (1, 0)] {
                let mut table = [
                    GidEntry { index: good_at, ..good.clone() },
                    GidEntry { index: worse_at, ..worse.clone() },
                ];
                table.sort_by_key(|entry| entry.index);
                let first = select(&table, None).chosen[0];
                assert_eq!(u32::from(first.index), good_at, "{table:?}");
            }
        }
    }
}

#[test]
fn an_address_of_another_namespace_is_used_only_if_there_is_no_other() {
    let mut table = [entry(0, "::ffff:10.0.0.1", RoceV2, None), entry(3, "::ffff:10.0.0.2", RoceV2, UP)];
    table[0].owner = GidOwner::Elsewhere { index: 2 };
    let selection = select(&table, None);
    assert_eq!(chosen(&table, None), [(GidKind::RoceV2Ipv4, 3)]);
    assert!(selection.rejected[0].1.contains("not in this network namespace"), "{selection:?}");
    assert_eq!(chosen(&table[..1], None), [(GidKind::RoceV2Ipv4, 0)]);
    // A forced index is taken in whichever namespace it is.
    assert_eq!(chosen(&table, Some(0)), [(GidKind::RoceV2Ipv4, 0)]);
}

#[test]
fn two_ports_avoid_an_address_that_is_bad_on_either_side() {
    use GidKind::{RoceV2Ipv4, RoceV2Ipv6, RoceV2LinkLocal};
    let gid = |text: &str| Gid(text.parse::<Ipv6Addr>().unwrap().octets());
    let local = |list: &[(GidKind, &str)]| -> Vec<LocalGid> {
        list.iter().map(|&(kind, text)| LocalGid { kind, gid: gid(text), index: 0 }).collect()
    };
    let remote = |list: &[(GidKind, &str)]| -> Vec<(GidKind, Gid)> {
        list.iter().map(|&(kind, text)| (kind, gid(text))).collect()
    };
    let good = [(RoceV2Ipv4, "::ffff:10.0.0.1"), (RoceV2Ipv6, "fd00::1"), (RoceV2LinkLocal, "fe80::1")];
    // This side's IPv4 address is a 169.254 one.
    let alone = [(RoceV2Ipv6, "fd00::2"), (RoceV2LinkLocal, "fe80::2"), (RoceV2Ipv4, "::ffff:169.254.0.2")];
    // This side's IPv4 address is another namespace's, so it is listed last.
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
    // Where there is nothing else, such an address is used.
    let found = common(&local(&alone[2..]), &remote(&beside[2..])).unwrap();
    assert_eq!(found.1, gid("::ffff:10.0.0.3"));
    let found = common(&local(&good), &remote(&beside[1..])).unwrap();
    assert_eq!(found.0.kind, RoceV2LinkLocal, "rather than an address that was put last");
}

#[test]
fn an_infiniband_port_has_one_kind() {
    let table = [
        entry(0, "fe80::f452:1403:1:1", GidType::InfiniBand, None),
        entry(1, "fe80::f452:1403:1:2", GidType::InfiniBand, None),
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
