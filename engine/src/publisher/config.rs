//! What a publisher of several pools is started with, and the pools that come later.

use kvrail_session::{NodeName, ServerConfig};

use super::foreign::ForeignPool;
use super::registering::Registering;
use crate::layout::PageLayout;

/// The pools of a publisher, each of one layout, for
/// [`Publisher::start_pools`](crate::Publisher::start_pools).
///
/// ```
/// use kvrail::layouts::Bf16;
/// use kvrail::{KvLayout, PageLayout, PublisherConfig};
///
/// #[derive(KvLayout)]
/// #[kv(order(layer, token), layers = 61, tokens = 64)]
/// struct Latent { latent: [Bf16; 576] }
///
/// #[derive(KvLayout)]
/// #[kv(order(layer, token), layers = 61, tokens = 64)]
/// struct Index { key: [Bf16; 128] }
///
/// let config = PublisherConfig::new("prefill".parse()?)
///     .pool(PageLayout::of::<Latent>(), 512) // pool 0
///     .pool(PageLayout::of::<Index>(), 512); // pool 1
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it starts nothing by itself"]
pub struct PublisherConfig {
    pub(super) node: NodeName,
    /// A pool's place is its number.
    pub(super) pools: Vec<PoolSpec>,
    pub(super) server: ServerConfig,
    pub(super) registering: Registering,
}

impl PublisherConfig {
    /// No pool yet, and the default limits of a server. `node` is the producer's name.
    pub fn new(node: NodeName) -> Self {
        let (server, registering) = (ServerConfig::default(), Registering::DEFAULT);
        Self { node, pools: Vec::new(), server, registering }
    }

    /// Adds a pool of `slots` slots for pages of `layout`. Pools are numbered in this order, from
    /// [`PoolId`](kvrail_session::PoolId)`(0)` on. Several may have the same layout.
    pub fn pool(mut self, layout: PageLayout, slots: u32) -> Self {
        self.pools.push(PoolSpec::Own(layout, slots));
        self
    }

    /// Adds a pool whose pages somebody else owns, which gets the next number. It is published
    /// without a copy; the table beside it is the publisher's own.
    ///
    /// ```
    /// use kvrail::core::provider::MemoryRange;
    /// use kvrail::{Bf16, ForeignMemory, ForeignPool, ForeignRegion};
    /// use kvrail::{KvLayout, PageLayout, PublisherConfig};
    ///
    /// #[derive(KvLayout)]
    /// #[kv(order(layer, token), layers = 61, tokens = 64)]
    /// struct Latent { latent: [Bf16; 576] }
    ///
    /// /// The engine's pool: pages of `Latent`, one after another, at this address.
    /// fn config(addr: u64, len: u64) -> PublisherConfig {
    ///     let memory = MemoryRange { addr, len };
    ///     // SAFETY: the engine keeps its pool mapped until the publisher is gone, and writes a
    ///     // page only while it has the guard of its slot.
    ///     let pool = unsafe { ForeignMemory::host(memory) };
    ///     let pages = ForeignRegion::new(&pool);
    ///     let latent = ForeignPool::new(PageLayout::of::<Latent>()).region(pages);
    ///     PublisherConfig::new("prefill".parse().unwrap()).foreign_pool(latent)
    /// }
    /// ```
    pub fn foreign_pool(mut self, pool: ForeignPool) -> Self {
        self.pools.push(PoolSpec::Foreign(pool));
        self
    }

    /// Sets the most bytes of one registration, below what the rails can do, which is the default.
    /// A pool that is longer is offered in pieces of whole slots, each registered by itself:
    /// several at a time, with a line in the log each second. Each piece takes places of a reader,
    /// one for each region of the layout and one for its table.
    ///
    /// Pages of the host count as a whole. A pool whose slot is longer, or that would have more
    /// than [`MAX_REGIONS`](kvrail_session::MAX_REGIONS) regions, is refused.
    pub fn piece_bytes(mut self, bytes: u64) -> Self {
        self.registering.piece_bytes = bytes;
        self
    }

    /// Sets how many registrations are made at the same time, at least 1. By default they are as
    /// many as the transport has rails, 16 at most. Each is made on all rails at once.
    pub fn registrations(mut self, at_once: usize) -> Self {
        self.registering.at_once = Some(at_once.max(1));
        self
    }

    /// Sets whether memory of the publisher's own comes from the NUMA node of the NICs
    /// ([`Exporter::numa_node`](crate::Exporter::numa_node)); by default it does. Where the process
    /// gets no memory of that node, or may not run on it, memory comes from any node and the log
    /// says so.
    pub fn near_nics(mut self, near: bool) -> Self {
        self.registering.near_nics = near;
        self
    }

    /// Sets the server's limits, observer and lease.
    pub fn server(mut self, server: ServerConfig) -> Self {
        self.server = server;
        self
    }
}

/// A pool that is to be published.
#[derive(Clone, Debug)]
pub(super) enum PoolSpec {
    /// In memory of the publisher's own: the layout of its pages, and how many slots it has.
    Own(PageLayout, u32),
    Foreign(ForeignPool),
}
