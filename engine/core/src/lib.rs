//! How KV-cache pages move: the engine that reads them, one-sidedly, over every rail of a machine.
//!
//! The crate is `no_std` and needs no allocator. Time is an argument, and the provider that moves
//! bytes is a value, so the same code runs on a NIC, on shared memory and in a deterministic model.
//! After set-up a submit, a post or a poll makes no heap call, takes no lock, makes no system call
//! of its own, and ends after a bounded number of steps.
//!
//! # From the outside in
//!
//! 1. [`storage::EngineStorage`] holds an engine's whole state; its maxima are compile-time
//!    constants.
//! 2. [`engine::Engine`] is started over a storage, a [`provider::Provider`] (all rails of one
//!    thread) and a [`config::EngineConfig`].
//! 3. Destination memory becomes [`memory::Slots`]. A peer is added, each region that the peer has
//!    published becomes a [`remote::RemoteRegion`], and connected lanes are attached.
//! 4. A [`batch::Batch`] is filled with READs of [`remote::RemotePage`]s into slots, and submitted
//!    with a deadline. `poll` moves everything on; a [`batch::Done`] holds a result for each page,
//!    and the slots.
//! 5. A page counts only if its owner's [`table::Entry`], read after the page's last byte, is still
//!    the one that the [`remote::Location`] names. Otherwise it is a [`table::Miss`] with its
//!    reason.
//! 6. A remote region or a slot may have a layout ([`layout::LayoutRef`]). Then a slot refuses
//!    pages of another layout, unless a copy plan ([`plan::PlanRef`]) says how such a page lands in
//!    the slot. [`batch::Batch::read_with`] reads by a plan, and puts several smaller pages into
//!    one slot.
//! 7. Many threads feed one engine through a [`hub::Hub`].
//!
//! Underneath, [`barrier`] orders stores for devices; [`verbs_abi`] has the structs of
//! `ibv_post_send` and `ibv_poll_cq`, and their encoder; [`id`] names rails, peers, lanes and work
//! requests; [`ring`] has the ring that joins two threads.
//!
//! # Panics
//!
//! The engine panics only when its caller breaks a documented contract; each function that can
//! panic says so. Nothing that a peer, a driver or a completion says makes the engine panic.
#![no_std]
#[cfg(test)]
extern crate std;

pub mod barrier;
#[cfg(not(loom))]
pub mod batch;
#[cfg(not(loom))]
mod class;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod engine;
#[cfg(not(loom))]
pub mod error;
#[cfg(not(loom))]
pub mod events;
#[cfg(not(loom))]
pub mod hub;
#[cfg(not(loom))]
pub mod id;
#[cfg(not(loom))]
mod lane;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod limits;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
mod page;
#[cfg(not(loom))]
pub mod peer;
#[cfg(not(loom))]
pub mod plan;
#[cfg(not(loom))]
pub mod provider;
#[cfg(not(loom))]
pub mod rail;
#[cfg(not(loom))]
mod regions;
#[cfg(not(loom))]
pub mod remote;
pub mod ring;
#[cfg(not(loom))]
pub mod rows;
#[cfg(not(loom))]
pub mod storage;
mod sync;
#[cfg(not(loom))]
pub mod table;
#[cfg(all(test, not(loom)))]
#[path = "../tests/common/seeds.rs"]
mod test_seeds;
#[cfg(not(loom))]
pub mod time;
#[cfg(not(loom))]
pub mod verbs_abi;
