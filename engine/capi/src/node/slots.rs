//! Pools of the caller's memory: which page is in which slot.

use std::mem::MaybeUninit;

use kvrail_node::EnginePool;

use super::keys::Keys;
use super::open::Open;
use crate::abi::constants::KVRAIL_OK;
use crate::error::CapiError;
use crate::status;

impl Open {
    fn engine_pool(&self, pool: u32) -> Result<&EnginePool, CapiError> {
        let found = self.node().engine_pools().iter().find(|found| found.id().0 == pool);
        found.ok_or(CapiError::NoPool { pool })
    }

    /// Makes the pages in these slots misses.
    pub(crate) fn begin_slots(&self, pool: u32, slots: &[u32]) -> Result<(), CapiError> {
        let of = self.engine_pool(pool)?;
        let count = of.statistics().slots;
        if let Some(&slot) = slots.iter().find(|&&slot| slot >= count) {
            let allowed = "a slot below the pool's number of slots";
            return Err(CapiError::Value { what: "slot", value: slot.into(), allowed });
        }
        for &slot in slots {
            // Whether the key had a page does not matter: from now on it has no page.
            _ = of.withdraw_slot(slot);
        }
        Ok(())
    }

    /// Publishes the pages in these slots.
    pub(crate) fn publish_slots(
        &self,
        pool: u32,
        space: u32,
        keys: &Keys<'_>,
        slots: &[u32],
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<(), CapiError> {
        let of = self.engine_pool(pool)?;
        let space = self.space_of(space)?;
        if *of.layout() != space.layout {
            // No reader would ever get such a page.
            let (of, space) = (of.layout().to_string(), space.layout.to_string());
            return Err(CapiError::SpaceLayout { of, space });
        }
        let all = space.all_keys(keys)?;
        for ((key, &slot), place) in all.into_iter().zip(slots).zip(statuses) {
            let published = of.publish_slot(slot, key);
            place.write(published.map_or_else(|error| status::report(&error.into()), |_| KVRAIL_OK));
        }
        Ok(())
    }
}
