//! How KV-cache pages move.
#![no_std]

pub mod abi;
pub mod id;
pub mod provider;
pub mod table;
pub mod time;
