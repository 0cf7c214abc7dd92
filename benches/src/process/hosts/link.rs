//! A connection between two hosts, and the messages that travel over it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use kvrail::session::Address;
use serde::{Deserialize, Serialize};

use crate::measure::window::{Count, Span};
use crate::process::stop::Stop;

/// The version of the messages.
pub(super) const VERSION: u32 = 1;
/// How long the other hosts may take to come.
pub(super) const MEET: Duration = Duration::from_secs(120);
/// How much longer than planned an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A wait looks this often for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// The longest message: the counts of 64 workers have less.
const LONGEST: usize = 64 << 20;

/// What all hosts must have in common, by name.
pub(crate) type Settings = BTreeMap<String, String>;

/// Where hosts meet, and how many.
#[derive(Clone, Debug)]
pub(crate) struct Meeting {
    pub(crate) at: Address,
    /// How many there are, this one included.
    pub(crate) hosts: usize,
}

/// A round that the leader has ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// The number of the row.
    pub(crate) lap: usize,
    /// When it begins, on the clock of the host that reads this.
    pub(crate) start: u64,
    /// In nanoseconds.
    pub(crate) warmup: u64,
    /// In nanoseconds.
    pub(crate) duration: u64,
}

/// A message between two hosts, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// A follower: who it is, and what it measures.
    Hello { version: u32, host: String, settings: Settings, workers: usize },
    /// The leader: this host takes part.
    Welcome,
    /// The leader: what time is it?
    Ask,
    /// A follower: the time of its clock.
    Time(u64),
    /// The leader: run this round.
    Round(Round),
    /// A follower: when all of its workers were at work; `None` if they never were.
    Ran(Option<Span>),
    /// The leader: the window that counts; `None`: the round is run again.
    Window(Option<Span>),
    /// A follower: what its workers did in that window.
    Counted(Vec<Count>),
    /// The leader: there is no further round. `partial`: a signal has ended the run.
    Done { partial: bool },
    /// Either: why it cannot go on.
    Failed(String),
}

/// One end of a connection between two hosts.
#[derive(Debug)]
pub(super) struct HostStream {
    /// The other host.
    pub(super) name: String,
    pub(super) stream: BufReader<TcpStream>,
}

impl HostStream {
    pub(super) fn new(name: String, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { name, stream: BufReader::new(stream) })
    }

    pub(super) fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        let line = serde_json::to_string(message)? + "\n";
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.map_err(|error| self.gone(&error.to_string()))
    }

    fn gone(&self, why: &str) -> anyhow::Error {
        anyhow!("the host {} does not take part any more ({why}); what it prints says more", self.name)
    }

    /// The next message, which must come within `patience`.
    pub(super) fn receive(&mut self, patience: Duration, stop: Option<&Stop>) -> anyhow::Result<Message> {
        let until = Instant::now() + patience;
        let mut line = Vec::new();
        loop {
            // Before each message, since messages may come faster than a wait ends.
            if stop.is_some_and(Stop::requested) {
                bail!("stopped by a signal while the host {} was waited for", self.name);
            }
            // One read at a time, so that bytes without the end of a line do not keep this host
            // waiting.
            match self.stream.fill_buf() {
                Ok([]) => return Err(self.gone("it has closed the connection")),
                Ok(bytes) => {
                    let end = bytes.iter().position(|&byte| byte == b'\n');
                    let taken = end.map_or(bytes.len(), |end| end + 1);
                    line.extend_from_slice(&bytes[..taken]);
                    self.stream.consume(taken);
                    if end.is_some() {
                        break;
                    }
                    if line.len() >= LONGEST {
                        bail!("the host {} sends no message", self.name);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.gone(&error.to_string())),
            }
            if Instant::now() >= until {
                bail!("the host {} did not answer for {patience:.0?}", self.name);
            }
        }
        match serde_json::from_slice(&line) {
            Ok(Message::Failed(why)) => Err(anyhow!("the host {}: {why}", self.name)),
            Ok(message) => Ok(message),
            Err(_) => Err(anyhow!(
                "the host {} sends something else than kvrail-bench does: give --meet a port that no other program has, and run the same version everywhere",
                self.name
            )),
        }
    }

    /// Whether the other host, which is to say nothing now, has ended the connection or says why it
    /// goes.
    pub(super) fn has_left(&self) -> bool {
        let stream = self.stream.get_ref();
        if !self.stream.buffer().is_empty() || stream.set_nonblocking(true).is_err() {
            return true;
        }
        let seen = stream.peek(&mut [0]);
        let silent = matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock);
        stream.set_nonblocking(false).is_err() || !silent
    }

    pub(super) fn unexpected(&self, message: &Message) -> anyhow::Error {
        anyhow!("the host {} sent a message that does not fit: {message:?}", self.name)
    }
}

/// The settings that differ, in words.
pub(super) fn differences(own: &Settings, theirs: &Settings) -> Vec<String> {
    let none = String::from("nothing");
    let names: BTreeSet<_> = own.keys().chain(theirs.keys()).collect();
    let pairs = names
        .into_iter()
        .map(|name| (name, own.get(name).unwrap_or(&none), theirs.get(name).unwrap_or(&none)));
    let differing = pairs.filter(|(_, own, theirs)| own != theirs);
    differing
        .map(|(name, own, theirs)| {
            format!("{} is {} here and {} there", printable(name), own, printable(theirs))
        })
        .collect()
}

/// A text of another host, short and without characters that would change what a terminal shows.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(100).collect()
}
