//! What the engine costs above the driver: ns per work request, beside a hand-written loop over the
//! same templates and the same null device, in the same run.
//!
//! `cargo bench -p kvrail-bench --bench post`. Criterion's own figures come first; the table after
//! them is what docs/performance.md quotes: medians of interleaved rounds, and their ratios.
//!
//! `-- count WHAT N` runs one workload for N batches, to be counted by callgrind; see
//! `benches/count-instructions`.
#![allow(missing_docs, reason = "a benchmark, not a library")]

mod workload;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use workload::{BATCH, Kvrail, Loop};

/// A workload: batches in, READs out.
type Run = Box<dyn FnMut(usize) -> usize>;

const NAMES: [&str; 7] =
    ["loop-1", "engine-1", "loop-16", "engine-16", "engine-16-validated", "engine-1024-idle", "engine-1024"];

fn make(name: &str) -> Run {
    fn of(mut engine: Kvrail) -> Run {
        Box::new(move |n| engine.batches(n))
    }
    match name {
        "loop-1" => {
            let mut all = Loop::new(1, 1);
            Box::new(move |n| all.batches(n))
        }
        "loop-16" => {
            let mut all = Loop::new(8, 16);
            Box::new(move |n| all.batches(n))
        }
        "engine-1" => of(Kvrail::new::<1, 1>(1, 1, false)),
        "engine-16" => of(Kvrail::new::<1, 16>(8, 16, false)),
        "engine-16-validated" => of(Kvrail::new::<1, 16>(8, 16, true)),
        "engine-1024-idle" => of(Kvrail::new::<1024, 16384>(8, 16, false).on_one_peer()),
        "engine-1024" => of(Kvrail::new::<1024, 16384>(8, 16, false)),
        other => panic!("no workload {other}: there are {NAMES:?}"),
    }
}

/// Batches in flight at a time: with one lane, what its queue holds.
fn in_flight(name: &str) -> usize {
    if name.ends_with("-1") { 1 } else { 8 }
}

fn table() {
    const ROUNDS: usize = 41;
    let mut runs: Vec<Run> = NAMES.iter().map(|name| make(name)).collect();
    let mut ns = vec![Vec::with_capacity(ROUNDS); NAMES.len()];
    for round in 0..ROUNDS + 3 {
        for (i, run) in runs.iter_mut().enumerate() {
            let k = in_flight(NAMES[i]);
            let reps = 1024 / k;
            let start = Instant::now();
            for _ in 0..reps {
                black_box(run(k));
            }
            if round >= 3 {
                ns[i].push(start.elapsed().as_nanos() as f64 / (reps * k * BATCH) as f64);
            }
        }
    }
    let ratio = |a: usize, b: usize| {
        let mut all: Vec<f64> = ns[a].iter().zip(&ns[b]).map(|(x, y)| x / y).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let median = |i: usize| {
        let mut all = ns[i].clone();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let at = |name: &str| NAMES.iter().position(|n| *n == name).expect("a workload");
    println!("\n{:<22} {:>10}   over", "workload", "ns per wr");
    for (i, name) in NAMES.iter().enumerate() {
        let over = match *name {
            "engine-1" => format!("loop-1 + {:.1} ns", median(i) - median(at("loop-1"))),
            "engine-16" => format!(
                "loop-16 x {:.2}, engine-1 x {:.2}",
                ratio(i, at("loop-16")),
                ratio(i, at("engine-1"))
            ),
            "loop-16" => format!("loop-1 x {:.2}", ratio(i, at("loop-1"))),
            "loop-1" => String::new(),
            _ => format!("engine-16 x {:.2}", ratio(i, at("engine-16"))),
        };
        println!("{name:<22} {:>10.2}   {over}", median(i));
    }
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
        group.bench_function(name, |b| b.iter(|| run(k)));
    }
    group.finish();
    criterion.final_summary();
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["count", name, n] => {
            let k = in_flight(name);
            let n: usize = n.parse().expect("a number of batches");
            let mut run = make(name);
            for _ in 0..n / k {
                black_box(run(k));
            }
        }
        ["table"] => table(),
        _ => {
            criterion();
            table();
        }
    }
}
