//! The exports of an exporter, which its thread describes to readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wire::{Ask, BATCH, Description, Reach};
use crate::region::{ExportedRegion, MAX_EXPORTS, Rkeys};

/// The table, which the exporter, its exports and its thread share. It owns no descriptor: the
/// thread has a descriptor table of its own.
#[derive(Clone, Debug)]
pub(super) struct SharedTable(Arc<Mutex<Table>>);

#[derive(Debug)]
pub(super) struct Table {
    rkeys: Rkeys,
    exports: BTreeMap<u32, Description>,
    /// Slots that withdrawn exports have given back.
    free: Vec<u32>,
    /// The first slot that no export has had.
    unused: u32,
}

/// Why there is no place for an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// There are [`MAX_EXPORTS`] already.
    Full,
    /// All rkeys have been given out.
    NoRkey,
}

impl SharedTable {
    pub(super) fn new() -> Self {
        let (exports, free) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(Table { rkeys: Rkeys::new(), exports, free, unused: 0 })))
    }

    /// The table. While the guard lives, nothing is exported and nothing withdrawn.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is complete, even where a thread has panicked later on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Finds room for an export, and does not enter it yet.
    pub(super) fn reserve(
        &mut self,
        base: u64,
        len: u64,
        reach: Reach,
    ) -> Result<Option<Description>, NoPlace> {
        if self.exports.len() >= MAX_EXPORTS {
            return Err(NoPlace::Full);
        }
        let rkey = self.rkeys.give().ok_or(NoPlace::NoRkey)?;
        let Some(region) = ExportedRegion::new(base, len, rkey) else { return Ok(None) };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.unused += 1;
            self.unused - 1
        });
        Ok(Some(Description { region, slot, reach }))
    }

    /// Enters an export for which there is room: from now on readers learn of it.
    pub(super) fn enter(&mut self, export: Description) {
        self.exports.insert(export.region.rkey, export);
    }

    /// Removes an export, and says whether it was there: from now on no reader learns of it.
    pub(super) fn remove(&mut self, export: &Description) -> bool {
        let removed = self.exports.remove(&export.region.rkey).is_some();
        if removed {
            self.free.push(export.slot);
        }
        removed
    }

    /// Removes all exports.
    pub(super) fn remove_all(&mut self) -> BTreeMap<u32, Description> {
        let all = std::mem::take(&mut self.exports);
        self.free.extend(all.values().map(|export| export.slot));
        all
    }

    /// What there is to answer.
    pub(super) fn answer(&self, ask: Ask) -> Vec<Description> {
        match ask {
            Ask::One(rkey) => self.exports.get(&rkey).copied().into_iter().collect(),
            Ask::From(rkey) => self.exports.range(rkey..).take(BATCH).map(|(_, export)| *export).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(table: &mut Table) -> Description {
        let export = table.reserve(4096, 1, Reach::Process).unwrap().unwrap();
        table.enter(export);
        export
    }

    #[test]
    fn a_slot_is_used_again_and_an_rkey_is_not() {
        let shared = SharedTable::new();
        let mut table = shared.lock();
        let first = export(&mut table);
        let second = export(&mut table);
        assert!(table.remove(&first) && !table.remove(&first));
        let third = export(&mut table);
        let fourth = export(&mut table);
        assert_eq!((third.slot, fourth.slot), (first.slot, second.slot + 1));
        assert_eq!(
            [first, second, third, fourth].map(|e| e.region.rkey),
            [1, 2, 3, 4],
            "no rkey is used twice"
        );
        assert_eq!(table.answer(Ask::One(1)), []);
        assert_eq!(table.answer(Ask::From(0)), [second, third, fourth]);
    }

    #[test]
    fn a_full_table_has_room_again_after_a_withdrawal() {
        let shared = SharedTable::new();
        let mut table = shared.lock();
        let all: Vec<_> = (0..MAX_EXPORTS).map(|_| export(&mut table)).collect();
        assert_eq!(table.reserve(4096, 1, Reach::Process), Err(NoPlace::Full));
        assert!(table.remove(&all[77]));
        assert_eq!(export(&mut table).slot, all[77].slot);
        let mut slots: Vec<_> = table.exports.values().map(|e| e.slot as usize).collect();
        slots.sort_unstable();
        assert!(slots.into_iter().eq(0..MAX_EXPORTS));
    }

    #[test]
    fn an_impossible_range_gets_no_slot() {
        let shared = SharedTable::new();
        let mut table = shared.lock();
        for (base, len) in [(4096, 0), (u64::MAX, 2)] {
            assert_eq!(table.reserve(base, len, Reach::Process), Ok(None));
        }
        assert_eq!(export(&mut table).slot, 0);
    }
}
