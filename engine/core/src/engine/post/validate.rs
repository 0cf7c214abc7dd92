//! Validating READs: they bring the table entries of pages whose data has arrived.
#![allow(unsafe_code, reason = "posting lets the hardware write into memory")]

use super::super::state::Engine;
use super::Signals;
use crate::batch::landing::{Pieces, Row};
use crate::events::EventSink;
use crate::id::WrId;
use crate::lane::record::{Record, Run, place, validating};
use crate::page::list::{PageLink, PageRef};
use crate::page::{Page, PageTable};
use crate::provider::{Post, Provider, Read};
use crate::table::{ENTRY_BYTES, Entry};
use crate::time::Time;

/// The most entries of one READ on rails that join none over gaps. They are 2 KiB: one packet where
/// the MTU is 2048 or more, and little enough for rails that copy to use ordinary stores
/// (engine/local).
const ROW: u32 = 64;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Posts at most `limit` validating READs of the lane's peer that are posted in the turn of
    /// `class`, and returns how many bytes they read. One READ brings the entries of consecutive
    /// pages whose entries are consecutive in the table, too, as those of pages that were published
    /// together are. Where a READ costs more than the bytes between two entries
    /// ([`Provider::read_overhead`]) it also brings entries that ascend with gaps.
    #[inline(never)]
    pub(super) fn post_validating(&mut self, lane: usize, class: usize, limit: u32, now: Time) -> u64 {
        let Self { provider, pages, landing, config, .. } = self;
        let (lanes, records, depth) = (&mut *self.lanes.all, &mut *self.lanes.records, self.lanes.depth);
        let (peers, remotes) = (&mut *self.peers.all, &*self.regions.remotes);
        let l = &mut lanes[lane];
        let waiting = &mut peers[usize::from(l.peer)].validate[class];
        let Some(handle) = l.handle.as_mut() else { return 0 };
        let (id, head, remote_rail) = (l.id, l.head, usize::from(l.remote_rail));
        let lkey = landing.keys[usize::from(l.rail)];
        let mut signals = Signals::new(config);
        // The READ before is added one step later, when it is known whether it is the last, which
        // is signaled.
        let mut before: Option<Next> = None;
        let mut list = 0;
        let (mut n, mut bytes) = (0, 0);
        // SAFETY: every READ goes to the places of its pages in the landing area, which the engine
        // reads only after the READ has completed, and to the waste area, which nothing reads and
        // no code of this process writes.
        let mut post = unsafe { provider.begin(handle) };
        while let Some(mut at) = if n < limit { waiting.first() } else { None } {
            waiting.remove(pages, at);
            let first = pages.at(at);
            let (batch, remote) = (first.batch, &remotes[usize::from(first.source.region())]);
            let set = if first.begins_set() { Some(at) } else { None };
            let rkey = remote.table_keys[remote_rail];
            let mut end = pages.first(batch).0 + u32::from(pages.head(batch).len);
            if let Some(first) = set {
                end = first.0 + u32::from(pages.set_len(first));
                // Those of its entries that an earlier commit asks for are passed over.
                at.0 += core::mem::take(&mut pages.at(PageRef(at.0 + 1)).left);
            }
            // The place of the record of the READ before, and its last page, if its READs have one
            // entry each.
            let mut single: Option<(usize, PageRef)> = None;
            loop {
                let row = pages.slice(at, (end - at.0).min(ROW));
                let mut row = if set.is_some() { row_of_set(row) } else { take_row(row) };
                if landing.joins() && at.0 + row.pages < end {
                    let next = PageRef(at.0 + row.pages);
                    let behind = pages.slice(next, end - next.0);
                    if set.is_some() {
                        row = landing.join(row, at, behind.iter().map(|page| page.entry), list);
                    } else if behind[0].validate.is_behind() {
                        let waiting = behind.iter().take_while(|page| page.validate.is_behind());
                        let joined = landing.join(row, at, waiting.map(|page| page.entry), list);
                        let more = joined.pages - row.pages;
                        pages.slice(next, more).iter_mut().for_each(|page| page.validate = PageLink::OUT);
                        row = joined;
                    }
                }
                let entries = landing.of(at, row.pages);
                // The entry of an earlier page, which is still there, must not be taken for this
                // page's.
                entries.iter().for_each(Entry::clear);
                let len = row.bytes();
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
                let next = Next { read, list, pieces: row.pieces };
                list ^= usize::from(row.pieces > 1);
                if let Some(before) = before.replace(next) {
                    let signaled = signals.next(before.read.len);
                    before.add(&mut post, &landing.pieces, signaled);
                }
                match single {
                    _ if set.is_some() => {
                        let (chunk, count, run) = (validating(row.pages), 1, Run::SetEntries);
                        records[place(lane, head.wrapping_add(n), depth)] =
                            Record { page: at, chunk, len, count, run };
                    }
                    Some((record, page)) if row.pages == 1 && page.0 + 1 == at.0 => {
                        records[record].count += 1;
                        single = Some((record, at));
                    }
                    _ => {
                        let place = place(lane, head.wrapping_add(n), depth);
                        let (chunk, run) = (validating(row.pages), Run::Validating);
                        records[place] = Record { page: at, chunk, len, count: 1, run };
                        single = (row.pages == 1).then_some((place, at));
                    }
                }
                n += 1;
                at.0 += row.pages;
                if let Some(first) = set {
                    // One more keeps the set from being retired until all entries are asked for.
                    pages.at(first).left += u32::from(at.0 != end);
                    if at.0 != end && n == limit {
                        pages.at(PageRef(first.0 + 1)).left = at.0 - first.0;
                        waiting.push_back(pages, first);
                    }
                    if at.0 == end || n == limit {
                        break;
                    }
                    continue;
                }
                if at.0 == end || !pages.at(at).validate.is_behind() {
                    break;
                }
                if n == limit {
                    pages.at(at).validate = PageLink::OUT;
                    waiting.push_back(pages, at);
                    break;
                }
            }
        }
        if let Some(last) = before {
            last.add(&mut post, &landing.pieces, true);
        }
        let commit = post.commit();
        self.posted(lane, n, bytes, commit, now)
    }
}

/// A READ of a commit, to be added when it is known whether it is the last.
struct Next {
    read: Read,
    /// Where its pieces are, if it has several.
    list: usize,
    pieces: usize,
}

impl Next {
    #[inline]
    fn add(self, post: &mut impl Post, lists: &[Pieces; 2], signaled: bool) {
        let read = Read { signaled, ..self.read };
        if self.pieces == 1 {
            post.read(read);
        } else {
            post.scatter(read, &lists[self.list][..self.pieces]);
        }
    }
}

/// The longest prefix of `pages`, all of one set, whose table entries are consecutive.
#[inline]
fn row_of_set(pages: &[Page]) -> Row {
    let entry = pages.first().map_or(0, |first| first.entry);
    let follows = |(count, page): &(u32, &Page)| page.entry == entry.wrapping_add(*count);
    // A row has fewer than 2^32 pages.
    row(entry, (0..).zip(pages).take_while(follows).count() as u32)
}

/// Takes the longest prefix of `pages` whose table entries are consecutive, and unlinks those pages
/// from the validation queue.
#[inline]
fn take_row(pages: &mut [Page]) -> Row {
    let Some((first, behind)) = pages.split_first_mut() else { return row(0, 0) };
    first.validate = PageLink::OUT;
    let entry = first.entry;
    let mut count = 1;
    for page in behind {
        if !page.validate.is_behind() || page.entry != entry.wrapping_add(count) {
            break;
        }
        page.validate = PageLink::OUT;
        count += 1;
    }
    row(entry, count)
}

/// Pages whose entries are consecutive.
#[inline]
const fn row(entry: u32, pages: u32) -> Row {
    Row { entry, pages, span: pages, pieces: 1 }
}
