//! When a session's reader was heard, and since when it takes nothing.

use std::time::{Duration, Instant};

use crate::liveness::{BEAT, LULL};

/// The times of one session.
pub(super) struct Times {
    /// How long the reader may take nothing while something waits for it.
    silence: Duration,
    /// When the last message came.
    heard: Instant,
    /// When the last message was given to the socket.
    sent: Instant,
    /// Since when a message waits that the socket has not taken.
    waiting: Option<Instant>,
    /// A time was over at the last look. The session ends at the next one: this thread may have
    /// slept for long, and what came or was taken meanwhile is seen between the two.
    suspected: bool,
}

impl Times {
    pub(super) const fn new(silence: Duration, now: Instant) -> Self {
        Self { silence, heard: now, sent: now, waiting: None, suspected: false }
    }

    /// A whole message came.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The socket had taken everything, and was given a message.
    pub(super) const fn sent(&mut self, now: Instant) {
        (self.sent, self.waiting) = (now, Some(now));
    }

    /// The socket has taken everything, and there is nothing to send.
    pub(super) const fn nothing_to_send(&mut self) {
        self.waiting = None;
    }

    /// There is something to send.
    pub(super) fn waits(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    /// Whether this side is to send something now.
    pub(super) fn beats(&self, now: Instant) -> bool {
        now >= self.sent + BEAT
    }

    /// When to call [`overdue`](Self::overdue) at the latest. `listens`: the reader's bytes are
    /// taken, so it must send some.
    pub(super) fn due(&self, listens: bool) -> Instant {
        let taken = self.waiting.map_or(self.sent + BEAT, |since| since + self.silence);
        if listens { taken.min(self.heard + LULL) } else { taken }
    }

    /// For how long the reader has sent nothing, or taken nothing, if that is too long.
    pub(super) fn overdue(&mut self, listens: bool, now: Instant) -> Option<Duration> {
        let stalled = self.waiting.is_some_and(|since| now >= since + self.silence).then_some(self.silence);
        let silent = (listens && now >= self.heard + LULL).then_some(LULL);
        let time = stalled.or(silent);
        let twice = std::mem::replace(&mut self.suspected, time.is_some());
        time.filter(|_| twice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_reader_that_sends_nothing_is_gone_after_the_second_look() {
        let begun = Instant::now();
        let mut times = Times::new(SILENCE, begun);
        assert_eq!(times.due(true), begun + BEAT);
        assert_eq!(times.overdue(true, begun + LULL - Duration::from_millis(1)), None);
        assert_eq!(times.overdue(true, begun + LULL), None);
        assert_eq!(times.overdue(true, begun + LULL), Some(LULL));
        times.heard(begun + LULL);
        assert_eq!(times.overdue(true, begun + LULL), None);
        assert_eq!(times.overdue(false, begun + 3 * LULL), None, "its bytes are not taken");
    }

    #[test]
    fn a_reader_that_takes_nothing_is_gone_and_one_that_takes_something_is_not() {
        let begun = Instant::now();
        let mut times = Times::new(SILENCE, begun);
        times.sent(begun);
        assert_eq!(times.due(true), begun + SILENCE);
        times.waits(begun + Duration::from_secs(1));
        assert_eq!(times.overdue(true, begun + SILENCE), None);
        assert_eq!(times.overdue(true, begun + SILENCE), Some(SILENCE));
        times.sent(begun + SILENCE);
        assert_eq!(times.overdue(true, begun + SILENCE), None);
        times.nothing_to_send();
        assert_eq!(times.due(true), begun + SILENCE + BEAT);
        assert!(!times.beats(begun + SILENCE) && times.beats(begun + SILENCE + BEAT));
    }
}
