//! A run of chunks becomes one commit.
//!
//! The run is first written into the lane's ring, which is where its records belong anyway, and then
//! encoded from there: so its length, and with it which wr is the last and signaled, is known before
//! the first descriptor is handed over.
#![allow(unsafe_code, reason = "here memory is handed to the hardware")]

use super::Engine;
use super::pump::Work;
use crate::config::Config;
use crate::id::{LaneId, WrId};
use crate::lane::{Lane, Record, lane_ring_mut};
use crate::page::{PageRef, PageTable, VALIDATE};
use crate::provider::{Commit, Post, Provider, Read};
use crate::table::{ENTRY_BYTES, Entry};
use crate::time::Time;

impl<P: Provider> Engine<'_, P> {
    /// Posts one run on `lane` and says how many bytes it was, at least 1.
    #[inline]
    pub(super) fn run(&mut self, lane: usize, work: Work, class: usize, now: Time) -> u64 {
        let l = &self.lanes[lane];
        let rail = &self.rails[usize::from(l.rail)];
        // Where there is one lane only, there is nothing to spread over.
        let peer = usize::from(l.peer);
        let alone = self.peers[peer].lanes_up == 1;
        let chunks = if alone { u32::MAX } else { self.config.run_chunks };
        let chunks = chunks.min(P::CHAIN as u32).min(l.room()).min(self.config.rail_wrs - rail.wrs);
        let bytes = self.config.rail_bytes - rail.bytes;
        let bytes = if alone { bytes } else { bytes.min(u64::from(self.config.run_bytes)) };
        if let Work::Fresh(segment) = work {
            if let Some(n) = self.plain(segment, chunks, bytes, peer, class) {
                return self.post_plain(lane, segment, n, class, now);
            }
        }
        let n = match work {
            Work::Validate => self.gather_validating(lane, chunks),
            Work::Again(from) => self.gather_again(lane, usize::from(from), chunks, bytes),
            Work::Fresh(segment) => self.gather_fresh(lane, segment, class, chunks, bytes, now),
        };
        if n == 0 { 1 } else { self.post(lane, n, now).max(1) }
    }

    fn gather_validating(&mut self, lane: usize, limit: u32) -> u32 {
        let (peer, head) = (usize::from(self.lanes[lane].peer), self.lanes[lane].head);
        let mut n = 0;
        while n < limit {
            let Some(page) = self.peers[peer].validate.first() else { break };
            self.peers[peer].validate.remove(&mut self.pages, page);
            let record = self.record(lane, head.wrapping_add(n));
            (record.page, record.chunk) = (page.0, VALIDATE);
            n += 1;
        }
        n
    }

    /// Takes wrs over from the dead lane `from`.
    #[cold]
    fn gather_again(&mut self, lane: usize, from: usize, limit: u32, max_bytes: u64) -> u32 {
        let head = self.lanes[lane].head;
        let (mut n, mut bytes) = (0, 0);
        while n < limit && bytes < max_bytes && self.lanes[from].outstanding() > 0 {
            let seq = self.lanes[from].tail;
            self.lanes[from].tail = seq.wrapping_add(1);
            let old = *self.record(from, seq);
            let page = self.pages.at(PageRef(old.page));
            if page.dead {
                self.drop_chunk(PageRef(old.page));
                continue;
            }
            bytes += if old.chunk == VALIDATE {
                ENTRY_BYTES
            } else {
                u64::from(page.chunk(old.chunk, self.chunk_shift).1)
            };
            let record = self.record(lane, head.wrapping_add(n));
            (record.page, record.chunk) = (old.page, old.chunk);
            n += 1;
        }
        let rail = usize::from(self.lanes[lane].rail);
        self.rails[rail].stats.reposted += u64::from(n);
        self.carcass_emptied(from);
        n
    }

    #[inline]
    fn gather_fresh(
        &mut self,
        lane: usize,
        mut segment: PageRef,
        class: usize,
        limit: u32,
        max_bytes: u64,
        now: Time,
    ) -> u32 {
        let (peer, head) = (self.lanes[lane].peer, self.lanes[lane].head);
        let (mut n, mut bytes) = (0, 0);
        loop {
            let first = self.pages.at(segment);
            let (seg_len, mut seg_done) = (first.seg_len, first.seg_done);
            if first.seg_plain {
                // One chunk a page, and none of them posted or failed: no need to look at each.
                let each = u64::from(first.len);
                let fit = u32::try_from((max_bytes - bytes) / each).unwrap_or(u32::MAX).max(1);
                let k = u32::from(seg_len - seg_done).min(limit - n).min(fit);
                let page = segment.0 + u32::from(seg_done);
                for i in 0..k {
                    let record = self.record(lane, head.wrapping_add(n + i));
                    (record.page, record.chunk) = (page + i, 0);
                }
                n += k;
                bytes += u64::from(k) * each;
                // k <= seg_len - seg_done, a u16.
                seg_done += k as u16;
            } else {
                while seg_done < seg_len && n < limit && (bytes < max_bytes || n == 0) {
                    let at = PageRef(segment.0 + u32::from(seg_done));
                    let shift = self.chunk_shift;
                    let page = self.pages.at(at);
                    let chunks = page.chunks(shift);
                    if page.next < chunks {
                        let chunk = page.next;
                        bytes += u64::from(page.chunk(chunk, shift).1);
                        page.next += 1;
                        let whole = page.next == chunks;
                        let record = self.record(lane, head.wrapping_add(n));
                        (record.page, record.chunk) = (at.0, chunk);
                        n += 1;
                        seg_done += u16::from(whole);
                    } else {
                        // Failed since: its other chunks are not going to be posted.
                        seg_done += 1;
                    }
                }
            }
            self.pages.at(segment).seg_done = seg_done;
            if seg_done < seg_len {
                return n;
            }
            self.peers[usize::from(peer)].queue[class].remove(&mut self.pages, segment);
            if n >= limit || bytes >= max_bytes {
                return n;
            }
            match self.next_segment(peer, class, now) {
                Some(next) => segment = next,
                None => return n,
            }
        }
    }

    /// How many pages of a segment make the whole run, where they can without looking at each: every page
    /// is one chunk, none of them has been posted or has failed, and the run ends with them.
    #[inline]
    fn plain(
        &mut self,
        segment: PageRef,
        limit: u32,
        max_bytes: u64,
        peer: usize,
        class: usize,
    ) -> Option<u16> {
        let first = self.pages.at(segment);
        if !first.seg_plain {
            return None;
        }
        let fit = u32::try_from(max_bytes / u64::from(first.len)).unwrap_or(u32::MAX).max(1).min(limit);
        let left = first.seg_len - first.seg_done;
        let last = self.peers[peer].queue[class].is_last(segment);
        // The lesser of two, of which one is a u16.
        (last || fit <= u32::from(left)).then_some(fit.min(u32::from(left)) as u16)
    }

    /// Posts `n` pages of a plain segment.
    // On its own, the loop has the registers for itself.
    #[inline(never)]
    fn post_plain(&mut self, lane: usize, segment: PageRef, n: u16, class: usize, now: Time) -> u64 {
        let first = self.pages.at(segment);
        let at = PageRef(segment.0 + u32::from(first.seg_done));
        first.seg_done += n;
        if first.seg_done == first.seg_len {
            let peer = usize::from(self.lanes[lane].peer);
            self.peers[peer].queue[class].remove(&mut self.pages, segment);
        }
        let Self { provider, lanes, records, pages, locals, remotes, config, .. } = self;
        let mut ring = lane_ring_mut(records, lane, self.depth);
        let l = &mut lanes[lane];
        let mut run = Run::begin(l, config);
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (rail, remote_rail) = (usize::from(l.rail), usize::from(l.remote_rail));
        // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until the page is
        // done, or to the page's place in the landing area.
        let mut post = unsafe { provider.begin(handle) };
        let mut keys = Keys::UNKNOWN;
        for (i, page) in pages.slice(at, n).iter_mut().enumerate() {
            let (local_addr, local) = page.local();
            let of = (local as u64) << 16 | u64::from(page.region);
            if of != keys.of {
                keys = Keys {
                    of,
                    rkey: remotes[usize::from(page.region)].keys[remote_rail],
                    lkey: locals[local].keys[rail],
                };
            }
            page.next = 1;
            let record = ring.at_mut(run.seq);
            (record.page, record.chunk) = (at.0 + i as u32, 0);
            let last = i + 1 == usize::from(n);
            let (remote_addr, len, Keys { rkey, lkey, .. }) = (page.remote, page.len, keys);
            let (wr_id, signaled) = run.count(record, len, last);
            post.read(Read { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled });
        }
        let commit = post.commit();
        self.posted(lane, run, commit, now)
    }

    /// Encodes and commits the `n` records from the lane's head on. Says how many bytes they are.
    #[inline]
    fn post(&mut self, lane: usize, n: u32, now: Time) -> u64 {
        let Self { provider, lanes, records, pages, locals, remotes, landing, config, .. } = self;
        let mut ring = lane_ring_mut(records, lane, self.depth);
        let l = &mut lanes[lane];
        let mut run = Run::begin(l, config);
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (rail, remote_rail) = (usize::from(l.rail), usize::from(l.remote_rail));
        let shift = self.chunk_shift;
        // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until the page is
        // done, or to the page's place in the landing area.
        let mut post = unsafe { provider.begin(handle) };
        for i in 0..n {
            let record = ring.at_mut(run.seq);
            let page = pages.at(PageRef(record.page));
            let remote = &remotes[usize::from(page.region)];
            let last = i + 1 == n;
            if record.chunk == VALIDATE {
                let entry = &landing[record.page as usize];
                // Whatever an earlier page left there must not pass for this one's entry.
                entry.clear();
                let len = ENTRY_BYTES as u32;
                let (wr_id, signaled) = run.count(record, len, last);
                post.read(Read {
                    wr_id,
                    remote_addr: remote.table + u64::from(page.entry) * ENTRY_BYTES,
                    local_addr: core::ptr::from_ref::<Entry>(entry).expose_provenance() as u64,
                    len,
                    rkey: remote.table_keys[remote_rail],
                    lkey: self.landing_keys[rail],
                    signaled,
                });
            } else {
                let (offset, len) = page.chunk(record.chunk, shift);
                page.next = page.next.max(record.chunk + 1);
                let (local_addr, local) = page.local();
                let (wr_id, signaled) = run.count(record, len, last);
                post.read(Read {
                    wr_id,
                    remote_addr: page.remote + offset,
                    local_addr: local_addr + offset,
                    len,
                    rkey: remote.keys[remote_rail],
                    lkey: locals[local].keys[rail],
                    signaled,
                });
            }
        }
        let commit = post.commit();
        self.posted(lane, run, commit, now)
    }

    /// Accounts for a commit.
    #[inline]
    fn posted(&mut self, lane: usize, run: Run, commit: Commit, now: Time) -> u64 {
        let l = &mut self.lanes[lane];
        if l.head == l.tail {
            l.since = now;
        }
        let n = run.seq.wrapping_sub(l.head);
        let bytes = u64::from(run.posted.wrapping_sub(l.bytes_posted));
        l.head = run.seq;
        l.bytes_posted = run.posted;
        let index = usize::from(l.rail);
        let rail = &mut self.rails[index];
        rail.wrs += n;
        rail.bytes += bytes;
        rail.stats.posted += u64::from(n);
        rail.stats.commits += 1;
        self.refresh_room(index);
        if commit != Commit::All {
            // What was accepted is flushed with the rest; what was not is in the ring all the same,
            // and goes elsewhere when the lane is known to be quiet.
            self.rails[index].stats.path_faults += 1;
            self.kill(lane, now);
        }
        bytes
    }
}

/// Keys of the regions that the last page used: the next one mostly uses the same.
#[derive(Clone, Copy)]
struct Keys {
    of: u64,
    rkey: u32,
    lkey: u32,
}

impl Keys {
    const UNKNOWN: Self = Self { of: u64::MAX, rkey: 0, lkey: 0 };
}

/// What a commit changes of its lane, in registers while it is built.
#[derive(Clone, Copy)]
struct Run {
    id: LaneId,
    seq: u32,
    posted: u32,
    /// wrs and bytes until one must be signaled.
    wrs_left: u32,
    bytes_left: i64,
    signal_wrs: u32,
    signal_bytes: i64,
}

impl Run {
    #[inline]
    fn begin<L>(lane: &Lane<L>, config: &Config) -> Self {
        Self {
            id: lane.id,
            seq: lane.head,
            posted: lane.bytes_posted,
            // The commit before ended with a signaled wr.
            wrs_left: config.signal_wrs,
            bytes_left: i64::from(config.signal_bytes),
            signal_wrs: config.signal_wrs,
            signal_bytes: i64::from(config.signal_bytes),
        }
    }

    /// Counts one wr: its name, and whether it is signaled (the last of a commit, and at the latest
    /// every so many wrs or bytes).
    #[inline]
    fn count(&mut self, record: &mut Record, len: u32, last: bool) -> (WrId, bool) {
        let wr_id = WrId::new(self.id, self.seq);
        self.seq = self.seq.wrapping_add(1);
        self.posted = self.posted.wrapping_add(len);
        record.bytes = self.posted;
        self.wrs_left = self.wrs_left.saturating_sub(1);
        self.bytes_left -= i64::from(len);
        let signaled = last || self.wrs_left == 0 || self.bytes_left <= 0;
        if signaled {
            (self.wrs_left, self.bytes_left) = (self.signal_wrs, self.signal_bytes);
        }
        (wr_id, signaled)
    }
}
