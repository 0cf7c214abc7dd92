//! An established session with one reader, without its socket.

use std::sync::Arc;
use std::time::Instant;

use kvrail_host::reactor::ConnectionId;

use super::handovers::NextMessage;
use super::handshake::seal;
use super::lanes::Lanes;
use super::pools::Announcer;
use super::shared::Shared;
use super::shop::{LaneShop, SessionRecord};
use super::times::Times;
use crate::channel::Channel;
use crate::error::Cause;
use crate::handover::{HandoverMessage, SessionId};
use crate::lane::LaneAcceptor;
use crate::message::{ByeReason, Introduction, Message, MessageKind, parse};
use crate::service::WaitingAsks;

/// An established session: the reader has introduced itself.
///
/// What waits to be sent is not kept as messages: each is made when the socket has taken the one
/// before. What waits for a reader that takes nothing is a reference to a list of pools, and
/// answers about lanes, of which there are at most as many as the session may have lanes, and those
/// for the requests in one read of the socket. The session reads no further request before some of
/// them are taken.
pub(super) struct Established<A: LaneAcceptor> {
    shared: Arc<Shared>,
    channel: Box<Channel>,
    /// The answer to the greeting, if it was not sent yet.
    unsent: Vec<u8>,
    announcer: Announcer,
    lanes: Lanes<A>,
    asks: WaitingAsks,
    times: Times,
    number: SessionId,
    /// The connection.
    id: ConnectionId,
    /// The reader has sent a message of a hand-over.
    takes: bool,
    /// The hand-overs may have something to say to it.
    has_handovers: bool,
}

impl<A: LaneAcceptor> Established<A> {
    /// The session with the reader of `introduction`. `id` is notified when lanes have been made.
    pub(super) fn new(
        shop: Arc<LaneShop<A>>,
        record: SessionRecord,
        id: ConnectionId,
        (channel, unsent): (Box<Channel>, Vec<u8>),
        introduction: Introduction,
        now: Instant,
    ) -> Self {
        let shared = Arc::clone(&shop.shared);
        let mut times = Times::new(shared.config.silence, now);
        times.waits(now);
        let asks = WaitingAsks::new(record.number, introduction.node);
        let announcer = Announcer::new(introduction.layouts);
        let number = SessionId(record.number);
        let lanes = Lanes::new(shop, record, id);
        let (takes, has_handovers) = (false, false);
        Self { shared, channel, unsent, announcer, lanes, asks, times, number, id, takes, has_handovers }
    }

    /// Takes bytes from the front of `bytes`: a message, or all of them.
    pub(super) fn received(&mut self, now: Instant, bytes: &mut &[u8]) -> Result<(), Cause> {
        let Some(message) = self.channel.open(bytes)? else { return Ok(()) };
        self.times.heard(now);
        self.message(now, parse(&message)?)?;
        if self.has_more() {
            self.times.waits(now);
        }
        Ok(())
    }

    fn message(&mut self, now: Instant, message: Message) -> Result<(), Cause> {
        match message {
            Message::Alive | Message::PassedOver(_) => Ok(()),
            Message::Ask(ask) => {
                self.asks.received(ask);
                Ok(())
            }
            // A reader without layouts has nothing to read.
            Message::Lanes(_) | Message::Handover(_) if self.announcer.tells_nothing() => {
                Err(unexpected(&message))
            }
            Message::Lanes(asks) => {
                self.lanes.begin(&asks);
                Ok(())
            }
            Message::Release(numbers) => {
                self.lanes.release(&numbers);
                Ok(())
            }
            Message::Bye(reason) => Err(Cause::Bye(reason)),
            Message::Handover(message) => self.handover(now, &message),
            Message::Introduction(_)
            | Message::Offer(_)
            | Message::Pool(_)
            | Message::Regions(_)
            | Message::Unknown(_)
            | Message::Offered
            | Message::Gone(_)
            | Message::Refused(_)
            | Message::Answer(_)
            | Message::LanesReady(_) => Err(unexpected(&message)),
        }
    }

    fn handover(&mut self, now: Instant, message: &HandoverMessage) -> Result<(), Cause> {
        tracing::trace!(session = self.number.0, kind = message.name(), "a hand-over's message came");
        (self.takes, self.has_handovers) = (true, true);
        Ok(self.shared.handovers.received(self.number, self.id, message, now)?)
    }

    /// Another thread has something new: lanes, a change of the pools, or of a hand-over.
    pub(super) fn notified(&mut self, now: Instant) {
        self.lanes.collect();
        self.has_handovers = self.takes;
        if self.has_more() {
            self.times.waits(now);
        }
    }

    /// Appends the next message, if there is one; of answers, about `room` bytes.
    pub(super) fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) -> Result<(), Cause> {
        if !self.unsent.is_empty() {
            out.append(&mut std::mem::take(&mut self.unsent));
            self.times.sent(now);
            return Ok(());
        }
        let took = self.takes_bytes();
        let Some(mut message) = self.next_message(now) else {
            self.times.nothing_to_send();
            return Ok(());
        };
        let mut plain = Vec::new();
        // Several answers go together: a reader may have many questions under way.
        while let Message::Answer(_) = message
            && self.asks.has_answers()
            && out.len() < room
        {
            plain.clear();
            message.encode(&mut plain);
            self.channel.seal(&plain, out)?;
            self.times.sent(now);
            let Some(next) = self.next_message(now) else { return Ok(()) };
            message = next;
        }
        if !took && self.takes_bytes() {
            // Its bytes were left in the socket: the reader was not silent.
            self.times.heard(now);
        }
        plain.clear();
        message.encode(&mut plain);
        self.times.sent(now);
        self.channel.seal(&plain, out)
    }

    fn next_message(&mut self, now: Instant) -> Option<Message> {
        // A reader expects nothing else before the first offer is complete, nor within a pool.
        if self.announcer.is_between_pools()
            && let Some(answers) = self.lanes.next_answers()
        {
            return Some(Message::LanesReady(answers));
        }
        if self.announcer.is_between_pools()
            && let Some(answer) = self.asks.next_answer(&self.shared.config.services, now)
        {
            return Some(Message::Answer(answer));
        }
        let shared = &self.shared;
        loop {
            // Before hand-overs, whose blocks name pools.
            if let Some(message) = self.announcer.next(&shared.pools, || shared.offer_head()) {
                return Some(message);
            }
            if !self.has_handovers {
                break;
            }
            let knows_pools = || !self.announcer.has_more(&shared.pools);
            match shared.handovers.next_message(self.number, now, knows_pools) {
                NextMessage::Message(message) => {
                    tracing::trace!(
                        session = self.number.0,
                        kind = message.name(),
                        "a hand-over's message goes"
                    );
                    return Some(Message::Handover(message));
                }
                NextMessage::Nothing => self.has_handovers = false,
                NextMessage::AfterPools => {}
            }
        }
        self.times.beats(now).then_some(Message::Alive)
    }

    /// Whether something waits to be sent.
    fn has_more(&self) -> bool {
        !self.unsent.is_empty()
            || self.lanes.has_answers()
            || self.asks.has_answers()
            || self.has_handovers
            || self.announcer.has_more(&self.shared.pools)
    }

    /// Whether the session takes bytes now.
    pub(super) fn takes_bytes(&self) -> bool {
        self.lanes.takes_asks() && self.asks.takes_asks()
    }

    /// When to call [`tick`](Self::tick) at the latest.
    pub(super) fn due(&self) -> Instant {
        self.times.due(self.takes_bytes())
    }

    /// Looks whether a time is over.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Cause> {
        if let Some(time) = self.times.overdue(self.takes_bytes(), now) {
            return Err(Cause::Silence(time));
        }
        if self.times.beats(now) {
            self.times.waits(now);
        }
        Ok(())
    }

    /// Why no more bytes come, where the connection has not failed.
    pub(super) fn cut_off(&self) -> Cause {
        self.channel.partial().map_or(Cause::Closed, |(got, want)| Cause::Truncated { got, want })
    }

    /// Ends the session, and appends what the reader is told. The end is reported when all lanes
    /// are freed.
    pub(super) fn end(mut self, now: Instant, cause: Cause, out: &mut Vec<u8>) {
        if self.takes {
            self.shared.handovers.session_lost(self.number, now);
        }
        let bye = match &cause {
            Cause::Stopped => Some(ByeReason::Stopping),
            Cause::Parse(_) | Cause::Unexpected { .. } | Cause::Forged | Cause::Handover(_) => {
                Some(ByeReason::Protocol)
            }
            _ => None,
        };
        self.lanes.end(cause);
        if let Some(reason) = bye {
            out.append(&mut self.unsent);
            seal(&mut self.channel, &Message::Bye(reason), out);
        }
    }
}

fn unexpected(message: &Message) -> Cause {
    // A message without a kind was passed over, which is never unexpected.
    Cause::Unexpected { got: message.kind().unwrap_or(MessageKind::Alive) }
}
