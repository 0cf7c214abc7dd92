//! The producer: it hands requests over layer by layer, and aborts some at random.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvrail::session::handover::{HandoverId, RequestId};
use kvrail::{KeyTag, Publisher, shm};

use super::{AT_ONCE, BLOCKS, LAYERS, MLA, PART, key, pattern};

/// Random enough to meet readers at every point.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A request that is being handed over.
struct Open {
    id: HandoverId,
    slots: Vec<u32>,
    /// Layers that are ready.
    layers: u32,
}

static OVER: AtomicBool = AtomicBool::new(false);

/// Produces until the standard input is closed.
pub(crate) fn run() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        OVER.store(true, Ordering::Relaxed);
    });
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let over = shm::publish(2);
    let publisher = Publisher::start(name, MLA, AT_ONCE * BLOCKS, &listen, key(), over).unwrap();
    println!("{}", publisher.local_addr());
    let mut rng = Rng(0x5EED);
    let mut free: Vec<u32> = (0..publisher.slots()).collect();
    let (mut open, mut requests): (Vec<Open>, u64) = (Vec::new(), 0);
    while !OVER.load(Ordering::Relaxed) {
        while let Some(ended) = publisher.next_ended_handover() {
            open.retain(|request| request.id != ended.id);
            free.extend(ended.blocks.iter().map(|block| block.slot));
        }
        if free.len() >= BLOCKS as usize {
            requests += 1;
            let slots = free.split_off(free.len() - BLOCKS as usize);
            open.push(begin(&publisher, requests, slots));
        }
        if open.is_empty() {
            continue;
        }
        let at = rng.below(open.len() as u64) as usize;
        let request = &mut open[at];
        if rng.below(60) == 0 {
            // Its slots come back at once, and are written at once, whatever the reader does.
            publisher.handovers().abort(request.id).ok();
        } else if request.layers < LAYERS {
            grow(&publisher, request);
        } else if open.iter().all(|request| request.layers == LAYERS) {
            // The reader has to read first.
            let outcome = publisher.handovers();
            let until = Instant::now() + Duration::from_millis(5);
            while outcome.open_count() == open.len() && Instant::now() < until {
                std::thread::yield_now();
            }
        }
    }
}

fn begin(publisher: &Publisher, request: u64, slots: Vec<u32>) -> Open {
    let handovers = publisher.handovers();
    let id = handovers.open(RequestId(request.into())).unwrap();
    let blocks: Vec<_> = slots
        .iter()
        .map(|&slot| {
            publisher.begin(slot, KeyTag(u128::from(request) << 64 | u128::from(slot))).unwrap();
            publisher.block(slot).unwrap().unwrap()
        })
        .collect();
    handovers.append(id, &blocks).unwrap();
    Open { id, slots, layers: 0 }
}

/// Writes the next layer of each block, and says that it is ready.
fn grow(publisher: &Publisher, request: &mut Open) {
    let layer = request.layers;
    for &slot in &request.slots {
        let tag = publisher.location(slot).unwrap().unwrap().expected.tag;
        let fill = |page: &mut [u8]| pattern::fill(&mut page[layer as usize * PART..][..PART], tag, layer);
        if layer + 1 == LAYERS {
            publisher.finish(slot, fill).unwrap();
        } else {
            publisher.set_ready(slot, layer + 1, fill).unwrap();
        }
    }
    request.layers += 1;
    let handovers = publisher.handovers();
    // The reader may have given the request up meanwhile.
    let parts = if request.layers == LAYERS { u32::MAX } else { request.layers };
    if handovers.set_ready(request.id, 0..BLOCKS, parts).is_ok() && request.layers == LAYERS {
        handovers.complete(request.id).ok();
    }
}
