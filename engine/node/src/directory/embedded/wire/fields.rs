//! The header, and what questions and answers have in common.

use std::num::NonZeroU64;

use kvrail::session::Epoch;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::FormatError;
use super::limits::VERSION;

pub(super) const LOOK_UP: u8 = 1;
pub(super) const OWNERS: u8 = 2;
pub(super) const ANNOUNCE: u8 = 3;
pub(super) const WITHDRAW: u8 = 4;
pub(super) const RENEW: u8 = 5;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) version: u8,
    pub(super) operation: u8,
    pub(super) count: U16,
    pub(super) zero: U32,
}

pub(super) const HEADER: usize = size_of::<Header>();

const _: () = assert!(HEADER == 8);

pub(super) fn begin(operation: u8, count: usize, max: usize, out: &mut Vec<u8>) {
    assert!(count <= max, "operation {operation} with {count} items: {max} at most");
    // Every bound is far below 2^16.
    let count = U16::new(count as u16);
    out.extend_from_slice(Header { version: VERSION, operation, count, zero: U32::new(0) }.as_bytes());
}

/// The header, checked but for its operation and count, and what follows it.
pub(super) fn open(bytes: &[u8]) -> Result<(Header, &[u8]), FormatError> {
    let short = |_| FormatError::Length { got: bytes.len(), want: HEADER };
    let (header, body) = Header::read_from_prefix(bytes).map_err(short)?;
    if header.version != VERSION {
        return Err(FormatError::Version { got: header.version });
    }
    no_value("a reserved part", header.zero.get())?;
    Ok((header, body))
}

/// What follows the header of an answer, which must be to this operation with so many items.
pub(super) fn answer_to(operation: u8, count: usize, bytes: &[u8]) -> Result<&[u8], FormatError> {
    let (header, body) = open(bytes)?;
    if header.operation != operation {
        return Err(FormatError::Operation { got: header.operation });
    }
    let got = header.count.get();
    if usize::from(got) != count {
        return Err(FormatError::Field { field: "the count", got: got.into(), want: "that of the question" });
    }
    Ok(body)
}

pub(super) fn bounded(count: usize, max: usize, want: &'static str) -> Result<usize, FormatError> {
    if count > max {
        return Err(FormatError::Field { field: "the count", got: count as u64, want });
    }
    Ok(count)
}

/// All of `body` as so many items.
pub(super) fn items<T>(body: &[u8], count: usize) -> Result<&[T], FormatError>
where
    T: FromBytes + Immutable + Unaligned,
{
    let want = HEADER + count * size_of::<T>();
    let wrong = || FormatError::Length { got: HEADER + body.len(), want };
    <[T]>::ref_from_bytes_with_elems(body, count).map_err(|_| wrong())
}

pub(super) fn end(rest: &[u8]) -> Result<(), FormatError> {
    items::<u8>(rest, 0).map(drop)
}

pub(super) fn no_value(field: &'static str, got: u32) -> Result<(), FormatError> {
    if got == 0 { Ok(()) } else { Err(FormatError::Field { field, got: got.into(), want: "0" }) }
}

pub(super) fn epoch(read: U64) -> Result<Epoch, FormatError> {
    let zero = FormatError::Field { field: "an epoch", got: 0, want: "any other number" };
    NonZeroU64::new(read.get()).map(Epoch).ok_or(zero)
}
