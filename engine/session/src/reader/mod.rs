//! The reader's side.

mod session;

pub use session::{ReaderDescription, Session, SessionEvent};
