//! The interface between an engine and a provider: the code that moves bytes.
//!
//! A provider is *all rails of one engine thread*: one completion queue per rail, any number of
//! lanes (QPs) on each. The engine hands it READ descriptors and gets completions back. The engine
//! alone decides which lane gets which descriptor, how many are outstanding and what a failure
//! means. The provider alone decides how a descriptor is encoded (as a work request, a work queue
//! entry, a ring slot); [`Chain`](crate::verbs_abi::Chain) encodes `ibv_send_wr`s for providers
//! over libibverbs.
//!
//! [`Provider`] is an unsafe trait, since the engine gives memory back to its owner when the
//! provider says that nothing writes into it any more. The seven promises of an implementation
//! stand in its [`# Safety`](Provider#safety) section.
//!
//! No call may block except [`wait`](Provider::wait) and [`register`](Provider::register). Moving a
//! QP to the error state and destroying it block in the kernel. So a provider does both on a
//! control thread, and reports the end of each by a [`ProviderEvent`].
//!
//! # A complete provider
//!
//! This provider has one rail, and its peer is a buffer of this process. A READ is executed when it
//! is committed, so nothing is written later.
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
//! use kvrail_core::provider::*;
//! use kvrail_core::verbs_abi::{Wc, WcStatus};
//!
//! /// Reads out of `remote`, whose first byte is at address 0 for the engine.
//! struct Toy {
//!     id: ProviderId,
//!     remote: &'static [u8],
//!     completions: VecDeque<Wc>,
//!     events: VecDeque<ProviderEvent>,
//! }
//!
//! struct ToyLane {
//!     provider: ProviderId,
//!     id: LaneId,
//!     failed: bool,
//! }
//!
//! struct ToyPost<'a> {
//!     toy: &'a mut Toy,
//!     lane: &'a mut ToyLane,
//!     reads: Vec<Read>,
//! }
//!
//! impl Post for ToyPost<'_> {
//!     fn read(&mut self, read: Read) {
//!         self.reads.push(read);
//!     }
//!
//!     fn commit(self) -> Commit {
//!         for read in self.reads {
//!             let from = usize::try_from(read.remote_addr).unwrap_or(usize::MAX);
//!             let bytes = self.toy.remote.get(from..from.saturating_add(read.len as usize));
//!             let status = match bytes {
//!                 _ if self.lane.failed => WcStatus::WR_FLUSH_ERR,
//!                 None => WcStatus::REM_ACCESS_ERR,
//!                 Some(bytes) => {
//!                     let to = std::ptr::with_exposed_provenance_mut(read.local_addr as usize);
//!                     // SAFETY: the caller of `begin` has promised that we may write there.
//!                     unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
//!                     WcStatus::SUCCESS
//!                 }
//!             };
//!             if !status.is_success() && !self.lane.failed {
//!                 // Like a QP, the lane moves to the error state at the first error.
//!                 self.lane.failed = true;
//!                 self.toy.events.push_back(ProviderEvent::LaneFailed(self.lane.id));
//!             }
//!             if read.signaled || !status.is_success() {
//!                 self.toy.completions.push_back(Wc::new(read.wr_id, status, 0, 0));
//!             }
//!         }
//!         Commit::All
//!     }
//! }
//!
//! #[derive(Clone, Debug)]
//! struct NeverAsleep;
//!
//! impl Wake for NeverAsleep {
//!     fn wake(&self) {}
//! }
//!
//! // SAFETY: 1 and 2: `commit` writes what a descriptor names, and nothing writes after it has
//! // returned; so 3, 4 and 5 hold at any time. 6: a commit is always taken whole. 7: `fail`,
//! // `drain` and `close` look at the lane's `ProviderId`, and events carry the lane's own id.
//! unsafe impl Provider for Toy {
//!     const CHAIN: usize = 16;
//!     type Unopened = ();
//!     type Lane = ToyLane;
//!     type OpenError = std::convert::Infallible;
//!     type Post<'a> = ToyPost<'a>;
//!     type Waker = NeverAsleep;
//!
//!     fn rails(&self) -> usize {
//!         1
//!     }
//!     fn rail(&self, _: RailIndex) -> RailInfo {
//!         RailInfo { nominal_bytes_per_sec: 10_000_000_000, numa: None, cq_entries: 1024 }
//!     }
//!     fn register(&mut self, _: MemoryRange) -> Result<RailKeys, RegisterError> {
//!         Ok([0; MAX_RAILS])
//!     }
//!     fn deregister(&mut self, _: MemoryRange, _: &RailKeys) {}
//!     fn open(&mut self, id: LaneId, _: RailIndex, (): ()) -> Result<ToyLane, Self::OpenError> {
//!         Ok(ToyLane { provider: self.id, id, failed: false })
//!     }
//!     unsafe fn begin<'a>(&'a mut self, lane: &'a mut ToyLane) -> ToyPost<'a> {
//!         ToyPost { toy: self, lane, reads: Vec::new() }
//!     }
//!     fn poll(&mut self, _: RailIndex, out: &mut [Wc]) -> usize {
//!         let n = out.len().min(self.completions.len());
//!         out.iter_mut().zip(self.completions.drain(..n)).for_each(|(to, wc)| *to = wc);
//!         n
//!     }
//!     fn fail(&mut self, lane: &mut ToyLane) {
//!         if lane.provider == self.id && !lane.failed {
//!             lane.failed = true;
//!             self.events.push_back(ProviderEvent::LaneFailed(lane.id));
//!         }
//!     }
//!     fn drain(&mut self, lane: &mut ToyLane, wr_id: WrId) -> Result<(), i32> {
//!         if lane.provider != self.id {
//!             return Err(22);
//!         }
//!         self.completions.push_back(Wc::new(wr_id, WcStatus::WR_FLUSH_ERR, 0, 0));
//!         Ok(())
//!     }
//!     fn close(&mut self, lane: ToyLane) {
//!         if lane.provider == self.id {
//!             self.events.push_back(ProviderEvent::LaneClosed(lane.id));
//!         }
//!     }
//!     fn next_event(&mut self) -> Option<ProviderEvent> {
//!         self.events.pop_front()
//!     }
//!     fn wait(&mut self, _: WaitFor) {}
//!     fn waker(&self) -> NeverAsleep {
//!         NeverAsleep
//!     }
//! }
//!
//! // An engine over it reads a page of 4 KiB.
//! use kvrail_core::config::EngineConfig;
//! use kvrail_core::engine::{Engine, LaneSpec};
//! use kvrail_core::{remote::RegionOffer, storage::EngineStorage, time::Time};
//!
//! let remote: &'static [u8] = vec![7; 4096].leak();
//! let (completions, events) = (VecDeque::new(), VecDeque::new());
//! let toy = Toy { id: ProviderId::new(), remote, completions, events };
//! let storage = Box::leak(Box::new(EngineStorage::<1, 1, 1, 16, 1, 1>::new()));
//! let mut engine = Engine::start(storage, toy, EngineConfig::DEFAULT).unwrap();
//! let mut slots = engine.register(vec![0; 4096].leak(), 4096).unwrap();
//! let peer = engine.add_peer().unwrap();
//! let (page_bytes, stride, keys) = (4096, 4096, [0; MAX_RAILS]);
//! let offer = RegionOffer { base: 0, page_bytes, stride, slots: 1, keys, table: None };
//! let region = engine.add_region(peer, &offer).unwrap();
//! let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: 16 };
//! engine.attach(peer, spec, (), Time(0)).unwrap();
//!
//! let mut batch = engine.batch().unwrap();
//! batch.read(region.unvalidated(0).unwrap(), slots.next().unwrap()).unwrap();
//! engine.submit(batch, Time(1), Time(1_000_000)).unwrap();
//! assert_eq!(engine.poll(Time(2)), 1);
//! let mut done = engine.next_done().unwrap();
//! let page = done.pages().next().unwrap();
//! assert_eq!((page.result, page.slot.bytes()), (Ok(()), Some(remote)));
//! ```

mod contract;
mod post;

pub use self::contract::{
    DmaBuf, MemoryRange, Provider, ProviderEvent, RailInfo, RailKeys, RegisterError, WaitFor, Wake,
};
pub use self::post::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};
