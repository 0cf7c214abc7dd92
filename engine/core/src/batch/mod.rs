//! Pages read together: batches that are being filled, in flight, and done.
//!
//! | file | what |
//! |---|---|
//! | `batch.rs` | a batch that is being filled |
//! | `shape.rs` | what pages of a batch have in common, and whether a page may join |
//! | `done.rs` | a batch that is done: results and slots |
//! | `pool.rs` | the buffers behind them, which change owners across threads |
//! | `in_flight.rs` | batches that the engine has: which, and until when |
//! | `landing.rs` | where the entries land that validate pages |

#[allow(clippy::module_inception, reason = "the file of the type Batch")]
mod batch;
mod done;
pub(crate) mod in_flight;
pub(crate) mod landing;
pub(crate) mod pool;
mod shape;

pub use self::batch::{Batch, Class};
pub use self::done::{Done, DonePage};
pub use crate::id::Ticket;
