//! A second encoder, which posts to a list. It shows that [`Encoder`] suffices for an encoder that
//! writes no `ibv_send_wr`.
#![allow(unsafe_code, reason = "the encoder's and the provider's contracts")]

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Ends, Piece, Post, Provider, Read, UniformReads};

use crate::encoder::{Encoder, EncoderPost};
use crate::error::VerbsLaneError;
use crate::provider::{Verbs, VerbsLane};
use crate::qp::handle::QpHandle;

/// A send queue entry of this encoder: a READ with the pieces that it writes, or a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Read(Read, Vec<Piece>),
    Drain(WrId),
}

/// A send queue in memory, with room for `room` entries.
#[derive(Debug)]
struct Queue {
    room: usize,
    entries: Vec<Entry>,
    doorbells: usize,
}

/// Shares one list of entries among its lanes, as an encoder shares its templates.
#[derive(Debug, Default)]
struct Recording {
    scratch: Vec<Entry>,
}

#[derive(Debug)]
struct RecordingPost<'a> {
    scratch: &'a mut Vec<Entry>,
    queue: &'a mut Queue,
}

const FULL: i32 = libc::ENOMEM;

// SAFETY: nothing is ever executed.
unsafe impl Encoder for Recording {
    const CHAIN: usize = 4;
    const SGES: usize = 3;
    type Queue = Queue;
    type Post<'a> = RecordingPost<'a>;

    fn open(&mut self, qp: &QpHandle) -> Result<Queue, VerbsLaneError> {
        Ok(Queue { room: qp.rail().depth() as usize, entries: Vec::new(), doorbells: 0 })
    }

    unsafe fn begin<'a>(&'a mut self, queue: &'a mut Queue) -> RecordingPost<'a> {
        self.scratch.clear();
        RecordingPost { scratch: &mut self.scratch, queue }
    }

    unsafe fn drain(&mut self, queue: &mut Queue, wr_id: WrId) -> Result<(), i32> {
        if queue.entries.len() == queue.room {
            return Err(FULL);
        }
        queue.entries.push(Entry::Drain(wr_id));
        queue.doorbells += 1;
        Ok(())
    }
}

impl Post for RecordingPost<'_> {
    fn read(&mut self, read: Read) {
        self.scratch.push(Entry::Read(read, Vec::new()));
    }

    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.scratch.push(Entry::Read(read, pieces.to_vec()));
    }

    fn commit(self) -> Commit {
        let accepted = self.scratch.len().min(self.queue.room - self.queue.entries.len());
        self.queue.entries.extend(self.scratch.drain(..accepted));
        self.queue.doorbells += 1;
        if self.scratch.is_empty() {
            Commit::All
        } else {
            Commit::Prefix { accepted: accepted as u32, errno: FULL }
        }
    }
}

impl EncoderPost for RecordingPost<'_> {
    fn wrs(&self) -> usize {
        self.scratch.len()
    }
}

const ID: LaneId = LaneId::new(4, 1);
const RAIL: RailIndex = RailIndex(2);

fn opened(room: usize) -> (Verbs<Recording>, VerbsLane<Recording>) {
    let mut verbs = Verbs::over(&[], |_| Recording::default()).unwrap();
    verbs.queues.progress.begin(WrId::new(ID, 0));
    let queue = Queue { room, entries: Vec::new(), doorbells: 0 };
    let lane = VerbsLane {
        queue,
        provider: verbs.id,
        id: ID,
        rail: RAIL,
        slot: 0,
        depth: room as u32,
        counted: None,
    };
    (verbs, lane)
}

fn read(seq: u32, signaled: bool) -> Read {
    Read {
        wr_id: WrId::new(ID, seq),
        remote_addr: 0x7000 + u64::from(seq) * 64,
        local_addr: 0x1000 + u64::from(seq) * 64,
        len: 64,
        rkey: 5,
        lkey: 6,
        signaled,
    }
}

/// Posts as an engine does, which knows the provider by core's trait alone.
fn engine_posts<P: Provider>(
    provider: &mut P,
    lane: &mut P::Lane,
    fill: impl FnOnce(&mut P::Post<'_>),
) -> Commit {
    // SAFETY: nothing is executed.
    let mut post = unsafe { provider.begin(lane) };
    fill(&mut post);
    post.commit()
}

#[test]
fn all_kinds_of_posts_reach_an_encoder_in_order_with_one_doorbell_each() {
    let (mut verbs, mut lane) = opened(16);
    assert_eq!(<Verbs<Recording> as Provider>::CHAIN, 4);
    let pieces = [Piece { addr: 0x1080, len: 16 }, Piece { addr: 0x2000, len: 48 }];
    let commit = engine_posts(&mut verbs, &mut lane, |post| {
        post.read(read(0, false));
        post.scatter(read(1, true), &pieces);
    });
    assert_eq!(commit, Commit::All);
    let reads = UniformReads { wr_id: WrId::new(ID, 2), len: 64, rkey: 5, lkey: 6 };
    let ends = (2..4_u32).map(|seq| {
        let Read { remote_addr, local_addr, .. } = read(seq, false);
        Ends { remote_addr, local_addr }
    });
    let ends: Vec<_> = ends.collect();
    let commit = engine_posts(&mut verbs, &mut lane, |post| post.read_uniform(reads, ends.into_iter()));
    assert_eq!(commit, Commit::All);
    let expected = [
        Entry::Read(read(0, false), Vec::new()),
        Entry::Read(read(1, true), pieces.to_vec()),
        Entry::Read(read(2, false), Vec::new()),
        Entry::Read(read(3, true), Vec::new()),
    ];
    assert_eq!(lane.queue.entries, expected);
    assert_eq!(lane.queue.doorbells, 2);
    assert!(!verbs.queues.progress.is_idle(RAIL), "what was posted is outstanding");
}

#[test]
fn a_commit_that_is_dropped_posts_nothing() {
    let (mut verbs, mut lane) = opened(16);
    {
        // SAFETY: nothing is executed.
        let mut post = unsafe { verbs.begin(&mut lane) };
        post.read(read(0, true));
    }
    assert_eq!((lane.queue.entries.len(), lane.queue.doorbells), (0, 0));
    assert!(verbs.queues.progress.is_idle(RAIL));
}

#[test]
fn an_encoders_accepted_prefix_is_the_commits() {
    let (mut verbs, mut lane) = opened(3);
    let commit =
        engine_posts(&mut verbs, &mut lane, |post| (0..4).for_each(|seq| post.read(read(seq, seq == 3))));
    assert_eq!(commit, Commit::Prefix { accepted: 3, errno: FULL });
    let accepted: Vec<_> = (0..3).map(|seq| Entry::Read(read(seq, false), Vec::new())).collect();
    assert_eq!(lane.queue.entries, accepted);
}

#[test]
fn a_drain_comes_after_all_posted_reads_and_its_failure_is_reported() {
    let (mut verbs, mut lane) = opened(2);
    assert_eq!(engine_posts(&mut verbs, &mut lane, |post| post.read(read(0, true))), Commit::All);
    let drain = WrId::new(ID, 1);
    assert_eq!(verbs.drain(&mut lane, drain), Ok(()));
    assert_eq!(lane.queue.entries, [Entry::Read(read(0, true), Vec::new()), Entry::Drain(drain)]);
    assert_eq!(verbs.drain(&mut lane, WrId::new(ID, 2)), Err(FULL));
    assert_eq!(lane.queue.entries.len(), 2);
}
