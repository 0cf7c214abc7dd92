//! A host that follows.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;
use kvrail::clock;

use super::link::{HostStream, MEET, Meeting, Message, PATIENCE, Round, Settings, VERSION};
use crate::measure::window::{Count, Span};
use crate::process::stop::Stop;

/// The longest round.
const ROUND: u64 = 2 * 3600 * 1_000_000_000;
/// How long after its order a round begins at most. The leader leaves four times the error of the
/// least known clock, and that error is at most half of [`PATIENCE`].
const FAR: Duration = Duration::from_secs(4 * PATIENCE.as_secs());

/// A host that does as another one says.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(super) leader: HostStream,
    /// Whether the leader was stopped before the end of the run.
    pub(super) partial: bool,
}

impl Follower {
    pub(super) fn join(
        addresses: &[SocketAddr],
        meeting: &Meeting,
        settings: &Settings,
        workers: usize,
        until: Instant,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let connect = || {
            addresses
                .iter()
                .map(|at| TcpStream::connect_timeout(at, Duration::from_secs(3)))
                .reduce(|first, next| if first.is_ok() { first } else { next })
        };
        let stream = loop {
            match connect() {
                Some(Ok(stream)) => break stream,
                _ if stop.requested() => bail!("stopped by a signal while {} was waited for", meeting.at),
                Some(Err(error)) if Instant::now() >= until => bail!(
                    "--meet {}: this host cannot listen there, and nothing answers there ({error}): give an address of the host that is to lead, and start it there too",
                    meeting.at
                ),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let mut leader = HostStream::new(meeting.at.to_string(), stream)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        leader.send(&Message::Hello { version: VERSION, host, settings: settings.clone(), workers })?;
        match leader.receive(MEET, Some(stop))? {
            Message::Welcome => Ok(Self { leader, partial: false }),
            other => Err(leader.unexpected(&other)),
        }
    }

    /// The next round; `None` after the last one.
    pub(crate) fn next(&mut self, stop: &Stop) -> anyhow::Result<Option<Round>> {
        loop {
            // Between two rounds the leader may wait for other hosts.
            match self.leader.receive(MEET + PATIENCE, Some(stop))? {
                Message::Ask => self.leader.send(&Message::Time(clock::now().0))?,
                Message::Round(round)
                    if round.warmup <= ROUND
                        && round.duration <= ROUND
                        && round.start <= clock::within(FAR).0 =>
                {
                    return Ok(Some(round));
                }
                Message::Done { partial } => {
                    self.partial = partial;
                    return Ok(None);
                }
                other => return Err(self.leader.unexpected(&other)),
            }
        }
    }

    /// Says when all workers were at work in this round, and returns the window that counts.
    pub(crate) fn ran(&mut self, round: Round, span: Option<Span>) -> anyhow::Result<Option<Span>> {
        self.leader.send(&Message::Ran(span))?;
        // The leader waits for its own workers, and then for the hosts that are late.
        let longest = Duration::from_nanos(round.warmup + round.duration) + 2 * PATIENCE;
        match self.leader.receive(longest, None)? {
            Message::Window(window) => Ok(window),
            other => Err(self.leader.unexpected(&other)),
        }
    }

    /// Says what the workers did.
    pub(crate) fn counted(&mut self, counts: Vec<Count>) -> anyhow::Result<()> {
        self.leader.send(&Message::Counted(counts))
    }
}
