//! The encoder of mlx5 entries keeps the provider contract, over the model of a device.
#![allow(missing_docs, reason = "a test")]

use std::time::Instant;

use kvrail_conformance::{Abilities, BYTES, Destination, Outcome, RemoteBytes, Rig, pattern};
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::time::{Nanos, Time};
use kvrail_mlx5_device::{Device, MemoryMap, Mlx5Rails};

const BASE: u64 = 0x7000_0000;
const RKEY: u32 = 0x55;
/// READs of a lane, without the drain.
const DEPTH: u32 = 8;

/// Two rails. `PACE` is how many READs a rail carries out in a poll.
struct OverDevice<const PACE: usize> {
    start: Instant,
}

impl<const PACE: usize> Rig for OverDevice<PACE> {
    type Provider = Mlx5Rails;
    const ABILITIES: Abilities = Abilities::ALL;
    const DEPTH: u32 = DEPTH;

    fn new() -> Self {
        Self { start: Instant::now() }
    }

    fn provider(&mut self) -> Mlx5Rails {
        let mut memory = MemoryMap::moving();
        let bytes: Vec<u8> = (0..BYTES).map(pattern).collect();
        memory.publish(RKEY, BASE, bytes.leak());
        let device = Device::new(2, 64, memory);
        let mut rails = Mlx5Rails::new(device, 2, 64, (4, 16)).expect("numbers in their ranges");
        rails.set_pace(PACE);
        rails
    }

    fn connect(&mut self, _: &mut Mlx5Rails, _: RailIndex) {}

    fn remote(&self) -> RemoteBytes {
        RemoteBytes { base: BASE, rkeys: [RKEY; MAX_RAILS] }
    }

    fn destination(&mut self) -> Destination {
        Destination::new(vec![0; BYTES].leak())
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    fn pass(&mut self, time: Nanos) {
        std::thread::sleep(std::time::Duration::from_nanos(time.0));
    }
}

mod at_once {
    kvrail_conformance::conformance_tests!(super::OverDevice<{ usize::MAX }>);
}

mod one_by_one {
    kvrail_conformance::conformance_tests!(super::OverDevice<1>);
}

#[test]
fn only_what_needs_a_control_thread_or_a_descriptor_is_skipped() {
    let mut skipped = Vec::new();
    kvrail_conformance::run_all::<OverDevice<1>>(|name, outcome| {
        if let Outcome::Skipped { .. } = outcome {
            skipped.push(name);
        }
    });
    let expected = [
        "while_a_failure_takes_its_time_each_read_still_ends_once",
        "a_close_that_overtakes_a_slow_failure_ends_the_lane",
        "arm_refuses_while_a_completion_is_there",
        "an_armed_descriptor_is_not_readable_without_a_reason",
        "an_armed_descriptor_becomes_readable_when_a_read_completes",
        "an_armed_descriptor_becomes_readable_for_a_waker",
        "an_armed_descriptor_becomes_readable_for_an_event",
    ];
    assert_eq!(skipped, expected);
}
