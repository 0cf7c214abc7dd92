//! What reader and exporter say to each other: one message each way, of fixed size.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::address::VERSION;
use crate::secret::Secret;

/// The most segments of one exporter.
pub const MAX_SEGMENTS: usize = 16;

const MAGIC: [u8; 4] = *b"KVSH";

/// A segment, as READs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address of its first byte in the producer's memory.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Its rkey, on every rail.
    pub rkey: u32,
}

/// What the reader says first.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HelloWire {
    magic: [u8; 4],
    version: U16,
    zero: [u8; 2],
    token: [u8; 16],
}

pub(crate) const HELLO_BYTES: usize = size_of::<HelloWire>();

/// What the exporter replies; the segments' file descriptors come with it, in this order.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ReplyWire {
    magic: [u8; 4],
    version: U16,
    status: u8,
    count: u8,
    answer: [u8; 16],
    segments: [SegmentWire; MAX_SEGMENTS],
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SegmentWire {
    base: U64,
    len: U64,
}

pub(crate) const REPLY_BYTES: usize = size_of::<ReplyWire>();

/// Why an exporter served nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It speaks another version.
    Version,
    /// The token is not the one in its address.
    Token,
    /// The message is none.
    Malformed,
}

pub(crate) fn hello(token: Secret) -> [u8; HELLO_BYTES] {
    transmute!(HelloWire { magic: MAGIC, version: U16::new(VERSION), zero: [0; 2], token: token.0 })
}

/// The exporter's judgement of what came first.
pub(crate) fn check_hello(bytes: &[u8; HELLO_BYTES], token: Secret) -> Result<(), Refusal> {
    let wire: HelloWire = transmute!(*bytes);
    if wire.magic != MAGIC {
        return Err(Refusal::Malformed);
    }
    if wire.version.get() != VERSION {
        return Err(Refusal::Version);
    }
    if wire.zero != [0; 2] {
        return Err(Refusal::Malformed);
    }
    if Secret(wire.token) != token {
        return Err(Refusal::Token);
    }
    Ok(())
}

/// The reply to a good hello.
pub(crate) fn welcome(answer: Secret, regions: &[Region]) -> [u8; REPLY_BYTES] {
    let mut segments = [SegmentWire::default(); MAX_SEGMENTS];
    for (wire, region) in segments.iter_mut().zip(regions) {
        *wire = SegmentWire { base: U64::new(region.base), len: U64::new(region.len) };
    }
    let count = regions.len().min(MAX_SEGMENTS) as u8;
    transmute!(ReplyWire {
        magic: MAGIC,
        version: U16::new(VERSION),
        status: 0,
        count,
        answer: answer.0,
        segments
    })
}

/// The reply to a bad one. Tells the version, and why, and nothing else.
pub(crate) fn refuse(refusal: Refusal) -> [u8; REPLY_BYTES] {
    let status = match refusal {
        Refusal::Version => 1,
        Refusal::Token => 2,
        Refusal::Malformed => 3,
    };
    transmute!(ReplyWire {
        magic: MAGIC,
        version: U16::new(VERSION),
        status,
        count: 0,
        answer: [0; 16],
        segments: [SegmentWire::default(); MAX_SEGMENTS],
    })
}

/// Why a reply is not a welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyError {
    Version { theirs: u16 },
    Refused,
    Malformed,
    Impostor,
}

/// The reader's judgement of the reply: the segments, if it is the right exporter's welcome.
pub(crate) fn check_reply(bytes: &[u8; REPLY_BYTES], answer: Secret) -> Result<Vec<Region>, ReplyError> {
    let wire: ReplyWire = transmute!(*bytes);
    if wire.magic != MAGIC {
        return Err(ReplyError::Malformed);
    }
    if wire.version.get() != VERSION {
        return Err(ReplyError::Version { theirs: wire.version.get() });
    }
    if wire.status != 0 {
        return Err(ReplyError::Refused);
    }
    if Secret(wire.answer) != answer {
        return Err(ReplyError::Impostor);
    }
    let count = usize::from(wire.count);
    let segments = wire.segments.get(..count).filter(|_| count > 0).ok_or(ReplyError::Malformed)?;
    let regions = segments.iter().zip(0..).map(|(wire, rkey)| {
        let (base, len) = (wire.base.get(), wire.len.get());
        base.checked_add(len).filter(|_| len > 0).ok_or(ReplyError::Malformed)?;
        Ok(Region { base, len, rkey })
    });
    regions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Secret = Secret([7; 16]);
    const ANSWER: Secret = Secret([9; 16]);

    #[test]
    fn golden_bytes() {
        let mut golden = *b"KVSH\x01\0\0\0----------------";
        golden[8..].fill(7);
        assert_eq!(hello(TOKEN), golden);
        let regions = [Region { base: 0x1122, len: 0x33, rkey: 0 }];
        let reply = welcome(ANSWER, &regions);
        assert_eq!(reply.len(), 280);
        assert_eq!(reply[..8], *b"KVSH\x01\0\0\x01");
        assert_eq!(reply[8..24], [9; 16]);
        assert_eq!(reply[24..40], *b"\x22\x11\0\0\0\0\0\0\x33\0\0\0\0\0\0\0");
        assert!(reply[40..].iter().all(|&b| b == 0));
        assert_eq!(check_reply(&reply, ANSWER).unwrap(), regions);
    }

    #[test]
    fn a_bad_hello_is_refused_for_what_is_bad() {
        let good = hello(TOKEN);
        assert_eq!(check_hello(&good, TOKEN), Ok(()));
        for (at, refusal) in [
            (0, Refusal::Malformed),
            (4, Refusal::Version),
            (6, Refusal::Malformed),
            (8, Refusal::Token),
            (23, Refusal::Token),
        ] {
            let mut bytes = good;
            bytes[at] ^= 1;
            assert_eq!(check_hello(&bytes, TOKEN), Err(refusal), "byte {at}");
        }
    }

    #[test]
    fn a_bad_reply_gives_no_segments() {
        let with = |base, len| welcome(ANSWER, &[Region { base, len, rkey: 0 }]);
        let edit = |at: usize, value: u8| {
            let mut bytes = with(4096, 4096);
            bytes[at] = value;
            check_reply(&bytes, ANSWER)
        };
        assert_eq!(edit(0, 0), Err(ReplyError::Malformed));
        assert_eq!(edit(4, 9), Err(ReplyError::Version { theirs: 9 }));
        assert_eq!(edit(6, 2), Err(ReplyError::Refused));
        assert_eq!(edit(7, 0), Err(ReplyError::Malformed));
        assert_eq!(edit(7, 17), Err(ReplyError::Malformed));
        assert_eq!(edit(7, 2), Err(ReplyError::Malformed), "an empty segment");
        assert_eq!(edit(8, 0), Err(ReplyError::Impostor));
        assert_eq!(check_reply(&with(u64::MAX, 2), ANSWER), Err(ReplyError::Malformed));
        for refusal in [Refusal::Version, Refusal::Token, Refusal::Malformed] {
            assert_eq!(check_reply(&refuse(refusal), ANSWER), Err(ReplyError::Refused));
        }
    }
}
