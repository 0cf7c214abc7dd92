//! What both sides of the comparison share: the null device and the shape of the load.

use kvrail::core::storage::Storage;
use kvrail::core::verbs_abi::ChainStorage;
use kvrail::sim::null::{Cq, Cqe, NullParts, NullRails, Qp, Wqe};

/// READs per batch, as the cost of posting is usually put.
pub const BATCH: usize = 32;
/// Bytes per READ: small ones, of which one core must post one every 10 ns for eight rails.
pub const PAGE: u64 = 4096;
/// The longest chain.
pub const CHAIN: usize = 32;
/// Send queue entries of the only lane there is: a batch of 32, and the drain wr.
pub const DEEP: usize = 64;
/// Send queue entries of one lane of sixteen: a run of sixteen, the drain wr, and some room. Those
/// who connect 1,024 peers by 16 lanes each keep them short: 16,384 such queues are 32 MiB of work
/// queue entries.
pub const SHALLOW: usize = 32;
/// Chunks that the hand-written loop gives to a lane, where there are several.
pub const RUN: usize = 8;
/// Where the pages are in the peer's memory.
pub const REMOTE: u64 = 0x7000_0000;

/// Rails that move nothing.
pub type Null = NullRails<'static, CHAIN>;
/// Room for an engine.
pub type State<const PEERS: usize, const LANES: usize, const DEPTH: usize> =
    Storage<PEERS, PEERS, LANES, DEPTH, 16, BATCH>;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// The device.
pub fn null(rails: usize, lanes: usize, depth: usize) -> Null {
    let parts = NullParts {
        cqs: vec![Cq::NEW; rails].leak(),
        cqes: vec![Cqe::NEW; rails * (lanes / rails * depth).next_power_of_two()].leak(),
        qps: vec![Qp::NEW; lanes].leak(),
        wqes: vec![Wqe::NEW; lanes * depth].leak(),
    };
    NullRails::new(parts, leak(ChainStorage::new())).expect("parts that fit")
}

/// A storage is large: made on the heap, where it stays.
pub fn state<const PEERS: usize, const LANES: usize, const DEPTH: usize>()
-> &'static mut State<PEERS, LANES, DEPTH> {
    // The compiler builds the constant in place when it is written straight into the box.
    leak(const { State::<PEERS, LANES, DEPTH>::new() })
}
