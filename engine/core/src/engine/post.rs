//! A run of chunks becomes one commit.
//!
//! The run is first written into the lane's ring, which is where its records belong anyway, and then
//! encoded from there: so its length, and with it which wr is the last and signaled, is known before
//! the first descriptor is handed over.

use super::Engine;
use super::pump::Work;
use crate::id::WrId;
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
        let alone = self.peers[usize::from(l.peer)].lanes_up == 1;
        let chunks = if alone { u32::MAX } else { self.config.run_chunks };
        let chunks = chunks.min(P::CHAIN as u32).min(l.room()).min(self.config.rail_wrs - rail.wrs);
        let bytes = self.config.rail_bytes - rail.bytes;
        let bytes = if alone { bytes } else { bytes.min(u64::from(self.config.run_bytes)) };
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
                    if page.next < page.chunks {
                        let chunk = page.next;
                        bytes += u64::from(page.chunk(chunk, shift).1);
                        page.next += 1;
                        let whole = page.next == page.chunks;
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

    /// Encodes and commits the `n` records from the lane's head on. Says how many bytes they are.
    #[inline]
    fn post(&mut self, lane: usize, n: u32, now: Time) -> u64 {
        let Self { provider, lanes, records, pages, locals, remotes, rails, landing, config, .. } = self;
        let ring = &mut records[lane * self.depth as usize..][..self.depth as usize];
        let l = &mut lanes[lane];
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (id, rail, remote_rail) = (l.id, usize::from(l.rail), usize::from(l.remote_rail));
        let (shift, mask) = (self.chunk_shift, self.depth - 1);
        let (mut quiet_wrs, mut quiet_bytes) = (l.quiet_wrs, l.quiet_bytes);
        let (head, posted_before) = (l.head, l.bytes_posted);
        let mut posted = posted_before;

        let mut post = provider.begin(handle);
        for i in 0..n {
            let seq = head.wrapping_add(i);
            let record = &mut ring[(seq & mask) as usize];
            let page = pages.at(PageRef(record.page));
            let wr_id = WrId::new(id, seq);
            let mut read = if record.chunk == VALIDATE {
                let entry = &landing[record.page as usize];
                // Whatever an earlier page left there must not pass for this one's entry.
                entry.clear();
                let remote = &remotes[usize::from(page.region)];
                Read {
                    wr_id,
                    remote_addr: remote.table + u64::from(page.entry) * ENTRY_BYTES,
                    local_addr: core::ptr::from_ref::<Entry>(entry).expose_provenance() as u64,
                    len: ENTRY_BYTES as u32,
                    rkey: remote.table_keys[remote_rail],
                    lkey: self.landing_keys[rail],
                    signaled: false,
                }
            } else {
                let (offset, len) = page.chunk(record.chunk, shift);
                page.next = page.next.max(record.chunk + 1);
                Read {
                    wr_id,
                    remote_addr: page.remote + offset,
                    local_addr: page.local + offset,
                    len,
                    rkey: remotes[usize::from(page.region)].keys[remote_rail],
                    lkey: locals[usize::from(page.local_region)].keys[rail],
                    signaled: false,
                }
            };
            posted = posted.wrapping_add(read.len);
            record.bytes = posted;
            quiet_wrs += 1;
            quiet_bytes = quiet_bytes.saturating_add(read.len);
            if i + 1 == n || quiet_wrs >= config.signal_wrs || quiet_bytes >= config.signal_bytes {
                read.signaled = true;
                (quiet_wrs, quiet_bytes) = (0, 0);
            }
            post.read(read);
        }
        let commit = post.commit();

        if l.head == l.tail {
            l.since = now;
        }
        l.head = head.wrapping_add(n);
        l.bytes_posted = posted;
        (l.quiet_wrs, l.quiet_bytes) = (quiet_wrs, quiet_bytes);
        let bytes = u64::from(posted.wrapping_sub(posted_before));
        let rail = &mut rails[rail];
        rail.wrs += n;
        rail.bytes += bytes;
        rail.stats.posted += u64::from(n);
        rail.stats.commits += 1;
        let full = rail.wrs >= config.rail_wrs || rail.bytes >= config.rail_bytes;
        self.room &= !(u16::from(full) << l.rail);
        if commit != Commit::All {
            // What was accepted is flushed with the rest; what was not is in the ring all the same,
            // and goes elsewhere when the lane is known to be quiet.
            self.rails[usize::from(self.lanes[lane].rail)].stats.path_faults += 1;
            self.kill(lane, now);
        }
        bytes
    }
}
