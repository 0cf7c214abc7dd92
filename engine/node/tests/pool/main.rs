//! Pools of pages by key: what is read by peers, evicted, replaced and announced.
#![allow(unsafe_code, reason = "memory of an engine that the tests play")]

mod announcing;
mod broken;
mod directory;
mod engine;
mod own;
mod rig;
mod stress;
