//! Uniform segments: pages of one length, one region on each side, and one chunk each.
//!
//! Their common fields are worked out once. A run of such pages is one record in its lane's ring,
//! and encoding it looks only at the addresses of each page. A full run is a commit of its own
//! ([`Engine::post_uniform`]). The rest of a segment that is shorter than a run goes into one
//! commit with the next segments ([`Engine::gather_uniform`], [`add_reads`]).
#![allow(unsafe_code, reason = "posting lets the hardware write into memory")]

use super::super::state::Engine;
use super::{Stop, account, next_lane, refused};
use crate::events::{EngineEvent, EventSink};
use crate::id::WrId;
use crate::lane::record::{Record, place};
use crate::limits::narrow;
use crate::page::list::PageRef;
use crate::page::{Page, PageTable};
use crate::provider::{Commit, Ends, Post, Provider, Read, UniformReads};
use crate::time::Time;

/// How many of `left` pages of `len` bytes go into a run of at most `limit` wrs and `max_bytes`
/// (but at least one page), and whether they fill the run.
#[inline(always)]
fn fit(left: u32, limit: u32, len: u32, max_bytes: u64) -> (u32, bool) {
    let n = left.min(limit);
    if u64::from(n) * u64::from(len) > max_bytes {
        // At most n, a u32.
        (((max_bytes / u64::from(len)) as u32).max(1), true)
    } else {
        (n, n == limit)
    }
}

/// The two addresses of a page's READ.
#[inline(always)]
fn ends(page: &Page) -> Ends {
    let (local_addr, _) = page.local();
    Ends { remote_addr: page.remote, local_addr }
}

/// Adds the READs of uniform pages to a commit that has other READs as well. `read` makes a READ
/// from its two addresses.
#[inline]
pub(super) fn add_reads(post: &mut impl Post, pages: &[Page], mut read: impl FnMut(Ends) -> Read) {
    for page in pages {
        post.read(read(ends(page)));
    }
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Posts a uniform segment, the first of its peer's queue, as far as credits, caps and
    /// `quantum` go. Subtracts the posted bytes from `quantum`.
    // Not inlined, so that its loops have all registers.
    #[inline(never)]
    pub(in super::super) fn post_uniform(
        &mut self,
        peer: u16,
        segment: PageRef,
        class: usize,
        quantum: &mut u64,
        now: Time,
    ) -> Stop {
        let first = self.pages.at(segment);
        let (len, seg_len, source) = (first.len, first.seg_len, first.source);
        let (_, local) = first.local();
        let run = first.seg.run();
        // The loop uses these references, so that the compiler need not load them again after every
        // store.
        let Self { provider, sink, config, pages, .. } = self;
        let (choice, rails) = (&mut self.rails.choice, &mut *self.rails.all);
        let (lanes, records, depth) = (&mut *self.lanes.all, &mut *self.lanes.records, self.lanes.depth);
        let peer = &mut self.peers.all[usize::from(peer)];
        let (local, remote) =
            (&self.regions.locals[local], &self.regions.remotes[usize::from(source.region())]);
        // With only one lane for it there is nothing to spread the work over, so a run is as long
        // as the turn.
        let alone = peer.circles.is_alone(class);
        let (run_wrs, run_bytes) =
            if alone { (u32::MAX, config.quantum_bytes) } else { (config.run_chunks, config.run_bytes) };
        let run_wrs = run_wrs.min(P::CHAIN as u32);
        let mut seg_done = pages.at(segment).seg_done;
        let stop = loop {
            let mask = peer.circles.room(class) & choice.open;
            if mask == 0 {
                break Stop::NoRoom;
            }
            let index = choice.rail(rails, mask, local.near, u64::from(len.min(config.run_bytes)));
            // Each time that no lane is found, `next_lane` removes a circle from the peer's room,
            // so this ends.
            let circle = peer.circles.of_work(class, index);
            let Some(at) = next_lane(lanes, &mut peer.circles, circle) else { continue };
            let (lane, rail) = (&mut lanes[at], &mut rails[index]);

            let left = u32::from(seg_len - seg_done);
            let limit = run_wrs.min(lane.room()).min(rail.wrs_cap - rail.wrs);
            let max_bytes = u64::from(run_bytes).min(rail.bytes_cap - rail.bytes);
            let (n, full) = fit(left, limit, len, max_bytes);
            if n == left && !full && !peer.queue[class].is_last(segment) {
                // Nothing was posted on this lane, so make it the next candidate again.
                peer.circles.set_next(circle, narrow(at));
                break Stop::Short;
            }
            let Some(handle) = lane.handle.as_mut() else { break Stop::NoRoom };

            let page = PageRef(segment.0 + u32::from(seg_done));
            seg_done += narrow(n as usize);
            let record = Record { page, chunk: 0, len, count: narrow(n as usize), run };
            records[place(at, lane.head, depth)] = record;
            let bytes = u64::from(n) * u64::from(len);
            let mut every = config.signal_wrs;
            if bytes > u64::from(config.signal_bytes) {
                every = every.min(config.signal_bytes.div_ceil(len));
            }
            let mut reads = UniformReads {
                wr_id: WrId::new(lane.id, lane.head),
                len,
                rkey: remote.keys[usize::from(lane.remote_rail)],
                lkey: local.keys[index],
            };
            // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until
            // the page is done.
            let mut post = unsafe { provider.begin(handle) };
            let mut rest: &[Page] = pages.slice(page, n);
            while rest.len() > every as usize {
                let (signaled, behind) = rest.split_at(every as usize);
                post.read_uniform(reads, signaled.iter().map(ends));
                reads.wr_id = reads.wr_id.nth(every);
                rest = behind;
            }
            post.read_uniform(reads, rest.iter().map(ends));
            let commit = post.commit();

            account(lane, rail, n, bytes, now);
            choice.refresh(index, rail);
            *quantum = quantum.saturating_sub(bytes);
            if E::ENABLED {
                sink.event(EngineEvent::Posted { lane: lane.id, wrs: n, bytes });
            }
            if commit != Commit::All {
                rail.stats.path_faults += 1;
                pages.at(segment).seg_done = seg_done;
                if seg_done == seg_len {
                    peer.queue[class].remove(pages, segment);
                }
                // Accepted wrs are flushed. The others have records in the ring, too, and go to
                // other lanes when this one is known to be quiet.
                self.emit(|engine| refused(engine.lanes[at].id, commit));
                self.fail_lane(at, now);
                return Stop::Posted;
            }
            if seg_done == seg_len || *quantum == 0 {
                break Stop::Posted;
            }
        };
        pages.at(segment).seg_done = seg_done;
        if seg_done == seg_len {
            peer.queue[class].remove(pages, segment);
        }
        stop
    }

    /// Writes the next pages of a uniform segment into the ring of `lane`, as its wrs from `seq`
    /// on, for a run with other segments: at most `limit` wrs and `max_bytes`. Returns how many
    /// there are.
    #[inline]
    pub(super) fn gather_uniform(
        &mut self,
        lane: usize,
        seq: u32,
        segment: PageRef,
        limit: u32,
        max_bytes: u64,
    ) -> u32 {
        let first = self.pages.at(segment);
        let page = PageRef(segment.0 + u32::from(first.seg_done));
        let (n, _) = fit(u32::from(first.seg_len - first.seg_done), limit, first.len, max_bytes);
        first.seg_done += narrow(n as usize);
        let (len, count, run) = (first.len, narrow(n as usize), first.seg.run());
        *self.lanes.record(lane, seq) = Record { page, chunk: 0, len, count, run };
        n
    }
}
