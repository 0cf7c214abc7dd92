//! The control thread: whatever blocks in the kernel, and what the devices say by themselves.
//!
//! Moving a QP to the error state and destroying it are system calls that wait for the device. The engine's
//! thread asks for them through a ring, and hears of them through another.
//!
//! The engine goes on polling a completion queue while QPs on it are destroyed: every provider
//! library takes its queue's lock for the moment in which it removes a QP's last entries (`cq.rs`).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex};
use kvrail_core::provider::ProviderEvent;
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::Timespec;

use crate::bell::Bell;
use crate::error::{Errno, RailError};
use crate::events::{self, Notice};
use crate::qp::Handle;
use crate::rail::Rail;
use crate::wait::{Ready, doze};

/// How soon a full ring of events, or a poll(2) that failed, is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// What the engine's thread asks for.
#[derive(Debug)]
pub(crate) enum Order {
    /// Move it to the error state.
    Fail(LaneId, Arc<Handle>),
    /// Destroy it.
    Close(LaneId, Arc<Handle>),
}

/// An event, and the rail that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) event: ProviderEvent,
    pub(crate) rail: usize,
    /// The rail does not come back: its device is gone, or its queue has lost completions.
    pub(crate) lost: bool,
}

/// The engine's ends.
pub(crate) struct Control {
    pub(crate) orders: Producer<Order>,
    pub(crate) events: Consumer<Told>,
    door: Arc<Bell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread. `lanes`: how many there can be at a time.
    pub(crate) fn start(rails: &[Arc<Rail>], lanes: usize, engine: &Arc<Bell>) -> Result<Self, RailError> {
        // Each lane fails and closes once, and the control thread may fall behind by as much.
        let (orders, orders_out) = RingBuffer::new(4 * lanes + 64);
        let (events_in, events) = RingBuffer::new(4 * lanes + 64);
        let door = Bell::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        for rail in rails {
            rail.drive()?;
            events::prepare(rail)?;
        }
        let worker = Worker {
            orders: orders_out,
            events: events_in,
            backlog: VecDeque::new(),
            engine: Arc::clone(engine),
            door: Arc::clone(&door),
            stop: Arc::clone(&stop),
            rails: rails.to_vec(),
            deaf: 0,
        };
        let thread = std::thread::Builder::new().name("kvrail-verbs".into()).spawn(move || worker.run());
        let thread = thread.map_err(|e| RailError::System {
            what: "a control thread",
            errno: Errno(e.raw_os_error().unwrap_or(libc::EAGAIN)),
        })?;
        Ok(Self { orders, events, door, stop, thread: Some(thread) })
    }

    /// Asks for something. The ring holds more than all lanes can ask for.
    pub(crate) fn order(&mut self, order: Order) {
        if let Err(rtrb::PushError::Full(order)) = self.orders.push(order) {
            tracing::error!(?order, "the ring of orders is full");
        }
        self.door.ring();
    }

    /// Ends the thread when it has done what was asked.
    pub(crate) fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.door.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread of verbs rails has panicked");
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

struct Worker {
    orders: Consumer<Order>,
    events: Producer<Told>,
    /// Events that the ring had no room for.
    backlog: VecDeque<Told>,
    engine: Arc<Bell>,
    door: Arc<Bell>,
    stop: Arc<AtomicBool>,
    rails: Vec<Arc<Rail>>,
    /// Rails whose devices have hung up: their descriptors are not looked at any more.
    deaf: u32,
}

impl Worker {
    fn run(mut self) {
        loop {
            let stop = self.stop.load(Ordering::Acquire);
            while let Ok(order) = self.orders.pop() {
                self.obey(order);
            }
            self.flush();
            if stop {
                return;
            }
            if self.door.lie_down() {
                self.sleep();
            }
            self.door.get_up();
            self.door.heard();
        }
    }

    fn obey(&mut self, order: Order) {
        let began = Instant::now();
        match order {
            Order::Fail(id, handle) => {
                match handle.fail() {
                    Ok(()) => self.tell(ProviderEvent::LaneFailed(id), self.place(&handle)),
                    // The engine gives up on the flush after a while, and has the QP destroyed.
                    Err(error) => tracing::error!(?id, %error, "a lane cannot be failed"),
                }
                tracing::debug!(?id, qp = ?handle, us = began.elapsed().as_micros() as u64, "lane to the error state");
            }
            Order::Close(id, handle) => match Arc::try_unwrap(handle) {
                Ok(handle) => {
                    let rail = self.place(&handle);
                    let gone = handle.destroy().is_ok();
                    tracing::debug!(?id, rail, gone, us = began.elapsed().as_micros() as u64, "QP destroyed");
                    if gone {
                        self.tell(ProviderEvent::LaneClosed(id), rail);
                    }
                }
                Err(_) => tracing::error!(?id, "a lane that is in use elsewhere cannot be closed"),
            },
        }
    }

    /// The rail's place. No QP of other rails comes here.
    fn place(&self, handle: &Handle) -> usize {
        self.rails.iter().position(|rail| Arc::ptr_eq(rail, handle.rail())).unwrap_or(0)
    }

    fn tell(&mut self, event: ProviderEvent, rail: usize) {
        self.backlog.push_back(Told { event, rail, lost: false });
    }

    fn flush(&mut self) {
        let mut some = false;
        while let Some(event) = self.backlog.pop_front() {
            if let Err(rtrb::PushError::Full(event)) = self.events.push(event) {
                self.backlog.push_front(event);
                break;
            }
            some = true;
        }
        if some {
            self.engine.ring();
        }
    }

    /// Until somebody rings, or a device says something.
    fn sleep(&mut self) {
        let mut fds = [None; MAX_RAILS];
        for (index, rail) in self.rails.iter().enumerate().filter(|(index, _)| self.deaf & 1 << index == 0) {
            fds[index] = Some(events::fd(rail));
        }
        let retry = Timespec::try_from(RETRY).ok();
        let timeout = if self.backlog.is_empty() { None } else { retry.as_ref() };
        let Ready { readable, hung_up } = match doze(&self.door, &fds[..self.rails.len()], timeout) {
            Ok(ready) => ready,
            Err(error) => {
                // Out of memory for a moment. Without a pause this thread would do nothing but ask
                // again.
                tracing::error!(%error, "the devices' events cannot be waited for");
                std::thread::sleep(RETRY);
                return;
            }
        };
        let mut notices = Vec::new();
        for index in 0..self.rails.len() {
            let bit = 1 << index;
            let mut some = false;
            if readable & bit != 0 {
                events::read(&self.rails[index], |notice| {
                    some = true;
                    notices.push((index, notice));
                });
            }
            // What it had to say before it hung up was said first.
            if hung_up & bit != 0 && !some {
                notices.push((index, Notice::HungUp));
            }
        }
        for (index, notice) in notices {
            self.hear(index, notice);
        }
    }

    fn hear(&mut self, index: usize, notice: Notice) {
        // Rails are at most 16.
        let rail = RailIndex(index as u8);
        match notice {
            Notice::Down => self.tell(ProviderEvent::RailDown(rail), index),
            Notice::Up => self.tell(ProviderEvent::RailUp(rail), index),
            Notice::Lost => self.lose(rail),
            Notice::HungUp => {
                self.deaf |= 1 << index;
                self.lose(rail);
            }
            // In the error state by itself: as if it had been asked for.
            Notice::Lane(id) => self.tell(ProviderEvent::LaneFailed(id), index),
            Notice::Other => {}
        }
    }

    fn lose(&mut self, rail: RailIndex) {
        self.backlog.push_back(Told { event: ProviderEvent::RailDown(rail), rail: rail.get(), lost: true });
    }
}
