//! The null device and the shape of the load, which both sides of the comparison share.

use kvrail::core::storage::EngineStorage;
use kvrail::core::verbs_abi::ChainStorage;
use kvrail_sim::null::{Cq, Cqe, NullParts, NullRails, Qp, Wqe};

/// READs per batch, a usual number where the cost of posting is given.
pub const BATCH: usize = 32;
/// Bytes per READ. One core must post such a small READ every 10 ns to fill eight rails.
pub const PAGE: u64 = 4096;
/// The longest chain.
pub const CHAIN: usize = 32;
/// Send queue entries of the only lane there is: a batch of 32, and the drain wr.
pub const DEEP: usize = 64;
/// Send queue entries of one lane of sixteen: a run of sixteen, the drain wr, and some room. They
/// are short because 1,024 peers with 16 lanes each have 16,384 such queues, which take 32 MiB.
pub const SHALLOW: usize = 32;
/// Chunks that the hand-written loop gives to a lane, where there are several lanes.
pub const RUN: usize = 8;
/// The address of the pages in the peer's memory.
pub const REMOTE: u64 = 0x7000_0000;

/// Rails that move no bytes, and whose READs have at most `SGES` pieces.
pub type Null<const SGES: usize = 1> = NullRails<'static, CHAIN, SGES>;
/// The storage of an engine.
pub type State<const PEERS: usize, const LANES: usize, const DEPTH: usize> =
    EngineStorage<PEERS, PEERS, LANES, DEPTH, 16, BATCH>;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// Makes the null device.
pub fn null<const SGES: usize>(rails: usize, lanes: usize, depth: usize) -> Null<SGES> {
    // A wr of one piece is one block of the ring, and one of sixteen is five.
    let blocks = (depth * (2 + SGES).div_ceil(4)).next_power_of_two();
    let parts = NullParts {
        cqs: vec![Cq::NEW; rails].leak(),
        cqes: vec![Cqe::NEW; rails * (lanes / rails * depth).next_power_of_two()].leak(),
        qps: vec![Qp::NEW; lanes].leak(),
        wqes: vec![Wqe::NEW; lanes * blocks].leak(),
    };
    NullRails::new(parts, leak(ChainStorage::new())).expect("parts that fit")
}

/// Makes a storage on the heap, where it stays, because it is large.
pub fn state<const PEERS: usize, const LANES: usize, const DEPTH: usize>()
-> &'static mut State<PEERS, LANES, DEPTH> {
    // The compiler builds the constant in place when it is written straight into the box.
    leak(const { State::<PEERS, LANES, DEPTH>::new() })
}
