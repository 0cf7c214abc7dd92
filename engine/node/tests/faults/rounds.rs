//! Rounds of kills and stops, and what holds after each.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use crate::group::{Counts, Process, Times};
use crate::roles::TIMES;

/// Rounds of kills, unless `KVRAIL_FAULT_ROUNDS` is set.
const ROUNDS: u64 = 6;
/// By how much a call may miss its deadline on a busy machine. The time for which its own thread
/// waited for a processor is not counted.
const SLACK: Duration = Duration::from_secs(3);
/// By how much a process that lives on may grow, from the warm-up rounds to the end. One page of
/// each round that was kept would be less than this; a connection or a mapping of each is more.
const GROWTH: u64 = 4 << 20;

/// Calls in a time whose times are printed, at least.
const CALLS: u64 = 100;

/// The threads of the reader that lives: one gets pages of the producer that is killed, the other
/// of the producer that lives.
const AFFECTED: usize = 0;
const STEADY: usize = 1;

/// The processes. The victims are the first node that keeps the directory, the first producer and
/// the first reader; the others live for the whole test.
struct Group {
    victims: [Process; 3],
    standby: Process,
    producer: Process,
    reader: Process,
    /// Times of calls for the other producer's pages: before faults and in them, and before rounds
    /// without a fault and in these.
    times: [[Times; 2]; 2],
    /// Memory of the survivors after the warm-up.
    resident: Option<[u64; 3]>,
}

/// Numbers that look random (SplitMix64, Steele, Lea, Flood 2014).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}: expected a number, as in {name}=50")))
}

impl Group {
    fn start() -> Self {
        // The directory comes back at the same address. Another process may take the port between
        // these two lines, and the test fails then.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let directory = free.map(|socket| socket.local_addr().unwrap().to_string()).join(",");
        let [keeper, standby] = ["directory 0", "directory 1"].map(|role| Process::start(role, &directory));
        let producers = ["producer 0", "producer 1"].map(|role| Process::start(role, &directory));
        let readers = [(); 2].map(|()| Process::start("reader", &directory));
        let ([first, producer], [victim, reader]) = (producers, readers);
        let victims = [keeper, first, victim];
        let none = Counts { calls: 0, hits: 0, wrong: 0, late: SLACK, times: [0; TIMES] };
        let times = [[Times::NONE; 2]; 2];
        let mut group = Self { victims, standby, producer, reader, times, resident: None };
        group.rest(&[none; 2]);
        group
    }

    /// A time without faults.
    fn rest(&mut self, since: &[Counts; 2]) -> [Counts; 2] {
        self.reader.until(AFFECTED, &since[AFFECTED], 50, 50);
        self.reader.until(STEADY, &since[STEADY], 50, 50)
    }

    /// The times of calls for the other producer's pages while nothing happens for `pause`, and
    /// until they are enough for a p99.
    fn calm(&mut self, pause: Duration) -> Times {
        let before = self.reader.counts();
        std::thread::sleep(pause.min(Duration::from_secs(5)));
        self.reader.until(STEADY, &before[STEADY], CALLS, 20)[STEADY].since(&before[STEADY])
    }

    /// A round without a fault: what the machine does to p99 by itself, and by the start of a
    /// process that has nothing to do with the group.
    fn nothing(&mut self, pause: Duration) {
        let before = self.calm(pause);
        let mut other = Process::start("idle", "");
        let after = self.calm(pause);
        other.kill();
        println!("no fault: calls {before} before, {after} meanwhile");
        self.times[1][0].add(&before);
        self.times[1][1].add(&after);
    }

    /// Prints the times of all rounds together. A hundred calls have a p99 that a single wait for a
    /// processor decides.
    fn summary(&self) {
        let [[before, faults], [calm, nothing]] = &self.times;
        println!("all faults: calls {before} before, {faults} meanwhile");
        println!("all rounds without one: calls {calm} before, {nothing} meanwhile");
    }

    /// A fault of one victim, from `begin` to `end`, with `pause` between them at least.
    fn fault(
        &mut self,
        what: &str,
        victim: usize,
        pause: Duration,
        begin: impl FnOnce(&mut Process),
        end: impl FnOnce(&mut Process),
    ) {
        let role = self.victims[victim].role();
        let calm = self.calm(pause);
        let before = self.reader.counts();
        if role == "reader" {
            let counts = self.victims[victim].counts();
            assert_eq!(counts.each_ref().map(|counts| counts.wrong), [0; 2], "{counts:?}");
        }
        begin(&mut self.victims[victim]);
        // What was under way when it happened is over.
        std::thread::sleep(pause / 2);
        let during = self.reader.counts();
        std::thread::sleep(pause / 2);
        // The other producer's pages go on coming, also if the first directory is the victim.
        self.reader.until(STEADY, &during[STEADY], 10, 20);
        let after = self.reader.until(STEADY, &before[STEADY], CALLS, 20);
        let meanwhile = after[STEADY].since(&before[STEADY]);
        self.times[0][0].add(&calm);
        self.times[0][1].add(&meanwhile);
        end(&mut self.victims[victim]);
        let healed = self.reader.counts();
        let last = self.rest(&healed);
        let resident = self.memory();
        println!(
            "{what} of the {role}: calls for the other producer's pages {calm} before, {meanwhile} meanwhile; {} of {} hits meanwhile; latest call {:?} after its deadline; {:?} KiB",
            after[STEADY].hits - before[STEADY].hits,
            8 * (after[STEADY].calls - before[STEADY].calls),
            last[AFFECTED].late.max(last[STEADY].late),
            resident.map(|bytes| bytes >> 10),
        );
        for counts in last {
            assert_eq!(counts.wrong, 0, "wrong pages after a {what} of the {role}: {counts:?}");
            assert!(counts.late < SLACK, "a call ended long after its deadline: {counts:?}");
        }
        if let Some(first) = self.resident {
            for (first, now) in first.into_iter().zip(resident) {
                assert!(now < first + GROWTH, "a survivor grew from {first} to {now} bytes");
            }
        }
    }

    fn killed(&mut self, victim: usize, pause: Duration) {
        self.fault("kill", victim, pause, Process::kill, Process::restart);
    }

    fn stopped(&mut self, victim: usize, pause: Duration) {
        let (stop, go_on) = (Signal::STOP, Signal::CONT);
        self.fault("stop", victim, pause, |process| process.signal(stop), |process| process.signal(go_on));
    }

    /// The warm-up is over: from now on the survivors do not grow.
    fn warm(&mut self) {
        self.resident = Some(self.memory());
    }

    /// The survivors' memory, in bytes.
    fn memory(&self) -> [u64; 3] {
        [&self.standby, &self.producer, &self.reader].map(Process::resident)
    }
}

#[test]
fn processes_are_killed_and_stopped_and_the_others_go_on() {
    let full = number("KVRAIL_FAULT_ROUNDS");
    let seed = number("KVRAIL_SEED").unwrap_or_else(|| {
        std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_000
    });
    let (rounds, stop) =
        full.map_or((ROUNDS, Duration::from_secs(1)), |rounds| (rounds, Duration::from_secs(10)));
    println!("{rounds} kills, stops of {stop:?}; again with KVRAIL_SEED={seed}");
    let (mut group, mut rng) = (Group::start(), Rng(seed));
    // One of each, then at random.
    let warm_up = (rounds / 5).max(3);
    for round in 0..rounds {
        let victim = if round < 3 { round } else { rng.below(3) };
        let pause = Duration::from_millis(20 + rng.below(300));
        group.killed(victim as usize, pause);
        if round % 3 == 0 {
            group.nothing(pause);
        }
        if round + 1 == warm_up {
            group.warm();
        }
    }
    for victim in 0..3 {
        group.stopped(victim, stop);
    }
    group.nothing(stop);
    group.summary();
}
