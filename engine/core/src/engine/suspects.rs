//! Which READs kill lanes: each suspect is tried alone, and faulty memory is set aside.
//!
//! A READ of memory that has failed kills its lane, with the status of a bad path. It would kill
//! every lane on which it is posted again, with all wrs of these lanes. So the wr whose completion
//! killed a lane is a *suspect*: it is posted again alone, on one lane that the peer keeps for
//! that, while the other lanes go on with everything else. The kept lane is one of those that carry
//! work of the suspect's class. If the suspect kills that lane, too, and the path was not the
//! cause, its page is *faulty* and fails. The path was not the cause if the peer has answered the
//! READ, or if another lane of the same path, from this rail to that of the peer, has carried READs
//! late in the trial. What another rail has carried, or this rail for another peer, says nothing: a
//! port of the peer may be down. So where a path has one lane only, a READ that is not answered is
//! tried again and again, until its page's deadline. READs that overlap faulty memory are not
//! posted for a while ([`EngineConfig::set_aside`]), and neither are READs of a region in which too
//! many pages were faulty ([`faults`](crate::regions::faults)).
//!
//! [`EngineConfig::set_aside`]: crate::config::EngineConfig::set_aside

use super::state::Engine;
use crate::class::Class;
use crate::error::PageError;
use crate::events::{EngineEvent, EventSink};
use crate::lane::circle::Circle;
use crate::lane::lanes::next_in_circle;
use crate::lane::record::Record;
use crate::lane::{Fatal, Hold, Lane, LaneState, NO_LANE};
use crate::limits::MAX_RAILS;
use crate::page::list::PageRef;
use crate::page::row_set::RowSet;
use crate::page::{Page, PageTable, Phase, settle_pages};
use crate::peer::{Forbidden, Trial};
use crate::provider::Provider;
use crate::regions::faults::{FAULTY, FaultLimits, SUSPECTED};
use crate::regions::{NO_REGION, RemotePlace};
use crate::table::ENTRY_BYTES;
use crate::time::Time;
use crate::verbs_abi::FaultKind;

/// How many peers' suspects one poll looks at.
const PEERS: usize = 16;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Finds the wr that killed a quiet lane. If the wr is a suspect, returns its place among the
    /// wrs of the lane, counted from the oldest. If its page is faulty, the page has failed when
    /// this returns.
    pub(super) fn find_suspect(&mut self, index: usize, now: Time) -> Option<u32> {
        let lane = &mut self.lanes[index];
        // The only wr of a lane that was kept for suspects is a suspect.
        let tried = lane.hold.clear(Hold::TRYING) && lane.outstanding() == 1;
        let path_fine = lane.hold.clear(Hold::PATH_FINE);
        let fatal = match lane.fatal {
            Some(fatal) if fatal.status.fault() != FaultKind::Flushed => fatal,
            _ => return tried.then_some(0),
        };
        let place = lane.covered(fatal.seq) - 1;
        if place >= lane.outstanding() {
            return None;
        }
        let seq = lane.tail.wrapping_add(place);
        let record = *self.lanes.record(index, seq);
        if self.is_dead(record) {
            return None;
        }
        let (region, peer) = (self.region_of(record), self.pages.at(record.page).peer());
        if fatal.status.fault() == FaultKind::Page {
            self.fail_faulty_page(index, record, fatal, FAULTY, now);
        } else if tried && (fatal.status.is_answer() || path_fine) {
            // The path is not the cause: the peer has answered the READ, or the path has carried
            // other READs meanwhile.
            let weight = if fatal.status.is_answer() { SUSPECTED } else { FAULTY };
            self.fail_faulty_page(index, record, fatal, weight, now);
        } else {
            if fatal.status.is_answer() {
                let at = self.where_is(record, index);
                let (until, faults) =
                    (now + self.config.set_aside, &mut self.regions.remotes[usize::from(region)].faults);
                if faults.suspect(at.0, at.1, now, until) {
                    // A wr of the same memory has killed another lane before.
                    self.fail_faulty_page(index, record, fatal, SUSPECTED, now);
                    return None;
                }
                self.strike(peer, region, SUSPECTED, fatal, at, now);
            }
            return Some(place);
        }
        None
    }

    /// The remote address and length of a record's first wr, and the peer's key for it.
    fn where_is(&mut self, record: Record, index: usize) -> (u64, u32, u32) {
        let remote_rail = usize::from(self.lanes[index].remote_rail);
        let page = self.pages.at(record.page);
        let remote = &self.regions.remotes[usize::from(page.source.region())];
        if record.is_validating() {
            let entry = remote.table + u64::from(page.entry) * ENTRY_BYTES;
            return (entry, record.len, remote.table_keys[remote_rail]);
        }
        if page.begins_set() {
            let set = RowSet::of(self.pages.set(record.page), self.chunk_shift);
            let read = set.joined(record.chunk).next();
            return read.map_or((0, record.len, 0), |r| (r.remote, r.len, remote.keys[remote_rail]));
        }
        let Some(plan) = page.plan() else {
            let (offset, len) = match page.row_reads(record.chunk, self.chunk_shift) {
                Some(mut rows) => {
                    let row = rows.next();
                    (u64::from(row.source), row.len)
                }
                None => page.chunk(record.chunk, self.chunk_shift),
            };
            return (page.remote + offset, len, remote.keys[remote_rail]);
        };
        let (from, offset, len) = self.plans.chunk(plan, record.chunk);
        if !self.plans.gathers(plan) {
            return (page.remote + offset, len, remote.keys[remote_rail]);
        }
        let remote = &self.regions.remotes[usize::from(page.source.region() + from)];
        (remote.page(page.remote) + offset, len, remote.keys[remote_rail])
    }

    /// The place of the region that a record's first wr reads.
    fn region_of(&mut self, record: Record) -> u16 {
        let page = self.pages.at(record.page);
        let first = page.source.region();
        match page.plan() {
            Some(plan) if !record.is_validating() && self.plans.gathers(plan) => {
                first + self.plans.chunk(plan, record.chunk).0
            }
            _ => first,
        }
    }

    /// Fails the page whose wr killed the lane. If the wr reads the entries of several pages, all
    /// of these fail.
    fn fail_faulty_page(&mut self, index: usize, record: Record, fatal: Fatal, weight: u16, now: Time) {
        let (remote_addr, len, rkey) = self.where_is(record, index);
        let batch = self.pages.at(record.page).batch;
        let (first, pages) = (self.pages.first(batch), self.pages.head(batch).len);
        settle_pages(self.pages.slice(first, u32::from(pages)));
        let Fatal { status, vendor_err, .. } = fatal;
        let rail = self.lanes[index].rail;
        let error = PageError::Fault { status, vendor_err, rail, remote_addr, len, rkey };
        self.pages.head(batch).must_settle_each = true;
        let (faulty, n) = self.counted_in(record);
        for i in 0..n {
            let page = PageRef(faulty.0 + i);
            self.fail_page(page, error);
            // A set may have entries that have not been asked for, and needs none any more.
            self.stop_validating(page, false);
            self.trim(page);
        }
        let (region, peer) = (self.region_of(record), self.pages.at(record.page).peer());
        if status.is_local() {
            // A local fault says nothing about the peer's memory.
            return;
        }
        let until = now + self.config.set_aside;
        self.regions.remotes[usize::from(region)].faults.remember(remote_addr, len, until);
        self.peers[usize::from(peer)].forbidden.insert(Forbidden::ASIDE);
        if !self.strike(peer, region, weight, fatal, (remote_addr, len, rkey), now) {
            self.fail_set_aside_of_peer(peer, now);
        }
    }

    /// Counts a failure in a region. Returns whether that sets the region aside.
    fn strike(
        &mut self,
        peer: u16,
        region: u16,
        weight: u16,
        fatal: Fatal,
        (addr, ..): (u64, u32, u32),
        now: Time,
    ) -> bool {
        let limits = FaultLimits { pages: self.config.region_faults, time: self.config.set_aside };
        let faults = &mut self.regions.remotes[usize::from(region)].faults;
        let aside = faults.strike(weight, (fatal.status, addr), now, limits);
        if aside {
            self.peers[usize::from(peer)].forbidden.insert(Forbidden::ASIDE);
            self.fail_set_aside_of_peer(peer, now);
        }
        aside
    }

    /// Fails those pages in flight from a peer that are set aside.
    pub(super) fn fail_set_aside_of_peer(&mut self, peer: u16, now: Time) {
        let shift = self.chunk_shift;
        self.cancel_some(peer, |remotes, pages| forbid(remotes, pages, shift, now));
    }

    /// Fails those pages of a batch that are set aside.
    #[cold]
    pub(super) fn fail_set_aside(&mut self, batch: u16, now: Time) {
        let (first, len) = (self.pages.first(batch), self.pages.head(batch).len);
        let mut at = 0;
        while at < len {
            let page = self.pages.at(PageRef(first.0 + u32::from(at)));
            at += page.seg_len;
            let peer = page.peer();
            self.look_at_faults(peer, now);
        }
        let shift = self.chunk_shift;
        self.cancel(batch, |remotes, _, pages| forbid(remotes, pages, shift, now));
    }

    /// Looks at the suspects of the next few peers.
    #[cold]
    pub(super) fn try_suspects(&mut self, now: Time) {
        for _ in 0..self.peers.trials.len().min(PEERS) {
            let Some(peer) = self.peers.trials.pop() else { return };
            self.peers[usize::from(peer)].in_trials = false;
            if self.try_suspect(peer, now) {
                self.peers.queue_trial(peer);
            }
        }
    }

    /// Posts a peer's next suspect if that is possible now. Returns whether the peer has to be
    /// looked at again.
    fn try_suspect(&mut self, peer: u16, now: Time) -> bool {
        let p = &self.peers[usize::from(peer)];
        let (from, mut kept) = (p.suspects, p.trial);
        if kept != NO_LANE && self.lanes[usize::from(kept)].hold.contains(Hold::TRYING) {
            self.watch_path(peer, kept, now);
        }
        if from == NO_LANE {
            // The last suspect has arrived or its pages have failed once the lane has nothing
            // outstanding.
            let busy = kept != NO_LANE && self.lanes[usize::from(kept)].outstanding() > 0;
            if !busy {
                self.stop_keeping(peer);
            }
            return busy;
        }
        let seq = self.lanes[usize::from(from)].tail;
        let suspect = *self.lanes.record(usize::from(from), seq);
        if self.is_dead(suspect) {
            // Another wr of its page was the cause. What a failed page reads is not known any more.
            self.pass_over(usize::from(from));
            self.drop_wr(suspect);
            return true;
        }
        let class = self.class_of(suspect);
        if kept != NO_LANE {
            let lane = &self.lanes[usize::from(kept)];
            let carries = self.peers[usize::from(peer)].circles.class_for(class);
            if lane.circle.class() != carries && lane.outstanding() == 0 {
                // The lane was kept for a suspect of the other class.
                self.stop_keeping(peer);
                kept = NO_LANE;
            }
        }
        let lane = if kept == NO_LANE {
            let Some(lane) = self.choose_trial_lane(peer, class, usize::from(from)) else { return true };
            self.lanes[usize::from(lane)].hold.insert(Hold::KEPT);
            self.peers[usize::from(peer)].trial = lane;
            lane
        } else {
            kept
        };
        let lane = usize::from(lane);
        if self.lanes[lane].outstanding() > 0 {
            return true;
        }
        if self.lanes[lane].hold.clear(Hold::TRYING) && self.peers[usize::from(peer)].circles.is_alone(class)
        {
            // It is the only lane for this work: other work has its turn on it before the next
            // suspect.
            self.stop_keeping(peer);
            return true;
        }
        self.try_on(lane, usize::from(from), now);
        true
    }

    /// Posts the suspect of the quiet lane `from`, the first in the peer's list, on `lane`, which
    /// is kept for suspects.
    fn try_on(&mut self, lane: usize, from: usize, now: Time) {
        let (seq, peer) = (self.lanes[from].tail, usize::from(self.lanes[from].peer));
        self.peers[peer].tried = Trial::begin(now);
        let record = *self.lanes.record(from, seq);
        let head = self.lanes[lane].head;
        *self.lanes.record(lane, head) = record;
        self.pass_over(from);
        self.lanes[lane].hold.insert(Hold::TRYING);
        self.emit(|engine| EngineEvent::SuspectTried { lane: engine.lanes[lane].id });
        let rail = usize::from(self.lanes[lane].rail);
        self.rails[rail].stats.reposted += 1;
        self.post(lane, 1, now);
    }

    /// Takes the suspect of the quiet lane `from`, the first in the peer's list, off that lane.
    fn pass_over(&mut self, from: usize) {
        let suspect = &mut self.lanes[from];
        suspect.tail = suspect.tail.wrapping_add(1);
        suspect.suspect = false;
        let (peer, next) = (usize::from(suspect.peer), suspect.next);
        self.peers[peer].suspects = next;
        self.free_lane(from);
    }

    /// Looks whether the path on which a suspect is tried has carried another READ since the last
    /// look, and chooses the lane that is watched until the next one: one with wrs outstanding.
    fn watch_path(&mut self, peer: u16, kept: u16, now: Time) {
        let p = &mut self.peers[usize::from(peer)];
        let trial = &mut p.tried;
        if trial.witness != NO_LANE {
            let witness = &self.lanes[usize::from(trial.witness)];
            debug_assert!(witness.state == LaneState::Up && witness.peer == peer);
            trial.look(witness.tail, now);
            if witness.outstanding() > 0 {
                return;
            }
        }
        let path = |lane: &Lane<P::Lane>| (lane.rail, lane.remote_rail);
        let of = path(&self.lanes[usize::from(kept)]);
        for class in Class::ALL {
            let first = p.circles.next(Circle::new(class, of.0));
            let mut next = (first != NO_LANE).then_some(first);
            while let Some(at) = next {
                let lane = &self.lanes[usize::from(at)];
                if at != kept && path(lane) == of && lane.outstanding() > 0 {
                    return trial.watch(at, lane.tail);
                }
                next = next_in_circle(self.lanes.all, at, first);
            }
        }
    }

    /// Whether no other lane of a circle is of the same path.
    fn is_only_one(&self, lane: u16, first: u16) -> bool {
        let remote_rail = self.lanes[usize::from(lane)].remote_rail;
        let mut next = Some(first);
        while let Some(at) = next {
            if at != lane && self.lanes[usize::from(at)].remote_rail == remote_rail {
                return false;
            }
            next = next_in_circle(self.lanes.all, at, first);
        }
        true
    }

    /// Chooses the lane on which suspects of a class are tried, of those that carry work of the
    /// class: over another rail than that of the killed lane if possible, then one whose path has
    /// another lane, which tells whether the path is fine, then one on which a wr has completed
    /// before, then the one with the fewest wrs outstanding.
    fn choose_trial_lane(&self, peer: u16, class: usize, from: usize) -> Option<u16> {
        let suspect = self.lanes[from].rail;
        let mut best = None;
        let circles = &self.peers[usize::from(peer)].circles;
        let firsts = (0..MAX_RAILS).map(|rail| circles.next(circles.of_work(class, rail)));
        for first in firsts.filter(|&lane| lane != NO_LANE) {
            let mut at = first;
            loop {
                let lane = &self.lanes[usize::from(at)];
                debug_assert_eq!(lane.state, LaneState::Up);
                if lane.hold == Hold::empty() {
                    let only = self.is_only_one(at, first);
                    let key = (lane.rail == suspect, only, lane.fresh, lane.outstanding());
                    if best.is_none_or(|(least, _)| key < least) {
                        best = Some((key, at));
                    }
                }
                match next_in_circle(self.lanes.all, at, first) {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        best.map(|(_, lane)| lane)
    }

    /// Gives the lane that was kept for suspects back to other work.
    fn stop_keeping(&mut self, peer: u16) {
        let p = &mut self.peers[usize::from(peer)];
        let lane = core::mem::replace(&mut p.trial, NO_LANE);
        if lane != NO_LANE {
            let lane = &mut self.lanes[usize::from(lane)];
            lane.hold.clear(Hold::TRYING);
            lane.hold.clear(Hold::KEPT);
            p.circles.set_room(lane.circle);
            self.peers.enroll(peer);
        }
    }

    /// Works out anew whether a page of a peer may be set aside.
    fn look_at_faults(&mut self, peer: u16, now: Time) {
        if !self.peers[usize::from(peer)].forbidden.contains(Forbidden::ASIDE) {
            return;
        }
        let mut at = self.peers[usize::from(peer)].remotes;
        let mut faulty = false;
        while at != NO_REGION {
            let remote = &self.regions.remotes[usize::from(at)];
            faulty |= !remote.faults.have_expired(now);
            at = remote.next;
        }
        self.peers[usize::from(peer)].forbidden.set(Forbidden::ASIDE, faulty);
    }
}

/// The error of the first of `pages` if it is set aside; `None` if it may be read. Behind it
/// stand at least the others of its set.
fn forbid(remotes: &[RemotePlace], pages: &[Page], shift: u8, now: Time) -> Option<PageError> {
    let [page, behind @ ..] = pages else { return None };
    let first = usize::from(page.source.region());
    let RemotePlace { regions, faults, .. } = &remotes[first];
    if page.begins_set() {
        let [second, ..] = behind else { return None };
        let set = pages.get(..second.seg_done.into()).filter(|_| page.phase != Phase::Failed)?;
        let mut spans = RowSet::of(set, shift).spans();
        return spans.find_map(|(addr, len)| faults.forbid(addr, len, now));
    }
    if *regions <= 1 {
        return faults.forbid(page.remote, page.span(shift), now);
    }
    if faults.is_gone() {
        return Some(PageError::PoolGone);
    }
    // A page of several regions is read only if none of them is set aside.
    let mut places = remotes[first..first + usize::from(*regions)].iter();
    places.find_map(|place| place.faults.forbid(place.page(page.remote), place.page_bytes, now))
}
