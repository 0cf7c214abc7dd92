//! The producer: pages that peers read without its help.
#![allow(unsafe_code, reason = "the publication table and the pages are in memory that peers read")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kvrail_core::remote::{Location, OfferError, RegionOffer, TableOffer};
use kvrail_core::table::{ENTRY_BYTES, Entry, EntryValue, KeyTag};
use kvrail_host::segment::{Segment, SegmentError};
use kvrail_session::{
    Address, Epoch, NodeName, OfferedRegion, PeerKey, ProducerDescription, ServeError, Server, ServerConfig,
};

use crate::layout::PageLayout;
use crate::transport::{PublisherTransport, TransportError};

/// Where pages and slots begin: a cache line.
const LINE: u64 = 64;
/// Where the first page begins: behind the table, on a page of the host.
const PAGES_AT: u64 = 4096;

/// Slots of pages that peers read one-sidedly, and the server that tells peers of them.
///
/// Each slot has an entry in a publication table, in the same memory.
/// [`write`](Self::write) makes it invalid, lets the caller write, and publishes it in a new generation: a
/// reader that was in the middle of the old page gets a miss, and never a mixture.
///
/// Dropping it says goodbye to every reader and ends their reads.
pub struct Publisher {
    // Dropped in this order: no new reader, no reads, no memory.
    server: Server,
    _keep: Box<dyn Send + Sync>,
    segment: Arc<Segment>,
    layout: PageLayout,
    shape: Shape,
}

/// Where things are in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    slots: u32,
    page_bytes: u64,
    stride: u64,
    /// Offset of slot 0.
    pages: u64,
    /// Of the whole.
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
    /// No slots, or too many.
    #[error(
        "{slots} slots of {page_bytes} bytes cannot be published: give 1 or more, and less than 2^63 bytes"
    )]
    Slots {
        /// How many.
        slots: u32,
        /// Of one page.
        page_bytes: u32,
    },
    /// No memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The transport.
    #[error("the pages cannot be made readable: {0}")]
    Transport(TransportError),
    /// The region cannot be offered.
    #[error(transparent)]
    Region(#[from] OfferError),
    /// The bootstrap cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Why a page was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No such slot.
    #[error("slot {slot} of a publisher that has {slots}: the last is {}", slots - 1)]
    Slot {
        /// What was asked for.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// A generation must not be foreseeable.
    #[error("a page's generation needs random numbers, and the system gave none: {0}")]
    Random(getrandom::Error),
}

impl Publisher {
    /// Makes `slots` slots, none of them published, and answers readers that come to `listen` (port 0:
    /// any free one) with `key` and the same layout.
    ///
    /// # Errors
    ///
    /// What the system refused, or the address.
    pub fn start(
        node: NodeName,
        layout: PageLayout,
        slots: u32,
        listen: &Address,
        key: PeerKey,
        over: impl PublisherTransport,
    ) -> Result<Self, PublisherError> {
        let page_bytes = layout.page_bytes();
        let bad = || PublisherError::Slots { slots, page_bytes };
        let shape = Shape::of(page_bytes, slots).ok_or_else(bad)?;
        let segment = Arc::new(Segment::new(usize::try_from(shape.bytes).map_err(|_| bad())?)?);
        let published = over.publish(Arc::clone(&segment)).map_err(PublisherError::Transport)?;
        let keys = published.keys;
        let region = OfferedRegion::new(RegionOffer {
            base: segment.addr() + shape.pages,
            page_bytes: shape.page_bytes,
            stride: shape.stride,
            slots,
            keys,
            table: Some(TableOffer { base: segment.addr(), keys }),
        })?;
        let producer = ProducerDescription { node, layout: layout.to_session(), regions: vec![region] };
        let server = Server::start(listen, key, producer, published.acceptor, ServerConfig::default())?;
        Ok(Self { server, _keep: published.keep, segment, layout, shape })
    }

    /// Where readers connect to, with the port that it got.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// This life of the producer.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.server.epoch()
    }

    /// What its pages are.
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
        // SAFETY: the table begins where the mapping does, which is aligned to a host page; entry `slot`
        // ends before the first page by `Shape`. Zeros are an entry, entries are atomics, and nothing
        // else of this process writes there. The mapping lives as long as `self`.
        Ok(unsafe { &*at })
    }

    /// The bytes in `slot`, published or not.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn page(&self, slot: u32) -> Result<&[u8], WriteError> {
        self.entry(slot)?;
        // SAFETY: `bytes_at` is of a slot that is there; nobody writes while `self` is shared, for only
        // `write` does: the segment is private here, and whoever published it promised not to.
        Ok(unsafe { std::slice::from_raw_parts(self.bytes_at(slot), self.shape.page_bytes as usize) })
    }

    /// Where the page of a slot begins that is there.
    fn bytes_at(&self, slot: u32) -> *mut u8 {
        let at = self.shape.pages + self.shape.stride * u64::from(slot);
        self.segment.as_ptr().wrapping_add(at as usize)
    }

    /// Where the page in `slot` is, if one is published.
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

    /// Takes the page in `slot` back: from now on it is a miss for everybody.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn invalidate(&mut self, slot: u32) -> Result<(), WriteError> {
        self.entry(slot)?.invalidate();
        Ok(())
    }

    /// Overwrites `slot` and publishes it under `tag`. `fill` gets the bytes of the slot's earlier page; what it
    /// leaves there is the new one. Should it panic, the slot stays a miss.
    ///
    /// Threads that write for `fill` have handed their bytes to this one when it returns (it has
    /// joined them, or heard of them through a channel or a lock). One of them that made
    /// non-temporal stores has ended them with an `sfence` before that; this thread's own need
    /// none.
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
        let entry = self.entry(slot)?;
        let nonce = getrandom::u32().map_err(WriteError::Random)?;
        entry.invalidate();
        let at = self.bytes_at(slot);
        // SAFETY: `Shape` put the slot's `page_bytes` bytes within the mapping and apart from the table
        // and the other slots. `&mut self` makes this the only reference to them in this process: the
        // segment is private here, and whoever published it promised to make none. Peers read them through mappings of their own (or the kernel does),
        // by raw copies, at any time: that they get a mixture is what the invalid entry tells them.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at, self.shape.page_bytes as usize) };
        fill(bytes);
        let generation = entry.publish(tag, nonce);
        Ok(Location { slot, expected: EntryValue { generation, tag } })
    }

    /// Says goodbye to all readers, and waits for them until `deadline`. Says how many would not go.
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
