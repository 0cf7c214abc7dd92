//! An engine's whole state, sized at compile time.
//!
//! A storage in which no engine has been started is zeros and uninitialised bytes: a `static` of a
//! hundred megabytes adds nothing to the program's file, and one on the heap never passes over a
//! stack. An engine writes all of it, in place, when it starts: no page of it is touched for the
//! first time later.

mod once;
pub(crate) mod room;

pub use self::once::{StaticStartError, StaticStorage};
pub use self::room::Storage;
pub use crate::limits::LANE_BYTES;
