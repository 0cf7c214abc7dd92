//! The reader: an engine, its storage, its clock and its sessions in one value.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | start, the calls of the data path, the end |
//! | `peers.rs` | connecting, losing and re-making: what the sessions' threads report |
//! | `link.rs` | the hand on a session's thread |
//! | `session_thread.rs` | what that thread does |
//! | `config.rs` | how it behaves, and why it does not start |
//! | `device.rs` | GPU memory as destination |
//! | `heap.rs` | the state of a reader that was not declared |
//! | `register.rs` | memory that pages land in, and plans by which they do |
//! | `state.rs` | where its state lives |
//! | `submitters.rs` | other threads that feed it |
//! | `table.rs` | what a peer has published, by reading its table |
#![allow(unsafe_code, reason = "the storage is given back when nothing can reach it any more")]

mod config;
#[cfg(feature = "cuda")]
mod device;
mod heap;
mod link;
mod peers;
mod register;
mod session_thread;
mod state;
mod submitters;
mod table;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::batch::{Batch, Done, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, Rejected};
use kvrail_core::hub;
use kvrail_core::id::{LaneId, MAX_RAILS, PeerId, RailIndex};
use kvrail_core::layout::LayoutRef;
use kvrail_core::memory::Slot;
use kvrail_core::peer::PeerStats;
use kvrail_core::provider::Provider;
use kvrail_core::rail::RailStats;
use kvrail_core::time::{Nanos, Time};
use kvrail_session::{Address, Fabric, LaneNumber, NodeName};

pub use self::config::{Config, StartError};
#[cfg(feature = "cuda")]
pub use self::device::DeviceError;
use self::heap::{Home, room};
use self::link::{Link, Mailbox};
pub use self::peers::{ConnectError, Event, Peer};
pub use self::state::{Room, State, Storage, StorageTaken, TakenStorage};
pub use self::submitters::MAX_SUBMITTERS;
use self::submitters::Submitters;
pub use self::table::{MAX_LISTED, TableError};
use crate::clock;
use crate::layout::PageLayout;
use crate::network::Network;

/// The most peers of a reader that was not declared.
pub const MAX_PEERS: usize = 64;
/// The most batches of such a reader: being filled, in flight, or done and not dropped.
pub const MAX_BATCHES: usize = 64;
/// The most pages of one batch of such a reader.
pub const MAX_BATCH: usize = 256;

/// How long the end of a reader waits for READs that are under way.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long it waits for sessions' threads.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Pulls pages of one layout out of peers' memory: owned and driven by one thread.
///
/// [`connect`](Self::connect), fill a [`batch`](Self::batch), [`submit`](Self::submit), then
/// [`poll`](Self::poll) and take what is done by [`next_done`](Self::next_done); [`wait`](Self::wait) sleeps
/// until that is worth while. Lanes that fail are made again in the background. A peer whose session
/// ends is removed: its pages fail, and [`next_event`](Self::next_event) tells.
///
/// Dropping it ends its sessions and waits (5 s at most) until nothing writes into its slots any more. What
/// cannot be made sure of by then is leaked, and logged as an error.
pub struct Reader<N: Network> {
    // Taken by `drop` alone.
    engine: ManuallyDrop<Engine<'static, N::Provider>>,
    /// The state, if it is the reader's own and is freed with it.
    home: Option<Home>,
    submitters: Option<Submitters<N::Provider>>,
    /// Bounds what is remembered of batches: as many as there are.
    batches: usize,
    plan: N::Plan,
    layout: PageLayout,
    config: Config,
    mailbox: Arc<Mailbox<N::Line>>,
    /// Letters taken from the mailbox.
    letters: u64,
    links: HashMap<u64, Linked<N::Dialer>>,
    /// Which of them is a peer's.
    link_of: HashMap<PeerId, u64>,
    next_link: u64,
    /// What became of connects that are being waited for.
    arrived: HashMap<u64, Result<Peer, ConnectError>>,
    events: VecDeque<Event>,
    /// Done batches that were met while looking for another.
    stash: VecDeque<Done<'static>>,
    /// Where tables are read to.
    scratch: Vec<Slot>,
    /// READs of tables that were given up: what comes of them is nobody's but the scratch's.
    abandoned: Vec<Ticket>,
    /// Overdue batches that the engine has told of and the user has not asked for: each ends one wait,
    /// not every one.
    overdue: VecDeque<Ticket>,
    /// Device memory that is registered.
    #[cfg(feature = "cuda")]
    devices: Vec<(kvrail_core::id::RegionId, device::Registered)>,
}

/// Another thread's way into a reader: [`Reader::submitter`].
pub type Submitter<N> = hub::Submitter<'static, 'static, <<N as Network>::Provider as Provider>::Waker>;

/// A session, from the reader's side.
#[derive(Debug)]
struct Linked<F: Fabric> {
    link: Link<F>,
    address: Address,
    /// What the producer's pages are.
    layout: LayoutRef,
    /// Once it stands.
    peer: Option<(PeerId, NodeName)>,
    /// What the session calls the lanes in use.
    lanes: HashMap<LaneId, LaneNumber>,
}

impl<N: Network> Reader<N> {
    /// Starts an engine for pages of `layout` over `rails`.
    ///
    /// # Errors
    ///
    /// Figures that cannot work.
    pub fn start(layout: PageLayout, rails: N, config: Config) -> Result<Self, StartError> {
        let home = NonNull::from(Box::leak(room()));
        // SAFETY: leaked just now, and known to nobody else. It is given back in `drop` alone, when
        // engine and buffers are gone.
        let state = unsafe { &mut *home.as_ptr() };
        let figures = config.engine.unwrap_or_else(|| rails.tuning());
        match Self::begin(state, layout, rails, config, figures, MAX_RAILS) {
            Ok(mut reader) => {
                reader.home = Some(Home(home));
                Ok(reader)
            }
            Err(error) => {
                // SAFETY: out of a box, and there is no engine that could have kept the reference.
                drop(unsafe { Box::from_raw(home.as_ptr()) });
                Err(error)
            }
        }
    }

    /// Starts an engine in `state`, over `max_rails` rails at most. After an error nothing uses
    /// `state` any more: it is looked at last, by an engine that keeps it only if it starts.
    pub(crate) fn begin<S: Room>(
        state: &'static mut S,
        layout: PageLayout,
        rails: N,
        config: Config,
        figures: EngineConfig,
        max_rails: usize,
    ) -> Result<Self, StartError> {
        if config.lanes_per_rail == 0 {
            return Err(StartError::NoLanes);
        }
        let (provider, plan) = rails.split();
        let rails = provider.rails();
        if rails > max_rails {
            return Err(StartError::TooManyRails { rails, max: max_rails });
        }
        let (engine, submitters) = state.open(provider, figures)?;
        let (batches, _) = engine.capacity();
        Ok(Self {
            engine: ManuallyDrop::new(engine),
            home: None,
            submitters,
            batches,
            plan,
            layout,
            config,
            mailbox: Mailbox::new(),
            letters: 0,
            links: HashMap::new(),
            link_of: HashMap::new(),
            next_link: 0,
            arrived: HashMap::new(),
            events: VecDeque::new(),
            stash: VecDeque::new(),
            scratch: Vec::new(),
            abandoned: Vec::new(),
            overdue: VecDeque::with_capacity(batches),
            #[cfg(feature = "cuda")]
            devices: Vec::new(),
        })
    }

    /// A handle for another thread, by which it fills batches ([`batch`](hub::Submitter::batch)),
    /// [submits](hub::Submitter::submit) them and takes [what becomes of them](hub::Outcome), while
    /// this thread goes on polling; `None` when there is none left. As many can be had as
    /// [`engine!`](crate::engine) was told: `max_submitters`.
    ///
    /// Every batch goes back to whom it came from. A handle may be dropped at any time: the slots
    /// that it had on their way come by [`next_orphan`](Self::next_orphan); it does not count as
    /// left again. When the reader is dropped first, a handle still gets what was done, and what
    /// had not been taken from it; slots that the reader had are lost, and
    /// [counted](hub::Outcome::ReaderGone).
    pub fn submitter(&mut self) -> Option<Submitter<N>> {
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

    /// What its pages are.
    #[must_use]
    pub const fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// An empty batch, or `None` when all are in use: then poll, and drop what is done. (Of a reader that was
    /// not declared [`MAX_BATCHES`] of up to [`MAX_BATCH`] pages.)
    #[inline]
    pub fn batch(&mut self) -> Option<Batch<'static>> {
        self.engine.batch()
    }

    /// Hands a batch over, and with it its slots. All of it comes back by [`next_done`](Self::next_done), at
    /// the deadline at the latest but for what hardware still writes into.
    ///
    /// # Errors
    ///
    /// The batch, untouched, and why.
    #[inline]
    pub fn submit(&mut self, batch: Batch<'static>, deadline: Time) -> Result<Ticket, Rejected<'static>> {
        self.engine.submit(batch, clock::now(), deadline)
    }

    /// Moves everything on: completions in, more READs out, news of the sessions. Does not block.
    #[inline]
    pub fn poll(&mut self) {
        let now = clock::now();
        if self.mailbox.count() != self.letters {
            self.read_mail(now);
        }
        match &mut self.submitters {
            None => drop(self.engine.poll(now)),
            Some(submitters) => submitters.turn(&mut self.engine, now),
        }
        while let Some(lost) = self.engine.next_lost_lane() {
            self.release(lost);
        }
        while let Some(wanted) = self.engine.next_wanted_lane(now) {
            self.want(wanted, now);
        }
    }

    /// The next batch that is done. Take its pages before it is dropped: slots left inside are lost.
    #[inline]
    pub fn next_done(&mut self) -> Option<Done<'static>> {
        if self.abandoned.is_empty() && self.overdue.is_empty() {
            return self.stash.pop_front().or_else(|| self.finished());
        }
        loop {
            let done = self.stash.pop_front().or_else(|| self.finished())?;
            if let Some(done) = self.theirs(done) {
                self.overdue.retain(|&ticket| ticket != done.ticket());
                return Some(done);
            }
        }
    }

    /// The next slot of a [`Submitter`] that was dropped with batches on their way: they are read
    /// all the same, and their slots come here.
    pub fn next_orphan(&mut self) -> Option<Slot> {
        self.submitters.as_mut()?.next_orphan()
    }

    /// The next batch whose deadline has passed while hardware still wrote into its slots. Its pages
    /// are lost; the batch comes back by [`next_done`](Self::next_done) later.
    pub fn next_overdue(&mut self) -> Option<Ticket> {
        self.hear_of_overdue();
        self.overdue.pop_front()
    }

    fn next_notice(&mut self) -> Option<Ticket> {
        match &mut self.submitters {
            None => self.engine.next_overdue(),
            Some(submitters) => submitters.next_overdue(),
        }
    }

    /// Takes note of what is overdue, and says whether there was anything.
    fn hear_of_overdue(&mut self) -> bool {
        let mut some = false;
        while let Some(ticket) = self.next_notice() {
            if self.abandoned.contains(&ticket) {
                continue;
            }
            // There cannot be more that matter: those of batches that have come since matter no more.
            if self.overdue.len() == self.batches {
                self.overdue.pop_front();
            }
            self.overdue.push_back(ticket);
            some = true;
        }
        some
    }

    /// The next thing that happened to a peer.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sleeps until there is something to poll for: half of what is outstanding has arrived, a deadline
    /// has passed, a peer is lost; or until `until`. The one call that sleeps.
    ///
    /// With batches in flight it sleeps for up to 10 ms even if `until` has passed, so that a loop
    /// that waits until a batch's deadline does not spin when the batch is late.
    pub fn wait(&mut self, until: Time) {
        /// With work and nothing outstanding all lanes are down, and wanted again in so long at most.
        const ALL_DOWN: Nanos = Nanos::from_millis(10);
        /// At least so long with batches in flight.
        const PAST: Nanos = Nanos::from_millis(10);
        /// A lane that failed may be wanted again.
        const SOME_DOWN: Nanos = Nanos::from_millis(250);
        let waiting = self.submitters.as_ref().is_some_and(|submitters| !submitters.is_empty());
        if waiting || self.mailbox.count() != self.letters || !self.stash.is_empty() || self.hear_of_overdue()
        {
            return;
        }
        let now = clock::now();
        let until = if self.engine.in_flight() > 0 { until.max(now + PAST) } else { until };
        let failed = |rail| self.engine.rail_stats(RailIndex(rail)).is_some_and(|s| s.lanes_failed > 0);
        let until = if self.engine.in_flight() > 0 && self.engine.outstanding() == 0 {
            until.min(now + ALL_DOWN)
        } else if (0..self.engine.rails() as u8).any(failed) {
            until.min(now + SOME_DOWN)
        } else {
            until
        };
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

    /// What a rail has done so far, or `None` for one that is not there.
    #[must_use]
    pub fn rail_stats(&self, rail: usize) -> Option<RailStats> {
        self.engine.rail_stats(RailIndex(u8::try_from(rail).ok()?))
    }

    /// What a peer has given so far, or `None` once it is gone.
    #[must_use]
    pub fn peer_stats(&self, peer: &Peer) -> Option<PeerStats> {
        self.engine.peer_stats(peer.id())
    }

    /// The engine's figures in use.
    #[must_use]
    pub fn engine_config(&self) -> &EngineConfig {
        self.engine.config()
    }

    /// Brings the engine to rest: no lane left, nothing in flight. Whether it got there.
    fn come_to_rest(&mut self) -> bool {
        let until = clock::within(LAST_WAIT);
        self.engine.stop(clock::now());
        loop {
            let now = clock::now();
            self.engine.poll(now);
            // Slots of these are lost, as those of every batch that is dropped with its slots.
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

impl<N: Network> Drop for Reader<N> {
    fn drop(&mut self) {
        for linked in self.links.values_mut() {
            linked.link.hang_up();
        }
        self.stash.clear();
        let (batches, _) = self.engine.capacity();
        if self.come_to_rest() {
            let home = self.engine.batches_free() == batches;
            // SAFETY: taken once, here, and nothing uses it after.
            unsafe { ManuallyDrop::drop(&mut self.engine) };
            let room = self.home.take();
            if let (true, Some(room)) = (home, &room) {
                // SAFETY: it came out of a box. The engine, which had the one reference to it, is
                // gone; and so is every way to a buffer: batches and done batches are home, and there are
                // no submitters, which can claim one, over such a state.
                drop(unsafe { Box::from_raw(room.0.as_ptr()) });
            } else if room.is_some() {
                tracing::warn!("a reader's batches outlive it: its storage is leaked");
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
        let until = Instant::now() + LAST_WORDS;
        for linked in self.links.values_mut() {
            if !linked.link.join(until) {
                tracing::debug!("a session's thread is in an exchange, and ends later");
            }
        }
    }
}

impl<N: Network> fmt::Debug for Reader<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("over", &N::LABEL)
            .field("layout", &self.layout)
            .field("rails", &self.rails())
            .field("in_flight", &self.in_flight())
            .field("sessions", &self.links.len())
            .finish_non_exhaustive()
    }
}
