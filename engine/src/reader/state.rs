//! Where a reader's whole state lives: made in place, in a `static` or on the heap.
#![allow(unsafe_code, reason = "made in place, and handed out once")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::config::Config;
use kvrail_core::engine::{Engine, StartError};
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
            figures: Config,
        ) -> Result<(Engine<'static, P>, Option<Submitters<P>>), StartError>;
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
        figures: Config,
    ) -> Result<(Engine<'static, P>, Option<Submitters<P>>), StartError> {
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

// SAFETY: the state is reachable only through `take`, which gives it to one caller, once.
unsafe impl<R: Declared> Sync for Storage<R> {}

/// A storage has been taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the storage has been taken: it has room for one reader, once; declare another `static` for another one"
)]
pub struct StorageTaken;

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
    /// It has been taken before.
    #[allow(clippy::mut_from_ref, reason = "the flag lets exactly one caller have it")]
    pub fn take(&'static self) -> Result<&'static mut R::State, StorageTaken> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return Err(StorageTaken);
        }
        // SAFETY: the swap lets exactly one caller get here, so the reference is the only one.
        Ok(Sealed::in_place(unsafe { &mut *self.state.get() }))
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
