//! The state of a toy, and how it changes as its clock moves.
#![allow(unsafe_code, reason = "READs write to registered memory")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_conformance::{BYTES, pattern};
use kvrail_core::id::{LaneId, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{MemoryRange, Piece, ProviderEvent, Read};
use kvrail_core::verbs_abi::{Wc, WcStatus};

use super::defect::{DEFECT, Defect};

pub const RAILS: usize = 2;
pub const DEPTH: u32 = 8;
/// Lanes of both rails.
pub const PLACES: usize = 12;
pub const BASE: u64 = 0x4000_0000;
pub const RKEY: u32 = 0x77;
/// The time that one wr takes.
const WR: u64 = 1_000;
/// How long bytes of a flushed READ may still land, and how long changing a QP takes.
const LATE: u64 = 5_000;
pub const NEVER: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub struct Wr {
    pub wr_id: WrId,
    pub signaled: bool,
    /// The READ; `None` for the drain wr.
    pub read: Option<(Read, Vec<Piece>)>,
}

#[derive(Debug)]
pub struct ToyQp {
    pub id: LaneId,
    pub life: u32,
    pub rail: RailIndex,
    pub open: bool,
    pub failed: bool,
    pub queue: VecDeque<Wr>,
    /// Entries in use.
    pub used: u32,
    /// Unsignaled successes whose places no completion has freed yet.
    pub untold: u32,
    pub next_at: u64,
    pub fail_at: u64,
    pub close_at: u64,
    /// Bytes that are still to land, and their time.
    pub late: VecDeque<(u64, Read, Vec<Piece>)>,
}

/// What ends a sleep, besides errors, events and wakers.
#[derive(Clone, Copy, Debug)]
pub struct Reasons {
    /// Whether completions are a reason.
    pub completions: bool,
    /// The number of ended wrs that is one.
    pub goal: u64,
}

#[derive(Debug)]
pub struct State {
    pub now: u64,
    pub defect: Defect,
    pub slow: bool,
    pub id: ProviderId,
    pub regions: Vec<(MemoryRange, u32, bool)>,
    pub qps: Vec<ToyQp>,
    /// Completions, whose place they are of, its life, and how many entries they retire.
    pub cqs: [VecDeque<(Wc, usize, u32, u32)>; RAILS],
    pub events: VecDeque<ProviderEvent>,
    pub woken: Arc<AtomicBool>,
    /// What makes the descriptor readable, while the toy is armed.
    pub armed: Option<Reasons>,
    /// The descriptor stays readable for ever.
    pub stuck: bool,
    /// How many wrs have ended, and how many of these were signaled.
    pub ended: u64,
    pub ended_signaled: u64,
}

impl State {
    pub fn new(slow: bool) -> Self {
        Self {
            now: 1,
            defect: DEFECT.get(),
            slow,
            id: ProviderId::new(),
            regions: Vec::new(),
            qps: Vec::new(),
            cqs: Default::default(),
            events: VecDeque::new(),
            woken: Arc::default(),
            armed: None,
            stuck: false,
            ended: 0,
            ended_signaled: 0,
        }
    }

    pub fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// Why an armed toy's descriptor is readable.
    pub fn tells(&self) -> bool {
        let Some(Reasons { completions, goal }) = self.armed else { return self.stuck };
        let ended = self.ended >= goal || self.has_unpolled() && !self.is(Defect::ArmsOverCompletions);
        self.stuck
            || completions && ended && !self.is(Defect::NeverTellsCompletions)
            || self.has_errors()
            || !self.events.is_empty() && !self.is(Defect::NeverTellsEvents)
            || self.woken.load(Ordering::Acquire) && !self.is(Defect::NeverTellsWakers)
    }

    pub fn has_unpolled(&self) -> bool {
        self.cqs.iter().any(|cq| !cq.is_empty())
    }

    pub fn has_errors(&self) -> bool {
        self.cqs.iter().flatten().any(|(wc, ..)| !wc.status().is_success())
    }

    /// How long changing a QP takes.
    pub fn control(&self) -> u64 {
        if self.slow { 1_000_000 } else { LATE }
    }

    fn next_time(&self) -> u64 {
        let times = self.qps.iter().flat_map(|qp| {
            let work = if qp.queue.is_empty() { NEVER } else { qp.next_at };
            [work, qp.fail_at, qp.close_at, qp.late.front().map_or(NEVER, |late| late.0)]
        });
        times.min().unwrap_or(NEVER)
    }

    /// Moves the clock to the next thing that happens, if that is not after `until`. Returns
    /// whether there was one.
    pub fn step(&mut self, until: u64) -> bool {
        let next = self.next_time();
        if next > until || next == NEVER {
            return false;
        }
        self.now = self.now.max(next);
        (0..self.qps.len()).for_each(|place| self.turn(place));
        true
    }

    pub fn advance_to(&mut self, time: u64) {
        while self.step(time) {}
        self.now = self.now.max(time);
    }

    fn turn(&mut self, place: usize) {
        while self.qps[place].late.front().is_some_and(|late| late.0 <= self.now) {
            if let Some((_, read, pieces)) = self.qps[place].late.pop_front() {
                self.write(&read, &pieces);
            }
        }
        if self.qps[place].fail_at <= self.now {
            self.qps[place].fail_at = NEVER;
            self.enter_error(place);
            let neighbour = self.qps.iter().find(|qp| qp.open && qp.id != self.qps[place].id);
            let id = match neighbour {
                Some(other) if self.is(Defect::NamesTheNeighbour) => other.id,
                _ => self.qps[place].id,
            };
            if !self.is(Defect::FailsWithoutAWord) {
                self.events.push_back(ProviderEvent::LaneFailed(id));
            }
        }
        if self.qps[place].close_at <= self.now {
            self.close(place);
        }
        if self.qps[place].next_at <= self.now && !self.qps[place].queue.is_empty() {
            self.execute(place);
        }
    }

    pub fn enter_error(&mut self, place: usize) {
        if self.qps[place].failed || self.is(Defect::ExecutesAfterFailure) {
            return;
        }
        self.qps[place].failed = true;
        // The READ that is under way is flushed, and its bytes may land for a while.
        if let Some(Wr { read: Some((read, pieces)), .. }) = self.qps[place].queue.front().cloned() {
            self.qps[place].late.push_back((self.now + LATE, read, pieces));
        }
        self.qps[place].next_at = self.now;
    }

    fn close(&mut self, place: usize) {
        let qp = &mut self.qps[place];
        (qp.open, qp.close_at) = (false, NEVER);
        let told_failed = qp.fail_at != NEVER;
        let id = qp.id;
        if self.defect == Defect::WritesAfterTheClose {
            // Queued bytes land all the same.
            for wr in std::mem::take(&mut qp.queue) {
                qp.late.extend(wr.read.map(|(read, pieces)| (self.now + LATE, read, pieces)));
            }
        } else {
            qp.queue.clear();
            qp.late.clear();
        }
        if self.defect != Defect::TellsAFailureAfterTheClose {
            qp.fail_at = NEVER;
        } else if told_failed {
            qp.fail_at = self.now + 1;
        }
        if !self.is(Defect::ClosesWithoutAWord) {
            self.events.push_back(ProviderEvent::LaneClosed(id));
        }
    }

    /// Carries out the oldest wr of a lane.
    fn execute(&mut self, place: usize) {
        let backwards = self.is(Defect::CompletesBackwards) && !self.qps[place].failed;
        let qp = &mut self.qps[place];
        let front = qp.queue.front().is_some_and(|wr| wr.read.is_none());
        let busy = qp.late.back().map_or(0, |late| late.0);
        if front && busy > self.now && self.defect != Defect::DrainsEarly {
            qp.next_at = busy;
            return;
        }
        let Some(wr) = (if backwards { qp.queue.pop_back() } else { qp.queue.pop_front() }) else { return };
        qp.next_at = self.now + if qp.failed { 100 } else { WR };
        let status = match &wr.read {
            _ if self.qps[place].failed => WcStatus::WR_FLUSH_ERR,
            None => WcStatus::SUCCESS,
            Some((read, pieces)) => self.carry_out(place, read, pieces),
        };
        self.report(place, &wr, status);
    }

    fn carry_out(&mut self, place: usize, read: &Read, pieces: &[Piece]) -> WcStatus {
        let rail = self.qps[place].rail;
        let remote =
            read.remote_addr.checked_sub(BASE).is_some_and(|at| at + u64::from(read.len) <= BYTES as u64);
        if read.rkey != RKEY && !self.is(Defect::IgnoresRemoteKeys) {
            return WcStatus::REM_ACCESS_ERR;
        }
        if !remote && !self.is(Defect::IgnoresRemoteRanges) {
            return WcStatus::REM_ACCESS_ERR;
        }
        let allows = |piece: &Piece| {
            self.regions.iter().any(|(range, key, live)| {
                let live = *live || self.is(Defect::IgnoresReleases);
                let inside =
                    piece.addr >= range.addr && piece.addr + u64::from(piece.len) <= range.addr + range.len;
                live && inside && key + u32::from(rail.0) == read.lkey
            })
        };
        if !pieces.iter().all(allows) && !self.is(Defect::IgnoresLocalKeys) {
            return WcStatus::LOC_PROT_ERR;
        }
        if self.is(Defect::SucceedsBeforeTheBytes) {
            self.qps[place].late.push_back((self.now + LATE, *read, pieces.to_vec()));
        } else {
            self.write(read, pieces);
        }
        WcStatus::SUCCESS
    }

    fn write(&self, read: &Read, pieces: &[Piece]) {
        let mut from = (read.remote_addr.wrapping_sub(BASE)) as usize;
        let mut pieces = pieces.to_vec();
        if self.is(Defect::ReversesPieces) {
            pieces.reverse();
        }
        for piece in pieces {
            let more = u32::from(self.is(Defect::WritesOneByteMore));
            let shift = u64::from(self.is(Defect::ShiftsBytes));
            for i in 0..piece.len + more {
                let at =
                    std::ptr::with_exposed_provenance_mut::<u8>((piece.addr + shift + u64::from(i)) as usize);
                // SAFETY: registered memory, which a suite never gives back; with the defects that
                // write beyond it, a byte of the guards around it.
                unsafe { at.write_volatile(pattern(from)) };
                from = from.wrapping_add(1);
            }
        }
    }

    fn report(&mut self, place: usize, wr: &Wr, status: WcStatus) {
        let good = status.is_success();
        self.ended += 1;
        self.ended_signaled += u64::from(wr.signaled);
        let silent = if good { !wr.signaled && !self.is(Defect::TellsTheUnsignaled) } else { false };
        let hidden = !good && !wr.signaled && self.is(Defect::FlushesTheSignaledOnly);
        if silent || hidden {
            self.qps[place].untold += u32::from(!self.is(Defect::NeverRetiresTheUnsignaled));
            return;
        }
        let retires = std::mem::take(&mut self.qps[place].untold) + 1;
        let (life, rail) = (self.qps[place].life, self.qps[place].rail);
        let rail = if self.is(Defect::CompletesOnRailZero) { 0 } else { rail.get() };
        self.cqs[rail].push_back((Wc::new(wr.wr_id, status, 0, place as u32), place, life, retires));
        if !good {
            self.enter_error(place);
        }
    }
}
