//! poll(2) over the descriptors of rails.

use std::os::fd::BorrowedFd;

use kvrail_core::id::MAX_RAILS;
use kvrail_host::wake::WakeFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Errno;

/// What poll(2) reported, with a bit for each descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// There is something to be read.
    pub(super) readable: u32,
    /// No more events will come: the other end is closed, the device is gone, or the number is no
    /// open descriptor. Earlier events may still be there to be read.
    pub(super) hung_up: u32,
}

/// Sleeps until a wake-up is requested, one of `fds` is ready (at most [`MAX_RAILS`]; `None` is
/// left out), a signal comes, or the timeout.
///
/// # Errors
///
/// poll(2) has failed without a sleep. A caller that calls again at once would spin.
pub(super) fn poll_fds(
    wake: &WakeFd,
    fds: &[Option<BorrowedFd<'_>>],
    timeout: Option<&Timespec>,
) -> Result<Ready, Errno> {
    let wake_fd = PollFd::new(wake, PollFlags::IN);
    // A place without a descriptor gets the wake flag's descriptor, which ends this sleep anyway.
    let mut polled = [const { None }; MAX_RAILS + 1].map(|_: Option<()>| wake_fd.clone());
    for (place, fd) in polled.iter_mut().zip(fds) {
        if let Some(fd) = fd {
            *place = PollFd::from_borrowed_fd(*fd, PollFlags::IN);
        }
    }
    // The wake flag's own place is behind the places of `fds`.
    let count = fds.len().min(MAX_RAILS) + 1;
    match poll(&mut polled[..count], timeout) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(error) => return Err(Errno(error.raw_os_error())),
    }
    let mut ready = Ready::default();
    for (place, (polled, _)) in polled.iter().zip(fds).enumerate().filter(|(_, (_, fd))| fd.is_some()) {
        let found = polled.revents();
        ready.readable |= u32::from(found.contains(PollFlags::IN)) << place;
        let over = found.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        ready.hung_up |= u32::from(over) << place;
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    /// A limit that no sleep of these tests reaches.
    const LONG: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

    #[test]
    fn a_hung_up_channel_is_reported_and_wakes_no_thread_once_it_is_left_out() {
        let wake = WakeFd::new().unwrap();
        let (quiet, _writer) = rustix::pipe::pipe().unwrap();
        let (over, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(
            poll_fds(&wake, &[Some(quiet.as_fd()), Some(over.as_fd())], Some(&AT_ONCE)),
            Ok(Ready::default())
        );
        drop(writer);
        // The pipe's end is not reported as readable: a caller would try to read it for ever.
        let gone = Ready { readable: 0, hung_up: 0b10 };
        assert_eq!(poll_fds(&wake, &[Some(quiet.as_fd()), Some(over.as_fd())], Some(&LONG)), Ok(gone));
        // Without it in the list, the sleep lasts until the timeout.
        let (short, began) = (Duration::from_millis(20), Instant::now());
        let timeout = Timespec::try_from(short).unwrap();
        assert_eq!(poll_fds(&wake, &[Some(quiet.as_fd()), None], Some(&timeout)), Ok(Ready::default()));
        assert!(began.elapsed() >= short, "it did not sleep");
    }

    #[test]
    fn a_hung_up_descriptor_and_a_readable_one_are_told_apart() {
        let wake = WakeFd::new().unwrap();
        // The writing end of a pipe whose reading end is closed is in error, as the channel of a
        // device that is gone.
        let (reader, broken) = rustix::pipe::pipe().unwrap();
        drop(reader);
        assert_eq!(
            poll_fds(&wake, &[Some(broken.as_fd())], Some(&LONG)),
            Ok(Ready { readable: 0, hung_up: 1 })
        );
        // What was written before the end is readable, and the end is reported, too.
        let (last, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let readable = Ready { readable: 1, hung_up: 0 };
        assert_eq!(poll_fds(&wake, &[Some(last.as_fd())], Some(&LONG)), Ok(readable));
        drop(writer);
        assert_eq!(poll_fds(&wake, &[Some(last.as_fd())], Some(&LONG)), Ok(Ready { hung_up: 1, ..readable }));
    }

    #[test]
    fn a_wake_up_ends_a_sleep_and_is_no_channel() {
        let wake = WakeFd::new().unwrap();
        let (quiet, _writer) = rustix::pipe::pipe().unwrap();
        assert!(wake.prepare_sleep());
        wake.request();
        assert_eq!(poll_fds(&wake, &[None, Some(quiet.as_fd()), None], Some(&LONG)), Ok(Ready::default()));
        wake.finish_sleep();
        assert!(wake.take_request());
    }
}
