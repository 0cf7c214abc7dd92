//! Who sleeps, and who wakes whom.
//!
//! A [`Sleeper`] is one thread's signals: the thread that owns it sleeps, others wake it. A waker that
//! finds nobody asleep pays a fence and a load, no system call.
//!
//! # Why no wake is lost
//!
//! Two threads, two words: `asleep`, and the reason to wake (a ring's tail, a counter, a flag; below
//! simply `reason`).
//!
//! ```text
//! sleeper                        waker
//! asleep = 1                     reason = 1
//! fence(SeqCst)      (S)         fence(SeqCst)      (W)
//! if reason: asleep = 0, go on   if asleep and swap(asleep, 0) == 1: futex_wake
//! else: futex_wait(asleep, 1)
//! ```
//!
//! SeqCst fences have one order. If (S) is before (W), the waker's load sees `asleep == 1` (or what
//! came later) and wakes. If (W) is before (S), the sleeper's load sees the reason and does not
//! sleep. Either way nobody sleeps with a reason to be awake. Between the sleeper's check and its
//! `futex_wait` the waker may swap `asleep` to 0: the kernel compares the word with 1 under its own
//! lock, so the call returns at once. Of several wakers the one whose swap found the 1 makes the
//! system call, and only that one: a thousand reasons cost one wake. A waker that is late may end a
//! *later* sleep early; every sleeper looks for its reason again, and may be woken for nothing.
//!
//! The word is written by swaps alone, here too where nobody asks what was there: loom, which tries every
//! interleaving of this file, does not know that a plain store comes after a swap that overwrote an
//! earlier value, and finds wakes lost that no machine loses. Whoever lies down can afford it.
//!
//! Where the reason is a sum over several writers (completions over all rails), each writer adds its
//! part, fences, and then computes the sum itself: of two that write at the same time, the one whose
//! fence comes second sees both parts.

use super::sync::{Futex, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// Where one thread sleeps.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    state: Futex,
}

impl Sleeper {
    /// Says that its owner is about to sleep. Look for a reason not to after this, then call
    /// [`sleep`](Self::sleep) or [`cancel_sleep`](Self::cancel_sleep).
    pub(crate) fn prepare_sleep(&self) {
        // Release: who sees the 1 sees what was stored before it (a goal).
        self.state.word.swap(ASLEEP, Ordering::Release);
        fence(Ordering::SeqCst); // (S)
    }

    /// There was a reason.
    pub(crate) fn cancel_sleep(&self) {
        self.state.word.swap(AWAKE, Ordering::Relaxed);
    }

    /// Sleeps until woken, `nanos` have passed (`None`: for ever), or nothing in particular.
    pub(crate) fn sleep(&self, nanos: Option<u64>) {
        self.state.wait(ASLEEP, nanos);
        self.state.word.swap(AWAKE, Ordering::Relaxed);
    }

    /// Orders what the caller has just written before the question whether anyone sleeps.
    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        fence(Ordering::SeqCst); // (W)
        // Acquire: with the 1 comes what the sleeper stored before it lay down.
        self.state.word.load(Ordering::Acquire) == ASLEEP
    }

    /// Wakes the owner, if it sleeps. At most one of several calls enters the kernel.
    #[inline]
    pub(crate) fn wake_if_asleep(&self) {
        if self.is_asleep() {
            self.wake();
        }
    }

    /// The waking half of [`wake_if_asleep`](Self::wake_if_asleep), after [`is_asleep`](Self::is_asleep).
    #[cold]
    pub(crate) fn wake(&self) {
        if self.state.word.swap(AWAKE, Ordering::Relaxed) == ASLEEP {
            self.state.wake();
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
        // Two threads hand a number to and fro; a lost wake stops them for ever, so the sleep is
        // bounded and its end by time is the failure.
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

/// Every interleaving, by loom. A lost wake is a thread that sleeps for ever: loom calls it a deadlock.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::provider::ring::{Consumer, ring};
    use crate::provider::sync::{Arc, AtomicBool, AtomicU32};
    use loom::thread;

    /// Takes an item as a worker does: looks, lies down, looks again, sleeps.
    fn take(sleeper: &Sleeper, rx: &mut Consumer<u32>) -> u32 {
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
    fn who_sleeps_at_a_ring_is_woken_for_each_item() {
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

    #[test]
    fn of_two_wakers_neither_relies_on_the_other_in_vain() {
        // In full it takes more than minutes; a wake is lost by one switch at the wrong moment.
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
            // Sleeps until both have come.
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
