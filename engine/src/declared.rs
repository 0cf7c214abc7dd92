//! What [`engine!`](crate::engine) expands to calls this.
//!
//! The macro knows tokens and no sizes: a page may have any, and a maximum may be a constant. So it asks here,
//! in constants whose tokens are the author's: what cannot work together is a compile error on the number
//! that should change.

use kvrail_core::config::EngineConfig as Figures;
use kvrail_layouts::Text;
use kvrail_layouts::plan::{Limits, Plan};
use kvrail_layouts::{Fingerprint, Geometry, KvLayout};

use crate::layout::PageLayout;
use crate::network::Network;
use crate::reader::{Config, MAX_SUBMITTERS, Reader, StartError, TakenStorage};
pub use crate::reader::{Room, State};

/// A type of reader that [`engine!`](crate::engine) has declared.
pub trait Declared {
    /// Room for the whole state of one.
    type State: Room;
    /// What its pages are. Their rank may be left to run time.
    const PAGE: Page;
    /// The numbers it was declared with.
    const MAXIMA: Maxima;
}

/// The page of a declaration, at any rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    name: &'static str,
    fingerprint: Fingerprint,
}

impl Page {
    /// The page `L`.
    #[must_use]
    pub const fn of<L: KvLayout>() -> Self {
        Self { name: L::NAME, fingerprint: L::GEOMETRY.identity().fingerprint_of_any_rank() }
    }
}

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
    /// A page longer than this travels as several wrs; `None` leaves it to the rails.
    pub chunk: Option<usize>,
    /// Outstanding on one rail; `None` leaves it to the rails.
    pub rail_bytes: Option<usize>,
    /// wrs outstanding on one rail; `None` leaves it to the rails.
    pub rail_wrs: Option<usize>,
    /// What a batch may take unless told otherwise, in milliseconds.
    pub deadline_ms: usize,
    /// The page, in bytes.
    pub page: usize,
}

/// Starts a declared reader, for the declared page at the rank that `layout` has.
///
/// # Errors
///
/// Other pages or more rails than declared; figures that cannot work, or that are not the declared
/// ones. The storage can be taken again.
#[allow(unsafe_code, reason = "the state that was taken is given to an engine")]
pub fn start<R: Declared, N: Network>(
    taken: TakenStorage<R::State>,
    layout: PageLayout,
    rails: N,
    config: Config,
) -> Result<Reader<N>, StartError> {
    let Page { name: declared, fingerprint: expected } = R::PAGE;
    let (given, found) = (layout.name(), layout.identity().fingerprint_of_any_rank());
    if found != expected {
        return Err(StartError::OtherPage { declared, expected, given, found });
    }
    let figures = R::MAXIMA.figures(config.engine, rails.tuning())?;
    // SAFETY: asked for once. `begin` leaves nothing behind that uses the state if it fails; if it
    // does not, `taken` is forgotten.
    let state = unsafe { taken.state() };
    let reader = Reader::begin(state, layout, rails, config, figures, R::MAXIMA.rails)?;
    taken.keep();
    Ok(reader)
}

/// Numbers fit a u32 where they have been accepted; what has not been does not compile.
const fn small(number: usize) -> u32 {
    if number > u32::MAX as usize { u32::MAX } else { number as u32 }
}

impl Maxima {
    /// The rails' figures, with what was declared in their place.
    const fn over(&self, mut figures: Figures) -> Figures {
        if let Some(chunk) = self.chunk {
            figures.chunk_bytes = small(chunk);
        }
        if let Some(bytes) = self.rail_bytes {
            figures.rail_bytes = bytes as u64;
        }
        if let Some(wrs) = self.rail_wrs {
            figures.rail_wrs = small(wrs);
        }
        figures
    }

    /// What the engine is started with: `chosen`, which must not contradict what was declared, or
    /// else `tuning` below it.
    fn figures(&self, chosen: Option<Figures>, tuning: Figures) -> Result<Figures, StartError> {
        let Some(chosen) = chosen else { return Ok(self.over(tuning)) };
        let said = [
            ("chunk", "chunk_bytes", self.chunk, u64::from(chosen.chunk_bytes)),
            ("rail_bytes", "rail_bytes", self.rail_bytes, chosen.rail_bytes),
            ("rail_wrs", "rail_wrs", self.rail_wrs, u64::from(chosen.rail_wrs)),
        ];
        for (key, figure, declared, configured) in said {
            if let Some(declared) = declared.map(|number| number as u64)
                && declared != configured
            {
                return Err(StartError::Declared { key, figure, declared, configured });
            }
        }
        let chunk_bytes = chosen.chunk_bytes;
        // Of 0 the engine itself complains.
        let chunks = self.page.div_ceil((chunk_bytes as usize).max(1));
        let (wrs, room) = (self.batch.saturating_mul(chunks), self.lanes.saturating_mul(self.depth - 1));
        if wrs > room {
            return Err(StartError::BatchTooLong { chunk_bytes, wrs: wrs as u64, room: room as u64 });
        }
        Ok(chosen)
    }

    /// wrs of one page: in declared chunks, or in those of [`Figures::DEFAULT`].
    const fn chunks(&self) -> usize {
        let chunk = match self.chunk {
            Some(chunk) => chunk,
            None => Figures::DEFAULT.chunk_bytes as usize,
        };
        if chunk == 0 { 0 } else { self.page.div_ceil(chunk) }
    }
}

/// Lanes for `peers` over `rails`, if nobody says how many: two for each rail of each peer, 16,384 at most.
#[must_use]
pub const fn lanes(peers: usize, rails: usize) -> usize {
    // Where one of them is 0, that is the mistake, and is reported there alone.
    let (peers, rails) = (if peers == 0 { 1 } else { peers }, if rails == 0 { 8 } else { rails });
    match peers.saturating_mul(rails).saturating_mul(2) {
        lanes if lanes > 16_384 && peers <= 16_384 => 16_384,
        lanes if lanes > 65_534 => 65_534,
        lanes => lanes,
    }
}

/// Regions for `peers`, if nobody says how many: two and their tables for each.
#[must_use]
pub const fn regions(peers: usize) -> usize {
    match peers.saturating_mul(4) {
        0 => 1,
        regions if regions > 65_535 => 65_535,
        regions => regions,
    }
}

/// Places in a mailbox: two for each batch, a power of two.
#[must_use]
pub const fn mail(submitters: usize, batches: usize) -> usize {
    if submitters == 0 || batches > 16_384 { 2 } else { (2 * batches).next_power_of_two() }
}

/// Fails the compilation, if there is something to say.
macro_rules! say {
    ($($text:tt)*) => { panic!("{}", Text::new()$($text)*.as_str()) };
}

/// A number from `least` to `most`.
///
/// # Panics
///
/// With the number and what it may be; in a constant, that is a compile error at the call.
#[track_caller]
pub const fn accept_range(name: &str, number: usize, least: usize, most: usize) {
    if number < least || number > most {
        let (number, least, most) = (number as u64, least as u64, most as u64);
        say!(.str(name).str(" is ").num(number).str(": it must be ").num(least).str(" to ").num(most));
    }
}

/// `page`: one range of bytes, that a work request can name, and as long as the compiler thinks.
///
/// # Panics
///
/// With what it has instead.
#[track_caller]
pub const fn accept_page(page: &Geometry) {
    let (regions, bytes) = (page.regions(), page.page_bytes());
    if !page.is_placed() {
        say!(.str("the page has strides or distances that are known only at run time, and is as long as they make it: \
            declare it densely, or start an undeclared Reader with PageLayout::placed"));
    }
    if regions != 1 {
        say!(.str("the page has ").num(regions as u64).str(" regions: a reader's pages are one range of bytes"));
    }
    if bytes > u32::MAX as u64 {
        say!(.str("the page has ").num(bytes).str(" bytes, more than a work request can name"));
    }
}

/// `max_rails`.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_rails(m: &Maxima) {
    accept_range("max_rails", m.rails, 1, kvrail_core::id::MAX_RAILS);
}

/// `max_peers`.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_peers(m: &Maxima) {
    accept_range("max_peers", m.peers, 1, 65_534);
}

/// `max_regions`: at least two for each peer, its pages and their table.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_regions(m: &Maxima) {
    accept_range("max_regions", m.regions, 1, 65_535);
    if m.regions / 2 < m.peers {
        let (regions, peers) = (m.regions as u64, m.peers as u64);
        say!(.str("max_regions is ").num(regions).str(", max_peers ").num(peers)
            .str(": each peer takes two, one for its pages and one for their table; ").num(2 * peers)
            .str(" would be enough for peers that publish one pool"));
    }
}

/// `max_lanes`: at least one for each peer.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_lanes(m: &Maxima) {
    accept_range("max_lanes", m.lanes, 1, 65_534);
    if m.lanes < m.peers {
        let (lanes, peers) = (m.lanes as u64, m.peers as u64);
        say!(.str("max_lanes is ").num(lanes).str(", max_peers ").num(peers).str(": no page comes without a lane"));
    }
}

/// `max_depth`: a power of two.
///
/// # Panics
///
/// With the powers of two next to it.
#[track_caller]
pub const fn accept_depth(m: &Maxima) {
    accept_range("max_depth", m.depth, 2, 65_536);
    if !m.depth.is_power_of_two() {
        let more = m.depth.next_power_of_two() as u64;
        say!(.str("max_depth is ").num(m.depth as u64).str(": it must be a power of two; ")
            .num(more / 2).str(" or ").num(more).str(" would be"));
    }
}

/// `max_batch`: a full batch fits the send queues.
///
/// # Panics
///
/// With the number of its wrs, and of those that the queues hold.
#[track_caller]
pub const fn accept_batch(m: &Maxima) {
    accept_range("max_batch", m.batch, 1, 65_534);
    // Another number is wrong, and is reported there.
    if m.depth < 2 || m.lanes == 0 || m.chunks() == 0 {
        return;
    }
    let wrs = m.batch.saturating_mul(m.chunks());
    // One entry of each is the drain's.
    let room = m.lanes.saturating_mul(m.depth - 1);
    if wrs > room {
        let fit = (room / m.chunks()) as u64;
        say!(.str("a batch of ").num(m.batch as u64).str(" pages of ").num(m.chunks() as u64)
            .str(" chunks is ").num(wrs as u64).str(" wrs, and all ").num(m.lanes as u64)
            .str(" lanes of depth ").num(m.depth as u64).str(" hold ").num(room as u64)
            .str(": lower max_batch to ").num(fit).str(" or raise max_depth, max_lanes or chunk"));
    }
}

/// `max_batches`.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_batches(m: &Maxima) {
    accept_range("max_batches", m.batches, 1, 16_384);
    let pages = m.batches.saturating_mul(m.batch);
    if pages > 1 << 31 {
        let (batches, batch) = (m.batches as u64, m.batch as u64);
        say!(.num(batches).str(" batches of ").num(batch).str(" pages are ").num(pages as u64)
            .str(" pages: an engine counts up to 2147483648"));
    }
}

/// `max_submitters`.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_submitters(m: &Maxima) {
    accept_range("max_submitters", m.submitters, 0, MAX_SUBMITTERS);
}

/// `chunk`, against page and device.
///
/// # Panics
///
/// With the two that disagree.
#[track_caller]
pub const fn accept_chunk(m: &Maxima, max_message: usize) {
    /// Chunks of one page that the core counts.
    const MOST: usize = 1 << 20;
    let Some(chunk) = m.chunk else { return };
    if !chunk.is_power_of_two() || chunk < 4096 {
        say!(.str("chunk is ").num(chunk as u64).str(": it must be a power of two, at least 4096"));
    }
    if chunk > m.page {
        say!(.str("chunk is ").num(chunk as u64).str(", page has only ").num(m.page as u64));
    }
    if chunk > max_message {
        say!(.str("chunk is ").num(chunk as u64).str(", and the longest message of the device ")
            .num(max_message as u64));
    }
    if m.chunks() > MOST {
        say!(.str("a page of ").num(m.page as u64).str(" bytes is ").num(m.chunks() as u64)
            .str(" chunks of ").num(chunk as u64).str(", at most ").num(MOST as u64).str(" go: raise chunk"));
    }
}

/// `rail_bytes`: at least a chunk.
///
/// # Panics
///
/// With the two that disagree.
#[track_caller]
pub const fn accept_rail_bytes(m: &Maxima) {
    let Some(bytes) = m.rail_bytes else { return };
    accept_range("rail_bytes", bytes, 1, 1 << 40);
    if let Some(chunk) = m.chunk
        && bytes < chunk
    {
        let (bytes, chunk) = (bytes as u64, chunk as u64);
        say!(.str("rail_bytes is ").num(bytes).str(", less than one chunk of ").num(chunk));
    }
}

/// `rail_wrs`.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_rail_wrs(m: &Maxima) {
    if let Some(wrs) = m.rail_wrs {
        accept_range("rail_wrs", wrs, 1, u32::MAX as usize);
    }
}

/// `deadline_ms`: up to a day.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_deadline(m: &Maxima) {
    accept_range("deadline_ms", m.deadline_ms, 1, 86_400_000);
}

/// `max_cq`: the lanes of one rail, flushed, fit its completion queue.
///
/// # Panics
///
/// With the entries that they need.
#[track_caller]
pub const fn accept_cq(m: &Maxima, max_cq: usize) {
    if m.rails == 0 {
        return;
    }
    let lanes = m.lanes.div_ceil(m.rails);
    let need = lanes.saturating_mul(m.depth);
    if need > max_cq {
        say!(.str("max_cq is ").num(max_cq as u64).str(", and ").num(lanes as u64).str(" lanes of depth ")
            .num(m.depth as u64).str(" on one rail need ").num(need as u64)
            .str(" entries: lower max_depth or max_lanes"));
    }
}

/// `plan`: it reads or writes the declared page, at whichever rank.
///
/// # Panics
///
/// With the fingerprints of both of its ends, and of the page.
#[track_caller]
pub const fn accept_plan_of(page: &Geometry, plan: &Plan) {
    let page = page.identity().fingerprint_of_any_rank();
    let (from, to) = (plan.source().fingerprint_of_any_rank(), plan.destination().fingerprint_of_any_rank());
    if !same(page, from) && !same(page, to) {
        say!(.str("the plan goes from pages with fingerprint ").hex(&from.to_bytes()).str(" to pages with ")
            .hex(&to.to_bytes()).str(", and the page has ").hex(&page.to_bytes()).str(": it is made for others"));
    }
}

const fn same(a: Fingerprint, b: Fingerprint) -> bool {
    u128::from_le_bytes(a.to_bytes()) == u128::from_le_bytes(b.to_bytes())
}

/// `max_sges`: enough for the plan, in chunks as declared.
///
/// # Panics
///
/// With what the plan needs.
#[track_caller]
pub const fn accept_plan(m: &Maxima, plan: &Plan, max_sges: usize) {
    let bytes = match m.chunk {
        Some(chunk) => small(chunk),
        None => Figures::DEFAULT.chunk_bytes,
    };
    let (need, sges) = (plan.sges(), small(max_sges));
    if need > max_sges as u64 || plan.cut(Limits { sges, bytes }).is_err() {
        say!(.str("the plan scatters one run over ").num(need).str(" pieces, max_sges is ")
            .num(max_sges as u64));
    }
}
