//! The model and the null device keep the provider contract.
#![allow(missing_docs, reason = "a test")]

/// The names of the skipped cases. Tests pin them, so that no case is skipped by mistake.
fn skipped<R: kvrail_conformance::Rig>() -> Vec<&'static str> {
    let mut names = Vec::new();
    kvrail_conformance::run_all::<R>(|name, outcome| {
        if let kvrail_conformance::Outcome::Skipped { .. } = outcome {
            names.push(name);
        }
    });
    names
}

/// The model and the null device have no descriptor: their callers do not sleep.
const NO_DESCRIPTOR: [&str; 5] = [
    "arm_refuses_while_a_completion_is_there",
    "an_armed_descriptor_is_not_readable_without_a_reason",
    "an_armed_descriptor_becomes_readable_when_a_read_completes",
    "an_armed_descriptor_becomes_readable_for_a_waker",
    "an_armed_descriptor_becomes_readable_for_an_event",
];

mod model {
    use kvrail_conformance::{Abilities, BYTES, Destination, RemoteBytes, Rig, pattern};
    use kvrail_core::id::{MAX_RAILS, RailIndex};
    use kvrail_core::time::{Nanos, Time};
    use kvrail_sim::sim::{
        Delay, PeerHandle, RailSpec, Sim, SimConfig, SimLaneSpec, SimQp, SimRails, SimStorage,
    };

    const BASE: u64 = 0x7000_0000;
    const RKEY: u32 = 0x55;
    const DEPTH: u32 = 8;

    /// Two rails to one peer. The model's parts are leaked, since its lifetimes need that and a
    /// test is short.
    struct Model<const HARSH: bool> {
        sim: &'static Sim<'static>,
        peer: PeerHandle,
    }

    impl<const HARSH: bool> Model<HARSH> {
        fn over(config: SimConfig) -> Self {
            let storage = Box::leak(Box::new(SimStorage::<2, 1, 8, { DEPTH as usize + 1 }, 256>::new()));
            let mut rail = RailSpec { cq_entries: 128, ..RailSpec::GBITS_400 };
            let mut config = config;
            if HARSH {
                // Lanes overtake each other, bytes land in parts, and closing a lane removes its
                // completions.
                rail.jitter = Nanos::from_micros(20);
                let flush = Delay::fixed(Nanos(700));
                config = SimConfig { pieces: 3, purge: true, flush, sges: 5, read_overhead: 512, ..config };
            }
            let sim: &'static Sim<'static> =
                Box::leak(Box::new(Sim::new(storage, config, &[rail; 2]).expect("the storage holds it")));
            let peer = sim.add_peer().expect("one peer");
            let bytes: Vec<u8> = (0..BYTES).map(pattern).collect();
            sim.publish(peer, BASE, bytes.leak(), [RKEY; MAX_RAILS]).expect("one memory");
            Self { sim, peer }
        }
    }

    impl<const HARSH: bool> Rig for Model<HARSH> {
        type Provider = SimRails<'static>;
        const ABILITIES: Abilities = Abilities::ALL;
        const DEPTH: u32 = DEPTH;

        fn new() -> Self {
            Self::over(SimConfig::new(7))
        }

        fn slow() -> Option<Self> {
            let slow = Delay::fixed(Nanos::from_millis(5));
            Some(Self::over(SimConfig { fail: slow, close: slow, ..SimConfig::new(7) }))
        }

        fn provider(&mut self) -> SimRails<'static> {
            self.sim.rails()
        }

        fn connect(&mut self, _: &mut SimRails<'static>, rail: RailIndex) -> SimQp {
            let spec = SimLaneSpec { sq_entries: DEPTH + 1, rd_atomic: 4 };
            self.sim.connect(rail, self.peer, RailIndex(0), spec).expect("a lane is free")
        }

        fn remote(&self) -> RemoteBytes {
            RemoteBytes { base: BASE, rkeys: [RKEY; MAX_RAILS] }
        }

        fn destination(&mut self) -> Destination {
            Destination::new(vec![0; BYTES].leak())
        }

        fn now(&self) -> Time {
            self.sim.now()
        }

        fn pass(&mut self, time: Nanos) {
            self.sim.advance_to(self.sim.now() + time);
        }
    }

    mod calm {
        kvrail_conformance::conformance_tests!(super::Model<false>);
    }

    mod harsh {
        kvrail_conformance::conformance_tests!(super::Model<true>);
    }

    #[test]
    fn only_what_needs_a_descriptor_is_skipped() {
        assert_eq!(crate::skipped::<Model<false>>(), crate::NO_DESCRIPTOR);
    }
}

mod null {
    use std::time::Instant;

    use kvrail_conformance::{Abilities, BYTES, Destination, RemoteBytes, Rig};
    use kvrail_core::id::{MAX_RAILS, RailIndex};
    use kvrail_core::time::{Nanos, Time};
    use kvrail_core::verbs_abi::ChainStorage;
    use kvrail_sim::null::{Cq, Cqe, NullParts, NullRails, Qp, Wqe};

    /// The null device keeps all promises that are not about bytes.
    struct Null {
        start: Instant,
    }

    impl Rig for Null {
        type Provider = NullRails<'static, 32, 4>;
        const ABILITIES: Abilities =
            Abilities { moves_bytes: false, checks_remote: false, checks_local: false };
        const DEPTH: u32 = 8;

        fn new() -> Self {
            Self { start: Instant::now() }
        }

        fn provider(&mut self) -> Self::Provider {
            let parts = NullParts {
                cqs: vec![Cq::NEW; 2].leak(),
                cqes: vec![Cqe::NEW; 2 * 64].leak(),
                qps: vec![Qp::NEW; 8].leak(),
                // The next power of two above eight READs and a drain.
                wqes: vec![Wqe::NEW; 8 * 16].leak(),
            };
            NullRails::new(parts, Box::leak(Box::new(ChainStorage::new()))).expect("parts that fit")
        }

        fn connect(&mut self, _: &mut Self::Provider, _: RailIndex) {}

        fn remote(&self) -> RemoteBytes {
            RemoteBytes { base: 0x1_0000, rkeys: [1; MAX_RAILS] }
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

    kvrail_conformance::conformance_tests!(Null);

    #[test]
    fn only_what_needs_bytes_keys_a_control_thread_or_a_descriptor_is_skipped() {
        let expected = [
            "bytes_arrive_where_the_descriptor_says_and_nowhere_else",
            "a_scattered_read_fills_its_pieces_in_order_and_nothing_else",
            "a_read_by_a_wrong_remote_key_fails_alone_and_flushes_the_rest",
            "a_read_of_other_bytes_than_were_published_fails",
            "memory_that_is_not_registered_is_not_written",
            "while_a_failure_takes_its_time_each_read_still_ends_once",
            "a_close_that_overtakes_a_slow_failure_ends_the_lane",
            "a_provider_that_is_dropped_writes_no_more",
            "wait_ends_for_a_failed_completion",
        ];
        assert_eq!(crate::skipped::<Null>(), [&expected[..], &crate::NO_DESCRIPTOR].concat());
    }
}
