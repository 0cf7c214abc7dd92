//! The null device behaves as a driver does, entry by entry.
#![allow(unsafe_code, reason = "the raw entry points are under test")]

use std::boxed::Box;
use std::ptr;
use std::vec;
use std::vec::Vec;

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Piece, Post, Provider, ProviderEvent, Read};
use kvrail_core::verbs_abi::{ChainStorage, SendFlags, SendWr, Sge, Wc, WcStatus};

use super::*;

const CHAIN: usize = 16;

fn rails(rails: usize, cq: usize, lanes: usize, depth: usize) -> NullRails<'static, CHAIN> {
    let parts = NullParts {
        cqs: vec![Cq::NEW; rails].leak(),
        cqes: vec![Cqe::NEW; rails * cq].leak(),
        qps: vec![Qp::NEW; lanes].leak(),
        wqes: vec![Wqe::NEW; lanes * depth].leak(),
    };
    NullRails::new(parts, Box::leak(Box::new(ChainStorage::new()))).unwrap()
}

const R0: RailIndex = RailIndex(0);

fn id(index: u16) -> LaneId {
    LaneId::new(index, 1)
}

fn post(
    rails: &mut NullRails<'static, CHAIN>,
    lane: &mut NullLane<'static>,
    of: LaneId,
    seqs: &[u32],
) -> Commit {
    // SAFETY: the null device moves no bytes.
    let mut post = unsafe { rails.begin(lane) };
    for seq in seqs {
        post.read(Read {
            wr_id: WrId::new(of, *seq),
            remote_addr: 0x1122_3344_5566_7788,
            local_addr: 0x99AA_BBCC_DDEE_FF00,
            len: 0x1_0203,
            rkey: 0xA0B0_C0D0,
            lkey: 0x0102_0304,
            // Every fourth.
            signaled: seq % 4 == 3,
        });
    }
    post.commit()
}

fn told(rails: &mut NullRails<'static, CHAIN>, rail: RailIndex) -> Vec<(WrId, WcStatus)> {
    let mut wcs = [Wc::default(); 3];
    let mut all = Vec::new();
    loop {
        let n = rails.poll(rail, &mut wcs);
        all.extend(wcs[..n].iter().map(|wc| (wc.wr_id(), wc.status())));
        if n == 0 {
            return all;
        }
    }
}

#[test]
fn every_signaled_wr_completes_once_on_its_rail() {
    let mut rails = rails(2, 16, 4, 16);
    let mut lanes: Vec<_> =
        (0..4).map(|i| rails.open(id(i), RailIndex((i % 2) as u8), ()).unwrap()).collect();
    assert_eq!(rails.open(id(9), R0, ()).unwrap_err(), NullLaneError::Full);
    assert_eq!(
        rails.open(id(9), RailIndex(2), ()).unwrap_err(),
        NullLaneError::NoSuchRail { rail: 2, rails: 2 }
    );
    for round in 0..50 {
        for (i, lane) in (0..).zip(&mut lanes) {
            let seqs = [0, 1, 2, 3, 4, 5, 6, 7].map(|s| s + 8 * round);
            assert_eq!(post(&mut rails, lane, id(i), &seqs), Commit::All);
        }
        for rail in 0..2_u16 {
            let expected: Vec<_> = [rail, rail + 2]
                .iter()
                .flat_map(|i| [3, 7].map(|s| (WrId::new(id(*i), s + 8 * round), WcStatus::SUCCESS)))
                .collect();
            assert_eq!(told(&mut rails, RailIndex(rail as u8)), expected);
        }
    }
    // SAFETY: a live QP, not in use.
    let doorbell = unsafe { (*lanes[0].qp()).doorbell() };
    assert_eq!(doorbell, 400);
}

#[test]
fn the_work_queue_entry_is_an_mlx5_read() {
    let mut rails = rails(1, 4, 1, 4);
    let mut lane = rails.open(id(0), R0, ()).unwrap();
    let _ = post(&mut rails, &mut lane, id(0), &[0, 1, 2, 3, 4, 5, 7]);
    told(&mut rails, R0);
    let _ = post(&mut rails, &mut lane, id(0), &[7]);
    // SAFETY: a live QP, not in use.
    let ring = unsafe { (*lane.qp()).ring() };
    // SAFETY: four entries; the fifth wr went to the first.
    let wqe = unsafe { ring.read() };
    let mut bytes = Vec::new();
    wqe.0.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    let golden: [u8; 64] = [
        0, 0, 4, 0x10, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, // control
        // remote
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xA0, 0xB0, 0xC0, 0xD0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 2,
        3, 4, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0, // data
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes, golden);
}

#[test]
fn a_full_queue_accepts_a_prefix_and_reports_its_length() {
    let mut rails = rails(1, 4, 2, 8);
    let mut lane = rails.open(id(0), R0, ()).unwrap();
    let seqs: Vec<u32> = (0..10).collect();
    assert_eq!(post(&mut rails, &mut lane, id(0), &seqs), Commit::Prefix { accepted: 8, errno: 12 });
    assert_eq!(post(&mut rails, &mut lane, id(0), &[0]), Commit::Prefix { accepted: 0, errno: 12 });
    // Only wrs up to the last polled completion have given their places back: 0..=7.
    assert_eq!(told(&mut rails, R0).len(), 2);
    assert_eq!(post(&mut rails, &mut lane, id(0), &seqs), Commit::Prefix { accepted: 8, errno: 12 });
    // The completion queue has room for two more.
    let mut other = rails.open(id(1), R0, ()).unwrap();
    assert_eq!(post(&mut rails, &mut other, id(1), &[3, 3, 3]), Commit::Prefix { accepted: 2, errno: 12 });
}

#[test]
fn the_driver_refuses_other_opcodes_and_bad_numbers_of_segments() {
    let mut rails = rails(1, 4, 1, 8);
    let mut lane = rails.open(id(0), R0, ()).unwrap();
    let mut sge = Sge::default();
    let good = SendWr { sg_list: &raw mut sge, send_flags: SendFlags::SIGNALED, ..SendWr::EMPTY };
    for bad in [SendWr { opcode: 0, ..good }, SendWr { num_sge: 0, ..good }, SendWr { num_sge: 31, ..good }] {
        let mut second = bad;
        let second = &raw mut second;
        let mut first = SendWr { next: second, ..good };
        let mut bad_wr = ptr::null_mut();
        // SAFETY: a live lane of live rails, and a chain of two locals with one sge.
        let errno = unsafe { ibv_post_send(lane.qp(), &raw mut first, &raw mut bad_wr) };
        assert_eq!((errno, bad_wr), (22, second));
    }
    let mut wcs = [Wc::default(); 4];
    // SAFETY: the CQ of a live rail, and room for four.
    let n = unsafe { ibv_poll_cq(rails.cq(R0), 4, wcs.as_mut_ptr()) };
    assert_eq!(n, 3, "the first of each chain was taken");
}

#[test]
fn a_failed_lane_flushes_and_drains() {
    let mut rails = rails(1, 16, 2, 16);
    let (mut lane, mut other) = (rails.open(id(0), R0, ()).unwrap(), rails.open(id(1), R0, ()).unwrap());
    assert_eq!(post(&mut rails, &mut lane, id(0), &[0, 1, 2, 3]), Commit::All);
    rails.fail(&mut lane);
    assert_eq!((rails.next_event(), rails.next_event()), (Some(ProviderEvent::LaneFailed(id(0))), None));
    assert_eq!(post(&mut rails, &mut lane, id(0), &[4, 5]), Commit::All);
    assert_eq!(post(&mut rails, &mut other, id(1), &[3]), Commit::All);
    assert_eq!(rails.drain(&mut lane, WrId::new(id(0), 6)), Ok(()));
    let flushed = [4, 5].map(|s| (WrId::new(id(0), s), WcStatus::WR_FLUSH_ERR));
    assert_eq!(
        told(&mut rails, R0),
        [
            (WrId::new(id(0), 3), WcStatus::SUCCESS),
            flushed[0],
            flushed[1],
            (WrId::new(id(1), 3), WcStatus::SUCCESS),
            (WrId::new(id(0), 6), WcStatus::WR_FLUSH_ERR),
        ]
    );
}

#[test]
fn a_closed_lane_gives_no_completion_and_its_queue_pair_is_used_again() {
    let mut rails = rails(1, 16, 2, 8);
    let (mut lane, mut other) = (rails.open(id(0), R0, ()).unwrap(), rails.open(id(1), R0, ()).unwrap());
    for _ in 0..2 {
        let _ = post(&mut rails, &mut lane, id(0), &[3]);
        let _ = post(&mut rails, &mut other, id(1), &[3]);
    }
    rails.fail(&mut lane);
    rails.close(lane);
    assert!(rails.open(id(2), R0, ()).is_err(), "the events of the closed lane have not been read");
    let events: Vec<_> = std::iter::from_fn(|| rails.next_event()).collect();
    assert_eq!(events, [ProviderEvent::LaneFailed(id(0)), ProviderEvent::LaneClosed(id(0))]);
    assert_eq!(told(&mut rails, R0), [(WrId::new(id(1), 3), WcStatus::SUCCESS); 2]);
    let mut again = rails.open(LaneId::new(0, 2), R0, ()).unwrap();
    let seqs: Vec<u32> = (0..8).collect();
    assert_eq!(post(&mut rails, &mut again, LaneId::new(0, 2), &seqs), Commit::All);
    assert!(
        told(&mut rails, R0).iter().all(|(wr, status)| wr.lane().generation() == 2 && status.is_success())
    );
}

#[test]
fn a_lane_of_another_provider_stays_unchanged() {
    let (mut rails, mut others) = (self::rails(1, 16, 1, 8), self::rails(1, 16, 1, 8));
    let mut lane = rails.open(id(0), R0, ()).unwrap();
    others.fail(&mut lane);
    assert_eq!(others.drain(&mut lane, WrId::new(id(0), 0)), Err(22));
    assert_eq!(post(&mut rails, &mut lane, id(0), &[3]), Commit::All);
    assert_eq!(told(&mut rails, R0), [(WrId::new(id(0), 3), WcStatus::SUCCESS)], "it has not failed");
    others.close(lane);
    assert_eq!((others.next_event(), rails.next_event()), (None, None));
}

#[test]
fn sixteen_lanes_for_each_of_a_thousand_peers() {
    let mut rails = rails(8, 64, 16_384, 4);
    let mut lanes: Vec<_> =
        (0..16_384_u16).map(|i| rails.open(id(i), RailIndex((i % 8) as u8), ()).unwrap()).collect();
    for (i, lane) in (0..).zip(&mut lanes) {
        assert_eq!(post(&mut rails, lane, id(i), &[1, 2, 3]), Commit::All);
        assert_eq!(told(&mut rails, RailIndex((i % 8) as u8)), [(WrId::new(id(i), 3), WcStatus::SUCCESS)]);
    }
    lanes.into_iter().for_each(|lane| rails.close(lane));
    assert_eq!(std::iter::from_fn(|| rails.next_event()).count(), 16_384);
    assert_eq!(std::iter::from_fn(|| rails.open(id(0), R0, ()).ok()).count(), 16_384);
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let refuse = |cqs: usize, cqes: usize, qps: usize, wqes: usize| {
        let parts = NullParts {
            cqs: vec![Cq::NEW; cqs].leak(),
            cqes: vec![Cqe::NEW; cqes].leak(),
            qps: vec![Qp::NEW; qps].leak(),
            wqes: vec![Wqe::NEW; wqes].leak(),
        };
        NullRails::<CHAIN>::new(parts, Box::leak(Box::new(ChainStorage::new()))).unwrap_err()
    };
    assert_eq!(refuse(0, 8, 1, 8), NullPartsError::Rails { rails: 0 });
    assert_eq!(refuse(17, 17, 1, 8), NullPartsError::Rails { rails: 17 });
    let what = "completion queue entries";
    assert_eq!(refuse(2, 7, 1, 8), NullPartsError::Uneven { what, entries: 7, among: 2 });
    assert_eq!(refuse(2, 6, 1, 8), NullPartsError::Uneven { what, entries: 6, among: 2 });
    let what = "work queue entries";
    assert_eq!(refuse(2, 8, 3, 8), NullPartsError::Uneven { what, entries: 8, among: 3 });
    assert_eq!(refuse(2, 8, 0, 8), NullPartsError::Uneven { what, entries: 8, among: 0 });
    assert_eq!(refuse(2, 8, 1, 0), NullPartsError::Uneven { what, entries: 0, among: 1 });
}

#[test]
fn pieces_are_data_segments_in_the_ring() {
    let parts = NullParts {
        cqs: vec![Cq::NEW; 1].leak(),
        cqes: vec![Cqe::NEW; 16].leak(),
        qps: vec![Qp::NEW; 1].leak(),
        wqes: vec![Wqe::NEW; 8].leak(),
    };
    let mut rails = NullRails::<CHAIN, 7>::new(parts, Box::leak(Box::new(ChainStorage::new()))).unwrap();
    let mut lane = rails.open(id(0), R0, ()).unwrap();
    let pieces: Vec<_> = (0..7).map(|i| Piece { addr: 0x1000 * (i + 1), len: 16 * (i as u32 + 1) }).collect();
    let read = |seq, signaled| Read {
        wr_id: WrId::new(id(0), seq),
        remote_addr: 0x5000,
        local_addr: pieces[0].addr,
        len: 100,
        rkey: 7,
        lkey: 9,
        signaled,
    };
    // Seven pieces take three blocks, of two, four and one segments; the next wrs take one and two
    // blocks.
    let mut commit = |counts: &[usize]| {
        // SAFETY: the null device moves no bytes.
        let mut post = unsafe { rails.begin(&mut lane) };
        for (seq, n) in (0..).zip(counts) {
            let read = read(seq, seq as usize + 1 == counts.len());
            if *n == 1 { post.read(read) } else { post.scatter(read, &pieces[..*n]) }
        }
        post.commit()
    };
    // A lane of eight blocks has room for 3 + 1 + 2 blocks, and then not for 3 more.
    assert_eq!(commit(&[7, 1, 3]), Commit::All);
    assert_eq!(commit(&[2, 7]), Commit::Prefix { accepted: 1, errno: 12 });
    // SAFETY: the lane is alive, and nothing uses it meanwhile.
    let ring = unsafe { &*lane.qp() }.ring();
    // SAFETY: the ring has eight entries, all of which are initialised.
    let blocks = unsafe { std::slice::from_raw_parts(ring, 8) };
    let words: Vec<u64> = blocks.iter().flat_map(|Wqe(words)| words.map(u64::from_be)).collect();
    let segment = |i: usize| [u64::from(pieces[i].len) << 32 | 9, pieces[i].addr];
    assert_eq!(words[0] as u8, 2 + 7, "sixteenths of the wr");
    for i in 0..7 {
        assert_eq!(words[4 + 2 * i..6 + 2 * i], segment(i), "segment {i}");
    }
    assert_eq!(words[24] as u8, 3);
    assert_eq!(words[24 + 4..24 + 6], [100 << 32 | 9, pieces[0].addr], "the second wr has one piece again");
    assert_eq!(words[32] as u8, 2 + 3);
    assert_eq!(words[32 + 8..32 + 10], segment(2));
    let mut wcs = [Wc::default(); 3];
    assert_eq!(rails.poll(R0, &mut wcs), 1, "the prefix has nothing signaled");
}
