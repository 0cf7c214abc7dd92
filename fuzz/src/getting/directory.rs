//! A directory that answers with any records, errors, or too little.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

/// What it answers.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The records of each key, which need not be the key's.
    pub(super) answers: HashMap<KeyTag, Vec<Record>>,
    /// Keys for which it answers with an error.
    pub(super) failing: Vec<KeyTag>,
    /// It answers for fewer keys than it was asked for.
    pub(super) short: bool,
    pub(super) owners: HashMap<Epoch, Owner>,
    /// The question for owners fails.
    pub(super) owners_fail: bool,
}

/// The directory.
#[derive(Debug, Default)]
pub(super) struct Scripted(pub(super) Mutex<Script>);

impl Scripted {
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        change(&mut self.0.lock().expect("no thread panics while it has the script"))
    }
}

fn refused() -> DirectoryError {
    DirectoryError::Refused { directory: "scripted".into(), why: "the input says so".into() }
}

impl Directory for Scripted {
    fn look_up(&self, tags: &[KeyTag], _: Instant, found: &mut Found) {
        self.change(|script| {
            let answered = if script.short { tags.len() / 2 } else { tags.len() };
            found.reset(answered);
            for (at, tag) in tags[..answered].iter().enumerate() {
                if script.failing.contains(tag) {
                    found.not_answered([at], refused());
                } else {
                    let records = script.answers.get(tag).cloned().unwrap_or_default();
                    found.answer(at, *tag, records);
                }
            }
        });
    }

    fn owners(&self, epochs: &[Epoch], _: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.change(|script| {
            if script.owners_fail {
                return Err(refused());
            }
            Ok(epochs.iter().map(|epoch| script.owners.get(epoch).cloned()).collect())
        })
    }

    fn announce(&self, owner: &Owner, _: &[Record], _: Instant) -> Result<(), DirectoryError> {
        self.change(|script| script.owners.insert(owner.epoch, owner.clone()));
        Ok(())
    }

    fn withdraw(&self, _: &[Record], _: Instant) -> Result<(), DirectoryError> {
        Ok(())
    }

    fn renew(&self, _: &Owner, _: Instant) -> Result<Renewed, DirectoryError> {
        Ok(Renewed::Kept)
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}
