//! What kvrail's crates need of a Linux host, in one place.
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | one monotonic clock for all processes of a host |
//! | [`memory`] | zeroed memory in huge pages, to read into |
//! | [`segment`] | memory that other processes can read and never write |
//! | [`wake`] | how a thread that sleeps in poll(2) is woken |
//! | [`accept`] | the loop that accepts connections |
//! | [`listener`] | a TCP listener that no child of a fork inherits |
//! | [`handshakes`] | a bound on connections that have not authenticated yet |
//! | [`descriptors`] | threads with a descriptor table of their own |
//! | [`secret`] | random bytes, and secrets that compare in constant time |
//! | [`log_limit`] | a rate limit for log lines that a remote side can cause |
//!
//! The crate knows the host and nothing of rails, sessions or pages. Of kvrail it uses two types of
//! kvrail-core: points in time and memory ranges.

pub mod accept;
pub mod clock;
pub mod descriptors;
pub mod handshakes;
pub mod listener;
pub mod log_limit;
mod mapping;
pub mod memory;
pub mod secret;
pub mod segment;
pub mod wake;
