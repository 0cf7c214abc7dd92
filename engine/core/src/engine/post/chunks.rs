//! Runs of chunks that are not uniform: parts of large pages, pages by plans or of several regions,
//! pages of several segments.
//!
//! Consecutive pages of one pool with several regions (K and V, or a region a layer) are posted
//! together where a run holds all READs of two or more of them: first the first region of each,
//! then the second of each, and so on. So the READs that follow each other differ only in their
//! addresses, and the ring has a record for each region instead of one for each page.
#![allow(unsafe_code, reason = "posting lets the hardware write into memory")]

use super::super::state::Engine;
use super::Signals;
use super::uniform::add_reads;
use crate::events::EventSink;
use crate::id::WrId;
use crate::lane::record::{Record, Run, VALIDATE, place};
use crate::limits::{MAX_RAILS, MAX_SGES, narrow};
use crate::page::list::PageRef;
use crate::page::{Page, PageTable};
use crate::plan::{Pair, Plans, Walk};
use crate::provider::{KeyedEnds, KeyedReads, Piece, Post, Provider, Read};
use crate::regions::{LocalPiece, LocalPlace, RemotePlace};
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
                        seg_done += 1;
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

    /// Writes whole pages of several regions, from `at` on, into the ring of `lane`, as its wrs from
    /// `seq` on: as many as fit into what is `left`, of the segment, of the wrs of the run and of
    /// its bytes, and none if fewer than two do or the first has been begun. The READs of all pages
    /// from one region into one follow each other, with a record for each pair of regions. Returns
    /// how many pages there are, how many wrs each has, and the bytes of each wr.
    #[inline]
    fn gather_pairs(
        &mut self,
        lane: usize,
        seq: u32,
        at: PageRef,
        (pages, limit, max_bytes): (u32, u32, u64),
        run: Run,
    ) -> (u32, u32, u32) {
        let first = self.pages.at(at);
        let plan = if first.next == 0 { first.plan() } else { None };
        let Some((len, wrs)) = plan.and_then(|plan| self.plans.plain(plan)) else { return (0, 0, 0) };
        // A page has at most 2^32 bytes.
        let n = pages.min(limit / wrs).min((max_bytes / (u64::from(len) * u64::from(wrs))) as u32);
        if n < 2 {
            return (0, 0, 0);
        }
        for page in self.pages.slice(at, n) {
            debug_assert!(
                page.next == 0 && page.left == wrs && page.plan() == plan && !page.is_retired(),
                "pages that are alike and of which nothing was posted"
            );
            page.next = wrs;
        }
        for chunk in 0..wrs {
            let record = Record { page: at, chunk, len, count: narrow(n as usize), run };
            *self.lanes.record(lane, seq.wrapping_add(chunk * n)) = record;
        }
        (n, wrs, len)
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

/// Work requests of one page that are alike: one for each of consecutive pairs of regions.
struct RowOfPairs<'e> {
    first: Pair,
    step: Pair,
    /// The places of the page's regions; none if it has one.
    remotes: &'e [RemotePlace],
    /// The pieces of the slot; none if it has one.
    pieces: &'e [LocalPiece],
    /// The keys of a page and of a slot of one region.
    keys: (u32, u32),
    /// The local rail and the remote one.
    rails: (usize, usize),
    /// The page's address, or the number of its slot if it has several regions.
    page: u64,
    /// The slot's address and number.
    slot: (u64, u32),
    /// Bytes of each.
    len: u32,
}

/// The READs of several pages that are alike, from the same of their regions into the same of their
/// slots'.
struct Column<'e> {
    pair: Pair,
    place: &'e RemotePlace,
    piece: &'e LocalPiece,
    /// The local rail and the remote one.
    rails: (usize, usize),
    /// Bytes of each.
    len: u32,
}

impl Column<'_> {
    /// Adds the READs of `pages` to a commit, which comes back; the first is `wr_id`. `last`: they
    /// end the commit.
    fn post<C: Post>(&self, post: C, pages: &[Page], wr_id: WrId, signals: &mut Signals, last: bool) -> C {
        let Self { pair, place, piece, rails: (rail, remote_rail), len } = *self;
        let (rkey, lkey) = (place.keys[remote_rail % MAX_RAILS], piece.keys[rail % MAX_RAILS]);
        let (source, destination) = (u64::from(pair.source), u64::from(pair.destination));
        let (base, stride) = (place.page(0).wrapping_add(source), place.stride);
        let (first, apart) = (piece.slot(0).wrapping_add(destination), piece.stride);
        let ends = move |at: usize, n: usize| {
            part(pages, at, n).iter().map(move |page| KeyedEnds {
                remote_addr: base.wrapping_add(stride.wrapping_mul(page.remote)),
                rkey,
                local_addr: first.wrapping_add(apart.wrapping_mul(page.piece_index().into())),
                lkey,
            })
        };
        // A segment has fewer than 2^16 pages.
        Alike { wr_id, count: pages.len() as u32, len, last }.post(post, ends, signals)
    }
}

/// From this many READs on, a row of pairs is posted by a loop of its own.
const LONG_ROW: u32 = 8;

impl RowOfPairs<'_> {
    /// Where the READ of a pair begins on both sides, and the keys there.
    #[inline]
    fn ends(&self, pair: Pair) -> KeyedEnds {
        let (from, rkey) = match self.remotes.get(usize::from(pair.from)) {
            Some(place) => (place.page(self.page), place.keys[self.rails.1]),
            None => (self.page, self.keys.0),
        };
        let (to, lkey) = match self.pieces.get(usize::from(pair.to)) {
            Some(piece) => (piece.slot(self.slot.1), piece.keys[self.rails.0]),
            None => (self.slot.0, self.keys.1),
        };
        KeyedEnds {
            remote_addr: from.wrapping_add(pair.source.into()),
            rkey,
            local_addr: to.wrapping_add(pair.destination.into()),
            lkey,
        }
    }

    /// Adds `count` READs to a commit, which comes back; the first is `wr_id`. `last`: they end the
    /// commit.
    fn post<C: Post>(&self, post: C, wr_id: WrId, count: u32, signals: &mut Signals, last: bool) -> C {
        let Self { first, step, remotes, pieces, page, slot, keys, .. } = *self;
        // Numbers of rails are below MAX_RAILS, as the compiler does not know.
        let (rail, remote_rail) = (self.rails.0 % MAX_RAILS, self.rails.1 % MAX_RAILS);
        let n = count as usize;
        let all = Alike { wr_id, count, len: self.len, last };
        let remotes_from = remotes.get(usize::from(first.from)..).unwrap_or(&[]);
        let pieces_from = pieces.get(usize::from(first.to)..).unwrap_or(&[]);
        let at_start = (first.source, first.destination, step.source, step.destination) == (0, 0, 0, 0);
        if (step.from, step.to) == (1, 1) && at_start && remotes_from.len() >= n && pieces_from.len() >= n {
            // Each region of a page lands in the same one of a slot. The closures have values, so
            // that the loop keeps these in registers.
            let (_, index) = slot;
            let ends = move |at: usize, n: usize| {
                let (remotes, pieces) = (part(remotes_from, at, n), part(pieces_from, at, n));
                let both = remotes.iter().zip(pieces);
                both.map(move |(place, piece)| KeyedEnds {
                    remote_addr: place.page(page),
                    rkey: place.keys[remote_rail],
                    local_addr: piece.slot(index),
                    lkey: piece.keys[rail],
                })
            };
            return all.post(post, ends, signals);
        }
        if (step.from, step.source) == (1, 0) && remotes_from.len() >= n && pieces.is_empty() {
            // The regions of a page land in a slot of one.
            let ends = move |at: usize, n: usize| {
                // A row has fewer than 2^32 READs.
                let mut to = first.destination.wrapping_add(step.destination.wrapping_mul(at as u32));
                part(remotes_from, at, n).iter().map(move |place| {
                    let local_addr = slot.0.wrapping_add(to.into());
                    to = to.wrapping_add(step.destination);
                    let remote_addr = place.page(page).wrapping_add(first.source.into());
                    KeyedEnds { remote_addr, rkey: place.keys[remote_rail], local_addr, lkey: keys.1 }
                })
            };
            return all.post(post, ends, signals);
        }
        let ends = |at: usize, n: usize| {
            let mut pair = first.plus(step.times(at as u32));
            core::iter::repeat_with(move || {
                let ends = self.ends(pair);
                pair = pair.plus(step);
                ends
            })
            .take(n)
        };
        all.post(post, ends, signals)
    }
}

/// The `n` items from number `at` on, which are there.
#[inline]
fn part<T>(all: &[T], at: usize, n: usize) -> &[T] {
    let part = all.get(at..at + n);
    debug_assert!(part.is_some(), "a row of pairs has a place for each");
    part.unwrap_or(&[])
}

/// Consecutive READs of one length.
#[derive(Clone, Copy)]
struct Alike {
    /// The first.
    wr_id: WrId,
    count: u32,
    len: u32,
    /// They end their commit.
    last: bool,
}

impl Alike {
    /// Adds the READs to a commit, which comes back. `ends` gives those of so many READs from a
    /// number on.
    // Not inlined, and the commit a value, so that its loop has all registers.
    #[inline(never)]
    fn post<C: Post, I: Iterator<Item = KeyedEnds>>(
        self,
        mut post: C,
        ends: impl Fn(usize, usize) -> I,
        signals: &mut Signals,
    ) -> C {
        let Self { mut wr_id, count, len, last } = self;
        let (every, mut until) = (signals.every_of(len), signals.until_next(len));
        let mut left = count;
        while left > 0 {
            // All but the last of these are unsignaled.
            let n = left.min(until);
            let done = (count - left) as usize;
            (left, until) = (left - n, until - n);
            let signaled = until == 0 || left == 0 && last;
            post.read_keyed(KeyedReads { wr_id, len, count: n, signaled }, ends(done, n as usize));
            wr_id = wr_id.nth(n);
            until = if until == 0 { every } else { until };
        }
        signals.count_behind(until, len);
        post
    }
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
