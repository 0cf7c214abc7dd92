//! Making lanes: which rail reads from which, and the QPs at both ends.
//!
//! ```text
//!   reader (QpDialer)                        producer (QpAcceptor)
//!   prepare: QP in Init      -- LaneEnd -->  accept: QP in RTR, then in RTS
//!   connect: QP in RTR, RTS  <-- LaneEnd --
//! ```
//!
//! So when the reader posts its first READ, the producer's end has been ready for a while. A
//! session carries the 64 bytes of each [`LaneEnd`](crate::wire::LaneEnd), authenticated.

mod acceptor;
mod bonding;
mod dialer;
pub mod pairing;

pub use acceptor::{AcceptedLane, QpAcceptor};
pub use dialer::{PendingLane, QpDialer, UnopenedLane};
