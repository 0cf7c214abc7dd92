//! The state of a reader that was not declared: on the heap, and freed with it.
#![allow(
    unsafe_code,
    reason = "the state outlives the engine that has a reference to it, and is freed after it"
)]

use std::ptr::NonNull;

use super::state::{Sealed as _, State};
use super::{MAX_BATCH, MAX_BATCHES, MAX_PEERS};
use crate::network::DEPTH;

/// The state of a reader that was not declared.
pub(super) type Undeclared = State<MAX_PEERS, 256, 512, { DEPTH as usize }, MAX_BATCHES, MAX_BATCH, 0, 2>;

/// The state of a reader that was not declared, out of a box: freed in the reader's `drop`, when
/// the engine is gone.
pub(super) struct Home(pub(super) NonNull<Undeclared>);

const fn is_send<T: Send>() {}
const _: () = is_send::<Undeclared>();

// SAFETY: it stands for the box that it came out of, as a Box does, and is used in the reader's
// `drop` alone, by whichever thread drops the reader; what is in the box is Send (above). The
// engine's references into it go with the engine, to the same thread.
unsafe impl Send for Home {}

/// An empty storage on the heap, made there.
pub(super) fn room() -> Box<Undeclared> {
    let mut room = Box::new_uninit();
    Undeclared::in_place(&mut room);
    // SAFETY: it has just been made where it is.
    unsafe { room.assume_init() }
}
