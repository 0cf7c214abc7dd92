//! How to write a provider of your own: `cargo run --example custom_provider`.
//!
//! It copies from plain memory, over one rail. A lane reads from the buffer that it was connected
//! to, and a READ is done when its commit returns. docs/extending.md explains the code.
#![allow(unsafe_code, reason = "a provider promises what it does to memory")]
use kvrail::core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail::core::provider::*;
use kvrail::core::verbs_abi::{Wc, WcStatus};
use std::{collections::VecDeque, io, sync::Arc, sync::atomic::AtomicBool, sync::atomic::Ordering};

pub(crate) const BASE: u64 = 0x10_0000; // the address of a peer's first byte; its key is 1
const CQ: usize = 256; // entries of the completion queue

/// The provider. Its lists have their room from the start, so posting and polling do not allocate.
pub(crate) struct BufferRails {
    id: ProviderId,
    keys: u32,
    regions: Vec<(MemoryRange, u32)>,
    staged: Vec<Read>,
    done: VecDeque<Wc>,
    events: VecDeque<ProviderEvent>,
    woken: BufferWaker,
}

pub(crate) struct BufferLane {
    id: LaneId,
    provider: ProviderId,
    remote: Arc<[u8]>,
    failed: bool,
}

pub(crate) struct BufferPost<'a>(&'a mut BufferRails, &'a mut BufferLane);

#[derive(Clone, Debug, Default)]
pub(crate) struct BufferWaker(Arc<AtomicBool>);

impl BufferRails {
    pub(crate) fn new() -> Self {
        let (id, staged, woken) = (ProviderId::new(), Vec::with_capacity(CQ), BufferWaker::default());
        let (done, events) = (VecDeque::with_capacity(CQ), VecDeque::with_capacity(CQ));
        Self { id, keys: 0, regions: Vec::new(), staged, done, events, woken }
    }

    fn execute(&self, lane: &BufferLane, read: &Read) -> WcStatus {
        let from = read.remote_addr.checked_sub(BASE).and_then(|at| lane.remote.get(at as usize..));
        let from = from.and_then(|from| from.get(..read.len as usize)).filter(|_| read.rkey == 1);
        let room = |range: MemoryRange| range.len.checked_sub(read.local_addr.checked_sub(range.addr)?);
        let fits = |&(range, key): &_| key == read.lkey && room(range) >= Some(u64::from(read.len));
        let false = lane.failed else { return WcStatus::WR_FLUSH_ERR };
        let true = self.regions.iter().any(fits) else { return WcStatus::LOC_PROT_ERR };
        let Some(from) = from else { return WcStatus::REM_ACCESS_ERR };
        let to = std::ptr::with_exposed_provenance_mut::<u8>(read.local_addr as usize);
        // SAFETY: `from.len()` bytes at `to` are registered memory, which the caller of `begin`
        // lends to this READ. Nothing writes `from`.
        unsafe { to.copy_from(from.as_ptr(), from.len()) };
        WcStatus::SUCCESS
    }
}

impl Post for BufferPost<'_> {
    fn read(&mut self, read: Read) {
        self.0.staged.push(read);
    }
    fn commit(self) -> Commit {
        let Self(rails, lane) = self;
        for read in &rails.staged {
            let status = rails.execute(lane, read);
            lane.failed |= !status.is_success();
            if read.signaled || lane.failed {
                rails.done.push_back(Wc::new(read.wr_id, status, 0, 0));
            }
        }
        Commit::All
    }
}

impl Wake for BufferWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

// SAFETY: 1: only `execute` writes, to the registered destination of its READ. 2 to 5: `execute`
// runs inside `commit`, READ by READ, so none is under way at a completion, a drain, a close or the
// drop. 6: `commit` accepts all. 7: events carry the lane's own id, and `fail`, `drain` and `close`
// compare its `ProviderId`.
unsafe impl Provider for BufferRails {
    const CHAIN: usize = 32;
    type Unopened = Arc<[u8]>;
    type Lane = BufferLane;
    type OpenError = io::Error;
    type Post<'a> = BufferPost<'a>;
    type Waker = BufferWaker;

    fn rails(&self) -> usize {
        1
    }
    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 7_000_000_000, numa: None, cq_entries: CQ as u32 }
    }
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        self.keys += 1;
        self.regions.push((range, self.keys));
        Ok([self.keys; MAX_RAILS])
    }
    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        self.regions.retain(|region| *region != (range, keys[0]));
    }
    fn open(&mut self, id: LaneId, rail: RailIndex, peer: Arc<[u8]>) -> io::Result<BufferLane> {
        let lane = BufferLane { id, provider: self.id, remote: peer, failed: false };
        (rail.0 == 0).then_some(lane).ok_or(io::ErrorKind::NotFound.into())
    }
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut BufferLane) -> BufferPost<'a> {
        self.staged.clear();
        BufferPost(self, lane)
    }
    fn poll(&mut self, _: RailIndex, out: &mut [Wc]) -> usize {
        out.iter_mut().map_while(|out| self.done.pop_front().map(|wc| *out = wc)).count()
    }
    fn fail(&mut self, lane: &mut BufferLane) {
        let true = lane.provider == self.id else { return };
        lane.failed = true;
        self.events.push_back(ProviderEvent::LaneFailed(lane.id));
    }
    fn drain(&mut self, lane: &mut BufferLane, wr_id: WrId) -> Result<(), i32> {
        let true = lane.provider == self.id else { return Err(22) };
        self.done.push_back(Wc::new(wr_id, WcStatus::WR_FLUSH_ERR, 0, 0));
        Ok(())
    }
    fn close(&mut self, lane: BufferLane) {
        let true = lane.provider == self.id else { return };
        self.events.push_back(ProviderEvent::LaneClosed(lane.id));
    }
    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.events.pop_front()
    }
    fn wait(&mut self, wait: WaitFor) {
        // A `wait` may end early: the engine then polls and waits again.
        if !self.woken.0.swap(false, Ordering::Acquire) && self.done.is_empty() && self.events.is_empty() {
            std::thread::sleep(std::time::Duration::from_nanos(wait.timeout().0.min(100_000)));
        }
    }
    fn waker(&self) -> BufferWaker {
        self.woken.clone()
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    kvrail_examples::read_page(BufferRails::new(), |peer| peer, BASE)
}
