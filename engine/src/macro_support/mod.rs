//! Support for the code that [`engine!`](crate::engine) writes. It is no part of the interface: it
//! changes with the macro.

mod checks;
mod declaration;
#[cfg(feature = "std")]
pub(crate) mod declared_reader;
#[cfg(feature = "std")]
mod start;

pub use self::checks::{
    accept_batch, accept_batches, accept_chunk, accept_cq, accept_deadline, accept_depth, accept_lanes,
    accept_page, accept_peers, accept_plan, accept_plan_of, accept_plans, accept_rail_bytes, accept_rail_wrs,
    accept_rails, accept_range, accept_regions, accept_submitters,
};
pub use self::declaration::{MAX_SUBMITTERS, Maxima, lanes, mail, most_regions, news, pools, regions};
#[cfg(feature = "std")]
pub use self::declared_reader::{Declared, DeclaredPage};
#[cfg(feature = "std")]
pub use self::start::{end, start, start_in};
pub use crate::bare::config as bare_config;
#[cfg(feature = "std")]
pub use crate::reader::state::{Room, State};
pub use kvrail_core::plan::MAX_PLANS;
