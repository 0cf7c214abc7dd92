//! The data path over a real provider library: submit, post, poll and refill make no heap call of
//! kvrail's. The provider library's locks are counted and reported.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "a counting allocator, and functions in front of libc's")]

mod lane;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use kvrail::core::memory::Slot;
use kvrail::core::time::Nanos;
use kvrail::{Config, Reader, clock, memory, verbs};
use lane::{Devices, LAYOUT, Producer, produce_if_told, said};

const BATCH: usize = 32;
const FLIGHT: usize = 4;
const BATCHES: u64 = 60;

#[derive(Clone, Copy, Default)]
struct Counts {
    heap: u64,
    mutexes: u64,
    spins: u64,
}

thread_local! {
    /// The counts of this thread, while it counts.
    static COUNTS: Cell<Option<Counts>> = const { Cell::new(None) };
}

fn count(what: impl FnOnce(&mut Counts)) {
    // A thread that is ending has no counts any more.
    let _ = COUNTS.try_with(|counts| {
        if let Some(mut now) = counts.get() {
            what(&mut now);
            counts.set(Some(now));
        }
    });
}

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|c| c.heap += 1);
        // SAFETY: the caller's promise is the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(|c| c.heap += 1);
        // SAFETY: the caller's promise is the callee's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(|c| c.heap += 1);
        // SAFETY: the caller's promise is the callee's.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Locker = unsafe extern "C" fn(*mut c_void) -> c_int;

/// Calls the next definition of `name`, libc's.
///
/// # Safety
///
/// `lock` is what `name` takes.
unsafe fn forward(known: &AtomicPtr<c_void>, name: &CStr, lock: *mut c_void) -> c_int {
    let mut next = known.load(Ordering::Relaxed);
    if next.is_null() {
        // SAFETY: a string that ends in 0.
        next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        known.store(next, Ordering::Relaxed);
    }
    // SAFETY: libc's function of that name, which takes a pointer and gives an int.
    let next = unsafe { std::mem::transmute::<*mut c_void, Locker>(next) };
    // SAFETY: the caller's promise.
    unsafe { next(lock) }
}

/// In front of libc's, also for the provider's library.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_mutex_lock(lock: *mut c_void) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    count(|c| c.mutexes += 1);
    // SAFETY: the caller's promise is the callee's.
    unsafe { forward(&NEXT, c"pthread_mutex_lock", lock) }
}

/// In front of libc's, also for the provider's library.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_spin_lock(lock: *mut c_void) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    count(|c| c.spins += 1);
    // SAFETY: the caller's promise is the callee's.
    unsafe { forward(&NEXT, c"pthread_spin_lock", lock) }
}

/// Runs `f`, and returns how many calls it made in this thread.
fn counted<R>(f: impl FnOnce() -> R) -> (Counts, R) {
    COUNTS.set(Some(Counts::default()));
    let out = f();
    (COUNTS.take().unwrap_or_default(), out)
}

#[test]
fn produces() {
    produce_if_told();
}

#[test]
fn the_counters_count() {
    let (counts, v) = counted(|| vec![1_u8; 100]);
    assert_eq!((counts.heap, v.len()), (1, 100));
    // A call by its symbol, as the provider's library makes it.
    // SAFETY: a string that ends in 0.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_spin_lock".as_ptr()) };
    assert_eq!(found.addr(), (pthread_spin_lock as *const ()).addr(), "the provider would not find it");
    // SAFETY: as above.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_mutex_lock".as_ptr()) };
    assert_eq!(found.addr(), (pthread_mutex_lock as *const ()).addr(), "the provider would not find it");
    let mut lock = 1;
    let (counts, status) = counted(|| {
        // SAFETY: a spin lock of this thread's, initialised as free (1 on x86-64).
        unsafe { pthread_spin_lock((&raw mut lock).cast()) }
    });
    assert_eq!((counts.spins, counts.heap, status), (1, 0, 0));
}

#[test]
fn reading_makes_no_heap_call() {
    const TEST: &str = "heap calls and locks";
    let Some(fabric) = Devices::find(TEST) else { return };
    let producer = Producer::start(&fabric.producer, 1, "127.0.0.1:0");
    let rails = verbs::rails(&fabric.reader).unwrap();
    let mut reader = Reader::start(LAYOUT, rails, Config { lanes_per_rail: 2, ..Config::default() }).unwrap();
    let bytes = FLIGHT * BATCH * LAYOUT.page_bytes() as usize;
    let slots = reader.register(memory::leaked(bytes).unwrap()).unwrap();
    let peer = reader.connect(&producer.address, lane::key()).unwrap();
    let locations = reader.published(&peer, 0, clock::within(lane::HANGS)).unwrap();
    let pages: Vec<_> = locations.iter().map(|&l| peer.page(l).unwrap()).collect();
    let mut home: Vec<Slot> = slots.collect();

    let (mut next, mut polls) = (0, 0_u64);
    let mut read = |batches: u64| {
        let (mut begun, mut arrived) = (0, 0_u64);
        let until = clock::within(lane::HANGS);
        while arrived < batches * BATCH as u64 {
            assert!(clock::now() < until, "{arrived} pages in {:?}", lane::HANGS);
            while begun < batches && home.len() >= BATCH {
                let mut batch = reader.batch().unwrap();
                for _ in 0..BATCH {
                    batch.read(pages[next], home.pop().unwrap()).map_err(|(error, _)| error).unwrap();
                    next = (next + 1) % pages.len();
                }
                reader.submit(batch, until).map_err(|rejected| rejected.error).unwrap();
                begun += 1;
            }
            reader.poll();
            polls += 1;
            let mut some = false;
            while let Some(mut done) = reader.next_done() {
                some = true;
                for page in done.pages() {
                    page.result().unwrap();
                    arrived += 1;
                    home.push(page.slot);
                }
            }
            if !some {
                reader.wait(clock::now() + Nanos::from_millis(5));
            }
        }
        (arrived, std::mem::take(&mut polls))
    };
    read(10);
    let (counts, (arrived, polls)) = counted(|| read(BATCHES));
    said(&format!(
        "{TEST}: {arrived} pages in {BATCHES} batches and {polls} polls: {} heap calls of ours; the provider took {} spin locks and {} mutexes",
        counts.heap, counts.spins, counts.mutexes
    ));
    assert_eq!(counts.heap, 0, "heap calls on the data path");
}
