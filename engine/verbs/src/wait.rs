//! How an engine sleeps until its rails have done something.

use std::os::fd::AsFd;
use std::time::Instant;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::provider::Verbs;

/// Sleeps until `completions` wrs have completed (0: that is no reason to wake), something has failed or happened,
/// somebody rings, or `until`.
///
/// An armed queue tells once, of the next completion, and only of one that comes after it was armed. So each round
/// arms first, looks second and sleeps third: what came before the arming is seen by the look, what came after it
/// makes the channel readable. What the look finds is stashed for the next poll, and counts.
pub(crate) fn sleep(verbs: &mut Verbs, completions: u64, until: Option<Instant>) {
    if verbs.ports.iter().any(|port| port.from < port.to) {
        return;
    }
    let mut done = 0;
    loop {
        verbs.look();
        let mut failed = false;
        for rail in 0..verbs.ports.len() {
            // Rails are at most 16.
            if verbs.progress.is_idle(RailIndex(rail as u8)) {
                continue;
            }
            let port = &mut verbs.ports[rail];
            if !port.armed {
                port.armed = port.rail.cq().arm();
            }
            let seen = verbs.stash(rail);
            done += seen.wrs;
            failed |= seen.failed;
        }
        if failed || (completions > 0 && done >= completions) || verbs.has_news() || verbs.bell.heard() {
            return;
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return;
        }
        let readable = if verbs.bell.lie_down() {
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            doze(verbs, timeout.as_ref())
        } else {
            0
        };
        verbs.bell.get_up();
        for rail in (0..verbs.ports.len()).filter(|rail| readable & 1 << rail != 0) {
            let port = &mut verbs.ports[rail];
            while port.rail.channel().is_some_and(|channel| channel.take()) {
                port.armed = false;
                port.events += 1;
            }
            // Not for ever: the counter in the library is what is compared when the queue is destroyed.
            if port.events >= 1 << 16 {
                port.rail.cq().acknowledge(std::mem::take(&mut port.events));
            }
        }
    }
}

/// The sleep itself. Says which rails' channels are readable.
fn doze(verbs: &Verbs, timeout: Option<&Timespec>) -> u32 {
    let bell = PollFd::new(&*verbs.bell, PollFlags::IN);
    let mut fds = [const { None }; MAX_RAILS + 1].map(|_: Option<()>| bell.clone());
    let mut count = 1;
    for port in &verbs.ports {
        if let Some(channel) = port.rail.channel() {
            fds[count] = PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN);
        }
        count += 1;
    }
    // Interrupted: the caller's loop comes round again.
    let _ = poll(&mut fds[..count], timeout);
    let mut readable = 0;
    for (rail, fd) in fds[1..count].iter().enumerate() {
        readable |= u32::from(!fd.revents().is_empty()) << rail;
    }
    readable
}
