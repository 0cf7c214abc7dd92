//! Where property tests keep inputs that have failed. A failure prints the commit, too: the file
//! repeats an input only with the strategies of that commit. Tests of other crates include this
//! file.
#![allow(unreachable_pub, reason = "tests of several crates include this")]

use std::any::Any;
use std::fmt::Debug;

use proptest::test_runner::{FailurePersistence, FileFailurePersistence, PersistedSeed};

/// Keeps failed inputs in the file `path`. `sources` says what the test was built from.
pub fn at(path: &'static str, sources: fn() -> String) -> Option<Box<dyn FailurePersistence>> {
    Some(Box::new(WithCommit { file: FileFailurePersistence::Direct(path), sources }))
}

#[derive(Clone, Debug)]
struct WithCommit {
    file: FileFailurePersistence,
    sources: fn() -> String,
}

impl FailurePersistence for WithCommit {
    fn load_persisted_failures2(&self, source_file: Option<&'static str>) -> Vec<PersistedSeed> {
        self.file.load_persisted_failures2(source_file)
    }

    fn save_persisted_failure2(
        &mut self,
        source_file: Option<&'static str>,
        seed: PersistedSeed,
        shrunken_value: &dyn Debug,
    ) {
        eprintln!("a property does not hold: {}", (self.sources)());
        self.file.save_persisted_failure2(source_file, seed, shrunken_value);
    }

    fn box_clone(&self) -> Box<dyn FailurePersistence> {
        Box::new(self.clone())
    }

    fn eq(&self, other: &dyn FailurePersistence) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.file == self.file)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
