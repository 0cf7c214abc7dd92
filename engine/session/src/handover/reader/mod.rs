//! The reader's side: all takings of one session.

mod event;
mod owner;
mod received;
mod state;

pub use self::event::TakingEvent;
pub use self::state::Takings;
