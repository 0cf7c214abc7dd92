//! The numbers of a declaration.

use kvrail_core::config::EngineConfig;

/// The most threads that feed one reader.
pub const MAX_SUBMITTERS: usize = 64;

/// The numbers of a declaration, given or by default. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maxima {
    /// Local rails.
    pub rails: usize,
    /// Peers connected at a time.
    pub peers: usize,
    /// Regions of all peers together; a publication table counts as one.
    pub regions: usize,
    /// Lanes to all peers together.
    pub lanes: usize,
    /// Send queue entries of a lane, the drain wr's included.
    pub depth: usize,
    /// Pages of one batch.
    pub batch: usize,
    /// Batches being filled, in flight, or done and not dropped.
    pub batches: usize,
    /// Other threads that feed the reader.
    pub submitters: usize,
    /// Copy plans that are known at a time.
    pub plans: usize,
    /// A page longer than this travels as several wrs; `None` leaves it to the rails.
    pub chunk: Option<usize>,
    /// Outstanding on one rail; `None` leaves it to the rails.
    pub rail_bytes: Option<usize>,
    /// wrs outstanding on one rail; `None` leaves it to the rails.
    pub rail_wrs: Option<usize>,
    /// The default deadline of a batch, in milliseconds after it is submitted.
    pub deadline_ms: usize,
    /// The page, in bytes of all of its regions.
    pub page: usize,
    /// How many regions the page has.
    pub page_regions: usize,
}

/// `number` as a `u32`. A number that does not fit has failed its check, and the program does not
/// compile.
pub(super) const fn small(number: usize) -> u32 {
    if number > u32::MAX as usize { u32::MAX } else { number as u32 }
}

impl Maxima {
    /// `config`, the configuration that suits the rails, with the declared numbers in it.
    pub(crate) const fn over(&self, mut config: EngineConfig) -> EngineConfig {
        if let Some(chunk) = self.chunk {
            config.chunk_bytes = small(chunk);
        }
        if let Some(bytes) = self.rail_bytes {
            config.rail_bytes = bytes as u64;
        }
        if let Some(wrs) = self.rail_wrs {
            config.rail_wrs = small(wrs);
        }
        config
    }

    /// The wrs of a full batch in chunks of `chunk_bytes`, and how many the lanes hold, if these
    /// are too few.
    pub(crate) const fn too_long(&self, chunk_bytes: u32) -> Option<(u64, u64)> {
        // The engine itself refuses a chunk of 0 bytes.
        let chunk = if chunk_bytes == 0 { 1 } else { chunk_bytes as usize };
        // Each region may end with a shorter chunk.
        let wrs = self.batch.saturating_mul(self.page.div_ceil(chunk) + self.page_regions - 1);
        let room = self.lanes.saturating_mul(self.depth - 1);
        if wrs > room { Some((wrs as u64, room as u64)) } else { None }
    }

    /// wrs of one page: in declared chunks, or in those of [`EngineConfig::DEFAULT`].
    pub(super) const fn chunks(&self) -> usize {
        let chunk = match self.chunk {
            Some(chunk) => chunk,
            None => EngineConfig::DEFAULT.chunk_bytes as usize,
        };
        // Each region may end with a shorter chunk.
        if chunk == 0 { 0 } else { self.page.div_ceil(chunk) + self.page_regions - 1 }
    }
}

/// The default of `max_lanes`: two for each rail of each peer, 16,384 at most.
#[must_use]
pub const fn lanes(peers: usize, rails: usize) -> usize {
    // A 0 has a check of its own, which reports it; this default must not be reported as well.
    let (peers, rails) = (if peers == 0 { 1 } else { peers }, if rails == 0 { 8 } else { rails });
    match peers.saturating_mul(rails).saturating_mul(2) {
        lanes if lanes > 16_384 && peers <= 16_384 => 16_384,
        lanes if lanes > 65_534 => 65_534,
        lanes => lanes,
    }
}

/// The default of `max_pools`: two for each peer.
#[must_use]
pub const fn pools(peers: usize) -> usize {
    peers.saturating_mul(2)
}

/// The default of `max_regions`: those of the pools, whose pages have `of_page` regions at most,
/// and their tables.
#[must_use]
pub const fn regions(pools: usize, of_page: usize) -> usize {
    match pools.saturating_mul(of_page + 1) {
        0 => 1,
        regions if regions > 65_535 => 65_535,
        regions => regions,
    }
}

/// The most regions of a page, of several layouts.
#[must_use]
pub const fn most_regions(layouts: &[u32]) -> usize {
    let (mut most, mut i) = (1, 0);
    while i < layouts.len() {
        most = if layouts[i] > most { layouts[i] } else { most };
        i += 1;
    }
    most as usize
}

/// The most pages of one submitter's batches that are told before their batch is done: all pages of
/// all batches, but no more than this number where one batch does not have as many. It keeps a
/// mailbox to some hundreds of KiB, which take memory only as far as they are used.
const EARLY_PAGES: usize = 1024;

/// Places for outcomes in a mailbox of `mail` places for orders: as many, and the pages that are
/// told before their batch is done, a power of two.
#[must_use]
pub const fn news(mail: usize, submitters: usize, batches: usize, batch: usize) -> usize {
    let pages = match batches.saturating_mul(batch) {
        all if all < EARLY_PAGES => all,
        _ if batch > EARLY_PAGES => batch,
        _ => EARLY_PAGES,
    };
    // Numbers that are too large have checks of their own, which report them.
    if submitters == 0 || batches > 16_384 || batch > 65_535 {
        mail
    } else {
        (mail + pages).next_power_of_two()
    }
}

/// Places in a mailbox: two for each batch, a power of two.
#[must_use]
pub const fn mail(submitters: usize, batches: usize) -> usize {
    if submitters == 0 || batches > 16_384 { 2 } else { (2 * batches).next_power_of_two() }
}
