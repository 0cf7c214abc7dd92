//! A model of another machine: the engine over the simulated rails of `kvrail-sim`, on a virtual
//! clock, with the engine's own cost per work request as measured on this machine.
//!
//! The two files that measure that cost are those of the benchmark `post`.

pub(crate) mod calibrate;
pub(crate) mod cost;
#[allow(
    unreachable_pub,
    dead_code,
    clippy::new_ret_no_self,
    reason = "shared with a benchmark, which uses more of it"
)]
mod engine_loop;
pub(crate) mod machine;
#[allow(unreachable_pub, dead_code, reason = "shared with a benchmark, which uses more of it")]
mod workload;

use anyhow::Context;

/// The stack of a thread that makes engines: an unoptimized program makes their storage on the
/// stack before it moves it to the heap. Of the stack only what is used becomes memory.
const STACK: usize = 256 << 20;

/// Does the work on a thread with room for an engine's storage on its stack.
///
/// # Errors
///
/// The thread cannot be started, or panics, or the work fails.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("bench-model".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).context("cannot start the thread of the model")?;
        thread.join().map_err(|_| anyhow::anyhow!("the thread of the model has panicked"))?
    })
}
