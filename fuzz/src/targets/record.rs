//! Arbitrary bytes are a record of the directory that cannot be wrong and has the same bytes, or an
//! error that says what is.

use kvrail_core::table::Ready;
use kvrail_node::record::RECORD_BYTES;
use kvrail_node::{Record, RecordError};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    match Record::parse(bytes) {
        Ok(record) => {
            assert_eq!(record.to_bytes()[..], *bytes);
            assert!(record.generation.is_valid(), "no page has been published in this generation");
            let location = record.location();
            assert_eq!((location.slot, location.expected.tag), (record.slot, record.tag));
            assert_eq!(
                (location.expected.generation, location.expected.ready),
                (record.generation, Ready::WHOLE)
            );
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && (7010..7013).contains(&error.code()));
            assert_eq!(matches!(error, RecordError::Length { .. }), bytes.len() != RECORD_BYTES);
        }
    }
    // A byte more or less is no record, whatever the others say.
    if let Some((_, rest)) = bytes.split_first() {
        assert!(bytes.len() != RECORD_BYTES || Record::parse(rest).is_err());
    }
}
