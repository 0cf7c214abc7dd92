//! The commands: each file has its arguments, `Args`, whose doc comment is its help, and `run`.
//!
//! A new command is a file here and two lines below: its `mod`, and its name in the list.

use std::process::{ExitCode, Termination};

pub(crate) mod child;
pub(crate) mod churn;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod drive;
pub(crate) mod env;
pub(crate) mod ladder;
pub(crate) mod layout;
pub(crate) mod model;
pub(crate) mod report;
pub(crate) mod serve;

macro_rules! commands {
    ($($module:ident::$Command:ident,)*) => {
        /// A command with its arguments.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $($Command($module::Args),)*
        }

        impl Command {
            /// Runs the command, and returns how the program ends.
            pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$Command(args) => $module::run(args).map(Termination::report),)*
                }
            }
        }
    };
}

commands! {
    demo::Demo,
    serve::Serve,
    drive::Drive,
    ladder::Ladder,
    report::Report,
    model::Model,
    churn::Churn,
    env::Env,
    doctor::Doctor,
    layout::Layout,
    child::Child,
}
