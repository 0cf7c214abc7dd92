//! The record of a reader's batches takes the same memory however many batches there are, and so
//! do counting them and sending the count.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(dead_code, reason = "the test uses a part of the module")]

#[path = "../src/measure/window.rs"]
mod window;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufWriter, sink};

use window::{Counter, Failed, Recorder, Sample, Span};

/// Counts the allocations of each thread, and the bytes that it holds.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as for `alloc`; `at` came from there.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Records so many batches in a round that begins at `from`, counts them, and returns the bytes
/// that this thread holds afterwards.
fn record(recorder: &mut Recorder, counter: &mut Counter, from: u64, batches: u64) -> usize {
    let before = CALLS.get();
    let end = from + 10 * batches;
    recorder.start(Span { from, to: end });
    for number in 0..batches {
        // Latencies from a nanosecond to beyond the longest that is recorded exactly.
        let took = (1 << (number % 50)) + number;
        recorder.record(&Sample { at: from + 10 * number, took, pages: 2, failed: Failed::default() });
    }
    let window = recorder.finish(from, end);
    let count = counter.count([&*recorder], window);
    assert_eq!(CALLS.get() - before, 0, "heap calls");
    assert!((2 * batches - 2..=2 * batches).contains(&count.pages), "{}", count.pages);
    // The buffer is all that it takes to send it.
    serde_json::to_writer(BufWriter::new(sink()), &count).unwrap();
    assert_eq!(CALLS.get() - before, 1, "heap calls");
    counter.give_back(count);
    HELD.get()
}

#[test]
fn ten_million_batches_take_the_memory_of_ten_thousand() {
    for alone in [false, true] {
        let (mut recorder, mut counter) = (Recorder::new(alone), Counter::new());
        let few = record(&mut recorder, &mut counter, 0, 10_000);
        let many = record(&mut recorder, &mut counter, 1_000_000_000, 10_000_000);
        assert_eq!(few, many, "alone: {alone}");
    }
}
