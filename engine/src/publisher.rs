//! The producer's side: pages that peers read without its help.
#![allow(unsafe_code, reason = "the pools share one segment")]

mod config;
mod error;
mod guard;
mod handover;
mod pool;
mod slots;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kvrail_core::remote::{Location, RegionOffer, TableOffer};
use kvrail_core::table::KeyTag;
use kvrail_host::segment::Segment;
use kvrail_session::{
    Address, Epoch, NodeName, OfferedRegion, PeerKeys, Pool, PoolId, ProducerDescription, Server,
    ServerConfig,
};

pub use self::config::PublisherConfig;
pub use self::error::{PublisherError, WriteError};
pub use self::guard::{GrowingPage, SlotGuard};
use self::pool::OfferedPool;
pub use self::pool::PublisherPool;
pub use self::slots::LocalPage;
use self::slots::{PoolSlots, Shape};
use crate::layout::PageLayout;
use crate::transport::PublisherTransport;

/// Slots of pages that peers read one-sidedly, and the server that tells peers of them.
///
/// Each slot has an entry in a publication table, in the same memory.
/// [`overwrite`](Self::overwrite) makes the entry invalid, lets the caller write, and publishes the
/// page in a new generation: a reader that was in the middle of the old page gets a miss, and never
/// a mixture.
/// [`write`](Self::write) is the short form.
///
/// A page can also be published while it grows ([`SlotGuard::grow`]): at first no part is ready,
/// and each call of [`GrowingPage::set_ready`] writes parts and makes them ready. Readers read
/// ready parts meanwhile. [`begin`](Self::begin), [`set_ready`](Self::set_ready) and
/// [`finish`](Self::finish) are the form without a guard, for pages that grow a call at a time.
///
/// Threads share it: every slot is on its own. No lock is held while a page is written, and a
/// second guard of one slot is refused ([`WriteError::BeingWritten`]).
///
/// It has one [pool](PublisherPool), or several of several layouts
/// ([`start_pools`](Self::start_pools)). The methods here that name a slot alone are those of
/// [pool](Self::pool) 0.
///
/// Dropping it ends all sessions with readers, and their reads.
pub struct Publisher {
    // Dropped in this order: no new reader, no reads, no memory.
    server: Server,
    /// Keeps the segment readable for peers.
    _keep: Box<dyn Send + Sync>,
    /// At least one; a pool's place is its number.
    pools: Box<[OfferedPool]>,
}

/// A segment for all pools of `config`, and where each is in it.
fn place(config: &PublisherConfig) -> Result<(Arc<Segment>, Vec<Shape>), PublisherError> {
    let mut shapes = Vec::with_capacity(config.pools.len());
    let mut end = 0;
    for (_, layout, slots) in config.numbered() {
        let page_bytes = layout.page_bytes();
        let shape = Shape::place(page_bytes, slots, end).filter(|shape| isize::try_from(shape.end).is_ok());
        let shape = shape.ok_or(PublisherError::Slots { slots, page_bytes })?;
        end = shape.end;
        shapes.push(shape);
    }
    if shapes.is_empty() {
        return Err(PublisherError::NoPool);
    }
    // Within what can be addressed, as each shape is.
    Ok((Arc::new(Segment::new(end as usize)?), shapes))
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
        Self::start_pools(PublisherConfig::new(node).pool(layout, slots), listen, keys, over)
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
        let pools = PublisherConfig::new(node).pool(layout, slots).server(config);
        Self::start_pools(pools, listen, keys, over)
    }

    /// Starts with the pools of `config`, of any layouts. All of them are in one segment of memory;
    /// each has a publication table of its own, and is one region for readers. A reader learns of
    /// the pools whose layouts it knows. `listen` and `keys` are as in [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start); there is no pool, or one without a slot, or they are more
    /// than a producer may offer; or a limit cannot be used.
    pub fn start_pools(
        config: PublisherConfig,
        listen: &Address,
        keys: impl Into<PeerKeys>,
        over: impl PublisherTransport,
    ) -> Result<Self, PublisherError> {
        let (segment, shapes) = place(&config)?;
        let published = over.publish(Arc::clone(&segment)).map_err(PublisherError::Transport)?;
        let rail_keys = published.keys;
        let (mut offers, mut pools) = (Vec::new(), Vec::new());
        for ((id, layout, slots), shape) in config.numbered().zip(shapes) {
            let region = OfferedRegion::new(RegionOffer {
                base: segment.addr() + shape.pages,
                page_bytes: u64::from(shape.page_bytes),
                stride: shape.stride,
                slots,
                keys: rail_keys,
                table: Some(TableOffer { base: segment.addr() + shape.table, keys: rail_keys }),
            })?;
            offers.push(Pool::new(id, layout.to_session(), vec![region])?);
            // SAFETY: the segment is new, so zeros, and ends behind the last shape. The shapes do
            // not overlap, each has one `PoolSlots`, and nothing else here touches the bytes; the
            // transport promised to write nothing and to make no reference.
            let slots = unsafe { PoolSlots::new(Arc::clone(&segment), shape) };
            pools.push(OfferedPool { id, layout, slots });
        }
        let producer = ProducerDescription { node: config.node, pools: offers };
        let server = Server::start(listen, keys, producer, published.acceptor, config.server)?;
        Ok(Self { server, _keep: published.keep, pools: pools.into() })
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

    /// The pool of this number, if there is one.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<PublisherPool<'_>> {
        self.pools.get(id.0 as usize).map(PublisherPool::of)
    }

    /// All pools, in the order of their numbers.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = PublisherPool<'_>> {
        self.pools.iter().map(PublisherPool::of)
    }

    /// Pool 0.
    fn first(&self) -> PublisherPool<'_> {
        PublisherPool::of(&self.pools[0])
    }

    /// The layout of the pages of pool 0.
    #[must_use]
    pub fn layout(&self) -> &PageLayout {
        self.first().layout()
    }

    /// How many slots pool 0 has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.first().slots()
    }

    /// How many readers are connected.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.server.sessions()
    }

    /// Takes `slot` of pool 0 to write a page into it: [`PublisherPool::overwrite`].
    ///
    /// # Errors
    ///
    /// No such slot, another guard of it exists, or no random numbers; the slot is as it was.
    pub fn overwrite(&self, slot: u32, tag: KeyTag) -> Result<SlotGuard<'_>, WriteError> {
        self.first().overwrite(slot, tag)
    }

    /// Overwrites `slot` of pool 0 and publishes it under `tag`: [`PublisherPool::write`].
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite).
    pub fn write(
        &self,
        slot: u32,
        tag: KeyTag,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Location, WriteError> {
        self.first().write(slot, tag, fill)
    }

    /// Publishes a page in `slot` of pool 0 of which no part is ready yet:
    /// [`PublisherPool::begin`].
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite).
    pub fn begin(&self, slot: u32, tag: KeyTag) -> Result<Location, WriteError> {
        self.first().begin(slot, tag)
    }

    /// Lets `fill` write parts of the page that grows in `slot` of pool 0, and makes all parts
    /// below number `parts` ready: [`PublisherPool::set_ready`], which says what `fill` may write.
    ///
    /// # Errors
    ///
    /// No such slot, a guard of it exists, no page in it, or as many parts or more are ready
    /// already.
    pub fn set_ready(
        &self,
        slot: u32,
        parts: u32,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Location, WriteError> {
        self.first().set_ready(slot, parts, fill)
    }

    /// Lets `fill` write the last parts of the page that grows in `slot` of pool 0, and makes the
    /// whole page ready: [`PublisherPool::finish`].
    ///
    /// # Errors
    ///
    /// As [`set_ready`](Self::set_ready), if the whole page is ready already.
    pub fn finish(&self, slot: u32, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        self.first().finish(slot, fill)
    }

    /// Takes the page in `slot` of pool 0 back: [`PublisherPool::invalidate`].
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn invalidate(&self, slot: u32) -> Result<(), WriteError> {
        self.first().invalidate(slot)
    }

    /// The bytes in `slot` of pool 0, published or not. While the returned value exists, the slot
    /// cannot be written.
    ///
    /// # Errors
    ///
    /// No such slot, or it is being written.
    pub fn page(&self, slot: u32) -> Result<LocalPage<'_>, WriteError> {
        self.first().page(slot)
    }

    /// The location of the page in `slot` of pool 0, if one is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn location(&self, slot: u32) -> Result<Option<Location>, WriteError> {
        self.first().location(slot)
    }

    /// How often `slot` of pool 0 has been published so far: [`PublisherPool::publications`].
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn publications(&self, slot: u32) -> Result<u32, WriteError> {
        self.first().publications(slot)
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
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}
