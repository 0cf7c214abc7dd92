//! Several hosts that read at the same time: one leads, and the others follow its rounds.
//!
//! The hosts meet at an address of one of them, which therefore leads. Each has a clock of its own,
//! so the leader asks every host for its time before each round, and converts all times. A round
//! begins at one moment on all hosts, and counts only in the window that the workers of all hosts
//! have in common.
//!
//! There is no encryption and no authentication: what travels are settings, times and counts. No
//! host does more on another one's word than to run a round of the measurement that its own user
//! has started.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use kvrail::clock;
use kvrail::session::Address;
use serde::{Deserialize, Serialize};

use crate::measure::window::{Count, Span};
use crate::process::stop::Stop;

/// The version of the messages.
const VERSION: u32 = 1;
/// How long the other hosts may take to come.
const MEET: Duration = Duration::from_secs(120);
/// How much longer than planned an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A wait looks this often for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// The longest message: the counts of 64 workers have less.
const LONGEST: u64 = 64 << 20;
/// How often the leader asks for the time of a host. The fastest answer counts.
const ASKED: usize = 8;
/// The longest round.
const ROUND: u64 = 2 * 3600 * 1_000_000_000;

/// What all hosts must have in common, by name.
pub(crate) type Settings = BTreeMap<String, String>;

/// Where hosts meet, and how many.
#[derive(Clone, Debug)]
pub(crate) struct Meeting {
    pub(crate) at: Address,
    /// How many there are, this one included.
    pub(crate) hosts: usize,
}

/// This host's part in the measurement.
#[derive(Debug)]
pub(crate) enum Hosts {
    /// It measures by itself.
    Alone,
    /// The others follow it.
    Leading(Leader),
    /// It follows another one.
    Following(Follower),
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
enum Message {
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
struct Link {
    /// The other host.
    name: String,
    stream: BufReader<TcpStream>,
}

impl Link {
    fn new(name: String, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { name, stream: BufReader::new(stream) })
    }

    fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        let line = serde_json::to_string(message)? + "\n";
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.map_err(|error| self.gone(&error.to_string()))
    }

    fn gone(&self, why: &str) -> anyhow::Error {
        anyhow!("the host {} does not take part any more ({why}); what it prints says more", self.name)
    }

    /// The next message, which must come within `patience`.
    fn receive(&mut self, patience: Duration, stop: Option<&Stop>) -> anyhow::Result<Message> {
        let until = Instant::now() + patience;
        let mut line = Vec::new();
        loop {
            let left = LONGEST - line.len() as u64;
            match self.stream.by_ref().take(left).read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => break,
                Ok(_) if line.len() as u64 >= LONGEST => bail!("the host {} sends no message", self.name),
                Ok(_) => return Err(self.gone("it has closed the connection")),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.gone(&error.to_string())),
            }
            if stop.is_some_and(Stop::requested) {
                bail!("stopped by a signal while the host {} was waited for", self.name);
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

    fn unexpected(&self, message: &Message) -> anyhow::Error {
        anyhow!("the host {} sent a message that does not fit: {message:?}", self.name)
    }
}

impl Hosts {
    /// Meets the other hosts. The one that can listen at the address of the meeting leads.
    ///
    /// # Errors
    ///
    /// Not all hosts come in time, or they do not measure the same thing.
    pub(crate) fn meet(
        meeting: Option<&Meeting>,
        settings: &Settings,
        workers: usize,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let Some(meeting) = meeting else { return Ok(Self::Alone) };
        let until = Instant::now() + MEET;
        let addresses = meeting.at.resolve(until).with_context(|| format!("--meet {}", meeting.at))?;
        let listening = addresses.iter().map(TcpListener::bind).find_map(Result::ok);
        match listening {
            Some(listener) => Leader::gather(&listener, meeting, settings, until, stop).map(Self::Leading),
            None => Follower::join(&addresses, meeting, settings, workers, until, stop).map(Self::Following),
        }
    }

    /// This host, if it leads.
    pub(crate) fn leader(&mut self) -> Option<&mut Leader> {
        match self {
            Self::Leading(leader) => Some(leader),
            Self::Alone | Self::Following(_) => None,
        }
    }

    /// Whether the host that leads was stopped before the end of the run.
    pub(crate) const fn stopped(&self) -> bool {
        matches!(self, Self::Following(follower) if follower.partial)
    }

    /// How many hosts are counted here.
    pub(crate) const fn count(&self) -> usize {
        match self {
            Self::Leading(leader) => 1 + leader.members.len(),
            Self::Alone | Self::Following(_) => 1,
        }
    }

    /// How many processes of other hosts are counted here.
    pub(crate) fn others(&self) -> usize {
        match self {
            Self::Leading(leader) => leader.members.iter().map(|member| member.workers).sum(),
            Self::Alone | Self::Following(_) => 0,
        }
    }

    /// Who measured together, in words.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Self::Alone => Vec::new(),
            Self::Leading(leader) => leader.members.iter().map(Member::note).collect(),
            Self::Following(follower) => {
                vec![format!(
                    "measured together with other hosts, led by {}: these figures are this host's alone, in the window that all had in common",
                    follower.leader.name
                )]
            }
        }
    }

    /// Tells the followers that there is no further round.
    pub(crate) fn done(&mut self, partial: bool) {
        if let Self::Leading(leader) = self {
            leader.tell(&Message::Done { partial });
        }
    }

    /// Tells the other hosts why this one cannot go on.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        let why = Message::Failed(format!("{error:#}"));
        match self {
            Self::Alone => {}
            Self::Leading(leader) => leader.tell(&why),
            // If this does not arrive, the end of the connection does.
            Self::Following(follower) => drop(follower.leader.send(&why)),
        }
    }
}

/// The host that says when a round begins, and which window counts.
#[derive(Debug)]
pub(crate) struct Leader {
    members: Vec<Member>,
}

/// A host that follows.
#[derive(Debug)]
struct Member {
    link: Link,
    workers: usize,
    /// Its clock less the leader's, in nanoseconds, as it was asked for last.
    ahead: i128,
    /// By how much that may be wrong at most, in nanoseconds: over all rounds.
    error: u64,
}

impl Member {
    fn note(&self) -> String {
        format!(
            "measured together with {}: {} more processes; its clock was known to {} us",
            self.link.name,
            self.workers,
            self.error.div_ceil(1000)
        )
    }

    /// Asks for its time. The answer that took the least says it best.
    fn ask(&mut self) -> anyhow::Result<()> {
        let mut best: Option<(u64, i128)> = None;
        for _ in 0..ASKED {
            let sent = clock::now().0;
            self.link.send(&Message::Ask)?;
            let there = match self.link.receive(PATIENCE, None)? {
                Message::Time(there) => there,
                other => return Err(self.link.unexpected(&other)),
            };
            let took = clock::now().0 - sent;
            let ahead = i128::from(there) - i128::from(sent + took / 2);
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, ahead));
            }
        }
        if let Some((took, ahead)) = best {
            self.ahead = ahead;
            self.error = self.error.max(took.div_ceil(2));
        }
        Ok(())
    }

    fn theirs(&self, own: u64) -> u64 {
        (i128::from(own) + self.ahead).clamp(0, u64::MAX.into()) as u64
    }

    fn own(&self, theirs: u64) -> u64 {
        (i128::from(theirs) - self.ahead).clamp(0, u64::MAX.into()) as u64
    }
}

impl Leader {
    fn gather(
        listener: &TcpListener,
        meeting: &Meeting,
        settings: &Settings,
        until: Instant,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut leader = Self { members: Vec::new() };
        while leader.members.len() + 1 < meeting.hosts {
            if stop.requested() {
                bail!("stopped by a signal while other hosts were waited for");
            }
            if Instant::now() >= until {
                let error = anyhow!(
                    "only {} of {} hosts came to {} within {MEET:.0?}: start the same command with the same --meet and --hosts on each",
                    leader.members.len() + 1,
                    meeting.hosts,
                    meeting.at
                );
                leader.tell(&Message::Failed(format!("{error:#}")));
                return Err(error);
            }
            let Ok((stream, from)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let mut link = Link::new(from.to_string(), stream)?;
            // A program that connects and says nothing is no host of this measurement.
            let Ok(Message::Hello { version: VERSION, host, settings: theirs, workers }) =
                link.receive(Duration::from_secs(3), Some(stop))
            else {
                continue;
            };
            link.name = format!("{} ({from})", printable(&host));
            let differences = differences(settings, &theirs);
            if !differences.is_empty() {
                let error = anyhow!(
                    "{} does not measure the same thing: {}; give all hosts the same arguments",
                    link.name,
                    differences.join("; ")
                );
                let why = Message::Failed(format!("{error:#}"));
                // It is told if it still listens.
                let _ = link.send(&why);
                leader.tell(&why);
                return Err(error);
            }
            link.send(&Message::Welcome)?;
            leader.members.push(Member { link, workers: workers.min(1024), ahead: 0, error: 0 });
        }
        Ok(leader)
    }

    /// Tells all followers something. One that does not hear it notices the end of its connection.
    fn tell(&mut self, message: &Message) {
        for member in &mut self.members {
            let _ = member.link.send(message);
        }
    }

    /// Has all followers begin a round at this moment of the leader's clock, which `lead` after now
    /// gives.
    pub(crate) fn begin(&mut self, lead: Duration, mut round: Round) -> anyhow::Result<u64> {
        self.members.iter_mut().try_for_each(Member::ask)?;
        // Every message must have arrived by then.
        let slowest = self.members.iter().map(|member| member.error).max().unwrap_or(0);
        let start = clock::within(lead + Duration::from_nanos(4 * slowest)).0;
        for member in &mut self.members {
            round.start = member.theirs(start);
            member.link.send(&Message::Round(round))?;
        }
        Ok(start)
    }

    /// The window that counts, if this host's workers were all at work in `own`; and those hosts
    /// that have no time in common with it.
    pub(crate) fn common(
        &mut self,
        own: Option<Span>,
        patience: Duration,
    ) -> anyhow::Result<(Option<Span>, Vec<String>)> {
        let mut late = Vec::new();
        if own.is_none() {
            late.push("this host".to_owned());
        }
        let mut common = own;
        for member in &mut self.members {
            let ran = match member.link.receive(patience + PATIENCE, None)? {
                Message::Ran(ran) => ran,
                other => return Err(member.link.unexpected(&other)),
            };
            let ran = ran.map(|span| Span { from: member.own(span.from), to: member.own(span.to) });
            if ran.is_none() {
                late.push(member.link.name.clone());
            }
            common = common.zip(ran).and_then(|(common, ran)| Span::common([common, ran]));
        }
        for member in &mut self.members {
            let theirs =
                common.map(|span| Span { from: member.theirs(span.from), to: member.theirs(span.to) });
            member.link.send(&Message::Window(theirs))?;
        }
        Ok((common, late))
    }

    /// What the workers of all followers did in that window.
    pub(crate) fn counts(&mut self) -> anyhow::Result<Vec<Count>> {
        let mut all = Vec::new();
        for member in &mut self.members {
            match member.link.receive(PATIENCE, None)? {
                Message::Counted(counts) if counts.len() <= member.workers => all.extend(counts),
                other => return Err(member.link.unexpected(&other)),
            }
        }
        Ok(all)
    }
}

/// A host that does as another one says.
#[derive(Debug)]
pub(crate) struct Follower {
    leader: Link,
    /// Whether the leader was stopped before the end of the run.
    partial: bool,
}

impl Follower {
    fn join(
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
        let mut leader = Link::new(meeting.at.to_string(), stream)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        leader.send(&Message::Hello { version: VERSION, host, settings: settings.clone(), workers })?;
        match leader.receive(MEET, Some(stop))? {
            Message::Welcome => Ok(Self { leader, partial: false }),
            other => Err(leader.unexpected(&other)),
        }
    }

    /// The next round; `None` if there is none.
    pub(crate) fn next(&mut self, stop: &Stop) -> anyhow::Result<Option<Round>> {
        loop {
            // Between two rounds the leader may wait for other hosts.
            match self.leader.receive(MEET + PATIENCE, Some(stop))? {
                Message::Ask => self.leader.send(&Message::Time(clock::now().0))?,
                Message::Round(round) if round.warmup <= ROUND && round.duration <= ROUND => {
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

    /// Says when all workers were at work, and returns the window that counts.
    pub(crate) fn ran(&mut self, span: Option<Span>) -> anyhow::Result<Option<Span>> {
        self.leader.send(&Message::Ran(span))?;
        let longest = Duration::from_nanos(2 * ROUND);
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

/// The settings that differ, in words.
fn differences(own: &Settings, theirs: &Settings) -> Vec<String> {
    let none = String::from("nothing");
    let names: std::collections::BTreeSet<_> = own.keys().chain(theirs.keys()).collect();
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
fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// The clock of the other host is so much ahead, in nanoseconds.
    const AHEAD: u64 = 3_600_000_000_000;
    const MS: u64 = 1_000_000;

    /// A leader, and the connection of a host whose clock is ahead.
    fn pair() -> (Leader, Link) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (here, _) = listener.accept().unwrap();
        let link = Link::new("there".into(), here).unwrap();
        let leader = Leader { members: vec![Member { link, workers: 1, ahead: 0, error: 0 }] };
        (leader, Link::new("leader".into(), there).unwrap())
    }

    /// A host that answers as one does whose worker is late by `late` nanoseconds. It returns the
    /// window that it is told.
    fn answer(mut link: Link, late: u64) -> Option<Span> {
        let mut ran = None;
        loop {
            match link.receive(PATIENCE, None).unwrap() {
                Message::Ask => link.send(&Message::Time(clock::now().0 + AHEAD)).unwrap(),
                Message::Round(round) => {
                    let end = round.start + round.warmup + round.duration;
                    let began = round.start + late;
                    ran = (began < end).then_some(Span { from: began, to: end });
                    link.send(&Message::Ran(ran)).unwrap();
                }
                Message::Window(window) => {
                    let inside =
                        |window: Span| ran.is_some_and(|r| r.from <= window.from && window.to <= r.to);
                    assert!(window.is_none_or(inside), "{window:?} is not within {ran:?}");
                    return window;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The common window, less the start of the round, where the other host is late.
    fn common(late: u64) -> (Option<(u64, u64)>, Vec<String>, Option<Span>) {
        let (mut leader, link) = pair();
        let other = thread::spawn(move || answer(link, late));
        let round = Round { lap: 0, start: 0, warmup: 0, duration: 1000 * MS };
        let start = leader.begin(Duration::from_millis(1), round).unwrap();
        let own = Span { from: start, to: start + 1000 * MS };
        let (window, hosts) = leader.common(Some(own), Duration::ZERO).unwrap();
        let window = window.map(|window| (window.from - start, window.to - start));
        (window, hosts, other.join().unwrap())
    }

    #[test]
    fn times_are_converted_from_clock_to_clock() {
        let (window, late, theirs) = common(0);
        assert_eq!((window, late), (Some((0, 1000 * MS)), vec![]));
        let theirs = theirs.unwrap();
        assert_eq!(theirs.to - theirs.from, 1000 * MS);
        assert!(theirs.from > AHEAD, "it is a time of the other host's clock");
    }

    #[test]
    fn a_late_worker_of_another_host_shortens_the_window_of_all() {
        assert_eq!(common(400 * MS).0, Some((400 * MS, 1000 * MS)));
    }

    #[test]
    fn a_worker_that_is_two_seconds_late_leaves_no_window_and_is_named() {
        let (window, late, theirs) = common(2000 * MS);
        assert_eq!((window, late, theirs), (None, vec!["there".to_owned()], None));
    }

    #[test]
    fn a_message_that_is_none_is_an_error() {
        let (mut leader, mut link) = pair();
        link.stream.get_mut().write_all(b"GET / HTTP/1.1\n").unwrap();
        let error = leader.members[0].link.receive(PATIENCE, None).unwrap_err().to_string();
        assert!(error.contains("something else than kvrail-bench"), "{error}");
        drop(link);
        let error = leader.members[0].link.receive(PATIENCE, None).unwrap_err().to_string();
        assert!(error.contains("does not take part any more"), "{error}");
    }

    #[test]
    fn settings_that_differ_are_named_with_both_values() {
        let of = |all: &[(&str, &str)]| -> Settings {
            all.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let own = of(&[("batch", "8"), ("layout", "a of 4096 bytes"), ("op", "read")]);
        let other = of(&[("batch", "8"), ("layout", "a of 131072 bytes\u{1b}[2J"), ("rate", "1")]);
        let told = differences(&own, &other);
        assert_eq!(
            told,
            [
                "layout is a of 4096 bytes here and a of 131072 bytes[2J there",
                "op is read here and nothing there",
                "rate is nothing here and 1 there"
            ]
        );
        assert!(differences(&own, &own).is_empty());
    }
}
