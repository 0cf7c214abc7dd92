//! Pools of a producer that come and go while its session stands.

use std::sync::Arc;

use kvrail_core::id::PeerId;
use kvrail_core::remote::OfferError;
use kvrail_core::time::Time;
use kvrail_session::{Pool, PoolId};

use super::Reader;
use super::connect::{PLACES_PER_PEER, pieces};
use super::peer::{KnownPool, PeerPool, ReaderEvent};
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

impl<T: ReaderTransport> Reader<T> {
    /// Takes in that the producer of session `number` may offer other pools than before: compares
    /// what it offers now with what is known. Nothing is known of a session that this side was not
    /// told of yet; it is compared when this side is.
    pub(super) fn offer_changed(&mut self, number: u64, now: Time) {
        let Some(session) = self.connected.get_mut(&number) else { return };
        let (Some((peer, producer)), Some(offered)) = (session.peer, session.handle.pools()) else { return };
        let layouts = Arc::clone(&session.layouts);
        let (told, mut refused) = (std::mem::take(&mut session.refused), Vec::new());
        let known: Vec<_> = session.pools.iter().map(|known| known.pool.id()).collect();
        for pool in known.iter().filter(|known| offered.iter().all(|pool| pool.id() != **known)) {
            self.pool_gone(number, peer, *pool, now);
        }
        for pool in told.iter().filter(|told| offered.iter().all(|pool| pool.id() != **told)) {
            self.outcomes.forget_pool(peer, *pool);
        }
        for pool in offered.iter().filter(|pool| !known.contains(&pool.id())) {
            match self.add_pool(peer, &layouts, pool, now) {
                Ok(Some(pool)) => {
                    if let Some(session) = self.connected.get_mut(&number) {
                        session.pools.push(KnownPool { pool: pool.clone(), tables: Vec::new() });
                    }
                    self.outcomes.push(ReaderEvent::PoolCame { peer, pool });
                }
                Ok(None) => {}
                Err(why) => {
                    let pool = pool.id();
                    if !told.contains(&pool) {
                        tracing::warn!(%producer, %pool, %why, "a pool that came cannot be read");
                        self.outcomes.push(ReaderEvent::PoolRefused { peer, pool, why });
                    }
                    refused.push(pool);
                }
            }
        }
        if let Some(session) = self.connected.get_mut(&number) {
            session.refused = refused;
        }
    }

    fn pool_gone(&mut self, number: u64, peer: PeerId, pool: PoolId, now: Time) {
        let Some(session) = self.connected.get_mut(&number) else { return };
        let Some(at) = session.pools.iter().position(|known| known.pool.id() == pool) else { return };
        let known = session.pools.swap_remove(at);
        for region in known.pool.regions().iter().chain(&known.tables) {
            self.engine.remove_pool(region, now);
        }
        if !self.outcomes.forget_pool(peer, pool) {
            self.outcomes.push(ReaderEvent::PoolGone { peer, pool });
        }
    }

    /// The handle of a pool; `None` if its layout was not asked for.
    fn add_pool(
        &mut self,
        peer: PeerId,
        layouts: &[PageLayout],
        pool: &Pool,
        now: Time,
    ) -> Result<Option<PeerPool>, OfferError> {
        let known = layouts.iter().find(|layout| layout.to_session().same_bytes(pool.layout()));
        let Some(known) = known else { return Ok(None) };
        // Places that other producers may need stay free.
        let (peers, free) = self.engine.places_free();
        let (limit, needed) = (free.saturating_sub(PLACES_PER_PEER * peers), pool.regions().len());
        if needed > limit {
            return Err(OfferError::Full { limit, needed });
        }
        let mut regions = Vec::new();
        for piece in pieces(pool) {
            match self.engine.add_pool(peer, known.geometry(), &piece) {
                Ok(region) => regions.push(region),
                Err(error) => {
                    regions.iter().for_each(|region| self.engine.remove_pool(region, now));
                    return Err(error);
                }
            }
        }
        let own = 0..regions.len();
        Ok(Some(PeerPool { id: pool.id(), layout: *pool.layout(), all: regions.into(), own }))
    }
}
