//! A device finds in a chain what the engine posted: arbitrary commits through the chain encoder,
//! and arbitrary batches through an engine over it.

use std::collections::HashMap;

use crate::device::{Answer, ENOMEM, walk};
use crate::rails::{Fate, Rails, byte_at};
use arbitrary::Arbitrary;
use kvrail_core::batch::Class;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::{MAX_RAILS, RailIndex, WrId};
use kvrail_core::memory::{Access, Slot};
use kvrail_core::provider::{Commit, MemoryRange, Read};
use kvrail_core::remote::RegionOffer;
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::{Chain, ChainStorage};

#[derive(Arbitrary, Debug)]
pub enum Input {
    /// Commits, one after the other, on one chain.
    Encoder(Vec<(Vec<AnyRead>, Answer)>),
    /// Batches through an engine.
    Engine(Box<EngineRun>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct AnyRead {
    wr_id: u64,
    remote_addr: u64,
    local_addr: u64,
    len: u32,
    rkey: u32,
    lkey: u32,
    signaled: bool,
}

#[derive(Arbitrary, Debug)]
pub struct EngineRun {
    chunk_shift: u8,
    run_chunks: u8,
    signal_wrs: u8,
    signal_kib: u8,
    rail_wrs: u8,
    rails: u8,
    lanes: u8,
    depth: u8,
    answers: Vec<Answer>,
    fates: Vec<Fate>,
    paces: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
pub enum Step {
    Submit {
        pages: Vec<Page>,
        background: bool,
        micros: u16,
    },
    Poll {
        micros: u8,
    },
    /// Makes a lane that the engine wants.
    Reconnect,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Page {
    peer: bool,
    slot: u8,
    offset: u16,
    len: u16,
}

/// Runs the target.
pub fn run(input: &Input) {
    match input {
        Input::Encoder(commits) => encode(commits),
        Input::Engine(script) => run_engine(script),
    }
}

fn encode(commits: &[(Vec<AnyRead>, Answer)]) {
    const N: usize = 8;
    let mut storage = ChainStorage::<N>::new();
    let mut chain = Chain::new(&mut storage);
    for (reads, answer) in commits {
        let reads: Vec<Read> = reads.iter().take(N).map(|&read| read.into()).collect();
        let mut posting = chain.begin();
        for (i, read) in reads.iter().enumerate() {
            assert_eq!((posting.len(), posting.is_empty()), (i, i == 0));
            posting.push(read);
        }
        let (mut calls, mut accepted) = (0, 0);
        let commit = posting.post(|head| {
            calls += 1;
            // SAFETY: a chain of core's, alive during this call.
            let found = unsafe { walk(head, N) };
            assert_eq!(found, reads);
            let (returned, count) = answer.give(head, found.len());
            accepted = count as u32;
            returned
        });
        let expected = match answer {
            _ if reads.is_empty() => Commit::All,
            Answer::Taken => Commit::All,
            Answer::Refused { .. } => Commit::Prefix { accepted, errno: ENOMEM },
            Answer::Silent { .. } | Answer::Nonsense { .. } => Commit::Unknown { errno: ENOMEM },
        };
        assert_eq!((calls, commit), (usize::from(!reads.is_empty()), expected));
    }
}

impl From<AnyRead> for Read {
    fn from(any: AnyRead) -> Self {
        let AnyRead { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled } = any;
        Self { wr_id: WrId(wr_id), remote_addr, local_addr, len, rkey, lkey, signaled }
    }
}

const SLOTS: usize = 24;
const PAGE: u32 = 24_000;
const DEPTH: usize = 32;
const LANES: usize = 12;
const PEERS: usize = 2;

type State = EngineStorage<PEERS, PEERS, { 2 * LANES }, DEPTH, 4, 8>;

impl EngineRun {
    fn config(&self) -> EngineConfig {
        EngineConfig {
            // 4 to 32 KiB: up to six chunks a page.
            chunk_bytes: 4096 << (self.chunk_shift % 4),
            run_chunks: 1 + u32::from(self.run_chunks % 16),
            run_bytes: 64 << 10,
            quantum_bytes: 32 << 10,
            signal_wrs: 1 + u32::from(self.signal_wrs % 16),
            signal_bytes: (1 + u32::from(self.signal_kib % 64)) << 10,
            rail_bytes: 256 << 10,
            rail_wrs: 1 + u32::from(self.rail_wrs % 64),
            stall: Nanos::from_millis(10),
            drain: Nanos::from_millis(10),
            backoff_min: Nanos::from_micros(10),
            backoff_max: Nanos::from_millis(1),
            ..EngineConfig::DEFAULT
        }
    }
}

fn base(peer: usize) -> u64 {
    0x5000_0000 + ((peer as u64) << 40)
}

fn run_engine(script: &EngineRun) {
    let config = script.config();
    let rails = 1 + usize::from(script.rails % 3);
    let lanes = 1 + usize::from(script.lanes % 2);
    let depth = 2 + u32::from(script.depth) % (DEPTH as u32 - 1);
    let mut memory = vec![0_u8; SLOTS * PAGE as usize].into_boxed_slice();
    let range =
        MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 };
    let mut chain = ChainStorage::new();
    let (answers, fates) = (script.answers.clone(), script.fates.clone());
    let provider = Rails::new(&mut chain, rails, config, answers, fates, script.paces.clone());
    let mut state = Box::new(State::new());
    // SAFETY: the storage is declared before the engine, which is not forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut *state, provider, config) }.unwrap();
    // SAFETY: `memory` outlives the engine, and only the slots give access to it.
    let slots = unsafe { engine.register_foreign(range, u64::from(PAGE), Access::Host, None) }.unwrap();
    let mut slots: Vec<Slot> = slots.collect();

    let mut now = Time(1);
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let peer = engine.add_peer().unwrap();
        let offer = RegionOffer {
            base: base(number),
            page_bytes: u64::from(PAGE),
            stride: u64::from(PAGE) + 96,
            slots: 256,
            keys: [9; MAX_RAILS],
            table: None,
        };
        let region = engine.add_region(peer, &offer).unwrap();
        for rail in 0..rails {
            for _ in 0..lanes {
                let spec = LaneSpec { rail: RailIndex(rail as u8), remote_rail: rail as u8, depth };
                engine.attach(peer, spec, depth as usize, now).unwrap();
            }
        }
        peers.push((peer, region));
    }

    // By tag: what each page of the batch should be. (address, bytes)
    let mut expected: HashMap<u64, Vec<(u64, u32)>> = HashMap::new();
    let mut tag = 0;
    let finish = |engine: &mut Engine<'_, Rails<'_>>,
                  expected: &mut HashMap<u64, Vec<(u64, u32)>>,
                  slots: &mut Vec<Slot>| {
        while engine.next_overdue().is_some() {}
        while let Some(mut done) = engine.next_done() {
            let pages = expected.remove(&done.tag()).expect("a batch is done once");
            let mut count = 0;
            for (page, (addr, len)) in done.pages().zip(pages.iter()) {
                count += 1;
                match page.result() {
                    Ok(()) => {
                        let bytes = &page.slot.bytes().unwrap()[..*len as usize];
                        let wrong = (*addr..).zip(bytes).position(|(at, &byte)| byte != byte_at(at));
                        assert_eq!(wrong, None, "page {} at {addr:#x}", page.index);
                    }
                    Err(PageError::Deadline { missing, chunks, .. }) => {
                        assert_eq!(chunks, len.div_ceil(config.chunk_bytes));
                        assert!(missing >= 1 && missing <= chunks, "{missing} of {chunks}");
                    }
                    Err(PageError::Fault { .. } | PageError::SetAside { .. } | PageError::NoLane { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                slots.push(page.slot);
            }
            assert_eq!(count, pages.len());
        }
    };

    for step in script.steps.iter().take(64) {
        match step {
            Step::Submit { pages, background, micros } => {
                let Some(mut batch) = engine.batch() else { continue };
                let mut wanted = Vec::new();
                for page in pages.iter().take(8) {
                    let Some(slot) = slots.pop() else { break };
                    let number = usize::from(page.peer);
                    let offset = u32::from(page.offset) % PAGE;
                    let len = 1 + u32::from(page.len) % (PAGE - offset);
                    let remote = peers[number].1.unvalidated(page.slot.into()).unwrap();
                    batch.read(remote.part(offset, len).unwrap(), slot).map_err(|(error, _)| error).unwrap();
                    let addr =
                        base(number) + u64::from(page.slot) * (u64::from(PAGE) + 96) + u64::from(offset);
                    wanted.push((addr, len));
                }
                tag += 1;
                batch.set_tag(tag);
                batch.set_class(if *background { Class::Background } else { Class::Urgent });
                let empty = wanted.is_empty();
                let deadline = now + Nanos::from_micros(1 + u64::from(*micros));
                match engine.submit(batch, now, deadline) {
                    Ok(_) => assert!(expected.insert(tag, wanted).is_none() && !empty),
                    Err(mut rejected) => {
                        assert_eq!(rejected.batch.len(), wanted.len());
                        slots.extend(rejected.batch.clear());
                    }
                }
            }
            Step::Poll { micros } => {
                now = now + Nanos::from_micros(u64::from(*micros));
                engine.poll(now);
            }
            Step::Reconnect => {
                if let Some(wanted) = engine.next_wanted_lane(now) {
                    let spec = LaneSpec { rail: wanted.rail, remote_rail: wanted.remote_rail, depth };
                    if engine.attach(wanted.peer, spec, depth as usize, now).is_err() {
                        engine.lane_unavailable(wanted, now);
                    }
                }
            }
        }
        finish(&mut engine, &mut expected, &mut slots);
    }

    // All of it ends, and is accounted for: every slot is back, and nothing is outstanding.
    engine.provider().healed.set(true);
    for round in 0.. {
        engine.poll(now);
        finish(&mut engine, &mut expected, &mut slots);
        if engine.in_flight() == 0 && engine.outstanding() == 0 && engine.lanes_dying() == 0 {
            break;
        }
        assert!(round < 1_000, "{engine:?} does not end");
        now = now + Nanos::from_micros(500);
    }
    assert!(expected.is_empty());
    assert_eq!((slots.len(), engine.batches_free()), (SLOTS, 4));
    let provider = engine.provider();
    assert_eq!(provider.taken, provider.ended);
}
