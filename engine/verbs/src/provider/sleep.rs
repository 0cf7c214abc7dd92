//! How an engine sleeps until wrs have completed or a rail has an event.

use std::os::fd::AsFd;
use std::time::Instant;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_host::wake::WakeFd;
use rustix::event::Timespec;

use super::polling::{Ready, poll_fds};
use super::queues::Queues;
use crate::encoder::Encoder;

/// Sleeps until `completions` wrs have completed (0: completions are no reason to wake up), a wr
/// has failed, there is an event (`has_events`, or a lost rail), a wake-up is requested, or
/// `until`.
///
/// An armed queue signals its channel once, for the next completion, and only for one that comes
/// after the arming. So each round arms first, polls second and sleeps third: the poll finds
/// completions from before the arming, and later ones make the channel readable. Completions that
/// the poll finds go to the stash for the engine's next poll, and count towards `completions`.
///
/// A channel that has hung up (its device is gone) is left out from then on: poll(2) would report
/// it at once, each time.
pub(super) fn sleep<E: Encoder>(
    queues: &mut Queues,
    encoder: &mut E,
    wake: &WakeFd,
    mut has_events: impl FnMut() -> bool,
    completions: u64,
    until: Option<Instant>,
) {
    if queues.rails.iter().any(|queue| queue.has_stashed()) {
        return;
    }
    let mut done = 0;
    loop {
        let mut failed = false;
        // Rails are at most 16.
        for rail in (0..queues.rails.len() as u8).map(RailIndex) {
            if queues.progress.is_idle(rail) {
                continue;
            }
            queues.arm(encoder, rail);
            let seen = queues.stash(encoder, rail);
            done += seen.wrs;
            failed |= seen.failed;
        }
        let enough = completions > 0 && done >= completions;
        if failed || enough || queues.losses.any_unreported() || has_events() || wake.take_request() {
            return;
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return;
        }
        let slept = if wake.prepare_sleep() {
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut channels = [None; MAX_RAILS];
            for (rail, queue) in
                queues.rails.iter().enumerate().filter(|&(rail, _)| queues.losses.wakes(rail))
            {
                channels[rail] = queue.rail.channel().map(AsFd::as_fd);
            }
            poll_fds(wake, &channels[..queues.rails.len()], timeout.as_ref())
        } else {
            Ok(Ready::default())
        };
        wake.finish_sleep();
        // poll(2) has failed, so this thread has not slept: the caller decides what to do.
        let Ok(Ready { readable, hung_up }) = slept else { return };
        for (rail, queue) in queues.rails.iter_mut().enumerate() {
            let bit = 1 << rail;
            let over = if readable & bit != 0 { queue.take_events().is_err() } else { hung_up & bit != 0 };
            if over {
                queues.losses.hang_up(rail);
            }
        }
    }
}
