//! Several workers, started together and counted together.

use std::time::Duration;

use anyhow::bail;
use kvrail::clock;

use crate::child::{Child, Order, Reply, Verified};
use crate::memcpy::Routine;
use crate::window::{Span, Tally};

/// From the order to the start: time for every pipe and process.
const LEAD: Duration = Duration::from_millis(25);
/// How much longer than it should take a child may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn ns(duration: Duration) -> u64 {
    // At most an hour, by the command line.
    duration.as_nanos() as u64
}

/// One round of all workers, which start at one moment; what they did within their common window goes
/// into `tally`. `routine` is what producers copy with.
pub(crate) fn round(
    crew: &mut [Child],
    routine: Routine,
    warmup: Duration,
    duration: Duration,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let start = clock::within(LEAD).0;
    let order = Order::Round { start, warmup: ns(warmup), duration: ns(duration), routine };
    crew.iter_mut().try_for_each(|child| child.order(order))?;
    let mut spans = Vec::with_capacity(crew.len());
    for child in &mut *crew {
        match child.reply(LEAD + warmup + duration + PATIENCE)? {
            Reply::Ran(span) => spans.push(span),
            other => return Err(child.confused(&other)),
        }
    }
    let Some(window) = Span::common(spans.iter().copied()) else {
        bail!(
            "the {} workers were never at work at the same time: the machine is too busy; give a longer --duration, or fewer --processes",
            crew.len()
        );
    };
    crew.iter_mut().try_for_each(|child| child.order(Order::Count(window)))?;
    let mut counts = Vec::with_capacity(crew.len());
    for child in &mut *crew {
        match child.reply(PATIENCE)? {
            Reply::Counted(count) => counts.push(count),
            other => return Err(child.confused(&other)),
        }
    }
    tally.add(&counts, window);
    Ok(())
}

/// One verified pass of all workers, each over its share.
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
            other => return Err(child.confused(&other)),
        }
    }
    Ok(all)
}

/// An error if nothing was done in all of the rounds: a row of zeros would pass for a measurement.
pub(crate) fn something(tally: &Tally, scenario: &str, duration: Duration) -> anyhow::Result<()> {
    if tally.is_empty() {
        bail!("{scenario}: no batch ended within the {duration:.0?} measured; give a longer --duration");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Count, Span};

    #[test]
    fn a_run_in_which_nothing_ends_is_no_measurement() {
        let mut tally = Tally::default();
        tally.add(&[Count::default()], Span { from: 0, to: 10 });
        let error = something(&tally, "n-rails", Duration::from_millis(10)).unwrap_err().to_string();
        for word in ["n-rails", "10ms", "--duration"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        tally.add(&[Count { pages: 1, ..Count::default() }], Span { from: 10, to: 20 });
        assert!(something(&tally, "n-rails", Duration::from_millis(10)).is_ok());
    }
}
