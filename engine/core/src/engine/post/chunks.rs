//! Runs of chunks that are not uniform: parts of large pages, rows of pages, pages by plans or of
//! several regions, pages of several segments.
//!
//! Consecutive pages of one pool with several regions (K and V, or a region a layer) are posted
//! together where a run holds all READs of two or more of them: first the first region of each,
//! then the second of each, and so on. So the READs that follow each other differ only in their
//! addresses, and the ring has a record for each region instead of one for each page.
#![allow(unsafe_code, reason = "posting lets the hardware write into memory")]

use super::super::state::Engine;
use super::Signals;
use super::pairs::{Column, LONG_ROW, RowOfPairs};
use super::row_sets::SetWrs;
use super::uniform::add_reads;
use crate::batch::landing::Row;
use crate::events::EventSink;
use crate::id::WrId;
use crate::lane::record::{Record, Run, place};
use crate::limits::{MAX_SGES, narrow};
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::page::row_set::RowSet;
use crate::plan::{Pair, Plans, Walk};
use crate::provider::{KeyedEnds, Piece, Post, Provider, Read};
use crate::regions::{LocalPiece, LocalPlace};
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
                let pairs = first.seg.is_alike().then(|| first.seg.run_of_pairs());
                while seg_done < seg_len {
                    let at = PageRef(segment.0 + u32::from(seg_done));
                    if let Some(run) = pairs {
                        let left =
                            (u32::from(seg_len - seg_done), limit - n, max_bytes.saturating_sub(bytes));
                        let (count, wrs, len) = self.gather_pairs(lane, head.wrapping_add(n), at, left, run);
                        if count > 0 {
                            n += count * wrs;
                            bytes += u64::from(count * wrs) * u64::from(len);
                            seg_done += narrow(count as usize);
                            continue;
                        }
                    }
                    let shift = self.chunk_shift;
                    let page = self.pages.at(at);
                    let chunks = page.chunks(shift);
                    if page.next >= chunks {
                        // The page has failed, so none of its chunks is posted. Failed pages at the
                        // end of a segment are passed over at once: otherwise the segment would
                        // wait with nothing to post, and its batch could be done before.
                        seg_done += self.pages.set_len(at);
                        continue;
                    }
                    if n >= limit || bytes >= max_bytes && n > 0 {
                        break;
                    }
                    if pairs.is_some() && page.next == 0 && chunks > limit - n && n > limit / 2 {
                        // The page goes into the next run as a whole, so that it is one record.
                        self.pages.at(segment).seg_done = seg_done;
                        return n;
                    }
                    if page.begins_set() {
                        let left = (limit - n, max_bytes.saturating_sub(bytes));
                        let (k, more) = self.gather_set(lane, head.wrapping_add(n), at, left);
                        (n, bytes) = (n + k, bytes + more);
                        if self.pages.at(at).next == chunks {
                            seg_done += self.pages.set_len(at);
                        }
                        continue;
                    }
                    let chunk = page.next;
                    let (len, equal) = match page.plan() {
                        Some(plan) => self.plans.equal_wrs(plan, chunk),
                        None => match page.row_reads(chunk, shift) {
                            Some(rows) => rows.equal(),
                            None => page.equal_chunks(chunk, shift),
                        },
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
        let all_pieces = &*self.regions.pieces;
        let (lanes, records, depth) = (&mut *self.lanes.all, &*self.lanes.records, self.lanes.depth);
        let l = &mut lanes[lane];
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (rail, remote_rail) = (usize::from(l.rail), usize::from(l.remote_rail));
        let mut signals = Signals::new(config);
        let (mut bytes, mut i) = (0, 0);
        let (id, head) = (l.id, l.head);
        let mut walk = None;
        // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until the
        // page is done, or to the page's place in the landing area or to the waste area there.
        let mut post = unsafe { provider.begin(handle) };
        while i < n {
            let record = records[place(lane, head.wrapping_add(i), depth)];
            let Record { page: at, chunk, len, count, run } = record;
            let page = pages.at(at);
            let remote = &remotes[usize::from(page.source.region())];
            bytes += record.bytes();
            let mut next = |remote_addr, local_addr, (rkey, lkey)| {
                let wr_id = WrId::new(id, head.wrapping_add(i));
                i += 1;
                let signaled = signals.next(len) || i == n;
                Read { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled }
            };
            if record.is_validating() {
                let n = record.covers(1);
                let entries = landing.of(at, n);
                // The entry of an earlier page, which is still there, must not be taken for this
                // page's.
                entries.iter().for_each(Entry::clear);
                let remote_addr = remote.table + u64::from(page.entry) * ENTRY_BYTES;
                let local_addr = entries.as_ptr().expose_provenance() as u64;
                let keys = (remote.table_keys[remote_rail], landing.keys[rail]);
                let read = next(remote_addr, local_addr, keys);
                if len == n * ENTRY_BYTES as u32 {
                    post.read(read);
                } else {
                    let alone = Row { entry: page.entry, pages: 1, span: 1, pieces: 1 };
                    let behind = pages.slice(PageRef(at.0 + 1), n - 1).iter().map(|page| page.entry);
                    let row = landing.join(alone, at, behind, 0);
                    debug_assert!(row.pages == n && row.bytes() == len, "the READ that was posted before");
                    post.scatter(read, &landing.pieces[0][..row.pieces]);
                }
                continue;
            }
            let (base, local) = page.local();
            let keys = (remote.keys[remote_rail], locals[local].keys[rail]);
            if count > 1 && !matches!(run, Run::Chunks | Run::JoinedRows) {
                let plan = page.plan().and_then(|plan| plans.plain_pairs(plan, chunk));
                let region = usize::from(page.source.region());
                let pages = &*pages.slice(at, count.into());
                let Some((pair, _)) = plan else {
                    add_reads(&mut post, pages, |ends| next(ends.remote_addr, ends.local_addr, keys));
                    continue;
                };
                let wr_id = WrId::new(id, head.wrapping_add(i));
                i += u32::from(count);
                let (from, to) = (usize::from(pair.from), usize::from(pair.to));
                let column = Column {
                    pair,
                    place: &remotes[region + from],
                    piece: &pieces_of(&locals[local], all_pieces)[to],
                    rails: (rail, remote_rail),
                    len,
                };
                post = column.post(post, pages, wr_id, &mut signals, i == n);
                continue;
            }
            if page.begins_set() {
                let set = RowSet::of(pages.set(at), self.chunk_shift);
                let wrs = SetWrs { wr_id: WrId::new(id, head.wrapping_add(i)), chunk, count: count.into() };
                i += u32::from(count);
                wrs.post(&mut post, set, (base, keys), &mut signals, i == n);
                continue;
            }
            let chunks = chunk..chunk + u32::from(count);
            if let Some(plan) = page.plan() {
                let first = usize::from(page.source.region());
                let (remotes, gathers) = (&remotes[first..], plans.gathers(plan));
                let pieces = pieces_of(&locals[local], all_pieces);
                let index = page.piece_index();
                // Where the bytes of a pair of regions are, and the keys of both.
                let ends = |pair: Pair| {
                    let (mut addr, mut rkey) = (page.remote, keys.0);
                    if gathers {
                        let place = &remotes[usize::from(pair.from)];
                        (addr, rkey) = (place.page(page.remote), place.keys[remote_rail]);
                    }
                    match pieces.get(usize::from(pair.to)) {
                        Some(piece) => (addr, piece.slot(index), (rkey, piece.keys[rail])),
                        None => (addr, base, (rkey, keys.1)),
                    }
                };
                let mut left = u32::from(count);
                if let Some((first, step)) = plans.plain_pairs(plan, chunk) {
                    let row = RowOfPairs {
                        first,
                        step,
                        remotes: if gathers { remotes } else { &[] },
                        pieces,
                        keys,
                        rails: (rail, remote_rail),
                        page: page.remote,
                        slot: (base, index),
                        len,
                    };
                    if left < LONG_ROW {
                        let mut pair = first;
                        for _ in 0..left {
                            let KeyedEnds { remote_addr, rkey, local_addr, lkey } = row.ends(pair);
                            post.read(next(remote_addr, local_addr, (rkey, lkey)));
                            pair = pair.plus(step);
                        }
                    } else {
                        let wr_id = WrId::new(id, head.wrapping_add(i));
                        i += left;
                        post = row.post(post, wr_id, left, &mut signals, i == n);
                    }
                    continue;
                }
                let walk = PlanWalk::resume(&mut walk, plans, plan, (at, chunk));
                walk.chunk = chunks.end;
                while left > 0 {
                    if let Some(pairs) = walk.inner.plain_pairs(left) {
                        left -= pairs.count;
                        let mut pair = pairs.first;
                        for _ in 0..pairs.count {
                            let (from, to, keys) = ends(pair);
                            post.read(next(
                                from.wrapping_add(pair.source.into()),
                                to.wrapping_add(pair.destination.into()),
                                keys,
                            ));
                            pair = pair.plus(pairs.step);
                        }
                        continue;
                    }
                    let (remote, local, keys) = ends(walk.inner.pair());
                    let mut in_pair = left.min(walk.inner.left_in_pair());
                    left -= in_pair;
                    while in_pair > 0 {
                        let Some(row) = walk.inner.row(in_pair) else {
                            walk.post(&mut post, (remote, local), next(0, 0, keys));
                            in_pair -= 1;
                            continue;
                        };
                        in_pair -= row.count;
                        let (mut from, mut to) = (row.source, row.destination);
                        for _ in 0..row.count {
                            post.read(next(remote + u64::from(from), local + u64::from(to), keys));
                            from = from.wrapping_add(row.source_step);
                            to = to.wrapping_add(row.destination_step);
                        }
                    }
                }
            } else if let Some(mut rows) = page.row_reads(chunk, self.chunk_shift) {
                for _ in chunks {
                    let row = rows.next();
                    post.read(next(
                        page.remote + u64::from(row.source),
                        base + u64::from(row.destination),
                        keys,
                    ));
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

/// The pieces of a local region's slots; none if they are of one piece.
#[inline]
fn pieces_of<'r>(place: &LocalPlace, all: &'r [LocalPiece]) -> &'r [LocalPiece] {
    &all[usize::from(place.first_piece)..][..usize::from(place.pieces)]
}

/// How far the walk over a plan's work requests has come: the page, and its next chunk.
struct PlanWalk<'p> {
    page: PageRef,
    chunk: u32,
    inner: Walk<'p>,
    pieces: [Piece; MAX_SGES as usize],
}

impl<'p> PlanWalk<'p> {
    /// A walk from this chunk of a page on. If `walk` is there already it goes on, so that
    /// consecutive chunks are found without a division.
    #[inline]
    fn resume<'w>(
        walk: &'w mut Option<Self>,
        plans: &'p Plans<'_>,
        plan: u16,
        (page, chunk): (PageRef, u32),
    ) -> &'w mut Self {
        if walk.as_ref().is_none_or(|walk| walk.page != page || walk.chunk != chunk) {
            *walk = None;
        }
        walk.get_or_insert_with(|| {
            let inner = plans.walk(plan, chunk);
            Self { page, chunk, inner, pieces: [Piece::default(); _] }
        })
    }

    /// Adds the next wr to a commit. `read` has all fields but the addresses; the regions begin at
    /// `remote` in the peer's memory and at `local` in the slot's.
    #[inline]
    fn post(&mut self, post: &mut impl Post, (remote, local): (u64, u64), read: Read) {
        let Self { pieces, inner, .. } = self;
        let (mut n, mut first) = (0, 0);
        let wr = inner.next(|offset, len| {
            let addr = local + u64::from(offset);
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
