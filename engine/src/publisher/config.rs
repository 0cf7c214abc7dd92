//! What a publisher of several pools is started with.

use kvrail_session::{NodeName, PoolId, ServerConfig};

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
    /// The layout of each pool and how many slots it has. A pool's place is its number.
    pub(super) pools: Vec<(PageLayout, u32)>,
    pub(super) server: ServerConfig,
}

impl PublisherConfig {
    /// No pool yet, and the default limits of a server. `node` is the producer's name.
    pub fn new(node: NodeName) -> Self {
        Self { node, pools: Vec::new(), server: ServerConfig::default() }
    }

    /// Adds a pool of `slots` slots for pages of `layout`. Pools are numbered in this order, from
    /// [`PoolId`]`(0)` on. Several may have the same layout.
    pub fn pool(mut self, layout: PageLayout, slots: u32) -> Self {
        self.pools.push((layout, slots));
        self
    }

    /// Sets the server's limits, observer and lease.
    pub fn server(mut self, server: ServerConfig) -> Self {
        self.server = server;
        self
    }

    /// The pools with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (PoolId, PageLayout, u32)> {
        (0..).map(PoolId).zip(&self.pools).map(|(id, &(layout, slots))| (id, layout, slots))
    }
}
