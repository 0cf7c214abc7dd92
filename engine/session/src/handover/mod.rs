//! The hand-over of a request's pages from a producer to a reader, while the producer still
//! computes their later parts.
//!
//! The two sides have a session. Over it the producer tells which pages there are and which parts
//! of them may be read, and the reader tells when it needs them no more. [`Handovers`] is the
//! producer's side, [`Takings`] the reader's. Both are state machines without sockets, threads and
//! clocks: messages are values, and the time is an argument.
//!
//! A session carries these messages: [`Server::handovers`](crate::Server::handovers) is the owner's
//! side, [`Session::take`](crate::Session::take) and
//! [`ConnectedSession::take`](crate::ConnectedSession::take) the reader's.
//!
//! # The life of a hand-over
//!
//! 1. The owner of the pages opens a request, and a reader takes it, in any order: a reader may
//!    wait for a request that is not open yet. One reader gets a request.
//! 2. The owner adds blocks, raises the parts that are ready, and completes the hand-over. The
//!    reader gets the newest state as fast as it fetches messages.
//! 3. The reader renews its leases. It says when it is done, or gives up.
//! 4. The hand-over ends: by the reader, the owner, the end of the lease or of the session. The
//!    owner gets exactly one [`EndedHandover`] for each one that it opened, with the blocks. It
//!    invalidates their table entries, and only then reuses the slots.
//!
//! A lease keeps pages in place for a reader that lives. It does not make a READ safe: a reader may
//! be suspended and come back after the end of its lease, with a clock that stood still. The
//! validation of the table entry after the bytes does ([`kvrail_core::table`]).
//!
//! ```
//! use std::time::{Duration, Instant};
//! use kvrail_core::batch::Class;
//! use kvrail_core::table::{EntryValue, Generation};
//! use kvrail_session::handover::{
//!     Block, HandoverConfig, HandoverOutcome, Handovers, PoolId, RequestId, SessionId, Takings,
//!     TakingsConfig,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::now();
//! let (request, session) = (RequestId(42), SessionId(1));
//! let mut producer = Handovers::new(HandoverConfig::default())?;
//! let mut reader = Takings::new(TakingsConfig::default());
//! producer.add_session(session);
//!
//! let number = reader.take(request, Class::Urgent, Duration::from_secs(10), now)?;
//! let id = producer.open(request, now)?;
//! // The page in slot 7, as its table entry says.
//! let expected = EntryValue { generation: Generation(3), ..EntryValue::default() };
//! let block = Block { pool: PoolId(0), slot: 7, expected, ready: 0 };
//! producer.append(id, &[block; 3])?;
//! producer.set_ready(id, 0..3, 1)?;
//!
//! // The session carries what each side says to the other.
//! while let Some(message) = reader.next_message(now) {
//!     producer.received(session, &message, now)?;
//! }
//! while let Some(message) = producer.next_message(session, now) {
//!     reader.received(message, now)?;
//! }
//! assert!(reader.blocks(number).iter().all(|block| block.ready == 1));
//!
//! reader.done(number)?;
//! while let Some(message) = reader.next_message(now) {
//!     producer.received(session, &message, now)?;
//! }
//! let ended = producer.next_outcome().ok_or("an outcome")?;
//! assert_eq!((ended.outcome, ended.blocks.len()), (HandoverOutcome::Done, 3));
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod id;
mod numbers;
mod producer;
mod queue;
mod ranges;
mod reader;
#[cfg(test)]
mod tests;
mod types;

pub use self::config::{HandoverConfig, TakingsConfig};
pub use self::error::{HandoverConfigError, HandoverError, HandoverProtocolError, TakingError};
pub use self::id::{HandoverId, SessionId};
pub use self::producer::{EndedHandover, HandoverOutcome, Handovers};
pub use self::reader::{TakingEvent, Takings};
pub use self::types::{
    Block, EndReason, GiveUpReason, HandoverMessage, HandoverNumber, MAX_LEASE, MAX_MESSAGE_BLOCKS,
    MAX_MESSAGE_RENEWALS, MAX_WAIT, MIN_RENEW_EVERY, RequestId, WHOLE_PAGE,
};
pub use crate::pool::PoolId;
pub use kvrail_core::batch::Class;
