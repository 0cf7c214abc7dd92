//! Rails over shared memory: one-sided READs of another process's memory on one host.
//!
//! The producer puts what it publishes into [`Segment`]s, starts an [`ShmExporter`] over them, and tells its
//! [`ShmAddress`] to whom it trusts. A reader makes a [`ShmPeer`] of the address: the segments' sealed file
//! descriptors come over a Unix socket and are mapped read-only. From then on a READ is a copy by
//! the rail's worker thread; the producer takes no part in it, as with RDMA.
//!
//! ```
//! use kvrail_core::id::{LaneId, RailIndex};
//! use kvrail_core::provider::Provider;
//! use kvrail_local::{LocalConfig, shm::{ShmExporter, ShmPeer, Segment, ShmProvider}};
//! use std::sync::Arc;
//!
//! // The producer, usually another process.
//! let segment = Arc::new(Segment::new(1 << 20)?);
//! segment.write(0, b"a page")?;
//! let exporter = ShmExporter::start(vec![Arc::clone(&segment)])?;
//!
//! // The reader.
//! let mut rails = ShmProvider::start(LocalConfig::default())?;
//! let peer = ShmPeer::connect(exporter.address())?;
//! let lane = rails.open(LaneId::new(0, 1), RailIndex(0), peer.clone())?;
//! assert_eq!(peer.regions()[0].base, segment.addr());
//! # drop(lane);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a READ names
//!
//! The remote address is the producer's own: the segment's base plus an offset. The rkey is the
//! segment's number, the same on every rail. [`ShmExporter::regions`] tells both; they are what goes into a
//! region offer. The worker checks every READ against them and completes one that strays with
//! `REM_ACCESS_ERR`.
//!
//! # When the producer dies
//!
//! The connection that the descriptors came over stays open as a sign of life. When it ends, by a
//! kill, an exit or the [`ShmExporter`]'s drop, READs of all lanes to that producer complete with
//! `RETRY_EXC_ERR`, later ones are flushed, and so it goes on until a new [`ShmPeer`] is made. The
//! memory stays mapped as long as a lane has it, so a READ that is under way ends well. No child of
//! a fork can keep the connection open: it is in a descriptor table of the exporter's thread (Linux
//! 5.9, or where `unshare` is allowed; otherwise a warning is logged, and such a child does keep
//! it).
//!
//! # Trust
//!
//! The address holds two secrets: the reader shows one, the producer answers with the other. Whoever
//! has the address can read the segments, and keep what was mapped. Nobody but the owner can write to
//! a segment, and no producer can kill a reader by shrinking one: the seals are checked first.

mod address;
mod copy;
mod exporter;
mod hello;
mod peer;
mod serve;

pub use address::ShmAddress;
pub use copy::{AROUND_THE_CACHE, copy_bytes};
pub use exporter::{ShmExportError, ShmExporter};
pub use hello::MAX_SEGMENTS;
pub use kvrail_host::segment::{OutOfSegment, Segment, SegmentError};
pub use peer::{ShmConnectError, ShmPeer};
pub use serve::MAX_READERS;

use crate::provider::LocalProvider;

/// A provider of rails over shared memory.
pub type ShmProvider = LocalProvider<ShmPeer>;
