//! Arbitrary bytes are a message that encodes to the same bytes, or an error that can be printed.

use kvrail_session::{Message, MessageKind, Reason, parse};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    match parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(message) => {
            let encoded = message.encode();
            assert_eq!(encoded.len(), bytes.len());
            assert_eq!(encoded.len(), message.kind().bytes());
            assert_eq!(parse(&encoded).as_ref(), Ok(&message));
            let foreign =
                matches!(&message, Message::Refused(no) if matches!(no.reason, Reason::Other { .. }));
            if !foreign {
                // The MAC is not the parser's: 32 bytes at the end of all but a greeting.
                let mac = if message.kind() == MessageKind::Hello { 0 } else { 32 };
                let body = encoded.len() - mac;
                assert_eq!(encoded[..body], bytes[..body]);
            }
        }
    }
}
