//! RDMA devices: how they are listed and opened, what they can do, and which addresses their ports
//! have.

pub(crate) mod context;
pub(crate) mod driver;
mod fork;
mod interfaces;
mod list;
pub(crate) mod port;
pub(crate) mod sysfs;

pub use driver::Driver;
pub use fork::{ForkSafety, fork_safety};
pub use kvrail_host::gid;
pub use list::devices;
