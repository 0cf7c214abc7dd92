//! `env`: shows what of this machine matters to reads over RDMA.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use serde::Serialize;

use crate::machine::addresses::Reachable;
use crate::machine::environment::Environment;
use crate::machine::peer::{self, SCHEMA};
use crate::machine::source::Source;
use crate::output::environment;
use crate::output::json::Sink;
use crate::output::write;
use crate::process::stop::{self, Stop};

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
    /// Give the facts to every program that connects to this address, until Ctrl-C, for `doctor
    /// --peer` on another host. There is no encryption.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
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
    if let Some(address) = args.listen {
        return give(args, address);
    }
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
        sink.put(&document(facts)?)?;
    }
    table?;
    Ok(())
}

fn document(environment: Environment) -> anyhow::Result<String> {
    let created_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Ok(serde_json::to_string_pretty(&Document { schema: SCHEMA, created_at, environment })? + "\n")
}

/// Gives the facts to every program that connects, until a signal comes.
fn give(args: &Args, address: SocketAddr) -> anyhow::Result<()> {
    let mut stop = Stop::catch()?;
    let document = document(Environment::read(&Source::at(&args.root)))?;
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen at {address}; give --listen an address of this host"))?;
    let at = Reachable::of(listener.local_addr()?)?;
    let thread = std::thread::Builder::new().name("bench-env".into());
    thread
        .spawn(move || peer::serve(&listener, &document))
        .context("cannot start the thread that gives the facts")?;
    write::stdout(format!("kvrail-bench doctor --peer {}\n", at.best).as_bytes())?;
    stop.wait();
    Ok(())
}
