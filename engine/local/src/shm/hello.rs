//! The exporter's reply to a reader's hello: one message of fixed size.

use std::mem::offset_of;

use kvrail_host::secret::Secret;
use static_assertions::{const_assert, const_assert_eq};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::address::VERSION;
use crate::hello::{HelloRefusal, Protocol, ReplyError, ReplyHead};
use crate::region::ExportedRegion;

/// The most segments of one exporter.
pub const MAX_SEGMENTS: usize = 16;

pub(crate) const PROTOCOL: Protocol = Protocol { magic: *b"KVSH", version: VERSION };

/// The reply. The segments' file descriptors come with it, in the same order.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Wire {
    /// Its `count` is the number of segments.
    head: ReplyHead,
    segments: [SegmentWire; MAX_SEGMENTS],
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SegmentWire {
    base: U64,
    len: U64,
}

pub(crate) const REPLY_BYTES: usize = size_of::<Wire>();
const_assert_eq!(REPLY_BYTES, 24 + 16 * MAX_SEGMENTS);
const_assert!(offset_of!(Wire, segments) == 24 && offset_of!(SegmentWire, len) == 8);

/// The reply to a hello that the exporter accepts.
pub(crate) fn welcome(answer: Secret, regions: &[ExportedRegion]) -> [u8; REPLY_BYTES] {
    let mut segments = [SegmentWire::default(); MAX_SEGMENTS];
    for (wire, region) in segments.iter_mut().zip(regions) {
        *wire = SegmentWire { base: U64::new(region.base), len: U64::new(region.len) };
    }
    let count = regions.len().min(MAX_SEGMENTS) as u8;
    transmute!(Wire { head: PROTOCOL.welcome(answer, count), segments })
}

/// The reply to a hello that the exporter refuses.
pub(crate) fn refuse(refusal: HelloRefusal) -> [u8; REPLY_BYTES] {
    transmute!(Wire { head: PROTOCOL.refuse(refusal), segments: [SegmentWire::default(); MAX_SEGMENTS] })
}

/// What the reader thinks of the reply: the segments, if it is a welcome of the right exporter.
pub(crate) fn check_reply(
    bytes: &[u8; REPLY_BYTES],
    answer: Secret,
) -> Result<Vec<ExportedRegion>, ReplyError> {
    let wire: Wire = transmute!(*bytes);
    PROTOCOL.check_reply(&wire.head, answer)?;
    let count = usize::from(wire.head.count);
    let segments = wire.segments.get(..count).filter(|_| count > 0).ok_or(ReplyError::Malformed)?;
    let regions = segments.iter().zip(0..).map(|(wire, rkey)| {
        let (base, len) = (wire.base.get(), wire.len.get());
        base.checked_add(len).filter(|_| len > 0).ok_or(ReplyError::Malformed)?;
        Ok(ExportedRegion { base, len, rkey })
    });
    regions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Secret = Secret::from_bytes([9; 16]);

    #[test]
    fn golden_bytes() {
        let regions = [ExportedRegion { base: 0x1122, len: 0x33, rkey: 0 }];
        let reply = welcome(ANSWER, &regions);
        assert_eq!(reply.len(), 280);
        assert_eq!(reply[..8], *b"KVSH\x01\0\0\x01");
        assert_eq!(reply[8..24], [9; 16]);
        assert_eq!(reply[24..40], *b"\x22\x11\0\0\0\0\0\0\x33\0\0\0\0\0\0\0");
        assert!(reply[40..].iter().all(|&b| b == 0));
        assert_eq!(check_reply(&reply, ANSWER).unwrap(), regions);
    }

    #[test]
    fn a_bad_reply_gives_no_segments() {
        let with = |base, len| welcome(ANSWER, &[ExportedRegion { base, len, rkey: 0 }]);
        let edit = |at: usize, value: u8| {
            let mut bytes = with(4096, 4096);
            bytes[at] = value;
            check_reply(&bytes, ANSWER)
        };
        assert_eq!(edit(6, 2), Err(ReplyError::Refused));
        assert_eq!(edit(7, 0), Err(ReplyError::Malformed));
        assert_eq!(edit(7, 17), Err(ReplyError::Malformed));
        assert_eq!(edit(7, 2), Err(ReplyError::Malformed), "an empty segment");
        assert_eq!(check_reply(&with(u64::MAX, 2), ANSWER), Err(ReplyError::Malformed));
        assert_eq!(check_reply(&refuse(HelloRefusal::Token), ANSWER), Err(ReplyError::Refused));
    }
}
