//! The struct `Engine`: its parts, each with an invariant of its own, and what can be asked of
//! them.

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
use crate::rail::rails::Rails;
use crate::rail::{RailState, RailStats};
use crate::regions::Regions;
use crate::time::Time;
use crate::verbs_abi::Wc;

/// Completions taken from a rail in one call of the provider.
pub(super) const WCS: usize = 32;

/// One engine: owned and driven by one thread. `E` takes its [events](crate::events).
#[derive(Debug)]
pub struct Engine<'s, P: Provider, E: EventSink = NoEvents> {
    pub(super) provider: ManuallyDrop<P>,
    pub(super) sink: Sink<E>,
    pub(super) config: EngineConfig,
    /// The binary logarithm of `config.chunk_bytes`.
    pub(super) chunk_shift: u8,
    /// This engine's number among the engines of the process.
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

/// The sink of an engine's events.
///
/// The engine calls it in the middle of its work: READs may have been posted that are not noted in
/// their pages yet. If such a call panics, the engine must not go on. It could post those pages a
/// second time, or give back a slot into which the hardware still writes.
#[derive(Debug)]
pub(super) struct Sink<E> {
    events: E,
    /// Whether a call of the sink has not returned.
    interrupted: bool,
}

impl<E: EventSink> Sink<E> {
    pub(super) const fn new(events: E) -> Self {
        Self { events, interrupted: false }
    }

    #[inline(always)]
    pub(super) fn event(&mut self, event: EngineEvent) {
        self.interrupted = true;
        self.events.event(event);
        self.interrupted = false;
    }

    /// # Panics
    ///
    /// If a call of the sink has panicked.
    #[inline(always)]
    pub(super) fn check(&self) {
        if E::ENABLED {
            assert!(
                !self.interrupted,
                "the engine's event sink has panicked in the middle of the engine's work: drop the engine"
            );
        }
    }
}

/// How far the search for silent and stalled lanes has come.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The next lane to look at; between two sweeps, the number of lanes or more.
    pub(super) lane: usize,
    /// When the next sweep begins.
    pub(super) next: Time,
    /// The next seat to look at for lanes that are idle.
    pub(super) seat: usize,
}

/// Completions on their way from the provider.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// The completions that the provider gave last.
    pub(super) wcs: [Wc; WCS],
    /// Whether the engine has slept since the last poll. Then the completion that woke it may be in
    /// any completion queue, even in that of a rail with nothing outstanding: a destroyed lane may
    /// have left completions there.
    pub(super) slept: bool,
    /// Whether the provider has been armed since the last poll: the caller may sleep on its
    /// descriptor.
    pub(super) armed: bool,
    /// Whether the last poll left completions in a queue. Then a lane that seems to have completed
    /// nothing may have, and is not silent.
    pub(super) behind: bool,
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// The provider, read-only. There is no `&mut` access: code that could exchange the provider,
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

    /// How many rails the engine drives.
    #[must_use]
    pub const fn rails(&self) -> usize {
        self.rails.len()
    }

    /// The most send queue entries of a lane, that of the drain wr included: the depth of the
    /// storage.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.lanes.depth
    }

    /// How many peers, and how many lanes, the storage has places for.
    #[must_use]
    pub const fn places(&self) -> (usize, usize) {
        (self.peers.len(), self.lanes.len())
    }

    /// The counters of a rail; `None` if there is no such rail.
    #[must_use]
    pub fn rail_stats(&self, rail: RailIndex) -> Option<RailStats> {
        self.rails.all.get(rail.get()).map(|rail| rail.stats)
    }

    /// What is outstanding on a rail now, and whether it carries anything; `None` if there is no
    /// such rail.
    #[must_use]
    pub fn rail_state(&self, rail: RailIndex) -> Option<RailState> {
        self.rails.all.get(rail.get()).map(|rail| rail.state())
    }

    /// The scheduler's estimate of a rail's bandwidth, in bytes per second; `None` if there is no
    /// such rail.
    #[must_use]
    pub fn rail_bytes_per_sec(&self, rail: RailIndex) -> Option<u64> {
        self.rails.all.get(rail.get()).map(|rail| rail.speed.bytes_per_sec())
    }

    /// The counters of a peer; `None` once it has been removed.
    #[must_use]
    pub fn peer_stats(&self, peer: PeerId) -> Option<PeerStats> {
        self.peers.find(peer).map(|peer| peer.stats)
    }

    /// How many batches have been submitted and are not done.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// How many wrs are outstanding on lanes that are up.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.rails.iter().map(|rail| (rail.wrs + rail.silent_wrs) as usize).sum()
    }

    /// How many lanes have failed and are not yet freed. Their QPs may still exist.
    #[must_use]
    pub const fn lanes_dying(&self) -> usize {
        self.lanes.dying as usize
    }

    /// The sink of the engine's events.
    pub const fn events(&self) -> &E {
        &self.sink.events
    }

    /// The sink of the engine's events, to be changed.
    pub const fn events_mut(&mut self) -> &mut E {
        &mut self.sink.events
    }

    /// Hands an event to the sink. Without a sink `event` is not called, and the call costs
    /// nothing.
    #[inline(always)]
    pub(super) fn emit(&mut self, event: impl FnOnce(&mut Self) -> EngineEvent) {
        if E::ENABLED {
            let event = event(self);
            self.sink.event(event);
        }
    }

    /// Tells the sink the time of the events that follow.
    #[inline(always)]
    pub(super) fn emit_time(&mut self, now: Time) {
        if E::ENABLED {
            self.sink.events.time(now);
        }
    }

    /// The batch of a page, and the page's position in it: the name of the page in events.
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
    /// Drops the provider before anything else: after that nothing writes into a slot or into the
    /// landing area.
    #[allow(unsafe_code, reason = "the provider is dropped before its lanes")]
    fn drop(&mut self) {
        // SAFETY: the provider is dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.provider) };
        // The storage does not know the type of the lanes, so it cannot drop them.
        self.lanes.all.iter_mut().for_each(|lane| lane.handle = None);
    }
}
