//! The signals that stop a program: SIGTERM, Ctrl-C (SIGINT) and SIGHUP.
//!
//! The kernel delivers to process 1 of a container only signals for which it has a handler, so a
//! program that relies on the default action cannot be stopped there.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The signals that stop a program, and their names.
const SIGNALS: [(i32, &str); 3] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGHUP, "SIGHUP")];

/// Catches the signals that stop a program, so that it can end in an orderly way. A second signal
/// ends the process at once, as if it had not been caught.
#[derive(Debug)]
pub(crate) struct Stop {
    signals: Signals,
    requested: Arc<AtomicBool>,
}

/// A signal that was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaughtSignal(i32);

impl Stop {
    /// Catches the signals from now on, except those that the parent started this process to
    /// ignore: `nohup` does so with SIGHUP, and a shell with SIGINT for its background jobs.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = ignored(&status);
        let caught: Vec<_> =
            SIGNALS.iter().map(|&(signal, _)| signal).filter(|&signal| !contains(mask, signal)).collect();
        for &signal in &caught {
            // The order of these two matters: the first signal finds the flag false, and sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&requested))
                .and_then(|_| flag::register(signal, Arc::clone(&requested)))
                .context("cannot catch the signals that stop a program")?;
        }
        let signals = Signals::new(caught).context("cannot wait for the signals that stop a program")?;
        Ok(Self { signals, requested })
    }

    /// Whether a signal has come.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The exit status of a program that ended because of a signal, if one has come: 128 and the
    /// signal's number, as of a program that the signal itself ends.
    pub(crate) fn exit_code(&mut self) -> ExitCode {
        match self.signals.pending().next() {
            Some(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
            None => ExitCode::SUCCESS,
        }
    }

    /// Waits until a signal comes, or has come, and returns it.
    pub(crate) fn wait(&mut self) -> Option<CaughtSignal> {
        self.signals.forever().next().map(CaughtSignal)
    }
}

impl fmt::Display for CaughtSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(signal, _)| *signal == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Makes the signals end this process if it is process 1, where they would do nothing. Other
/// processes need no handler for that.
pub(crate) fn end_process_1_on_signals() -> anyhow::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    for (signal, name) in SIGNALS {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))
            .with_context(|| format!("cannot catch {name}"))?;
    }
    Ok(())
}

/// The mask of signals that a process ignores, read from its `/proc/self/status`.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether `signal` is in the mask: bit n - 1 is signal n.
const fn contains(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_kernels_mask() {
        let mask = ignored("Name:\tserve\nSigBlk:\t0000000000004002\nSigIgn:\t0000000000001001\n");
        let ignored: Vec<_> = SIGNALS.iter().filter(|(signal, _)| contains(mask, *signal)).collect();
        assert_eq!(ignored, [&(SIGHUP, "SIGHUP")]);
        assert_eq!(super::ignored("no such line"), 0);
    }
}
