//! How an engine sleeps until wrs have completed or a rail has an event.

use std::os::fd::AsFd;
use std::time::Instant;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_host::wake::WakeFd;
use rustix::event::Timespec;

use super::polling::{Ready, poll_fds};
use super::progress::Seen;
use super::queues::Queues;
use super::watch::Watch;
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
    if has_stashed(queues) {
        return;
    }
    let mut done = 0;
    loop {
        let seen = look(queues, encoder);
        done += seen.wrs;
        let enough = completions > 0 && done >= completions;
        if seen.failed || enough || queues.losses.any_unreported() || has_events() || wake.take_request() {
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
        let Ok(ready) = slept else { return };
        take_channel_events(queues, ready);
    }
}

/// Prepares a sleep on [`Watch`], and says whether there is no reason to stay awake. If so,
/// [`disarm`] follows.
///
/// No wake-up is lost, for the same reason as in [`sleep`]: queues are armed before they are
/// polled, and the wake flag is set to asleep before it is looked at. (Events of the control thread
/// are followed by a request.) A channel tells of its queue's next completion and cannot count, so
/// one completion ends the sleep, however many the engine waits for.
///
/// A queue that an earlier sleep has armed may have signalled its channel since. That event is
/// taken first, and the queue armed again. Otherwise a caller that is told of changes only
/// (`EPOLLET`) would not learn of later completions.
pub(super) fn arm<E: Encoder>(
    queues: &mut Queues,
    encoder: &mut E,
    wake: &WakeFd,
    watch: &Watch,
    mut has_events: impl FnMut() -> bool,
) -> bool {
    if has_stashed(queues) {
        return false;
    }
    if queues.rails.iter().any(|queue| queue.is_armed()) {
        take_watched(queues, watch);
    }
    look(queues, encoder);
    if has_stashed(queues) || queues.losses.any_unreported() || has_events() || wake.take_request() {
        return false;
    }
    let may_sleep = wake.prepare_sleep();
    if !may_sleep {
        wake.finish_sleep();
        let _ = wake.take_request();
    }
    may_sleep
}

/// Ends a sleep on [`Watch`]. A request to wake up stays noted.
pub(super) fn disarm(queues: &mut Queues, wake: &WakeFd, watch: &Watch) {
    take_watched(queues, watch);
    wake.finish_sleep();
}

/// Takes the events of channels, and leaves those out that have hung up.
fn take_watched(queues: &mut Queues, watch: &Watch) {
    let ready = watch.ready();
    take_channel_events(queues, ready);
    for (rail, queue) in queues.rails.iter().enumerate() {
        let told = (ready.readable | ready.hung_up) & 1 << rail != 0;
        if told
            && !queues.losses.wakes(rail)
            && let Some(channel) = queue.rail.channel()
        {
            watch.leave_out(channel.as_fd());
        }
    }
}

fn has_stashed(queues: &Queues) -> bool {
    queues.rails.iter().any(|queue| queue.has_stashed())
}

/// Arms the queues of all rails with outstanding wrs and polls them into their stashes. Returns
/// what the completions cover.
fn look<E: Encoder>(queues: &mut Queues, encoder: &mut E) -> Seen {
    let mut all = Seen::default();
    // Rails are at most 16.
    for rail in (0..queues.rails.len() as u8).map(RailIndex) {
        if queues.progress.is_idle(rail) {
            continue;
        }
        queues.arm(encoder, rail);
        let seen = queues.stash(encoder, rail);
        all.wrs += seen.wrs;
        all.failed |= seen.failed;
    }
    all
}

/// Takes the events of channels that are ready, and notes those that have hung up.
fn take_channel_events(queues: &mut Queues, Ready { readable, hung_up }: Ready) {
    for (rail, queue) in queues.rails.iter_mut().enumerate() {
        let bit = 1 << rail;
        let over = if readable & bit != 0 { queue.take_events().is_err() } else { hung_up & bit != 0 };
        if over {
            queues.losses.hang_up(rail);
        }
    }
}
