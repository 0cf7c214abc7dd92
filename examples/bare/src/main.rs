//! Reads a page through an engine with nothing below it but the kernel: no std, no allocator, no C
//! library.
//!
//! A crate that used std would bring a second panic handler, and one that used `alloc` would need
//! an allocator: neither would link. `examples/tests/bare.rs` builds this program, looks through
//! its symbols and runs it.
//!
//! `cargo run --release` in this folder prints the size of the engine's state. It exits with 0, or
//! with the number of the step that failed. The rail is the null device, which moves nothing: on a
//! real device the provider is the one thing that changes.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "the memory of the program is given out of a static, once")]

mod machine;

use core::fmt::Write as _;

use kvrail::core::config::EngineConfig;
use kvrail::core::engine::LaneSpec;
use kvrail::core::id::{MAX_RAILS, RailIndex};
use kvrail::core::remote::RegionOffer;
use kvrail::core::time::Time;
use kvrail::core::verbs_abi::ChainStorage;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::{KvLayout, bare, engine};
use kvrail_sim::null::{Cq, Cqe, NullParts, NullRails, Qp, Wqe};

const PAGE_BYTES: usize = VllmFp8DsMla::PAGE_BYTES as usize;
const DEPTH: usize = 16;
const CHAIN: usize = 8;

engine! {
    #[kv(bare)]
    Puller {
        page: VllmFp8DsMla,
        max_rails: 1,
        max_peers: 1,
        max_lanes: 1,
        max_depth: DEPTH,
        max_batches: 1,
        max_batch: 1,
    }
}

static STORAGE: bare::BareStorage<Puller> = Puller::storage();
/// The memory of the rail, and of the page.
struct Parts {
    cqs: [Cq; 1],
    cqes: [Cqe; DEPTH],
    qps: [Qp; 1],
    wqes: [Wqe; DEPTH],
    chain: ChainStorage<CHAIN>,
    page: [u8; PAGE_BYTES],
}

static mut PARTS: Parts = Parts {
    cqs: [Cq::NEW; 1],
    cqes: [const { Cqe::NEW }; DEPTH],
    qps: [Qp::NEW; 1],
    wqes: [const { Wqe::NEW }; DEPTH],
    chain: ChainStorage::new(),
    page: [0; PAGE_BYTES],
};

fn main() -> i32 {
    match read_a_page() {
        Ok(bytes) => {
            let state = Puller::STATE_BYTES;
            match writeln!(
                machine::Output,
                "engine state: {state} bytes; one page of {bytes} bytes came back"
            ) {
                Ok(()) => 0,
                Err(_) => 20,
            }
        }
        Err(step) => step,
    }
}

/// The bytes of the page that came back, or the number of the step that failed.
fn read_a_page() -> Result<usize, i32> {
    // SAFETY: `main` calls this function once, and nothing else names `PARTS`.
    let parts: &'static mut Parts = unsafe { &mut *(&raw mut PARTS) };
    let Parts { cqs, cqes, qps, wqes, chain, page } = parts;
    let rails = NullRails::new(NullParts { cqs, cqes, qps, wqes }, chain).map_err(|_| 1)?;
    let mut engine = Puller::start(&STORAGE, rails, EngineConfig::DEFAULT).map_err(|_| 3)?;
    let slot = engine.register(page, PAGE_BYTES as u64).map_err(|_| 4)?.next().ok_or(5)?;
    let peer = engine.add_peer().map_err(|_| 6)?;
    let offer = RegionOffer {
        base: 0x7000_0000,
        page_bytes: PAGE_BYTES as u64,
        stride: PAGE_BYTES as u64,
        slots: 1,
        keys: [7; MAX_RAILS],
        table: None,
    };
    let region = engine.add_region(peer, &offer).map_err(|_| 7)?;
    let lane = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: DEPTH as u32 };
    engine.attach(peer, lane, (), Time::ZERO).map_err(|_| 8)?;

    let mut batch = engine.batch().ok_or(9)?;
    batch.read(region.unvalidated(0).map_err(|_| 10)?, slot).map_err(|_| 11)?;
    let now = Time(1);
    engine.submit(batch, now, Puller::deadline(now)).map_err(|_| 12)?;
    engine.poll(Time(2));
    let mut done = engine.next_done().ok_or(13)?;
    let page = done.pages().next().ok_or(14)?;
    page.result.map_err(|_| 15)?;
    page.slot.bytes().map(<[u8]>::len).ok_or(16)
}
