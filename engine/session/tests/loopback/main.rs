//! Producers and readers over loopback, through the public items of the crate.
#![allow(missing_docs, reason = "tests")]

mod capture;
mod errors;
mod lanes;
mod limits;
mod pools;
mod proxy;
mod refusals;
mod rig;
mod rotation;
mod slow_reader;
