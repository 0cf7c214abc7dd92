//! The reader's side.

mod changes;
mod connection;
mod event;
mod handovers;
mod lanes;
mod offer;
mod phase;
mod service_client;
mod session;
mod take;
mod times;

#[cfg(test)]
mod tests;

pub use connection::{ConnectedSession, connect};
pub use event::{ReaderDescription, SessionEvent};
pub use handovers::TakeError;
pub use service_client::{PendingAnswer, ServiceClient};
pub use session::Session;
