//! The measuring instrument: it measures the cost of pulling KV pages out of another process's
//! memory on this machine.
//!
//! A bare run is the demo ([`commands::demo`]). [`commands::serve`] and [`commands::drive`] are its
//! two halves, to be run on any hosts.
//!
//! All work is done by child processes ([`process`]), which take orders over a pipe: a *producer*
//! ([`measure::producer`]), and *workers* that read ([`measure::worker`]). The parent coordinates:
//! it gives all workers one starting time, and afterwards asks each of them for what it did within
//! the window in which all of them were at work ([`measure::crew`], [`measure::window`]).

mod catalogue;
mod cli;
mod commands;
mod machine;
mod measure;
mod output;
mod process;

use std::io::Write;
use std::process::ExitCode;

use crate::output::error_text::with_causes;
use crate::output::write;

fn main() -> ExitCode {
    let cli = match cli::file::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let level = if cli.verbose { tracing::Level::DEBUG } else { tracing::Level::ERROR };
    // Log lines that cannot be written are lost: an attempt to report that on stderr, which is full
    // or closed, would panic.
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    log.log_internal_errors(false).init();
    match cli.into_command().run() {
        Ok(code) => code,
        Err(error) => {
            // Where stderr cannot be written either, the exit status shows the failure.
            let _ = writeln!(std::io::stderr(), "kvrail-bench: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints the help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let written = error.print().and_then(|()| std::io::stdout().flush());
    let to = if error.use_stderr() { "stderr" } else { "stdout" };
    match write::delivery(written, || to) {
        Ok(_) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "kvrail-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
