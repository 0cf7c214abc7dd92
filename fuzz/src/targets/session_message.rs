//! Arbitrary bytes are a message that encodes to the same bytes, or an error that can be printed.

use kvrail_session::{Message, Refusal, parse};

/// Bytes of a message's header.
const HEADER: usize = 8;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let message = match parse(bytes) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!((4000..5000).contains(&error.code()) || (2190..2200).contains(&error.code()));
            return;
        }
        Ok(message) => message,
    };
    // What a later version may add is dropped: additions, the content of a kind that is passed
    // over, and the number of an unknown reason.
    let mut canonical = bytes.to_vec();
    if message.kind().is_some() {
        let additions = u16::from_le_bytes([bytes[4], bytes[5]]);
        canonical.truncate(bytes.len() - usize::from(additions));
        canonical[4..6].fill(0);
    } else {
        canonical.truncate(HEADER);
        canonical[2..].fill(0);
    }
    if let Message::Refused(Refusal::Other { .. }) = message {
        canonical[HEADER + 8..].fill(0);
    }
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    assert_eq!(encoded, canonical);
    assert_eq!(parse(&encoded), Ok(message));
}
