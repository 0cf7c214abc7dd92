//! The command line, parsed into what cannot be wrong.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kvrail::PeerKey;
use kvrail::session::Address;
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Named};
use crate::layout::LayoutArgs;
use crate::rails::{Rails, VerbsArgs};

/// Pulls KV-cache pages out of another process's memory, checks them, and says how fast it went.
///
/// Without a command: the demo.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) demo: DemoArgs,
    /// Log what happens between peers, on stderr.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a producer here, read from it in every way, and print a ladder (what a bare run does).
    Demo(DemoArgs),
    /// Publish pages for `drive`, until Ctrl-C. Prints the command that reads them.
    Serve(ServeArgs),
    /// Read pages that `serve` publishes, here or on another machine.
    Drive(DriveArgs),
    /// Describe the layouts that are shipped: a list, one of them in words, or as a picture.
    Layout(LayoutArgs),
    /// A child process of one of the others.
    #[command(hide = true)]
    Child,
}

/// What is done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// It is read, and then its entry in the producer's publication table: what an application does.
    Checked,
    /// It is read, and nothing else, as ib_read_bw does it: that it was overwritten meanwhile goes unnoticed.
    Read,
}

impl Op {
    /// What reports call it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Read => "read",
        }
    }
}

/// In which order the pages are read, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadOrder {
    /// As they stand in the producer's memory: their entries in the publication table, too, which one READ then brings
    /// for several pages.
    Turn,
    /// Shuffled, once, the same way in every run: hardly a page is read beside its neighbour.
    Shuffled,
}

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// Shared memory: both processes on one host.
    Shm,
    /// TCP: functional only. Its figures say nothing about rails.
    Tcp,
    /// RDMA: RoCE or InfiniBand.
    Verbs,
}

impl Transport {
    /// What reports call it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp (functional only)",
            Self::Verbs => "verbs",
        }
    }

    /// What the command line calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        }
    }
}

/// Which pages are compared with what the producer wrote, byte for byte, outside of the timed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verify {
    /// Every page of the working set.
    All,
    /// Every sixteenth.
    Sample,
    /// None.
    Off,
}

impl Verify {
    /// Every how manyeth page; `None`: none.
    pub(crate) const fn step(self) -> Option<usize> {
        match self {
            Self::All => Some(1),
            Self::Sample => Some(16),
            Self::Off => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The layouts; by default a large real page (4.5 MB) and a small one (42 KB).
    #[arg(long = "layout", value_parser = catalogue::parser())]
    pub(crate) layouts: Vec<Named>,
    /// Rails, and processes, of the rows with many: 2 to 16. By default as many as there are cores, from
    /// 2 to 8.
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) rails: Option<u8>,
    /// How long each row is measured, spread over rounds in which all rows take turns.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Bytes of published pages, e.g. 512MiB. By default that, or an eighth of the memory available.
    #[arg(long, value_parser = size)]
    pub(crate) working_set: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Which pages are compared byte for byte, apart from the timed part.
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) verify: Verify,
    /// Write the report as JSON to a file, `-` for stdout (the table goes to stderr then).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key that both sides hold: 64 hexadecimal digits. Other users can see it while this runs.
    #[arg(long, value_name = "HEX", value_parser = key, conflicts_with = "key_file")]
    pub(crate) key: Option<Key>,
    /// A file that holds the key, closed to others.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where readers connect to; port 0 for any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: Address,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// What moves the bytes.
    #[arg(long, value_enum, default_value = "shm")]
    pub(crate) transport: Transport,
    /// What is published.
    #[arg(long, default_value = "sgl_mla_page_first_direct", value_parser = catalogue::parser())]
    pub(crate) layout: Named,
    /// Bytes of published pages.
    #[arg(long, default_value = "512MiB", value_parser = size)]
    pub(crate) working_set: u64,
    /// As how many rails readers see this side: 1 to 16, 1 by default; it does no work for them. Over verbs: which NIC
    /// ports (mlx5_0,mlx5_1:2), or auto, the default.
    #[arg(long)]
    pub(crate) rails: Option<Rails>,
    #[command(flatten)]
    pub(crate) verbs: VerbsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DriveArgs {
    /// Where the producer is, as `serve` printed it.
    #[arg(long)]
    pub(crate) connect: Address,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// What moves the bytes; the producer's.
    #[arg(long, value_enum, default_value = "shm")]
    pub(crate) transport: Transport,
    /// What the pages are; the producer's.
    #[arg(long, default_value = "sgl_mla_page_first_direct", value_parser = catalogue::parser())]
    pub(crate) layout: Named,
    /// Rails of each process: 1 to 16, 2 by default. Over verbs: which NIC ports (mlx5_0,mlx5_1:2), or auto, the
    /// default.
    #[arg(long)]
    pub(crate) rails: Option<Rails>,
    #[command(flatten)]
    pub(crate) verbs: VerbsArgs,
    /// Lanes of each rail: 1 to 16.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) lanes_per_rail: u8,
    /// Pages of a batch: 1 to 256. By default 32, or 8 of pages above 1 MiB.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) batch: Option<u16>,
    /// A longer page travels in pieces of this size: a power of two, at least 4KiB. By default what suits
    /// the transport.
    #[arg(long, value_parser = chunk)]
    pub(crate) chunk_bytes: Option<u32>,
    /// Batches in flight in each process: 1 to 32.
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) concurrency: u8,
    /// Read into the memory of this GPU, by its number. Over verbs alone.
    #[arg(long, value_name = "N")]
    pub(crate) gpu: Option<u8>,
    /// What is done with each page.
    #[arg(long, value_enum, default_value = "checked")]
    pub(crate) op: Op,
    /// In which order the pages are read.
    #[arg(long, value_enum, default_value = "turn")]
    pub(crate) order: ReadOrder,
    /// Reading processes, each with all the rails: 1 to 64.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) processes: u8,
    /// How long is measured.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long it runs before that.
    #[arg(long, default_value = "500ms", value_parser = warmup)]
    pub(crate) warmup: Duration,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Bytes of pages to read, over and over. By default all that is published.
    #[arg(long, value_parser = size)]
    pub(crate) working_set: Option<u64>,
}

/// A key as text that has been found to be one, to be handed to a child over its pipe.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A new one.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| anyhow!("a key needs random numbers, and the system gave none: {e}"))?;
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// As the library takes it.
    pub(crate) fn peer_key(&self) -> anyhow::Result<PeerKey> {
        Ok(PeerKey::from_hex(&self.0)?)
    }

    /// 64 digits.
    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

impl KeyArgs {
    /// The key given, if one was.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Key>> {
        let Some(path) = &self.key_file else { return Ok(self.key.clone()) };
        // Checks its permissions and content.
        PeerKey::from_file(path)?;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the key file {}", path.display()))?;
        Ok(Some(Key(text.trim_ascii().into())))
    }
}

fn key(text: &str) -> Result<Key, kvrail::session::KeyError> {
    PeerKey::from_hex(text)?;
    Ok(Key(text.trim_ascii().into()))
}

/// A size of at least a byte and at most 1 TiB, so that no product of it overflows.
fn size(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<ByteSize>()?.as_u64();
    if !(1..=1 << 40).contains(&bytes) {
        return Err(format!("{bytes} bytes: give 1 byte to 1TiB"));
    }
    Ok(bytes)
}

fn chunk(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<ByteSize>()?.as_u64();
    match u32::try_from(bytes) {
        Ok(chunk) if chunk.is_power_of_two() && chunk >= 4096 => Ok(chunk),
        _ => Err(format!("{bytes} bytes: a chunk is a power of two, 4KiB to 2GiB")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = warmup(text)?;
    if duration < Duration::from_millis(10) {
        return Err(format!("{text} is too short to measure: give 10ms or more"));
    }
    Ok(duration)
}

fn warmup(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| format!("{e}; write 500ms, 3s, 2min"))?;
    if duration > Duration::from_secs(3600) {
        return Err(format!("{text} is more than an hour"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_times_are_bounded() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert!(size("0").unwrap_err().contains("1 byte to 1TiB"));
        assert!(size("2TiB").is_err());
        assert!(size("many").is_err());
        assert_eq!(chunk("256KiB"), Ok(256 << 10));
        assert!(chunk("100KiB").unwrap_err().contains("power of two"));
        assert!(chunk("2KiB").is_err() && chunk("4GiB").is_err());
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("9ms").is_err() && duration("2h").is_err() && duration("soon").is_err());
        assert_eq!(warmup("0s"), Ok(Duration::ZERO));
    }
}
