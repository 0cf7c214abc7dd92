//! A driver: the one thread that owns a [`Reader`], and reads what requests ask for.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the turn of a driver, its sleep, its end |
//! | `requests.rs` | requests in work, and how their pages are settled |
//! | `fill.rs`, `row.rs` | pages to batches |
//! | `landed.rs` | batches that are done, pages that are given up |
//! | `flights.rs` | the batches under way |
//! | `owner_table.rs`, `connect.rs` | owners, and connecting to them on demand |
//! | `memory.rs` | the slots of destinations |

mod connect;
mod fill;
mod flights;
mod landed;
mod memory;
mod owner_table;
mod requests;
mod row;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail::{MAX_BATCHES, PageError, Reader, ReaderTransport};
use kvrail_core::time::{Nanos, Time};
use kvrail_host::clock;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use self::flights::Flights;
use self::memory::Memory;
use self::owner_table::OwnerTable;
use self::requests::{PageAt, Placed, Requests};
use super::link::{Command, DriverLink};
use super::shared::Shared;
use crate::metrics::RailGauges;
use crate::miss::GetMiss;

/// Requests that are taken in one turn.
const REQUESTS_PER_TURN: usize = 64;
/// Requests that a driver works on at a time. The others wait in their queue, in order.
const MAX_ACTIVE: usize = 1_024;
/// How often the numbers of rails and peers are copied to the node's metrics, at most.
const COPY_NUMBERS: Nanos = Nanos::from_millis(100);
/// How long the end of a driver waits for READs that are under way.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Reads what the `get`s of a [`Node`](crate::Node) ask for. A node that drives its readers by
/// threads of its own has one in each; otherwise
/// [`Node::start_driven`](crate::Node::start_driven) gives it to the caller, who calls
/// [`poll`](Self::poll), and sleeps by [`wait`](Self::wait) or on its descriptor.
///
/// Dropping it settles all requests as misses, and waits (5 s at most) until nothing writes into
/// destinations any more. A destination that may still be written to is not given back, and its
/// memory must not be used again.
pub struct ReadDriver<T: ReaderTransport> {
    reader: Reader<T>,
    link: Arc<DriverLink>,
    shared: Arc<Shared>,
    requests: Requests,
    owners: OwnerTable,
    /// How many owners it connects to at a time.
    peers: usize,
    flights: Flights,
    memory: Memory,
    /// Pages that go into the next batches. It keeps its memory, as the next three do.
    window: Vec<Placed>,
    unconnected: Vec<(PageAt, Epoch)>,
    refused: Vec<(PageAt, GetMiss)>,
    failures: Vec<(usize, PageError)>,
    /// When owners that want a place for a peer ask again.
    ask_again: Time,
    /// Over the reader's descriptor and that of the link.
    epoll: OwnedFd,
    asleep: bool,
    rails: Arc<RailGauges>,
    /// When the numbers of rails and peers are copied to the node's metrics again.
    copy_numbers: Time,
}

impl<T: ReaderTransport<Provider: AsFd>> ReadDriver<T> {
    pub(crate) fn new(
        reader: Reader<T>,
        peers: usize,
        rails: &[String],
        link: Arc<DriverLink>,
        shared: Arc<Shared>,
    ) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &reader, EventData::new_u64(0), EventFlags::IN)?;
        epoll::add(&epoll, &link.wake, EventData::new_u64(1), EventFlags::IN)?;
        let pages = 2 * shared.batch_pages;
        let rails = shared.metrics.rails(rails);
        Ok(Self {
            requests: Requests::new(Arc::clone(&link), Arc::clone(&shared)),
            owners: OwnerTable::new(),
            peers,
            flights: Flights::new(MAX_BATCHES, pages),
            memory: Memory::default(),
            window: Vec::with_capacity(pages),
            unconnected: Vec::new(),
            refused: Vec::new(),
            failures: Vec::new(),
            ask_again: Time::ZERO,
            epoll,
            asleep: false,
            rails,
            copy_numbers: Time::ZERO,
            reader,
            link,
            shared,
        })
    }

    /// Takes requests in, posts READs, and settles pages that have arrived. Does not block. Returns
    /// whether there was anything to do.
    pub fn poll(&mut self) -> bool {
        if self.asleep {
            self.asleep = false;
            self.link.wake.finish_sleep();
        }
        // Before the queue is looked at: a request for a wake-up that follows stands until the next
        // turn.
        let mut busy = self.link.wake.take_request();
        let now = clock::now();
        while let Some(command) = self.link.next_command() {
            self.obey(command);
        }
        for _ in 0..REQUESTS_PER_TURN {
            if self.requests.active.len() >= MAX_ACTIVE {
                break;
            }
            let Some(request) = self.link.next_request() else { break };
            self.requests.admit(request, now);
            busy = true;
        }
        busy |= self.fill(now);
        self.reader.poll();
        while let Some(event) = self.reader.next_event() {
            self.take_event(event, now);
            busy = true;
        }
        busy |= self.take_landed(now);
        if now >= self.requests.next_timer {
            self.give_up_late(now);
        }
        if !self.owners.wanting.is_empty() {
            // Pages of owners that have just been connected go first: their owners would be idle
            // otherwise, and disconnected before anything was read from them.
            busy |= self.fill(now);
            self.make_places(now);
        }
        if now >= self.copy_numbers {
            self.copy_numbers(now);
        }
        // What has come back makes room, and failed tries are tried elsewhere.
        busy | self.fill(now)
    }

    /// Copies the numbers of rails and peers to the node's metrics.
    #[cold]
    fn copy_numbers(&mut self, now: Time) {
        self.copy_numbers = now + COPY_NUMBERS;
        for rail in 0..self.rails.len() {
            if let (Some(stats), Some(state)) = (self.reader.rail_stats(rail), self.reader.rail_state(rail)) {
                self.rails.copy(rail, &stats, &state);
            }
        }
        self.owners.show(|peer| self.reader.lanes_to(peer));
    }

    /// Prepares a sleep in epoll(7) or poll(2) on the driver's descriptor: `Some` is how long the
    /// caller may sleep at most, `None` that there is something to do already. In both cases
    /// [`poll`](Self::poll) follows, after the sleep or at once.
    #[must_use = "a program sleeps only if it may, and for so long at most"]
    pub fn arm(&mut self) -> Option<Duration> {
        if self.link.is_stopping() {
            return None;
        }
        // The wake-ups of these were taken by earlier turns, which had no room for them.
        if self.requests.active.len() < MAX_ACTIVE && self.link.has_requests() {
            return None;
        }
        let most = self.reader.arm()?;
        self.asleep = true;
        if !self.link.wake.prepare_sleep() {
            return None;
        }
        let now = clock::now();
        let mut until = self.requests.next_timer;
        if !self.owners.wanting.is_empty() {
            until = until.min(self.ask_again);
        }
        let most = most.min(Duration::from_nanos(until.since(now).0));
        (!most.is_zero()).then_some(most)
    }

    /// Sleeps until there is something to do, or until `until`. [`poll`](Self::poll) follows.
    pub fn wait(&mut self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if let Some(most) = self.arm() {
            let most = Timespec::try_from(most.min(left)).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 2];
            // Interrupted by a signal: the turn that follows looks for work.
            let _ = epoll::wait(&self.epoll, &mut events[..], Some(&most));
        }
    }

    /// Whether the node is stopping, so that the driver is to be dropped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.link.is_stopping()
    }

    /// How many requests are being worked on.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.active.len()
    }

    /// How many owners it is connected to.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.owners.connected()
    }

    /// The reader, for its counters.
    #[must_use]
    pub const fn reader(&self) -> &Reader<T> {
        &self.reader
    }
}

impl<T: ReaderTransport> ReadDriver<T> {
    #[cold]
    fn obey(&mut self, command: Command) {
        match command {
            Command::Register(home, numa, reply) => {
                let layout = self.shared.layouts.iter().position(|layout| *layout == home.layout);
                // The node has checked that it has the layout.
                let layout = layout.map_or(u32::MAX, |layout| layout as u32);
                let registered = self.memory.register(&mut self.reader, home, numa, layout);
                // The thread that waits may have given up.
                let _ = reply.try_send(registered);
            }
            Command::Unregister(home, reply) => {
                let _ = reply.try_send(self.memory.unregister(&mut self.reader, &home));
            }
        }
    }
}

impl<T: ReaderTransport<Provider: AsFd>> AsFd for ReadDriver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<T: ReaderTransport> Drop for ReadDriver<T> {
    fn drop(&mut self) {
        self.link.stop();
        self.settle_all(&GetMiss::Stopped);
        self.link.refuse_all();
        let until = clock::within(LAST_WAIT);
        while self.flights.under_way() > 0 {
            let now = clock::now();
            if now >= until {
                break;
            }
            self.reader.poll();
            if !self.take_landed(now) {
                self.reader.wait(now + Nanos::from_millis(10));
            }
        }
        let lost = self.flights.abandon();
        if lost > 0 {
            tracing::error!(lost, "READs into destinations are still under way: these are not given back");
        }
    }
}

impl<T: ReaderTransport> fmt::Debug for ReadDriver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDriver")
            .field("reader", &self.reader)
            .field("requests", &self.requests.active.len())
            .field("batches", &self.flights.under_way())
            .finish_non_exhaustive()
    }
}
