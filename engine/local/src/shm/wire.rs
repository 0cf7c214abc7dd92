//! The messages between an exporter and a reader, behind the hello: all of fixed size.
//!
//! The exporter answers a hello with a [`Welcome`], and two descriptors come with it: the memory of
//! the live words, and the read end of the pipe that ends with the exporter's process. From then on
//! the reader asks for exports ([`Ask`]), and each question gets one [`Answer`].

use std::mem::offset_of;

use kvrail_host::secret::Secret;
use static_assertions::{const_assert, const_assert_eq};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::address::VERSION;
use super::packet::MAX_FDS;
use crate::hello::{HelloRefusal, Protocol, ReplyError, ReplyHead};
use crate::region::{ExportedRegion, MAX_EXPORTS};

pub(super) const PROTOCOL: Protocol = Protocol { magic: *b"KVSH", version: VERSION };

/// Exports of one answer, at most. Each can come with a descriptor.
pub(super) const BATCH: usize = MAX_FDS;

/// A word in the exporter's memory, by which a reader finds out whether it can read that memory,
/// and whether it reads the memory of the process that it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) addr: u64,
    pub(super) value: [u8; 16],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Welcome {
    head: ReplyHead,
    probe_addr: U64,
    probe: [u8; 16],
}

pub(super) const WELCOME_BYTES: usize = size_of::<Welcome>();
const_assert_eq!(WELCOME_BYTES, 48);
const_assert!(offset_of!(Welcome, probe_addr) == 24 && offset_of!(Welcome, probe) == 32);

/// The reply to a hello that the exporter accepts.
pub(super) fn welcome(answer: Secret, probe: Probe) -> [u8; WELCOME_BYTES] {
    let head = PROTOCOL.welcome(answer, 0);
    transmute!(Welcome { head, probe_addr: U64::new(probe.addr), probe: probe.value })
}

/// The reply to a hello that the exporter refuses.
pub(super) fn refuse(refusal: HelloRefusal) -> [u8; WELCOME_BYTES] {
    transmute!(Welcome { head: PROTOCOL.refuse(refusal), probe_addr: U64::new(0), probe: [0; 16] })
}

/// What the reader thinks of the reply: the probe, if it is a welcome of the right exporter.
pub(super) fn check_reply(bytes: &[u8; WELCOME_BYTES], answer: Secret) -> Result<Probe, ReplyError> {
    let wire: Welcome = transmute!(*bytes);
    PROTOCOL.check_reply(&wire.head, answer)?;
    if wire.head.count != 0 {
        return Err(ReplyError::Malformed);
    }
    Ok(Probe { addr: wire.probe_addr.get(), value: wire.probe })
}

/// A question about exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The export of this rkey.
    One(u32),
    /// Exports of this rkey and larger ones, as many as an answer holds.
    From(u32),
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AskWire {
    kind: u8,
    zero: [u8; 3],
    rkey: U32,
}

pub(super) const ASK_BYTES: usize = size_of::<AskWire>();
const_assert_eq!(ASK_BYTES, 8);

impl Ask {
    pub(super) fn to_bytes(self) -> [u8; ASK_BYTES] {
        let (kind, rkey) = match self {
            Self::One(rkey) => (1, rkey),
            Self::From(rkey) => (2, rkey),
        };
        transmute!(AskWire { kind, zero: [0; 3], rkey: U32::new(rkey) })
    }

    pub(super) fn parse(bytes: &[u8; ASK_BYTES]) -> Option<Self> {
        let wire: AskWire = transmute!(*bytes);
        let rkey = wire.rkey.get();
        match (wire.kind, wire.zero) {
            (1, [0, 0, 0]) => Some(Self::One(rkey)),
            (2, [0, 0, 0]) => Some(Self::From(rkey)),
            _ => None,
        }
    }
}

/// By what a reader reaches an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A segment, whole. Its descriptor comes with the answer.
    Segment {
        /// The number of the segment's file at the exporter.
        file: u64,
    },
    /// Bytes of a file that the producer's application made. Its descriptor comes with the answer.
    File {
        /// The number of the file at the exporter.
        file: u64,
        /// Where the export begins in it.
        offset: u64,
    },
    /// The memory of the exporter's process.
    Process,
}

/// One export, as the exporter describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) region: ExportedRegion,
    /// The number of its live word.
    pub(super) slot: u32,
    pub(super) reach: Reach,
}

impl Description {
    /// The file whose descriptor comes with it.
    pub(super) const fn file(&self) -> Option<u64> {
        match self.reach {
            Reach::Segment { file } | Reach::File { file, .. } => Some(file),
            Reach::Process => None,
        }
    }
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DescriptionWire {
    rkey: U32,
    slot: U32,
    base: U64,
    len: U64,
    offset: U64,
    file: U64,
    kind: u8,
    zero: [u8; 7],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AnswerWire {
    ask: [u8; ASK_BYTES],
    count: u8,
    zero: [u8; 7],
    exports: [DescriptionWire; BATCH],
}

pub(super) const ANSWER_BYTES: usize = size_of::<AnswerWire>();
const_assert_eq!(ANSWER_BYTES, 16 + 48 * BATCH);
const_assert!(offset_of!(AnswerWire, exports) == 16 && offset_of!(DescriptionWire, kind) == 40);

/// The answer to `ask`. Of more than [`BATCH`] exports the first ones are told.
pub(super) fn answer(ask: Ask, exports: &[Description]) -> [u8; ANSWER_BYTES] {
    let mut wires = [DescriptionWire::default(); BATCH];
    for (wire, export) in wires.iter_mut().zip(exports) {
        let ExportedRegion { base, len, rkey } = export.region;
        let (kind, file, offset) = match export.reach {
            Reach::Segment { file } => (1, file, 0),
            Reach::File { file, offset } => (2, file, offset),
            Reach::Process => (3, 0, 0),
        };
        *wire = DescriptionWire {
            rkey: U32::new(rkey),
            slot: U32::new(export.slot),
            base: U64::new(base),
            len: U64::new(len),
            offset: U64::new(offset),
            file: U64::new(file),
            kind,
            zero: [0; 7],
        };
    }
    let count = exports.len().min(BATCH) as u8;
    transmute!(AnswerWire { ask: ask.to_bytes(), count, zero: [0; 7], exports: wires })
}

/// The exports in an answer, if it is one to `ask`. Their rkeys ascend, and each is one that `ask`
/// asks for.
pub(super) fn check_answer(bytes: &[u8; ANSWER_BYTES], ask: Ask) -> Option<Vec<Description>> {
    let wire: AnswerWire = transmute!(*bytes);
    if wire.ask != ask.to_bytes() {
        return None;
    }
    let mut exports = Vec::new();
    let mut least = match ask {
        Ask::One(rkey) | Ask::From(rkey) => rkey,
    };
    for wire in wire.exports.get(..usize::from(wire.count))? {
        let region = ExportedRegion::new(wire.base.get(), wire.len.get(), wire.rkey.get())?;
        if region.rkey < least {
            return None;
        }
        least = region.rkey.saturating_add(1);
        let (file, offset) = (wire.file.get(), wire.offset.get());
        let reach = match (wire.kind, file, offset) {
            (1, _, 0) => Reach::Segment { file },
            (2, _, _) => Reach::File { file, offset },
            (3, 0, 0) => Reach::Process,
            _ => return None,
        };
        let slot = wire.slot.get();
        if slot as usize >= MAX_EXPORTS {
            return None;
        }
        exports.push(Description { region, slot, reach });
    }
    match ask {
        Ask::One(rkey) if exports.len() > 1 || exports.iter().any(|e| e.region.rkey != rkey) => None,
        _ => Some(exports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Secret = Secret::from_bytes([9; 16]);
    const PROBE: Probe = Probe { addr: 0x1122, value: [7; 16] };

    #[test]
    fn golden_bytes_of_the_welcome() {
        let reply = welcome(ANSWER, PROBE);
        assert_eq!(reply[..8], *b"KVSH\x02\0\0\0");
        assert_eq!(reply[8..24], [9; 16]);
        assert_eq!(reply[24..32], *b"\x22\x11\0\0\0\0\0\0");
        assert_eq!(reply[32..], [7; 16]);
        assert_eq!(check_reply(&reply, ANSWER), Ok(PROBE));
        let edit = |at: usize, value: u8| {
            let mut bytes = reply;
            bytes[at] = value;
            check_reply(&bytes, ANSWER)
        };
        assert_eq!(edit(6, 2), Err(ReplyError::Refused));
        assert_eq!(edit(7, 1), Err(ReplyError::Malformed));
        assert_eq!(check_reply(&refuse(HelloRefusal::Token), ANSWER), Err(ReplyError::Refused));
    }

    fn export(rkey: u32, reach: Reach) -> Description {
        Description { region: ExportedRegion { base: 0x1122, len: 0x33, rkey }, slot: 5, reach }
    }

    #[test]
    fn golden_bytes_of_questions_and_answers() {
        for (ask, golden) in
            [(Ask::One(0x102), b"\x01\0\0\0\x02\x01\0\0"), (Ask::From(3), b"\x02\0\0\0\x03\0\0\0")]
        {
            assert_eq!(ask.to_bytes(), *golden);
            assert_eq!(Ask::parse(golden), Some(ask));
        }
        assert_eq!(Ask::parse(&[3, 0, 0, 0, 1, 0, 0, 0]), None);
        assert_eq!(Ask::parse(&[1, 0, 1, 0, 1, 0, 0, 0]), None);
        let exports = [
            export(3, Reach::Segment { file: 8 }),
            export(4, Reach::File { file: 8, offset: 0x44 }),
            export(9, Reach::Process),
        ];
        let bytes = answer(Ask::From(3), &exports);
        assert_eq!(bytes[..16], *b"\x02\0\0\0\x03\0\0\0\x03\0\0\0\0\0\0\0");
        let second = b"\x04\0\0\0\x05\0\0\0\x22\x11\0\0\0\0\0\0\x33\0\0\0\0\0\0\0\x44\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0";
        assert_eq!(bytes[64..112], *second);
        assert!(bytes[160..].iter().all(|&b| b == 0));
        assert_eq!(check_answer(&bytes, Ask::From(3)).unwrap(), exports);
    }

    #[test]
    fn an_answer_to_another_question_or_with_impossible_exports_is_none() {
        let good = answer(Ask::One(3), &[export(3, Reach::Segment { file: 8 })]);
        assert!(check_answer(&good, Ask::One(3)).is_some());
        assert!(check_answer(&good, Ask::One(4)).is_none() && check_answer(&good, Ask::From(3)).is_none());
        // More than one, another key, no key, a slot beyond the last, an unknown kind, no length.
        for (at, value) in [(8, 2), (16, 4), (16, 0), (22, 1), (56, 4), (56, 0), (32, 0), (8, 17), (40, 1)] {
            let mut bytes = good;
            bytes[at] = value;
            assert!(check_answer(&bytes, Ask::One(3)).is_none(), "{at} {value}");
        }
        let falling = answer(Ask::From(1), &[export(3, Reach::Process), export(3, Reach::Process)]);
        assert!(check_answer(&falling, Ask::From(1)).is_none());
        assert_eq!(check_answer(&answer(Ask::One(3), &[]), Ask::One(3)), Some(vec![]));
    }
}
