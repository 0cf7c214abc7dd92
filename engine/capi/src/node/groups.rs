//! Groups of pages: those of several spaces, all or nothing.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Instant;

use kvrail_node::{Destinations, GetBatch};

use super::keys::Keys;
use super::open::{Open, Space};
use crate::abi::node_types::{kvrail_get_counts, kvrail_group_page};
use crate::error::CapiError;

/// Keys, and for each the space and the place of its page, and which belong together.
pub(crate) struct Groups<'a> {
    pub(crate) keys: &'a Keys<'a>,
    pub(crate) pages: &'a [kvrail_group_page],
}

/// A space and registered memory for its pages, with their numbers.
struct Ends {
    numbers: (u32, u32),
    space: Arc<Space>,
    places: Destinations,
}

impl Open {
    fn ends(&self, numbers: (u32, u32)) -> Result<Ends, CapiError> {
        let space = self.space_of(numbers.0)?;
        let places = self.places_for(&space, numbers.1)?;
        Ok(Ends { numbers, space, places })
    }

    /// A batch of the keys and their places, with their groups.
    fn batch_of_groups(&self, to: &Groups<'_>) -> Result<GetBatch, CapiError> {
        let mut batch = self.batch(to.pages.len());
        // Pages of one space often follow each other.
        let mut last = None::<Ends>;
        for (index, (bytes, page)) in to.keys.iter().zip(to.pages).enumerate() {
            let numbers = (page.space, page.places);
            let ends = match last.take().filter(|ends| ends.numbers == numbers) {
                Some(ends) => ends,
                None => self.ends(numbers)?,
            };
            let Ends { space, places, .. } = &ends;
            let key = space.key(index, bytes)?;
            let busy = CapiError::PlaceBusy { places: page.places, index: page.index };
            let place = places.take(page.index).ok_or(busy)?;
            match (page.joined, index) {
                (0, _) => batch.read(key, place),
                (1, 1..) => batch.join(key, place),
                (joined, _) => {
                    let allowed = "0 for a page that begins a group, as the first does, or 1";
                    return Err(CapiError::Value { what: "pages.joined", value: joined.into(), allowed });
                }
            }
            last = Some(ends);
        }
        Ok(batch)
    }

    /// Gets groups of pages.
    pub(crate) fn get_groups(
        &self,
        to: &Groups<'_>,
        until: Instant,
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<kvrail_get_counts, CapiError> {
        let mut batch = self.batch_of_groups(to)?;
        self.node().get(&mut batch, until);
        Ok(self.finish(batch, statuses))
    }

    /// Begins to get groups of pages. Returns the ticket.
    pub(crate) fn begin_get_groups(
        &self,
        to: &Groups<'_>,
        until: Instant,
        tag: u64,
    ) -> Result<u64, CapiError> {
        let begun = self.begun()?;
        let batch = self.batch_of_groups(to)?;
        Ok(begun.add(self.node().begin_get(batch, until), until, tag))
    }
}
