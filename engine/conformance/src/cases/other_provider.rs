//! Lanes of another provider of the same kind.

use kvrail_core::id::WrId;
use kvrail_core::provider::Provider as _;

use crate::driver::{Driver, RAIL, TestLane, expect_in_order};
use crate::failure::{CaseResult, ensure};
use crate::rig::Rig;

/// Fails unless the lane carries READs as before.
fn works<R: Rig>(d: &mut Driver<R>, lane: &mut TestLane<R::Provider>, whose: &str) -> CaseResult {
    let first = lane.next;
    let reads = d.full_queue(lane);
    d.post_all(lane, &reads)?;
    let done = d.completions(reads.len())?;
    expect_in_order(&done, lane.id, first)?;
    d.linger()?;
    ensure!(d.events.is_empty(), "{:?} came of {whose}, to which nothing was done", d.events[0]);
    Ok(())
}

pub(crate) fn a_lane_of_another_provider_is_left_alone<R: Rig>() -> CaseResult {
    let (mut ours, mut theirs) = (Driver::<R>::new()?, Driver::<R>::new()?);
    // Both are the first lane of their provider, so they have the same id.
    let (mut mine, mut foreign) = (ours.open(RAIL)?, theirs.open(RAIL)?);
    let drained = ours.provider.drain(&mut foreign.lane, WrId::new(foreign.id, 99));
    ensure!(drained == Err(22), "draining a lane of another provider gave {drained:?}, not errno 22");
    ours.provider.fail(&mut foreign.lane);
    works(&mut ours, &mut mine, "the provider's own lane")?;
    works(&mut theirs, &mut foreign, "a lane of another provider")?;
    ours.provider.close(foreign.lane);
    works(&mut ours, &mut mine, "the provider's own lane")?;
    theirs.linger()?;
    ensure!(theirs.events.is_empty(), "{:?} came of a lane that another provider closed", theirs.events[0]);
    Ok(())
}
