//! Whether a process with registered memory may fork.
#![allow(unsafe_code, reason = "libibverbs")]

use rdma_mummy_sys as sys;

/// Whether a `fork` endangers registered memory, and what was done about it.
///
/// From Linux 5.12 on a child gets copies of pinned pages, and nothing needs to be done. On an
/// older kernel, a registered page that the parent touches after a `fork` becomes another page, and
/// the NIC writes into the old one. `ibv_fork_init`, called before the first registration, prevents
/// that, and makes registering memory slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForkSafety {
    /// The kernel copies pinned pages for the child.
    Unneeded,
    /// `ibv_fork_init` is in effect.
    Initialized,
    /// A process that forks must not have registered memory, or must call `ibv_fork_init` first.
    Unsafe,
    /// libibverbs reported a status that this version does not know.
    Unknown,
}

/// Asks libibverbs whether a fork endangers registered memory.
#[must_use]
pub fn fork_safety() -> ForkSafety {
    // SAFETY: takes nothing, and reads a static of the library.
    let status = unsafe { sys::ibv_is_fork_initialized() };
    // The header's enum, read as the number that the library returned.
    match status as u32 {
        0 => ForkSafety::Unsafe,
        1 => ForkSafety::Initialized,
        2 => ForkSafety::Unneeded,
        _ => ForkSafety::Unknown,
    }
}
