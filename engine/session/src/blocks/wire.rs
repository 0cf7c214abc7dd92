//! The bytes of a block list. docs/protocol.md describes them; the `.hex` file beside this file has
//! a golden list.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first eight bytes of a list.
pub(super) const MAGIC: [u8; 8] = *b"kvblocks";
/// The version of the format that this module reads and writes.
pub(super) const VERSION: u16 = 2;

/// The head of a list.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U16,
    pub(super) region: U16,
    /// Bytes of the list, header included.
    pub(super) bytes: U32,
    /// Pages of the list: the sum of the runs' counts.
    pub(super) count: U32,
    pub(super) runs: U32,
    pub(super) fingerprint: [u8; 16],
    pub(super) epoch: U64,
    pub(super) request: U64,
}

/// A run of successive pages. Where a column's bit in `listed` is set, the column's values follow
/// the run as a list; otherwise they start with the value here and go on by its step.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Run {
    pub(super) count: U32,
    pub(super) slot: U32,
    /// Two's complement.
    pub(super) slot_step: U32,
    pub(super) listed: u8,
    pub(super) zero: [u8; 3],
    pub(super) generation: U64,
    pub(super) tag: U128,
    /// Modulo 2^128.
    pub(super) tag_step: U128,
    /// The parts that are ready, of every page.
    pub(super) ready: U32,
    pub(super) last: [u8; 4],
}

/// Columns, in the order in which they follow a run.
pub(super) const SLOTS: u8 = 1;
pub(super) const GENERATIONS: u8 = 2;
pub(super) const TAGS: u8 = 4;
pub(super) const READY: u8 = 8;

const _: () = {
    assert!(size_of::<Header>() == 56 && align_of::<Header>() == 1);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, region) == 10);
    assert!(offset_of!(Header, bytes) == 12);
    assert!(offset_of!(Header, count) == 16);
    assert!(offset_of!(Header, runs) == 20);
    assert!(offset_of!(Header, fingerprint) == 24);
    assert!(offset_of!(Header, epoch) == 40);
    assert!(offset_of!(Header, request) == 48);
    assert!(size_of::<Run>() == 64 && align_of::<Run>() == 1);
    assert!(offset_of!(Run, slot) == 4);
    assert!(offset_of!(Run, slot_step) == 8);
    assert!(offset_of!(Run, listed) == 12);
    assert!(offset_of!(Run, generation) == 16);
    assert!(offset_of!(Run, tag) == 24);
    assert!(offset_of!(Run, tag_step) == 40);
    assert!(offset_of!(Run, ready) == 56);
};
