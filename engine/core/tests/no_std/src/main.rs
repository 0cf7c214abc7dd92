//! Reads a page through an engine, without std and without an allocator.
//!
//! A crate that used std would bring a second panic handler, and one that used `alloc` would need
//! an allocator: neither would link. The C library starts `main` and gives `memcpy`; on a target
//! without one, `compiler_builtins` does.
//!
//! `cargo run --release` in this folder: it exits with 0, or with the number of the step that
//! failed.
#![no_std]
#![no_main]

use core::ffi::c_int;
use core::panic::PanicInfo;

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::RegionOffer;
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::ChainStorage;
use kvrail_layouts::KvLayout;
use kvrail_layouts::catalogue::VllmFp8DsMla;
use kvrail_sim::null::{Cq, Cqe, NullParts, NullRails, Qp, Wqe};

const PAGE: usize = VllmFp8DsMla::PAGE_BYTES as usize;
const DEPTH: usize = 16;
const CHAIN: usize = 8;

/// All memory of the program.
struct Memory {
    cqs: [Cq; 1],
    cqes: [Cqe; DEPTH],
    qps: [Qp; 1],
    wqes: [Wqe; DEPTH],
    chain: ChainStorage<CHAIN>,
    storage: EngineStorage<1, 1, 1, DEPTH, 1, 1>,
    page: [u8; PAGE],
}

static mut MEMORY: Memory = Memory {
    cqs: [Cq::NEW; 1],
    cqes: [const { Cqe::NEW }; DEPTH],
    qps: [Qp::NEW; 1],
    wqes: [const { Wqe::NEW }; DEPTH],
    chain: ChainStorage::new(),
    storage: EngineStorage::new(),
    page: [0; PAGE],
};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    #[link(name = "c")]
    unsafe extern "C" {
        safe fn abort() -> !;
    }
    abort()
}

#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    match read_a_page() {
        Ok(()) => 0,
        Err(step) => step,
    }
}

fn read_a_page() -> Result<(), c_int> {
    // SAFETY: `main` calls this function once, and nothing else names `MEMORY`.
    let memory: &'static mut Memory = unsafe { &mut *(&raw mut MEMORY) };
    let Memory { cqs, cqes, qps, wqes, chain, storage, page } = memory;
    let rails = NullRails::new(NullParts { cqs, cqes, qps, wqes }, chain).map_err(|_| 1)?;
    let mut engine = Engine::start(storage, rails, EngineConfig::DEFAULT).map_err(|_| 2)?;
    let slot = engine.register(page, PAGE as u64).map_err(|_| 3)?.next().ok_or(4)?;
    let peer = engine.add_peer().map_err(|_| 5)?;
    let offer = RegionOffer {
        base: 0x7000_0000,
        page_bytes: PAGE as u64,
        stride: PAGE as u64,
        slots: 1,
        keys: [7; MAX_RAILS],
        table: None,
    };
    let region = engine.add_region(peer, &offer).map_err(|_| 6)?;
    let lane = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: DEPTH as u32 };
    engine.attach(peer, lane, (), Time::ZERO).map_err(|_| 7)?;

    let mut batch = engine.batch().ok_or(8)?;
    batch.read(region.unvalidated(0).map_err(|_| 9)?, slot).map_err(|_| 10)?;
    engine.submit(batch, Time(1), Time(1) + Nanos::from_secs(1)).map_err(|_| 11)?;
    engine.poll(Time(2));
    let mut done = engine.next_done().ok_or(12)?;
    let page = done.pages().next().ok_or(13)?;
    page.result.map_err(|_| 14)
}
