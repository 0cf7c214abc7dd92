//! The arguments of `drive`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kvrail::session::Address;

use crate::catalogue::{NamedLayout, named_layout};
use crate::cli::common::{Numa, Op, ReadOrder, ReportArgs, Transport, chunk, duration, size, warmup};
use crate::cli::directory::{self, CacheArgs, DirectoryKind};
use crate::cli::file::ConfigArgs;
use crate::cli::hosts::HostsArgs;
use crate::cli::key::KeyArgs;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::measure::sweep::Preset;

/// Read pages that `serve` publishes, here or on another host.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The producer's address, as `serve` printed it. With a directory in Redis, pages are found by
    /// key without it.
    #[arg(long, alias = "discovery-addr")]
    pub(super) connect: Option<Address>,
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// The transport that moves the bytes, which must be the producer's.
    #[arg(long, value_enum, default_value = "shm")]
    pub(super) transport: Transport,
    /// The layout of the pages, which must be the producer's. With --local a list with commas.
    #[arg(long, default_value = "sgl_mla_page_first_direct", value_delimiter = ',',
        value_parser = named_layout())]
    pub(super) layout: Vec<NamedLayout>,
    /// Publish the pages here, by a process of this command's own for each layout, instead of
    /// --connect.
    #[arg(long, conflicts_with = "connect")]
    pub(super) local: bool,
    /// Rails of each process: 1 to 16, 2 by default. Over verbs: which NIC ports (mlx5_0,mlx5_1:2),
    /// or auto, the default.
    #[arg(long, alias = "devices")]
    pub(super) rails: Option<Rails>,
    /// Lanes of each rail: 1 to 16. This, --batch, --chunk-bytes and --concurrency also take a list
    /// with commas: every combination is measured, and rounds of all of them take turns.
    #[arg(long, alias = "max-channels", default_value = "1", value_delimiter = ',',
        value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(super) lanes_per_rail: Vec<u8>,
    /// Pages of a batch: 1 to 256. By default 32, or 8 if a page is larger than 1 MiB.
    #[arg(long, alias = "batch-size", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) batch: Vec<u16>,
    /// Longer pages travel in pieces of this size: a power of two, at least 4KiB. By default the
    /// size that suits the transport.
    #[arg(long, value_delimiter = ',', value_parser = chunk)]
    pub(super) chunk_bytes: Vec<u32>,
    /// Batches in flight in each process: 1 to 32, 6 by default. With get and exists: calling
    /// threads, each of which waits for its batch.
    #[arg(long, alias = "concurrencies", value_delimiter = ',',
        value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(super) concurrency: Vec<u8>,
    /// Settings for one question, where no argument sets them.
    #[arg(long, value_enum, default_value = "throughput")]
    pub(super) preset: Preset,
    /// Batches that each process begins in a second, at times that are fixed beforehand. Latencies
    /// are measured from these times. By default the next batch begins when there is room for it.
    #[arg(long, value_name = "BATCHES", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// How often everything is measured: 1 to 1000.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repeat: u32,
    /// Where keys are looked up, with get and exists: embedded (in the producer),
    /// redis://host:port, redis-cluster://host:port,host:port, or one-sided (in the producer's
    /// publication table). As serve has it.
    #[arg(long, default_value = "embedded", value_parser = directory::shared)]
    pub(super) directory: DirectoryKind,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
    /// Readers of each process, each with all the rails and a thread, with get: 1 to 64.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) readers: u8,
    /// Serve the counters of the reading node for Prometheus at this address (port 0: any free
    /// one), with get and exists, one process and one combination.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) metrics: Option<SocketAddr>,
    /// Read into the memory of the GPU with this number. Over verbs only.
    #[arg(long, value_name = "N")]
    pub(super) gpu: Option<u8>,
    /// The operation on each page.
    #[arg(long, value_enum, default_value = "checked")]
    pub(super) op: Op,
    /// The order in which the pages are read.
    #[arg(long, value_enum, default_value = "turn")]
    pub(super) order: ReadOrder,
    /// Reading processes, each with all the rails: 1 to 64.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) processes: u8,
    /// Reading processes for each rail, each with that rail alone: 1 to 8.
    #[arg(long, conflicts_with = "processes", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(super) processes_per_rail: Option<u8>,
    /// Whether a process is bound to the NUMA node of its NICs.
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) numa: Numa,
    /// Show which processes would run where, and measure nothing.
    #[arg(long)]
    pub(super) plan: bool,
    /// Read the files that describe the machine below this folder.
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub(super) root: PathBuf,
    /// How long to measure.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub(super) duration: Duration,
    /// How long the workers read before the measurement.
    #[arg(long, default_value = "500ms", value_parser = warmup)]
    pub(super) warmup: Duration,
    #[command(flatten)]
    pub(super) report: ReportArgs,
    /// Bytes of pages to read, over and over. By default all that are published.
    #[arg(long, value_parser = size)]
    pub(super) working_set: Option<u64>,
    /// Make each reading thread stand still for this long every tenth of a second.
    #[arg(long, hide = true, default_value = "0s", value_parser = warmup)]
    pub(super) stall: Duration,
    /// Make the last reading process this much late for its rounds.
    #[arg(long, hide = true, default_value = "0s", value_parser = warmup)]
    pub(super) late: Duration,
    #[command(flatten)]
    pub(super) hosts: HostsArgs,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    // Last, because its heading would stand above the arguments that follow.
    #[command(flatten)]
    pub(super) verbs: VerbsArgs,
}

/// Parses a rate of batches.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if !(0.1..=1e8).contains(&rate) {
        return Err(format!("{text} batches in a second: give 0.1 to 100000000"));
    }
    Ok(rate)
}
