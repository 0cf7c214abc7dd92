//! A child process: it takes its role, and carries out its parent's orders until the pipe is
//! closed.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::measure::{churn, getter, producer, worker};
use crate::output::error_text::with_causes;
use crate::process::protocol::{Reply, Role, receive, send};

/// A child's main function.
pub(crate) fn run() -> ExitCode {
    match take_role() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // This fails only if there is no parent any more that could read it.
            let _ = send(&Reply::Failed(with_causes(&error)));
            ExitCode::FAILURE
        }
    }
}

fn take_role() -> anyhow::Result<()> {
    // A parent that died before this call has closed the pipe, which ends the child as well.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    receive::<Role>()?.map_or(Ok(()), take)
}

fn take(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Placed { cpus, role } => {
            cpus.bind()?;
            take(*role)
        }
        Role::Producer(setup) => producer::child(&setup),
        Role::Worker(setup) => worker::child(&setup),
        Role::Getter(setup) => getter::child(&setup),
        Role::ChurnProducer(setup) => churn::producer::child(&setup),
        Role::ChurnReader(setup) => churn::reader::child(&setup),
        // The signal that ties this process to its parent stays tied.
        Role::Program { name, args } => {
            Err(Command::new(&name).args(args).exec()).with_context(|| format!("cannot start {name}"))
        }
    }
}
