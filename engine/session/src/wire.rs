//! The bytes of messages. docs/protocol.md describes them; the golden files beside this file hold
//! one message of each kind.
//!
//! Little-endian, alignment 1, one size per kind. Every message begins with a [`Header`]; all but
//! [`Hello`] end with a MAC.

use std::mem::{offset_of, size_of};

use kvrail_core::id::MAX_RAILS;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::offer::MAX_LANES;

/// The first eight bytes of every message. CR and LF show whether something on the way translates
/// line ends.
pub(crate) const MAGIC: [u8; 8] = *b"kvrail\r\n";
/// The version of the protocol that this module implements.
pub(crate) const VERSION: u16 = 1;
/// Regions in one message.
pub(crate) const REGIONS: usize = 16;
/// Bytes of a MAC: the last of a message.
pub(crate) const MAC: usize = 32;
/// Bytes of a header.
pub(crate) const HEADER: usize = size_of::<Header>();
/// Bytes of the largest message.
pub(crate) const LARGEST: usize = size_of::<Lanes>();

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum MessageKind {
    /// The reader's first message.
    Hello = 1,
    /// The producer's first message.
    Challenge = 2,
    /// A refusal with its reason. Either side sends it, at any time before the session is
    /// established.
    Refused = 3,
    /// The reader's layout.
    Propose = 16,
    /// The producer's layout, epoch and rails.
    Offer = 17,
    /// Some of the producer's regions.
    Regions = 18,
    /// The reader's requests for lanes.
    Lanes = 32,
    /// The producer's ends of requested lanes, ready to receive.
    LanesReady = 33,
    /// The reader gives lanes back.
    Release = 34,
    /// A side closes the session.
    Bye = 48,
    /// The sender's process is alive.
    Alive = 49,
}

impl MessageKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Hello,
        Self::Challenge,
        Self::Refused,
        Self::Propose,
        Self::Offer,
        Self::Regions,
        Self::Lanes,
        Self::LanesReady,
        Self::Release,
        Self::Bye,
        Self::Alive,
    ];

    /// The kind with this number, if this version knows it.
    #[must_use]
    pub fn from_wire(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u16 == code)
    }

    /// Bytes of a message of this kind, header and MAC included.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Hello => size_of::<Hello>(),
            Self::Challenge => size_of::<Challenge>(),
            Self::Refused => size_of::<Refused>(),
            Self::Propose => size_of::<Propose>(),
            Self::Offer => size_of::<Offer>(),
            Self::Regions => size_of::<Regions>(),
            Self::Lanes | Self::LanesReady => size_of::<Lanes>(),
            Self::Release => size_of::<Release>(),
            Self::Bye => size_of::<Bye>(),
            Self::Alive => size_of::<Alive>(),
        }
    }

    /// The version in its header: 0 for kinds that are sent before a version is agreed on, and
    /// whose format therefore never changes.
    #[must_use]
    pub const fn version(self) -> u16 {
        match self {
            Self::Hello | Self::Challenge | Self::Refused => 0,
            _ => VERSION,
        }
    }
}

macro_rules! wire {
    ($(
        $(#[$doc:meta])*
        struct $name:ident = $bytes:literal { $($offset:literal $field:ident: $type:ty,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == $bytes);
            assert!(align_of::<$name>() == 1);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };
    )*};
}

wire! {
    struct Header = 16 {
        0 magic: [u8; 8],
        8 kind: U16,
        10 version: U16,
        12 bytes: U32,
    }

    /// Frozen: every version sends and understands it.
    struct Greeting = 112 {
        0 min: U16,
        2 max: U16,
        4 chosen: U16,
        6 role: u8,
        7 zero: u8,
        8 key_id: [u8; 8],
        16 nonce: [u8; 32],
        48 node: [u8; 64],
    }

    /// Frozen.
    struct Hello = 128 {
        0 header: Header,
        16 greeting: Greeting,
    }

    /// Frozen.
    struct Challenge = 160 {
        0 header: Header,
        16 greeting: Greeting,
        128 mac: [u8; MAC],
    }

    /// Frozen. One side of a refusal; fields that its reason does not use are zero.
    struct Side = 176 {
        0 node: [u8; 64],
        64 layout: LayoutField,
        160 first: U64,
        168 second: U64,
    }

    /// Frozen.
    struct Refused = 408 {
        0 header: Header,
        16 code: U16,
        18 zero: [u8; 6],
        24 mine: Side,
        200 yours: Side,
        376 mac: [u8; MAC],
    }

    /// Frozen.
    struct LayoutField = 96 {
        0 name: [u8; 64],
        64 fingerprint: [u8; 16],
        80 page_bytes: U64,
        88 parts: U16,
        90 zero: [u8; 6],
    }

    struct Propose = 144 {
        0 header: Header,
        16 layout: LayoutField,
        112 mac: [u8; MAC],
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

    struct Offer = 1952 {
        0 header: Header,
        16 layout: LayoutField,
        112 epoch: U64,
        120 regions: U32,
        124 rails: u8,
        125 zero: [u8; 3],
        128 rail: [Rail; MAX_RAILS],
        1920 mac: [u8; MAC],
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

    struct Regions = 2744 {
        0 header: Header,
        16 first: U32,
        20 count: u8,
        21 zero: [u8; 3],
        24 region: [Region; REGIONS],
        2712 mac: [u8; MAC],
    }

    struct Lane = 72 {
        0 number: U32,
        4 rail: u8,
        5 remote_rail: u8,
        6 status: U16,
        8 blob: [u8; 64],
    }

    /// Both `Lanes` and `LanesReady`.
    struct Lanes = 4664 {
        0 header: Header,
        16 exchange: U32,
        20 count: u8,
        21 zero: [u8; 3],
        24 lane: [Lane; MAX_LANES],
        4632 mac: [u8; MAC],
    }

    struct Release = 312 {
        0 header: Header,
        16 count: u8,
        17 zero: [u8; 7],
        24 number: [U32; MAX_LANES],
        280 mac: [u8; MAC],
    }

    struct Bye = 56 {
        0 header: Header,
        16 reason: U16,
        18 zero: [u8; 6],
        24 mac: [u8; MAC],
    }

    struct Alive = 48 {
        0 header: Header,
        16 mac: [u8; MAC],
    }
}

const _: () = {
    let mut i = 0;
    while i < MessageKind::ALL.len() {
        assert!(MessageKind::ALL[i].bytes() <= LARGEST);
        i += 1;
    }
};

impl Header {
    pub(crate) fn new(kind: MessageKind) -> Self {
        Self {
            magic: MAGIC,
            kind: U16::new(kind as u16),
            version: U16::new(kind.version()),
            // Every size is below 2^16: asserted above.
            bytes: U32::new(kind.bytes() as u32),
        }
    }
}
