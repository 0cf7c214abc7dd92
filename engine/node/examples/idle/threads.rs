//! What Linux says of the threads of this process: how long each has run, and how often it slept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{fs, io};

/// What one thread has done since it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    pub(crate) name: String,
    /// Time on a processor.
    pub(crate) ran: Duration,
    /// How often it has gone to sleep (`voluntary_ctxt_switches`). A thread that sleeps now adds
    /// one for each time that it was woken and slept again.
    pub(crate) sleeps: u64,
}

/// The threads of this process at one time, by their numbers.
#[derive(Debug)]
pub(crate) struct Threads {
    at: Instant,
    of: BTreeMap<u64, Activity>,
}

impl Threads {
    /// Reads /proc/self/task.
    pub(crate) fn now() -> io::Result<Self> {
        let mut of = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/task")? {
            let entry = entry?;
            let read = |file| fs::read_to_string(entry.path().join(file));
            // A thread may have ended since the folder was listed.
            let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status")) else {
                continue;
            };
            let number = entry.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
            // Nanoseconds on a processor, nanoseconds in its queue, time slices.
            let ran = times.split_whitespace().next().and_then(|ran| ran.parse().ok());
            let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let sleeps = sleeps.and_then(|sleeps| sleeps.trim().parse().ok());
            let (Some(ran), Some(sleeps)) = (ran, sleeps) else {
                return Err(io::Error::other(format!("no times in {}", entry.path().display())));
            };
            let ran = Duration::from_nanos(ran);
            of.insert(number, Activity { name: name.trim().to_owned(), ran, sleeps });
        }
        Ok(Self { at: Instant::now(), of })
    }

    /// What each thread has done since `before`, and for how long that was.
    pub(crate) fn since(&self, before: &Self) -> (Vec<Activity>, Duration) {
        let done = self.of.iter().map(|(number, now)| {
            let then = before.of.get(number).cloned().unwrap_or_default();
            let (ran, sleeps) = (now.ran.saturating_sub(then.ran), now.sleeps - then.sleeps);
            Activity { name: now.name.clone(), ran, sleeps }
        });
        (done.collect(), self.at.saturating_duration_since(before.at))
    }
}
