//! A crew: several child processes that start together and are counted together.

use std::time::Duration;

use anyhow::bail;
use kvrail::clock;

use crate::machine::memory::Memory;
use crate::measure::window::{Count, Span, Tally};
use crate::process::hosts::{Follower, Leader, Round};
use crate::process::parent::Child;
use crate::process::protocol::{Copying, Order, Ready, Reply, Verified};

/// How long a worker may take to connect, or to map and register its memory.
const START: Duration = Duration::from_secs(90);
/// The time between the order and the start, which every pipe and process needs.
const LEAD: Duration = Duration::from_millis(25);
/// How much longer than planned a child may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a round is run until the workers are at work at the same time. On a busy machine a
/// worker may wake up later than a short round ends.
const ATTEMPTS: u32 = 5;

/// Waits until all workers are connected, and lets them take the memory that they read into. They
/// take it at the same time, so the memory for all of them together must be available.
pub(crate) fn ready(crew: &mut [Child]) -> anyhow::Result<Vec<Ready>> {
    let mut bytes = 0_u64;
    for child in &mut *crew {
        match child.reply(START)? {
            Reply::Connected { host_bytes } => bytes = bytes.saturating_add(host_bytes),
            other => return Err(child.unexpected(&other)),
        }
    }
    Memory::now()
        .afford(bytes, crew.len(), || format!("{} readers and the pages that they read into", crew.len()))?;
    crew.iter_mut().try_for_each(|child| child.order(Order::Register))?;
    let ready = |child: &mut Child| match child.reply(START)? {
        Reply::Ready(ready) => Ok(ready),
        other => Err(child.unexpected(&other)),
    };
    crew.iter_mut().map(ready).collect()
}

fn ns(duration: Duration) -> u64 {
    // The command line permits an hour at most.
    duration.as_nanos() as u64
}

/// A round, as it is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The number of the row.
    pub(crate) lap: usize,
    /// How a producer copies; `None` for readers.
    pub(crate) copying: Option<Copying>,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
}

/// Runs one round, which all workers start at one moment; those of other hosts, too, if this one is
/// their `leader`. What they did within their common window is added to `tally`.
///
/// # Errors
///
/// A child or a host is gone or does not answer; or the workers were not at work at the same time
/// in any of several attempts.
pub(crate) fn round(
    crew: &mut [Child],
    mut leader: Option<&mut Leader>,
    plan: Plan,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut late = Vec::new();
    for _ in 0..ATTEMPTS {
        let (warmup, duration) = (ns(plan.warmup), ns(plan.duration));
        let start = match &mut leader {
            None => clock::within(LEAD).0,
            Some(leader) => leader.begin(2 * LEAD, Round { lap: plan.lap, start: 0, warmup, duration })?,
        };
        let own = attempt(crew, Order::Round { start, warmup, duration, copying: plan.copying })?;
        let window = match &mut leader {
            None => own,
            Some(leader) => {
                let (window, hosts) = leader.common(own, plan.warmup + plan.duration)?;
                late = hosts;
                window
            }
        };
        let Some(window) = window else { continue };
        let mut counts = counts(crew, window)?;
        if let Some(leader) = &mut leader {
            counts.extend(leader.counts()?);
        }
        tally.add(&counts, window);
        return Ok(());
    }
    let duration = plan.duration;
    if leader.is_some() {
        let who =
            if late.is_empty() { String::new() } else { format!(", least of all on {}", late.join(", ")) };
        bail!(
            "the workers of all hosts were not at work at the same time in {ATTEMPTS} rounds of {duration:.0?}{who}: a machine is too busy; give a longer --duration"
        );
    }
    bail!(
        "{} not at work at the same time in {ATTEMPTS} rounds of {duration:.0?}: the machine is too busy; give a longer --duration, or fewer --processes",
        match crew.len() {
            1 => "the threads of a worker were".into(),
            workers => format!("the {workers} workers were"),
        }
    );
}

/// Runs a round that the host which leads has ordered. What the workers of this host did in the
/// window of all is added to `tally`.
///
/// # Errors
///
/// A child or the leading host is gone or does not answer.
pub(crate) fn follow(
    crew: &mut [Child],
    follower: &mut Follower,
    round: Round,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let Round { start, warmup, duration, .. } = round;
    let own = attempt(crew, Order::Round { start, warmup, duration, copying: None })?;
    if let Some(window) = follower.ran(round, own)? {
        let counts = counts(crew, window)?;
        tally.add(&counts, window);
        follower.counted(counts)?;
    }
    Ok(())
}

/// What each worker did in a window of the last round.
fn counts(crew: &mut [Child], window: Span) -> anyhow::Result<Vec<Count>> {
    crew.iter_mut().try_for_each(|child| child.order(Order::Count(window)))?;
    let mut counts = Vec::with_capacity(crew.len());
    for child in crew {
        match child.reply(PATIENCE)? {
            Reply::Counted(count) => counts.push(count),
            other => return Err(child.unexpected(&other)),
        }
    }
    Ok(counts)
}

/// Lets all workers run a round, and returns their common window; `None` if they have none.
fn attempt(crew: &mut [Child], order: Order) -> anyhow::Result<Option<Span>> {
    let Order::Round { start, warmup, duration, .. } = order else { return Ok(None) };
    let end = start.saturating_add(warmup).saturating_add(duration);
    crew.iter_mut().try_for_each(|child| child.order(order))?;
    let mut spans = Vec::with_capacity(crew.len());
    for child in &mut *crew {
        let left = Duration::from_nanos(end.saturating_sub(clock::now().0));
        match child.reply(left + PATIENCE)? {
            Reply::Ran(span) => spans.push(span),
            other => return Err(child.unexpected(&other)),
        }
    }
    Ok(Span::common(spans))
}

/// Lets every worker read and compare its share of the pages once.
pub(crate) fn verify(crew: &mut [Child]) -> anyhow::Result<Verified> {
    crew.iter_mut().try_for_each(|child| child.order(Order::Verify))?;
    let mut all = Verified::default();
    for child in crew {
        match child.reply(6 * PATIENCE)? {
            Reply::Verified(one) => {
                all.compared += one.compared;
                all.wrong += one.wrong;
                all.missing += one.missing;
            }
            other => return Err(child.unexpected(&other)),
        }
    }
    Ok(all)
}

/// An error if no batch ended in any round: a row of zeros would pass for a measurement.
pub(crate) fn require_batches(tally: &Tally, scenario: &str, duration: Duration) -> anyhow::Result<()> {
    if tally.is_empty() {
        bail!("{scenario}: no batch ended within the {duration:.0?} measured; give a longer --duration");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_nothing_ends_is_no_measurement() {
        let mut tally = Tally::default();
        tally.add(&[Count::default()], Span { from: 0, to: 10 });
        let error = require_batches(&tally, "n-rails", Duration::from_millis(10)).unwrap_err().to_string();
        for word in ["n-rails", "10ms", "--duration"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        tally.add(&[Count { pages: 1, ..Count::default() }], Span { from: 10, to: 20 });
        assert!(require_batches(&tally, "n-rails", Duration::from_millis(10)).is_ok());
    }
}
