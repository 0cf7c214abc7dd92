//! Closing a lane, and dropping the provider: neither writes afterwards.

use kvrail_core::provider::{Provider as _, ProviderEvent};

use crate::driver::{CANARY, Driver, LINGER, RAIL, TestLane, need};
use crate::failure::{CaseResult, ensure, fail};
use crate::pattern::BYTES;
use crate::rig::Rig;

/// Closes a lane with outstanding READs. Fails if an event or a write comes after `LaneClosed`.
fn ends<R: Rig>(d: &mut Driver<R>, lane: TestLane<R::Provider>) -> CaseResult {
    let id = lane.id;
    d.provider.close(lane.lane);
    d.event(ProviderEvent::LaneClosed(id))?;
    // LaneFailed may have come before.
    d.events.clear();
    d.expect_no_writer("after LaneClosed of the lane that wrote")?;
    ensure!(d.events.is_empty(), "{:?} came after LaneClosed of the same lane", d.events[0]);
    Ok(())
}

pub(crate) fn a_closed_lane_reports_it_once_and_writes_no_more<R: Rig>() -> CaseResult {
    for _ in 0..4 {
        let mut d = Driver::<R>::new()?;
        let mut lane = d.open(RAIL)?;
        let reads = d.full_queue(&mut lane);
        d.post_all(&mut lane, &reads)?;
        ends(&mut d, lane)?;
    }
    Ok(())
}

pub(crate) fn a_lane_that_is_failed_and_closed_at_once_ends_all_the_same<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads)?;
    d.provider.fail(&mut lane.lane);
    ends(&mut d, lane)
}

pub(crate) fn a_close_that_overtakes_a_slow_failure_ends_the_lane<R: Rig>() -> CaseResult {
    let Some(rig) = R::slow() else { return need(false, "a control thread that can be slowed") };
    let mut d = Driver::over(rig)?;
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads)?;
    d.provider.fail(&mut lane.lane);
    ends(&mut d, lane)
}

pub(crate) fn a_closed_lane_gives_its_place_back<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    for _ in 0..64 {
        let mut lane = d.open(RAIL)?;
        let mut reads = [d.read(&mut lane, 0, 64), d.read(&mut lane, 64, 64), d.read(&mut lane, 128, 64)];
        // Signaled and unsignaled READs: the places of both must be free again.
        reads[0].signaled = false;
        reads[2].signaled = false;
        d.post_all(&mut lane, &reads)?;
        let id = lane.id;
        d.provider.close(lane.lane);
        d.event(ProviderEvent::LaneClosed(id))?;
        d.events.clear();
        d.done.clear();
    }
    // The last lane in the place works like the first. Completions of earlier lanes may still come.
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads)?;
    let id = lane.id;
    let mine = move |d: &Driver<R>| d.done.iter().filter(|done| done.wr_id.lane() == id).count();
    d.until("the completions of a lane in a place that was used before", |d| mine(d) == reads.len())
}

pub(crate) fn a_provider_that_is_dropped_writes_no_more<R: Rig>() -> CaseResult {
    need(R::ABILITIES.moves_bytes, "READs that move bytes")?;
    for _ in 0..4 {
        let mut d = Driver::<R>::new()?;
        let mut lanes = [d.open(RAIL)?, d.open(RAIL)?];
        for lane in &mut lanes {
            let reads = d.full_queue(lane);
            d.post_all(lane, &reads)?;
        }
        let Driver { mut rig, provider, memory, .. } = d;
        drop(provider);
        memory.fill(0, BYTES, CANARY);
        rig.pass(LINGER);
        if let Some(at) = (0..BYTES).find(|&at| memory.get(at) != CANARY) {
            fail!("byte {at} of local memory was written after the provider had been dropped");
        }
    }
    Ok(())
}
