//! The bounds of questions and answers.

use std::time::Duration;

use kvrail::session::ServiceNumber;

/// The number of the service that a shard is.
pub const DIRECTORY_SERVICE: ServiceNumber = ServiceNumber(1);
/// The version of the bytes of questions and answers.
pub const VERSION: u8 = 1;
/// The most keys of a question.
pub const MAX_KEYS: usize = 128;
/// The most records of a question.
pub const MAX_RECORDS: usize = 256;
/// The most epochs of a question.
pub const MAX_EPOCHS: usize = 64;
/// The shortest lease.
pub const MIN_LEASE: Duration = Duration::from_millis(100);
/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);
