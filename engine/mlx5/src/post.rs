//! A commit: READs written into a send queue, and the doorbell.

use kvrail_core::id::WrId;
use kvrail_core::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};

use crate::barrier;
use crate::format::{CQ_UPDATE, MAX_PIECES, RDMA_READ, READ_SEGMENTS, blocks, pair};
use crate::memory::Register;
use crate::posted::PostedWr;
use crate::send_queue::{SendQueue, Trust};

/// The send queue had no room, which credits prevent.
const ENOMEM: i32 = 12;
/// The queue is distrusted.
const EIO: i32 = 5;

/// A commit that is being written into a send queue. The device does not look at the entries before
/// the doorbell: dropping the commit posts nothing.
#[derive(Debug)]
pub struct DirectPost<'a> {
    queue: &'a mut SendQueue,
    register: &'a mut Register,
    /// Where the next entry begins.
    next: u32,
    /// Where the last entry begins.
    last: u32,
    /// The first word of the last entry.
    control: u64,
    /// How many READs have been written, and how many were not, for lack of room.
    written: u32,
    refused: u32,
}

impl<'a> DirectPost<'a> {
    #[inline]
    pub(crate) fn new(queue: &'a mut SendQueue, register: &'a mut Register) -> Self {
        let next = queue.head;
        Self { queue, register, next, last: next, control: 0, written: 0, refused: 0 }
    }

    /// How many READs it holds.
    #[inline]
    #[must_use]
    pub fn wrs(&self) -> usize {
        (self.written + self.refused) as usize
    }

    /// How many blocks may be written.
    #[inline]
    fn room(&self) -> u32 {
        if self.refused != 0 || self.queue.trust == Trust::None {
            // What follows a READ that was refused must not be posted before it.
            return 0;
        }
        self.queue.blocks.count() - self.next.wrapping_sub(self.queue.tail)
    }

    /// The first word of the entry at block `index`, without the index: operation, QP, and size.
    #[inline]
    fn head_word(&self, segments: u32) -> u64 {
        u64::from(RDMA_READ) << 32 | u64::from(self.queue.qp_num << 8 | segments)
    }

    /// Writes READs of one block each: as many of `ends` as are `wanted`, named from `first` on. If
    /// they are `signaled`, the last one is.
    #[inline]
    fn write_uniform(
        &mut self,
        (first, len): (WrId, u32),
        (wanted, signaled): (u32, bool),
        ends: impl Iterator<Item = KeyedEnds>,
    ) {
        if first.nth(wanted).0 < first.0 {
            return self.write_wrapping((first, len), (wanted, signaled), ends);
        }
        let wrs = wanted.min(self.room());
        let (head_word, begin) = (self.head_word(READ_SEGMENTS + 1), self.next);
        let blocks = &mut self.queue.blocks;
        let (mut written, mut control) = (0, self.control);
        // The range comes first, so that the iterator can give no more than there is room for.
        for (i, ends) in (0..wrs).zip(ends) {
            let KeyedEnds { remote_addr, rkey, local_addr, lkey } = ends;
            let at = begin.wrapping_add(i);
            control = (head_word | u64::from(at as u16) << 40).to_be();
            let mut block = blocks.block(at);
            block.store::<0>(control);
            block.store::<1>(0);
            block.store::<2>(remote_addr.to_be());
            block.store::<3>(pair(rkey, 0));
            block.store::<4>(pair(len, lkey));
            block.store::<5>(local_addr.to_be());
            written = i + 1;
            // The sequence numbers of these READs do not wrap, as checked above.
            blocks.note(at, PostedWr::new(WrId(first.0 + u64::from(i)), at.wrapping_add(1)));
        }
        if written != 0 {
            self.next = begin.wrapping_add(written);
            self.last = self.next.wrapping_sub(1);
            if signaled && written == wanted {
                blocks.block(self.last).store::<1>(pair(CQ_UPDATE, 0));
            }
        }
        self.control = control;
        self.written += written;
        self.refused += wanted - wrs;
    }

    /// As `write_uniform`, one READ at a time, for sequence numbers that wrap.
    #[cold]
    fn write_wrapping(
        &mut self,
        (first, len): (WrId, u32),
        (wanted, signaled): (u32, bool),
        ends: impl Iterator<Item = KeyedEnds>,
    ) {
        for (i, KeyedEnds { remote_addr, rkey, local_addr, lkey }) in (0..wanted).zip(ends) {
            let wr_id = first.nth(i);
            let signaled = signaled && i + 1 == wanted;
            let read = Read { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled };
            self.write(&read, &[Piece { addr: local_addr, len }]);
        }
    }

    /// Writes a READ of any number of pieces, none included.
    pub(crate) fn write(&mut self, read: &Read, pieces: &[Piece]) {
        // The device takes a length of 0 for 2^31, so a piece without bytes has no segment.
        let filled = pieces.iter().filter(|piece| piece.len != 0);
        let count = filled.clone().count();
        let segments = READ_SEGMENTS + (count as u32).min(MAX_PIECES);
        let blocks = blocks(segments);
        if blocks > self.room() || count > MAX_PIECES as usize {
            self.refused += 1;
            return;
        }
        let (first, end) = (self.next, self.next.wrapping_add(blocks));
        self.control = (self.head_word(segments) | u64::from(first as u16) << 40).to_be();
        let update = if read.signaled { CQ_UPDATE } else { 0 };
        let ring = &mut self.queue.blocks;
        let mut block = ring.block(first);
        block.store_segment(0, [self.control, pair(update, 0)]);
        block.store_segment(1, [read.remote_addr.to_be(), pair(read.rkey, 0)]);
        for (segment, piece) in (READ_SEGMENTS..).zip(filled) {
            let mut block = ring.block(first.wrapping_add(segment / 4));
            block.store_segment(segment, [pair(piece.len, read.lkey), piece.addr.to_be()]);
        }
        ring.note(first, PostedWr::new(read.wr_id, end));
        for offset in 1..blocks {
            // No entry begins here.
            let index = first.wrapping_add(offset);
            ring.note(index, PostedWr::new(read.wr_id, index));
        }
        (self.last, self.next) = (first, end);
        self.written += 1;
    }
}

impl Post for DirectPost<'_> {
    #[inline]
    fn read(&mut self, read: Read) {
        let Read { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled } = read;
        let ends = KeyedEnds { remote_addr, rkey, local_addr, lkey };
        self.write_uniform((wr_id, len), (1, signaled), core::iter::once(ends));
    }

    // Not inlined, so that its loop has all registers.
    #[inline(never)]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        let UniformReads { wr_id, len, rkey, lkey } = reads;
        // At most a commit's READs.
        let wanted = ends.len() as u32;
        let keyed =
            ends.map(|Ends { remote_addr, local_addr }| KeyedEnds { remote_addr, rkey, local_addr, lkey });
        self.write_uniform((wr_id, len), (wanted, true), keyed);
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        let KeyedReads { wr_id, len, count, signaled } = reads;
        self.write_uniform((wr_id, len), (count, signaled), ends);
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.write(&read, pieces);
    }

    #[inline]
    fn commit(self) -> Commit {
        let Self { queue, register, next, last, control, written, refused } = self;
        if written != 0 {
            queue.head = next;
            barrier::entries_before_record();
            queue.record.store(next);
            barrier::record_before_register();
            let blocks = next.wrapping_sub(last);
            if written == 1 && register.takes(blocks) {
                register.write(&queue.blocks, last, blocks);
            } else {
                register.ring(control);
            }
            barrier::flush_register();
        }
        if refused == 0 {
            return Commit::All;
        }
        let errno = if queue.trust == Trust::None { EIO } else { ENOMEM };
        Commit::Prefix { accepted: written, errno }
    }
}
