//! The producer's side: pages that peers read without its help.
#![allow(unsafe_code, reason = "the publication table and the pages are in memory that peers read")]

mod handover;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kvrail_core::remote::{Location, OfferError, RegionOffer, TableOffer};
use kvrail_core::table::{ENTRY_BYTES, Entry, EntryValue, GrowError, KeyTag, Ready};
use kvrail_host::secret::{RandomError, random_bytes};
use kvrail_host::segment::{Segment, SegmentError};
use kvrail_session::{
    Address, Epoch, NodeName, OfferedRegion, PeerKeys, Pool, PoolError, PoolId, ProducerDescription,
    ServeError, Server, ServerConfig,
};

use crate::layout::PageLayout;
use crate::transport::{PublisherTransport, TransportError};

/// A publisher's one pool.
const POOL: PoolId = PoolId(0);
/// Slots begin at multiples of this: a cache line.
const LINE: u64 = 64;
/// The first page begins at a multiple of this, behind the table: a page of the host.
const PAGES_AT: u64 = 4096;

/// Slots of pages that peers read one-sidedly, and the server that tells peers of them.
///
/// Each slot has an entry in a publication table, in the same memory. [`write`](Self::write) makes
/// the entry invalid, lets the caller write, and publishes the page in a new generation: a reader
/// that was in the middle of the old page gets a miss, and never a mixture.
///
/// A page can also be published while it grows: [`begin`](Self::begin) publishes it with no part
/// ready, [`set_ready`](Self::set_ready) writes parts and makes them ready, and
/// [`finish`](Self::finish) makes the whole page ready. Readers read ready parts meanwhile.
///
/// Dropping it ends all sessions with readers, and their reads.
pub struct Publisher {
    // Dropped in this order: no new reader, no reads, no memory.
    server: Server,
    /// Keeps the segment readable for peers.
    _keep: Box<dyn Send + Sync>,
    segment: Arc<Segment>,
    layout: PageLayout,
    shape: Shape,
}

/// How the segment is laid out: the publication table, then the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    slots: u32,
    page_bytes: u64,
    /// Bytes from slot to slot.
    stride: u64,
    /// Offset of slot 0.
    pages: u64,
    /// Bytes of the whole segment.
    bytes: u64,
}

impl Shape {
    fn of(page_bytes: u32, slots: u32) -> Option<Self> {
        let page_bytes = u64::from(page_bytes);
        let stride = page_bytes.next_multiple_of(LINE);
        let pages = (u64::from(slots) * ENTRY_BYTES).next_multiple_of(PAGES_AT);
        let bytes = stride.checked_mul(u64::from(slots))?.checked_add(pages)?;
        (slots > 0).then_some(Self { slots, page_bytes, stride, pages, bytes })
    }
}

/// Why there is no publisher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherError {
    /// There are no slots, or too many.
    #[error(
        "{slots} slots of {page_bytes} bytes cannot be published: give 1 or more, and less than 2^63 bytes"
    )]
    Slots {
        /// How many.
        slots: u32,
        /// Of one page.
        page_bytes: u32,
    },
    /// The system gives no memory for the slots.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The transport cannot make the slots readable for peers.
    #[error("the pages cannot be made readable: {0}")]
    Transport(TransportError),
    /// The region cannot be offered.
    #[error(transparent)]
    Region(#[from] OfferError),
    /// The slots cannot be a pool of the layout.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Readers cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl PublisherError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Slots { .. } => 6060,
            Self::Transport(_) => 6061,
            Self::Segment(source) => source.code(),
            Self::Region(source) => source.code(),
            Self::Pool(source) => source.code(),
            Self::Serve(source) => source.code(),
        }
    }
}

/// Why a page was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no such slot.
    #[error("slot {slot} of a publisher that has {slots}: the last is {}", slots - 1)]
    Slot {
        /// The requested slot.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// The system gave no random numbers, and a generation must not be foreseeable.
    #[error("a page's generation needs random numbers, and the system gave none: {0}")]
    Random(RandomError),
    /// The slot has no page that grows, or more of it is ready already.
    #[error("slot {slot}: {source}")]
    Grow {
        /// The slot.
        slot: u32,
        /// The entry's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: GrowError,
    },
}

impl WriteError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Slot { .. } => 6070,
            Self::Random(_) => 6071,
            Self::Grow { source, .. } => source.code(),
        }
    }
}

impl Publisher {
    /// Makes `slots` slots, none of them published, and serves readers that connect to `listen`
    /// (port 0: any free port) with one of `keys` and want the same layout. The slots are one
    /// region of one pool, number 0.
    ///
    /// `keys` is a [`PeerKey`](kvrail_session::PeerKey), two of them during a rotation, or
    /// [`PeerKeys::none`], with which only an address of loopback can be listened on.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the system refused something; the error says what.
    pub fn start(
        node: NodeName,
        layout: PageLayout,
        slots: u32,
        listen: &Address,
        keys: impl Into<PeerKeys>,
        over: impl PublisherTransport,
    ) -> Result<Self, PublisherError> {
        Self::start_with(node, layout, slots, listen, keys, over, ServerConfig::default())
    }

    /// Starts as [`start`](Self::start) does, with limits, an observer and a lease of its own.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), or a limit cannot be used.
    pub fn start_with(
        node: NodeName,
        layout: PageLayout,
        slots: u32,
        listen: &Address,
        keys: impl Into<PeerKeys>,
        over: impl PublisherTransport,
        config: ServerConfig,
    ) -> Result<Self, PublisherError> {
        let page_bytes = layout.page_bytes();
        let bad = || PublisherError::Slots { slots, page_bytes };
        let shape = Shape::of(page_bytes, slots).ok_or_else(bad)?;
        let segment = Arc::new(Segment::new(usize::try_from(shape.bytes).map_err(|_| bad())?)?);
        let published = over.publish(Arc::clone(&segment)).map_err(PublisherError::Transport)?;
        let rail_keys = published.keys;
        let region = OfferedRegion::new(RegionOffer {
            base: segment.addr() + shape.pages,
            page_bytes: shape.page_bytes,
            stride: shape.stride,
            slots,
            keys: rail_keys,
            table: Some(TableOffer { base: segment.addr(), keys: rail_keys }),
        })?;
        let pool = Pool::new(POOL, layout.to_session(), vec![region])?;
        let producer = ProducerDescription { node, pools: vec![pool] };
        let server = Server::start(listen, keys, producer, published.acceptor, config)?;
        Ok(Self { server, _keep: published.keep, segment, layout, shape })
    }

    /// The address that readers connect to, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The epoch of this publisher: another one after each start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.server.epoch()
    }

    /// The layout of its pages.
    #[must_use]
    pub const fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// How many slots it has.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.shape.slots
    }

    /// How many readers are connected.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.server.sessions()
    }

    fn entry(&self, slot: u32) -> Result<&Entry, WriteError> {
        let slots = self.shape.slots;
        if slot >= slots {
            return Err(WriteError::Slot { slot, slots });
        }
        let at = self.segment.as_ptr().cast::<Entry>().wrapping_add(slot as usize);
        // SAFETY: the table begins where the mapping does, which is aligned to a host page; entry
        // `slot` ends before the first page by `Shape`. Zeros are an entry, entries are atomics,
        // and nothing else of this process writes there. The mapping lives as long as `self`.
        Ok(unsafe { &*at })
    }

    /// The bytes in `slot`, published or not.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn page(&self, slot: u32) -> Result<&[u8], WriteError> {
        self.entry(slot)?;
        // SAFETY: the slot exists, so its bytes lie in the mapping. Only `bytes_mut` gives a way to
        // write them, and it takes `&mut self`; the segment is private here, and the transport
        // promised to write nothing.
        Ok(unsafe { std::slice::from_raw_parts(self.bytes_at(slot), self.shape.page_bytes as usize) })
    }

    /// The address of the page in `slot`, which must exist.
    fn bytes_at(&self, slot: u32) -> *mut u8 {
        let at = self.shape.pages + self.shape.stride * u64::from(slot);
        self.segment.as_ptr().wrapping_add(at as usize)
    }

    /// The location of the page in `slot`, if one is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn location(&self, slot: u32) -> Result<Option<Location>, WriteError> {
        let expected = self.entry(slot)?.snapshot();
        Ok(expected.generation.is_valid().then_some(Location { slot, expected }))
    }

    /// How often `slot` has been published so far, modulo 2^31: the next
    /// [`count`](kvrail_core::table::Generation::count) is one more.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn publications(&self, slot: u32) -> Result<u32, WriteError> {
        Ok(self.entry(slot)?.load().count())
    }

    /// Takes the page in `slot` back: from now on every reader misses it.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn invalidate(&mut self, slot: u32) -> Result<(), WriteError> {
        self.entry(slot)?.invalidate();
        Ok(())
    }

    /// Overwrites `slot` and publishes it under `tag`. `fill` is given the bytes of the slot's
    /// earlier page, and leaves the new page there. If `fill` panics, the slot stays a miss.
    ///
    /// Where other threads write for `fill`, `fill` waits for them before it returns: it joins
    /// them, or synchronises with them through a channel or a lock. A thread that made non-temporal
    /// stores ends them with an `sfence` before that; this thread's own need none.
    ///
    /// # Errors
    ///
    /// No such slot, or no random numbers; the slot is as it was.
    pub fn write(
        &mut self,
        slot: u32,
        tag: KeyTag,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Location, WriteError> {
        let nonce = self.take_back(slot)?;
        fill(self.bytes_mut(slot));
        let generation = self.entry(slot)?.publish(tag, nonce);
        Ok(Location { slot, expected: EntryValue { generation, ready: Ready::WHOLE, tag } })
    }

    /// Publishes a page under `tag` of which no part is ready yet: the slot still has the bytes of
    /// its earlier page, which every reader misses from now on. The location says that no part is
    /// ready; [`set_ready`](Self::set_ready) returns locations that say more.
    ///
    /// # Errors
    ///
    /// No such slot, or no random numbers; the slot is as it was.
    pub fn begin(&mut self, slot: u32, tag: KeyTag) -> Result<Location, WriteError> {
        let nonce = self.take_back(slot)?;
        let generation = self.entry(slot)?.begin(tag, nonce);
        Ok(Location { slot, expected: EntryValue { generation, ready: Ready::NONE, tag } })
    }

    /// Lets `fill` write parts of a page that grows, and makes all parts below number `parts`
    /// ready. What a part is, and which bytes it has, is agreed on with the readers.
    ///
    /// `fill` is given the bytes of the whole page. It writes the parts that are not ready yet, and
    /// no byte of a ready one: readers may be reading that, and nothing would tell them. If `fill`
    /// panics, no further part becomes ready, and the page goes on as before. What
    /// [`write`](Self::write) says about other threads holds here too.
    ///
    /// # Errors
    ///
    /// No such slot, no page in it, or as many parts or more are ready already. `fill` has not been
    /// called then.
    pub fn set_ready(
        &mut self,
        slot: u32,
        parts: u32,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Location, WriteError> {
        self.grow(slot, Ready(parts), fill)
    }

    /// Lets `fill` write the last parts of a page that grows, and makes the whole page ready. Apart
    /// from that as [`set_ready`](Self::set_ready).
    ///
    /// # Errors
    ///
    /// No such slot, no page in it, or the whole page is ready already. `fill` has not been called
    /// then.
    pub fn finish(&mut self, slot: u32, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        self.grow(slot, Ready::WHOLE, fill)
    }

    fn grow(&mut self, slot: u32, to: Ready, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        let refused = |source| WriteError::Grow { slot, source };
        let expected = self.entry(slot)?.may_become(to).map_err(refused)?;
        fill(self.bytes_mut(slot));
        self.entry(slot)?.set_ready(to.0).map_err(refused)?;
        Ok(Location { slot, expected })
    }

    /// Makes `slot` invalid, and returns the nonce of its next generation.
    fn take_back(&mut self, slot: u32) -> Result<u32, WriteError> {
        let entry = self.entry(slot)?;
        let nonce = u32::from_le_bytes(random_bytes().map_err(WriteError::Random)?);
        entry.invalidate();
        Ok(nonce)
    }

    /// The bytes of `slot`, which must exist.
    fn bytes_mut(&mut self, slot: u32) -> &mut [u8] {
        let at = self.bytes_at(slot);
        // SAFETY: `Shape` put the slot's `page_bytes` bytes within the mapping and apart from the
        // table and the other slots. `&mut self` makes this the only reference to them in this
        // process: the segment is private here, and the transport promised to make none. Peers read
        // the bytes through mappings of their own (or the kernel does), by raw copies, at any time:
        // the entry tells them which of the bytes may be a mixture.
        unsafe { std::slice::from_raw_parts_mut(at, self.shape.page_bytes as usize) }
    }

    /// Ends all sessions with readers, and waits until `deadline`. Returns how many had not ended
    /// by then.
    pub fn stop(&mut self, deadline: Instant) -> usize {
        self.server.stop(deadline)
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("server", &self.server)
            .field("layout", &self.layout)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_before_the_pages_and_slots_do_not_touch() {
        for (page, slots) in [(1, 1), (41_984, 256), (41_984, 257), (4_497_408, 64), (u32::MAX, 9)] {
            let shape = Shape::of(page, slots).unwrap();
            assert!(u64::from(slots) * ENTRY_BYTES <= shape.pages, "{shape:?}");
            assert!(shape.stride >= u64::from(page) && shape.stride.is_multiple_of(LINE), "{shape:?}");
            assert_eq!(shape.bytes, shape.pages + shape.stride * u64::from(slots), "{shape:?}");
        }
        assert_eq!(Shape::of(1, 0), None);
        assert_eq!(Shape::of(u32::MAX, u32::MAX), None, "beyond 2^64");
    }
}
