//! The node, its owners, and the truth about each `get`.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::{Epoch, PoolId};
use kvrail::shm::ShmRails;
use kvrail::{Bf16, KvLayout, PageLayout, PeerKey, memory, shm};
use kvrail_core::table::{Generation, KeyTag};
use kvrail_node::{
    Destination, Destinations, GetBatch, GetHandle, GetMiss, Key, Node, NodeConfig, Owner, Put, ReadDriver,
    Record,
};

use super::directory::Scripted;
use crate::bytes::Bytes;

/// 8 tokens of one layer: 2,304 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code, reason = "a declaration")]
struct Page {
    latent: [Bf16; 128],
    rope: [Bf16; 16],
}

const LAYOUT: PageLayout = PageLayout::of::<Page>();
const PAGE: usize = LAYOUT.page_bytes() as usize;
const KEYS: u8 = 8;
/// Slots of an owner's pool: fewer than keys, so that pages are evicted.
const SLOTS: u32 = 5;
const PLACES: usize = 12;
const OWNERS: usize = 2;
/// Owners that are not there: of no address, at the address of another one, at one where no process
/// listens.
const ABSENT: [u64; 3] = [0xDEAD, 0xBEEF, 0xCAFE];
/// What a place holds that nothing may write.
const UNTOUCHED: u8 = 0xA5;
/// How long after its deadline a call may end on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// A node and its owners, which serve one input after another.
pub struct World {
    directory: Arc<Scripted>,
    owners: [Node; OWNERS],
    node: Node,
    driver: ReadDriver<ShmRails>,
    places: Destinations,
}

/// What an input has got so far.
struct Run<'w> {
    world: &'w mut World,
    /// All records that there ever were, so that stale ones can be told again.
    records: Vec<Record>,
    /// The record of each key at each owner, where it is there.
    current: [[Option<Record>; KEYS as usize]; OWNERS],
    gets: Vec<Get>,
    /// Places that no call has.
    held: Vec<Destination>,
    /// Batches that came back with their destinations.
    batches: Vec<(GetBatch, Vec<Asked>)>,
    /// Places that are with a call or held.
    taken: HashSet<u64>,
}

/// A `get` under way.
struct Get {
    handle: GetHandle,
    keys: Vec<Asked>,
    deadline: Instant,
    /// Whether the directory, the owners and their pages have not changed since it began.
    undisturbed: bool,
}

/// One key of it.
#[derive(Clone)]
struct Asked {
    key: u8,
    joined: bool,
    /// The address of its place, or `None` if that was not given back.
    place: Option<u64>,
    /// Whether the directory's answer holds the record of a page that is there.
    known: bool,
}

fn key(number: u8) -> Key {
    Key(KeyTag(0x1000 + u128::from(number) * 0x0101_0101_0101))
}

/// The page of a key: no byte says what its neighbours are.
fn page_of(number: u8) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..PAGE).map(|_| next()).collect()
}

fn epoch(number: u64) -> Epoch {
    Epoch(NonZeroU64::new(number).expect("not 0"))
}

impl World {
    /// Starts the nodes.
    #[must_use]
    pub fn new() -> Self {
        let directory = Arc::new(Scripted::default());
        let config = |name: &str| {
            let key = PeerKey::from_bytes([4; 32]);
            NodeConfig::new(name.parse().expect("a name"), key)
                .layout(LAYOUT)
                .directory(Arc::clone(&directory) as _)
        };
        let owners = ["one", "two"].map(|name| {
            let config = config(name).pool(LAYOUT, SLOTS);
            Node::start(config, shm::publish(1), || shm::rails(1)).expect("an owner")
        });
        let rails = shm::rails(1).expect("a rail");
        let (node, mut driver) =
            Node::start_driven(config("reader"), shm::publish(1), rails).expect("a reader");
        let bytes = memory::leaked(PLACES * PAGE).expect("memory");
        // Registering is answered by the driver.
        let places = std::thread::scope(|scope| {
            let registering = scope.spawn(|| node.register(&LAYOUT, bytes).expect("a layout of the node"));
            while !registering.is_finished() {
                driver.poll();
                driver.wait(Instant::now() + Duration::from_millis(1));
            }
            registering.join().expect("no panic")
        });
        let address = |node: &Node| node.address().expect("it has a pool");
        for (at, epoch) in
            [(address(&owners[0]), ABSENT[1]), ("127.0.0.1:1".parse().expect("an address"), ABSENT[2])]
        {
            let name = "absent".parse().expect("a name");
            let owner = Owner { epoch: self::epoch(epoch), node: name, address: at, zone: name };
            directory.change(|script| script.owners.insert(owner.epoch, owner));
        }
        for owner in &owners {
            let name = "there".parse().expect("a name");
            let epoch = owner.epoch().expect("it has a pool");
            let owner = Owner { epoch, node: name, address: address(owner), zone: name };
            directory.change(|script| script.owners.insert(owner.epoch, owner));
        }
        Self { directory, owners, node, driver, places }
    }

    /// Runs an input.
    pub fn run(&mut self, input: &mut Bytes<'_>) {
        self.node.clear_cache();
        for owner in &self.owners {
            owner.clear();
        }
        self.directory.change(|script| {
            script.answers.clear();
            script.failing.clear();
            (script.short, script.owners_fail) = (false, false);
        });
        let mut run = Run {
            world: self,
            records: Vec::new(),
            current: [[None; KEYS as usize]; OWNERS],
            gets: Vec::new(),
            held: Vec::new(),
            batches: Vec::new(),
            taken: HashSet::new(),
        };
        for number in 0..4 {
            run.put(0, number);
            run.answer(number, 1, &mut Bytes::new(&[0]));
        }
        while !input.is_empty() {
            run.step(input);
        }
        run.end();
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Run<'_> {
    fn step(&mut self, input: &mut Bytes<'_>) {
        let step = input.byte();
        let (which, number) = (usize::from(step >> 7), input.byte() % KEYS);
        match step & 0x0f {
            0 | 1 => self.begin(input),
            2 => self.put(which, number),
            3 => {
                self.disturb();
                self.world.owners[which].remove(key(number));
                self.current[which][usize::from(number)] = None;
            }
            4..=6 => self.answer(number, step >> 4 & 3, input),
            7 => {
                self.disturb();
                self.world.directory.change(|script| match step >> 4 & 3 {
                    0 => script.failing.push(key(number).0),
                    1 => script.failing.clear(),
                    2 => script.short = !script.short,
                    _ => script.owners_fail = !script.owners_fail,
                });
            }
            8..=10 => self.drive(1 + input.byte() % 16),
            11 => self.give_up(usize::from(number)),
            12 => self.hold(),
            13 => self.again(input),
            14 => self.world.node.clear_cache(),
            _ => {
                let keys: Vec<_> = (0..KEYS).map(key).collect();
                let present = self.world.node.exists(&keys, Instant::now() + Duration::from_secs(1));
                assert_eq!((present.present.len(), present.unknown.len()), (keys.len(), keys.len()));
                assert!((0..keys.len()).all(|at| !(present.present.get(at) && present.unknown.get(at))));
            }
        }
    }

    /// What was known of calls under way is no longer so.
    fn disturb(&mut self) {
        self.gets.iter_mut().for_each(|get| get.undisturbed = false);
    }

    fn put(&mut self, which: usize, number: u8) {
        self.disturb();
        match self.world.owners[which].put(&LAYOUT, key(number), &page_of(number)) {
            Ok(Put::Stored(record)) => {
                self.records.push(record);
                // It is in the place of the page that was evicted.
                for other in &mut self.current[which] {
                    if other.is_some_and(|other| other.slot == record.slot) {
                        *other = None;
                    }
                }
                self.current[which][usize::from(number)] = Some(record);
            }
            Ok(Put::Already(record)) => assert_eq!(self.current[which][usize::from(number)], Some(record)),
            Ok(Put::Underway) => panic!("no other thread puts"),
            Err(error) => panic!("a page of the layout was not stored: {error}"),
        }
    }

    /// Says what the directory answers for a key: so many records, each true, stale or forged.
    fn answer(&mut self, number: u8, count: u8, input: &mut Bytes<'_>) {
        self.disturb();
        let mut records = Vec::new();
        for _ in 0..count {
            let (kind, which) = (input.byte(), input.byte());
            let true_one = self.current[usize::from(kind >> 7)][usize::from(number)];
            let earlier = self.records.get(usize::from(which) % self.records.len().max(1)).copied();
            let Some(mut record) = true_one.or(earlier) else { continue };
            match kind & 0x0f {
                0..=3 => {}
                4 => record = earlier.unwrap_or(record),
                // The record of another key, under this key's name.
                5 => record = Record { tag: key(number).0, ..earlier.unwrap_or(record) },
                6 => record.slot = SLOTS,
                7 => record.slot = u32::from(which),
                8 => record.slot = u32::MAX,
                9 => record.pool = PoolId(u32::from(which)),
                10 => record.generation = Generation(record.generation.0.wrapping_add(u64::from(which) << 1)),
                11 => record.generation = Generation(record.generation.0 ^ 1 << 40),
                12 => record.tag = KeyTag(record.tag.0 ^ 1),
                kind => record.owner = epoch(ABSENT[usize::from(kind - 13)]),
            }
            records.push(record);
        }
        self.world.directory.change(|script| script.answers.insert(key(number).0, records));
    }

    /// Whether the directory's answer holds the record of a page that is there.
    fn is_known(&self, number: u8) -> bool {
        let tag = key(number).0;
        let there =
            |record: &Record| self.current.iter().any(|owner| owner[usize::from(number)] == Some(*record));
        self.world.directory.change(|script| {
            let answered = !script.short && !script.owners_fail && !script.failing.contains(&tag);
            answered && script.answers.get(&tag).is_some_and(|records| records.iter().any(there))
        })
    }

    fn take(&mut self) -> Option<Destination> {
        let place = self.world.places.take_any()?;
        let address = place.address(0).expect("one region");
        assert!(self.taken.insert(address), "a place was given out twice");
        Some(place)
    }

    fn deadline(input: &mut Bytes<'_>) -> Instant {
        let millis = [0, 1, 3, 20, 200, 5_000, 5_000, 5_000][usize::from(input.byte() % 8)];
        Instant::now() + Duration::from_millis(millis)
    }

    fn begin(&mut self, input: &mut Bytes<'_>) {
        let deadline = Self::deadline(input);
        let (mut batch, mut keys) = (GetBatch::default(), Vec::new());
        for _ in 0..1 + input.byte() % 6 {
            let what = input.byte();
            let Some(mut place) = self.take() else { break };
            place.bytes_mut(0).expect("host memory").fill(0);
            let (number, joined) = (what % KEYS, what & 0x80 != 0 && !keys.is_empty());
            let address = place.address(0);
            if joined {
                batch.join(key(number), place)
            } else {
                batch.read(key(number), place)
            }
            keys.push(Asked { key: number, joined, place: address, known: self.is_known(number) });
        }
        self.start(batch, keys, deadline);
    }

    fn start(&mut self, batch: GetBatch, keys: Vec<Asked>, deadline: Instant) {
        assert_eq!(batch.len(), keys.len());
        let handle = self.world.node.begin_get(batch, deadline);
        self.gets.push(Get { handle, keys, deadline, undisturbed: true });
    }

    /// Begins a batch again as it came back, with all its keys.
    fn again(&mut self, input: &mut Bytes<'_>) {
        let deadline = Self::deadline(input);
        let Some((batch, mut keys)) = self.batches.pop() else { return };
        for asked in &mut keys {
            asked.known = asked.place.is_some() && self.is_known(asked.key);
        }
        self.start(batch, keys, deadline);
    }

    fn drive(&mut self, turns: u8) {
        for _ in 0..turns {
            if !self.world.driver.poll() {
                self.world.driver.wait(Instant::now() + Duration::from_micros(200));
            }
        }
        self.take_finished();
    }

    fn take_finished(&mut self) {
        let mut at = 0;
        while at < self.gets.len() {
            let get = &mut self.gets[at];
            if get.handle.poll() {
                let get = self.gets.swap_remove(at);
                self.finish(get);
            } else {
                assert!(Instant::now() < get.deadline + SLACK, "a call has not ended by its deadline");
                at += 1;
            }
        }
    }

    /// Checks what a call gave, and keeps some of it.
    fn finish(&mut self, get: Get) {
        let Get { handle, mut keys, undisturbed, deadline } = get;
        let late = Instant::now() >= deadline;
        let Ok((mut batch, counts)) = handle.finish() else { panic!("it was finished") };
        let results: Vec<_> = (0..keys.len())
            .map(|at| batch.result(at).expect("each key is settled").map_err(Clone::clone))
            .collect();
        assert!(batch.result(keys.len()).is_none() && batch.len() == keys.len());
        let hits = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((counts.hits, counts.misses), (hits, keys.len() - hits));
        for (at, result) in results.iter().enumerate() {
            let first = (0..=at).rev().find(|&at| !keys[at].joined).unwrap_or(0);
            let behind = keys[at + 1..].iter().take_while(|asked| asked.joined).count();
            let group = first..at + 1 + behind;
            match result {
                Ok(_) => {
                    let all = group.clone().all(|at| results[at].is_ok());
                    assert!(all, "a page of a group was given out without the others");
                    let place = batch.destination(at).expect("a hit has its place");
                    let right = place.bytes(0) == Some(&page_of(keys[at].key)[..]);
                    assert!(right, "key {} has wrong bytes", keys[at].key);
                }
                Err(miss) => {
                    assert!(!miss.to_string().is_empty() && miss.reason() < GetMiss::REASONS);
                    // An owner that was not connected by the deadline was not reached.
                    let excused = matches!(miss, GetMiss::Deadline | GetMiss::Group)
                        || late && matches!(miss, GetMiss::Unreachable { .. });
                    let must = undisturbed && keys[at].known;
                    assert!(
                        excused || !must,
                        "{miss}, though its page is there and the directory says where"
                    );
                    let alone = group.len() == 1 || group.clone().all(|at| results[at].is_ok());
                    assert!(!matches!(miss, GetMiss::Group) || !alone, "no other page of its group misses");
                }
            }
            match (batch.destination(at), keys[at].place) {
                (Some(place), address) => assert_eq!(place.address(0), address, "another place came back"),
                (None, Some(address)) => {
                    let late = result.as_ref().is_err_and(|miss| !matches!(miss, GetMiss::Stale(_)));
                    assert!(late, "a settled key keeps its place: {result:?}");
                    // It is free again when nothing writes there any more.
                    self.taken.remove(&address);
                    keys[at].place = None;
                }
                (None, None) => assert!(result.is_err()),
            }
        }
        if self.batches.len() < 2 && !keys.is_empty() {
            return self.batches.push((batch, keys));
        }
        let mut count = 0;
        for page in batch.take_pages() {
            assert_eq!(page.index, count, "each key comes back once, in its place");
            count += 1;
            if let Some(address) = keys[page.index].place {
                assert!(self.taken.remove(&address) && page.destination.is_some());
            }
        }
        assert_eq!(count, keys.len());
    }

    /// Drops a handle: its places come back by themselves.
    fn give_up(&mut self, at: usize) {
        if at < self.gets.len() {
            let get = self.gets.swap_remove(at);
            for address in get.keys.iter().filter_map(|asked| asked.place) {
                self.taken.remove(&address);
            }
        }
    }

    /// Takes a place, in which nothing may change any more.
    fn hold(&mut self) {
        if let Some(mut place) = self.take() {
            place.bytes_mut(0).expect("host memory").fill(UNTOUCHED);
            self.held.push(place);
        }
    }

    /// Everything ends.
    fn end(&mut self) {
        while !self.gets.is_empty() {
            self.drive(4);
        }
        for place in self.held.drain(..) {
            let bytes = place.bytes(0).expect("host memory");
            assert!(bytes.iter().all(|&byte| byte == UNTOUCHED), "a place was written that no call has");
        }
        self.batches.clear();
        let until = Instant::now() + SLACK;
        while self.world.places.free() < PLACES as u32 {
            assert!(Instant::now() < until, "{} of {PLACES} places are free", self.world.places.free());
            self.drive(4);
        }
        assert_eq!(self.world.driver.requests(), 0, "a request is still worked on");
        assert_eq!(self.world.node.statistics().reading, 0, "a page counts as being read");
    }
}
