//! A directory in this process's memory, for examples that measure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvrail::KeyTag;
use kvrail::session::Epoch;
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

/// Records in a map.
#[derive(Debug, Default)]
pub(crate) struct MapDirectory {
    state: Mutex<(HashMap<KeyTag, Record>, HashMap<Epoch, Owner>)>,
}

impl Directory for MapDirectory {
    fn look_up(&self, tags: &[KeyTag], _: Instant, found: &mut Found) {
        found.reset(tags.len());
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, &tag) in tags.iter().enumerate() {
            found.answer(at, tag, state.0.get(&tag).copied());
        }
    }

    fn owners(&self, epochs: &[Epoch], _: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(epochs.iter().map(|epoch| state.1.get(epoch).cloned()).collect())
    }

    fn announce(&self, owner: &Owner, records: &[Record], _: Instant) -> Result<(), DirectoryError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.insert(owner.epoch, owner.clone());
        state.0.extend(records.iter().map(|record| (record.tag, *record)));
        Ok(())
    }

    fn withdraw(&self, records: &[Record], _: Instant) -> Result<(), DirectoryError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            if state.0.get(&record.tag) == Some(record) {
                state.0.remove(&record.tag);
            }
        }
        Ok(())
    }

    fn renew(&self, _: &Owner, _: Instant) -> Result<Renewed, DirectoryError> {
        Ok(Renewed::Kept)
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn describe(&self) -> String {
        "a map".into()
    }
}
