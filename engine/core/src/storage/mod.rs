//! The memory of an engine's whole state, sized at compile time.
//!
//! A storage in which no engine has been started consists of zeros and uninitialised bytes. So a
//! `static` of a hundred megabytes adds nothing to the program's file, and a storage on the heap
//! never passes over a stack. An engine writes the whole storage in place when it starts, so that
//! the kernel need not supply pages of it later.

mod once;
pub(crate) mod room;

pub use self::once::{StaticStartError, StaticStorage};
pub use self::room::EngineStorage;
pub use crate::limits::LANE_BYTES;
