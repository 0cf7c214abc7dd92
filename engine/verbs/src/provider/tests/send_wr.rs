//! A stand-in for the driver behind the lane's function pointer: which work requests the provider
//! passes to it, and what the provider makes of its answers.
#![allow(unsafe_code, reason = "a driver's function, and the provider's contract")]

use std::cell::RefCell;
use std::ptr;

use kvrail_core::id::{LaneId, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Post as _, Provider as _, Read};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use rdma_mummy_sys as sys;

use crate::encoder::{SendWrEncoder, SendWrQueue};
use crate::provider::{Verbs as Generic, VerbsLane};

type Verbs = Generic<SendWrEncoder>;

/// READs in one commit at most.
const CHAIN: usize = Verbs::CHAIN;

/// A work request that the driver got: wr_id, remote address, rkey, local address, length, lkey,
/// flags.
type Given = (u64, u64, u32, u64, u32, u32, u32);

thread_local! {
    static SEEN: RefCell<Vec<Given>> = const { RefCell::new(Vec::new()) };
    /// Its answer: an errno, and the place of the wr that it names as bad; `None` leaves bad_wr
    /// alone.
    static ANSWER: RefCell<(i32, Option<usize>)> = const { RefCell::new((0, None)) };
    static DOORBELLS: RefCell<usize> = const { RefCell::new(0) };
}

/// Walks a chain as a driver does, through the header's structs.
unsafe extern "C" fn driver(
    _: *mut sys::ibv_qp,
    head: *mut sys::ibv_send_wr,
    bad_wr: *mut *mut sys::ibv_send_wr,
) -> i32 {
    DOORBELLS.with_borrow_mut(|doorbells| *doorbells += 1);
    let (errno, bad) = ANSWER.with_borrow(|answer| *answer);
    let (mut at, mut place) = (head, 0);
    // SAFETY: the head of a chain of live wrs that ends in null.
    while let Some(wr) = unsafe { at.as_ref() } {
        if bad == Some(place) {
            // SAFETY: the caller's local.
            unsafe { bad_wr.write(at) };
        }
        assert_eq!(wr.opcode, sys::ibv_wr_opcode::IBV_WR_RDMA_READ);
        // SAFETY: the member that READs use.
        let rdma = unsafe { wr.wr.rdma };
        let (mut local, mut len, mut lkey) = (0, 0, 0);
        if wr.num_sge == 1 {
            // SAFETY: a live sge.
            let sge = unsafe { *wr.sg_list };
            (local, len, lkey) = (sge.addr, sge.length, sge.lkey);
        } else {
            assert_eq!(wr.num_sge, 0);
        }
        SEEN.with_borrow_mut(|seen| {
            seen.push((wr.wr_id, rdma.remote_addr, rdma.rkey, local, len, lkey, wr.send_flags));
        });
        (at, place) = (wr.next, place + 1);
    }
    errno
}

/// A provider without rails, and a lane of it on a QP that is not there.
fn opened() -> (Verbs, VerbsLane<SendWrEncoder>) {
    let verbs = Verbs::over(&[], |_| SendWrEncoder::new()).unwrap();
    let lane = VerbsLane {
        queue: SendWrQueue { qp: ptr::null_mut(), post_send: driver },
        provider: verbs.id,
        id: LaneId::new(4, 1),
        rail: RailIndex(0),
        slot: 0,
        depth: 128,
        counted: None,
    };
    (verbs, lane)
}

fn read(lane: LaneId, seq: u32, signaled: bool) -> Read {
    Read {
        wr_id: WrId::new(lane, seq),
        remote_addr: 0x7000_0000_0000 + u64::from(seq) * 4096,
        local_addr: 0x1000 + u64::from(seq),
        len: 4096 + seq,
        rkey: 77,
        lkey: 88,
        signaled,
    }
}

fn commit(verbs: &mut Verbs, lane: &mut VerbsLane<SendWrEncoder>, reads: &[Read]) -> Commit {
    // SAFETY: the driver of this test touches no QP and no memory.
    let mut post = unsafe { verbs.begin(lane) };
    reads.iter().for_each(|&r| post.read(r));
    post.commit()
}

fn answer(errno: i32, bad: Option<usize>) {
    ANSWER.set((errno, bad));
    SEEN.take();
    DOORBELLS.set(0);
}

#[test]
fn a_commit_is_one_doorbell_and_the_driver_gets_each_read_in_order() {
    let (mut verbs, mut lane) = opened();
    let id = LaneId::new(513, 0xAB_CDEF);
    let reads: Vec<_> = (0..CHAIN as u32).map(|seq| read(id, seq, seq % 16 == 15)).collect();
    answer(0, None);
    verbs.queues.progress.begin(WrId::new(id, 0));
    assert_eq!(commit(&mut verbs, &mut lane, &reads), Commit::All);
    assert_eq!(DOORBELLS.take(), 1);
    let expected: Vec<_> = reads
        .iter()
        .map(|r| {
            let flags = if r.signaled { sys::ibv_send_flags::IBV_SEND_SIGNALED.0 } else { 0 };
            (r.wr_id.0, r.remote_addr, r.rkey, r.local_addr, r.len, r.lkey, flags)
        })
        .collect();
    assert_eq!(SEEN.take(), expected);
    // The provider counts the wrs that completions cover.
    assert!(!verbs.queues.progress.is_idle(RailIndex(0)));
    let wc = Wc::new(WrId::new(id, CHAIN as u32 - 1), WcStatus::SUCCESS, 0, 0);
    assert_eq!(verbs.queues.progress.count(RailIndex(0), &[wc]).wrs, CHAIN as u64);
    assert!(verbs.queues.progress.is_idle(RailIndex(0)));
}

#[test]
fn the_accepted_prefix_is_exact_and_without_a_bad_wr_it_is_unknown() {
    let (mut verbs, mut lane) = opened();
    let reads: Vec<_> = (0..8).map(|seq| read(LaneId::new(1, 1), seq, true)).collect();
    let mut commit = |errno, bad| {
        answer(errno, bad);
        commit(&mut verbs, &mut lane, &reads)
    };
    assert_eq!(commit(12, Some(0)), Commit::Prefix { accepted: 0, errno: 12 });
    assert_eq!(commit(12, Some(5)), Commit::Prefix { accepted: 5, errno: 12 });
    // As rxe answers when its doorbell fails: everything is queued, and bad_wr is left alone.
    assert_eq!(commit(22, None), Commit::Unknown { errno: 22 });
    assert_eq!(commit(0, None), Commit::All);
}

#[test]
fn a_drain_is_signaled_and_reads_nothing() {
    let (mut verbs, mut lane) = opened();
    answer(0, None);
    let wr_id = WrId::new(LaneId::new(9, 9), 200);
    assert_eq!(verbs.drain(&mut lane, wr_id), Ok(()));
    assert_eq!(SEEN.take(), [(wr_id.0, 0, 0, 0, 0, 0, sys::ibv_send_flags::IBV_SEND_SIGNALED.0)]);
    answer(12, Some(0));
    assert_eq!(verbs.drain(&mut lane, wr_id), Err(12));
}

#[test]
fn a_lane_of_another_provider_is_not_drained() {
    let (mut verbs, mut lane) = opened();
    lane.provider = ProviderId::new();
    let wr_id = WrId::new(lane.id, 0);
    answer(0, None);
    assert_eq!(verbs.drain(&mut lane, wr_id), Err(libc::EINVAL));
    assert_eq!(SEEN.take(), []);
}

#[test]
fn completions_of_a_lanes_earlier_generation_are_not_counted() {
    let (mut verbs, mut lane) = opened();
    answer(0, None);
    let (first, second) = (LaneId::new(4, 1), LaneId::new(4, 2));
    verbs.queues.progress.begin(WrId::new(first, 0));
    commit(&mut verbs, &mut lane, &[read(first, 0, true)]);
    verbs.queues.progress.begin(WrId::new(second, 0));
    commit(&mut verbs, &mut lane, &[read(second, 0, true)]);
    let old = Wc::new(WrId::new(first, 0), WcStatus::WR_FLUSH_ERR, 0, 0);
    assert_eq!(verbs.queues.progress.count(RailIndex(0), &[old]).wrs, 0);
    let new = Wc::new(WrId::new(second, 0), WcStatus::SUCCESS, 0, 0);
    assert_eq!(verbs.queues.progress.count(RailIndex(0), &[new]).wrs, 1);
}
