//! KV-cache pages by key: who has a page, and how it is pulled without ever getting a wrong one.
//!
//! # The parts
//!
//! | module | what |
//! |---|---|
//! | [`key`] | a page's key, and the [`KeySpace`] that keeps models, layouts and ranks apart |
//! | [`record`] | where a page is, as a directory says it: 48 bytes, never trusted |
//! | [`directory`] | who has which page: one trait, several kinds |
//! | [`metrics`] | what a node counts of its own work |

#[cfg(feature = "config")]
pub mod config;
pub mod directory;
pub mod key;
pub mod metrics;
pub mod record;

pub use directory::{Directory, DirectoryError, Found, Owner, Renewed};
pub use key::{Key, KeyError, KeySpace, Namespace};
pub use record::{Record, RecordError};
