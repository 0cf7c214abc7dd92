//! Rails that are not hardware.
//!
//! Both modules implement [`kvrail_core::provider::Provider`], neither allocates, and neither needs
//! an operating system:
//!
//! - [`sim`], a deterministic model of rails, lanes and peers on a virtual clock. It moves real
//!   bytes, breaks in every way that a QP, a NIC or a peer breaks, and records what an engine must
//!   never do. The same seed and the same calls give the same completions, bit for bit.
//! - [`null`], rails that move nothing and cost almost nothing, for measuring the engine itself. It
//!   is called through a table of C functions, as a driver is.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod null;
mod rng;
pub mod sim;
