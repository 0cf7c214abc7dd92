//! Producers die, and their reader survives: it has every slot back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kvrail::session::handover::{Class, GiveUpReason};
use kvrail::{Address, ReaderEvent, TakeRequestError, Taking, clock};
use rustix::process::Signal;

use super::measured::{Footprint, Hits, Times};
use super::owner::request;
use super::plan::{Fate, Moment, Plan};
use super::process::{Process, State};
use super::rng::Rng;
use super::taker::{Destination, Taker, Tally};
use super::{AT_ONCE, BOUND, LEASE, LIMIT, key};

/// Destination slots of the reader.
const SLOTS: usize = 2048;

/// One round: a producer's process, and what is taken from it.
struct Round {
    number: u64,
    plan: Plan,
    process: Process,
    taker: Option<Taker>,
    /// Since when it does what `step` says.
    since: Instant,
    step: Step,
    /// Batches that were under way at the death.
    under_way: Vec<u64>,
    /// Requests that were taken at the death, and how many leases had ended.
    taken: Vec<Taking>,
    expired: u64,
    died: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The producer's process does not listen yet.
    Starts,
    Runs,
    /// It is dead, or stopped, and READs of its pages are under way.
    Dies,
    /// All slots of these are back.
    Back,
    /// It goes on after it was stopped.
    GoesOn,
    /// The session is to end.
    Ends,
    /// It has ended.
    Lost,
    Over,
}

#[derive(Default)]
struct Measured {
    hits: Hits,
    /// From the signal until all slots are back that were under way.
    killed: Times,
    stopped: Times,
    /// Rounds with READs under way at the signal.
    under_way: u32,
    /// From SIGKILL until the reader knows that the peer is lost.
    lost: Times,
    /// From SIGSTOP, for producers that stay stopped.
    lost_stopped: Times,
    /// Producers that went on, and the leases of which the reader was told that they had ended.
    went_on: u32,
    expired: u64,
    tally: Tally,
}

struct Survivor {
    at: Destination,
    rounds: Vec<Round>,
    rng: Rng,
    measured: Measured,
}

/// Runs `rounds` rounds.
pub(crate) fn run(rounds: usize) {
    let (at, rng, measured) = (Destination::new(SLOTS), Rng::new(2), Measured::default());
    let mut survivor = Survivor { at, rounds: Vec::new(), rng, measured };
    let mut plans: VecDeque<_> =
        (0..rounds).map(|round| (round as u64, Plan::of_round(round, &mut survivor.rng))).collect();
    let rest = plans.split_off(AT_ONCE.max(rounds / 10));
    let begun = Instant::now();
    survivor.all(plans);
    let first = Footprint::now();
    survivor.all(rest);
    let last = Footprint::settled(&first, || survivor.at.reader.poll());
    let Measured { hits, killed, stopped, under_way, lost, lost_stopped, went_on, expired, tally } =
        &survivor.measured;
    println!(
        "{rounds} producers died in {:.1} s; the reader had its slots back",
        begun.elapsed().as_secs_f64()
    );
    println!("  after SIGKILL: {killed}");
    println!("  after SIGSTOP: {stopped}; in {under_way} rounds of both READs were under way");
    println!("  the session was over after SIGKILL: {lost}");
    println!("  and after SIGSTOP, while the producer stayed stopped: {lost_stopped}");
    println!("  at each message (SIGKILL+SIGSTOP): {hits}");
    println!("  {went_on} producers went on, and the reader was told of {expired} ends of leases");
    println!("  {tally:?}");
    println!("  the reader's process after {} rounds: {first}", AT_ONCE.max(rounds / 10));
    println!("  and after all: {last}");
    hits.check();
    assert_eq!(tally.wrong, 0, "parts are served wrong");
    assert!(*expired > 0 && lost_stopped.count() > 0 && tally.late > 0, "not everything was tried");
    last.check(&first);
}

impl Survivor {
    /// Runs all of these rounds, until all sessions are over.
    fn all(&mut self, mut plans: VecDeque<(u64, Plan)>) {
        while !plans.is_empty() || !self.rounds.is_empty() {
            while self.rounds.len() < AT_ONCE
                && let Some((number, plan)) = plans.pop_front()
            {
                self.begin(number, plan);
            }
            self.turn();
            self.at.reader.wait(clock::within(Duration::from_millis(2)));
        }
        assert_eq!((self.at.free.len(), self.at.reader.in_flight()), (SLOTS, 0));
        // Lanes of dead peers are closed meanwhile.
        let until = clock::within(LEASE / 4);
        while clock::now() < until {
            self.at.reader.poll();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn begin(&mut self, number: u64, plan: Plan) {
        let process = Process::start(&["produce", &number.to_string(), &plan.argument()]);
        self.rounds.push(Round {
            number,
            plan,
            process,
            taker: None,
            since: Instant::now(),
            step: Step::Starts,
            under_way: Vec::new(),
            taken: Vec::new(),
            expired: 0,
            died: None,
        });
    }

    fn turn(&mut self) {
        for round in &mut self.rounds {
            round.notice();
        }
        let at = &mut self.at;
        at.reader.poll();
        while let Some(ReaderEvent::Lost { peer, .. }) = at.reader.next_event() {
            let of = |round: &&mut Round| round.taker.as_ref().is_some_and(|taker| taker.peer.id() == peer);
            self.rounds.iter_mut().find(of).unwrap().lost(at, &mut self.measured);
        }
        while let Some((taking, event)) = at.reader.next_taking_event() {
            let mut takers = self.rounds.iter_mut().filter_map(|round| round.taker.as_mut());
            let taker = takers.find(|taker| taker.peer.id() == taking.peer()).unwrap();
            taker.event(at, taking, &event);
        }
        while let Some(mut done) = at.reader.next_done() {
            let mut takers = self.rounds.iter_mut().filter_map(|round| round.taker.as_mut());
            assert!(takers.any(|taker| taker.done(at, &mut done)));
        }
        for round in &mut self.rounds {
            round.next(at, &mut self.measured);
        }
        for round in self.rounds.extract_if(.., |round| round.step == Step::Over) {
            self.measured.tally += round.taker.unwrap().tally;
        }
    }
}

impl Round {
    fn go(&mut self, step: Step) {
        (self.step, self.since) = (step, Instant::now());
    }

    /// Looks whether the producer is dead.
    fn notice(&mut self) {
        let state = self.process.state();
        if state != State::Running && self.step == Step::Runs {
            assert_eq!(state == State::Killed, self.plan.fate == Fate::Killed, "{:?}", self.plan);
            let taker = self.taker.as_ref().unwrap();
            (self.under_way, self.taken) = (taker.batches(), taker.takings());
            self.expired = taker.tally.expired;
            self.go(Step::Dies);
            self.died = Some(self.since);
        }
    }

    /// The session has ended: nothing is taken any more.
    fn lost(&mut self, at: &mut Destination, measured: &mut Measured) {
        // The connection ends a moment before the process counts as ended.
        let until = Instant::now() + BOUND;
        while self.died.is_none() {
            assert!(Instant::now() < until, "a producer that lives is lost: {:?}", self.plan);
            self.notice();
        }
        let (died, taker) = (self.died.unwrap(), self.taker.as_mut().unwrap());
        match (self.plan.fate, self.step) {
            (Fate::Killed, _) => {
                measured.lost.add(died.elapsed());
                assert!(died.elapsed() <= BOUND, "lost after {:?}", died.elapsed());
            }
            (_, Step::Ends) => measured.lost.add(self.since.elapsed()),
            _ => measured.lost_stopped.add(died.elapsed()),
        }
        for taking in taker.takings() {
            assert_eq!(at.reader.blocks(&taking, 0..u32::MAX), []);
            let gone = at.reader.give_up(&taking, GiveUpReason::ClientGone);
            assert!(matches!(gone, Err(TakeRequestError::PeerGone { .. })), "{gone:?}");
        }
        let gone = at.reader.take(&taker.peer, request(self.number, 0), Class::Urgent, LEASE);
        assert!(matches!(gone, Err(TakeRequestError::PeerGone { .. })), "{gone:?}");
        taker.forget_all();
        // They are refused: the peer is gone.
        taker.read_late(at);
        if self.step != Step::Dies {
            self.step = Step::Lost;
        }
    }

    fn next(&mut self, at: &mut Destination, measured: &mut Measured) {
        let elapsed = self.since.elapsed();
        assert!(elapsed < LIMIT, "{:?} takes too long: {:?}", self.step, self.plan);
        if self.step == Step::Starts {
            if let Some(line) = self.process.line() {
                let address: Address = line.parse().unwrap();
                let peer = at.reader.connect(&address, key()).unwrap();
                self.taker = Some(Taker::new(peer, self.number));
                self.go(Step::Runs);
            }
            return;
        }
        let taker = self.taker.as_mut().unwrap();
        taker.take(at);
        taker.turn(at);
        taker.read_late(at);
        match self.step {
            Step::Runs => {
                if let Moment::After(time) = self.plan.moment
                    && elapsed >= time
                {
                    self.process.signal(self.plan.signal());
                }
            }
            Step::Dies => self.dies(at, measured, elapsed),
            Step::Back => match self.plan.fate {
                Fate::Continued if elapsed >= LEASE + LEASE / 4 => {
                    self.process.go_on(false);
                    self.go(Step::GoesOn);
                }
                Fate::StoppedThenKilled => self.kill(),
                // The session ends by itself.
                Fate::Killed | Fate::Continued | Fate::ContinuedLate => {}
            },
            Step::GoesOn => {
                let open = taker.takings();
                if self.taken.iter().all(|taking| !open.contains(taking)) {
                    measured.went_on += 1;
                    measured.expired += taker.tally.expired - self.expired;
                    self.kill();
                }
            }
            Step::Lost => {
                if taker.batches().is_empty() {
                    if self.process.state() == State::Stopped {
                        self.process.signal(Signal::KILL);
                    }
                    if self.process.state() == State::Killed {
                        self.go(Step::Over);
                    }
                }
            }
            Step::Starts | Step::Ends | Step::Over => {}
        }
    }

    /// Looks whether the slots are back that were under way at the death.
    fn dies(&mut self, at: &Destination, measured: &mut Measured, elapsed: Duration) {
        let taker = self.taker.as_ref().unwrap();
        let left = taker.batches().iter().filter(|&batch| self.under_way.contains(batch)).count();
        assert!(left == 0 || elapsed <= BOUND, "slots are not back: {:?}", self.plan);
        if left > 0 {
            return;
        }
        measured.hits.add(&self.plan);
        measured.under_way += u32::from(!self.under_way.is_empty());
        if self.plan.fate == Fate::Killed {
            measured.killed.add(elapsed);
        } else {
            measured.stopped.add(elapsed);
        }
        let lost = at.reader.peer_stats(&taker.peer).is_none();
        // The time goes on, for the time of the stop counts.
        self.step = if lost { Step::Lost } else { Step::Back };
    }

    /// Kills a producer that is stopped, or goes on.
    fn kill(&mut self) {
        if self.process.state() == State::Stopped {
            self.process.signal(Signal::CONT);
        }
        self.process.signal(Signal::KILL);
        self.go(Step::Ends);
    }
}
