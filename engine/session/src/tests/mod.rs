//! Two peers on loopback, and what can come between them.

mod attack;
mod golden;
mod lanes;
mod limits;
mod parsing;
mod refusals;
mod rig;
mod told_once;
