//! The memory of a model, with its maxima.

use heapless::{Deque, Vec};
use kvrail_core::id::MAX_RAILS;
use kvrail_core::provider::{MemoryRange, ProviderEvent};
use kvrail_core::time::Nanos;

use super::action::Action;
use super::config::{RailSpec, Rate};
use super::handle::LaneHandle;
use super::lane::{Lane, Wr};
use super::limits::{EVENTS, MEMORIES_PER_PEER, PLANS, PROTECTIONS, REGISTRATIONS};
use super::memory::{Local, Remote};
use super::model::{Cqe, Peer, Rail, SimRailStats};
use super::script::Fate;

/// Room for a model of at most `RAILS` rails with `CQES` completion queue entries each, `PEERS`
/// peers, and `LANES` lanes with send queues of `DEPTH` entries. One storage serves one model after
/// another.
///
/// It is large (some 100 bytes per send queue entry, 64 per completion queue entry): box it, or
/// make it a local of a test with small numbers.
#[derive(Debug)]
pub struct SimStorage<
    const RAILS: usize,
    const PEERS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const CQES: usize,
> {
    pub(super) rails: [Rail; RAILS],
    pub(super) peers: [Peer; PEERS],
    pub(super) remote: [[Remote; MEMORIES_PER_PEER]; PEERS],
    pub(super) local: [Local; REGISTRATIONS],
    pub(super) protected: Vec<MemoryRange, PROTECTIONS>,
    pub(super) lanes: [Lane; LANES],
    pub(super) times: [u64; LANES],
    pub(super) winners: [[u16; 2]; LANES],
    pub(super) wrs: [[Wr; DEPTH]; LANES],
    pub(super) cqs: [Deque<Cqe, CQES>; RAILS],
    pub(super) events: Deque<ProviderEvent, EVENTS>,
    pub(super) actions: Vec<(u64, Action), PLANS>,
    pub(super) fates: Vec<(LaneHandle, Fate), PLANS>,
}

impl<const RAILS: usize, const PEERS: usize, const LANES: usize, const DEPTH: usize, const CQES: usize>
    SimStorage<RAILS, PEERS, LANES, DEPTH, CQES>
{
    /// An empty storage.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(RAILS >= 1 && RAILS <= MAX_RAILS, "RAILS must be 1 to MAX_RAILS");
            assert!(LANES >= 1 && LANES <= 1 << 16, "LANES must be 1 to 65536");
            assert!(PEERS >= 1 && PEERS <= 1 << 14, "PEERS must be 1 to 16384");
            assert!(DEPTH >= 1 && CQES >= 1, "DEPTH and CQES must be at least 1");
        }
        let spec = RailSpec { rtt: Nanos(0), cq_entries: 0, ..RailSpec::GBITS_400 };
        let rail = Rail { spec, rate: Rate::UNLIMITED, free: 0, up: false, stats: SimRailStats::NONE };
        Self {
            rails: [rail; RAILS],
            peers: [Peer::NEW; PEERS],
            remote: [[Remote::NONE; MEMORIES_PER_PEER]; PEERS],
            local: [Local::NONE; REGISTRATIONS],
            protected: Vec::new(),
            lanes: [Lane::NONE; LANES],
            times: [0; LANES],
            winners: [[0; 2]; LANES],
            wrs: [[Wr::NONE; DEPTH]; LANES],
            cqs: [const { Deque::new() }; RAILS],
            events: Deque::new(),
            actions: Vec::new(),
            fates: Vec::new(),
        }
    }
}

impl<const RAILS: usize, const PEERS: usize, const LANES: usize, const DEPTH: usize, const CQES: usize>
    Default for SimStorage<RAILS, PEERS, LANES, DEPTH, CQES>
{
    fn default() -> Self {
        Self::new()
    }
}
