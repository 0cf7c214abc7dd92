//! Arbitrary bytes are a question to a shard of the directory that encodes to the same bytes, or an
//! error that can be printed; so are answers to it, and records.

use kvrail_node::Record;
use kvrail_node::directory::embedded::wire::{Answer, Question};

/// Runs the target. The first two bytes say where the question ends and its answer begins.
pub fn run(bytes: &[u8]) {
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(record.to_bytes()[..], *bytes);
    }
    let Some((end, bytes)) = bytes.split_first_chunk() else { return };
    let (question, answer) = bytes.split_at(usize::from(u16::from_le_bytes(*end)).min(bytes.len()));
    let parsed = match Question::parse(question) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!((7000..8000).contains(&error.code()));
            return;
        }
        Ok(parsed) => parsed,
    };
    let mut encoded = Vec::new();
    parsed.encode(&mut encoded);
    assert_eq!(encoded, question);
    match Answer::parse(&parsed, answer) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(parsed) => {
            let mut encoded = Vec::new();
            parsed.encode(&mut encoded);
            assert_eq!(encoded, answer);
        }
    }
}
