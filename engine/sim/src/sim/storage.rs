//! Where a model lives.

use kvrail_core::id::{RailIndex, WrId};
use kvrail_core::provider::{MemoryRange, ProviderEvent};
use kvrail_core::time::Nanos;
use kvrail_core::verbs_abi::{Wc, WcStatus};

use super::action::Action;
use super::config::{RailSpec, Rate};
use super::lane::{Lane, Wr};
use super::memory::{Local, MEMORIES_PER_PEER, Remote};
use super::model::{Cqe, Peer, Rail};
use super::script::Fate;
use super::{LaneKey, PeerKey, RailStats};

/// Local registrations at a time. A key holds the place of its registration in six bits.
pub(super) const REGISTRATIONS: usize = 64;
/// Protected ranges at a time.
pub(super) const PROTECTIONS: usize = 512;
/// Scripted fates, and scheduled actions, at a time.
pub(super) const PLANS: usize = 64;
/// Unread events per lane: failed by itself, failed on request, closed, and one of a rail.
pub(super) const EVENTS_PER_LANE: usize = 4;

/// Room for a model of at most `RAILS` rails with `CQES` completion queue entries each, `PEERS` peers,
/// and `LANES` lanes with send queues of `DEPTH`. All are maxima. One storage serves one model after
/// another.
///
/// It is large (some 100 bytes per send queue entry, 64 per completion queue entry): box it, or make
/// it a local of a test with small numbers.
#[derive(Debug)]
pub struct Storage<
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
    pub(super) protected: [MemoryRange; PROTECTIONS],
    pub(super) lanes: [Lane; LANES],
    pub(super) times: [u64; LANES],
    pub(super) winners: [[u16; 2]; LANES],
    pub(super) wrs: [[Wr; DEPTH]; LANES],
    pub(super) cqes: [[Cqe; CQES]; RAILS],
    pub(super) events: [[ProviderEvent; EVENTS_PER_LANE]; LANES],
    pub(super) actions: [(u64, Action); PLANS],
    pub(super) fates: [(LaneKey, Fate); PLANS],
}

const NO_LANE: LaneKey = LaneKey { place: u16::MAX, life: 0 };

impl<const RAILS: usize, const PEERS: usize, const LANES: usize, const DEPTH: usize, const CQES: usize>
    Storage<RAILS, PEERS, LANES, DEPTH, CQES>
{
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(RAILS >= 1 && RAILS <= kvrail_core::id::MAX_RAILS, "between one rail and MAX_RAILS");
            assert!(LANES >= 1 && LANES <= 1 << 16, "between one lane and 65,536");
            assert!(PEERS >= 1 && PEERS <= 1 << 14, "between one peer and 16,384");
            assert!(DEPTH >= 1 && CQES >= 1, "queues have entries");
        }
        let spec = RailSpec { rtt: Nanos(0), cq_entries: 0, ..RailSpec::GBITS_400 };
        let rail = Rail { spec, rate: Rate::UNLIMITED, free: 0, up: false, stats: RailStats::NONE };
        let wc = Wc::new(WrId(0), WcStatus::SUCCESS, 0, 0);
        Self {
            rails: [rail; RAILS],
            peers: [Peer::NEW; PEERS],
            remote: [[Remote::NONE; MEMORIES_PER_PEER]; PEERS],
            local: [Local::NONE; REGISTRATIONS],
            protected: [MemoryRange { addr: 0, len: 0 }; PROTECTIONS],
            lanes: [Lane::NONE; LANES],
            times: [0; LANES],
            winners: [[0; 2]; LANES],
            wrs: [[Wr::NONE; DEPTH]; LANES],
            cqes: [[Cqe { wc, lane: NO_LANE, upto: 0 }; CQES]; RAILS],
            events: [[ProviderEvent::RailUp(RailIndex(0)); EVENTS_PER_LANE]; LANES],
            actions: [(0, Action::PeerUp(PeerKey(0))); PLANS],
            fates: [(NO_LANE, Fate::DrainLost); PLANS],
        }
    }
}

impl<const RAILS: usize, const PEERS: usize, const LANES: usize, const DEPTH: usize, const CQES: usize>
    Default for Storage<RAILS, PEERS, LANES, DEPTH, CQES>
{
    fn default() -> Self {
        Self::new()
    }
}
