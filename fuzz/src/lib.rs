//! The fuzz targets, and what they share: a device that walks work requests, rails made of it, and
//! inputs that are taken apart byte by byte.
//!
//! A target is a function here, so that `replay/` can run it without a fuzzer. `fuzz_targets/`
//! gives it to libFuzzer.

pub mod bytes;
pub mod completions;
pub mod device;
pub mod getting;
pub mod rails;

/// One module per target, with a function `run`.
pub mod targets {
    pub mod completions;
    pub mod declaration;
    pub mod get;
    pub mod handover;
    pub mod look_up;
    pub mod mlx5_entries;
    pub mod plan;
    pub mod record;
    pub mod session_frames;
    pub mod session_message;
    pub mod session_offer;
    pub mod wire_batch;
    pub mod wr_chain;
}
