//! `demo`: the ladder. From a plain copy, which is the most that this machine can do, to one rail, many
//! rails, and many processes, over the same pages.
//!
//! Rounds of all rows take turns, so that a noisy neighbour hurts all of them alike.

use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;
use kvrail::local::AROUND_THE_CACHE;

use crate::catalogue::{LAYOUTS, Named};
use crate::child::{Child, Reply, Role, Verified};
use crate::cli::{DemoArgs, Key, Op, ReadOrder, Transport};
use crate::drive::{self, Ready};
use crate::json::{Meta, Report, Row, Shape, Sink};
use crate::memcpy::Routine;
use crate::progress::Bar;
use crate::rails::{Rails, VerbsArgs};
use crate::window::Tally;
use crate::{crew, host, report, serve, worker};

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
    let working_set = args.working_set.unwrap_or_else(default_working_set);
    let rounds = (args.duration.as_nanos() / ROUND.as_nanos()).clamp(1, 1000) as u32;
    host::afford(working_set.saturating_mul(5), "the demo's five copies of its working set")?;

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
    let document = Report::new(meta, rows);
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
        let started = crew.iter_mut().map(drive::ready).collect::<Result<Vec<_>, _>>()?;
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

/// As much as an eighth of the memory that is available, so that five copies fit with room to spare.
fn default_working_set() -> u64 {
    host::available().map_or(WORKING_SET, |bytes| WORKING_SET.min(bytes / 8))
}

fn text(document: &Report, many: u8) -> String {
    let (host, meta) = (&document.host, &document.meta);
    let mut text = format!(
        "kvrail demo: KV-cache pages pulled out of another process's memory, one-sidedly, over {}.\n\
         {}, {} cores, {} RAM, Linux {}.\n\
         One host is not a fabric: this shows what the engine leaves of the machine's own copying speed,\n\
         and says nothing about a NIC.\n\n",
        meta.transport,
        host.cpu,
        host.cores,
        ByteSize::b(host.ram_bytes).display().iec(),
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
        text.push_str(&verdict(row));
    }
    text
}

/// More than noise above the limit: then others have taken the cores, of which a plain copy, with one
/// thread less than a reader, had the smaller share.
const BEYOND: f64 = 1.05;

fn judged(ratio: f64, target: f64) -> &'static str {
    if ratio > BEYOND {
        "more than there can be: the machine is busy with something else, so this proves nothing"
    } else if ratio >= target {
        "met"
    } else {
        "MISSED (is the machine busy with something else?)"
    }
}

/// Whether a row of many rails is what it should be.
fn verdict(row: &Row) -> String {
    let target = if row.page_bytes >= 1 << 20 { TARGETS.0 } else { TARGETS.1 };
    let ratio = row.ratio.memcpy.unwrap_or(0.0);
    let met = judged(ratio, target);
    format!(
        "{}: {} rails give {ratio:.2} of memcpy; the target is {target:.2}: {met}.\n",
        row.layout, row.rails
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_cannot_be_is_not_called_met() {
        assert_eq!((judged(0.9, 0.9), judged(BEYOND, 0.9)), ("met", "met"));
        assert!(judged(0.89, 0.9).starts_with("MISSED"));
        assert!(judged(1.14, 0.9).contains("proves nothing"));
    }
}
