//! The measurement: what producers and workers do, how a crew of them is run, and what counts.

pub(crate) mod churn;
pub(crate) mod clock;
pub(crate) mod crew;
mod destination;
mod directory;
pub(crate) mod getter;
mod keys;
pub(crate) mod ladder;
pub(crate) mod memcpy;
pub(crate) mod metrics;
mod node;
mod pattern;
mod place;
pub(crate) mod producer;
pub(crate) mod window;
pub(crate) mod worker;
