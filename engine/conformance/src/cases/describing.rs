//! The facts that a provider states: its rails, and its bounds.

use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex};
use kvrail_core::provider::Provider;

use crate::driver::{Driver, RAIL};
use crate::failure::{CaseResult, ensure};
use crate::rig::Rig;

pub(crate) fn a_provider_describes_itself_within_bounds<R: Rig>() -> CaseResult {
    let d = Driver::<R>::new()?;
    let provider = &d.provider;
    let (rails, sges) = (provider.rails(), provider.sges());
    ensure!((1..=MAX_RAILS).contains(&rails), "{rails} rails: there are 1 to {MAX_RAILS}");
    ensure!(<R::Provider as Provider>::CHAIN >= 1, "CHAIN is 0: a commit holds at least one descriptor");
    ensure!(sges >= 1, "sges() is 0: a READ has at least one piece");
    ensure!((4..=64).contains(&R::DEPTH), "the rig's DEPTH is {}: make it 4 to 64", R::DEPTH);
    for rail in 0..rails {
        let rail = RailIndex(rail as u8);
        let info = provider.rail(rail);
        ensure!(info.nominal_bytes_per_sec > 0, "the nominal rate of rail {} is 0", rail.0);
        ensure!(
            info.cq_entries > R::DEPTH,
            "rail {} has {} completion queue entries: one lane of {} READs and a drain needs more",
            rail.0,
            info.cq_entries,
            R::DEPTH
        );
        ensure!(info == provider.rail(rail), "rail({}) gives other facts at the second call", rail.0);
    }
    ensure!((rails, sges) == (provider.rails(), provider.sges()), "rails() or sges() change");
    let overhead = provider.read_overhead();
    ensure!(overhead == provider.read_overhead(), "read_overhead() changes");
    Ok(())
}

pub(crate) fn a_rail_that_does_not_exist_opens_no_lane<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let unopened = d.rig.connect(&mut d.provider, RAIL);
    let beyond = RailIndex(d.provider.rails() as u8);
    let opened = d.provider.open(LaneId::new(1, 1), beyond, unopened).is_ok();
    ensure!(!opened, "a lane was opened on rail {} of {}", beyond.0, d.provider.rails());
    // The existing rail works as before.
    let mut lane = d.open(RAIL)?;
    let read = d.read(&mut lane, 0, 64);
    d.post_all(&mut lane, &[read])?;
    d.completions(1)?;
    d.expect_bytes(0, 0, 64)
}
