//! Pull KV-cache pages out of a peer's memory, one-sidedly, over every rail of a machine.
//!
//! A *producer* (a prefill node) computes pages and keeps them in memory that its peers may read. A
//! *reader* (a decode node) pulls pages out of it; the producer's processor takes no part in that. What
//! moves the bytes are *rails*: the ports of NICs, and where there is no NIC, shared memory of one host.
//!
//! ```
//! use kvrail::layouts::{Bf16, View};
//! use kvrail::{KvLayout, PageLayout, PeerKey, Publisher, Reader, clock, memory, shm};
//! use kvrail::core::table::KeyTag;
//! use std::time::Duration;
//!
//! // What a page is: declared once, known at compile time, compared when two peers meet.
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
//! // The producer, usually another process: 8 slots, served at any free port.
//! let node = "prefill-0".parse()?;
//! let mut producer = Publisher::start(node, MLA, 8, &"127.0.0.1:0".parse()?, key.clone(), shm::publish(2))?;
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
//!     page.result()?; // arrived, whole, and still what the location names
//!     let bytes = page.slot.bytes().ok_or("device memory")?;
//!     let view = View::<Mla>::new(bytes, Mla::FINGERPRINT)?;
//!     let latent: &[Bf16] = view.get(Mla::LATENT, &[2, 17])?; // of layer 2, token 17
//!     assert_eq!(latent.len(), 512);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The layers
//!
//! In the order in which a newcomer needs them:
//!
//! 1. [`layouts`] – what a page is; [`KvLayout`](derive@KvLayout) declares one. [`PageLayout`] is a layout as
//!    a value, at its rank and with its distances: what two peers compare.
//! 2. [`Publisher`] – slots that peers can read, and the publication table that makes it impossible to
//!    serve a wrong page. The names of pages, [`Location`](core::remote::Location)s, travel however the
//!    application likes.
//! 3. [`Reader`] – an engine with its rails, storage, clock and sessions; its state is on the heap, or, where
//!    [`engine!`](engine) has declared its maxima, in a `static` [`Storage`]. Once it is set up, what it does
//!    per batch and poll takes no lock, allocates nothing and (waking a sleeping rail aside) makes no system
//!    call. Other threads feed it by a [`Submitter`] each.
//! 4. [`shm`] and [`tcp`] – what there is to read over. TCP is functional only. With the feature `verbs`, RDMA:
//!    `verbs::rails("auto")`; and with `cuda`, GPU memory to read into: `gpu::DeviceMemory`.
//! 5. [`session`] – how two peers agree before they move bytes, and what the key protects.
//! 6. [`core`] – the engine itself, `no_std`, for those who bring storage, threads and time of their own;
//!    [`local`] and [`sim`] are rails for it.
//!
//! # What can go wrong
//!
//! Every page of a batch has its own result ([`PageError`](core::error::PageError)): it missed, with the
//! reason; its request was wrong; its deadline passed; its peer is gone. A rail that fails is no error: its
//! work goes to the others. A slot comes back only when nothing can write into it any more.

pub use kvrail_host::clock;
pub mod declared;
mod layout;
pub use kvrail_host::memory;
mod network;
mod publisher;
mod reader;

pub use kvrail_core as core;
pub use kvrail_layouts as layouts;
pub use kvrail_layouts::KvLayout;
pub use kvrail_local as local;
pub use kvrail_macros::{KvLayout, engine};
pub use kvrail_session as session;
pub use kvrail_session::PeerKey;
pub use kvrail_sim as sim;

#[cfg(feature = "cuda")]
pub use kvrail_verbs::gpu;
pub use layout::{PageLayout, PageLayoutError};
#[cfg(feature = "verbs")]
pub use network::verbs;
pub use network::{Network, OpenRails, Publish, Published, TransportError, shm, tcp};
pub use publisher::{Publisher, PublisherError, WriteError};
#[cfg(feature = "cuda")]
pub use reader::DeviceError;
pub use reader::{
    Config, ConnectError, Event, MAX_BATCH, MAX_BATCHES, MAX_LISTED, MAX_PEERS, MAX_SUBMITTERS, Peer, Reader,
    StartError, Storage, StorageTaken, Submitter, TableError, TakenStorage,
};
