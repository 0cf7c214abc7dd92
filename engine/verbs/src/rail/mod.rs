//! A rail: an opened port with its protection domain and its completion queue.

mod addresses;
mod affinity;
mod domain;
mod handle;
mod name;
mod open;
mod side;

pub(crate) use addresses::LocalPort;
pub use addresses::reach;
pub use affinity::Affinity;
pub use handle::Rail;
pub use name::PortName;
pub use open::{open, open_by};
pub use side::Side;
