//! What completions mean for sets of rows, and what becomes of their wrs when a lane fails.

use super::state::Engine;
use crate::error::PageError;
use crate::events::EventSink;
use crate::lane::record::{Record, Run};
use crate::page::list::PageRef;
use crate::page::row_set::RowSet;
use crate::page::{Claim, PageTable, Phase};
use crate::provider::Provider;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Accounts for a validating READ of a set of rows, which has brought the entries of `n` pages
    /// of it from `from` on.
    #[inline(never)]
    pub(super) fn set_entries_arrived(&mut self, from: PageRef, n: u32) {
        let first = self.pages.first_of_set(from);
        // A set that is read again is validated anew after that.
        if self.pages.at(first).phase == Phase::Validating {
            let mut pages = self.pages.slice(from, n).iter().zip(self.landing.of(from, n));
            if let Some(error) = pages.find_map(|(page, entry)| page.miss_by(entry)) {
                self.miss_set(first, error);
            }
        }
        let set = self.pages.at(first);
        set.left -= 1;
        if set.left == 0 {
            if set.phase == Phase::Validating {
                // All entries have been compared.
                set.phase = Phase::Arrived;
                return self.retire(first);
            }
            self.complete(first);
        }
    }

    /// Notes why a set is a miss. Its entries that have not been asked for are needed no more.
    #[cold]
    fn miss_set(&mut self, first: PageRef, error: PageError) {
        self.stop_validating(first, false);
        let set = self.pages.at(first);
        (set.phase, set.claim) = (Phase::Failed, Claim::Failed(error));
    }

    /// The pages whose `left` counts a wr: how many there are from which on.
    pub(super) fn counted_in(&mut self, wr: Record) -> (PageRef, u32) {
        match wr.run {
            Run::SetEntries => (self.pages.first_of_set(wr.page), 1),
            _ => (wr.page, wr.covers(1)),
        }
    }

    /// The record of the wrs that remain after the first `n`, which are fewer than all.
    #[inline]
    pub(super) fn behind(&mut self, record: Record, n: u32) -> Record {
        match record.run {
            Run::JoinedRows => self.behind_joined(record, n),
            _ => record.behind(n),
        }
    }

    /// As [`behind`](Self::behind), of READs of several lengths.
    #[cold]
    fn behind_joined(&mut self, record: Record, n: u32) -> Record {
        let rest = record.behind(n);
        if self.pages.at(record.page).phase == Phase::Failed {
            // Its rows are not known any more. All that matters is that the bytes add up.
            let len = u64::from(record.len) * u64::from(rest.count) / u64::from(record.count);
            // At most that of the record.
            return Record { len: len as u32, ..rest };
        }
        let set = RowSet::of(self.pages.set(record.page), self.chunk_shift);
        let done = set.joined(record.chunk).take(n as usize).map(|read| read.len);
        Record { len: record.len - done.sum::<u32>(), ..rest }
    }

    /// Gives those wrs of a lane records of their own that are READs of several lengths.
    #[cold]
    pub(super) fn split_joined_rows(&mut self, lane: usize) {
        let (mut seq, head) = (self.lanes[lane].tail, self.lanes[lane].head);
        while seq != head {
            let record = *self.lanes.record(lane, seq);
            seq = seq.wrapping_add(record.count.into());
            let mut rest = record;
            while record.run == Run::JoinedRows && rest.count > 0 {
                let behind = match rest.count {
                    1 => Record { count: 0, len: 0, ..rest },
                    _ => self.behind_joined(rest, 1),
                };
                let (len, place) = (rest.len - behind.len, seq.wrapping_sub(rest.count.into()));
                *self.lanes.record(lane, place) = Record { len, count: 1, run: Run::Chunks, ..rest };
                rest = behind;
            }
        }
    }
}
