//! Readers in an event loop of the program's own, which sleeps in epoll(7) on their descriptors.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use kvrail::core::hub::Outcome;
use kvrail::core::memory::Slot;
use kvrail::core::remote::Location;
use kvrail::core::table::KeyTag;
use kvrail::layouts::Bf16;
use kvrail::shm::ShmRails;
use kvrail::{
    Config, KvLayout, PageLayout, Peer, PeerKey, Publisher, PublisherTransport, Reader, ReaderEvent,
    ReaderTransport, Storage, Submitter, clock, engine, memory, shm, tcp,
};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
struct Page {
    latent: [Bf16; 512],
}
const PAGE: PageLayout = PageLayout::of::<Page>();
const SLOTS: u32 = 16;
const READ: usize = 4;
const BATCHES: u32 = 1_000;
/// A sleep as long as this has lost its wake-up.
const PATIENCE: Duration = Duration::from_secs(20);

engine! { Fed { page: Page, max_rails: 2, max_peers: 1, max_batch: READ, max_batches: 16, max_submitters: 1 } }

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn producer(over: impl PublisherTransport) -> (Publisher, Vec<Location>) {
    let (name, anywhere) = ("p".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let producer = Publisher::start(name, PAGE, SLOTS, &anywhere, key(), over).unwrap();
    let write =
        |slot: u32| producer.write(slot, KeyTag(slot.into()), |bytes| bytes.fill(slot as u8 + 1)).unwrap();
    let locations = (0..SLOTS).map(write).collect();
    (producer, locations)
}

/// The program's epoll instance, over the reader and another descriptor of the program's.
struct EventLoop(OwnedFd);

const READER: u64 = 1;
const OTHER: u64 = 2;

impl EventLoop {
    fn new(reader: impl AsFd, how: EventFlags) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, reader, EventData::new_u64(READER), EventFlags::IN | how).unwrap();
        Self(epoll)
    }

    /// Sleeps for `most`, and says which descriptors are readable.
    fn sleep(&self, most: Duration) -> Vec<u64> {
        let mut found = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 2];
        let count = epoll::wait(&self.0, &mut found, Some(&Timespec::try_from(most).unwrap())).unwrap();
        found[..count].iter().map(|event| event.data.u64()).collect()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Submits `BATCHES` batches, up to three at a time, and compares every page. A pause after some of
/// them leaves the reader with nothing to do.
fn feed(
    mut submitter: Submitter<ShmRails>,
    peer: &Peer,
    locations: &[Location],
    mut slots: Vec<Slot>,
) -> usize {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut submitted, mut good, mut done) = (0, 0, 0);
    while done < BATCHES {
        while submitted < BATCHES && slots.len() >= READ {
            let mut batch = submitter.batch().unwrap();
            for page in 0..READ {
                let location = locations[(submitted as usize + page) % locations.len()];
                batch.read(peer.page(location).unwrap(), slots.pop().unwrap()).unwrap();
            }
            batch.set_tag(submitted.into());
            submitter.submit(batch, clock::within(PATIENCE)).unwrap();
            submitted += 1;
        }
        match submitter.next_outcome() {
            Some(Outcome::Done(mut batch)) => {
                let number = batch.tag() as usize;
                for page in batch.pages() {
                    page.result().unwrap();
                    let expected = ((number + page.index) % locations.len()) as u8 + 1;
                    good += usize::from(page.slot.bytes().unwrap().iter().all(|&byte| byte == expected));
                    slots.push(page.slot);
                }
                done += 1;
                if done % 100 == 0 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Some(other) => panic!("{other:?}"),
            None => {
                if submitter.prepare_sleep(&waker) {
                    thread::park_timeout(PATIENCE);
                }
            }
        }
    }
    good
}

fn a_thousand_batches(storage: &'static Storage<Fed>, how: EventFlags) {
    let (producer, locations) = producer(shm::publish(2));
    let mut reader = Fed::start(storage.take().unwrap(), shm::rails(2).unwrap(), Config::default()).unwrap();
    let memory = memory::leaked(3 * READ * PAGE.page_bytes() as usize).unwrap();
    let slots: Vec<Slot> = reader.register(memory).unwrap().collect();
    let peer = reader.connect(&producer.local_addr().into(), key()).unwrap();
    let events = EventLoop::new(&*reader, how);
    // Another descriptor of the program: the thread's end.
    let other = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    epoll::add(&events.0, &other, EventData::new_u64(OTHER), EventFlags::IN).unwrap();
    let submitter = reader.submitter().unwrap();
    let good = AtomicUsize::new(0);
    let (mut polls, mut refused, mut timeouts) = (0_u32, 0_u32, 0_u32);
    thread::scope(|scope| {
        scope.spawn(|| {
            good.store(feed(submitter, &peer, &locations, slots), Ordering::Release);
            rustix::io::write(&other, &1_u64.to_ne_bytes()).unwrap();
        });
        loop {
            reader.poll();
            polls += 1;
            let Some(most) = reader.arm() else {
                refused += 1;
                continue;
            };
            let found = events.sleep(most.min(PATIENCE));
            assert!(!found.is_empty() || most < PATIENCE, "a wake-up was lost");
            timeouts += u32::from(found.is_empty());
            if found.contains(&OTHER) {
                break;
            }
        }
    });
    assert_eq!(good.into_inner(), READ * BATCHES as usize);
    println!("{BATCHES} batches: {polls} polls, {refused} of them at once, {timeouts} timeouts");
    // In the thread's pauses a loop that does not sleep polls many times as often.
    assert!(polls < 30 * BATCHES, "{polls} polls for {BATCHES} batches: the loop does not sleep");
}

#[test]
fn a_thousand_batches_are_read_by_a_loop_that_sleeps_until_the_descriptor_is_readable() {
    static STORAGE: Storage<Fed> = Storage::new();
    a_thousand_batches(&STORAGE, EventFlags::empty());
}

#[test]
fn a_loop_that_is_told_of_changes_only_misses_none() {
    static STORAGE: Storage<Fed> = Storage::new();
    a_thousand_batches(&STORAGE, EventFlags::ET);
}

/// Polls, and arms until the reader may sleep.
fn come_to_rest<T: ReaderTransport<Provider: AsFd>>(reader: &mut Reader<T>) -> Duration {
    let start = Instant::now();
    loop {
        reader.poll();
        if let Some(most) = reader.arm() {
            return most;
        }
        assert!(start.elapsed() < PATIENCE, "there is always something to do");
    }
}

fn an_own_batch_and_a_lost_peer<T: ReaderTransport<Provider: AsFd>>(over: impl PublisherTransport, rails: T) {
    let (producer, locations) = producer(over);
    let mut reader = Reader::start(PAGE, rails, Config::default()).unwrap();
    let memory = memory::leaked(PAGE.page_bytes() as usize).unwrap();
    let mut slots: Vec<Slot> = reader.register(memory).unwrap().collect();
    let peer = reader.connect(&producer.local_addr().into(), key()).unwrap();
    let events = EventLoop::new(&reader, EventFlags::empty());
    let most = come_to_rest(&mut reader);
    assert!(most <= Duration::from_secs(3_600) && most > PATIENCE, "{most:?} with nothing to do");

    // A batch after the arming, of which the arming could not know.
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(locations[3]).unwrap(), slots.pop().unwrap()).unwrap();
    reader.submit(batch, clock::within(PATIENCE)).unwrap();
    assert_eq!(events.sleep(Duration::ZERO), [READER]);
    let mut done = loop {
        reader.poll();
        if let Some(done) = reader.next_done() {
            break done;
        }
        if let Some(most) = reader.arm() {
            assert!(!events.sleep(most.min(PATIENCE)).is_empty() || most < PATIENCE);
        }
    };
    let page = done.pages().next().unwrap();
    assert!(page.result().is_ok() && page.slot.bytes().unwrap().iter().all(|&byte| byte == 4));
    drop(done);

    // News of a session.
    come_to_rest(&mut reader);
    drop(producer);
    while !matches!(reader.next_event(), Some(ReaderEvent::Lost { .. })) {
        reader.poll();
        if let Some(most) = reader.arm() {
            let found = events.sleep(most.min(PATIENCE));
            assert!(!found.is_empty() || most < PATIENCE, "the reader does not learn of the peer's end");
        }
    }
}

#[test]
fn a_batch_after_the_arming_and_a_peer_that_goes_make_the_descriptor_readable() {
    an_own_batch_and_a_lost_peer(shm::publish(1), shm::rails(1).unwrap());
    let localhost = std::net::Ipv4Addr::LOCALHOST.into();
    an_own_batch_and_a_lost_peer(tcp::publish(localhost, 1), tcp::rails(1).unwrap());
}

#[test]
fn a_reader_does_not_sleep_over_orders_that_one_turn_has_left() {
    static STORAGE: Storage<Fed> = Storage::new();
    let (producer, locations) = producer(shm::publish(1));
    let mut reader = Fed::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots = reader.register(memory::leaked(PAGE.page_bytes() as usize).unwrap()).unwrap();
    let peer = reader.connect(&producer.local_addr().into(), key()).unwrap();
    let mut submitter = reader.submitter().unwrap();
    let mut batch = submitter.batch().unwrap();
    batch.read(peer.page(locations[0]).unwrap(), slots.next().unwrap()).unwrap();
    let ticket = submitter.submit(batch, clock::within(PATIENCE)).unwrap();
    while !matches!(submitter.next_outcome(), Some(Outcome::Done(_))) {
        reader.poll();
        reader.wait(clock::within(Duration::from_millis(10)));
    }
    come_to_rest(&mut reader);
    // More orders than a turn takes twice; nothing of them leads to a completion.
    let mut orders = 0;
    while submitter.withdraw(ticket).is_ok() {
        orders += 1;
    }
    assert!(orders > 16, "{orders} orders");
    come_to_rest(&mut reader);
    assert!(submitter.withdraw(ticket).is_ok(), "the reader would sleep for an hour over {orders} orders");
    for _ in 1..orders {
        assert!(submitter.withdraw(ticket).is_ok(), "orders were left");
    }
}
