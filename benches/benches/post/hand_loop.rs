//! The loop that one writes without an engine: it posts READs to lanes in turn, checks and counts
//! nothing, and expects no failure.
#![allow(unsafe_code, reason = "posts without an engine")]

use std::time::{Duration, Instant};

use kvrail::core::id::{LaneId, RailIndex, WrId};
use kvrail::core::provider::{Commit, Post, Provider, Read};
use kvrail::core::verbs_abi::Wc;
use kvrail_sim::null::NullLane;

use crate::workload::{BATCH, DEEP, Null, PAGE, REMOTE, SHALLOW, null};

/// A hand-written loop.
pub struct Loop {
    rails: Null,
    lanes: Vec<NullLane<'static>>,
    rail_count: usize,
    next: usize,
    /// wrs per commit.
    run: usize,
    wcs: [Wc; 32],
    /// Destination buffers that nothing is read into, by number; where they start; those in use.
    free: Vec<u32>,
    memory: u64,
    flying: Vec<u32>,
    /// READs whose addresses are worked out already.
    ready: Vec<(u64, u64)>,
}

impl Loop {
    /// Lanes spread over the rails; each gets `run` READs in its turn, a part of a batch.
    pub fn new(rails: usize, lanes: usize, run: usize) -> Self {
        let depth = if lanes == 1 { DEEP } else { SHALLOW };
        let mut null = null(rails, lanes, depth);
        let lanes = (0..lanes)
            .map(|i| {
                null.open(LaneId::new(i as u16, 1), RailIndex((i % rails) as u8), ()).expect("a free lane")
            })
            .collect();
        let memory = vec![0_u8; 16 * BATCH * PAGE as usize].leak().as_mut_ptr().expose_provenance() as u64;
        Self {
            rails: null,
            lanes,
            rail_count: rails,
            next: 0,
            run,
            wcs: [Wc::default(); 32],
            free: (0..16 * BATCH as u32).collect(),
            memory,
            flying: Vec::with_capacity(16 * BATCH),
            ready: (0..BATCH as u64).map(|i| (REMOTE + i * PAGE, memory + i * PAGE)).collect(),
        }
    }

    /// `times` times reads `batches` batches of 32 remote pages, each into a free buffer, and takes
    /// the buffers back.
    pub fn whole(&mut self, batches: usize, times: usize) -> Duration {
        let start = Instant::now();
        (0..times).for_each(|_| self.read_into_buffers(batches));
        start.elapsed()
    }

    /// The same without the buffers: posts READs that are ready, and takes their completions.
    pub fn proper(&mut self, batches: usize, times: usize) -> Duration {
        let start = Instant::now();
        (0..times).for_each(|_| self.post_and_poll(batches));
        start.elapsed()
    }

    #[inline(never)]
    fn read_into_buffers(&mut self, batches: usize) {
        for _ in 0..batches {
            for first in (0..BATCH).step_by(self.run) {
                let lane = self.turn();
                // SAFETY: the null device moves no bytes.
                let mut post = unsafe { self.rails.begin(&mut self.lanes[lane]) };
                for i in first..first + self.run {
                    let buffer = self.free.pop().expect("a free buffer");
                    self.flying.push(buffer);
                    let remote_addr = REMOTE + i as u64 * PAGE;
                    let local_addr = self.memory + u64::from(buffer) * PAGE;
                    post.read(read(lane, i, remote_addr, local_addr, i + 1 == first + self.run));
                }
                assert_eq!(post.commit(), Commit::All);
            }
        }
        self.complete(batches);
        self.free.append(&mut self.flying);
    }

    #[inline(never)]
    fn post_and_poll(&mut self, batches: usize) {
        for _ in 0..batches {
            for first in (0..BATCH).step_by(self.run) {
                let lane = self.turn();
                // SAFETY: the null device moves no bytes.
                let mut post = unsafe { self.rails.begin(&mut self.lanes[lane]) };
                for (i, &(remote_addr, local_addr)) in self.ready[first..][..self.run].iter().enumerate() {
                    post.read(read(lane, first + i, remote_addr, local_addr, i + 1 == self.run));
                }
                assert_eq!(post.commit(), Commit::All);
            }
        }
        self.complete(batches);
    }

    fn turn(&mut self) -> usize {
        let lane = self.next;
        self.next = if lane + 1 == self.lanes.len() { 0 } else { lane + 1 };
        lane
    }

    fn complete(&mut self, batches: usize) {
        let mut seen = 0;
        for rail in 0..self.rail_count {
            loop {
                let n = self.rails.poll(RailIndex(rail as u8), &mut self.wcs);
                seen += self.wcs[..n].iter().filter(|wc| wc.status().is_success()).count();
                if n < self.wcs.len() {
                    break;
                }
            }
        }
        assert_eq!(seen, batches * BATCH / self.run);
    }
}

fn read(lane: usize, i: usize, remote_addr: u64, local_addr: u64, signaled: bool) -> Read {
    let wr_id = WrId::new(LaneId::new(lane as u16, 0), i as u32);
    Read { wr_id, remote_addr, local_addr, len: PAGE as u32, rkey: 7, lkey: 9, signaled }
}
