//! KV-cache pages by key: who has a page, and how it is pulled without ever getting a wrong one.
//!
//! # The parts
//!
//! | module | what |
//! |---|---|
//! | [`key`] | a page's key, and the [`KeySpace`] that keeps models, layouts and ranks apart |
//! | [`record`] | where a page is, as a directory says it: 48 bytes, never trusted |
//! | [`directory`] | who has which page: one trait, several kinds |
//! | [`pool`] | the pages that a node has, by key: put, evicted, pinned, read locally |
//! | [`node`] | what an inference engine holds: all of it in one value |
//! | [`get`] | the GET path: batches of keys, their destinations, the threads that read |
//! | [`miss`] | why a page did not come |
//! | [`hybrid`] | models whose tokens have pages in several pools |
//! | [`announce`] | tells a directory what the pools have, in the background |
//! | [`metrics`] | what a node counts of its own work |

pub mod announce;
#[cfg(feature = "config")]
pub mod config;
pub mod directory;
pub mod get;
pub mod hybrid;
pub mod key;
pub mod metrics;
pub mod miss;
pub mod node;
pub mod pool;
pub mod record;

pub use announce::{AnnounceError, Announcer, AnnouncerConfig, AnnouncerStatistics};
pub use directory::{Directory, DirectoryError, Found, Owner, Renewed};
pub use get::{
    Destination, Destinations, GetBatch, GetCounts, GetHandle, GetStatistics, GotPage, ReadDriver,
};
pub use key::{Key, KeySpace, Namespace, PageKeyError};
pub use miss::{FoundIn, GetMiss, Hit};
pub use node::{
    Node, NodeConfig, NodeError, NodeStatistics, Presence, RegisterMemoryError, UnregisterMemoryError,
};
pub use pool::{
    EnginePool, EngineSlotError, LocalRead, OpenPoolError, OverwriteGuard, PagePool, Pin, PlaceGuard,
    PoolStatistics, Published, Put, PutError, PutPlace,
};
pub use record::{Record, RecordError};
