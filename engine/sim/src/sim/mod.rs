//! A deterministic model of rails and peers, on a virtual clock.
//!
//! # What it models
//!
//! - A lane's READs go out in order, at most `rd_atomic` at a time; the next one goes when one
//!   completes. A response travels over the line of the peer's rail, and then over the line of the
//!   local rail. A line carries one READ after another at its rate. A READ alone takes `rtt + len /
//!   rate`.
//! - Completions of one lane come in order; the order between lanes depends on lines and jitter. A
//!   success gives a completion if the wr is signaled, an error always does. After an error every
//!   wr of the lane is flushed in order, signaled or not, and so is every wr that is posted later.
//! - A READ may succeed while bytes of it are missing, as the last one of its lane
//!   ([`Faults::incomplete`]).
//! - Key and range of a request are checked as a responder checks them (`REM_ACCESS_ERR`), and
//!   those of its destination as a NIC does (`LOC_PROT_ERR`).
//! - Bytes are copied from the peer's memory at a time between the arrival of the request and its
//!   completion, in several pieces if [`SimConfig::pieces`] says so. So a page whose owner writes
//!   meanwhile arrives torn.
//! - The seed decides when [`Faults`] happen; a test scripts a [`Fate`] for one lane, and an
//!   [`Action`] for a time.
//! - Every broken promise of an engine is recorded as a [`Violation`].
//!
//! It does not model packets, congestion, or arbitration between lanes: a line serves READs in the
//! order of their arrival, one at a time.
//!
//! # Use
//!
//! ```
//! use kvrail_core::verbs_abi::Wc;
//! use kvrail_core::id::{LaneId, RailIndex, WrId};
//! use kvrail_core::provider::{Commit, MemoryRange, Post, Provider, Read, WaitFor};
//! use kvrail_core::time::{Nanos, Time};
//! use kvrail_sim::sim::{SimConfig, SimLaneSpec, RailSpec, Sim, SimStorage};
//!
//! let (mut theirs, mut ours) = ([7_u8; 4096], [0_u8; 4096]);
//! let mut storage = SimStorage::<1, 1, 1, 8, 16>::new();
//! let rail = RailSpec { cq_entries: 16, ..RailSpec::GBITS_400 };
//! let sim = Sim::new(&mut storage, SimConfig::new(1), &[rail])?;
//! let peer = sim.add_peer()?;
//! sim.publish(peer, 0x10_0000, &mut theirs, [5; 16])?;
//!
//! let mut rails = sim.rails();
//! let addr = ours.as_mut_ptr().expose_provenance() as u64;
//! let keys = rails.register(MemoryRange { addr, len: 4096 })?;
//! let spec = SimLaneSpec { sq_entries: 8, rd_atomic: 4 };
//! let qp = sim.connect(RailIndex(0), peer, RailIndex(0), spec)?;
//! let mut lane = rails.open(LaneId::new(0, 1), RailIndex(0), qp)?;
//!
//! // SAFETY: nothing else accesses the local memory meanwhile.
//! let mut post = unsafe { rails.begin(&mut lane) };
//! post.read(Read {
//!     wr_id: WrId::new(LaneId::new(0, 1), 0),
//!     remote_addr: 0x10_0000,
//!     local_addr: addr,
//!     len: 4096,
//!     rkey: 5,
//!     lkey: keys[0],
//!     signaled: true,
//! });
//! assert_eq!(post.commit(), Commit::All);
//!
//! let mut wcs = [Wc::default(); 4];
//! assert_eq!(rails.poll(RailIndex(0), &mut wcs), 0);
//! let until = Time::ZERO + Nanos::from_millis(1);
//! rails.wait(WaitFor { now: sim.now(), until, completions: 1 });
//! assert_eq!(sim.now(), Time(6_084)); // 6 us there and back, 4,096 bytes at 49 GB/s
//! assert_eq!(rails.poll(RailIndex(0), &mut wcs), 1);
//! assert!(wcs[0].status().is_success() && sim.violations().is_empty());
//! # drop(rails);
//! # assert_eq!(ours, [7; 4096]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod apply;
mod clock;
mod config;
mod control;
mod error;
mod handle;
mod lane;
mod limits;
mod memory;
mod model;
mod posting;
mod progress;
mod provider;
mod script;
mod storage;
mod timers;
mod violation;

#[cfg(test)]
mod tests;

pub use action::Action;
pub use config::{Delay, Faults, Odds, RailSpec, Rate, SimConfig, SimLaneSpec};
pub use control::Sim;
pub use error::{SimConfigError, SimConnectError, SimFull, SimMemoryError, SimPeerError};
pub use handle::{LaneHandle, MemoryHandle, PeerHandle, SimQp};
pub use limits::{CHAIN, SGES};
pub use memory::FailedRanges;
pub use model::SimRailStats;
pub use provider::{SimLane, SimLaneError, SimPost, SimRails, SimWaker};
pub use script::Fate;
pub use storage::SimStorage;
pub use violation::{Violation, Violations};
