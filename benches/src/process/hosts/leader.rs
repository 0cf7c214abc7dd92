//! The host that leads.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use kvrail::clock;

use super::link::{
    HostStream, MEET, Meeting, Message, PATIENCE, Round, Settings, VERSION, differences, printable,
};
use crate::measure::window::{Count, Span};
use crate::process::stop::Stop;

/// How often the leader asks for the time of a host. The fastest answer counts.
const ASKED: usize = 8;

/// The host that says when a round begins, and which window counts.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(super) members: Vec<Member>,
}

/// A host that follows.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) link: HostStream,
    pub(super) workers: usize,
    /// Its clock less the leader's, in nanoseconds, as it was asked for last.
    pub(super) ahead: i128,
    /// By how much that may be wrong at most, in nanoseconds: over all rounds.
    pub(super) error: u64,
}

impl Member {
    pub(super) fn note(&self) -> String {
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
        u64::try_from((i128::from(own) + self.ahead).max(0)).unwrap_or(u64::MAX)
    }

    fn own(&self, theirs: u64) -> u64 {
        u64::try_from((i128::from(theirs) - self.ahead).max(0)).unwrap_or(u64::MAX)
    }
}

impl Leader {
    pub(super) fn gather(
        listener: &TcpListener,
        meeting: &Meeting,
        settings: &Settings,
        until: Instant,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut leader = Self { members: Vec::new() };
        loop {
            // A host that was stopped and started again counts once.
            leader.members.retain(|member| !member.link.has_left());
            if leader.members.len() + 1 >= meeting.hosts {
                return Ok(leader);
            }
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
            let mut link = HostStream::new(from.to_string(), stream)?;
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
            if link.send(&Message::Welcome).is_err() {
                continue;
            }
            leader.members.push(Member { link, workers: workers.min(1024), ahead: 0, error: 0 });
        }
    }

    /// Tells all followers something. One that does not hear it notices the end of its connection.
    pub(super) fn tell(&mut self, message: &Message) {
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
