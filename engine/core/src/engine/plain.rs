//! Plain segments: pages that are alike (one length, one region on each side) and one chunk each.
//!
//! What is the same for all of them is worked out once; a run is one record in its lane's ring, and is encoded
//! from its pages, of which only the addresses are looked at.
#![allow(unsafe_code, reason = "here memory is handed to the hardware")]

use super::Engine;
use super::post::account;
use super::pump::next_lane;
use crate::id::WrId;
use crate::lane::{Record, place};
use crate::page::{Page, PageRef, PageTable};
use crate::provider::{Alike, Commit, Ends, Post, Provider};
use crate::time::Time;

/// Why no more of a segment is posted in runs of its own.
pub(super) enum Stop {
    /// All of it has been, or as much as the peer may in its turn.
    Posted,
    /// No rail that leads to the peer has room, or no lane over it.
    NoRoom,
    /// What is left is less than a run, and goes with the segment behind it.
    Short,
}

impl<P: Provider> Engine<'_, P> {
    /// Posts a plain segment, the first of its peer's queue, as far as credits, caps and the `quantum` go, from which
    /// it takes what it posts.
    // On its own, its loops have the registers for themselves.
    #[inline(never)]
    pub(super) fn post_plain(
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
        let kind = first.seg.run();
        // The references themselves, so that they need not be looked up again after every store.
        let Self { provider, config, choice, pages, depth, .. } = self;
        let (lanes, records, rails) = (&mut *self.lanes, &mut *self.records, &mut *self.rails);
        let peer = &mut self.peers[usize::from(peer)];
        let (local, remote) = (&self.locals[local], &self.remotes[usize::from(source.region())]);
        // Where there is one lane only, there is nothing to spread over.
        let alone = peer.lanes_up == 1;
        let (run_wrs, run_bytes) =
            if alone { (u32::MAX, config.quantum_bytes) } else { (config.run_chunks, config.run_bytes) };
        let run_wrs = run_wrs.min(P::CHAIN as u32);
        let mut seg_done = pages.at(segment).seg_done;
        let stop = loop {
            let mask = peer.room & choice.open;
            if mask == 0 {
                break Stop::NoRoom;
            }
            let index = choice.rail(rails, mask, local.near, u64::from(len.min(config.run_bytes)));
            // Every failure to find a lane takes a rail out of the peer's room, so this ends.
            let Some(at) = next_lane(lanes, peer, index) else { continue };
            let (lane, rail) = (&mut lanes[at], &mut rails[index]);

            let left = u32::from(seg_len - seg_done);
            let limit = run_wrs.min(lane.room()).min(rail.wrs_cap - rail.wrs);
            let max_bytes = u64::from(run_bytes).min(rail.bytes_cap - rail.bytes);
            let mut n = left.min(limit);
            let mut full = n == limit;
            if u64::from(n) * u64::from(len) > max_bytes {
                // At most n, a u32.
                (n, full) = (((max_bytes / u64::from(len)) as u32).max(1), true);
            }
            if n == left && !full && !peer.queue[class].is_last(segment) {
                // Nothing went there: it comes next all the same. Lanes are fewer than 65,535.
                peer.lanes[index] = at as u16;
                break Stop::Short;
            }
            let Some(handle) = lane.handle.as_mut() else { break Stop::NoRoom };

            let page = PageRef(segment.0 + u32::from(seg_done));
            // n <= seg_len - seg_done, a u16.
            seg_done += n as u16;
            let record = Record { page, chunk: 0, len, count: n as u16, run: kind };
            records[place(at, lane.head, *depth)] = record;
            let bytes = u64::from(n) * u64::from(len);
            let mut every = config.signal_wrs;
            if bytes > u64::from(config.signal_bytes) {
                every = every.min(config.signal_bytes.div_ceil(len));
            }
            let mut alike = Alike {
                wr_id: WrId::new(lane.id, lane.head),
                len,
                rkey: remote.keys[usize::from(lane.remote_rail)],
                lkey: local.keys[index],
            };
            // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until the page is done.
            let mut post = unsafe { provider.begin(handle) };
            let ends = |page: &Page| {
                let (local_addr, _) = page.local();
                Ends { remote_addr: page.remote, local_addr }
            };
            let mut rest: &[Page] = pages.slice(page, n);
            while rest.len() > every as usize {
                let (signaled, behind) = rest.split_at(every as usize);
                post.read_alike(alike, signaled.iter().map(ends));
                alike.wr_id = alike.wr_id.nth(every);
                rest = behind;
            }
            post.read_alike(alike, rest.iter().map(ends));
            let commit = post.commit();

            account(lane, rail, n, bytes, now);
            choice.refresh(index, rail);
            *quantum = quantum.saturating_sub(bytes);
            if commit != Commit::All {
                rail.stats.path_faults += 1;
                pages.at(segment).seg_done = seg_done;
                if seg_done == seg_len {
                    peer.queue[class].remove(pages, segment);
                }
                // What was accepted is flushed with the rest; what was not is in the ring all the same, and goes
                // elsewhere when the lane is known to be quiet.
                self.kill(at, now);
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
}
