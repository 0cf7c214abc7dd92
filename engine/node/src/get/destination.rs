//! Memory that pages land in, and the right to one page of it.
#![allow(unsafe_code, reason = "views of memory that hardware writes")]

use std::fmt;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvrail::PageLayout;
use kvrail_core::memory::{Access, DestinationRegion};

/// How far a registration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its places are given out.
    Open,
    /// All readers have released it.
    Released,
    /// Some reader did not release it.
    NotReleased,
}

/// Places of one registration, and which of them are free.
pub(crate) struct Registration {
    /// The number of the node, of all nodes of the process.
    pub(crate) node: u64,
    /// The number of the registration within the node.
    pub(crate) number: u32,
    pub(crate) layout: PageLayout,
    /// The memory of each region of the layout.
    pub(crate) regions: Box<[DestinationRegion]>,
    pub(crate) access: Access,
    pub(crate) count: u32,
    /// A bit for each place, set while no [`Destination`] of it exists.
    free: Box<[AtomicU64]>,
    /// Locked while it is being released, so that another call to release it waits for the outcome.
    life: Mutex<Life>,
}

impl Registration {
    /// The first `count` places of `regions`, all free.
    ///
    /// # Safety
    ///
    /// As for [`Reader::register_foreign_for`](kvrail::Reader::register_foreign_for): the bytes of
    /// `count` places in every region are valid, belong to these places alone, and are not
    /// unmapped; with [`Access::Host`] they are initialised. There is a region for each region of
    /// the layout.
    pub(crate) unsafe fn new(
        (node, number): (u64, u32),
        layout: PageLayout,
        regions: &[DestinationRegion],
        access: Access,
        count: u32,
    ) -> Self {
        let words = (0..count.div_ceil(64)).map(|word| {
            let bits = (count - word * 64).min(64);
            AtomicU64::new(u64::MAX >> (64 - bits))
        });
        let (free, life) = (words.collect(), Mutex::new(Life::Open));
        Self { node, number, layout, regions: regions.into(), access, count, free, life }
    }

    pub(crate) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_free(&self, index: u32) -> bool {
        let word = self.free.get(index as usize / 64);
        // Acquire: what the earlier owner of the place did with its bytes.
        index < self.count && word.is_some_and(|word| word.load(Ordering::Acquire) >> (index % 64) & 1 == 1)
    }

    fn claim(&self, index: u32) -> bool {
        let bit = 1 << (index % 64);
        // Acquire: what the earlier owner of the place did with its bytes.
        let word = self.free.get(index as usize / 64);
        index < self.count && word.is_some_and(|word| word.fetch_and(!bit, Ordering::Acquire) & bit != 0)
    }

    /// Takes all places for good, or returns the first that is not free.
    pub(crate) fn close(&self) -> Option<u32> {
        // Looked at before any is taken: a get of other places, beside a call that is refused,
        // finds them free.
        if let Some(busy) = (0..self.count).find(|&index| !self.is_free(index)) {
            return Some(busy);
        }
        let busy = (0..self.count).find(|&index| !self.claim(index));
        if let Some(busy) = busy {
            (0..busy).for_each(|index| self.give_back(index));
        }
        busy
    }

    fn give_back(&self, index: u32) {
        if let Some(word) = self.free.get(index as usize / 64) {
            word.fetch_or(1 << (index % 64), Ordering::Release);
        }
    }
}

/// Registered memory that pages land in: places for pages of one layout. A place is given out as a
/// [`Destination`], one at a time, and is free again when that is dropped.
///
/// It is a handle, which is cloned freely, and any thread may have one.
#[derive(Clone)]
pub struct Destinations {
    home: Arc<Registration>,
}

impl Destinations {
    pub(crate) const fn new(home: Arc<Registration>) -> Self {
        Self { home }
    }

    pub(crate) const fn home(&self) -> &Arc<Registration> {
        &self.home
    }

    /// Place number `index`, counted from 0 in the order of the memory; `None` if there is no such
    /// place, or a destination of it exists. After a `get` whose deadline passed, that may be in
    /// the node, as long as hardware may still write there.
    #[must_use]
    pub fn take(&self, index: u32) -> Option<Destination> {
        self.home.claim(index).then(|| Destination { home: Arc::clone(&self.home), index })
    }

    /// Whether [`take`](Self::take) would have given out place number `index`.
    #[must_use]
    pub fn is_free(&self, index: u32) -> bool {
        self.home.is_free(index)
    }

    /// The first place that is free.
    #[must_use]
    pub fn take_any(&self) -> Option<Destination> {
        for (word, bits) in (0..).zip(&self.home.free) {
            loop {
                let free = bits.load(Ordering::Relaxed);
                if free == 0 {
                    break;
                }
                if let Some(taken) = self.take(word * 64 + free.trailing_zeros()) {
                    return Some(taken);
                }
            }
        }
        None
    }

    /// How many places there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.home.count
    }

    /// How many of them are free.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.home.free.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// The layout of the pages.
    #[must_use]
    pub fn layout(&self) -> &PageLayout {
        &self.home.layout
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destinations")
            .field("layout", &self.home.layout)
            .field("count", &self.count())
            .field("free", &self.free())
            .finish_non_exhaustive()
    }
}

/// The sole right to one place of [`Destinations`], and to its bytes. It is not `Clone`: no two
/// pages are read into one place. A page that is read has it, and gives it back when nothing can
/// write there any more.
pub struct Destination {
    home: Arc<Registration>,
    index: u32,
}

static_assertions::assert_not_impl_any!(Destination: Clone, Copy);

impl Destination {
    /// The number of its place.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The layout of the page that lands here.
    #[must_use]
    pub fn layout(&self) -> &PageLayout {
        &self.home.layout
    }

    #[inline]
    pub(crate) fn home(&self) -> &Registration {
        &self.home
    }

    /// The address of region `region` of the place; `None` if the layout has no such region.
    #[must_use]
    pub fn address(&self, region: u32) -> Option<u64> {
        let of = self.home.regions.get(region as usize)?;
        Some(of.range.addr + of.stride * u64::from(self.index))
    }

    /// The address of a region of host memory, and its bytes.
    fn view(&self, region: u32) -> Option<(*mut u8, usize)> {
        let addr = self.address(region)?;
        let bytes = usize::try_from(self.home.layout.geometry().region_bytes(region)?).ok()?;
        let host = self.home.access == Access::Host;
        host.then(|| (std::ptr::with_exposed_provenance_mut(addr as usize), bytes))
    }

    /// The bytes of region `region` of the place, region 0 for a layout of one; `None` if the
    /// layout has no such region, or for device memory.
    #[must_use]
    pub fn bytes(&self, region: u32) -> Option<&[u8]> {
        let (at, bytes) = self.view(region)?;
        // SAFETY: `Registration::new` was promised that the bytes of every place are valid,
        // initialised and this place's alone. This value is the only right to the place, and while
        // a page is read into it the node has the value.
        Some(unsafe { slice::from_raw_parts(at, bytes) })
    }

    /// The same bytes, to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self, region: u32) -> Option<&mut [u8]> {
        let (at, bytes) = self.view(region)?;
        // SAFETY: as in `bytes`; `&mut self` makes the view exclusive.
        Some(unsafe { slice::from_raw_parts_mut(at, bytes) })
    }

    /// Copies a page of the layout, all regions one behind the other, into the place. Returns
    /// whether it could: not if the page has another length, or the place is device memory.
    pub(crate) fn fill(&mut self, mut page: &[u8]) -> bool {
        if page.len() != self.home.layout.page_bytes() as usize {
            return false;
        }
        for region in 0..self.home.layout.regions() {
            let Some(bytes) = self.bytes_mut(region) else { return false };
            let Some((part, rest)) = page.split_at_checked(bytes.len()) else { return false };
            bytes.copy_from_slice(part);
            page = rest;
        }
        true
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.home.give_back(self.index);
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "destination {} of registration {}", self.index, self.home.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail::KvLayout;
    use kvrail_core::provider::MemoryRange;

    #[derive(KvLayout)]
    #[kv(order(token), tokens = 4)]
    #[allow(dead_code)]
    struct Small {
        bytes: [u8; 16],
    }

    fn places(count: u32) -> Destinations {
        let layout = PageLayout::of::<Small>();
        let memory = kvrail::memory::leaked(count as usize * layout.page_bytes() as usize).unwrap();
        let range =
            MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 };
        let region = DestinationRegion { range, stride: layout.page_bytes().into() };
        // SAFETY: leaked for these places alone, and filled with zeros.
        let home = unsafe { Registration::new((1, 0), layout, &[region], Access::Host, count) };
        Destinations::new(Arc::new(home))
    }

    #[test]
    fn a_place_is_given_out_once_until_it_comes_back() {
        let places = places(130);
        assert_eq!((places.count(), places.free()), (130, 130));
        let held: Vec<_> = std::iter::from_fn(|| places.take_any()).collect();
        assert_eq!(held.len(), 130);
        assert!(held.iter().enumerate().all(|(n, place)| place.index() as usize == n));
        assert_eq!(places.free(), 0);
        assert!(places.take(129).is_none() && places.take(130).is_none());
        drop(held);
        assert_eq!(places.free(), 130);
        let last = places.take(129).unwrap();
        assert!(places.take(129).is_none());
        assert_eq!(last.index(), 129);
    }

    #[test]
    fn places_do_not_share_bytes_and_are_filled_with_whole_pages_alone() {
        let places = places(3);
        let mut held: Vec<_> = (0..3).map(|n| places.take(n).unwrap()).collect();
        for (n, place) in (0..).zip(&mut held) {
            assert!(place.fill(&[n + 1; 64]));
            assert!(!place.fill(&[9; 63]) && !place.fill(&[9; 65]));
        }
        for (n, place) in (0..).zip(&held) {
            assert!(place.bytes(0).unwrap().iter().all(|&byte| byte == n + 1));
            assert!(place.bytes(1).is_none() && place.address(1).is_none());
        }
    }
}
