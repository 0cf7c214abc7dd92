//! What the engine costs a core of this machine, over rails that move nothing.

use super::engine_loop::Kvrail;
use super::workload::{BATCH, SHALLOW, State};
use crate::measure::spread::Spread;

/// Rounds of each measurement.
const ROUNDS: usize = 15;
/// Work requests of a round, about.
const WRS: usize = 1 << 16;
/// The rails of the measurements.
const RAILS: usize = 8;

/// Nanoseconds of a core for each work request, with everything that an application does for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Of a READ, over sixteen lanes.
    pub(crate) wr: Spread,
    /// What the validation of a page adds.
    pub(crate) validation: f64,
}

/// So many peers, with a lane each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    pub(crate) peers: usize,
    /// Nanoseconds for each work request, where all go to one peer and the others are idle.
    pub(crate) idle: f64,
    /// The same where batches go to all peers in turn.
    pub(crate) all: f64,
    /// The engine's memory for them, in bytes.
    pub(crate) bytes: usize,
}

/// The times of several rounds.
fn measured(mut engine: Kvrail, batches: usize) -> Spread {
    let times = WRS / BATCH / batches;
    let _ = engine.whole(batches, times);
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| engine.whole(batches, times).as_nanos() as f64 / (times * batches * BATCH) as f64)
        .collect();
    Spread::of(&rounds)
}

/// Measures the cost.
pub(crate) fn measure() -> Cost {
    let wr = measured(Kvrail::new::<1, 16, SHALLOW>(RAILS, 16, false), 4);
    let checked = measured(Kvrail::new::<1, 16, SHALLOW>(RAILS, 16, true), 4);
    Cost { wr, validation: (checked.median - wr.median).max(0.0) }
}

fn of_peers<const PEERS: usize>() -> Peers {
    let all = measured(Kvrail::new::<PEERS, PEERS, SHALLOW>(1, 1, false), 1);
    let idle = measured(Kvrail::new::<PEERS, PEERS, SHALLOW>(1, 1, false).on_one_peer(), 1);
    Peers {
        peers: PEERS,
        idle: idle.median,
        all: all.median,
        bytes: size_of::<State<PEERS, PEERS, SHALLOW>>(),
    }
}

/// What 1 to 10,000 peers cost.
pub(crate) fn peers() -> [Peers; 4] {
    [of_peers::<1>(), of_peers::<100>(), of_peers::<1000>(), of_peers::<10_000>()]
}
