//! What kvrail's crates need of a Linux host, in one place.
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | one monotonic clock for all processes of a host |
//! | [`memory`] | zeroed memory in huge pages, to read into |
//! | [`segment`] | memory that other processes can read and never write |
//! | [`exported`] | memory that a producer lets peers read, its own or foreign |
//! | [`wake`] | how a thread that sleeps in poll(2) is woken |
//! | [`accept`] | the loop that accepts connections |
//! | [`listener`] | a TCP listener that no child of a fork inherits |
//! | [`pieces`] | memory that is registered piece by piece, several at a time |
//! | [`handshakes`] | a bound on connections that have not authenticated yet |
//! | [`reactor`] | one thread that serves many TCP connections |
//! | [`workers`] | a bounded number of threads for jobs that may block |
//! | [`descriptors`] | threads with a descriptor table of their own |
//! | [`ring`] | a wait-free ring between two threads |
//! | [`secret`] | random bytes, and secrets that compare in constant time |
//! | [`gid`] | the choice of an RDMA port's address among those of its GID table |
//! | [`numa`] | the NUMA nodes on which a thread may run, and memory of one of them |
//! | [`log_limit`] | a rate limit for log lines that a remote side can cause |
//!
//! The crate knows the host and nothing of rails, sessions or pages. The choice of an address is
//! here because kvrail-bench shows it on hosts where the verbs rail is not built. Of kvrail-core
//! the crate uses the points in time, the memory ranges and the ring.

#[cfg(not(loom))]
pub mod accept;
#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
pub mod descriptors;
#[cfg(not(loom))]
pub mod exported;
#[cfg(not(loom))]
pub mod gid;
#[cfg(not(loom))]
pub mod handshakes;
#[cfg(not(loom))]
pub mod listener;
#[cfg(not(loom))]
pub mod log_limit;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
pub mod numa;
#[cfg(not(loom))]
pub mod pieces;
#[cfg(not(loom))]
pub mod reactor;
pub mod ring;
#[cfg(not(loom))]
pub mod secret;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod wake;
#[cfg(not(loom))]
pub mod workers;
