//! The messages between a parent and its child processes: one JSON document per line.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cli::common::{ReadOrder, Transport, Verify};
use crate::cli::directory::DirectorySetup;
use crate::cli::key::Key;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::placement::Cpus;
use crate::measure::schedule::Load;
use crate::measure::window::{Count, Span};

/// The role of a child, which is the first line that it gets.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Publishes pages, and copies them for comparison.
    Producer(ProducerSetup),
    /// Reads pages by their locations.
    Worker(WorkerSetup),
    /// Gets pages by their keys.
    Getter(GetterSetup),
    /// Overwrites the pages of a small pool.
    ChurnProducer(ChurnProducerSetup),
    /// Gets these pages and checks every byte.
    ChurnReader(ChurnReaderSetup),
    /// Takes the other role on these CPUs.
    Placed { cpus: Cpus, role: Box<Role> },
    /// Becomes this program.
    Program { name: String, args: Vec<String> },
}

impl Role {
    /// The same on these CPUs, if there are any to choose.
    pub(crate) fn on(self, cpus: Option<Cpus>) -> Self {
        match cpus {
            Some(cpus) => Self::Placed { cpus, role: Box::new(self) },
            None => self,
        }
    }
}

/// The settings of a producer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProducerSetup {
    /// The address to listen at.
    pub(crate) listen: String,
    pub(crate) key: Key,
    pub(crate) transport: Transport,
    /// The layout's name in the catalogue.
    pub(crate) layout: String,
    /// Bytes of published pages.
    pub(crate) working_set: u64,
    pub(crate) rails: Rails,
    pub(crate) verbs: VerbsArgs,
    /// Whether its pages are in memory of the NUMA node of its NICs.
    pub(crate) near_nics: bool,
    /// Where the pages are announced.
    pub(crate) directory: DirectorySetup,
    /// For the rows that copy; `None` if there are none.
    pub(crate) copy: Option<CopySetup>,
}

/// How a producer copies its own pages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CopySetup {
    /// The most threads that copy in a round.
    pub(crate) threads: u8,
    /// Pages that a thread copies between two looks at the clock, as a reader's batch.
    pub(crate) batch: usize,
}

/// How a producer copies in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copying {
    pub(crate) routine: Routine,
    /// How many threads copy: 1 to those of its [`CopySetup`].
    pub(crate) threads: u8,
}

/// The routine of a row that copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Routine {
    /// The routine of a rail, piece by piece: the limit.
    Rail,
    /// The C library's `memcpy`, whole pages: for comparison.
    Libc,
}

/// The settings of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerSetup {
    /// The producer's address.
    pub(crate) connect: String,
    pub(crate) key: Key,
    pub(crate) transport: Transport,
    /// The layout's name in the catalogue.
    pub(crate) layout: String,
    pub(crate) rails: Rails,
    pub(crate) verbs: VerbsArgs,
    pub(crate) lanes_per_rail: u8,
    /// Pages of a batch.
    pub(crate) batch: u16,
    /// `None`: what suits the transport.
    pub(crate) chunk_bytes: Option<u32>,
    /// Batches in flight.
    pub(crate) concurrency: u8,
    /// Bytes of pages that all workers read together; `None`: all that are published.
    pub(crate) working_set: Option<u64>,
    /// The number of this worker, from 0.
    pub(crate) number: usize,
    /// How many workers share the pages.
    pub(crate) workers: usize,
    /// Whether no other worker, on any host, reads at the same time.
    pub(crate) alone: bool,
    /// Threads that read at the same time, those of all workers together.
    pub(crate) threads: usize,
    pub(crate) verify: Verify,
    /// Whether each page's entry in the publication table is read after the page.
    pub(crate) validate: bool,
    pub(crate) order: ReadOrder,
    pub(crate) load: Load,
    /// The GPU whose memory is read into; `None`: the host's memory.
    pub(crate) gpu: Option<u8>,
}

/// The settings of a process that gets pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GetterSetup {
    /// `concurrency` is how many callers there are; `connect` is not used.
    pub(crate) worker: WorkerSetup,
    pub(crate) directory: DirectorySetup,
    /// How long the cache of records believes one; zero: there is no cache.
    pub(crate) dir_cache: Duration,
    /// How many records it holds, of 64 bytes each, which it takes at its start.
    pub(crate) cache_records: usize,
    /// Readers of the node, each with all the rails.
    pub(crate) readers: u8,
    /// Only asks which keys have a page, and gets none.
    pub(crate) exists: bool,
    /// Where the node's counters are served.
    pub(crate) metrics: Option<SocketAddr>,
}

/// The settings of a producer that overwrites its pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChurnProducerSetup {
    pub(crate) producer: ProducerSetup,
    /// Slots of the pool.
    pub(crate) pool_pages: u32,
    /// Keys that are put.
    pub(crate) keys: u64,
    /// How many pages it writes in a second, about.
    pub(crate) pace: u32,
    pub(crate) seed: u64,
}

/// The settings of a reader of such a producer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChurnReaderSetup {
    pub(crate) key: Key,
    /// The layout's name in the catalogue.
    pub(crate) layout: String,
    pub(crate) directory: DirectorySetup,
    pub(crate) dir_cache: Duration,
    pub(crate) keys: u64,
    /// Whether pages are validated, as they are in every use but this test.
    pub(crate) validate: bool,
    /// Whether the directory's answers are spoilt on their way.
    pub(crate) adversary: bool,
    /// Longer pages travel in pieces of this size; `None`: what suits the transport.
    pub(crate) chunk_bytes: Option<u32>,
    pub(crate) seed: u64,
}

/// What a producer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overwritten {
    /// Pages that were published.
    pub(crate) puts: u64,
    /// Of these, the pages that were written over an earlier one.
    pub(crate) overwrites: u64,
    /// Pages that made room for others.
    pub(crate) evictions: u64,
    /// Pages that were removed.
    pub(crate) removed: u64,
}

/// What a reader got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Read {
    /// Batches.
    pub(crate) gets: u64,
    /// Pages that were given out, every byte of which was checked.
    pub(crate) hits: u64,
    /// Of these, the pages whose owner the cache of records named.
    pub(crate) hits_cache: u64,
    /// Of these, the pages whose owner the directory named.
    pub(crate) hits_directory: u64,
    /// Hits that are wrong, by how.
    pub(crate) wrong: BTreeMap<String, u64>,
    /// The first of them, in words.
    pub(crate) examples: Vec<String>,
    pub(crate) misses: BTreeMap<String, u64>,
    pub(crate) look_ups: u64,
    pub(crate) keys_looked_up: u64,
    pub(crate) keys_renewed: u64,
    /// Answers of the directory that were spoilt.
    pub(crate) forged: u64,
}

/// An order to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Take the memory that [`Reply::Connected`] asked for. Answer [`Reply::Ready`].
    Register,
    /// Work from `start` on: warm up, then go on for `duration`. Answer [`Reply::Ran`].
    Round {
        /// The starting time on the clock that all processes share, in nanoseconds.
        start: u64,
        /// In nanoseconds.
        warmup: u64,
        /// In nanoseconds.
        duration: u64,
        /// How a producer copies; `None` for all others.
        copying: Option<Copying>,
    },
    /// Count what was done within this window of the last round. Answer [`Reply::Counted`].
    Count(Span),
    /// Compare pages. Answer [`Reply::Verified`].
    Verify,
    /// Overwrite pages, or get and check them, for this long, in nanoseconds. Answer
    /// [`Reply::Overwritten`] or [`Reply::Read`].
    Churn(u64),
}

/// A child's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// A producer has published its pages.
    Serving {
        /// The address at which readers connect.
        address: String,
        /// How many pages are published.
        pages: u32,
    },
    /// A worker is connected, and has not taken its memory yet.
    Connected {
        /// Bytes of the host's memory that it is going to read into.
        host_bytes: u64,
    },
    /// A worker is connected, and its memory is registered.
    Ready(Ready),
    /// The time at which the child was at work in the round.
    Ran(Span),
    /// What it did within the window.
    Counted(Count),
    /// What the comparison found.
    Verified(Verified),
    /// What a churning producer did.
    Overwritten(Overwritten),
    /// What a reader of churning pages got.
    Read(Read),
    /// Why the child cannot go on. This is its last line.
    Failed(String),
}

/// The description of a worker that is ready.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The transport's name in reports.
    pub(crate) transport: String,
    /// The rails' names.
    pub(crate) rails: Vec<String>,
    /// The engine's chunk.
    pub(crate) chunk_bytes: u32,
    /// Pages that this worker reads.
    pub(crate) pages: u32,
    /// Where its counters are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
}

/// What a comparison of pages found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verified {
    /// Pages that were compared, every byte of them.
    pub(crate) compared: u64,
    /// The compared pages that differ from what was written.
    pub(crate) wrong: u64,
    /// Pages that did not arrive, and so were not compared.
    pub(crate) missing: u64,
}

/// Receives the parent's next line in a child. `None`: the parent has closed the pipe.
pub(crate) fn receive<T: for<'a> Deserialize<'a>>() -> anyhow::Result<Option<T>> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&line);
    parsed.map(Some).context("this command is for the program's own use: run demo, serve or drive")
}

/// Sends a line to the parent.
pub(crate) fn send(reply: &Reply) -> anyhow::Result<()> {
    // Piece by piece: the text of many latencies would take memory that grows with them.
    let mut out = BufWriter::new(std::io::stdout().lock());
    serde_json::to_writer(&mut out, reply)?;
    writeln!(out)?;
    Ok(out.flush()?)
}
