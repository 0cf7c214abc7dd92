//! The three phases of a reader's session: the handshake, the conversation, and the end.

use std::sync::Arc;
use std::time::Instant;

use kvrail_host::reactor::Flow;

use super::event::ReaderDescription;
use crate::channel::Channel;
use crate::error::{Cause, SessionError};
use crate::hello::Dialling;
use crate::key::PeerKeys;
use crate::message::{self, ByeReason, Introduction, Message};
use crate::offered::OfferReader;
use crate::service::{ServiceAnswer, ServiceAsk};

pub(super) enum Phase {
    Handshake(Box<Handshake>),
    Conversation(Box<Conversation>),
    Ended(Ended),
}

/// A session without a channel.
pub(super) struct Handshake {
    dialling: Dialling,
    /// This side's greeting; empty once the connection has taken it.
    greeting: Vec<u8>,
    introduction: Introduction,
}

impl Handshake {
    pub(super) fn begin(keys: &PeerKeys, attempt: usize, reader: ReaderDescription) -> Result<Self, Cause> {
        let mut greeting = Vec::new();
        let dialling = Dialling::begin(keys, attempt, &mut greeting)?;
        let ReaderDescription { node, layouts, silence: _, takings: _ } = reader;
        Ok(Self { dialling, greeting, introduction: Introduction { node, layouts } })
    }

    /// Whether the connection is still being made: it has not taken the greeting.
    pub(super) fn is_connecting(&self) -> bool {
        !self.greeting.is_empty()
    }

    pub(super) fn take_greeting(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.greeting)
    }

    /// Takes bytes from the front of `bytes`, all of them unless the handshake is over.
    pub(super) fn received(&mut self, bytes: &mut &[u8]) -> Result<Option<Box<Conversation>>, Cause> {
        let Some(channel) = self.dialling.received(bytes)? else { return Ok(None) };
        let introduction = self.introduction.clone();
        let incoming = OfferReader::new(introduction.layouts.clone());
        let introduction = Some(introduction);
        Ok(Some(Box::new(Conversation { channel, incoming, introduction, alive: false })))
    }

    /// Bytes of the producer's greeting, if it has not come whole: `(got, want)`.
    pub(super) fn partial(&self) -> Option<(usize, usize)> {
        self.dialling.partial()
    }
}

/// A session with a channel.
pub(super) struct Conversation {
    pub(super) channel: Channel,
    pub(super) incoming: OfferReader,
    /// This side's first message, until it is sent.
    introduction: Option<Introduction>,
    /// `Alive` is to be sent, unless another message is.
    alive: bool,
}

impl Conversation {
    /// Takes bytes from the front of `bytes` until a message is whole, or all of them.
    pub(super) fn received(&mut self, bytes: &mut &[u8]) -> Result<Option<Received>, Cause> {
        let Some(message) = self.channel.open(bytes)? else { return Ok(None) };
        if !self.is_introduced() {
            // A producer that sends this side away, because it has too many handshakes or stops,
            // does not wait for the introduction.
            if let Ok(refused @ Message::Refused(_)) = message::parse(&message) {
                return Ok(Some(Received::Other(Box::new(refused))));
            }
            return Err(Cause::Contradiction("it sent a message before this side had introduced itself"));
        }
        if let Some(answer) = message::parse_answer(&message) {
            return Ok(Some(Received::Answer(answer?)));
        }
        Ok(Some(Received::Other(Box::new(message::parse(&message)?))))
    }

    /// Whether this side's first message was sent. From then on it sends something every
    /// [`BEAT`](crate::BEAT).
    pub(super) const fn is_introduced(&self) -> bool {
        self.introduction.is_none()
    }

    pub(super) const fn say_alive(&mut self) {
        self.alive = true;
    }

    /// Whether this side has something to say beside messages about lanes and hand-overs.
    pub(super) const fn has_unsent(&self) -> bool {
        self.alive || !self.is_introduced()
    }

    /// The last message, sealed; empty if the producer does not know this side yet.
    pub(super) fn goodbye(&mut self, reason: ByeReason) -> Vec<u8> {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        if self.is_introduced() {
            Message::Bye(reason).encode(&mut plain);
            // Fails after 2^64 frames; then the producer sees the end of the connection alone.
            let _ = self.channel.seal(&plain, &mut out);
        }
        out
    }

    /// Appends messages to `out` until all is said, or `out` has `limit` bytes. `next_message` has
    /// those about lanes and hand-overs.
    pub(super) fn fill(
        &mut self,
        mut next_message: impl FnMut() -> Option<Outgoing>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), Cause> {
        let mut plain = Vec::new();
        while out.len() < limit {
            plain.clear();
            if let Some(introduction) = self.introduction.take() {
                Message::Introduction(introduction).encode(&mut plain);
            } else {
                match next_message() {
                    Some(Outgoing::Ask(ask)) => message::encode_ask(&ask, &mut plain),
                    Some(Outgoing::Other(message)) => message.encode(&mut plain),
                    None if self.alive => Message::Alive.encode(&mut plain),
                    None => break,
                }
            }
            self.alive = false;
            self.channel.seal(&plain, out)?;
        }
        Ok(())
    }
}

/// A message that goes. A [`Message`] is some kilobytes long, as the longest of its kinds is, and
/// questions go often.
pub(super) enum Outgoing {
    Ask(ServiceAsk),
    Other(Box<Message>),
}

/// A message that came. A [`Message`] is some kilobytes long, as the longest of its kinds is, and
/// answers come often.
pub(super) enum Received {
    Answer(ServiceAnswer),
    Other(Box<Message>),
}

/// A session that has ended.
pub(super) struct Ended {
    pub(super) why: Arc<SessionError>,
    pub(super) since: Instant,
    /// This side's last message, until it is sent: sealed, or empty.
    pub(super) goodbye: Vec<u8>,
    /// How the connection goes on.
    pub(super) flow: Flow,
}
