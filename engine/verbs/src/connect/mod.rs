//! Making lanes: which rail reads from which, and the QPs at both ends.
//!
//! ```text
//!   reader (QpDialer)                        producer (QpAcceptor)
//!   prepare: QP in Init      -- LaneEnd -->  accept: QP in RTR, then in RTS
//!   connect: QP in RTR, RTS  <-- LaneEnd --
//! ```
//!
//! Where packets of urgent and of background work are marked differently, the dialer decides which
//! class a lane is for, and its `LaneEnd` says so: each end marks the packets that it sends.
//!
//! So when the reader posts its first READ, the producer's end has been ready for a while. A
//! session carries the 64 bytes of each [`LaneEnd`](crate::wire::LaneEnd), authenticated.

mod acceptor;
mod balance;
mod bonding;
mod dialer;
pub mod pairing;

pub use acceptor::{AcceptedLane, QpAcceptor};
pub(crate) use balance::Counted;
pub use dialer::{PendingLane, QpDialer, UnopenedLane};
