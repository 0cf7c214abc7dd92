//! `env`: shows what of this machine matters to reads over RDMA.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::machine::environment::Environment;
use crate::machine::source::Source;
use crate::output::environment;
use crate::output::json::Sink;
use crate::output::write;
use crate::process::stop;

/// The version of the format.
const SCHEMA: &str = "kvrail-bench-env/1";

/// Show what of this machine matters to reads over RDMA: devices, ports and their addresses, PCIe
/// links, NUMA nodes, memory, limits, libraries and modules.
///
/// What cannot be found out is `unknown`, with the reason, and no failure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read the files of the machine below this folder.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Write the facts as JSON to this file; `-` for stdout (the table then goes to stderr).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The document.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    created_at: String,
    environment: Environment,
}

/// Prints the table.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    stop::end_process_1_on_signals()?;
    let sink = args.json.as_deref().map(Sink::open).transpose()?;
    let facts = Environment::read(&Source::at(&args.root));
    let table = environment::table(&facts);
    // The document is written even if the table cannot be.
    let table = match sink {
        Some(Sink::Stdout) => write::stderr(table.as_bytes()),
        _ => write::stdout(table.as_bytes()),
    };
    if let Some(sink) = sink {
        let created_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let document = Document { schema: SCHEMA, created_at, environment: facts };
        sink.put(&(serde_json::to_string_pretty(&document)? + "\n"))?;
    }
    table?;
    Ok(())
}
