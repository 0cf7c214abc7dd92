//! What happens to the process of a round, and when.

use std::time::Duration;

use rustix::process::Signal;

use super::rng::Rng;

/// The kinds of messages of a hand-over.
pub(crate) const KINDS: [&str; 9] =
    ["Take", "Renew", "Done", "GiveUp", "Taken", "Blocks", "Ready", "Complete", "Ended"];

/// What happens to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Killed,
    /// It is stopped, and killed when the other side has its memory back.
    StoppedThenKilled,
    /// It is stopped, goes on when the leases are over, and is killed at the end.
    Continued,
    /// As `Continued`, but the session is over as well when it goes on.
    ContinuedLate,
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long after the two sides are connected.
    After(Duration),
    /// When the process meets this message of this kind, counted from 1: before it handles or sends
    /// the message, or after.
    Message { kind: &'static str, nth: u32, handled: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) fate: Fate,
    pub(crate) moment: Moment,
}

impl Plan {
    /// The plan of round `round`. Of 50 rounds, each kind is met by both signals.
    pub(crate) fn of_round(round: usize, rng: &mut Rng) -> Self {
        const FATES: [Fate; 4] = [Fate::Killed, Fate::Continued, Fate::Killed, Fate::StoppedThenKilled];
        let fate = if round % 50 == 17 {
            Fate::ContinuedLate
        } else {
            FATES[round / (KINDS.len() + 1) % FATES.len()]
        };
        let moment = match KINDS.get(round % (KINDS.len() + 1)) {
            None => Moment::After(Duration::from_millis(rng.below(1500))),
            Some(&kind) => Moment::Message { kind, nth: 1 + rng.below(5) as u32, handled: rng.below(2) == 1 },
        };
        Self { fate, moment }
    }

    pub(crate) const fn signal(&self) -> Signal {
        match self.fate {
            Fate::Killed => Signal::KILL,
            Fate::StoppedThenKilled | Fate::Continued | Fate::ContinuedLate => Signal::STOP,
        }
    }

    /// What the process is told: which signal it sends itself, and when.
    pub(crate) fn argument(&self) -> String {
        let signal = if self.fate == Fate::Killed { "kill" } else { "stop" };
        match self.moment {
            Moment::After(_) => "never".into(),
            Moment::Message { kind, nth, handled } => format!("{signal},{kind},{nth},{handled}"),
        }
    }
}
