//! Registered memory.
//!
//! Published memory is registered for remote READ and nothing else, destination memory for local
//! write and nothing else. Huge pages need no flag: a driver finds them in the page table, and a
//! region in 2 MiB pages needs 512 times fewer entries of the NIC's own table.

pub(crate) mod access;
mod length;
pub(crate) mod locked;
mod region;

pub use access::Rights;
pub use region::VerbsRegion;
