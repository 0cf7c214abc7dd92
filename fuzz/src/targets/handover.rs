//! A producer and the readers of two sessions, which hand requests over and say so in bytes. Some
//! messages are any bytes that the input has. Both sides must take what the other side's state
//! machine says, must refuse or survive everything else, and every hand-over that was opened ends
//! exactly once.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_session::handover::{
    Block, Class, GiveUpReason, HandoverConfig, HandoverId, HandoverMessage, HandoverNumber,
    HandoverProtocolError, Handovers, PoolId, RequestId, SessionId, Takings, TakingsConfig,
};
use kvrail_session::{Message, parse};

use crate::bytes::Bytes;

/// One session: its number at the producer, and the reader's side.
struct Session {
    id: SessionId,
    takings: Takings,
    /// The numbers of the reader's takings.
    numbers: Vec<HandoverNumber>,
    /// Whether one side got a message that the other did not say.
    forged: bool,
}

struct World {
    producer: Handovers,
    sessions: Vec<Session>,
    sessions_so_far: u64,
    now: Instant,
    open: BTreeSet<HandoverId>,
}

/// What the peer gets of a message that was said.
fn over_the_wire(message: HandoverMessage) -> HandoverMessage {
    let mut bytes = Vec::new();
    let said = Message::Handover(message);
    said.encode(&mut bytes);
    let got = match parse(&bytes) {
        Ok(Message::Handover(got)) => got,
        other => panic!("{other:?} of {said:?}"),
    };
    let mut again = Vec::new();
    Message::Handover(got.clone()).encode(&mut again);
    assert_eq!(again, bytes);
    got
}

fn block(slot: u32, ready: u32) -> Block {
    let generation = Generation(u64::from(slot) << 1 | 1);
    let expected = EntryValue { generation, ready: Ready::NONE, tag: KeyTag(u128::from(slot)) };
    Block { pool: PoolId(slot % 3), slot, expected, ready }
}

impl World {
    fn new() -> Self {
        let config = HandoverConfig { max_open: 8, max_blocks: 3000, max_waiting: 3, ..Default::default() };
        let producer = Handovers::new(config).expect("a lease that a reader can keep");
        let mut world = Self {
            producer,
            sessions: Vec::new(),
            sessions_so_far: 0,
            now: Instant::now(),
            open: BTreeSet::new(),
        };
        for _ in 0..2 {
            let session = world.new_session();
            world.sessions.push(session);
        }
        world
    }

    fn new_session(&mut self) -> Session {
        self.sessions_so_far += 1;
        let id = SessionId(self.sessions_so_far);
        self.producer.add_session(id);
        let config = TakingsConfig { max_takings: 16, max_blocks: 2500, ..Default::default() };
        Session { id, takings: Takings::new(config), numbers: Vec::new(), forged: false }
    }

    /// Ends a session, and begins another in its place.
    fn lose(&mut self, place: usize) {
        self.producer.session_lost(self.sessions[place].id, self.now);
        self.sessions[place] = self.new_session();
    }

    /// Looks at what a side made of a message.
    fn took(&mut self, place: usize, result: Result<(), HandoverProtocolError>) {
        if let Err(error) = result {
            assert!(!error.to_string().is_empty());
            // A reader that takes and takes, and fetches nothing, is cut off.
            let allowed =
                self.sessions[place].forged || matches!(error, HandoverProtocolError::Unread { .. });
            assert!(allowed, "{error}");
            self.lose(place);
        }
    }

    /// Brings a reader's next message to the producer. Returns whether there was one.
    fn carry_to_producer(&mut self, place: usize) -> bool {
        let session = &mut self.sessions[place];
        let Some(message) = session.takings.next_message(self.now) else { return false };
        let result = self.producer.received(session.id, &over_the_wire(message), self.now);
        self.took(place, result);
        true
    }

    /// Brings the producer's next message to a reader. Returns whether there was one.
    fn carry_to_reader(&mut self, place: usize) -> bool {
        let session = &mut self.sessions[place];
        let Some(message) = self.producer.next_message(session.id, self.now) else { return false };
        let result = session.takings.received(over_the_wire(message), self.now);
        self.took(place, result);
        true
    }

    fn fetch_outcomes(&mut self) {
        while let Some(ended) = self.producer.next_outcome() {
            assert!(self.open.remove(&ended.id), "a hand-over ended that was not open");
        }
    }

    /// A step of the pages' owner.
    fn produce(&mut self, step: u8, input: &mut Bytes<'_>) {
        let request = RequestId((input.byte() % 5).into());
        let id = self.producer.of_request(request);
        match (step, id) {
            (0, _) => {
                if let Ok(id) = self.producer.open(request, self.now) {
                    assert!(self.open.insert(id));
                }
            }
            (1, Some(id)) => {
                let (first, count) = (u32::from(input.short()), u32::from(input.byte()) * 9);
                let ready = input.byte().into();
                let blocks: Vec<_> = (first..first + count).map(|slot| block(slot, ready)).collect();
                let _ = self.producer.append(id, &blocks);
            }
            (2, Some(id)) => {
                let (first, count) = (u32::from(input.short()), u32::from(input.short()));
                let _ = self.producer.set_ready(id, first..first + count, input.byte().into());
            }
            (3, Some(id)) => drop(self.producer.complete(id)),
            // Its lease may have ended by now.
            (4, Some(id)) => drop(self.producer.abort(id, self.now)),
            (4, None) => drop(self.producer.reject(request, self.now)),
            _ => {}
        }
    }

    /// A step of a reader.
    fn read(&mut self, place: usize, step: u8, input: &mut Bytes<'_>) {
        let session = &mut self.sessions[place];
        let byte = input.byte();
        if step == 0 {
            let class = if byte & 0x80 == 0 { Class::Urgent } else { Class::Background };
            let wait = Duration::from_millis(input.short().into());
            let taken = session.takings.take(RequestId((byte & 0x7f).into()), class, wait, self.now);
            session.numbers.extend(taken.ok());
            return;
        }
        let Some(&number) = session.numbers.get(usize::from(byte)) else { return };
        let _ = match step {
            1 => session.takings.done(number),
            _ => session.takings.give_up(number, GiveUpReason::Other(byte.into())),
        };
    }

    /// Gives one side a message that the other side did not say.
    fn forge(&mut self, place: usize, to_reader: bool, input: &mut Bytes<'_>) {
        let Ok(Message::Handover(message)) = parse(input.sized()) else { return };
        let session = &mut self.sessions[place];
        session.forged = true;
        let result = if to_reader {
            session.takings.received(message, self.now)
        } else {
            self.producer.received(session.id, &message, self.now)
        };
        self.took(place, result);
    }

    /// All that the two sides of a session have to say is said: they agree.
    fn settle(&mut self, place: usize) {
        while self.carry_to_producer(place) || self.carry_to_reader(place) {}
        let Session { id: session, takings, numbers, forged } = &mut self.sessions[place];
        while takings.next_event().is_some() {}
        if *forged {
            return;
        }
        for &number in &*numbers {
            let Some(id) = self.producer.taken_by(*session, number) else { continue };
            let (theirs, ours) = (self.producer.blocks(id).expect("it is open"), takings.blocks(number));
            let same = |(a, b): (&Block, &Block)| {
                (a.pool, a.slot) == (b.pool, b.slot)
                    && (a.expected.generation, a.expected.tag) == (b.expected.generation, b.expected.tag)
                    && a.ready <= b.ready
            };
            assert!(theirs.len() == ours.len() && theirs.iter().zip(ours).all(same));
        }
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        let step = input.byte();
        let place = usize::from(step >> 7);
        match step & 0x1f {
            0 => self.now += Duration::from_millis(u64::from(input.short()) * 4),
            step @ 1..=5 => self.produce(step - 1, input),
            step @ 6..=8 => self.read(place, step - 6, input),
            9..=12 => drop(self.carry_to_producer(place)),
            13..=16 => drop(self.carry_to_reader(place)),
            17..=19 => self.settle(place),
            step @ 20..=22 => self.forge(place, step == 20, input),
            23 => self.lose(place),
            24 => self.fetch_outcomes(),
            _ => {
                self.producer.tick(self.now);
                self.sessions[place].takings.tick(self.now);
            }
        }
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    let mut world = World::new();
    while !input.is_empty() {
        world.step(&mut input);
    }
    (0..world.sessions.len()).for_each(|place| world.settle(place));
    world.producer.stop(world.now);
    world.fetch_outcomes();
    assert!(world.open.is_empty(), "a hand-over never ended");
    assert_eq!((world.producer.open_count(), world.producer.waiting_count()), (0, 0));
    // A number that no reader has used.
    let number = HandoverNumber(NonZeroU32::MAX);
    let session = world.sessions[0].id;
    if !world.sessions[0].forged {
        let unused = world.producer.received(session, &HandoverMessage::Done { number }, world.now);
        assert!(matches!(unused, Err(HandoverProtocolError::NeverUsed { .. })));
    }
}
