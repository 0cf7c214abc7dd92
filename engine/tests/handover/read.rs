//! The reader: it takes one request after another, and reads each part as soon as it is told of it.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use kvrail::core::error::PageError;
use kvrail::core::plan::PlanRef;
use kvrail::layouts::{Plan, Selection};
use kvrail::session::handover::{Block, Class, EndReason, RequestId, TakingEvent, WHOLE_PAGE};
use kvrail::{Address, Config, KvLayout, Peer, Reader, Ready, Slot, Taking, clock, memory, shm};

use super::{AT_ONCE, BLOCKS, LAYERS, MLA, Mla, PART, key, pattern};

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) served: u64,
    /// Of these, parts of pages that had not finished when the reader was told of the part.
    pub(crate) growing: u64,
    pub(crate) missed: u64,
    pub(crate) wrong: u64,
    pub(crate) done: u64,
    pub(crate) aborted: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, growing, missed, wrong, done, aborted } = self;
        write!(
            f,
            "{served} parts ({growing} of pages that were growing), every byte compared: {wrong} wrong, {missed} \
             missed; {done} requests done, {aborted} aborted"
        )
    }
}

/// A request that is taken.
struct Request {
    /// Layers of each block that are read, or under way.
    next: Vec<u32>,
    under_way: usize,
    complete: bool,
}

/// A part under way.
struct Part {
    taking: Taking,
    block: Block,
    layer: u32,
}

struct Parts {
    reader: Reader<shm::ShmRails>,
    peer: Peer,
    plans: Vec<PlanRef>,
    slots: Vec<Slot>,
    requests: HashMap<Taking, Request>,
    flying: HashMap<u64, Vec<Part>>,
    batches: u64,
    taken: u64,
    tally: Tally,
}

/// Reads until `parts` parts were served, or until `limit`.
pub(crate) fn parts(address: &Address, parts: u64, limit: Instant) -> Tally {
    let mut reader = Reader::start(MLA, shm::rails(2).unwrap(), Config::default()).unwrap();
    let slots = reader.register(memory::leaked(256 * MLA.page_bytes() as usize).unwrap()).unwrap().collect();
    let page = <Mla as KvLayout>::GEOMETRY;
    let plan = |layer| Plan::between(page, page, Selection::ALL.layers(layer, 1)).unwrap();
    let plans = (0..u64::from(LAYERS)).map(|layer| reader.add_plan(&plan(layer)).unwrap()).collect();
    let peer = reader.connect(address, key()).unwrap();
    let mut this = Parts {
        reader,
        peer,
        plans,
        slots,
        requests: HashMap::new(),
        flying: HashMap::new(),
        batches: 0,
        taken: 0,
        tally: Tally::default(),
    };
    while this.tally.served < parts && Instant::now() < limit {
        this.take();
        this.reader.poll();
        assert!(this.reader.next_event().is_none(), "the producer is lost");
        this.learn();
        this.finish();
        this.reader.wait(clock::within(Duration::from_millis(1)));
    }
    this.tally
}

impl Parts {
    /// Takes more requests.
    fn take(&mut self) {
        while self.requests.len() < AT_ONCE as usize {
            self.taken += 1;
            let request = RequestId(self.taken.into());
            let wait = Duration::from_secs(60);
            let taking = self.reader.take(&self.peer, request, Class::Urgent, wait).unwrap();
            self.requests.insert(taking, Request { next: Vec::new(), under_way: 0, complete: false });
        }
    }

    /// Takes in what has happened to the requests, and reads what is ready.
    fn learn(&mut self) {
        while let Some((taking, event)) = self.reader.next_taking_event() {
            match event {
                TakingEvent::Taken { .. } => {}
                TakingEvent::Grown { places, .. } | TakingEvent::Ready { places, .. } => {
                    self.read(taking, places.start);
                }
                TakingEvent::Complete { .. } => {
                    if let Some(request) = self.requests.get_mut(&taking) {
                        request.complete = true;
                    }
                    self.read(taking, 0);
                    self.settle(taking);
                }
                TakingEvent::Ended { reason: EndReason::Aborted, .. } => {
                    self.tally.aborted += 1;
                    self.requests.remove(&taking);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads the parts that are ready of the blocks from place `first` on.
    fn read(&mut self, taking: Taking, first: u32) {
        let blocks = self.reader.blocks(&taking, 0..BLOCKS);
        let Some(request) = self.requests.get_mut(&taking) else { return };
        request.next.resize(blocks.len(), 0);
        let Some(mut batch) = self.reader.batch() else { return };
        let mut parts = Vec::new();
        for (block, next) in blocks.iter().zip(&mut request.next).skip(first as usize) {
            let ready = if block.ready == WHOLE_PAGE { LAYERS } else { block.ready };
            while *next < ready
                && let Some(slot) = self.slots.pop()
            {
                let page = self.peer.block(block).unwrap().needs(*next + 1);
                let read = batch.read_with(page, slot, self.plans[*next as usize]);
                read.map_err(|(error, _)| error).unwrap();
                parts.push(Part { taking, block: *block, layer: *next });
                *next += 1;
            }
        }
        if parts.is_empty() {
            return;
        }
        request.under_way += parts.len();
        self.batches += 1;
        batch.set_tag(self.batches);
        self.flying.insert(self.batches, parts);
        self.reader.submit(batch, clock::within(Duration::from_secs(20))).unwrap();
    }

    /// Takes in the batches that are done.
    fn finish(&mut self) {
        while let Some(mut done) = self.reader.next_done() {
            let parts = self.flying.remove(&done.tag()).unwrap();
            for page in done.pages() {
                let Part { block, layer, .. } = &parts[page.index];
                match page.result {
                    Ok(()) => {
                        let bytes = &page.slot.bytes().unwrap()[*layer as usize * PART..][..PART];
                        self.tally.served += 1;
                        self.tally.wrong += u64::from(!pattern::is(bytes, block.expected.tag, *layer));
                        self.tally.growing += u64::from(Ready(block.ready) != Ready::WHOLE);
                    }
                    Err(PageError::Miss(_)) => self.tally.missed += 1,
                    Err(error) => panic!("{error}"),
                }
                self.slots.push(page.slot);
            }
            let Some(&Part { taking, .. }) = parts.first() else { continue };
            if let Some(request) = self.requests.get_mut(&taking) {
                request.under_way -= parts.len();
                self.read(taking, 0);
                self.settle(taking);
            }
        }
    }

    /// Says that a request is done, if it is.
    fn settle(&mut self, taking: Taking) {
        let Some(request) = self.requests.get(&taking) else { return };
        let read = request.next.len() == BLOCKS as usize && request.next.iter().all(|&next| next == LAYERS);
        if request.complete && request.under_way == 0 && read {
            // The owner may have aborted it meanwhile.
            self.tally.done += u64::from(self.reader.done(&taking).is_ok());
            self.requests.remove(&taking);
        }
    }
}
