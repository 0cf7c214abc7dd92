//! READs between pairs of regions: consecutive pairs of one page, and the same pair of several
//! pages.

use super::super::state::Engine;
use super::Signals;
use crate::events::EventSink;
use crate::id::WrId;
use crate::lane::record::{Record, Run};
use crate::limits::{MAX_RAILS, narrow};
use crate::page::list::PageRef;
use crate::page::{Page, PageTable};
use crate::plan::Pair;
use crate::provider::{KeyedEnds, KeyedReads, Post, Provider};
use crate::regions::{LocalPiece, RemotePlace};

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Writes whole pages of several regions, from `at` on, into the ring of `lane`, as its wrs
    /// from `seq` on: as many as fit into what is `left`, of the segment, of the wrs of the run
    /// and of
    /// its bytes, and none if fewer than two do or the first has been begun. The READs of all pages
    /// from one region into one follow each other, with a record for each pair of regions. Returns
    /// how many pages there are, how many wrs each has, and the bytes of each wr.
    #[inline]
    pub(super) fn gather_pairs(
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
}

/// Work requests of one page that are alike: one for each of consecutive pairs of regions.
pub(super) struct RowOfPairs<'e> {
    pub(super) first: Pair,
    pub(super) step: Pair,
    /// The places of the page's regions; none if it has one.
    pub(super) remotes: &'e [RemotePlace],
    /// The pieces of the slot; none if it has one.
    pub(super) pieces: &'e [LocalPiece],
    /// The keys of a page and of a slot of one region.
    pub(super) keys: (u32, u32),
    /// The local rail and the remote one.
    pub(super) rails: (usize, usize),
    /// The page's address, or the number of its slot if it has several regions.
    pub(super) page: u64,
    /// The slot's address and number.
    pub(super) slot: (u64, u32),
    /// Bytes of each.
    pub(super) len: u32,
}

/// The READs of several pages that are alike, from the same of their regions into the same of their
/// slots'.
pub(super) struct Column<'e> {
    pub(super) pair: Pair,
    pub(super) place: &'e RemotePlace,
    pub(super) piece: &'e LocalPiece,
    /// The local rail and the remote one.
    pub(super) rails: (usize, usize),
    /// Bytes of each.
    pub(super) len: u32,
}

impl Column<'_> {
    /// Adds the READs of `pages` to a commit, which comes back; the first is `wr_id`. `last`: they
    /// end the commit.
    pub(super) fn post<C: Post>(
        &self,
        post: C,
        pages: &[Page],
        wr_id: WrId,
        signals: &mut Signals,
        last: bool,
    ) -> C {
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
pub(super) const LONG_ROW: u32 = 8;

impl RowOfPairs<'_> {
    /// Where the READ of a pair begins on both sides, and the keys there.
    #[inline]
    pub(super) fn ends(&self, pair: Pair) -> KeyedEnds {
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
    pub(super) fn post<C: Post>(
        &self,
        post: C,
        wr_id: WrId,
        count: u32,
        signals: &mut Signals,
        last: bool,
    ) -> C {
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
