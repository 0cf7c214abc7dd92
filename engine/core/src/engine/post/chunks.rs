//! Runs of chunks that are not uniform: parts of large pages, pages by plans, pages of several
//! segments.
#![allow(unsafe_code, reason = "posting lets the hardware write into memory")]

use kvrail_layouts::plan::Cursor;

use super::super::state::Engine;
use super::Signals;
use super::uniform::add_reads;
use crate::events::EventSink;
use crate::id::WrId;
use crate::lane::record::{Record, Run, VALIDATE, place};
use crate::limits::{MAX_SGES, narrow};
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::plan::Plans;
use crate::provider::{Piece, Post, Provider, Read};
use crate::table::{ENTRY_BYTES, Entry};
use crate::time::Time;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Writes the next unposted chunks of a peer's segments, from `segment` on, into the ring of
    /// `lane`: at most `limit` wrs, and so many that they reach `max_bytes`. Returns how many wrs
    /// there are.
    #[inline]
    pub(super) fn gather_fresh(
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
            if first.seg.is_uniform() {
                let len = first.len;
                let k =
                    self.gather_uniform(lane, head.wrapping_add(n), segment, limit - n, max_bytes - bytes);
                n += k;
                bytes += u64::from(k) * u64::from(len);
                seg_done += narrow(k as usize);
            } else {
                while seg_done < seg_len {
                    let at = PageRef(segment.0 + u32::from(seg_done));
                    let shift = self.chunk_shift;
                    let page = self.pages.at(at);
                    let chunks = page.chunks(shift);
                    if page.next >= chunks {
                        // The page has failed, so none of its chunks is posted. Failed pages at the
                        // end of a segment are passed over at once: otherwise the segment would
                        // wait with nothing to post, and its batch could be done before.
                        seg_done += 1;
                        continue;
                    }
                    if n >= limit || bytes >= max_bytes && n > 0 {
                        break;
                    }
                    let chunk = page.next;
                    let (len, equal) = match page.plan() {
                        None => page.equal_chunks(chunk, shift),
                        Some(plan) => self.plans.equal_wrs(plan, chunk),
                    };
                    // The run ends with the wr that reaches `max_bytes`.
                    let fit = max_bytes.saturating_sub(bytes).div_ceil(u64::from(len)).max(1);
                    let k = equal.min(limit - n).min(u32::try_from(fit).unwrap_or(u32::MAX));
                    // The count of a record is a u16.
                    let k = k.min(u16::MAX.into());
                    bytes += u64::from(k) * u64::from(len);
                    page.next += k;
                    let whole = page.next == chunks;
                    let record = self.lanes.record(lane, head.wrapping_add(n));
                    *record = Record { page: at, chunk, len, count: narrow(k as usize), run: Run::Chunks };
                    n += k;
                    seg_done += u16::from(whole);
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

    /// Encodes the `n` wrs whose records are in the ring from the lane's head on, and commits them.
    /// Returns how many bytes they read.
    #[inline]
    pub(in super::super) fn post(&mut self, lane: usize, n: u32, now: Time) -> u64 {
        let Self { provider, pages, plans, landing, config, .. } = self;
        let (locals, remotes) = (&*self.regions.locals, &*self.regions.remotes);
        let (lanes, records, depth) = (&mut *self.lanes.all, &*self.lanes.records, self.lanes.depth);
        let l = &mut lanes[lane];
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (rail, remote_rail) = (usize::from(l.rail), usize::from(l.remote_rail));
        let mut signals = Signals::new(config);
        let (mut bytes, mut i) = (0, 0);
        let (id, head) = (l.id, l.head);
        let mut walk = None;
        // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until the
        // page is done, or to the page's place in the landing area.
        let mut post = unsafe { provider.begin(handle) };
        while i < n {
            let Record { page: at, chunk, len, count, run } =
                records[place(lane, head.wrapping_add(i), depth)];
            let page = pages.at(at);
            let remote = &remotes[usize::from(page.source.region())];
            bytes += u64::from(count) * u64::from(len);
            let mut next = |remote_addr, local_addr, (rkey, lkey)| {
                let wr_id = WrId::new(id, head.wrapping_add(i));
                i += 1;
                let signaled = signals.next(len) || i == n;
                Read { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled }
            };
            if chunk == VALIDATE {
                let entries = landing.of(at, len / ENTRY_BYTES as u32);
                // The entry of an earlier page, which is still there, must not be taken for this
                // page's.
                entries.iter().for_each(Entry::clear);
                let remote_addr = remote.table + u64::from(page.entry) * ENTRY_BYTES;
                let local_addr = entries.as_ptr().expose_provenance() as u64;
                let keys = (remote.table_keys[remote_rail], landing.keys[rail]);
                post.read(next(remote_addr, local_addr, keys));
                continue;
            }
            let (base, local) = page.local();
            let keys = (remote.keys[remote_rail], locals[local].keys[rail]);
            if count > 1 && run != Run::Chunks {
                let pages = pages.slice(at, count.into());
                add_reads(&mut post, pages, |ends| next(ends.remote_addr, ends.local_addr, keys));
                continue;
            }
            let chunks = chunk..chunk + u32::from(count);
            if let Some(plan) = page.plan() {
                let walk = Walk::resume(&mut walk, plans, plan, (at, chunk), base);
                let mut left = u32::from(count);
                while left > 0 {
                    let Some(row) = walk.cursor.row(left) else {
                        walk.post(&mut post, page.remote, next(0, 0, keys));
                        left -= 1;
                        continue;
                    };
                    left -= row.count;
                    walk.chunk += row.count;
                    let (mut from, mut to) = (row.source, row.destination);
                    for _ in 0..row.count {
                        post.read(next(page.remote + u64::from(from), walk.base + u64::from(to), keys));
                        from = from.wrapping_add(row.source_step);
                        to = to.wrapping_add(row.destination_step);
                    }
                }
            } else {
                for chunk in chunks {
                    let offset = u64::from(chunk) << self.chunk_shift;
                    post.read(next(page.remote + offset, base + offset, keys));
                }
            }
        }
        let commit = post.commit();
        self.posted(lane, n, bytes, commit, now)
    }
}

/// How far the walk over a plan's work requests has come: the page, its next chunk, and the address
/// at which the plan begins to write.
struct Walk<'p> {
    page: PageRef,
    chunk: u32,
    base: u64,
    cursor: Cursor<'p>,
    pieces: [Piece; MAX_SGES as usize],
}

impl<'p> Walk<'p> {
    /// A walk from this chunk of a page on, whose slot is at address `slot`. If `walk` is there
    /// already it goes on, so that consecutive chunks are found without a division.
    #[inline]
    fn resume<'w>(
        walk: &'w mut Option<Self>,
        plans: &'p Plans<'_>,
        plan: u16,
        (page, chunk): (PageRef, u32),
        slot: u64,
    ) -> &'w mut Self {
        if walk.as_ref().is_none_or(|walk| walk.page != page || walk.chunk != chunk) {
            *walk = None;
        }
        walk.get_or_insert_with(|| {
            let (cursor, base) = plans.walk(plan, chunk);
            Self { page, chunk, base: slot + u64::from(base), cursor, pieces: [Piece::default(); _] }
        })
    }

    /// Adds the next wr to a commit. `read` has all fields but the addresses; the page begins at
    /// `remote` in the peer's memory.
    #[inline]
    fn post(&mut self, post: &mut impl Post, remote: u64, read: Read) {
        self.chunk += 1;
        let Self { base, pieces, cursor, .. } = self;
        let (mut n, mut first) = (0, 0);
        let wr = cursor.next(|offset, len| {
            let addr = *base + u64::from(offset);
            first = if n == 0 { addr } else { first };
            // A plan is cut so that no wr has more than MAX_SGES pieces.
            pieces[n % MAX_SGES as usize] = Piece { addr, len };
            n += 1;
        });
        debug_assert_eq!(
            wr.map(|wr| wr.len),
            Some(read.len),
            "the length of a chunk is that of its work request in the plan"
        );
        let offset = wr.map_or(0, |wr| u64::from(wr.source));
        let read = Read { remote_addr: remote + offset, local_addr: first, ..read };
        match n {
            0 | 1 => post.read(read),
            _ => post.scatter(read, &pieces[..n]),
        }
    }
}
