//! How changes of an offer are noted.

use crate::pool::{MAX_POOLS, Offer, OfferChange};

/// Changes `offer` as a change says.
pub(super) fn apply(offer: &mut Offer, change: &OfferChange) {
    match change {
        OfferChange::Came(pool) => offer.pools.push(pool.clone()),
        OfferChange::Gone(id) => offer.pools.retain(|pool| pool.id() != *id),
        OfferChange::Unknown(layout) => {
            let fits = offer.unknown.len() < MAX_POOLS;
            if fits && !offer.unknown.iter().any(|known| known.same_bytes(layout)) {
                offer.unknown.push(*layout);
            }
        }
    }
}
