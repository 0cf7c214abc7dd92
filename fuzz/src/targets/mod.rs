//! What each fuzz target does with an input: plain functions, which `fuzz/replay` runs on the
//! seeds, too.

pub mod declaration;
#[path = "../../../layouts/tests/pairs/mod.rs"]
mod pairs;
pub mod plan;
pub mod session_message;
pub mod wire_batch;
pub mod wr_chain;
