//! The slots of a foreign pool, and the guards of pages that another owner writes.

use std::marker::PhantomData;
use std::sync::Arc;

use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, KeyTag, Ready};

use super::error::WriteError;
use super::guard::{grow, invalidate, must_be_here, take_back};
use super::slots::{PoolSlots, WriteClaim};

/// The slots of a pool whose pages another owner writes. It is a handle, which is cloned freely;
/// any thread may have one.
///
/// Calls about different slots never wait for each other, and any number of guards exist at a time.
/// Which bytes are a slot's is fixed by the [`ForeignPool`](crate::ForeignPool).
#[derive(Clone, Debug)]
pub struct ForeignSlots<'a> {
    slots: Arc<PoolSlots>,
    /// It does not outlive the publisher.
    publisher: PhantomData<&'a ()>,
}

impl<'a> ForeignSlots<'a> {
    pub(super) const fn of(slots: Arc<PoolSlots>) -> Self {
        Self { slots, publisher: PhantomData }
    }

    /// Takes `slot`, whose owner is about to write a page that is published under `tag`. From now
    /// on every reader misses the slot's earlier page. Call it before the first byte is written,
    /// and before a kernel that writes one is launched.
    ///
    /// # Errors
    ///
    /// No such slot, another guard of it exists, or no random numbers; the pool is withdrawn; or
    /// the process is a child of a fork. The slot is as it was.
    pub fn overwrite(&self, slot: u32, tag: KeyTag) -> Result<ForeignSlotGuard<'a>, WriteError> {
        let claim = self.slots.claim(slot)?;
        let nonce = invalidate(&claim)?;
        Ok(ForeignSlotGuard { claim, tag, nonce })
    }

    /// Publishes a page under `tag` of which no part is ready yet, and keeps no guard: it grows by
    /// [`set_ready`](Self::set_ready) and [`finish`](Self::finish), called by any threads.
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite).
    pub fn begin(&self, slot: u32, tag: KeyTag) -> Result<Location, WriteError> {
        Ok(self.overwrite(slot, tag)?.grow().release())
    }

    /// Makes all parts below number `parts` ready of the page that grows in `slot`. Their bytes are
    /// written, as [`ForeignSlotGuard::publish`] asks for, and are not written again before the
    /// slot is overwritten.
    ///
    /// # Errors
    ///
    /// No such slot, a guard of it exists, no page in it, or as many parts or more are ready
    /// already; the pool is withdrawn; or the process is a child of a fork.
    pub fn set_ready(&self, slot: u32, parts: u32) -> Result<Location, WriteError> {
        grow(&mut self.slots.claim(slot)?, Ready(parts), |_| ())
    }

    /// Makes the whole page that grows in `slot` ready, and is as [`set_ready`](Self::set_ready)
    /// otherwise.
    ///
    /// # Errors
    ///
    /// As [`set_ready`](Self::set_ready), if the whole page is ready already.
    pub fn finish(&self, slot: u32) -> Result<Location, WriteError> {
        grow(&mut self.slots.claim(slot)?, Ready::WHOLE, |_| ())
    }
}

/// A slot whose owner is writing it: a miss for every reader. One guard of a slot exists at a time,
/// and it holds up no other slot. It gives no bytes: the owner writes its own memory.
///
/// The page is published whole by [`publish`](Self::publish), or grows from [`grow`](Self::grow)
/// on. A guard that is dropped, also by a panic, leaves the slot a miss. A guard that is forgotten
/// ([`std::mem::forget`]) keeps its slot a miss for ever, and its pool from being withdrawn.
#[must_use = "the slot is a miss until the page is published"]
pub struct ForeignSlotGuard<'a> {
    claim: WriteClaim<'a>,
    tag: KeyTag,
    nonce: u32,
}

impl<'a> ForeignSlotGuard<'a> {
    /// The slot.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.claim.slot()
    }

    /// The key's digest under which the page will be published.
    #[must_use]
    pub const fn tag(&self) -> KeyTag {
        self.tag
    }

    /// Publishes the bytes of the slot, the whole page, in a new generation. All of them have been
    /// written, and are visible to the devices and processes that read them:
    ///
    /// - Threads of this process that wrote bytes have handed them to this thread: they are joined,
    ///   or synchronise with it through a channel or a lock. A thread that made non-temporal stores
    ///   ends them with an `sfence` before that. A process that wrote into a shared mapping has
    ///   told this one by such a way, too.
    /// - Copies and kernels of a GPU that wrote bytes are complete, and the host knows: an event or
    ///   the stream was synchronised (`cudaEventSynchronize`, `cudaStreamSynchronize`, or a query
    ///   that said so). To enqueue this call behind them, use a host function of the stream, which
    ///   runs when they are complete.
    /// - A NIC that reads a GPU's memory sees what completed before: the memory has the attribute
    ///   `SYNC_MEMOPS`, which `ForeignMemory::device` (feature `cuda`) finds set. For a dmabuf or
    ///   peer memory that was registered otherwise the caller sets it (`cuPointerSetAttribute`), as
    ///   GPUDirect RDMA demands.
    ///
    /// # Panics
    ///
    /// In a child of a fork: the guard is a copy there, and the slot is the parent's.
    pub fn publish(self) -> Location {
        must_be_here(&self.claim);
        let generation = self.claim.entry().publish(self.tag, self.nonce);
        let expected = EntryValue { generation, ready: Ready::WHOLE, tag: self.tag };
        Location { slot: self.slot(), expected }
    }

    /// Publishes a page of which no part is ready yet.
    ///
    /// # Panics
    ///
    /// As [`publish`](Self::publish).
    pub fn grow(self) -> GrowingForeignPage<'a> {
        must_be_here(&self.claim);
        let generation = self.claim.entry().begin(self.tag, self.nonce);
        let expected = EntryValue { generation, ready: Ready::NONE, tag: self.tag };
        GrowingForeignPage { claim: self.claim, expected, stays: false }
    }
}

impl std::fmt::Debug for ForeignSlotGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tag, .. } = self;
        f.debug_struct("ForeignSlotGuard")
            .field("slot", &self.slot())
            .field("tag", tag)
            .finish_non_exhaustive()
    }
}

/// A page that is published while its owner still writes it. Its ready parts are not written any
/// more in this generation.
///
/// [`finish`](Self::finish) makes the whole page ready and ends the guard. Dropping the guard
/// before, also by a panic, takes the page back with its ready parts.
#[must_use = "dropping it takes the page back"]
pub struct GrowingForeignPage<'a> {
    claim: WriteClaim<'a>,
    expected: EntryValue,
    /// The page stays when this value is dropped.
    stays: bool,
}

impl GrowingForeignPage<'_> {
    /// The location of the page with the parts that are ready now.
    #[must_use]
    pub const fn location(&self) -> Location {
        Location { slot: self.claim.slot(), expected: self.expected }
    }

    /// Makes all parts below number `parts` ready. Their bytes are complete and visible, as
    /// [`ForeignSlotGuard::publish`] asks for. What a part is, and which bytes it has, is agreed on
    /// with the readers.
    ///
    /// # Errors
    ///
    /// As many parts or more are ready already; the page was taken back; or the process is a child
    /// of a fork.
    pub fn set_ready(&mut self, parts: u32) -> Result<Location, WriteError> {
        self.expected = grow(&mut self.claim, Ready(parts), |_| ())?.expected;
        Ok(self.location())
    }

    /// Makes the whole page ready.
    ///
    /// # Errors
    ///
    /// As [`set_ready`](Self::set_ready). The page is taken back then, as by a drop.
    pub fn finish(mut self) -> Result<Location, WriteError> {
        let location = grow(&mut self.claim, Ready::WHOLE, |_| ())?;
        self.stays = true;
        Ok(location)
    }

    /// Ends the guard and lets the page grow without one.
    pub(super) fn release(mut self) -> Location {
        self.stays = true;
        self.location()
    }
}

impl Drop for GrowingForeignPage<'_> {
    fn drop(&mut self) {
        if !self.stays {
            take_back(&self.claim);
        }
    }
}

impl std::fmt::Debug for GrowingForeignPage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowingForeignPage").field("location", &self.location()).finish_non_exhaustive()
    }
}
