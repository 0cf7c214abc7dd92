//! Whatever completions, errors, partial posts, lost rails, withdrawals and deadlines come, and in
//! whatever order: each page is finished once, each slot comes back once and when nothing writes
//! into it any more, no page has a wrong byte, no page fails for a reason that was not there, and
//! each deadline that has passed is told.
//!
//! The engine runs over the model of `kvrail-sim`, whose time moves only as the input says, and
//! which records every promise that the engine breaks. The input decides what fails and when.

use std::cell::RefCell;

use crate::bytes::Bytes;
use crate::completions::Memory;

thread_local! {
    // Making it takes longer than most runs.
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Runs the target. The first bytes are the settings of the model and of the engine
/// (`src/completions/world.rs`), and then come the steps (`src/completions/steps.rs`).
pub fn run(bytes: &[u8]) {
    MEMORY.with_borrow_mut(|memory| memory.run(&mut Bytes::new(bytes)));
}
