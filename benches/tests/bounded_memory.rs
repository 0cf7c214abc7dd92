//! The record of a reader's batches takes the same memory however many batches there are.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(dead_code, reason = "the test uses a part of the module")]

#[path = "../src/measure/window.rs"]
mod window;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use window::{Failed, Recorder, Sample, Span};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as for `alloc`; `at` came from there.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_million_batches_take_no_more_memory_than_one() {
    for alone in [false, true] {
        let mut recorder = Recorder::new(alone);
        for round in 0..3_u64 {
            let from = round * 10_000_000;
            let before = CALLS.get();
            recorder.start(Span { from, to: from + 10_000_000 });
            for number in 0..1_000_000 {
                // Latencies from a nanosecond to beyond the longest that is recorded exactly.
                let took = 1 << (number % 50);
                recorder.record(&Sample {
                    at: from + 10 * number,
                    took,
                    pages: 2,
                    failed: Failed::default(),
                });
            }
            let window = recorder.finish(from, from + 10_000_000);
            assert_eq!(CALLS.get() - before, 0, "heap calls, alone: {alone}");
            let pages = recorder.count(window).pages;
            assert!((1_999_998..=2_000_000).contains(&pages), "{pages}");
        }
    }
}
