//! How an engine starts: the configuration is checked, the landing area registered, and the parts
//! are built over the storage.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU16, Ordering};

use kvrail_layouts::plan::Limits;

use super::state::{Arrivals, Engine, Sink, Sweep, WCS};
use crate::batch::in_flight::InFlight;
use crate::batch::landing::{Joining, Landing};
use crate::batch::pool::{Held, Pool};
use crate::config::{EngineConfig, EngineConfigError};
use crate::events::{EventSink, NoEvents};
use crate::id::RailIndex;
use crate::lane::lanes::Lanes;
use crate::layout::Layouts;
use crate::limits::{MAX_RAILS, MAX_SGES};
use crate::peer::peers::Peers;
use crate::peer::repairs::Repairs;
use crate::plan::Plans;
use crate::provider::{MemoryRange, Provider, RegisterError};
use crate::rail::Rail;
use crate::rail::rails::Rails;
use crate::regions::Regions;
use crate::storage::room::{EngineStorage, Parts};
use crate::table::Entry;
use crate::time::Time;
use crate::verbs_abi::Wc;

/// Why an engine does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineStartError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] EngineConfigError),
    /// The provider has no rail, or too many.
    #[error("the provider has {0} rails: 1 to 16 can be driven")]
    Rails(usize),
    /// Every engine of a process has a number of its own, so that none takes another's slots, and
    /// the numbers are used up.
    #[error(
        "this process has started 65534 engines, the most that can be told apart: keep engines instead of starting new ones"
    )]
    TooManyEngines,
    /// The provider could not register the landing area for validating READs.
    #[error("the landing area for validating READs cannot be registered: {0}")]
    Landing(#[from] RegisterError),
}

impl EngineStartError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Config(error) => error.code(),
            Self::Rails(..) => 2010,
            Self::TooManyEngines => 2011,
            Self::Landing(error) => error.code(),
        }
    }
}

/// The next number of an engine. Numbers distinguish the engines of a process, so that an engine
/// refuses slots of another.
static NEXT_TAG: AtomicU16 = AtomicU16::new(1);

/// The number after `tag`; `None` when the numbers are used up. Only in a fuzz target numbers are
/// used again: it starts an engine for every input, one after the other, and no slot outlives its
/// engine.
fn next_tag(tag: u16) -> Option<u16> {
    if cfg!(fuzzing) { Some(tag.checked_add(1).unwrap_or(1)) } else { tag.checked_add(1) }
}

impl<P: Provider> Engine<'static, P> {
    /// Starts an engine over a storage that lives for ever: a `static`, or a leaked box.
    ///
    /// # Errors
    ///
    /// The configuration cannot work, the provider has no rail or too many, or it cannot register
    /// the landing area.
    pub fn start<
        const PEERS: usize,
        const REGIONS: usize,
        const LANES: usize,
        const DEPTH: usize,
        const BATCHES: usize,
        const PAGES: usize,
    >(
        storage: &'static mut EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
        provider: P,
        config: EngineConfig,
    ) -> Result<Self, EngineStartError> {
        Self::begin(provider, config, NoEvents, |rails, rail| storage.open(rail, rails))
    }
}

impl<P: Provider, E: EventSink> Engine<'static, P, E> {
    /// As [`start`](Engine::start), with a sink for the engine's [events](crate::events).
    ///
    /// # Errors
    ///
    /// As [`start`](Engine::start).
    pub fn start_with_events<
        const PEERS: usize,
        const REGIONS: usize,
        const LANES: usize,
        const DEPTH: usize,
        const BATCHES: usize,
        const PAGES: usize,
    >(
        storage: &'static mut EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
        provider: P,
        config: EngineConfig,
        events: E,
    ) -> Result<Self, EngineStartError> {
        Self::begin(provider, config, events, |rails, rail| storage.open(rail, rails))
    }
}

impl<'s, P: Provider> Engine<'s, P> {
    /// Starts an engine over a storage that it borrows.
    ///
    /// # Errors
    ///
    /// As [`start`](Engine::start).
    ///
    /// # Safety
    ///
    /// The engine is dropped before the storage is, and is not forgotten (`mem::forget`): hardware
    /// writes validating READs into the storage for as long as the provider lives.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn start_scoped<
        const PEERS: usize,
        const REGIONS: usize,
        const LANES: usize,
        const DEPTH: usize,
        const BATCHES: usize,
        const PAGES: usize,
    >(
        storage: &'s mut EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
        provider: P,
        config: EngineConfig,
    ) -> Result<Self, EngineStartError> {
        Self::begin(provider, config, NoEvents, |rails, rail| storage.open(rail, rails))
    }
}

impl<'s, P: Provider, E: EventSink> Engine<'s, P, E> {
    /// As [`start_scoped`](Engine::start_scoped), with a sink for the engine's
    /// [events](crate::events).
    ///
    /// # Errors
    ///
    /// As [`start`](Engine::start).
    ///
    /// # Safety
    ///
    /// As [`start_scoped`](Engine::start_scoped).
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn start_scoped_with_events<
        const PEERS: usize,
        const REGIONS: usize,
        const LANES: usize,
        const DEPTH: usize,
        const BATCHES: usize,
        const PAGES: usize,
    >(
        storage: &'s mut EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
        provider: P,
        config: EngineConfig,
        events: E,
    ) -> Result<Self, EngineStartError> {
        Self::begin(provider, config, events, |rails, rail| storage.open(rail, rails))
    }

    fn begin(
        mut provider: P,
        config: EngineConfig,
        events: E,
        open: impl FnOnce(usize, &dyn Fn(usize) -> Rail) -> Parts<'s, P::Lane>,
    ) -> Result<Self, EngineStartError> {
        config.check()?;
        let rails = provider.rails();
        if rails == 0 || rails > MAX_RAILS {
            return Err(EngineStartError::Rails(rails));
        }
        let rail = |i| Rail::new(provider.rail(RailIndex::at(i)), &config);
        let parts = open(rails, &rail);
        let landing: &'s [Entry] = parts.landing;
        let landing_range = MemoryRange {
            addr: landing.as_ptr().expose_provenance() as u64,
            len: size_of_val(landing) as u64,
        };
        let landing_keys = provider.register(landing_range)?;

        let tag = NEXT_TAG.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next_tag);
        let tag = tag.map_err(|_| EngineStartError::TooManyEngines)?;
        let limits = Limits { sges: provider.sges().clamp(1, MAX_SGES), bytes: config.chunk_bytes };
        let joining = Joining::new(limits.sges, provider.read_overhead());
        let chunk_shift = config.chunk_bytes.trailing_zeros() as u8;
        let layouts = Layouts::new(parts.layouts, tag);
        let pool = Pool::new(
            parts.heads,
            parts.pages,
            parts.free,
            (layouts.table(), parts.plan_lives),
            chunk_shift,
            tag,
        );
        Ok(Self {
            provider: ManuallyDrop::new(provider),
            sink: Sink::new(events),
            chunk_shift,
            tag,
            rails: Rails::new(parts.rails, &config),
            lanes: Lanes::new(parts.lanes, parts.records, parts.depth),
            peers: Peers::new(parts.peers, parts.turns, parts.seats, parts.trials),
            repairs: Repairs::new(
                parts.paths,
                parts.missing,
                parts.repairs,
                parts.lost,
                config.reconnects,
                rails,
            ),
            regions: Regions::new(parts.locals, parts.pieces, parts.remotes),
            layouts,
            plans: Plans::new(parts.plans, parts.plan_rows, parts.plan_lists, parts.plan_lives, limits, tag),
            pages: Held::new(pool),
            landing: Landing::new(landing, landing_keys, joining),
            in_flight: InFlight::new(parts.flying, parts.overdue, parts.deadlines, parts.done),
            sweep: Sweep { lane: usize::MAX, next: Time::ZERO, seat: 0 },
            arrivals: Arrivals { wcs: [Wc::default(); WCS], slept: false, armed: false, behind: false },
            config,
        })
    }
}
