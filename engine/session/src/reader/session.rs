//! A session of a reader, without its socket.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_host::reactor::Flow;

use crate::error::SessionError;
use crate::key::PeerKeys;
use crate::lane::SessionLaneError;
use crate::liveness::SILENCE;
use crate::message::{ByeReason, LaneNumber};
use crate::name::NodeName;
use crate::offer::{LaneBlob, Layout};
use crate::pairing::RailPair;
use crate::pool::{Offer, OfferChange};

/// A reader, as it describes itself.
#[derive(Clone, Debug)]
pub struct ReaderDescription {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The layouts that it was built for, at most [`MAX_LAYOUTS`](crate::MAX_LAYOUTS).
    pub layouts: Vec<Layout>,
    /// How long the producer may send nothing while a message from it is due.
    pub silence: Duration,
}

impl ReaderDescription {
    /// A reader of one layout, with the usual [`SILENCE`] of ten seconds.
    #[must_use]
    pub fn new(node: NodeName, layout: Layout) -> Self {
        Self { node, layouts: vec![layout], silence: SILENCE }
    }
}

/// An event of a session.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The session is established: its first offer.
    Established(Offer),
    /// The offer has changed.
    OfferChanged(OfferChange),
    /// The answer to [`Session::ask`]: the producer's end of the lane, or why there is none.
    Lane(LaneNumber, Result<LaneBlob, SessionLaneError>),
    /// The session has ended, or was not established. It is the last event.
    Ended(Arc<SessionError>),
}

/// A session of a reader, from the first byte to the end, without its socket. A
/// [`Connection`](kvrail_host::reactor::Connection) of a reactor passes its calls on.
pub struct Session;

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
        let _ = (peer, keys, attempt, reader, deadline, now);
        todo!()
    }

    /// Whether a session that ended by `error` should be dialled again with the next key: the
    /// producer does not know this key, and `keys` has another.
    #[must_use]
    pub fn next_attempt(keys: &PeerKeys, attempt: usize, error: &SessionError) -> Option<usize> {
        let _ = (keys, attempt, error);
        todo!()
    }

    /// Takes bytes that came.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) -> Flow {
        let _ = (now, bytes);
        todo!()
    }

    /// No more bytes come; `Some`: the connection was not made, or failed.
    pub fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        let _ = (now, error);
        todo!()
    }

    /// Appends what is to be sent next.
    pub fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        let _ = (now, out, room);
        todo!()
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    #[must_use]
    pub fn due(&self) -> Instant {
        todo!()
    }

    /// The time that [`due`](Self::due) named has passed.
    pub fn tick(&mut self, now: Instant) -> Flow {
        let _ = now;
        todo!()
    }

    /// The next event. Look for events after every call of another method.
    pub fn next_event(&mut self) -> Option<SessionEvent> {
        todo!()
    }

    /// The producer's offer as it is now, if the session is established.
    #[must_use]
    pub fn offer(&self) -> Option<&Offer> {
        todo!()
    }

    /// Requests the producer's end of a lane between the rails of `pair`, for this side's end
    /// `blob`. An event answers: [`SessionLaneError::Late`] if no answer has come until `until`.
    ///
    /// # Errors
    ///
    /// There is no such rail, too many requests have no answer, or the session is not established.
    pub fn ask(
        &mut self,
        pair: RailPair,
        blob: LaneBlob,
        until: Instant,
    ) -> Result<LaneNumber, SessionLaneError> {
        let _ = (pair, blob, until);
        todo!()
    }

    /// Gives lanes back: the producer frees its ends.
    pub fn release(&mut self, lanes: &[LaneNumber]) {
        let _ = lanes;
        todo!()
    }

    /// Says goodbye. The flow ends the connection once that is sent.
    pub fn bye(&mut self, reason: ByeReason) -> Flow {
        let _ = reason;
        todo!()
    }
}
