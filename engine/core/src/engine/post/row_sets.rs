//! READs of sets of rows.

use super::super::state::Engine;
use super::Signals;
use crate::events::EventSink;
use crate::id::WrId;
use crate::lane::record::{Record, Run};
use crate::limits::narrow;
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::page::row_set::RowSet;
use crate::provider::{Post, Provider, Read, UniformReads};

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Writes the next READs of the set that begins at `at` into the ring of `lane`, as its wrs
    /// from `seq` on: at most `limit`, at least 1, and so many that they reach `max_bytes`. Returns
    /// how many there are, and their bytes.
    #[inline(never)]
    pub(super) fn gather_set(
        &mut self,
        lane: usize,
        seq: u32,
        at: PageRef,
        (limit, max_bytes): (u32, u64),
    ) -> (u32, u64) {
        let chunk = self.pages.at(at).next;
        let set = RowSet::of(self.pages.set(at), self.chunk_shift);
        // The count of a record is a u16.
        let (n, bytes) = set.fit(chunk, limit.min(u16::MAX.into()), max_bytes);
        let single = set.is_single();
        let (len, run) = if single { (set.row_bytes(), Run::Chunks) } else { (bytes, Run::JoinedRows) };
        *self.lanes.record(lane, seq) = Record { page: at, chunk, len, count: narrow(n as usize), run };
        self.pages.at(at).next += n;
        (n, bytes.into())
    }
}

/// Consecutive wrs of a set.
pub(super) struct SetWrs {
    pub(super) wr_id: WrId,
    /// The number of the first among the READs of the set.
    pub(super) chunk: u32,
    pub(super) count: u32,
}

impl SetWrs {
    /// Adds the READs to a commit. The slot begins at `local`; `rkey` and `lkey` are the keys of
    /// the peer's region and of the slot's. `last`: they end the commit.
    #[inline]
    pub(super) fn post(
        self,
        post: &mut impl Post,
        set: RowSet<'_>,
        (local, (rkey, lkey)): (u64, (u32, u32)),
        signals: &mut Signals,
        last: bool,
    ) {
        let Self { mut wr_id, mut chunk, count } = self;
        if !set.is_single() {
            let mut left = count;
            for read in set.joined(chunk).take(count as usize) {
                left -= 1;
                let signaled = signals.next(read.len) || last && left == 0;
                post.read(Read {
                    wr_id,
                    remote_addr: read.remote,
                    local_addr: local + u64::from(read.destination),
                    len: read.len,
                    rkey,
                    lkey,
                    signaled,
                });
                wr_id = wr_id.nth(1);
            }
            return;
        }
        let (mut left, len, mut from) = (count, set.row_bytes(), set.seek(chunk));
        while left > 0 {
            // The last of these is signaled, also where more wrs follow in the commit.
            let n = left.min(signals.until_next(len));
            let to = set.seek(chunk + n);
            let ends = set.single((from, to), (chunk, n), local);
            post.read_uniform(UniformReads { wr_id, len, rkey, lkey }, ends);
            signals.reset();
            (wr_id, chunk, left, from) = (wr_id.nth(n), chunk + n, left - n, to);
        }
    }
}
