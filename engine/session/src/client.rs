//! The reader's side: it connects, agrees with the producer, and requests lanes.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, net::TcpStream};

use kvrail_core::id::RailIndex;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::secret::random_bytes;

use crate::address::Address;
use crate::error::{Cause, SessionError, Step};
use crate::handshake::{Handshake, SecureStream};
use crate::key::PeerKey;
use crate::lane::{Attached, LaneDialer, SessionLaneError};
use crate::message::{
    ByeReason, Challenge, Greeting, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, Message,
    OfferHead, Regions,
};
use crate::name::NodeName;
use crate::offer::{LaneBlob, Layout, MAX_LANES, Offer, RailDescription, check_regions};
use crate::pairing::RailPair;
use crate::refusal::{Both, Reason, Role, Versions};
use crate::stream::{LULL, SILENCE, Stream};
use crate::wire::MessageKind;

/// A reader's description of itself.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The layout that it was built for.
    pub layout: Layout,
    /// How long the producer may send nothing while a message from it is due.
    pub silence: Duration,
}

impl Hello {
    /// With the usual [`SILENCE`] of ten seconds.
    #[must_use]
    pub const fn new(node: NodeName, layout: Layout) -> Self {
        Self { node, layout, silence: SILENCE }
    }
}

/// Connects to the producer at `address`, and agrees with it on version, key and layout. The
/// session's offer has been checked.
///
/// Blocks, no longer than until `deadline`. A name that stands for several addresses is tried at
/// each in turn.
///
/// # Errors
///
/// What went wrong, with whom and when. If one side refused the other, both get the same
/// [`Refusal`](crate::Refusal).
pub fn connect(
    address: &Address,
    key: &PeerKey,
    hello: Hello,
    deadline: Instant,
) -> Result<Session, SessionError> {
    let error = |step, e| SessionError { peer: address.to_string(), step, cause: Cause::Io(e) };
    let tcp = dial(address, deadline).map_err(|(step, e)| error(step, e))?;
    let stream = Stream::new(tcp, hello.silence, None).map_err(|e| error(Step::Connecting, e))?;
    let handshake = Handshake::new(stream, key, Role::Reader, hello.node, address.to_string(), deadline);
    agree(handshake, key, hello)
}

fn dial(address: &Address, deadline: Instant) -> Result<TcpStream, (Step, io::Error)> {
    if address.port() == 0 || address.is_unspecified() {
        let why = "one can listen on this address, and not connect to it";
        return Err((Step::Connecting, io::Error::new(io::ErrorKind::InvalidInput, why)));
    }
    let found = address.resolve(deadline).map_err(|e| (Step::Resolving, e))?;
    let mut last = io::ErrorKind::TimedOut.into();
    for (tried, address) in found.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // Each address that has not been tried gets an equal share of the time, so that one that
        // does not answer leaves time for the others.
        let share = left / u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        if share.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err((Step::Connecting, last))
}

fn agree(mut handshake: Handshake, key: &PeerKey, hello: Hello) -> Result<Session, SessionError> {
    let nonce =
        random_bytes().map_err(|e| handshake.error(Step::Sending(MessageKind::Hello), Cause::Random(e)))?;
    let ours = Greeting {
        versions: Versions::SUPPORTED,
        role: Role::Reader,
        key_id: key.id(),
        nonce,
        node: hello.node,
    };
    handshake.send(&Message::Hello(ours))?;
    let (producer, version) = receive_challenge(&mut handshake, &ours)?;

    handshake.send(&Message::Propose(hello.layout))?;
    let step = Step::Awaiting(MessageKind::Offer);
    let head: OfferHead = handshake.receive()?;
    if !head.layout.same_bytes(&hello.layout) {
        let layouts = Both { ours: hello.layout, theirs: head.layout };
        return Err(handshake.refuse(step, Reason::Layout(layouts)));
    }
    let offer = receive_regions(&mut handshake, head)?;
    let stream = handshake.finish();
    let session = Session::new(stream, producer, version, offer);
    tracing::debug!(%producer, version, epoch = %session.offer.epoch, "session stands");
    Ok(session)
}

/// Receives the producer's first message: its name, and the proof that it holds the key.
fn receive_challenge(handshake: &mut Handshake, ours: &Greeting) -> Result<(NodeName, u16), SessionError> {
    let step = Step::Awaiting(MessageKind::Challenge);
    let frame = handshake.receive_frame(MessageKind::Challenge)?;
    // The message is parsed before its MAC is checked, so that differing keys are reported as such.
    let Challenge(theirs, chosen) = handshake.parse(&frame)?;
    handshake.set_peer_name(theirs.node);
    if theirs.role != Role::Producer {
        let roles = Both { ours: Role::Reader, theirs: theirs.role };
        return Err(handshake.refuse(step, Reason::Role(roles)));
    }
    if theirs.key_id != ours.key_id {
        let ids = Both { ours: ours.key_id, theirs: theirs.key_id };
        return Err(handshake.refuse(step, Reason::Key(ids)));
    }
    handshake.open(MessageKind::Challenge, &frame)?;
    if ours.versions.common(theirs.versions) != Some(chosen) {
        let versions = Both { ours: ours.versions, theirs: theirs.versions };
        return Err(handshake.refuse(step, Reason::Version(versions)));
    }
    Ok((theirs.node, chosen))
}

/// Receives the regions that follow an offer's head, in order, as many as the head announced.
fn receive_regions(handshake: &mut Handshake, head: OfferHead) -> Result<Offer, SessionError> {
    let step = Step::Awaiting(MessageKind::Regions);
    let mut regions = Vec::new();
    while regions.len() < head.regions as usize {
        let Regions(first, more) = handshake.receive()?;
        let fits = first as usize == regions.len()
            && !more.is_empty()
            && regions.len() + more.len() <= head.regions as usize;
        if !fits {
            handshake.refuse(step, Reason::Malformed { kind: MessageKind::Regions as u16 });
            return Err(handshake.error(
                step,
                Cause::Contradiction("its regions differ from the number and order that its offer announced"),
            ));
        }
        regions.extend_from_slice(&more);
    }
    if let Err(error) = check_regions(&head.layout, &regions) {
        handshake.refuse(step, Reason::Malformed { kind: MessageKind::Regions as u16 });
        return Err(handshake.error(step, Cause::Regions(error)));
    }
    Ok(Offer { layout: head.layout, epoch: head.epoch, rails: head.rails, regions })
}

/// An authenticated connection to a producer: it makes lanes, and shows that the producer lives.
///
/// Each side sends a message every [`BEAT`](crate::BEAT), and a side that sends nothing for
/// [`LULL`](crate::LULL) counts as gone: call [`closed`](Self::closed) by [`due`](Self::due) at the
/// latest, also when nothing happens.
///
/// Dropping it closes the session; the producer then frees all lanes of the session.
pub struct Session {
    stream: SecureStream,
    producer: NodeName,
    version: u16,
    offer: Offer,
    next_lane: NonZeroU32,
    exchanges: u32,
    /// Requested lanes that the producer has not answered yet.
    asked: HashMap<LaneNumber, Asked>,
    answers: VecDeque<(LaneNumber, Result<LaneBlob, SessionLaneError>)>,
    ended: Option<Arc<SessionError>>,
    owner: OwnerProcess,
}

/// A request for a lane.
struct Asked {
    exchange: u32,
    pair: RailPair,
    until: Instant,
    /// The lane was not made in time, and the request was answered by [`SessionLaneError::Late`].
    /// If the producer makes the lane later, it is given back.
    late: bool,
}

/// Requests for lanes that one session may have unanswered, so that a producer whose transport
/// hangs gets a bounded number of them.
const MAX_ASKED: usize = 256;

impl Session {
    fn new(stream: SecureStream, producer: NodeName, version: u16, offer: Offer) -> Self {
        Self {
            stream,
            producer,
            version,
            offer,
            next_lane: NonZeroU32::MIN,
            exchanges: 0,
            asked: HashMap::new(),
            answers: VecDeque::new(),
            ended: None,
            owner: OwnerProcess::current(),
        }
    }

    /// The producer's name.
    #[must_use]
    pub const fn producer(&self) -> NodeName {
        self.producer
    }

    /// The protocol version agreed on.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// What the producer offered when the session was made.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Makes a lane for each of `pairs`, and returns the result of each, in their order. It can be
    /// called at any time of a session. Each lane has a request and an answer of its own. The
    /// producer's ends are ready to receive when this returns.
    ///
    /// Blocks, until `deadline` and for as long as `dialer` takes beyond it. A lane that is
    /// not made in time is [`SessionLaneError::Late`]; the session goes on, and gives the lane back
    /// if the producer makes it later.
    pub fn attach<D: LaneDialer>(
        &mut self,
        dialer: &mut D,
        pairs: &[RailPair],
        deadline: Instant,
    ) -> Vec<Result<Attached<D::UnopenedLane>, SessionLaneError>> {
        let mut lanes: Vec<_> = pairs.iter().map(|_| None).collect();
        let mut pending = HashMap::new();
        for (at, &pair) in pairs.iter().enumerate() {
            let prepared = self.rail(pair.remote_rail).copied().and_then(|remote| {
                let failed = |e| SessionLaneError::Transport(Arc::new(e));
                let (end, blob) = dialer.prepare(pair.rail, &remote).map_err(failed)?;
                Ok((self.ask(pair, blob, deadline)?, end))
            });
            match prepared {
                Ok((number, end)) => drop(pending.insert(number, (at, end))),
                Err(error) => lanes[at] = Some(Err(error)),
            }
        }
        let mut unused = Vec::new();
        while !pending.is_empty() {
            self.closed();
            let Some((number, result)) = self.next_answer() else {
                // If waiting fails, the next read reports the error.
                let _ = self.stream.plain.wait_readable(self.due());
                continue;
            };
            let Some((at, end)) = pending.remove(&number) else { continue };
            let pair @ RailPair { rail, remote_rail } = pairs[at];
            let lane = result.and_then(|blob| {
                let remote = *self.rail(pair.remote_rail)?;
                dialer.connect(end, &remote, &blob).map_err(|error| {
                    unused.push(number);
                    SessionLaneError::Transport(Arc::new(error))
                })
            });
            lanes[at] = Some(lane.map(|lane| Attached { number, rail, remote_rail, lane }));
        }
        if !unused.is_empty() {
            // If this fails, the session has ended, and all its lanes have ended with it.
            let _ = self.release(&unused);
        }
        lanes.into_iter().map(|lane| lane.unwrap_or(Err(SessionLaneError::Late))).collect()
    }

    /// Requests the producer's end of a lane between the rails of `pair`, for this side's end
    /// `blob`. [`next_answer`](Self::next_answer) returns the answer, or [`SessionLaneError::Late`]
    /// if none has come until `until`.
    ///
    /// # Errors
    ///
    /// There is no such rail, too many requests have no answer, or the session has ended.
    pub fn ask(
        &mut self,
        pair: RailPair,
        blob: LaneBlob,
        until: Instant,
    ) -> Result<LaneNumber, SessionLaneError> {
        self.rail(pair.remote_rail)?;
        self.still_open().map_err(SessionLaneError::Session)?;
        if self.asked.len() >= MAX_ASKED {
            return Err(SessionLaneError::Unanswered { asked: self.asked.len() });
        }
        let number = self.next_number();
        self.exchanges = self.exchanges.wrapping_add(1);
        let exchange = self.exchanges;
        let ask = LaneAsk { number, rail: pair.rail, remote_rail: pair.remote_rail, blob };
        let lanes = [ask].into_iter().collect();
        self.send(&Message::Lanes(LaneAsks { exchange, lanes })).map_err(SessionLaneError::Session)?;
        self.asked.insert(number, Asked { exchange, pair, until, late: false });
        Ok(number)
    }

    /// The next answer to an [`ask`](Self::ask): the producer's end of the lane, or why the
    /// producer made none. Does not block. After the session's end every open ask is answered with
    /// that end.
    pub fn next_answer(&mut self) -> Option<(LaneNumber, Result<LaneBlob, SessionLaneError>)> {
        self.closed();
        self.answers.pop_front()
    }

    fn rail(&self, remote_rail: RailIndex) -> Result<&RailDescription, SessionLaneError> {
        let rails = &self.offer.rails;
        rails.get(remote_rail.get()).ok_or(SessionLaneError::NoSuchRail { remote_rail, rails: rails.len() })
    }

    /// The next lane's number. After 2^32 lanes numbers come again; the producer refuses numbers
    /// that are in use.
    fn next_number(&mut self) -> LaneNumber {
        let number = LaneNumber(self.next_lane);
        self.next_lane = self.next_lane.checked_add(1).unwrap_or(NonZeroU32::MIN);
        number
    }

    /// Takes the producer's answers in.
    fn take_answers(&mut self, answers: LaneAnswers) -> Result<(), Cause> {
        for LaneAnswer { number, rail, remote_rail, result } in answers.lanes {
            let pair = RailPair { rail, remote_rail };
            let asked = self.asked.remove(&number);
            let Some(asked) = asked.filter(|a| (a.exchange, a.pair) == (answers.exchange, pair)) else {
                return Err(Cause::Contradiction(
                    "it answered a request for a lane that this side did not make",
                ));
            };
            if !asked.late {
                self.answers.push_back((number, result.map_err(SessionLaneError::Refused)));
            } else if result.is_ok() {
                self.send_release(&[number]).map_err(|_| Cause::Closed)?;
            }
        }
        Ok(())
    }

    /// Answers the requests whose time is over with [`SessionLaneError::Late`].
    fn expire(&mut self) {
        let now = Instant::now();
        for (&number, asked) in &mut self.asked {
            if !asked.late && now >= asked.until {
                asked.late = true;
                self.answers.push_back((number, Err(SessionLaneError::Late)));
            }
        }
    }

    /// Gives lanes back that this side no longer uses: the producer frees its ends. The end of a
    /// session gives all its lanes back.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn release(&mut self, lanes: &[LaneNumber]) -> Result<(), Arc<SessionError>> {
        self.still_open()?;
        self.send_release(lanes)
    }

    fn send_release(&mut self, lanes: &[LaneNumber]) -> Result<(), Arc<SessionError>> {
        for chunk in lanes.chunks(MAX_LANES) {
            let list = chunk.iter().copied().take(MAX_LANES).collect();
            self.send(&Message::Release(list))?;
        }
        Ok(())
    }

    /// Sends a message whole: a message that is begun must be finished, whatever deadline passes
    /// meanwhile.
    fn send(&mut self, message: &Message) -> Result<(), Arc<SessionError>> {
        let sent = self.stream.send(message, Instant::now() + LULL);
        sent.map_err(|error| self.end(error))
    }

    fn still_open(&mut self) -> Result<(), Arc<SessionError>> {
        self.closed().map_or(Ok(()), |ended| Err(Arc::clone(ended)))
    }

    fn end(&mut self, error: SessionError) -> Arc<SessionError> {
        let error = Arc::new(error);
        tracing::debug!(%error, "session ended");
        Arc::clone(self.ended.get_or_insert(error))
    }

    /// Why the session ended, if it has. Does not block. Sends `Alive` to the producer when it is
    /// time to.
    ///
    /// The end of a producer that stops, or whose process dies, is found at once. If a child of a
    /// fork has inherited the connection, if the host dies, or if the process is stopped (SIGSTOP),
    /// the end is found within [`LULL`](crate::LULL).
    ///
    /// A caller that sleeps in between waits for the session's file descriptor to become readable,
    /// and no longer than until [`due`](Self::due).
    pub fn closed(&mut self) -> Option<&Arc<SessionError>> {
        // A bounded number of messages: a producer that sends without end does not block the
        // caller.
        for _ in 0..MAX_LANES {
            if self.ended.is_some() {
                break;
            }
            let heard = match self.stream.try_receive() {
                Ok(None) => break,
                Ok(Some(Message::Alive)) => Ok(()),
                Ok(Some(Message::LanesReady(answers))) => self.take_answers(answers),
                // A producer sends no other message in a session but `Bye`, which `try_receive`
                // takes.
                Ok(Some(other)) => Err(Cause::Unexpected { got: other.kind() }),
                Err(cause) => Err(cause),
            };
            if let Err(cause) = heard {
                let error = self.stream.error(Step::Idle, cause);
                self.end(error);
            }
        }
        if self.ended.is_none()
            && let Err(error) = self.stream.beat()
        {
            self.end(error);
        }
        match &self.ended {
            None => self.expire(),
            Some(why) => {
                let left = self.asked.drain().filter(|(_, asked)| !asked.late);
                let lost = left.map(|(number, _)| (number, Err(SessionLaneError::Session(Arc::clone(why)))));
                self.answers.extend(lost);
            }
        }
        self.ended.as_ref()
    }

    /// When [`closed`](Self::closed) is to be called at the latest.
    #[must_use]
    pub fn due(&self) -> Instant {
        let asked = self.asked.values().filter(|a| !a.late).map(|a| a.until);
        asked.fold(self.stream.due(), Instant::min)
    }

    /// Whether the session stands, as far as this side knows. Does not block.
    pub fn is_alive(&mut self) -> bool {
        self.closed().is_none()
    }
}

impl AsFd for Session {
    /// Readable when [`closed`](Self::closed) has something to read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.plain.as_fd()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a child of a fork the connection is the parent's.
        if self.ended.is_none() && self.owner.is_current() {
            self.stream.send_now(&Message::Bye(ByeReason::Finished));
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("producer", &self.producer)
            .field("version", &self.version)
            .field("epoch", &self.offer.epoch)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
