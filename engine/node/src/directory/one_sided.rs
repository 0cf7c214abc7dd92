//! Producers with small tables, of which readers read the publication tables themselves.
//!
//! No server takes part: the thread of a [`OneSidedDirectory`] reads the table of each pool
//! one-sidedly ([`Reader::published`](kvrail::Reader::published)), and gives what it has read to
//! [`OneSidedTables`], which answers look-ups from it. The tables are images: a page that was
//! published or overwritten since is a miss, as with any directory. A program that has a reader of
//! its own can feed the tables itself.
//!
//! This is for a few producers with some thousands of pages each. The sizes are capped and so is
//! how much is read in a second; [`describe`](super::Directory::describe) says the caps.

mod feeder;
mod tables;

pub use self::feeder::{OneSidedDirectory, OneSidedSource, OneSidedStartError};
pub use self::tables::{OneSidedConfig, OneSidedError, OneSidedTables, WantedTable};
