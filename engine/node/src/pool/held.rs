//! Pages of a pool that are kept for a while.

use std::fmt;
use std::ops::Deref;

use kvrail::LocalPage;

use super::shared::Hold;
use crate::key::Key;
use crate::record::Record;

/// A page that is not evicted while this value exists: one that was handed over to a peer, and that
/// the peer is about to read. It can be moved to any thread and outlives the pool's handle.
///
/// A page that is *removed*, or replaced, is a miss from then on, pinned or not.
#[must_use = "dropping it lets the page be evicted"]
pub struct Pin {
    hold: Hold,
}

impl Pin {
    pub(super) const fn of(hold: Hold) -> Self {
        Self { hold }
    }

    /// The page's key.
    #[must_use]
    pub const fn key(&self) -> Key {
        Key(self.hold.record().tag)
    }

    /// Where the page is.
    #[must_use]
    pub const fn record(&self) -> Record {
        self.hold.record()
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.record()).finish()
    }
}

/// The bytes of a page of this process's own pool. They do not change while this value exists, even
/// if the page is removed.
#[must_use = "it has the bytes"]
pub struct LocalRead<'a> {
    // Before the hold: when the slot can be taken again, no reader of it exists.
    page: LocalPage<'a>,
    hold: Hold,
}

impl<'a> LocalRead<'a> {
    pub(super) const fn of(page: LocalPage<'a>, hold: Hold) -> Self {
        Self { page, hold }
    }

    /// The page's key.
    #[must_use]
    pub const fn key(&self) -> Key {
        Key(self.hold.record().tag)
    }

    /// Where the page is.
    #[must_use]
    pub const fn record(&self) -> Record {
        self.hold.record()
    }
}

impl Deref for LocalRead<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.page
    }
}

impl fmt::Debug for LocalRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalRead").field(&self.record()).finish()
    }
}
