//! The way of requests to the threads that look keys up for the polled form of `get`.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::sync::{Parker, Unparker};

use super::request::Request;
use crate::directory::DirectoryError;
use crate::miss::GetMiss;

/// The most requests that wait for a look-up.
const MAX_WAITING: usize = 4_096;
/// The most threads: each has a bit of a word.
pub(crate) const MAX_THREADS: usize = 64;
/// How long no thread has taken a request before more threads are started.
const STEP: Duration = Duration::from_millis(2);
/// How long no thread has taken a request, where there are as many as may be, before requests are
/// not made to wait any more.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a thread that was started since others were held stays without work.
const IDLE: Duration = Duration::from_secs(2);

/// The queue, and how the threads are woken: one for each request, so that a thread whose directory
/// does not answer keeps no other from its work.
///
/// Where all threads are held by calls, the [watcher](Self::watch) starts more, up to
/// [`MAX_THREADS`]. When all of these are held, requests come back as misses at once, until a call
/// ends.
pub(crate) struct LookUpLink {
    requests: ArrayQueue<Box<Request>>,
    threads: Box<[Unparker]>,
    /// The numbers of threads that do not run, and what they would sleep with.
    places: Mutex<Vec<Place>>,
    /// What the directory calls itself.
    directory: Arc<str>,
    /// How many threads stay that have nothing to do.
    kept: usize,
    running: AtomicUsize,
    /// A bit for each thread that sleeps, or is about to.
    asleep: AtomicU64,
    /// How many requests were taken.
    taken: AtomicU64,
    /// All threads that there may be wait for the directory, unless one sleeps.
    held: AtomicBool,
    watcher: Unparker,
    watcher_asleep: AtomicBool,
    stopping: AtomicBool,
}

/// The number of a thread, and what it sleeps with.
pub(crate) struct Place {
    number: usize,
    parker: Parker,
}

impl Place {
    /// The thread's number.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }
}

impl LookUpLink {
    /// The link of `kept` threads, [`MAX_THREADS`] at most, to the directory of this name, and what
    /// its watcher sleeps with.
    pub(crate) fn new(kept: usize, directory: Arc<str>) -> (Self, Parker) {
        let mut places: Vec<_> =
            (0..MAX_THREADS).map(|number| Place { number, parker: Parker::new() }).collect();
        let threads = places.iter().map(|place| place.parker.unparker().clone()).collect();
        // The lowest number is given out first.
        places.reverse();
        let watcher = Parker::new();
        let link = Self {
            requests: ArrayQueue::new(MAX_WAITING),
            threads,
            places: Mutex::new(places),
            directory,
            kept: kept.min(MAX_THREADS),
            running: AtomicUsize::new(0),
            asleep: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            held: AtomicBool::new(false),
            watcher: watcher.unparker().clone(),
            watcher_asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        };
        (link, watcher)
    }

    /// Sends a request. If it cannot go, its open keys are misses and it is delivered.
    pub(crate) fn send(&self, request: Box<Request>) {
        if self.is_stopping() {
            return refuse(request, &GetMiss::Stopped);
        }
        // A thread that sleeps has ended its last call after the watcher said so.
        if self.held.load(Ordering::Relaxed) && self.asleep.load(Ordering::Relaxed) == 0 {
            return refuse(request, &self.busy());
        }
        if let Err(request) = self.requests.push(request) {
            return refuse(request, &GetMiss::Busy { limit: MAX_WAITING });
        }
        self.wake_one();
        if self.is_stopping() {
            self.refuse_all(&GetMiss::Stopped);
        }
    }

    /// Wakes one of the threads that sleep; the watcher if none does.
    fn wake_one(&self) {
        // Either a thread that goes to sleep sees the request, or this sees the thread.
        fence(Ordering::SeqCst);
        let mut asleep = self.asleep.load(Ordering::Relaxed);
        while asleep != 0 {
            let first = asleep.trailing_zeros();
            let before = self.asleep.fetch_and(!(1 << first), Ordering::Relaxed);
            if before & 1 << first != 0 {
                return self.threads[first as usize].unpark();
            }
            asleep = before & !(1 << first);
        }
        if self.watcher_asleep.load(Ordering::Relaxed) && self.watcher_asleep.swap(false, Ordering::Relaxed) {
            self.watcher.unpark();
        }
    }

    /// Sleeps, unless there is a request. Returns whether the thread is to go on: not if it has had
    /// nothing to do for long, and there are more threads than are kept.
    pub(crate) fn sleep(&self, place: &Place) -> bool {
        let bit = 1 << place.number;
        self.asleep.fetch_or(bit, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let spare = self.running() > self.kept;
        let mut idle = false;
        if self.requests.is_empty() && !self.is_stopping() {
            if spare {
                let since = Instant::now();
                place.parker.park_timeout(IDLE);
                idle = since.elapsed() >= IDLE;
            } else {
                place.parker.park();
            }
        }
        let was_asleep = self.asleep.fetch_and(!bit, Ordering::Relaxed) & bit != 0;
        // A thread that was woken has a request to look for.
        !(idle && was_asleep && self.leave_if_spare())
    }

    fn leave_if_spare(&self) -> bool {
        let one_less = |running: usize| running.checked_sub(1).filter(|_| running > self.kept);
        self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// The next request for a thread, which has ended its last call.
    pub(crate) fn next(&self) -> Option<Box<Request>> {
        if self.held.load(Ordering::Relaxed) {
            self.held.store(false, Ordering::Relaxed);
        }
        let request = self.requests.pop()?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(request)
    }

    /// A place for one more thread, which is counted as running from now on.
    pub(crate) fn begin(&self) -> Option<Place> {
        let place = self.places().pop()?;
        self.running.fetch_add(1, Ordering::Relaxed);
        Some(place)
    }

    /// A thread ends that [`sleep`](Self::sleep) has not sent away, or was not started.
    pub(crate) fn end(&self, place: Place) {
        self.give_back(place);
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// The place of a thread that ends is another one's.
    pub(crate) fn give_back(&self, place: Place) {
        self.places().push(place);
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        // A list of values, which is valid whichever thread panicked.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads there are.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Watches whether requests are taken, until the node stops. `start` starts a thread in a
    /// place, or gives the place back.
    pub(crate) fn watch(&self, parker: &Parker, mut start: impl FnMut(Place)) {
        while !self.is_stopping() {
            self.watcher_asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.requests.is_empty() && !self.is_stopping() {
                parker.park();
            }
            self.watcher_asleep.store(false, Ordering::Relaxed);
            let (mut taken, mut since) = (self.taken.load(Ordering::Relaxed), Instant::now());
            while !self.requests.is_empty() && !self.is_stopping() {
                parker.park_timeout(STEP);
                let now = self.taken.load(Ordering::Relaxed);
                if now != taken {
                    (taken, since) = (now, Instant::now());
                    continue;
                }
                if since.elapsed() < STEP {
                    continue;
                }
                let before = self.running();
                for _ in 0..self.requests.len() {
                    let Some(place) = self.begin() else { break };
                    start(place);
                }
                if self.running() == before && since.elapsed() >= PATIENCE {
                    tracing::warn!(
                        threads = before,
                        "all look-ups wait for the directory: others are misses"
                    );
                    self.held.store(true, Ordering::Relaxed);
                    self.refuse_all(&self.busy());
                }
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(Unparker::unpark);
        self.watcher.unpark();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The reason of keys that are not looked up since all threads wait for the directory.
    fn busy(&self) -> GetMiss {
        let directory = Arc::clone(&self.directory);
        GetMiss::Directory(Some(Arc::new(DirectoryError::Busy { directory, limit: MAX_THREADS })))
    }

    pub(crate) fn refuse_all(&self, why: &GetMiss) {
        while let Some(request) = self.requests.pop() {
            refuse(request, why);
        }
    }
}

fn refuse(mut request: Box<Request>, why: &GetMiss) {
    request.miss_rest(why);
    request.deliver();
}

impl fmt::Debug for LookUpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookUpLink")
            .field("waiting", &self.requests.len())
            .field("threads", &self.running())
            .finish_non_exhaustive()
    }
}
