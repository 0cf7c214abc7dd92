//! `demo`: the ladder. From a plain copy, which is the most that this machine can do, to one rail, many
//! rails, and many processes, over the same pages.
//!
//! Rounds of all rows take turns, so that a noisy neighbour hurts all of them alike.

use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;
use kvrail::local::AROUND_THE_CACHE;

use crate::budget::{Available, Memory, NotEnough, PROCESS};
use crate::catalogue::{LAYOUTS, Named};
use crate::child::{Child, Reply, Role, Verified};
use crate::cli::{DemoArgs, Key, Op, ReadOrder, Transport};
use crate::drive::{self, Ready};
use crate::host::Watch;
use crate::json::{Meta, Report, Row, Shape, Sink};
use crate::memcpy::Routine;
use crate::progress::Bar;
use crate::rails::{Rails, VerbsArgs};
use crate::window::Tally;
use crate::{crew, output, report, serve, worker};

/// Batches in flight per process: four that carry data, and others whose pages are being validated
/// meanwhile. 42 KB pages on two busy cores, three runs each, share of memcpy: 0.82 to 0.97 with 4,
/// 0.91 to 1.05 with 6, 0.91 to 0.97 with 8.
const CONCURRENCY: u8 = 6;
/// Of each round, before it counts.
const WARMUP: Duration = Duration::from_millis(40);
/// About how long a round counts.
const ROUND: Duration = Duration::from_millis(200);
/// What the producer may take to write its pages.
const FILL: Duration = Duration::from_secs(90);
/// The working set, unless told otherwise, where memory allows: it is held five times over.
const WORKING_SET: u64 = 512 << 20;

/// What share of memcpy the rails should give: pages of 1 MiB and more, and smaller ones.
const TARGETS: (f64, f64) = (0.90, 0.80);

const COPY: &str = "memcpy";
/// The C library's, where the limit is not.
const LIBC: &str = "memcpy-libc";
const MANY: &str = "n-rails";

/// A row of the ladder while it is measured.
struct Lap {
    scenario: &'static str,
    shape: Shape,
    /// Who does it, by its place among the crews.
    crew: usize,
    routine: Routine,
    tally: Tally,
    verified: Verified,
}

/// The command.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let json = args.report.json.as_deref().map(Sink::open).transpose()?;
    let layouts = if args.layouts.is_empty() { &LAYOUTS[..2] } else { &args.layouts[..] };
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    // At most 8, so it fits.
    let many = args.rails.unwrap_or(cores.clamp(2, 8) as u8);
    let rounds = (args.duration.as_nanos() / ROUND.as_nanos()).clamp(1, 1000) as u32;
    let memory = Memory::now();
    let working_set = working_set(args.working_set, layouts, many, &memory)?;
    if args.working_set.is_none() && working_set < WORKING_SET {
        output::stderr(shrunk(working_set, &memory).as_bytes())?;
    }
    let watch = Watch::start();

    let bar = Bar::steps("starting", layouts.len() as u64 * u64::from(rounds));
    let mut rows = Vec::new();
    let mut meta = Meta::of("demo", Transport::Shm.label(), layouts);
    for named in layouts {
        let (mut ladder, ready) = ladder(args, *named, many, working_set, &bar)?;
        meta.working_set.push(u64::from(ready.pages) * u64::from(named.layout.page_bytes()));
        (meta.chunk_bytes, meta.rails) = (ready.chunk_bytes, ready.rails);
        rows.append(&mut ladder);
    }
    bar.done();
    meta.concurrency = CONCURRENCY;
    meta.processes = many;
    meta.duration_s = args.duration.as_secs_f64();
    meta.warmup_s = WARMUP.as_secs_f64() * f64::from(rounds);
    meta.verify = args.report.verify;
    let document = Report::new(meta, rows, &watch);
    let text = text(&document, many);
    drive::finish(&document, &text, json)
}

/// All rows of one layout.
fn ladder(
    args: &DemoArgs,
    named: Named,
    many: u8,
    working_set: u64,
    bar: &Bar,
) -> anyhow::Result<(Vec<Row>, Ready)> {
    bar.about(format!("{}: writing pages", named.name));
    let key = Key::random()?;
    let setup = serve::Setup {
        listen: "127.0.0.1:0".into(),
        key: key.clone(),
        transport: Transport::Shm,
        layout: named.name.into(),
        working_set,
        rails: Rails::Count(many),
        verbs: VerbsArgs::default(),
        copier: Some((many.into(), named.batch())),
    };
    let mut producer = Child::start("producer", &Role::Producer(setup))?;
    let address = match producer.reply(FILL)? {
        Reply::Serving { address, .. } => address,
        other => return Err(producer.confused(&other)),
    };
    let shape = |op, rails, processes, concurrency| Shape { named, op, rails, processes, concurrency };
    let lap = |scenario, shape, crew, routine| Lap {
        scenario,
        shape,
        crew,
        routine,
        tally: Tally::default(),
        verified: Verified::default(),
    };
    let copy = shape("copy", many, 1, 1);
    let mut laps = vec![lap(COPY, copy, 0, Routine::Rail)];
    if (named.layout.page_bytes() as usize) >= AROUND_THE_CACHE {
        laps.push(lap(LIBC, copy, 0, Routine::Libc));
    }
    let mut crews = vec![vec![producer]];
    let mut widest = None;
    for (scenario, rails, processes) in [("1-rail", 1, 1), (MANY, many, 1), ("n-processes", 1, many)] {
        let start = |number| {
            let setup = worker::Setup {
                connect: address.clone(),
                key: key.clone(),
                transport: Transport::Shm,
                layout: named.name.into(),
                rails: Rails::Count(rails),
                verbs: VerbsArgs::default(),
                lanes_per_rail: 1,
                batch: named.batch() as u16,
                chunk_bytes: None,
                concurrency: CONCURRENCY,
                working_set: None,
                share: (number, processes.into()),
                threads: usize::from(processes) * (usize::from(rails) + 1),
                verify: args.report.verify,
                order: ReadOrder::Turn,
                validate: true,
                gpu: None,
            };
            drive::start(format!("reader {} of {scenario}", number + 1), setup)
        };
        let mut crew = (0..processes.into()).map(start).collect::<Result<Vec<_>, _>>()?;
        let started = drive::ready(&mut crew)?;
        if scenario == MANY {
            widest = started.into_iter().next();
        }
        let shape = shape(Op::Checked.label(), rails, processes, CONCURRENCY);
        laps.push(lap(scenario, shape, crews.len(), Routine::Rail));
        crews.push(crew);
    }

    let rounds = (args.duration.as_nanos() / ROUND.as_nanos()).clamp(1, 1000) as u32;
    bar.about(format!("{}: reading", named.name));
    for _ in 0..rounds {
        for lap in &mut laps {
            let (crew, duration) = (&mut crews[lap.crew], args.duration / rounds);
            crew::round(crew, lap.routine, WARMUP, duration, &mut lap.tally)?;
        }
        bar.add(1);
    }
    laps.iter().try_for_each(|lap| crew::something(&lap.tally, lap.scenario, args.duration))?;
    if args.report.verify.step().is_some() {
        bar.about(format!("{}: comparing every byte", named.name));
        for lap in laps.iter_mut().filter(|lap| lap.shape.op == Op::Checked.label()) {
            lap.verified = crew::verify(&mut crews[lap.crew])?;
        }
    }
    let limit = laps[0].tally.pages_per_s();
    let rows = laps.iter().map(|lap| {
        let mut row = Row::new(lap.scenario, lap.shape, &lap.tally, lap.verified);
        row.ratio.memcpy = (limit > 0.0).then(|| row.pages_per_s / limit);
        row
    });
    let ready =
        widest.unwrap_or(Ready { transport: String::new(), rails: Vec::new(), chunk_bytes: 0, pages: 0 });
    Ok((rows.collect(), ready))
}

/// Bytes of published pages: as given, or as fit.
///
/// # Errors
///
/// What was given does not fit, or not even the least does.
fn working_set(given: Option<u64>, layouts: &[Named], many: u8, memory: &Memory) -> Result<u64, NotEnough> {
    // The parent, the producer, the reader of each of two rows, and those of the third.
    let processes = 4 + usize::from(many);
    let beside = PROCESS * processes as u64;
    // An eighth, so that five copies fit with room to spare.
    let fits = |available: Available| WORKING_SET.min(available.bytes.saturating_sub(beside) / 8);
    let working_set = given.unwrap_or_else(|| memory.available().map_or(WORKING_SET, fits));
    let taken = |named: &Named| {
        let page = u64::from(named.layout.page_bytes());
        let pages = (working_set / page).max(1);
        // Each process of the last row reads a page at least.
        (4 * pages + pages.max(many.into())) * page
    };
    let taken = layouts.iter().map(taken).max().unwrap_or(0);
    memory.afford(taken, processes, || "the demo's five copies of its pages, and its processes".into())?;
    Ok(working_set)
}

/// Says that the demo has fitted itself into what there is.
fn shrunk(working_set: u64, memory: &Memory) -> String {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let why = memory.available().map_or(String::new(), |available| format!(": {available}"));
    format!(
        "kvrail-bench: the demo takes {} of pages five times over, instead of {}{why}\n",
        size(working_set),
        size(WORKING_SET),
    )
}

fn text(document: &Report, many: u8) -> String {
    let (host, meta) = (&document.host, &document.meta);
    let mut text = format!(
        "kvrail demo: KV-cache pages pulled out of another process's memory, one-sidedly, over {}.\n\
         {}, {}, Linux {}.\n\
         One host is not a fabric: this shows what the engine leaves of the machine's own copying speed,\n\
         and says nothing about a NIC.\n\n",
        meta.transport,
        host.cpu,
        host.share(),
        host.kernel,
    );
    text.push_str(&report::table(&document.results));
    let sets = meta.layout.iter().zip(&meta.working_set).zip(meta.page_bytes.iter().zip(&meta.batch));
    text.push('\n');
    for ((name, bytes), (page, batch)) in sets {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name}: pages of {} bytes, {} of them in turn, batches of {batch}, {} batches in flight.",
            report::grouped((*page).into()),
            ByteSize::b(*bytes).display().iec(),
            meta.concurrency,
        );
    }
    let _ = writeln!(
        text,
        "memcpy, the limit: {many} threads copy the same pages with the rails' own copy routine, in the pieces that a\n\
         rail gets: from 256 KiB on with stores around the cache, below by the C library's memcpy. {LIBC}: by the\n\
         C library's alone, where that differs.\n\
         p50, p99: from submit to the end of a batch. Every page read is checked against the producer's publication\n\
         table; verified pages are compared byte for byte as well.\n"
    );
    for row in document.results.iter().filter(|row| row.scenario == MANY) {
        text.push_str(&verdict(row, host.throttled_times > 0));
    }
    text.push_str(&host.held_up());
    text
}

/// More than noise above the limit: then others have taken the cores, of which a plain copy, with one
/// thread less than a reader, had the smaller share.
const BEYOND: f64 = 1.05;

/// `throttled`: a CPU quota has stopped the run, of which the machine's other users know nothing.
fn judged(ratio: f64, target: f64, throttled: bool) -> &'static str {
    match (ratio > BEYOND, ratio >= target, throttled) {
        (true, _, false) => {
            "more than there can be: the machine is busy with something else, so this proves nothing"
        }
        (true, _, true) => "more than there can be: a CPU quota stopped the run, so this proves nothing",
        (false, true, _) => "met",
        (false, false, false) => "MISSED (is the machine busy with something else?)",
        (false, false, true) => "MISSED (a CPU quota stopped the run)",
    }
}

/// Whether a row of many rails is what it should be.
fn verdict(row: &Row, throttled: bool) -> String {
    let target = if row.page_bytes >= 1 << 20 { TARGETS.0 } else { TARGETS.1 };
    let ratio = row.ratio.memcpy.unwrap_or(0.0);
    let met = judged(ratio, target, throttled);
    format!(
        "{}: {} rails give {ratio:.2} of memcpy; the target is {target:.2}: {met}.\n",
        row.layout, row.rails
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn a_share_that_cannot_be_is_not_called_met() {
        let judged = |ratio| super::judged(ratio, 0.9, false);
        assert_eq!((judged(0.9), judged(BEYOND)), ("met", "met"));
        assert!(judged(0.89).starts_with("MISSED"));
        assert!(judged(1.14).contains("proves nothing"));
    }

    #[test]
    fn the_docs_tell_the_targets() {
        let docs = include_str!("../../docs/measuring.md");
        let (large, small) = TARGETS;
        let told = format!("{large:.2} of `memcpy` for pages of 1 MiB and more, {small:.2} for smaller ones");
        assert!(docs.contains(&told), "docs/measuring.md does not say: {told}");
    }

    #[test]
    fn a_quota_is_not_called_a_busy_machine() {
        for ratio in [0.5, 1.5] {
            let [free, held_up] = [false, true].map(|throttled| judged(ratio, 0.9, throttled));
            assert!(free.contains("busy") && !free.contains("quota"), "{free}");
            assert!(held_up.contains("CPU quota") && !held_up.contains("busy"), "{held_up}");
        }
    }

    #[test]
    fn the_demo_fits_itself_into_what_a_limit_leaves() {
        let layouts = &LAYOUTS[..2];
        let fits = |machine, limit| working_set(None, layouts, 8, &Memory::fake(machine, limit));
        assert_eq!(fits(24 * GIB, None).unwrap(), WORKING_SET);
        assert_eq!(fits(24 * GIB, Some((16 * GIB, 15 * GIB))).unwrap(), WORKING_SET);
        let limited = Memory::fake(24 * GIB, Some((2 * GIB, 2 * GIB - 8 * MIB)));
        let bytes = working_set(None, layouts, 8, &limited).unwrap();
        assert!(bytes < 256 * MIB && 5 * bytes + 12 * PROCESS < 2 * GIB, "{bytes}");
        let line = shrunk(bytes, &limited);
        for word in ["237.0 MiB of pages", "instead of 512.0 MiB", "(/box/memory.max is 2.0 GiB)"] {
            assert!(line.contains(word), "{word}: {line}");
        }
        // Where it does not fit it says so before anything is taken.
        let error = fits(24 * GIB, Some((2 * GIB, 128 * MIB))).unwrap_err().to_string();
        assert!(error.contains("128.0 MiB are available (/box/memory.max is 2.0 GiB)"), "{error}");
        // What the user gives is taken or refused, and never changed.
        let given = |bytes| working_set(Some(bytes), layouts, 2, &limited).ok();
        assert_eq!((given(64 * MIB), given(512 * MIB)), (Some(64 * MIB), None));
    }
}
