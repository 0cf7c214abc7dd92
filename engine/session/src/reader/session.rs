//! A session of a reader, without its socket.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use kvrail_host::reactor::Flow;

use super::event::{ReaderDescription, SessionEvent};
use super::handovers::SessionTakings;
use super::lanes::AskedLanes;
use super::offer::apply;
use super::phase::{Ended, Handshake, Outgoing, Phase, Received};
use super::times::{Stage, Times};
use crate::error::{By, Cause, SessionError, Step};
use crate::key::PeerKeys;
use crate::lane::SessionLaneError;
use crate::liveness::{LINGER, LONGEST};
use crate::message::{ByeReason, LaneNumber, Message, MessageKind};
use crate::offer::{LaneBlob, RailDescription};
use crate::offered::OfferNews;
use crate::pairing::RailPair;
use crate::pool::{MAX_LAYOUTS, Offer};
use crate::refusal::Refusal;
use crate::service::{AskError, AskNumber, Asks, ServiceAnswer, ServiceNumber};

/// A session of a reader, from the first byte to the end, without its socket. A
/// [`Connection`](kvrail_host::reactor::Connection) of a reactor passes its calls on;
/// [`ConnectedSession`](crate::ConnectedSession) has a socket of its own.
///
/// Each side sends a message every [`BEAT`](crate::BEAT), and a side from which no message comes
/// for [`LULL`](crate::LULL) counts as gone.
///
/// A session queues a bounded amount: 256 requests for lanes, and each lane that is given back. A
/// producer that takes nothing ends the session by [`Cause::Silence`].
pub struct Session {
    peer: String,
    pub(super) phase: Phase,
    times: Times,
    lanes: AskedLanes,
    pub(super) takings: SessionTakings,
    asks: Asks,
    offer: Option<Box<Offer>>,
    events: VecDeque<SessionEvent>,
}

impl Session {
    /// A session with the producer at `peer`, over a connection that is being made. It dials with
    /// key number `attempt` of `keys`, counted from 0, and is established by `deadline` or ends.
    ///
    /// # Errors
    ///
    /// The system gave no random numbers, or `reader` has more layouts than a session carries.
    pub fn new(
        peer: String,
        keys: &PeerKeys,
        attempt: usize,
        reader: ReaderDescription,
        deadline: Instant,
        now: Instant,
    ) -> Result<Self, SessionError> {
        let times = Times::new(reader.silence.min(LONGEST), deadline, now);
        let (count, takings) = (reader.layouts.len(), SessionTakings::new(reader.takings));
        let handshake = if count <= MAX_LAYOUTS {
            Handshake::begin(keys, attempt, reader)
        } else {
            Err(Cause::Layouts { count })
        };
        let phase = match handshake {
            Ok(handshake) => Phase::Handshake(Box::new(handshake)),
            Err(cause) => return Err(SessionError { peer, step: Step::Handshake, cause }),
        };
        let (lanes, events) = (AskedLanes::new(), VecDeque::new());
        Ok(Self { peer, phase, times, lanes, takings, asks: Asks::new(), offer: None, events })
    }

    /// Whether a session that ended by `error` should be dialled again with the next key: the
    /// producer does not know this key, and `keys` has another. Returns that key's number.
    #[must_use]
    pub fn next_attempt(keys: &PeerKeys, attempt: usize, error: &SessionError) -> Option<usize> {
        let unknown = matches!(&error.cause, Cause::Refused { by: By::Peer, refusal: Refusal::Key(_), .. });
        let next = attempt.checked_add(1)?;
        (unknown && next < keys.attempts()).then_some(next)
    }

    /// Takes bytes that came.
    pub fn received(&mut self, now: Instant, mut bytes: &[u8]) -> Flow {
        if !matches!(self.phase, Phase::Conversation(_)) || self.offer.is_none() {
            self.times.heard(now);
        }
        while !bytes.is_empty() {
            if let Err(cause) = self.take_bytes(now, &mut bytes) {
                return self.end(cause);
            }
        }
        if let Phase::Conversation(conversation) = &self.phase
            && conversation.channel.partial().is_some()
        {
            self.times.part(now);
        }
        self.after_call(now)
    }

    /// Takes bytes from the front of `bytes`: a message, or all of them.
    fn take_bytes(&mut self, now: Instant, bytes: &mut &[u8]) -> Result<(), Cause> {
        match &mut self.phase {
            Phase::Handshake(handshake) => {
                if let Some(conversation) = handshake.received(bytes)? {
                    self.phase = Phase::Conversation(conversation);
                }
                Ok(())
            }
            Phase::Conversation(conversation) => match conversation.received(bytes)? {
                Some(Received::Answer(answer)) if self.offer.is_some() => {
                    self.times.message(now);
                    self.asks.answered(answer)
                }
                Some(Received::Answer(answer)) => Err(unexpected(&Message::Answer(answer))),
                Some(Received::Other(message)) => {
                    self.times.message(now);
                    self.message(now, *message)
                }
                None => Ok(()),
            },
            Phase::Ended(_) => {
                *bytes = &[];
                Ok(())
            }
        }
    }

    fn message(&mut self, now: Instant, message: Message) -> Result<(), Cause> {
        let established = self.offer.is_some();
        match message {
            Message::Alive | Message::PassedOver(_) => Ok(()),
            Message::Bye(reason) => Err(Cause::Bye(reason)),
            Message::Refused(refusal) if !established => {
                Err(Cause::Refused { by: By::Peer, refusal, verified: true })
            }
            Message::Offer(_)
            | Message::Pool(_)
            | Message::Regions(_)
            | Message::Unknown(_)
            | Message::Offered
            | Message::Gone(_) => self.offer_message(message),
            Message::LanesReady(answers) if established => {
                let events = &mut self.events;
                self.lanes.answered(answers, |(number, result)| {
                    events.push_back(SessionEvent::Lane(number, result));
                })
            }
            Message::Handover(message) if established => self.takings.received(message, now),
            Message::Handover(_)
            | Message::Ask(_)
            | Message::Answer(_)
            | Message::LanesReady(_)
            | Message::Refused(_)
            | Message::Introduction(_)
            | Message::Lanes(_)
            | Message::Release(_) => Err(unexpected(&message)),
        }
    }

    /// Takes a part of the offer, or of a change of it.
    fn offer_message(&mut self, message: Message) -> Result<(), Cause> {
        let Phase::Conversation(conversation) = &mut self.phase else { return Ok(()) };
        let event = match conversation.incoming.received(message)? {
            None => return Ok(()),
            Some(OfferNews::Complete(offer)) => {
                let Offer { producer, epoch, .. } = &offer;
                tracing::debug!(peer = self.peer, %producer, %epoch, "session established");
                self.offer = Some(Box::new(offer.clone()));
                SessionEvent::Established(offer)
            }
            Some(OfferNews::Change(change)) => {
                if let Some(offer) = &mut self.offer {
                    apply(offer, &change);
                }
                SessionEvent::OfferChanged(change)
            }
        };
        self.events.push_back(event);
        Ok(())
    }

    /// No more bytes come; `Some`: the connection was not made, or failed.
    pub fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        let _ = now;
        let partial = match &self.phase {
            Phase::Handshake(handshake) => handshake.partial(),
            Phase::Conversation(conversation) => conversation.channel.partial(),
            Phase::Ended(_) => return,
        };
        let cause = match (error, partial) {
            (Some(error), _) => Cause::Io(error),
            (None, Some((got, want))) => Cause::Truncated { got, want },
            (None, None) => Cause::Closed,
        };
        self.end(cause);
    }

    /// Appends what is to be sent next: whole messages, about `room` bytes of them.
    ///
    /// The first call means that the connection is made. A further call means that everything
    /// appended earlier has been written.
    pub fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        let before = out.len();
        let filled = match &mut self.phase {
            Phase::Handshake(handshake) => {
                if handshake.is_connecting() {
                    // From here on the producer's answer is due.
                    self.times.heard(now);
                }
                out.append(&mut handshake.take_greeting());
                Ok(())
            }
            Phase::Conversation(conversation) => {
                let (lanes, takings, asks) = (&mut self.lanes, &mut self.takings, &mut self.asks);
                let next = || {
                    let other = lanes.next_message().map(Box::new);
                    let other = other.or_else(|| takings.next_message(now).map(Box::new));
                    other.map(Outgoing::Other).or_else(|| asks.next_message().map(Outgoing::Ask))
                };
                conversation.fill(next, out, before.saturating_add(room))
            }
            Phase::Ended(ended) => {
                out.append(&mut std::mem::take(&mut ended.goodbye));
                Ok(())
            }
        };
        if let Err(cause) = filled {
            self.end(cause);
        } else if out.len() > before {
            let more = self.has_unsent();
            self.times.sent(now, more);
        } else {
            self.times.nothing_to_send();
        }
    }

    fn has_unsent(&self) -> bool {
        match &self.phase {
            Phase::Handshake(_) | Phase::Ended(_) => false,
            Phase::Conversation(conversation) => {
                conversation.has_unsent()
                    || self.lanes.has_unsent()
                    || self.takings.has_unsent()
                    || self.asks.has_unsent()
            }
        }
    }

    fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Handshake(handshake) if handshake.is_connecting() => Stage::Connecting,
            Phase::Conversation(_) if self.offer.is_some() => Stage::Established,
            Phase::Handshake(_) | Phase::Conversation(_) | Phase::Ended(_) => Stage::Agreeing,
        }
    }

    fn step(&self) -> Step {
        match (&self.phase, self.stage()) {
            (_, Stage::Connecting) => Step::Connecting,
            (_, Stage::Established) => Step::Established,
            (Phase::Conversation(_), _) => Step::Offer,
            (Phase::Handshake(_) | Phase::Ended(_), _) => Step::Handshake,
        }
    }

    /// When [`tick`](Self::tick) is to be called at the latest. After the session's end: at once,
    /// unless the connection has ended with it; `tick` says how the connection goes on.
    #[must_use]
    pub fn due(&self) -> Instant {
        match &self.phase {
            Phase::Ended(ended) => ended.since,
            Phase::Handshake(_) => self.times.due(self.stage(), false),
            Phase::Conversation(conversation) => {
                let due = self.times.due(self.stage(), conversation.is_introduced());
                self.lanes.due().into_iter().chain(self.takings.due()).fold(due, Instant::min)
            }
        }
    }

    /// The time that [`due`](Self::due) named has passed. A producer that was silent for too long
    /// is given up at the second call, so that bytes that came while this thread slept can be read
    /// between the two.
    pub fn tick(&mut self, now: Instant) -> Flow {
        if let Phase::Ended(ended) = &self.phase {
            return ended.flow;
        }
        if let Some(cause) = self.times.overdue(self.stage(), now) {
            return self.end(cause);
        }
        let events = &mut self.events;
        self.lanes.expire(now, |(number, result)| events.push_back(SessionEvent::Lane(number, result)));
        self.takings.tick(now);
        self.after_call(now)
    }

    /// Notes what waits to be sent now, and what there is to fetch.
    fn after_call(&mut self, now: Instant) -> Flow {
        if self.takings.has_news() {
            self.events.push_back(SessionEvent::Takings);
        }
        let unsent = self.has_unsent();
        match &mut self.phase {
            Phase::Ended(ended) => return ended.flow,
            Phase::Conversation(conversation)
                if !unsent && conversation.is_introduced() && self.times.beat(now) =>
            {
                conversation.say_alive();
                self.times.waits(now);
            }
            Phase::Conversation(_) | Phase::Handshake(_) => {
                if unsent {
                    self.times.waits(now);
                }
            }
        }
        Flow::GoOn
    }

    /// The next event. Look for events after every call of another method.
    pub fn next_event(&mut self) -> Option<SessionEvent> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            // A session is idle most of the time, and there are many of them.
            self.events = VecDeque::new();
        }
        event
    }

    /// The producer's offer as it is now, if the session is established; after the session's end,
    /// as it was then.
    #[must_use]
    pub fn offer(&self) -> Option<&Offer> {
        self.offer.as_deref()
    }

    /// Requests the producer's end of a lane between the rails of `pair`, for this side's end
    /// `blob`. An event answers: [`SessionLaneError::Late`] if no answer has come until `until`.
    ///
    /// # Errors
    ///
    /// There is no such rail, too many requests have no answer, or the session has ended. Before it
    /// is established, no rail of the producer is known.
    pub fn ask(
        &mut self,
        pair: RailPair,
        blob: LaneBlob,
        until: Instant,
    ) -> Result<LaneNumber, SessionLaneError> {
        if let Phase::Ended(ended) = &self.phase {
            return Err(SessionLaneError::Session(Arc::clone(&ended.why)));
        }
        let rails: &[RailDescription] = self.offer.as_ref().map_or(&[], |offer| &offer.rails);
        let remote_rail = pair.remote_rail;
        if remote_rail.get() >= rails.len() {
            return Err(SessionLaneError::NoSuchRail { remote_rail, rails: rails.len() });
        }
        self.lanes.ask(pair, blob, until)
    }

    /// Gives lanes back: the producer frees its ends. The end of a session gives all its lanes
    /// back.
    pub fn release(&mut self, lanes: &[LaneNumber]) {
        if matches!(self.phase, Phase::Conversation(_)) {
            self.lanes.release(lanes);
        }
    }

    /// Asks a service of the producer. [`next_answer`](Self::next_answer) has the answer once it
    /// has come, unless the session ends.
    ///
    /// # Errors
    ///
    /// The question is too long, too many questions have no answer, or the session is not
    /// established, or has ended.
    pub fn ask_service(&mut self, service: ServiceNumber, question: &[u8]) -> Result<AskNumber, AskError> {
        if let Phase::Ended(ended) = &self.phase {
            return Err(AskError::Session(Arc::clone(&ended.why)));
        }
        if self.offer.is_none() {
            return Err(AskError::NotEstablished);
        }
        self.asks.ask(service, question)
    }

    /// The next answer of a service. Look for answers after every call of
    /// [`received`](Self::received). There are none after the session's end.
    pub fn next_answer(&mut self) -> Option<ServiceAnswer> {
        self.asks.next_answer()
    }

    /// Says goodbye. The flow ends the connection once that is sent.
    pub fn bye(&mut self, reason: ByeReason) -> Flow {
        self.end_saying(Cause::Stopped, Some(reason))
    }

    fn end(&mut self, cause: Cause) -> Flow {
        let say = match &cause {
            Cause::Parse(_)
            | Cause::Unexpected { .. }
            | Cause::Forged
            | Cause::Contradiction(_)
            | Cause::Pool(_)
            | Cause::Handover(_) => Some(ByeReason::Protocol),
            _ => None,
        };
        self.end_saying(cause, say)
    }

    /// Ends the session, and says `say` to the producer if the two can talk.
    fn end_saying(&mut self, cause: Cause, say: Option<ByeReason>) -> Flow {
        if let Phase::Ended(ended) = &self.phase {
            return ended.flow;
        }
        let goodbye = match (&mut self.phase, say) {
            (Phase::Conversation(conversation), Some(reason)) => conversation.goodbye(reason),
            _ => Vec::new(),
        };
        let finishes = !goodbye.is_empty() || matches!(cause, Cause::Bye(_) | Cause::Refused { .. });
        let flow = if finishes { Flow::Finish { linger: LINGER } } else { Flow::Close };
        let why = Arc::new(SessionError { peer: self.peer.clone(), step: self.step(), cause });
        tracing::debug!(error = %why, "session ended");
        let since = self.times.last_heard();
        self.phase = Phase::Ended(Ended { why: Arc::clone(&why), since, goodbye, flow });
        let events = &mut self.events;
        self.lanes.end(&why, |(number, result)| events.push_back(SessionEvent::Lane(number, result)));
        self.takings.end();
        self.asks.end();
        events.push_back(SessionEvent::Ended(why));
        flow
    }
}

fn unexpected(message: &Message) -> Cause {
    // A message that was passed over is expected everywhere.
    let got = message.kind().unwrap_or(MessageKind::Alive);
    Cause::Unexpected { got }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("step", &self.step())
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}
