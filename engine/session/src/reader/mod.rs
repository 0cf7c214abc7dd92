//! The reader's side.

mod changes;
mod connection;
mod event;
mod lanes;
mod offer;
mod phase;
mod session;
mod times;

#[cfg(test)]
mod tests;

pub use connection::{ConnectedSession, connect};
pub use event::{ReaderDescription, SessionEvent};
pub use session::Session;
