//! Copies that two threads carry out together: the one that has a rail's worker, and another one
//! that has nothing else to do.
//!
//! The thread that has the worker, here called the *leader*, writes a list of copies and publishes
//! it by one store. Both threads claim copies from the list by compare-and-swap. The leader goes on
//! when each copy of the list has been carried out, so everything else about a READ (its order, its
//! outcome, its completion) stays with the leader, as if it had copied all of the bytes itself.
//!
//! # Why no copy is lost, carried out twice or carried out too late
//!
//! `claim` holds the number of the list, its length, and how many of its copies have been claimed.
//! A claim is a compare-and-swap of that word, so each copy is claimed once. The leader writes the
//! next list only when `finished` says that the other thread has carried out all that it claimed.
//! So a thread that has claimed copies finds them unchanged. The leader's store of `claim` is a
//! release, and claims continue its release sequence, so the copies are visible to who claims them.
//! `finished` grows by a release after the bytes have been copied, and the leader acquires it.

use std::ptr;

use super::progress::Padded;
use super::sync::{Arc, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence, give_way, nap};

/// Copies of one list, at most.
pub(crate) const MOST: usize = if cfg!(loom) { 2 } else { 128 };
/// One claim takes copies of at least this many bytes together: a claim waits until the stores of
/// the copies before it have reached the cache.
const CLAIM_BYTES: usize = 8 << 10;
/// A longer READ is cut into copies of at least this length.
pub(crate) const PIECE_BYTES: usize = 32 << 10;
/// One READ is cut into this many copies at most.
const PIECES: usize = 16;
/// How often a leader looks whether the other thread has finished before it gives its core away.
const SPINS: u32 = 256;
/// How often it looks in all before it sleeps between two looks. A thread of real-time priority
/// gives its core to none of lower priority otherwise, which the other thread may be.
const YIELDS: u32 = 4096;

/// One copy. Its words are atomic since a thread whose claim then fails may read them while the
/// leader writes the next list.
#[derive(Debug)]
struct Slot {
    from: AtomicPtr<u8>,
    to: AtomicPtr<u8>,
    len: AtomicUsize,
    /// The length of the READ of which this is a part, by which the way of copying is chosen.
    whole: AtomicUsize,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            from: AtomicPtr::new(ptr::null_mut()),
            to: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            whole: AtomicUsize::new(0),
        }
    }
}

/// A copy, as the thread that has claimed it sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) from: *const u8,
    pub(crate) to: *mut u8,
    #[cfg_attr(loom, allow(dead_code, reason = "the model copies numbers"))]
    pub(crate) len: usize,
    #[cfg_attr(loom, allow(dead_code, reason = "the model copies numbers"))]
    pub(crate) whole: usize,
}

/// What the leader and the other thread share.
#[derive(Debug)]
pub(crate) struct SharedCopies {
    /// The number of the list (32 bits), its length (16 bits), and how many of its copies have been
    /// claimed (16 bits).
    claim: Padded<AtomicU64>,
    /// Copies that threads other than the leader have carried out, of all lists together.
    finished: Padded<AtomicU64>,
    slots: Box<[Slot]>,
}

impl Default for SharedCopies {
    fn default() -> Self {
        Self {
            claim: Padded(AtomicU64::new(0)),
            finished: Padded(AtomicU64::new(0)),
            slots: (0..MOST).map(|_| Slot::default()).collect(),
        }
    }
}

const fn word(list: u32, len: u16, claimed: u16) -> u64 {
    (list as u64) << 32 | (len as u64) << 16 | claimed as u64
}

impl SharedCopies {
    /// Claims the next copies of the list, if any are left: their first and the one after the last.
    fn claim(&self) -> Option<(u16, u16)> {
        let mut seen = self.claim.0.load(Ordering::Acquire);
        loop {
            let (list, len, first) = ((seen >> 32) as u32, (seen >> 16) as u16, seen as u16);
            if first >= len {
                return None;
            }
            // Many at first and fewer towards the end, so that both threads finish together.
            let (mut end, mut bytes) = (first, 0);
            while end < len && (bytes < CLAIM_BYTES || end - first < (len - first) / 4) {
                bytes += self.slots[usize::from(end)].len.load(Ordering::Relaxed);
                end += 1;
            }
            let claimed = word(list, len, end);
            match self.claim.0.compare_exchange_weak(seen, claimed, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some((first, end)),
                Err(now) => seen = now,
            }
        }
    }

    fn carry_out(&self, (first, end): (u16, u16), copy: &mut impl FnMut(Copy)) {
        for slot in &self.slots[usize::from(first)..usize::from(end)] {
            copy(Copy {
                from: slot.from.load(Ordering::Relaxed),
                to: slot.to.load(Ordering::Relaxed),
                len: slot.len.load(Ordering::Relaxed),
                whole: slot.whole.load(Ordering::Relaxed),
            });
        }
    }

    /// Carries out copies that a leader has published, and says whether there were any.
    pub(crate) fn help(&self, mut copy: impl FnMut(Copy)) -> bool {
        let Some(claimed) = self.claim() else { return false };
        self.carry_out(claimed, &mut copy);
        // A full fence: the bytes have been read, which no acquire or release of atomics orders,
        // before the leader looks whether they were still exported.
        fence(Ordering::SeqCst);
        self.finished.0.fetch_add(u64::from(claimed.1 - claimed.0), Ordering::Release);
        true
    }
}

/// The leader's side. There is one for each list, and it is a part of the rail's worker.
#[derive(Debug)]
pub(crate) struct Leader {
    shared: Arc<SharedCopies>,
    /// The number of the last list.
    list: u32,
    /// Copies of the list that is being written.
    len: u16,
    /// Copies that other threads have claimed so far.
    helped: u64,
}

impl Leader {
    pub(crate) fn new(shared: Arc<SharedCopies>) -> Self {
        Self { shared, list: 0, len: 0, helped: 0 }
    }

    /// Adds the copies of one READ to the list, and says whether there was room for them.
    pub(crate) fn add(&mut self, from: *const u8, to: *mut u8, len: usize) -> bool {
        // Pieces are whole host pages.
        let piece = len.div_ceil(PIECES).next_multiple_of(4096).max(PIECE_BYTES);
        let pieces = len.div_ceil(piece);
        if usize::from(self.len) + pieces > MOST {
            return false;
        }
        for n in 0..pieces {
            let at = n * piece;
            let slot = &self.shared.slots[usize::from(self.len)];
            slot.from.store(from.wrapping_add(at).cast_mut(), Ordering::Relaxed);
            slot.to.store(to.wrapping_add(at), Ordering::Relaxed);
            slot.len.store(piece.min(len - at), Ordering::Relaxed);
            slot.whole.store(len, Ordering::Relaxed);
            self.len += 1;
        }
        true
    }

    /// Carries the list out, together with the threads that help, and empties it. When it returns,
    /// each copy has been carried out and no thread looks at the list. `alone`: without telling
    /// other threads of it.
    pub(crate) fn carry_out(&mut self, alone: bool, mut copy: impl FnMut(Copy)) {
        let len = std::mem::take(&mut self.len);
        if alone {
            return self.shared.carry_out((0, len), &mut copy);
        }
        self.list = self.list.wrapping_add(1);
        self.shared.claim.0.store(word(self.list, len, 0), Ordering::Release);
        let mut own = 0;
        while let Some(claimed) = self.shared.claim() {
            self.shared.carry_out(claimed, &mut copy);
            own += claimed.1 - claimed.0;
        }
        self.helped += u64::from(len - own);
        let mut looks = 0;
        while self.shared.finished.0.load(Ordering::Acquire) != self.helped {
            if looks > YIELDS {
                nap();
            } else {
                looks += 1;
                give_way(looks > SPINS);
            }
        }
    }
}

/// Interleavings, by loom.
#[cfg(all(test, loom))]
#[allow(unsafe_code, reason = "cells that the model checks")]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::thread;

    /// The bytes at the source and at the destination of two copies. loom reports two threads that
    /// reach one cell without an order between them.
    struct Bytes {
        to: [UnsafeCell<u32>; MOST],
    }

    // SAFETY: the model checks who reaches the cells.
    unsafe impl Sync for Bytes {}
    // SAFETY: as above.
    unsafe impl Send for Bytes {}

    /// The copies are numbers and not addresses.
    fn run(bytes: &Bytes) -> impl FnMut(Copy) {
        |copy| {
            bytes.to[copy.to.addr()].with_mut(|to| {
                // SAFETY: the model checks that no other thread has the cell.
                unsafe { *to += copy.from.addr() as u32 }
            })
        }
    }

    #[test]
    fn each_copy_of_two_lists_is_carried_out_once_and_seen_by_the_leader() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new(SharedCopies::default());
            let bytes = Arc::new(Bytes { to: [UnsafeCell::new(0), UnsafeCell::new(0)] });
            let (list, to) = (Arc::clone(&shared), Arc::clone(&bytes));
            let helper = thread::spawn(move || {
                for _ in 0..2 {
                    list.help(run(&to));
                }
            });
            let mut leader = Leader::new(Arc::clone(&shared));
            for round in 1..=2 {
                for n in 0..MOST {
                    let (from, to) = (ptr::without_provenance(round), ptr::without_provenance_mut(n));
                    assert!(leader.add(from, to, CLAIM_BYTES));
                }
                leader.carry_out(false, run(&bytes));
                let sum = (1..=round as u32).sum::<u32>();
                for to in &bytes.to {
                    // SAFETY: the leader alone, as the model checks.
                    assert_eq!(to.with(|to| unsafe { *to }), sum);
                }
            }
            helper.join().unwrap();
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use super::*;

    #[test]
    fn a_long_read_is_cut_into_whole_pages_and_every_byte_belongs_to_one_copy() {
        let shared = Arc::new(SharedCopies::default());
        let mut leader = Leader::new(Arc::clone(&shared));
        for len in [1, 4096, PIECE_BYTES, PIECE_BYTES + 1, 131_072, 1 << 20, 4_500_001] {
            assert!(leader.add(ptr::without_provenance(1 << 30), ptr::without_provenance_mut(1 << 40), len));
            let mut at = 0;
            leader.carry_out(true, |copy| {
                assert_eq!((copy.from.addr(), copy.to.addr()), ((1 << 30) + at, (1 << 40) + at));
                assert!(copy.whole == len && at % 4096 == 0);
                at += copy.len;
            });
            assert_eq!(at, len);
        }
    }

    #[test]
    fn a_full_list_takes_no_more() {
        let mut leader = Leader::new(Arc::default());
        let add = |leader: &mut Leader| leader.add(ptr::null(), ptr::null_mut(), PIECE_BYTES * PIECES);
        assert!((0..MOST / PIECES).all(|_| add(&mut leader)));
        assert!(!add(&mut leader));
        leader.carry_out(true, |_| {});
        assert!(add(&mut leader));
    }

    #[test]
    fn a_helper_and_a_leader_share_many_lists_and_no_copy_is_lost() {
        const LISTS: u32 = 2_000;
        let shared = Arc::new(SharedCopies::default());
        let counts: Arc<Vec<AtomicU32>> = Arc::new((0..MOST).map(|_| AtomicU32::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (list, to, told) = (Arc::clone(&shared), Arc::clone(&counts), Arc::clone(&stop));
        let helper = std::thread::spawn(move || {
            let mut helped = 0;
            while !told.load(Ordering::Relaxed) {
                helped += u32::from(list.help(|copy| {
                    to[copy.to.addr()].fetch_add(1, Ordering::Relaxed);
                }));
                std::thread::yield_now();
            }
            helped
        });
        let mut leader = Leader::new(Arc::clone(&shared));
        for done in 1..=LISTS {
            for n in 0..MOST {
                assert!(leader.add(ptr::null(), ptr::without_provenance_mut(n), CLAIM_BYTES));
            }
            leader.carry_out(false, |copy| {
                counts[copy.to.addr()].fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == done));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(helper.join().unwrap() > 0, "the helper has never helped");
    }
}

/// A leader of real-time priority on the core of a helper without.
#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "sets the priority and the core of a thread")]
mod priority_tests {
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use super::*;

    /// Binds the calling thread to the first core, and gives it a real-time priority unless that is
    /// 0. Says whether the system allows it.
    fn bind(priority: i32) -> bool {
        let policy = if priority == 0 { libc::SCHED_OTHER } else { libc::SCHED_FIFO };
        let param = libc::sched_param { sched_priority: priority };
        // SAFETY: plain values, of which zero is one.
        let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: 0 is a place of the set.
        unsafe { libc::CPU_SET(0, &mut cores) };
        // SAFETY: the set lives during the call.
        let bound = unsafe { libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores) };
        // SAFETY: the value lives during the call.
        bound == 0 && unsafe { libc::sched_setscheduler(0, policy, &raw const param) } == 0
    }

    #[test]
    fn a_leader_of_higher_priority_lets_the_helper_finish() {
        let shared = Arc::new(SharedCopies::default());
        let claimed = Arc::new(AtomicBool::new(false));
        let (list, told) = (Arc::clone(&shared), Arc::clone(&claimed));
        let helper = std::thread::spawn(move || {
            bind(0);
            let copy = |_| {
                told.store(true, Ordering::SeqCst);
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(30) {}
            };
            while !list.help(copy) {
                std::thread::yield_now();
            }
        });
        let leader = std::thread::spawn(move || {
            let mut leader = Leader::new(shared);
            for _ in 0..2 {
                assert!(leader.add(ptr::null(), ptr::null_mut(), CLAIM_BYTES));
            }
            let mut since = None;
            leader.carry_out(false, |_| {
                while !claimed.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                since = bind(10).then(Instant::now);
            });
            since.map(|since| since.elapsed())
        });
        match leader.join().unwrap() {
            // The kernel takes the core away from a real-time thread after 950 ms, where it does.
            Some(waited) => assert!(waited < Duration::from_millis(700), "{waited:?}"),
            None => eprintln!("SKIPPED: the system gives no real-time priority here"),
        }
        helper.join().unwrap();
    }
}
