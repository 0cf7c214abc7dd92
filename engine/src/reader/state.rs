//! Where a reader's whole state lives: made in place, in a `static` or on the heap.
#![allow(unsafe_code, reason = "made in place, and handed out once")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, EngineStartError};
use kvrail_core::hub::Mailbox;
use kvrail_core::provider::Provider;
use kvrail_core::storage;

use super::submitters::Submitters;
use crate::declared::Declared;

/// A reader's state: an engine's storage, and the mailboxes of `SUBMITTERS` threads that feed it, each for
/// `MAIL / 2` batches. [`engine!`](crate::engine) works the numbers out.
pub struct State<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
    const SUBMITTERS: usize,
    const MAIL: usize,
> {
    storage: storage::Storage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
    mailboxes: [MaybeUninit<Mailbox<'static, MAIL>>; SUBMITTERS],
}

/// What [`State`] does for a reader, whatever its numbers. Nothing else implements it.
pub trait Room: Sized + Send + 'static + sealed::Sealed {}

mod sealed {
    use super::*;

    pub trait Sealed: Sized {
        fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self;

        fn open<P: Provider>(
            &'static mut self,
            provider: P,
            figures: EngineConfig,
        ) -> Result<(Engine<'static, P>, Option<Submitters<P>>), EngineStartError>;
    }
}
pub(super) use sealed::Sealed;

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
    const SUBMITTERS: usize,
    const MAIL: usize,
> Room for State<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES, SUBMITTERS, MAIL>
{
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
    const SUBMITTERS: usize,
    const MAIL: usize,
> Sealed for State<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES, SUBMITTERS, MAIL>
{
    fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self {
        type Inner<
            const P: usize,
            const R: usize,
            const L: usize,
            const D: usize,
            const B: usize,
            const N: usize,
        > = MaybeUninit<storage::Storage<P, R, L, D, B, N>>;
        let this = room.as_mut_ptr();
        // SAFETY: `this` points at `room`, which is as large and aligned as a Self.
        let storage = unsafe { &raw mut (*this).storage };
        let storage = storage.cast::<Inner<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>>();
        // SAFETY: within `room`, which is borrowed exclusively; and a MaybeUninit may be any bytes.
        storage::Storage::in_place(unsafe { &mut *storage });
        // SAFETY: the storage has just been made; the mailboxes are MaybeUninit.
        unsafe { room.assume_init_mut() }
    }

    fn open<P: Provider>(
        &'static mut self,
        provider: P,
        figures: EngineConfig,
    ) -> Result<(Engine<'static, P>, Option<Submitters<P>>), EngineStartError> {
        let engine = Engine::start(&mut self.storage, provider, figures)?;
        let mailboxes = self.mailboxes.iter_mut().map(|mailbox| mailbox.write(Mailbox::new()));
        let submitters = (SUBMITTERS > 0).then(|| Submitters::new(&engine, mailboxes));
        Ok((engine, submitters))
    }
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
    const SUBMITTERS: usize,
    const MAIL: usize,
> fmt::Debug for State<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES, SUBMITTERS, MAIL>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("bytes", &size_of::<Self>()).finish_non_exhaustive()
    }
}

/// Room for one reader of the declared type `R`, for a `static`: zeros, which take no place in the program's
/// file, until the reader is started in it.
pub struct Storage<R: Declared> {
    taken: AtomicBool,
    state: UnsafeCell<MaybeUninit<R::State>>,
}

// SAFETY: the state, which is Send, is reachable only through a `TakenStorage`, of which the flag
// allows one at a time.
unsafe impl<R: Declared> Sync for Storage<R> {}

/// A storage has been taken before, and a reader started in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the storage has been taken: it has room for one reader, once; declare another `static` for another one"
)]
pub struct StorageTaken;

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
        Sealed::in_place(unsafe { &mut *self.state.get() })
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
