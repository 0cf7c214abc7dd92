//! Rails that move nothing and cost almost nothing, to measure the engine above them.
//!
//! The cost of an engine can be measured only above a device that costs less. Posting here does
//! only what a driver does: an indirect call through a table of C functions, a walk along the chain
//! of [`SendWr`](kvrail_core::verbs_abi::SendWr)s, 64 bytes written per wr into the lane's ring (a
//! work queue entry as mlx5 lays it out), and one store to a doorbell word. Every signaled wr has
//! completed by the next poll of its rail. A prototype of this in C cost 3.4 ns and 66 instructions
//! per wr with a prelinked template chain (docs/performance.md).
//!
//! An engine uses [`NullRails`] as a provider. A hand-written loop, to compare it with, calls
//! [`ibv_post_send`] and [`ibv_poll_cq`] on the [`Qp`] of a [`NullLane`] and the [`Cq`] of its
//! rail: the same code runs below both.
//!
//! ```
//! use kvrail_core::verbs_abi::{ChainStorage, Wc};
//! use kvrail_core::id::{LaneId, RailIndex, WrId};
//! use kvrail_core::provider::{Commit, Post, Provider, Read};
//! use kvrail_sim::null::{Cq, Cqe, NullRails, NullParts, Qp, Wqe};
//!
//! // One rail, 1,024 lanes of 64 wrs each.
//! let mut cqs = [Cq::NEW; 1];
//! let mut cqes = vec![Cqe::NEW; 4096];
//! let mut qps = vec![Qp::NEW; 1024];
//! let mut wqes = vec![Wqe::NEW; 1024 * 64];
//! let mut chain = ChainStorage::<32>::new();
//! let parts = NullParts { cqs: &mut cqs, cqes: &mut cqes, qps: &mut qps, wqes: &mut wqes };
//! let mut rails = NullRails::new(parts, &mut chain)?;
//! let mut lane = rails.open(LaneId::new(0, 1), RailIndex(0), ())?;
//!
//! let wr_id = WrId::new(LaneId::new(0, 0), 0);
//! // SAFETY: nothing else accesses the local memory meanwhile.
//! let mut post = unsafe { rails.begin(&mut lane) };
//! let (remote_addr, local_addr, len, signaled) = (0, 0, 4096, true);
//! post.read(Read { wr_id, remote_addr, local_addr, len, rkey: 1, lkey: 1, signaled });
//! assert_eq!(post.commit(), Commit::All);
//!
//! let mut wcs = [Wc::default(); 8];
//! assert_eq!(rails.poll(RailIndex(0), &mut wcs), 1);
//! assert_eq!(wcs[0].wr_id(), wr_id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod device;
mod provider;

#[cfg(test)]
mod tests;

pub use device::{Context, Cq, Cqe, Ops, Qp, Wqe, ibv_poll_cq, ibv_post_send};
pub use provider::{NullLane, NullLaneError, NullParts, NullPartsError, NullPost, NullRails, NullWaker};
