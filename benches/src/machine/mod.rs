//! The machine, and what this process may have of it: memory, processor time, addresses, devices.

pub(crate) mod addresses;
pub(crate) mod cgroup;
pub(crate) mod diagnosis;
pub(crate) mod environment;
pub(crate) mod fact;
pub(crate) mod memory;
pub(crate) mod redis_server;
pub(crate) mod source;
