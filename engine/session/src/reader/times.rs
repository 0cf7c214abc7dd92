//! The times of a session: what is due, what is overdue, and when to look again.

use std::time::{Duration, Instant};

use crate::error::Cause;
use crate::liveness::{BEAT, LULL};

/// How far a session has come, as far as its times depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The connection is being made.
    Connecting,
    /// The handshake and the first offer.
    Agreeing,
    Established,
}

/// When each side of a session was heard, and until when it must be established.
#[derive(Debug)]
pub(super) struct Times {
    /// How long the peer may send nothing while a message from it is due, and take nothing.
    silence: Duration,
    /// The session is established by then.
    deadline: Instant,
    /// When the last byte came, or, in an established session, the last message.
    heard: Instant,
    /// When the first byte of a message came that is not whole yet.
    begun: Option<Instant>,
    /// When this side sent something last.
    sent: Instant,
    /// Since when something waits to be sent and the peer takes nothing.
    waiting: Option<Instant>,
    /// The silence of the peer was over at the last tick. The session ends at the next one: this
    /// thread may have slept for long, and what came meanwhile is read between the two.
    suspected: bool,
}

impl Times {
    pub(super) const fn new(silence: Duration, deadline: Instant, now: Instant) -> Self {
        Self { silence, deadline, heard: now, begun: None, sent: now, waiting: None, suspected: false }
    }

    /// The peer was heard.
    pub(super) const fn heard(&mut self, now: Instant) {
        (self.heard, self.suspected) = (now, false);
    }

    pub(super) const fn last_heard(&self) -> Instant {
        self.heard
    }

    /// A whole message came.
    pub(super) const fn message(&mut self, now: Instant) {
        self.heard(now);
        self.begun = None;
    }

    /// A part of a message came.
    pub(super) fn part(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Something was given to the connection; `more`: not everything.
    pub(super) fn sent(&mut self, now: Instant, more: bool) {
        self.sent = now;
        self.waiting = more.then_some(now);
    }

    /// The connection takes bytes, and there was none to send.
    pub(super) const fn nothing_to_send(&mut self) {
        self.waiting = None;
    }

    /// Something is to be sent, and the connection has not taken it yet.
    pub(super) fn waits(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    /// Whether it is time for this side to send something.
    pub(super) fn beat(&self, now: Instant) -> bool {
        self.waiting.is_none() && now >= self.sent + BEAT
    }

    /// When the peer has been silent for too long, and for how long then.
    fn silent(&self, stage: Stage) -> Option<(Instant, Duration)> {
        let quiet = match stage {
            Stage::Connecting => return None,
            Stage::Agreeing => (self.heard, self.silence),
            Stage::Established => (self.heard, LULL),
        };
        let begun = self.begun.filter(|_| stage == Stage::Established);
        [begun, self.waiting]
            .into_iter()
            .flatten()
            .map(|since| (since, self.silence))
            .chain([quiet])
            .map(|(since, time)| (since + time, time))
            .min()
    }

    /// When to call [`overdue`](Self::overdue) and [`beat`](Self::beat) at the latest. `beats`:
    /// this side sends something every [`BEAT`].
    pub(super) fn due(&self, stage: Stage, beats: bool) -> Instant {
        let deadline = (stage != Stage::Established).then_some(self.deadline);
        let beat = (beats && self.waiting.is_none()).then(|| self.sent + BEAT);
        let silent = self.silent(stage).map(|(at, _)| at);
        // Each stage has a silence or the deadline.
        deadline.into_iter().chain(beat).chain(silent).min().unwrap_or(self.deadline)
    }

    /// Why the session is over, if a time is.
    pub(super) fn overdue(&mut self, stage: Stage, now: Instant) -> Option<Cause> {
        if stage != Stage::Established && now >= self.deadline {
            return Some(Cause::Deadline);
        }
        let (at, time) = self.silent(stage)?;
        if now < at {
            return None;
        }
        std::mem::replace(&mut self.suspected, true).then_some(Cause::Silence(time))
    }
}
