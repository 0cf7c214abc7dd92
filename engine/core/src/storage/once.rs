//! A storage in a `static`, which one engine takes.
#![allow(unsafe_code, reason = "a static that gives out its content to one caller")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use super::room::EngineStorage;
use crate::config::EngineConfig;
use crate::engine::{Engine, EngineStartError};
use crate::events::{EventSink, NoEvents};
use crate::provider::Provider;

/// Holds a storage in a `static`, and gives it to one caller.
#[derive(Debug)]
pub struct StaticStorage<S> {
    taken: AtomicBool,
    storage: UnsafeCell<S>,
}

// SAFETY: the storage is reachable only through `take`, which gives it to one caller at a time. It
// gives it out again only after `give_back`, whose caller promises that nothing uses the first
// reference any more.
unsafe impl<S: Send> Sync for StaticStorage<S> {}

impl<S> StaticStorage<S> {
    /// Wraps a storage.
    pub const fn new(storage: S) -> Self {
        Self { taken: AtomicBool::new(false), storage: UnsafeCell::new(storage) }
    }

    /// Takes the storage; `None` if it has been taken before. If the engine then does not start,
    /// the storage stays taken: [`start`](Self::start) makes it available again.
    #[allow(clippy::mut_from_ref, reason = "the flag lets exactly one caller have the reference")]
    pub fn take(&'static self) -> Option<&'static mut S> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: the swap lets exactly one caller get here, so the reference is the only one.
        Some(unsafe { &mut *self.storage.get() })
    }

    /// Lets the storage be taken again.
    ///
    /// # Safety
    ///
    /// Nothing uses the reference that [`take`](Self::take) has returned any more.
    pub unsafe fn give_back(&'static self) {
        self.taken.store(false, Ordering::Release);
    }
}

/// Why no engine was started in a [`StaticStorage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StaticStartError {
    /// The storage has been taken before.
    #[error("the storage has been taken already: it has room for one engine; declare another one")]
    Taken,
    /// The engine did not start. The storage can be taken again.
    #[error(transparent)]
    Engine(#[from] EngineStartError),
}

impl StaticStartError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Taken => 2020,
            Self::Engine(error) => error.code(),
        }
    }
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> StaticStorage<EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>>
{
    /// Takes the storage and starts an engine in it ([`Engine::start`]). If that fails, the storage
    /// can be taken again.
    ///
    /// # Errors
    ///
    /// The storage has been taken, or the engine does not start.
    pub fn start<P: Provider>(
        &'static self,
        provider: P,
        config: EngineConfig,
    ) -> Result<Engine<'static, P>, StaticStartError> {
        self.start_with_events(provider, config, NoEvents)
    }

    /// As [`start`](Self::start), with a sink for the engine's [events](crate::events):
    /// [`Engine::start_with_events`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with_events<P: Provider, E: EventSink>(
        &'static self,
        provider: P,
        config: EngineConfig,
        events: E,
    ) -> Result<Engine<'static, P, E>, StaticStartError> {
        let storage = self.take().ok_or(StaticStartError::Taken)?;
        let started = Engine::start_with_events(storage, provider, config, events);
        if started.is_err() {
            // SAFETY: the reference went into `start_with_events`, which keeps it in the engine or
            // nowhere.
            unsafe { self.give_back() };
        }
        Ok(started?)
    }
}
