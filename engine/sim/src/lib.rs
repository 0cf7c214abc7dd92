//! Rails that are not hardware.
//!
//! Both modules implement [`kvrail_core::provider::Provider`], neither allocates, and neither needs
//! an operating system:
//!
//! - [`sim`], a deterministic model of rails, lanes and peers on a virtual clock. It moves real
//!   bytes, fails in the ways in which QPs, NICs and peers fail, and records every broken promise
//!   of an engine. The same seed and the same calls give the same completions, bit for bit.
//! - [`null`], rails that move nothing and cost almost nothing, for measuring the engine itself.
//!   The engine calls it through a table of C functions, as it calls a driver.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod null;
mod rng;
pub mod sim;
#[cfg(test)]
mod test_seeds;
