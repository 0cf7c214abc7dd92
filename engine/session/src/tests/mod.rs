//! Two peers on loopback: agreement, refusals, limits, lanes, and attacks on the connection.

mod attack;
mod error_sources;
mod golden;
mod lanes;
mod limits;
mod parsing;
mod refusals;
mod rig;
