// The README is the first half of this page. Of two definitions of a link the first counts: the
// chapters that the manual has are linked there, the README links all others to the repository.
//! [concepts]: manual::concepts
//! [getting-started]: manual::first_page
//! [plans]: manual::plans
//! [failure]: manual::failure
//! [extending]: manual::extending
//!
#![doc = include_str!("../README.md")]
//!
//! # The parts
//!
//! In the order in which a newcomer needs them:
//!
//! 1. [`layouts`]: what a page is. [`KvLayout`](derive@KvLayout) declares one; [`PageLayout`] is a
//!    layout as a value, at its rank and with its distances, which two peers compare.
//! 2. [`Publisher`]: slots that peers can read, and the publication table that makes it impossible
//!    to serve a wrong page. Threads share it, and each slot is on its own. The names of pages,
//!    [`Location`]s, travel however the application likes.
//! 3. [`Reader`]: an engine with its rails, storage, clock and sessions. Its state is on the heap,
//!    or, where [`engine!`](engine) has declared its maxima, in a `static` [`Storage`]. After
//!    set-up a batch and a poll take no lock, allocate nothing, and make no system call but to wake
//!    a sleeping rail. Other threads feed it by a [`Submitter`] each.
//! 4. [`shm`] and [`tcp`]: transports to read over. TCP is functional only. The feature `verbs`
//!    adds RDMA, `verbs::rails("auto")`; `cuda` adds GPU memory to read into, `gpu::DeviceMemory`.
//! 5. [`session`]: how two peers agree before they move bytes, and what the key protects.
//! 6. [`core`]: the engine itself, `no_std`, for an application that brings storage, threads and
//!    time of its own. [`local`] has rails for it.
//!
//! The [`manual`] holds the chapters of the book that a user of this crate reads.
//!
//! # Failure
//!
//! Every page of a batch has its own result, a [`PageError`] where it was not read: it missed, with
//! the reason; its request was wrong; its deadline passed; its peer is gone. A rail that fails is
//! no error: its work goes to the other rails. A slot comes back only when nothing can write into
//! it any more.
//!
//! Every error has a number, `code()`, which never changes its meaning; the chapter on [errors]
//! lists all of them.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cutting;
mod layout;
#[doc(hidden)]
pub mod macro_support;
// Documentation only; `doctest` so that its programs are tested.
#[cfg(any(doc, doctest))]
pub mod manual;
mod publisher;
mod reader;
mod transport;

pub use kvrail_core as core;
pub use kvrail_core::batch::{Batch, Done, DonePage, Ticket};
pub use kvrail_core::error::PageError;
pub use kvrail_core::hub::Outcome;
pub use kvrail_core::memory::{Slot, Slots};
pub use kvrail_core::remote::Location;
pub use kvrail_core::table::{KeyTag, Ready};
pub use kvrail_core::time::Time;
pub use kvrail_host::exported::{Backing, ExportedMemory};
pub use kvrail_host::segment::Segment;
pub use kvrail_host::{clock, memory};
pub use kvrail_layouts as layouts;
pub use kvrail_layouts::{Bf16, KvLayout, View};
// What is below `shm` and `tcp`: for tests, and for the benchmark that copies as a rail does.
#[doc(hidden)]
pub use kvrail_local as local;
pub use kvrail_macros::{KvLayout, engine};
pub use kvrail_session as session;
pub use kvrail_session::{Address, NodeName, PeerKey, PeerKeys};

#[cfg(feature = "cuda")]
pub use kvrail_verbs::gpu;
pub use layout::{PageLayout, PageLayoutError};
pub use publisher::{
    ForeignMemory, ForeignPool, ForeignPoolError, ForeignRegion, ForeignSlotGuard, ForeignSlots,
    GrowingForeignPage, GrowingPage, LocalPage, OtherProcess, Publisher, PublisherConfig, PublisherError,
    PublisherPool, SlotGuard, WithdrawError, WriteError,
};
pub use reader::config::{Config, MakeLanes, StartError};
#[cfg(feature = "cuda")]
pub use reader::device::DeviceError;
pub use reader::handover::{TakeRequestError, Taking};
pub use reader::peer::{BlockError, ConnectError, Connecting, Peer, PeerPool, ReaderEvent};
pub use reader::state::{MAX_BATCH, MAX_BATCHES, MAX_PEERS};
pub use reader::storage::{Storage, StorageTaken, TakenStorage};
pub use reader::submitters::MAX_SUBMITTERS;
pub use reader::table::{MAX_LISTED, TableError};
pub use reader::{Reader, Submitter};
#[doc(hidden)]
pub use transport::open::{OpenDialer, OpenRails};
#[cfg(feature = "verbs")]
pub use transport::verbs;
pub use transport::{Export, Exporter, PublisherTransport, ReaderTransport, TransportError, shm, tcp};

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
