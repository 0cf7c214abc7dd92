//! How requests and registrations reach the thread that drives a reader.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use kvrail_core::memory::RegionError;
use kvrail_host::wake::WakeFd;
use rustix::io::Errno;

use super::destination::Registration;
use super::request::Request;
use crate::miss::GetMiss;

/// The most requests that wait for one reader.
pub(crate) const MAX_WAITING: usize = 8_192;

/// What a driver is asked to do besides reading.
pub(crate) enum Command {
    /// Register the memory of these places. Its owner has promised what registering asks for
    /// (`Registration::new`).
    Register(Arc<Registration>, Option<u8>, SyncSender<Result<(), RegionError>>),
    /// Release it. All places are free, and stay so.
    Unregister(Arc<Registration>, SyncSender<Release>),
}

/// What has become of a registration that was to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The reader does not use the memory any more.
    Released,
    /// The reader did not have it.
    NotHere,
    /// A slot was lost with a device that failed: the memory stays registered for ever.
    SlotLost,
}

/// The way to one driver.
pub(crate) struct DriverLink {
    requests: ArrayQueue<Box<Request>>,
    commands: Mutex<VecDeque<Command>>,
    has_commands: AtomicBool,
    pub(crate) wake: WakeFd,
    /// Pages that have been sent and have not come back.
    load: AtomicUsize,
    stopping: AtomicBool,
}

impl DriverLink {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            requests: ArrayQueue::new(MAX_WAITING),
            commands: Mutex::default(),
            has_commands: AtomicBool::new(false),
            wake: WakeFd::new()?,
            load: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// Sends a request whose `unsettled` pages are to be read. If it cannot go, its pages are
    /// misses and it comes back.
    pub(crate) fn send(&self, mut request: Box<Request>) -> Result<(), Box<Request>> {
        if self.is_stopping() {
            return Err(refused(request, &GetMiss::Stopped));
        }
        request.sent = request.unsettled;
        self.load.fetch_add(request.sent as usize, Ordering::Relaxed);
        if let Err(request) = self.requests.push(request) {
            self.came_back(request.sent);
            return Err(refused(request, &GetMiss::Busy { limit: MAX_WAITING }));
        }
        self.wake.request();
        // A driver that stopped meanwhile has looked for requests for the last time before or
        // after the push.
        if self.is_stopping() {
            self.refuse_all();
        }
        Ok(())
    }

    /// Gives all waiting requests back, as the driver is stopping.
    pub(crate) fn refuse_all(&self) {
        while let Some(request) = self.requests.pop() {
            refused(request, &GetMiss::Stopped).deliver();
        }
        self.has_commands.store(false, Ordering::Relaxed);
        // A thread that waits for an answer learns that its sender is gone.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn next_request(&self) -> Option<Box<Request>> {
        self.requests.pop()
    }

    /// Whether a request waits.
    pub(crate) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// `pages` pages of a request have come back.
    pub(crate) fn came_back(&self, pages: u32) {
        self.load.fetch_sub(pages as usize, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(crate) fn command(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        self.has_commands.store(true, Ordering::Release);
        self.wake.request();
        if self.is_stopping() {
            self.refuse_all();
        }
    }

    pub(crate) fn next_command(&self) -> Option<Command> {
        if !self.has_commands.load(Ordering::Acquire) {
            return None;
        }
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let next = commands.pop_front();
        if commands.is_empty() {
            self.has_commands.store(false, Ordering::Relaxed);
        }
        next
    }

    /// Tells the driver to stop.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake.request();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// The ways to all drivers of a node.
#[derive(Debug)]
pub(crate) struct DriverLinks {
    links: Box<[Arc<DriverLink>]>,
    next: AtomicUsize,
}

impl DriverLinks {
    pub(crate) fn new(links: Vec<Arc<DriverLink>>) -> Self {
        Self { links: links.into(), next: AtomicUsize::new(0) }
    }

    pub(crate) fn all(&self) -> &[Arc<DriverLink>] {
        &self.links
    }

    /// Sends a request to the driver with the fewest pages. If it cannot go, its open pages are
    /// misses and it comes back.
    pub(crate) fn send(&self, request: Box<Request>) -> Result<(), Box<Request>> {
        if let [only] = &*self.links {
            return only.send(request);
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let links = (0..self.links.len()).map(|n| &self.links[(first.wrapping_add(n)) % self.links.len()]);
        match links.min_by_key(|link| link.load()) {
            Some(link) => link.send(request),
            None => Err(refused(request, &GetMiss::Stopped)),
        }
    }
}

fn refused(mut request: Box<Request>, why: &GetMiss) -> Box<Request> {
    request.miss_rest(why);
    request.unsettled = 0;
    request
}

impl fmt::Debug for DriverLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverLink")
            .field("waiting", &self.requests.len())
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}
