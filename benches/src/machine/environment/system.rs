//! The kernel, the processors, the memory, and what RDMA needs of libraries and modules.

use std::fs;

use serde::Serialize;

use super::numbers::Numbers;
use super::pages::{self, HugePages};
use crate::machine::fact::Fact;
use crate::machine::memory::kib;
use crate::machine::source::{Source, malformed};

/// The modules that are looked for: those of RDMA in general, of its drivers, and of GPU memory.
const MODULES: [&str; 14] = [
    "ib_core",
    "ib_uverbs",
    "rdma_cm",
    "mlx5_core",
    "mlx5_ib",
    "mlx4_ib",
    "irdma",
    "bnxt_re",
    "efa",
    "rdma_rxe",
    "siw",
    "nvidia",
    "nvidia_peermem",
    "gdrdrv",
];

/// The folders of libraries in the usual distributions.
const LIBRARIES: [&str; 9] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/lib",
];

/// The most bytes of /proc/meminfo, /proc/modules and the like.
const TABLE: u64 = 256 << 10;

/// The machine without its devices.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct System {
    /// The kernel's release.
    pub(crate) kernel: Fact<String>,
    /// The processor's name.
    pub(crate) cpu: Fact<String>,
    /// The CPUs that are online.
    pub(crate) cpus: Fact<Numbers>,
    /// The memory, in bytes.
    pub(crate) ram_bytes: Fact<u64>,
    /// What the machine can give of it without harm, in bytes.
    pub(crate) available_bytes: Fact<u64>,
    /// Huge pages that are set aside.
    pub(crate) huge_pages: Fact<Vec<HugePages>>,
    /// Whether a process's own memory is in huge pages: `always`, `madvise` or `never`.
    pub(crate) transparent_huge_pages: Fact<String>,
    /// The same for shared memory: `always`, `within_size`, `advise`, `never`, `deny` or `force`.
    pub(crate) transparent_shared: Fact<String>,
    /// The library's file, with the version in its name.
    pub(crate) libibverbs: Fact<String>,
    /// Those modules that concern RDMA and are there.
    pub(crate) modules: Fact<Vec<String>>,
    /// The files in `/dev/infiniband` by which programs open devices.
    pub(crate) uverbs: Fact<Vec<String>>,
}

impl System {
    pub(crate) fn read(source: &Source) -> Self {
        let meminfo = source.text("/proc/meminfo", TABLE);
        let memory = |name: &str| -> Result<u64, String> {
            let text = meminfo.as_ref().map_err(String::clone)?;
            kib(text, name).ok_or_else(|| format!("/proc/meminfo: no line gives {name} in kB"))
        };
        let cpus = source.parsed("/sys/devices/system/cpu/online", "list of CPUs", Numbers::parse);
        Self {
            kernel: kernel(source).into(),
            cpu: cpu(source).into(),
            cpus: cpus.into(),
            ram_bytes: memory("MemTotal").into(),
            available_bytes: memory("MemAvailable").into(),
            huge_pages: pages::read(source, "/sys/kernel/mm/hugepages").into(),
            transparent_huge_pages: selected(source, "/sys/kernel/mm/transparent_hugepage/enabled").into(),
            transparent_shared: selected(source, "/sys/kernel/mm/transparent_hugepage/shmem_enabled").into(),
            libibverbs: libibverbs(source).into(),
            modules: modules(source).into(),
            uverbs: uverbs(source).into(),
        }
    }

    /// Whether the module is there. `None`: it is not known.
    pub(crate) fn has_module(&self, name: &str) -> Option<bool> {
        self.modules.known().map(|modules| modules.iter().any(|module| module == name))
    }
}

/// The release: the third word of /proc/version.
fn kernel(source: &Source) -> Result<String, String> {
    source.parsed("/proc/version", "version of Linux", |text| {
        Some(text.strip_prefix("Linux version ")?.split(' ').next()?.to_owned())
    })
}

/// The name of the first processor.
fn cpu(source: &Source) -> Result<String, String> {
    let text = source.beginning("/proc/cpuinfo", 64 << 10)?;
    processor(&text).map(str::to_owned).ok_or_else(|| "/proc/cpuinfo: no line names the processor".into())
}

/// The processor's name in `/proc/cpuinfo`. On x86 that is the model name; ARM kernels give a part
/// number at best.
pub(crate) fn processor(cpuinfo: &str) -> Option<&str> {
    let named = |name| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name) && line.len() < 256)?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    named("model name").or_else(|| named("Model")).or_else(|| named("CPU part"))
}

/// The word in brackets among those of a file.
fn selected(source: &Source, path: &str) -> Result<String, String> {
    let of = |text: &str| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned());
    source.parsed(path, "choice of words with one in brackets", of)
}

fn libibverbs(source: &Source) -> Result<String, String> {
    for folder in LIBRARIES {
        let path = format!("{folder}/libibverbs.so.1");
        if source.has(&path) {
            let target = fs::canonicalize(source.root().join(path.trim_start_matches('/')));
            let name = target.ok().and_then(|target| Some(target.file_name()?.to_str()?.to_owned()));
            return Ok(name.map_or(path, |name| format!("{folder}/{name}")));
        }
    }
    Err("libibverbs.so.1: in none of the usual folders".into())
}

fn modules(source: &Source) -> Result<Vec<String>, String> {
    let text = source.text("/proc/modules", TABLE)?;
    let mut loaded = Vec::new();
    for line in text.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if line.split(' ').count() < 6 {
            return Err(malformed("/proc/modules", line, "module"));
        }
        loaded.push(name);
    }
    // A module that is built into the kernel is not in the list.
    let built_in = |name: &str| match name {
        "ib_uverbs" => source.has("/sys/class/infiniband_verbs"),
        name => source.has(&format!("/sys/module/{name}")),
    };
    let found = MODULES.iter().filter(|&&name| loaded.contains(&name) || built_in(name));
    Ok(found.map(|&name| name.to_owned()).collect())
}

/// The device files. A folder that is not there has none.
fn uverbs(source: &Source) -> Result<Vec<String>, String> {
    if source.has("/dev") && !source.has("/dev/infiniband") {
        return Ok(Vec::new());
    }
    let names = source.names("/dev/infiniband")?;
    Ok(names.into_iter().filter(|name| name.starts_with("uverbs")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_as_the_kernel_names_it() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: AMD EPYC 9654\n"), Some("AMD EPYC 9654"));
        assert_eq!(processor("processor\t: 0\nCPU part\t: 0xd40\n"), Some("0xd40"));
        assert_eq!(processor(""), None);
    }
}
