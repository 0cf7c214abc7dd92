//! Memory that is registered piece by piece: several pieces at a time, with the progress in the
//! log.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often the log has a line while memory is being registered.
const TELL: Duration = Duration::from_secs(1);
/// From this size on the log says how long it took.
const LARGE: u64 = 64 << 20;

/// Makes a registration of each of `pieces`, in up to `at_once` threads that take the pieces one by
/// one. `bytes` says how long a piece is, and `what`, for the log, what is registered. The log has
/// a line each second, and one at the end where there are many pieces or bytes.
///
/// # Errors
///
/// The first that failed. The others have been dropped then, in the order of `pieces`; none was
/// begun after the failure was known.
pub fn register<J: Sync, T: Send, E: Send>(
    what: &dyn Display,
    at_once: usize,
    pieces: &[J],
    bytes: impl Fn(&J) -> u64,
    make: impl Fn(&J) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Takes the next piece, and registers it.
    let take = || {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let piece = pieces.get(at).filter(|_| !failed.load(Ordering::Relaxed))?;
        let made = make(piece);
        failed.fetch_or(made.is_err(), Ordering::Relaxed);
        Some((at, made))
    };
    let threads = match at_once.min(pieces.len()) {
        0 | 1 => 0,
        several => several,
    };
    let mut results = Results::new(what, pieces.iter().map(bytes).collect());
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

/// The registrations that have been made.
struct Results<'a, T, E> {
    what: &'a dyn Display,
    /// The bytes of each piece.
    bytes: Vec<u64>,
    made: Vec<Option<T>>,
    failed: Option<E>,
    progress: Progress,
    began: Instant,
    told: Instant,
}

/// How far the registrations are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    pieces: usize,
    bytes: u64,
}

impl<'a, T, E> Results<'a, T, E> {
    fn new(what: &'a dyn Display, bytes: Vec<u64>) -> Self {
        let made = bytes.iter().map(|_| None).collect();
        let now = Instant::now();
        Self { what, bytes, made, failed: None, progress: Progress::default(), began: now, told: now }
    }

    fn take(&mut self, (at, made): (usize, Result<T, E>)) {
        match made {
            Ok(made) => {
                self.progress.pieces += 1;
                // Memory of this process and of its devices, which is below 2^64 in all.
                self.progress.bytes = self.progress.bytes.saturating_add(self.bytes[at]);
                self.made[at] = Some(made);
            }
            Err(error) => _ = self.failed.get_or_insert(error),
        }
    }

    fn total(&self) -> Progress {
        let bytes = self.bytes.iter().fold(0, |sum: u64, &bytes| sum.saturating_add(bytes));
        Progress { pieces: self.bytes.len(), bytes }
    }

    /// Writes a line to the log, if the last one is long enough ago.
    fn tell(&mut self) {
        if self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let (Progress { pieces, bytes }, all) = (self.progress, self.total());
        tracing::info!(
            what = %self.what,
            pieces,
            of_pieces = all.pieces,
            bytes,
            of_bytes = all.bytes,
            seconds = self.began.elapsed().as_secs(),
            gb_per_s = %Rate(bytes, self.began.elapsed()),
            "registering"
        );
    }

    fn finish(self) -> Result<Vec<T>, E> {
        let (made, all) = (self.made.into_iter().flatten(), self.progress);
        if let Some(error) = self.failed {
            // One after the other, in their order.
            made.for_each(drop);
            return Err(error);
        }
        if all.bytes >= LARGE || all.pieces > 2 {
            tracing::info!(
                what = %self.what,
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
mod tests {
    use super::*;

    #[test]
    fn progress_counts_pieces_and_bytes() {
        let mut results = Results::<u32, &str>::new(&"memory", vec![5, 7, 9]);
        assert_eq!(results.total(), Progress { pieces: 3, bytes: 21 });
        results.take((2, Ok(1)));
        results.take((0, Ok(2)));
        assert_eq!(results.progress, Progress { pieces: 2, bytes: 14 });
        results.take((1, Err("no")));
        assert_eq!(results.progress, Progress { pieces: 2, bytes: 14 });
        assert_eq!(results.finish(), Err("no"));
    }

    #[test]
    fn a_rate_is_in_gigabytes_per_second() {
        assert_eq!(Rate(3_000_000_000, Duration::from_secs(2)).to_string(), "1.5");
        assert_eq!(Rate(0, Duration::ZERO).to_string(), "0.0");
    }
}
