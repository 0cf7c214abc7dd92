//! The command line, parsed into values that cannot be wrong.

pub(crate) mod common;
pub(crate) mod directory;
pub(crate) mod file;
pub(crate) mod hosts;
pub(crate) mod key;
pub(crate) mod rails;

use clap::Parser;

use crate::commands::{Command, demo};

/// Pulls KV-cache pages out of another process's memory, checks them, and says how fast it went.
///
/// Without a command: the demo.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::Args,
    /// Log what happens between the peers to stderr.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

impl Cli {
    /// The command to run: the demo where none was given.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Demo(self.demo))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
