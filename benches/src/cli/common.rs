//! Arguments that several commands take.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// The operation on each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// Read the page, and then its entry in the producer's publication table, as an application
    /// does.
    Checked,
    /// Read the page and nothing else, as ib_read_bw does. A page that was overwritten meanwhile
    /// goes unnoticed.
    Read,
    /// Get the page by its key: where it is, the cache of records or the directory tells. A page
    /// that is not there is a miss, and no failure.
    Get,
    /// Ask the directory whether the key has a page, and move none.
    Exists,
}

impl Op {
    /// Its name in reports.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Read => "read",
            Self::Get => "get",
            Self::Exists => "exists",
        }
    }
}

/// The order in which the pages are read, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadOrder {
    /// The order of the producer's memory. Entries of neighbours in the publication table then come
    /// by one READ.
    Turn,
    /// A shuffled order, the same in every run. Hardly any page is read beside its neighbour. The
    /// pages of a batch are named in the order of their slots.
    Shuffled,
}

/// The transport that moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// Shared memory: both processes on one host.
    Shm,
    /// TCP: functional only. Its speed says nothing about rails.
    Tcp,
    /// RDMA: RoCE or InfiniBand.
    Verbs,
}

impl Transport {
    /// Its name in reports.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp (functional only)",
            Self::Verbs => "verbs",
        }
    }

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        }
    }
}

/// Whether a process is bound to the NUMA node of its NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Numa {
    /// To the CPUs of that node, where its NICs are on one. Its memory follows.
    Auto,
    /// It runs anywhere.
    Off,
}

/// Which pages are compared byte for byte with what the producer wrote, after the timed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verify {
    /// Verify every page of the working set.
    All,
    /// Verify every 16th page.
    Sample,
    /// Verify no page.
    Off,
}

impl Verify {
    /// Verify every n-th page; `None`: none.
    pub(crate) const fn step(self) -> Option<usize> {
        match self {
            Self::All => Some(1),
            Self::Sample => Some(16),
            Self::Off => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Which pages are compared byte for byte after the timed part.
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) verify: Verify,
    /// Write the report as JSON to this file; `-` for stdout (the table then goes to stderr).
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Parses a size from 1 byte to 1 TiB, so that no product of it overflows.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<ByteSize>()?.as_u64();
    if !(1..=1 << 40).contains(&bytes) {
        return Err(format!("{bytes} bytes: give 1 byte to 1TiB"));
    }
    Ok(bytes)
}

/// Parses the size of a chunk.
pub(crate) fn chunk(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<ByteSize>()?.as_u64();
    match u32::try_from(bytes) {
        Ok(chunk) if chunk.is_power_of_two() && chunk >= 4096 => Ok(chunk),
        _ => Err(format!("{bytes} bytes: a chunk is a power of two, 4KiB to 2GiB")),
    }
}

/// Parses how long is measured: 10 ms to an hour.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = warmup(text)?;
    if duration < Duration::from_millis(10) {
        return Err(format!("{text} is too short to measure: give 10ms or more"));
    }
    Ok(duration)
}

/// Parses the time before the measurement: an hour at most.
pub(crate) fn warmup(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| format!("{e}; write 500ms, 3s, 2min"))?;
    if duration > Duration::from_secs(3600) {
        return Err(format!("{text} is more than an hour"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

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
