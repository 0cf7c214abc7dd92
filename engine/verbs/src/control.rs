//! The control thread: whatever blocks in the kernel, and what the devices say by themselves.
//!
//! Moving a QP to the error state and destroying it are system calls that wait for the device. The engine's
//! thread asks for them through a ring, and hears of them through another.
//!
//! A completion queue without a lock needs care: libmlx5 takes a QP's last entries out of it when the QP is
//! destroyed, so nobody may poll it meanwhile. [`Custody`] is how the engine lends its queue for that moment.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex};
use kvrail_core::provider::Event;
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bell::Bell;
use crate::error::{Errno, RailError};
use crate::events::{self, Notice};
use crate::qp::Handle;
use crate::rail::Rail;

/// How soon a full ring of events is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Which queues the control thread wants, and which it has: one word, a bit of each per rail.
///
/// The control thread sets and clears, the engine adds that it lends; since both are in one word, an answer
/// cannot be taken for that to another question.
#[derive(Debug, Default)]
pub(crate) struct Custody(AtomicU32);

const _: () = assert!(MAX_RAILS == 16, "two bits of each rail in 32");

impl Custody {
    const LENT: u32 = 16;

    /// The control thread wants `rail`'s queue.
    fn ask(&self, rail: usize) {
        self.0.fetch_or(1 << rail, Ordering::Relaxed);
    }

    /// Whether it has it.
    fn has(&self, rail: usize) -> bool {
        self.0.load(Ordering::Acquire) & (1 << (rail as u32 + Self::LENT)) != 0
    }

    /// It is done with it.
    fn give_back(&self, rail: usize) {
        let bit = 1 << rail;
        self.0.fetch_and(!(bit | bit << Self::LENT), Ordering::Release);
    }

    /// The engine lends what is asked for. Returns the rails that it must not poll, and whether there are new ones.
    #[inline]
    pub(crate) fn lend(&self) -> (u32, bool) {
        match self.0.load(Ordering::Acquire) {
            0 => (0, false),
            word => self.lend_some(word),
        }
    }

    #[cold]
    fn lend_some(&self, mut word: u32) -> (u32, bool) {
        loop {
            let lent = word | (word & 0xFFFF) << Self::LENT;
            // Wait-free in effect: the word changes only when a lane is closed.
            match self.0.compare_exchange(word, lent, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (lent >> Self::LENT, lent != word),
                Err(now) => word = now,
            }
        }
    }

    /// The engine polls no more.
    fn abandon(&self) {
        self.0.fetch_or(0xFFFF << Self::LENT, Ordering::Release);
    }
}

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
    pub(crate) event: Event,
    pub(crate) rail: usize,
}

/// Where QPs are left whose owners are not the engine.
#[derive(Debug)]
pub(crate) struct Grave {
    dead: mpsc::Sender<Handle>,
    door: Arc<Bell>,
}

impl Grave {
    /// Leaves a QP to be destroyed; it comes back if nobody is there to do so, nor to poll.
    pub(crate) fn bury(&self, handle: Handle) -> Result<(), Handle> {
        self.dead.send(handle).map_err(|mpsc::SendError(handle)| handle)?;
        self.door.ring();
        Ok(())
    }
}

/// The engine's ends.
pub(crate) struct Control {
    pub(crate) orders: Producer<Order>,
    pub(crate) events: Consumer<Told>,
    pub(crate) custody: Arc<Custody>,
    pub(crate) door: Arc<Bell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread. `lanes`: how many there can be at a time.
    pub(crate) fn start(rails: &[Arc<Rail>], lanes: usize, engine: &Arc<Bell>) -> Result<Self, RailError> {
        // Each lane fails and closes once, and the control thread may fall behind by as much.
        let (orders, orders_out) = RingBuffer::new(4 * lanes + 64);
        let (events_in, events) = RingBuffer::new(4 * lanes + 64);
        let (dead, dead_out) = mpsc::channel();
        let door = Bell::new()?;
        let custody = Arc::new(Custody::default());
        let stop = Arc::new(AtomicBool::new(false));
        for rail in rails {
            let grave = Grave { dead: dead.clone(), door: Arc::clone(&door) };
            if rail.grave.set(grave).is_err() {
                return Err(RailError::InUse(rail.name().into()));
            }
            events::prepare(rail)?;
        }
        let worker = Worker {
            orders: orders_out,
            dead: dead_out,
            events: events_in,
            backlog: VecDeque::new(),
            dying: Vec::new(),
            custody: Arc::clone(&custody),
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
        Ok(Self { orders, events, custody, door, stop, thread: Some(thread) })
    }

    /// Asks for something. The ring holds more than all lanes can ask for.
    pub(crate) fn order(&mut self, order: Order) {
        if let Err(rtrb::PushError::Full(order)) = self.orders.push(order) {
            tracing::error!(?order, "the ring of orders is full");
        }
        self.door.ring();
    }

    /// Ends the thread when it has done what was asked. The engine polls no more.
    pub(crate) fn end(&mut self) {
        self.custody.abandon();
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
        f.debug_struct("Control").field("custody", &self.custody).finish_non_exhaustive()
    }
}

struct Worker {
    orders: Consumer<Order>,
    dead: mpsc::Receiver<Handle>,
    events: Producer<Told>,
    /// Events that the ring had no room for.
    backlog: VecDeque<Told>,
    /// QPs that wait for their queue.
    dying: Vec<(usize, Option<LaneId>, Handle)>,
    custody: Arc<Custody>,
    engine: Arc<Bell>,
    door: Arc<Bell>,
    stop: Arc<AtomicBool>,
    rails: Vec<Arc<Rail>>,
    /// Rails whose devices have hung up.
    deaf: u32,
}

impl Worker {
    fn run(mut self) {
        loop {
            let stop = self.stop.load(Ordering::Acquire);
            while let Ok(order) = self.orders.pop() {
                self.obey(order);
            }
            while let Ok(handle) = self.dead.try_recv() {
                self.condemn(None, handle);
            }
            self.execute();
            self.flush();
            if stop && self.dying.is_empty() {
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
        match order {
            Order::Fail(id, handle) => {
                let began = Instant::now();
                match handle.fail() {
                    Ok(()) => self.tell(Event::LaneFailed(id), self.place(&handle)),
                    // The engine gives up on the flush after a while, and has the QP destroyed.
                    Err(error) => tracing::error!(?id, %error, "a lane cannot be failed"),
                }
                tracing::debug!(?id, qp = ?handle, us = began.elapsed().as_micros() as u64, "lane to the error state");
            }
            Order::Close(id, handle) => match Arc::try_unwrap(handle) {
                Ok(handle) => self.condemn(Some(id), handle),
                Err(_) => tracing::error!(?id, "a lane that is in use elsewhere cannot be closed"),
            },
        }
    }

    fn condemn(&mut self, id: Option<LaneId>, handle: Handle) {
        let rail = self.place(&handle);
        if handle.rail().cq().single_threaded() {
            self.custody.ask(rail);
            self.engine.ring();
        }
        self.dying.push((rail, id, handle.unpolled()));
    }

    /// The rail's place. No QP of other rails comes here.
    fn place(&self, handle: &Handle) -> usize {
        self.rails.iter().position(|rail| Arc::ptr_eq(rail, handle.rail())).unwrap_or(0)
    }

    /// Destroys what can be destroyed now.
    fn execute(&mut self) {
        let mut lent = 0_u32;
        for (rail, id, handle) in std::mem::take(&mut self.dying) {
            let free = !handle.rail().cq().single_threaded();
            if !free && !self.custody.has(rail) {
                self.dying.push((rail, id, handle));
                continue;
            }
            lent |= u32::from(!free) << rail;
            let began = Instant::now();
            let gone = handle.destroy_unpolled().is_ok();
            tracing::debug!(?id, rail, gone, us = began.elapsed().as_micros() as u64, "QP destroyed");
            if gone && let Some(id) = id {
                self.tell(Event::LaneClosed(id), rail);
            }
        }
        for rail in (0..self.rails.len()).filter(|rail| lent & 1 << rail != 0) {
            self.custody.give_back(rail);
            self.engine.ring();
        }
    }

    fn tell(&mut self, event: Event, rail: usize) {
        self.backlog.push_back(Told { event, rail });
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
        let mut notices = Vec::new();
        {
            let fds: Vec<(usize, BorrowedFd<'_>)> = self
                .rails
                .iter()
                .enumerate()
                .filter(|(rail, _)| self.deaf & 1 << rail == 0)
                .map(|(index, rail)| (index, events::fd(rail)))
                .collect();
            let mut polled: Vec<PollFd<'_>> =
                fds.iter().map(|&(_, fd)| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            polled.push(PollFd::from_borrowed_fd(self.door.as_fd(), PollFlags::IN));
            let retry = Timespec::try_from(RETRY).ok();
            let timeout = if self.backlog.is_empty() { None } else { retry.as_ref() };
            // Interrupted, or out of memory for a moment: the loop comes round again.
            let _ = poll(&mut polled, timeout);
            for ((index, _), polled) in fds.iter().zip(&polled) {
                let said = polled.revents();
                if said.contains(PollFlags::IN) {
                    events::read(&self.rails[*index], |notice| notices.push((*index, notice)));
                } else if said.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                    notices.push((*index, Notice::Gone));
                }
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
            Notice::Down => self.tell(Event::RailDown(rail), index),
            Notice::Up => self.tell(Event::RailUp(rail), index),
            Notice::Gone => {
                self.deaf |= 1 << index;
                self.tell(Event::RailDown(rail), index);
            }
            // In the error state by itself: as if it had been asked for.
            Notice::Lane(id) => self.tell(Event::LaneFailed(id), index),
            Notice::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_lent_when_asked_for_and_comes_back() {
        let custody = Custody::default();
        assert_eq!(custody.lend(), (0, false));
        custody.ask(3);
        assert!(!custody.has(3));
        assert_eq!(custody.lend(), (1 << 3, true));
        assert!(custody.has(3) && !custody.has(4));
        assert_eq!(custody.lend(), (1 << 3, false));
        custody.ask(4);
        assert!(!custody.has(4));
        custody.give_back(3);
        assert_eq!(custody.lend(), (1 << 4, true));
        assert!(!custody.has(3) && custody.has(4));
        custody.give_back(4);
        assert_eq!(custody.lend(), (0, false));
        custody.abandon();
        assert!(custody.has(0) && custody.has(15));
    }

    /// The engine "polls" only what it has not lent, the control thread "destroys" only what it has: the two
    /// never meet.
    #[test]
    fn the_two_threads_never_have_a_queue_at_the_same_time() {
        let custody = Custody::default();
        let inside = AtomicU32::new(0);
        let done = AtomicBool::new(false);
        let enter = || assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "both have it");
        let leave = || assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    custody.ask(0);
                    while !custody.has(0) {
                        std::thread::yield_now();
                    }
                    enter();
                    leave();
                    custody.give_back(0);
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                if custody.lend().0 == 0 {
                    enter();
                    leave();
                } else {
                    std::thread::yield_now();
                }
            }
        });
    }
}
