//! `child`: a child process of one of the other commands.

use std::process::ExitCode;

use crate::process::child;

/// A child process of one of the others.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {}

/// Follows the orders that come over stdin. A failure is reported to the parent, and not on stderr.
pub(crate) fn run(_: &Args) -> anyhow::Result<ExitCode> {
    Ok(child::run())
}
