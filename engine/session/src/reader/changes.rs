//! Changes of an offer that a program has not asked for yet.

use std::collections::VecDeque;

use crate::pool::{MAX_POOLS, OfferChange};

/// A bounded number of changes: a pool that comes and goes leaves nothing here, and a producer
/// offers a bounded number of pools at a time.
#[derive(Debug, Default)]
pub(super) struct Changes(VecDeque<OfferChange>);

impl Changes {
    pub(super) fn note(&mut self, change: OfferChange) {
        match &change {
            OfferChange::Came(_) => {}
            OfferChange::Gone(id) => {
                let came = |earlier: &OfferChange| matches!(earlier, OfferChange::Came(p) if p.id() == *id);
                if let Some(at) = self.0.iter().position(came) {
                    self.0.remove(at);
                    return;
                }
            }
            OfferChange::Unknown(_) => {
                let unknown = self.0.iter().filter(|earlier| matches!(earlier, OfferChange::Unknown(_)));
                if self.0.contains(&change) || unknown.count() >= MAX_POOLS {
                    return;
                }
            }
        }
        self.0.push_back(change);
    }

    pub(super) fn next(&mut self) -> Option<OfferChange> {
        self.0.pop_front()
    }
}
