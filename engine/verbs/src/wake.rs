//! How a thread that sleeps in poll(2) is woken by another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// A wake flag, and an eventfd that is readable while the flag is set and a thread sleeps.
#[derive(Debug)]
pub(crate) struct WakeFd {
    fd: OwnedFd,
    requested: AtomicBool,
    asleep: AtomicBool,
}

impl WakeFd {
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, requested: AtomicBool::new(false), asleep: AtomicBool::new(false) })
    }

    /// Ends the present sleep, or the next one. Makes a system call only if a thread sleeps.
    pub(crate) fn request(&self) {
        // Both sides set their own word before they read the other's: one of the two sees the other.
        self.requested.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            // Fails only when the counter is full, and a descriptor with a full counter is readable.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Takes the request, if there is one.
    pub(crate) fn take_request(&self) -> bool {
        self.requested.load(Ordering::Relaxed) && self.requested.swap(false, Ordering::SeqCst)
    }

    /// The calling thread is about to sleep on the descriptor. `false`: a wake-up has been requested already.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.requested.load(Ordering::SeqCst)
    }

    /// The calling thread does not sleep any more. The descriptor is not readable afterwards.
    pub(crate) fn finish_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        // Fails only when the counter is 0, and then the descriptor is not readable.
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(wake: &WakeFd) -> bool {
        let mut fds = [PollFd::new(wake, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn a_request_before_during_and_after_a_sleep_is_taken_once() {
        let wake = WakeFd::new().unwrap();
        wake.request();
        assert!(!readable(&wake), "no thread slept, so no system call was made");
        assert!(!wake.prepare_sleep(), "a wake-up was requested: no sleep");
        wake.finish_sleep();
        assert!(wake.take_request() && !wake.take_request());
        assert!(wake.prepare_sleep());
        wake.request();
        wake.request();
        assert!(readable(&wake));
        wake.finish_sleep();
        assert!(!readable(&wake));
        assert!(wake.take_request() && !wake.take_request());
    }
}
