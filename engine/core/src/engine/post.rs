//! A run of chunks becomes one commit.
//!
//! The run is first written into the lane's ring, which is where its records belong anyway, and then
//! encoded from there: so its length, and with it which wr is the last and signaled, is known before
//! the first descriptor is handed over.
#![allow(unsafe_code, reason = "here memory is handed to the hardware")]

use kvrail_layouts::plan::Cursor;

use super::Engine;
use super::pump::Work;
use crate::config::Config;
use crate::id::WrId;
use crate::lane::{Lane, Record, Run, place};
use crate::page::{Link, Page, PageRef, PageTable, VALIDATE};
use crate::plan::{MAX_SGES, Plans};
use crate::provider::{Commit, Piece, Post, Provider, Read};
use crate::rail::Rail;
use crate::table::{ENTRY_BYTES, Entry};
use crate::time::Time;

/// Validating READs in one commit. They are small, so what counts is that they go where there is room now:
/// in runs of 16 a model whose eighth rail is slow carries 364 of 367 GB/s, in runs of 8 all of it (tests/model.rs).
const VALIDATING: u32 = 8;
/// Entries that one READ has at most: 1 KiB of them, a packet where the MTU is 1024 or more, and little enough for a rail
/// that copies to do it with ordinary stores (engine/local).
const ROW: u32 = 64;

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
        let chunks = chunks.min(P::CHAIN as u32).min(l.room()).min(rail.wrs_cap - rail.wrs);
        let bytes = rail.bytes_cap - rail.bytes;
        let most = if alone { self.config.quantum_bytes } else { self.config.run_bytes };
        let bytes = bytes.min(u64::from(most));
        let n = match work {
            Work::Validate => return self.post_validating(lane, chunks.min(VALIDATING), now).max(1),
            Work::Again(from) => self.gather_again(lane, usize::from(from), chunks, bytes),
            Work::Fresh(segment) => self.gather_fresh(lane, segment, class, chunks, bytes, now),
        };
        if n == 0 { 1 } else { self.post(lane, n, now).max(1) }
    }

    /// Takes wrs over from the dead lane `from`, all but the one that killed it.
    #[cold]
    fn gather_again(&mut self, lane: usize, from: usize, limit: u32, max_bytes: u64) -> u32 {
        let head = self.lanes[lane].head;
        let (mut n, mut bytes) = (0, 0);
        let suspect = u32::from(self.lanes[from].suspect);
        while n < limit && bytes < max_bytes && self.lanes[from].outstanding() > suspect {
            let seq = self.lanes[from].tail;
            self.lanes[from].tail = seq.wrapping_add(1);
            let old = *self.record(from, seq);
            if self.is_dead(old) {
                self.drop_wr(old);
                continue;
            }
            bytes += u64::from(old.len);
            *self.record(lane, head.wrapping_add(n)) = old;
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
            if first.seg.is_plain() {
                // One chunk a page, and none of them posted or failed: no need to look at each.
                let each = u64::from(first.len);
                let fit = u32::try_from((max_bytes - bytes) / each).unwrap_or(u32::MAX).max(1);
                let k = u32::from(seg_len - seg_done).min(limit - n).min(fit);
                let (page, len) = (segment.0 + u32::from(seg_done), first.len);
                for i in 0..k {
                    let record = self.record(lane, head.wrapping_add(n + i));
                    *record = Record::one(PageRef(page + i), 0, len);
                }
                n += k;
                bytes += u64::from(k) * each;
                // k <= seg_len - seg_done, a u16.
                seg_done += k as u16;
            } else {
                while seg_done < seg_len {
                    let at = PageRef(segment.0 + u32::from(seg_done));
                    let shift = self.chunk_shift;
                    let page = self.pages.at(at);
                    let chunks = page.chunks(shift);
                    if page.next >= chunks {
                        // Failed before: nothing of it is going to be posted. Those at the end are
                        // passed over at once, or the segment would wait for nothing, and its batch
                        // could be done before.
                        seg_done += 1;
                        continue;
                    }
                    if n >= limit || bytes >= max_bytes && n > 0 {
                        break;
                    }
                    let chunk = page.next;
                    let (len, alike) = match page.plan() {
                        None => page.alike(chunk, shift),
                        Some(plan) => self.plans.alike(plan, chunk),
                    };
                    // The run ends with the wr that reaches its bytes.
                    let fit = max_bytes.saturating_sub(bytes).div_ceil(u64::from(len)).max(1);
                    let k = alike.min(limit - n).min(u32::try_from(fit).unwrap_or(u32::MAX));
                    // A record counts no further.
                    let k = k.min(u16::MAX.into());
                    bytes += u64::from(k) * u64::from(len);
                    page.next += k;
                    let whole = page.next == chunks;
                    let record = self.record(lane, head.wrapping_add(n));
                    *record = Record { page: at, chunk, len, count: k as u16, run: Run::Chunks };
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

    /// Posts at most `limit` validating READs of the lane's peer. One READ has the entries of pages in a row whose
    /// entries stand in a row, too, as those of pages that were published together do.
    #[inline(never)]
    fn post_validating(&mut self, lane: usize, limit: u32, now: Time) -> u64 {
        let Self { provider, lanes, records, peers, pages, remotes, landing, config, depth, .. } = self;
        let l = &mut lanes[lane];
        let peer = &mut peers[usize::from(l.peer)];
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (id, head, remote_rail) = (l.id, l.head, usize::from(l.remote_rail));
        let lkey = self.landing_keys[usize::from(l.rail)];
        let mut signals = Signals::new(config);
        // The READ before: whether it is the last, and signaled, is known when there is none behind it.
        let mut before: Option<Read> = None;
        let (mut n, mut bytes) = (0, 0);
        // SAFETY: every READ goes to the places of its pages in the landing area, which nobody looks at before it
        // has completed.
        let mut post = unsafe { provider.begin(handle) };
        while let Some(mut at) = if n < limit { peer.validate.first() } else { None } {
            peer.validate.remove(pages, at);
            let first = pages.at(at);
            let (batch, remote) = (first.batch, &remotes[usize::from(first.source.region())]);
            let rkey = remote.table_keys[remote_rail];
            let end = pages.first(batch).0 + u32::from(pages.head(batch).len);
            // The record of the READ before, if that has one entry of this batch, and its page.
            let mut single: Option<(usize, PageRef)> = None;
            loop {
                let row = take_row(pages.slice(at, (end - at.0).min(ROW)));
                let entries = &landing[at.0 as usize..][..row.pages as usize];
                // Whatever earlier pages left there must not pass for these.
                entries.iter().for_each(Entry::clear);
                let len = row.pages * ENTRY_BYTES as u32;
                bytes += u64::from(len);
                let read = Read {
                    wr_id: WrId::new(id, head.wrapping_add(n)),
                    remote_addr: remote.table + u64::from(row.entry) * ENTRY_BYTES,
                    local_addr: entries.as_ptr().expose_provenance() as u64,
                    len,
                    rkey,
                    lkey,
                    signaled: false,
                };
                if let Some(read) = before.replace(read) {
                    post.read(Read { signaled: signals.next(read.len), ..read });
                }
                match single {
                    Some((record, page)) if row.pages == 1 && page.0 + 1 == at.0 => {
                        records[record].count += 1;
                        single = Some((record, at));
                    }
                    _ => {
                        let place = place(lane, head.wrapping_add(n), *depth);
                        records[place] =
                            Record { page: at, chunk: VALIDATE, len, count: 1, run: Run::Validating };
                        single = (row.pages == 1).then_some((place, at));
                    }
                }
                n += 1;
                at.0 += row.pages;
                if at.0 == end || !pages.at(at).validate.is_behind() {
                    break;
                }
                if n == limit {
                    pages.at(at).validate = Link::OUT;
                    peer.validate.push_back(pages, at);
                    break;
                }
            }
        }
        if let Some(read) = before {
            post.read(Read { signaled: true, ..read });
        }
        let commit = post.commit();
        self.posted(lane, n, bytes, commit, now)
    }

    /// Encodes and commits the `n` wrs of the records from the lane's head on. Says how many bytes they are.
    #[inline]
    pub(super) fn post(&mut self, lane: usize, n: u32, now: Time) -> u64 {
        let Self { provider, lanes, records, pages, plans, locals, remotes, landing, config, depth, .. } =
            self;
        let l = &mut lanes[lane];
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (rail, remote_rail) = (usize::from(l.rail), usize::from(l.remote_rail));
        let mut signals = Signals::new(config);
        let (mut bytes, mut i) = (0, 0);
        let (id, head) = (l.id, l.head);
        let mut walk = None;
        // SAFETY: every READ goes to a slot of a page in flight, which the engine owns until the page is
        // done, or to the page's place in the landing area.
        let mut post = unsafe { provider.begin(handle) };
        while i < n {
            let Record { page: at, chunk, len, count, .. } =
                records[place(lane, head.wrapping_add(i), *depth)];
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
                let entries = &landing[at.0 as usize..][..len as usize / ENTRY_BYTES as usize];
                // Whatever earlier pages left there must not pass for these.
                entries.iter().for_each(Entry::clear);
                let remote_addr = remote.table + u64::from(page.entry) * ENTRY_BYTES;
                let local_addr = entries.as_ptr().expose_provenance() as u64;
                let keys = (remote.table_keys[remote_rail], self.landing_keys[rail]);
                post.read(next(remote_addr, local_addr, keys));
                continue;
            }
            let chunks = chunk..chunk + u32::from(count);
            page.next = page.next.max(chunks.end);
            let (base, local) = page.local();
            let keys = (remote.keys[remote_rail], locals[local].keys[rail]);
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

    /// Accounts for a commit of `n` wrs, and says again how many bytes they are.
    #[inline]
    fn posted(&mut self, lane: usize, n: u32, bytes: u64, commit: Commit, now: Time) -> u64 {
        let l = &mut self.lanes[lane];
        let index = usize::from(l.rail);
        account(l, &mut self.rails[index], n, bytes, now);
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

/// Pages in a row whose entries are in a row.
struct Row {
    /// The first page's.
    entry: u32,
    pages: u32,
}

/// The longest row at the beginning of `pages`, of those that stand behind the first to be validated with it; they do
/// no longer.
#[inline]
fn take_row(pages: &mut [Page]) -> Row {
    let Some((first, behind)) = pages.split_first_mut() else { return Row { entry: 0, pages: 0 } };
    first.validate = Link::OUT;
    let entry = first.entry;
    let mut count = 1;
    for page in behind {
        if !page.validate.is_behind() || page.entry != entry.wrapping_add(count) {
            break;
        }
        page.validate = Link::OUT;
        count += 1;
    }
    Row { entry, pages: count }
}

/// Accounts for a commit of `n` wrs on a lane of `rail`.
#[inline]
pub(super) fn account<L>(lane: &mut Lane<L>, rail: &mut Rail, n: u32, bytes: u64, now: Time) {
    if lane.head == lane.tail {
        lane.since = now;
    }
    lane.head = lane.head.wrapping_add(n);
    lane.bytes += bytes;
    rail.post(n, bytes);
}

/// Where the walk over a plan stands: the page, its next chunk, the plan's place in the slot.
struct Walk<'p> {
    page: PageRef,
    chunk: u32,
    base: u64,
    cursor: Cursor<'p>,
    pieces: [Piece; MAX_SGES as usize],
}

impl<'p> Walk<'p> {
    /// From this chunk of a page on, whose slot is at `slot`. A walk that stands there goes on: chunks that follow
    /// each other are found without a division.
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

    /// Adds the next wr to a commit. `read` has all but where; the page's bytes begin at `remote`.
    #[inline]
    fn post(&mut self, post: &mut impl Post, remote: u64, read: Read) {
        self.chunk += 1;
        let Self { base, pieces, cursor, .. } = self;
        let (mut n, mut first) = (0, 0);
        let wr = cursor.next(|offset, len| {
            let addr = *base + u64::from(offset);
            first = if n == 0 { addr } else { first };
            // A plan is cut so that no wr has more.
            pieces[n % MAX_SGES as usize] = Piece { addr, len };
            n += 1;
        });
        debug_assert_eq!(wr.map(|wr| wr.len), Some(read.len), "a chunk is a work request of its plan");
        let offset = wr.map_or(0, |wr| u64::from(wr.source));
        let read = Read { remote_addr: remote + offset, local_addr: first, ..read };
        match n {
            0 | 1 => post.read(read),
            _ => post.scatter(read, &pieces[..n]),
        }
    }
}

/// Which wrs of a commit are signaled besides the last: one every so many wrs or bytes. The commit before
/// ended with one.
struct Signals {
    wrs: u32,
    bytes: u64,
    every: (u32, u64),
}

impl Signals {
    #[inline]
    fn new(config: &Config) -> Self {
        let every = (config.signal_wrs, u64::from(config.signal_bytes));
        Self { wrs: 0, bytes: 0, every }
    }

    /// Counts a wr of `len` bytes.
    #[inline]
    fn next(&mut self, len: u32) -> bool {
        (self.wrs, self.bytes) = (self.wrs + 1, self.bytes + u64::from(len));
        let signaled = self.wrs >= self.every.0 || self.bytes >= self.every.1;
        if signaled {
            (self.wrs, self.bytes) = (0, 0);
        }
        signaled
    }
}
