//! What needs std: readers, publishers, sessions and transports.

pub use crate::layout::{PageLayout, PageLayoutError};
pub use crate::publisher::{
    ForeignMemory, ForeignPool, ForeignPoolError, ForeignRegion, ForeignSlotGuard, ForeignSlots,
    GrowingForeignPage, GrowingPage, LocalPage, OtherProcess, Publisher, PublisherConfig, PublisherError,
    PublisherPool, SlotGuard, WithdrawError, WriteError,
};
pub use crate::reader::config::{Config, MakeLanes, StartError};
#[cfg(feature = "cuda")]
pub use crate::reader::device::DeviceError;
pub use crate::reader::handover::{TakeRequestError, Taking};
pub use crate::reader::peer::{BlockError, ConnectError, Connecting, Peer, PeerPool, ReaderEvent};
pub use crate::reader::state::{MANY_PEERS, MAX_BATCH, MAX_BATCHES, MAX_PEERS};
pub use crate::reader::storage::{Storage, StorageTaken, TakenStorage};
pub use crate::reader::table::{MAX_LISTED, TableError};
pub use crate::reader::{Reader, Submitter};
#[doc(hidden)]
pub use crate::transport::open::{OpenDialer, OpenRails};
#[cfg(feature = "verbs")]
pub use crate::transport::verbs;
pub use crate::transport::{Export, Exporter, PublisherTransport, ReaderTransport, TransportError, shm, tcp};
pub use kvrail_host::exported::{Backing, ExportedMemory};
pub use kvrail_host::segment::Segment;
pub use kvrail_host::{clock, memory};
// What is below `shm` and `tcp`: for tests, and for the benchmark that copies as a rail does.
#[doc(hidden)]
pub use kvrail_local as local;
pub use kvrail_session as session;
pub use kvrail_session::{Address, NodeName, PeerKey, PeerKeys};
#[cfg(feature = "cuda")]
pub use kvrail_verbs::gpu;

// A reader is owned by one thread, and may be moved to another one.
static_assertions::assert_impl_all!(Reader<shm::ShmRails>: Send);
static_assertions::assert_impl_all!(Reader<tcp::TcpRails>: Send);
// Threads share a publisher; a guard may be moved to another one.
static_assertions::assert_impl_all!(Publisher: Send, Sync);
static_assertions::assert_impl_all!(SlotGuard<'static>: Send);
static_assertions::assert_impl_all!(GrowingPage<'static>: Send);
static_assertions::assert_impl_all!(ForeignSlotGuard<'static>: Send);
static_assertions::assert_impl_all!(GrowingForeignPage<'static>: Send);
static_assertions::assert_impl_all!(LocalPage<'static>: Send, Sync);
