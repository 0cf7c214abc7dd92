//! How a reader puts the producer's offer together from messages.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Cause;
use crate::message::{Message, OfferHead, PoolHead, PoolRegions};
use crate::offer::{Layout, OfferedRegion};
use crate::pool::{MAX_OFFERED_REGIONS, MAX_POOLS, Offer, OfferChange, Pool, PoolError, PoolId, check_count};

/// How many numbers of pools that have gone a reader remembers. A producer that counts its pools up
/// and uses a number again is found out, however many came in between.
const MAX_GONE: usize = 4096;

/// What the messages of an offer have brought.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, on its way to the session's owner")]
pub(crate) enum OfferNews {
    /// The first offer is complete.
    Complete(Offer),
    /// The offer has changed.
    Change(OfferChange),
}

/// The offer of one session, while its messages come. After an error it is of no more use: the
/// session ends.
#[derive(Debug)]
pub(crate) struct OfferReader {
    /// The layouts of the reader.
    known: Vec<Layout>,
    stage: Stage,
    /// The pools that are offered, and how many regions each has.
    pools: BTreeMap<PoolId, usize>,
    /// The sum of those regions, and of those that the next pool will have.
    regions: usize,
    /// The numbers of pools that have gone, at most [`MAX_GONE`]: of more, the highest ones.
    gone: BTreeSet<PoolId>,
    /// The layouts of pools that the reader does not know, each once, at most [`MAX_POOLS`].
    unknown: Vec<Layout>,
    /// The pool whose regions come.
    next: Option<NextPool>,
}

#[derive(Debug)]
enum Stage {
    /// No message has come.
    Nothing,
    /// The first offer is not complete. A session outlives it by far, so it has no room in there.
    First(Box<FirstOffer>),
    /// The first offer was complete.
    Complete,
}

/// What has come of the first offer.
#[derive(Debug)]
struct FirstOffer {
    head: OfferHead,
    pools: Vec<Pool>,
}

/// A pool whose regions have not all come.
#[derive(Debug)]
struct NextPool {
    head: PoolHead,
    regions: Vec<OfferedRegion>,
}

impl OfferReader {
    /// No message has come. `known` are the layouts of the reader.
    pub(crate) fn new(known: Vec<Layout>) -> Self {
        Self {
            known,
            stage: Stage::Nothing,
            pools: BTreeMap::new(),
            regions: 0,
            gone: BTreeSet::new(),
            unknown: Vec::new(),
            next: None,
        }
    }

    /// Takes one of the messages `Offer`, `Pool`, `Regions`, `Unknown`, `Offered` and `Gone`.
    ///
    /// # Errors
    ///
    /// The message has no place here, or contradicts an earlier one, or a pool cannot be one.
    pub(crate) fn received(&mut self, message: Message) -> Result<Option<OfferNews>, Cause> {
        if let Message::Regions(regions) = message {
            return self.more_regions(regions);
        }
        if self.next.is_some() {
            return Err(Cause::Contradiction(
                "another message of the offer came before all regions of a pool",
            ));
        }
        if let Message::Offer(head) = message {
            return match self.stage {
                Stage::Nothing => {
                    self.stage = Stage::First(Box::new(FirstOffer { head, pools: Vec::new() }));
                    Ok(None)
                }
                _ => Err(Cause::Contradiction("a second offer came: one session has one")),
            };
        }
        if let (Stage::Nothing, Some(got)) = (&self.stage, message.kind()) {
            return Err(Cause::Unexpected { got });
        }
        match message {
            Message::Pool(head) => self.pool(head),
            Message::Unknown(layout) => self.unknown_layout(layout),
            Message::Gone(id) => self.gone(id),
            Message::Offered => self.offered(),
            other => match other.kind() {
                Some(got) => Err(Cause::Unexpected { got }),
                None => Ok(None),
            },
        }
    }

    fn pool(&mut self, head: PoolHead) -> Result<Option<OfferNews>, Cause> {
        let PoolHead { id, layout, regions } = head;
        if !self.knows(&layout) {
            return Err(Cause::Contradiction("a pool came whose layout this side does not know"));
        }
        if self.pools.contains_key(&id) || self.gone.contains(&id) {
            return Err(PoolError::DuplicateId { id }.into());
        }
        if self.pools.len() >= MAX_POOLS {
            return Err(PoolError::TooManyPools { id }.into());
        }
        check_count(regions as usize, layout.parts.get())?;
        // A head has at most 1024 regions, so the sum stays far below 2^32.
        let count = self.regions + regions as usize;
        if count > MAX_OFFERED_REGIONS {
            return Err(PoolError::TooManyOffered { id, count }.into());
        }
        self.regions = count;
        self.next = Some(NextPool { head, regions: Vec::new() });
        self.complete_pool()
    }

    fn more_regions(&mut self, more: PoolRegions) -> Result<Option<OfferNews>, Cause> {
        let Some(next) = &mut self.next else {
            return Err(Cause::Contradiction("regions came that no pool announced"));
        };
        if more.pool != next.head.id {
            return Err(Cause::Contradiction("regions came that are of another pool than the last"));
        }
        if usize::try_from(more.first) != Ok(next.regions.len()) {
            return Err(Cause::Contradiction("regions of a pool came out of their order"));
        }
        if next.regions.len() + more.regions.len() > next.head.regions as usize {
            return Err(Cause::Contradiction("a pool has more regions than it announced"));
        }
        if next.regions.is_empty() {
            next.regions = more.regions;
        } else {
            next.regions.extend(more.regions);
        }
        self.complete_pool()
    }

    /// Checks the pool whose regions came, if all have come.
    fn complete_pool(&mut self) -> Result<Option<OfferNews>, Cause> {
        let all = |next: &mut NextPool| next.regions.len() == next.head.regions as usize;
        let Some(NextPool { head, mut regions }) = self.next.take_if(all) else { return Ok(None) };
        self.pools.insert(head.id, regions.len());
        regions.shrink_to_fit();
        let pool = Pool::new(head.id, head.layout, regions)?;
        Ok(match &mut self.stage {
            Stage::First(first) => {
                first.pools.push(pool);
                None
            }
            _ => Some(OfferNews::Change(OfferChange::Came(pool))),
        })
    }

    fn unknown_layout(&mut self, layout: Layout) -> Result<Option<OfferNews>, Cause> {
        if self.knows(&layout) {
            return Err(Cause::Contradiction("a layout that this side introduced came as an unknown one"));
        }
        if self.unknown.iter().any(|other| other.same_bytes(&layout)) {
            return Ok(None);
        }
        if self.unknown.len() >= MAX_POOLS {
            return Err(Cause::Contradiction("more than 256 layouts came that this side does not know"));
        }
        self.unknown.push(layout);
        Ok(match self.stage {
            Stage::Complete => Some(OfferNews::Change(OfferChange::Unknown(layout))),
            _ => None,
        })
    }

    fn gone(&mut self, id: PoolId) -> Result<Option<OfferNews>, Cause> {
        let Some(regions) = self.pools.remove(&id) else {
            return Err(Cause::Contradiction("a pool has gone that was not offered"));
        };
        self.regions -= regions;
        self.gone.insert(id);
        if self.gone.len() > MAX_GONE {
            self.gone.pop_first();
        }
        Ok(match &mut self.stage {
            Stage::First(first) => {
                first.pools.retain(|pool| pool.id() != id);
                None
            }
            _ => Some(OfferNews::Change(OfferChange::Gone(id))),
        })
    }

    fn offered(&mut self) -> Result<Option<OfferNews>, Cause> {
        let Stage::First(first) = std::mem::replace(&mut self.stage, Stage::Complete) else {
            return Err(Cause::Contradiction("the first offer was complete already"));
        };
        let FirstOffer { head: OfferHead { node: producer, epoch, rails }, pools } = *first;
        let unknown = self.unknown.clone();
        Ok(Some(OfferNews::Complete(Offer { producer, epoch, rails, pools, unknown })))
    }

    fn knows(&self, layout: &Layout) -> bool {
        self.known.iter().any(|known| known.same_bytes(layout))
    }
}

// The text above names this number.
const _: () = assert!(MAX_POOLS == 256);

#[cfg(test)]
mod tests;
