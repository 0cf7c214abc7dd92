//! Whatever a directory answers, whatever the owners do with their pages, and whenever callers give
//! up: each key of a `get` is settled once and by its deadline, a hit has the bytes of its key, the
//! pages of a group are there together or not at all, a page that is there is no miss, and each
//! destination comes back once and is not written afterwards.

use std::cell::RefCell;

use crate::bytes::Bytes;
use crate::getting::World;

thread_local! {
    // Starting and stopping nodes takes a hundred times as long as most runs: they are not stopped.
    static WORLD: RefCell<&'static mut World> = RefCell::new(Box::leak(Box::default()));
}

/// Runs the target: steps of `src/getting/world.rs`.
pub fn run(bytes: &[u8]) {
    WORLD.with_borrow_mut(|world| world.run(&mut Bytes::new(bytes)));
}
