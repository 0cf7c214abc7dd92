//! A list of CPUs or of NUMA nodes, in a report.

use std::fmt;
use std::ops::Deref;

use kvrail_host::numa::NumberList;
use serde::{Serialize, Serializer};

/// A list that is written as the kernel writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) NumberList);

impl Numbers {
    /// Parses a list; an empty text is an empty list. `None`: the text is no list.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        NumberList::parse(text).map(Self)
    }
}

impl Deref for Numbers {
    type Target = NumberList;

    fn deref(&self) -> &NumberList {
        &self.0
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
