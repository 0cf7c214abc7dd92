//! Being told to stop, by SIGTERM or Ctrl-C.
//!
//! The kernel spares process 1 of a container every signal that it has not asked for, so a program
//! that relies on what signals do by default cannot be stopped there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// What stops a program.
const SIGNALS: [(i32, &str); 3] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGHUP, "SIGHUP")];

/// Waits for the signals that stop a program, which do nothing by themselves as long as this lives.
/// A second one ends the process at once, as if it had not been caught.
#[derive(Debug)]
pub(crate) struct Stop {
    signals: Signals,
    asked: Arc<AtomicBool>,
}

/// The signal that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked(i32);

impl Stop {
    /// Catches them from now on, except those that the parent started this process to ignore:
    /// `nohup` does so with SIGHUP, and a shell with SIGINT for what it runs in the background.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let caught: Vec<_> =
            SIGNALS.iter().map(|&(signal, _)| signal).filter(|&signal| !ignores(ignored, signal)).collect();
        for &signal in &caught {
            // In this order: the first signal finds the flag down, and raises it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("cannot catch the signals that stop a program")?;
        }
        let signals = Signals::new(caught).context("cannot wait for the signals that stop a program")?;
        Ok(Self { signals, asked })
    }

    /// Whether one has come.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits until one comes, or has come. Returns which.
    pub(crate) fn wait(&mut self) -> Option<Asked> {
        self.signals.forever().next().map(Asked)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(signal, _)| *signal == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Makes SIGTERM and Ctrl-C end this process if it is process 1, where they would do nothing.
/// Elsewhere they do that by themselves.
pub(crate) fn end_init_on_signals() -> anyhow::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    for (signal, name) in SIGNALS {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))
            .with_context(|| format!("cannot catch {name}"))?;
    }
    Ok(())
}

/// The signals that a process ignores, by its `/proc/self/status`: bit n - 1 is signal n.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

const fn ignores(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_told_by_the_kernel() {
        let mask = ignored("Name:\tserve\nSigBlk:\t0000000000004002\nSigIgn:\t0000000000001001\n");
        let ignored: Vec<_> = SIGNALS.iter().filter(|(signal, _)| ignores(mask, *signal)).collect();
        assert_eq!(ignored, [&(SIGHUP, "SIGHUP")]);
        assert_eq!(super::ignored("no such line"), 0);
    }
}
