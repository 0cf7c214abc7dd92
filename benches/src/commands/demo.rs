//! `demo`: the ladder, from a plain copy to many rails and many processes, over the same pages.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::catalogue::{NamedLayout, OF_THE_DEMO, named_layout};
use crate::cli::common::{ReportArgs, Transport, duration, size};
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::environment::Environment;
use crate::machine::memory::Memory;
use crate::machine::source::Source;
use crate::measure::ladder::{self, Ladder, Measured, Pages};
use crate::measure::noise::NoiseMeter;
use crate::measure::rung;
use crate::measure::working_set;
use crate::output::host::Watch;
use crate::output::json::{Meta, Report, Sink};
use crate::output::progress::Bar;
use crate::output::{verdict, write};
use crate::process::stop::Stop;

/// How long each row is measured at least, unless the user says otherwise.
const DURATION: Duration = Duration::from_secs(1);
/// When all rounds of all layouts have ended, after the start, however busy the machine is. The
/// comparison of every byte comes after that.
const ROUNDS: Duration = Duration::from_secs(28);

/// Start a producer here, read from it in every way, and compare with memcpy (what a bare run
/// does).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The layouts to measure; by default a large real page (4.5 MB) and a small one (42 KB).
    #[arg(long = "layout", value_parser = named_layout())]
    layouts: Vec<NamedLayout>,
    /// How many rails, or processes, the rows n-rails and n-processes have: 2 to 16. By default as
    /// many as there are cores, from 2 to 8.
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=16))]
    rails: Option<u8>,
    /// How long each row is measured, spread over rounds in which all rows take turns. By default
    /// 1s, and then more rounds until memcpy is steady, as long as the demo ends within 40 s.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    report: ReportArgs,
    /// Bytes of published pages, e.g. 512MiB. By default that, or an eighth of the available memory
    /// if that is less.
    #[arg(long, value_parser = size)]
    working_set: Option<u64>,
}

/// Measures every row of every layout, and reports.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::catch()?;
    let json = args.report.json.as_deref().map(Sink::open).transpose()?;
    let layouts = if args.layouts.is_empty() { &OF_THE_DEMO[..] } else { &args.layouts[..] };
    let duration = args.duration.unwrap_or(DURATION);
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    // 2 to 8 fits into a u8.
    let many = args.rails.unwrap_or(cores.clamp(2, 8) as u8);
    let memory = Memory::now();
    let rungs = rung::rungs_of_the_demo(many);
    let mut working_set =
        working_set::choose(args.working_set, working_set::USUAL, layouts, &rungs, &memory)?;
    if args.working_set.is_none() && working_set < working_set::USUAL {
        write::stderr(working_set::reduced(working_set, &memory).as_bytes())?;
    }
    if args.working_set.is_none() && args.duration.is_none() {
        let fits = working_set::in_time(working_set, layouts.len(), rungs.len(), working_set::probe());
        if fits < working_set {
            write::stderr(working_set::busy(fits, working_set).as_bytes())?;
            working_set = fits;
        }
    }
    let source = Source::at(Path::new("/"));
    let mut ladder = Ladder {
        rungs,
        pages: Pages::Here { working_set, rails: Rails::Count(many), copiers: vec![many] },
        duration,
        until_steady: None,
        verify: args.report.verify,
        over: Transport::Shm,
        verbs: &VerbsArgs::default(),
        near_nics: true,
        lanes_per_rail: 1,
        batch: None,
        chunk_bytes: None,
        concurrency: ladder::CONCURRENCY,
        gpu: None,
        source: &source,
        facts: &Environment::read(&source),
        stop: Some(&stop),
        meeting: None,
        late: Duration::ZERO,
    };
    let watch = Watch::start();

    let bar = Bar::steps("starting", layouts.len() as u64 * u64::from(ladder.rounds()));
    let mut rows = Vec::new();
    let mut noise = NoiseMeter::new();
    let mut meta = Meta::of("demo", Transport::Shm.label(), layouts);
    let began = Instant::now();
    for (number, named) in layouts.iter().enumerate() {
        if args.duration.is_none() {
            // Each of those that are left gets the same time, of which its pages take a part.
            let left = ROUNDS.saturating_sub(began.elapsed()) / (layouts.len() - number) as u32;
            ladder.until_steady = Some(left.mul_f64(0.75));
        }
        if stop.requested() {
            break;
        }
        let measured = ladder.measure_layout(*named, &bar, &mut noise)?;
        let Measured { rows: mut measured, widest, failure, .. } = measured;
        failure.map_or(Ok(()), Err)?;
        meta.working_set.push(u64::from(widest.pages) * u64::from(named.layout.page_bytes()));
        (meta.chunk_bytes, meta.rails) = (widest.chunk_bytes, widest.rails);
        rows.append(&mut measured);
    }
    bar.done();
    meta.concurrency = ladder::CONCURRENCY;
    meta.processes = many;
    // Each layout has as many rounds as it took.
    let rounds = rows.iter().map(|row| row.rounds_gb_per_s.rounds).max().unwrap_or(0) as f64;
    meta.duration_s = duration.as_secs_f64() / f64::from(ladder.rounds()) * rounds;
    meta.warmup_s = ladder::WARMUP.as_secs_f64() * rounds;
    meta.verify = args.report.verify;
    let mut document = Report::new(meta, rows, &watch);
    document.partial = stop.requested();
    document.noise = (!document.results.is_empty()).then(|| noise.noise());
    let text = verdict::text(&document, many);
    document.deliver(&text, json)?;
    Ok(stop.exit_code())
}
