//! The provider of the example keeps the contract, and the example reads its page.
#![allow(missing_docs, reason = "a test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use custom_provider::{BASE, BufferRails};
use kvrail::core::id::{MAX_RAILS, RailIndex};
use kvrail::core::time::{Nanos, Time};
use kvrail_conformance::{Abilities, BYTES, Destination, Outcome, RemoteBytes, Rig, pattern, run_all};

#[path = "../custom_provider.rs"]
mod custom_provider;

struct Buffers(Instant);

impl Rig for Buffers {
    type Provider = BufferRails;
    const ABILITIES: Abilities = Abilities::ALL;
    const DEPTH: u32 = 16;

    fn new() -> Self {
        Self(Instant::now())
    }

    fn provider(&mut self) -> BufferRails {
        BufferRails::new()
    }

    fn connect(&mut self, _: &mut BufferRails, _: RailIndex) -> Arc<[u8]> {
        (0..BYTES).map(pattern).collect()
    }

    fn remote(&self) -> RemoteBytes {
        RemoteBytes { base: BASE, rkeys: [1; MAX_RAILS] }
    }

    fn destination(&mut self) -> Destination {
        Destination::new(vec![0; BYTES].leak())
    }

    fn now(&self) -> Time {
        Time(self.0.elapsed().as_nanos() as u64)
    }

    fn pass(&mut self, time: Nanos) {
        std::thread::sleep(Duration::from_nanos(time.0));
    }
}

kvrail_conformance::conformance_tests!(Buffers);

#[test]
fn only_what_needs_pieces_a_control_thread_or_a_descriptor_is_skipped() {
    let mut skipped = Vec::new();
    run_all::<Buffers>(|name, outcome| {
        if let Outcome::Skipped { .. } = outcome {
            skipped.push(name);
        }
    });
    assert_eq!(
        skipped,
        [
            "a_scattered_read_fills_its_pieces_in_order_and_nothing_else",
            "while_a_failure_takes_its_time_each_read_still_ends_once",
            "a_close_that_overtakes_a_slow_failure_ends_the_lane",
            "arm_refuses_while_a_completion_is_there",
            "an_armed_descriptor_is_not_readable_without_a_reason",
            "an_armed_descriptor_becomes_readable_when_a_read_completes",
            "an_armed_descriptor_becomes_readable_for_a_waker",
            "an_armed_descriptor_becomes_readable_for_an_event",
        ]
    );
}

#[test]
fn the_example_reads_its_page() {
    custom_provider::main().unwrap();
}
