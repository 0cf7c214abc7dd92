//! Sleeping on the provider's descriptor. It may always become readable early; a case fails if it
//! does so late or never, or if it stays readable with nothing to be done.

use kvrail_core::provider::{Provider as _, ProviderEvent};
use kvrail_core::time::Nanos;

use crate::driver::{Driver, RAIL, need};
use crate::failure::{CaseResult, ensure, fail};
use crate::rig::Rig;

/// How often a provider may wake up, or refuse to sleep, for nothing: for something that came
/// before, for instance.
const SPURIOUS: usize = 3;
/// The time between two looks at the descriptor.
const STEP: Nanos = Nanos::from_micros(50);

fn descriptor<R: Rig>() -> Result<Driver<R>, crate::failure::Stop> {
    let d = Driver::<R>::new()?;
    need(d.rig.readable(&d.provider).is_some(), "a descriptor to sleep on")?;
    Ok(d)
}

fn readable<R: Rig>(d: &Driver<R>) -> bool {
    d.rig.readable(&d.provider) == Some(true)
}

/// Lets time pass until the descriptor of the armed provider is readable, and disarms it.
fn until_readable<R: Rig>(d: &mut Driver<R>, why: &str) -> CaseResult {
    let end = d.rig.now() + Nanos(R::TIME_LIMIT.0 / 4);
    while !readable(d) {
        ensure!(d.rig.now() < end, "the descriptor of an armed provider is not readable though {why}");
        d.rig.pass(STEP);
    }
    d.provider.disarm();
    Ok(())
}

/// Arms a provider that has nothing to tell.
fn arm_idle<R: Rig>(d: &mut Driver<R>) -> CaseResult {
    for _ in 0..=SPURIOUS {
        d.take_all()?;
        if d.arm(0) {
            return Ok(());
        }
    }
    fail!("arm refuses though there is nothing to be polled")
}

pub(crate) fn arm_refuses_while_a_completion_is_there<R: Rig>() -> CaseResult {
    let mut d = descriptor::<R>()?;
    let mut lane = d.open(RAIL)?;
    let read = d.read(&mut lane, 0, 64);
    d.post_all(&mut lane, &[read])?;
    for _ in 0..=SPURIOUS {
        if !d.arm(1) {
            d.take_all()?;
            ensure!(d.done.len() == 1, "arm refused though the READ had not completed");
            return Ok(());
        }
        // The READ has not completed, or the descriptor tells of it at once.
        until_readable(&mut d, "a READ has completed")?;
    }
    fail!("arm says that the caller may sleep, while a completion waits to be polled")
}

pub(crate) fn an_armed_descriptor_is_not_readable_without_a_reason<R: Rig>() -> CaseResult {
    let mut d = descriptor::<R>()?;
    ensure!(!readable(&d), "the descriptor of a provider that was never armed is readable");
    arm_idle(&mut d)?;
    d.rig.pass(crate::driver::LINGER);
    ensure!(!readable(&d), "the descriptor is readable though nothing has happened");
    // A reason that has been told makes it readable only once.
    d.rig.wake(&d.provider);
    until_readable(&mut d, "a waker was called")?;
    for _ in 0..SPURIOUS {
        arm_idle(&mut d)?;
        d.rig.pass(crate::driver::LINGER);
        let told_again = readable(&d);
        d.provider.disarm();
        if !told_again {
            return Ok(());
        }
    }
    fail!("the descriptor stays readable though the provider was disarmed and there is nothing to be polled")
}

pub(crate) fn an_armed_descriptor_becomes_readable_when_a_read_completes<R: Rig>() -> CaseResult {
    let mut d = descriptor::<R>()?;
    let mut lane = d.open(RAIL)?;
    for _ in 0..4 {
        let reads = d.full_queue(&mut lane);
        d.post_all(&mut lane, &reads)?;
        let mut idle = 0;
        while d.done.len() < reads.len() {
            if d.arm(1) {
                until_readable(&mut d, "a READ has completed")?;
            }
            let before = d.done.len();
            d.take_all()?;
            idle = if d.done.len() == before { idle + 1 } else { 0 };
            ensure!(idle <= SPURIOUS, "a provider with READs outstanding tells of nothing again and again");
        }
        d.done.clear();
    }
    Ok(())
}

pub(crate) fn an_armed_descriptor_becomes_readable_for_a_waker<R: Rig>() -> CaseResult {
    let mut d = descriptor::<R>()?;
    for _ in 0..3 {
        arm_idle(&mut d)?;
        d.rig.wake(&d.provider);
        until_readable(&mut d, "a waker was called")?;
    }
    Ok(())
}

pub(crate) fn an_armed_descriptor_becomes_readable_for_an_event<R: Rig>() -> CaseResult {
    let mut d = descriptor::<R>()?;
    let mut lane = d.open(RAIL)?;
    d.provider.fail(&mut lane.lane);
    let mut idle = 0;
    while !d.events.contains(&ProviderEvent::LaneFailed(lane.id)) {
        if d.arm(0) {
            until_readable(&mut d, "a lane has failed")?;
        }
        d.take_all()?;
        idle += 1;
        ensure!(idle <= SPURIOUS + 1, "a provider with a lane that fails tells of nothing again and again");
    }
    Ok(())
}
