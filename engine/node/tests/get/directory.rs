//! A directory in the test's own memory, which can lie.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

type Alter = dyn Fn(KeyTag, &mut Vec<Record>) + Send + Sync;

/// Records in the order in which they were announced. `alter` changes what is answered.
#[derive(Default)]
pub(crate) struct TestDirectory {
    state: Mutex<State>,
    alter: Mutex<Option<Box<Alter>>>,
    pub(crate) look_ups: AtomicUsize,
    pub(crate) keys: AtomicUsize,
    /// Look-ups take until their deadline, and give no answer.
    pub(crate) frozen: AtomicBool,
}

#[derive(Default)]
struct State {
    records: HashMap<KeyTag, Vec<Record>>,
    owners: HashMap<Epoch, Owner>,
}

impl TestDirectory {
    pub(crate) fn alter(&self, alter: impl Fn(KeyTag, &mut Vec<Record>) + Send + Sync + 'static) {
        *self.alter.lock().unwrap() = Some(Box::new(alter));
    }

    pub(crate) fn honest(&self) {
        *self.alter.lock().unwrap() = None;
    }

    /// Gives a key these records, whatever it had.
    pub(crate) fn set(&self, tag: KeyTag, records: &[Record]) {
        self.state.lock().unwrap().records.insert(tag, records.to_vec());
    }

    pub(crate) fn of(&self, tag: KeyTag) -> Vec<Record> {
        self.state.lock().unwrap().records.get(&tag).cloned().unwrap_or_default()
    }

    pub(crate) fn owner(&self, owner: Owner) {
        self.state.lock().unwrap().owners.insert(owner.epoch, owner);
    }

    pub(crate) fn forget_owner(&self, epoch: Epoch) {
        self.state.lock().unwrap().owners.remove(&epoch);
    }

    pub(crate) fn looked_up(&self) -> (usize, usize) {
        (self.look_ups.load(Ordering::SeqCst), self.keys.load(Ordering::SeqCst))
    }

    fn wait_if_frozen(&self, deadline: Instant) -> Result<(), DirectoryError> {
        while self.frozen.load(Ordering::SeqCst) {
            if Instant::now() >= deadline {
                return Err(DirectoryError::Deadline { directory: "test".into() });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Directory for TestDirectory {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        self.keys.fetch_add(tags.len(), Ordering::SeqCst);
        found.reset(tags.len());
        if let Err(error) = self.wait_if_frozen(deadline) {
            return found.not_answered(0..tags.len(), error);
        }
        let state = self.state.lock().unwrap();
        let alter = self.alter.lock().unwrap();
        for (at, &tag) in tags.iter().enumerate() {
            let mut records = state.records.get(&tag).cloned().unwrap_or_default();
            if let Some(alter) = &*alter {
                alter(tag, &mut records);
            }
            found.answer(at, tag, records);
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.wait_if_frozen(deadline)?;
        let state = self.state.lock().unwrap();
        Ok(epochs.iter().map(|epoch| state.owners.get(epoch).cloned()).collect())
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.wait_if_frozen(deadline)?;
        let mut state = self.state.lock().unwrap();
        state.owners.insert(owner.epoch, owner.clone());
        for record in records {
            let of_key = state.records.entry(record.tag).or_default();
            of_key.retain(|other| other.owner != record.owner);
            of_key.push(*record);
        }
        Ok(())
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.wait_if_frozen(deadline)?;
        let mut state = self.state.lock().unwrap();
        for record in records {
            if let Some(of_key) = state.records.get_mut(&record.tag) {
                of_key.retain(|other| other != record);
            }
        }
        Ok(())
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        self.wait_if_frozen(deadline)?;
        let known = self.state.lock().unwrap().owners.contains_key(&owner.epoch);
        Ok(if known { Renewed::Kept } else { Renewed::Lost })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn describe(&self) -> String {
        "test".into()
    }
}

impl std::fmt::Debug for TestDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestDirectory")
    }
}
