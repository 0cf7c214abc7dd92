//! Counters that workers keep for the engine's thread, beside the rings. By these counters workers
//! wake a sleeping engine once, when as many wrs as it waits for have finished, and not at every
//! wr.

#[cfg(not(loom))]
use kvrail_core::provider::Wake;

use super::sleep::Sleeper;
use super::sync::{Arc, AtomicBool, AtomicU64, EventFd, Ordering};

/// A value on its own pair of cache lines: x86 prefetches adjacent lines together.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(crate) struct Padded<T>(pub(crate) T);

/// One rail's counters, which its worker alone writes. They only grow, and never reach 2^64.
#[derive(Debug, Default)]
pub(crate) struct RailProgress {
    /// Wrs that have finished: carried out, refused or flushed, signaled or not.
    finished: AtomicU64,
    /// Finished wrs that a completion or a notice in the rings covers.
    covered: AtomicU64,
    /// Failed completions and notices that were put into the rings.
    alarms: AtomicU64,
}

/// The state that the engine's thread, the workers and the wakers share.
#[derive(Debug)]
pub(crate) struct Progress {
    engine: Padded<Sleeper>,
    /// Signalled where the engine's thread sleeps elsewhere and is to wake up.
    signal: EventFd,
    /// The sum of `finished` at which the engine is woken. Written by the engine's thread before it
    /// prepares to sleep.
    goal: AtomicU64,
    /// A wake-up was requested. Stays set until a wait has returned for it.
    woken: AtomicBool,
    rails: Box<[Padded<RailProgress>]>,
}

impl Progress {
    pub(crate) fn new(rails: usize, signal: EventFd) -> Self {
        Self {
            engine: Padded::default(),
            signal,
            goal: AtomicU64::new(u64::MAX),
            woken: AtomicBool::new(false),
            rails: (0..rails).map(|_| Padded::default()).collect(),
        }
    }

    /// Finished wrs of all rails.
    pub(crate) fn finished(&self) -> u64 {
        self.rails.iter().map(|r| r.0.finished.load(Ordering::Acquire)).sum()
    }

    /// Covered wrs of all rails.
    pub(crate) fn covered(&self) -> u64 {
        self.rails.iter().map(|r| r.0.covered.load(Ordering::Acquire)).sum()
    }

    /// Failures and notices of all rails.
    pub(crate) fn alarms(&self) -> u64 {
        self.rails.iter().map(|r| r.0.alarms.load(Ordering::Acquire)).sum()
    }

    /// Takes the request to wake up, and says whether there was one.
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::Acquire)
    }

    /// The descriptor that is readable from a wake-up of an armed engine on.
    pub(crate) const fn signal(&self) -> &EventFd {
        &self.signal
    }

    /// Announces that the engine's thread sleeps on the descriptor, and says whether it may. In any
    /// case [`disarm`](Self::disarm) follows. The descriptor becomes readable for the reasons for
    /// which [`sleep_until`](Self::sleep_until) returns.
    pub(crate) fn arm(&self, goal: u64, alarms_seen: u64) -> bool {
        self.goal.store(goal, Ordering::Relaxed);
        self.engine.0.prepare_absence();
        !self.has_reason(goal, alarms_seen)
    }

    /// Takes back the announcement of [`arm`](Self::arm). Says whether a waker has found it: then
    /// it has signalled the descriptor once, or is about to.
    pub(crate) fn disarm(&self) -> bool {
        self.engine.0.come_back()
    }

    pub(crate) fn has_reason(&self, goal: u64, alarms_seen: u64) -> bool {
        self.finished() >= goal || self.alarms() != alarms_seen || self.woken.load(Ordering::Relaxed)
    }

    #[cold]
    fn wake_engine(&self) {
        self.engine.0.wake_or(|| self.signal.signal());
    }

    /// Sleeps until `goal` wrs have finished, the number of alarms differs from `alarms_seen`, a
    /// waker requests it, or `nanos` have passed. Called by the engine's thread alone.
    pub(crate) fn sleep_until(&self, goal: u64, alarms_seen: u64, nanos: Option<u64>) {
        self.goal.store(goal, Ordering::Relaxed);
        self.engine.0.prepare_sleep();
        if self.has_reason(goal, alarms_seen) {
            self.engine.0.cancel_sleep();
        } else {
            self.engine.0.sleep(nanos);
        }
    }
}

/// A worker's access to its rail's counters.
#[derive(Debug)]
pub(crate) struct Reporter {
    progress: Arc<Progress>,
    rail: usize,
    finished: u64,
    covered: u64,
    alarms: u64,
}

impl Reporter {
    pub(crate) fn new(progress: Arc<Progress>, rail: usize) -> Self {
        Self { progress, rail, finished: 0, covered: 0, alarms: 0 }
    }

    /// One more wr has finished. Its completion, if it has one, is in the ring and covers `covers`
    /// wrs.
    #[inline]
    pub(crate) fn finished(&mut self, covers: u32, failed: bool) {
        let rail = &self.progress.rails[self.rail].0;
        self.finished += 1;
        self.covered += u64::from(covers);
        // Before `finished`, so that a thread that sees a wr finished sees it covered.
        rail.covered.store(self.covered, Ordering::Release);
        rail.finished.store(self.finished, Ordering::Release);
        if failed {
            self.alarm();
        } else if self.progress.engine.0.is_asleep()
            && self.progress.finished() >= self.progress.goal.load(Ordering::Relaxed)
        {
            self.progress.wake_engine();
        }
    }

    /// A notice is in the ring, and covers `covers` wrs.
    pub(crate) fn notice(&mut self, covers: u32) {
        self.covered += u64::from(covers);
        self.progress.rails[self.rail].0.covered.store(self.covered, Ordering::Release);
        self.alarm();
    }

    fn alarm(&mut self) {
        self.alarms += 1;
        self.progress.rails[self.rail].0.alarms.store(self.alarms, Ordering::Release);
        if self.progress.engine.0.is_asleep() {
            self.progress.wake_engine();
        }
    }
}

/// Wakes the engine that sleeps in the `wait` of the provider that made this waker, or on its
/// descriptor.
#[derive(Clone, Debug)]
#[cfg_attr(loom, allow(unreachable_pub, reason = "under loom the crate exports no item"))]
pub struct LocalWaker {
    pub(crate) progress: Arc<Progress>,
}

impl LocalWaker {
    fn request(&self) {
        self.progress.woken.store(true, Ordering::Release);
        if self.progress.engine.0.is_asleep() {
            self.progress.wake_engine();
        }
    }
}

#[cfg(not(loom))]
impl Wake for LocalWaker {
    fn wake(&self) {
        self.request();
    }
}

/// Every interleaving of an engine that sleeps and of threads that have reasons to wake it, by
/// loom.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    /// Three threads with several words each have too many interleavings to try all. One switch at
    /// the wrong moment is enough to lose a wake.
    fn model(f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(f);
    }

    #[test]
    fn a_goal_reached_by_two_rails_together_wakes_the_engine() {
        model(|| {
            let progress = Arc::new(Progress::new(2, EventFd::new().unwrap()));
            let rails = [0, 1].map(|rail| {
                let mut reporter = Reporter::new(Arc::clone(&progress), rail);
                thread::spawn(move || reporter.finished(1, false))
            });
            while progress.finished() < 2 {
                progress.sleep_until(2, 0, None);
            }
            // A thread that sees a wr finished sees it covered.
            assert_eq!(progress.covered(), 2);
            for rail in rails {
                rail.join().unwrap();
            }
        });
    }

    #[test]
    fn a_later_and_smaller_goal_is_not_mistaken_for_an_earlier_one() {
        model(|| {
            let progress = Arc::new(Progress::new(1, EventFd::new().unwrap()));
            let mut reporter = Reporter::new(Arc::clone(&progress), 0);
            let rail = thread::spawn(move || {
                reporter.finished(1, false);
                reporter.finished(1, false);
            });
            progress.goal.store(9, Ordering::Relaxed);
            progress.engine.0.prepare_sleep();
            progress.engine.0.cancel_sleep();
            while progress.finished() < 2 {
                progress.sleep_until(2, 0, None);
            }
            rail.join().unwrap();
        });
    }

    #[test]
    fn failures_notices_and_wakers_wake_the_engine_before_its_goal() {
        model(|| {
            let progress = Arc::new(Progress::new(1, EventFd::new().unwrap()));
            let mut reporter = Reporter::new(Arc::clone(&progress), 0);
            let rail = thread::spawn(move || {
                reporter.finished(1, true);
                reporter.notice(0);
            });
            let waker = LocalWaker { progress: Arc::clone(&progress) };
            let other = thread::spawn(move || waker.request());
            let (mut alarms, mut woken) = (0, false);
            while alarms < 2 || !woken {
                alarms = progress.alarms();
                woken |= progress.take_woken();
                if alarms < 2 || !woken {
                    progress.sleep_until(u64::MAX, alarms, None);
                }
            }
            rail.join().unwrap();
            other.join().unwrap();
        });
    }

    /// An engine that sleeps elsewhere, as `LocalProvider` does it: the descriptor is read once for
    /// each signal that was sent.
    #[derive(Default)]
    struct Elsewhere {
        signals: u64,
    }

    impl Elsewhere {
        fn sleep(&mut self, progress: &Progress, goal: u64, alarms: u64) {
            if progress.arm(goal, alarms) {
                progress.signal.poll();
            }
            self.signals += u64::from(progress.disarm());
            self.signals -= progress.signal.take();
        }
    }

    #[test]
    fn an_engine_that_sleeps_elsewhere_is_signalled_for_a_goal_that_two_rails_reach_together() {
        model(|| {
            let progress = Arc::new(Progress::new(2, EventFd::new().unwrap()));
            let rails = [0, 1].map(|rail| {
                let mut reporter = Reporter::new(Arc::clone(&progress), rail);
                thread::spawn(move || reporter.finished(1, false))
            });
            let mut engine = Elsewhere::default();
            while progress.finished() < 2 {
                engine.sleep(&progress, 2, 0);
            }
            for rail in rails {
                rail.join().unwrap();
            }
            // Signals that came late have been counted, and are the only ones that are left.
            assert_eq!(progress.signal.take(), engine.signals);
        });
    }

    #[test]
    fn failures_and_wakers_signal_an_engine_that_sleeps_elsewhere() {
        model(|| {
            let progress = Arc::new(Progress::new(1, EventFd::new().unwrap()));
            let mut reporter = Reporter::new(Arc::clone(&progress), 0);
            let rail = thread::spawn(move || reporter.finished(1, true));
            let waker = LocalWaker { progress: Arc::clone(&progress) };
            let other = thread::spawn(move || waker.request());
            let (mut engine, mut alarms, mut woken) = (Elsewhere::default(), 0, false);
            while alarms < 1 || !woken {
                alarms = progress.alarms();
                woken |= progress.take_woken();
                if alarms < 1 || !woken {
                    engine.sleep(&progress, u64::MAX, alarms);
                }
            }
            rail.join().unwrap();
            other.join().unwrap();
            assert_eq!(progress.signal.take(), engine.signals);
        });
    }
}
