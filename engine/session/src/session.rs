//! The reader's side: connect, agree, ask for lanes.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, net::TcpStream};

use kvrail_core::id::RailIndex;

use crate::address::Address;
use crate::error::{Cause, SessionError, Step};
use crate::fabric::{Attached, Fabric, LaneError};
use crate::handshake::{Handshake, Line};
use crate::io::{SILENCE, Stream};
use crate::key::PeerKey;
use crate::list::List;
use crate::message::{ByeReason, Greeting, LaneAnswer, LaneAsk, LaneAsks, LaneNumber, Message, OfferHead};
use crate::name::NodeName;
use crate::offer::{Layout, MAX_LANES, Offer, RailDescription, check_regions};
use crate::pairing::RailPair;
use crate::refusal::{Both, Reason, Role, Versions};
use crate::wire::Kind;

/// What a reader says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The layout that it was built for.
    pub layout: Layout,
    /// How long the producer may say nothing when it is its turn.
    pub silence: Duration,
}

impl Hello {
    /// With the usual [`SILENCE`] of ten seconds.
    #[must_use]
    pub const fn new(node: NodeName, layout: Layout) -> Self {
        Self { node, layout, silence: SILENCE }
    }
}

/// Connects to the producer at `address` and agrees with it: on version, key and layout. What it
/// offers comes back checked.
///
/// Blocks, no longer than until `deadline`. A name that stands for several addresses is tried at each
/// in turn.
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
        // The time is shared among those not tried yet, so that one black hole does not eat it all.
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
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|e| handshake.error(Step::Sending(Kind::Hello), Cause::Random(e)))?;
    let ours = Greeting {
        versions: Versions::SUPPORTED,
        role: Role::Reader,
        key_id: key.id(),
        nonce,
        node: hello.node,
    };
    handshake.send(&Message::Hello(ours))?;
    let (producer, version) = meet(&mut handshake, &ours)?;

    handshake.send(&Message::Propose(hello.layout))?;
    let step = Step::Awaiting(Kind::Offer);
    let Message::Offer(head) = handshake.receive(Kind::Offer)? else {
        return Err(handshake.error(step, Cause::Contradiction("an offer is none")));
    };
    if !head.layout.same_bytes(&hello.layout) {
        let layouts = Both { ours: hello.layout, theirs: head.layout };
        return Err(handshake.refuse(step, Reason::Layout(layouts)));
    }
    let offer = complete(&mut handshake, head)?;
    let line = handshake.finish();
    let session =
        Session { line, producer, version, offer, next_lane: NonZeroU32::MIN, exchanges: 0, ended: None };
    tracing::debug!(%producer, version, epoch = %session.offer.epoch, "session stands");
    Ok(session)
}

/// The producer's first word: who it is, and that it holds the key.
fn meet(handshake: &mut Handshake, ours: &Greeting) -> Result<(NodeName, u16), SessionError> {
    let step = Step::Awaiting(Kind::Challenge);
    let frame = handshake.receive_frame(Kind::Challenge)?;
    // Parsed before its MAC is checked: if the keys differ, this is how to say so.
    let Message::Challenge(theirs, chosen) = handshake.parse(Kind::Challenge, &frame)? else {
        return Err(handshake.error(step, Cause::Contradiction("a challenge is none")));
    };
    handshake.met(theirs.node);
    if theirs.role != Role::Producer {
        let roles = Both { ours: Role::Reader, theirs: theirs.role };
        return Err(handshake.refuse(step, Reason::Role(roles)));
    }
    if theirs.key_id != ours.key_id {
        let ids = Both { ours: ours.key_id, theirs: theirs.key_id };
        return Err(handshake.refuse(step, Reason::Key(ids)));
    }
    handshake.open(Kind::Challenge, &frame)?;
    if ours.versions.common(theirs.versions) != Some(chosen) {
        let versions = Both { ours: ours.versions, theirs: theirs.versions };
        return Err(handshake.refuse(step, Reason::Version(versions)));
    }
    Ok((theirs.node, chosen))
}

/// The regions that follow an offer, in order, as many as it said.
fn complete(handshake: &mut Handshake, head: OfferHead) -> Result<Offer, SessionError> {
    let step = Step::Awaiting(Kind::Regions);
    let mut regions = Vec::new();
    while regions.len() < head.regions as usize {
        let Message::Regions { first, regions: more } = handshake.receive(Kind::Regions)? else {
            return Err(handshake.error(step, Cause::Contradiction("regions are none")));
        };
        let fits = first as usize == regions.len()
            && !more.is_empty()
            && regions.len() + more.len() <= head.regions as usize;
        if !fits {
            handshake.refuse(step, Reason::Malformed { kind: Kind::Regions as u16 });
            return Err(handshake.error(step, Cause::Contradiction("its regions are not those it announced")));
        }
        regions.extend_from_slice(&more);
    }
    if let Err(error) = check_regions(&head.layout, &regions) {
        handshake.refuse(step, Reason::Malformed { kind: Kind::Regions as u16 });
        return Err(handshake.error(step, Cause::Regions(error)));
    }
    Ok(Offer { layout: head.layout, epoch: head.epoch, rails: head.rails, regions })
}

/// An authenticated connection to a producer: makes lanes, and is the sign that the producer lives.
///
/// Dropping it says goodbye; the producer then frees all lanes of the session.
pub struct Session {
    line: Line,
    producer: NodeName,
    version: u16,
    offer: Offer,
    next_lane: NonZeroU32,
    exchanges: u32,
    ended: Option<Arc<SessionError>>,
}

impl Session {
    /// What the producer calls itself.
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

    /// Makes a lane for each of `pairs`, the first ones or later ones alike, and says what became of
    /// each, in their order. Up to 64 lanes take one exchange with the producer. The producer's ends are
    /// ready to receive when this returns.
    ///
    /// Blocks, no longer than until `deadline`. If the exchange fails, the session has ended.
    pub fn attach<F: Fabric>(
        &mut self,
        fabric: &mut F,
        pairs: &[RailPair],
        deadline: Instant,
    ) -> Vec<Result<Attached<F::Lane>, LaneError>> {
        pairs.chunks(MAX_LANES).flat_map(|chunk| self.attach_some(fabric, chunk, deadline)).collect()
    }

    fn attach_some<F: Fabric>(
        &mut self,
        fabric: &mut F,
        pairs: &[RailPair],
        deadline: Instant,
    ) -> Vec<Result<Attached<F::Lane>, LaneError>> {
        let mut asks = Vec::with_capacity(pairs.len());
        let prepared: Vec<_> = pairs
            .iter()
            .map(|&pair| {
                let remote = *self.rail(pair.remote_rail)?;
                let failed = |e| LaneError::Fabric(Arc::new(e));
                let (pending, blob) = fabric.prepare(pair.rail, &remote).map_err(failed)?;
                let number = self.next_number();
                asks.push(LaneAsk { number, rail: pair.rail, remote_rail: pair.remote_rail, blob });
                Ok((pending, remote))
            })
            .collect();
        let answers = if asks.is_empty() { Ok(Vec::new()) } else { self.exchange(asks, deadline) };
        let mut answers = answers.map(Vec::into_iter);
        let mut unused = Vec::new();
        let lanes = prepared
            .into_iter()
            .map(|prepared| {
                let (pending, remote) = prepared?;
                let answers = answers.as_mut().map_err(|error| LaneError::Session(Arc::clone(error)))?;
                let LaneAnswer { number, rail, remote_rail, result } =
                    answers.next().expect("`ask` made sure that there are as many answers as asks");
                let blob = result.map_err(LaneError::Refused)?;
                let lane = fabric.connect(pending, &remote, &blob).map_err(|error| {
                    unused.push(number);
                    LaneError::Fabric(Arc::new(error))
                })?;
                Ok(Attached { number, rail, remote_rail, lane })
            })
            .collect();
        if !unused.is_empty() {
            // If this fails the session has ended, and all its lanes with it.
            let _ = self.release(&unused, deadline);
        }
        lanes
    }

    fn rail(&self, remote_rail: RailIndex) -> Result<&RailDescription, LaneError> {
        let rails = &self.offer.rails;
        rails.get(remote_rail.get()).ok_or(LaneError::NoSuchRail { remote_rail, rails: rails.len() })
    }

    /// A session that makes 2^32 lanes has been up for too long; numbers in use are refused anyway.
    fn next_number(&mut self) -> LaneNumber {
        let number = LaneNumber(self.next_lane);
        self.next_lane = self.next_lane.checked_add(1).unwrap_or(NonZeroU32::MIN);
        number
    }

    /// Asks for lanes; the answers are to the same lanes in the same order.
    fn exchange(
        &mut self,
        asks: Vec<LaneAsk>,
        deadline: Instant,
    ) -> Result<Vec<LaneAnswer>, Arc<SessionError>> {
        self.still_open()?;
        self.exchanges = self.exchanges.wrapping_add(1);
        let asked = self.ask(asks, deadline);
        asked.map_err(|error| self.end(error))
    }

    fn ask(&mut self, asks: Vec<LaneAsk>, deadline: Instant) -> Result<Vec<LaneAnswer>, SessionError> {
        let step = Step::Awaiting(Kind::LanesReady);
        let exchange = self.exchanges;
        let lanes = List::new(asks)
            .map_err(|_| self.line.error(step, Cause::Contradiction("more lanes than fit")))?;
        self.line.send(&Message::Lanes(LaneAsks { exchange, lanes: lanes.clone() }), deadline)?;
        match self.line.receive(Kind::LanesReady, deadline)? {
            Message::LanesReady(answers) => {
                let same = answers.exchange == exchange
                    && answers.lanes.len() == lanes.len()
                    && lanes.iter().zip(answers.lanes.iter()).all(|(ask, answer)| {
                        (ask.number, ask.rail, ask.remote_rail)
                            == (answer.number, answer.rail, answer.remote_rail)
                    });
                if !same {
                    let what = "it answers for lanes that nobody asked for";
                    return Err(self.line.error(step, Cause::Contradiction(what)));
                }
                Ok(answers.lanes.into_vec())
            }
            other => Err(self.line.error(step, Cause::Unexpected { got: other.kind() })),
        }
    }

    /// Gives lanes back that are of no use any more: the producer frees its ends. All lanes of a
    /// session are given back when it ends.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn release(&mut self, lanes: &[LaneNumber], deadline: Instant) -> Result<(), Arc<SessionError>> {
        self.still_open()?;
        for chunk in lanes.chunks(MAX_LANES) {
            let Ok(list) = List::new(chunk.to_vec()) else { continue };
            let sent = self.line.send(&Message::Release(list), deadline);
            sent.map_err(|error| self.end(error))?;
        }
        Ok(())
    }

    fn still_open(&mut self) -> Result<(), Arc<SessionError>> {
        self.closed().map_or(Ok(()), |ended| Err(Arc::clone(ended)))
    }

    fn end(&mut self, error: SessionError) -> Arc<SessionError> {
        let error = Arc::new(error);
        tracing::debug!(%error, "session ended");
        Arc::clone(self.ended.get_or_insert(error))
    }

    /// Why the session ended, if it has. Does not block. A producer that stops or whose process dies
    /// is noticed at once, one whose host dies after some ten seconds (TCP keep-alive). One that is
    /// merely stopped (SIGSTOP) is not noticed: its memory can still be read.
    ///
    /// To learn of it without asking, wait for the session's file descriptor to become readable.
    pub fn closed(&mut self) -> Option<&Arc<SessionError>> {
        if self.ended.is_none() {
            let cause = match self.line.stream.try_recv() {
                Ok(None) => None,
                Ok(Some(frame)) => Some(match self.line.open(frame) {
                    // A producer says nothing unasked, but goodbye.
                    Ok(message) => Cause::Unexpected { got: message.kind() },
                    Err(cause) => cause,
                }),
                Err(cause) => Some(cause),
            };
            if let Some(cause) = cause {
                let error = self.line.error(Step::Idle, cause);
                self.end(error);
            }
        }
        self.ended.as_ref()
    }

    /// Whether the session stands, as far as this side knows. Does not block.
    pub fn is_alive(&mut self) -> bool {
        self.closed().is_none()
    }
}

impl AsFd for Session {
    /// Readable when there is something to learn from [`closed`](Self::closed).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.stream.as_fd()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.line.send_now(&Message::Bye(ByeReason::Finished));
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
