//! Look-ups in a directory that does not answer, panics, or says a wrong address.

use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use kvrail_node::{
    Directory, DirectoryError, Found, GetHandle, GetMiss, Node, NodeConfig, NodeError, Owner, Record, Renewed,
};

use crate::directory::TestDirectory;
use crate::group::*;

/// What a look-up of one key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It takes until the gate is opened or its deadline.
    Freeze(u64),
    Panic(u64),
    /// It is not answered, until the deadline: the others of its batch are, then.
    Silent(u64),
    /// The first key is answered with what is known of the second, and as if that had been asked.
    Swap(u64, u64),
}

/// A directory of which some keys are faulty.
#[derive(Debug)]
struct Faulty {
    inner: Arc<TestDirectory>,
    fault: Fault,
    open: Mutex<bool>,
    opened: Condvar,
    /// How many calls are frozen.
    frozen: AtomicUsize,
}

impl Faulty {
    fn new(inner: &Arc<TestDirectory>, fault: Fault) -> Arc<Self> {
        let (open, opened) = (Mutex::new(false), Condvar::new());
        Arc::new(Self { inner: Arc::clone(inner), fault, open, opened, frozen: AtomicUsize::new(0) })
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn frozen(&self) -> usize {
        self.frozen.load(Ordering::SeqCst)
    }
}

impl Directory for Faulty {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        match self.fault {
            Fault::Freeze(number) if tags.contains(&key(number).0) => {
                self.frozen.fetch_add(1, Ordering::SeqCst);
                let left = deadline.saturating_duration_since(Instant::now());
                let open = self.open.lock().unwrap();
                drop(self.opened.wait_timeout_while(open, left, |open| !*open).unwrap());
                self.frozen.fetch_sub(1, Ordering::SeqCst);
            }
            Fault::Panic(number) if tags.contains(&key(number).0) => panic_any("a fault of the directory"),
            _ => {}
        }
        self.inner.look_up(tags, deadline, found);
        if let Fault::Silent(number) = self.fault
            && let Some(at) = tags.iter().position(|&tag| tag == key(number).0)
        {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            found.not_answered([at], DirectoryError::Deadline { directory: "silent".into() });
        }
        if let Fault::Swap(asked, other) = self.fault
            && let Some(at) = tags.iter().position(|&tag| tag == key(asked).0)
        {
            found.answer(at, key(other).0, self.inner.of(key(other).0));
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.inner.owners(epochs, deadline)
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.inner.announce(owner, records, deadline)
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.inner.withdraw(records, deadline)
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        self.inner.renew(owner, deadline)
    }

    fn lease(&self) -> Duration {
        self.inner.lease()
    }

    fn describe(&self) -> String {
        "faulty".into()
    }
}

fn faulty_reader(directory: &Arc<Faulty>, threads: usize) -> Node {
    let config = NodeConfig::new("reader".parse().unwrap(), peer_key()).layout(PAGE).look_up_threads(threads);
    start(config.directory(Arc::clone(directory) as Arc<dyn Directory>))
}

/// The labels of the results. A miss for which the directory is the reason has the label of a hit
/// that the directory named, and so another word here.
fn finish(mut handle: GetHandle, keys: &[u64]) -> Vec<&'static str> {
    assert!(handle.wait(within(60_000)), "{handle:?}");
    let (mut batch, _) = handle.finish().unwrap();
    let results = checked(keys, &mut batch);
    let no_answer = results.iter().map(|result| matches!(result, Err(GetMiss::Directory(_))));
    let labels = labels(&results).into_iter().zip(no_answer);
    labels.map(|(label, no_answer)| if no_answer { "no answer" } else { label }).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = within(60_000);
    while !is_so() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_look_up_that_is_not_answered_delays_no_other() {
    let plain = Arc::new(TestDirectory::default());
    let owner = producer("owner", &plain, 8);
    put(&owner, 0..8);
    let directory = Faulty::new(&plain, Fault::Freeze(0));
    let reader = faulty_reader(&directory, 3);
    let places = places(&reader, 16);
    let deadline = within(120_000);
    // Two of three threads are held.
    let mut held: Vec<_> = (0..2).map(|_| reader.begin_get(batch(&places, [0]), deadline)).collect();
    until("two look-ups are under way", || directory.frozen() == 2);
    for round in 0..20 {
        let keys = [1 + round % 7];
        let handle = reader.begin_get(batch(&places, keys), deadline);
        assert!(["directory", "cache"].contains(&finish(handle, &keys)[0]), "round {round}");
    }
    assert!(held.iter_mut().all(|handle| !handle.poll()), "they are held all the while");
    directory.open();
    for handle in held {
        assert_eq!(finish(handle, &[0]), ["directory"]);
    }
}

/// What a node looks keys up by, at most.
const MOST: usize = 64;

#[test]
fn threads_are_added_while_look_ups_are_not_answered_and_end_after_it() {
    let plain = Arc::new(TestDirectory::default());
    let owner = producer("owner", &plain, 8);
    put(&owner, 0..8);
    let directory = Faulty::new(&plain, Fault::Freeze(0));
    let reader = faulty_reader(&directory, 1);
    let places = places(&reader, MOST + 8);
    let deadline = within(600_000);
    let hold = |_| reader.begin_get(batch(&places, [0]), deadline);
    let mut held: Vec<_> = (0..20).map(hold).collect();
    let keys = [1, 2];
    let got = finish(reader.begin_get(batch(&places, keys), deadline), &keys);
    assert_eq!(got, ["directory"; 2]);
    until("all are under way", || directory.frozen() == 20);
    assert!(reader.statistics().look_up_threads > 20, "{:?}", reader.statistics());
    // As many as there may be.
    held.extend((20..MOST).map(hold));
    until("all are under way", || directory.frozen() == MOST);
    assert_eq!(reader.statistics().look_up_threads, MOST);
    for key in [3, 4] {
        let mut handle = reader.begin_get(batch(&places, [key]), deadline);
        assert!(handle.wait(within(60_000)));
        let (got, _) = handle.finish().unwrap();
        let Some(Err(GetMiss::Directory(Some(why)))) = got.result(0) else { panic!("{got:?}") };
        assert!(matches!(**why, DirectoryError::Busy { limit: MOST, .. }), "{why}");
    }
    assert!(held.iter_mut().all(|handle| !handle.poll()), "they are held all the while");
    assert_eq!(directory.frozen(), MOST);
    directory.open();
    for handle in held {
        assert_eq!(finish(handle, &[0]), ["directory"]);
    }
    let handle = reader.begin_get(batch(&places, [3]), deadline);
    assert_eq!(finish(handle, &[3]), ["directory"]);
    until("one thread is left", || reader.statistics().look_up_threads == 1);
    let handle = reader.begin_get(batch(&places, [4]), deadline);
    assert_eq!(finish(handle, &[4]), ["directory"]);
    assert_eq!(places.free() as usize, MOST + 8);
}

#[test]
fn pages_of_which_a_part_of_the_directory_knows_are_read_though_another_part_is_silent() {
    let plain = Arc::new(TestDirectory::default());
    let owner = producer("owner", &plain, 8);
    put(&owner, 0..8);
    // The shard of key 0 says nothing, until the deadline of the look-up.
    let directory = Faulty::new(&plain, Fault::Silent(0));
    let reader = faulty_reader(&directory, 1);
    let places = places(&reader, 16);
    let keys = [1, 0, 2];
    let results = get(&reader, &places, keys, 4_000);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{results:?}");
    reader.clear_cache();
    let mut handle = reader.begin_get(batch(&places, keys), within(4_000));
    assert!(handle.wait(within(60_000)));
    let (mut got, counts) = handle.finish().unwrap();
    assert_eq!((counts.hits, counts.misses), (2, 1), "{:?}", checked(&keys, &mut got));
}

#[test]
fn a_node_is_dropped_while_its_directory_does_not_answer() {
    let plain = Arc::new(TestDirectory::default());
    let directory = Faulty::new(&plain, Fault::Freeze(0));
    let reader = faulty_reader(&directory, 2);
    let places = places(&reader, 4);
    let mut handle = reader.begin_get(batch(&places, [0]), within(600_000));
    until("the look-up is under way", || directory.frozen() == 1);
    drop(reader);
    assert_eq!(directory.frozen(), 1, "the drop did not wait for the look-up to end");
    assert!(!handle.poll());
    directory.open();
    // The thread that was left behind gives the request back.
    assert_eq!(finish(handle, &[0]), ["no_owner"]);
    assert_eq!(places.free(), 4);
}

#[test]
fn a_directory_that_panics_has_not_answered_and_the_next_look_up_goes_on() {
    let plain = Arc::new(TestDirectory::default());
    let owner = producer("owner", &plain, 8);
    put(&owner, 0..8);
    let directory = Faulty::new(&plain, Fault::Panic(0));
    let reader = faulty_reader(&directory, 1);
    let places = places(&reader, 16);
    for round in 1..=3 {
        // Polled, by the one thread that there is, and on the calling thread.
        let handle = reader.begin_get(batch(&places, [0, 1]), within(60_000));
        assert_eq!(finish(handle, &[0, 1]), ["no answer"; 2]);
        let results = get(&reader, &places, [0], 60_000);
        let Err(GetMiss::Directory(Some(why))) = &results[0] else { panic!("{results:?}") };
        assert_eq!(why.code(), 7026);
        assert!(why.to_string().contains("a fault of the directory"), "{why}");
        assert!(reader.exists(&[key(0)], within(60_000)).unknown.get(0));
        assert_eq!(reader.statistics().get.directory_panics, 3 * round);
        let handle = reader.begin_get(batch(&places, [2]), within(60_000));
        assert!(["directory", "cache"].contains(&finish(handle, &[2])[0]));
    }
    assert_eq!(places.free(), 16);
}

#[test]
fn a_directory_that_answers_for_another_key_has_no_owner_of_this_one() {
    let plain = Arc::new(TestDirectory::default());
    let owner = producer("owner", &plain, 32);
    put(&owner, 0..32);
    let directory = Faulty::new(&plain, Fault::Swap(0, 1));
    let reader = faulty_reader(&directory, 1);
    let places = places(&reader, 64);
    for keys in [0..1, 0..32] {
        // Every byte of a hit is compared with the page of its key.
        let results = get(&reader, &places, keys.clone(), 60_000);
        assert_eq!(labels(&results)[0], "no_owner", "{results:?}");
        assert!(results[1..].iter().all(Result::is_ok), "{results:?}");
    }
}

#[test]
fn a_wrong_address_is_forgotten_as_soon_as_the_directory_says_the_right_one() {
    let directory = Arc::new(TestDirectory::default());
    let (one, two) = (producer("one", &directory, 4), producer("two", &directory, 4));
    let reader = reader(&directory);
    let places = places(&reader, 4);
    put(&one, [0]);
    put(&two, [1]);
    let truth = Owner {
        epoch: one.epoch().unwrap(),
        node: "one".parse().unwrap(),
        address: one.publisher().unwrap().local_addr().into(),
        zone: "z".parse().unwrap(),
    };
    let at = |address| Owner { address, ..truth.clone() };
    // Another owner is at the address that the directory says.
    directory.owner(at(two.publisher().unwrap().local_addr().into()));
    assert_eq!(labels(&get(&reader, &places, [0, 1], 20_000)), ["restarted", "directory"]);
    assert_eq!(labels(&get(&reader, &places, [0], 20_000)), ["restarted"], "the same lie again");
    directory.owner(truth.clone());
    // The directory is asked where it is once a second.
    until("the right address is tried", || labels(&get(&reader, &places, [0], 20_000)) == ["directory"]);
}

#[test]
fn an_owner_that_is_not_reached_is_found_at_the_address_that_is_said_later() {
    let directory = Arc::new(TestDirectory::default());
    let one = producer("one", &directory, 4);
    let reader = reader(&directory);
    let places = places(&reader, 4);
    put(&one, [0]);
    // A port at which nothing listens.
    let nothing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let truth = Owner {
        epoch: one.epoch().unwrap(),
        node: "one".parse().unwrap(),
        address: one.publisher().unwrap().local_addr().into(),
        zone: "z".parse().unwrap(),
    };
    directory.owner(Owner { address: nothing.into(), ..truth.clone() });
    assert_eq!(labels(&get(&reader, &places, [0], 20_000)), ["unreachable"]);
    directory.owner(truth);
    until("the right address is tried", || labels(&get(&reader, &places, [0], 20_000)) == ["directory"]);
}

#[test]
fn a_number_of_look_up_threads_that_cannot_be_is_refused() {
    for threads in [0, 65] {
        let config = NodeConfig::new("n".parse().unwrap(), peer_key()).layout(PAGE).look_up_threads(threads);
        let started = Node::start(config, kvrail::shm::publish(1), || kvrail::shm::rails(1));
        let error = started.unwrap_err();
        assert!(matches!(error, NodeError::LookUpThreads { max: 64, .. }) && error.code() == 7225, "{error}");
    }
}
