//! Rails over shared memory: one-sided READs of another process's memory on one host.
//!
//! The producer puts its pages into [`Segment`]s, starts an [`ShmExporter`] over them, and sends
//! its [`ShmAddress`] to readers that it trusts. A reader connects an [`ShmPeer`] to the address:
//! it gets the segments' sealed file descriptors over a Unix socket and maps them read-only. From
//! then on a READ is a copy by the rail's worker thread; the producer takes no part in it, as with
//! RDMA.
//!
//! ```
//! use kvrail_core::id::{LaneId, RailIndex};
//! use kvrail_core::provider::Provider;
//! use kvrail_local::{LocalConfig, shm::{ExportedMemory, Segment, ShmExporter, ShmPeer, ShmProvider}};
//! use std::sync::Arc;
//!
//! // The producer, usually another process.
//! let segment = Arc::new(Segment::new(1 << 20)?);
//! segment.write(0, b"a page")?;
//! let exporter = ShmExporter::start()?;
//! let export = exporter.export(ExportedMemory::segment(Arc::clone(&segment)))?;
//!
//! // The reader.
//! let mut rails = ShmProvider::start(LocalConfig::default())?;
//! let peer = ShmPeer::connect(exporter.address())?;
//! let lane = rails.open(LaneId::new(0, 1), RailIndex(0), peer.clone())?;
//! assert_eq!(peer.regions(), [export.region()]);
//! # drop(lane);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a READ names
//!
//! The remote address is an address of the producer: the segment's base plus an offset. The rkey is
//! the segment's number, the same on every rail. [`ShmExporter::regions`] returns both, and a
//! region offer carries them to readers. The worker checks every READ against them, and completes a
//! READ outside a segment with `REM_ACCESS_ERR`.
//!
//! # When the producer dies
//!
//! The connection over which the descriptors came stays open as a sign of life. It ends when the
//! producer is killed or exits, or drops its [`ShmExporter`]. From then on a READ of a lane to that
//! producer completes with `RETRY_EXC_ERR`, and the lane's later READs are flushed; a new
//! [`ShmPeer`] to the new producer ends that. The memory stays mapped as long as a lane uses it, so
//! a READ that is being carried out ends well.
//!
//! No child of a fork keeps the connection open, because the connection is in a descriptor table of
//! the exporter's thread. That takes Linux 5.9, or a system that allows `unshare`; elsewhere a
//! warning is logged, and such a child does keep it open.
//!
//! # Trust
//!
//! The address holds two secrets: the reader shows one, the producer answers with the other. A
//! process that has the address can read the segments, and can keep them mapped. Only the owner can
//! write to a segment, and no producer can kill a reader by shrinking a segment: the reader checks
//! the seals first.

mod address;
mod board;
mod connect;
mod copy;
mod export;
mod exporter;
mod live;
mod packet;
mod peer;
mod process;
mod serve;
mod table;
mod wire;

pub use address::ShmAddress;
pub use connect::ShmConnectError;
pub use copy::{AROUND_THE_CACHE, copy_bytes};
pub use export::{ShmExport, ShmExportError};
pub use exporter::{ShmExporter, ShmStartError};
pub use kvrail_host::exported::{Backing, ExportedMemory};
pub use kvrail_host::segment::{OutOfSegment, Segment, SegmentError};
pub use peer::ShmPeer;
pub use serve::MAX_READERS;

use crate::provider::LocalProvider;

/// A provider of rails over shared memory.
pub type ShmProvider = LocalProvider<ShmPeer>;
