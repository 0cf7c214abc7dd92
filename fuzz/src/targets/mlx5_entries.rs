//! What the engine says is what the device finds: commits through kvrail-mlx5 over the model of a
//! ConnectX, which also writes completions that cannot be right.
//!
//! The oracle below knows each wr by the block at which it begins, and decides by that alone which
//! completions may be believed.

use std::collections::VecDeque;

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{
    Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Provider, ProviderEvent, Read, UniformReads,
};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_mlx5::Syndrome;
use kvrail_mlx5_device::{Device, Fate, Found, MemoryMap, Mlx5Lane, Mlx5Rails};

use crate::bytes::Bytes;

const RAILS: usize = 2;
const LANES: usize = 5;
const BLOCKS: u32 = 16;
const CQ: u32 = 256;
/// Steps of one input.
const STEPS: usize = 400;

/// A wr that was posted and that no completion covers.
#[derive(Clone, Debug)]
struct Posted {
    wr_id: WrId,
    begin: u32,
    blocks: u32,
}

/// What the device must find.
#[derive(Clone, Debug)]
struct Expected {
    begin: u32,
    remote_addr: u64,
    rkey: u32,
    /// Address, length and key.
    pieces: Vec<(u64, u32, u32)>,
    signaled: bool,
}

/// A completion queue entry of a lane, in the order in which they were written.
#[derive(Clone, Copy, Debug)]
struct Written {
    last: u64,
    before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    All,
    /// An error was seen.
    Errors,
    Nothing,
}

#[derive(Debug)]
struct Lane {
    lane: Mlx5Lane,
    id: LaneId,
    rail: usize,
    next: u32,
    head: u32,
    open: VecDeque<Posted>,
    not_found: VecDeque<Expected>,
    written: VecDeque<Written>,
    belief: Belief,
    /// Whether the device has completed what it had not carried out: its entries must not be
    /// overwritten then.
    lied: bool,
}

struct World {
    rails: Mlx5Rails,
    lanes: Vec<Option<Lane>>,
    opened: u32,
}

/// Runs the target. Each step is a byte that names it, and the numbers that it needs.
pub fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    let mut device = Device::new(RAILS, CQ, MemoryMap::still());
    device.record_found();
    let rails = Mlx5Rails::new(device, RAILS, CQ, (LANES, BLOCKS)).expect("numbers in their ranges");
    let mut world = World { rails, lanes: (0..LANES).map(|_| None).collect(), opened: 0 };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.finish();
}

fn long(input: &mut Bytes<'_>) -> u64 {
    (0..4).fold(0, |value, _| value << 16 | u64::from(input.short()))
}

impl World {
    fn step(&mut self, input: &mut Bytes<'_>) {
        let step = input.byte();
        let at = usize::from(input.byte()) % LANES;
        match step % 8 {
            0..=2 => self.post(at, step % 8, input),
            3 => {
                self.rails.set_pace(1 + usize::from(input.byte() % 12));
                self.poll(usize::from(input.byte()) % RAILS, 1 + usize::from(input.byte() % 9));
            }
            4 => {
                let fates = (0..input.byte() % 16).map(|_| Fate::Fine);
                self.rails.device().plan(fates.collect::<Vec<_>>());
                let (syndrome, vendor) = (input.byte(), input.byte());
                self.rails.device().plan([Fate::Fails(syndrome, vendor)]);
            }
            5 => self.write_anything(at, input),
            6 => self.fail_or_drain(at, input),
            _ => self.close(at),
        }
    }

    fn lane(&mut self, at: usize) -> &mut Lane {
        if self.lanes[at].is_none() {
            self.opened += 1;
            let (id, rail) = (LaneId::new(at as u16, self.opened), at % RAILS);
            let lane = self.rails.open(id, RailIndex(rail as u8), ()).expect("a place for each lane");
            self.lanes[at] = Some(Lane {
                lane,
                id,
                rail,
                next: 0,
                head: 0,
                open: VecDeque::new(),
                not_found: VecDeque::new(),
                written: VecDeque::new(),
                belief: Belief::All,
                lied: false,
            });
        }
        self.lanes[at].as_mut().expect("opened just now")
    }

    fn post(&mut self, at: usize, kind: u8, input: &mut Bytes<'_>) {
        if self.lane(at).lied {
            return;
        }
        let count = u32::from(input.byte() % 20);
        let (remote_addr, local_addr) = (long(input), long(input));
        let (rkey, lkey, len) = (input.short().into(), input.short().into(), 1 + u32::from(input.short()));
        let flags = input.short();
        let Self { rails, lanes, .. } = self;
        let lane = lanes[at].as_mut().expect("opened above");
        let wr_id = WrId::new(lane.id, lane.next);
        let first = Read { wr_id, remote_addr, local_addr, len, rkey, lkey, signaled: flags & 1 != 0 };
        let nth = |i: u32| Read {
            wr_id: wr_id.nth(i),
            remote_addr: remote_addr.wrapping_add(u64::from(i) * 0x1_0001),
            local_addr: local_addr.wrapping_sub(u64::from(i) * 0x101),
            ..first
        };
        // Each with its pieces, some of them without bytes.
        let mut wanted: Vec<(Read, Vec<Piece>)> = Vec::new();
        // SAFETY: the device moves no bytes.
        let mut post = unsafe { rails.begin(&mut lane.lane) };
        match kind {
            0 => {
                for i in 0..count {
                    let signaled = flags >> (i % 16) & 1 != 0;
                    let read = Read { signaled, ..nth(i) };
                    let pieces: Vec<Piece> = match flags >> 8 {
                        0 => vec![Piece { addr: read.local_addr, len }],
                        some => (0..2 + u32::from(some) % 15)
                            .map(|p| Piece { addr: local_addr ^ u64::from(p), len: (len * p) % 5 })
                            .collect(),
                    };
                    if let [_] = pieces[..] {
                        post.read(read);
                    } else {
                        post.scatter(read, &pieces);
                    }
                    wanted.push((read, pieces));
                }
            }
            1 => {
                let all = UniformReads { wr_id, len, rkey, lkey };
                let reads: Vec<Read> =
                    (0..count).map(|i| Read { signaled: i + 1 == count, ..nth(i) }).collect();
                let ends =
                    reads.iter().map(|r| Ends { remote_addr: r.remote_addr, local_addr: r.local_addr });
                post.read_uniform(all, ends);
                wanted.extend(reads.iter().map(|r| (*r, vec![Piece { addr: r.local_addr, len }])));
            }
            _ => {
                let all = KeyedReads { wr_id, len, count, signaled: flags & 1 != 0 };
                let reads: Vec<Read> = (0..count)
                    .map(|i| {
                        let signaled = all.signaled && i + 1 == count;
                        Read { signaled, rkey: rkey ^ i, lkey: lkey ^ (i << 8), ..nth(i) }
                    })
                    .collect();
                let ends = reads.iter().map(|r| KeyedEnds {
                    remote_addr: r.remote_addr,
                    rkey: r.rkey,
                    local_addr: r.local_addr,
                    lkey: r.lkey,
                });
                post.read_keyed(all, ends);
                wanted.extend(reads.iter().map(|r| (*r, vec![Piece { addr: r.local_addr, len }])));
            }
        }
        if flags & 2 != 0 && flags & 4 != 0 {
            // Dropped: nothing was posted.
            return;
        }
        let commit = post.commit();
        let accepted = lane.accept(&wanted);
        let expected = match accepted {
            _ if accepted == wanted.len() => Commit::All,
            _ if lane.belief == Belief::Nothing => Commit::Prefix { accepted: 0, errno: 5 },
            some => Commit::Prefix { accepted: some as u32, errno: 12 },
        };
        assert_eq!(commit, expected, "{wanted:?}");
        lane.next += accepted as u32;
    }

    /// The device writes a completion of its own accord.
    fn write_anything(&mut self, at: usize, input: &mut Bytes<'_>) {
        let rail = self.lane(at).rail;
        let (kind, mut last, before) = (input.byte(), long(input), long(input));
        if last >> 4 & 0xF == 0xF {
            // An entry that was not written.
            last ^= 0x80;
        }
        let Self { rails, lanes, .. } = self;
        let lane = lanes[at].as_mut().expect("opened above");
        if rails.device().unread(rail) > CQ / 4 {
            return;
        }
        if kind & 1 != 0 {
            last = last & !(0xFF_FFFF << 32) | u64::from(lane.lane.qp_num()) << 32;
        }
        if kind & 2 != 0 {
            // One that could be right.
            last = last & !(0xFF << 56) & !0xFE | 0x10 << 56;
        }
        if kind & 4 != 0 {
            last =
                last & !(0xFFFF << 16) | u64::from(lane.head.wrapping_sub(u32::from(kind >> 4)) as u16) << 16;
        }
        rails.device().write_completion(rail, last, before);
        let number = (last >> 32) as u32 & 0xFF_FFFF;
        let of = lanes.iter_mut().flatten().find(|l| l.rail == rail && l.lane.qp_num() == number);
        if let Some(lane) = of {
            lane.lied = true;
            lane.written.push_back(Written { last, before });
        }
    }

    fn fail_or_drain(&mut self, at: usize, input: &mut Bytes<'_>) {
        let drain = input.byte() & 1 != 0;
        if self.lane(at).lied {
            return;
        }
        let Self { rails, lanes, .. } = self;
        let lane = lanes[at].as_mut().expect("opened above");
        if !drain {
            rails.fail(&mut lane.lane);
            assert_eq!(rails.next_event(), Some(ProviderEvent::LaneFailed(lane.id)));
            return;
        }
        let wr_id = WrId::new(lane.id, lane.next);
        let read = Read { wr_id, remote_addr: 0, local_addr: 0, len: 0, rkey: 0, lkey: 0, signaled: true };
        let posted = rails.drain(&mut lane.lane, wr_id);
        let accepted = lane.accept(&[(read, Vec::new())]);
        let errno = if lane.belief == Belief::Nothing { 5 } else { 12 };
        assert_eq!(posted, if accepted == 1 { Ok(()) } else { Err(errno) });
        lane.next += accepted as u32;
    }

    /// Its completions stay in the queue, and its number goes to the next QP.
    fn close(&mut self, at: usize) {
        let rail = self.lane(at).rail;
        if self.rails.device().unread(rail) > CQ / 4 {
            return;
        }
        let lane = self.lanes[at].take().expect("opened above");
        self.rails.close(lane.lane);
        assert_eq!(self.rails.next_event(), Some(ProviderEvent::LaneClosed(lane.id)));
    }

    /// Polls a rail, and compares what comes with what the oracle makes of what was written.
    fn poll(&mut self, rail: usize, room: usize) -> usize {
        let mut out = vec![Wc::default(); room];
        let n = self.rails.poll(RailIndex(rail as u8), &mut out);
        for found in self.rails.device().take_found() {
            let lane = self.lanes.iter_mut().flatten();
            let lane = lane.into_iter().find(|l| l.rail == rail && l.lane.qp_num() == found.qp_num);
            lane.expect("the QP of an open lane").found(&found);
        }
        for wc in &out[..n] {
            let lane = self.lanes.iter_mut().flatten().find(|l| l.id == wc.wr_id().lane());
            let lane = lane.unwrap_or_else(|| panic!("{wc:?} of a lane that is closed"));
            assert_eq!((lane.rail, lane.lane.qp_num()), (rail, wc.qp_num()));
            let told = (wc.wr_id(), wc.status(), wc.vendor_err());
            assert_eq!(lane.told(), Some(told), "{lane:?}");
        }
        if n < room {
            // The queue is empty, so nothing that was written is left to be told.
            for lane in self.lanes.iter_mut().flatten().filter(|lane| lane.rail == rail) {
                assert_eq!(lane.told(), None, "{lane:?}");
            }
            assert_eq!(self.rails.device().unread(rail), 0);
        }
        n
    }

    fn finish(&mut self) {
        self.rails.set_pace(usize::MAX);
        for rail in 0..RAILS {
            while self.poll(rail, 7) == 7 {}
        }
        for lane in self.lanes.iter().flatten() {
            assert!(lane.not_found.is_empty(), "posted and not found: {lane:?}");
        }
    }
}

impl Lane {
    /// How many of these READs the send queue takes; they are posted then.
    fn accept(&mut self, wanted: &[(Read, Vec<Piece>)]) -> usize {
        if self.belief == Belief::Nothing {
            return 0;
        }
        let mut accepted = 0;
        for (read, pieces) in wanted {
            let filled: Vec<_> = pieces.iter().filter(|p| p.len > 0).collect();
            let blocks = (2 + filled.len() as u32).div_ceil(4);
            let used = self.open.front().map_or(0, |oldest| self.head.wrapping_sub(oldest.begin));
            if used + blocks > BLOCKS {
                break;
            }
            let begin = self.head;
            self.open.push_back(Posted { wr_id: read.wr_id, begin, blocks });
            self.not_found.push_back(Expected {
                begin,
                remote_addr: read.remote_addr,
                rkey: read.rkey,
                pieces: filled.iter().map(|p| (p.addr, p.len, read.lkey)).collect(),
                signaled: read.signaled,
            });
            self.head = self.head.wrapping_add(blocks);
            accepted += 1;
        }
        accepted
    }

    /// The device has found an entry: the next that was posted, field by field.
    fn found(&mut self, found: &Found) {
        let expected = self.not_found.pop_front().expect("nothing else was posted");
        assert_eq!(found.index, expected.begin as u16);
        assert_eq!((found.remote_addr, found.rkey), (expected.remote_addr, expected.rkey));
        let pieces: Vec<_> = found.pieces.iter().map(|p| (p.addr, p.len, p.lkey)).collect();
        assert_eq!((pieces, found.signaled), (expected.pieces, expected.signaled));
        let operation = 0x10 << 56 | u64::from(found.index) << 16;
        match found.failure {
            Some((syndrome, vendor)) => {
                let before = u64::from(vendor) << 8 | u64::from(syndrome);
                self.written.push_back(Written { last: operation | 0xD0, before });
            }
            None if found.signaled => self.written.push_back(Written { last: operation, before: 0 }),
            None => {}
        }
    }

    /// What the next entries of the lane must be told as, if they are told at all.
    fn told(&mut self) -> Option<(WrId, WcStatus, u32)> {
        while let Some(Written { last, before }) = self.written.pop_front() {
            if self.belief == Belief::Nothing {
                continue;
            }
            let (opcode, format, counter) = (last >> 4 & 0xF, last >> 2 & 3, (last >> 16) as u16);
            let place = self.open.iter().position(|posted| posted.begin as u16 == counter);
            let code = match (format, opcode, last >> 56) {
                (1.., ..) => Some(5621),
                (0, 0, 0x10) | (0, 13, _) => match place {
                    None => Some(5623),
                    Some(_) if opcode == 0 && self.belief == Belief::Errors => Some(5624),
                    Some(_) => None,
                },
                (0, 0, _) => Some(5622),
                _ => Some(5620),
            };
            if let Some(code) = code {
                self.belief = Belief::Nothing;
                match self.open.front() {
                    Some(oldest) => return Some((oldest.wr_id, WcStatus::GENERAL_ERR, code)),
                    None => continue,
                }
            }
            let covered = self.open.drain(..=place.expect("it is outstanding")).next_back();
            let covered = covered.expect("at least one");
            debug_assert!(covered.blocks > 0);
            if opcode == 0 {
                return Some((covered.wr_id, WcStatus::SUCCESS, 0));
            }
            self.belief = Belief::Errors;
            let status = Syndrome(before as u8).status();
            return Some((covered.wr_id, status, (before >> 8 & 0xFF) as u32));
        }
        None
    }
}
