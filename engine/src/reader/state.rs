//! A reader's whole state: made in place, in a `static` or on the heap.
#![allow(unsafe_code, reason = "made in place; where it is on the heap, it outlives the engine in it")]

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, EngineStartError};
use kvrail_core::hub::Mailbox;
use kvrail_core::provider::Provider;
use kvrail_core::storage;

use super::submitters::Submitters;
use crate::transport::LANE_DEPTH;

/// A reader's state: an engine's storage, and the mailboxes of `SUBMITTERS` threads that feed it,
/// each for `MAIL / 2` batches and `NEWS - MAIL` pages that are told before their batch.
/// [`engine!`](crate::engine) works the numbers out.
pub struct State<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
    const SUBMITTERS: usize,
    const MAIL: usize,
    const NEWS: usize,
> {
    storage: storage::EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
    mailboxes: [MaybeUninit<Mailbox<'static, MAIL, NEWS>>; SUBMITTERS],
}

/// A [`State`] of any numbers. Nothing else implements it.
pub trait Room: Sized + Send + 'static + sealed::SealedState {}

mod sealed {
    use super::*;

    pub trait SealedState: Sized {
        fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self;

        fn open<P: Provider>(
            &'static mut self,
            provider: P,
            engine_config: EngineConfig,
        ) -> Result<(Engine<'static, P>, Option<Submitters<P>>), EngineStartError>;
    }
}
pub(super) use sealed::SealedState;

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
    const SUBMITTERS: usize,
    const MAIL: usize,
    const NEWS: usize,
> Room for State<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES, SUBMITTERS, MAIL, NEWS>
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
    const NEWS: usize,
> SealedState for State<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES, SUBMITTERS, MAIL, NEWS>
{
    fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self {
        type Inner<
            const P: usize,
            const R: usize,
            const L: usize,
            const D: usize,
            const B: usize,
            const N: usize,
        > = MaybeUninit<storage::EngineStorage<P, R, L, D, B, N>>;
        let this = room.as_mut_ptr();
        // SAFETY: `this` points at `room`, which is as large and aligned as a Self.
        let storage = unsafe { &raw mut (*this).storage };
        let storage = storage.cast::<Inner<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>>();
        // SAFETY: within `room`, which is borrowed exclusively; and a MaybeUninit may be any bytes.
        storage::EngineStorage::in_place(unsafe { &mut *storage });
        // SAFETY: the storage has just been made; the mailboxes are MaybeUninit.
        unsafe { room.assume_init_mut() }
    }

    fn open<P: Provider>(
        &'static mut self,
        provider: P,
        engine_config: EngineConfig,
    ) -> Result<(Engine<'static, P>, Option<Submitters<P>>), EngineStartError> {
        let engine = Engine::start(&mut self.storage, provider, engine_config)?;
        let mailboxes = self.mailboxes.iter_mut().map(Mailbox::in_place);
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
    const NEWS: usize,
> fmt::Debug for State<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES, SUBMITTERS, MAIL, NEWS>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("bytes", &size_of::<Self>()).finish_non_exhaustive()
    }
}

/// An empty state, made in place in `room`.
pub(crate) fn made_in<S: Room>(room: &mut MaybeUninit<S>) -> &mut S {
    S::in_place(room)
}

/// How many peers a reader that was not declared has places for, unless its configuration asks for
/// more ([`Config::peers`](crate::Config::peers)).
pub const MAX_PEERS: usize = 64;
/// The most that it can be asked to have places for.
pub const MANY_PEERS: usize = 1_024;
/// The most batches of such a reader: being filled, in flight, or done and not dropped.
pub const MAX_BATCHES: usize = 64;
/// The most pages of one batch of such a reader.
pub const MAX_BATCH: usize = 256;

/// The state of a reader that was not declared.
pub(super) type Undeclared =
    State<MAX_PEERS, 256, 512, { LANE_DEPTH as usize }, MAX_BATCHES, MAX_BATCH, 0, 2, 2>;
/// The same for up to [`MANY_PEERS`] peers, with four regions for each of them, and one lane. A
/// peer that finds no lane free gets one when it is read from.
pub(super) type ManyPeers = State<
    MANY_PEERS,
    { 4 * MANY_PEERS },
    MANY_PEERS,
    { LANE_DEPTH as usize },
    MAX_BATCHES,
    MAX_BATCH,
    0,
    2,
    2,
>;

/// The state of a reader that was not declared, out of a box: freed in the reader's `drop`, when
/// the engine is gone.
pub(super) enum OwnedState {
    Few(NonNull<Undeclared>),
    Many(NonNull<ManyPeers>),
}

static_assertions::assert_impl_all!(Undeclared: Send);
static_assertions::assert_impl_all!(ManyPeers: Send);

// SAFETY: it stands for the box that it came out of, as a Box does, and is used in the reader's
// `drop` alone, by the thread that drops the reader; the state in the box is Send (above). The
// engine's references into it go with the engine, to the same thread.
unsafe impl Send for OwnedState {}

impl OwnedState {
    /// Frees the state.
    ///
    /// # Safety
    ///
    /// Nothing has a reference into it any more.
    pub(super) unsafe fn free(self) {
        match self {
            // SAFETY: it came out of a box, and nothing else refers to it, as the caller promises.
            Self::Few(state) => drop(unsafe { Box::from_raw(state.as_ptr()) }),
            // SAFETY: as above.
            Self::Many(state) => drop(unsafe { Box::from_raw(state.as_ptr()) }),
        }
    }
}

/// An empty state, made on the heap in place.
pub(super) fn boxed<S: Room>() -> Box<S> {
    let mut state = Box::new_uninit();
    S::in_place(&mut state);
    // SAFETY: it has just been made where it is.
    unsafe { state.assume_init() }
}
