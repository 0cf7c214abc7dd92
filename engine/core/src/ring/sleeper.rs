//! How a thread sleeps until another thread has something for it, without polling and without a
//! lock.
//!
//! The sleeper leaves a [`Waker`] and says that it sleeps; then it looks once more for what it
//! waits for. The other thread publishes that first, and looks for a sleeper then. Between the two
//! steps each has a `SeqCst` fence, so at least one of them sees what the other has done: the
//! sleeper does not sleep, or it is woken.
#![allow(unsafe_code, reason = "the waker belongs to the thread that the state names")]

use core::fmt;
use core::task::Waker;

use crate::sync::{AtomicUsize, Cell, Ordering, fence};

/// The sleeper owns the waker.
const AWAKE: usize = 0;
/// The other thread may take the waker over, by a change to `WAKING`.
const ASLEEP: usize = 1;
/// The other thread owns the waker.
const WAKING: usize = 2;

/// The place through which one thread wakes another one that sleeps.
pub(crate) struct Sleeper {
    state: AtomicUsize,
    waker: Cell<Option<Waker>>,
}

// SAFETY: the waker is touched by the thread that owns it, which `state` says. A `Waker` may be
// used by any thread.
unsafe impl Sync for Sleeper {}

impl Sleeper {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { state: AtomicUsize::new(AWAKE), waker: Cell::new(None) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { state: AtomicUsize::new(AWAKE), waker: Cell::new(None) }
    }

    /// For the sleeper, one thread only: leaves `waker` to be woken by. Returns false if the other
    /// thread is about to wake it. The caller then looks for what it waits for, and sleeps only if
    /// it does not find it; otherwise it calls [`stay_awake`](Self::stay_awake).
    pub(crate) fn prepare(&self, waker: &Waker) -> bool {
        if !self.stay_awake() {
            return false;
        }
        self.waker.with_mut(|left| {
            // SAFETY: the state is AWAKE, and only this thread changes it from that.
            let left = unsafe { &mut *left };
            match left {
                Some(old) if old.will_wake(waker) => {}
                _ => *left = Some(waker.clone()),
            }
        });
        self.state.store(ASLEEP, Ordering::Release);
        fence(Ordering::SeqCst);
        true
    }

    /// For the sleeper: takes back what it has said by [`prepare`](Self::prepare). Returns whether
    /// the waker is its own again; if not, the other thread is about to wake it.
    pub(crate) fn stay_awake(&self) -> bool {
        let seen = self.state.compare_exchange(ASLEEP, AWAKE, Ordering::Acquire, Ordering::Acquire);
        !matches!(seen, Err(WAKING))
    }

    /// For the other thread, one at a time: wakes the sleeper if it sleeps. The caller has
    /// published what the sleeper waits for.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) != ASLEEP
            || self.state.compare_exchange(ASLEEP, WAKING, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        self.waker.with_mut(|left| {
            // SAFETY: the state is WAKING, which only this thread ends.
            let left = unsafe { &*left };
            if let Some(waker) = left {
                waker.wake_by_ref();
            }
        });
        self.state.store(AWAKE, Ordering::Release);
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleeper")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Wake;

    #[cfg(loom)]
    use loom::sync::atomic::AtomicUsize as Count;
    #[cfg(not(loom))]
    use std::sync::atomic::AtomicUsize as Count;

    /// Counts how often it is woken.
    struct Woken(Count);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    #[cfg(not(loom))]
    #[test]
    fn a_sleeper_is_woken_once_for_each_time_that_it_has_said_so() {
        let (woken, sleeper) = (Arc::new(Woken(Count::new(0))), Sleeper::new());
        let waker = Waker::from(woken.clone());
        sleeper.wake();
        assert!(sleeper.prepare(&waker));
        sleeper.wake();
        sleeper.wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(sleeper.prepare(&waker) && sleeper.prepare(&waker) && sleeper.stay_awake());
        sleeper.wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    /// The sleeper sleeps only if it has not found the item; then it must be woken.
    #[cfg(loom)]
    #[test]
    fn no_wake_up_is_lost() {
        use loom::thread;
        loom::model(|| {
            let sleeper = loom::sync::Arc::new(Sleeper::new());
            let item = loom::sync::Arc::new(Count::new(0));
            let (sleeper2, item2) = (sleeper.clone(), item.clone());
            let other = thread::spawn(move || {
                item2.store(1, Ordering::Release);
                sleeper2.wake();
            });
            let woken = Arc::new(Woken(Count::new(0)));
            let waker = Waker::from(woken.clone());
            let sleeps = sleeper.prepare(&waker) && item.load(Ordering::Acquire) == 0;
            if sleeps {
                while woken.0.load(Ordering::Acquire) == 0 {
                    thread::yield_now();
                }
                assert_eq!(item.load(Ordering::Acquire), 1, "what it was woken for is there");
            }
            other.join().unwrap();
        });
    }

    /// Two items, one after the other: the sleeper sleeps for each of them that it has not found.
    #[cfg(loom)]
    #[test]
    fn a_sleeper_can_sleep_again_while_it_is_being_woken() {
        use loom::thread;
        loom::model(|| {
            let sleeper = loom::sync::Arc::new(Sleeper::new());
            let items = loom::sync::Arc::new(Count::new(0));
            let (sleeper2, items2) = (sleeper.clone(), items.clone());
            let other = thread::spawn(move || {
                for _ in 0..2 {
                    items2.fetch_add(1, Ordering::Release);
                    sleeper2.wake();
                }
            });
            let woken = Arc::new(Woken(Count::new(0)));
            let waker = Waker::from(woken.clone());
            for want in 1..=2 {
                while items.load(Ordering::Acquire) < want {
                    let before = woken.0.load(Ordering::Acquire);
                    if sleeper.prepare(&waker) && items.load(Ordering::Acquire) < want {
                        while woken.0.load(Ordering::Acquire) == before {
                            thread::yield_now();
                        }
                    } else {
                        thread::yield_now();
                    }
                }
            }
            other.join().unwrap();
        });
    }
}
