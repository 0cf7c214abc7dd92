//! The way of requests to the thread that looks keys up for the polled form of `get`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::sync::{Parker, Unparker};

use super::request::Request;
use crate::miss::GetMiss;

/// The most requests that wait for a look-up.
const MAX_WAITING: usize = 4_096;

/// The queue, and how the thread is woken.
pub(crate) struct LookUpLink {
    requests: ArrayQueue<Box<Request>>,
    unparker: Unparker,
    stopping: AtomicBool,
}

impl LookUpLink {
    /// The link, and what its thread sleeps with.
    pub(crate) fn new() -> (Self, Parker) {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        (Self { requests: ArrayQueue::new(MAX_WAITING), unparker, stopping: AtomicBool::new(false) }, parker)
    }

    /// Sends a request. If it cannot go, its open keys are misses and it is delivered.
    pub(crate) fn send(&self, request: Box<Request>) {
        if self.is_stopping() {
            return refuse(request, &GetMiss::Stopped);
        }
        if let Err(request) = self.requests.push(request) {
            return refuse(request, &GetMiss::Busy { limit: MAX_WAITING });
        }
        self.unparker.unpark();
        if self.is_stopping() {
            self.refuse_all();
        }
    }

    pub(crate) fn next(&self) -> Option<Box<Request>> {
        self.requests.pop()
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.unparker.unpark();
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
        f.debug_struct("LookUpLink").field("waiting", &self.requests.len()).finish_non_exhaustive()
    }
}
