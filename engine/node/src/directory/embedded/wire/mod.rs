//! The bytes of questions to a shard, and of its answers. docs/protocol.md describes them.
//!
//! Little-endian, alignment 1, every part of a fixed size: a header of 8 bytes, the fixed part of
//! the operation, and the items, whose number the header has. Parsing is strict: other lengths,
//! versions and numbers, and reserved bytes that are not zero, are refused.

mod answer;
mod error;
mod fields;
mod lease;
mod limits;
mod question;

pub use answer::{Announced, Answer, KnownOwner};
pub(crate) use answer::{
    FoundPlaces, LookUpAnswer, announced, found_owners, renewed, withdrawn, write_announced, write_owners,
    write_renewed, write_withdrawn,
};
pub use error::FormatError;
pub use lease::Lease;
pub use limits::{DIRECTORY_SERVICE, MAX_EPOCHS, MAX_KEYS, MAX_LEASE, MAX_RECORDS, MIN_LEASE, VERSION};
pub use question::Question;
pub(crate) use question::{announce, look_up, owners, renew, withdraw};
