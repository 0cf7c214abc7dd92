//! The measuring instrument: what pulling KV pages out of another process's memory costs, here.
//!
//! A bare run is the [`demo`]; [`serve`] and [`drive`] are its two halves, to be run where one likes.
//!
//! All work is done by child processes ([`child`]) that do as they are told over a pipe: a *producer* ([`serve`])
//! and *workers* that read ([`worker`]). The parent coordinates: it gives all workers one starting time,
//! and afterwards asks each what it did within the window that all of them were at work in
//! ([`window`], [`crew`]).

mod budget;
mod catalogue;
mod cgroup;
mod child;
mod cli;
mod crew;
mod demo;
mod destination;
mod drive;
mod drive_command;
mod host;
mod json;
mod layout;
mod memcpy;
mod output;
mod pattern;
mod progress;
mod rails;
mod report;
mod serve;
mod stop;
mod window;
mod worker;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let level = if cli.verbose { tracing::Level::DEBUG } else { tracing::Level::ERROR };
    // A log that cannot be written is lost. Telling so on stderr, which is full or closed, would
    // panic.
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    log.log_internal_errors(false).init();
    if let Some(Command::Child) = cli.command {
        return child::run();
    }
    let run = || match cli.command {
        // It ends in an orderly way.
        Some(Command::Serve(args)) => serve::run(&args),
        command => {
            stop::end_init_on_signals()?;
            match command {
                Some(Command::Drive(args)) => drive::run(&args),
                Some(Command::Layout(args)) => layout::run(&args),
                Some(Command::Demo(args)) => demo::run(&args),
                _ => demo::run(&cli.demo),
            }
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without anybody to read it the status says it.
            let _ = writeln!(std::io::stderr(), "kvrail-bench: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints the help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let written = error.print().and_then(|()| std::io::stdout().flush());
    let to = if error.use_stderr() { "stderr" } else { "stdout" };
    match output::judged(written, || to) {
        Ok(_) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "kvrail-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each once: some say their cause themselves.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn every_cause_is_told_once() {
        let error = std::fs::read("/nonexistent").map_err(|e| anyhow::anyhow!(e).context("no file: No such"));
        let error = error.context("no report").unwrap_err();
        assert_eq!(told(&error), "no report: no file: No such: No such file or directory (os error 2)");
        let listen = "192.0.2.1:0".parse::<std::net::SocketAddr>().unwrap();
        let source = std::io::Error::from_raw_os_error(99);
        let error = kvrail::session::ServeError::Listen { address: listen, source };
        let text = told(&error.into());
        assert_eq!(text.matches("(os error 99)").count(), 1, "{text}");
    }
}
