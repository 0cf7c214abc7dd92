//! Rails over shared memory: one-sided READs of another process's memory on one host.
//!
//! The producer starts an [`ShmExporter`], exports memory by it, and sends its [`ShmAddress`] to
//! readers that it trusts. A reader connects an [`ShmPeer`] to the address. From then on a READ is
//! a copy by the rail's worker thread; the producer takes no part in it, as with RDMA.
//!
//! ```
//! use kvrail_core::id::{LaneId, RailIndex};
//! use kvrail_core::provider::Provider;
//! use kvrail_local::LocalConfig;
//! use kvrail_local::shm::{ExportedMemory, Segment, ShmExporter, ShmPeer, ShmProvider};
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
//! # What can be exported
//!
//! | [`Backing`] | how readers get its bytes |
//! |---|---|
//! | `Segment` | they map its sealed file, and copy |
//! | `File`, sealed as a segment is | the same |
//! | `File`, not sealed, or with holes | pread(2): no reader dies if it is truncated |
//! | `Host`, known by its address alone | process_vm_readv(2), where the system permits it |
//! | others | not at all: the export is refused |
//!
//! An export can come and go at any time. [`ShmExport::region`] says how READs name it: the remote
//! address is an address of the producer, and the rkey the export's number, the same on every rail.
//! A region offer carries them to readers. The worker checks every READ against them, and completes
//! a READ outside an export with `REM_ACCESS_ERR`, as it does where an export was withdrawn, or its
//! bytes are not there any more. When a lane READs an rkey for the first time, the worker may ask
//! the exporter, and waits up to two seconds for the answer.
//!
//! # Permission to read a process
//!
//! process_vm_readv(2) needs what a debugger needs: the same user and no set-user-ID program, or
//! `CAP_SYS_PTRACE`; `ptrace_scope` 0 where Yama is in use; a container that allows the call. A
//! reader finds out when it connects, and the error says what to change. Yama's rule can be lifted
//! by the producer, for any process of its user: [`ShmExporter::permit_any_reader`].
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
//! process that has the address can read the exports, and can keep segments mapped. Only the owner
//! can write to a segment, and no producer can kill a reader by shrinking a file: the reader checks
//! the seals before it maps one. Which process a reader reads is what the system says, and not what
//! the producer says.

mod address;
mod board;
mod connect;
mod export;
mod exporter;
mod live;
mod packet;
mod peer;
mod process;
mod serve;
mod table;
mod wire;

pub use crate::copy::{AROUND_THE_CACHE, copy_bytes};
pub use address::ShmAddress;
pub use connect::ShmConnectError;
pub use export::{ShmExport, ShmExportError};
pub use exporter::{ShmExporter, ShmStartError};
pub use kvrail_host::exported::{Backing, ExportedMemory};
pub use kvrail_host::segment::{OutOfSegment, Segment, SegmentError};
pub use peer::ShmPeer;
pub use serve::MAX_READERS;

use crate::provider::LocalProvider;

/// A provider of rails over shared memory.
pub type ShmProvider = LocalProvider<ShmPeer>;
