//! The same READs through the engine.

use std::time::{Duration, Instant};

use kvrail::core::batch::Batch;
use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{MAX_RAILS, RailIndex};
use kvrail::core::memory::{Slot, SlotRange};
use kvrail::core::remote::{Location, RegionOffer, RemotePage, RemoteRegion, TableOffer};
use kvrail::core::table::{EntryValue, Ready};
use kvrail::core::time::{Nanos, Time};

use super::workload::{BATCH, Null, PAGE, REMOTE, null, state};

/// An engine and its user. The READs of the rails have at most `SGES` pieces.
pub struct Kvrail<const SGES: usize = 1> {
    engine: Engine<'static, Null<SGES>>,
    regions: Vec<RemoteRegion>,
    slots: Vec<Slot>,
    /// Whether batches are filled in bulk; then slots for a batch each, and the pages.
    bulk: bool,
    ranges: Vec<SlotRange>,
    locations: Vec<Location>,
    from_slots: Vec<u32>,
    ready: Vec<Batch<'static>>,
    now: u64,
    peer: usize,
    validated: bool,
    /// Whether pages are apart from each other.
    scattered: bool,
}

impl<const SGES: usize> Kvrail<SGES> {
    /// `PEERS` peers with `lanes` lanes each, spread over the rails. Batches go to the peers in
    /// turn.
    pub fn new<const PEERS: usize, const LANES: usize, const DEPTH: usize>(
        rails: usize,
        lanes: usize,
        validated: bool,
    ) -> Self {
        // A lone lane gets a batch as one chain; several lanes get runs of eight.
        let config = EngineConfig { signal_wrs: 32, ..EngineConfig::DEFAULT };
        let provider = null(rails, LANES, DEPTH);
        let mut engine = Engine::start(state::<PEERS, LANES, DEPTH>(), provider, config).expect("an engine");
        let memory = vec![0_u8; 16 * BATCH * PAGE as usize].leak();
        let slots = engine.register(memory, PAGE).expect("slots").collect();
        let mut regions = Vec::new();
        for _ in 0..PEERS {
            let peer = engine.add_peer().expect("a place");
            let table = TableOffer { base: 0x9000_0000, keys: [8; MAX_RAILS] };
            let offer = RegionOffer {
                base: REMOTE,
                page_bytes: PAGE,
                stride: PAGE,
                slots: 1024,
                keys: [7; MAX_RAILS],
                table: Some(table),
            };
            regions.push(engine.add_region(peer, &offer).expect("a region"));
            for i in 0..lanes {
                let rail = RailIndex((i % rails) as u8);
                let spec = LaneSpec { rail, remote_rail: rail.0, depth: DEPTH as u32 };
                engine.attach(peer, spec, (), Time::ZERO).expect("a place");
            }
        }
        let ready = Vec::with_capacity(16);
        let expected = EntryValue { ready: Ready::WHOLE, ..EntryValue::default() };
        let from_slots: Vec<u32> = (0..BATCH as u32).collect();
        let locations = from_slots.iter().map(|&slot| Location { slot, expected }).collect();
        let (bulk, ranges) = (false, Vec::new());
        Self {
            engine,
            regions,
            slots,
            bulk,
            ranges,
            locations,
            from_slots,
            ready,
            now: 0,
            peer: 0,
            validated,
            scattered: false,
        }
    }

    /// Reads from one peer only. The others stay connected and idle.
    pub fn on_one_peer(mut self) -> Self {
        self.regions.truncate(1);
        self
    }

    /// Reads pages in the order of their slots with 1 to 15 slots between two, instead of pages
    /// side by side.
    pub fn scattered(mut self) -> Self {
        let mut slot = 0;
        for (i, location) in (0..).zip(&mut self.locations) {
            location.slot = slot;
            slot += 2 + i * 7 % 15;
        }
        self.scattered = true;
        self
    }

    /// Fills batches in bulk, and takes results and slots back in bulk.
    pub fn in_bulk(mut self) -> Self {
        let memory = vec![0_u8; 16 * BATCH * PAGE as usize].leak();
        let mut slots = self.engine.register(memory, PAGE).expect("slots");
        self.bulk = true;
        self.ranges = core::iter::from_fn(|| slots.take_range(BATCH)).collect();
        self
    }

    /// `times` times reads `batches` batches, with everything that an application does for a READ:
    /// filling the batch, submitting it, polling, taking the results and the slots back.
    pub fn whole(&mut self, batches: usize, times: usize) -> Duration {
        let start = Instant::now();
        (0..times).for_each(|_| self.read(batches));
        start.elapsed()
    }

    /// The engine alone: submits batches that are ready, `batches` at a time, and polls until they
    /// are done.
    pub fn proper(&mut self, batches: usize, times: usize) -> Duration {
        // All batches of the storage, so that the clock is read seldom.
        const READY: usize = 16;
        let mut left = batches * times;
        let mut spent = Duration::ZERO;
        while left > 0 {
            let now = left.min(READY);
            for _ in 0..now {
                let batch = self.fill();
                self.ready.push(batch);
            }
            let start = Instant::now();
            (0..now.div_ceil(batches)).for_each(|_| self.submit_and_poll(batches));
            spent += start.elapsed();
            assert_eq!(self.take(), now * BATCH);
            left -= now;
        }
        spent
    }

    #[inline(never)]
    fn read(&mut self, batches: usize) {
        for _ in 0..batches {
            let batch = self.fill();
            self.submit(batch);
        }
        let mut pages = 0;
        while pages < batches * BATCH {
            self.now += 1;
            self.engine.poll(Time(self.now));
            pages += self.take();
        }
    }

    #[inline(never)]
    fn submit_and_poll(&mut self, batches: usize) {
        for _ in 0..batches {
            if let Some(batch) = self.ready.pop() {
                self.submit(batch);
            }
        }
        while self.engine.in_flight() > 0 {
            self.now += 1;
            self.engine.poll(Time(self.now));
        }
    }

    #[inline]
    fn submit(&mut self, batch: Batch<'static>) {
        self.now += 1;
        let now = Time(self.now);
        self.engine.submit(batch, now, now + Nanos::from_secs(1)).expect("accepted");
    }

    #[inline(never)]
    fn fill(&mut self) -> Batch<'static> {
        let peer = self.peer;
        self.peer = if peer + 1 == self.regions.len() { 0 } else { peer + 1 };
        if let Some(range) = self.ranges.pop() {
            return self.fill_in_bulk(peer, range);
        }
        let region = self.regions[peer];
        if self.validated {
            let expected = EntryValue { ready: Ready::WHOLE, ..EntryValue::default() };
            if self.scattered {
                let slots: [u32; BATCH] = core::array::from_fn(|i| self.locations[i].slot);
                return self.fill_with(|i| {
                    let slot = slots[i as usize];
                    region.page(Location { slot, expected }).expect("within the region")
                });
            }
            self.fill_with(|slot| region.page(Location { slot, expected }).expect("within the region"))
        } else {
            self.fill_with(|slot| region.unvalidated(slot).expect("within the region"))
        }
    }

    #[inline(never)]
    fn fill_in_bulk(&mut self, peer: usize, range: SlotRange) -> Batch<'static> {
        let (mut batch, region) = (self.engine.batch().expect("a free batch"), &self.regions[peer]);
        let filled = match self.validated {
            true => batch.read_many(region, &self.locations, range),
            false => batch.read_many_unvalidated(region, &self.from_slots, range),
        };
        filled.expect("room");
        batch
    }

    #[inline]
    fn fill_with(&mut self, page: impl Fn(u32) -> RemotePage) -> Batch<'static> {
        let mut batch = self.engine.batch().expect("a free batch");
        for i in 0..BATCH as u32 {
            let slot = self.slots.pop().expect("a slot");
            batch.read(page(i), slot).map_err(|(error, _)| error).expect("room");
        }
        batch
    }

    /// Takes results and slots back.
    #[inline(never)]
    fn take(&mut self) -> usize {
        let mut pages = 0;
        while let Some(mut done) = self.engine.next_done() {
            if self.bulk {
                // The null device moves nothing: a validated page is a miss.
                let failed = done.failed_bits(0).count_ones() as usize;
                assert_eq!(failed, if self.validated { BATCH } else { 0 });
                let range = done.take_range().expect("the slots of the batch");
                pages += range.slots.len();
                self.ranges.push(range.slots);
                continue;
            }
            for page in done.pages() {
                // The null device moves nothing: a validated page is a miss, which costs a few
                // instructions more than a hit.
                assert_eq!(page.result.is_ok(), !self.validated);
                self.slots.push(page.slot);
                pages += 1;
            }
        }
        pages
    }
}
