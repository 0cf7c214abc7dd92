//! Making memory readable: several exports at a time, with their progress in the log.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kvrail_session::PoolId;

use super::wanted::Wanted;
use crate::cutting::Limit;
use crate::transport::{Export, Exporter, TransportError};

/// How often the log has a line while memory is being made readable.
const TELL: Duration = Duration::from_secs(1);
/// The most exports at the same time by default.
const MOST: usize = 16;
/// From this size on the log says how long it took.
const LARGE: u64 = 64 << 20;

/// How memory is made readable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registering {
    /// The most bytes of one export, below what the transport can do.
    pub(super) piece_bytes: u64,
    /// How many exports are made at the same time; `None`: as many as the transport has use for.
    pub(super) at_once: Option<usize>,
}

impl Registering {
    pub(super) const DEFAULT: Self = Self { piece_bytes: u64::MAX, at_once: None };

    /// The most bytes of one export over this transport.
    pub(super) fn limit(&self, exporter: &dyn Exporter) -> Limit {
        Limit::new(self.piece_bytes.min(exporter.max_bytes()))
    }

    fn threads(&self, exporter: &dyn Exporter) -> usize {
        self.at_once.unwrap_or_else(|| exporter.parallel().min(MOST)).max(1)
    }

    /// Makes exports, in the order of `jobs`. Threads take the jobs one by one.
    ///
    /// # Errors
    ///
    /// The first that failed. The others have been released then, in the order of `jobs`.
    pub(super) fn run(
        &self,
        exporter: &dyn Exporter,
        pool: PoolId,
        jobs: &[Wanted],
    ) -> Result<Vec<Export>, TransportError> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        // Takes the next job, and does it.
        let take = || {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let job = jobs.get(at).filter(|_| !failed.load(Ordering::Relaxed))?;
            let made = job.make(exporter);
            failed.fetch_or(made.is_err(), Ordering::Relaxed);
            Some((at, made))
        };
        let threads = match self.threads(exporter).min(jobs.len()) {
            1 => 0,
            several => several,
        };
        let mut results = Results::new(pool, jobs);
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            for _ in 0..threads {
                let (sender, take) = (sender.clone(), &take);
                let thread = std::thread::Builder::new().name("kvrail-register".into());
                let worker = move || {
                    while let Some(done) = take() {
                        // The receiver lives as long as a sender.
                        let _ = sender.send(done);
                    }
                };
                // With fewer threads it only takes longer.
                if thread.spawn_scoped(scope, worker).is_err() {
                    break;
                }
            }
            drop(sender);
            loop {
                match receiver.recv_timeout(TELL) {
                    Ok(done) => results.take(done),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                results.tell();
            }
        });
        // All of them, where there is no other thread.
        while let Some(done) = take() {
            results.take(done);
            results.tell();
        }
        results.finish()
    }
}

/// The exports that have been made.
struct Results<'a> {
    pool: PoolId,
    jobs: &'a [Wanted],
    made: Vec<Option<Export>>,
    failed: Option<TransportError>,
    progress: Progress,
    began: Instant,
    told: Instant,
}

/// How far the exports are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    pieces: usize,
    bytes: u64,
}

impl<'a> Results<'a> {
    fn new(pool: PoolId, jobs: &'a [Wanted]) -> Self {
        let made = jobs.iter().map(|_| None).collect();
        let now = Instant::now();
        Self { pool, jobs, made, failed: None, progress: Progress::default(), began: now, told: now }
    }

    fn take(&mut self, (at, made): (usize, Result<Export, TransportError>)) {
        match made {
            Ok(export) => {
                self.progress.pieces += 1;
                // Memory of this process and of its devices, which is below 2^64 in all.
                self.progress.bytes = self.progress.bytes.saturating_add(self.jobs[at].bytes());
                self.made[at] = Some(export);
            }
            Err(error) => _ = self.failed.get_or_insert(error),
        }
    }

    fn total(&self) -> Progress {
        let bytes = self.jobs.iter().fold(0, |sum: u64, job| sum.saturating_add(job.bytes()));
        Progress { pieces: self.jobs.len(), bytes }
    }

    /// Writes a line to the log, if the last one is long enough ago.
    fn tell(&mut self) {
        if self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let (Progress { pieces, bytes }, all) = (self.progress, self.total());
        tracing::info!(
            pool = self.pool.0,
            pieces,
            of_pieces = all.pieces,
            bytes,
            of_bytes = all.bytes,
            seconds = self.began.elapsed().as_secs(),
            gb_per_s = %Rate(bytes, self.began.elapsed()),
            "registering"
        );
    }

    fn finish(self) -> Result<Vec<Export>, TransportError> {
        let (made, all) = (self.made.into_iter().flatten(), self.progress);
        if let Some(error) = self.failed {
            // One after the other, as they stand.
            made.for_each(drop);
            return Err(error);
        }
        if all.bytes >= LARGE || all.pieces > 2 {
            tracing::info!(
                pool = self.pool.0,
                pieces = all.pieces,
                bytes = all.bytes,
                seconds = %format_args!("{:.3}", self.began.elapsed().as_secs_f64()),
                gb_per_s = %Rate(all.bytes, self.began.elapsed()),
                "registered"
            );
        }
        Ok(made.collect())
    }
}

/// Gigabytes in a second.
struct Rate(u64, Duration);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes, took) = *self;
        write!(f, "{:.1}", bytes as f64 / 1e9 / took.as_secs_f64().max(1e-9))
    }
}

#[cfg(test)]
mod tests;
