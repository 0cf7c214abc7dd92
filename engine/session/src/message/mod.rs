//! The messages of an established channel, and their bytes.

mod error;
mod types;

pub use error::ParseError;
pub use types::{
    ByeReason, Introduction, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, MESSAGE_REGIONS, Message, MessageKind, OfferHead, PoolHead, PoolRegions,
};

/// The message in `bytes`.
///
/// # Errors
///
/// The bytes are no message.
pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
    let _ = bytes;
    todo!()
}

impl Message {
    /// Appends its bytes to `out`: at most 65,519.
    ///
    /// # Panics
    ///
    /// If a list is longer than its bound.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Its kind; `None` for one that was passed over.
    #[must_use]
    pub fn kind(&self) -> Option<MessageKind> {
        todo!()
    }
}
