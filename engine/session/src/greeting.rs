//! The first bytes of a connection, readable and frozen: magic, version range and key id.
//!
//! Every version of the protocol begins with these bytes, so that two peers which cannot talk to
//! each other can still say why. docs/protocol.md has the table of the fields.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::key::KeyId;
use crate::versions::Versions;

/// The first bytes of every greeting. A stream that "translates" line ends breaks them.
pub(crate) const MAGIC: [u8; 8] = *b"kvrail\r\n";
/// Bytes of a greeting's head.
pub(crate) const HEAD_BYTES: usize = 32;
/// Bytes of the head that a Welcome repeats encrypted: all but the magic.
pub(crate) const ECHO_BYTES: usize = HEAD_BYTES - MAGIC.len();
/// Bytes after the head of a Hello: the first Noise message, with no payload.
pub(crate) const HELLO_REST: usize = 48;
/// Bytes after the head of a Welcome: the second Noise message, whose payload repeats the head.
pub(crate) const WELCOME_REST: usize = 48 + ECHO_BYTES;
/// Bytes after the head of a Refused.
pub(crate) const REFUSED_REST: usize = 24;
/// Bytes of the longest greeting.
pub(crate) const MAX_GREETING: usize = HEAD_BYTES + WELCOME_REST;

/// The kind of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(clippy::exhaustive_enums, reason = "the greeting is frozen")]
pub enum GreetingKind {
    /// The reader's first message.
    Hello = 1,
    /// The producer's answer.
    Welcome = 2,
    /// The producer's answer where it cannot welcome the reader.
    Refused = 3,
}

impl GreetingKind {
    const fn from_wire(kind: u16) -> Option<Self> {
        match kind {
            1 => Some(Self::Hello),
            2 => Some(Self::Welcome),
            3 => Some(Self::Refused),
            _ => None,
        }
    }

    /// Bytes after the head.
    pub(crate) const fn rest(self) -> usize {
        match self {
            Self::Hello => HELLO_REST,
            Self::Welcome => WELCOME_REST,
            Self::Refused => REFUSED_REST,
        }
    }
}

/// Why bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// The bytes are of another protocol.
    #[error("the stream begins with {got:02x?} instead of kvrail's magic: something else uses this port")]
    Magic {
        /// The first eight bytes.
        got: [u8; 8],
    },
    /// There is no such kind of greeting.
    #[error(
        "the peer's greeting has kind {got}, and there are kinds 1 to 3 only: does something else use this port?"
    )]
    UnknownKind {
        /// The number of the kind.
        got: u16,
    },
    /// The greeting is not as long as its kind.
    #[error(
        "the peer's {kind:?} has {got} bytes after its head, and a {kind:?} has {want}: run the same release on both sides"
    )]
    Rest {
        /// The greeting's kind.
        kind: GreetingKind,
        /// Bytes after the head, as the head says.
        got: u16,
        /// Bytes after the head of every greeting of this kind.
        want: usize,
    },
    /// The range of versions is empty.
    #[error(
        "the peer's {kind:?} says that it speaks versions {min} to {max}, which is no range of versions from 1 on"
    )]
    Versions {
        /// The greeting's kind.
        kind: GreetingKind,
        /// The lowest version.
        min: u16,
        /// The highest version.
        max: u16,
    },
    /// The chosen version cannot be one.
    #[error(
        "the peer's {kind:?} chooses version {got}: a Hello and a Refused choose none (0), a Welcome one of the versions that it speaks"
    )]
    Chosen {
        /// The greeting's kind.
        kind: GreetingKind,
        /// The chosen version.
        got: u16,
    },
    /// A byte without a meaning is not zero.
    #[error(
        "the peer's {kind:?} has {got:#04x} at byte {at}, which must be 0: run the same release on both sides"
    )]
    Stray {
        /// The greeting's kind.
        kind: GreetingKind,
        /// The byte's place, counted from 0 at the beginning of the head.
        at: usize,
        /// Its value.
        got: u8,
    },
    /// A greeting that this side cannot get.
    #[error(
        "the peer sent a {got:?} (kind {}) where a {want:?} (kind {}) is due: a reader connects to a producer",
        *.got as u16,
        *.want as u16
    )]
    Turn {
        /// The kind that came.
        got: GreetingKind,
        /// The kind that was due.
        want: GreetingKind,
    },
}

impl GreetingError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Magic { .. } => 4002,
            Self::UnknownKind { .. } => 4083,
            Self::Rest { .. } => 4084,
            Self::Versions { .. } => 4085,
            Self::Chosen { .. } => 4086,
            Self::Stray { .. } => 4087,
            Self::Turn { .. } => 4088,
        }
    }

    /// The number of the greeting's kind; 0 if the bytes are of another protocol.
    pub(crate) const fn kind(&self) -> u16 {
        match *self {
            Self::Magic { .. } => 0,
            Self::UnknownKind { got } => got,
            Self::Turn { got, .. } => got as u16,
            Self::Rest { kind, .. }
            | Self::Versions { kind, .. }
            | Self::Chosen { kind, .. }
            | Self::Stray { kind, .. } => kind as u16,
        }
    }
}

/// The head as it is sent.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireHead {
    magic: [u8; 8],
    kind: U16,
    rest: U16,
    min: U16,
    max: U16,
    chosen: U16,
    zero: [u8; 6],
    key: [u8; 8],
}

const _: () = {
    assert!(size_of::<WireHead>() == HEAD_BYTES);
    assert!(offset_of!(WireHead, magic) == 0);
    assert!(offset_of!(WireHead, kind) == 8);
    assert!(offset_of!(WireHead, rest) == 10);
    assert!(offset_of!(WireHead, min) == 12);
    assert!(offset_of!(WireHead, max) == 14);
    assert!(offset_of!(WireHead, chosen) == 16);
    assert!(offset_of!(WireHead, zero) == 18);
    assert!(offset_of!(WireHead, key) == 24);
    assert!(MAX_GREETING == 104);
};

/// The head of a greeting, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GreetingHead {
    /// What follows.
    pub(crate) kind: GreetingKind,
    /// The versions that its sender speaks.
    pub(crate) versions: Versions,
    /// In a Welcome the version of the connection, which is one of `versions`; else 0.
    pub(crate) chosen: u16,
    /// The sender's key, or [`KeyId::NONE`].
    pub(crate) key: KeyId,
}

impl GreetingHead {
    /// The head in these bytes.
    pub(crate) fn parse(bytes: &[u8; HEAD_BYTES]) -> Result<Self, GreetingError> {
        let wire: &WireHead = zerocopy::transmute_ref!(bytes);
        if wire.magic != MAGIC {
            return Err(GreetingError::Magic { got: wire.magic });
        }
        let kind = wire.kind.get();
        let kind = GreetingKind::from_wire(kind).ok_or(GreetingError::UnknownKind { got: kind })?;
        let (got, want) = (wire.rest.get(), kind.rest());
        if usize::from(got) != want {
            return Err(GreetingError::Rest { kind, got, want });
        }
        let (min, max) = (wire.min.get(), wire.max.get());
        let versions = Versions::new(min, max).ok_or(GreetingError::Versions { kind, min, max })?;
        let chosen = wire.chosen.get();
        let possible = match kind {
            GreetingKind::Welcome => (min..=max).contains(&chosen),
            GreetingKind::Hello | GreetingKind::Refused => chosen == 0,
        };
        if !possible {
            return Err(GreetingError::Chosen { kind, got: chosen });
        }
        no_stray(kind, offset_of!(WireHead, zero), &wire.zero)?;
        Ok(Self { kind, versions, chosen, key: KeyId(wire.key) })
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; HEAD_BYTES] {
        // A rest is 72 bytes at most.
        zerocopy::transmute!(WireHead {
            magic: MAGIC,
            kind: U16::new(self.kind as u16),
            rest: U16::new(self.kind.rest() as u16),
            min: U16::new(self.versions.min()),
            max: U16::new(self.versions.max()),
            chosen: U16::new(self.chosen),
            zero: [0; 6],
            key: self.key.0,
        })
    }
}

/// The rest of a Refused as it is sent.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireRefused {
    reason: U16,
    zero: [u8; 6],
    number: U64,
    key: [u8; 8],
}

const _: () = {
    assert!(size_of::<WireRefused>() == REFUSED_REST);
    assert!(offset_of!(WireRefused, reason) == 0);
    assert!(offset_of!(WireRefused, zero) == 2);
    assert!(offset_of!(WireRefused, number) == 8);
    assert!(offset_of!(WireRefused, key) == 16);
};

/// What a Refused says after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedRest {
    /// The number of the reason.
    pub(crate) reason: u16,
    /// What the reason needs: a limit, or the kind of a message.
    pub(crate) number: u64,
    /// The key id of the refused side's Hello, if the key is the reason; else zeros.
    pub(crate) key: KeyId,
}

impl RefusedRest {
    /// The rest in these bytes.
    pub(crate) fn parse(bytes: &[u8; REFUSED_REST]) -> Result<Self, GreetingError> {
        let wire: &WireRefused = zerocopy::transmute_ref!(bytes);
        no_stray(GreetingKind::Refused, HEAD_BYTES + offset_of!(WireRefused, zero), &wire.zero)?;
        Ok(Self { reason: wire.reason.get(), number: wire.number.get(), key: KeyId(wire.key) })
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; REFUSED_REST] {
        zerocopy::transmute!(WireRefused {
            reason: U16::new(self.reason),
            zero: [0; 6],
            number: U64::new(self.number),
            key: self.key.0,
        })
    }
}

fn no_stray(kind: GreetingKind, at: usize, bytes: &[u8]) -> Result<(), GreetingError> {
    match bytes.iter().position(|&b| b != 0) {
        Some(i) => Err(GreetingError::Stray { kind, at: at + i, got: bytes[i] }),
        None => Ok(()),
    }
}

/// The bytes of one greeting as they come. It has room for the longest greeting and no more.
#[derive(Debug)]
pub(crate) struct GreetingBytes {
    bytes: [u8; MAX_GREETING],
    got: usize,
    head: Option<GreetingHead>,
}

impl GreetingBytes {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; MAX_GREETING], got: 0, head: None }
    }

    /// Takes bytes from the front of `from` until a greeting of kind `due` is whole, and returns
    /// its head. A Refused may come instead of a Welcome. `Ok(None)`: all bytes are taken, and more
    /// must come.
    ///
    /// The first eight bytes are checked as soon as they have come: a peer of another protocol
    /// may send fewer bytes than a head has, and wait for an answer.
    pub(crate) fn take(
        &mut self,
        from: &mut &[u8],
        due: GreetingKind,
    ) -> Result<Option<GreetingHead>, GreetingError> {
        if !self.fill(MAGIC.len(), from) {
            return Ok(None);
        }
        if let Some(&got) = self.bytes.first_chunk()
            && got != MAGIC
        {
            return Err(GreetingError::Magic { got });
        }
        if !self.fill(HEAD_BYTES, from) {
            return Ok(None);
        }
        let head = match self.head {
            Some(head) => head,
            None => {
                let head = GreetingHead::parse(self.head_bytes())?;
                let instead = due == GreetingKind::Welcome && head.kind == GreetingKind::Refused;
                if head.kind != due && !instead {
                    return Err(GreetingError::Turn { got: head.kind, want: due });
                }
                *self.head.insert(head)
            }
        };
        Ok(self.fill(HEAD_BYTES + head.kind.rest(), from).then_some(head))
    }

    /// Takes bytes until there are `want`, and says whether there are.
    fn fill(&mut self, want: usize, from: &mut &[u8]) -> bool {
        let part = from.len().min(want.saturating_sub(self.got));
        let (taken, left) = from.split_at(part);
        self.bytes[self.got..self.got + part].copy_from_slice(taken);
        self.got += part;
        *from = left;
        self.got >= want
    }

    /// The head's bytes.
    pub(crate) fn head_bytes(&self) -> &[u8; HEAD_BYTES] {
        self.bytes.first_chunk().expect("a greeting is longer than its head")
    }

    /// The bytes after the head: the `N` bytes of a kind whose rest has that many.
    pub(crate) fn rest<const N: usize>(&self) -> &[u8; N] {
        self.bytes[HEAD_BYTES..].first_chunk().expect("a greeting is longer than its rest")
    }

    /// Bytes that have come, and bytes that the greeting has as far as known; `None` if there are
    /// none yet.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        let want = HEAD_BYTES + self.head.map_or(0, |head| head.kind.rest());
        (self.got > 0).then_some((self.got, want))
    }
}

#[cfg(test)]
mod tests;
