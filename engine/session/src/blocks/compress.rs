//! Pages into the runs that take the fewest bytes.
//!
//! A run has three columns, each even or listed: eight kinds of run. Page by page, the cheapest way
//! to end in a run of each kind is worked out from that of the page before, either going on with
//! the run or beginning one. What lets a run go on is where its last two pages left off, so a run
//! of one page, which any page may follow, is told from a longer one.

use std::num::NonZeroU32;

use kvrail_core::remote::Location;

use super::run::{Column, RUN, Run};
use super::wire;

/// Kinds of runs: a bit for each column that is listed.
const KINDS: usize = 8;

/// The cheapest way to a page: its cost in bytes, and how long the run is that ends with the page.
#[derive(Clone, Copy)]
struct Way {
    bytes: usize,
    len: u32,
}

const NO_WAY: Way = Way { bytes: usize::MAX / 2, len: 0 };

pub(super) fn runs(pages: &[Location]) -> Vec<Run> {
    // Of each page and kind: the way that begins a run with the page, and the way that goes on with
    // one.
    let mut begun = vec![[NO_WAY; KINDS]; pages.len()];
    let mut gone_on = vec![[NO_WAY; KINDS]; pages.len()];
    let mut before = 0;
    for i in 0..pages.len() {
        for kind in 0..KINDS {
            let each = page_bytes(kind);
            begun[i][kind] = Way { bytes: before + RUN + each, len: 1 };
            if i > 0 && goes_on(&pages[..=i], kind, false) {
                gone_on[i][kind] = longer(begun[i - 1][kind], each);
            }
            if i > 1 && goes_on(&pages[..=i], kind, true) {
                let way = longer(gone_on[i - 1][kind], each);
                if way.bytes < gone_on[i][kind].bytes {
                    gone_on[i][kind] = way;
                }
            }
        }
        before = best(&begun[i], &gone_on[i]).1.bytes;
    }
    let mut runs = Vec::new();
    let mut end = pages.len();
    while end > 0 {
        let (kind, way) = best(&begun[end - 1], &gone_on[end - 1]);
        let start = end - way.len as usize;
        runs.push(run(&pages[start..end], kind));
        end = start;
    }
    runs.reverse();
    runs
}

fn longer(way: Way, each: usize) -> Way {
    Way { bytes: way.bytes + each, len: way.len + 1 }
}

fn page_bytes(kind: usize) -> usize {
    let listed = |bit: u8, bytes| if kind & usize::from(bit) != 0 { bytes } else { 0 };
    listed(wire::SLOTS, 4) + listed(wire::GENERATIONS, 8) + listed(wire::TAGS, 8)
}

/// The cheapest of all ways to a page, the first of equals.
fn best(begun: &[Way; KINDS], gone_on: &[Way; KINDS]) -> (usize, Way) {
    let ways = begun.iter().chain(gone_on).copied().enumerate();
    let (at, way) = ways.min_by_key(|(_, way)| way.bytes).unwrap_or((0, NO_WAY));
    (at % KINDS, way)
}

/// Whether the last of `pages` can go on with a run of this kind; `steady` if the run has a step
/// already, by the two pages before it.
fn goes_on(pages: &[Location], kind: usize, steady: bool) -> bool {
    let even = |bit: u8| kind & usize::from(bit) == 0;
    let [.., a, b] = pages else { return false };
    if even(wire::GENERATIONS) && a.expected.generation != b.expected.generation {
        return false;
    }
    if even(wire::SLOTS) && i32::try_from(i64::from(b.slot) - i64::from(a.slot)).is_err() {
        return false;
    }
    let ([.., first, _, _], true) = (pages, steady) else { return true };
    // Slots are 32 bits: their differences are exact in 64, so an even run never wraps.
    let steps = |of: fn(&Location) -> i64| (of(a) - of(first), of(b) - of(a));
    let (x, y) = steps(|page| i64::from(page.slot));
    let tag = |page: &Location| page.expected.tag.0;
    (!even(wire::SLOTS) || x == y)
        && (!even(wire::TAGS) || tag(a).wrapping_sub(tag(first)) == tag(b).wrapping_sub(tag(a)))
}

fn run(pages: &[Location], kind: usize) -> Run {
    let listed = |bit: u8| kind & usize::from(bit) != 0;
    let second = pages.get(1).unwrap_or(&pages[0]);
    let wide = |bit: u8, of: fn(&Location) -> u64| {
        if listed(bit) {
            Column::Listed(pages.iter().map(of).collect())
        } else {
            Column::Even(of(&pages[0]), of(second).wrapping_sub(of(&pages[0])))
        }
    };
    Run {
        // At most BlockList::MAX_BLOCKS, and a run has a page.
        count: NonZeroU32::new(pages.len() as u32).unwrap_or(NonZeroU32::MIN),
        slots: if listed(wire::SLOTS) {
            Column::Listed(pages.iter().map(|page| page.slot).collect())
        } else {
            Column::Even(pages[0].slot, second.slot.wrapping_sub(pages[0].slot))
        },
        generations: wide(wire::GENERATIONS, |page| page.expected.generation.0),
        tags: wide(wire::TAGS, |page| page.expected.tag.0),
    }
}
