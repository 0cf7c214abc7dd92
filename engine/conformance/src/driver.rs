//! The steps of which cases are made: open lanes, post READs, wait, and compare completions, events
//! and bytes.
#![allow(unsafe_code, reason = "posting is unsafe: its caller promises that the memory may be written")]

use heapless::Vec;
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Piece, Post as _, Provider, ProviderEvent, RailKeys, Read, WaitFor};
use kvrail_core::time::Nanos;
use kvrail_core::verbs_abi::{Wc, WcStatus};

use crate::destination::Destination;
use crate::failure::{CaseResult, Stop, ensure, fail};
use crate::pattern::{BYTES, pattern};
use crate::rig::{RemoteBytes, Rig};

/// How long a case watches for something that must not come.
pub(crate) const LINGER: Nanos = Nanos::from_millis(20);
/// The first rail.
pub(crate) const RAIL: RailIndex = RailIndex(0);
/// A byte that is not in the counterpart's memory.
pub(crate) const CANARY: u8 = 0xEE;

/// A completion, and the rail that it was polled from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) rail: RailIndex,
    pub(crate) wr_id: WrId,
    pub(crate) status: WcStatus,
}

/// A lane under test.
pub(crate) struct TestLane<P: Provider> {
    pub(crate) lane: P::Lane,
    pub(crate) id: LaneId,
    pub(crate) rail: RailIndex,
    /// The sequence number of its next wr.
    pub(crate) next: u32,
}

/// A rig with its provider, and the completions and events so far.
pub(crate) struct Driver<R: Rig> {
    pub(crate) rig: R,
    pub(crate) provider: R::Provider,
    pub(crate) remote: RemoteBytes,
    pub(crate) memory: Destination,
    pub(crate) keys: RailKeys,
    pub(crate) done: Vec<Done, 1024>,
    pub(crate) events: Vec<ProviderEvent, 64>,
    lanes: u32,
}

impl<R: Rig> Driver<R> {
    pub(crate) fn new() -> Result<Self, Stop> {
        Self::over(R::new())
    }

    pub(crate) fn over(mut rig: R) -> Result<Self, Stop> {
        let mut provider = rig.provider();
        let memory = rig.destination();
        let keys = match provider.register(memory.range()) {
            Ok(keys) => keys,
            Err(error) => fail!("memory could not be registered: {error}"),
        };
        let remote = rig.remote();
        Ok(Self { rig, provider, remote, memory, keys, done: Vec::new(), events: Vec::new(), lanes: 0 })
    }

    /// Opens a lane with an id of its own.
    pub(crate) fn open(&mut self, rail: RailIndex) -> Result<TestLane<R::Provider>, Stop> {
        self.lanes += 1;
        // Each id has another index and another generation, so that ids are not mistaken for each
        // other.
        let id = LaneId::new((self.lanes * 3) as u16, self.lanes * 5);
        let unopened = self.rig.connect(&mut self.provider, rail);
        match self.provider.open(id, rail, unopened) {
            Ok(lane) => Ok(TestLane { lane, id, rail, next: 0 }),
            Err(error) => fail!("lane {} could not be opened on rail {}: {error}", self.lanes, rail.0),
        }
    }

    /// The next wr of a lane: a signaled READ of `len` bytes at `offset` to the same offset of the
    /// local memory.
    pub(crate) fn read(&self, lane: &mut TestLane<R::Provider>, offset: usize, len: usize) -> Read {
        self.read_to(lane, offset, offset, len)
    }

    pub(crate) fn read_to(
        &self,
        lane: &mut TestLane<R::Provider>,
        from: usize,
        to: usize,
        len: usize,
    ) -> Read {
        let wr_id = WrId::new(lane.id, lane.next);
        lane.next += 1;
        Read {
            wr_id,
            remote_addr: self.remote.base + from as u64,
            local_addr: self.memory.range().addr + to as u64,
            len: len as u32,
            rkey: self.remote.rkeys[lane.rail.get()],
            lkey: self.keys[lane.rail.get()],
            signaled: true,
        }
    }

    /// As many READs as a lane may have outstanding, of equal shares of the memory.
    pub(crate) fn full_queue(&self, lane: &mut TestLane<R::Provider>) -> Vec<Read, 64> {
        let share = BYTES / R::DEPTH as usize;
        (0..R::DEPTH as usize).map(|i| self.read(lane, i * share, share)).collect()
    }

    /// Posts one commit.
    pub(crate) fn post(&mut self, lane: &mut TestLane<R::Provider>, reads: &[Read]) -> Commit {
        // SAFETY: this provider has opened the lane. The local range is either not registered, or
        // the destination's, which nothing reads or writes but by raw volatile accesses, or
        // registered memory that its case does not touch.
        let mut post = unsafe { self.provider.begin(&mut lane.lane) };
        for &read in reads {
            post.read(read);
        }
        post.commit()
    }

    /// Posts READs in as many commits as they take, all of which must be accepted.
    pub(crate) fn post_all(&mut self, lane: &mut TestLane<R::Provider>, reads: &[Read]) -> CaseResult {
        for chunk in reads.chunks(<R::Provider as Provider>::CHAIN) {
            let commit = self.post(lane, chunk);
            ensure!(
                commit == Commit::All,
                "{commit:?} for {} READs that the queue has room for",
                chunk.len()
            );
        }
        Ok(())
    }

    /// Posts one scattered READ.
    pub(crate) fn scatter(
        &mut self,
        lane: &mut TestLane<R::Provider>,
        read: Read,
        pieces: &[Piece],
    ) -> Commit {
        // SAFETY: as for `post`; the pieces are of the destination.
        let mut post = unsafe { self.provider.begin(&mut lane.lane) };
        post.scatter(read, pieces);
        post.commit()
    }

    /// Begins a commit, adds the READ, and drops the commit.
    pub(crate) fn abandon(&mut self, lane: &mut TestLane<R::Provider>, read: Read) {
        // SAFETY: as for `post`.
        unsafe { self.provider.begin(&mut lane.lane) }.read(read);
    }

    /// Takes at most `most` completions of one rail, and returns how many there were.
    pub(crate) fn poll(&mut self, rail: RailIndex, most: usize) -> Result<usize, Stop> {
        let mut wcs = [Wc::default(); 8];
        let room = most.min(wcs.len());
        let n = self.provider.poll(rail, &mut wcs[..room]);
        ensure!(n <= room, "poll says that it gave {n} completions into room for {room}");
        for wc in &wcs[..n] {
            let done = Done { rail, wr_id: wc.wr_id(), status: wc.status() };
            if self.done.push(done).is_err() {
                fail!("completions come without end: the last is {:?} of {:?}", done.status, done.wr_id);
            }
        }
        Ok(n)
    }

    /// Takes all completions and events that have come.
    pub(crate) fn take_all(&mut self) -> CaseResult {
        for rail in 0..self.provider.rails() {
            // At most MAX_RAILS.
            while self.poll(RailIndex(rail as u8), 5)? > 0 {}
        }
        while let Some(event) = self.provider.next_event() {
            // Ports of the machine may go down and come up meanwhile, which this suite does not
            // test.
            if let ProviderEvent::LaneFailed(_) | ProviderEvent::LaneClosed(_) = event
                && self.events.push(event).is_err()
            {
                fail!("events come without end: the last is {event:?}");
            }
        }
        Ok(())
    }

    /// Waits until `enough` is true; fails if that takes longer than [`Rig::TIME_LIMIT`].
    pub(crate) fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) -> CaseResult {
        let end = self.rig.now() + R::TIME_LIMIT;
        loop {
            self.take_all()?;
            if enough(self) {
                return Ok(());
            }
            let now = self.rig.now();
            let so_far = self.done.len();
            ensure!(
                now < end,
                "{what} did not come within {} s; {so_far} completions and {:?} did",
                R::TIME_LIMIT.0 / 1_000_000_000,
                self.events
            );
            self.provider.wait(WaitFor { now, until: now + Nanos::from_millis(50), completions: 1 });
            // A provider whose wait returns at once must not keep the clock from moving.
            if self.rig.now() == now {
                self.rig.pass(Nanos::from_micros(1));
            }
        }
    }

    /// Waits for `n` completions, and returns all that have come.
    pub(crate) fn completions(&mut self, n: usize) -> Result<Vec<Done, 1024>, Stop> {
        self.until("a completion that is due", |d| d.done.len() >= n)?;
        Ok(core::mem::take(&mut self.done))
    }

    /// Waits for `event`, and removes it from the events so far.
    pub(crate) fn event(&mut self, event: ProviderEvent) -> CaseResult {
        let what = match event {
            ProviderEvent::LaneClosed(_) => "LaneClosed of the lane that was closed",
            _ => "LaneFailed of the lane that was failed",
        };
        self.until(what, |d| d.events.contains(&event))?;
        self.events.retain(|e| *e != event);
        Ok(())
    }

    /// Lets [`LINGER`] pass, and takes the completions and events of that time.
    pub(crate) fn linger(&mut self) -> CaseResult {
        let end = self.rig.now() + LINGER;
        while self.rig.now() < end {
            self.rig.pass(Nanos(LINGER.0 / 4));
            self.take_all()?;
        }
        Ok(())
    }

    /// Sleeps as an engine does, for `time` at most, and returns how long it took.
    pub(crate) fn sleep(&mut self, completions: u32, time: Nanos) -> Nanos {
        let now = self.rig.now();
        self.provider.wait(WaitFor { now, until: now + time, completions });
        self.rig.now().since(now)
    }

    /// Arms the provider as an engine does that sleeps for the time limit at most.
    pub(crate) fn arm(&mut self, completions: u32) -> bool {
        let now = self.rig.now();
        self.provider.arm(WaitFor { now, until: now + R::TIME_LIMIT, completions })
    }

    /// Fails unless the local bytes at `to` are those at `from` of the counterpart.
    pub(crate) fn expect_bytes(&self, from: usize, to: usize, len: usize) -> CaseResult {
        if !R::ABILITIES.moves_bytes {
            return Ok(());
        }
        for i in 0..len {
            let (found, expected) = (self.memory.get(to + i), pattern(from + i));
            ensure!(
                found == expected,
                "byte {i} of a READ of {len} that was reported a success is {found:#x}, not {expected:#x}"
            );
        }
        Ok(())
    }

    /// Fails unless the local bytes from `from` to `to` are all `value`.
    pub(crate) fn expect_untouched(&self, from: usize, to: usize, value: u8, when: &str) -> CaseResult {
        match (from..to).find(|&at| self.memory.get(at) != value) {
            None => Ok(()),
            Some(at) => fail!("byte {at} of local memory was written {when}"),
        }
    }

    /// Fails if the provider still writes: fills the memory, lets time pass, and looks whether a
    /// byte changed.
    pub(crate) fn expect_no_writer(&mut self, when: &str) -> CaseResult {
        self.memory.fill(0, BYTES, CANARY);
        self.linger()?;
        self.expect_untouched(0, BYTES, CANARY, when)
    }
}

/// Skips the case unless the rig's provider has the ability.
pub(crate) fn need(ability: bool, missing: &'static str) -> CaseResult {
    if ability { Ok(()) } else { Err(Stop::Skip(missing)) }
}

/// Fails unless the completions are the successes of wr `first` and the wrs after it, in the order
/// of posting.
pub(crate) fn expect_in_order(done: &[Done], id: LaneId, first: u32) -> CaseResult {
    for (done, seq) in done.iter().zip(first..) {
        ensure!(
            done.wr_id == WrId::new(id, seq) && done.status.is_success(),
            "{:?} of {:?} came where the success of wr {seq} was next",
            done.status,
            done.wr_id
        );
    }
    Ok(())
}

/// Fails unless the completions of a failed lane are those of wr `first` and of each wr after it,
/// in the order of posting: first successes, then flushes. Returns how many successes there were.
pub(crate) fn expect_flush(done: &[Done], id: LaneId, first: u32) -> Result<usize, Stop> {
    let good = done.iter().take_while(|done| done.status.is_success()).count();
    for (i, done) in done.iter().enumerate() {
        ensure!(
            done.wr_id == WrId::new(id, first + i as u32),
            "{:?} came at place {i} of a lane that is being flushed: completions come in the order of posting",
            done.wr_id
        );
        let expected = if i < good { WcStatus::SUCCESS } else { WcStatus::WR_FLUSH_ERR };
        ensure!(
            done.status == expected,
            "wr {} of a lane that was failed on demand completed with {:?}, not with {expected:?}",
            first + i as u32,
            done.status
        );
    }
    Ok(good)
}
