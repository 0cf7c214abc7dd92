//! `drive`: reads pages that a `serve` publishes.

use std::time::Duration;

use anyhow::{Context, bail};
use kvrail::session::Address;

use crate::catalogue::{NamedLayout, named_layout};
use crate::cli::common::{Op, ReadOrder, ReportArgs, Transport, chunk, duration, size, warmup};
use crate::cli::directory::{self, CacheArgs, DirectoryKind, DirectorySetup};
use crate::cli::file::ConfigArgs;
use crate::cli::key::KeyArgs;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::measure::crew;
use crate::measure::window::Tally;
use crate::output::host::Watch;
use crate::output::json::{Meta, Report, Row, Shape, Sink};
use crate::output::progress::Bar;
use crate::output::table;
use crate::process::parent::Child;
use crate::process::protocol::{GetterSetup, Role, Routine, Verified, WorkerSetup};
use crate::process::stop;

/// The longest round. The progress bar moves and a dead worker is noticed after each.
const ROUND: Duration = Duration::from_secs(5);
/// The warm-up of each round but the first.
const NEXT_WARMUP: Duration = Duration::from_millis(20);

/// Read pages that `serve` publishes, here or on another host.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The producer's address, as `serve` printed it. With a directory in Redis, pages are found by
    /// key without it.
    #[arg(long, alias = "discovery-addr")]
    connect: Option<Address>,
    #[command(flatten)]
    key: KeyArgs,
    /// The transport that moves the bytes, which must be the producer's.
    #[arg(long, value_enum, default_value = "shm")]
    transport: Transport,
    /// The layout of the pages, which must be the producer's.
    #[arg(long, default_value = "sgl_mla_page_first_direct", value_parser = named_layout())]
    layout: NamedLayout,
    /// Rails of each process: 1 to 16, 2 by default. Over verbs: which NIC ports (mlx5_0,mlx5_1:2),
    /// or auto, the default.
    #[arg(long, alias = "devices")]
    rails: Option<Rails>,
    /// Lanes of each rail: 1 to 16.
    #[arg(long, alias = "max-channels", default_value = "1",
        value_parser = clap::value_parser!(u8).range(1..=16))]
    lanes_per_rail: u8,
    /// Pages of a batch: 1 to 256. By default 32, or 8 if a page is larger than 1 MiB.
    #[arg(long, alias = "batch-size", value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: Option<u16>,
    /// Longer pages travel in pieces of this size: a power of two, at least 4KiB. By default the
    /// size that suits the transport.
    #[arg(long, value_parser = chunk)]
    chunk_bytes: Option<u32>,
    /// Batches in flight in each process: 1 to 32. With get and exists: calling threads, each of
    /// which waits for its batch.
    #[arg(long, alias = "concurrencies", default_value = "6",
        value_parser = clap::value_parser!(u8).range(1..=32))]
    concurrency: u8,
    /// Where keys are looked up, with get and exists: embedded (in the producer),
    /// redis://host:port, redis-cluster://host:port,host:port, or one-sided (in the producer's
    /// publication table). As serve has it.
    #[arg(long, default_value = "embedded", value_parser = directory::shared)]
    directory: DirectoryKind,
    #[command(flatten)]
    cache: CacheArgs,
    /// Readers of each process, each with all the rails and a thread, with get: 1 to 64.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    readers: u8,
    /// Read into the memory of the GPU with this number. Over verbs only.
    #[arg(long, value_name = "N")]
    gpu: Option<u8>,
    /// The operation on each page.
    #[arg(long, value_enum, default_value = "checked")]
    op: Op,
    /// The order in which the pages are read.
    #[arg(long, value_enum, default_value = "turn")]
    order: ReadOrder,
    /// Reading processes, each with all the rails: 1 to 64.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    processes: u8,
    /// How long to measure.
    #[arg(long, default_value = "3s", value_parser = duration)]
    duration: Duration,
    /// How long the workers read before the measurement.
    #[arg(long, default_value = "500ms", value_parser = warmup)]
    warmup: Duration,
    #[command(flatten)]
    report: ReportArgs,
    /// Bytes of pages to read, over and over. By default all that are published.
    #[arg(long, value_parser = size)]
    working_set: Option<u64>,
    #[command(flatten)]
    config: ConfigArgs,
    // Last, because its heading would stand above the arguments that follow.
    #[command(flatten)]
    verbs: VerbsArgs,
}

/// Starts the workers, measures, verifies, and reports.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    stop::end_process_1_on_signals()?;
    let connect = connect(args)?;
    let key = args.key.read()?.context("drive needs --key or --key-file: serve prints the one to use")?;
    let json = args.report.json.as_deref().map(Sink::open).transpose()?;
    let watch = Watch::start();
    let batch = args.batch.map_or(args.layout.batch(), usize::from);
    let processes = usize::from(args.processes);
    let rails = Rails::of(args.rails.as_ref(), args.transport, 2)?;
    // Each rail without a NIC has a thread that copies.
    let threads = match &rails {
        Rails::Count(count) => usize::from(*count) + 1,
        Rails::Ports(_) => 1,
    };
    let mut crew = Vec::with_capacity(processes);
    for number in 0..processes {
        let setup = WorkerSetup {
            connect: connect.clone().unwrap_or_default(),
            key: key.clone(),
            transport: args.transport,
            layout: args.layout.name.into(),
            rails: rails.clone(),
            verbs: args.verbs.clone(),
            lanes_per_rail: args.lanes_per_rail,
            // The command line and the layouts permit 256 at most.
            batch: batch as u16,
            chunk_bytes: args.chunk_bytes,
            concurrency: args.concurrency,
            working_set: args.working_set,
            number,
            workers: processes,
            threads: processes * threads,
            verify: args.report.verify,
            validate: args.op == Op::Checked,
            order: args.order,
            gpu: args.gpu,
        };
        let role = match args.op {
            Op::Checked | Op::Read => Role::Worker(setup),
            Op::Get | Op::Exists => Role::Getter(GetterSetup {
                worker: setup,
                directory: DirectorySetup::of(&args.directory, connect.clone()),
                dir_cache: args.cache.dir_cache,
                readers: args.readers,
                exists: args.op == Op::Exists,
            }),
        };
        crew.push(Child::start(format!("reader {}", number + 1), &role)?);
    }
    let started = crew::ready(&mut crew)?;

    let rounds = args.duration.as_nanos().div_ceil(ROUND.as_nanos()).max(1) as u32;
    let bar = Bar::steps("reading", rounds.into());
    let mut tally = Tally::default();
    for round in 0..rounds {
        let warmup = if round == 0 { args.warmup } else { NEXT_WARMUP };
        crew::round(&mut crew, Routine::Rail, warmup, args.duration / rounds, &mut tally)?;
        bar.add(1);
    }
    crew::require_batches(&tally, "drive", args.duration)?;
    bar.about("comparing every page");
    let verified = if args.report.verify.step().is_some() && args.op != Op::Exists {
        crew::verify(&mut crew)?
    } else {
        Verified::default()
    };
    bar.done();

    let page_bytes = args.layout.layout.page_bytes();
    let shape = Shape {
        named: args.layout,
        op: args.op.label(),
        // An engine has 16 rails at most.
        rails: started[0].rails.len() as u8,
        processes: args.processes,
        concurrency: args.concurrency,
    };
    let row = Row::new("drive", shape, &tally, verified);
    let meta = Meta {
        batch: vec![batch],
        working_set: vec![started.iter().map(|r| u64::from(r.pages) * u64::from(page_bytes)).sum()],
        chunk_bytes: started[0].chunk_bytes,
        rails: started[0].rails.clone(),
        lanes_per_rail: args.lanes_per_rail,
        concurrency: args.concurrency,
        processes: args.processes,
        duration_s: args.duration.as_secs_f64(),
        warmup_s: args.warmup.as_secs_f64(),
        verify: args.report.verify,
        order: args.order,
        ..Meta::of("drive", &started[0].transport, &[args.layout])
    };
    let document = Report::new(meta, vec![row], &watch);
    let text = format!(
        "{} from {} over {}\n\n{}{}{}",
        args.layout.label(),
        connect.unwrap_or_else(|| args.directory.to_string()),
        started[0].transport,
        table::of(&document.results),
        table::hits(&document.results),
        document.host.throttled()
    );
    document.deliver(&text, json)
}

/// The address that the readers connect to, or at which they ask; `None` where none is needed.
fn connect(args: &Args) -> anyhow::Result<Option<String>> {
    let by_key = matches!(args.op, Op::Get | Op::Exists);
    if by_key && args.gpu.is_some() {
        bail!("--gpu: pages are read into a GPU by their locations: give --op checked");
    }
    match &args.connect {
        Some(address) => Ok(Some(address.to_string())),
        None if by_key && matches!(args.directory, DirectoryKind::Redis(_)) => Ok(None),
        None => bail!("drive needs --connect ADDRESS: serve prints the one to use"),
    }
}
