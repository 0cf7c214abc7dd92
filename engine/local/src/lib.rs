//! Rails on one host, for [`kvrail_core`]'s engine: no NIC needed.
//!
//! - [`shm`]: one-sided READs of another process's memory. Two rails move a few per cent less than
//!   two threads of `memcpy` do.
//! - [`tcp`]: a functional stand-in, for machines that share nothing but a network. It behaves like
//!   a rail, but its speed says nothing about the speed of a rail.
//!
//! # The two ends
//!
//! Both transports have the same shape, and all of their public items are these:
//!
//! | | [`shm`] | [`tcp`] |
//! |---|---|---|
//! | the producer publishes | [`ShmExporter`] | [`TcpServer`] |
//! | memory, until it is dropped | [`ShmExport`] | [`TcpExported`] |
//! | its address: 64 bytes that the peers' session carries | [`ShmAddress`] | [`TcpAddress`] |
//! | the memory, as READs name it | [`ExportedRegion`] | [`ExportedRegion`] |
//! | the reader reaches it, on a thread that may block | [`ShmPeer`] | [`TcpConnection`] |
//! | the reader's rails, which its engine owns | [`ShmProvider`] | [`TcpProvider`] |
//!
//! [`ShmExporter`]: shm::ShmExporter
//! [`TcpServer`]: tcp::TcpServer
//! [`ShmExport`]: shm::ShmExport
//! [`TcpExported`]: tcp::TcpExported
//! [`ShmAddress`]: shm::ShmAddress
//! [`TcpAddress`]: tcp::TcpAddress
//! [`ShmPeer`]: shm::ShmPeer
//! [`TcpConnection`]: tcp::TcpConnection
//! [`ShmProvider`]: shm::ShmProvider
//! [`TcpProvider`]: tcp::TcpProvider
//!
//! `ShmPeer` and `TcpConnection` are what a provider opens as a lane: `Provider::Unopened`. A
//! producer's end of a lane needs no exchange beyond the address, so the producer does nothing when
//! a lane is made.
//!
//! # The provider
//!
//! Both providers are a [`LocalProvider`] over a [`LaneTransport`]: one worker thread per rail
//! does a NIC's work. It takes READs from one wait-free ring and puts completions into another, in
//! order; a lane behaves as a QP does, in the error state too. The engine's thread takes no lock,
//! and enters the kernel only to wake a worker that sleeps, or to sleep itself.

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod hello;
mod provider;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
pub mod shm;
#[cfg(not(loom))]
pub mod tcp;

#[cfg(not(loom))]
pub use address::LocalAddressError;
#[cfg(not(loom))]
pub use provider::{
    LaneTransport, LocalConfig, LocalLane, LocalOpenError, LocalPost, LocalProvider, LocalStartError,
    LocalWaker, MAX_CQ_ENTRIES,
};
#[cfg(not(loom))]
pub use region::{ExportedRegion, MAX_EXPORTS};
#[cfg(not(loom))]
pub use shm::{AROUND_THE_CACHE, copy_bytes};
