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
//! 7. [`bare`]: the same, declared by [`engine!`](engine), in a program without std.
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
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bare;
#[cfg(feature = "std")]
mod cutting;
#[cfg(feature = "std")]
mod hosted;
#[cfg(feature = "std")]
mod layout;
#[doc(hidden)]
pub mod macro_support;
// Documentation only; `doctest` so that its programs are tested.
#[cfg(all(feature = "std", any(doc, doctest)))]
pub mod manual;
#[cfg(feature = "std")]
mod publisher;
#[cfg(feature = "std")]
mod reader;
#[cfg(feature = "std")]
mod transport;

#[cfg(feature = "std")]
pub use hosted::*;
pub use kvrail_core as core;
pub use kvrail_core::batch::{Batch, Done, DonePage, DoneRange, RejectedPages, Ticket};
pub use kvrail_core::error::PageError;
pub use kvrail_core::hub::Outcome;
pub use kvrail_core::memory::{Slot, SlotRange, Slots};
pub use kvrail_core::remote::Location;
pub use kvrail_core::table::{KeyTag, Ready};
pub use kvrail_core::time::Time;
pub use kvrail_layouts as layouts;
pub use kvrail_layouts::{Bf16, KvLayout, View};
pub use kvrail_macros::{KvLayout, engine};
pub use macro_support::MAX_SUBMITTERS;
