//! What the fuzz targets reach of this crate. It is no part of the crate's interface, and changes
//! without notice.
#![allow(missing_debug_implementations, reason = "a fuzz target prints its input")]

use crate::channel::Channel;
use crate::error::Cause;
use crate::hello::{Answering, Dialling};
use crate::key::PeerKeys;
use crate::message::Message;
use crate::offer::Layout;
use crate::offered::{OfferNews, OfferReader};
use crate::pool::{Offer, OfferChange};

/// The reader's side of a handshake.
pub struct ReaderGreeting(Dialling);

impl ReaderGreeting {
    /// Begins with the first key, and appends the first message to `out`.
    ///
    /// # Errors
    ///
    /// The system gave no random numbers.
    pub fn begin(keys: &PeerKeys, out: &mut Vec<u8>) -> Result<Self, Cause> {
        Dialling::begin(keys, 0, out).map(Self)
    }

    /// Takes bytes from the front of `bytes`.
    ///
    /// # Errors
    ///
    /// The bytes are no answer that a reader takes.
    pub fn received(&mut self, bytes: &mut &[u8]) -> Result<Option<Frames>, Cause> {
        Ok(self.0.received(bytes)?.map(Frames))
    }
}

/// The producer's side of a handshake.
pub struct ProducerGreeting(Answering);

impl ProducerGreeting {
    /// No byte has come.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "as in the crate")]
    pub fn new() -> Self {
        Self(Answering::new())
    }

    /// Takes bytes from the front of `bytes`, and appends the answer to `out`.
    ///
    /// # Errors
    ///
    /// The bytes are no greeting that a producer takes.
    pub fn received(
        &mut self,
        keys: &PeerKeys,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Frames>, Cause> {
        Ok(self.0.received(keys, bytes, out)?.map(Frames))
    }
}

/// Both directions of an encrypted connection.
pub struct Frames(Channel);

impl Frames {
    /// Appends one frame with `message` to `out`.
    ///
    /// # Errors
    ///
    /// The connection has carried 2^64 frames.
    pub fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        self.0.seal(message, out)
    }

    /// Takes bytes from the front of `bytes` until a frame is whole.
    ///
    /// # Errors
    ///
    /// The frame is not the peer's next one.
    pub fn open(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        self.0.open(bytes)
    }
}

/// How a reader puts an offer together.
pub struct OfferMessages(OfferReader);

/// What the messages of an offer have brought.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, clippy::large_enum_variant, reason = "for one fuzz target")]
pub enum OfferResult {
    /// The first offer is complete.
    Complete(Offer),
    /// The offer has changed.
    Change(OfferChange),
}

impl OfferMessages {
    /// No message has come.
    #[must_use]
    pub fn new(known: Vec<Layout>) -> Self {
        Self(OfferReader::new(known))
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// The message has no place here.
    pub fn received(&mut self, message: Message) -> Result<Option<OfferResult>, Cause> {
        Ok(self.0.received(message)?.map(|news| match news {
            OfferNews::Complete(offer) => OfferResult::Complete(offer),
            OfferNews::Change(change) => OfferResult::Change(change),
        }))
    }
}
