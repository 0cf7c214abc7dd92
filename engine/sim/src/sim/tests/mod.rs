//! The model behaves as QPs, NICs and peers do: what the tests share.
#![allow(unsafe_code, reason = "a test promises that the memory may be written")]

mod faults;
mod order;
mod rates;
mod release;

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post, Provider, ProviderEvent, RailKeys, Read, WaitFor};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::{Wc, WcStatus};

use super::*;

/// The address of the peers' memory, for the peers.
const BASE: u64 = 0x7000_0000_0000;
const RKEY: u32 = 0x55;
const MIB: usize = 1 << 20;

type Room = SimStorage<4, 2, 8, 64, 256>;

/// A model, its provider, and memory on both sides. The memory is leaked, since a test is short.
struct Bench {
    sim: &'static Sim<'static>,
    rails: SimRails<'static>,
    peer: PeerHandle,
    memory: MemoryHandle,
    ours: *mut u8,
    len: usize,
    keys: RailKeys,
    /// The completions so far, each with the time at which it was polled.
    seen: Vec<(u64, Wc)>,
}

/// A lane as an engine has it.
struct Lane {
    lane: SimLane,
    id: LaneId,
    rail: RailIndex,
    next: u32,
}

fn rail() -> RailSpec {
    RailSpec { cq_entries: 256, ..RailSpec::GBITS_400 }
}

impl Bench {
    fn new(config: SimConfig, rails: &[RailSpec]) -> Self {
        Self::sized(config, rails, MIB)
    }

    /// With `len` bytes on both sides.
    fn sized(config: SimConfig, rails: &[RailSpec], len: usize) -> Self {
        let storage = Box::leak(Box::new(Room::new()));
        let sim: &'static Sim<'static> = Box::leak(Box::new(Sim::new(storage, config, rails).unwrap()));
        let theirs: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let peer = sim.add_peer().unwrap();
        let memory = sim.publish(peer, BASE, theirs.leak(), [RKEY; 16]).unwrap();
        let ours = vec![0_u8; len].leak();
        let (ours, len) = (ours.as_mut_ptr(), ours.len());
        let mut rails = sim.rails();
        let range = MemoryRange { addr: ours.expose_provenance() as u64, len: len as u64 };
        let keys = rails.register(range).unwrap();
        Self { sim, rails, peer, memory, ours, len, keys, seen: Vec::new() }
    }

    fn range(&self) -> MemoryRange {
        MemoryRange { addr: self.ours as u64, len: self.len as u64 }
    }

    fn lane(&mut self, index: u16, rail: u8, spec: SimLaneSpec) -> Lane {
        let rail = RailIndex(rail);
        let qp = self.sim.connect(rail, self.peer, RailIndex(0), spec).unwrap();
        let id = LaneId::new(index, 1);
        Lane { lane: self.rails.open(id, rail, qp).unwrap(), id, rail, next: 0 }
    }

    /// A READ of `len` bytes at `offset`, to the same offset.
    fn read(&self, lane: &Lane, offset: usize, len: u32) -> Read {
        Read {
            wr_id: WrId::new(lane.id, lane.next),
            remote_addr: BASE + offset as u64,
            local_addr: self.ours as u64 + offset as u64,
            len,
            rkey: RKEY,
            lkey: self.keys[lane.rail.get()],
            signaled: true,
        }
    }

    /// Posts `n` READs of `len` bytes, each signaled, as one commit.
    fn post(&mut self, lane: &mut Lane, n: u32, len: u32) -> Commit {
        self.post_with(lane, n, len, |_, _| {})
    }

    fn post_with(&mut self, lane: &mut Lane, n: u32, len: u32, edit: impl Fn(u32, &mut Read)) -> Commit {
        let mut reads = Vec::new();
        for i in 0..n {
            let mut read =
                self.read(lane, (lane.next as usize * len as usize) % (self.len - len as usize), len);
            edit(i, &mut read);
            reads.push(read);
            lane.next += 1;
        }
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        let mut post = unsafe { self.rails.begin(&mut lane.lane) };
        for read in reads {
            post.read(read);
        }
        post.commit()
    }

    /// Takes the completions that have come.
    fn poll(&mut self) {
        let now = self.sim.now().0;
        let mut wcs = [Wc::default(); 7];
        for rail in 0..self.rails.rails() {
            loop {
                let n = self.rails.poll(RailIndex(rail as u8), &mut wcs);
                self.seen.extend(wcs[..n].iter().map(|wc| (now, *wc)));
                if n == 0 {
                    break;
                }
            }
        }
    }

    /// Steps until nothing happens any more, and polls after every step.
    fn run(&mut self) {
        while self.sim.step() {
            self.poll();
        }
    }

    /// (sequence number, status) of the completions, in order.
    fn statuses(&self) -> Vec<(u32, WcStatus)> {
        self.seen.iter().map(|(_, wc)| (wc.wr_id().seq(), wc.status())).collect()
    }

    fn events(&mut self) -> Vec<ProviderEvent> {
        std::iter::from_fn(|| self.rails.next_event()).collect()
    }

    fn ours(&mut self) -> &[u8] {
        // SAFETY: the bytes are leaked, so they stay valid. The model writes them only when the
        // clock moves, for which `self` is borrowed again.
        unsafe { std::slice::from_raw_parts(self.ours, self.len) }
    }
}

const SPEC: SimLaneSpec = SimLaneSpec { sq_entries: 64, rd_atomic: 16 };

/// n successes from sequence number `first`.
fn successes(first: u32, n: u32) -> impl Iterator<Item = (u32, WcStatus)> {
    (first..first + n).map(|seq| (seq, WcStatus::SUCCESS))
}

/// Flushes from sequence number `first` to before `end`.
fn flushes(first: u32, end: u32) -> impl Iterator<Item = (u32, WcStatus)> {
    (first..end).map(|seq| (seq, WcStatus::WR_FLUSH_ERR))
}
