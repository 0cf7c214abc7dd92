//! The toy's implementation of `Provider`.
#![allow(unsafe_code, reason = "implements the provider contract, or breaks it on purpose")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{
    Commit, Ends, MemoryRange, Piece, Post, Provider, ProviderEvent, RailInfo, RailKeys, Read, RegisterError,
    UniformReads, WaitFor, Wake,
};
use kvrail_core::verbs_abi::Wc;

use super::defect::Defect;
use super::state::{DEPTH, NEVER, PLACES, RAILS, Reasons, State, ToyQp, Wr};

#[derive(Debug)]
pub struct Toy {
    pub state: Rc<RefCell<State>>,
}

#[derive(Debug)]
pub struct ToyLane {
    place: usize,
    life: u32,
    provider: ProviderId,
}

#[derive(Debug, thiserror::Error)]
#[error("the toy has no such rail, or no place left")]
pub struct ToyError;

#[derive(Clone, Debug)]
pub struct ToyWaker(Arc<AtomicBool>);

impl Wake for ToyWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
pub struct ToyPost<'a> {
    toy: &'a Toy,
    place: usize,
    wrs: Vec<Wr>,
    committed: bool,
}

impl Post for ToyPost<'_> {
    fn read(&mut self, read: Read) {
        self.scatter(read, &[Piece { addr: read.local_addr, len: read.len }]);
    }

    fn read_uniform(&mut self, uniform: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        let each = self.toy.state.borrow().is(Defect::SignalsEachUniformRead);
        let last = ends.len() - 1;
        for (i, ends) in ends.enumerate() {
            self.read(uniform.read(i as u32, ends, each || i == last));
        }
    }

    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        let (wr_id, signaled) = (read.wr_id, read.signaled);
        self.wrs.push(Wr { wr_id, signaled, read: Some((read, pieces.to_vec())) });
    }

    fn commit(mut self) -> Commit {
        self.committed = true;
        let state = &mut *self.toy.state.borrow_mut();
        let wanted = self.wrs.len() as u32;
        if wanted == 0 && state.is(Defect::TellsOfEmptyCommits) {
            let (id, life) = (state.qps[self.place].id, state.qps[self.place].life);
            let wc = Wc::new(WrId::new(id, 0), kvrail_core::verbs_abi::WcStatus::SUCCESS, 0, 0);
            state.cqs[0].push_back((wc, self.place, life, 0));
        }
        if state.is(Defect::LosesPostsWhileFailing) && state.qps[self.place].fail_at != NEVER {
            return Commit::All;
        }
        let qp = &mut state.qps[self.place];
        let accepted = wanted.min(DEPTH - qp.used.min(DEPTH));
        let executed = if state.defect == Defect::ExecutesBeyondThePrefix { wanted } else { accepted };
        if qp.queue.is_empty() && executed > 0 {
            qp.next_at = state.now + 1_000;
        }
        qp.used += accepted;
        qp.queue.extend(self.wrs.drain(..executed as usize));
        match accepted == wanted {
            true => Commit::All,
            false if state.defect == Defect::OverstatesThePrefix => {
                Commit::Prefix { accepted: accepted + 1, errno: 12 }
            }
            false => Commit::Prefix { accepted, errno: 12 },
        }
    }
}

impl Drop for ToyPost<'_> {
    fn drop(&mut self) {
        let state = &mut *self.toy.state.borrow_mut();
        if !self.committed && state.is(Defect::PostsWhatIsDropped) {
            let qp = &mut state.qps[self.place];
            qp.used += self.wrs.len() as u32;
            qp.queue.extend(self.wrs.drain(..));
        }
    }
}

impl Toy {
    fn find(&self, lane: &ToyLane) -> Option<usize> {
        let state = self.state.borrow();
        let known = state.qps.get(lane.place).is_some_and(|qp| qp.life == lane.life && qp.open);
        let mine = lane.provider == state.id || state.is(Defect::FailsForeignLanes);
        (known && mine).then_some(lane.place)
    }
}

// SAFETY: without a defect, bytes are written by `State::write` only: to the pieces of a READ whose
// destination is registered, before its success is reported; or, for one READ of a lane that
// failed, until the drain or the close, both of which wait for it or forget it; dropping the
// provider drops all state. With a defect it breaks that, over memory that is never given back.
unsafe impl Provider for Toy {
    const CHAIN: usize = 16;
    type Unopened = ();
    type Lane = ToyLane;
    type OpenError = ToyError;
    type Post<'a> = ToyPost<'a>;
    type Waker = ToyWaker;

    fn rails(&self) -> usize {
        RAILS
    }

    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 1_000_000_000, numa: None, cq_entries: 8 * (DEPTH + 1) }
    }

    fn sges(&self) -> u32 {
        if self.state.borrow().is(Defect::TakesNoPieces) { 0 } else { 3 }
    }

    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        let state = &mut *self.state.borrow_mut();
        let key = 0x100 * (state.regions.len() as u32 + 1);
        state.regions.push((range, key, true));
        Ok(std::array::from_fn(|rail| key + rail.min(MAX_RAILS) as u32))
    }

    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        let mut state = self.state.borrow_mut();
        let mut regions = state.regions.iter_mut();
        if let Some(region) = regions.find(|region| region.0 == range && region.1 == keys[0]) {
            region.2 = false;
        }
    }

    fn open(&mut self, id: LaneId, rail: RailIndex, (): ()) -> Result<ToyLane, ToyError> {
        let state = &mut *self.state.borrow_mut();
        let rail = match rail.get() < RAILS {
            true => rail,
            false if state.is(Defect::OpensOnAnyRail) => RailIndex(0),
            false => return Err(ToyError),
        };
        let free = state.qps.iter().position(|qp| !qp.open && qp.late.is_empty());
        let place = free.filter(|_| !state.is(Defect::KeepsPlaces)).unwrap_or(state.qps.len());
        if place == PLACES {
            return Err(ToyError);
        }
        let life = state.qps.get(place).map_or(1, |qp| qp.life + 1);
        let qp = ToyQp {
            id,
            life,
            rail,
            open: true,
            failed: false,
            queue: VecDeque::new(),
            used: 0,
            untold: 0,
            next_at: NEVER,
            fail_at: NEVER,
            close_at: NEVER,
            late: VecDeque::new(),
        };
        if place == state.qps.len() {
            state.qps.push(qp);
        } else {
            state.qps[place] = qp;
        }
        Ok(ToyLane { place, life, provider: state.id })
    }

    unsafe fn begin<'a>(&'a mut self, lane: &'a mut ToyLane) -> ToyPost<'a> {
        ToyPost { toy: self, place: lane.place, wrs: Vec::new(), committed: false }
    }

    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let state = &mut *self.state.borrow_mut();
        let newest = state.is(Defect::PollsTheNewestFirst);
        for (n, out) in out.iter_mut().enumerate() {
            let cq = &mut state.cqs[rail.get()];
            let Some((wc, place, life, retires)) = (if newest { cq.pop_back() } else { cq.pop_front() })
            else {
                return n;
            };
            let qp = &mut state.qps[place];
            if qp.life == life {
                qp.used = qp.used.saturating_sub(retires);
            }
            *out = wc;
        }
        out.len()
    }

    fn fail(&mut self, lane: &mut ToyLane) {
        let Some(place) = self.find(lane) else { return };
        let state = &mut *self.state.borrow_mut();
        let at = state.now + state.control();
        for (other, qp) in state.qps.iter_mut().enumerate() {
            if other == place {
                qp.fail_at = qp.fail_at.min(at);
            }
        }
        if state.is(Defect::FailsTheNeighbour) {
            (0..state.qps.len()).for_each(|place| state.enter_error(place));
        }
    }

    fn drain(&mut self, lane: &mut ToyLane, wr_id: WrId) -> Result<(), i32> {
        let place = match self.find(lane) {
            Some(place) => place,
            None if self.state.borrow().is(Defect::DrainsForeignLanes) => return Ok(()),
            None => return Err(22),
        };
        if lane.provider != self.state.borrow().id {
            return Err(22);
        }
        let state = &mut *self.state.borrow_mut();
        if state.is(Defect::DrainsNeedAPlace) && state.qps[place].used >= DEPTH {
            return Err(12);
        }
        let now = state.now;
        let qp = &mut state.qps[place];
        qp.used += 1;
        qp.next_at = qp.next_at.max(now);
        if qp.queue.is_empty() {
            qp.next_at = now + 1;
        }
        qp.queue.push_back(Wr { wr_id, signaled: true, read: None });
        Ok(())
    }

    fn close(&mut self, lane: ToyLane) {
        let Some(place) = self.find(&lane) else { return };
        let state = &mut *self.state.borrow_mut();
        // A control thread does one thing after the other, unless the rig is the slow one.
        state.qps[place].close_at = state.now + LATE_CLOSE;
    }

    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.state.borrow_mut().events.pop_front()
    }

    fn wait(&mut self, wait: WaitFor) {
        let state = &mut *self.state.borrow_mut();
        if state.woken.swap(false, Ordering::Acquire) && !state.is(Defect::SleepsOverWakers) {
            return;
        }
        let signaled_only = state.is(Defect::CountsTheSignaledOnly);
        let ended = |state: &State| if signaled_only { state.ended_signaled } else { state.ended };
        let goal = ended(state) + u64::from(wait.completions);
        loop {
            let (unpolled, errors) = (state.has_unpolled(), state.has_errors());
            let completed = wait.completions > 0 && (ended(state) >= goal || (unpolled && !signaled_only));
            let done = (completed && !state.is(Defect::SleepsOverCompletions))
                || (errors && !state.is(Defect::SleepsOverErrors))
                || (!state.events.is_empty() && !state.is(Defect::SleepsOverEvents));
            if done {
                return;
            }
            if !state.step(wait.until.0) {
                let late = if state.is(Defect::SleepsTooLong) { 60_000_000_000 } else { 0 };
                state.now = state.now.max(wait.until.0.saturating_add(late));
                return;
            }
        }
    }

    fn arm(&mut self, wait: WaitFor) -> bool {
        let state = &mut *self.state.borrow_mut();
        let goal = state.ended + u64::from(wait.completions);
        let woken = state.woken.swap(false, Ordering::Acquire);
        state.armed = Some(Reasons { completions: wait.completions > 0, goal });
        let may_sleep = !woken && (state.stuck || !state.tells());
        if !may_sleep {
            state.armed = None;
        }
        may_sleep
    }

    fn disarm(&mut self) {
        let state = &mut *self.state.borrow_mut();
        state.stuck |= state.is(Defect::StaysReadable) && state.tells();
        state.armed = None;
    }

    fn waker(&self) -> ToyWaker {
        ToyWaker(Arc::clone(&self.state.borrow().woken))
    }
}

/// The time from `close` to `LaneClosed`.
const LATE_CLOSE: u64 = 4_000;

impl Drop for Toy {
    fn drop(&mut self) {
        let state = &mut *self.state.borrow_mut();
        if !state.is(Defect::WritesAfterTheDrop) {
            state.qps.clear();
        }
    }
}
