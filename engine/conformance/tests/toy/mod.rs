//! A toy: a provider over a plain buffer and a virtual clock, with at most one
//! [defect](defect::Defect).
#![allow(unreachable_pub, reason = "a module of one test program")]

pub mod defect;
pub mod provider;
pub mod rig;
pub mod state;
