//! Room for a declared reader's state in a `static`, given out once.
#![allow(unsafe_code, reason = "a state is given back when nothing uses it any more")]

use std::fmt;
use std::mem::MaybeUninit;

use kvrail_core::storage::StaticStorage;

use super::state::{Room, SealedState};
use crate::macro_support::declared_reader::Declared;

/// Room for one reader of the declared type `R`, for a `static`. It takes no place in the program's
/// file, and is uninitialised until the reader is started in it.
pub struct Storage<R: Declared>(StaticStorage<MaybeUninit<R::State>>);

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
    state: &'static mut MaybeUninit<S>,
    give_back: GiveBack<S>,
}

/// Lets a storage be taken again when it is dropped.
struct GiveBack<S: Room>(&'static StaticStorage<MaybeUninit<S>>);

impl<S: Room> TakenStorage<S> {
    /// Starts a reader in the state, made anew.
    ///
    /// # Safety
    ///
    /// If `start` fails, nothing uses the state any more.
    pub(crate) unsafe fn start<T, E>(
        self,
        start: impl FnOnce(&'static mut S) -> Result<T, E>,
    ) -> Result<T, E> {
        let Self { state, give_back } = self;
        let started = start(SealedState::in_place(state))?;
        // The reader keeps the state for ever.
        std::mem::forget(give_back);
        Ok(started)
    }
}

impl<S: Room> Drop for GiveBack<S> {
    fn drop(&mut self) {
        // SAFETY: it is dropped together with the unused reference, or after a start that failed,
        // by which nothing uses the reference any more.
        unsafe { self.0.give_back() };
    }
}

impl<S: Room> fmt::Debug for TakenStorage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakenStorage").field("bytes", &size_of::<S>()).finish_non_exhaustive()
    }
}

impl<R: Declared> Storage<R> {
    /// A storage that has not been taken.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "for a static, not in passing")]
    pub const fn new() -> Self {
        Self(StaticStorage::new(MaybeUninit::uninit()))
    }

    /// The state, to be given to `R`'s `start`.
    ///
    /// # Errors
    ///
    /// A reader has been started in it, or is being started.
    pub fn take(&'static self) -> Result<TakenStorage<R::State>, StorageTaken> {
        let state = self.0.take().ok_or(StorageTaken)?;
        Ok(TakenStorage { state, give_back: GiveBack(&self.0) })
    }
}

impl<R: Declared> fmt::Debug for Storage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("bytes", &size_of::<R::State>()).finish_non_exhaustive()
    }
}
