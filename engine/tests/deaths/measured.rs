//! What is measured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::LIMIT;
use super::plan::{Fate, KINDS, Moment, Plan};

/// Times of many rounds.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let ms = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
        let (median, worst) = (ms(sorted.get(sorted.len() / 2)), ms(sorted.last()));
        write!(f, "median {median} ms, worst {worst} ms ({} times)", sorted.len())
    }
}

/// How often a process died at each kind of message: by SIGKILL, and by SIGSTOP.
#[derive(Default)]
pub(crate) struct Hits(BTreeMap<&'static str, [u32; 2]>);

impl Hits {
    pub(crate) fn add(&mut self, plan: &Plan) {
        if let Moment::Message { kind, .. } = plan.moment {
            let stopped = usize::from(plan.fate != Fate::Killed);
            self.0.entry(kind).or_default()[stopped] += 1;
        }
    }

    /// # Panics
    ///
    /// No process died at a message of some kind.
    pub(crate) fn check(&self) {
        for kind in KINDS {
            let hits = self.0.get(kind).copied().unwrap_or_default();
            assert!(hits.iter().all(|&hits| hits > 0), "{kind}: {hits:?} of SIGKILL and of SIGSTOP");
        }
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, kind) in KINDS.iter().enumerate() {
            let [killed, stopped] = self.0.get(kind).copied().unwrap_or_default();
            write!(f, "{}{kind} {killed}+{stopped}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What this process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    pub(crate) mappings: usize,
}

/// How much more memory a survivor may have after all rounds than after the first ones.
const MORE_KIB: u64 = 2048;
/// How many more threads: those that make lanes are started when several lanes are made at once,
/// and there is a limit to them.
const MORE_THREADS: usize = 4;

impl Footprint {
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let count = |path| std::fs::read_dir(path).unwrap().count();
        Self {
            rss_kib: rss.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            mappings: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        }
    }

    /// What this process holds when `turn` has brought to an end what was about to end.
    pub(crate) fn settled(first: &Self, mut turn: impl FnMut()) -> Self {
        let until = Instant::now() + LIMIT;
        loop {
            let now = Self::now();
            if now.is_flat(first) || Instant::now() > until {
                return now;
            }
            turn();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_flat(&self, first: &Self) -> bool {
        self.rss_kib <= first.rss_kib + MORE_KIB
            && self.descriptors <= first.descriptors
            && self.threads <= first.threads + MORE_THREADS
    }

    /// # Panics
    ///
    /// This process holds more now than it did at `first`.
    pub(crate) fn check(&self, first: &Self) {
        assert!(self.is_flat(first), "{self} after {first}; {}", held());
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_kib, descriptors, threads, mappings } = self;
        write!(f, "{rss_kib} KiB, {descriptors} descriptors, {threads} threads, {mappings} mappings")
    }
}

/// The descriptors and threads of this process.
fn held() -> String {
    let entries = |path| std::fs::read_dir(path).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let open: Vec<_> = entries("/proc/self/fd").filter_map(|path| path.read_link().ok()).collect();
    let names = entries("/proc/self/task").filter_map(|path| std::fs::read_to_string(path.join("comm")).ok());
    format!("{open:?} {:?}", names.collect::<Vec<_>>())
}
