//! How KV-cache pages move.
#![no_std]
#[cfg(test)]
extern crate std;

#[cfg(not(loom))]
pub mod abi;
#[cfg(not(loom))]
pub mod batch;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod engine;
#[cfg(not(loom))]
pub mod error;
mod free;
#[cfg(not(loom))]
pub mod hub;
#[cfg(not(loom))]
pub mod id;
#[cfg(not(loom))]
mod lane;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
mod page;
#[cfg(not(loom))]
pub mod peer;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
pub mod provider;
#[cfg(not(loom))]
pub mod rail;
#[cfg(not(loom))]
pub mod remote;
pub mod spsc;
#[cfg(not(loom))]
pub mod storage;
mod sync;
#[cfg(not(loom))]
pub mod table;
#[cfg(not(loom))]
pub mod time;
