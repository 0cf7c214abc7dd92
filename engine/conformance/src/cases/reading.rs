//! READs that succeed.

use kvrail_core::id::{RailIndex, WrId};
use kvrail_core::provider::{
    Commit, Ends, KeyedEnds, KeyedReads, Piece, Post as _, Provider as _, Read, UniformReads,
};

use crate::driver::{Driver, RAIL, TestLane, expect_in_order, need};
use crate::failure::{CaseResult, ensure};
use crate::pattern::BYTES;
use crate::rig::Rig;

const MOVES: &str = "READs that move bytes";

pub(crate) fn bytes_arrive_where_the_descriptor_says_and_nowhere_else<R: Rig>() -> CaseResult {
    need(R::ABILITIES.moves_bytes, MOVES)?;
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    // From, to, bytes: odd places and lengths, a single byte, the first and the last.
    let parts = [(0, 300, 1), (1, 1_001, 4_097), (20_000, 9_000, 8_192), (BYTES - 7, BYTES - 7, 7)];
    for (from, to, len) in parts {
        let read = d.read_to(&mut lane, from, to, len);
        d.post_all(&mut lane, &[read])?;
    }
    let done = d.completions(parts.len())?;
    expect_in_order(&done, lane.id, 0)?;
    for (from, to, len) in parts {
        d.expect_bytes(from, to, len)?;
    }
    let when = "beside the READs";
    for (from, to) in [(0, 300), (301, 1_001), (1_001 + 4_097, 9_000), (9_000 + 8_192, BYTES - 7)] {
        d.expect_untouched(from, to, 0, when)?;
    }
    Ok(())
}

pub(crate) fn a_scattered_read_fills_its_pieces_in_order_and_nothing_else<R: Rig>() -> CaseResult {
    need(R::ABILITIES.moves_bytes, MOVES)?;
    let mut d = Driver::<R>::new()?;
    need(d.provider.sges() > 1, "READs of several pieces (sges() above 1)")?;
    let mut lane = d.open(RAIL)?;
    let addr = d.memory.range().addr;
    let most = (d.provider.sges() as usize).min(8);
    for pieces in [2, most] {
        d.memory.fill(0, BYTES, 0);
        // Piece i: 100 + i bytes, later pieces at lower places.
        let place = |i: usize| (pieces - 1 - i) * 500;
        let list: heapless::Vec<Piece, 8> =
            (0..pieces).map(|i| Piece { addr: addr + place(i) as u64, len: 100 + i as u32 }).collect();
        let len = list.iter().map(|piece| piece.len as usize).sum();
        let first = lane.next;
        let read = d.read_to(&mut lane, 77, place(0), len);
        let commit = d.scatter(&mut lane, read, &list);
        ensure!(commit == Commit::All, "{commit:?} for one READ of {pieces} pieces on an idle lane");
        let done = d.completions(1)?;
        expect_in_order(&done, lane.id, first)?;
        let mut from = 77;
        for (i, piece) in list.iter().enumerate() {
            d.expect_bytes(from, place(i), piece.len as usize)?;
            d.expect_untouched(
                place(i) + piece.len as usize,
                place(i) + 500,
                0,
                "beside the pieces of a READ",
            )?;
            from += piece.len as usize;
        }
        d.expect_untouched(pieces * 500, BYTES, 0, "beyond the pieces of a READ")?;
    }
    if d.provider.read_overhead() > 0 && most >= 5 {
        pieces_share_a_place(&mut d, &mut lane)?;
    }
    Ok(())
}

/// Two pieces of one READ go to the same place. What that place holds then is not looked at, but
/// nothing beside it may be written.
fn pieces_share_a_place<R: Rig>(d: &mut Driver<R>, lane: &mut TestLane<R::Provider>) -> CaseResult {
    d.memory.fill(0, BYTES, 0);
    let addr = d.memory.range().addr;
    let wanted = [(0, 32), (32, 64), (96, 32)];
    let waste = Piece { addr: addr + 500, len: 96 };
    let [first, second, third] = wanted.map(|(to, len)| Piece { addr: addr + to as u64, len });
    let next = lane.next;
    let read = d.read_to(lane, 77, 0, 320);
    let commit = d.scatter(lane, read, &[first, waste, second, waste, third]);
    ensure!(commit == Commit::All, "{commit:?} for one READ of 5 pieces on an idle lane");
    let done = d.completions(1)?;
    expect_in_order(&done, lane.id, next)?;
    let mut from = 77;
    for (to, len) in wanted {
        d.expect_bytes(from, to, len as usize)?;
        from += len as usize + 96;
    }
    d.expect_untouched(128, 500, 0, "between the pieces of a READ")?;
    d.expect_untouched(596, BYTES, 0, "beyond the pieces of a READ")
}

pub(crate) fn uniform_reads_give_what_the_same_reads_one_by_one_give<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let model = d.read(&mut lane, 0, 256);
    let uniform = UniformReads { wr_id: model.wr_id, len: model.len, rkey: model.rkey, lkey: model.lkey };
    // Places that are not consecutive at either end.
    let ends = [(0, 4_096), (4_096, 0), (1_024, 9_999)];
    let places = ends.map(|(from, to)| Ends {
        remote_addr: model.remote_addr + from as u64,
        local_addr: model.local_addr + to as u64,
    });
    #[allow(unsafe_code, reason = "posting promises whose memory is read into")]
    // SAFETY: this provider has opened the lane, and the local ranges are of the destination, which
    // is looked at by raw volatile accesses only.
    let mut post = unsafe { d.provider.begin(&mut lane.lane) };
    post.read_uniform(uniform, places.into_iter());
    let commit = post.commit();
    ensure!(commit == Commit::All, "{commit:?} for {} uniform READs on an idle lane", ends.len());
    d.until("the completion of uniform READs, of which the last is signaled", |d| !d.done.is_empty())?;
    d.linger()?;
    ensure!(
        d.done.len() == 1 && d.done[0].wr_id == WrId::new(lane.id, 2) && d.done[0].status.is_success(),
        "{} uniform READs completed with {:?}; the last alone is signaled",
        ends.len(),
        d.done
    );
    ends.into_iter().try_for_each(|(from, to)| d.expect_bytes(from, to, 256))?;

    // The same READs to other places, each with its keys, of more ends than READs.
    d.done.clear();
    let keyed =
        KeyedReads { wr_id: WrId::new(lane.id, 3), len: model.len, count: ends.len() as u32, signaled: true };
    let moved = places.map(|Ends { remote_addr, local_addr }| KeyedEnds {
        remote_addr,
        rkey: model.rkey,
        local_addr: local_addr + 300,
        lkey: model.lkey,
    });
    #[allow(unsafe_code, reason = "posting promises whose memory is read into")]
    // SAFETY: as above.
    let mut post = unsafe { d.provider.begin(&mut lane.lane) };
    post.read_keyed(keyed, moved.into_iter().chain([moved[0]]));
    let commit = post.commit();
    ensure!(commit == Commit::All, "{commit:?} for {} keyed READs on an idle lane", ends.len());
    d.until("the completion of keyed READs, of which the last is signaled", |d| !d.done.is_empty())?;
    d.linger()?;
    ensure!(
        d.done.len() == 1 && d.done[0].wr_id == WrId::new(lane.id, 5) && d.done[0].status.is_success(),
        "{} keyed READs completed with {:?}; the last alone is signaled",
        ends.len(),
        d.done
    );
    ends.into_iter().try_for_each(|(from, to)| d.expect_bytes(from, to + 300, 256))
}

pub(crate) fn completions_of_a_lane_come_in_the_order_of_posting<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    for round in 0..3 {
        let reads = d.full_queue(&mut lane);
        // Two commits, of which the second finds the first under way.
        let (first, second) = reads.split_at(reads.len() / 2);
        d.post_all(&mut lane, first)?;
        d.post_all(&mut lane, second)?;
        let done = d.completions(reads.len())?;
        ensure!(done.len() == reads.len(), "{} completions for {} READs", done.len(), reads.len());
        expect_in_order(&done, lane.id, round * R::DEPTH)?;
    }
    d.linger()?;
    ensure!(d.done.is_empty(), "{:?} came after everything had completed", d.done[0]);
    Ok(())
}

pub(crate) fn only_signaled_successes_give_completions<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let mut reads = d.full_queue(&mut lane);
    for (i, read) in reads.iter_mut().enumerate() {
        read.signaled = i % 2 == 1;
    }
    let last = reads.len() - 1;
    reads[last].signaled = true;
    let signaled = reads.iter().filter(|read| read.signaled);
    let expected: heapless::Vec<WrId, 64> = signaled.map(|read| read.wr_id).collect();
    d.post_all(&mut lane, &reads)?;
    d.until("the last success", |d| d.done.len() >= expected.len())?;
    d.linger()?;
    ensure!(
        d.done.iter().map(|done| done.wr_id).eq(expected.iter().copied()),
        "{} completions came for {} signaled READs of {}",
        d.done.len(),
        expected.len(),
        reads.len()
    );
    Ok(())
}

pub(crate) fn a_success_covers_the_unsignaled_reads_before_it<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    // In all more READs than the queue holds, so the places of completed ones must be free again.
    for round in 0..4 {
        d.memory.fill(0, BYTES, 0);
        let mut reads = d.full_queue(&mut lane);
        let last = reads.len() - 1;
        reads.iter_mut().take(last).for_each(|read: &mut Read| read.signaled = false);
        d.post_all(&mut lane, &reads)?;
        let done = d.completions(1)?;
        expect_in_order(&done, lane.id, round * R::DEPTH + R::DEPTH - 1)?;
        for (i, read) in reads.iter().enumerate() {
            let (at, len) = (i * (BYTES / R::DEPTH as usize), read.len as usize);
            d.expect_bytes(at, at, len)?;
        }
    }
    Ok(())
}

pub(crate) fn lanes_of_all_rails_complete_on_their_own_rail<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    // Two lanes on each rail, one READ each by that rail's keys.
    let rails = d.provider.rails();
    for rail in (0..rails).map(|rail| RailIndex(rail as u8)) {
        let mut lanes = [d.open(rail)?, d.open(rail)?];
        d.memory.fill(0, BYTES, 0);
        for (i, lane) in lanes.iter_mut().enumerate() {
            let read = d.read(lane, i * 1_000, 700);
            d.post_all(lane, &[read])?;
        }
        let done = d.completions(2)?;
        for (i, lane) in lanes.iter().enumerate() {
            let mine = done.iter().filter(|done| done.wr_id.lane() == lane.id);
            let mut mine = mine.filter(|done| done.rail == rail && done.status.is_success());
            ensure!(
                mine.next().is_some(),
                "lane {i} of rail {} has no success on that rail: {done:?}",
                rail.0
            );
            d.expect_bytes(i * 1_000, i * 1_000, 700)?;
        }
    }
    Ok(())
}
