//! One descriptor for everything that wakes an engine: an epoll(7) instance over the wake flag and
//! the completion channels of all rails. It is readable while one of them is, so a caller can sleep
//! on it in poll(2), or in an epoll instance of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kvrail_core::id::MAX_RAILS;
use kvrail_host::wake::WakeFd;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::polling::Ready;
use crate::error::Errno;

/// The event data of the wake flag. That of a channel is its rail.
const WAKE: u64 = u64::MAX;

/// Readable while the wake flag or a channel is.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl Watch {
    /// Watches the wake flag and the channels; a channel's place is its rail, at most
    /// [`MAX_RAILS`].
    ///
    /// # Errors
    ///
    /// The system has no descriptor left, or no memory.
    pub(super) fn new<'a>(
        wake: &WakeFd,
        channels: impl Iterator<Item = Option<BorrowedFd<'a>>>,
    ) -> Result<Self, Errno> {
        let start = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, wake, EventData::new_u64(WAKE), EventFlags::IN)?;
            for (rail, channel) in channels.enumerate() {
                if let Some(channel) = channel {
                    epoll::add(&epoll, channel, EventData::new_u64(rail as u64), EventFlags::IN)?;
                }
            }
            Ok(epoll)
        };
        start().map(Self).map_err(|error: rustix::io::Errno| Errno(error.raw_os_error()))
    }

    /// Which channels are ready now. It does not sleep.
    pub(super) fn ready(&self) -> Ready {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut found = [Event { flags: EventFlags::empty(), data: EventData::new_u64(WAKE) }; MAX_RAILS + 1];
        // Fails only by a signal. What is ready stays so, and ends the next sleep at once.
        let count = epoll::wait(&self.0, &mut found, Some(&AT_ONCE)).unwrap_or(0);
        let mut ready = Ready::default();
        for event in &found[..count] {
            let (rail, flags) = (event.data.u64(), event.flags);
            if rail < MAX_RAILS as u64 {
                ready.readable |= u32::from(flags.contains(EventFlags::IN)) << rail;
                let over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                ready.hung_up |= u32::from(over) << rail;
            }
        }
        ready
    }

    /// Leaves a channel out from now on: one that has hung up would be ready for ever.
    pub(super) fn leave_out(&self, channel: BorrowedFd<'_>) {
        // Fails only for a channel that was left out before.
        let _ = epoll::delete(&self.0, channel);
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::pipe::pipe;

    use super::*;

    fn readable(watch: &Watch) -> bool {
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn it_is_readable_while_a_channel_or_the_wake_flag_is() {
        let wake = WakeFd::new().unwrap();
        let ((first, _one), (second, two)) = (pipe().unwrap(), pipe().unwrap());
        let channels = [Some(first.as_fd()), None, Some(second.as_fd())];
        let watch = Watch::new(&wake, channels.into_iter()).unwrap();
        assert!(!readable(&watch));
        assert_eq!(watch.ready(), Ready::default());
        rustix::io::write(&two, b"x").unwrap();
        assert!(readable(&watch));
        assert_eq!(watch.ready(), Ready { readable: 0b100, hung_up: 0 });
        rustix::io::read(&second, &mut [0_u8; 8]).unwrap();
        assert!(!readable(&watch));
        assert!(wake.prepare_sleep());
        wake.request();
        assert!(readable(&watch));
        assert_eq!(watch.ready(), Ready::default(), "the wake flag is no channel");
        wake.finish_sleep();
        assert!(!readable(&watch));
    }

    #[test]
    fn a_channel_that_has_hung_up_is_told_and_can_be_left_out() {
        let wake = WakeFd::new().unwrap();
        let (quiet, _writer) = pipe().unwrap();
        let (over, writer) = pipe().unwrap();
        let channels = [Some(quiet.as_fd()), Some(over.as_fd())];
        let watch = Watch::new(&wake, channels.into_iter()).unwrap();
        drop(writer);
        assert!(readable(&watch));
        assert_eq!(watch.ready(), Ready { readable: 0, hung_up: 0b10 });
        watch.leave_out(over.as_fd());
        watch.leave_out(over.as_fd());
        assert!(!readable(&watch));
    }
}
