//! What this process may have of its machine: memory, processor time, addresses.

pub(crate) mod addresses;
pub(crate) mod cgroup;
pub(crate) mod memory;
pub(crate) mod redis_server;
