//! The structs of `ibv_post_send` and `ibv_poll_cq`, laid out as in rdma-core's `verbs.h` on 64-bit
//! machines, and the encoder of READs.
//!
//! Sizes *and* offsets are asserted here, and kvrail-verbs compares them with the bindings of the
//! real headers.

mod chain;
mod wc;
mod wr;

pub use chain::{Chain, ChainStorage, Posting};
pub use wc::{FaultKind, Wc, WcFlags, WcOffsets, WcStatus};
pub use wr::{IBV_WR_RDMA_READ, SendFlags, SendWr, Sge};
