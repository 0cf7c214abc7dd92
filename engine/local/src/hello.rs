//! The handshake of both transports: the reader's hello of 24 bytes, and the head of the reply.

use std::mem::offset_of;

use kvrail_host::secret::Secret;
use static_assertions::{const_assert, const_assert_eq};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// A protocol and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version: U16,
    zero: [u8; 2],
    token: [u8; 16],
}

pub(crate) const HELLO_BYTES: usize = size_of::<Wire>();
const_assert_eq!(HELLO_BYTES, 24);
const_assert!(offset_of!(Wire, version) == 4 && offset_of!(Wire, token) == 8);

/// Why a producer does not serve a reader: the status of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum HelloRefusal {
    /// The reader speaks another version.
    Version = 1,
    /// The token is not the one in the producer's address.
    Token = 2,
    /// The message does not have the form of a hello.
    Malformed = 3,
    /// The producer serves as many readers as it can.
    Full = 4,
    /// So many connected at the same time that this connection was displaced.
    Crowded = 5,
}

impl Protocol {
    /// The hello that presents `token`.
    pub(crate) fn hello(self, token: Secret) -> [u8; HELLO_BYTES] {
        transmute!(Wire {
            magic: self.magic,
            version: U16::new(self.version),
            zero: [0; 2],
            token: token.to_bytes()
        })
    }

    /// Checks a reader's first message for the producer. `Err`: why it is refused.
    pub(crate) fn check_hello(self, bytes: &[u8; HELLO_BYTES], token: Secret) -> Result<(), HelloRefusal> {
        let wire: Wire = transmute!(*bytes);
        if wire.magic != self.magic {
            return Err(HelloRefusal::Malformed);
        }
        if wire.version.get() != self.version {
            return Err(HelloRefusal::Version);
        }
        if wire.zero != [0; 2] {
            return Err(HelloRefusal::Malformed);
        }
        if Secret::from_bytes(wire.token) != token {
            return Err(HelloRefusal::Token);
        }
        Ok(())
    }
}

/// Why a producer's reply is not a welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyError {
    /// The producer speaks another version.
    Version { theirs: u16 },
    /// The producer does not serve this reader.
    Refused,
    /// The producer serves as many readers as it can.
    Full,
    /// Too many readers connected at the same time.
    Crowded,
    /// The process that replied does not know the answer that the address holds.
    Impostor,
    /// The message is not a reply.
    Malformed,
}

/// The first 24 bytes of a reply.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ReplyHead {
    magic: [u8; 4],
    version: U16,
    /// 0, or a [`HelloRefusal`].
    status: u8,
    /// How many items follow; each protocol defines its items.
    pub(crate) count: u8,
    answer: [u8; 16],
}

const_assert_eq!(size_of::<ReplyHead>(), 24);
const_assert!(offset_of!(ReplyHead, status) == 6 && offset_of!(ReplyHead, answer) == 8);

impl Protocol {
    /// The head of a welcome.
    pub(crate) fn welcome(self, answer: Secret, count: u8) -> ReplyHead {
        let version = U16::new(self.version);
        ReplyHead { magic: self.magic, version, status: 0, count, answer: answer.to_bytes() }
    }

    /// The head of a refusal: the version and the reason, and nothing else.
    pub(crate) fn refuse(self, refusal: HelloRefusal) -> ReplyHead {
        let version = U16::new(self.version);
        ReplyHead { magic: self.magic, version, status: refusal as u8, count: 0, answer: [0; 16] }
    }

    /// Checks the head of a producer's reply for the reader, which knows the `answer`.
    pub(crate) fn check_reply(self, head: &ReplyHead, answer: Secret) -> Result<(), ReplyError> {
        if head.magic != self.magic {
            return Err(ReplyError::Malformed);
        }
        if head.version.get() != self.version {
            return Err(ReplyError::Version { theirs: head.version.get() });
        }
        const FULL: u8 = HelloRefusal::Full as u8;
        const CROWDED: u8 = HelloRefusal::Crowded as u8;
        match head.status {
            0 => {}
            FULL => return Err(ReplyError::Full),
            CROWDED => return Err(ReplyError::Crowded),
            _ => return Err(ReplyError::Refused),
        }
        if Secret::from_bytes(head.answer) != answer {
            return Err(ReplyError::Impostor);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: Protocol = Protocol { magic: *b"TEST", version: 1 };
    const TOKEN: Secret = Secret::from_bytes([7; 16]);
    const ANSWER: Secret = Secret::from_bytes([9; 16]);

    #[test]
    fn golden_bytes() {
        let mut golden = *b"TEST\x01\0\0\0----------------";
        golden[8..].fill(7);
        assert_eq!(PROTOCOL.hello(TOKEN), golden);
        golden[7] = 5;
        golden[8..].fill(9);
        assert_eq!(PROTOCOL.welcome(ANSWER, 5).as_bytes(), golden);
        golden[6..8].copy_from_slice(&[2, 0]);
        golden[8..].fill(0);
        assert_eq!(PROTOCOL.refuse(HelloRefusal::Token).as_bytes(), golden);
    }

    #[test]
    fn a_bad_hello_is_refused_for_what_is_bad() {
        let good = PROTOCOL.hello(TOKEN);
        assert_eq!(PROTOCOL.check_hello(&good, TOKEN), Ok(()));
        for (at, refusal) in [
            (0, HelloRefusal::Malformed),
            (4, HelloRefusal::Version),
            (6, HelloRefusal::Malformed),
            (8, HelloRefusal::Token),
            (23, HelloRefusal::Token),
        ] {
            let mut bytes = good;
            bytes[at] ^= 1;
            assert_eq!(PROTOCOL.check_hello(&bytes, TOKEN), Err(refusal), "byte {at}");
        }
    }

    #[test]
    fn a_bad_reply_is_recognised() {
        let edit = |at: usize| {
            let mut head = PROTOCOL.welcome(ANSWER, 0);
            head.as_mut_bytes()[at] ^= 8;
            PROTOCOL.check_reply(&head, ANSWER)
        };
        assert_eq!(PROTOCOL.check_reply(&PROTOCOL.welcome(ANSWER, 0), ANSWER), Ok(()));
        assert_eq!(edit(0), Err(ReplyError::Malformed));
        assert_eq!(edit(4), Err(ReplyError::Version { theirs: 9 }));
        assert_eq!(edit(6), Err(ReplyError::Refused));
        assert_eq!(edit(8), Err(ReplyError::Impostor));
        for refusal in [HelloRefusal::Version, HelloRefusal::Token, HelloRefusal::Malformed] {
            assert_eq!(PROTOCOL.check_reply(&PROTOCOL.refuse(refusal), ANSWER), Err(ReplyError::Refused));
        }
        assert_eq!(PROTOCOL.check_reply(&PROTOCOL.refuse(HelloRefusal::Full), ANSWER), Err(ReplyError::Full));
        assert_eq!(
            PROTOCOL.check_reply(&PROTOCOL.refuse(HelloRefusal::Crowded), ANSWER),
            Err(ReplyError::Crowded)
        );
    }
}
