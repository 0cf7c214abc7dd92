use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::wake::{EventFd, StopSignal};

/// A source that returns the results in `script`, in order, and raises `stop` after the last one.
struct Scripted<'a> {
    readable: EventFd,
    stop: &'a StopSignal,
    script: RefCell<VecDeque<io::Result<u32>>>,
    asked: Cell<usize>,
}

impl AsFd for Scripted<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl ConnectionSource for Scripted<'_> {
    type Connection = u32;

    fn accept(&self) -> io::Result<u32> {
        self.asked.set(self.asked.get() + 1);
        let mut script = self.script.borrow_mut();
        let next = script.pop_front().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()));
        if script.is_empty() {
            self.stop.raise();
        }
        next
    }
}

#[derive(Default)]
struct Recorder {
    accepted: Vec<u32>,
    failures: Vec<Option<i32>>,
    watched: Option<EventFd>,
    woken: Vec<Vec<bool>>,
    until: Option<Instant>,
}

impl AcceptHandler<u32> for Recorder {
    fn accepted(&mut self, connection: u32) {
        self.accepted.push(connection);
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        self.failures.push(error.raw_os_error());
    }

    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) -> Option<Instant> {
        fds.extend(self.watched.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        self.until
    }

    fn woken(&mut self, _now: Instant, ready: &[bool]) {
        self.woken.push(ready.to_vec());
    }
}

fn run(script: Vec<io::Result<u32>>, handler: &mut Recorder) -> (Result<(), AcceptError>, usize) {
    let stop = StopSignal::new().unwrap();
    let (readable, asked) = (EventFd::new().unwrap(), Cell::new(0));
    readable.signal();
    let source = Scripted { readable, stop: &stop, script: RefCell::new(script.into()), asked };
    let result = accept_loop(&source, stop.as_fd(), handler);
    (result, source.asked.get())
}

#[test]
fn a_broken_connection_is_passed_over_at_once_and_a_lack_of_descriptors_after_a_pause() {
    let mut handler = Recorder::default();
    let errno = |errno: Errno| Err(io::Error::from(errno));
    let started = Instant::now();
    let script =
        vec![Ok(1), errno(Errno::CONNABORTED), errno(Errno::NOTCONN), Ok(2), errno(Errno::AGAIN), Ok(3)];
    assert_eq!(run(script, &mut handler), (Ok(()), 6));
    assert_eq!((&*handler.accepted, &*handler.failures), (&[1, 2, 3][..], &[][..]));

    let out = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let script = out.iter().map(|&e| errno(e)).chain([Ok(4)]).collect();
    let before = Instant::now();
    assert_eq!(run(script, &mut handler), (Ok(()), 5));
    assert!(before.elapsed() >= 4 * PAUSE, "{:?} since {started:?}", before.elapsed());
    assert_eq!(handler.accepted.last(), Some(&4));
    assert_eq!(handler.failures, out.map(|e| Some(e.raw_os_error())));
}

#[test]
fn a_stop_ends_a_pause() {
    let mut handler = Recorder::default();
    // The last entry raises the stop, so the pause that follows it ends at once, without another
    // try.
    assert_eq!(run(vec![Err(Errno::MFILE.into())], &mut handler), (Ok(()), 1));
    assert_eq!(handler.failures.len(), 1);
}

/// Watches more descriptors than the process may have, until poll(2) has failed `failures` times.
struct TooMany<'a> {
    one: EventFd,
    limit: usize,
    failures: usize,
    failed: Vec<Instant>,
    woken: Vec<usize>,
    stop: &'a StopSignal,
}

impl AcceptHandler<u32> for TooMany<'_> {
    fn accepted(&mut self, _: u32) {
        self.stop.raise();
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
        self.failed.push(Instant::now());
    }

    fn watch<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) -> Option<Instant> {
        let count = if self.failed.len() < self.failures { self.limit + 1 } else { 1 };
        fds.extend((0..count).map(|_| PollFd::new(&self.one, PollFlags::IN)));
        None
    }

    fn woken(&mut self, _: Instant, ready: &[bool]) {
        assert!(!ready.contains(&true));
        self.woken.push(ready.len());
    }
}

#[test]
fn the_loop_waits_longer_and_longer_while_poll_fails_and_goes_on_afterwards() {
    let old = getrlimit(Resource::Nofile);
    // So that the list of descriptors is short. The other tests need a few only.
    let limit = old.current.unwrap_or(u64::MAX).min(1024);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..old }).unwrap();
    let stop = StopSignal::new().unwrap();
    let readable = EventFd::new().unwrap();
    readable.signal();
    let script = RefCell::new([Ok(1)].into());
    let source = Scripted { readable, stop: &stop, script, asked: Cell::new(0) };
    let (limit, failures) = (limit as usize, 3);
    let one = EventFd::new().unwrap();
    let mut handler = TooMany { one, limit, failures, failed: Vec::new(), woken: Vec::new(), stop: &stop };
    let started = Instant::now();
    assert_eq!(accept_loop(&source, stop.as_fd(), &mut handler), Ok(()));
    assert!(started.elapsed() >= (1 + 2 + 4) * PAUSE, "{:?}", started.elapsed());
    let times = &handler.failed;
    assert!(times.len() == failures && times[1] - times[0] >= PAUSE && times[2] - times[1] >= 2 * PAUSE);
    // What waits too long can be given up although poll(2) fails.
    assert_eq!(handler.woken, [limit + 1, limit + 1, limit + 1, 1]);
}

#[test]
fn a_source_that_has_ended_ends_the_loop_with_an_error() {
    let mut handler = Recorder::default();
    let script = vec![Ok(1), Err(io::ErrorKind::UnexpectedEof.into()), Ok(2)];
    assert_eq!(run(script, &mut handler), (Err(AcceptError::SourceEnded), 2));
    assert_eq!(handler.accepted, [1]);
}

#[test]
fn a_descriptor_and_a_time_of_the_handler_wake_the_loop() {
    let (watched, now) = (EventFd::new().unwrap(), Instant::now());
    watched.signal();
    let mut handler = Recorder { watched: Some(watched), ..Recorder::default() };
    assert_eq!(run(vec![Ok(1)], &mut handler).0, Ok(()));
    assert_eq!(handler.woken, [[true]]);
    // A source that is never readable: the loop wakes by the handler's time alone.
    struct Silent(EventFd);
    impl AsFd for Silent {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl ConnectionSource for Silent {
        type Connection = u32;
        fn accept(&self) -> io::Result<u32> {
            unreachable!("it was never readable")
        }
    }
    struct Three<'a>(u32, &'a StopSignal);
    impl AcceptHandler<u32> for Three<'_> {
        fn accepted(&mut self, _: u32) {}
        fn cannot_accept(&mut self, error: &io::Error) {
            panic!("{error}");
        }
        fn watch<'b>(&'b self, _: &mut Vec<PollFd<'b>>) -> Option<Instant> {
            Some(Instant::now() + Duration::from_millis(1))
        }
        fn woken(&mut self, _: Instant, ready: &[bool]) {
            assert!(ready.is_empty());
            self.0 += 1;
            if self.0 == 3 {
                self.1.raise();
            }
        }
    }
    let stop = StopSignal::new().unwrap();
    let mut three = Three(0, &stop);
    accept_loop(&Silent(EventFd::new().unwrap()), stop.as_fd(), &mut three).unwrap();
    assert!(three.0 >= 3 && now.elapsed() >= Duration::from_millis(3));
}
