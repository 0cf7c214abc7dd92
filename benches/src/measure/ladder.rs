//! Rows that read the same pages: one rail, many rails, many processes; and before them a plain
//! copy, which is the most that this machine can do.
//!
//! Rounds of all rows take turns, so that other load on the machine slows all of them in the same
//! way.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use kvrail::local::AROUND_THE_CACHE;

use crate::catalogue::NamedLayout;
use crate::cli::common::{Op, ReadOrder, Transport, Verify};
use crate::cli::directory::DirectorySetup;
use crate::cli::key::Key;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::counters::{self, Counters};
use crate::machine::environment::Environment;
use crate::machine::source::Source;
use crate::measure::crew::{self, Plan};
use crate::measure::getter;
use crate::measure::lap::{Lap, steady};
use crate::measure::noise::NoiseMeter;
use crate::measure::processes::Process;
use crate::measure::producer;
use crate::measure::rung::Rung;
use crate::measure::schedule::Load;
use crate::output::json::{COPY, Row, Shape};
use crate::output::progress::Bar;
use crate::process::hosts::{Hosts, Meeting, Settings};
use crate::process::parent::Child;
use crate::process::protocol::{
    CopySetup, Copying, GetterSetup, ProducerSetup, Ready, Role, Routine, WorkerSetup,
};
use crate::process::stop::Stop;

/// Batches in flight per process: four that carry data, and others whose pages are being validated
/// meanwhile. 42 KB pages on two busy cores, three runs each, share of memcpy: 0.82 to 0.97 with 4,
/// 0.91 to 1.05 with 6, 0.91 to 0.97 with 8.
pub(crate) const CONCURRENCY: u8 = 6;
/// The warm-up of each round.
pub(crate) const WARMUP: Duration = Duration::from_millis(40);
/// About how long a round is measured.
const ROUND: Duration = Duration::from_millis(200);
/// The longest round of a row in which no batch has ended.
const LONGER: Duration = Duration::from_secs(5);

/// How long the readers by key keep the records of pages: the default of a node.
const DIR_CACHE: Duration = Duration::from_secs(5);

/// The row that is the limit.
pub(crate) const MEMCPY: &str = "memcpy";
/// The row of the C library's `memcpy`, for layouts where the limit is another routine.
pub(crate) const LIBC: &str = "memcpy-libc";

/// What is measured of each layout.
#[derive(Debug)]
pub(crate) struct Ladder<'a> {
    /// The rows that read, from the bottom.
    pub(crate) rungs: Vec<Rung>,
    /// Where the pages are.
    pub(crate) pages: Pages,
    /// How long each row is measured.
    pub(crate) duration: Duration,
    /// Rounds go on beyond `duration` until the plain copy is steady, and end before it where all
    /// rounds of the layout would take longer than this together; `None`: neither.
    pub(crate) until_steady: Option<Duration>,
    pub(crate) verify: Verify,
    /// Settings that all rows have. `verbs`, `transport` and the like are taken from here.
    pub(crate) over: Transport,
    pub(crate) verbs: &'a VerbsArgs,
    /// Whether pages that are here are in memory of the NUMA node of their NICs.
    pub(crate) near_nics: bool,
    pub(crate) lanes_per_rail: u8,
    /// Pages of a batch; `None`: what suits the layout.
    pub(crate) batch: Option<u16>,
    pub(crate) chunk_bytes: Option<u32>,
    pub(crate) concurrency: u8,
    pub(crate) gpu: Option<u8>,
    /// Counters of ports are read below this.
    pub(crate) source: &'a Source,
    pub(crate) facts: &'a Environment,
    /// Ends the run after the round that is under way.
    pub(crate) stop: Option<&'a Stop>,
    /// Other hosts that measure the same rows at the same time; they are met once the readers of
    /// this one are ready.
    pub(crate) meeting: Option<Meeting>,
    /// How late one worker of several is, which only tests want.
    pub(crate) late: Duration,
}

/// Where the pages are that are read.
#[derive(Clone, Debug)]
pub(crate) enum Pages {
    /// In a producer that is started here, which also copies them.
    Here {
        /// Bytes of published pages.
        working_set: u64,
        /// The rails that it offers.
        rails: Rails,
        /// How many threads copy in the rows of plain copies; the first is the limit.
        copiers: Vec<u8>,
    },
    /// In a `serve`, at this address.
    There { address: String, key: Key },
}

/// The rows of a layout.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    /// How many hosts are counted in them, and which, in words.
    pub(crate) hosts: usize,
    pub(crate) notes: Vec<String>,
    /// The reader with the most rails.
    pub(crate) widest: Ready,
    /// Why the rows are missing or short; `None`: they are not.
    pub(crate) failure: Option<anyhow::Error>,
}

impl Ladder<'_> {
    /// How many rounds the duration is spread over.
    pub(crate) fn rounds(&self) -> u32 {
        (self.duration.as_nanos() / ROUND.as_nanos()).clamp(1, 1000) as u32
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(Stop::requested)
    }

    /// Measures all rows of one layout.
    pub(crate) fn measure_layout(
        &self,
        named: NamedLayout,
        bar: &Bar,
        noise: &mut NoiseMeter,
    ) -> anyhow::Result<Measured> {
        bar.about(format!("{}: writing pages", named.name));
        let (producer, address, key) = self.producer(named)?;
        let mut laps = Vec::new();
        let mut crews = Vec::new();
        if let Pages::Here { copiers, .. } = &self.pages {
            let around = (named.layout.page_bytes() as usize) >= AROUND_THE_CACHE;
            for (number, &threads) in copiers.iter().enumerate() {
                let shape = Shape {
                    rails: threads,
                    processes: 1,
                    concurrency: 1,
                    chunk_bytes: 0,
                    lanes_per_rail: 0,
                    ..self.shape(named, COPY)
                };
                let mut lap = |scenario: &str, routine| {
                    laps.push(Lap::new(scenario, shape, 0, Some(Copying { routine, threads })));
                };
                if number > 0 {
                    lap(&format!("{MEMCPY}-{threads}"), Routine::Rail);
                    continue;
                }
                lap(MEMCPY, Routine::Rail);
                if around {
                    lap(LIBC, Routine::Libc);
                }
            }
        }
        // It stays for as long as it is read from, also where it copies nothing.
        crews.push(Vec::from_iter(producer));
        let mut widest = Ready::default();
        for rung in &self.rungs {
            let (crew, started) = self.start(rung, named, &address, &key)?;
            let first = started.first().context("a row has at least one process")?;
            let shape = Shape {
                rails: rung.processes.iter().map(|process| process.count).max().unwrap_or(0),
                // The command line permits 64 at most.
                processes: rung.processes.len() as u8,
                chunk_bytes: first.chunk_bytes,
                ..self.shape(named, rung.op.label())
            };
            let mut lap = Lap::new(&rung.scenario, shape, crews.len(), None);
            let cpus = rung.processes.iter().map(|process| process.cpus.clone());
            lap.rails = started.iter().map(|ready| ready.rails.clone()).zip(cpus).collect();
            laps.push(lap);
            crews.push(crew);
            if let Some(ready) = started.into_iter().max_by_key(|ready| ready.rails.len())
                && ready.rails.len() > widest.rails.len()
            {
                widest = ready;
            }
        }
        let workers = self.rungs.iter().map(|rung| rung.processes.len()).max().unwrap_or(0);
        let mut hosts = match (&self.meeting, self.stop) {
            (Some(meeting), Some(stop)) => {
                Hosts::meet(Some(meeting), &self.settings(named, &laps), workers, stop)?
            }
            _ => Hosts::Alone,
        };
        let measured = self.measure(named, &mut laps, &mut crews, &mut hosts, (bar, noise));
        if let Err(error) = &measured {
            hosts.failed(error);
        }
        let failure = measured.err();
        let limit = plain_copy(&laps).to_vec();
        // A run that was stopped has rows without any batch.
        let mut rows: Vec<_> =
            laps.iter().filter(|lap| !lap.tally.is_empty()).map(|lap| lap.row(&limit)).collect();
        for row in &mut rows {
            // All hosts have the same rows. More processes than that are not counted.
            row.processes = u8::try_from(usize::from(row.processes) * hosts.count()).unwrap_or(u8::MAX);
        }
        Ok(Measured { rows, hosts: hosts.count(), notes: hosts.notes(), widest, failure })
    }

    fn batch(&self, named: NamedLayout) -> usize {
        self.batch.map_or(named.batch(), usize::from)
    }

    /// How many pages are published here; `None`: they are in a `serve`.
    fn published(&self, named: NamedLayout) -> Option<u64> {
        match &self.pages {
            Pages::Here { working_set, .. } => Some(working_set / u64::from(named.layout.page_bytes())),
            Pages::There { .. } => None,
        }
    }

    /// A shape with the settings of all rows.
    fn shape(&self, named: NamedLayout, op: &'static str) -> Shape {
        Shape {
            named,
            op,
            rails: 1,
            processes: 1,
            concurrency: self.concurrency,
            batch: self.batch(named),
            chunk_bytes: 0,
            lanes_per_rail: self.lanes_per_rail,
            offered: None,
        }
    }

    /// Starts the processes of a row.
    fn start(
        &self,
        rung: &Rung,
        named: NamedLayout,
        address: &str,
        key: &Key,
    ) -> anyhow::Result<(Vec<Child>, Vec<Ready>)> {
        let threads = |process: &Process| match process.rails {
            Rails::Count(count) => usize::from(count) + 1,
            Rails::Ports(_) => 1,
        };
        let threads = rung.processes.iter().map(threads).sum();
        let workers = rung.processes.len();
        let start = |(number, process): (usize, &Process)| {
            let worker = WorkerSetup {
                connect: address.into(),
                key: key.clone(),
                transport: self.over,
                layout: named.name.into(),
                rails: process.rails.clone(),
                verbs: self.verbs.clone(),
                lanes_per_rail: self.lanes_per_rail,
                // The command line and the layouts permit 256 at most.
                batch: self.batch(named) as u16,
                chunk_bytes: self.chunk_bytes,
                concurrency: self.concurrency,
                working_set: None,
                number,
                workers,
                alone: workers == 1 && self.meeting.is_none(),
                threads,
                verify: self.verify,
                order: ReadOrder::Turn,
                load: Load::default(),
                validate: rung.op == Op::Checked,
                gpu: self.gpu.filter(|_| rung.gpu),
            };
            let role = match rung.op {
                Op::Checked | Op::Read => Role::Worker(worker),
                Op::Get | Op::Exists => Role::Getter(GetterSetup {
                    worker,
                    directory: DirectorySetup::Embedded(vec![address.into()]),
                    dir_cache: DIR_CACHE,
                    cache_records: getter::cache_records(self.published(named)),
                    readers: 1,
                    exists: rung.op == Op::Exists,
                    metrics: None,
                }),
            };
            Child::start(
                format!("reader {} of {}", number + 1, rung.scenario),
                &role.on(process.cpus.clone()),
            )
        };
        let mut crew = rung.processes.iter().enumerate().map(start).collect::<Result<Vec<_>, _>>()?;
        let started = crew::ready(&mut crew)?;
        if let [_, .., last] = &mut crew[..] {
            last.hold_up(self.late);
        }
        Ok((crew, started))
    }

    /// The producer, if it is started here, with its address and key once its pages are published.
    fn producer(&self, named: NamedLayout) -> anyhow::Result<(Option<Child>, String, Key)> {
        let (working_set, rails, copiers) = match &self.pages {
            Pages::There { address, key } => return Ok((None, address.clone(), key.clone())),
            Pages::Here { working_set, rails, copiers } => (*working_set, rails, copiers),
        };
        let key = Key::random()?;
        let most = copiers.iter().max();
        let copy = most.map(|&threads| CopySetup { threads, batch: self.batch(named) });
        let setup = ProducerSetup {
            listen: "127.0.0.1:0".into(),
            key: key.clone(),
            transport: self.over,
            layout: named.name.into(),
            working_set,
            rails: rails.clone(),
            verbs: self.verbs.clone(),
            near_nics: self.near_nics,
            directory: DirectorySetup::Embedded(Vec::new()),
            copy,
        };
        let (producer, address) = producer::start_child(&setup)?;
        Ok((Some(producer), address, key))
    }

    /// Runs the rounds of all rows, and then the comparisons.
    fn measure(
        &self,
        named: NamedLayout,
        laps: &mut [Lap],
        crews: &mut [Vec<Child>],
        hosts: &mut Hosts,
        (bar, noise): (&Bar, &mut NoiseMeter),
    ) -> anyhow::Result<()> {
        bar.about(format!("{}: reading", named.name));
        if let Hosts::Following(follower) = hosts {
            // Without it no host is met.
            let Some(stop) = self.stop else { return Ok(()) };
            let last = laps.len() - 1;
            while let Some(round) = follower.next(stop)? {
                let lap = laps.get_mut(round.lap).context("the host that leads has another row")?;
                self.counted(lap, |lap| crew::follow(&mut crews[lap.crew], follower, round, &mut lap.tally))?;
                if round.lap == last {
                    noise.sample();
                    bar.add(1);
                }
            }
        } else {
            self.all_rounds(laps, crews, hosts, (bar, noise))?;
            hosts.done(self.stopped());
            if self.stopped() {
                return Ok(());
            }
        }
        if hosts.stopped() {
            return Ok(());
        }
        if self.verify.step().is_some() {
            bar.about(format!("{}: comparing every byte", named.name));
            for lap in laps.iter_mut().filter(|lap| lap.shape.op != COPY) {
                if self.stopped() {
                    return Ok(());
                }
                lap.verified = crew::verify(&mut crews[lap.crew])?;
            }
        }
        Ok(())
    }

    /// The rounds of all rows, which take turns.
    fn all_rounds(
        &self,
        laps: &mut [Lap],
        crews: &mut [Vec<Child>],
        hosts: &mut Hosts,
        (bar, noise): (&Bar, &mut NoiseMeter),
    ) -> anyhow::Result<()> {
        let rounds = self.rounds();
        let began = Instant::now();
        for number in 1.. {
            for at in 0..laps.len() {
                if self.stopped() {
                    return Ok(());
                }
                self.round(laps, at, crews, hosts, self.duration / rounds)?;
            }
            noise.sample();
            if number <= rounds {
                bar.add(1);
            }
            if self.enough(laps, began.elapsed(), number) {
                break;
            }
        }
        // On a busy machine no batch may end within short rounds: a row gets one long one before it
        // is an error.
        let longer = (10 * self.duration).min(LONGER);
        for at in 0..laps.len() {
            if laps[at].tally.is_empty() {
                self.round(laps, at, crews, hosts, longer)?;
            }
        }
        laps.iter().try_for_each(|lap| crew::require_batches(&lap.tally, &lap.scenario, longer))
    }

    /// What all hosts must have in common that measure together.
    fn settings(&self, named: NamedLayout, laps: &[Lap]) -> Settings {
        let rows = laps
            .iter()
            .map(|lap| format!("{} {} by {} processes", lap.scenario, lap.shape.op, lap.shape.processes));
        [
            ("command", "ladder".into()),
            ("layout", format!("{} of {} bytes", named.layout.fingerprint(), named.layout.page_bytes())),
            ("rows", rows.collect::<Vec<_>>().join(", ")),
            ("transport", self.over.name().into()),
            ("duration", format!("{:?}", self.duration)),
            ("batch", self.batch(named).to_string()),
            ("concurrency", self.concurrency.to_string()),
        ]
        .map(|(name, value): (&str, String)| (name.to_owned(), value))
        .into()
    }

    /// Whether there need be no more rounds. So many took so long.
    fn enough(&self, laps: &[Lap], took: Duration, number: u32) -> bool {
        match self.until_steady {
            None => number >= self.rounds(),
            // One more would take too long.
            Some(limit) if took + took / number > limit => true,
            Some(_) => steady(plain_copy(laps), self.rounds() as usize),
        }
    }

    /// One round of the row with this number.
    fn round(
        &self,
        laps: &mut [Lap],
        number: usize,
        crews: &mut [Vec<Child>],
        hosts: &mut Hosts,
        duration: Duration,
    ) -> anyhow::Result<()> {
        self.counted(&mut laps[number], |lap| {
            let plan = Plan { lap: number, copying: lap.copying, warmup: WARMUP, duration };
            crew::round(&mut crews[lap.crew], hosts.leader(), plan, &mut lap.tally)
        })
    }

    /// Runs a round, and reads the counters of its rails before and after it.
    fn counted(&self, lap: &mut Lap, run: impl FnOnce(&mut Lap) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let names: Vec<_> = lap.rails.iter().flat_map(|(rails, _)| rails.clone()).collect();
        let read = || names.iter().map(|rail| counters::read(self.source, self.facts, rail)).collect();
        let before: Vec<Counters> = read();
        run(lap)?;
        let after: Vec<Counters> = read();
        for ((rail, before), after) in names.iter().zip(&before).zip(&after) {
            let rail = lap.counters.entry(rail.clone()).or_default();
            counters::add(rail, counters::risen(before, after));
        }
        Ok(())
    }
}

/// Pages per second of the rounds of the plain copy; empty without one.
fn plain_copy(laps: &[Lap]) -> &[f64] {
    laps.iter().find(|lap| lap.scenario == MEMCPY).map_or(&[], |lap| &lap.tally.rates)
}
