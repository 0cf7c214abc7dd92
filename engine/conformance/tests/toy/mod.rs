//! A provider over a plain buffer and a virtual clock, which breaks its contract in one way if asked to.
#![allow(unreachable_pub, reason = "a module of one test program")]

pub mod defect;
pub mod provider;
pub mod rig;
pub mod state;
