//! `doctor`: judges what `env` shows.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::machine::diagnosis::verdict::Outcome;
use crate::machine::diagnosis::{judge, peers};
use crate::machine::environment::Environment;
use crate::machine::peer;
use crate::machine::source::Source;
use crate::output::environment;
use crate::output::write;
use crate::process::stop;

/// At least one thing would fail or be slow.
const FINDINGS: u8 = 1;

/// Nothing was found, but not everything could be looked at, or the result could not be written.
const INCOMPLETE: u8 = 2;

/// Say what would make reads over RDMA fail or be slow on this machine, and the command that mends
/// it.
///
/// Exit status: 0 if nothing is wrong, 1 if something is, 2 if nothing is but something could not
/// be looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read the files of the machine below this folder.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Also say what differs from the host at this address, on which `kvrail-bench env --listen`
    /// runs.
    #[arg(long, value_name = "HOST:PORT")]
    peer: Option<String>,
}

/// Prints a line for each check.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    stop::end_process_1_on_signals()?;
    let facts = Environment::read(&Source::at(&args.root));
    let mut verdicts = judge(&facts);
    if let Some(peer) = &args.peer {
        verdicts.extend(peers::compare(&serde_json::to_value(&facts)?, &peer::facts(peer)?));
    }
    if let Err(error) = write::stdout(environment::verdicts(&verdicts).as_bytes()) {
        // Where stderr cannot be written either, the exit status shows the failure.
        let _ = writeln!(io::stderr(), "kvrail-bench: {error}");
        return Ok(INCOMPLETE.into());
    }
    let has = |wanted: fn(&Outcome) -> bool| verdicts.iter().any(|verdict| wanted(&verdict.outcome));
    Ok(if has(|outcome| matches!(outcome, Outcome::Finding { .. })) {
        FINDINGS.into()
    } else if has(|outcome| matches!(outcome, Outcome::Unknown(_))) {
        INCOMPLETE.into()
    } else {
        ExitCode::SUCCESS
    })
}
