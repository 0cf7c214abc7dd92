//! Pages of a batch that have one result together: those that share a slot, and those that are
//! joined.
//!
//! A *group* is a page that is neither a view of an earlier page's slot nor joined to the page
//! before, with the pages behind it that are, or that belong to a set of rows that it begins. A
//! page of its own is a group of one. Once a group is
//! [settled](settle_group), the marks that made it one are gone: its slots are the user's again,
//! and each result is that of the whole group.

use core::ops::Range;

use crate::memory::slot::Slot;
use crate::page::{Claim, Page, Phase};

/// Whether a page belongs to the group of the page before. A slot that was taken before the batch
/// was done is no other page's: its group has been settled.
fn goes_on(page: &Page) -> bool {
    page.phase == Phase::InSet
        || page.slot.as_ref().is_some_and(|slot| slot.shares().is_some() || slot.is_joined())
}

/// The group of the page at `at`, if all pages of it are retired. It looks at the pages behind
/// first: pages arrive in their order mostly, so the look ends at the next page unless this one is
/// the last of its group.
pub(crate) fn retired_group(pages: &[Page], at: usize) -> Option<Range<usize>> {
    let mut end = at + 1;
    while pages.get(end).is_some_and(goes_on) {
        if !pages[end].is_retired() {
            return None;
        }
        end += 1;
    }
    let mut begin = at;
    while begin > 0 && goes_on(&pages[begin]) {
        begin -= 1;
        if !pages[begin].is_retired() {
            return None;
        }
    }
    Some(begin..end)
}

/// Prepares the slots of a group, whose pages have their results, for the user: removes marks and
/// views, and makes the results `Ok` only if every page of the group has arrived.
pub(crate) fn settle_group(group: &mut [Page]) {
    let error = group.iter().find_map(|page| page.result().err());
    for page in group {
        // A view has no slot afterwards: its page keeps the result that it has. A page of a set has
        // the result of the set.
        page.slot = page.slot.take().and_then(Slot::unmark);
        let in_set = page.phase == Phase::InSet;
        if in_set {
            page.phase = Phase::Arrived;
        }
        if let Some(error) = error
            && (in_set || page.slot.is_some())
            && page.result().is_ok()
        {
            page.phase = Phase::Lost;
            page.claim = Claim::Failed(error);
        }
    }
}

/// Settles the groups of a done batch that have not been settled.
#[cold]
pub(super) fn settle(pages: &mut [Page]) {
    let mut first = 0;
    while first < pages.len() {
        let behind = pages[first + 1..].iter().take_while(|page| goes_on(page)).count();
        settle_group(&mut pages[first..=first + behind]);
        first += 1 + behind;
    }
}

/// Prepares the slots of a done batch for the user, whose pages have all arrived and of which none
/// shares a slot but in sets of rows.
pub(super) fn clear_sets(pages: &mut [Page]) {
    let mut first = 0;
    while let Some(page) = pages.get_mut(first) {
        let begins_set = page.begins_set();
        if let Some(slot) = &mut page.slot {
            slot.clear_marks();
        }
        // A slot that was taken before has no marks, and the pages of its set have no slot.
        first += if begins_set { usize::from(pages[first + 1].seg_done) } else { 1 };
    }
}
