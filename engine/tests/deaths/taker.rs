//! What a reader takes from one producer.

use std::collections::{HashMap, VecDeque};
use std::ops::AddAssign;
use std::time::Duration;

use kvrail::core::error::PageError;
use kvrail::core::plan::PlanRef;
use kvrail::layouts::{Plan, Selection};
use kvrail::session::handover::{Block, Class, EndReason, GiveUpReason, TakingEvent, WHOLE_PAGE};
use kvrail::{Batch, Config, Done, KvLayout, Peer, Reader, Slot, Taking, clock, memory, shm};

use super::owner::request;
use super::rng::Rng;
use super::{BLOCKS, LAYERS, LEASE, MLA, Mla, PAGE, PART, REQUESTS, pattern};

/// How long a producer waits for a request that it does not know.
const WAIT: Duration = Duration::from_secs(2);
/// Blocks of requests that have ended, of which the newest are read again.
const KEPT: usize = 64;

/// A reader and its slots.
pub(crate) struct Destination {
    pub(crate) reader: Reader<shm::ShmRails>,
    plans: Vec<PlanRef>,
    /// Slots take turns, so that all of them are used soon.
    pub(crate) free: VecDeque<Slot>,
    batches: u64,
}

impl Destination {
    pub(crate) fn new(slots: usize) -> Self {
        let mut reader = Reader::start(MLA, shm::rails(1).unwrap(), Config::default()).unwrap();
        let mut free: VecDeque<_> = reader.register(memory::leaked(slots * PAGE).unwrap()).unwrap().collect();
        // Now, so that the process does not grow when a slot is used for the first time.
        free.iter_mut().for_each(|slot| slot.bytes_mut().unwrap().fill(1));
        let page = <Mla as KvLayout>::GEOMETRY;
        let plan = |layer| Plan::between(page, page, Selection::ALL.layers(layer, 1)).unwrap();
        let plans = (0..u64::from(LAYERS)).map(|layer| reader.add_plan(&plan(layer)).unwrap()).collect();
        Self { reader, plans, free, batches: 0 }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) served: u64,
    /// Parts that were served and are not what they were when their request was handed over.
    pub(crate) wrong: u64,
    pub(crate) missed: u64,
    /// Parts that were not read: the peer or the path to it was gone, or the deadline passed.
    pub(crate) failed: u64,
    /// READs of blocks whose hand-over was over, and how many of these were served all the same.
    pub(crate) late: u64,
    pub(crate) late_served: u64,
    pub(crate) done: u64,
    pub(crate) given_up: u64,
    pub(crate) aborted: u64,
    pub(crate) expired: u64,
    /// Requests that this side did not get.
    pub(crate) not_taken: u64,
    pub(crate) ran_out: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.served += other.served;
        self.wrong += other.wrong;
        self.missed += other.missed;
        self.failed += other.failed;
        self.late += other.late;
        self.late_served += other.late_served;
        self.done += other.done;
        self.given_up += other.given_up;
        self.aborted += other.aborted;
        self.expired += other.expired;
        self.not_taken += other.not_taken;
        self.ran_out += other.ran_out;
    }
}

/// A request that is taken.
struct Request {
    place: u32,
    /// Layers of each block that are read, or under way.
    next: Vec<u32>,
    blocks: Vec<Block>,
    under_way: usize,
    taken: bool,
    complete: bool,
    /// It is given up when so many layers of its first block are read.
    gives_up_at: Option<u32>,
}

/// A part under way.
struct Part {
    taking: Option<Taking>,
    block: Block,
    layer: u32,
}

/// The requests that are taken from one producer: always all of [`REQUESTS`].
pub(crate) struct Taker {
    pub(crate) peer: Peer,
    round: u64,
    rng: Rng,
    requests: HashMap<Taking, Request>,
    flying: HashMap<u64, Vec<Part>>,
    /// Blocks of requests that have ended.
    over: VecDeque<Block>,
    pub(crate) tally: Tally,
}

impl Taker {
    pub(crate) fn new(peer: Peer, round: u64) -> Self {
        let (requests, flying) = (HashMap::new(), HashMap::new());
        let (rng, over, tally) = (Rng::new(round), VecDeque::new(), Tally::default());
        Self { peer, round, rng, requests, flying, over, tally }
    }

    /// The requests that are taken now.
    pub(crate) fn takings(&self) -> Vec<Taking> {
        self.requests.keys().copied().collect()
    }

    /// The batches under way.
    pub(crate) fn batches(&self) -> Vec<u64> {
        self.flying.keys().copied().collect()
    }

    /// Takes the requests that are not taken.
    pub(crate) fn take(&mut self, at: &mut Destination) {
        for place in 0..REQUESTS {
            if self.requests.values().any(|request| request.place == place) {
                continue;
            }
            let class = if place == 0 { Class::Urgent } else { Class::Background };
            let Ok(taking) = at.reader.take(&self.peer, request(self.round, place), class, WAIT) else {
                return;
            };
            let gives_up_at = (self.rng.below(4) == 0).then(|| 1 + self.rng.below(u64::from(LAYERS)) as u32);
            let (next, blocks, taken) = (Vec::new(), Vec::new(), false);
            let request = Request { place, next, blocks, under_way: 0, taken, complete: false, gives_up_at };
            self.requests.insert(taking, request);
        }
    }

    /// Takes in what has happened to a request.
    pub(crate) fn event(&mut self, at: &mut Destination, taking: Taking, event: &TakingEvent) {
        match event {
            TakingEvent::Grown { .. } | TakingEvent::Ready { .. } => {}
            TakingEvent::Taken { .. } => {
                if let Some(request) = self.requests.get_mut(&taking) {
                    request.taken = true;
                }
            }
            TakingEvent::Complete { .. } => {
                if let Some(request) = self.requests.get_mut(&taking) {
                    request.complete = true;
                }
            }
            TakingEvent::LeaseRanOut { .. } => self.tally.ran_out += 1,
            TakingEvent::Ended { reason, .. } => {
                let taken = self.requests.get(&taking).is_some_and(|request| request.taken);
                match reason {
                    _ if !taken => self.tally.not_taken += 1,
                    EndReason::Aborted => self.tally.aborted += 1,
                    EndReason::Expired => self.tally.expired += 1,
                    reason => panic!("{reason}"),
                }
                self.forget(taking);
            }
            other => panic!("{other:?}"),
        }
        self.read(at, taking);
    }

    /// Reads what is ready, and says what there is to say about the requests.
    pub(crate) fn turn(&mut self, at: &mut Destination) {
        for taking in self.takings() {
            self.read(at, taking);
            self.settle(at, taking);
        }
    }

    /// Reads the parts of a request that are ready.
    fn read(&mut self, at: &mut Destination, taking: Taking) {
        let Some(request) = self.requests.get_mut(&taking) else { return };
        let blocks = at.reader.blocks(&taking, 0..BLOCKS);
        let Some(batch) = at.reader.batch().filter(|_| !blocks.is_empty()) else { return };
        request.next.resize(blocks.len(), 0);
        let mut parts = Vec::new();
        for (block, next) in blocks.iter().zip(&mut request.next) {
            let ready = if block.ready == WHOLE_PAGE { LAYERS } else { block.ready };
            for layer in *next..ready {
                parts.push(Part { taking: Some(taking), block: *block, layer });
            }
            *next = ready;
        }
        request.blocks = blocks;
        request.under_way += parts.len();
        self.submit(at, batch, parts);
    }

    /// Reads blocks of requests that have ended once more.
    pub(crate) fn read_late(&mut self, at: &mut Destination) {
        let Some(batch) = at.reader.batch() else { return };
        let blocks = std::mem::take(&mut self.over);
        let parts: Vec<_> = blocks.into_iter().map(|block| Part { taking: None, block, layer: 0 }).collect();
        self.tally.late += parts.len() as u64;
        self.submit(at, batch, parts);
    }

    fn submit(&mut self, at: &mut Destination, mut batch: Batch<'static>, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        for part in &parts {
            let page = self.peer.block(&part.block).unwrap().needs(part.layer + 1);
            let slot = at.free.pop_front().expect("as many slots as parts at a time");
            batch.read_with(page, slot, at.plans[part.layer as usize]).map_err(|(error, _)| error).unwrap();
        }
        at.batches += 1;
        batch.set_tag(at.batches);
        match at.reader.submit(batch, clock::within(LEASE)) {
            Ok(_) => drop(self.flying.insert(at.batches, parts)),
            Err(mut rejected) => {
                // The peer is gone. Its slots come back at once.
                at.free.extend(rejected.batch.clear());
                self.tally.failed += parts.len() as u64;
            }
        }
    }

    /// Takes in a batch that is done, if it is one of this producer's.
    pub(crate) fn done(&mut self, at: &mut Destination, done: &mut Done<'static>) -> bool {
        let Some(parts) = self.flying.remove(&done.tag()) else { return false };
        for page in done.pages() {
            let Part { taking, block, layer } = &parts[page.index];
            match page.result {
                Ok(()) => {
                    let bytes = &page.slot.bytes().unwrap()[*layer as usize * PART..][..PART];
                    self.tally.served += 1;
                    self.tally.late_served += u64::from(taking.is_none());
                    self.tally.wrong += u64::from(!pattern::is(bytes, block.expected.tag, *layer));
                }
                Err(PageError::Miss(_)) => self.tally.missed += 1,
                Err(_) => self.tally.failed += 1,
            }
            at.free.push_back(page.slot);
        }
        for Part { taking, .. } in &parts {
            if let Some(request) = taking.and_then(|taking| self.requests.get_mut(&taking)) {
                request.under_way -= 1;
            }
        }
        true
    }

    /// Says that a request is done, or given up, if it is.
    fn settle(&mut self, at: &mut Destination, taking: Taking) {
        let Some(request) = self.requests.get(&taking) else { return };
        let layers = request.next.iter().copied().min().unwrap_or_default();
        // Calls fail if the producer has ended it: that is told by an event.
        if request.gives_up_at.is_some_and(|at| layers >= at) {
            let given_up = at.reader.give_up(&taking, GiveUpReason::ClientGone);
            if given_up.is_ok() {
                self.tally.given_up += 1;
                self.forget(taking);
            }
        } else if request.complete && request.under_way == 0 && at.reader.done(&taking).is_ok() {
            self.tally.done += 1;
            self.requests.remove(&taking);
        }
    }

    /// Forgets all requests, since the session has ended.
    pub(crate) fn forget_all(&mut self) {
        for taking in self.takings() {
            self.forget(taking);
        }
    }

    fn forget(&mut self, taking: Taking) {
        let Some(request) = self.requests.remove(&taking) else { return };
        self.over.extend(request.blocks.iter().filter(|block| block.ready > 0));
        let excess = self.over.len().saturating_sub(KEPT);
        self.over.drain(..excess);
    }
}
