//! The measurement: what producers and workers do, how a crew of them is run, and what counts.

pub(crate) mod bare;
pub(crate) mod churn;
pub(crate) mod clock;
pub(crate) mod crew;
mod destination;
mod directory;
pub(crate) mod getter;
mod keys;
pub(crate) mod ladder;
pub(crate) mod lap;
pub(crate) mod memcpy;
pub(crate) mod metrics;
pub(crate) mod model;
mod node;
pub(crate) mod noise;
mod pattern;
mod place;
pub(crate) mod processes;
pub(crate) mod producer;
pub(crate) mod rung;
pub(crate) mod schedule;
pub(crate) mod spread;
pub(crate) mod sweep;
pub(crate) mod window;
pub(crate) mod worker;
pub(crate) mod working_set;
