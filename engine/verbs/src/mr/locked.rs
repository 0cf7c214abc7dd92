//! How much memory this process may pin, and how much it has pinned.
//!
//! The kernel counts each registration by itself: the same memory on four rails counts four times.
//! It compares the sum, which `/proc/self/status` calls `VmPin` (not `VmLck`), with the soft limit
//! on locked memory. A process with CAP_IPC_LOCK in the first user namespace has no limit
//! (`ib_umem_get` in the kernel's `drivers/infiniband/core/umem.c`).

use std::fs;

/// The limit and the count that the kernel compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    /// Bytes that may be pinned; `None` for no limit.
    pub(crate) limit: Option<u64>,
    /// Bytes that are pinned, where known.
    pub(crate) pinned: Option<u64>,
}

impl Locked {
    pub(crate) fn of_this_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/user").unwrap_or_default();
        Self::new(limit, &status, &namespace.to_string_lossy())
    }

    fn new(limit: Option<u64>, status: &str, user_namespace: &str) -> Self {
        // CAP_IPC_LOCK is bit 14 of the effective set. The first user namespace has this number in
        // every kernel.
        const IPC_LOCK: u64 = 1 << 14;
        const FIRST: &str = "user:[4026531837]";
        let capabilities = field(status, "CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok());
        let exempt = user_namespace == FIRST && capabilities.is_some_and(|set| set & IPC_LOCK != 0);
        let pinned = field(status, "VmPin:").and_then(|text| text.strip_suffix(" kB")?.trim().parse().ok());
        Self { limit: limit.filter(|_| !exempt), pinned: pinned.and_then(|kib: u64| kib.checked_mul(1024)) }
    }

    /// The limit, if it is the reason why `len` bytes could not be pinned on one of `rails` rails.
    pub(crate) fn refuses(self, len: u64, rails: usize) -> Option<u64> {
        let wanted = match self.pinned {
            Some(pinned) => pinned.saturating_add(len),
            // At least these bytes are pinned, once for each rail.
            None => len.saturating_mul(rails as u64),
        };
        self.limit.filter(|&limit| wanted > limit)
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nVmLck:\t       0 kB\nVmPin:\t   65536 kB\nCapEff:\t0000000000000000\n";

    #[test]
    fn the_limit_and_the_pinned_bytes_are_read() {
        let locked = Locked::new(Some(100), STATUS, "user:[4026531837]");
        assert_eq!(locked, Locked { limit: Some(100), pinned: Some(64 << 20) });
        assert_eq!(Locked::new(None, "", ""), Locked { limit: None, pinned: None });
        // The capability counts in the first user namespace alone.
        let root = STATUS.replace("0000000000000000", "000001ffffffffff");
        assert_eq!(Locked::new(Some(100), &root, "user:[4026531837]").limit, None);
        assert_eq!(Locked::new(Some(100), &root, "user:[4026532999]").limit, Some(100));
        // The kernel reports the figure for this process.
        assert!(Locked::of_this_process().pinned.is_some());
    }

    #[test]
    fn a_limit_with_room_for_one_rail_refuses_the_second() {
        let (limit, len) = (Some(100 << 20), 64 << 20);
        let first = Locked { limit, pinned: Some(0) };
        assert_eq!(first.refuses(len, 2), None, "64 MiB under a limit of 100");
        let second = Locked { limit, pinned: Some(len) };
        assert_eq!(second.refuses(len, 2), limit, "128 MiB are not");
        assert_eq!(Locked { limit, pinned: None }.refuses(len, 2), limit);
        assert_eq!(Locked { limit, pinned: None }.refuses(len, 1), None);
        assert_eq!(Locked { limit: None, pinned: Some(len) }.refuses(u64::MAX, 16), None);
    }
}
