//! The cost of the engine above the driver: ns per work request, beside a hand-written loop over
//! the same templates and the same null device, in the same run.
//!
//! `cargo bench -p kvrail-bench --bench post`. Criterion's own numbers come first. The table after
//! them, which docs/performance.md quotes, has medians of interleaved rounds, and their ratios.
//!
//! Each workload is timed twice. *Whole* is the time that a user sees: for each READ a destination
//! is taken and two addresses are computed, the READ is posted and completes, and the destination
//! is put back. *Proper* is posting and completing alone, of READs that are ready: the cost of
//! scheduling, credits and accounting.
//!
//! `-- table` prints the table alone. `-- count WORKLOAD N` runs N batches of a workload, for
//! callgrind to count: see `benches/count-instructions`. The name of a workload with `-proper` at
//! its end is that part of it.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a benchmark, not a library")]

#[path = "../../src/measure/model/engine_loop.rs"]
mod engine_loop;
mod hand_loop;
#[path = "../../src/measure/model/workload.rs"]
mod workload;
#[path = "../../src/output/write.rs"]
mod write;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use engine_loop::Kvrail;
use hand_loop::Loop;
use workload::{BATCH, DEEP, RUN, SHALLOW};

/// Reads a number of batches at a time, a number of times, and returns how long that part took.
type Run = Box<dyn FnMut(Part, usize, usize) -> Duration>;

#[derive(Clone, Copy)]
enum Part {
    Whole,
    Proper,
}

const NAMES: [&str; 14] = [
    "loop-1",
    "engine-1",
    "loop-16-spread",
    "loop-16",
    "engine-16",
    "engine-16-validated",
    "engine-1-bulk",
    "engine-16-bulk",
    "engine-16-validated-bulk",
    "engine-16-scattered",
    "engine-16-scattered-bulk",
    "engine-1024-idle",
    "loop-1024",
    "engine-1024",
];

fn make(name: &str) -> Run {
    fn by_hand(mut all: Loop) -> Run {
        Box::new(move |part, n, times| match part {
            Part::Whole => all.whole(n, times),
            Part::Proper => all.proper(n, times),
        })
    }
    fn by_engine<const SGES: usize>(mut all: Kvrail<SGES>) -> Run {
        Box::new(move |part, n, times| match part {
            Part::Whole => all.whole(n, times),
            Part::Proper => all.proper(n, times),
        })
    }
    match name {
        "loop-1" => by_hand(Loop::new(1, 1, BATCH)),
        "loop-16-spread" => by_hand(Loop::new(8, 16, BATCH / 16)),
        "loop-16" => by_hand(Loop::new(8, 16, RUN)),
        "loop-1024" => by_hand(Loop::new(8, 16 * 1024, RUN)),
        "engine-1" => by_engine(Kvrail::<1>::new::<1, 1, DEEP>(1, 1, false)),
        "engine-16" => by_engine(Kvrail::<1>::new::<1, 16, SHALLOW>(8, 16, false)),
        "engine-16-validated" => by_engine(Kvrail::<1>::new::<1, 16, SHALLOW>(8, 16, true)),
        "engine-1-bulk" => by_engine(Kvrail::<1>::new::<1, 1, DEEP>(1, 1, false).in_bulk()),
        "engine-16-bulk" => by_engine(Kvrail::<1>::new::<1, 16, SHALLOW>(8, 16, false).in_bulk()),
        "engine-16-validated-bulk" => by_engine(Kvrail::<1>::new::<1, 16, SHALLOW>(8, 16, true).in_bulk()),
        "engine-16-scattered" => by_engine(scattered()),
        "engine-16-scattered-bulk" => by_engine(scattered().in_bulk()),
        "engine-1024-idle" => by_engine(Kvrail::<1>::new::<1024, 16384, SHALLOW>(8, 16, false).on_one_peer()),
        "engine-1024" => by_engine(Kvrail::<1>::new::<1024, 16384, SHALLOW>(8, 16, false)),
        other => panic!("no workload {other}: there are {NAMES:?}"),
    }
}

/// Validated pages that are apart from each other, over rails whose READs have up to 15 pieces: the
/// entries of eight pages.
fn scattered() -> Kvrail<15> {
    Kvrail::new::<1, 16, SHALLOW>(8, 16, true).scattered()
}

/// Batches in flight at a time: with one lane, what its queue holds; with sixteen, eight READs for
/// each.
fn in_flight(name: &str) -> usize {
    if name.trim_end_matches("-bulk").ends_with("-1") { 1 } else { 4 }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn table() -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    const ROUNDS: usize = 41;
    let mut runs: Vec<Run> = NAMES.iter().map(|name| make(name)).collect();
    // For each workload the whole and the proper times of all rounds.
    let mut ns = vec![[const { Vec::new() }; 2]; NAMES.len()];
    for round in 0..ROUNDS + 3 {
        for (i, run) in runs.iter_mut().enumerate() {
            let k = in_flight(NAMES[i]);
            let reps = 1024 / k;
            for part in [Part::Whole, Part::Proper] {
                let time = run(part, k, reps);
                if round >= 3 {
                    ns[i][part as usize].push(time.as_nanos() as f64 / (reps * k * BATCH) as f64);
                }
            }
        }
    }
    let at = |name: &str| NAMES.iter().position(|n| *n == name).expect("a workload");
    // The medians of the results of each round, so that a noisy round counts once.
    let compare = |a: &str, b: &str, by: fn(f64, f64) -> f64| {
        [0, 1].map(|part| {
            let (a, b) = (&ns[at(a)][part], &ns[at(b)][part]);
            median(a.iter().zip(b).map(|(x, y)| by(*x, *y)).collect())
        })
    };
    writeln!(text, "\n{:<32} {:>6} {:>9}", "ns per wr", "whole", "proper")?;
    for (i, name) in NAMES.iter().enumerate() {
        let [whole, proper] = ns[i].clone().map(median);
        writeln!(text, "{name:<32} {whole:>6.2} {proper:>9.2}")?;
    }
    writeln!(text, "\n{:<32} {:>6} {:>9}", "over", "whole", "proper")?;
    let [whole, proper] = compare("engine-1", "loop-1", |x, y| x - y);
    writeln!(text, "{:<32} {whole:>+6.2} {proper:>+9.2}", "engine-1 - loop-1, ns")?;
    for (a, b) in [
        ("engine-16", "loop-16"),
        ("engine-16", "loop-16-spread"),
        ("engine-16", "engine-1"),
        ("engine-16-validated", "engine-16"),
        ("engine-1-bulk", "loop-1"),
        ("engine-16-bulk", "loop-16"),
        ("engine-16-validated-bulk", "engine-16-validated"),
        ("engine-16-scattered", "engine-16-validated"),
        ("engine-16-scattered-bulk", "engine-16-validated-bulk"),
        ("engine-1024-idle", "engine-16"),
        ("engine-1024", "engine-16"),
        ("engine-1024", "loop-1024"),
        ("loop-1024", "loop-16"),
    ] {
        let [whole, proper] = compare(a, b, |x, y| x / y);
        writeln!(text, "{:<32} {whole:>6.2} {proper:>9.2}", format!("{a} : {b}"))?;
    }
    Ok(text)
}

fn criterion() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let mut group = criterion.benchmark_group("post");
    for name in NAMES {
        let k = in_flight(name);
        group.throughput(Throughput::Elements((k * BATCH) as u64));
        let mut run = make(name);
        group.bench_function(name, |b| {
            b.iter_custom(|n| run(Part::Whole, k, n as usize));
        });
    }
    group.finish();
    criterion.final_summary();
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let text = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["count", name, n] => {
            let n: usize = n.parse().expect("a number of batches");
            let (part, name) = match name.strip_suffix("-proper") {
                Some(name) => (Part::Proper, name),
                None => (Part::Whole, name),
            };
            let k = in_flight(name);
            let mut run = make(name);
            let time = run(part, k, n / k);
            Ok(format!("{n} batches of {BATCH} in {time:?}\n"))
        }
        ["table"] => table(),
        _ => {
            criterion();
            table()
        }
    };
    write::printed(&text.expect("writing to a string does not fail"))
}
