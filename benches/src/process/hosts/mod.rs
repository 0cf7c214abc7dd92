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

mod follower;
mod leader;
mod link;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::time::Instant;

use anyhow::Context;

pub(crate) use follower::Follower;
pub(crate) use leader::Leader;
use link::{MEET, Message};
pub(crate) use link::{Meeting, Round, Settings};

use crate::process::stop::Stop;

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
        let mut settings = settings.clone();
        settings.insert("hosts".into(), meeting.hosts.to_string());
        let until = Instant::now() + MEET;
        let addresses = meeting.at.resolve(until).with_context(|| format!("--meet {}", meeting.at))?;
        let listening = addresses.iter().map(TcpListener::bind).find_map(Result::ok);
        match listening {
            Some(listener) => Leader::gather(&listener, meeting, &settings, until, stop).map(Self::Leading),
            None => Follower::join(&addresses, meeting, &settings, workers, until, stop).map(Self::Following),
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
            Self::Leading(leader) => leader.members.iter().map(leader::Member::note).collect(),
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
