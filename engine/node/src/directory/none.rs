//! No directory: the caller brings locations, and no key has an owner.

use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;

use super::{Directory, DirectoryError, Found, Owner, Renewed};
use crate::record::Record;

/// The directory of a node whose caller brings the locations of pages. Every look-up is answered
/// with no owner, and what is announced is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDirectory;

impl Directory for NoDirectory {
    fn look_up(&self, tags: &[KeyTag], _: Instant, found: &mut Found) {
        found.reset(tags.len());
        for (key, &tag) in tags.iter().enumerate() {
            found.answer(key, tag, []);
        }
    }

    fn owners(&self, epochs: &[Epoch], _: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        Ok(vec![None; epochs.len()])
    }

    fn announce(&self, _: &Owner, _: &[Record], _: Instant) -> Result<(), DirectoryError> {
        Ok(())
    }

    fn withdraw(&self, _: &[Record], _: Instant) -> Result<(), DirectoryError> {
        Ok(())
    }

    fn renew(&self, _: &Owner, _: Instant) -> Result<Renewed, DirectoryError> {
        Ok(Renewed::Kept)
    }

    fn lease(&self) -> Duration {
        // Nothing expires, so an owner need not renew often.
        Duration::from_secs(3600)
    }

    fn describe(&self) -> String {
        "none: the caller brings locations".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_up_is_answered_with_no_owner() {
        let (directory, mut found) = (NoDirectory, Found::default());
        directory.look_up(&[KeyTag(1), KeyTag(2)], Instant::now(), &mut found);
        assert_eq!(found.len(), 2);
        assert!((0..2).all(|key| found.records(key).unwrap().is_empty()));
        let epoch = Epoch(std::num::NonZeroU64::MIN);
        assert_eq!(directory.owners(&[epoch; 3], Instant::now()).unwrap(), vec![None; 3]);
        assert_eq!(directory.withdraw(&[], Instant::now()).ok(), Some(()));
    }
}
