//! How an engine sleeps until its rails have done something.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bell::Bell;
use crate::error::Errno;
use crate::provider::Verbs;

/// Sleeps until `completions` wrs have completed (0: that is no reason to wake), something has failed or happened,
/// somebody rings, or `until`.
///
/// An armed queue tells once, of the next completion, and only of one that comes after it was armed. So each round
/// arms first, looks second and sleeps third: what came before the arming is seen by the look, what came after it
/// makes the channel readable. What the look finds is stashed for the next poll, and counts.
///
/// A channel that has hung up (its device is gone) is left out from then on: poll(2) would report
/// it at once, every time.
pub(crate) fn sleep(verbs: &mut Verbs, completions: u64, until: Option<Instant>) {
    if verbs.ports.iter().any(|port| port.from < port.to) {
        return;
    }
    let mut done = 0;
    loop {
        let mut failed = false;
        for rail in 0..verbs.ports.len() {
            // Rails are at most 16.
            if verbs.progress.is_idle(RailIndex(rail as u8)) {
                continue;
            }
            let awake = verbs.losses.wakes(rail);
            let port = &mut verbs.ports[rail];
            if awake && !port.armed {
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
        let slept = if verbs.bell.lie_down() {
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut channels = [None; MAX_RAILS];
            for (rail, port) in verbs.ports.iter().enumerate().filter(|&(rail, _)| verbs.losses.wakes(rail)) {
                channels[rail] = port.rail.channel().map(AsFd::as_fd);
            }
            doze(&verbs.bell, &channels[..verbs.ports.len()], timeout.as_ref())
        } else {
            Ok(Ready::default())
        };
        verbs.bell.get_up();
        // Without poll(2) there is no sleep: the caller decides whether to come back.
        let Ok(Ready { readable, hung_up }) = slept else { return };
        for rail in 0..verbs.ports.len() {
            let bit = 1 << rail;
            let over = if readable & bit != 0 { take(verbs, rail).is_err() } else { hung_up & bit != 0 };
            if over {
                verbs.losses.hang_up(rail);
            }
        }
    }
}

/// Takes the events of a channel that is readable.
fn take(verbs: &mut Verbs, rail: usize) -> Result<(), Errno> {
    let port = &mut verbs.ports[rail];
    let Some(channel) = port.rail.channel() else { return Ok(()) };
    while channel.take()? {
        port.armed = false;
        port.events += 1;
    }
    // Not for ever: the counter in the library is what is compared when the queue is destroyed.
    if port.events >= 1 << 16 {
        port.rail.cq().acknowledge(std::mem::take(&mut port.events));
    }
    Ok(())
}

/// What poll(2) said of some descriptors, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// There is something to be read.
    pub(crate) readable: u32,
    /// Nothing more will ever come: the other end is closed, the device gone, or it is no
    /// descriptor. What came before may still be there to be read.
    pub(crate) hung_up: u32,
}

/// Sleeps until the bell rings, one of `fds` (at most [`MAX_RAILS`]; `None` is left out) has
/// something to say, a signal comes, or the timeout.
///
/// # Errors
///
/// poll(2) fails, at once: whoever comes back without a pause does not sleep.
pub(crate) fn doze(
    bell: &Bell,
    fds: &[Option<BorrowedFd<'_>>],
    timeout: Option<&Timespec>,
) -> Result<Ready, Errno> {
    let ring = PollFd::new(bell, PollFlags::IN);
    // A place without a descriptor of its own has the bell's, which wakes this sleep anyway.
    let mut polled = [const { None }; MAX_RAILS + 1].map(|_: Option<()>| ring.clone());
    for (place, fd) in polled.iter_mut().zip(fds) {
        if let Some(fd) = fd {
            *place = PollFd::from_borrowed_fd(*fd, PollFlags::IN);
        }
    }
    // The bell's own place is behind those of `fds`.
    let count = fds.len().min(MAX_RAILS) + 1;
    match poll(&mut polled[..count], timeout) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(error) => return Err(Errno(error.raw_os_error())),
    }
    let mut ready = Ready::default();
    for (place, (polled, _)) in polled.iter().zip(fds).enumerate().filter(|(_, (_, fd))| fd.is_some()) {
        let said = polled.revents();
        ready.readable |= u32::from(said.contains(PollFlags::IN)) << place;
        let over = said.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        ready.hung_up |= u32::from(over) << place;
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    /// Never reached by a sleep that is ended by something else.
    const LONG: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

    #[test]
    fn a_channel_that_hangs_up_is_told_and_wakes_nobody_once_it_is_left_out() {
        let bell = Bell::new().unwrap();
        let (quiet, _writer) = rustix::pipe::pipe().unwrap();
        let (over, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(
            doze(&bell, &[Some(quiet.as_fd()), Some(over.as_fd())], Some(&AT_ONCE)),
            Ok(Ready::default())
        );
        drop(writer);
        // Not as something to be read, of which there is none: that would be looked for for ever.
        let gone = Ready { readable: 0, hung_up: 0b10 };
        assert_eq!(doze(&bell, &[Some(quiet.as_fd()), Some(over.as_fd())], Some(&LONG)), Ok(gone));
        // Left out, it does not end the sleep: this one lasts as long as it may.
        let (short, began) = (Duration::from_millis(20), Instant::now());
        let timeout = Timespec::try_from(short).unwrap();
        assert_eq!(doze(&bell, &[Some(quiet.as_fd()), None], Some(&timeout)), Ok(Ready::default()));
        assert!(began.elapsed() >= short, "it did not sleep");
    }

    #[test]
    fn an_error_and_what_is_left_to_be_read_are_told_apart() {
        let bell = Bell::new().unwrap();
        // The writing end of a pipe that nobody reads from is in error, as the channel of a device
        // that is gone.
        let (reader, broken) = rustix::pipe::pipe().unwrap();
        drop(reader);
        assert_eq!(doze(&bell, &[Some(broken.as_fd())], Some(&LONG)), Ok(Ready { readable: 0, hung_up: 1 }));
        // What was said before the end is there, and the end is, too.
        let (last, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let readable = Ready { readable: 1, hung_up: 0 };
        assert_eq!(doze(&bell, &[Some(last.as_fd())], Some(&LONG)), Ok(readable));
        drop(writer);
        assert_eq!(doze(&bell, &[Some(last.as_fd())], Some(&LONG)), Ok(Ready { hung_up: 1, ..readable }));
    }

    #[test]
    fn the_bell_ends_a_sleep_and_is_no_channel() {
        let bell = Bell::new().unwrap();
        let (quiet, _writer) = rustix::pipe::pipe().unwrap();
        assert!(bell.lie_down());
        bell.ring();
        assert_eq!(doze(&bell, &[None, Some(quiet.as_fd()), None], Some(&LONG)), Ok(Ready::default()));
        bell.get_up();
        assert!(bell.heard());
    }
}
