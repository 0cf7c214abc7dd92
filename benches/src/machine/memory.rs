//! How much memory is available: of the machine, and under the limits of this process's control
//! groups.
//!
//! A kernel that has not enough memory kills processes instead of refusing an allocation. So each
//! command compares the memory that it is going to take with the available memory before it takes
//! any.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use crate::machine::cgroup::{self, MemoryLimit, Unknown};

/// An upper bound of what a process takes beside the pages that it publishes or reads into: 5 MiB
/// were measured.
pub(crate) const PROCESS: u64 = 12 << 20;

/// The memory that a machine and control groups give.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Bytes that the machine can give without harm; `None` if it does not say.
    machine: Option<u64>,
    limits: Result<Vec<MemoryLimit>, Unknown>,
}

/// How much memory is available, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Available {
    /// The available bytes.
    pub(crate) bytes: u64,
    /// The file of the limit that bounds them, and its bytes; `None`: the machine has no more.
    pub(crate) limit: Option<(PathBuf, u64)>,
}

/// A command needs more memory than is available. Nothing has been allocated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} take {} of memory, and {available}: give a smaller --working-set",
    ByteSize::b(*.wanted).display().iec()
)]
pub(crate) struct NotEnough {
    what: String,
    wanted: u64,
    available: Available,
}

impl Memory {
    /// The memory at this moment.
    pub(crate) fn now() -> Self {
        Self::of(Path::new("/"))
    }

    /// The memory by the files below `root`.
    fn of(root: &Path) -> Self {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        Self { machine: kib(&meminfo, "MemAvailable"), limits: cgroup::memory(root) }
    }

    /// What is available; `None` if neither the machine nor a control group says.
    pub(crate) fn available(&self) -> Option<Available> {
        let limits = self.limits.iter().flatten();
        let least = limits.min_by_key(|limit| limit.free);
        let limited = least
            .map(|limit| Available { bytes: limit.free, limit: Some((limit.file.clone(), limit.bytes)) });
        let machine = self.machine.map(|bytes| Available { bytes, limit: None });
        machine.into_iter().chain(limited).min_by_key(|available| available.bytes)
    }

    /// The lowest limit that a control group sets; `None` if none does.
    ///
    /// # Errors
    ///
    /// The limits are not known, and why.
    pub(crate) fn limit(&self) -> Result<Option<u64>, &Unknown> {
        self.limits.as_ref().map(|limits| limits.iter().map(|limit| limit.bytes).min())
    }

    /// Checks that `pages` bytes of pages, and what `processes` processes take beside them, are
    /// available. `what` names what takes them, in the plural.
    ///
    /// # Errors
    ///
    /// There is less memory.
    pub(crate) fn afford(
        &self,
        pages: u64,
        processes: usize,
        what: impl FnOnce() -> String,
    ) -> Result<(), NotEnough> {
        let wanted = pages.saturating_add(PROCESS * processes as u64);
        match self.available() {
            Some(available) if wanted > available.bytes => Err(NotEnough { what: what(), wanted, available }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} are available", ByteSize::b(self.bytes).display().iec())?;
        if let Some((file, bytes)) = &self.limit {
            write!(f, " ({} is {})", file.display(), ByteSize::b(*bytes).display().iec())?;
        }
        Ok(())
    }
}

/// The bytes that `/proc/meminfo` gives for `name`.
pub(crate) fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
impl Memory {
    /// A machine with this many bytes, and a control group with a limit and the bytes that are free
    /// below it.
    pub(crate) fn fake(machine: u64, limit: Option<(u64, u64)>) -> Self {
        let limit = limit.map(|(bytes, free)| MemoryLimit { file: "/box/memory.max".into(), bytes, free });
        Self { machine: Some(machine), limits: Ok(limit.into_iter().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn refusal(memory: &Memory, wanted: u64) -> Option<String> {
        memory.afford(wanted, 0, || "5 copies of 3 pages".into()).err().map(|error| error.to_string())
    }

    #[test]
    fn meminfo_is_read_in_kib() {
        assert_eq!(kib("MemTotal:       16 kB\nMemFree: 1 kB\n", "MemTotal"), Some(16 << 10));
        assert_eq!(kib("MemTotalled: 16 kB", "MemTotal"), None);
    }

    #[test]
    fn more_than_the_machine_has_is_refused() {
        let machine = Memory::fake(2 * GIB, None);
        assert_eq!(refusal(&machine, 2 * GIB), None);
        let text = refusal(&machine, 3 * GIB).unwrap();
        let text_2 = machine.afford(2 * GIB, 1, || "2 pages".into()).unwrap_err().to_string();
        assert!(text_2.contains("2 pages take 2.0 GiB"), "a process takes memory, too: {text_2}");
        for word in ["5 copies of 3 pages take 3.0 GiB", "and 2.0 GiB are available:", "--working-set"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn a_limit_bounds_the_available_memory() {
        let limited = Memory::fake(64 * GIB, Some((4 * GIB, 2 * GIB)));
        assert_eq!(refusal(&limited, 2 * GIB), None);
        let text = refusal(&limited, 2 * GIB + 1).unwrap();
        assert!(text.contains("2.0 GiB are available (/box/memory.max is 4.0 GiB):"), "{text}");
        assert_eq!(limited.limit(), Ok(Some(4 * GIB)));
        // A limit beyond what the machine has bounds nothing.
        let wide = Memory::fake(GIB, Some((4 * GIB, 2 * GIB)));
        assert_eq!(wide.available(), Some(Available { bytes: GIB, limit: None }));
    }

    #[test]
    fn without_known_limits_no_request_is_refused() {
        let nowhere = Memory::of(Path::new("/nonexistent"));
        assert_eq!((nowhere.available(), refusal(&nowhere, u64::MAX)), (None, None));
        assert!(nowhere.limit().unwrap_err().to_string().contains("/nonexistent/proc/self/cgroup"));
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::now();
        assert!(memory.available().unwrap().bytes > 1 << 20, "{memory:?}");
    }
}
