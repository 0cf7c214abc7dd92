//! Pools of a producer that come and go while its session stands.

use std::sync::Arc;

use kvrail_core::id::PeerId;
use kvrail_core::remote::OfferError;
use kvrail_core::time::Time;
use kvrail_session::{OfferChange, Pool, PoolId};

use super::Reader;
use super::connect::pieces;
use super::peer::{PeerPool, ReaderEvent};
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

impl<T: ReaderTransport> Reader<T> {
    /// Takes in that the producer of session `number` offers other pools than before. Changes from
    /// before the session was told of are in the offer that came with it.
    pub(super) fn offer_changed(&mut self, number: u64, change: OfferChange, now: Time) {
        let Some(session) = self.connected.get(&number) else { return };
        let Some((peer, producer)) = session.peer else { return };
        let layouts = Arc::clone(&session.layouts);
        match change {
            OfferChange::Came(pool) if session.pools.iter().any(|known| known.id() == pool.id()) => {}
            OfferChange::Came(pool) => match self.add_pool(peer, &layouts, &pool) {
                Ok(Some(pool)) => {
                    if let Some(session) = self.connected.get_mut(&number) {
                        session.pools.push(pool.clone());
                    }
                    self.outcomes.push(ReaderEvent::PoolCame { peer, pool });
                }
                Ok(None) => {}
                Err(error) => {
                    let pool = pool.id();
                    tracing::warn!(%producer, %pool, %error, "a pool that came cannot be read");
                }
            },
            OfferChange::Gone(pool) => self.pool_gone(number, peer, pool, now),
            _ => {}
        }
    }

    fn pool_gone(&mut self, number: u64, peer: PeerId, pool: PoolId, now: Time) {
        let Some(session) = self.connected.get_mut(&number) else { return };
        let Some(at) = session.pools.iter().position(|known| known.id() == pool) else { return };
        for region in session.pools.swap_remove(at).regions() {
            self.engine.remove_pool(region, now);
        }
        self.outcomes.push(ReaderEvent::PoolGone { peer, pool });
    }

    /// The handle of a pool; `None` if its layout was not asked for.
    fn add_pool(
        &mut self,
        peer: PeerId,
        layouts: &[PageLayout],
        pool: &Pool,
    ) -> Result<Option<PeerPool>, OfferError> {
        let known = layouts.iter().find(|layout| layout.to_session().same_bytes(pool.layout()));
        let Some(known) = known else { return Ok(None) };
        let mut regions = Vec::new();
        for piece in pieces(pool) {
            regions.push(self.engine.add_pool(peer, known.geometry(), &piece)?);
        }
        let own = 0..regions.len();
        Ok(Some(PeerPool { id: pool.id(), layout: *pool.layout(), all: regions.into(), own }))
    }
}
