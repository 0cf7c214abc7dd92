//! The GET path: from keys to pages in their destinations.
//!
//! A [`GetBatch`] goes through these steps, each for those keys that the steps before have not
//! settled: the node's own pools (a copy), the cache of records, the directory (one call for all
//! remaining keys), and the owners, by one-sided READs that are validated. A page that is a miss
//! there goes on to its next owner. A key whose cached record was stale is looked up once more.
//!
//! | file | what |
//! |---|---|
//! | `batch.rs` | what callers hold: batches of keys, and handles of the polled form |
//! | `destination.rs` | memory that pages land in |
//! | `request.rs` | a batch on its way, and how it comes back |
//! | `find.rs`, `cache.rs`, `owners.rs` | where pages are |
//! | `link.rs`, `look_up_link.rs` | the queues to readers, and to the look-up thread |
//! | `read_driver/` | a reader and all that its thread does |
//! | `thread.rs`, `look_up_thread.rs` | the threads |
//! | `shared.rs`, `counters.rs` | what threads share, and what is counted |

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod counters;
pub(crate) mod destination;
pub(crate) mod find;
pub(crate) mod link;
pub(crate) mod look_up_link;
pub(crate) mod look_up_thread;
pub(crate) mod owners;
pub(crate) mod read_driver;
pub(crate) mod request;
pub(crate) mod shared;
pub(crate) mod thread;

pub use self::batch::{GetBatch, GetCounts, GetHandle, GotPage};
pub use self::counters::GetStatistics;
pub use self::destination::{Destination, Destinations};
pub use self::read_driver::ReadDriver;
