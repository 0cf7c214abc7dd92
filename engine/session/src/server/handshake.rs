//! The handshake with one reader, up to its introduction.

use std::time::{Duration, Instant};

use kvrail_host::handshakes::HandshakePlace;

use super::shared::Permit;
use crate::channel::Channel;
use crate::error::{By, Cause, Step};
use crate::hello::{Answering, refuse};
use crate::key::PeerKeys;
use crate::message::{Introduction, Message, parse};
use crate::refusal::Refusal;

/// A connection's place among those that have not authenticated, until it is dropped.
pub(super) struct Admission {
    pub(super) place: HandshakePlace,
    pub(super) _permit: Permit,
}

/// The handshake with one reader. Nothing is told and nothing is promised before the first frame
/// has been opened: a greeting alone can be a replay.
pub(super) struct Handshake {
    progress: Progress,
    /// The answer to the greeting, if it was not sent yet.
    unsent: Vec<u8>,
    /// The kind of the first message, once it has come: a number that the peer chose.
    kind: u16,
    deadline: Instant,
    silence: Duration,
    /// When the last byte came.
    heard: Instant,
    /// The reader was silent for too long at the last look. The handshake ends at the next one:
    /// this thread may have slept for long, and what came meanwhile is read between the two.
    suspected: bool,
}

enum Progress {
    Greeting(Box<Answering>),
    /// The greeting was answered.
    Introduction(Box<Channel>),
}

impl Handshake {
    /// A handshake of which no byte has come.
    pub(super) fn new(deadline: Instant, silence: Duration, now: Instant) -> Self {
        let progress = Progress::Greeting(Box::new(Answering::new()));
        Self { progress, unsent: Vec::new(), kind: 0, deadline, silence, heard: now, suspected: false }
    }

    /// Whether a whole greeting that names one of the keys has come.
    pub(super) fn named_a_key(&self) -> bool {
        match &self.progress {
            Progress::Greeting(answering) => answering.named_a_key(),
            Progress::Introduction(_) => true,
        }
    }

    pub(super) const fn step(&self) -> Step {
        match self.progress {
            Progress::Greeting(_) => Step::Handshake,
            Progress::Introduction(_) => Step::Offer,
        }
    }

    /// Bytes came at this time.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Takes bytes from the front of `bytes`, and returns the reader's introduction. `Ok(None)`: a
    /// part of them is taken, and nothing is known yet.
    pub(super) fn received(
        &mut self,
        keys: &PeerKeys,
        bytes: &mut &[u8],
    ) -> Result<Option<Introduction>, Cause> {
        match &mut self.progress {
            Progress::Greeting(answering) => {
                if let Some(channel) = answering.received(keys, bytes, &mut self.unsent)? {
                    self.progress = Progress::Introduction(Box::new(channel));
                }
                Ok(None)
            }
            Progress::Introduction(channel) => {
                let Some(message) = channel.open(bytes)? else { return Ok(None) };
                self.kind = message.first_chunk().map_or(0, |kind| u16::from_le_bytes(*kind));
                match parse(&message)? {
                    Message::Introduction(introduction) => Ok(Some(introduction)),
                    other => Err(match other.kind() {
                        Some(got) => Cause::Unexpected { got },
                        None => Cause::Contradiction("its first message is no Introduction"),
                    }),
                }
            }
        }
    }

    /// What is to be sent now.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>) {
        out.append(&mut std::mem::take(&mut self.unsent));
    }

    /// The channel, and what was not sent before it; `None` before the greeting was answered.
    pub(super) fn into_channel(self) -> Option<(Box<Channel>, Vec<u8>)> {
        match self.progress {
            Progress::Greeting(_) => None,
            Progress::Introduction(channel) => Some((channel, self.unsent)),
        }
    }

    /// Appends what the peer is told where the handshake ends for `cause`.
    pub(super) fn end(mut self, keys: &PeerKeys, cause: &Cause, out: &mut Vec<u8>) {
        let answered = !self.unsent.is_empty();
        out.append(&mut self.unsent);
        let refusal = match cause {
            Cause::Refused { by: By::Us, refusal, .. } => *refusal,
            Cause::SentAway { limit } => Refusal::TooManyHandshakes { limit: *limit as u64 },
            Cause::Stopped => Refusal::Stopping,
            Cause::Parse(_) | Cause::Unexpected { .. } | Cause::Contradiction(_) => {
                Refusal::Malformed { kind: self.kind }
            }
            _ => return,
        };
        match self.progress {
            // The answer to the greeting is a refusal already.
            Progress::Greeting(_) if answered => {}
            Progress::Greeting(_) => refuse(keys, refusal, out),
            Progress::Introduction(mut channel) => seal(&mut channel, &Message::Refused(refusal), out),
        }
    }

    /// Bytes of a message that is not whole yet: `(got, want)`.
    pub(super) fn partial(&self) -> Option<(usize, usize)> {
        match &self.progress {
            Progress::Greeting(answering) => answering.partial(),
            Progress::Introduction(channel) => channel.partial(),
        }
    }

    /// When to call [`overdue`](Self::overdue) at the latest.
    pub(super) fn due(&self) -> Instant {
        self.deadline.min(self.heard + self.silence)
    }

    /// Why the handshake is over, if a time is.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Cause> {
        if now >= self.deadline {
            return Some(Cause::Deadline);
        }
        let silent = now >= self.heard + self.silence;
        let twice = std::mem::replace(&mut self.suspected, silent);
        (silent && twice).then_some(Cause::Silence(self.silence))
    }
}

/// Appends a message after which the connection ends.
pub(super) fn seal(channel: &mut Channel, message: &Message, out: &mut Vec<u8>) {
    let mut plain = Vec::new();
    message.encode(&mut plain);
    // Fails after 2^64 frames; then the peer sees the end of the connection alone.
    let _ = channel.seal(&plain, out);
}
