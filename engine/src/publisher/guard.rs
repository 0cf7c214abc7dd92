//! The guards of a slot that is overwritten, and of a page that grows.

use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, KeyTag, Ready};

use super::error::WriteError;
use super::nonces::nonce;
use super::slots::WriteClaim;

/// A slot that is being overwritten: a miss for every reader. One guard of a slot exists at a time,
/// and it holds up no other slot.
///
/// The page is published whole by [`publish`](Self::publish), or grows from [`grow`](Self::grow)
/// on. A guard that is dropped, also by a panic, leaves the slot a miss; the next guard can be made
/// then. A guard that is forgotten ([`std::mem::forget`]) keeps its slot a miss for ever.
#[must_use = "the slot is a miss until the page is published"]
pub struct SlotGuard<'a> {
    claim: WriteClaim<'a>,
    tag: KeyTag,
    nonce: u32,
}

impl<'a> SlotGuard<'a> {
    /// Makes the claimed slot invalid. Without random numbers the slot is as it was.
    pub(super) fn invalidating(claim: WriteClaim<'a>, tag: KeyTag) -> Result<Self, WriteError> {
        let nonce = invalidate(&claim)?;
        Ok(Self { claim, tag, nonce })
    }

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

    /// The bytes of the slot, at first those of its earlier page.
    ///
    /// Parts of the slice can be filled by several threads. They hand their bytes to the thread
    /// that publishes: they are joined, or synchronise with it through a channel or a lock. A
    /// thread that made non-temporal stores ends them with an `sfence` before that; the publishing
    /// thread's own need none.
    ///
    /// # Panics
    ///
    /// In a child of a fork: the bytes are the parent's, which may have published them.
    pub fn bytes(&mut self) -> &mut [u8] {
        must_be_here(&self.claim);
        self.claim.bytes()
    }

    /// Publishes the bytes of the slot, the whole page, in a new generation.
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
    pub fn grow(self) -> GrowingPage<'a> {
        must_be_here(&self.claim);
        let generation = self.claim.entry().begin(self.tag, self.nonce);
        let expected = EntryValue { generation, ready: Ready::NONE, tag: self.tag };
        GrowingPage { claim: self.claim, expected, stays: false }
    }
}

impl std::fmt::Debug for SlotGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tag, .. } = self;
        f.debug_struct("SlotGuard").field("slot", &self.slot()).field("tag", tag).finish_non_exhaustive()
    }
}

/// A page that is published and still grows. Its ready parts are not written any more in this
/// generation.
///
/// [`finish`](Self::finish) makes the whole page ready and ends the guard. Dropping the guard
/// before, also by a panic, takes the page back with its ready parts: every reader misses it from
/// then on. [`Publisher::invalidate`](crate::Publisher::invalidate) and a hand-over that ends take
/// it back at any time, from any thread; the next call here says so.
#[must_use = "dropping it takes the page back"]
pub struct GrowingPage<'a> {
    claim: WriteClaim<'a>,
    expected: EntryValue,
    /// The page stays when this value is dropped.
    stays: bool,
}

impl GrowingPage<'_> {
    /// The location of the page with the parts that are ready now.
    #[must_use]
    pub const fn location(&self) -> Location {
        Location { slot: self.claim.slot(), expected: self.expected }
    }

    /// Lets `fill` write parts of the page, and makes all parts below number `parts` ready. What a
    /// part is, and which bytes it has, is agreed on with the readers.
    ///
    /// `fill` is given the bytes of the whole page. It writes the parts that are not ready yet, and
    /// no byte of a ready one: readers may be reading that, and nothing would tell them. What
    /// [`SlotGuard::bytes`] says about other threads holds here too.
    ///
    /// # Errors
    ///
    /// As many parts or more are ready already, or the page was taken back. `fill` has not been
    /// called then, unless the page was taken back while it was at work.
    pub fn set_ready(&mut self, parts: u32, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        self.expected = grow(&mut self.claim, Ready(parts), fill)?.expected;
        Ok(self.location())
    }

    /// Lets `fill` write the last parts of the page, and makes the whole page ready. Apart from
    /// that as [`set_ready`](Self::set_ready).
    ///
    /// # Errors
    ///
    /// The page was taken back, or is ready already as a whole (`set_ready` with [`u32::MAX`]).
    /// Then it is taken back, as by a drop.
    pub fn finish(mut self, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        let location = grow(&mut self.claim, Ready::WHOLE, fill)?;
        self.stays = true;
        Ok(location)
    }

    /// Ends the guard and lets the page grow without one.
    pub(super) fn release(mut self) -> Location {
        self.stays = true;
        self.location()
    }
}

impl Drop for GrowingPage<'_> {
    fn drop(&mut self) {
        if !self.stays {
            take_back(&self.claim);
        }
    }
}

impl std::fmt::Debug for GrowingPage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowingPage").field("location", &self.location()).finish_non_exhaustive()
    }
}

/// Makes the claimed slot invalid, and returns the random half of its next generation. Without
/// random numbers the slot is as it was.
pub(super) fn invalidate(claim: &WriteClaim<'_>) -> Result<u32, WriteError> {
    let nonce = nonce().map_err(WriteError::Random)?;
    claim.entry().invalidate();
    Ok(nonce)
}

/// # Panics
///
/// In a child of a fork. The table is the parent's memory there, and no entry of it may change.
pub(super) fn must_be_here(claim: &WriteClaim<'_>) {
    claim.check_process().unwrap_or_else(|other| panic!("a guard was used in a child of a fork: {other}"));
}

/// Makes the claimed slot invalid; in a child of a fork, where it is the parent's, does nothing.
pub(super) fn take_back(claim: &WriteClaim<'_>) {
    if claim.check_process().is_ok() {
        claim.entry().invalidate();
    }
}

/// Lets `fill` write parts of the growing page in the claimed slot, and makes `to` parts ready.
pub(super) fn grow(
    claim: &mut WriteClaim<'_>,
    to: Ready,
    fill: impl FnOnce(&mut [u8]),
) -> Result<Location, WriteError> {
    claim.check_process()?;
    let slot = claim.slot();
    let refused = |source| WriteError::Grow { slot, source };
    let expected = claim.entry().may_become(to).map_err(refused)?;
    fill(claim.bytes());
    claim.entry().set_ready(to.0).map_err(refused)?;
    Ok(Location { slot, expected })
}
