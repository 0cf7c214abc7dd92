//! `drive`: read what somebody else serves.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::budget::Memory;
use crate::child::{Child, Order, Reply, Role, Verified};
use crate::cli::{DriveArgs, Op};
use crate::host::Watch;
use crate::json::{Meta, Report, Row, Shape, Sink};
use crate::memcpy::Routine;
use crate::progress::Bar;
use crate::rails::Rails;
use crate::window::Tally;
use crate::{crew, output, report, worker};

/// Connecting, mapping and registering.
const START: Duration = Duration::from_secs(90);
/// How long a round is at most, so that the bar moves and a dead worker is noticed.
const ROUND: Duration = Duration::from_secs(5);

/// What a started worker said of itself.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) transport: String,
    pub(crate) rails: Vec<String>,
    pub(crate) chunk_bytes: u32,
    pub(crate) pages: u32,
}

/// Starts one worker; it connects on its own time.
pub(crate) fn start(name: String, setup: worker::Setup) -> anyhow::Result<Child> {
    Child::start(name, &Role::Worker(setup))
}

/// Waits until all are connected and have the memory that they read into. They take it at the same
/// time, so what all of them want together has to be there.
pub(crate) fn ready(crew: &mut [Child]) -> anyhow::Result<Vec<Ready>> {
    let mut bytes = 0_u64;
    for child in &mut *crew {
        match child.reply(START)? {
            Reply::Connected { host_bytes } => bytes = bytes.saturating_add(host_bytes),
            other => return Err(child.confused(&other)),
        }
    }
    Memory::now()
        .afford(bytes, crew.len(), || format!("{} readers and the pages that they read into", crew.len()))?;
    crew.iter_mut().try_for_each(|child| child.order(Order::Register))?;
    let ready = |child: &mut Child| match child.reply(START)? {
        Reply::Ready { transport, rails, chunk_bytes, pages } => {
            Ok(Ready { transport, rails, chunk_bytes, pages })
        }
        other => Err(child.confused(&other)),
    };
    crew.iter_mut().map(ready).collect()
}

/// The command.
pub(crate) fn run(args: &DriveArgs) -> anyhow::Result<()> {
    let key =
        args.key.read()?.context("drive needs --key or --key-file: serve prints the one that it takes")?;
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
        let setup = worker::Setup {
            connect: args.connect.to_string(),
            key: key.clone(),
            transport: args.transport,
            layout: args.layout.name.into(),
            rails: rails.clone(),
            verbs: args.verbs.clone(),
            lanes_per_rail: args.lanes_per_rail,
            // At most 256, by the command line or by the layout.
            batch: batch as u16,
            chunk_bytes: args.chunk_bytes,
            concurrency: args.concurrency,
            working_set: args.working_set,
            share: (number, processes),
            threads: processes * threads,
            verify: args.report.verify,
            validate: args.op == Op::Checked,
            order: args.order,
            gpu: args.gpu,
        };
        crew.push(start(format!("reader {}", number + 1), setup)?);
    }
    let started = ready(&mut crew)?;

    let rounds = args.duration.as_nanos().div_ceil(ROUND.as_nanos()).max(1) as u32;
    let bar = Bar::steps("reading", rounds.into());
    let mut tally = Tally::default();
    for round in 0..rounds {
        let warmup = if round == 0 { args.warmup } else { Duration::from_millis(20) };
        crew::round(&mut crew, Routine::Rail, warmup, args.duration / rounds, &mut tally)?;
        bar.add(1);
    }
    crew::something(&tally, "drive", args.duration)?;
    bar.about("comparing every page");
    let verified =
        if args.report.verify.step().is_some() { crew::verify(&mut crew)? } else { Verified::default() };
    bar.done();

    let page_bytes = args.layout.layout.page_bytes();
    let shape = Shape {
        named: args.layout,
        op: args.op.label(),
        // At most 16.
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
        "{} from {} over {}\n\n{}{}",
        args.layout.label(),
        args.connect,
        started[0].transport,
        report::table(&document.results),
        document.host.held_up()
    );
    finish(&document, &text, json)
}

/// Hands both reports over, and judges the run: a wrong page is a failure, and so are pages that do
/// not arrive.
pub(crate) fn finish(document: &Report, text: &str, json: Option<Sink>) -> anyhow::Result<()> {
    // A table that cannot be written is no reason to lose the report.
    let table = match json {
        Some(Sink::Stdout) => output::stderr(text.as_bytes()),
        _ => output::stdout(text.as_bytes()),
    };
    let written = json.map(|sink| document.write(sink)).transpose();
    if document.wrong() > 0 {
        bail!(
            "{} pages differ from what was written: do not use this build",
            report::grouped(document.wrong())
        );
    }
    if document.failed() > 0 {
        bail!("{} pages did not arrive; the report's `errors` says why", report::grouped(document.failed()));
    }
    written?;
    table?;
    Ok(())
}
