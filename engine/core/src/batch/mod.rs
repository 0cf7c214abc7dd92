//! Pages read together: batches that are being filled, in flight, and done.
//!
//! | file | what |
//! |---|---|
//! | `batch.rs` | a batch that is being filled |
//! | `shape.rs` | whether a page may join a batch, and whether it is like the page before |
//! | `done.rs` | a batch that is done: its results and slots |
//! | `groups.rs` | pages that share a slot or are joined, and so have one result |
//! | `pool.rs` | the buffers behind batches, which change owners across threads |
//! | `in_flight.rs` | which batches the engine has, which are late, which are done |
//! | `planned.rs` | pages that land by a plan, share a slot or are joined |
//! | `rows.rs` | rows of pages that land one behind the other |
//! | `row_sets.rs` | rows of many pages that join in one call, with one slot |
//! | `many.rs` | many pages that join in one call, with consecutive slots |
//! | `ranges.rs` | ranges of the slots of consecutive pages |
//! | `landing.rs` | the memory that validating READs write into |

#[allow(clippy::module_inception, reason = "the file of the type Batch")]
mod batch;
mod done;
pub(crate) mod groups;
pub(crate) mod in_flight;
pub(crate) mod landing;
mod many;
mod planned;
pub(crate) mod pool;
mod ranges;
mod row_sets;
mod rows;
mod shape;

pub use self::batch::Batch;
pub use self::done::{Done, DonePage, DoneRange};
pub use self::many::RejectedPages;
pub use crate::class::Class;
pub use crate::id::Ticket;
