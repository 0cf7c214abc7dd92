//! Which connections a server accepts, and which it turns away.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use kvrail_host::handshakes::Handshakes;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId};

use super::config::ServerEvent;
use super::connection::{ReaderConnection, TurnedAway};
use super::handshake::Admission;
use super::shared::{Permit, Registration};
use super::shop::LaneShop;
use crate::hello::refuse;
use crate::lane::LaneAcceptor;
use crate::refusal::Refusal;

/// Connections beyond the limit of handshakes: they were displaced by others, or have failed, and
/// are about to end. A displaced connection ends in a later round of the reactor, which accepts 64
/// connections in each round, so there is room for those of four rounds. With room for one round, a
/// reader that connected in the middle of a crowd was turned away.
const LEAVING: usize = 256;
/// How many connections that were turned away are kept at a time so that their peers can read the
/// reason.
const TURNED_AWAY: usize = 64;

/// Decides about the connections of a server.
pub(super) struct ReaderAcceptor<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    handshakes: Arc<Handshakes>,
    /// Connections in their handshake, those that are leaving with them.
    unauthenticated: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
}

impl<A: LaneAcceptor> ReaderAcceptor<A> {
    pub(super) fn new(shop: Arc<LaneShop<A>>) -> Self {
        let handshakes = Handshakes::new(shop.shared.config.max_handshakes);
        let (unauthenticated, turned_away) = (Arc::default(), Arc::default());
        Self { shop, handshakes, unauthenticated, turned_away }
    }

    /// Tells a peer that there is no room for it.
    fn turn_away(&self, peer: SocketAddr) -> Option<Box<dyn Connection>> {
        let (shared, limit) = (&self.shop.shared, self.handshakes.limit());
        shared.report(ServerEvent::TurnedAway { peer, max_handshakes: limit });
        let permit = Permit::new(&self.turned_away, TURNED_AWAY)?;
        let mut refusal = Vec::new();
        refuse(&shared.keys, Refusal::TooManyHandshakes { limit: limit as u64 }, &mut refusal);
        Some(Box::new(TurnedAway::new(refusal, permit, Instant::now())))
    }
}

impl<A: LaneAcceptor> Acceptor for ReaderAcceptor<A> {
    fn accepted(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        tcp: &TcpStream,
    ) -> Option<Box<dyn Connection>> {
        let limit = self.handshakes.limit().saturating_add(LEAVING);
        let Some(permit) = Permit::new(&self.unauthenticated, limit) else { return self.turn_away(peer) };
        // A connection that this one displaces sees the end of its stream.
        let place = match self.handshakes.admit(peer.ip(), tcp) {
            Ok((place, _)) => place,
            Err(error) => {
                tracing::debug!(%peer, %error, "no second descriptor for a connection");
                return self.turn_away(peer);
            }
        };
        let admission = Some(Box::new(Admission { place, _permit: permit }));
        let registration = Registration::new(&self.shop.shared, id);
        let shop = Arc::clone(&self.shop);
        Some(Box::new(ReaderConnection::new(shop, peer, registration, admission, Instant::now())))
    }
}
