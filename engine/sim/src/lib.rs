//! Rails that are not hardware.
//!
//! It implements [`kvrail_core::provider::Provider`], does not allocate, and needs no operating system:
//!
//! - [`sim`], a deterministic model of rails, lanes and peers on a virtual clock. It moves real bytes,
//!   breaks in every way that a QP, a NIC or a peer breaks, and records what an engine must never do.
//!   The same seed and the same calls give the same completions, bit for bit.
#![no_std]

#[cfg(test)]
extern crate std;

mod rng;
pub mod sim;
