//! The process of a round.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

/// What a process reads from its standard input when it goes on.
const SESSION_GOES_ON: u8 = b'!';
pub(crate) const SESSION_IS_OVER: u8 = b'.';

/// A process of this program. It is killed when this is dropped, and ends when its standard input
/// is closed.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    output: ChildStdout,
    /// What it has written, as far as no line of it was fetched.
    written: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Stopped,
    Killed,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        fcntl_setfl(&output, fcntl_getfl(&output).unwrap() | OFlags::NONBLOCK).unwrap();
        let pid = Pid::from_child(&child);
        Self { child, pid, output, written: Vec::new(), state: State::Running }
    }

    /// The name that it has as a reader.
    pub(crate) fn reader_name(&self) -> String {
        format!("reader-{}", self.pid)
    }

    /// The next line that it has written. Does not wait.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut bytes = [0; 256];
        loop {
            match self.output.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => self.written.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let end = self.written.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.written.drain(..=end).collect();
        Some(String::from_utf8(line).unwrap().trim().into())
    }

    /// How it is now. Does not wait.
    ///
    /// # Panics
    ///
    /// It has ended by itself.
    pub(crate) fn state(&mut self) -> State {
        if self.state != State::Killed
            && let Some((_, status)) =
                waitpid(Some(self.pid), WaitOptions::NOHANG | WaitOptions::UNTRACED).unwrap()
        {
            self.state = after(status);
        }
        self.state
    }

    /// Sends it a signal, if it is not dead.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.state() == State::Killed {
            return;
        }
        // It has not been waited for, so the number is its own.
        kill_process(self.pid, signal).unwrap();
        if signal == Signal::CONT {
            self.state = State::Running;
        }
    }

    /// Tells it that it was stopped and goes on, and whether its session is over. It goes on.
    pub(crate) fn go_on(&mut self, session_over: bool) {
        let byte = if session_over { SESSION_IS_OVER } else { SESSION_GOES_ON };
        self.child.stdin.as_mut().unwrap().write_all(&[byte]).unwrap();
        self.signal(Signal::CONT);
    }
}

fn after(status: WaitStatus) -> State {
    if status.stopped() {
        State::Stopped
    } else {
        let by = status.terminating_signal();
        assert_eq!(by, Some(Signal::KILL.as_raw()), "a process of a round ends by itself: {status:?}");
        State::Killed
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.state != State::Killed {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}
