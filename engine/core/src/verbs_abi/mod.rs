//! The structures that `ibv_post_send` and `ibv_poll_cq` speak, as rdma-core's `verbs.h` lays them
//! out on 64-bit machines. Sizes *and* offsets are asserted here, and once more against the real
//! headers' bindings where those are built.

mod chain;
mod wc;
mod wr;

pub use chain::{Chain, ChainStorage, Posting};
pub use wc::{FaultKind, Wc, WcFlags, WcOffsets, WcStatus};
pub use wr::{IBV_WR_RDMA_READ, SendFlags, SendWr, Sge};
