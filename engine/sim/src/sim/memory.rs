//! Published and registered memory, the checks of each access, and the only function that moves
//! bytes.
#![allow(unsafe_code, reason = "local memory is registered as raw ranges; remote memory may be shared")]

use core::marker::PhantomData;
use core::{ptr, slice};

use heapless::vec::VecView;
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::{MemoryRange, RailKeys, Read};
use kvrail_core::verbs_abi::WcStatus;

use super::error::SimMemoryError;
use super::handle::{MemoryHandle, PeerHandle};
use super::limits::MEMORIES_PER_PEER;

/// A peer's published memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    /// The address of its first byte, for the peer.
    base: u64,
    start: *mut u8,
    len: usize,
    keys: RailKeys,
    live: bool,
    /// Whether it was lent by `&mut`, so that only the model accesses it.
    exclusive: bool,
    failed: FailedRanges,
}

impl Remote {
    pub(super) const NONE: Self = Self {
        base: 0,
        start: ptr::null_mut(),
        len: 0,
        keys: [0; MAX_RAILS],
        live: false,
        exclusive: false,
        failed: FailedRanges::NOTHING,
    };
}

/// Equally long ranges of a memory, at equal distances, that have failed. A READ that touches one
/// of them cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedRanges {
    /// Where the first range begins, in bytes from the memory's start.
    pub offset: u64,
    /// Bytes of each range.
    pub len: u64,
    /// Bytes from the beginning of one range to that of the next.
    pub stride: u64,
    /// How many ranges.
    pub count: u64,
}

impl FailedRanges {
    /// No range.
    pub const NOTHING: Self = Self { offset: 0, len: 0, stride: 1, count: 0 };

    /// Whether one of the ranges holds a byte of `from..to`.
    fn touches(&self, from: u64, to: u64) -> bool {
        // The first range that does not end before `from`.
        let past = from.saturating_sub(self.offset + self.len - self.len.min(1));
        let before = past.checked_div(self.stride).unwrap_or(0);
        (before..self.count.min(before + 2)).any(|k| {
            let start = self.offset + k * self.stride;
            self.len > 0 && start < to && from < start + self.len
        })
    }
}

/// Registered local memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    range: MemoryRange,
    /// The key on rail 0; the key on rail r is greater by r.
    key: u32,
    live: bool,
}

impl Local {
    pub(super) const NONE: Self = Self { range: MemoryRange { addr: 0, len: 0 }, key: 0, live: false };
}

/// Whether the `len` bytes at `addr` lie in the `room` bytes at `base`.
fn within(addr: u64, len: u64, base: u64, room: u64) -> bool {
    addr.checked_sub(base).and_then(|offset| room.checked_sub(offset)).is_some_and(|left| len <= left)
}

/// All memory that the model may touch.
#[derive(Debug)]
pub(super) struct Memories<'m> {
    remote: &'m mut [Remote],
    local: &'m mut [Local],
    protected: &'m mut VecView<MemoryRange>,
    /// Counts registrations, so that an old key is never valid again.
    registered: u32,
    bytes: PhantomData<&'m mut [u8]>,
}

impl<'m> Memories<'m> {
    pub(super) fn new(
        remote: &'m mut [Remote],
        local: &'m mut [Local],
        protected: &'m mut VecView<MemoryRange>,
    ) -> Self {
        remote.fill(Remote::NONE);
        local.fill(Local::NONE);
        protected.clear();
        Self { remote, local, protected, registered: 0, bytes: PhantomData }
    }

    // Remote side.

    /// Publishes memory of `peer`.
    pub(super) fn publish(
        &mut self,
        peer: PeerHandle,
        base: u64,
        bytes: &'m mut [u8],
        keys: RailKeys,
    ) -> Result<MemoryHandle, SimMemoryError> {
        let len = bytes.len();
        self.insert(
            peer,
            Remote {
                base,
                start: bytes.as_mut_ptr(),
                len,
                keys,
                live: true,
                exclusive: true,
                ..Remote::NONE
            },
        )
    }

    /// Publishes memory of `peer` that other code writes at the same time.
    ///
    /// # Safety
    ///
    /// Until the model is gone, the `len` bytes at `start` can be read, and no reference claims
    /// that they do not change.
    pub(super) unsafe fn publish_shared(
        &mut self,
        peer: PeerHandle,
        base: u64,
        start: *mut u8,
        len: usize,
        keys: RailKeys,
    ) -> Result<MemoryHandle, SimMemoryError> {
        self.insert(peer, Remote { base, start, len, keys, live: true, ..Remote::NONE })
    }

    fn insert(&mut self, peer: PeerHandle, memory: Remote) -> Result<MemoryHandle, SimMemoryError> {
        let (base, len) = (memory.base, memory.len as u64);
        if base.checked_add(len).is_none() {
            return Err(SimMemoryError::Range { base, len });
        }
        let first = peer.0 as usize * MEMORIES_PER_PEER;
        let places = &mut self.remote[first..first + MEMORIES_PER_PEER];
        let free = places.iter().position(|m| !m.live).ok_or(SimMemoryError::Full { peer })?;
        places[free] = memory;
        // SimStorage holds at most 2^14 peers.
        Ok(MemoryHandle((first + free) as u16))
    }

    /// Takes published memory back: requests for it are refused from now on.
    pub(super) fn revoke(&mut self, memory: MemoryHandle) {
        self.remote[memory.0 as usize].live = false;
    }

    /// The bytes of a memory that only the model touches.
    ///
    /// # Panics
    ///
    /// If the memory is shared: it has another writer, so no slice of it may exist.
    pub(super) fn bytes(&mut self, memory: MemoryHandle) -> &mut [u8] {
        let memory = self.remote[memory.0 as usize];
        assert!(memory.exclusive, "memory published by publish_shared can only be accessed by its owner");
        // SAFETY: `start` and `len` are those of a `&'m mut [u8]` that `publish` consumed, so the
        // bytes live and belong to this struct alone; the slice borrows it for as long as it lives.
        unsafe { slice::from_raw_parts_mut(memory.start, memory.len) }
    }

    /// The published memory of `peer` that `read` reads from: it holds the READ's remote range, and
    /// its key on the peer's `rail` is the READ's.
    fn source(&self, peer: PeerHandle, rail: RailIndex, read: &Read) -> Option<&Remote> {
        let first = peer.0 as usize * MEMORIES_PER_PEER;
        self.remote[first..first + MEMORIES_PER_PEER].iter().find(|m| {
            m.live
                && m.keys[rail.get()] == read.rkey
                && within(read.remote_addr, u64::from(read.len), m.base, m.len as u64)
        })
    }

    /// The peer's answer to `read`: success, access refused, or memory that has failed.
    pub(super) fn answer(&self, peer: PeerHandle, rail: RailIndex, read: &Read) -> WcStatus {
        let Some(source) = self.source(peer, rail, read) else { return WcStatus::REM_ACCESS_ERR };
        let from = read.remote_addr - source.base;
        match source.failed.touches(from, from + u64::from(read.len)) {
            true => WcStatus::REM_OP_ERR,
            false => WcStatus::SUCCESS,
        }
    }

    /// Sets the failed ranges of a memory.
    pub(super) fn fail(&mut self, memory: MemoryHandle, failed: FailedRanges) {
        self.remote[memory.0 as usize].failed = failed;
    }

    // Local side.

    /// Registers `range`; `None` if there is no room.
    pub(super) fn register(&mut self, range: MemoryRange) -> Option<RailKeys> {
        let free = self.local.iter().position(|l| !l.live)?;
        // From the top: 20 bits of a count that makes old keys invalid, 8 bits of the place
        // (`REGISTRATIONS` is 256), 4 bits of the rail.
        self.registered = (self.registered + 1) % (1 << 20);
        let key = self.registered << 12 | (free as u32) << 4;
        self.local[free] = Local { range, key, live: true };
        Some(core::array::from_fn(|rail| key + rail as u32))
    }

    /// Ends a registration; returns `false` if none has this range and these keys.
    pub(super) fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) -> bool {
        let place = self.local.iter_mut().find(|l| l.live && l.range == range && l.key == keys[0]);
        place.map(|l| l.live = false).is_some()
    }

    /// Whether a READ with `lkey` may write to `range` by way of local `rail`.
    pub(super) fn local_allows(&self, rail: RailIndex, lkey: u32, range: MemoryRange) -> bool {
        let Some(local) = self.local.get((lkey >> 4 & 0xFF) as usize) else { return false };
        local.live
            && local.key + u32::from(rail.0) == lkey
            && within(range.addr, range.len, local.range.addr, local.range.len)
    }

    /// Protects `range` from writes; returns `false` if there is no room to remember it.
    pub(super) fn protect(&mut self, range: MemoryRange) -> bool {
        self.protected.push(range).is_ok()
    }

    /// Ends one [`protect`](Self::protect) of `range`; returns `false` if the range is not
    /// protected.
    pub(super) fn unprotect(&mut self, range: MemoryRange) -> bool {
        let Some(at) = self.protected.iter().position(|p| *p == range) else { return false };
        self.protected.swap_remove(at);
        true
    }

    /// Whether some byte of `range` is protected.
    pub(super) fn is_protected(&self, range: MemoryRange) -> bool {
        let end = range.addr.saturating_add(range.len);
        self.protected.iter().any(|p| p.addr < end && range.addr < p.addr.saturating_add(p.len))
    }

    // Both sides.

    /// Fills `range` with the bytes of `read` that begin at its byte `from`.
    ///
    /// # Errors
    ///
    /// The status of the READ's completion, if the peer or the local registration no longer allows
    /// the access.
    pub(super) fn copy(
        &mut self,
        peer: PeerHandle,
        (rail, remote_rail): (RailIndex, RailIndex),
        read: &Read,
        (from, range): (u32, MemoryRange),
    ) -> Result<(), WcStatus> {
        assert!(u64::from(from) + range.len <= u64::from(read.len), "a piece is a part of its READ");
        let source = self.source(peer, remote_rail, read).ok_or(WcStatus::REM_ACCESS_ERR)?;
        if !self.local_allows(rail, read.lkey, range) {
            return Err(WcStatus::LOC_PROT_ERR);
        }
        let skip = (read.remote_addr - source.base) as usize + from as usize;
        // SAFETY: `source` holds bytes `remote_addr - base .. + len` of the memory at `start`
        // (checked by `source`), and from <= len.
        let source = unsafe { source.start.add(skip) }.cast_const();
        let target = ptr::with_exposed_provenance_mut::<u8>(range.addr as usize);
        let len = range.len as usize;
        // SAFETY: `source` can be read for `len` bytes: memory that `publish` consumed or that
        // `publish_shared` was promised, in range as above. `target` can be written for `len`
        // bytes: `local_allows` has found them in a range that is registered now, and code that
        // registers memory with a provider lends it to READs until it is deregistered. The two may
        // be the same memory, which `copy` allows.
        unsafe { ptr::copy(source, target, len) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_touches_a_failed_range_anywhere_is_found() {
        for (len, stride, count) in [(1, 10, 5), (4, 10, 5), (10, 10, 5), (7, 0, 1), (0, 5, 9)] {
            let failed = FailedRanges { offset: 20, len, stride, count };
            for from in 0..100 {
                for to in from + 1..100 {
                    let one =
                        |k: u64| (20 + k * stride..20 + k * stride + len).any(|at| at >= from && at < to);
                    assert_eq!(failed.touches(from, to), (0..count).any(one), "{failed:?}, {from}..{to}");
                }
            }
        }
    }

    #[test]
    fn a_range_is_within_another_up_to_the_last_byte() {
        assert!(within(10, 5, 10, 5) && within(15, 0, 10, 5) && within(u64::MAX, 0, 0, u64::MAX));
        assert!(!within(9, 1, 10, 5) && !within(11, 5, 10, 5) && !within(10, 6, 10, 5));
        assert!(!within(u64::MAX, u64::MAX, 10, 5) && !within(16, 0, 10, 5));
    }
}
