//! Pull KV-cache pages out of a peer's memory, one-sidedly, over every rail of a machine.
//!
//! A *producer* (a prefill node) computes pages and keeps them in memory that its peers may read. A
//! *reader* (a decode node) pulls pages out of it; the producer's processor takes no part in that.
//! *Rails* move the bytes: the ports of NICs, and where there is no NIC, shared memory of one host.
//!
//! ```
//! use kvrail::{
//!     Bf16, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, View, clock, memory, shm,
//! };
//! use std::time::Duration;
//!
//! // A page: declared once, known at compile time, compared when two peers meet.
//! #[derive(KvLayout)]
//! #[kv(order(layer, token), layers = 4, tokens = 64)]
//! struct Mla {
//!     latent: [Bf16; 512],
//!     rope: [Bf16; 64],
//! }
//! const MLA: PageLayout = PageLayout::of::<Mla>();
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = PeerKey::from_hex(&"5a".repeat(32))?;
//!
//! // The producer, usually another process: 8 slots, at any free port.
//! let (node, listen) = ("prefill-0".parse()?, "127.0.0.1:0".parse()?);
//! let mut producer = Publisher::start(node, MLA, 8, &listen, key.clone(), shm::publish(2))?;
//! let location = producer.write(3, KeyTag(0xA11CE), |page| page.fill(0x3C))?;
//!
//! // The reader.
//! let mut reader = Reader::start(MLA, shm::rails(2)?, Default::default())?;
//! let mut slots = reader.register(memory::leaked(8 * MLA.page_bytes() as usize)?)?;
//! let peer = reader.connect(&producer.local_addr().into(), &key)?;
//!
//! let mut batch = reader.batch().ok_or("all batches are in use")?;
//! let slot = slots.next().ok_or("all slots are in use")?;
//! batch.read(peer.page(location)?, slot).map_err(|(error, _slot)| error)?;
//! let deadline = clock::within(Duration::from_secs(5));
//! reader.submit(batch, deadline)?;
//! let mut done = loop {
//!     reader.poll();
//!     match reader.next_done() {
//!         Some(done) => break done,
//!         None => reader.wait(deadline),
//!     }
//! };
//! for page in done.pages() {
//!     page.result()?; // it has arrived whole, and is still the page that the location names
//!     let bytes = page.slot.bytes().ok_or("device memory")?;
//!     let view = View::<Mla>::new(bytes, Mla::FINGERPRINT)?;
//!     let latent: &[Bf16] = view.get(Mla::LATENT, &[2, 17])?; // of layer 2, token 17
//!     assert_eq!(latent.len(), 512);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! In the order in which a newcomer needs them:
//!
//! 1. [`layouts`]: what a page is. [`KvLayout`](derive@KvLayout) declares one; [`PageLayout`] is a
//!    layout as a value, at its rank and with its distances, which two peers compare.
//! 2. [`Publisher`]: slots that peers can read, and the publication table that makes it impossible
//!    to serve a wrong page. The names of pages, [`Location`]s, travel however the application
//!    likes.
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
//! # Failure
//!
//! Every page of a batch has its own result, a [`PageError`] where it was not read: it missed, with
//! the reason; its request was wrong; its deadline passed; its peer is gone. A rail that fails is
//! no error: its work goes to the other rails. A slot comes back only when nothing can write into
//! it any more.
//!
//! Every error has a number by `code()`, which never changes its meaning; docs/errors.md lists
//! them.

mod layout;
#[doc(hidden)]
pub mod macro_support;
mod publisher;
mod reader;
mod transport;

pub use kvrail_core as core;
pub use kvrail_core::error::PageError;
pub use kvrail_core::remote::Location;
pub use kvrail_core::table::KeyTag;
pub use kvrail_host::segment::Segment;
pub use kvrail_host::{clock, memory};
pub use kvrail_layouts as layouts;
pub use kvrail_layouts::{Bf16, KvLayout, View};
pub use kvrail_local as local;
pub use kvrail_macros::{KvLayout, engine};
pub use kvrail_session as session;
pub use kvrail_session::PeerKey;

#[cfg(feature = "cuda")]
pub use kvrail_verbs::gpu;
pub use layout::{PageLayout, PageLayoutError};
pub use publisher::{Publisher, PublisherError, WriteError};
pub use reader::config::{Config, StartError};
#[cfg(feature = "cuda")]
pub use reader::device::DeviceError;
pub use reader::peer::{ConnectError, Peer, ReaderEvent};
pub use reader::state::{MAX_BATCH, MAX_BATCHES, MAX_PEERS};
pub use reader::storage::{Storage, StorageTaken, TakenStorage};
pub use reader::submitters::MAX_SUBMITTERS;
pub use reader::table::{MAX_LISTED, TableError};
pub use reader::{Reader, Submitter};
#[doc(hidden)]
pub use transport::open::{OpenDialer, OpenRails};
#[cfg(feature = "verbs")]
pub use transport::verbs;
pub use transport::{Published, PublisherTransport, ReaderTransport, TransportError, shm, tcp};
