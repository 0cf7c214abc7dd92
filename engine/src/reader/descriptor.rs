//! Sleeping in epoll(7): a reader in an event loop that is not its own.
//!
//! # Why no wake-up is lost
//!
//! Whatever gives the reader something to do is stored first, and wakes second: a completion or an
//! event by what the provider has armed; news of a session and orders of a submitter by the
//! provider's waker. [`Reader::arm`] looks for news and orders, arms the provider, and the provider
//! looks for completions, events and calls of its waker. So if something is stored before the look
//! that is for it, the look finds it. If it is stored later, the wake comes later, too: after the
//! arming it makes the descriptor readable; between the look and the arming it is a call of the
//! waker, which stays noted until an arming has refused for it. No poll takes such a note away,
//! since the poll may have looked before the order came.
//!
//! The descriptor stays readable until [`Reader::poll`], so it does not matter whether a program is
//! in epoll_wait(2) at the time. It does not matter either whether it asks for levels or for edges
//! (`EPOLLET`): what comes after an arming has an edge of its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use kvrail_core::id::RailIndex;
use kvrail_core::time::{Nanos, Time};

use super::Reader;
use crate::clock;
use crate::transport::ReaderTransport;

/// The longest sleep: its milliseconds fit epoll_wait(2).
const LONGEST: Nanos = Nanos::from_secs(3_600);

impl<T: ReaderTransport> Reader<T> {
    /// Prepares a sleep in epoll(7) or poll(2) on the reader's descriptor ([`AsFd`]), in a program
    /// with an event loop of its own. `Some` is how long the program may sleep at most, an hour or
    /// less; round it up to what the call takes. `None` says that there is something to do already.
    /// In both cases [`poll`](Self::poll) follows, after the sleep or at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use kvrail::{Reader, ReaderTransport};
    /// # use std::os::fd::AsFd;
    /// # fn sleep_in_epoll(_: Duration) {}
    /// # fn turn<T: ReaderTransport<Provider: AsFd>>(reader: &mut Reader<T>) {
    /// reader.poll();
    /// while let Some(_done) = reader.next_done() { /* … */ }
    /// // At the end of a turn, when the reader's results have been taken:
    /// if let Some(most) = reader.arm() {
    ///     sleep_in_epoll(most); // or until the program's own next timer
    /// }
    /// # }
    /// ```
    ///
    /// The descriptor becomes readable for the reasons for which [`wait`](Self::wait) returns, and
    /// when a [`Submitter`](super::Submitter) sends an order. Over verbs the first completion makes
    /// it readable. It may be readable for nothing.
    ///
    /// Results that were not taken count as something to do: take those of
    /// [`next_done`](Self::next_done), [`next_arrival`](Self::next_arrival) and
    /// [`next_overdue`](Self::next_overdue), or this call gives `None` for ever. Events that were
    /// not taken by [`next_event`](Self::next_event), which another call than `poll` may have
    /// found, count once. A batch that is [submitted](Self::submit) between this call and the sleep
    /// makes the descriptor readable. After any other call, arm again before the sleep.
    ///
    /// It does not sleep. Only this call and the first `poll` after it make system calls for the
    /// sleep's sake. Over shared memory and TCP, `poll` reads an eventfd(2) if there was a wake-up.
    /// Over verbs, this call arms the completion queues; `poll` asks epoll(7) which of them have an
    /// event, takes these and reads an eventfd(2). A thread that wakes an armed reader writes an
    /// eventfd(2).
    #[must_use = "a program sleeps only if it may, and for so long at most"]
    pub fn arm(&mut self) -> Option<Duration>
    where
        T::Provider: AsFd,
    {
        if self.has_work() {
            return None;
        }
        let now = clock::now();
        let until = self.bound_of_sleep(now, now + LONGEST);
        let until = self.engine.arm(now, until)?;
        Some(Duration::from_nanos(until.since(now).0))
    }

    /// Whether there is something to do that the engine does not know of.
    pub(super) fn has_work(&mut self) -> bool {
        self.submitters.as_mut().is_some_and(super::Submitters::has_work)
            || self.sessions.has_news()
            || !self.stash.is_empty()
            || self.outcomes.take_fresh()
            || self.take_overdue_notices()
    }

    /// Until when a sleep from `now` to `until` may last, since `poll` has something to do then
    /// that nothing wakes it for.
    pub(super) fn bound_of_sleep(&self, now: Time, until: Time) -> Time {
        /// The longest sleep with batches in flight and nothing outstanding. Then all lanes are
        /// down, and the engine's requests for new ones are taken by `poll`.
        const ALL_DOWN: Nanos = Nanos::from_millis(10);
        /// The longest sleep once a lane has failed, since `poll` takes the engine's requests for
        /// new lanes.
        const SOME_DOWN: Nanos = Nanos::from_millis(250);
        let until = until.min(self.outcomes.give_up).min(self.demand.sleep_until(now));
        let failed = |rail| self.engine.rail_stats(RailIndex(rail)).is_some_and(|s| s.lanes_failed > 0);
        if self.engine.in_flight() > 0 && self.engine.outstanding() == 0 {
            until.min(now + ALL_DOWN)
        } else if (0..self.engine.rails() as u8).any(failed) {
            until.min(now + SOME_DOWN)
        } else {
            until
        }
    }
}

/// Readable once a reader that was [armed](Reader::arm) has something to do, and until the next
/// [`poll`](Reader::poll). Register it once: it stays the same as long as the reader. A reader that
/// [`engine!`](crate::engine) has declared is dereferenced first, `&*reader`.
impl<T: ReaderTransport<Provider: AsFd>> AsFd for Reader<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.engine.provider().as_fd()
    }
}

/// The number of the same descriptor, which event loops of other crates ask for.
impl<T: ReaderTransport<Provider: AsFd>> AsRawFd for Reader<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
