//! The state of an engine: a few parts, each with an invariant of its own.

use core::mem::ManuallyDrop;

use crate::batch::in_flight::InFlight;
use crate::batch::landing::Landing;
use crate::batch::pool::Held;
use crate::config::EngineConfig;
use crate::events::{EngineEvent, EventSink, NoEvents};
use crate::id::{PeerId, RailIndex, Ticket};
use crate::lane::lanes::Lanes;
use crate::layout::Layouts;
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::peer::PeerStats;
use crate::peer::peers::Peers;
use crate::peer::repairs::Repairs;
use crate::plan::Plans;
use crate::provider::Provider;
use crate::rail::RailStats;
use crate::rail::rails::Rails;
use crate::regions::Regions;
use crate::time::Time;
use crate::verbs_abi::Wc;

/// Completions taken from a rail in one call of the provider.
pub(super) const WCS: usize = 32;

/// One engine: owned and driven by one thread. `E` takes its [events](crate::events).
#[derive(Debug)]
pub struct Engine<'s, P: Provider, E: EventSink = NoEvents> {
    pub(super) provider: ManuallyDrop<P>,
    pub(super) events: E,
    pub(super) config: EngineConfig,
    /// The binary logarithm of `config.chunk_bytes`.
    pub(super) chunk_shift: u8,
    /// This engine's name among those of the process.
    pub(super) tag: u16,
    pub(super) rails: Rails<'s>,
    pub(super) lanes: Lanes<'s, P::Lane>,
    pub(super) peers: Peers<'s>,
    pub(super) repairs: Repairs<'s>,
    pub(super) regions: Regions<'s>,
    pub(super) layouts: Layouts<'s>,
    pub(super) plans: Plans<'s>,
    pub(super) pages: Held<'s>,
    pub(super) landing: Landing<'s>,
    pub(super) in_flight: InFlight<'s>,
    pub(super) sweep: Sweep,
    pub(super) arrivals: Arrivals,
}

/// Where the look for stalled lanes stands.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The lane that is looked at next; the number of lanes, or more, between two sweeps.
    pub(super) lane: usize,
    /// When the next sweep begins.
    pub(super) next: Time,
}

/// Completions on their way from the provider.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Those that the provider gave last.
    pub(super) wcs: [Wc; WCS],
    /// The engine has slept since the last poll: what woke it may lie in any completion queue, even
    /// of a rail that has nothing outstanding (the last words of a lane that was destroyed).
    pub(super) slept: bool,
    /// The last poll left completions in a queue: that a lane has completed nothing says nothing
    /// then.
    pub(super) behind: bool,
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// The provider, to look at. There is no `&mut` to it: code that could exchange the provider,
    /// or close one of its lanes, could make the engine give memory back that is still being
    /// written.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// The configuration in use.
    #[must_use]
    pub const fn config(&self) -> &EngineConfig {
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
        self.lanes.depth
    }

    /// What a rail has done, or `None` for a rail that is not there.
    #[must_use]
    pub fn rail_stats(&self, rail: RailIndex) -> Option<RailStats> {
        self.rails.all.get(rail.get()).map(|rail| rail.stats)
    }

    /// What the scheduler takes a rail's bandwidth for just now, in bytes per second.
    #[must_use]
    pub fn rail_bytes_per_sec(&self, rail: RailIndex) -> Option<u64> {
        self.rails.all.get(rail.get()).map(|rail| rail.speed.bytes_per_sec())
    }

    /// What a peer has given, or `None` once it has been removed.
    #[must_use]
    pub fn peer_stats(&self, peer: PeerId) -> Option<PeerStats> {
        self.peers.find(peer).map(|peer| peer.stats)
    }

    /// Batches submitted and not yet done.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// wrs outstanding on living lanes.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.rails.iter().map(|rail| (rail.wrs + rail.silent_wrs) as usize).sum()
    }

    /// Lanes whose QPs may still exist though they no longer serve.
    #[must_use]
    pub const fn lanes_dying(&self) -> usize {
        self.lanes.dying as usize
    }

    /// The sink of its events, to look at.
    pub const fn events(&self) -> &E {
        &self.events
    }

    /// The sink of its events.
    pub const fn events_mut(&mut self) -> &mut E {
        &mut self.events
    }

    /// Hands an event to the sink. An empty sink costs nothing: not even `event` is called.
    #[inline(always)]
    pub(super) fn emit(&mut self, event: impl FnOnce(&mut Self) -> EngineEvent) {
        if E::ENABLED {
            let event = event(self);
            self.events.event(event);
        }
    }

    /// Tells the sink at what time the events happen that follow.
    #[inline(always)]
    pub(super) fn emit_time(&mut self, now: Time) {
        if E::ENABLED {
            self.events.time(now);
        }
    }

    /// The batch of a page, and the page's position there: what events call it.
    pub(super) fn name_of(&mut self, page: PageRef) -> (Ticket, u16) {
        let batch = self.pages.at(page).batch;
        let at = page.0 - self.pages.first(batch).0;
        (self.ticket(batch), crate::limits::narrow(at as usize))
    }

    /// The name of a batch in flight.
    pub(super) fn ticket(&mut self, batch: u16) -> Ticket {
        Ticket { batch, serial: self.pages.head(batch).serial }
    }
}

impl<P: Provider, E: EventSink> Drop for Engine<'_, P, E> {
    /// The provider first: from then on nothing writes into any slot or into the landing area.
    #[allow(unsafe_code, reason = "the provider goes before its lanes")]
    fn drop(&mut self) {
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.provider) };
        // Storage does not know what its lanes are.
        self.lanes.all.iter_mut().for_each(|lane| lane.handle = None);
    }
}
