//! The reader: an engine, its storage, its clock and its sessions in one value.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the calls of the data path, the end |
//! | `starting.rs` | the start, in a state on the heap |
//! | `config.rs` | its configuration, and why it does not start |
//! | `connect.rs` | connecting to peers, losing them, making lanes again |
//! | `connecting.rs`, `outcomes.rs` | connects that are under way, and events |
//! | `demand.rs`, `budget.rs` | lanes on demand, and how many there may be |
//! | `offers.rs` | pools that come and go while a session stands |
//! | `flight.rs` | what can be changed about batches in flight, and pages that are told early |
//! | `peer.rs` | a connected producer, its events, why a reader did not connect |
//! | `sessions/` | the sessions with peers, and the threads that serve them |
//! | `descriptor.rs` | sleeping in epoll(7) instead of `wait` |
//! | `register.rs`, `pieces.rs` | destination memory, and plans into another layout |
//! | `device.rs` | GPU memory as destination |
//! | `state.rs`, `storage.rs` | the whole state, on the heap or in a `static` |
//! | `submitters.rs` | other threads that feed it |
//! | `table.rs` | what a peer has published, by reading its table |
#![allow(unsafe_code, reason = "the storage is given back when nothing can reach it any more")]

mod budget;
pub(crate) mod config;
mod connect;
mod connecting;
mod demand;
mod descriptor;
#[cfg(feature = "cuda")]
pub(crate) mod device;
mod flight;
pub(crate) mod handover;
mod offers;
mod outcomes;
pub(crate) mod peer;
mod pieces;
mod register;
mod sessions;
mod starting;
pub(crate) mod state;
pub(crate) mod storage;
pub(crate) mod submitters;
pub(crate) mod table;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::batch::{Batch, Done, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, Rejected};
use kvrail_core::hub;
use kvrail_core::id::{LaneId, PeerId, RailIndex};
use kvrail_core::memory::Slot;
use kvrail_core::peer::PeerStats;
use kvrail_core::provider::Provider;
use kvrail_core::rail::{RailState, RailStats};
use kvrail_core::time::{Nanos, Time};
use kvrail_session::{Address, LaneNumber, NodeName, PoolId};

use self::budget::Demand;
use self::config::{Config, StartError};
use self::outcomes::Outcomes;
use self::peer::Peer;
use self::sessions::{DialerMaker, SessionDialer, SessionHandle, Sessions};
use self::state::{OwnedState, Room};
use self::submitters::Submitters;
use crate::clock;
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

/// How long the end of a reader waits for READs that are under way.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long it waits for the threads of its sessions.
const SESSIONS_WAIT: Duration = Duration::from_secs(1);

/// Pulls pages out of peers' memory, of one layout or of several: owned and driven by one thread.
///
/// [`connect`](Self::connect), fill a [`batch`](Self::batch), [`submit`](Self::submit), then
/// [`poll`](Self::poll) and take done batches by [`next_done`](Self::next_done);
/// [`wait`](Self::wait) sleeps until there is something to do. Lanes that fail are made again in
/// the background. A peer whose session ends is removed: its pages fail, and
/// [`next_event`](Self::next_event) reports it, as it does pools of a peer that come and go.
///
/// A batch that [reports its pages](Batch::report_pages) has each told by
/// [`next_arrival`](Self::next_arrival) before the batch is done. [`withdraw`](Self::withdraw)
/// gives a batch up, and [`set_class`](Self::set_class) changes its priority.
///
/// Dropping it ends its sessions, and waits (5 s at most) until nothing writes into its slots any
/// more. If something still may by then, engine, rails and slots are leaked, and an error is
/// logged.
pub struct Reader<T: ReaderTransport> {
    // Taken by `end` alone.
    engine: ManuallyDrop<Engine<'static, T::Provider>>,
    /// Set once the reader has ended: whether nothing can reach the state any more.
    ended: Option<bool>,
    /// The state, if it is on the heap: it is freed with the reader.
    owned_state: Option<OwnedState>,
    submitters: Option<Submitters<T::Provider>>,
    /// How many batches there are: the bound of every queue of batches here.
    batches: usize,
    layout: PageLayout,
    /// The layouts of pools that `connect` asks for: `layout`, and those that were added.
    layouts: Vec<PageLayout>,
    config: Config,
    sessions: Sessions<T::Dialer>,
    /// The sessions that have not ended, by their numbers.
    connected: HashMap<u64, PeerSession<T::Dialer>>,
    /// The number of each peer's session.
    session_of: HashMap<PeerId, u64>,
    next_session: u64,
    outcomes: Outcomes,
    demand: Demand,
    /// Sessions in which something has happened to requests that were taken.
    with_takings: VecDeque<u64>,
    /// Done batches of the user that were found while a call waited for something else.
    stash: VecDeque<Done<'static>>,
    /// Slots that publication tables are read into.
    scratch: Vec<Slot>,
    /// READs of tables that were given up. Their slots go back to `scratch` when they are done.
    abandoned: Vec<Ticket>,
    /// Overdue batches that the engine has reported and the user has not taken. Each of them ends
    /// one call of `wait`.
    overdue: VecDeque<Ticket>,
    /// Device memory that is registered.
    #[cfg(feature = "cuda")]
    devices: Vec<(kvrail_core::id::RegionId, device::Registered)>,
}

/// A handle by which another thread feeds a reader: [`Reader::submitter`].
pub type Submitter<T> =
    hub::HubSubmitter<'static, 'static, <<T as ReaderTransport>::Provider as Provider>::Waker>;

/// A session, from the reader's side.
#[derive(Debug)]
struct PeerSession<D: SessionDialer> {
    handle: SessionHandle<D>,
    address: Address,
    /// The layouts of the pools that were asked for.
    layouts: Arc<[PageLayout]>,
    /// The peer, once the session stands.
    peer: Option<(PeerId, NodeName)>,
    /// The pools that can be read.
    pools: Vec<peer::KnownPool>,
    /// Pools that are offered and cannot be read, of which the program was told.
    refused: Vec<PoolId>,
    /// The session's numbers of the lanes in use.
    lanes: HashMap<LaneId, LaneNumber>,
}

impl<T: ReaderTransport> Reader<T> {
    /// Starts an engine in `state`, over `max_rails` rails at most. After an error nothing uses
    /// `state` any more: the engine is started last, and keeps `state` only if it starts.
    pub(crate) fn begin<S: Room>(
        state: &'static mut S,
        layout: PageLayout,
        rails: T,
        config: Config,
        engine_config: EngineConfig,
        max_rails: usize,
    ) -> Result<Self, StartError> {
        if config.lanes_per_rail == 0 {
            return Err(StartError::NoLanes);
        }
        let (provider, dialer_seed) = rails.split();
        let rails = provider.rails();
        if rails > max_rails {
            return Err(StartError::TooManyRails { rails, max: max_rails });
        }
        let (mut engine, submitters) = state.open(provider, engine_config)?;
        let (batches, _) = engine.capacity();
        let (peers, lanes) = engine.places();
        let room = budget::room(engine.provider(), lanes, engine.depth());
        let demand = Demand::new(&config, room)?;
        if demand.is_on() {
            engine.serve_lanes_on_demand();
        }
        let dialers = dialers(dialer_seed, T::dialer);
        let sessions = Sessions::new(engine.rails(), dialers, engine.provider().waker());
        let reader = Self {
            engine: ManuallyDrop::new(engine),
            ended: None,
            owned_state: None,
            submitters,
            batches,
            layout,
            layouts: vec![layout],
            config,
            sessions,
            connected: HashMap::new(),
            session_of: HashMap::new(),
            next_session: 0,
            outcomes: Outcomes::new(peers),
            demand,
            with_takings: VecDeque::new(),
            stash: VecDeque::new(),
            scratch: Vec::new(),
            abandoned: Vec::new(),
            overdue: VecDeque::with_capacity(batches),
            #[cfg(feature = "cuda")]
            devices: Vec::new(),
        };
        reader.log_lanes(peers);
        Ok(reader)
    }

    /// A handle for another thread, by which it fills batches
    /// ([`batch`](hub::HubSubmitter::batch)), [submits](hub::HubSubmitter::submit) them and takes
    /// [their outcomes](hub::Outcome), page by page where a batch [asks](Batch::report_pages),
    /// while this thread polls; `None` after `max_submitters` of [`engine!`](crate::engine).
    ///
    /// Every batch goes back to the handle that it came from. A handle may be dropped at any time:
    /// the slots of its batches under way come by [`next_orphan`](Self::next_orphan), and the
    /// handle is not given out again. If the reader is dropped first, a handle still gets the
    /// batches that were done, and those that the reader had not taken; slots that the reader had
    /// are lost, and [counted](hub::Outcome::ReaderGone).
    pub fn submitter(&mut self) -> Option<Submitter<T>> {
        self.submitters.as_mut()?.give()
    }

    /// The next batch that is done and is this thread's.
    #[inline]
    fn finished(&mut self) -> Option<Done<'static>> {
        match &mut self.submitters {
            None => self.engine.next_done(),
            Some(submitters) => submitters.next_done(),
        }
    }

    /// The layout of its pages: the one that it was started for.
    #[must_use]
    pub const fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// An empty batch, or `None` when all are in use: then poll, and drop done batches. A reader
    /// that was not declared has [`MAX_BATCHES`](crate::MAX_BATCHES) of up to
    /// [`MAX_BATCH`](crate::MAX_BATCH) pages.
    #[inline]
    pub fn batch(&mut self) -> Option<Batch<'static>> {
        self.engine.batch()
    }

    /// Hands a batch over, and with it its slots. The batch comes back by
    /// [`next_done`](Self::next_done): at the deadline at the latest, unless hardware still writes
    /// into one of its slots.
    ///
    /// # Errors
    ///
    /// The batch comes back untouched, with the reason.
    #[inline]
    pub fn submit(&mut self, batch: Batch<'static>, deadline: Time) -> Result<Ticket, Rejected<'static>> {
        self.engine.submit(batch, clock::now(), deadline)
    }

    /// Takes in completions and news of the sessions, and posts more READs. Does not block.
    #[inline]
    pub fn poll(&mut self) {
        let now = clock::now();
        if self.sessions.has_news() {
            self.take_session_news(now);
        }
        match &mut self.submitters {
            None => drop(self.engine.poll(now)),
            Some(submitters) => submitters.turn(&mut self.engine, now),
        }
        while let Some(lost) = self.engine.next_lost_lane() {
            self.release(lost);
        }
        self.supply_lanes(now);
        if now >= self.outcomes.give_up {
            self.give_up_connects(now);
        }
    }

    /// The next batch that is done. Take its pages before it is dropped: slots left inside are
    /// lost.
    #[inline]
    pub fn next_done(&mut self) -> Option<Done<'static>> {
        if self.abandoned.is_empty() && self.overdue.is_empty() {
            return self.stash.pop_front().or_else(|| self.finished());
        }
        loop {
            let done = self.stash.pop_front().or_else(|| self.finished())?;
            if let Some(done) = self.unless_given_up(done) {
                self.overdue.retain(|&ticket| ticket != done.ticket());
                return Some(done);
            }
        }
    }

    /// The next slot of a [`Submitter`] that was dropped with batches under way: these are read to
    /// the end, and their slots come here.
    pub fn next_orphan(&mut self) -> Option<Slot> {
        self.submitters.as_mut()?.next_orphan()
    }

    /// The next batch whose deadline has passed while hardware still wrote into its slots. Its
    /// pages are lost; the batch comes back by [`next_done`](Self::next_done) later.
    pub fn next_overdue(&mut self) -> Option<Ticket> {
        self.take_overdue_notices();
        self.overdue.pop_front()
    }

    fn next_overdue_notice(&mut self) -> Option<Ticket> {
        match &mut self.submitters {
            None => self.engine.next_overdue(),
            Some(submitters) => submitters.next_overdue(),
        }
    }

    /// Takes in the engine's reports of overdue batches, and says whether there were any.
    fn take_overdue_notices(&mut self) -> bool {
        let mut some = false;
        while let Some(ticket) = self.next_overdue_notice() {
            if self.abandoned.contains(&ticket) {
                continue;
            }
            // If the queue is full, its oldest entry is of a batch that has come back since.
            if self.overdue.len() == self.batches {
                self.overdue.pop_front();
            }
            self.overdue.push_back(ticket);
            some = true;
        }
        some
    }

    /// Sleeps until there is something to poll for (half of the outstanding bytes have arrived, a
    /// deadline has passed, a peer is lost), or until `until`. No other call sleeps. A program with
    /// an event loop of its own sleeps there instead: see [`arm`](Self::arm).
    ///
    /// With batches in flight it sleeps for up to 10 ms even if `until` has passed, so that a loop
    /// that waits until a batch's deadline does not spin when the batch is late.
    pub fn wait(&mut self, until: Time) {
        /// The shortest sleep with batches in flight.
        const PAST: Nanos = Nanos::from_millis(10);
        if self.has_work() {
            return;
        }
        let now = clock::now();
        let until = if self.engine.in_flight() > 0 { until.max(now + PAST) } else { until };
        let until = self.bound_of_sleep(now, until);
        self.engine.wait(now, until);
    }

    /// Batches submitted and not yet done.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }

    /// How many rails it drives.
    #[must_use]
    pub fn rails(&self) -> usize {
        self.engine.rails()
    }

    /// Counters of a rail, or `None` if the reader has no such rail.
    #[must_use]
    pub fn rail_stats(&self, rail: usize) -> Option<RailStats> {
        self.engine.rail_stats(RailIndex(u8::try_from(rail).ok()?))
    }

    /// What is outstanding on a rail now, and whether it carries anything; `None` if the reader has
    /// no such rail.
    #[must_use]
    pub fn rail_state(&self, rail: usize) -> Option<RailState> {
        self.engine.rail_state(RailIndex(u8::try_from(rail).ok()?))
    }

    /// How many lanes lead to a peer: 0 once it is gone, and while it has none, where lanes are
    /// made on demand.
    #[must_use]
    pub fn lanes_to(&self, peer: &Peer) -> usize {
        self.engine.lanes_to(peer.id())
    }

    /// Counters of a peer, or `None` once it is gone.
    #[must_use]
    pub fn peer_stats(&self, peer: &Peer) -> Option<PeerStats> {
        self.engine.peer_stats(peer.id())
    }

    /// The engine's configuration in use.
    #[must_use]
    pub fn engine_config(&self) -> &EngineConfig {
        self.engine.config()
    }

    /// Brings the engine to rest, with no lane left and nothing in flight. Returns whether it came
    /// to rest.
    fn come_to_rest(&mut self) -> bool {
        let until = clock::within(LAST_WAIT);
        self.engine.stop(clock::now());
        loop {
            let now = clock::now();
            self.engine.poll(now);
            // A batch that is dropped here loses its slots, as every dropped batch does.
            while self.engine.next_done().is_some() {}
            if self.engine.in_flight() == 0 && self.engine.lanes_dying() == 0 {
                return true;
            }
            if now >= until {
                return false;
            }
            self.engine.wait(now, until.min(now + Nanos::from_millis(20)));
        }
    }
}

/// Makes the dialers of a reader, on any thread.
fn dialers<S: Send + Sync + 'static, D: SessionDialer>(seed: S, make: fn(&S) -> D) -> DialerMaker<D> {
    Arc::new(move || make(&seed))
}

impl<T: ReaderTransport> Reader<T> {
    /// Ends the reader: the body of its `drop`. Nothing but `drop` may follow. Returns whether
    /// nothing can reach the state any more.
    pub(crate) fn end(&mut self) -> bool {
        if let Some(free) = self.ended {
            return free;
        }
        for session in self.connected.values_mut() {
            session.handle.hang_up();
        }
        self.stash.clear();
        let (batches, _) = self.engine.capacity();
        let at_rest = self.come_to_rest();
        let free = at_rest && self.engine.batches_free() == batches && self.submitters.is_none();
        self.ended = Some(free);
        if at_rest {
            // SAFETY: `ended` was None and is set, so this is done once, and nothing uses the
            // engine after.
            unsafe { ManuallyDrop::drop(&mut self.engine) };
            match self.owned_state.take() {
                // SAFETY: the engine, which had the one reference to it, is gone. So is every
                // reference to a buffer: all batches have come back, and there are no submitters.
                Some(state) if free => unsafe { state.free() },
                Some(_) => tracing::warn!("a reader's batches outlive it: its state is leaked"),
                None => {}
            }
        } else {
            tracing::error!(
                batches = self.engine.in_flight(),
                lanes = self.engine.lanes_dying(),
                "READs are still under way: the reader's engine, rails and slots are leaked"
            );
            #[cfg(feature = "cuda")]
            std::mem::forget(std::mem::take(&mut self.devices));
        }
        if !self.sessions.stop(Instant::now() + SESSIONS_WAIT) {
            tracing::debug!("the transport makes a lane, and the thread that waits for it ends later");
        }
        free
    }
}

impl<T: ReaderTransport> Drop for Reader<T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T: ReaderTransport> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("over", &T::LABEL)
            .field("layout", &self.layout)
            .field("rails", &self.rails())
            .field("in_flight", &self.in_flight())
            .field("sessions", &self.connected.len())
            .finish_non_exhaustive()
    }
}
