//! `model`: what another machine would do, by simulated rails and this machine's cost of the
//! engine. Nothing of it is a measurement of that machine, so every line says "model".

use std::path::PathBuf;

use anyhow::Context;

use crate::measure::lap::STEADY;
use crate::measure::model::calibrate::{self, Predicted};
use crate::measure::model::cost::{self, Cost};
use crate::measure::model::machine::{Machine, Outcome, RAILS, Work};
use crate::measure::model::with_room;
use crate::output::artifact::{self, Artifact};
use crate::output::json::{COPY, Row};
use crate::output::numbers::grouped;
use crate::output::write;
use crate::process::stop;

/// Batches of a run.
const BATCHES: usize = 400;
/// The sizes of pages: those of the ladder among powers of two.
const PAGES: [u64; 9] = [4096, 8192, 16_384, 32_768, 41_984, 65_536, 131_072, 1 << 20, 4_497_408];

/// Model another machine: simulated rails of its rate, and the engine's cost measured here.
///
/// Every line says "model": nothing of it was measured on that machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rails: 1 to 8. They are on two NUMA nodes, half on each.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u8).range(1..=8))]
    rails: u8,
    /// GB/s of each rail, as ib_read_bw measures it.
    #[arg(long, default_value = "49.0", value_parser = rate)]
    gb_per_s: f64,
    /// From a request's departure to the first byte of its response, in nanoseconds.
    #[arg(long, default_value = "6000", value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    rtt_ns: u64,
    /// What a NIC's driver costs for each work request above the null device, in nanoseconds. It
    /// cannot be measured without the NIC.
    #[arg(long, default_value = "0", value_parser = nanoseconds)]
    driver_ns: f64,
    /// Readers that read from one producer at the same time.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    readers: u16,
    /// A report of `ladder` over shm of this machine: the model is calibrated on one of its rows
    /// and predicts the others.
    #[arg(long, value_name = "FILE")]
    ladder: Option<PathBuf>,
}

fn bounded(text: &str, least: f64, most: f64, what: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{text} {what}: give {least} to {most}"))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    bounded(text, 0.01, 1000.0, "GB/s")
}

fn nanoseconds(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 100_000.0, "ns")
}

/// Prints what the model gives.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    stop::end_process_1_on_signals()?;
    // Before the work, because it may be no report.
    let ladder = args.ladder.as_deref().map(|path| artifact::read(path, false)).transpose()?;
    let lines = with_room(|| lines(args, ladder.as_ref()))?;
    let text: String = lines.iter().map(|line| format!("model: {line}\n")).collect();
    write::stdout(text.as_bytes())?;
    Ok(())
}

fn lines(args: &Args, ladder: Option<&Artifact>) -> anyhow::Result<Vec<String>> {
    let cost = cost::measure();
    let machine = Machine {
        rails: vec![args.gb_per_s; args.rails.into()],
        remote: None,
        wr_ns: cost.wr.median + args.driver_ns,
        page_ns: 0.0,
        rtt_ns: args.rtt_ns,
        chunk_bytes: 256 << 10,
    };
    let mut lines = the_machine(args, &cost);
    lines.extend(one_core(args, &machine, &cost)?);
    lines.extend(enough(args, &machine, &cost));
    lines.extend(peers());
    lines.extend(trouble(&machine)?);
    lines.extend(incast(args, &machine)?);
    if let Some(ladder) = ladder {
        lines.extend(prediction(ladder, &cost)?);
    }
    Ok(lines)
}

fn the_machine(args: &Args, cost: &Cost) -> Vec<String> {
    let nodes = if args.rails > 1 { 2 } else { 1 };
    vec![
        format!(
            "{} rails of {} GB/s on {nodes} NUMA nodes, {} ns there and back; its distances are not modelled",
            args.rails, args.gb_per_s, args.rtt_ns
        ),
        format!(
            "cost on this machine's core: {:.1} ns for each work request (quartiles {:.1} and {:.1}), {:.1} ns for the validation of a page, {} ns of a driver (assumed)",
            cost.wr.median, cost.wr.q1, cost.wr.q3, cost.validation, args.driver_ns
        ),
    ]
}

fn batch(page_bytes: u64) -> usize {
    if page_bytes > 1 << 20 { 8 } else { 32 }
}

const fn work(page_bytes: u64, batch: usize) -> Work {
    Work { page_bytes, batch, concurrency: None, dead: None }
}

/// What one core drives, for each size of pages.
fn one_core(args: &Args, machine: &Machine, cost: &Cost) -> anyhow::Result<Vec<String>> {
    let all = f64::from(args.rails) * args.gb_per_s;
    let checked = Machine { page_ns: cost.validation, ..machine.clone() };
    let mut lines = vec!["one core drives, in GB/s: page bytes | read | validated | bound by".into()];
    for page in PAGES {
        let read = machine.read(work(page, batch(page)), BATCHES)?;
        let validated = checked.read(work(page, batch(page)), BATCHES)?;
        let bound = |outcome: &Outcome| match (outcome.busy > 0.95, outcome.gb_per_s > 0.95 * all) {
            (true, _) => "the core",
            (_, true) => "the rails",
            _ => "what is in flight",
        };
        lines.push(format!(
            "  {:>9} | {:>6.1} | {:>6.1} | {}, {}",
            grouped(page),
            read.gb_per_s,
            validated.gb_per_s,
            bound(&read),
            bound(&validated)
        ));
    }
    Ok(lines)
}

/// The size of pages from which one core is enough, with its working.
fn enough(args: &Args, machine: &Machine, cost: &Cost) -> Vec<String> {
    let all = f64::from(args.rails) * args.gb_per_s;
    let line = |what: &str, ns: f64| {
        let bytes = ns * all;
        format!(
            "one core is enough from pages of {bytes:.0} bytes on ({what}): {} rails x {} GB/s = {all:.1} GB/s = {all:.1} bytes/ns; a page costs {ns:.1} ns; {ns:.1} ns x {all:.1} bytes/ns = {bytes:.0} bytes",
            args.rails, args.gb_per_s
        )
    };
    vec![line("read", machine.wr_ns), line("validated", machine.wr_ns + cost.validation)]
}

/// What peers cost.
fn peers() -> Vec<String> {
    let mut lines =
        vec!["peers, a lane each: peers | ns/wr, load on one | ns/wr, load on all | engine's memory".into()];
    for peers in cost::peers() {
        lines.push(format!(
            "  {:>6} | {:>6.1} | {:>6.1} | {:.1} MB, {} bytes a peer with its lane of 32",
            grouped(peers.peers as u64),
            peers.idle,
            peers.all,
            peers.bytes as f64 / 1e6,
            grouped((peers.bytes / peers.peers) as u64)
        ));
    }
    lines.push("  peers that are idle are not polled: only their rail's completion queue is".into());
    lines
}

/// A dead rail, and a slow one.
fn trouble(machine: &Machine) -> anyhow::Result<Vec<String>> {
    const PAGE: u64 = 131_072;
    let whole = machine.read(work(PAGE, 32), BATCHES)?;
    let mut lines = Vec::new();
    let mut line = |what: &str, got: &Outcome| {
        lines.push(format!(
            "{what}, pages of {}: {:.1} GB/s ({:.1} of it on that rail), {:.0} % of {:.1}; a batch takes {:.0} us instead of {:.0}",
            grouped(PAGE),
            got.gb_per_s,
            got.rails[0],
            100.0 * got.gb_per_s / whole.gb_per_s,
            whole.gb_per_s,
            got.batch_us,
            whole.batch_us
        ));
    };
    if machine.rails.len() > 1 {
        line("one rail dead", &machine.read(Work { dead: Some(0), ..work(PAGE, 32) }, BATCHES)?);
        let mut slow = machine.clone();
        slow.rails[0] /= 2.0;
        line("one rail at half speed", &slow.read(work(PAGE, 32), BATCHES)?);
    }
    Ok(lines)
}

/// Many readers of one producer, of which each has its share of the producer's ports.
fn incast(args: &Args, machine: &Machine) -> anyhow::Result<Vec<String>> {
    const PAGE: u64 = 131_072;
    let share = args.gb_per_s / f64::from(args.readers);
    let reader = Machine { remote: Some(share), ..machine.clone() };
    let alone = machine.read(work(PAGE, 32), BATCHES)?;
    let got = reader.read(work(PAGE, 32), BATCHES / 4)?;
    Ok(vec![format!(
        "incast, {} readers on one producer, pages of {}: {:.2} GB/s for each, {:.1} GB/s in all; a batch takes {:.2} ms instead of {:.2} ms alone (the producer's ports are shared evenly, and no packet is lost)",
        args.readers,
        grouped(PAGE),
        got.gb_per_s,
        got.gb_per_s * f64::from(args.readers),
        got.batch_us / 1e3,
        alone.batch_us / 1e3
    )])
}

/// The rows of a ladder beside what the model gives for them.
fn prediction(ladder: &Artifact, cost: &Cost) -> anyhow::Result<Vec<String>> {
    let report = &ladder.report;
    anyhow::ensure!(
        report.meta.transport.starts_with("shm"),
        "--ladder: the model has the rails of shm, and {} is of {}; give a ladder over shm",
        ladder.name,
        report.meta.transport
    );
    let rows = &report.results;
    let from = calibrate::chosen(rows).with_context(|| {
        format!("--ladder: {} has no row of one rail that reads; give a report of `ladder`", ladder.name)
    })?;
    let cores = report.host["cores"].as_u64().unwrap_or(1).clamp(1, RAILS as u64) as usize;
    let (share, all) = calibrate::predict(rows, from, cores, cost.wr.median, cost.validation)
        .with_context(|| format!("--ladder: {}", ladder.name))?;
    let mut lines = vec![
        format!(
            "calibrated on the row \"{} {}\" with pages of {} of {}: each thread that copies has {share:.2} of what a thread of the ladder's plain copy has, of as many threads (at most {cores}) and the same pages; 1.00 where more threads copy than there are cores",
            from.scenario,
            from.op,
            grouped(from.page_bytes.into()),
            ladder.name
        ),
        "  page bytes | row | model GB/s | measured GB/s | error".into(),
    ];
    let put_in =
        |row: &Row| (&row.layout, &row.scenario, &row.op) == (&from.layout, &from.scenario, &from.op);
    let line = |predicted: &Predicted| {
        let Predicted { row, gb_per_s } = predicted;
        let mark = if put_in(row) { " (put in)" } else { "" };
        format!(
            "  {:>10} | {} {} | {gb_per_s:.2} | {:.2} | {:+.0} %{mark}",
            grouped(row.page_bytes.into()),
            row.scenario,
            row.op,
            calibrate::measured(row),
            100.0 * predicted.error()
        )
    };
    let within = |rows: &[&Predicted]| {
        let within = rows.iter().filter(|predicted| predicted.error().abs() <= 0.15).count();
        format!("{within} of {}", rows.len())
    };
    let (by_key, by_location): (Vec<_>, Vec<_>) =
        all.iter().partition(|predicted| calibrate::by_key(&predicted.row));
    lines.extend(by_location.iter().copied().map(line));
    let others: Vec<_> = by_location.into_iter().filter(|predicted| !put_in(&predicted.row)).collect();
    lines.push(format!("{} other rows are within 15 % of what was measured", within(&others)));
    if !by_key.is_empty() {
        lines.push("by key; what callers and the node cost is not modelled:".into());
        lines.extend(by_key.iter().copied().map(line));
        lines.push(format!("{} rows by key are within 15 %", within(&by_key)));
    }
    let restless = rows.iter().filter(|row| row.op == COPY && row.rounds_gb_per_s.relative() > STEADY);
    lines.extend(restless.map(|row| {
        format!(
            "the ladder's {} of pages of {} varied by {:.0} % over its rounds: something else used the machine, so the errors say little",
            row.scenario,
            grouped(row.page_bytes.into()),
            100.0 * row.rounds_gb_per_s.relative()
        )
    }));
    if let Some(noise) = report.noise {
        lines.push(format!("of the ladder: {}", noise.line().trim_end()));
    }
    Ok(lines)
}
