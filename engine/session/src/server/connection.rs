//! One connection at a producer: its handshake, and then its session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kvrail_host::secret::random_bytes;

use super::lanes::{LaneMaker, Lanes};
use super::shared::{Permit, ServerEvent, Shared};
use crate::error::{Cause, SessionError, Step};
use crate::handshake::{Handshake, SecureStream, Unauthenticated};
use crate::lane::LaneAcceptor;
use crate::message::{ByeReason, Greeting, Hello, Message, OfferHead};
use crate::name::NodeName;
use crate::offer::{Layout, RailDescription, RailList};
use crate::refusal::{Both, Reason, Role, Versions};
use crate::stream::{LINGER, Stream};
use crate::wire::{MessageKind, REGIONS};

/// Handshake and session with one reader.
pub(crate) fn connection<R: LaneAcceptor>(
    shared: &Arc<Shared>,
    acceptor: &R,
    stream: Stream,
    peer: SocketAddr,
    place: Unauthenticated,
    mut permit: Permit,
) {
    let deadline = Instant::now() + shared.config.handshake;
    let handshake =
        Handshake::new(stream, &shared.key, Role::Producer, shared.node, peer.to_string(), deadline);
    let agreed = agree(shared, handshake.with_place(place));
    permit.end_handshake();
    match agreed {
        Err(why) => shared.report(ServerEvent::Failed { peer, why }),
        Ok((mut stream, reader, count)) => {
            let session = shared.session_numbers.fetch_add(1, Ordering::Relaxed);
            shared.report(ServerEvent::Opened { session, peer, reader });
            // Ends when the threads that make lanes have ended, too.
            let why = match LaneMaker::new(shared, acceptor) {
                Ok(maker) => std::thread::scope(|scope| {
                    let mut lanes = Lanes::new(scope, &maker);
                    converse(&mut stream, &maker, &mut lanes)
                }),
                Err(error) => stream.error(Step::Idle, Cause::Io(error)),
            };
            drop(count);
            shared.report(ServerEvent::Closed { session, reader, why });
        }
    }
}

/// One of the sessions that may exist at a time; counted until it is dropped.
struct SessionCount<'a>(&'a Shared);

impl Drop for SessionCount<'_> {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn agree(
    shared: &Shared,
    mut handshake: Handshake,
) -> Result<(SecureStream, NodeName, SessionCount<'_>), SessionError> {
    let reader = receive_hello(shared, &mut handshake)?;

    let step = Step::Awaiting(MessageKind::Propose);
    let layout: Layout = handshake.receive()?;
    if !layout.same_bytes(&shared.layout) {
        return Err(handshake.refuse(step, Reason::Layout(Both { ours: shared.layout, theirs: layout })));
    }
    let limit = shared.config.max_sessions;
    if !Shared::take(&shared.sessions, limit) {
        return Err(handshake.refuse(step, Reason::TooManySessions { limit: limit as u64 }));
    }
    let count = SessionCount(shared);

    let regions = shared.regions();
    handshake.send(&Message::Offer(OfferHead {
        layout: shared.layout,
        epoch: shared.epoch,
        // At most MAX_REGIONS.
        regions: regions.len() as u32,
        rails: loaded_rails(shared),
    }))?;
    for (index, chunk) in regions.chunks(REGIONS).enumerate() {
        let chunk = chunk.iter().copied().take(REGIONS).collect();
        handshake.send(&Message::Regions { first: (index * REGIONS) as u32, regions: chunk })?;
    }
    Ok((handshake.finish(), reader, count))
}

/// Receives the reader's first message, and answers it with the challenge.
fn receive_hello(shared: &Shared, handshake: &mut Handshake) -> Result<NodeName, SessionError> {
    let step = Step::Awaiting(MessageKind::Hello);
    let frame = handshake.receive_frame(MessageKind::Hello)?;
    // The message enters the transcript whatever it holds, so that a refusal's MAC covers it.
    handshake.absorb(&frame);
    let Hello(reader) = handshake.parse(&frame)?;
    handshake.set_peer_name(reader.node);
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
    let step = Step::Sending(MessageKind::Challenge);
    let nonce = random_bytes().map_err(|e| handshake.error(step, Cause::Random(e)))?;
    let versions = Versions::SUPPORTED;
    let ours = Greeting { versions, role: Role::Producer, key_id, nonce, node: shared.node };
    handshake.send(&Message::Challenge(ours, chosen))?;
    Ok(reader.node)
}

/// The rails with the lanes that are on them now.
fn loaded_rails(shared: &Shared) -> RailList {
    let loaded = shared.rails.iter().zip(&shared.loads);
    loaded.map(|(rail, load)| RailDescription { lanes: load.load(Ordering::Relaxed), ..*rail }).collect()
}

/// Answers the reader's messages until the session ends, and returns why it ended.
fn converse<R: LaneAcceptor>(
    stream: &mut SecureStream,
    maker: &LaneMaker<'_, R>,
    lanes: &mut Lanes<'_, '_, R>,
) -> SessionError {
    let cause = loop {
        let received = stream.try_receive();
        let quiet = matches!(received, Ok(None));
        match received {
            Ok(Some(Message::Lanes(asks))) => lanes.begin(&asks),
            Ok(Some(Message::Release(numbers))) => {
                numbers.iter().for_each(|&number| lanes.release(number));
            }
            Ok(Some(Message::Alive) | None) => {}
            Ok(Some(other)) => break Cause::Unexpected { got: other.kind() },
            Err(cause) => break cause,
        }
        // The stop signal is looked at between messages, too: a reader may send without end.
        let until = if quiet { stream.due() } else { Instant::now() };
        match stream.plain.wait_in_session(maker.answered(), until) {
            Ok(false) => {}
            Ok(true) => break Cause::Stopped,
            Err(error) => break Cause::Io(error),
        }
        let deadline = Instant::now() + stream.plain.silence();
        let sent = lanes
            .answers()
            .into_iter()
            .try_for_each(|answers| stream.send(&Message::LanesReady(answers), deadline));
        if let Err(error) = sent.and_then(|()| stream.beat()) {
            return error;
        }
    };
    let bye = match cause {
        Cause::Stopped => Some(ByeReason::Stopping),
        Cause::Unexpected { .. } | Cause::Forged | Cause::Parse(_) => Some(ByeReason::Protocol),
        _ => None,
    };
    if let Some(reason) = bye {
        stream.send_now(&Message::Bye(reason));
        stream.plain.linger(Instant::now() + LINGER);
    }
    stream.error(Step::Idle, cause)
}
