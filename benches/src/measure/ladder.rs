//! The rows of the demo: one rail, many rails, many processes; and before them a plain copy, which
//! is the most that this machine can do.
//!
//! Rounds of all rows take turns, so that other load on the machine slows all of them in the same
//! way.

use std::time::Duration;

use bytesize::ByteSize;
use kvrail::local::AROUND_THE_CACHE;

use crate::catalogue::NamedLayout;
use crate::cli::common::{Op, ReadOrder, Transport, Verify};
use crate::cli::directory::DirectorySetup;
use crate::cli::key::Key;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::memory::{Available, Memory, NotEnough, PROCESS};
use crate::measure::crew;
use crate::measure::window::Tally;
use crate::output::json::{COPY, Row, Shape};
use crate::output::progress::Bar;
use crate::process::parent::Child;
use crate::process::protocol::{
    CopySetup, GetterSetup, ProducerSetup, Ready, Reply, Role, Routine, Verified, WorkerSetup,
};

/// Batches in flight per process: four that carry data, and others whose pages are being validated
/// meanwhile. 42 KB pages on two busy cores, three runs each, share of memcpy: 0.82 to 0.97 with 4,
/// 0.91 to 1.05 with 6, 0.91 to 0.97 with 8.
pub(crate) const CONCURRENCY: u8 = 6;
/// The warm-up of each round.
pub(crate) const WARMUP: Duration = Duration::from_millis(40);
/// The default working set, where memory permits. The demo holds it six times over.
pub(crate) const WORKING_SET: u64 = 512 << 20;
/// About how long a round is measured.
const ROUND: Duration = Duration::from_millis(200);
/// The longest round of a row in which no batch has ended.
const LONGER: Duration = Duration::from_secs(5);
/// How long the producer may take to write its pages.
const FILL: Duration = Duration::from_secs(90);

/// How long the readers by key keep the records of pages: the default of a node.
const DIR_CACHE: Duration = Duration::from_secs(5);

/// The row of pages that are got by their keys.
pub(crate) const GET: &str = "get";
/// The row whose share of `memcpy` is judged.
pub(crate) const MANY: &str = "n-rails";
/// The row that is the limit.
const MEMCPY: &str = "memcpy";
/// The row of the C library's `memcpy`, for layouts where the limit is another routine.
pub(crate) const LIBC: &str = "memcpy-libc";

/// What is measured of each layout.
#[derive(Debug)]
pub(crate) struct Ladder {
    /// How many rails, or processes, the rows with many of them have.
    pub(crate) many: u8,
    /// Bytes of published pages.
    pub(crate) working_set: u64,
    /// How long each row is measured.
    pub(crate) duration: Duration,
    pub(crate) verify: Verify,
}

/// A row while it is measured.
struct Lap {
    scenario: &'static str,
    shape: Shape,
    /// The index of the crew that does it.
    crew: usize,
    routine: Routine,
    tally: Tally,
    verified: Verified,
}

impl Lap {
    fn new(scenario: &'static str, shape: Shape, crew: usize, routine: Routine) -> Self {
        Self { scenario, shape, crew, routine, tally: Tally::default(), verified: Verified::default() }
    }
}

impl Ladder {
    /// How many rounds the duration is spread over.
    pub(crate) fn rounds(&self) -> u32 {
        (self.duration.as_nanos() / ROUND.as_nanos()).clamp(1, 1000) as u32
    }

    /// Measures all rows of one layout. Returns them, and the description of the reader with many
    /// rails.
    pub(crate) fn measure_layout(&self, named: NamedLayout, bar: &Bar) -> anyhow::Result<(Vec<Row>, Ready)> {
        bar.about(format!("{}: writing pages", named.name));
        let key = Key::random()?;
        let (producer, address) = self.start_producer(named, &key)?;
        let shape = |op, rails, processes, concurrency| Shape { named, op, rails, processes, concurrency };
        let copy = shape(COPY, self.many, 1, 1);
        let mut laps = vec![Lap::new(MEMCPY, copy, 0, Routine::Rail)];
        if (named.layout.page_bytes() as usize) >= AROUND_THE_CACHE {
            laps.push(Lap::new(LIBC, copy, 0, Routine::Libc));
        }
        let mut crews = vec![vec![producer]];
        let mut widest = Ready::default();
        let (read, get) = (Op::Checked.label(), Op::Get.label());
        for (scenario, op, rails, processes) in [
            ("1-rail", read, 1, 1),
            (MANY, read, self.many, 1),
            (GET, get, self.many, 1),
            ("n-processes", read, 1, self.many),
        ] {
            let setup = WorkerSetup {
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
                number: 0,
                workers: processes.into(),
                threads: usize::from(processes) * (usize::from(rails) + 1),
                verify: self.verify,
                order: ReadOrder::Turn,
                validate: true,
                gpu: None,
            };
            let start = |number| {
                let worker = WorkerSetup { number, ..setup.clone() };
                let role = if scenario == GET {
                    Role::Getter(GetterSetup {
                        worker,
                        directory: DirectorySetup::Embedded(vec![address.clone()]),
                        dir_cache: DIR_CACHE,
                        readers: 1,
                        exists: false,
                    })
                } else {
                    Role::Worker(worker)
                };
                Child::start(format!("reader {} of {scenario}", number + 1), &role)
            };
            let mut crew = (0..processes.into()).map(start).collect::<Result<Vec<_>, _>>()?;
            let started = crew::ready(&mut crew)?;
            if scenario == MANY {
                widest = started.into_iter().next().unwrap_or_default();
            }
            let shape = shape(op, rails, processes, CONCURRENCY);
            laps.push(Lap::new(scenario, shape, crews.len(), Routine::Rail));
            crews.push(crew);
        }
        self.measure(named, &mut laps, &mut crews, bar)?;
        let limit = laps[0].tally.pages_per_s();
        let rows = laps.iter().map(|lap| {
            let mut row = Row::new(lap.scenario, lap.shape, &lap.tally, lap.verified);
            row.ratio.memcpy = (limit > 0.0).then(|| row.pages_per_s / limit);
            row
        });
        Ok((rows.collect(), widest))
    }

    /// Starts the producer, and returns it with its address once its pages are published.
    fn start_producer(&self, named: NamedLayout, key: &Key) -> anyhow::Result<(Child, String)> {
        let setup = ProducerSetup {
            listen: "127.0.0.1:0".into(),
            key: key.clone(),
            transport: Transport::Shm,
            layout: named.name.into(),
            working_set: self.working_set,
            rails: Rails::Count(self.many),
            verbs: VerbsArgs::default(),
            directory: DirectorySetup::Embedded(Vec::new()),
            copy: Some(CopySetup { threads: self.many.into(), batch: named.batch() }),
        };
        let mut producer = Child::start("producer", &Role::Producer(setup))?;
        match producer.reply(FILL)? {
            Reply::Serving { address, .. } => Ok((producer, address)),
            other => Err(producer.unexpected(&other)),
        }
    }

    /// Runs the rounds of all rows, and then the comparisons.
    fn measure(
        &self,
        named: NamedLayout,
        laps: &mut [Lap],
        crews: &mut [Vec<Child>],
        bar: &Bar,
    ) -> anyhow::Result<()> {
        bar.about(format!("{}: reading", named.name));
        let rounds = self.rounds();
        for _ in 0..rounds {
            for lap in &mut *laps {
                let duration = self.duration / rounds;
                crew::round(&mut crews[lap.crew], lap.routine, WARMUP, duration, &mut lap.tally)?;
            }
            bar.add(1);
        }
        // On a busy machine no batch may end within short rounds: a row gets one long one before it
        // is an error.
        let longer = (10 * self.duration).min(LONGER);
        for lap in laps.iter_mut().filter(|lap| lap.tally.is_empty()) {
            crew::round(&mut crews[lap.crew], lap.routine, WARMUP, longer, &mut lap.tally)?;
        }
        laps.iter().try_for_each(|lap| crew::require_batches(&lap.tally, lap.scenario, longer))?;
        if self.verify.step().is_some() {
            bar.about(format!("{}: comparing every byte", named.name));
            for lap in laps.iter_mut().filter(|lap| lap.shape.op != COPY) {
                lap.verified = crew::verify(&mut crews[lap.crew])?;
            }
        }
        Ok(())
    }
}

/// Bytes of published pages: as many as were given, or as many as fit.
///
/// # Errors
///
/// The given working set does not fit, or not even the smallest one does.
pub(crate) fn working_set(
    given: Option<u64>,
    layouts: &[NamedLayout],
    many: u8,
    memory: &Memory,
) -> Result<u64, NotEnough> {
    // The parent, the producer, a reader each for `1-rail`, `n-rails` and `get`, and `many` of them
    // for `n-processes`.
    let processes = 5 + usize::from(many);
    let beside = PROCESS * processes as u64;
    // An eighth, so that six copies fit with room to spare.
    let fits = |available: Available| WORKING_SET.min(available.bytes.saturating_sub(beside) / 8);
    let working_set = given.unwrap_or_else(|| memory.available().map_or(WORKING_SET, fits));
    let taken = |named: &NamedLayout| {
        let page = u64::from(named.layout.page_bytes());
        let pages = (working_set / page).max(1);
        // Each process of the last row reads at least one page.
        (5 * pages + pages.max(many.into())) * page
    };
    let taken = layouts.iter().map(taken).max().unwrap_or(0);
    memory.afford(taken, processes, || "the demo's six copies of its pages, and its processes".into())?;
    Ok(working_set)
}

/// Says that the demo takes a smaller working set than usual, and why.
pub(crate) fn reduced(working_set: u64, memory: &Memory) -> String {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let why = memory.available().map_or(String::new(), |available| format!(": {available}"));
    format!(
        "kvrail-bench: the demo takes {} of pages six times over, instead of {}{why}\n",
        size(working_set),
        size(WORKING_SET),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::OF_THE_DEMO;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_demo_takes_no_more_memory_than_a_limit_leaves() {
        let layouts = &OF_THE_DEMO;
        let fits = |machine, limit| working_set(None, layouts, 8, &Memory::fake(machine, limit));
        assert_eq!(fits(24 * GIB, None).unwrap(), WORKING_SET);
        assert_eq!(fits(24 * GIB, Some((16 * GIB, 15 * GIB))).unwrap(), WORKING_SET);
        let limited = Memory::fake(24 * GIB, Some((2 * GIB, 2 * GIB - 8 * MIB)));
        let bytes = working_set(None, layouts, 8, &limited).unwrap();
        assert!(bytes < 256 * MIB && 6 * bytes + 13 * PROCESS < 2 * GIB, "{bytes}");
        let line = reduced(bytes, &limited);
        for word in ["235.5 MiB of pages", "instead of 512.0 MiB", "(/box/memory.max is 2.0 GiB)"] {
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
