//! `ladder`: the rows of the published baseline, on any hardware: the bare limit, one rail, one
//! process over more and more rails, and groups of processes for each rail.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kvrail::session::Address;

use crate::catalogue::{NamedLayout, OF_THE_LADDER, named_layout};
use crate::cli::common::{Numa, Op, ReportArgs, Transport, chunk, duration, size};
use crate::cli::hosts::HostsArgs;
use crate::cli::key::KeyArgs;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::environment::Environment;
use crate::machine::memory::Memory;
use crate::machine::source::Source;
use crate::measure::bare::{self, Setting};
use crate::measure::ladder::{self, Ladder, Measured, Pages};
use crate::measure::noise::NoiseMeter;
use crate::measure::processes::{self, Process};
use crate::measure::rung::Rung;
use crate::measure::working_set;
use crate::output::host::Watch;
use crate::output::json::{BareLimit, Meta, Report, Sink, given};
use crate::output::progress::Bar;
use crate::output::{rungs, write};
use crate::process::stop::Stop;

/// The default working set: each row holds it once, and all rows of a layout exist at a time.
const WORKING_SET: u64 = 128 << 20;
/// How long `ib_read_bw` measures, in seconds.
const BARE_SECONDS: u64 = 2;

/// Measure the ladder: the bare limit, one rail, one process over 1, 2, 4 ... all rails, and groups
/// of processes for each rail; each with read, checked and get.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The producer's address, as `serve` printed it on another host. Without it the pages are
    /// published here.
    #[arg(long)]
    connect: Option<Address>,
    #[command(flatten)]
    key: KeyArgs,
    /// The layouts to measure, with commas between them; by default a large real page (4.5 MB), a
    /// small one (42 KB), and opaque-128k and opaque-1m, which are synthetic.
    #[arg(long = "layout", value_delimiter = ',', value_parser = named_layout())]
    layouts: Vec<NamedLayout>,
    /// The transport that moves the bytes.
    #[arg(long, value_enum, default_value = "shm")]
    transport: Transport,
    /// All rails: how many (1 to 16), by default as many as there are cores, from 2 to 8. Over
    /// verbs: which NIC ports (mlx5_0,mlx5_1:2), or auto, the default, for all that are up.
    #[arg(long, alias = "devices")]
    rails: Option<Rails>,
    /// Processes of the group of each rail: 1 to 8.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=8))]
    processes_per_rail: u8,
    /// Whether a process is bound to the NUMA node of its rails.
    #[arg(long, value_enum, default_value = "auto")]
    numa: Numa,
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
    /// Batches in flight in each process: 1 to 32. With get: calling threads.
    #[arg(long, default_value_t = ladder::CONCURRENCY, value_parser = clap::value_parser!(u8).range(1..=32))]
    concurrency: u8,
    /// The bare limit of a rail, over verbs: `off`, or the host at which you have started the
    /// ib_read_bw that the ladder names (HOST or HOST:PORT). Without --connect both its ends run
    /// here.
    #[arg(long, value_name = "HOST")]
    bare: Option<String>,
    /// Adds a row that reads into the memory of the GPU with this number. Over verbs only.
    #[arg(long, value_name = "N")]
    gpu: Option<u8>,
    /// How long each row is measured, spread over rounds in which all rows of a layout take turns.
    #[arg(long, default_value = "1s", value_parser = duration)]
    duration: Duration,
    /// Bytes of published pages, per layout. By default 128MiB, or less where memory is short.
    #[arg(long, value_parser = size)]
    working_set: Option<u64>,
    #[command(flatten)]
    report: ReportArgs,
    /// Show which processes would run where, and measure nothing.
    #[arg(long)]
    plan: bool,
    /// Read the files that describe the machine below this folder.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Make one process of each group this much late for its rounds.
    #[arg(long, hide = true, default_value = "0s", value_parser = crate::cli::common::warmup)]
    late: Duration,
    #[command(flatten)]
    hosts: HostsArgs,
    #[command(flatten)]
    verbs: VerbsArgs,
}

/// Measures every row of every layout, and reports.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = Source::at(&args.root);
    let facts = Environment::read(&source);
    let rails = all_rails(args, &facts)?;
    let (rungs, placements) = rungs_of(args, &facts, &rails);
    if args.plan {
        write::stdout(rungs::plan(&rungs, &placements).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let layouts = layouts(args)?;
    let mut stop = Stop::catch()?;
    let json = args.report.json.as_deref().map(Sink::open).transpose()?;
    let pages = pages(args, &layouts, &rails, &rungs)?;
    let ladder = Ladder {
        rungs,
        pages,
        duration: args.duration,
        until_steady: None,
        verify: args.report.verify,
        over: args.transport,
        verbs: &args.verbs,
        near_nics: args.numa == Numa::Auto,
        lanes_per_rail: args.lanes_per_rail,
        batch: args.batch,
        chunk_bytes: args.chunk_bytes,
        concurrency: args.concurrency,
        gpu: args.gpu,
        source: &source,
        facts: &facts,
        stop: Some(&stop),
        meeting: args.hosts.meeting(args.connect.is_some())?,
        late: args.late,
    };
    let watch = Watch::start();
    let bar = Bar::steps("starting", layouts.len() as u64 * u64::from(ladder.rounds()));
    let mut rows = Vec::new();
    let mut noise = NoiseMeter::new();
    let (mut limits, mut notes) = (Vec::new(), placements);
    let mut failure = None;
    let mut meta = Meta::of("ladder", args.transport.label(), &layouts);
    for named in &layouts {
        if stop.requested() {
            break;
        }
        let Measured { rows: mut measured, widest, hosts, notes: together, failure: ended } =
            match ladder.measure_layout(*named, &bar, &mut noise) {
                Ok(measured) => measured,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
        if let Some(label) = Some(&widest.transport).filter(|label| !label.is_empty()) {
            meta.transport.clone_from(label);
        }
        meta.working_set.push(u64::from(widest.pages) * u64::from(named.layout.page_bytes()));
        notes.extend(together);
        let bytes = widest.chunk_bytes.min(named.layout.page_bytes());
        failure = ended;
        let bare = match failure {
            None => bare_limit(args, &rails, bytes),
            Some(_) => Ok(Err("the bare limit was not measured: the run ended early".into())),
        };
        match bare {
            Err(error) => failure = Some(error),
            Ok(Ok(bare)) => {
                for row in &mut measured {
                    let one_each = usize::from(row.processes) > hosts;
                    let used = if one_each { rails.len() } else { row.rails.into() };
                    row.ratio.bare = Some(row.gb_per_s / (bare.gb_per_s * (hosts * used) as f64));
                }
                limits.push(bare);
            }
            Ok(Err(why)) if !notes.contains(&why) => notes.push(why),
            Ok(Err(_)) => {}
        }
        (meta.chunk_bytes, meta.rails) = (widest.chunk_bytes, widest.rails);
        rows.append(&mut measured);
        if failure.is_some() {
            break;
        }
    }
    bar.done();
    match failure {
        // There is nothing to keep, and a report of an earlier run stays as it is.
        Some(error) if rows.is_empty() => return Err(error),
        Some(ref error) => notes.push(format!("ended by an error: {error:#}")),
        None => {}
    }
    meta.batch = layouts.iter().map(|named| args.batch.map_or(named.batch(), usize::from)).collect();
    meta.settings = given([
        ("gpu", args.gpu.map(|gpu| gpu.to_string())),
        ("numa", (args.transport == Transport::Verbs).then(|| format!("{:?}", args.numa).to_lowercase())),
        ("processes-per-rail", Some(args.processes_per_rail.to_string())),
    ]);
    meta.settings.extend(args.verbs.given());
    meta.lanes_per_rail = args.lanes_per_rail;
    meta.concurrency = args.concurrency;
    meta.processes = ladder.rungs.iter().map(|rung| rung.processes.len()).max().unwrap_or(1) as u8;
    meta.duration_s = args.duration.as_secs_f64();
    meta.warmup_s = ladder::WARMUP.as_secs_f64() * f64::from(ladder.rounds());
    meta.verify = args.report.verify;
    let mut document = Report::new(meta, rows, &watch);
    document.partial = stop.requested() || failure.is_some();
    document.bare = limits;
    document.noise = (!document.results.is_empty()).then(|| noise.noise());
    document.notes = notes;
    document.doubt();
    let delivered = document.deliver(&rungs::text(&document), json);
    // What ended the run comes before what its report lacks because of that.
    failure.map_or(Ok(()), Err)?;
    delivered?;
    Ok(stop.exit_code())
}

fn layouts(args: &Args) -> anyhow::Result<Vec<NamedLayout>> {
    match (&args.layouts[..], &args.connect) {
        ([], None) => Ok(OF_THE_LADDER.to_vec()),
        (given, None) => Ok(given.to_vec()),
        ([one], Some(_)) => Ok(vec![*one]),
        (_, Some(_)) => bail!(
            "--connect: a serve has pages of one layout; give it as --layout, and run the ladder once for each serve"
        ),
    }
}

/// The names of all rails.
fn all_rails(args: &Args, facts: &Environment) -> anyhow::Result<Vec<String>> {
    if args.gpu.is_some() && args.transport != Transport::Verbs {
        bail!("--gpu: only NICs read into a GPU's memory: give --transport verbs");
    }
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    // 2 to 8 fits into a u8.
    let rails = Rails::of(args.rails.as_ref(), args.transport, cores.clamp(2, 8) as u8)?;
    processes::names(args.transport, &rails, facts)
}

/// The powers of two below the number of all rails.
fn narrower(rails: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |n| Some(2 * n)).take_while(move |&n| n < rails)
}

/// How many threads copy in the rows of plain copies: as many as there are rails, and as many as
/// each of the other rows has.
fn copiers(rails: u8) -> Vec<u8> {
    std::iter::once(rails).chain(narrower(rails.into()).map(|n| n as u8)).collect()
}

/// The rows that read, and where their processes run, in words.
fn rungs_of(args: &Args, facts: &Environment, rails: &[String]) -> (Vec<Rung>, Vec<String>) {
    let mut notes = Vec::new();
    let process = |names: &[String], notes: &mut Vec<String>| {
        let (process, note) = Process::with(args.transport, args.numa, facts, names);
        if let Some(note) = note
            && !notes.contains(&note)
        {
            notes.push(note);
        }
        process
    };
    let mut widths: Vec<_> = narrower(rails.len()).collect();
    widths.push(rails.len());
    let mut shapes: Vec<(String, Vec<Process>, bool)> = Vec::new();
    for width in widths {
        let name = if width == 1 { "1 rail".into() } else { format!("{width} rails") };
        shapes.push((name, vec![process(&rails[..width], &mut notes)], false));
    }
    let group = rails.len() * usize::from(args.processes_per_rail);
    if group > 1 {
        let each = |rail: &String| {
            let one = process(std::slice::from_ref(rail), &mut notes);
            vec![one; args.processes_per_rail.into()]
        };
        shapes.push((rungs::GROUPS.into(), rails.iter().flat_map(each).collect(), false));
    }
    if args.gpu.is_some() {
        shapes.push((format!("{} rails to GPU", rails.len()), vec![process(rails, &mut notes)], true));
    }
    let mut all = Vec::new();
    for (scenario, processes, gpu) in shapes {
        for op in [Op::Read, Op::Checked, Op::Get] {
            // Pages go to a GPU by their locations.
            if !(gpu && op == Op::Get) {
                all.push(Rung { scenario: scenario.clone(), op, processes: processes.clone(), gpu });
            }
        }
    }
    (all, notes)
}

fn pages(args: &Args, layouts: &[NamedLayout], rails: &[String], rungs: &[Rung]) -> anyhow::Result<Pages> {
    if let Some(address) = &args.connect {
        let key =
            args.key.read()?.context("ladder needs --key or --key-file: serve prints the one to use")?;
        return Ok(Pages::There { address: address.to_string(), key });
    }
    let memory = Memory::now();
    let working_set = working_set::choose(args.working_set, WORKING_SET, layouts, rungs, &memory)?;
    let count = rails.len() as u8;
    Ok(match args.transport {
        // A copy in memory is no limit of a NIC, nor of sockets.
        Transport::Verbs => {
            Pages::Here { working_set, rails: Rails::Ports(rails.join(",")), copiers: Vec::new() }
        }
        Transport::Tcp => Pages::Here { working_set, rails: Rails::Count(count), copiers: Vec::new() },
        Transport::Shm => Pages::Here { working_set, rails: Rails::Count(count), copiers: copiers(count) },
    })
}

/// The bare limit of one rail, or why it was not measured.
fn bare_limit(args: &Args, rails: &[String], bytes: u32) -> anyhow::Result<Result<BareLimit, String>> {
    let off = args.bare.as_deref() == Some("off");
    match args.transport {
        Transport::Shm => return Ok(Err("the bare limit of shm is memcpy".into())),
        Transport::Tcp => return Ok(Err("tcp is functional only, and has no bare limit".into())),
        Transport::Verbs if off => return Ok(Err("the bare limit was left out (--bare off)".into())),
        Transport::Verbs => {}
    }
    let Some(program) = bare::program() else {
        return Ok(Err(
            "the bare limit was not measured: this host has no ib_read_bw (package perftest)".into()
        ));
    };
    let (device, port) = match rails[0].split_once(':') {
        Some((device, port)) => (device, port.parse().context("the number of a port")?),
        None => (rails[0].as_str(), 1),
    };
    let setting = Setting {
        device: device.into(),
        port,
        gid_index: args.verbs.gid_index,
        bytes: bytes.into(),
        qps: args.lanes_per_rail,
        depth: args.verbs.read_depth,
        seconds: BARE_SECONDS,
    };
    if args.connect.is_some() && args.bare.is_none() {
        return Ok(Err(format!(
            "the bare limit was not measured: start `{}` on the producer's host, and give --bare HOST",
            setting.server_line()
        )));
    }
    bare::measure(&program, &setting, args.bare.as_deref()).map(Ok)
}
