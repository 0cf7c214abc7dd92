//! How a reader takes requests over from its peers, block by block.

use std::ops::Range;
use std::time::Duration;

use kvrail_core::id::PeerId;
use kvrail_session::TakeError;
use kvrail_session::handover::{
    Block, Class, GiveUpReason, HandoverNumber, RequestId, TakingError, TakingEvent,
};

use super::peer::Peer;
use super::{PeerSession, Reader};
use crate::transport::ReaderTransport;

/// A request that a reader has taken from a peer. Plain data: it does not say whether the hand-over
/// is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Taking {
    /// The peer's session.
    session: u64,
    peer: PeerId,
    number: HandoverNumber,
}

impl Taking {
    /// The peer that hands the request over.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }
}

/// Why a reader's call about a request did nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeRequestError {
    /// The peer is gone, and with it all that was taken from it.
    #[error(
        "the peer {peer:?} is gone: its session has ended, and all that was taken from it is over; connect again"
    )]
    PeerGone {
        /// The peer.
        peer: PeerId,
    },
    /// The session takes no further request.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// There is no such request, or the producer has not answered yet.
    #[error(transparent)]
    Taking(#[from] TakingError),
}

impl TakeRequestError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::PeerGone { .. } => 6090,
            Self::Take(source) => source.code(),
            Self::Taking(source) => source.code(),
        }
    }
}

impl<T: ReaderTransport> Reader<T> {
    /// Takes a request from a peer: the peer is to hand its pages over. `wait`: how long the peer
    /// waits for a request that it does not know yet, 60 seconds at most. Does not block;
    /// [`next_taking_event`](Self::next_taking_event) says what comes of it.
    ///
    /// While a request is taken, this side renews its lease by itself. Between two reads of its
    /// pages nothing has to be done.
    ///
    /// # Errors
    ///
    /// The peer is gone, or has as many requests taken as allowed.
    pub fn take(
        &mut self,
        peer: &Peer,
        request: RequestId,
        class: Class,
        wait: Duration,
    ) -> Result<Taking, TakeRequestError> {
        let peer = peer.id();
        let gone = TakeRequestError::PeerGone { peer };
        let Some(&session) = self.session_of.get(&peer) else { return Err(gone) };
        let Some(connected) = self.connected.get(&session) else { return Err(gone) };
        let number = connected.handle.take(request, class, wait).ok_or(gone)??;
        Ok(Taking { session, peer, number })
    }

    /// The next event of a request that was taken. Events of one request are merged until they are
    /// fetched, so each says the newest state.
    ///
    /// When a peer is lost ([`ReaderEvent::Lost`](crate::ReaderEvent::Lost)) all that was taken
    /// from it is over without an event of its own.
    pub fn next_taking_event(&mut self) -> Option<(Taking, TakingEvent)> {
        while let Some(&session) = self.with_takings.front() {
            let found = self.connected.get(&session).and_then(|connected| {
                let (peer, _) = connected.peer?;
                let event = connected.handle.next_taking_event()?;
                Some((Taking { session, peer, number: event.number() }, event))
            });
            if found.is_some() {
                return found;
            }
            self.with_takings.pop_front();
        }
        None
    }

    /// The blocks of a request at these places of its list, as far as they are known: each is given
    /// to [`Peer::block`]. None after the request's end.
    #[must_use]
    pub fn blocks(&self, taking: &Taking, places: Range<u32>) -> Vec<Block> {
        self.session_of_taking(taking)
            .map_or_else(|_| Vec::new(), |connected| connected.handle.blocks(taking.number, places))
    }

    /// This side has what it wants of a request, and reads no more of its pages. Call it when all
    /// batches that read them are done.
    ///
    /// # Errors
    ///
    /// The peer is gone; the request is over; the producer has not answered yet.
    pub fn done(&mut self, taking: &Taking) -> Result<(), TakeRequestError> {
        let result = self.session_of_taking(taking)?.handle.done(taking.number);
        Ok(result.ok_or(TakeRequestError::PeerGone { peer: taking.peer })??)
    }

    /// This side wants no more of a request.
    ///
    /// # Errors
    ///
    /// The peer is gone, or the request is over.
    pub fn give_up(&mut self, taking: &Taking, reason: GiveUpReason) -> Result<(), TakeRequestError> {
        let result = self.session_of_taking(taking)?.handle.give_up(taking.number, reason);
        Ok(result.ok_or(TakeRequestError::PeerGone { peer: taking.peer })??)
    }

    fn session_of_taking(&self, taking: &Taking) -> Result<&PeerSession<T::Dialer>, TakeRequestError> {
        self.connected.get(&taking.session).ok_or(TakeRequestError::PeerGone { peer: taking.peer })
    }
}
