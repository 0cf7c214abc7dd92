//! What this process may have of the machine.

use std::fmt;

use bytesize::ByteSize;
use serde::{Serialize, Serializer};

use super::numbers::Numbers;
use crate::machine::cgroup;
use crate::machine::fact::Fact;
use crate::machine::source::{Source, malformed};

const LIMITS: &str = "/proc/self/limits";
const STATUS: &str = "/proc/self/status";

/// The capability that lets a process lock more memory than its limit.
const CAP_IPC_LOCK: u32 = 14;

/// The limits of this process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Process {
    /// How many bytes it may lock. Registered memory is locked.
    pub(crate) locked_memory: Fact<Bound>,
    /// Whether that limit does not hold for it, as it has CAP_IPC_LOCK on the whole host.
    pub(crate) may_lock_all: Fact<bool>,
    /// The CPUs on which it may run.
    pub(crate) cpus: Fact<Numbers>,
    /// The NUMA nodes from which it may take memory.
    pub(crate) memory_nodes: Fact<Numbers>,
    /// The lowest limit on memory of its control groups; null without one.
    pub(crate) memory_limit: Fact<Option<MemoryCap>>,
    /// The lowest quota on CPU time of its control groups; null without one.
    pub(crate) cpu_quota: Fact<Option<CpuCap>>,
}

/// A limit of the kernel's resource limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// So many bytes.
    Bytes(u64),
    /// No limit.
    Unlimited,
}

/// A limit of a control group on memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryCap {
    /// The limit, in bytes.
    pub(crate) bytes: u64,
    /// The file that sets it.
    pub(crate) file: String,
}

/// A limit of a control group on CPU time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CpuCap {
    /// The time of so many CPUs.
    pub(crate) cores: f64,
    /// The file that sets it.
    pub(crate) file: String,
}

impl Process {
    pub(crate) fn read(source: &Source) -> Self {
        Self {
            locked_memory: locked_memory(source).into(),
            may_lock_all: may_lock_all(source).into(),
            cpus: list(source, "Cpus_allowed_list").into(),
            memory_nodes: list(source, "Mems_allowed_list").into(),
            memory_limit: memory_limit(source).into(),
            cpu_quota: cpu_quota(source).into(),
        }
    }
}

fn locked_memory(source: &Source) -> Result<Bound, String> {
    const NAME: &str = "Max locked memory";
    let text = source.text(LIMITS, 64 << 10)?;
    let row = text.lines().find_map(|line| line.strip_prefix(NAME));
    let row = row.ok_or_else(|| format!("{LIMITS}: no line `{NAME}`"))?;
    match row.split_whitespace().next() {
        Some("unlimited") => Ok(Bound::Unlimited),
        Some(bytes) => bytes.parse().map(Bound::Bytes).map_err(|_| malformed(LIMITS, bytes, "limit")),
        None => Err(format!("{LIMITS}: no limit follows `{NAME}`")),
    }
}

/// The kernel asks for the capability on the host. One that a process has in a user namespace of
/// its own does not count.
fn may_lock_all(source: &Source) -> Result<bool, String> {
    let text = field(source, "CapEff")?;
    let bits = u64::from_str_radix(&text, 16).map_err(|_| malformed(STATUS, &text, "set of capabilities"))?;
    if bits & 1 << CAP_IPC_LOCK == 0 {
        return Ok(false);
    }
    let map = source.text("/proc/self/uid_map", 4096)?;
    Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn list(source: &Source, name: &str) -> Result<Numbers, String> {
    let text = field(source, name)?;
    Numbers::parse(&text).ok_or_else(|| malformed(STATUS, &text, "list of numbers"))
}

/// The field of `/proc/self/status` with this name.
fn field(source: &Source, name: &str) -> Result<String, String> {
    let text = source.text(STATUS, 256 << 10)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().into()).ok_or_else(|| format!("{STATUS}: no line `{name}`"))
}

fn memory_limit(source: &Source) -> Result<Option<MemoryCap>, String> {
    let limits = cgroup::memory(source.root()).map_err(|error| source.without_root(&error.to_string()))?;
    let least = limits.into_iter().min_by_key(|limit| limit.bytes);
    Ok(least.map(|limit| MemoryCap {
        bytes: limit.bytes,
        file: source.without_root(&limit.file.to_string_lossy()),
    }))
}

fn cpu_quota(source: &Source) -> Result<Option<CpuCap>, String> {
    let quotas = cgroup::cpu(source.root()).map_err(|error| source.without_root(&error.to_string()))?;
    let least = quotas.into_iter().min_by(|a, b| a.cores.total_cmp(&b.cores));
    Ok(least
        .map(|quota| CpuCap { cores: quota.cores, file: source.without_root(&quota.file.to_string_lossy()) }))
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => ByteSize::b(*bytes).display().iec().fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}
