//! 64 submitters at one reader, half of which die while it runs: by a panic, or by dropping their
//! handle, with batches in flight. Afterwards every slot is accounted for, every batch has finished
//! exactly once, and the slots of the dead have come to the reader's own thread. Half of all
//! batches report their pages, so that some slots are in a mailbox when their submitter dies.
//!
//! `KVRAIL_STRESS_SECONDS=60 cargo test --release -p kvrail --test stress -- --nocapture` runs for
//! a minute instead of two seconds. How long it runs decides only how much is tried.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use kvrail::core::batch::{Class, DonePage};
use kvrail::core::error::{PageError, SubmitError};
use kvrail::core::hub::{Outcome, SendError};
use kvrail::core::time::Time;
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, Location, PageLayout, Peer, PeerKey, Publisher, Slot, Storage, Submitter,
    clock, engine, memory, shm,
};

/// 4 KiB, so that a second has many batches.
#[derive(KvLayout)]
#[kv(order(token), tokens = 4)]
#[allow(dead_code, reason = "the fields say what a page is")]
struct Page {
    latent: [Bf16; 512],
}
const PAGE: PageLayout = PageLayout::of::<Page>();

const THREADS: usize = 64;
/// Pages of a batch.
const PAGES: usize = 4;
/// Batches that a thread has on their way at most, and slots that it has.
const ON_THEIR_WAY: usize = 3;
const SLOTS: usize = PAGES * ON_THEIR_WAY;
/// Fewer than all threads together want, so that they also find the pool empty.
const BATCHES: usize = 160;
const PUBLISHED: u32 = 64;
/// For how long anything may take after the last batch was submitted.
const LIMIT: Duration = Duration::from_secs(120);

engine! {
    Crowded { page: Page, max_rails: 2, max_peers: 1, max_batch: PAGES, max_batches: BATCHES, max_submitters: THREADS }
}
static STORAGE: Storage<Crowded> = Storage::new();

/// How a thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// At the end, when all of its batches have come back.
    None,
    /// It panics while batches are on their way.
    Panic,
    /// It drops its handle while batches are on their way.
    Drop,
}

/// What a thread leaves behind, also if it panics.
#[derive(Debug, Default)]
struct Account {
    submitted: usize,
    finished: usize,
    /// Batches that have not come back, by their tags: how many pages, which is the first, and how
    /// many have been told.
    on_their_way: BTreeMap<u64, (usize, usize, usize)>,
    /// Batches whose deadline had passed when they were submitted, with their pages. They have no
    /// tag when they come back, and come in order.
    late: VecDeque<usize>,
    good: usize,
    /// Pages that were told before their batch was done.
    early: usize,
    withdrawn: usize,
    rejected: usize,
    /// How often all batches were in use.
    no_batch: usize,
    /// Slots that it has in its hands.
    slots: Vec<Slot>,
    /// Slots of batches that its handle gave up.
    abandoned: usize,
}

/// Wakes the thread that waits for an outcome.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A thread of the test.
struct Feeder<'a> {
    number: u64,
    submitter: Submitter<shm::ShmRails>,
    peer: &'a Peer,
    locations: &'a [Location],
    account: &'a mut Account,
    random: u64,
}

impl Feeder<'_> {
    /// A pseudo-random number (xorshift).
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Submits one batch if there is one and slots for it.
    fn submit(&mut self) -> bool {
        if self.account.slots.len() < PAGES {
            return false;
        }
        let Some(mut batch) = self.submitter.batch() else {
            self.account.no_batch += 1;
            return false;
        };
        let drawn = self.random();
        let pages = 1 + drawn as usize % PAGES;
        let tag = (self.number << 40) | self.account.submitted as u64;
        batch.set_tag(tag);
        if drawn & 0x100 != 0 {
            batch.set_class(Class::Background);
        }
        if drawn & 0x200 != 0 {
            batch.report_pages();
        }
        let first = drawn as usize >> 32;
        for at in 0..pages {
            let slot = self.account.slots.pop().expect("as many slots as pages");
            let location = self.locations[(first + at) % self.locations.len()];
            batch.read(self.peer.page(location).expect("published"), slot).expect("a slot of this page");
        }
        // One batch of 64 is late before it is taken: the reader refuses it.
        let late = (drawn >> 12).is_multiple_of(64);
        let deadline = if late { Time::ZERO } else { clock::within(LIMIT) };
        let ticket = match self.submitter.submit(batch, deadline) {
            Ok(ticket) => ticket,
            // Orders to withdraw fill the ring, too.
            Err(SendError::Full { mut batch, .. }) => {
                self.account.slots.extend(batch.clear());
                return false;
            }
            Err(other) => panic!("{other}"),
        };
        self.account.submitted += 1;
        if late {
            self.account.late.push_back(pages);
        } else {
            self.account.on_their_way.insert(tag, (pages, first, 0));
        }
        // Whatever becomes of the order, the batch comes back.
        if (drawn >> 20).is_multiple_of(16) {
            _ = self.submitter.withdraw(ticket);
        }
        if (drawn >> 24).is_multiple_of(16) {
            _ = self.submitter.set_class(ticket, Class::Urgent);
        }
        true
    }

    /// Takes an outcome, or sleeps until there may be one.
    fn take(&mut self, waker: &Waker) {
        match self.submitter.next_outcome() {
            None if self.submitter.in_flight() == 0 => std::thread::yield_now(),
            None => {
                if self.submitter.prepare_sleep(waker) {
                    std::thread::park_timeout(LIMIT);
                }
            }
            Some(Outcome::Done(mut done)) => {
                let sent = self.account.on_their_way.remove(&done.tag());
                let (pages, first, told) = sent.expect("a batch of this thread, which finishes once");
                assert_eq!(done.len(), pages);
                let before = self.account.slots.len();
                for page in done.pages() {
                    self.look_at(first + page.index, page);
                }
                let back = self.account.slots.len() - before;
                assert_eq!(told + back, pages, "each page brings its slot, before its batch or with it");
                self.account.finished += 1;
            }
            Some(Outcome::Page(_, tag, page)) => {
                let sent = self.account.on_their_way.get_mut(&tag).expect("pages come before their batch");
                sent.2 += 1;
                let location = sent.1 + page.index;
                self.account.early += 1;
                self.look_at(location, page);
            }
            Some(Outcome::Rejected(mut rejected)) => {
                assert!(matches!(rejected.error, SubmitError::DeadlinePassed { .. }), "{rejected:?}");
                assert_eq!(self.account.late.pop_front(), Some(rejected.batch.len()));
                self.account.slots.extend(rejected.batch.clear());
                self.account.rejected += 1;
            }
            // No deadline passes while READs are outstanding.
            Some(other) => panic!("{other:?}"),
        }
    }

    fn look_at(&mut self, location: usize, page: DonePage) {
        match page.result() {
            Ok(()) => {
                let byte = self.locations[location % self.locations.len()].slot as u8 + 1;
                let bytes = page.slot.bytes().expect("host memory");
                assert!(bytes.iter().all(|&found| found == byte), "the bytes of page {location}");
                self.account.good += 1;
            }
            Err(PageError::Withdrawn) => self.account.withdrawn += 1,
            Err(other) => panic!("{other}"),
        }
        self.account.slots.push(page.slot);
    }

    /// Feeds the reader until `end`, then dies as it must.
    fn run(mut self, end: Instant, death: Death) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        while Instant::now() < end {
            while self.submit() {}
            self.take(&waker);
        }
        if death == Death::None {
            while self.submitter.in_flight() > 0 {
                self.take(&waker);
            }
            return;
        }
        // It dies with a batch on its way at least, which it has not looked for since.
        let given_up = Instant::now() + LIMIT;
        while !self.submit() {
            assert!(Instant::now() < given_up, "no batch in {LIMIT:?}");
            self.take(&waker);
        }
        let pages = self
            .account
            .on_their_way
            .values()
            .map(|sent| sent.0 - sent.2)
            .chain(self.account.late.iter().copied());
        self.account.abandoned = pages.sum();
        if death == Death::Panic {
            // Without the message of the panic hook: this one is meant.
            resume_unwind(Box::new(self.number));
        }
    }
}

/// For how long the threads feed the reader.
fn seconds() -> Duration {
    match std::env::var("KVRAIL_STRESS_SECONDS") {
        Ok(text) => Duration::from_secs(text.parse().expect("KVRAIL_STRESS_SECONDS is a number of seconds")),
        Err(_) => Duration::from_secs(2),
    }
}

/// The addresses of slots, each of which there is once.
fn addresses<'a>(slots: impl Iterator<Item = &'a Slot>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for slot in slots {
        let bytes = slot.bytes().expect("host memory");
        assert!(found.insert(bytes.as_ptr().addr()), "{slot:?} is there twice");
    }
    found
}

#[test]
fn of_64_submitters_half_of_which_die_every_slot_and_batch_is_accounted_for() {
    let key = PeerKey::from_bytes([5; 32]);
    let (name, anywhere) = ("p".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let producer = Publisher::start(name, PAGE, PUBLISHED, &anywhere, key.clone(), shm::publish(2)).unwrap();
    let write = |slot: u32| {
        producer.write(slot, KeyTag(u128::from(slot) + 1), |bytes| bytes.fill(slot as u8 + 1)).unwrap()
    };
    let locations: Vec<_> = (0..PUBLISHED).map(write).collect();
    let rails = shm::rails(2).unwrap();
    let mut reader = Crowded::start(STORAGE.take().unwrap(), rails, Config::default()).unwrap();
    let bytes = THREADS * SLOTS * PAGE.page_bytes() as usize;
    let mut slots: Vec<_> = reader.register(memory::leaked(bytes).unwrap()).unwrap().collect();
    let all = addresses(slots.iter());
    assert_eq!(all.len(), THREADS * SLOTS);
    let peer = reader.connect(&producer.local_addr().into(), &key).unwrap();

    let (begin, seconds) = (Instant::now(), seconds());
    let mut accounts: Vec<_> = (0..THREADS)
        .map(|_| Account { slots: slots.split_off(slots.len() - SLOTS), ..Account::default() })
        .collect();
    let running = AtomicUsize::new(THREADS);
    let (mut orphans, mut died) = (Vec::new(), [0; 3]);
    std::thread::scope(|scope| {
        let (running, peer, locations) = (&running, &peer, &locations[..]);
        let mut threads = Vec::new();
        for (number, account) in accounts.iter_mut().enumerate() {
            let death = [Death::None, Death::Panic, Death::None, Death::Drop][number % 4];
            // The deaths are spread over the middle of the time.
            let part = if death == Death::None { 64 } else { 16 + number as u32 / 2 };
            let end = begin + seconds * part / 64;
            let submitter = reader.submitter().expect("64 submitters");
            let random = 0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1);
            let feeder = Feeder { number: number as u64, submitter, peer, locations, account, random };
            let thread = Builder::new().name(format!("feeder-{number}")).spawn_scoped(scope, move || {
                let end = catch_unwind(AssertUnwindSafe(|| feeder.run(end, death)));
                running.fetch_sub(1, Ordering::Release);
                end
            });
            threads.push((death, thread.unwrap()));
        }
        assert!(reader.submitter().is_none(), "there are 64");
        while running.load(Ordering::Acquire) > 0 {
            assert!(begin.elapsed() < seconds + 2 * LIMIT, "a thread does not end");
            reader.poll();
            assert!(reader.next_done().is_none(), "no batch is this thread's");
            orphans.extend(std::iter::from_fn(|| reader.next_orphan()));
            reader.wait(clock::within(Duration::from_millis(50)));
        }
        for (number, (death, thread)) in threads.into_iter().enumerate() {
            match thread.join().unwrap() {
                Ok(()) => assert_ne!(death, Death::Panic),
                Err(panic) => {
                    let meant = panic.downcast_ref::<u64>().copied();
                    assert_eq!(
                        (death, meant),
                        (Death::Panic, Some(number as u64)),
                        "feeder-{number} panicked"
                    );
                }
            }
            died[death as usize] += 1;
        }
    });
    assert_eq!(died, [THREADS / 2, THREADS / 4, THREADS / 4]);

    // The slots of the dead.
    let sum = |count: fn(&Account) -> usize| accounts.iter().map(count).sum::<usize>();
    let abandoned = sum(|account| account.abandoned);
    let settled = Instant::now();
    while reader.in_flight() > 0 || orphans.len() < abandoned {
        assert!(settled.elapsed() < LIMIT, "{} of {abandoned} slots came back", orphans.len());
        reader.poll();
        orphans.extend(std::iter::from_fn(|| reader.next_orphan()));
        reader.wait(clock::within(Duration::from_millis(50)));
    }
    reader.poll();
    assert!(reader.next_done().is_none() && reader.next_orphan().is_none());
    assert_eq!(orphans.len(), abandoned, "what was on its way when a thread died comes here");
    assert!(abandoned >= THREADS / 2, "each of the dead had a batch on its way");
    assert_eq!(addresses(orphans.iter().chain(accounts.iter().flat_map(|account| &account.slots))), all);
    let mut batches: Vec<_> = std::iter::from_fn(|| reader.batch()).collect();
    assert_eq!(batches.len(), BATCHES, "each batch is in the pool again");
    batches.clear();

    for (number, account) in accounts.iter().enumerate() {
        let on_their_way = account.on_their_way.len() + account.late.len();
        assert_eq!(account.submitted, account.finished + account.rejected + on_their_way, "feeder-{number}");
        assert!(account.good > 0, "feeder-{number} has read nothing: {account:?}");
        assert!(number % 2 == 1 || on_their_way == 0, "feeder-{number} has ended before its batches");
    }
    // All pages of a batch may arrive together: then they come with it.
    assert!(sum(|account| account.early) > 0, "no page was told early");
    println!(
        "{} batches in {:.1} s: {} pages, {} pages told early, {} withdrawn, {} batches refused, {abandoned} slots of {} dead threads; \
         all batches were in use {} times",
        sum(|account| account.submitted),
        begin.elapsed().as_secs_f64(),
        sum(|account| account.good),
        sum(|account| account.early),
        sum(|account| account.withdrawn),
        sum(|account| account.rejected),
        died[1] + died[2],
        sum(|account| account.no_batch),
    );
}
