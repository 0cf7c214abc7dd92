//! One schedule: a producer, two readers, the connections between them, and the time.

use std::time::{Duration, Instant};

use super::super::super::*;
use super::super::rng::SplitMix64;
use super::memory::Broken;
use super::owner::Producer;
use super::pulls::Puller;

/// What happens besides messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Messages are late.
    Calm,
    /// Sides die as well, readers are suspended, and the clock jumps.
    Stormy,
}

/// The longest that most messages are under way, and the longest that any is, in milliseconds.
const DELAY: u64 = 400;
const MAX_DELAY: u64 = 4000;

pub(super) struct World {
    rng: SplitMix64,
    now: Instant,
    weather: Weather,
    broken: Broken,
    producer: Producer,
    readers: [Puller; 2],
    /// Sessions that have ended, each with the time at which the producer notices.
    lost: Vec<(Instant, SessionId)>,
    sessions: u64,
    epochs: u64,
    /// Parts that readers accepted, and those of them that were not the page's.
    pub(super) accepted: u32,
    pub(super) wrong: u32,
}

impl World {
    pub(super) fn new(seed: u64, weather: Weather, broken: Broken) -> Self {
        let mut producer = Producer::new(1, broken);
        let readers = [1, 2].map(|session| {
            producer.handovers.add_session(SessionId(session));
            Puller::new(SessionId(session), Duration::ZERO)
        });
        Self {
            rng: SplitMix64::new(seed),
            now: Instant::now() + Duration::from_secs(1000),
            weather,
            broken,
            producer,
            readers,
            lost: Vec::new(),
            sessions: 2,
            epochs: 1,
            accepted: 0,
            wrong: 0,
        }
    }

    pub(super) fn step(&mut self) {
        self.pass_time();
        self.producer.step(&mut self.rng, self.now);
        for which in 0..self.readers.len() {
            self.reader_step(which);
            let messages = self.rng.up_to(4) as usize;
            self.send(which, messages, true);
        }
        if self.weather == Weather::Stormy && self.rng.up_to(15) == 0 {
            let which = self.rng.up_to(1) as usize;
            self.trouble(which);
        }
        self.notice_losses();
        self.deliver();
        self.producer.check(self.now);
    }

    fn pass_time(&mut self) {
        let millis = match (self.rng.up_to(15), self.weather) {
            (0, Weather::Stormy) if self.rng.up_to(9) == 0 => 30_000 + self.rng.up_to(60_000),
            (0..=2, _) => self.rng.up_to(6_000),
            _ => self.rng.up_to(300),
        };
        self.now += Duration::from_millis(millis);
        for reader in &mut self.readers {
            if reader.asleep_until.is_some() {
                reader.behind += Duration::from_millis(millis);
            }
            if reader.asleep_until.is_some_and(|at| at <= self.now) {
                reader.asleep_until = None;
            }
        }
    }

    fn reader_step(&mut self, which: usize) {
        let reader = &mut self.readers[which];
        if reader.asleep_until.is_none() {
            let now = self.now - reader.behind;
            let (accepted, wrong) = reader.step(&mut self.rng, &self.producer.memory, now);
            self.accepted += accepted;
            self.wrong += wrong;
        }
    }

    /// A side dies and starts again, or is suspended.
    fn trouble(&mut self, which: usize) {
        match self.rng.up_to(9) {
            0..=1 => self.restart_reader(which, true),
            2 => {
                self.epochs += 1;
                self.producer = Producer::new(self.epochs, self.broken);
                self.lost.clear();
                self.restart_reader(0, false);
                self.restart_reader(1, false);
            }
            3..=5 => {
                let millis = self.rng.up_to(45_000);
                self.readers[which].asleep_until = Some(self.now + Duration::from_millis(millis));
            }
            _ => {}
        }
    }

    /// A reader begins again, with a new session. What was under way is lost.
    fn restart_reader(&mut self, which: usize, tell: bool) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let reader = &mut self.readers[which];
        if tell {
            // A part of what it sent may still arrive.
            let noticed = self.now + Duration::from_millis(self.rng.up_to(8_000));
            self.lost.push((noticed, reader.session));
        }
        reader.drop_reads();
        *reader = Puller::new(session, reader.behind);
        self.producer.handovers.add_session(session);
    }

    fn notice_losses(&mut self) {
        let (producer, now) = (&mut self.producer, self.now);
        self.lost.retain(|&(at, session)| {
            if at <= now {
                producer.lose(session, now);
            }
            at > now
        });
    }

    /// Each side fetches up to so many messages; their delays are random, their order stays.
    fn send(&mut self, which: usize, messages: usize, slow: bool) {
        let Self { rng, now, producer, readers, .. } = self;
        let reader = &mut readers[which];
        let arrival = |last: Option<Instant>, rng: &mut SplitMix64| {
            let most = if slow && rng.up_to(7) == 0 { MAX_DELAY } else { DELAY };
            let at = *now + Duration::from_millis(rng.up_to(most));
            last.map_or(at, |last| last.max(at))
        };
        for _ in 0..messages {
            let Some(message) = producer.send(reader.session, *now) else { break };
            let at = arrival(reader.to_reader.back().map(|&(at, _)| at), rng);
            reader.to_reader.push_back((at, message));
        }
        for _ in 0..messages {
            if reader.asleep_until.is_some() {
                break;
            }
            let Some(message) = reader.takings.next_message(*now - reader.behind) else { break };
            let at = arrival(reader.to_producer.back().map(|&(at, _)| at), rng);
            reader.to_producer.push_back((at, message));
        }
    }

    fn deliver(&mut self) {
        let Self { now, producer, readers, .. } = self;
        for reader in readers {
            while let Some((_, message)) = reader.to_producer.pop_front_if(|(at, _)| *at <= *now) {
                producer.receive(reader.session, &message, *now);
            }
            while reader.asleep_until.is_none()
                && let Some((_, message)) = reader.to_reader.pop_front_if(|(at, _)| *at <= *now)
            {
                reader.receive(message, producer, *now - reader.behind);
            }
        }
    }

    /// Lets everything arrive, and checks that the readers then know what the producer knows.
    pub(super) fn settle(&mut self) {
        for reader in &mut self.readers {
            reader.asleep_until = None;
        }
        for (_, session) in std::mem::take(&mut self.lost) {
            self.producer.lose(session, self.now);
        }
        self.exchange();
        for reader in &self.readers {
            reader.check_all_arrived(&self.producer);
        }
    }

    /// Lets the sides talk until neither has anything more to say. Between two renewals of both
    /// readers there is such a time, since no message is slow.
    fn exchange(&mut self) {
        loop {
            for which in 0..self.readers.len() {
                self.send(which, usize::MAX, false);
            }
            let silent = |reader: &Puller| reader.to_reader.is_empty() && reader.to_producer.is_empty();
            if self.readers.iter().all(silent) {
                break;
            }
            self.now += Duration::from_millis(DELAY);
            self.deliver();
            self.producer.check(self.now);
        }
        self.readers.iter_mut().for_each(Puller::fetch_events);
    }

    /// Stops the producer, and checks that nothing is left on either side.
    pub(super) fn stop(&mut self) {
        self.producer.handovers.stop(self.now);
        self.producer.check(self.now);
        self.exchange();
        assert!(self.producer.opened.values().all(|opened| !opened.is_open));
        let handovers = &self.producer.handovers;
        assert_eq!((handovers.open_count(), handovers.waiting_count(), handovers.due()), (0, 0, None));
        assert_eq!(handovers.queued_count(), 0);
        for reader in &mut self.readers {
            assert_eq!((reader.takings.open_count(), reader.numbers.len()), (0, 0));
            let later = self.now + Duration::from_secs(60);
            assert_eq!(reader.takings.next_message(later), None);
            assert_eq!((reader.takings.next_event(), reader.takings.due()), (None, None));
        }
    }
}
