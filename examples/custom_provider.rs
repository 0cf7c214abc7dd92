//! How to write a provider of your own: `cargo run --example custom_provider`.
//!
//! This provider copies from plain memory. It has one rail. A lane reads from the buffer that it
//! was connected to, and a READ is done when its commit returns. docs/extending.md explains the
//! code, and tests/custom_provider.rs runs the conformance suite over it.
#![allow(unsafe_code, reason = "a provider promises what it does to memory")]
use kvrail::core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail::core::provider::*;
use kvrail::core::verbs_abi::{Wc, WcStatus};
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::{collections::VecDeque, io, time::Duration, time::Instant};

/// The address of a peer's first byte. Its key is 1.
pub(crate) const BASE: u64 = 0x10_0000;
/// The most completions that wait to be polled.
const CQ: usize = 256;

/// The provider. Its lists never grow beyond their initial room, so posting and polling do not
/// allocate.
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

pub(crate) struct BufferPost<'a> {
    rails: &'a mut BufferRails,
    lane: &'a mut BufferLane,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct BufferWaker(Arc<AtomicBool>);

impl BufferRails {
    pub(crate) fn new() -> Self {
        let (done, events) = (VecDeque::with_capacity(CQ), VecDeque::with_capacity(CQ));
        let (id, staged, woken) =
            (ProviderId::new(), Vec::with_capacity(Self::CHAIN), BufferWaker::default());
        Self { id, keys: 0, regions: Vec::new(), staged, done, events, woken }
    }

    fn execute(&self, lane: &BufferLane, read: &Read) -> WcStatus {
        let from = read.remote_addr.checked_sub(BASE).and_then(|at| lane.remote.get(at as usize..));
        let from = from.and_then(|from| from.get(..read.len as usize)).filter(|_| read.rkey == 1);
        let registered = self.regions.iter().any(|(range, key)| {
            let at = read.local_addr.checked_sub(range.addr);
            *key == read.lkey && at.is_some_and(|at| at + u64::from(read.len) <= range.len)
        });
        let false = lane.failed else { return WcStatus::WR_FLUSH_ERR };
        let true = registered else { return WcStatus::LOC_PROT_ERR };
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
        self.rails.staged.push(read);
    }
    fn commit(self) -> Commit {
        let Self { rails, lane } = self;
        for (accepted, read) in (0..).zip(&rails.staged) {
            if rails.done.len() == CQ {
                return Commit::Prefix { accepted, errno: 12 };
            }
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
// drop. 6: READs that `commit` does not accept are not executed. 7: events carry
// the lane's own id, and `fail`, `drain` and `close` compare its `ProviderId`.
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
        BufferPost { rails: self, lane }
    }
    fn poll(&mut self, _: RailIndex, out: &mut [Wc]) -> usize {
        out.iter_mut().map_while(|out| self.done.pop_front().map(|wc| *out = wc)).count()
    }
    fn fail(&mut self, lane: &mut BufferLane) {
        if lane.provider == self.id {
            lane.failed = true;
            self.events.push_back(ProviderEvent::LaneFailed(lane.id));
        }
    }
    fn drain(&mut self, lane: &mut BufferLane, wr_id: WrId) -> Result<(), i32> {
        if lane.provider != self.id {
            return Err(22);
        }
        self.done.push_back(Wc::new(wr_id, WcStatus::WR_FLUSH_ERR, 0, 0));
        Ok(())
    }
    fn close(&mut self, lane: BufferLane) {
        if lane.provider == self.id {
            self.events.push_back(ProviderEvent::LaneClosed(lane.id));
        }
    }
    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.events.pop_front()
    }
    fn wait(&mut self, wait: WaitFor) {
        let (start, most) = (Instant::now(), Duration::from_nanos(wait.timeout().0));
        let news = !self.done.is_empty() || !self.events.is_empty();
        while !news && !self.woken.0.swap(false, Ordering::Acquire) && start.elapsed() < most {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    fn waker(&self) -> BufferWaker {
        self.woken.clone()
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let theirs: Arc<[u8]> = (0..4 * 4_096_u32).map(|i| (i / 16) as u8).collect();
    let page = kvrail_examples::read_page(BufferRails::new(), theirs.clone(), BASE, 2)?;
    assert!(page == theirs[2 * 4_096..3 * 4_096], "this is not the page that the peer has");
    println!("read page 2 through the provider of this example: {} bytes, equal to the peer's", page.len());
    Ok(())
}
