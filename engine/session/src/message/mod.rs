//! The messages of an established channel, and their bytes. Parsing refuses every value that is out
//! of range.

#[cfg(test)]
pub(crate) mod arbitrary;
mod decode;
mod encode;
mod error;
mod fields;
mod handover;
mod kind;
mod service;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use decode::parse;
pub(crate) use decode::parse_answer;
pub(crate) use encode::encode_ask;
pub use error::{MessageField, ParseError};
pub use kind::MessageKind;
pub use types::{
    ByeReason, Introduction, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, MESSAGE_REGIONS, Message, OfferHead, PoolHead, PoolRegions,
};
