//! The machine, and what this process may have of it: memory, processor time, addresses, devices.

pub(crate) mod addresses;
pub(crate) mod carries;
pub(crate) mod cgroup;
pub(crate) mod counters;
pub(crate) mod diagnosis;
pub(crate) mod environment;
pub(crate) mod fact;
pub(crate) mod memory;
pub(crate) mod peer;
pub(crate) mod placement;
pub(crate) mod redis_server;
pub(crate) mod source;

/// The files of the reference machine, for tests.
#[cfg(test)]
#[path = "../../tests/env/tree.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
pub(crate) mod tree;
