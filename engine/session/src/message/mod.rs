//! Messages as values: parsing refuses every value that is out of range.

mod decode;
mod encode;
mod error;
mod types;

pub(crate) use self::decode::header;
pub use self::decode::parse;
pub use self::error::ParseError;
pub use self::types::{
    ByeReason, Greeting, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, Message, OfferHead,
};
pub(crate) use self::types::{Challenge, FromMessage, Hello, Regions};
