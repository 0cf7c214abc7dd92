//! The bytes of messages. docs/protocol.md describes them; the golden files beside this file hold
//! one message of each kind.
//!
//! Little-endian, alignment 1. A message is a [`Header`], the fixed fields of its kind, the items
//! of its list, and additions.

use std::mem::{offset_of, size_of};

use kvrail_core::id::MAX_RAILS;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::kind::MessageKind;
use super::types::MESSAGE_REGIONS;
use crate::handover::{MAX_MESSAGE_BLOCKS, MAX_MESSAGE_RENEWALS};
use crate::offer::MAX_LANES;
use crate::pool::MAX_LAYOUTS;
use crate::service::MAX_SERVICE_BYTES;

/// The most bytes of a message: a Noise message has at most 65,535, of which 16 are its tag.
pub(crate) const MAX_MESSAGE_BYTES: usize = 65_519;
/// Bytes of a header.
pub(super) const HEADER: usize = size_of::<Header>();
/// Bytes of an addition before its content.
pub(super) const ADDITION: usize = size_of::<Addition>();
/// The bit of a kind that may be passed over where it is not known.
pub(super) const PASS_OVER: u16 = 1 << 15;
/// The bit of an addition's tag that refuses the message where the tag is not known.
pub(super) const MANDATORY: u16 = 1 << 15;

macro_rules! wire {
    ($(
        $(#[$doc:meta])*
        struct $name:ident = $bytes:literal { $($offset:literal $field:ident: $type:ty,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == $bytes);
            assert!(align_of::<$name>() == 1);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };
    )*};
}

wire! {
    struct Header = 8 {
        0 kind: U16,
        2 count: U16,
        4 additions: U16,
        6 zero: U16,
    }

    /// Before the content of an addition.
    struct Addition = 4 {
        0 tag: U16,
        2 length: U16,
    }

    struct Layout = 112 {
        0 name: [u8; 64],
        64 fingerprint: [u8; 16],
        80 any_rank: [u8; 16],
        96 page_bytes: U64,
        104 parts: U16,
        106 zero: [u8; 6],
    }

    /// [`Layout`]s follow.
    struct Introduction = 64 {
        0 node: [u8; 64],
    }

    /// [`Rail`]s follow.
    struct Offer = 72 {
        0 node: [u8; 64],
        64 epoch: U64,
    }

    struct Rail = 112 {
        0 name: [u8; 32],
        32 kind: u8,
        33 numa_known: u8,
        34 numa: u8,
        35 zero: u8,
        36 lanes: U32,
        40 nominal_bytes_per_sec: U64,
        48 address: [u8; 64],
    }

    struct Pool = 120 {
        0 id: U32,
        4 regions: U32,
        8 layout: Layout,
    }

    /// [`Region`]s follow.
    struct Regions = 8 {
        0 pool: U32,
        4 first: U32,
    }

    struct Region = 168 {
        0 base: U64,
        8 page_bytes: U64,
        16 stride: U64,
        24 slots: U32,
        28 has_table: u8,
        29 zero: u8,
        30 part: U16,
        32 keys: [U32; MAX_RAILS],
        96 table_base: U64,
        104 table_keys: [U32; MAX_RAILS],
    }

    struct Gone = 4 {
        0 pool: U32,
    }

    struct Refused = 16 {
        0 reason: U16,
        2 zero: [u8; 6],
        8 number: U64,
    }

    /// Both `Lanes` and `LanesReady`. [`Lane`]s follow.
    struct Lanes = 4 {
        0 exchange: U32,
    }

    struct Lane = 72 {
        0 number: U32,
        4 rail: u8,
        5 remote_rail: u8,
        6 status: U16,
        8 blob: [u8; 64],
    }

    struct Bye = 8 {
        0 reason: U16,
        2 zero: [u8; 6],
    }

    /// Times are in nanoseconds.
    struct Take = 32 {
        0 number: U32,
        4 class: u8,
        5 zero: [u8; 3],
        8 wait: U64,
        16 request: U128,
    }

    struct Done = 4 {
        0 number: U32,
    }

    /// Both `GiveUp` and `Ended`.
    struct Ended = 8 {
        0 number: U32,
        4 reason: U16,
        6 zero: U16,
    }

    /// Times are in nanoseconds.
    struct Taken = 24 {
        0 number: U32,
        4 zero: U32,
        8 lease: U64,
        16 renew_every: U64,
    }

    /// [`Block`]s follow.
    struct Blocks = 8 {
        0 number: U32,
        4 first: U32,
    }

    struct Block = 36 {
        0 pool: U32,
        4 slot: U32,
        8 generation: U64,
        16 tag: U128,
        32 ready: U32,
    }

    struct Ready = 16 {
        0 number: U32,
        4 first: U32,
        8 blocks: U32,
        12 ready: U32,
    }

    struct Complete = 8 {
        0 number: U32,
        4 blocks: U32,
    }

    /// Bytes of the question follow.
    struct Ask = 8 {
        0 number: U32,
        4 service: U16,
        6 zero: U16,
    }

    /// Bytes of the answer follow.
    struct Answer = 8 {
        0 number: U32,
        4 status: U16,
        6 zero: U16,
    }
}

impl Header {
    /// That of a message without additions.
    pub(super) const fn of(kind: u16, count: u16) -> Self {
        Self { kind: U16::new(kind), count: U16::new(count), additions: U16::new(0), zero: U16::new(0) }
    }
}

/// The bytes of a kind's messages, and the bounds of their list.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Bytes of the fixed fields.
    pub(super) fixed: usize,
    /// Bytes of an item of the list; 0 where there is no list.
    pub(super) item: usize,
    /// The fewest items.
    pub(super) min: usize,
    /// The most items.
    pub(super) max: usize,
    /// Both bounds, in words.
    pub(super) bounds: &'static str,
}

impl Form {
    pub(super) const fn of(kind: MessageKind) -> Self {
        const fn none(fixed: usize) -> Form {
            Form { fixed, item: 0, min: 0, max: 0, bounds: "0, for there is no list" }
        }
        const fn list(fixed: usize, item: usize, min: usize, max: usize, bounds: &'static str) -> Form {
            Form { fixed, item, min, max, bounds }
        }
        const LANES: Form = list(size_of::<Lanes>(), size_of::<Lane>(), 0, MAX_LANES, "at most 64 lanes");
        match kind {
            MessageKind::Introduction => {
                let (fixed, item) = (size_of::<Introduction>(), size_of::<Layout>());
                list(fixed, item, 0, MAX_LAYOUTS, "at most 128 layouts")
            }
            MessageKind::Offer => {
                list(size_of::<Offer>(), size_of::<Rail>(), 0, MAX_RAILS, "at most 16 rails")
            }
            MessageKind::Pool => none(size_of::<Pool>()),
            MessageKind::Regions => {
                let (fixed, item) = (size_of::<Regions>(), size_of::<Region>());
                list(fixed, item, 1, MESSAGE_REGIONS, "1 to 64 regions")
            }
            MessageKind::Unknown => none(size_of::<Layout>()),
            MessageKind::Offered | MessageKind::Alive => none(0),
            MessageKind::Gone => none(size_of::<Gone>()),
            MessageKind::Refused => none(size_of::<Refused>()),
            MessageKind::Lanes | MessageKind::LanesReady => LANES,
            MessageKind::Release => list(0, size_of::<U32>(), 0, MAX_LANES, "at most 64 lanes"),
            MessageKind::Bye => none(size_of::<Bye>()),
            MessageKind::Take => none(size_of::<Take>()),
            MessageKind::Renew => {
                list(0, size_of::<U32>(), 0, MAX_MESSAGE_RENEWALS, "at most 1024 hand-overs")
            }
            MessageKind::Done => none(size_of::<Done>()),
            MessageKind::GiveUp | MessageKind::Ended => none(size_of::<Ended>()),
            MessageKind::Taken => none(size_of::<Taken>()),
            MessageKind::Blocks => {
                let (fixed, item) = (size_of::<Blocks>(), size_of::<Block>());
                list(fixed, item, 1, MAX_MESSAGE_BLOCKS, "1 to 1024 blocks")
            }
            MessageKind::Ready => none(size_of::<Ready>()),
            MessageKind::Complete => none(size_of::<Complete>()),
            MessageKind::Ask => list(size_of::<Ask>(), 1, 0, MAX_SERVICE_BYTES, "at most 49088 bytes"),
            MessageKind::Answer => list(size_of::<Answer>(), 1, 0, MAX_SERVICE_BYTES, "at most 49088 bytes"),
        }
    }

    /// Bytes of a message with `count` items and no additions.
    pub(super) const fn bytes(self, count: usize) -> usize {
        HEADER + self.fixed + count * self.item
    }
}

/// The room that the largest message leaves for additions of later releases.
const ROOM: usize = 16 * 1024;

const _: () = {
    // The texts above name these numbers.
    assert!(MAX_LAYOUTS == 128 && MAX_RAILS == 16 && MESSAGE_REGIONS == 64 && MAX_LANES == 64);
    assert!(MAX_MESSAGE_RENEWALS == 1024 && MAX_MESSAGE_BLOCKS == 1024 && MAX_SERVICE_BYTES == 49_088);
    let mut i = 0;
    while i < MessageKind::ALL.len() {
        let form = Form::of(MessageKind::ALL[i]);
        assert!(form.bytes(form.max) + ROOM <= MAX_MESSAGE_BYTES);
        // A count fits its field of 16 bits.
        assert!(form.min <= form.max && form.max <= 0xffff);
        i += 1;
    }
};
