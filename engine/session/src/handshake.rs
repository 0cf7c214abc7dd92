//! The steps of a handshake that both sides share: sending and checking messages in turn, and
//! refusing.

use std::time::Instant;

use kvrail_host::handshakes::HandshakePlace;

use crate::auth::{Channel, Direction, Transcript};
use crate::error::{By, Cause, SessionError, Step};
use crate::key::PeerKey;
use crate::message::{self, FromMessage, Message, ParseError};
use crate::name::NodeName;
use crate::refusal::{Both, Reason, Refusal, Role};
use crate::stream::{BEAT, Frame, LINGER, LULL, Stream};
use crate::wire::{self, MessageKind};

/// One side of a handshake.
pub(crate) struct Handshake {
    stream: Stream,
    transcript: Transcript,
    role: Role,
    deadline: Instant,
    /// The peer's address for errors: as given, or as accepted.
    peer: String,
    ours: NodeName,
    theirs: Option<NodeName>,
    /// The peer has proved that it holds the key.
    proven: bool,
    /// Until the peer has authenticated at a producer: its place among such connections.
    place: Option<Unauthenticated>,
}

/// The place of a connection that has not authenticated, and how many places there are.
pub(crate) struct Unauthenticated {
    pub(crate) place: HandshakePlace,
    pub(crate) limit: usize,
}

/// The direction of a side's own messages.
const fn direction(from: Role) -> Direction {
    match from {
        Role::Reader => Direction::ToProducer,
        Role::Producer => Direction::ToReader,
    }
}

const fn opposite(role: Role) -> Role {
    match role {
        Role::Reader => Role::Producer,
        Role::Producer => Role::Reader,
    }
}

impl Handshake {
    pub(crate) fn new(
        stream: Stream,
        key: &PeerKey,
        role: Role,
        ours: NodeName,
        peer: String,
        deadline: Instant,
    ) -> Self {
        let transcript = Transcript::new(key.clone());
        Self { stream, transcript, role, deadline, peer, ours, theirs: None, proven: false, place: None }
    }

    /// Sets the place that the connection holds until the peer has authenticated.
    pub(crate) fn with_place(mut self, place: Unauthenticated) -> Self {
        self.place = Some(place);
        self
    }

    /// Notes the peer's name, for errors.
    pub(crate) fn set_peer_name(&mut self, theirs: NodeName) {
        self.theirs = Some(theirs);
        if let Some(unauthenticated) = &self.place {
            unauthenticated.place.mark_spoken();
        }
    }

    pub(crate) fn error(&self, step: Step, cause: Cause) -> SessionError {
        SessionError { peer: self.peer.clone(), step, cause }
    }

    /// Sends `message`; with a MAC, if its kind has one.
    pub(crate) fn send(&mut self, message: &Message) -> Result<(), SessionError> {
        let kind = message.kind();
        let mut frame = message.encode();
        if kind.mac_at().is_some() {
            self.transcript.seal(direction(self.role), &mut frame);
        } else {
            self.transcript.absorb(&frame);
        }
        let sent = self.stream.send(&frame, self.deadline);
        sent.map_err(|cause| self.error(Step::Sending(kind), cause))
    }

    /// The next message, which must be a `want`, as bytes. Its MAC has not been checked yet.
    pub(crate) fn receive_frame(&mut self, want: MessageKind) -> Result<Vec<u8>, SessionError> {
        let step = Step::Awaiting(want);
        match self.stream.recv(self.deadline) {
            Ok((kind, frame)) if kind == want => Ok(frame),
            Ok((MessageKind::Refused, frame)) => Err(self.refused(step, &frame)),
            Ok((got, _)) => {
                self.send_refusal(Reason::Malformed { kind: got as u16 });
                Err(self.error(step, Cause::Instead { want, got }))
            }
            Err(cause) => {
                if let Some(Unauthenticated { place, limit }) = &self.place
                    && place.was_displaced()
                {
                    let (limit, many) = (*limit, Reason::TooManyHandshakes { limit: *limit as u64 });
                    self.stream.send_now(&unauthenticated_refusal(self.ours, many));
                    return Err(self.error(step, Cause::SentAway { limit }));
                }
                let reason = match &cause {
                    // Not our protocol: the other side would not understand a refusal.
                    Cause::Parse(ParseError::Magic { .. }) => None,
                    Cause::Parse(_) => Some(Reason::Malformed { kind: self.stream.header_kind() }),
                    Cause::Stopped => Some(Reason::Stopping),
                    _ => None,
                };
                if let Some(reason) = reason {
                    self.send_refusal(reason);
                }
                Err(self.error(step, cause))
            }
        }
    }

    /// The next message, which must be an `M` with the right MAC.
    pub(crate) fn receive<M: FromMessage>(&mut self) -> Result<M, SessionError> {
        let frame = self.receive_frame(M::KIND)?;
        self.open(M::KIND, &frame)?;
        self.parse(&frame)
    }

    /// Parses `frame` as an `M`. Its MAC is not checked.
    pub(crate) fn parse<M: FromMessage>(&mut self, frame: &[u8]) -> Result<M, SessionError> {
        let step = Step::Awaiting(M::KIND);
        let message = message::parse(frame).map_err(|error| {
            self.send_refusal(Reason::Malformed { kind: M::KIND as u16 });
            self.error(step, Cause::Parse(error))
        })?;
        M::from_message(message).map_err(|got| self.error(step, Cause::Instead { want: M::KIND, got }))
    }

    /// Adds a message that has no MAC to the transcript.
    pub(crate) fn absorb(&mut self, frame: &[u8]) {
        self.transcript.absorb(frame);
    }

    /// Checks a message's MAC. After the first right one the peer is authenticated.
    pub(crate) fn open(&mut self, kind: MessageKind, frame: &[u8]) -> Result<(), SessionError> {
        if self.transcript.open(direction(opposite(self.role)), frame).is_ok() {
            self.proven = true;
            self.place = None;
            return Ok(());
        }
        self.send_refusal(Reason::Forged { kind: kind as u16 });
        Err(self.error(Step::Awaiting(kind), Cause::Forged))
    }

    /// The error for a refusal of the peer.
    fn refused(&self, step: Step, frame: &[u8]) -> SessionError {
        let verified = self.transcript.clone().open(direction(opposite(self.role)), frame).is_ok();
        let cause = match message::parse(frame) {
            // All messages of an authenticated peer have a right MAC, so this one is forged.
            Ok(Message::Refused(_)) if self.proven && !verified => Cause::Forged,
            Ok(Message::Refused(refusal)) => Cause::Refused { by: By::Peer, refusal, verified },
            Ok(other) => Cause::Unexpected { got: other.kind() },
            Err(error) => Cause::Parse(error),
        };
        self.error(step, cause)
    }

    /// Refuses the peer, and sends it the reason.
    pub(crate) fn refuse(&mut self, step: Step, reason: Reason) -> SessionError {
        let refusal = self.send_refusal(reason);
        self.error(step, Cause::Refused { by: By::Us, refusal, verified: true })
    }

    /// Sends the refusal, and lingers so that the peer can read it. Failing to deliver it is not an
    /// error of its own.
    fn send_refusal(&mut self, reason: Reason) -> Box<Refusal> {
        let refusal = Refusal { nodes: Both { ours: Some(self.ours), theirs: self.theirs }, reason };
        let mut frame = Message::Refused(Box::new(refusal.flip())).encode();
        self.transcript.seal(direction(self.role), &mut frame);
        let until = self.deadline.min(Instant::now() + LINGER);
        if self.stream.send(&frame, until).is_ok() {
            self.stream.linger(until);
        }
        Box::new(refusal)
    }

    /// Ends the handshake: from here on each direction has a key and a count of its own.
    pub(crate) fn finish(self) -> SecureStream {
        let channel = self.transcript.finish(direction(self.role));
        SecureStream { plain: self.stream, channel, peer: self.peer, next_beat: Instant::now() + BEAT }
    }
}

/// An established session's connection: whole messages, each with its MAC.
pub(crate) struct SecureStream {
    pub(crate) plain: Stream,
    channel: Channel,
    peer: String,
    next_beat: Instant,
}

impl SecureStream {
    pub(crate) fn error(&self, step: Step, cause: Cause) -> SessionError {
        SessionError { peer: self.peer.clone(), step, cause }
    }

    pub(crate) fn send(&mut self, message: &Message, deadline: Instant) -> Result<(), SessionError> {
        let mut frame = message.encode();
        self.channel.seal(&mut frame);
        let sent = self.plain.send(&frame, deadline);
        sent.map_err(|cause| self.error(Step::Sending(message.kind()), cause))
    }

    /// Sends as much of a last message as the socket takes without waiting.
    pub(crate) fn send_now(&mut self, message: &Message) {
        let mut frame = message.encode();
        self.channel.seal(&mut frame);
        self.plain.send_now(&frame);
    }

    /// Checks the MAC of a message that came, and parses it.
    pub(crate) fn open(&mut self, (kind, frame): Frame) -> Result<Message, Cause> {
        // No message of the handshake is allowed in a session, whatever its MAC.
        if kind.version() == 0 {
            return Err(Cause::Unexpected { got: kind });
        }
        self.channel.open(&frame).map_err(|_| Cause::Forged)?;
        match message::parse(&frame)? {
            Message::Bye(reason) => Err(Cause::Bye(reason)),
            message => Ok(message),
        }
    }

    /// The next message, if a whole one has come. Its MAC has been checked.
    pub(crate) fn try_receive(&mut self) -> Result<Option<Message>, Cause> {
        match self.plain.try_recv()? {
            Some(frame) => self.open(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Sends `Alive`, if it is time to.
    pub(crate) fn beat(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        if now < self.next_beat {
            return Ok(());
        }
        self.next_beat = now + BEAT;
        self.send(&Message::Alive, now + LULL)
    }

    /// The time at which this side must act even if no message comes: to send `Alive`, or to find
    /// the peer gone.
    pub(crate) fn due(&self) -> Instant {
        self.next_beat.min(self.plain.heard() + LULL)
    }
}

/// A refusal without a MAC, for a connection for which there is no room: the side that refuses has
/// received nothing over which a MAC could go.
pub(crate) fn unauthenticated_refusal(ours: NodeName, reason: Reason) -> Vec<u8> {
    let refusal = Refusal { nodes: Both { ours: None, theirs: Some(ours) }, reason };
    let frame = Message::Refused(Box::new(refusal)).encode();
    debug_assert_eq!(frame.len(), size_of::<wire::Refused>());
    frame
}
