//! Atomics and a futex word; loom's versions when loom checks them.

#[cfg(not(loom))]
mod real {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    pub(crate) use kvrail_host::wake::EventFd;
    use rustix::thread::futex;
    use rustix::time::Timespec;

    /// Waits a moment for another thread; after some `long` time, by giving it this core.
    pub(crate) fn give_way(long: bool) {
        if long {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }

    /// Sleeps a moment, so that a thread of any priority can go on.
    pub(crate) fn nap() {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }

    /// A word that a thread can sleep on.
    #[derive(Debug, Default)]
    pub(crate) struct Futex {
        pub(crate) word: AtomicU32,
    }

    impl Futex {
        /// Sleeps while the word is `expected`, until a waker wakes the thread or `nanos` have
        /// passed (`None`: without a limit). The sleep may also end for no reason.
        pub(crate) fn wait(&self, expected: u32, nanos: Option<u64>) {
            let timeout = nanos.map(|n| Timespec {
                // 2^64 ns are 584 years: both parts fit.
                tv_sec: (n / 1_000_000_000).cast_signed(),
                tv_nsec: (n % 1_000_000_000).cast_signed(),
            });
            // After every outcome (woken, already awake, timed out, a signal) the caller looks
            // again.
            let _ = futex::wait(&self.word, futex::Flags::PRIVATE, expected, timeout.as_ref());
        }

        /// Wakes one sleeper.
        pub(crate) fn wake(&self) {
            // Fails only for a bad address, and the word is a live atomic.
            let _ = futex::wake(&self.word, futex::Flags::PRIVATE, 1);
        }
    }
}

#[cfg(not(loom))]
pub(crate) use real::*;

#[cfg(loom)]
mod model {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    use loom::sync::{Condvar, Mutex};

    /// Lets another thread go on.
    pub(crate) fn give_way(_long: bool) {
        loom::thread::yield_now();
    }

    /// Lets another thread go on.
    pub(crate) fn nap() {
        loom::thread::yield_now();
    }

    /// Models the promise of futex(2): seen from `wake`, comparing the word and falling asleep are
    /// one step. No time passes in a model: a thread that is not woken sleeps for ever, and loom
    /// reports a deadlock.
    #[derive(Debug, Default)]
    pub(crate) struct Futex {
        pub(crate) word: AtomicU32,
        kernel: Mutex<()>,
        queue: Condvar,
    }

    impl Futex {
        pub(crate) fn wait(&self, expected: u32, _nanos: Option<u64>) {
            let kernel = self.kernel.lock().unwrap();
            if self.word.load(Ordering::Relaxed) == expected {
                drop(self.queue.wait(kernel));
            }
        }

        pub(crate) fn wake(&self) {
            let _kernel = self.kernel.lock().unwrap();
            self.queue.notify_one();
        }
    }

    /// Models eventfd(2), and a thread that sleeps in poll(2) on it.
    #[derive(Debug, Default)]
    pub(crate) struct EventFd {
        count: Mutex<u64>,
        polled: Condvar,
    }

    impl EventFd {
        pub(crate) fn new() -> Result<Self, std::convert::Infallible> {
            Ok(Self::default())
        }

        pub(crate) fn signal(&self) {
            *self.count.lock().unwrap() += 1;
            self.polled.notify_one();
        }

        pub(crate) fn take(&self) -> u64 {
            std::mem::take(&mut self.count.lock().unwrap())
        }

        /// Sleeps until it is readable.
        pub(crate) fn poll(&self) {
            let mut count = self.count.lock().unwrap();
            while *count == 0 {
                count = self.polled.wait(count).unwrap();
            }
        }
    }
}

#[cfg(loom)]
pub(crate) use model::*;
