//! The cost of rows of pages above the driver: 2,048 rows of 656 bytes, four out of each of 512
//! pages that lie in a row, which land one behind the other in one slot. Filling the batch,
//! posting, completing and taking the result are all counted.
//!
//! | workload | what |
//! |---|---|
//! | `loop` | the same READs by hand, and those of the entries: nothing checked or counted |
//! | `rows` | through the engine in one call, each page validated |
//! | `rows-unvalidated` | the same without the entries |
//! | `rows-joined`, `loop-joined` | the same, and in every other page two rows are one READ |
//! | `rows-by-page` | through the engine page by page, each page validated |
//! | `rows-128`, `loop-128` | as `rows` and `loop`, 128 rows out of 32 pages |
//!
//! The null device moves nothing. So between two polls, [`Kvrail::place_entries`] writes the
//! entries that the READ of a real device would have brought: `benches/count-instructions` leaves
//! it out.
//!
//! `cargo bench -p kvrail-bench --bench rows` times them (criterion); `benches/count-instructions`
//! counts instructions by `-- count WORKLOAD N`, which runs one of them N times.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]
#![allow(unsafe_code, reason = "posts without an engine")]

use std::process::ExitCode;

use criterion::{Criterion, Throughput};
use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail::core::memory::Slot;
use kvrail::core::provider::{Commit, Post, Provider, Read};
use kvrail::core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail::core::rows::Rows;
use kvrail::core::storage::EngineStorage;
use kvrail::core::table::{ENTRY_BYTES, Entry, EntryValue, KeyTag, Ready};
use kvrail::core::time::{Nanos, Time};
use kvrail::core::verbs_abi::{ChainStorage, Wc};
use kvrail_sim::null::{Cq, Cqe, NullLane, NullParts, NullRails, Qp, Wqe};

const ROW: u32 = 656;
const PAGE: u64 = 64 * ROW as u64;
/// Of the largest workload.
const PAGES: usize = 512;
/// Of each page; no two of them are neighbours.
const OF_A_PAGE: usize = 4;
const ROWS: usize = PAGES * OF_A_PAGE;
/// The pages of a commit.
const PAGES_OF_COMMIT: usize = CHAIN / OF_A_PAGE;
const CHAIN: usize = 128;
const DEPTH: usize = 1024;
const REMOTE: u64 = 0x7000_0000;
const TABLE: u64 = 0x9000_0000;
/// The most entries of one READ, by the loop as by the engine.
const ENTRIES: u64 = 64;
/// Every so many wrs one is signaled, by the loop and by the engine.
const SIGNALED: u32 = 64;

type Null = NullRails<'static, CHAIN>;
type State = EngineStorage<1, 16, 1, DEPTH, 1, PAGES>;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// The device, and its ring of work queue entries.
fn null() -> (Null, *const Wqe) {
    let wqes = vec![Wqe::NEW; DEPTH].leak();
    let ring = wqes.as_ptr();
    let parts = NullParts {
        cqs: vec![Cq::NEW; 1].leak(),
        cqes: vec![Cqe::NEW; DEPTH].leak(),
        qps: vec![Qp::NEW; 1].leak(),
        wqes,
    };
    (NullRails::new(parts, leak(ChainStorage::new())).expect("parts that fit"), ring)
}

/// The rows of each of so many pages. `joined`: in every other page, two of them are neighbours.
fn wanted(pages: usize, joined: bool) -> Vec<[u32; OF_A_PAGE]> {
    let row = |page: u32, i: u32| match (joined && page % 2 == 1, i) {
        (true, 3) => (page * 7) % 13 + 2 * 16 + 1,
        _ => (page * 7) % 13 + i * 16,
    };
    (0..pages as u32).map(|page| std::array::from_fn(|i| row(page, i as u32))).collect()
}

/// How a batch is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    InOneCall,
    ByPage,
}

/// Rows through an engine.
struct Kvrail {
    engine: Engine<'static, Null>,
    region: RemoteRegion,
    slot: Option<Slot>,
    wanted: Vec<[u32; OF_A_PAGE]>,
    locations: Vec<Location>,
    from_slots: Vec<u32>,
    /// A word for each page, of which a bit stands for a row.
    bits: Vec<u64>,
    fill: Fill,
    validated: bool,
    /// The entry of every page.
    entry: Entry,
    ring: *const Wqe,
    /// The address to which the entries are read, once they have been.
    landing: Option<u64>,
    now: u64,
}

impl Kvrail {
    fn new(pages: usize, fill: Fill, validated: bool, joined: bool) -> Self {
        let config = EngineConfig {
            signal_wrs: SIGNALED,
            run_chunks: 128,
            quantum_bytes: 4 << 20,
            ..EngineConfig::DEFAULT
        };
        let (rails, ring) = null();
        let mut engine = Engine::start(leak(State::new()), rails, config).expect("an engine");
        let bytes = ROWS as u64 * u64::from(ROW);
        let memory = vec![0_u8; bytes as usize].leak();
        let slot = engine.register(memory, bytes).expect("a slot").next();
        let peer = engine.add_peer().expect("a place");
        let offer = RegionOffer {
            base: REMOTE,
            page_bytes: PAGE,
            stride: PAGE,
            slots: PAGES as u32,
            keys: [7; MAX_RAILS],
            table: Some(TableOffer { base: TABLE, keys: [8; MAX_RAILS] }),
        };
        let region = engine.add_region(peer, &offer).expect("a region");
        let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: DEPTH as u32 };
        engine.attach(peer, spec, (), Time::ZERO).expect("a lane");
        let entry = Entry::default();
        let tag = KeyTag(7);
        let expected = EntryValue { generation: entry.publish(tag, 3), ready: Ready::WHOLE, tag };
        Self {
            engine,
            region,
            slot,
            wanted: wanted(pages, joined),
            locations: (0..pages as u32).map(|slot| Location { slot, expected }).collect(),
            from_slots: (0..pages as u32).collect(),
            bits: vec![0; pages],
            fill,
            validated,
            entry,
            ring,
            landing: None,
            now: 0,
        }
    }

    #[inline(never)]
    fn run(&mut self) {
        let mut batch = self.engine.batch().expect("a free batch");
        match self.fill {
            Fill::InOneCall => {
                for (bits, rows) in self.bits.iter_mut().zip(&self.wanted) {
                    *bits = rows.iter().fold(0, |bits, row| bits | 1 << row);
                }
                let slot = self.slot.take().expect("the slot");
                match self.validated {
                    true => batch.read_rows_of(&self.region, &self.locations, ROW, &self.bits, slot),
                    false => {
                        batch.read_rows_of_unvalidated(&self.region, &self.from_slots, ROW, &self.bits, slot)
                    }
                }
                .expect("room");
            }
            Fill::ByPage => {
                let mut behind = 0;
                for (location, rows) in self.locations.iter().zip(&self.wanted) {
                    let rows = Rows::of(ROW, rows).expect("rows that rise");
                    let page = self.region.page(*location).expect("within the region");
                    match self.slot.take() {
                        Some(to) => batch.read_rows(page, rows, to).map_err(|(error, _)| error),
                        None => batch.read_rows_also(page, rows, behind),
                    }
                    .expect("room");
                    behind += rows.bytes() as u32;
                }
            }
        }
        self.now += 1;
        self.engine.submit(batch, Time(self.now), Time(self.now) + Nanos::from_secs(1)).expect("accepted");
        while self.engine.in_flight() > 0 {
            self.place_entries();
            self.now += 1;
            self.engine.poll(Time(self.now));
        }
        let mut done = self.engine.next_done().expect("a batch");
        assert!(done.all_arrived(), "the entries were placed");
        self.slot = match self.fill {
            Fill::InOneCall => done.take_range().and_then(|mut range| range.slots.next()),
            Fill::ByPage => done.pages().next().map(|page| page.slot),
        };
    }

    /// Writes the entries of all pages to where the engine has them read to, if it does.
    #[inline(never)]
    fn place_entries(&mut self) {
        if !self.validated {
            return;
        }
        if self.landing.is_none() || self.now < 64 {
            // The READs of the entries have the key of the table, and the first of them the least
            // address.
            for at in 0..DEPTH {
                // SAFETY: the ring has DEPTH entries, and is never freed.
                let wqe = unsafe { self.ring.add(at) };
                // SAFETY: as above; the device writes it only while a call of the engine runs.
                let Wqe(words) = unsafe { wqe.read_volatile() };
                let to = u64::from_be(words[5]);
                if u64::from_be(words[3]) >> 32 == 8 && self.landing.is_none_or(|first| to < first) {
                    self.landing = Some(to);
                }
            }
        }
        let Some(landing) = self.landing else { return };
        let entry = std::ptr::from_ref(&self.entry);
        for page in 0..PAGES {
            let to = std::ptr::with_exposed_provenance_mut::<Entry>(landing as usize);
            // SAFETY: the batch has the places of PAGES pages from the first on.
            let to = unsafe { to.add(page) };
            // SAFETY: the landing area is never freed, and the engine exposed its address.
            unsafe { std::ptr::copy_nonoverlapping(entry, to, 1) };
        }
    }
}

/// The same READs, posted by hand.
struct ByHand {
    rails: Null,
    lane: NullLane<'static>,
    wanted: Vec<[u32; OF_A_PAGE]>,
    /// In every other page, the third row and the fourth are one READ.
    joined: bool,
    /// Where the rows land, and behind them the entries.
    local: u64,
    wcs: [Wc; 32],
}

impl ByHand {
    fn new(pages: usize, joined: bool) -> Self {
        let (mut rails, _) = null();
        let lane = rails.open(LaneId::new(0, 1), RailIndex(0), ()).expect("a free lane");
        let memory = vec![0_u8; ROWS * ROW as usize + PAGES * ENTRY_BYTES as usize].leak();
        let local = memory.as_mut_ptr().expose_provenance() as u64;
        Self { rails, lane, wanted: wanted(pages, joined), joined, local, wcs: [Wc::default(); 32] }
    }

    #[inline(never)]
    fn run(&mut self) {
        if self.joined { self.post::<true>() } else { self.post::<false>() }
    }

    #[inline(never)]
    fn post<const JOINED: bool>(&mut self) {
        let (mut page, mut local_addr) = (0, self.local);
        let wanted = std::mem::take(&mut self.wanted);
        for wanted in wanted.chunks(PAGES_OF_COMMIT) {
            // SAFETY: the null device moves no bytes.
            let mut post = unsafe { self.rails.begin(&mut self.lane) };
            let mut n = 0;
            for rows in wanted {
                for (i, &row) in rows.iter().enumerate() {
                    let joins = JOINED && page % 2 == 1;
                    if joins && i + 1 == OF_A_PAGE {
                        // It came with the row before.
                        break;
                    }
                    let len = if joins && i + 2 == OF_A_PAGE { 2 * ROW } else { ROW };
                    n += 1;
                    post.read(Read {
                        wr_id: WrId::new(LaneId::new(0, 1), n),
                        remote_addr: REMOTE + page * PAGE + u64::from(row) * u64::from(ROW),
                        local_addr,
                        len,
                        rkey: 7,
                        lkey: 9,
                        signaled: n.is_multiple_of(SIGNALED),
                    });
                    local_addr += u64::from(len);
                }
                page += 1;
            }
            assert_eq!(post.commit(), Commit::All);
            self.complete(n / SIGNALED);
        }
        self.wanted = wanted;
        // SAFETY: as above.
        let mut post = unsafe { self.rails.begin(&mut self.lane) };
        for entries in 0..page.div_ceil(ENTRIES) {
            post.read(Read {
                wr_id: WrId::new(LaneId::new(0, 1), entries as u32),
                remote_addr: TABLE + entries * ENTRIES * ENTRY_BYTES,
                local_addr: local_addr + entries * ENTRIES * ENTRY_BYTES,
                len: page.min(ENTRIES) as u32 * ENTRY_BYTES as u32,
                rkey: 8,
                lkey: 9,
                signaled: (entries + 1) * ENTRIES >= page,
            });
        }
        assert_eq!(post.commit(), Commit::All);
        self.complete(1);
    }

    fn complete(&mut self, mut left: u32) {
        while left > 0 {
            // No more come than were signaled.
            left -= self.rails.poll(RailIndex(0), &mut self.wcs) as u32;
        }
    }
}

fn workload(name: &str) -> Box<dyn FnMut()> {
    let (pages, joined) = (if name.ends_with("-128") { 32 } else { PAGES }, name.ends_with("-joined"));
    match name {
        "loop" | "loop-joined" | "loop-128" => {
            let mut by_hand = ByHand::new(pages, joined);
            Box::new(move || by_hand.run())
        }
        "rows" | "rows-unvalidated" | "rows-joined" | "rows-by-page" | "rows-128" => {
            let fill = if name == "rows-by-page" { Fill::ByPage } else { Fill::InOneCall };
            let mut kvrail = Kvrail::new(pages, fill, name != "rows-unvalidated", joined);
            Box::new(move || kvrail.run())
        }
        other => panic!("no workload {other}"),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let ["count", name, n] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let mut run = workload(name);
        (0..n.parse().expect("a number of runs")).for_each(|_| run());
        return ExitCode::SUCCESS;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("rows of 656 bytes");
    group.throughput(Throughput::Elements(ROWS as u64));
    for name in ["loop", "rows", "rows-unvalidated", "loop-joined", "rows-joined", "rows-by-page"] {
        let mut run = workload(name);
        group.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    group.finish();
    criterion.final_summary();
    ExitCode::SUCCESS
}
