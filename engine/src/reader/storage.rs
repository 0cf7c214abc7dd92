//! Room for a declared reader's state in a `static`, given out once.
#![allow(unsafe_code, reason = "made in place, and handed out once")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use super::state::{Room, SealedState};
use crate::macro_support::declaration::Declared;

/// Room for one reader of the declared type `R`, for a `static`: zeros, which take no place in the
/// program's file, until the reader is started in it.
pub struct Storage<R: Declared> {
    taken: AtomicBool,
    state: UnsafeCell<MaybeUninit<R::State>>,
}

// SAFETY: the state, which is Send, is reachable only through a `TakenStorage`, of which the flag
// allows one at a time.
unsafe impl<R: Declared> Sync for Storage<R> {}

/// A storage that has been taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the storage has been taken: it has room for one reader, once; declare another `static` for another one"
)]
pub struct StorageTaken;

impl StorageTaken {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        6020
    }
}

/// The state `S` of a [`Storage`], taken, for a declared reader's `start`. If no reader is started
/// in it (it is dropped, or the start fails) the storage can be taken again.
#[must_use = "a reader is started in it"]
pub struct TakenStorage<S: Room> {
    taken: &'static AtomicBool,
    state: &'static UnsafeCell<MaybeUninit<S>>,
}

// SAFETY: of a storage there is one `TakenStorage` at a time, so it is the only way to the state,
// which is Send.
unsafe impl<S: Room> Send for TakenStorage<S> {}

impl<S: Room> TakenStorage<S> {
    /// The state, made anew.
    ///
    /// # Safety
    ///
    /// By the time that `self` is dropped nothing uses the state any more; if something may, `self`
    /// is forgotten. The state is asked for once.
    pub(crate) unsafe fn state(&self) -> &'static mut S {
        // SAFETY: `take` made this the storage's only `TakenStorage`, and the caller asks it once:
        // so this is the only reference. Another follows after the drop of `self`, by which nothing
        // uses this one any more.
        SealedState::in_place(unsafe { &mut *self.state.get() })
    }

    /// A reader has been started in the state, which is never given out again.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl<S: Room> Drop for TakenStorage<S> {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl<S: Room> fmt::Debug for TakenStorage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakenStorage").field("bytes", &size_of::<S>()).finish_non_exhaustive()
    }
}

impl<R: Declared> Storage<R> {
    /// Empty.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "for a static, not in passing")]
    pub const fn new() -> Self {
        Self { taken: AtomicBool::new(false), state: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// The state, to be given to `R`'s `start`.
    ///
    /// # Errors
    ///
    /// A reader has been started in it, or is being started.
    pub fn take(&'static self) -> Result<TakenStorage<R::State>, StorageTaken> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return Err(StorageTaken);
        }
        Ok(TakenStorage { taken: &self.taken, state: &self.state })
    }
}

impl<R: Declared> fmt::Debug for Storage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("bytes", &size_of::<R::State>())
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
