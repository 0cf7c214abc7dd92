//! `drive`: reads pages that a `serve` publishes.

mod args;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use crate::catalogue::NamedLayout;
use crate::cli::common::{Numa, Op, Transport};
use crate::cli::directory::{DirectoryKind, DirectorySetup};
use crate::cli::key::Key;
use crate::cli::rails::Rails;
use crate::machine::environment::Environment;
use crate::machine::source::Source;
use crate::measure::crew::{self, Plan};
use crate::measure::getter;
use crate::measure::noise::NoiseMeter;
use crate::measure::processes::{self, Process};
use crate::measure::producer;
use crate::measure::schedule::Load;
use crate::measure::sweep::{MOST, Point, Sweep};
use crate::measure::window::Tally;
use crate::output::host::Watch;
use crate::output::json::{Meta, Report, Row, Shape, Sink, given, mark_peaks};
use crate::output::progress::Bar;
use crate::output::{rungs, table, write};
use crate::process::hosts::{Hosts, Settings};
use crate::process::parent::Child;
use crate::process::protocol::{GetterSetup, ProducerSetup, Ready, Role, Verified, WorkerSetup};
use crate::process::stop::Stop;
use anyhow::{Context, bail};

pub(crate) use args::Args;

/// The longest round. After each the progress bar moves, a dead worker is noticed, and a signal
/// ends the run.
const ROUND: Duration = Duration::from_secs(1);
/// The most processes of a point.
const MOST_PROCESSES: usize = 64;
/// Bytes of the pages that are published here.
const WORKING_SET: u64 = 128 << 20;
/// The warm-up of each round but the first.
const NEXT_WARMUP: Duration = Duration::from_millis(20);

/// The readers of a point, and what they did.
struct Lap {
    point: Point,
    crew: Vec<Child>,
    started: Vec<Ready>,
    tally: Tally,
    verified: Verified,
}

/// Where the pages of a layout are.
struct Served {
    layout: NamedLayout,
    address: Option<String>,
    key: Key,
    /// While it is there the pages are.
    _producer: Option<Child>,
}

/// Starts the workers, measures, verifies, and reports.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::catch()?;
    let connect = connect(args)?;
    let meeting = args.hosts.meeting(connect.is_some())?;
    let rails = Rails::of(args.rails.as_ref(), args.transport, 2)?;
    let points = points(args)?;
    let (processes, placements) = processes(args, &rails)?;
    if args.plan {
        write::stdout(rungs::processes("drive", &processes, &placements).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let key = if args.local { None } else { args.key.read()? };
    if key.is_none() && !args.local {
        bail!("drive needs --key or --key-file: serve prints the one to use");
    }
    let json = args.report.json.as_deref().map(Sink::open).transpose()?;
    let watch = Watch::start();
    let served = args.layout.iter().map(|&layout| match &key {
        Some(key) => Ok(Served { layout, address: connect.clone(), key: key.clone(), _producer: None }),
        None => here(args, layout, &rails),
    });
    let served = served.collect::<anyhow::Result<Vec<_>>>()?;
    let mut laps = Vec::with_capacity(points.len());
    for &point in &points {
        laps.push(start(args, point, &processes, &served)?);
    }

    let settings = settings(args, &points);
    let mut hosts = Hosts::meet(meeting.as_ref(), &settings, processes.len(), &stop)?;
    let mut noise = NoiseMeter::new();
    let ended = measure(args, &mut laps, &mut hosts, &stop, &mut noise);
    if let Err(error) = &ended {
        hosts.failed(error);
    }
    let failure = match ended {
        // There is nothing to keep, and a report of an earlier run stays as it is.
        Err(error) if laps.iter().all(|lap| lap.tally.is_empty()) => return Err(error),
        Err(error) => Some(error),
        Ok(()) => None,
    };
    let partial = stop.requested() || failure.is_some() || hosts.stopped();
    let rows = rows(args, &laps, &points, hosts.others());
    let mut document = Report::new(meta(args, &laps), rows, &watch);
    document.partial = partial;
    document.noise = (noise.noise().empty_loop_per_ms.rounds > 0).then(|| noise.noise());
    document.notes = placements;
    document.notes.extend(hosts.notes());
    document.notes.extend(failure.as_ref().map(|error| format!("ended by an error: {error:#}")));
    document.doubt();
    let from = connect.unwrap_or_else(|| {
        if args.local { "a producer of its own".into() } else { args.directory.to_string() }
    });
    let delivered = document.deliver(&text(args, &document, &from), json);
    // What ended the run comes before what its report lacks because of that.
    failure.map_or(Ok(()), Err)?;
    delivered?;
    Ok(stop.exit_code())
}

/// Runs all rounds of all points, and then the comparisons.
fn measure(
    args: &Args,
    laps: &mut [Lap],
    hosts: &mut Hosts,
    stop: &Stop,
    noise: &mut NoiseMeter,
) -> anyhow::Result<()> {
    let rounds = args.duration.as_nanos().div_ceil(ROUND.as_nanos()).max(1) as u32;
    let length = args.duration / rounds;
    let bar = Bar::steps("reading", u64::from(rounds) * u64::from(args.repeat));
    if let Hosts::Following(follower) = hosts {
        let last = laps.len() - 1;
        while let Some(round) = follower.next(stop)? {
            let lap = laps.get_mut(round.lap).context("the host that leads has another row")?;
            crew::follow(&mut lap.crew, follower, round, &mut lap.tally)?;
            if round.lap == last {
                noise.sample();
                bar.add(1);
            }
        }
    } else {
        for round in 0..rounds * args.repeat {
            for (number, lap) in laps.iter_mut().enumerate() {
                if !stop.requested() {
                    let warmup = if round == 0 { args.warmup } else { NEXT_WARMUP };
                    let plan = Plan { lap: number, copying: None, warmup, duration: length };
                    crew::round(&mut lap.crew, hosts.leader(), plan, &mut lap.tally)?;
                }
            }
            if stop.requested() {
                break;
            }
            noise.sample();
            bar.add(1);
        }
        hosts.done(stop.requested());
    }
    if !stop.requested() && !hosts.stopped() {
        laps.iter().try_for_each(|lap| crew::require_batches(&lap.tally, "drive", args.duration))?;
        bar.about("comparing every page");
        if args.report.verify.step().is_some() && args.op != Op::Exists {
            for lap in laps {
                lap.verified = crew::verify(&mut lap.crew)?;
            }
        }
    }
    bar.done();
    Ok(())
}

/// What all hosts must have in common that measure together.
fn settings(args: &Args, points: &[Point]) -> Settings {
    let names: Vec<_> =
        points.iter().map(|point| format!("{} {}", point.named.name, point.name(points))).collect();
    let pages = |named: &NamedLayout| {
        format!("{} of {} bytes", named.layout.fingerprint(), named.layout.page_bytes())
    };
    [
        ("command", "drive".into()),
        ("layout", args.layout.iter().map(pages).collect::<Vec<_>>().join(", ")),
        ("rows", names.join(", ")),
        ("op", args.op.label().into()),
        ("order", format!("{:?}", args.order).to_lowercase()),
        ("transport", args.transport.name().into()),
        ("duration", format!("{:?} x {}", args.duration, args.repeat)),
        ("warmup", format!("{:?}", args.warmup)),
        ("batch", format!("{:?}", points.iter().map(|point| point.batch).collect::<Vec<_>>())),
        ("concurrency", format!("{:?}", points.iter().map(|point| point.concurrency).collect::<Vec<_>>())),
        ("rate", format!("{:?}", args.rate)),
    ]
    .map(|(name, value): (&str, String)| (name.to_owned(), value))
    .into()
}

/// The points that are measured.
fn points(args: &Args) -> anyhow::Result<Vec<Point>> {
    if args.layout.len() > 1 && !args.local {
        bail!("--layout: a serve has pages of one layout; give one, or --local for a list");
    }
    let sweep = Sweep {
        layouts: args.layout.clone(),
        concurrency: args.concurrency.clone(),
        batch: args.batch.clone(),
        chunk_bytes: args.chunk_bytes.clone(),
        lanes_per_rail: args.lanes_per_rail.clone(),
        preset: args.preset,
    };
    let points = sweep.points();
    if points.len() > MOST {
        bail!("{} combinations are too many: give lists with {MOST} combinations at most", points.len());
    }
    if let Some(address) = args.metrics {
        if !matches!(args.op, Op::Get | Op::Exists) {
            bail!("--metrics {address}: only a node counts, which --op get and exists start");
        }
        if args.processes > 1 || points.len() > 1 {
            let nodes = usize::from(args.processes) * points.len();
            bail!("--metrics {address}: {nodes} nodes would share it; give --processes 1 and no lists");
        }
    }
    Ok(points)
}

/// Publishes pages of a layout.
fn here(args: &Args, layout: NamedLayout, rails: &Rails) -> anyhow::Result<Served> {
    let setup = ProducerSetup {
        listen: "127.0.0.1:0".into(),
        key: Key::random()?,
        transport: args.transport,
        layout: layout.name.into(),
        working_set: args.working_set.unwrap_or(WORKING_SET),
        rails: rails.clone(),
        verbs: args.verbs.clone(),
        near_nics: args.numa == Numa::Auto,
        directory: DirectorySetup::Embedded(Vec::new()),
        copy: None,
    };
    let (producer, address) = producer::start_child(&setup)?;
    Ok(Served { layout, address: Some(address), key: setup.key, _producer: Some(producer) })
}

/// The reading processes, and where they run, in words.
fn processes(args: &Args, rails: &Rails) -> anyhow::Result<(Vec<Process>, Vec<String>)> {
    let facts = Environment::read(&Source::at(&args.root));
    let names = processes::names(args.transport, rails, &facts);
    let mut notes = Vec::new();
    let mut with = |names: &[String]| {
        let (process, note) = Process::with(args.transport, args.numa, &facts, names);
        if let Some(note) = note.filter(|note| !notes.contains(note)) {
            notes.push(note);
        }
        process
    };
    let all = match (args.processes_per_rail, names) {
        (Some(count), names) => {
            let one_each = names?.iter().map(|rail| with(std::slice::from_ref(rail))).collect::<Vec<_>>();
            one_each.into_iter().flat_map(|process| vec![process; count.into()]).collect()
        }
        // The rails stay as they were given: the reader itself says best what is wrong with them.
        (None, names) => {
            let placed = names.map(|names| with(&names)).ok();
            let (count, cpus) = placed.map_or((0, None), |process| (process.count, process.cpus));
            vec![Process { rails: rails.clone(), count, cpus }; args.processes.into()]
        }
    };
    if all.len() > MOST_PROCESSES {
        bail!(
            "--processes-per-rail: {} processes are too many: give rails and processes for each of which there are {MOST_PROCESSES} together at most",
            all.len()
        );
    }
    Ok((all, notes))
}

/// Starts the readers of a point.
fn start(args: &Args, point: Point, readers: &[Process], served: &[Served]) -> anyhow::Result<Lap> {
    let at = served.iter().find(|at| at.layout == point.named).context("every layout is served")?;
    // Each rail without a NIC has a thread that copies.
    let threads = |reader: &Process| match reader.rails {
        Rails::Count(count) => usize::from(count) + 1,
        Rails::Ports(_) => 1,
    };
    let threads = readers.iter().map(threads).sum();
    let mut crew = Vec::with_capacity(readers.len());
    for (number, reader) in readers.iter().enumerate() {
        let setup = WorkerSetup {
            connect: at.address.clone().unwrap_or_default(),
            key: at.key.clone(),
            transport: args.transport,
            layout: point.named.name.into(),
            rails: reader.rails.clone(),
            verbs: args.verbs.clone(),
            lanes_per_rail: point.lanes_per_rail,
            // The command line and the layouts permit 256 at most.
            batch: point.batch as u16,
            chunk_bytes: point.chunk_bytes,
            concurrency: point.concurrency,
            working_set: args.working_set,
            number,
            workers: readers.len(),
            alone: readers.len() == 1 && args.hosts.none(),
            threads,
            verify: args.report.verify,
            validate: args.op == Op::Checked,
            order: args.order,
            load: Load { batches_per_s: args.rate, stall: args.stall.as_nanos() as u64 },
            gpu: args.gpu,
        };
        let role = match args.op {
            Op::Checked | Op::Read => Role::Worker(setup),
            Op::Get | Op::Exists => Role::Getter(GetterSetup {
                worker: setup,
                directory: DirectorySetup::of(&args.directory, at.address.clone()),
                dir_cache: args.cache.dir_cache,
                cache_records: getter::cache_records(None),
                readers: args.readers,
                exists: args.op == Op::Exists,
                metrics: args.metrics,
            }),
        };
        crew.push(Child::start(format!("reader {}", number + 1), &role.on(reader.cpus.clone()))?);
    }
    let started = crew::ready(&mut crew)?;
    if let Some(address) = started.first().and_then(|first| first.metrics) {
        write::stderr(format!("metrics at http://{address}/metrics\n").as_bytes())?;
    }
    if let Some(last) = crew.last_mut() {
        last.hold_up(args.late);
    }
    Ok(Lap { point, crew, started, tally: Tally::default(), verified: Verified::default() })
}

/// A row for each point that was measured. The peak of each layout is marked.
fn rows(args: &Args, laps: &[Lap], points: &[Point], others: usize) -> Vec<Row> {
    let row = |lap: &Lap| {
        let point = lap.point;
        let shape = Shape {
            named: point.named,
            op: args.op.label(),
            // An engine has 16 rails at most.
            rails: lap.started[0].rails.len() as u8,
            processes: u8::try_from(lap.crew.len() + others).unwrap_or(u8::MAX),
            concurrency: point.concurrency,
            batch: point.batch,
            chunk_bytes: lap.started[0].chunk_bytes,
            lanes_per_rail: point.lanes_per_rail,
            offered: args.rate,
        };
        let scenario = format!("drive {}", point.name(points));
        Row::new(scenario.trim_end(), shape, &lap.tally, lap.verified)
    };
    // A run that was stopped has points without any batch.
    let mut rows: Vec<_> = laps.iter().filter(|lap| !lap.tally.is_empty()).map(row).collect();
    mark_peaks(&mut rows);
    rows
}

fn meta(args: &Args, laps: &[Lap]) -> Meta {
    let of_layout = |named: &NamedLayout| laps.iter().find(|lap| lap.point.named == *named);
    let first: Vec<_> = args.layout.iter().filter_map(of_layout).collect();
    let bytes = |lap: &&Lap| {
        let pages: u64 = lap.started.iter().map(|ready| u64::from(ready.pages)).sum();
        pages * u64::from(lap.point.named.layout.page_bytes())
    };
    let (point, ready) = (first[0].point, &first[0].started[0]);
    Meta {
        batch: first.iter().map(|lap| lap.point.batch).collect(),
        working_set: first.iter().map(bytes).collect(),
        chunk_bytes: ready.chunk_bytes,
        rails: ready.rails.clone(),
        lanes_per_rail: point.lanes_per_rail,
        concurrency: point.concurrency,
        processes: first[0].crew.len() as u8,
        duration_s: args.duration.as_secs_f64() * f64::from(args.repeat),
        warmup_s: args.warmup.as_secs_f64(),
        verify: args.report.verify,
        order: args.order,
        settings: more_settings(args),
        ..Meta::of("drive", &ready.transport, &args.layout)
    }
}

/// What else a reader of the figures must know to compare them.
fn more_settings(args: &Args) -> BTreeMap<String, String> {
    let by_key = matches!(args.op, Op::Get | Op::Exists);
    let directory = args.directory.to_string();
    // Where a server is does not matter.
    let kind = directory.split_once("://").map_or(&*directory, |(kind, _)| kind);
    let mut settings = given([
        ("directory", by_key.then(|| kind.to_owned())),
        ("dir-cache", by_key.then(|| format!("{:?}", args.cache.dir_cache))),
        ("readers", by_key.then(|| args.readers.to_string())),
        ("gpu", args.gpu.map(|gpu| gpu.to_string())),
        ("numa", (args.transport == Transport::Verbs).then(|| format!("{:?}", args.numa).to_lowercase())),
        ("processes-per-rail", args.processes_per_rail.map(|count| count.to_string())),
    ]);
    settings.extend(args.verbs.given());
    settings
}

fn text(args: &Args, document: &Report, from: &str) -> String {
    let labels: Vec<_> = args.layout.iter().map(NamedLayout::label).collect();
    let noise = document.noise.map_or(String::new(), |noise| noise.line());
    let partial = if document.partial {
        "PARTIAL: the run was stopped before its end; rows are missing or short.\n"
    } else {
        ""
    };
    let notes: String = document.notes.iter().map(|note| format!("{note}\n")).collect();
    format!(
        "{} from {from} over {}\n\n{}{}{}{noise}{notes}{partial}{}",
        labels.join(", "),
        document.meta.transport,
        table::of(&document.results),
        table::spreads(&document.results),
        table::hits(&document.results),
        document.host.throttled()
    )
}

/// The address that the readers connect to, or at which they ask; `None` where none is needed.
fn connect(args: &Args) -> anyhow::Result<Option<String>> {
    let by_key = matches!(args.op, Op::Get | Op::Exists);
    if by_key && args.gpu.is_some() {
        bail!("--gpu: pages are read into a GPU by their locations: give --op checked");
    }
    match &args.connect {
        Some(address) => Ok(Some(address.to_string())),
        None if args.local => Ok(None),
        None if by_key && matches!(args.directory, DirectoryKind::Redis(_)) => Ok(None),
        None => bail!("drive needs --connect ADDRESS: serve prints the one to use"),
    }
}
