//! Readers die, and their publisher survives: it has every block back, and writes it at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kvrail::session::handover::HandoverOutcome;
use kvrail::session::{ServerConfig, ServerEvent};
use kvrail::{KeyTag, Publisher, shm};
use rustix::process::Signal;

use super::measured::{Footprint, Hits, Times};
use super::owner::{Requests, round_of};
use super::plan::{Fate, Moment, Plan};
use super::process::{Process, State};
use super::rng::Rng;
use super::{AT_ONCE, BLOCKS, BOUND, LIMIT, MLA, REQUESTS, key, server_config};

/// One round: a reader's process, and what is handed over to it.
struct Round {
    number: u64,
    plan: Plan,
    process: Process,
    requests: Requests,
    /// Since when it does what `step` says.
    since: Instant,
    step: Step,
    died: Option<Instant>,
    /// The publisher has ended the session.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The reader's process has not connected.
    Starts,
    Runs,
    /// It is dead, or stopped, and has blocks.
    Dies,
    /// All blocks are back.
    Back,
    /// It goes on after it was stopped.
    GoesOn,
    /// It is to end.
    Ends,
    Over,
}

#[derive(Default)]
struct Measured {
    hits: Hits,
    /// From SIGKILL until every block that the reader had taken is back.
    killed: Times,
    /// From SIGSTOP until every block is back that was open.
    stopped: Times,
    /// From SIGKILL until every block is back that was open and that no reader had taken.
    untaken: Times,
    /// Hand-overs by outcome.
    outcomes: BTreeMap<String, u32>,
    told: Told,
}

/// What readers say that went on after their lease.
#[derive(Default)]
struct Told {
    readers: u32,
    lost: u32,
    /// Readers whose sessions were over before they went on.
    over: u32,
    expired: u32,
    late: u32,
}

struct Survivor {
    publisher: Publisher,
    /// The names of readers whose sessions have ended.
    closed: Receiver<String>,
    free: Vec<u32>,
    rounds: Vec<Round>,
    rng: Rng,
    measured: Measured,
}

/// Runs `rounds` rounds.
pub(crate) fn run(rounds: usize) {
    let mut survivor = Survivor::start();
    let mut plans: VecDeque<_> =
        (0..rounds).map(|round| (round as u64, Plan::of_round(round, &mut survivor.rng))).collect();
    let rest = plans.split_off(AT_ONCE.max(rounds / 10));
    let begun = Instant::now();
    survivor.all(plans);
    let first = Footprint::now();
    survivor.all(rest);
    let last = Footprint::settled(&first, || {});
    let Measured { hits, killed, stopped, untaken, outcomes, told } = &survivor.measured;
    println!(
        "{rounds} readers died in {:.1} s; the publisher had its blocks back",
        begun.elapsed().as_secs_f64()
    );
    println!("  after SIGKILL, those that were taken: {killed}");
    println!("  after SIGSTOP, taken or not: {stopped}");
    println!("  after SIGKILL, those that were not taken yet: {untaken}");
    println!("  at each message (SIGKILL+SIGSTOP): {hits}");
    println!("  ends of hand-overs: {outcomes:?}");
    let Told { readers, lost, over, expired, late } = told;
    println!(
        "  {readers} readers went on ({lost} had lost the session): told of {expired} ends of leases; {late} late READs, all missed"
    );
    println!("  the publisher's process after {} rounds: {first}", AT_ONCE.max(rounds / 10));
    println!("  and after all: {last}");
    hits.check();
    assert!(killed.count() > 0 && stopped.count() > 0, "no reader had taken anything when it died");
    assert!(*expired > 0 && *late > 0 && *over > 0, "no reader was told, or none read late");
    assert!(lost >= over, "{over} sessions were over, and {lost} readers saw that");
    last.check(&first);
}

impl Survivor {
    fn start() -> Self {
        let (name, listen) = ("survivor".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
        let slots = AT_ONCE as u32 * REQUESTS * BLOCKS;
        let (sender, closed) = channel();
        let observer = move |event| {
            if let ServerEvent::Closed { reader, .. } = event {
                sender.send(reader.to_string()).unwrap();
            }
        };
        let config = ServerConfig { observer: Some(Arc::new(observer)), ..server_config() };
        let over = shm::publish(1);
        let publisher = Publisher::start_with(name, MLA, slots, &listen, key(), over, config).unwrap();
        for slot in 0..slots {
            publisher.write(slot, KeyTag(0), |page| page.fill(1)).unwrap();
        }
        let free = (0..slots).collect();
        let (rng, measured) = (Rng::new(1), Measured::default());
        Self { publisher, closed, free, rounds: Vec::new(), rng, measured }
    }

    /// Runs all of these rounds, until all sessions are over.
    fn all(&mut self, mut plans: VecDeque<(u64, Plan)>) {
        while !plans.is_empty() || !self.rounds.is_empty() {
            while self.rounds.len() < AT_ONCE
                && let Some((number, plan)) = plans.pop_front()
            {
                self.begin(number, plan);
            }
            self.turn();
            std::thread::sleep(Duration::from_millis(2));
        }
        let until = Instant::now() + LIMIT;
        while self.publisher.readers() > 0 {
            assert!(Instant::now() < until, "sessions of dead readers do not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.free.len(), self.publisher.slots() as usize);
        assert_eq!(self.publisher.handovers().open_count(), 0);
    }

    fn begin(&mut self, number: u64, plan: Plan) {
        let slots = self.free.split_off(self.free.len() - (REQUESTS * BLOCKS) as usize);
        let address = self.publisher.local_addr().to_string();
        let process = Process::start(&["read", &address, &number.to_string(), &plan.argument()]);
        let (requests, closed) = (Requests::new(number, slots), false);
        let since = Instant::now();
        self.rounds.push(Round {
            closed,
            number,
            plan,
            process,
            requests,
            since,
            step: Step::Starts,
            died: None,
        });
    }

    fn turn(&mut self) {
        for round in &mut self.rounds {
            round.notice();
        }
        for name in self.closed.try_iter() {
            let mut rounds = self.rounds.iter_mut();
            if let Some(round) = rounds.find(|round| name == round.process.reader_name()) {
                round.closed = true;
            }
        }
        while let Some(ended) = self.publisher.next_ended_handover() {
            let number = round_of(ended.request);
            let round = self.rounds.iter_mut().find(|round| round.number == number).unwrap();
            round.requests.take_back(&self.publisher, &ended);
            let outcome = format!("{:?}", ended.outcome);
            *self.measured.outcomes.entry(outcome).or_default() += 1;
            if let Some(died) = round.died {
                round.back(&ended.outcome, died.elapsed(), &mut self.measured);
            }
        }
        let now = Instant::now();
        for round in &mut self.rounds {
            let opens = round.step == Step::Runs;
            if round.step != Step::Starts {
                round.requests.turn(&self.publisher, &mut self.rng, now, opens);
            }
            round.next(&mut self.measured);
        }
        for round in self.rounds.extract_if(.., |round| round.step == Step::Over) {
            self.free.extend(round.requests.into_slots());
        }
    }
}

impl Round {
    fn go(&mut self, step: Step) {
        (self.step, self.since) = (step, Instant::now());
    }

    /// Looks whether the reader is dead.
    fn notice(&mut self) {
        let state = self.process.state();
        if state != State::Running && matches!(self.step, Step::Starts | Step::Runs) {
            assert_eq!(state == State::Killed, self.plan.fate == Fate::Killed, "{:?}", self.plan);
            self.go(Step::Dies);
            self.died = Some(self.since);
        }
    }

    /// A hand-over has ended so long after the death.
    fn back(&mut self, outcome: &HandoverOutcome, time: Duration, measured: &mut Measured) {
        let stopped = self.plan.fate != Fate::Killed;
        match outcome {
            HandoverOutcome::SessionLost if !stopped => measured.killed.add(time),
            HandoverOutcome::Expired if stopped => measured.stopped.add(time),
            HandoverOutcome::Expired => measured.untaken.add(time),
            _ => {}
        }
        assert!(time <= BOUND, "{outcome:?} {time:?} after the death: {:?}", self.plan);
    }

    fn next(&mut self, measured: &mut Measured) {
        let elapsed = self.since.elapsed();
        assert!(elapsed < LIMIT, "{:?} takes too long: {:?}", self.step, self.plan);
        match self.step {
            Step::Starts => {
                if self.process.line().is_some() {
                    self.go(Step::Runs);
                }
            }
            Step::Runs => {
                if let Moment::After(time) = self.plan.moment
                    && elapsed >= time
                {
                    self.process.signal(self.plan.signal());
                }
            }
            Step::Dies => {
                assert!(elapsed <= BOUND || self.requests.is_idle(), "blocks are not back: {:?}", self.plan);
                if self.requests.is_idle() {
                    measured.hits.add(&self.plan);
                    let over = if self.plan.fate == Fate::Killed { Step::Over } else { Step::Back };
                    // The time goes on, for the time of the stop counts.
                    self.step = over;
                }
            }
            Step::Back => match self.plan.fate {
                Fate::ContinuedLate if !self.closed => {}
                Fate::Continued | Fate::ContinuedLate => {
                    self.process.go_on(self.plan.fate == Fate::ContinuedLate);
                    self.go(Step::GoesOn);
                }
                Fate::Killed | Fate::StoppedThenKilled => {
                    self.process.signal(Signal::CONT);
                    self.process.signal(Signal::KILL);
                    self.go(Step::Ends);
                }
            },
            Step::GoesOn => {
                // Where it died at once, it has said that it is connected as well.
                if let Some(line) = self.process.line().filter(|line| line != "connected") {
                    measured.told.add(&line, &self.plan);
                    self.process.signal(Signal::KILL);
                    self.go(Step::Ends);
                }
            }
            Step::Ends => {
                if self.process.state() == State::Killed {
                    self.go(Step::Over);
                }
            }
            Step::Over => {}
        }
    }
}

impl Told {
    /// Takes in what a reader says that went on: see `children::read`.
    fn add(&mut self, line: &str, plan: &Plan) {
        let [untold, expired, late, late_served, wrong, lost] =
            line.split(' ').map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>()[..]
        else {
            panic!("`{line}`")
        };
        assert_eq!(untold, 0, "requests that a reader had taken, and whose ends it was not told");
        assert_eq!((late_served, wrong), (0, 0), "of {late} READs of pages that were overwritten");
        self.readers += 1;
        self.lost += lost;
        self.over += u32::from(plan.fate == Fate::ContinuedLate);
        self.expired += expired;
        self.late += late;
    }
}
