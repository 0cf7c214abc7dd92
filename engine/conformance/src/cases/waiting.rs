//! How long a provider sleeps. It may always wake up early; a case fails if it wakes up late or
//! never.

use kvrail_core::provider::{Provider as _, ProviderEvent};
use kvrail_core::time::Nanos;

use crate::driver::{Driver, RAIL, need};
use crate::failure::{CaseResult, ensure};
use crate::rig::Rig;

/// The longest sleep that counts as ended by its reason. A sleep that its reason does not end lasts
/// as long as [`Rig::TIME_LIMIT`].
const fn short<R: Rig>() -> Nanos {
    Nanos(R::TIME_LIMIT.0 / 4)
}

const fn ms(time: Nanos) -> u64 {
    time.0 / 1_000_000
}

pub(crate) fn wait_ends_when_the_completions_have_come<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads)?;
    let (start, mut left) = (d.rig.now(), R::DEPTH);
    while left > 0 {
        d.sleep(left, R::TIME_LIMIT);
        d.take_all()?;
        left = R::DEPTH.saturating_sub(d.done.len() as u32);
        let slept = d.rig.now().since(start);
        ensure!(
            slept < short::<R>(),
            "wait slept {} ms over completions that it was to return for",
            ms(slept)
        );
        d.rig.pass(Nanos(1));
    }
    Ok(())
}

pub(crate) fn wait_counts_unsignaled_reads<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let mut reads = d.full_queue(&mut lane);
    let last = reads.len() - 1;
    reads.iter_mut().take(last).for_each(|read| read.signaled = false);
    d.post_all(&mut lane, &reads)?;
    let start = d.rig.now();
    while d.done.is_empty() {
        // Asks for half of the queue, of which only the last READ is signaled.
        d.sleep(R::DEPTH / 2, R::TIME_LIMIT);
        d.take_all()?;
        let slept = d.rig.now().since(start);
        ensure!(
            slept < short::<R>(),
            "wait slept {} ms while {} READs completed, of which one was signaled",
            ms(slept),
            R::DEPTH
        );
        d.rig.pass(Nanos(1));
    }
    Ok(())
}

pub(crate) fn wait_ends_at_its_time<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let (start, limit) = (d.rig.now(), Nanos::from_millis(30));
    while d.rig.now().since(start) < limit {
        let slept = d.sleep(0, limit);
        ensure!(
            slept < short::<R>(),
            "wait slept {} ms, though it was to end after {}",
            ms(slept),
            ms(limit)
        );
        d.rig.pass(Nanos::from_micros(1));
    }
    Ok(())
}

pub(crate) fn wait_ends_for_a_waker<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    for _ in 0..3 {
        d.rig.wake(&d.provider);
        let slept = d.sleep(0, R::TIME_LIMIT);
        ensure!(slept < short::<R>(), "wait slept {} ms over its waker", ms(slept));
    }
    Ok(())
}

pub(crate) fn wait_ends_for_a_failed_completion<R: Rig>() -> CaseResult {
    need(R::ABILITIES.checks_remote, "checks of remote keys and ranges")?;
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let mut stray = d.read(&mut lane, 0, 64);
    stray.rkey ^= 0x55_0000;
    d.post_all(&mut lane, &[stray])?;
    let start = d.rig.now();
    while d.done.is_empty() {
        // `completions` is 0, and an error is a reason to return all the same.
        d.sleep(0, R::TIME_LIMIT);
        d.take_all()?;
        let slept = d.rig.now().since(start);
        ensure!(slept < short::<R>(), "wait slept {} ms over a failed completion", ms(slept));
        d.rig.pass(Nanos(1));
    }
    Ok(())
}

pub(crate) fn wait_ends_for_an_event<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    d.provider.fail(&mut lane.lane);
    let start = d.rig.now();
    while !d.events.contains(&ProviderEvent::LaneFailed(lane.id)) {
        d.sleep(0, R::TIME_LIMIT);
        d.take_all()?;
        let slept = d.rig.now().since(start);
        ensure!(slept < short::<R>(), "wait slept {} ms over LaneFailed", ms(slept));
        d.rig.pass(Nanos(1));
    }
    Ok(())
}
