//! Splits pages into the runs that take the fewest bytes.
//!
//! A run has four columns, each even or listed: that makes sixteen kinds of run. For each page and
//! kind, the cheapest split of the pages so far that ends with a run of that kind is worked out
//! from the splits of the page before: the page either continues the run or begins a new one. A
//! page continues a run if it keeps the step of the run's last two pages; a run of one page has no
//! step yet, so it is kept apart from longer runs.

use std::num::NonZeroU32;

use kvrail_core::remote::Location;

use super::run::{Column, RUN, Run};
use super::wire;

/// Kinds of runs: a bit for each column that is listed.
const KINDS: usize = 16;

/// The cheapest split of the pages up to one page: its bytes, and the length of its last run.
#[derive(Clone, Copy)]
struct Split {
    bytes: usize,
    len: u32,
}

const NO_SPLIT: Split = Split { bytes: usize::MAX / 2, len: 0 };

pub(super) fn runs(pages: &[Location]) -> Vec<Run> {
    // For each page and kind: the split in which the page begins a run, and the one in which it
    // continues a run.
    let mut begun = vec![[NO_SPLIT; KINDS]; pages.len()];
    let mut continued = vec![[NO_SPLIT; KINDS]; pages.len()];
    let mut before = 0;
    for i in 0..pages.len() {
        for kind in 0..KINDS {
            let each = page_bytes(kind);
            begun[i][kind] = Split { bytes: before + RUN + each, len: 1 };
            if i > 0 && continues(&pages[..=i], kind, false) {
                continued[i][kind] = longer(begun[i - 1][kind], each);
            }
            if i > 1 && continues(&pages[..=i], kind, true) {
                let split = longer(continued[i - 1][kind], each);
                if split.bytes < continued[i][kind].bytes {
                    continued[i][kind] = split;
                }
            }
        }
        before = best(&begun[i], &continued[i]).1.bytes;
    }
    let mut runs = Vec::new();
    let mut end = pages.len();
    while end > 0 {
        let (kind, split) = best(&begun[end - 1], &continued[end - 1]);
        let start = end - split.len as usize;
        runs.push(run(&pages[start..end], kind));
        end = start;
    }
    runs.reverse();
    runs
}

fn longer(split: Split, each: usize) -> Split {
    Split { bytes: split.bytes + each, len: split.len + 1 }
}

fn page_bytes(kind: usize) -> usize {
    let listed = |bit: u8, bytes| if kind & usize::from(bit) != 0 { bytes } else { 0 };
    listed(wire::SLOTS, 4) + listed(wire::GENERATIONS, 8) + listed(wire::TAGS, 16) + listed(wire::READY, 4)
}

/// The cheapest of all splits, the first of equals.
fn best(begun: &[Split; KINDS], continued: &[Split; KINDS]) -> (usize, Split) {
    let splits = begun.iter().chain(continued).copied().enumerate();
    let (at, split) = splits.min_by_key(|(_, split)| split.bytes).unwrap_or((0, NO_SPLIT));
    (at % KINDS, split)
}

/// Whether the last of `pages` can continue a run of this kind. `steady`: the two pages before it
/// are in the run, so the run has a step already.
fn continues(pages: &[Location], kind: usize, steady: bool) -> bool {
    let even = |bit: u8| kind & usize::from(bit) == 0;
    let [.., a, b] = pages else { return false };
    if even(wire::GENERATIONS) && a.expected.generation != b.expected.generation {
        return false;
    }
    if even(wire::READY) && a.expected.ready != b.expected.ready {
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
    Run {
        // At most BlockList::MAX_BLOCKS, and a run has a page.
        count: NonZeroU32::new(pages.len() as u32).unwrap_or(NonZeroU32::MIN),
        slots: column(pages, listed(wire::SLOTS), |page| page.slot, |a, b| b.wrapping_sub(a)),
        generations: column(pages, listed(wire::GENERATIONS), |page| page.expected.generation.0, |_, _| 0),
        tags: column(pages, listed(wire::TAGS), |page| page.expected.tag.0, |a, b| b.wrapping_sub(a)),
        ready: column(pages, listed(wire::READY), |page| page.expected.ready.0, |_, _| 0),
    }
}

/// The column of these pages that `of` takes from each: listed, or its first value and the step to
/// the second.
fn column<T: Copy>(
    pages: &[Location],
    listed: bool,
    of: fn(&Location) -> T,
    step: fn(T, T) -> T,
) -> Column<T> {
    if listed {
        return Column::Listed(pages.iter().map(of).collect());
    }
    let second = pages.get(1).unwrap_or(&pages[0]);
    Column::Even(of(&pages[0]), step(of(&pages[0]), of(second)))
}
