//! How a thread that sleeps in poll(2) is woken by another thread.
//!
//! - [`EventFd`] is the descriptor alone: every [`signal`](EventFd::signal) is a system call.
//! - [`StopSignal`] is raised once and wakes every thread that polls it, for good.
//! - [`WakeFd`] adds a flag, so that waking a thread that does not sleep makes no system call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// An eventfd(2): a descriptor that is readable from [`signal`](Self::signal) to
/// [`clear`](Self::clear). Neither call blocks.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A descriptor that is not readable yet.
    ///
    /// # Errors
    ///
    /// The process or the system has no file descriptor left.
    pub fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// Makes it readable, and wakes the threads that poll it.
    pub fn signal(&self) {
        // Fails only when the counter is full, and a descriptor with a full counter is readable.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable, however often it was signalled.
    pub fn clear(&self) {
        self.take();
    }

    /// Makes it unreadable, and says how often it was signalled since it was last made so.
    pub fn take(&self) -> u64 {
        let mut count = [0_u8; 8];
        // Fails only when the counter is 0, and then the descriptor is not readable.
        let _ = rustix::io::read(&self.0, &mut count);
        u64::from_ne_bytes(count)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal to stop: not readable until it is raised, readable from then on.
#[derive(Debug)]
pub struct StopSignal(EventFd);

impl StopSignal {
    /// A signal that is not raised.
    ///
    /// # Errors
    ///
    /// The process or the system has no file descriptor left.
    pub fn new() -> Result<Self, Errno> {
        EventFd::new().map(Self)
    }

    /// Raises it. Every thread that polls it wakes, now and later: it cannot be lowered.
    pub fn raise(&self) {
        self.0.signal();
    }
}

impl AsFd for StopSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A wake flag, and an eventfd that is readable while the flag is set and a thread sleeps.
///
/// One thread sleeps; any thread wakes it. The sleeper calls
/// [`prepare_sleep`](Self::prepare_sleep), polls the descriptor if the answer is `true`, and calls
/// [`finish_sleep`](Self::finish_sleep). Each side sets its own word before it reads the other
/// side's, in one order for both (`SeqCst`). So at least one side sees the other: either the
/// sleeper sees the request and does not sleep, or the waker sees the sleeper and signals.
#[derive(Debug)]
pub struct WakeFd {
    fd: EventFd,
    requested: AtomicBool,
    asleep: AtomicBool,
}

impl WakeFd {
    /// A flag that is not set, and a descriptor that is not readable.
    ///
    /// # Errors
    ///
    /// The process or the system has no file descriptor left.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { fd: EventFd::new()?, requested: AtomicBool::new(false), asleep: AtomicBool::new(false) })
    }

    /// Ends the present sleep, or the next one. Makes a system call only if a thread sleeps.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.fd.signal();
        }
    }

    /// Takes the request, if there is one. Several requests count as one.
    #[must_use]
    pub fn take_request(&self) -> bool {
        self.requested.load(Ordering::Relaxed) && self.requested.swap(false, Ordering::SeqCst)
    }

    /// The calling thread is about to sleep on the descriptor. `false`: a wake-up has been
    /// requested already, so do not sleep.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.requested.load(Ordering::SeqCst)
    }

    /// The calling thread does not sleep any more. The descriptor is not readable afterwards.
    pub fn finish_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        self.fd.clear();
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The time from now to `until`, as poll(2) takes it: 0 if `until` has passed, an hour at most.
/// Loops that poll look at the clock again when poll(2) returns.
#[must_use]
pub fn poll_timeout(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(3600));
    Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn readable(fd: impl AsFd) -> bool {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn an_event_is_readable_from_signal_to_clear() {
        let event = EventFd::new().unwrap();
        event.clear();
        assert!(!readable(&event));
        event.signal();
        event.signal();
        assert!(readable(&event));
        assert_eq!(event.take(), 2);
        assert!(!readable(&event));
        assert_eq!(event.take(), 0);
    }

    #[test]
    fn a_full_event_stays_readable() {
        let event = EventFd::new().unwrap();
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        event.signal();
        assert!(readable(&event));
        event.clear();
        assert!(!readable(&event));
    }

    #[test]
    fn a_stop_stays_raised() {
        let stop = StopSignal::new().unwrap();
        assert!(!readable(&stop));
        stop.raise();
        assert!(readable(&stop) && readable(&stop));
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

    #[test]
    fn a_time_that_has_passed_is_no_wait_and_no_wait_is_endless() {
        let now = Instant::now();
        assert_eq!(poll_timeout(now), Timespec { tv_sec: 0, tv_nsec: 0 });
        assert_eq!(poll_timeout(now + Duration::from_secs(1 << 20)).tv_sec, 3600);
        let soon = poll_timeout(now + Duration::from_secs(60));
        assert!(soon.tv_sec < 60 && soon.tv_nsec < 1_000_000_000);
    }
}
