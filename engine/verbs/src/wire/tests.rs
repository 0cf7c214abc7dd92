//! The bytes of rails and lanes: golden ones, and refusals of every field.

use proptest::prelude::*;

use super::*;
use crate::{test_regressions as regressions, test_seeds as seeds};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn gid(text: &str) -> Gid {
    Gid(text.parse::<std::net::Ipv6Addr>().unwrap().octets())
}

fn rail() -> RailEnd {
    RailEnd {
        link: LinkLayer::Ethernet,
        needs_grh: true,
        lid: 0,
        pkey: 0xFFFF,
        addresses: vec![
            (GidKind::RoceV2Ipv4, gid("::ffff:10.9.0.1")),
            (GidKind::RoceV2LinkLocal, gid("fe80::1")),
        ],
    }
}

fn lane() -> LaneEnd {
    LaneEnd {
        qp_num: 0x01_0203,
        psn: 0xAB_CDEF,
        mtu: Mtu::B4096,
        read_depth: 16,
        needs_grh: true,
        class: Class::Urgent,
        lid: 0,
        pkey: 0xFFFF,
        kind: GidKind::RoceV2Ipv4,
        gid: gid("::ffff:10.9.0.11"),
    }
}

fn infiniband() -> LaneEnd {
    LaneEnd {
        needs_grh: false,
        lid: 7,
        pkey: 0x8001,
        kind: GidKind::InfiniBand,
        gid: gid("fe80::f452:1403:1:1"),
        ..lane()
    }
}

#[test]
fn golden_bytes_of_a_rail() {
    let golden = "010201020000ffff\
                  0200000000000000000000ffff0a090001\
                  04fe800000000000000000000000000001\
                  00000000000000000000000000000000000000000000";
    assert_eq!(hex(&rail().encode()), golden);
    assert_eq!(RailEnd::decode(&rail().encode()), Ok(rail()));
}

#[test]
fn golden_bytes_of_a_lane() {
    let golden = "0105100201000000\
                  0001020300abcdef\
                  00000000000000000000ffff0a09000b\
                  ffff000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(hex(&lane().encode()), golden);
    assert_eq!(LaneEnd::decode(&lane().encode()), Ok(lane()));
    assert_eq!(LaneEnd::decode(&infiniband().encode()), Ok(infiniband()));
}

#[test]
fn golden_bytes_of_a_lane_for_background_work() {
    let background = LaneEnd { class: Class::Background, ..lane() };
    let golden = "0105100203000000\
                  0001020300abcdef\
                  00000000000000000000ffff0a09000b\
                  ffff000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(hex(&background.encode()), golden);
    assert_eq!(LaneEnd::decode(&background.encode()), Ok(background));
}

/// Changes one byte at a time, and looks at the error.
#[test]
fn a_lane_with_an_impossible_field_is_refused_by_the_fields_name() {
    for (at, byte, says) in [
        (0, 0, "format 0"),
        (0, 2, "format 2"),
        (1, 0, "path MTU is 0"),
        (1, 6, "path MTU is 6"),
        (2, 0, "READ depth is 0"),
        (3, 0, "kind of an address is 0"),
        (3, 6, "kind of an address is 6"),
        (3, 3, "no address of the kind RoCE v2 over IPv6"),
        (4, 4, "flags is 4"),
        (5, 1, "byte 5 is reserved"),
        (7, 1, "LID is 1"),
        (8, 1, "QP number is 16843267"),
        (12, 1, "first PSN is 28036591"),
        (16, 1, "is no address of the kind RoCE v2 over IPv4"),
        (34, 9, "byte 34 is reserved"),
        (63, 1, "byte 63 is reserved"),
    ] {
        let mut bytes = lane().encode();
        bytes[at] = byte;
        let error = LaneEnd::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(says), "byte {at} = {byte}: {error}");
    }
    for qp_num in [0, 1, BITS_24] {
        let bytes = LaneEnd { qp_num, ..lane() }.encode();
        assert!(LaneEnd::decode(&bytes).unwrap_err().to_string().contains("QP number"), "{qp_num}");
    }
    // An LID of 0 is what a port has that no subnet manager has seen.
    for lid in [0, 0xC000, 0xFFFF] {
        let bytes = LaneEnd { lid, ..infiniband() }.encode();
        assert!(LaneEnd::decode(&bytes).unwrap_err().to_string().contains("LID"), "{lid}");
    }
}

#[test]
fn a_rail_with_an_impossible_field_is_refused_by_the_fields_name() {
    for (at, byte, says) in [
        (0, 9, "format 9"),
        (1, 3, "link layer is 3"),
        (1, 1, "LID is 0"),
        (2, 2, "flags is 2"),
        (2, 4, "flags is 4"),
        (3, 0, "number of addresses is 0"),
        (3, 4, "number of addresses is 4"),
        (3, 3, "kind of an address is 0"),
        (3, 1, "byte 25 is reserved"),
        (5, 1, "LID is 1"),
        (8, 1, "is no address of the kind InfiniBand"),
        (60, 1, "byte 60 is reserved"),
    ] {
        let mut bytes = rail().encode();
        bytes[at] = byte;
        let error = RailEnd::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(says), "byte {at} = {byte}: {error}");
    }
    assert!(RailEnd::decode(&[0; BLOB]).is_err());
}

/// Inputs that failed once, and are tried first from then on. To be committed.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/wire.txt");

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: regressions::at(REGRESSIONS, seeds::sources),
        ..ProptestConfig::default()
    })]

    /// No bytes panic, and accepted bytes encode to themselves.
    #[test]
    fn any_bytes_are_refused_or_encode_to_themselves(mut bytes in prop::array::uniform32(any::<u8>()), near in any::<bool>()) {
        let mut blob = if near { lane().encode() } else { [0; BLOB] };
        bytes[0] = if near { 1 } else { bytes[0] };
        for (to, from) in blob.iter_mut().zip(bytes) {
            *to = from;
        }
        if let Ok(end) = LaneEnd::decode(&blob) {
            prop_assert_eq!(end.encode(), blob);
        }
        if let Ok(end) = RailEnd::decode(&blob) {
            prop_assert_eq!(end.encode(), blob);
        }
    }

    #[test]
    fn one_flipped_bit_never_panics_and_never_passes_for_the_same(at in 0_usize..BLOB, bit in 0_u8..8) {
        let mut blob = lane().encode();
        blob[at] ^= 1 << bit;
        prop_assert_ne!(LaneEnd::decode(&blob), Ok(lane()));
        let mut blob = rail().encode();
        blob[at] ^= 1 << bit;
        prop_assert_ne!(RailEnd::decode(&blob), Ok(rail()));
    }
}
