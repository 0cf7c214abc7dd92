//! The fuzz targets, and what they share: a device that walks work requests, and rails made of it.
//!
//! A target is a function here, so that `replay/` can run it without a fuzzer. `fuzz_targets/`
//! gives it to libFuzzer.

pub mod device;
pub mod rails;

/// One module per target, with a function `run`.
pub mod targets {
    pub mod declaration;
    pub mod plan;
    pub mod session_message;
    pub mod wire_batch;
    pub mod wr_chain;
}
