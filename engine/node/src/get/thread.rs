//! A thread that drives a reader: bounded spinning, then sleep.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use kvrail::ReaderTransport;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::read_driver::ReadDriver;

/// The longest sleep.
const LONGEST: Duration = Duration::from_secs(1);
/// Turns without work between two looks at the clock.
const TURNS: u32 = 16;

/// Drives a reader until the node stops.
pub(crate) fn run<T: ReaderTransport<Provider: AsFd>>(
    mut driver: ReadDriver<T>,
    spin: Duration,
    cpus: &[usize],
) {
    if !cpus.is_empty() {
        let mut set = CpuSet::new();
        cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU).for_each(|&cpu| set.set(cpu));
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(?cpus, %error, "a reader's thread stays on the processors that it has");
        }
    }
    let mut idle_since = None;
    loop {
        if driver.poll() {
            idle_since = None;
            continue;
        }
        if driver.is_stopping() {
            return;
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        if !spin.is_zero() && since.elapsed() < spin {
            (0..TURNS).for_each(|_| std::hint::spin_loop());
            continue;
        }
        driver.wait(Instant::now() + LONGEST);
    }
}
