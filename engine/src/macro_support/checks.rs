//! Checks of each number of a declaration.
//!
//! The macro knows tokens and no sizes: a page may have any size, and a maximum may be a constant.
//! So the code that it writes calls these checks in constants whose tokens are the author's:
//! numbers that cannot work together are a compile error on the number that should change.

use kvrail_core::config::EngineConfig;
use kvrail_core::plan::MAX_PLANS;
use kvrail_layouts::plan::{CutError, Limits, Plan};
use kvrail_layouts::{Fingerprint, Geometry, Text};

use super::declaration::{MAX_SUBMITTERS, Maxima, small};

/// Panics with a text that `Text` can write in a constant, which fails the compilation.
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

/// `page` and each of `pages`: short enough for work requests, with a length that the compiler
/// knows.
///
/// # Panics
///
/// With the property that forbids it.
#[track_caller]
pub const fn accept_page(page: &Geometry) {
    let bytes = page.page_bytes();
    if !page.is_placed() {
        say!(.str("the page has strides or distances that are known only at run time, and is as long as they make it: \
            declare it densely, or start an undeclared Reader with PageLayout::placed"));
    }
    if bytes > u32::MAX as u64 {
        say!(.str("the page has ").num(bytes).str(" bytes, more than the 4294967295 that a work request can name: declare a shorter page"));
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
        say!(.str("max_lanes is ").num(lanes).str(", max_peers ").num(peers).str(": each peer needs at least one lane"));
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
        say!(.str("max_depth is ").num(m.depth as u64).str(": it must be a power of two; say ")
            .num(more / 2).str(" or ").num(more));
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
    // If so, another number is wrong, and its own check reports it.
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
            .str(" pages, and an engine counts up to 2147483648: lower one of the two"));
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

/// `max_plans`.
///
/// # Panics
///
/// As [`accept_range`].
#[track_caller]
pub const fn accept_plans(m: &Maxima) {
    accept_range("max_plans", m.plans, 1, MAX_PLANS);
}

/// `chunk`, against page and device.
///
/// # Panics
///
/// With the two that disagree.
#[track_caller]
pub const fn accept_chunk(m: &Maxima, max_message: usize) {
    /// The most chunks of one page that the core counts.
    const MOST: usize = 1 << 19;
    let Some(chunk) = m.chunk else { return };
    if !chunk.is_power_of_two() || chunk < 4096 {
        say!(.str("chunk is ").num(chunk as u64).str(": it must be a power of two, at least 4096"));
    }
    if chunk > m.page {
        say!(.str("chunk is ").num(chunk as u64).str(", page has only ").num(m.page as u64)
            .str(": lower chunk, or leave it out"));
    }
    if chunk > max_message {
        say!(.str("chunk is ").num(chunk as u64).str(", and the longest message of the device (max_message) is ")
            .num(max_message as u64).str(": lower chunk"));
    }
    if m.chunks() > MOST {
        say!(.str("a page of ").num(m.page as u64).str(" bytes is ").num(m.chunks() as u64)
            .str(" chunks of ").num(chunk as u64).str(", and a page has at most ").num(MOST as u64).str(": raise chunk"));
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
        say!(.str("rail_bytes is ").num(bytes).str(", less than one chunk of ").num(chunk).str(": raise it, or lower chunk"));
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

/// `plan`: it reads or writes the declared page, at any rank.
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
            .hex(&to.to_bytes()).str(", and the page has ").hex(&page.to_bytes()).str(": give a plan that reads or writes this page"));
    }
}

const fn same(a: Fingerprint, b: Fingerprint) -> bool {
    u128::from_le_bytes(a.to_bytes()) == u128::from_le_bytes(b.to_bytes())
}

/// `max_sges`: enough for the plan, in chunks as declared.
///
/// # Panics
///
/// With the number of pieces that the plan needs, or the reason why it cannot be cut into work
/// requests.
#[track_caller]
pub const fn accept_plan(m: &Maxima, plan: &Plan, max_sges: usize) {
    let bytes = match m.chunk {
        Some(chunk) => small(chunk),
        None => EngineConfig::DEFAULT.chunk_bytes,
    };
    let (need, sges) = (plan.sges(), small(max_sges));
    if need > max_sges as u64 {
        say!(.str("the plan scatters one run over ").num(need).str(" pieces, max_sges is ")
            .num(max_sges as u64).str(": raise it, if the device takes more, or give a plan with fewer"));
    }
    match plan.cut(Limits { sges, bytes }) {
        // A chunk of 0 bytes has a check of its own. A plan between several regions is cut for each
        // pair of them when it is added.
        Ok(_) | Err(CutError::Limits { .. } | CutError::Regions) => {}
        Err(CutError::TooMany(wrs)) => {
            say!(.str("the plan is ").num(wrs).str(" work requests, and a page has at most 524288: raise chunk"));
        }
        Err(_) => say!(.str("the plan reaches beyond the 2^32 bytes of a page or a slot")),
    }
}
