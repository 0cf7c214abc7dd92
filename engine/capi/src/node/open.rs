//! A node that is open, with its spaces of keys and its registered memory.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use engine::PageLayout;
use engine::core::memory::Access;
use engine::session::TagSecret;
use kvrail_node::{Destinations, GetBatch, KeySpace, Namespace, Node, UnregisterMemoryError};

use super::begun::Begun;
use crate::abi::layout_types::kvrail_layout;
use crate::abi::reader_types::kvrail_destination;
use crate::error::CapiError;
use crate::layout::Interned;
use crate::reader::destination;

/// The most spaces and the most registrations of a node.
const MOST: usize = 4096;
/// How many empty batches are kept.
const KEPT_BATCHES: usize = 16;
/// For how long a node that is closed waits for places into which hardware may write.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two looks at places that are not free.
const LOOK: Duration = Duration::from_millis(1);

/// A space of keys.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) layout: PageLayout,
    model: String,
    shape: String,
    pub(super) keys: KeySpace,
    /// Bytes of each region of a page.
    pub(super) regions: Vec<usize>,
}

/// Registered memory by its number. No number is used again: a caller that still has the number of
/// memory that was released must not get pages into other memory.
#[derive(Default)]
struct Registered {
    next: u32,
    all: BTreeMap<u32, Destinations>,
}

/// A node with what callers in C name by numbers.
pub(crate) struct Open {
    node: Arc<Node>,
    secret: TagSecret,
    spaces: RwLock<Vec<Arc<Space>>>,
    places: RwLock<Registered>,
    /// Empty batches, which keep their memory.
    batches: Mutex<Vec<GetBatch>>,
    /// From the first get on that was begun.
    begun: OnceLock<Begun>,
}

impl Open {
    pub(super) fn new(node: Node, secret: TagSecret) -> Result<Self, CapiError> {
        let (spaces, places) = (RwLock::default(), RwLock::default());
        let node = Arc::new(node);
        Ok(Self { node, secret, spaces, places, batches: Mutex::default(), begun: OnceLock::new() })
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The number of the space with this layout, model and shape.
    pub(crate) fn space(
        &self,
        layout: *const kvrail_layout,
        model: &str,
        shape: &str,
    ) -> Result<u32, CapiError> {
        let layout = Interned::page("layout", layout)?;
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        let same =
            |space: &Arc<Space>| space.layout == layout && space.model == model && space.shape == shape;
        if let Some(known) = spaces.iter().position(same) {
            return Ok(known as u32);
        }
        if spaces.len() == MOST {
            return Err(CapiError::Value { what: "spaces", value: MOST as u64, allowed: "fewer" });
        }
        let (model, shape) = (model.to_owned(), shape.to_owned());
        let namespace =
            Namespace { model: model.clone(), layout: layout.fingerprint(), shape: shape.clone() };
        let keys = KeySpace::new(&self.secret, &namespace)?;
        let bytes = |region| layout.geometry().region_bytes(region);
        let regions = (0..layout.regions()).filter_map(bytes).map(|bytes| bytes as usize).collect();
        spaces.push(Arc::new(Space { layout, model, shape, keys, regions }));
        Ok(spaces.len() as u32 - 1)
    }

    pub(super) fn space_of(&self, number: u32) -> Result<Arc<Space>, CapiError> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.get(number as usize).cloned().ok_or(CapiError::Space { space: number })
    }

    /// Registers memory. Returns its number, and how many places it has.
    ///
    /// # Safety
    ///
    /// As for [`Node::register_foreign`], with [`Access::Host`], until [`unregister`] or
    /// [`close`](Self::close) has succeeded.
    ///
    /// [`unregister`]: Self::unregister
    pub(crate) unsafe fn register(
        &self,
        layout: *const kvrail_layout,
        given: &[kvrail_destination],
        numa: Option<u8>,
    ) -> Result<(u32, u32), CapiError> {
        let layout = Interned::page("layout", layout)?;
        if given.len() != layout.regions() as usize {
            let allowed = "as many as the layout has regions";
            return Err(CapiError::Value { what: "destination_count", value: given.len() as u64, allowed });
        }
        let regions = given.iter().zip(0..).map(|(given, region)| destination(given, &layout, region));
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the caller's promise is the same.
        let places = unsafe { self.node.register_foreign(&layout, &regions, Access::Host, numa) }?;
        let count = places.count();
        let mut all = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let number = all.next;
        all.next += 1;
        all.all.insert(number, places);
        Ok((number, count))
    }

    pub(super) fn places_of(&self, number: u32) -> Result<Destinations, CapiError> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.all.get(&number).cloned().ok_or(CapiError::Places { places: number })
    }

    /// Releases registered memory.
    pub(crate) fn unregister(&self, number: u32) -> Result<(), CapiError> {
        let places = self.places_of(number)?;
        match self.node.unregister(&places) {
            Ok(()) => {}
            Err(UnregisterMemoryError::Busy { index }) => {
                return Err(CapiError::PlaceBusy { places: number, index });
            }
            // Another thread has released it since its number was looked up.
            Err(UnregisterMemoryError::Released) => return Err(CapiError::Places { places: number }),
            Err(_) => return Err(CapiError::StillReading),
        }
        let mut all = self.places.write().unwrap_or_else(PoisonError::into_inner);
        all.all.remove(&number);
        Ok(())
    }

    /// Waits until these places are free.
    pub(crate) fn settle(&self, number: u32, indices: &[u32], until: Instant) -> Result<(), CapiError> {
        let places = self.places_of(number)?;
        for &index in indices {
            while !places.is_free(index) {
                if index >= places.count() || Instant::now() >= until {
                    return Err(CapiError::PlaceBusy { places: number, index });
                }
                thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// Waits until the directory knows all pages.
    pub(crate) fn flush(&self, until: Instant) -> Result<(), CapiError> {
        Ok(self.node.announcer().map_or(Ok(()), |announcer| announcer.flush(until))?)
    }

    /// An empty batch.
    pub(super) fn batch(&self, keys: usize) -> GetBatch {
        let kept = self.batches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| GetBatch::with_capacity(keys))
    }

    /// Keeps a batch for a later get.
    pub(super) fn keep(&self, batch: GetBatch) {
        let mut kept = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_BATCHES && batch.is_empty() {
            kept.push(batch);
        }
    }

    /// What takes in gets that were begun.
    pub(super) fn begun(&self) -> Result<&Begun, CapiError> {
        if let Some(begun) = self.begun.get() {
            return Ok(begun);
        }
        let begun = Begun::start()?;
        // Another thread may have made one since: then this one ends.
        Ok(self.begun.get_or_init(|| begun))
    }

    /// The same, if a get was begun before.
    pub(super) fn begun_before(&self) -> Option<&Begun> {
        self.begun.get()
    }

    /// Ends the node.
    pub(super) fn close(self) -> Result<(), CapiError> {
        // Gets that were begun are given up, so that their places become free.
        drop(self.begun);
        let until = Instant::now() + SETTLE;
        let mut released = true;
        for places in self.places.into_inner().unwrap_or_else(PoisonError::into_inner).all.into_values() {
            while places.free() < places.count() && Instant::now() < until {
                thread::sleep(LOOK);
            }
            released &= self.node.unregister(&places).is_ok();
        }
        drop(self.node);
        if released { Ok(()) } else { Err(CapiError::StillReading) }
    }
}
