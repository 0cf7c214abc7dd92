//! The `ibv_send_wr` encoder: a chain of templates that are linked once. A commit writes only the
//! words that differ.
//!
//! Zeroing one 128-byte wr costs more than everything else about posting it (docs/performance.md),
//! so no template is zeroed or linked again. One chain serves all lanes of a posting thread and
//! stays hot in its cache.
#![allow(
    unsafe_code,
    reason = "the templates point at each other, so they are accessed through raw pointers"
)]

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::wr::{SendFlags, SendWr, Sge};
use crate::id::WrId;
use crate::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Read, UniformReads};

/// The memory of a [`Chain`] of `N` templates with at most `S` pieces each.
#[derive(Debug)]
pub struct ChainStorage<const N: usize, const S: usize = 1> {
    wrs: [SendWr; N],
    sges: [[Sge; S]; N],
}

impl<const N: usize, const S: usize> ChainStorage<N, S> {
    /// Memory for a `static` or a box. [`Chain::new`] links the templates.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N >= 1, "a chain holds at least one wr") };
        const { assert!(S >= 1 && S <= 64, "a wr has 1 to 64 pieces") };
        Self { wrs: [SendWr::EMPTY; N], sges: [[Sge { addr: 0, length: 0, lkey: 0 }; S]; N] }
    }
}

impl<const N: usize, const S: usize> Default for ChainStorage<N, S> {
    fn default() -> Self {
        Self::new()
    }
}

/// Templates of `N` READs, each with at most `S` pieces of local memory, each pointing at the next.
#[derive(Debug)]
pub struct Chain<'s, const N: usize, const S: usize = 1> {
    wrs: NonNull<SendWr>,
    sges: NonNull<[Sge; S]>,
    storage: PhantomData<&'s mut ChainStorage<N, S>>,
}

// SAFETY: a chain is the exclusive borrow of its storage, which holds integers and pointers into
// itself. Nothing in it is tied to a thread.
unsafe impl<const N: usize, const S: usize> Send for Chain<'_, N, S> {}

impl<'s, const N: usize, const S: usize> Chain<'s, N, S> {
    /// Links the templates.
    #[must_use]
    pub fn new(storage: &'s mut ChainStorage<N, S>) -> Self {
        let sges = NonNull::from(&mut storage.sges).cast::<[Sge; S]>();
        let wrs = NonNull::from(&mut storage.wrs).cast::<SendWr>();
        for i in 0..N {
            let next = if i + 1 < N {
                // SAFETY: i + 1 < N, within the array of N.
                unsafe { wrs.as_ptr().add(i + 1) }
            } else {
                ptr::null_mut()
            };
            // SAFETY: i < N, within the array of N.
            let sg_list = unsafe { sges.as_ptr().add(i) }.cast();
            // SAFETY: i < N, within the array of N.
            let wr = unsafe { wrs.as_ptr().add(i) };
            // SAFETY: `wr` points at a live SendWr of the storage, borrowed exclusively for 's.
            unsafe { wr.write(SendWr { next, sg_list, ..SendWr::EMPTY }) };
        }
        Self { wrs, sges, storage: PhantomData }
    }

    /// Begins a commit.
    #[inline]
    pub fn begin(&mut self) -> Posting<'_, 's, N, S> {
        Posting { chain: self, len: 0 }
    }
}

/// A commit that is being encoded. Dropping it posts nothing, and the chain can be used again.
#[derive(Debug)]
pub struct Posting<'c, 's, const N: usize, const S: usize = 1> {
    chain: &'c mut Chain<'s, N, S>,
    len: usize,
}

impl<const N: usize, const S: usize> Posting<'_, '_, N, S> {
    /// How many wrs have been encoded.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no wr has been encoded.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Encodes one READ into the next template.
    ///
    /// # Panics
    ///
    /// If `N` READs have been encoded already.
    #[inline]
    pub fn push(&mut self, read: &Read) {
        let i = self.fill(read, 1);
        let sge = Sge { addr: read.local_addr, length: read.len, lkey: read.lkey };
        // SAFETY: `fill` has found i < N, within the array of N.
        let sges = unsafe { self.chain.sges.as_ptr().add(i) };
        // SAFETY: as for the template in `fill`; the sges are another array than the wrs, so the
        // two do not alias. S is at least 1.
        unsafe { sges.cast::<Sge>().write(sge) };
    }

    /// Encodes uniform READs into the next templates, and signals the last.
    ///
    /// # Panics
    ///
    /// If these would be more than `N` in all.
    // Not inlined, so that its loop has all registers.
    #[inline(never)]
    pub fn push_uniform<I: ExactSizeIterator<Item = Ends>>(&mut self, reads: &UniformReads, ends: I) {
        let (first, n) = (self.len, ends.len());
        assert!(n <= N - first, "a chain of {N} wrs, {first} of them encoded, takes no {n} more");
        if reads.wr_id.nth(n as u32).0 < reads.wr_id.0 {
            return self.push_each(reads, ends);
        }
        // SAFETY: first <= N, within the array of N or one past it.
        let wrs = unsafe { self.chain.wrs.as_ptr().add(first) };
        // SAFETY: n live, linked templates follow, and no other code has them now (see `fill`).
        let wrs = unsafe { core::slice::from_raw_parts_mut(wrs, n) };
        let UniformReads { wr_id: WrId(wr_id), len: length, rkey, lkey } = *reads;
        let fill = |wr: &mut SendWr, wr_id, remote_addr| {
            wr.wr_id = wr_id;
            wr.send_flags = SendFlags::empty();
            wr.remote_addr = remote_addr;
            wr.rkey = rkey;
            if S > 1 {
                wr.num_sge = 1;
            }
        };
        // How many ends the iterator has given, which may be fewer than its length. The sequence
        // numbers of these READs do not wrap, as checked above.
        let mut given = 0;
        if const { size_of::<I>() > 4 * size_of::<usize>() } {
            // The iterator takes the registers. So the sge is found by the template's own pointer
            // rather than by a second one that moves along, it is two words, and the number moves
            // along, too.
            let in_sge = Sge { addr: 0, length, lkey }.behind_addr();
            let mut id = wr_id;
            for (wr, ends) in wrs.iter_mut().zip(ends) {
                fill(wr, id, ends.remote_addr);
                id = id.wrapping_add(1);
                // SAFETY: `new` has pointed each template at its own sges, of which there is at
                // least one. They are another array than the wrs, so the two do not alias.
                unsafe { wr.sg_list.cast::<[u64; 2]>().write([ends.local_addr, in_sge]) };
            }
            given = id.wrapping_sub(wr_id);
        } else {
            // SAFETY: first <= N, within the array of N or one past it.
            let sges = unsafe { self.chain.sges.as_ptr().add(first) };
            // SAFETY: as for the templates; S is at least 1.
            let sges = unsafe { core::slice::from_raw_parts_mut(sges, n) };
            for ((wr, sges), ends) in wrs.iter_mut().zip(sges).zip(ends) {
                fill(wr, wr_id.wrapping_add(given), ends.remote_addr);
                given += 1;
                sges[0] = Sge { addr: ends.local_addr, length, lkey };
            }
        }
        // At most n, a length.
        let given = given as usize;
        if let Some(last) = given.checked_sub(1) {
            wrs[last].send_flags = SendFlags::SIGNALED;
        }
        self.len = first + given;
    }

    /// As `push_uniform`, one READ at a time, for sequence numbers that wrap.
    #[cold]
    fn push_each(&mut self, reads: &UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        let mut left = ends.len();
        for (i, ends) in (0..).zip(ends) {
            left -= 1;
            self.push(&reads.read(i, ends, left == 0));
        }
    }

    /// Encodes READs of one length, each between regions of its own, into the next templates.
    ///
    /// # Panics
    ///
    /// If these would be more than `N` in all.
    #[inline]
    pub fn push_keyed(&mut self, reads: &KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        let (first, n) = (self.len, reads.count as usize);
        assert!(n <= N - first, "a chain of {N} wrs, {first} of them encoded, takes no {n} more");
        if reads.wr_id.nth(reads.count).0 < reads.wr_id.0 {
            // The sequence numbers wrap.
            return (0..reads.count).zip(ends).for_each(|(i, ends)| self.push(&reads.read(i, ends)));
        }
        // SAFETY: first <= N, within the array of N or one past it.
        let wrs = unsafe { self.chain.wrs.as_ptr().add(first) };
        // SAFETY: n live, linked templates follow, and no other code has them now (see `fill`).
        let wrs = unsafe { core::slice::from_raw_parts_mut(wrs, n) };
        // SAFETY: first <= N, within the array of N or one past it.
        let sges = unsafe { self.chain.sges.as_ptr().add(first) };
        // SAFETY: as for the templates; S is at least 1.
        let sges = unsafe { core::slice::from_raw_parts_mut(sges, n) };
        let KeyedReads { wr_id: WrId(wr_id), len: length, signaled, .. } = *reads;
        // How many ends the iterator has given, which may be fewer than n.
        let mut given = 0;
        for ((wr, sges), ends) in wrs.iter_mut().zip(sges).zip(ends) {
            wr.wr_id = wr_id.wrapping_add(given);
            given += 1;
            wr.send_flags = SendFlags::empty();
            wr.remote_addr = ends.remote_addr;
            wr.rkey = ends.rkey;
            if S > 1 {
                wr.num_sge = 1;
            }
            sges[0] = Sge { addr: ends.local_addr, length, lkey: ends.lkey };
        }
        // At most n, a length.
        let given = given as usize;
        if signaled && given == n && n > 0 {
            wrs[n - 1].send_flags = SendFlags::SIGNALED;
        }
        self.len = first + given;
    }

    /// Encodes one READ of several pieces into the next template.
    ///
    /// # Panics
    ///
    /// If `N` READs have been encoded already, or there are no pieces or more than `S`.
    #[inline]
    pub fn push_scattered(&mut self, read: &Read, pieces: &[Piece]) {
        let n = pieces.len();
        assert!(n >= 1 && n <= S, "a READ of {n} pieces in a chain of wrs with 1 to {S}");
        let i = self.fill(read, n);
        // SAFETY: `fill` has found i < N, within the array of N.
        let sges = unsafe { self.chain.sges.as_ptr().add(i) };
        // SAFETY: as in `push`.
        let sges = unsafe { &mut *sges };
        for (sge, piece) in sges.iter_mut().zip(pieces) {
            *sge = Sge { addr: piece.addr, length: piece.len, lkey: read.lkey };
        }
    }

    /// Encodes all but the pieces, of which there are `n`, at most `S`. Returns the number of the
    /// template.
    #[inline]
    fn fill(&mut self, read: &Read, n: usize) -> usize {
        let i = self.len;
        assert!(i < N, "a chain of {N} wrs is full");
        // SAFETY: i < N, within the array of N.
        let wr = unsafe { self.chain.wrs.as_ptr().add(i) };
        // SAFETY: `wr` points at a live, linked template; the storage is borrowed exclusively by
        // the chain, the chain by `self`, and no driver walks it now (it does only inside `post`).
        let wr = unsafe { &mut *wr };
        wr.wr_id = read.wr_id.0;
        wr.send_flags = if read.signaled { SendFlags::SIGNALED } else { SendFlags::empty() };
        wr.remote_addr = read.remote_addr;
        wr.rkey = read.rkey;
        if S > 1 {
            // S is at most 64.
            wr.num_sge = (n as u32).cast_signed();
        }
        self.len = i + 1;
        i
    }

    /// Ends the chain after the last encoded wr, gives the head to `post_send`, and restores the
    /// link.
    ///
    /// `post_send` gets the head and returns what `ibv_post_send` does: 0 or an errno, and
    /// `bad_wr`. It is called once, or not at all for an empty chain.
    #[inline]
    pub fn post(self, post_send: impl FnOnce(*mut SendWr) -> (i32, *mut SendWr)) -> Commit {
        let Some(last) = self.len.checked_sub(1) else { return Commit::All };
        let head = self.chain.wrs.as_ptr();
        // SAFETY: last < len <= N, within the array of N.
        let last = unsafe { head.add(last) };
        // SAFETY: `last` points at a live template.
        let link = unsafe { &raw mut (*last).next };
        // SAFETY: no other code accesses the templates before `post_send`.
        let next = unsafe { link.replace(ptr::null_mut()) };
        let (errno, bad_wr) = post_send(head);
        // SAFETY: `post_send` has returned, and ibv_post_send keeps no pointer to the wrs.
        unsafe { link.write(next) };
        if errno == 0 {
            return Commit::All;
        }
        // The driver rxe can fail with a null bad_wr after it has queued all wrs. A pointer to none
        // of these wrs says as little.
        let offset = (bad_wr as usize).wrapping_sub(head as usize);
        let accepted = offset / size_of::<SendWr>();
        if bad_wr.is_null() || !offset.is_multiple_of(size_of::<SendWr>()) || accepted >= self.len {
            return Commit::Unknown { errno };
        }
        debug_assert!(u32::try_from(accepted).is_ok(), "a chain has fewer than 2^32 wrs");
        Commit::Prefix { accepted: accepted as u32, errno }
    }
}

#[cfg(test)]
mod tests;
