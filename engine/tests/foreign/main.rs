//! Pools whose pages are memory of an inference engine: published without a copy.
#![allow(unsafe_code, reason = "memory of an engine that the tests play")]

mod beside;
mod blocks;
mod order;
mod pieces;
mod regions;
mod rig;
mod storm;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use kvrail::core::provider::MemoryRange;
use kvrail::core::table::{GrowError, Miss};
use kvrail::session::PoolId;
use kvrail::{
    ForeignMemory, ForeignPool, ForeignPoolError, ForeignRegion, KeyTag, PageError, PublisherConfig,
    PublisherError, PublisherTransport, ReaderTransport, Ready, WithdrawError, WriteError, shm, tcp,
};

use rig::{BLOCK, EngineMemory, INDEX, LATENT, Reads, pool, publisher};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// Two layouts side by side in the blocks of one piece of memory, each a pool.
fn pages_side_by_side_are_read<N: ReaderTransport>(over: impl PublisherTransport, rails: impl Fn() -> N) {
    let memory = EngineMemory::of(5);
    let foreign = memory.foreign();
    let publisher = publisher(&[pool(LATENT, &foreign), pool(INDEX, &foreign)], over).unwrap();
    for (id, layout) in [(PoolId(0), LATENT), (PoolId(1), INDEX)] {
        let pool = publisher.pool(id).unwrap();
        let slots = pool.foreign().unwrap();
        assert_eq!((pool.slots(), *pool.layout()), (5, layout));
        let mut reads = Reads::of(layout, &publisher, rails());
        let byte = |slot| (id.0 * 100 + slot + 1) as u8;
        let locations: Vec<_> = (0..5)
            .map(|slot| {
                let guard = slots.overwrite(slot, KeyTag(slot.into())).unwrap();
                memory.fill(slot, &layout, byte(slot));
                guard.publish()
            })
            .collect();
        for (&location, slot) in locations.iter().zip(0..) {
            assert_eq!(reads.read(location), Ok(byte(slot)), "{id}, slot {slot}");
        }
        // The engine writes its memory once more: the old location is a miss.
        let guard = slots.overwrite(3, KeyTag(9)).unwrap();
        assert!(matches!(reads.read(locations[3]), Err(PageError::Miss(Miss::Overwriting { .. }))));
        memory.fill(3, &layout, 99);
        let new = guard.publish();
        assert!(matches!(reads.read(locations[3]), Err(PageError::Miss(_))));
        assert_eq!(reads.read(new), Ok(99));
    }
    drop(publisher);
    memory.unmap();
}

#[test]
fn pages_of_an_engines_memory_are_read_over_shm() {
    pages_side_by_side_are_read(shm::publish(2), || shm::rails(2).unwrap());
}

#[test]
fn pages_of_an_engines_memory_are_read_over_tcp() {
    pages_side_by_side_are_read(tcp::publish(LOCALHOST, 1), || tcp::rails(1).unwrap());
}

#[test]
fn pages_in_an_engines_file_are_read_from_an_offset() {
    const SKIPPED: u64 = 8192;
    // SAFETY: a system call with a string that lives for ever.
    let file = unsafe { libc::memfd_create(c"engine".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it was just opened, and nothing else has it.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    let (page, len) = (u64::from(LATENT.page_bytes()), 3 * u64::from(LATENT.page_bytes()));
    // SAFETY: a system call on integers.
    assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), (SKIPPED + len).cast_signed()) }, 0);
    let mapped = EngineMemory::of_file(&file, SKIPPED, len);
    // SAFETY: mapped to the end of the test, and written under guards.
    let memory = unsafe { ForeignMemory::file(file.try_clone().unwrap(), SKIPPED, mapped.range()) };
    let pool = ForeignPool::new(LATENT).region(ForeignRegion::new(&memory));
    let publisher = publisher(&[pool], shm::publish(1)).unwrap();
    let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
    let mut reads = Reads::of(LATENT, &publisher, shm::rails(1).unwrap());
    for slot in 0..3 {
        let guard = slots.overwrite(slot, KeyTag(1)).unwrap();
        mapped.fill_at(u64::from(slot) * page, page, slot as u8 + 40);
        assert_eq!(reads.read(guard.publish()), Ok(slot as u8 + 40));
    }
}

#[test]
fn a_foreign_page_grows_part_by_part() {
    let memory = EngineMemory::of(2);
    let publisher = publisher(&[pool(LATENT, &memory.foreign())], shm::publish(1)).unwrap();
    let pool = publisher.pool(PoolId(0)).unwrap();
    let slots = pool.foreign().unwrap();
    let mut growing = slots.overwrite(0, KeyTag(1)).unwrap().grow();
    assert_eq!(growing.location().expected.ready, Ready::NONE);
    assert_eq!(growing.set_ready(2).unwrap().expected.ready, Ready(2));
    let refused = growing.set_ready(1).unwrap_err();
    assert!(matches!(refused, WriteError::Grow { slot: 0, source: GrowError::Falls { .. } }), "{refused}");
    let whole = growing.finish().unwrap();
    assert_eq!((whole.expected.ready, pool.location(0).unwrap()), (Ready::WHOLE, Some(whole)));
    // Without a guard, and dropped half way.
    slots.begin(1, KeyTag(2)).unwrap();
    assert_eq!(slots.set_ready(1, 3).unwrap().expected.ready, Ready(3));
    let whole = slots.finish(1).unwrap();
    assert_eq!(pool.location(1).unwrap(), Some(whole));
    drop(slots.overwrite(1, KeyTag(3)).unwrap().grow());
    assert_eq!(pool.location(1).unwrap(), None, "a guard that is dropped takes its page back");
    drop(slots.overwrite(0, KeyTag(3)).unwrap());
    assert_eq!(pool.location(0).unwrap(), None, "and leaves its slot a miss");
}

#[test]
fn eight_threads_hold_guards_of_eight_slots_at_once() {
    const THREADS: u32 = 8;
    let memory = EngineMemory::of(THREADS.into());
    let publisher = publisher(&[pool(LATENT, &memory.foreign())], shm::publish(1)).unwrap();
    let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
    let (held, all) = (Mutex::new(0), Condvar::new());
    std::thread::scope(|scope| {
        for slot in 0..THREADS {
            let (slots, held, all) = (&slots, &held, &all);
            scope.spawn(move || {
                let guard = slots.overwrite(slot, KeyTag(slot.into())).unwrap();
                let mut count = held.lock().unwrap();
                *count += 1;
                all.notify_all();
                let (count, waited) = all.wait_timeout_while(count, LIMIT, |count| *count < THREADS).unwrap();
                assert!(!waited.timed_out(), "only {count} of {THREADS} guards exist at a time");
                drop(count);
                let second = slots.overwrite(slot, KeyTag(0)).unwrap_err();
                assert_eq!(second, WriteError::BeingWritten { slot });
                guard.publish();
            });
        }
    });
    let pool = publisher.pool(PoolId(0)).unwrap();
    assert!((0..THREADS).all(|slot| pool.location(slot).unwrap().is_some()));
}

#[test]
fn the_publisher_gives_out_no_bytes_of_foreign_pages() {
    let memory = EngineMemory::of(1);
    let publisher = publisher(&[pool(LATENT, &memory.foreign())], shm::publish(1)).unwrap();
    let untouched = |_: &mut [u8]| panic!("bytes are given");
    let foreign = WriteError::ForeignBytes { pool: PoolId(0) };
    let calls = [
        publisher.overwrite(0, KeyTag(1)).map(drop),
        publisher.write(0, KeyTag(1), untouched).map(drop),
        publisher.begin(0, KeyTag(1)).map(drop),
        publisher.set_ready(0, 1, untouched).map(drop),
        publisher.page(0).map(drop),
    ];
    assert_eq!(calls, [Err(foreign); 5]);
    assert_eq!(foreign.code(), 6074);
    let own = publisher.add_pool(INDEX, 1).unwrap();
    assert!(publisher.pool(own).unwrap().foreign().is_none());
}

#[test]
fn pages_that_cannot_be_are_refused_before_anything_is_published() {
    let memory = EngineMemory::of(4);
    let foreign = memory.foreign();
    let refusal = |pools: &[ForeignPool]| match publisher(pools, shm::publish(1)).unwrap_err() {
        PublisherError::Foreign { pool, source } => (pool.0, source.code()),
        other => panic!("{other}"),
    };
    let region = || ForeignRegion::new(&foreign);
    let latent = |region| [ForeignPool::new(LATENT).region(region)];
    assert_eq!(refusal(&latent(region())), (0, 6115), "blocks are not pages: a tail is left");
    assert_eq!(refusal(&latent(region().stride(100))), (0, 6113));
    assert_eq!(refusal(&latent(region().stride(BLOCK).offset(BLOCK))), (0, 6114));
    assert_eq!(refusal(&latent(region().bytes(0..5 * BLOCK))), (0, 6112));
    assert_eq!(refusal(&[ForeignPool::new(LATENT)]), (0, 6110));
    let twice = [pool(LATENT, &foreign), pool(LATENT, &memory.foreign())];
    assert_eq!(refusal(&twice), (1, 6118), "one page has one table, whichever handle names it");
    // Into memory of the publisher's own.
    let mixed = PublisherConfig::new("producer".parse().unwrap()).pool(LATENT, 1);
    let listen = "127.0.0.1:0".parse().unwrap();
    let mixed = kvrail::Publisher::start_pools(mixed, &listen, rig::key(), shm::publish(1)).unwrap();
    let inside = mixed.page(0).unwrap().as_ptr().expose_provenance() as u64;
    // SAFETY: it is refused, and nothing reads it.
    let inside = unsafe { ForeignMemory::host(MemoryRange { addr: inside + 64, len: 8192 }) };
    let error = mixed.add_foreign_pool(ForeignPool::new(LATENT).region(ForeignRegion::new(&inside)));
    let Err(PublisherError::Foreign { pool: PoolId(1), source }) = error else { panic!("{error:?}") };
    assert!(matches!(source, ForeignPoolError::Overlap { other: (PoolId(0), 0, 0), .. }), "{source}");
    // Nothing of it is left.
    assert_eq!(mixed.pools().len(), 1);
    assert_eq!(mixed.add_foreign_pool(pool(LATENT, &foreign)).unwrap(), PoolId(1));
}

#[test]
fn a_device_is_not_reached_over_shm_and_the_error_says_so() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let range = MemoryRange { addr: 1 << 20, len: LATENT.page_bytes().into() };
    // SAFETY: it is refused, and nothing reads it.
    let memory = unsafe { ForeignMemory::dmabuf(file.into(), 0, range) };
    let pool = ForeignPool::new(LATENT).region(ForeignRegion::new(&memory));
    let error = publisher(&[pool], shm::publish(1)).unwrap_err();
    assert!(matches!(error, PublisherError::Transport(_)), "{error}");
}

#[test]
fn pools_come_and_go_while_a_publisher_runs() {
    let memory = EngineMemory::of(3);
    let foreign = memory.foreign();
    let publisher = publisher(&[pool(LATENT, &foreign)], shm::publish(1)).unwrap();
    let first = publisher.pool(PoolId(0)).unwrap();
    let slots = first.foreign().unwrap();
    let mut reads = Reads::of(LATENT, &publisher, shm::rails(1).unwrap());
    let guard = slots.overwrite(1, KeyTag(1)).unwrap();
    memory.fill(1, &LATENT, 5);
    let old = guard.publish();
    assert_eq!(reads.read(old), Ok(5));
    // A guard keeps its pool, and all of it.
    let guard = slots.overwrite(2, KeyTag(1)).unwrap();
    let error = publisher.withdraw(PoolId(0), Instant::now()).unwrap_err();
    assert_eq!(error, WithdrawError::Guarded { pool: PoolId(0), held: 1, slots: 3, slot: 2 });
    assert_eq!(reads.read(old), Ok(5));
    // Another layout of the same blocks, as a pool that comes.
    let beside = publisher.add_foreign_pool(pool(INDEX, &foreign)).unwrap();
    let mut others = Reads::of(INDEX, &publisher, shm::rails(1).unwrap());
    // A thread that withdraws waits for the guard.
    std::thread::scope(|scope| {
        let withdrawn = scope.spawn(|| publisher.withdraw(PoolId(0), soon()));
        while !matches!(slots.overwrite(0, KeyTag(2)), Err(WriteError::Withdrawn { slot: 0, .. })) {
            std::thread::yield_now();
        }
        let second = publisher.withdraw(PoolId(0), Instant::now());
        assert_eq!(second, Err(WithdrawError::Underway { pool: PoolId(0) }));
        guard.publish();
        withdrawn.join().unwrap().unwrap();
    });
    assert_eq!((first.location(1), first.location(2)), (Ok(None), Ok(None)));
    assert!(reads.read(old).is_err(), "a page of a pool that has gone");
    let gone = WithdrawError::NoPool { pool: PoolId(0) };
    assert_eq!(publisher.withdraw(PoolId(0), soon()), Err(gone));
    assert_eq!(slots.overwrite(0, KeyTag(1)).unwrap_err().code(), 6075);
    assert!(publisher.pool(PoolId(0)).is_none());
    // The pool that shares its memory goes on.
    let guard = publisher.pool(beside).unwrap().foreign().unwrap().overwrite(1, KeyTag(1)).unwrap();
    memory.fill(1, &INDEX, 6);
    assert_eq!(others.read(guard.publish()), Ok(6));
    // The memory can be published again, under a number of its own.
    let again = publisher.add_foreign_pool(pool(LATENT, &foreign)).unwrap();
    assert_eq!((beside, again), (PoolId(1), PoolId(2)));
    let mut reads = Reads::of(LATENT, &publisher, shm::rails(1).unwrap());
    let guard = publisher.pool(again).unwrap().foreign().unwrap().overwrite(1, KeyTag(1)).unwrap();
    memory.fill(1, &LATENT, 7);
    assert_eq!(reads.read(guard.publish()), Ok(7));
}

/// An engine that unmaps its memory although it is published breaks its promise.
fn unmapped_memory_is_an_error<N: ReaderTransport>(over: impl PublisherTransport, rails: impl Fn() -> N) {
    let (memory, other) = (EngineMemory::of(2), EngineMemory::of(1));
    let pools = [pool(LATENT, &memory.foreign()), pool(INDEX, &other.foreign())];
    let publisher = publisher(&pools, over).unwrap();
    let mut reads = Reads::of(LATENT, &publisher, rails());
    let guard = publisher.pool(PoolId(0)).unwrap().foreign().unwrap().overwrite(1, KeyTag(1)).unwrap();
    memory.fill(1, &LATENT, 8);
    let location = guard.publish();
    assert_eq!(reads.read(location), Ok(8));
    memory.unmap();
    let error = reads.read(location).unwrap_err();
    assert!(!matches!(error, PageError::Miss(_)), "{error}: the table says that the page is there");
    // Both processes go on, here in one.
    let mut others = Reads::of(INDEX, &publisher, rails());
    let guard = publisher.pool(PoolId(1)).unwrap().foreign().unwrap().overwrite(0, KeyTag(1)).unwrap();
    other.fill(0, &INDEX, 9);
    assert_eq!(others.read(guard.publish()), Ok(9));
    publisher.withdraw(PoolId(0), soon()).unwrap();
}

#[test]
fn memory_that_is_unmapped_while_it_is_published_is_an_error_over_shm() {
    unmapped_memory_is_an_error(shm::publish(1), || shm::rails(1).unwrap());
}

#[test]
fn memory_that_is_unmapped_while_it_is_published_is_an_error_over_tcp() {
    unmapped_memory_is_an_error(tcp::publish(LOCALHOST, 1), || tcp::rails(1).unwrap());
}
