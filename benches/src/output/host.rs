//! The machine that the numbers were measured on, and the limits that this process has there.

use std::fs;
use std::path::Path;

use bytesize::ByteSize;
use serde::Serialize;

use crate::machine::cgroup::{self, CpuQuota, Throttled, Unknown};
use crate::machine::environment::Environment;
use crate::machine::environment::system::processor;
use crate::machine::memory::{Memory, kib};
use crate::machine::source::Source;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) numa_nodes: usize,
    pub(crate) ram_bytes: u64,
    /// The lowest limit on memory of this process's control groups; `None` if none has one.
    pub(crate) memory_limit_bytes: Option<u64>,
    /// The lowest CPU quota of this process's control groups, as cores; `None` if none has one.
    pub(crate) cpu_quota_cores: Option<f64>,
    /// How often a CPU quota stopped the processes of this run.
    pub(crate) throttled_times: u64,
    /// How long it stopped them, summed over CPUs.
    pub(crate) throttled_s: f64,
    /// Why the limits of control groups are not known. The four fields above mean nothing then.
    pub(crate) limits_unknown: Option<String>,
    pub(crate) kernel: String,
    pub(crate) nics: Nics,
    /// What `kvrail-bench env` prints.
    pub(crate) environment: Environment,
}

/// The RDMA devices of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Nics {
    /// Their names.
    pub(crate) devices: Vec<String>,
    /// Whether the run read over them.
    pub(crate) note: &'static str,
}

const NO_NIC: &str = "this host has no RDMA device";
const UNUSED: &str = "this host has RDMA devices, but the run did not read over them";
const USED: &str = "the run read over those of these RDMA devices that meta.rails names";

impl Host {
    /// Describes this machine; a property that is not known is `unknown` or 0. `watch` was started
    /// when the run began. `over_nics`: the run read over RDMA devices.
    pub(crate) fn this(watch: &Watch, over_nics: bool) -> Self {
        let memory = Memory::now();
        let (quota, throttled) = watch.compare(cgroup::cpu(Path::new("/")));
        let unknown = memory.limit().err().or(quota.as_ref().err()).map(ToString::to_string);
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let nodes = list("/sys/devices/system/node").into_iter().filter(|name| {
            name.strip_prefix("node").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let devices = list("/sys/class/infiniband");
        let note = match (devices.is_empty(), over_nics) {
            (true, _) => NO_NIC,
            (false, false) => UNUSED,
            (false, true) => USED,
        };
        Self {
            cpu: processor(&cpuinfo).unwrap_or("unknown").into(),
            cores: std::thread::available_parallelism().map_or(0, |n| n.get()),
            numa_nodes: nodes.count().max(1),
            ram_bytes: kib(&meminfo, "MemTotal").unwrap_or(0),
            memory_limit_bytes: memory.limit().ok().flatten(),
            limits_unknown: unknown,
            cpu_quota_cores: quota.ok().flatten(),
            throttled_times: throttled.times,
            throttled_s: throttled.time.as_secs_f64(),
            kernel: rustix::system::uname().release().to_string_lossy().into(),
            nics: Nics { devices, note },
            environment: Environment::read(&Source::at(Path::new("/"))),
        }
    }

    /// Cores, memory and their limits in words.
    pub(crate) fn share(&self) -> String {
        let quota = self.cpu_quota_cores.map(|cores| format!(" (CPU quota: {cores:.2} of them)"));
        let limit = self.memory_limit_bytes.filter(|&bytes| bytes < self.ram_bytes);
        let limit = limit.map(|bytes| format!(" (memory limit: {})", ByteSize::b(bytes).display().iec()));
        let unknown = self.limits_unknown.as_ref().map(|why| format!("; limits unknown: {why}"));
        format!(
            "{} core{}{}, {} RAM{}{}",
            self.cores,
            if self.cores == 1 { "" } else { "s" },
            quota.unwrap_or_default(),
            ByteSize::b(self.ram_bytes).display().iec(),
            limit.unwrap_or_default(),
            unknown.unwrap_or_default()
        )
    }

    /// How often a CPU quota stopped the run, as a line of text; empty if none did.
    pub(crate) fn throttled(&self) -> String {
        match (self.throttled_times, self.cpu_quota_cores) {
            (0, _) | (_, None) => String::new(),
            (times, Some(cores)) => format!(
                "A CPU quota of {cores:.2} cores stopped this run {times} times, for {:.1} s in all: its numbers show the quota, not the machine.\n",
                self.throttled_s
            ),
        }
    }
}

/// The CPU quotas at the start of a run, to compare with those at its end.
#[derive(Debug)]
pub(crate) struct Watch(Vec<CpuQuota>);

impl Watch {
    /// Notes the quotas.
    pub(crate) fn start() -> Self {
        // If they are not known, the report at the end of the run says why.
        Self(cgroup::cpu(Path::new("/")).unwrap_or_default())
    }

    /// The lowest quota, and how much the one that throttled most often has done so since the
    /// start. Quotas are not added up, because a process that two of them stop is stopped once.
    fn compare(&self, now: Result<Vec<CpuQuota>, Unknown>) -> (Result<Option<f64>, Unknown>, Throttled) {
        let quotas = match now {
            Ok(quotas) => quotas,
            Err(unknown) => return (Err(unknown), Throttled::default()),
        };
        let since = |quota: &CpuQuota| {
            let before = self.0.iter().find(|before| before.file == quota.file);
            let before = before.map_or(quota.throttled, |before| before.throttled);
            Throttled {
                times: quota.throttled.times.saturating_sub(before.times),
                time: quota.throttled.time.saturating_sub(before.time),
            }
        };
        let throttled = quotas.iter().map(since).max_by_key(|throttled| throttled.times);
        let least = quotas.iter().map(|quota| quota.cores).min_by(f64::total_cmp);
        (Ok(least), throttled.unwrap_or_default())
    }
}

fn list(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn quota(file: &str, cores: f64, times: u64) -> CpuQuota {
        let throttled = Throttled { times, time: Duration::from_millis(100 * times) };
        CpuQuota { file: file.into(), cores, throttled }
    }

    #[test]
    fn a_quota_is_reported_with_its_effect_on_the_run() {
        let watch = Watch(vec![quota("/a/cpu.max", 4.0, 30), quota("/cpu.max", 1.5, 100)]);
        let (least, throttled) =
            watch.compare(Ok(vec![quota("/a/cpu.max", 4.0, 31), quota("/cpu.max", 1.5, 107)]));
        assert_eq!((least, throttled), (Ok(Some(1.5)), quota("", 0.0, 7).throttled));
        // A quota that is new has nothing to compare with.
        assert_eq!(Watch(vec![]).compare(Ok(vec![quota("/cpu.max", 2.0, 9)])).1, Throttled::default());
        assert_eq!(watch.compare(Ok(vec![])), (Ok(None), Throttled::default()));
    }

    #[test]
    fn limits_are_printed_beside_the_machines_numbers() {
        let host = Host {
            cores: 2,
            ram_bytes: 64 << 30,
            memory_limit_bytes: Some(2 << 30),
            cpu_quota_cores: Some(1.5),
            throttled_times: 7,
            throttled_s: 0.7,
            limits_unknown: None,
            ..Host::this(&Watch::start(), false)
        };
        assert_eq!(host.share(), "2 cores (CPU quota: 1.50 of them), 64.0 GiB RAM (memory limit: 2.0 GiB)");
        let text = host.throttled();
        assert!(text.contains("1.50 cores stopped this run 7 times, for 0.7 s"), "{text}");
        let free = Host {
            memory_limit_bytes: None,
            cpu_quota_cores: None,
            limits_unknown: Some("no /proc".into()),
            ..host
        };
        assert_eq!(free.share(), "2 cores, 64.0 GiB RAM; limits unknown: no /proc");
        assert_eq!(free.throttled(), "");
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let host = Host::this(&Watch::start(), false);
        assert!(host.cores >= 1 && host.numa_nodes >= 1 && host.ram_bytes > 1 << 20, "{host:?}");
        assert!(!host.kernel.is_empty());
    }
}
