//! What wakes an engine that sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::provider::Wake;
use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Errno, RailError};

/// A demand to wake up, and a descriptor that is readable while it stands and somebody sleeps.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> Result<Arc<Self>, RailError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let fd = fd.map_err(|e| RailError::System { what: "an eventfd", errno: Errno(e.raw_os_error()) })?;
        Ok(Arc::new(Self { fd, rung: AtomicBool::new(false), asleep: AtomicBool::new(false) }))
    }

    /// Rings: the present or the next sleep ends. A system call only if somebody sleeps.
    pub(crate) fn ring(&self) {
        // Both sides write their own word before they read the other's: one of the two sees the other.
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            // Full at 2^64 - 1 unheard rings: it is readable then, too.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Takes the demand, if there is one.
    pub(crate) fn heard(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::SeqCst)
    }

    /// About to sleep on the descriptor. `false`: it has rung already, do not.
    pub(crate) fn lie_down(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.rung.load(Ordering::SeqCst)
    }

    /// Slept. Leaves the descriptor silent.
    pub(crate) fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        // Not readable is as well.
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Wakes an engine over verbs, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(pub(crate) Arc<Bell>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(bell: &Bell) -> bool {
        let mut fds = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn a_ring_before_during_and_after_a_sleep_is_heard_once() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(!readable(&bell), "nobody slept, so no system call was made");
        assert!(!bell.lie_down(), "it has rung: no sleep");
        bell.get_up();
        assert!(bell.heard() && !bell.heard());
        assert!(bell.lie_down());
        bell.ring();
        bell.ring();
        assert!(readable(&bell));
        bell.get_up();
        assert!(!readable(&bell));
        assert!(bell.heard() && !bell.heard());
    }
}
