//! The producer's side: pages that peers read without its help.

mod config;
mod error;
mod exports;
mod foreign;
mod foreign_guard;
mod guard;
mod handover;
mod nonces;
mod offered;
mod open_pools;
mod overlap;
mod placing;
mod pool;
mod registering;
mod slots;
mod wanted;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kvrail_core::remote::Location;
use kvrail_core::table::KeyTag;
use kvrail_session::{Address, Epoch, NodeName, PeerKeys, PoolId, ProducerDescription, Server, ServerConfig};

use self::config::PoolSpec;
pub use self::config::PublisherConfig;
pub use self::error::{ForeignPoolError, OtherProcess, PublisherError, WithdrawError, WriteError};
pub use self::foreign::{ForeignMemory, ForeignPool, ForeignRegion};
pub use self::foreign_guard::{ForeignSlotGuard, ForeignSlots, GrowingForeignPage};
pub use self::guard::{GrowingPage, SlotGuard};
use self::offered::OfferedPool;
use self::open_pools::OpenPools;
pub use self::pool::PublisherPool;
pub use self::slots::LocalPage;
use crate::layout::PageLayout;
use crate::transport::PublisherTransport;

/// How long a publisher that is dropped waits for its sessions to end.
const STOP: Duration = Duration::from_secs(2);

/// Slots of pages that peers read one-sidedly, and the server that tells peers of them.
///
/// Each slot has an entry in a publication table, which is the publisher's own memory.
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
/// ([`start_pools`](Self::start_pools)), which come and go while it runs
/// ([`add_pool`](Self::add_pool), [`withdraw`](Self::withdraw)). The pages of a pool are the
/// publisher's own memory, or that of an inference engine ([`ForeignPool`]); the publication table
/// is the publisher's own in both cases. The methods here that name a slot alone are those of
/// [pool](Self::pool) 0.
///
/// Dropping it makes every page a miss, ends all sessions with readers, and then releases the
/// memory. A program that is told to stop drops it before it ends: a signal handler tells the
/// thread that owns it, since no more can be done in the handler itself. A process that dies
/// without that takes its memory with it, so readers get errors and no page.
///
/// In a child of a fork it is the parent's: calls that publish are refused
/// ([`OtherProcess`]), and a drop does nothing.
pub struct Publisher {
    server: Server,
    pools: OpenPools,
    /// Pool 0, which may be withdrawn, and its layout and slots.
    first: (Weak<OfferedPool>, PageLayout, u32),
}

impl Publisher {
    /// Makes `slots` slots, none of them published, and serves readers that connect to `listen`
    /// (port 0: any free port) with one of `keys` and want the same layout. The slots are one pool,
    /// number 0.
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

    /// Starts with the pools of `config`, of any layouts. Each has memory and a publication table
    /// of its own, and a region for each region of its layout. A reader learns of the pools whose
    /// layouts it knows. `listen` and `keys` are as in [`start`](Self::start).
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
        let (acceptor, exporter) = over.start().map_err(PublisherError::Transport)?;
        let pools = OpenPools::new(exporter, config.registering);
        let (mut offers, mut first) = (Vec::new(), None);
        for spec in config.pools {
            let offer = |pool| {
                offers.push(pool);
                Ok(())
            };
            let pool = pools.add(spec, offer)?;
            first.get_or_insert_with(|| (Arc::downgrade(&pool), pool.layout, pool.slots.count()));
        }
        let first = first.ok_or(PublisherError::NoPool)?;
        let producer = ProducerDescription { node: config.node, pools: offers };
        let server = Server::start(listen, keys, producer, acceptor, config.server)?;
        Ok(Self { server, pools, first })
    }

    /// Offers another pool of `slots` slots for pages of `layout`, to the readers of all sessions
    /// too, and returns its number.
    ///
    /// # Errors
    ///
    /// There are no slots; there are as many pools as may be; the system or the transport refused
    /// the memory; or the process is a child of a fork. Nothing has changed then.
    pub fn add_pool(&self, layout: PageLayout, slots: u32) -> Result<PoolId, PublisherError> {
        self.add(PoolSpec::Own(layout, slots))
    }

    /// Offers another pool, whose pages somebody else owns, as [`add_pool`](Self::add_pool) does.
    ///
    /// # Errors
    ///
    /// As [`add_pool`](Self::add_pool); or the memory is not what its pages need, or shares bytes
    /// with pages that are published already.
    pub fn add_foreign_pool(&self, pool: ForeignPool) -> Result<PoolId, PublisherError> {
        self.add(PoolSpec::Foreign(pool))
    }

    fn add(&self, spec: PoolSpec) -> Result<PoolId, PublisherError> {
        let offer = |pool| Ok(self.server.add_pool(pool)?);
        Ok(self.pools.add(spec, offer)?.id)
    }

    /// Takes a pool back. No slot of it can be taken from now on; every page is made a miss,
    /// visibly; readers are told that the pool has gone; its pages are released, and its table
    /// after them. When this has returned `Ok`, the publisher and its transport read the pool's
    /// memory no more: foreign memory can be unmapped, unless another pool has pages in it.
    ///
    /// Waits until `deadline` for guards of the pool's slots, and meanwhile refuses new ones. READs
    /// of the pool that are under way may fail before their reader is told, and over RDMA their
    /// lanes are made anew: a producer whose readers are busy lets hand-overs of the pool's pages
    /// end first.
    ///
    /// # Errors
    ///
    /// There is no such pool, guards are left, or another thread is withdrawing it or still adding
    /// it: the pool is as it was. The process is a child of a fork.
    pub fn withdraw(&self, pool: PoolId, deadline: Instant) -> Result<(), WithdrawError> {
        let tell = || _ = self.server.remove_pool(pool);
        self.pools.withdraw(pool, deadline, tell)
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
        self.pools.get(id).map(PublisherPool::of)
    }

    /// All pools, in the order of their numbers.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = PublisherPool<'_>> {
        self.pools.all().into_iter().map(PublisherPool::of)
    }

    /// Pool 0, of which `slot` is asked for.
    fn first(&self, slot: u32) -> Result<PublisherPool<'_>, WriteError> {
        let withdrawn = WriteError::Withdrawn { pool: PoolId(0), slot };
        self.first.0.upgrade().map(PublisherPool::of).ok_or(withdrawn)
    }

    /// The layout of the pages of pool 0.
    #[must_use]
    pub fn layout(&self) -> &PageLayout {
        &self.first.1
    }

    /// How many slots pool 0 has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.first.2
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
        self.first(slot)?.overwrite(slot, tag)
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
        self.first(slot)?.write(slot, tag, fill)
    }

    /// Publishes a page in `slot` of pool 0 of which no part is ready yet:
    /// [`PublisherPool::begin`].
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite).
    pub fn begin(&self, slot: u32, tag: KeyTag) -> Result<Location, WriteError> {
        self.first(slot)?.begin(slot, tag)
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
        self.first(slot)?.set_ready(slot, parts, fill)
    }

    /// Lets `fill` write the last parts of the page that grows in `slot` of pool 0, and makes the
    /// whole page ready: [`PublisherPool::finish`].
    ///
    /// # Errors
    ///
    /// As [`set_ready`](Self::set_ready), if the whole page is ready already.
    pub fn finish(&self, slot: u32, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        self.first(slot)?.finish(slot, fill)
    }

    /// Takes the page in `slot` of pool 0 back: [`PublisherPool::invalidate`].
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn invalidate(&self, slot: u32) -> Result<(), WriteError> {
        self.first(slot)?.invalidate(slot)
    }

    /// The bytes in `slot` of pool 0, published or not. While the returned value exists, the slot
    /// cannot be written.
    ///
    /// # Errors
    ///
    /// No such slot, or it is being written.
    pub fn page(&self, slot: u32) -> Result<LocalPage<'_>, WriteError> {
        self.first(slot)?.page(slot)
    }

    /// The location of the page in `slot` of pool 0, if one is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn location(&self, slot: u32) -> Result<Option<Location>, WriteError> {
        self.first(slot)?.location(slot)
    }

    /// How often `slot` of pool 0 has been published so far: [`PublisherPool::publications`].
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn publications(&self, slot: u32) -> Result<u32, WriteError> {
        self.first(slot)?.publications(slot)
    }

    /// Ends all sessions with readers, and waits until `deadline`. Returns how many had not ended
    /// by then.
    pub fn stop(&mut self, deadline: Instant) -> usize {
        self.server.stop(deadline)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let Self { server, pools, .. } = self;
        // The server says itself, when it is dropped, if sessions outlive it.
        pools.end(|| _ = server.stop(Instant::now() + STOP));
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
