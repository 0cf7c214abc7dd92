//! The way of requests to the threads that look keys up for the polled form of `get`.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::sync::{Parker, Unparker};

use super::request::Request;
use crate::miss::GetMiss;

/// The most requests that wait for a look-up.
const MAX_WAITING: usize = 4_096;
/// The most threads: each has a bit of a word.
pub(crate) const MAX_THREADS: usize = 64;

/// The queue, and how the threads are woken: one for each request, so that a thread whose directory
/// does not answer keeps no other from its work.
pub(crate) struct LookUpLink {
    requests: ArrayQueue<Box<Request>>,
    threads: Box<[Unparker]>,
    /// A bit for each thread that sleeps, or is about to.
    asleep: AtomicU64,
    stopping: AtomicBool,
}

impl LookUpLink {
    /// The link of `threads` threads, [`MAX_THREADS`] at most, and what each sleeps with.
    pub(crate) fn new(threads: usize) -> (Self, Vec<Parker>) {
        let parkers: Vec<_> = (0..threads.min(MAX_THREADS)).map(|_| Parker::new()).collect();
        let link = Self {
            requests: ArrayQueue::new(MAX_WAITING),
            threads: parkers.iter().map(|parker| parker.unparker().clone()).collect(),
            asleep: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        };
        (link, parkers)
    }

    /// Sends a request. If it cannot go, its open keys are misses and it is delivered.
    pub(crate) fn send(&self, request: Box<Request>) {
        if self.is_stopping() {
            return refuse(request, &GetMiss::Stopped);
        }
        if let Err(request) = self.requests.push(request) {
            return refuse(request, &GetMiss::Busy { limit: MAX_WAITING });
        }
        self.wake_one();
        if self.is_stopping() {
            self.refuse_all();
        }
    }

    /// Wakes one of the threads that sleep.
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
    }

    /// Sleeps as thread number `thread`, unless there is a request.
    pub(crate) fn sleep(&self, thread: usize, parker: &Parker) {
        let bit = 1 << thread;
        self.asleep.fetch_or(bit, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.requests.is_empty() && !self.is_stopping() {
            parker.park();
        }
        self.asleep.fetch_and(!bit, Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> Option<Box<Request>> {
        self.requests.pop()
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(Unparker::unpark);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn refuse_all(&self) {
        while let Some(request) = self.next() {
            refuse(request, &GetMiss::Stopped);
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
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}
