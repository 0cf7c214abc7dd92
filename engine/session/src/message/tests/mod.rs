//! The bytes of every message, and what parsing does with other bytes.

mod golden;
mod parsing;
mod round_trips;
mod samples;

use super::{Message, parse};
use crate::refusal::Refusal;

/// The bytes of a message.
fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// Checks that bytes are refused with an error that can be printed, or are a message that encodes
/// to the same bytes: those aside that a later version may give a meaning. Returns the message.
#[track_caller]
fn check(given: &[u8]) -> Option<Message> {
    let message = match parse(given) {
        Ok(message) => message,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let mut canonical = given.to_vec();
    if let Message::PassedOver(_) = message {
        canonical.truncate(8);
        canonical[2..].fill(0);
    } else {
        let additions = usize::from(u16::from_le_bytes([given[4], given[5]]));
        canonical.truncate(given.len() - additions);
        canonical[4..6].fill(0);
    }
    if let Message::Refused(Refusal::Other { .. }) = message {
        canonical[16..].fill(0);
    }
    assert_eq!(bytes(&message), canonical, "{message:?}");
    if canonical != given {
        assert_eq!(parse(&canonical).as_ref(), Ok(&message));
    }
    Some(message)
}
