//! One connection of a producer, from its first byte to its last.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kvrail_core::id::RailIndex;

use crate::error::{Cause, SessionError, Step};
use crate::fabric::Responder;
use crate::handshake::{Handshake, Line};
use crate::io::{LINGER, Stream};
use crate::list::List;
use crate::message::{
    ByeReason, Greeting, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, Message, OfferHead,
};
use crate::name::{Name, NodeName};
use crate::offer::{LaneBlob, RailDescription, Rails};
use crate::refusal::{Both, Reason, Role, Versions};
use crate::server::{Permit, ServerEvent, Shared};
use crate::wire::{Kind, REGIONS};

/// Handshake and session with one reader.
pub(crate) fn connection<R: Responder>(
    shared: &Arc<Shared>,
    responder: &R,
    stream: Stream,
    peer: SocketAddr,
    mut permit: Permit,
) {
    let deadline = Instant::now() + shared.config.handshake;
    let handshake =
        Handshake::new(stream, &shared.key, Role::Producer, shared.node, peer.to_string(), deadline);
    let agreed = agree(shared, handshake);
    permit.shaken();
    match agreed {
        Err(why) => shared.tell(ServerEvent::Failed { peer, why }),
        Ok((mut line, reader, seat)) => {
            let session = shared.session_numbers.fetch_add(1, Ordering::Relaxed);
            shared.tell(ServerEvent::Opened { session, peer, reader });
            let mut lanes = Lanes { shared, responder, made: HashMap::new() };
            let why = converse(&mut line, &mut lanes);
            drop(lanes);
            drop(seat);
            shared.tell(ServerEvent::Closed { session, reader, why });
        }
    }
}

/// One of the sessions that may stand at a time.
struct Seat<'a>(&'a Shared);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn agree(shared: &Shared, mut handshake: Handshake) -> Result<(Line, NodeName, Seat<'_>), SessionError> {
    let reader = meet(shared, &mut handshake)?;

    let step = Step::Awaiting(Kind::Propose);
    let Message::Propose(layout) = handshake.receive(Kind::Propose)? else {
        return Err(handshake.error(step, Cause::Contradiction("a proposal is none")));
    };
    if !layout.same_bytes(&shared.layout) {
        return Err(handshake.refuse(step, Reason::Layout(Both { ours: shared.layout, theirs: layout })));
    }
    let limit = shared.config.max_sessions;
    if !Shared::take(&shared.sessions, limit) {
        return Err(handshake.refuse(step, Reason::TooManySessions { limit: limit as u64 }));
    }
    let seat = Seat(shared);

    let regions = shared.regions();
    handshake.send(&Message::Offer(OfferHead {
        layout: shared.layout,
        epoch: shared.epoch,
        // At most MAX_REGIONS.
        regions: regions.len() as u32,
        rails: loaded_rails(shared),
    }))?;
    for (index, chunk) in regions.chunks(REGIONS).enumerate() {
        let Ok(chunk) = List::new(chunk.to_vec()) else { continue };
        handshake.send(&Message::Regions { first: (index * REGIONS) as u32, regions: chunk })?;
    }
    Ok((handshake.finish(), reader, seat))
}

/// The reader's first word and ours.
fn meet(shared: &Shared, handshake: &mut Handshake) -> Result<NodeName, SessionError> {
    let step = Step::Awaiting(Kind::Hello);
    let frame = handshake.receive_frame(Kind::Hello)?;
    // In the transcript whatever it says, so that a refusal can be seen to be an answer to it.
    handshake.absorb(&frame);
    let Message::Hello(reader) = handshake.parse(Kind::Hello, &frame)? else {
        return Err(handshake.error(step, Cause::Contradiction("a hello is none")));
    };
    handshake.met(reader.node);
    if reader.role != Role::Reader {
        let roles = Both { ours: Role::Producer, theirs: reader.role };
        return Err(handshake.refuse(step, Reason::Role(roles)));
    }
    let Some(chosen) = Versions::SUPPORTED.common(reader.versions) else {
        let versions = Both { ours: Versions::SUPPORTED, theirs: reader.versions };
        return Err(handshake.refuse(step, Reason::Version(versions)));
    };
    let key_id = shared.key.id();
    if key_id != reader.key_id {
        return Err(handshake.refuse(step, Reason::Key(Both { ours: key_id, theirs: reader.key_id })));
    }
    let step = Step::Sending(Kind::Challenge);
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|e| handshake.error(step, Cause::Random(e)))?;
    let versions = Versions::SUPPORTED;
    let ours = Greeting { versions, role: Role::Producer, key_id, nonce, node: shared.node };
    handshake.send(&Message::Challenge(ours, chosen))?;
    Ok(reader.node)
}

/// The rails with the lanes that are on them now.
fn loaded_rails(shared: &Shared) -> Rails {
    let loaded = shared.rails.iter().zip(&shared.loads);
    let rails =
        loaded.map(|(rail, load)| RailDescription { lanes: load.load(Ordering::Relaxed), ..*rail }).collect();
    List::new(rails).unwrap_or_default()
}

/// Answers the reader until one of the two has enough.
fn converse<R: Responder>(line: &mut Line, lanes: &mut Lanes<'_, R>) -> SessionError {
    loop {
        let said = line.stream.recv_idle().and_then(|frame| line.open(frame));
        let cause = match said {
            Ok(Message::Lanes(asks)) => {
                let answers = lanes.answer(asks);
                let deadline = Instant::now() + line.stream.silence();
                match line.send(&Message::LanesReady(answers), deadline) {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            Ok(Message::Release(numbers)) => {
                numbers.iter().for_each(|&number| lanes.release(number));
                continue;
            }
            Ok(other) => Cause::Unexpected { got: other.kind() },
            Err(cause) => cause,
        };
        let last_words = match cause {
            Cause::Stopped => Some(ByeReason::Stopping),
            Cause::Unexpected { .. } | Cause::Forged | Cause::Parse(_) => Some(ByeReason::Protocol),
            _ => None,
        };
        if let Some(reason) = last_words {
            line.send_now(&Message::Bye(reason));
            line.stream.linger(Instant::now() + LINGER);
        }
        return line.error(Step::Idle, cause);
    }
}

/// The lanes of one session. Dropping it releases them all, also when a responder panics.
struct Lanes<'a, R: Responder> {
    shared: &'a Shared,
    responder: &'a R,
    made: HashMap<LaneNumber, (RailIndex, R::Lane)>,
}

impl<R: Responder> Lanes<'_, R> {
    fn answer(&mut self, asks: LaneAsks) -> LaneAnswers {
        let answer = |ask: &LaneAsk| LaneAnswer {
            number: ask.number,
            rail: ask.rail,
            remote_rail: ask.remote_rail,
            result: self.make(ask),
        };
        let lanes = asks.lanes.iter().map(answer).collect();
        // As many answers as asks.
        LaneAnswers { exchange: asks.exchange, lanes: List::new(lanes).unwrap_or_default() }
    }

    fn make(&mut self, ask: &LaneAsk) -> Result<LaneBlob, LaneRefusal> {
        let refuse = |code, text: &str| LaneRefusal { code, text: Name::lossy(text) };
        let rail = ask.remote_rail;
        let limit = self.shared.config.max_lanes;
        let Some(load) = self.shared.loads.get(rail.get()) else {
            let text = format!("rail {} of {}", rail.0, self.shared.rails.len());
            return Err(refuse(LaneRefusalCode::NoSuchRail, &text));
        };
        if self.made.len() >= limit {
            return Err(refuse(LaneRefusalCode::TooMany, &format!("{limit} is the most")));
        }
        let Entry::Vacant(place) = self.made.entry(ask.number) else {
            return Err(refuse(LaneRefusalCode::NumberInUse, &format!("lane {}", ask.number.0)));
        };
        match self.responder.accept(rail, &ask.blob) {
            Ok((lane, blob)) => {
                place.insert((rail, lane));
                load.fetch_add(1, Ordering::Relaxed);
                Ok(blob)
            }
            Err(error) => {
                tracing::warn!(%error, "lane");
                Err(refuse(LaneRefusalCode::Fabric, &error.to_string()))
            }
        }
    }

    /// A number that is not in use is no error: the lane may never have been made.
    fn release(&mut self, number: LaneNumber) {
        if let Some((rail, lane)) = self.made.remove(&number) {
            self.free(rail, lane);
        }
    }

    fn free(&self, rail: RailIndex, lane: R::Lane) {
        self.shared.loads[rail.get()].fetch_sub(1, Ordering::Relaxed);
        self.responder.release(lane);
    }
}

impl<R: Responder> Drop for Lanes<'_, R> {
    fn drop(&mut self) {
        for (rail, lane) in std::mem::take(&mut self.made).into_values() {
            self.free(rail, lane);
        }
    }
}
