//! The control thread: QP changes that block in the kernel, and the devices' own events.
//!
//! Moving a QP to the error state and destroying it are system calls that wait for the device. The
//! engine's thread requests them through one ring, and gets an event through another ring when they
//! are done.
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
use kvrail_host::ring::{RingConsumer, RingProducer, ring};
use kvrail_host::wake::WakeFd;
use rustix::event::Timespec;

use super::events::{self, DeviceEvent};
use super::polling::{Ready, poll_fds};
use crate::error::{Errno, RailError};
use crate::qp::handle::QpHandle;
use crate::rail::Rail;

/// How soon a full ring of events, or a poll(2) that has failed, is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A request of the engine's thread.
#[derive(Debug)]
enum Request {
    /// Move the QP to the error state.
    Fail(LaneId, Arc<QpHandle>),
    /// Destroy the QP.
    Destroy(LaneId, Arc<QpHandle>),
}

/// An event for the engine, and its rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlEvent {
    pub(super) event: ProviderEvent,
    pub(super) rail: usize,
    /// The rail is lost for good: its device is gone, or its queue has lost completions.
    pub(super) lost: bool,
}

/// The engine's ends of both rings, and the thread.
pub(super) struct Control {
    requests: RingProducer<Request>,
    events: RingConsumer<ControlEvent>,
    /// Wakes the control thread.
    wake: Arc<WakeFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread for `rails`, which have room for `lanes` lanes at a time. `engine` wakes
    /// the engine.
    pub(super) fn start(rails: &[Arc<Rail>], lanes: usize, engine: &Arc<WakeFd>) -> Result<Self, RailError> {
        // Each lane fails once and closes once, and its place may be taken by another lane before
        // the control thread has carried that out.
        let (requests, requests_out) = ring(4 * lanes + 64);
        let (events_in, events) = ring(4 * lanes + 64);
        let wake = Arc::new(wake_fd()?);
        let stop = Arc::new(AtomicBool::new(false));
        for rail in rails {
            rail.claim()?;
            events::prepare(rail)?;
        }
        let worker = Worker {
            requests: requests_out,
            events: events_in,
            backlog: VecDeque::new(),
            engine: Arc::clone(engine),
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
            rails: rails.to_vec(),
            hung_up: 0,
        };
        let thread = std::thread::Builder::new().name("kvrail-verbs".into()).spawn(move || worker.run());
        let thread = thread.map_err(|e| RailError::System {
            what: "control thread",
            errno: Errno(e.raw_os_error().unwrap_or(libc::EAGAIN)),
        })?;
        Ok(Self { requests, events, wake, stop, thread: Some(thread) })
    }

    /// Requests that the lane's QP be moved to the error state. `LaneFailed` follows.
    pub(super) fn fail_later(&mut self, id: LaneId, qp: Arc<QpHandle>) {
        self.request(Request::Fail(id, qp));
    }

    /// Requests that the lane's QP be destroyed. `LaneClosed` follows.
    pub(super) fn destroy_later(&mut self, id: LaneId, qp: Arc<QpHandle>) {
        self.request(Request::Destroy(id, qp));
    }

    /// Sends a request. The ring has room for more requests than all lanes can make.
    fn request(&mut self, request: Request) {
        if let Err(request) = self.requests.push(request) {
            tracing::error!(?request, "the ring of requests is full");
        }
        self.wake.request();
    }

    /// The oldest event that the engine has not seen.
    #[inline]
    pub(super) fn next_event(&mut self) -> Option<ControlEvent> {
        self.events.pop()
    }

    pub(super) fn has_events(&mut self) -> bool {
        !self.events.is_empty()
    }

    /// Ends the thread after it has carried out all requests.
    pub(super) fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.request();
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

/// A wake flag with its descriptor.
pub(super) fn wake_fd() -> Result<WakeFd, RailError> {
    WakeFd::new().map_err(|e| RailError::System { what: "eventfd", errno: Errno(e.raw_os_error()) })
}

struct Worker {
    requests: RingConsumer<Request>,
    events: RingProducer<ControlEvent>,
    /// Events that the ring had no room for.
    backlog: VecDeque<ControlEvent>,
    engine: Arc<WakeFd>,
    wake: Arc<WakeFd>,
    stop: Arc<AtomicBool>,
    rails: Vec<Arc<Rail>>,
    /// Rails whose devices have hung up, a bit for each: their descriptors are not polled any more.
    hung_up: u32,
}

impl Worker {
    fn run(mut self) {
        loop {
            let stop = self.stop.load(Ordering::Acquire);
            while let Some(request) = self.requests.pop() {
                self.execute(request);
            }
            self.flush();
            if stop {
                return;
            }
            if self.wake.prepare_sleep() {
                self.sleep();
            }
            self.wake.finish_sleep();
            let _ = self.wake.take_request();
        }
    }

    fn execute(&mut self, request: Request) {
        let began = Instant::now();
        match request {
            Request::Fail(id, qp) => {
                match qp.fail() {
                    Ok(()) => self.report(ProviderEvent::LaneFailed(id), self.place(&qp)),
                    // The engine waits for the flush for a while, and then has the QP destroyed.
                    Err(error) => tracing::error!(?id, %error, "a lane cannot be failed"),
                }
                let us = began.elapsed().as_micros() as u64;
                tracing::debug!(?id, ?qp, us, "lane to the error state");
            }
            Request::Destroy(id, qp) => match Arc::try_unwrap(qp) {
                Ok(qp) => {
                    let rail = self.place(&qp);
                    let destroyed = qp.destroy().is_ok();
                    let us = began.elapsed().as_micros() as u64;
                    tracing::debug!(?id, rail, destroyed, us, "QP destroyed");
                    if destroyed {
                        self.report(ProviderEvent::LaneClosed(id), rail);
                    }
                }
                Err(_) => tracing::error!(?id, "a lane that is in use elsewhere cannot be closed"),
            },
        }
    }

    /// The place of the QP's rail. No QP of another provider's rails comes here.
    fn place(&self, qp: &QpHandle) -> usize {
        self.rails.iter().position(|rail| Arc::ptr_eq(rail, qp.rail())).unwrap_or(0)
    }

    fn report(&mut self, event: ProviderEvent, rail: usize) {
        self.backlog.push_back(ControlEvent { event, rail, lost: false });
    }

    fn report_lost(&mut self, rail: RailIndex) {
        self.backlog.push_back(ControlEvent {
            event: ProviderEvent::RailDown(rail),
            rail: rail.get(),
            lost: true,
        });
    }

    /// Moves the backlog into the ring, as far as the ring has room.
    fn flush(&mut self) {
        let mut some = false;
        while let Some(event) = self.backlog.pop_front() {
            if let Err(event) = self.events.push(event) {
                self.backlog.push_front(event);
                break;
            }
            some = true;
        }
        if some {
            self.engine.request();
        }
    }

    /// Sleeps until there is a request or a device has an event, and reports the devices' events.
    fn sleep(&mut self) {
        let mut fds = [None; MAX_RAILS];
        for (index, rail) in self.rails.iter().enumerate().filter(|(index, _)| self.hung_up & 1 << index == 0)
        {
            fds[index] = Some(events::fd(rail));
        }
        let retry = Timespec::try_from(RETRY).ok();
        let timeout = if self.backlog.is_empty() { None } else { retry.as_ref() };
        let Ready { readable, hung_up } = match poll_fds(&self.wake, &fds[..self.rails.len()], timeout) {
            Ok(ready) => ready,
            Err(error) => {
                // The system is out of memory for a moment. Without a pause this thread would spin.
                tracing::error!(%error, "the devices' events cannot be waited for");
                std::thread::sleep(RETRY);
                return;
            }
        };
        let mut found = Vec::new();
        for index in 0..self.rails.len() {
            let bit = 1 << index;
            let mut some = false;
            if readable & bit != 0 {
                events::read(&self.rails[index], |event| {
                    some = true;
                    found.push((index, event));
                });
            }
            // Events from before the device hung up are read first.
            if hung_up & bit != 0 && !some {
                found.push((index, DeviceEvent::HungUp));
            }
        }
        for (index, event) in found {
            self.take(index, event);
        }
    }

    fn take(&mut self, index: usize, event: DeviceEvent) {
        // Rails are at most 16.
        let rail = RailIndex(index as u8);
        match event {
            DeviceEvent::PortDown => self.report(ProviderEvent::RailDown(rail), index),
            DeviceEvent::PortUp => self.report(ProviderEvent::RailUp(rail), index),
            DeviceEvent::Lost => self.report_lost(rail),
            DeviceEvent::HungUp => {
                self.hung_up |= 1 << index;
                self.report_lost(rail);
            }
            // The QP went to the error state by itself. The engine gets the same event as for a
            // request.
            DeviceEvent::LaneFailed(id) => self.report(ProviderEvent::LaneFailed(id), index),
            DeviceEvent::Other => {}
        }
    }
}
