//! Put, get, exists and remove, for batches of keys.

use std::mem::MaybeUninit;
use std::time::Instant;

use kvrail_node::{Destination, Destinations, GetBatch, Key, PlaceGuard, Put, PutError, PutPlace};

use super::keys::Keys;
use super::open::{Open, Space};
use crate::abi::constants::KVRAIL_OK;
use crate::abi::node_types::{kvrail_get_counts, kvrail_put_counts};
use crate::border::Caller;
use crate::error::CapiError;
use crate::status;

/// Keys, and the places of registered memory that their pages are in or come to.
pub(crate) struct Wanted<'a> {
    pub(crate) space: u32,
    pub(crate) keys: &'a Keys<'a>,
    pub(crate) places: u32,
    pub(crate) indices: &'a [u32],
}

/// An error's code as a status.
pub(super) fn status_of(code: u32) -> i32 {
    i32::try_from(code).unwrap_or(i32::MAX)
}

impl Space {
    /// Key number `index` of a call, of these bytes.
    pub(super) fn key(&self, index: usize, bytes: &[u8]) -> Result<Key, CapiError> {
        let of_key = |error: kvrail_node::PageKeyError| {
            let source = Box::new(CapiError::from(error));
            CapiError::OfKey { index, source }
        };
        self.keys.key(bytes).map_err(of_key)
    }

    fn keys<'a>(&'a self, keys: &'a Keys<'a>) -> impl Iterator<Item = Result<Key, CapiError>> + 'a {
        keys.iter().enumerate().map(|(index, bytes)| self.key(index, bytes))
    }

    /// All keys, if all are keys.
    pub(super) fn all_keys(&self, keys: &Keys<'_>) -> Result<Vec<Key>, CapiError> {
        self.keys(keys).collect()
    }
}

/// Counts what became of puts, and writes their statuses.
struct PutResults<'a> {
    statuses: &'a mut [MaybeUninit<i32>],
    counts: kvrail_put_counts,
    gap: bool,
    next: usize,
}

impl<'a> PutResults<'a> {
    fn new(statuses: &'a mut [MaybeUninit<i32>]) -> Self {
        Self { statuses, counts: kvrail_put_counts::default(), gap: false, next: 0 }
    }

    fn add(&mut self, put: Result<Put, CapiError>) {
        let status = match put {
            Ok(Put::Stored(_)) => {
                self.counts.stored += 1;
                KVRAIL_OK
            }
            Ok(Put::Already(_)) => {
                self.counts.present += 1;
                KVRAIL_OK
            }
            Ok(Put::Underway) => status::report(&CapiError::PutUnderway),
            Err(error) => status::report(&error),
        };
        self.gap |= status != KVRAIL_OK;
        if !self.gap {
            self.counts.leading += 1;
        }
        if let Some(place) = self.statuses.get_mut(self.next) {
            place.write(status);
        }
        self.next += 1;
    }
}

/// Fills a slot, region by region, and publishes it.
fn fill<'a>(
    place: Result<PutPlace<'_>, PutError>,
    regions: &[usize],
    bytes: impl Fn(usize) -> Result<&'a [u8], CapiError>,
) -> Result<Put, CapiError> {
    let copy = |guard: &mut PlaceGuard<'_>| {
        let mut to = guard.bytes();
        for (region, &length) in regions.iter().enumerate() {
            let from = bytes(region)?;
            // A pool's page has all regions of its layout one behind the other.
            let (part, rest) = to.split_at_mut(length.min(to.len()));
            // Long regions go around the cache, as a rail's do. Both have the region's length.
            kvrail_local::copy_bytes(from, part);
            to = rest;
        }
        Ok::<_, CapiError>(())
    };
    match place? {
        PutPlace::Fill(mut guard) => {
            copy(&mut guard)?;
            Ok(Put::Stored(guard.commit()?))
        }
        PutPlace::Already(record) => Ok(Put::Already(record)),
        PutPlace::Underway => Ok(Put::Underway),
    }
}

impl Open {
    /// The node's own pool of the pages of a space.
    fn own_pool(&self, space: &Space) -> Result<&kvrail_node::PagePool, CapiError> {
        let no_pool = || CapiError::NoOwnPool { layout: space.layout.to_string() };
        self.node().pool_of(&space.layout).ok_or_else(no_pool)
    }

    /// Stores pages of the caller's memory.
    pub(crate) fn put(
        &self,
        caller: &Caller<'_>,
        space: u32,
        keys: &Keys<'_>,
        pages: *const *const u8,
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<kvrail_put_counts, CapiError> {
        let space = self.space_of(space)?;
        let pool = self.own_pool(&space)?;
        let each = space.regions.len();
        let addresses = caller.list("pages", pages, keys.len().saturating_mul(each))?;
        if addresses.iter().any(|address| address.is_null()) {
            return Err(CapiError::Null { what: "an address in pages" });
        }
        let all = space.all_keys(keys)?;
        let mut results = PutResults::new(statuses);
        for (&key, page) in all.iter().zip(addresses.chunks(each)) {
            let bytes = |region: usize| caller.list("pages", page[region], space.regions[region]);
            results.add(fill(pool.put_in_place(key), &space.regions, bytes));
        }
        Ok(results.counts)
    }

    /// Stores pages of registered memory.
    pub(crate) fn put_places(
        &self,
        from: &Wanted<'_>,
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<kvrail_put_counts, CapiError> {
        let space = self.space_of(from.space)?;
        let pool = self.own_pool(&space)?;
        let places = self.places_for(&space, from.places)?;
        let all = space.all_keys(from.keys)?;
        let mut results = PutResults::new(statuses);
        for (key, &index) in all.into_iter().zip(from.indices) {
            let put = match places.take(index) {
                None => Err(CapiError::PlaceBusy { places: from.places, index }),
                Some(place) => fill(pool.put_in_place(key), &space.regions, |region| {
                    // Registered as host memory, so its bytes can be seen.
                    place.bytes(region as u32).ok_or(CapiError::Places { places: from.places })
                }),
            };
            results.add(put);
        }
        Ok(results.counts)
    }

    /// Registered memory for pages of a space.
    pub(super) fn places_for(&self, space: &Space, number: u32) -> Result<Destinations, CapiError> {
        let places = self.places_of(number)?;
        if *places.layout() == space.layout {
            return Ok(places);
        }
        let (of, space) = (places.layout().to_string(), space.layout.to_string());
        Err(CapiError::SpaceLayout { of, space })
    }

    /// A batch of the keys and their places.
    pub(super) fn batch_of(&self, to: &Wanted<'_>) -> Result<GetBatch, CapiError> {
        let space = self.space_of(to.space)?;
        let places = self.places_for(&space, to.places)?;
        let busy = |index: u32| CapiError::PlaceBusy { places: to.places, index };
        let mut batch = self.batch(to.indices.len());
        for (key, &index) in space.keys(to.keys).zip(to.indices) {
            let place: Destination = places.take(index).ok_or_else(|| busy(index))?;
            batch.read(key?, place);
        }
        Ok(batch)
    }

    /// Gets pages.
    pub(crate) fn get(
        &self,
        to: &Wanted<'_>,
        until: Instant,
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<kvrail_get_counts, CapiError> {
        let mut batch = self.batch_of(to)?;
        self.node().get(&mut batch, until);
        Ok(self.finish(batch, statuses))
    }

    /// Writes the results of a batch, and keeps it.
    pub(super) fn finish(&self, mut batch: GetBatch, statuses: &mut [MaybeUninit<i32>]) -> kvrail_get_counts {
        let mut counts = kvrail_get_counts::default();
        let mut gap = false;
        for (page, place) in batch.take_pages().zip(statuses) {
            let status = match page.result {
                Ok(_) => KVRAIL_OK,
                Err(miss) => {
                    if counts.hits == page.index {
                        // The first miss.
                        status::note(&miss);
                    }
                    status_of(miss.code())
                }
            };
            counts.unsettled += usize::from(page.destination.is_none());
            counts.hits += usize::from(status == KVRAIL_OK);
            gap |= status != KVRAIL_OK;
            counts.leading_hits += usize::from(!gap);
            place.write(status);
        }
        self.keep(batch);
        counts
    }

    /// Which keys have pages. Returns how many from the first on do.
    pub(crate) fn exists(
        &self,
        space: u32,
        keys: &Keys<'_>,
        until: Instant,
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<usize, CapiError> {
        let all = self.space_of(space)?.all_keys(keys)?;
        let presence = self.node().exists(&all, until);
        for (at, place) in statuses.iter_mut().enumerate() {
            let status = match (presence.present.get(at), presence.unknown.get(at)) {
                (true, _) => KVRAIL_OK,
                (_, true) => status_of(kvrail_node::GetMiss::Directory(None).code()),
                _ => status_of(kvrail_node::GetMiss::NoOwner.code()),
            };
            place.write(status);
        }
        Ok(presence.present.leading())
    }

    /// Removes pages of the node's own pools. Returns how many there were.
    pub(crate) fn remove(&self, space: u32, keys: &Keys<'_>) -> Result<usize, CapiError> {
        let all = self.space_of(space)?.all_keys(keys)?;
        Ok(all.into_iter().filter(|&key| self.node().remove(key)).count())
    }
}
