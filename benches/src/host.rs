//! What a figure has to be read with: the machine that it was taken on.

use std::fs;

use bytesize::ByteSize;
use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) numa_nodes: usize,
    pub(crate) ram_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) nics: Nics,
}

/// What there is to read over that these figures say nothing about.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Nics {
    /// RDMA devices, by name.
    pub(crate) devices: Vec<String>,
    pub(crate) note: &'static str,
}

const NO_NIC: &str = "no RDMA device on this host; where there is one, this holds device, port, firmware, link rate, MTU, GID index and NUMA node of each rail";
const UNUSED: &str = "there are RDMA devices, and none of the transports measured here uses them";

impl Host {
    /// This one, as far as it can be told; `unknown` and 0 where it cannot.
    pub(crate) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let nodes = list("/sys/devices/system/node").into_iter().filter(|name| {
            name.strip_prefix("node").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let devices = list("/sys/class/infiniband");
        Self {
            cpu: cpu(&cpuinfo).unwrap_or("unknown").into(),
            cores: std::thread::available_parallelism().map_or(0, |n| n.get()),
            numa_nodes: nodes.count().max(1),
            ram_bytes: kib(&meminfo, "MemTotal").unwrap_or(0),
            kernel: rustix::system::uname().release().to_string_lossy().into(),
            nics: Nics { note: if devices.is_empty() { NO_NIC } else { UNUSED }, devices },
        }
    }
}

/// Bytes that can be had without harm, if the system tells.
pub(crate) fn available() -> Option<u64> {
    kib(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

/// An error if `bytes` cannot be had without harm: asking the system for shared memory that it has not got
/// ends with the kernel killing processes, not with a refusal.
pub(crate) fn afford(bytes: u64, what: &str) -> anyhow::Result<()> {
    affordable(bytes, available(), what)
}

fn affordable(bytes: u64, available: Option<u64>, what: &str) -> anyhow::Result<()> {
    match available {
        Some(available) if bytes > available => anyhow::bail!(
            "{what} take {} of memory, and {} are available: give a smaller --working-set",
            ByteSize::b(bytes).display().iec(),
            ByteSize::b(available).display().iec()
        ),
        _ => Ok(()),
    }
}

fn list(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// x86 calls it a model name; ARM's kernels name a part at best.
fn cpu(cpuinfo: &str) -> Option<&str> {
    let named = |name| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    named("model name").or_else(|| named("Model")).or_else(|| named("CPU part"))
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_in_its_own_way() {
        assert_eq!(cpu("processor\t: 0\nmodel name\t: AMD EPYC 9654\n"), Some("AMD EPYC 9654"));
        assert_eq!(cpu("processor\t: 0\nCPU part\t: 0xd40\n"), Some("0xd40"));
        assert_eq!(cpu(""), None);
        assert_eq!(kib("MemTotal:       16 kB\nMemFree: 1 kB\n", "MemTotal"), Some(16 << 10));
        assert_eq!(kib("MemTotalled: 16 kB", "MemTotal"), None);
    }

    #[test]
    fn what_is_not_there_cannot_be_afforded() {
        assert!(affordable(10, Some(10), "pages").is_ok() && affordable(10, None, "pages").is_ok());
        let error = affordable(3 << 30, Some(2 << 30), "3 copies of 5 pages").unwrap_err().to_string();
        for word in ["3 copies of 5 pages", "3.0 GiB", "2.0 GiB", "--working-set"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let host = Host::this();
        assert!(host.cores >= 1 && host.numa_nodes >= 1 && host.ram_bytes > 1 << 20, "{host:?}");
        assert!(!host.kernel.is_empty());
    }
}
