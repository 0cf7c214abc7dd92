//! Failing a lane: the error state, the flush, and the drain.

use kvrail_core::id::WrId;
use kvrail_core::provider::{Provider as _, ProviderEvent};
use kvrail_core::verbs_abi::WcStatus;

use crate::driver::{Driver, RAIL, TestLane, expect_flush, expect_in_order, need};
use crate::failure::{CaseResult, ensure};
use crate::rig::Rig;

pub(crate) fn a_failed_lane_reports_it_and_flushes_its_reads<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let mut reads = d.full_queue(&mut lane);
    // The last READ always gives a completion: its success, since it is signaled, or its flush.
    let last = reads.len() - 1;
    reads.iter_mut().take(last).skip(1).step_by(3).for_each(|read| read.signaled = false);
    d.post_all(&mut lane, &reads)?;
    d.provider.fail(&mut lane.lane);
    d.event(ProviderEvent::LaneFailed(lane.id))?;
    d.until("the end of the last READ", |d| {
        d.done.last().is_some_and(|done| done.wr_id == reads[last].wr_id)
    })?;
    let done = core::mem::take(&mut d.done);
    // Unsignaled successes give no completion; from the first flush on, each wr gives one.
    let good = done.iter().take_while(|done| done.status.is_success()).count();
    let told = |signaled_only: bool, from: usize| {
        reads.iter().skip(from).filter(move |read| read.signaled || !signaled_only).map(|read| read.wr_id)
    };
    let mut expected = told(true, 0).take(good);
    for done in &done[..good] {
        ensure!(expected.next() == Some(done.wr_id), "{done:?} is not the next signaled READ");
    }
    let flushed = done.get(good).map_or(reads.len(), |first| first.wr_id.seq() as usize);
    for (done, expected) in done[good..].iter().zip(told(false, flushed)) {
        ensure!(
            done.wr_id == expected && done.status == WcStatus::WR_FLUSH_ERR,
            "{done:?} came where the flush of {expected:?} was next: after the first flush each wr is told"
        );
    }
    // READs that are posted to the failed lane are flushed, too, signaled or not.
    let first = lane.next;
    let mut reads = d.full_queue(&mut lane);
    reads.iter_mut().for_each(|read| read.signaled = false);
    d.post_all(&mut lane, &reads)?;
    let done = d.completions(reads.len())?;
    let good = expect_flush(&done, lane.id, first)?;
    ensure!(good == 0, "{good} READs succeeded that were posted to a lane in the error state");
    Ok(())
}

/// Waits for `LaneFailed` without taking a completion.
fn await_failure<R: Rig>(d: &mut Driver<R>, lane: &TestLane<R::Provider>) -> CaseResult {
    let end = d.rig.now() + R::TIME_LIMIT;
    while d.provider.next_event() != Some(ProviderEvent::LaneFailed(lane.id)) {
        ensure!(d.rig.now() < end, "LaneFailed of a lane that was failed never came");
        d.rig.pass(kvrail_core::time::Nanos::from_micros(10));
    }
    Ok(())
}

pub(crate) fn a_drain_completes_after_everything_before_it<R: Rig>() -> CaseResult {
    for round in 0..4 {
        let mut d = Driver::<R>::new()?;
        let mut lane = d.open(RAIL)?;
        let reads = d.full_queue(&mut lane);
        d.post_all(&mut lane, &reads)?;
        d.provider.fail(&mut lane.lane);
        // A provider that works when it is polled is asked for the drain with everything before it
        // still to be done, in every other round.
        if round % 2 == 0 {
            await_failure(&mut d, &lane)?;
        } else {
            d.event(ProviderEvent::LaneFailed(lane.id))?;
        }
        let drain = WrId::new(lane.id, lane.next);
        let posted = d.provider.drain(&mut lane.lane, drain);
        ensure!(posted.is_ok(), "a drain was refused with errno {posted:?}");
        d.until("the completion of a drain", |d| d.done.iter().any(|done| done.wr_id == drain))?;
        // Checked at once, before anything else can happen.
        d.expect_no_writer("after the drain of its lane had completed")?;
        let (came, due) = (d.done.len(), reads.len() + 1);
        ensure!(came == due, "{came} completions for {due} wrs, of which the last is a drain");
        let place = d.done.iter().take_while(|done| done.wr_id != drain).count() + 1;
        ensure!(place == due, "a drain completed as number {place} of {due}: READs before it were not done");
        expect_flush(&d.done, lane.id, 0)?;
    }
    Ok(())
}

pub(crate) fn a_drain_has_a_place_of_its_own_in_a_full_queue<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads)?;
    d.provider.fail(&mut lane.lane);
    await_failure(&mut d, &lane)?;
    let drain = WrId::new(lane.id, lane.next);
    let posted = d.provider.drain(&mut lane.lane, drain);
    ensure!(posted.is_ok(), "a drain to a lane with {} READs outstanding was refused: {posted:?}", R::DEPTH);
    let done = d.completions(reads.len() + 1)?;
    expect_flush(&done, lane.id, 0).map(|_| ())
}

pub(crate) fn failing_one_lane_changes_no_other_lane<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let (mut failed, mut other) = (d.open(RAIL)?, d.open(RAIL)?);
    d.provider.fail(&mut failed.lane);
    d.event(ProviderEvent::LaneFailed(failed.id))?;
    for round in 0..2 {
        let reads = d.full_queue(&mut other);
        d.post_all(&mut other, &reads)?;
        let done = d.completions(reads.len())?;
        expect_in_order(&done, other.id, round * R::DEPTH)?;
    }
    d.linger()?;
    let stray = d.events.iter().find(|event| **event != ProviderEvent::LaneFailed(failed.id));
    ensure!(stray.is_none(), "{stray:?} came; only lane {:?} was failed", failed.id);
    Ok(())
}

pub(crate) fn while_a_failure_takes_its_time_each_read_still_ends_once<R: Rig>() -> CaseResult {
    let Some(rig) = R::slow() else { return need(false, "a control thread that can be slowed") };
    let mut d = Driver::over(rig)?;
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    let (before, after) = reads.split_at(reads.len() / 2);
    d.post_all(&mut lane, before)?;
    d.provider.fail(&mut lane.lane);
    // Posting is allowed until the failure has been reported.
    d.post_all(&mut lane, after)?;
    d.event(ProviderEvent::LaneFailed(lane.id))?;
    let drain = WrId::new(lane.id, lane.next);
    let posted = d.provider.drain(&mut lane.lane, drain);
    ensure!(posted.is_ok(), "a drain after LaneFailed was refused: {posted:?}");
    d.until("the completion of a drain", |d| d.done.iter().any(|done| done.wr_id == drain))?;
    d.expect_no_writer("after the drain of its lane had completed")?;
    ensure!(d.done.len() == reads.len() + 1, "{} completions for {} wrs", d.done.len(), reads.len() + 1);
    expect_flush(&d.done, lane.id, 0).map(|_| ())
}
