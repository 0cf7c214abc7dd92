//! How urgent work is.

use crate::limits::CLASSES;

/// How urgent a batch is. A lane has a class, too
/// ([`Provider::class`](crate::provider::Provider::class)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Served first, for batches that a request waits for.
    #[default]
    Urgent,
    /// Served when no urgent batch waits, and in one turn of sixteen otherwise, so that it is never
    /// starved.
    Background,
}

impl Class {
    /// All classes, each at the place of its [`index`](Self::index).
    pub(crate) const ALL: [Self; CLASSES] = [Self::Urgent, Self::Background];

    /// Its number, below `CLASSES`.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}
