//! What a check found.

/// One line of a diagnosis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The check's name.
    pub(crate) check: &'static str,
    /// Its result.
    pub(crate) outcome: Outcome,
}

/// A result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is wrong; what was seen.
    Fine(String),
    /// Something will fail or be slow.
    Finding {
        /// What, and why it matters.
        what: String,
        /// The command that mends it.
        mend: String,
    },
    /// The check could not look; the reason.
    Unknown(String),
}

/// A check that goes on.
#[derive(Debug)]
pub(crate) struct Check {
    name: &'static str,
    outcomes: Vec<Outcome>,
}

impl Check {
    /// A check that has found nothing yet.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, outcomes: Vec::new() }
    }

    /// Adds a finding.
    pub(crate) fn finding(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.outcomes.push(Outcome::Finding { what: what.into(), mend: mend.into() });
    }

    /// Adds something that could not be looked at. A reason counts once.
    pub(crate) fn unknown(&mut self, why: impl Into<String>) {
        let outcome = Outcome::Unknown(why.into());
        if !self.outcomes.contains(&outcome) {
            self.outcomes.push(outcome);
        }
    }

    /// The value, or `None` after its reason has been noted.
    pub(crate) fn need<'a, T>(&mut self, fact: Result<&'a T, &str>) -> Option<&'a T> {
        fact.map_err(|why| self.unknown(why)).ok()
    }

    /// Ends the check: with `seen` if it found nothing, and could look at everything.
    pub(crate) fn end(self, seen: impl FnOnce() -> String) -> Vec<Verdict> {
        let Self { name, mut outcomes } = self;
        if outcomes.is_empty() {
            outcomes.push(Outcome::Fine(seen()));
        }
        outcomes.into_iter().map(|outcome| Verdict { check: name, outcome }).collect()
    }
}
