//! The engine: one thread's rails, lanes, peers and batches.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | start, the state and who owns what |
//! | `setup.rs` | regions, peers, lanes: the control path |
//! | `submit.rs` | batches in, done batches out |
//! | `pump.rs` | whose turn it is, which rail, which lane |
//! | `plain.rs` | pages that are alike and one chunk each, in runs |
//! | `post.rs` | a run of any other chunks becomes one commit |
//! | `reap.rs` | completions come back |
//! | `death.rs` | lanes fail, are flushed, and what they had goes elsewhere |
//! | `mend.rs` | lanes are made again |
//! | `suspects.rs` | wrs that kill lanes are found out, and set aside |
//! | `timers.rs` | deadlines, stalls, sleeping |

mod death;
mod mend;
mod plain;
mod post;
mod pump;
mod reap;
mod setup;
mod submit;
mod suspects;
mod timers;

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU16, Ordering};

use kvrail_layouts::plan::Limits;

pub use self::mend::{LaneLost, LaneWanted};
pub use self::setup::{AttachError, LaneSpec, PeerError};
pub use self::submit::Rejected;

use crate::abi::Wc;
use crate::config::{Config, ConfigError};
use crate::fifo::Fifo;
use crate::id::{MAX_RAILS, RailIndex};
use crate::lane::{Lane, NO_LANE, Record, place};
use crate::layout::Layouts;
use crate::page::{List, Queued};
use crate::peer::{CLASSES, Local, Peer, PeerStats, Remote};
use crate::plan::{MAX_SGES, Plans};
use crate::pool::{Held, Pool};
use crate::provider::{MemoryRange, Provider, RailKeys, RegisterError};
use crate::rail::{Choice, Rail, RailStats};
use crate::repairs::Repairs;
use crate::storage::{Parts, Storage};
use crate::table::Entry;
use crate::time::{Nanos, Time};
use crate::turns::Turns;

/// Completions taken from a rail in one call of the provider.
const WCS: usize = 32;

/// Why an engine does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No rails, or too many.
    #[error("the provider has {0} rails: 1 to 16 can be driven")]
    Rails(usize),
    /// Every engine of a process has a name of its own, so that none takes another's slots.
    #[error("65534 engines have been started by this process, the most that can be told apart")]
    TooManyEngines,
    /// The landing area for validating READs.
    #[error("the landing area for validating READs: {0}")]
    Landing(#[from] RegisterError),
}

/// One engine: owned and driven by one thread.
#[derive(Debug)]
pub struct Engine<'s, P: Provider> {
    provider: ManuallyDrop<P>,
    config: Config,
    chunk_shift: u8,
    tag: u16,

    rails: &'s mut [Rail],
    choice: Choice,
    /// Lanes that are silent and rails under suspicion, together.
    hushed: u32,
    /// Estimated bytes per second of all rails that are up.
    rate: u64,
    /// A deadline that is further away than this cannot be hopeless, whatever is outstanding.
    tight: Nanos,
    /// The most bytes that a batch can hold: its pages, times the largest slot.
    largest_batch: u64,
    locals: &'s mut [Local],
    remotes: &'s mut [Remote],

    peers: &'s mut [Peer],
    /// No peer's place, and no remote region's, below these is free, as far as is known.
    free_peer: usize,
    free_remote: usize,
    turns: Turns<'s>,
    repairs: Repairs<'s>,

    lanes: &'s mut [Lane<P::Lane>],
    records: &'s mut [Record],
    depth: u32,
    /// No lane below this one is free, as far as is known.
    free_lane: usize,

    pages: Held<'s>,
    plans: Plans<'s>,
    layouts: Layouts<'s>,
    landing: &'s [Entry],
    landing_keys: RailKeys,
    done: Fifo<'s, u16>,
    lost: Fifo<'s, LaneLost>,
    /// Batches in flight, and those of them whose deadline has passed and nobody has been told.
    flying: &'s mut [u64],
    overdue: &'s mut [u64],
    in_flight: u32,
    serial: u32,
    /// The first number that no submitter of a hub has had.
    origins: u16,

    /// A lower bound of the deadlines in flight, of each group of 64 batches and of all.
    deadlines: &'s mut [Time],
    next_deadline: Time,
    /// Where the look for stalled lanes stands, and when the next one begins.
    sweep: usize,
    next_sweep: Time,
    /// The engine has slept since the last poll: what woke it may lie in any completion queue, even of a
    /// rail that has nothing outstanding (the last words of a lane that was destroyed).
    woken: bool,
    /// The last poll left completions in a queue.
    behind: bool,
    /// Lanes that are neither free nor up.
    dying: u32,
    /// Segments put aside because they could not make their deadlines.
    parked: [List<Queued>; CLASSES],
    /// Peers with wrs that are suspected of killing lanes.
    doubted: Fifo<'s, u16>,
    wcs: [Wc; WCS],
}

/// Tells engines of one process apart, so that a slot of one is refused by another.
static NEXT_TAG: AtomicU16 = AtomicU16::new(1);

/// A fuzz target starts an engine for every input, one after the other, and no slot of one meets another.
fn next_tag(tag: u16) -> Option<u16> {
    if cfg!(fuzzing) { Some(tag.checked_add(1).unwrap_or(1)) } else { tag.checked_add(1) }
}

impl<P: Provider> Engine<'static, P> {
    /// Starts an engine in storage that lives for ever: a `static`, or a leaked box.
    ///
    /// # Errors
    ///
    /// A configuration that cannot work, a provider without rails, or one that cannot register memory.
    pub fn start<
        const PEERS: usize,
        const REGIONS: usize,
        const LANES: usize,
        const DEPTH: usize,
        const BATCHES: usize,
        const PAGES: usize,
    >(
        storage: &'static mut Storage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
        provider: P,
        config: Config,
    ) -> Result<Self, StartError> {
        Self::begin(provider, config, |rails, rail| storage.open(rail, rails))
    }
}

impl<'s, P: Provider> Engine<'s, P> {
    /// Starts an engine in storage that its owner keeps.
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
        storage: &'s mut Storage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>,
        provider: P,
        config: Config,
    ) -> Result<Self, StartError> {
        Self::begin(provider, config, |rails, rail| storage.open(rail, rails))
    }

    fn begin(
        mut provider: P,
        config: Config,
        open: impl FnOnce(usize, &dyn Fn(usize) -> Rail) -> Parts<'s, P::Lane>,
    ) -> Result<Self, StartError> {
        config.check()?;
        let rails = provider.rails();
        if rails == 0 || rails > MAX_RAILS {
            return Err(StartError::Rails(rails));
        }
        let rail = |i| Rail::new(provider.rail(RailIndex(i as u8)), &config);
        let parts = open(rails, &rail);
        let landing: &'s [Entry] = parts.landing;
        let landing_range = MemoryRange {
            addr: landing.as_ptr().expose_provenance() as u64,
            len: size_of_val(landing) as u64,
        };
        let landing_keys = provider.register(landing_range)?;

        let tag = NEXT_TAG.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next_tag);
        let tag = tag.map_err(|_| StartError::TooManyEngines)?;
        let limits = Limits { sges: provider.sges().clamp(1, MAX_SGES), bytes: config.chunk_bytes };
        let chunk_shift = config.chunk_bytes.trailing_zeros() as u8;
        let layouts = Layouts::new(parts.layouts, tag);
        let pool = Pool::new(parts.heads, parts.pages, parts.free, layouts.table(), chunk_shift, tag);
        let mut engine = Self {
            provider: ManuallyDrop::new(provider),
            config,
            chunk_shift,
            tag,
            choice: Choice::NONE,
            hushed: 0,
            rate: 0,
            tight: Nanos(u64::MAX),
            largest_batch: 0,
            rails: parts.rails,
            locals: parts.locals,
            remotes: parts.remotes,
            peers: parts.peers,
            free_peer: 0,
            free_remote: 0,
            turns: Turns::new(parts.turns),
            repairs: Repairs::new(parts.paths, parts.repairs, config.reconnects, rails),
            lanes: parts.lanes,
            records: parts.records,
            depth: parts.depth,
            free_lane: 0,
            pages: Held::new(pool),
            plans: Plans::new(parts.plans, parts.plan_lists, limits, tag),
            layouts,
            landing,
            landing_keys,
            done: Fifo::new(parts.done),
            lost: Fifo::new(parts.lost),
            flying: parts.flying,
            overdue: parts.overdue,
            in_flight: 0,
            serial: 0,
            origins: 1,
            deadlines: parts.deadlines,
            next_deadline: Time::NEVER,
            sweep: usize::MAX,
            next_sweep: Time::ZERO,
            woken: false,
            behind: false,
            dying: 0,
            parked: [List::EMPTY; CLASSES],
            doubted: Fifo::new(parts.doubted),
            wcs: [Wc::default(); WCS],
        };
        (0..rails).for_each(|rail| engine.refresh_room(rail));
        engine.refresh_rate();
        Ok(engine)
    }

    /// The provider, to look at. There is no `&mut` to it: code that could exchange the provider,
    /// or close one of its lanes, could make the engine give memory back that is still being
    /// written.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// The configuration in use.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How many rails it drives.
    #[must_use]
    pub const fn rails(&self) -> usize {
        self.rails.len()
    }

    /// The most send queue entries of a lane, the drain's included: the depth of its storage.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// What a rail has done, or `None` for a rail that is not there.
    #[must_use]
    pub fn rail_stats(&self, rail: RailIndex) -> Option<RailStats> {
        self.rails.get(rail.get()).map(|rail| rail.stats)
    }

    /// What the scheduler takes a rail's bandwidth for just now, in bytes per second.
    #[must_use]
    pub fn rail_bytes_per_sec(&self, rail: RailIndex) -> Option<u64> {
        self.rails.get(rail.get()).map(Rail::bytes_per_sec)
    }

    /// What a peer has given, or `None` once it has been removed.
    #[must_use]
    pub fn peer_stats(&self, peer: crate::id::PeerId) -> Option<PeerStats> {
        self.peer(peer).map(|peer| peer.stats)
    }

    /// Batches submitted and not yet done.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// wrs outstanding on living lanes.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.rails.iter().map(|rail| (rail.wrs + rail.silent_wrs) as usize).sum()
    }

    /// Lanes whose QPs may still exist though they no longer serve.
    #[must_use]
    pub const fn lanes_dying(&self) -> usize {
        self.dying as usize
    }

    fn peer(&self, id: crate::id::PeerId) -> Option<&Peer> {
        let peer = self.peers.get(id.index())?;
        (peer.life == id.life && peer.state == crate::peer::PeerState::Up).then_some(peer)
    }

    /// Brings up to date whether a rail is up and below its caps, and when it would be through.
    #[inline]
    fn refresh_room(&mut self, rail: usize) {
        self.choice.refresh(rail, &self.rails[rail]);
    }

    /// Brings up to date what all rails together are taken to carry.
    fn refresh_rate(&mut self) {
        let up = self.rails.iter().filter(|rail| rail.up);
        let (rate, caps) = up
            .fold((0, 0), |(rate, caps), rail| (rate + rail.bytes_per_sec(), caps + self.config.rail_bytes));
        // The most that `hopeless` can find.
        let caps = u128::from(3 * caps + 2 * self.largest_batch) * 1_000_000_000;
        self.rate = rate;
        self.tight = Nanos(u64::try_from(caps / u128::from(rate.max(1))).unwrap_or(u64::MAX));
    }

    /// The ring of a lane.
    #[inline]
    fn record(&mut self, lane: usize, seq: u32) -> &mut Record {
        &mut self.records[place(lane, seq, self.depth)]
    }
}

impl<P: Provider> Drop for Engine<'_, P> {
    /// The provider first: from then on nothing writes into any slot or into the landing area.
    #[allow(unsafe_code, reason = "the provider goes before its lanes")]
    fn drop(&mut self) {
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.provider) };
        // Storage does not know what its lanes are.
        self.lanes.iter_mut().for_each(|lane| lane.handle = None);
    }
}

/// The lanes of a circle: `first` and what follows until it comes round.
fn next_in_circle<L>(lanes: &[Lane<L>], at: u16, first: u16) -> Option<u16> {
    let next = lanes[usize::from(at)].next;
    (next != first && next != NO_LANE).then_some(next)
}
