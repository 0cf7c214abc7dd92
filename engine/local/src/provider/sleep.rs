//! How a thread sleeps on a futex, and how other threads wake it.
//!
//! A [`Sleeper`] belongs to one thread, which sleeps; other threads wake it. A waker that finds the
//! thread awake pays a fence and a load, and makes no system call.
//!
//! A thread may also sleep elsewhere, in epoll(7) for instance. Then it announces that it is *away*
//! and not that it is asleep, and who wakes it does so by means of their own. All the rest is the
//! same.
//!
//! # Why no wake is lost
//!
//! There are two threads and two words: `asleep`, and the reason to wake up (a ring's tail, a
//! counter, a flag), here called `reason`.
//!
//! ```text
//! sleeper                        waker
//! asleep = 1                     reason = 1
//! fence(SeqCst)      (S)         fence(SeqCst)      (W)
//! if reason: asleep = 0, go on   if asleep and swap(asleep, 0) == 1: futex_wake
//! else: futex_wait(asleep, 1)
//! ```
//!
//! SeqCst fences have one order. If (S) is before (W), the waker's load sees `asleep == 1`, or a
//! later value, and wakes the sleeper. If (W) is before (S), the sleeper's load sees the reason,
//! and the thread does not sleep. Either way no thread sleeps while there is a reason to wake up.
//! Between the sleeper's check and its `futex_wait` the waker may swap `asleep` to 0: the kernel
//! compares the word with 1 under its own lock, so the call returns at once.
//!
//! Of several wakers only the one whose swap found the 1 makes the system call: a thousand reasons
//! cost one wake. A late waker may end a *later* sleep early, so a sleeper always looks for its
//! reason again.
//!
//! The word is written by swaps alone, also where the old value is not used. loom does not know
//! that a plain store comes after a swap that overwrote an earlier value, and reports lost wakes
//! that no machine loses. The cost does not matter to a thread that is about to sleep.
//!
//! Where the reason is a sum over several writers (finished wrs of all rails), each writer adds its
//! part, fences, and then computes the sum itself: of two writers that write at the same time, the
//! one whose fence comes second sees both parts.

use super::sync::{Futex, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const AWAY: u32 = 2;

/// The word on which one thread sleeps.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    state: Futex,
}

impl Sleeper {
    /// Announces that the owner is about to sleep. The owner then looks for a reason to stay awake,
    /// and calls [`sleep`](Self::sleep) or [`cancel_sleep`](Self::cancel_sleep).
    pub(crate) fn prepare_sleep(&self) {
        // Release: a thread that sees the 1 sees the stores before it, such as the goal.
        self.state.word.swap(ASLEEP, Ordering::Release);
        fence(Ordering::SeqCst); // (S)
    }

    /// Announces that the owner is about to sleep elsewhere. The owner then looks for a reason to
    /// stay awake. When it has one or has slept, it calls [`come_back`](Self::come_back).
    pub(crate) fn prepare_absence(&self) {
        self.state.word.swap(AWAY, Ordering::Release);
        fence(Ordering::SeqCst); // (S)
    }

    /// Ends an absence, and says whether a waker has ended it before: then it has woken the owner,
    /// or is about to.
    pub(crate) fn come_back(&self) -> bool {
        self.state.word.swap(AWAKE, Ordering::Relaxed) == AWAKE
    }

    /// Takes the announcement back: there was a reason to stay awake.
    pub(crate) fn cancel_sleep(&self) {
        self.state.word.swap(AWAKE, Ordering::Relaxed);
    }

    /// Sleeps until a waker wakes the thread or `nanos` have passed (`None`: without a limit). The
    /// sleep may also end for no reason.
    pub(crate) fn sleep(&self, nanos: Option<u64>) {
        self.state.wait(ASLEEP, nanos);
        self.state.word.swap(AWAKE, Ordering::Relaxed);
    }

    /// Whether the owner sleeps, here or elsewhere. The caller's earlier stores are ordered before
    /// this question.
    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        fence(Ordering::SeqCst); // (W)
        // Acquire: a sleeping state makes the stores visible that the owner made before it prepared
        // to sleep.
        self.state.word.load(Ordering::Acquire) != AWAKE
    }

    /// Wakes the owner, if it sleeps. At most one of several calls enters the kernel.
    #[inline]
    pub(crate) fn wake_if_asleep(&self) {
        if self.is_asleep() {
            self.wake();
        }
    }

    /// The waking half of [`wake_if_asleep`](Self::wake_if_asleep), after
    /// [`is_asleep`](Self::is_asleep).
    #[cold]
    pub(crate) fn wake(&self) {
        self.wake_or(|| {});
    }

    /// As [`wake`](Self::wake), for an owner that may be away: then `elsewhere` wakes it.
    #[cold]
    pub(crate) fn wake_or(&self, elsewhere: impl FnOnce()) {
        match self.state.word.swap(AWAKE, Ordering::Relaxed) {
            ASLEEP => self.state.wake(),
            AWAY => elsewhere(),
            _ => {}
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_sleep_ends_at_its_time() {
        let sleeper = Sleeper::default();
        let start = Instant::now();
        sleeper.prepare_sleep();
        sleeper.sleep(Some(20_000_000));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(!sleeper.is_asleep());
    }

    #[test]
    fn no_wake_is_lost() {
        // Two threads hand a number to and fro. A lost wake would stop them for ever, so the sleep
        // has a limit, and to reach the limit is the failure.
        const ROUNDS: u64 = 5_000;
        let shared = Arc::new((Sleeper::default(), Sleeper::default(), AtomicU64::new(0)));
        let await_turn = |me: &Sleeper, turn: &AtomicU64, wanted: u64| {
            let start = Instant::now();
            while turn.load(Ordering::Acquire) < wanted {
                me.prepare_sleep();
                if turn.load(Ordering::Acquire) >= wanted {
                    me.cancel_sleep();
                } else {
                    me.sleep(Some(5_000_000_000));
                }
                assert!(start.elapsed() < Duration::from_secs(5), "a wake was lost");
            }
        };
        let other = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for i in 0..ROUNDS {
                await_turn(&other.1, &other.2, 2 * i + 1);
                other.2.store(2 * i + 2, Ordering::Release);
                other.0.wake_if_asleep();
            }
        });
        for i in 0..ROUNDS {
            shared.2.store(2 * i + 1, Ordering::Release);
            shared.1.wake_if_asleep();
            await_turn(&shared.0, &shared.2, 2 * i + 2);
        }
        thread.join().unwrap();
    }
}

/// Every interleaving, by loom. A lost wake is a thread that sleeps for ever: loom calls it a
/// deadlock.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::provider::sync::{Arc, AtomicBool, AtomicU32};
    use kvrail_host::ring::{RingConsumer, ring};
    use loom::sync::Mutex;
    use loom::thread;

    /// Takes an item as a worker does: looks, prepares to sleep, looks again, sleeps.
    fn take(sleeper: &Sleeper, rx: &mut RingConsumer<u32>) -> u32 {
        loop {
            if let Some(item) = rx.pop() {
                return item;
            }
            sleeper.prepare_sleep();
            if rx.is_empty() {
                sleeper.sleep(None);
            } else {
                sleeper.cancel_sleep();
            }
        }
    }

    #[test]
    fn a_thread_that_sleeps_at_a_ring_is_woken_for_each_item() {
        loom::model(|| {
            let sleeper = Arc::new(Sleeper::default());
            let (mut tx, mut rx) = ring(2);
            let signals = Arc::clone(&sleeper);
            let worker = thread::spawn(move || {
                assert_eq!(take(&signals, &mut rx), 1);
                assert_eq!(take(&signals, &mut rx), 2);
            });
            for item in 1..=2 {
                tx.push(item).unwrap();
                sleeper.wake_if_asleep();
            }
            worker.join().unwrap();
        });
    }

    /// A worker, as the two threads that share it see it: a ring, and an item taken out of it.
    type Shared = (RingConsumer<u32>, Option<u32>);

    /// Takes the item 1, as a commit takes small READs. Says whether none is left.
    fn take_small((rx, held): &mut Shared) -> bool {
        while let Some(item) = held.take().or_else(|| rx.pop()) {
            if item != 1 {
                *held = Some(item);
                return false;
            }
        }
        true
    }

    #[test]
    fn an_item_that_the_bringer_leaves_is_taken_by_the_thread_that_sleeps() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let (mut tx, rx) = ring(2);
            let shared = Arc::new((Sleeper::default(), Mutex::new((rx, None)), Sleeper::default()));
            let done = Arc::new(AtomicBool::new(false));
            let (other, told) = (Arc::clone(&shared), Arc::clone(&done));
            let worker = thread::spawn(move || {
                let (sleeper, ring, bringer) = &*other;
                loop {
                    let mut awake = ring.lock().unwrap();
                    while let Some(item) = awake.1.take().or_else(|| awake.0.pop()) {
                        if item == 2 {
                            told.store(true, Ordering::Release);
                            return bringer.wake_if_asleep();
                        }
                    }
                    drop(awake);
                    sleeper.prepare_sleep();
                    let mut awake = ring.lock().unwrap();
                    let idle = awake.1.is_none() && awake.0.is_empty();
                    drop(awake);
                    if idle { sleeper.sleep(None) } else { sleeper.cancel_sleep() }
                }
            });
            let (sleeper, ring, bringer) = &*shared;
            for item in [1, 2] {
                tx.push(item).unwrap();
                if sleeper.is_asleep()
                    && let Ok(mut ring) = ring.try_lock()
                    && take_small(&mut ring)
                {
                    continue;
                }
                sleeper.wake_if_asleep();
            }
            while !done.load(Ordering::Acquire) {
                bringer.prepare_sleep();
                if done.load(Ordering::Acquire) { bringer.cancel_sleep() } else { bringer.sleep(None) }
            }
            worker.join().unwrap();
        });
    }

    #[test]
    fn two_wakers_together_wake_the_sleeper() {
        // All interleavings would take more than minutes. One switch at the wrong moment is enough
        // to lose a wake.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((Sleeper::default(), AtomicBool::new(false), AtomicBool::new(false)));
            let wakers = [0, 1].map(|which| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let reason = if which == 0 { &shared.1 } else { &shared.2 };
                    reason.store(true, Ordering::Release);
                    shared.0.wake_if_asleep();
                })
            });
            // Sleeps until both wakers have stored their reason.
            let both = || shared.1.load(Ordering::Acquire) && shared.2.load(Ordering::Acquire);
            while !both() {
                shared.0.prepare_sleep();
                if both() { shared.0.cancel_sleep() } else { shared.0.sleep(None) }
            }
            for waker in wakers {
                waker.join().unwrap();
            }
        });
    }

    /// The model can fail: a waker that looks without the fence loses wakes, and loom finds it.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_wakers_fence_a_wake_is_lost() {
        loom::model(|| {
            // std's Arc: loom's cannot be dropped by a model that has failed.
            let shared = std::sync::Arc::new((Sleeper::default(), AtomicU32::new(0)));
            let other = std::sync::Arc::clone(&shared);
            let sleeper = thread::spawn(move || {
                while other.1.load(Ordering::Acquire) == 0 {
                    other.0.prepare_sleep();
                    if other.1.load(Ordering::Acquire) == 0 {
                        other.0.sleep(None);
                    } else {
                        other.0.cancel_sleep();
                    }
                }
            });
            shared.1.store(1, Ordering::Release);
            if shared.0.state.word.load(Ordering::Acquire) == ASLEEP {
                shared.0.wake();
            }
            sleeper.join().unwrap();
        });
    }
}
