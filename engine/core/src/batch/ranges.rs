//! Ranges of the slots of consecutive pages.

use crate::memory::SlotRange;
use crate::page::Page;

/// Takes the slots of the first page from `from` on that has one, and of the pages behind it whose
/// slots follow. Returns the first page's position, too.
pub(super) fn next_range(pages: &mut [Page], from: usize) -> Option<(usize, SlotRange)> {
    let first = from + pages.get(from..)?.iter().position(|page| page.slot.is_some())?;
    let goes_on = |pair: &[Page]| match pair {
        [Page { slot: Some(before), .. }, Page { slot: Some(slot), .. }] => slot.follows(before),
        _ => false,
    };
    let n = 1 + pages[first..].windows(2).take_while(|pair| goes_on(pair)).count();
    let range = range_of(pages, first, n)?;
    pages[first..first + n].iter_mut().for_each(|page| page.slot = None);
    Some((first, range))
}

/// The range of the slots of `n` pages from `first` on, which follow each other.
#[inline(always)]
pub(super) fn range_of(pages: &[Page], first: usize, n: usize) -> Option<SlotRange> {
    let second = if n > 1 { pages[first + 1].slot.as_ref() } else { None };
    // A batch has fewer than 2^16 pages.
    Some(SlotRange::of(pages[first].slot.as_ref()?, second, n as u32))
}
