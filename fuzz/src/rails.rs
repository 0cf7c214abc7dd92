//! Rails over [`device`](crate::device): they encode with core's chain, walk it, and carry out what
//! they find, byte by byte. What the engine must keep to is asserted at every commit.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;

use kvrail_core::config::EngineConfig;
use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail_core::provider::{
    Commit, Ends, MemoryRange, Post, Provider, ProviderEvent, RailInfo, RailKeys, Read, RegisterError,
    UniformReads, WaitFor, Wake,
};
use kvrail_core::verbs_abi::{Chain, ChainStorage, Posting, Wc, WcStatus};

use crate::device::{Answer, ENOMEM, walk};

/// The most wrs in one commit.
pub const CHAIN: usize = 12;
/// Entries of a completion queue.
pub const CQ: usize = 256;

/// The byte at a remote address. Neighbouring bytes, chunks and pages differ.
pub fn byte_at(remote_addr: u64) -> u8 {
    (remote_addr.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// What becomes of a wr that is carried out.
#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
pub enum Fate {
    /// It arrives.
    Fine,
    /// The path fails: the transport has retried in vain.
    Path,
    /// The page is at fault: the peer refuses access.
    Page,
}

/// A wr in a send queue.
#[derive(Clone, Copy, Debug)]
enum Posted {
    Read(Read),
    Drain(WrId),
}

/// A QP.
#[derive(Debug)]
pub struct Qp {
    queue: VecDeque<Posted>,
    /// Entries taken: posted, and not covered by a completion that has been taken out.
    used: usize,
    /// wrs that ended since the last completion.
    unreported: usize,
    depth: usize,
    rail: usize,
    failed: bool,
    open: bool,
}

/// A lane: the number of its QP, and what it was opened as.
#[derive(Debug)]
pub struct Lane(usize, LaneId);

/// The rails: their QPs and completion queues, and what becomes of each wr.
#[derive(Debug)]
pub struct Rails<'m> {
    chain: Chain<'m, CHAIN>,
    rails: usize,
    qps: Vec<Qp>,
    /// Completions, and how many send queue entries each gives back.
    cqs: Vec<VecDeque<(Wc, usize, usize)>>,
    events: VecDeque<ProviderEvent>,
    answers: VecDeque<Answer>,
    fates: VecDeque<Fate>,
    /// How many wrs a rail carries out in one poll; from the front, then all.
    paces: VecDeque<u8>,
    config: EngineConfig,
    /// wrs that the device took, and that came to an end.
    pub taken: u64,
    pub ended: u64,
    /// Whether everything works from now on.
    pub healed: Cell<bool>,
}

impl<'m> Rails<'m> {
    pub fn new(
        storage: &'m mut ChainStorage<CHAIN>,
        rails: usize,
        config: EngineConfig,
        answers: Vec<Answer>,
        fates: Vec<Fate>,
        paces: Vec<u8>,
    ) -> Self {
        Self {
            chain: Chain::new(storage),
            rails,
            qps: Vec::new(),
            cqs: (0..rails).map(|_| VecDeque::new()).collect(),
            events: VecDeque::new(),
            answers: answers.into(),
            fates: fates.into(),
            paces: paces.into(),
            config,
            taken: 0,
            ended: 0,
            healed: Cell::new(false),
        }
    }

    fn heal(&mut self) {
        self.answers.clear();
        self.fates.clear();
        self.paces.clear();
    }

    /// Carries out at most `most` wrs of a rail.
    fn work(&mut self, rail: usize, most: usize) {
        let mut left = most;
        for number in 0..self.qps.len() {
            while left > 0 && self.qps[number].rail == rail && self.cqs[rail].len() < CQ {
                let qp = &mut self.qps[number];
                let Some(posted) = qp.queue.pop_front() else { break };
                left -= 1;
                self.ended += 1;
                qp.unreported += 1;
                let fate = match (qp.failed, posted) {
                    (true, _) => None,
                    (false, Posted::Read(_)) => Some(self.fates.pop_front().unwrap_or(Fate::Fine)),
                    (false, Posted::Drain(_)) => Some(Fate::Fine),
                };
                let status = match fate {
                    None => WcStatus::WR_FLUSH_ERR,
                    Some(Fate::Fine) => WcStatus::SUCCESS,
                    Some(Fate::Path) => WcStatus::RETRY_EXC_ERR,
                    Some(Fate::Page) => WcStatus::REM_ACCESS_ERR,
                };
                let (wr_id, signaled) = match posted {
                    Posted::Read(read) => {
                        if status.is_success() {
                            carry_out(&read);
                        }
                        (read.wr_id, read.signaled)
                    }
                    Posted::Drain(wr_id) => (wr_id, true),
                };
                if status.is_success() && !signaled {
                    continue;
                }
                qp.failed |= !status.is_success();
                let retires = std::mem::take(&mut qp.unreported);
                self.cqs[rail].push_back((Wc::new(wr_id, status, 0, number as u32), number, retires));
            }
        }
    }
}

/// Writes what is at the remote address to the local one.
fn carry_out(read: &Read) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(read.local_addr as usize);
    for i in 0..u64::from(read.len) {
        // SAFETY: the address sanitizer watches; and what an engine posts lies in slots that the
        // target has registered and that are in flight, which is what is being tested.
        unsafe { to.add(i as usize).write(byte_at(read.remote_addr.wrapping_add(i))) };
    }
}

/// A commit: the READs that the engine staged, to be compared with those that the device finds.
#[derive(Debug)]
pub struct Walked<'a, 'm> {
    posting: Posting<'a, 'm, CHAIN>,
    staged: Vec<Read>,
    qp: &'a mut Qp,
    answer: Answer,
    config: &'a EngineConfig,
    taken: &'a mut u64,
}

impl Post for Walked<'_, '_> {
    fn read(&mut self, read: Read) {
        self.posting.push(&read);
        self.staged.push(read);
    }

    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        let ends: Vec<Ends> = ends.collect();
        self.posting.push_uniform(&reads, ends.iter().copied());
        let last = ends.len().checked_sub(1).expect("a uniform run has a READ");
        self.staged.extend((0_u32..).zip(ends).map(|(i, ends)| reads.read(i, ends, i as usize == last)));
    }

    fn commit(self) -> Commit {
        let Self { posting, staged, qp, answer, config, taken } = self;
        if staged.is_empty() {
            return posting.post(|_| unreachable!("a doorbell for nothing"));
        }
        check_signals(&staged, config);
        // Credits before posting; the drain's place stays free.
        assert!(
            qp.open && qp.used + staged.len() < qp.depth,
            "{} and {} of {}",
            qp.used,
            staged.len(),
            qp.depth
        );
        let mut accepted = 0;
        let commit = posting.post(|head| {
            // SAFETY: a chain of core's, alive during this call.
            let found = unsafe { walk(head, CHAIN) };
            assert_eq!(found, staged, "the chain holds other READs than were staged");
            let (returned, count) = answer.give(head, found.len());
            accepted = count;
            qp.queue.extend(found[..count].iter().copied().map(Posted::Read));
            returned
        });
        qp.used += accepted;
        *taken += accepted as u64;
        let expected = match answer {
            Answer::Taken => Commit::All,
            Answer::Refused { .. } => Commit::Prefix { accepted: accepted as u32, errno: ENOMEM },
            Answer::Silent { .. } | Answer::Nonsense { .. } => Commit::Unknown { errno: ENOMEM },
        };
        assert_eq!(commit, expected);
        commit
    }
}

/// Signaled are: the last wr of a commit, and within it the first to make `signal_wrs` wrs or
/// `signal_bytes` bytes since the one before. No other.
pub fn check_signals(reads: &[Read], config: &EngineConfig) {
    let (mut wrs, mut bytes) = (0, 0);
    for (i, read) in reads.iter().enumerate() {
        (wrs, bytes) = (wrs + 1, bytes + u64::from(read.len));
        let due = wrs >= config.signal_wrs || bytes >= u64::from(config.signal_bytes);
        assert_eq!(read.signaled, due || i + 1 == reads.len(), "wr {i} of {}: {reads:?}", reads.len());
        if read.signaled {
            (wrs, bytes) = (0, 0);
        }
    }
}

/// These rails never sleep, so a wake-up does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Waker;

impl Wake for Waker {
    fn wake(&self) {}
}

// SAFETY: a READ is carried out within `poll`, before its completion is there to be taken, and
// never after the lane has failed or been closed; `Refused` takes exactly what it says.
unsafe impl<'m> Provider for Rails<'m> {
    const CHAIN: usize = CHAIN;
    /// How many send queue entries a QP has.
    type Unopened = usize;
    type Lane = Lane;
    type OpenError = Infallible;
    type Post<'a>
        = Walked<'a, 'm>
    where
        Self: 'a;
    type Waker = Waker;

    fn rails(&self) -> usize {
        self.rails
    }

    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 49_000_000_000, numa: None, cq_entries: CQ as u32 }
    }

    fn register(&mut self, _: MemoryRange) -> Result<RailKeys, RegisterError> {
        Ok(std::array::from_fn(|rail| 7 + rail as u32))
    }

    fn deregister(&mut self, _: MemoryRange, keys: &RailKeys) {
        assert_eq!(keys.len(), MAX_RAILS);
    }

    fn open(&mut self, id: LaneId, rail: RailIndex, depth: usize) -> Result<Lane, Infallible> {
        let (queue, rail) = (VecDeque::new(), rail.get());
        self.qps.push(Qp { queue, used: 0, unreported: 0, depth, rail, failed: false, open: true });
        Ok(Lane(self.qps.len() - 1, id))
    }

    unsafe fn begin<'a>(&'a mut self, lane: &'a mut Lane) -> Walked<'a, 'm> {
        Walked {
            posting: self.chain.begin(),
            staged: Vec::new(),
            qp: &mut self.qps[lane.0],
            answer: self.answers.pop_front().unwrap_or(Answer::Taken),
            config: &self.config,
            taken: &mut self.taken,
        }
    }

    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        if self.healed.get() {
            self.heal();
        }
        let pace = self.paces.pop_front().map_or(usize::MAX, usize::from);
        self.work(rail.get(), pace);
        let mut n = 0;
        while n < out.len()
            && let Some((wc, qp, retires)) = self.cqs[rail.get()].pop_front()
        {
            self.qps[qp].used -= retires;
            out[n] = wc;
            n += 1;
        }
        n
    }

    fn fail(&mut self, lane: &mut Lane) {
        self.qps[lane.0].failed = true;
        self.events.push_back(ProviderEvent::LaneFailed(lane.1));
    }

    fn drain(&mut self, lane: &mut Lane, wr_id: WrId) -> Result<(), i32> {
        let qp = &mut self.qps[lane.0];
        assert!(qp.failed && qp.used < qp.depth, "the drain's place is taken");
        qp.used += 1;
        qp.queue.push_back(Posted::Drain(wr_id));
        self.taken += 1;
        Ok(())
    }

    fn close(&mut self, lane: Lane) {
        let qp = &mut self.qps[lane.0];
        self.ended += qp.queue.len() as u64;
        qp.queue.clear();
        qp.open = false;
        self.events.push_back(ProviderEvent::LaneClosed(lane.1));
    }

    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.events.pop_front()
    }

    fn wait(&mut self, _: WaitFor) {}

    fn waker(&self) -> Waker {
        Waker
    }
}
