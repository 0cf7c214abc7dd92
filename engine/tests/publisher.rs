//! One publisher that several threads share: each slot is on its own, and readers never see a
//! mixture.

#[path = "publisher/layers.rs"]
mod layers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use kvrail::core::error::PageError;
use kvrail::core::table::{GrowError, Miss};
use kvrail::session::handover::RequestId;
use kvrail::{KeyTag, Location, Publisher, Ready, WriteError, shm};

use layers::{LAYERS, Layers, MLA, PART, fill, key};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

fn publisher(slots: u32) -> Publisher {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    Publisher::start(name, MLA, slots, &listen, key(), shm::publish(1)).unwrap()
}

/// A place that threads leave when all of them are there.
struct Meeting {
    expected: u32,
    there: Mutex<u32>,
    all: Condvar,
}

impl Meeting {
    const fn of(expected: u32) -> Self {
        Self { expected, there: Mutex::new(0), all: Condvar::new() }
    }

    fn attend(&self) {
        let mut there = self.there.lock().unwrap();
        *there += 1;
        self.all.notify_all();
        let (there, waited) =
            self.all.wait_timeout_while(there, LIMIT, |there| *there < self.expected).unwrap();
        assert!(!waited.timed_out(), "only {} of {} threads write at a time", *there, self.expected);
    }
}

#[test]
fn eight_threads_are_inside_their_fills_at_once() {
    const THREADS: u32 = 8;
    let (publisher, meeting) = (publisher(2 * THREADS), Meeting::of(2 * THREADS));
    std::thread::scope(|scope| {
        for slot in 0..THREADS {
            let (publisher, meeting) = (&publisher, &meeting);
            scope.spawn(move || {
                let write = |page: &mut [u8]| {
                    page.fill(slot as u8);
                    meeting.attend();
                };
                publisher.write(slot, KeyTag(slot.into()), write).unwrap();
            });
            scope.spawn(move || {
                let mut guard = publisher.overwrite(THREADS + slot, KeyTag(slot.into())).unwrap();
                guard.bytes().fill(slot as u8);
                meeting.attend();
                guard.publish();
            });
        }
    });
    for slot in 0..2 * THREADS {
        let page = publisher.page(slot).unwrap();
        assert!(page.iter().all(|&byte| u32::from(byte) == slot % THREADS), "slot {slot}");
        assert_eq!(publisher.location(slot).unwrap().unwrap().expected.ready, Ready::WHOLE);
    }
}

#[test]
fn eight_threads_make_parts_ready_at_once() {
    const THREADS: u32 = 8;
    let (publisher, meeting) = (publisher(THREADS), Meeting::of(THREADS));
    std::thread::scope(|scope| {
        for slot in 0..THREADS {
            let (publisher, meeting) = (&publisher, &meeting);
            scope.spawn(move || {
                publisher.begin(slot, KeyTag(slot.into())).unwrap();
                publisher.set_ready(slot, 1, |_| meeting.attend()).unwrap();
            });
        }
    });
    for slot in 0..THREADS {
        assert_eq!(publisher.location(slot).unwrap().unwrap().expected.ready, Ready(1));
    }
}

#[test]
fn a_second_guard_of_a_slot_is_refused_and_other_slots_are_free() {
    let publisher = publisher(2);
    let untouched = |_: &mut [u8]| panic!("bytes are written");
    let before = publisher.write(0, KeyTag(1), |page| page.fill(1)).unwrap();
    let guard = publisher.overwrite(0, KeyTag(2)).unwrap();
    let refused = WriteError::BeingWritten { slot: 0 };
    let calls = [
        publisher.overwrite(0, KeyTag(3)).map(|_| ()),
        publisher.write(0, KeyTag(3), untouched).map(|_| ()),
        publisher.begin(0, KeyTag(3)).map(|_| ()),
        publisher.set_ready(0, 1, untouched).map(|_| ()),
        publisher.finish(0, untouched).map(|_| ()),
        publisher.page(0).map(|_| ()),
    ];
    assert_eq!(calls, [Err(refused); 6]);
    assert_eq!(refused.code(), 6072);
    publisher.write(1, KeyTag(4), |page| page.fill(4)).unwrap();
    let after = guard.publish();
    assert_eq!(publisher.location(0).unwrap(), Some(after), "the refused calls changed nothing");
    assert_eq!(after.expected.tag, KeyTag(2));
    assert_eq!(after.expected.generation.count(), before.expected.generation.count() + 1);
    // The same from inside of a fill, and for a page that grows.
    publisher.begin(0, KeyTag(5)).unwrap();
    let inside = |_: &mut [u8]| assert_eq!(publisher.overwrite(0, KeyTag(6)).err(), Some(refused));
    publisher.set_ready(0, 1, inside).unwrap();
    let growing = publisher.overwrite(0, KeyTag(7)).unwrap().grow();
    assert_eq!(publisher.finish(0, untouched), Err(refused));
    drop(growing);
    assert!(publisher.overwrite(0, KeyTag(8)).is_ok(), "the last guard has ended");
}

#[test]
fn a_slot_that_is_read_here_is_not_overwritten() {
    let publisher = publisher(2);
    let location = publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    let (page, other) = (publisher.page(0).unwrap(), publisher.page(0).unwrap());
    let refused = publisher.overwrite(0, KeyTag(2)).unwrap_err();
    assert_eq!((refused, refused.code()), (WriteError::BeingRead { slot: 0 }, 6073));
    assert_eq!(publisher.location(0).unwrap(), Some(location), "a refusal changes nothing");
    drop(page);
    assert_eq!(publisher.begin(0, KeyTag(2)), Err(refused));
    // Peers can be kept off meanwhile: no byte changes by that.
    publisher.invalidate(0).unwrap();
    assert!(other.iter().all(|&byte| byte == 7));
    drop(other);
    publisher.write(0, KeyTag(2), |_| ()).unwrap();
}

#[test]
fn a_guard_that_is_dropped_leaves_a_miss() {
    let publisher = publisher(1);
    let mut layers = Layers::new(&publisher, shm::rails(1).unwrap());
    let whole = publisher.write(0, KeyTag(1), |page| fill(page, KeyTag(1), 0..LAYERS)).unwrap();
    assert_eq!(layers.read(whole, 0), Ok(()));
    let count = publisher.publications(0).unwrap();
    drop(publisher.overwrite(0, KeyTag(2)).unwrap());
    assert_eq!(publisher.location(0).unwrap(), None);
    assert_eq!(publisher.publications(0).unwrap(), count, "nothing was published");
    let result = layers.read(whole, 0);
    assert!(matches!(result, Err(PageError::Miss(Miss::Overwriting { .. }))), "{result:?}");
    // A page that grows is taken back with its ready parts.
    let mut growing = publisher.overwrite(0, KeyTag(3)).unwrap().grow();
    let ready = growing.set_ready(1, |page| fill(page, KeyTag(3), 0..1)).unwrap();
    assert_eq!(growing.location(), ready);
    assert_eq!(layers.read(ready, 0), Ok(()));
    drop(growing);
    assert_eq!(publisher.location(0).unwrap(), None);
    let result = layers.read(ready, 0);
    assert!(matches!(result, Err(PageError::Miss(Miss::Overwriting { .. }))), "{result:?}");
    // One that is finished stays.
    let mut growing = publisher.overwrite(0, KeyTag(4)).unwrap().grow();
    growing.set_ready(2, |page| fill(page, KeyTag(4), 0..2)).unwrap();
    let whole = growing.finish(|page| fill(page, KeyTag(4), 2..LAYERS)).unwrap();
    assert_eq!(publisher.location(0).unwrap(), Some(whole));
    (0..LAYERS).for_each(|layer| assert_eq!(layers.read(whole, layer), Ok(())));
}

#[test]
fn a_panic_in_a_fill_leaves_a_miss_and_a_free_slot() {
    let publisher = publisher(1);
    let panics: [&dyn Fn(); 4] = [
        &|| {
            publisher.write(0, KeyTag(1), |_| panic!("half way")).unwrap();
        },
        &|| {
            let mut guard = publisher.overwrite(0, KeyTag(1)).unwrap();
            guard.bytes().fill(1);
            panic!("half way");
        },
        &|| {
            let mut growing = publisher.overwrite(0, KeyTag(1)).unwrap().grow();
            growing.set_ready(1, |_| ()).unwrap();
            growing.set_ready(2, |_| panic!("half way")).unwrap();
        },
        &|| {
            let growing = publisher.overwrite(0, KeyTag(1)).unwrap().grow();
            growing.finish(|_| panic!("half way")).unwrap();
        },
    ];
    for panics in panics {
        publisher.write(0, KeyTag(9), |_| ()).unwrap();
        catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(publisher.location(0).unwrap(), None);
    }
    publisher.write(0, KeyTag(2), |_| ()).unwrap();
}

#[test]
fn a_page_that_is_taken_back_by_another_thread_grows_no_further() {
    let publisher = publisher(1);
    let taken_back = |result: Result<Location, WriteError>| match result.unwrap_err() {
        WriteError::Grow { slot: 0, source: GrowError::NotPublished(_) } => {}
        error => panic!("{error}"),
    };
    let mut growing = publisher.overwrite(0, KeyTag(1)).unwrap().grow();
    std::thread::scope(|scope| scope.spawn(|| publisher.invalidate(0).unwrap()).join().unwrap());
    taken_back(growing.set_ready(1, |_| panic!("bytes are written")));
    assert_eq!(publisher.begin(0, KeyTag(2)), Err(WriteError::BeingWritten { slot: 0 }));
    taken_back(growing.finish(|_| panic!("bytes are written")));
    // While a part is written.
    let mut growing = publisher.overwrite(0, KeyTag(3)).unwrap().grow();
    taken_back(growing.set_ready(1, |_| publisher.invalidate(0).unwrap()));
    assert_eq!(publisher.location(0).unwrap(), None);
    drop(growing);
    // A guard that overwrites the slot has no page yet that could be taken back.
    let guard = publisher.overwrite(0, KeyTag(4)).unwrap();
    publisher.invalidate(0).unwrap();
    let location = guard.publish();
    assert_eq!(publisher.location(0).unwrap(), Some(location));
}

#[test]
fn an_ended_hand_over_takes_a_growing_page_from_its_guard_and_no_later_page() {
    let publisher = publisher(2);
    let handovers = publisher.handovers();
    let id = handovers.open(RequestId(1)).unwrap();
    let mut growing = publisher.overwrite(0, KeyTag(1)).unwrap().grow();
    publisher.write(1, KeyTag(2), |_| ()).unwrap();
    let blocks = [0, 1].map(|slot| publisher.block(slot).unwrap().unwrap());
    handovers.append(id, &blocks).unwrap();
    handovers.abort(id).unwrap();
    let later = publisher.write(1, KeyTag(3), |_| ()).unwrap();
    let ended = publisher.next_ended_handover().unwrap();
    assert_eq!((ended.id, ended.blocks.len()), (id, 2));
    assert_eq!(publisher.location(0).unwrap(), None);
    assert_eq!(publisher.location(1).unwrap(), Some(later), "it is not a page of the hand-over");
    let refused = growing.set_ready(1, |_| panic!("bytes are written")).unwrap_err();
    assert!(matches!(refused, WriteError::Grow { .. }), "{refused}");
    drop(growing);
    assert!(publisher.overwrite(0, KeyTag(4)).is_ok());
}

/// The next tag. No two publications share one.
static NEXT_TAG: AtomicU64 = AtomicU64::new(1);

/// Overwrites one slot in one of the ways that there are, unless another thread is at it.
fn overwrite_somehow(publisher: &Publisher, slot: u32, way: u64) {
    let tag = KeyTag(u128::from(NEXT_TAG.fetch_add(1, Ordering::Relaxed)));
    let Ok(mut guard) = publisher.overwrite(slot, tag) else { return };
    if way.is_multiple_of(2) {
        fill(guard.bytes(), tag, 0..LAYERS);
        if way != 8 {
            guard.publish();
        }
        return;
    }
    let mut growing = guard.grow();
    for layer in 0..LAYERS - 1 {
        // Refused once another thread has taken the page back.
        if growing.set_ready(layer + 1, |page| fill(page, tag, layer..layer + 1)).is_err() {
            return;
        }
        std::thread::yield_now();
    }
    if way != 9 {
        let _ = growing.finish(|page| fill(page, tag, LAYERS - 1..LAYERS));
    }
}

#[test]
fn a_page_is_right_or_a_miss_while_threads_overwrite_slots() {
    const SLOTS: u32 = 4;
    let (publisher, over) = (publisher(SLOTS), AtomicBool::new(false));
    let mut layers = Layers::new(&publisher, shm::rails(1).unwrap());
    let (mut hits, mut growing, mut misses) = (0, 0, 0);
    let until = Instant::now() + LIMIT;
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (publisher, over) = (&publisher, &over);
            scope.spawn(move || {
                let mut random = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(thread + 1);
                while !over.load(Ordering::Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let slot = (random >> 8) as u32 % SLOTS;
                    match random % 16 {
                        10 => publisher.invalidate(slot).unwrap(),
                        11.. => std::thread::yield_now(),
                        way => overwrite_somehow(publisher, slot, way),
                    }
                }
            });
        }
        // The threads end whatever happens here.
        let result = catch_unwind(AssertUnwindSafe(|| {
            for slot in (0..SLOTS).cycle() {
                if hits >= 1_000 && growing >= 100 && misses >= 100 {
                    break;
                }
                assert!(Instant::now() < until, "{hits} hits, {growing} of growing pages, {misses} misses");
                let Some(location) = publisher.location(slot).unwrap() else { continue };
                let ready = location.expected.ready;
                let parts = if ready == Ready::WHOLE { LAYERS } else { ready.0 };
                let Some(layer) = parts.checked_sub(1) else { continue };
                // Checks every byte.
                match layers.read(location, layer) {
                    Ok(()) => (hits, growing) = (hits + 1, growing + u32::from(ready != Ready::WHOLE)),
                    Err(PageError::Miss(Miss::Generation { .. } | Miss::Overwriting { .. })) => misses += 1,
                    Err(error) => panic!("{location:?}: {error}"),
                }
            }
        }));
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    println!("{hits} layers, {growing} of them of pages that grew, {misses} misses");
}

#[test]
fn a_guard_gives_the_bytes_of_its_slot_alone() {
    let publisher = publisher(3);
    for slot in 0..3 {
        publisher.write(slot, KeyTag(0), |page| page.fill(slot as u8)).unwrap();
    }
    let mut guard = publisher.overwrite(1, KeyTag(1)).unwrap();
    assert_eq!(guard.bytes().len(), PART * LAYERS as usize);
    guard.bytes().fill(9);
    drop(guard);
    for (slot, byte) in [(0, 0), (1, 9), (2, 2)] {
        assert!(publisher.page(slot).unwrap().iter().all(|&b| b == byte), "slot {slot}");
    }
}
