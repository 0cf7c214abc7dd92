//! `serve`: publishes pages until it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use kvrail::session::Address;

use crate::catalogue::{NamedLayout, named_layout};
use crate::cli::common::{Numa, Transport, size};
use crate::cli::directory::{self, DirectoryKind, DirectorySetup};
use crate::cli::file::ConfigArgs;
use crate::cli::key::{Key, KeyArgs};
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::environment::Environment;
use crate::machine::placement::Placement;
use crate::machine::source::Source;
use crate::measure::metrics::serve_metrics;
use crate::measure::{processes, producer};
use crate::output::drive_line::{DriveLine, GivenKey, explanation};
use crate::output::progress::Bar;
use crate::output::write::{self, Delivery};
use crate::process::protocol::ProducerSetup;
use crate::process::stop::Stop;

/// Publish pages for `drive`, until Ctrl-C. Prints the command that reads them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address to listen at, where readers connect; port 0 for any free one.
    #[arg(long, alias = "discovery-addr", default_value = "127.0.0.1:0")]
    listen: Address,
    #[command(flatten)]
    key: KeyArgs,
    /// The transport that moves the bytes.
    #[arg(long, value_enum, default_value = "shm")]
    transport: Transport,
    /// The layout of the published pages.
    #[arg(long, default_value = "sgl_mla_page_first_direct", value_parser = named_layout())]
    layout: NamedLayout,
    /// Bytes of published pages.
    #[arg(long, default_value = "512MiB", value_parser = size)]
    working_set: u64,
    /// How many rails to offer to readers: 1 to 16, 1 by default. A rail without a NIC costs a
    /// producer nothing. Over verbs: which NIC ports (mlx5_0,mlx5_1:2), or auto, the default.
    #[arg(long, alias = "devices")]
    rails: Option<Rails>,
    /// Where the pages are announced: embedded (this process answers look-ups at its address),
    /// redis://host:port, redis-cluster://host:port,host:port, or one-sided (nowhere: readers search
    /// the publication table).
    #[arg(long, default_value = "embedded", value_parser = directory::shared)]
    directory: DirectoryKind,
    /// Serve counters for Prometheus at this address (port 0: any free one).
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Whether this process is bound to the NUMA node of its NICs, so that its pages are there.
    #[arg(long, value_enum, default_value = "auto")]
    numa: Numa,
    /// Show where this process would run, and publish nothing.
    #[arg(long)]
    plan: bool,
    /// Read the files that describe the machine below this folder.
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    /// Run where a process with these NIC ports would, whatever moves the bytes.
    #[arg(long, value_name = "NAMES", hide = true)]
    placed_as: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    verbs: VerbsArgs,
}

/// Publishes pages, prints the line that reads them, and waits for a signal.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Signals are caught before anything is published, so that all that is published is released.
    let mut stop = Stop::catch()?;
    let key = match args.key.read()? {
        Some(key) => key,
        None => Key::random()?,
    };
    let setup = ProducerSetup {
        listen: args.listen.to_string(),
        key: key.clone(),
        transport: args.transport,
        layout: args.layout.name.into(),
        working_set: args.working_set,
        rails: Rails::of(args.rails.as_ref(), args.transport, 1)?,
        verbs: args.verbs.clone(),
        near_nics: args.numa == Numa::Auto,
        directory: DirectorySetup::of(&args.directory, None),
        copy: None,
    };
    let placement = place(args, &setup);
    if args.plan {
        let placement = placement.map_or("not bound: its rails are no NICs".into(), |at| at.to_string());
        write::stdout(format!("serve: {placement}\n").as_bytes())?;
        return Ok(());
    }
    // Before anything takes memory or starts a thread.
    placement.as_ref().and_then(Placement::cpus).map_or(Ok(()), |cpus| cpus.bind())?;
    let bar = Bar::bytes("publishing pages", 0);
    let Some(producer) = producer::publish(&setup, &bar, Some(&stop))? else { return Ok(()) };
    bar.done();
    let metrics = args.metrics.map(|address| serve_metrics(address, producer.node.metrics())).transpose()?;
    let at = &producer.at;
    let line = DriveLine {
        address: at.best,
        key: args.key.key_file.as_deref().map_or(GivenKey::Hex(key.hex()), GivenKey::File),
        transport: args.transport,
        layout: args.layout.name,
        directory: &args.directory,
    };
    if write::stdout(&line.text()?)? == Delivery::ReaderGone {
        // Only the line has the key, so no reader can connect.
        return Ok(());
    }
    let pages = format!("{} pages of {}", producer.publisher.slots(), args.layout.label());
    write::stderr(explanation(&pages, args.transport, at).as_bytes())?;
    if let Some(placement) = placement {
        write::stderr(format!("runs on {placement}\n").as_bytes())?;
    }
    if let Some(metrics) = &metrics {
        write::stderr(format!("metrics at http://{}/metrics\n", metrics.address()).as_bytes())?;
    }
    if let Some(signal) = stop.wait() {
        write::stderr(format!("stopped by {signal}\n").as_bytes())?;
    }
    Ok(())
}

/// Where this process runs: on the NUMA node of its NICs. `None`: its rails are no NICs.
fn place(args: &Args, setup: &ProducerSetup) -> Option<Placement> {
    let rails = match &args.placed_as {
        Some(ports) => Rails::Ports(ports.clone()),
        None if setup.transport == Transport::Verbs => setup.rails.clone(),
        None => return None,
    };
    let facts = Environment::read(&Source::at(&args.root));
    // Publishing says best what is wrong with the rails.
    let names = processes::names(Transport::Verbs, &rails, &facts).unwrap_or_default();
    Some(processes::place(Transport::Verbs, args.numa, &facts, &names))
}
