//! Blocks in which pages of several layouts lie side by side at one stride, as vLLM keeps the state
//! of DeepSeek V4: 21 layers of C4, then their index keys, then 20 layers of C128, 1,002,240 bytes.
//! They are published as three pools of one memory, and land in such blocks of the reader's engine.

use std::collections::HashMap;
use std::time::Duration;

use kvrail::core::memory::{Access, DestinationRegion, RegionError, Slot, Slots};
use kvrail::core::provider::MemoryRange;
use kvrail::layouts::catalogue::{V4C4, V4C128, VllmV4Index};
use kvrail::session::PoolId;
use kvrail::{Config, ForeignPool, ForeignRegion, KeyTag, Location, PageLayout, Reader, clock, memory, shm};

use super::rig::{EngineMemory, key, publisher};

const LAYOUTS: [PageLayout; 3] =
    [PageLayout::of::<V4C4>(), PageLayout::of::<VllmV4Index>(), PageLayout::of::<V4C128>()];
const STRIDE: u64 = 1_002_240;
const BLOCKS: u64 = 7;

fn offset(layout: usize) -> u64 {
    LAYOUTS[..layout].iter().map(|layout| u64::from(layout.page_bytes())).sum()
}

/// Byte `at` of block `block`, in publication `count`.
fn byte(block: u64, at: u64, count: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17) as u8) ^ (block * 31 + count * 101) as u8
}

fn write(memory: &EngineMemory, block: u64, layout: usize, count: u64) {
    let (from, len) = (offset(layout), u64::from(LAYOUTS[layout].page_bytes()));
    let bytes: Vec<u8> = (from..from + len).map(|at| byte(block, at, count)).collect();
    memory.write_at(block * STRIDE + from, &bytes);
}

/// The slots of one layout, in the reader's blocks, registered in pieces.
fn slots(reader: &mut Reader<shm::ShmRails>, memory: &EngineMemory, layout: usize) -> Vec<Slots> {
    let MemoryRange { addr, len } = memory.range();
    let range = MemoryRange { addr: addr + offset(layout), len: len - offset(layout) };
    let region = DestinationRegion { range, stride: STRIDE };
    let foreign = |reader: &mut Reader<_>, piece_bytes| {
        // SAFETY: the memory is mapped as long as the process lives, and the slots alone use it.
        unsafe {
            let regions = &[region];
            reader.register_foreign_in_pieces(&LAYOUTS[layout], regions, Access::Host, None, piece_bytes)
        }
    };
    let short = foreign(reader, STRIDE - 4096).unwrap_err();
    assert_eq!(short, RegionError::TooLong { bytes: STRIDE, limit: STRIDE - 4096 });
    foreign(reader, 3 * STRIDE + 3 * 4096).unwrap()
}

#[test]
fn three_layouts_side_by_side_arrive_in_blocks_of_the_readers_engine() {
    assert_eq!(offset(3), STRIDE);
    let bytes = BLOCKS * STRIDE;
    let (theirs, ours) = (EngineMemory::of_bytes(bytes), EngineMemory::of_bytes(bytes));
    let pools: Vec<_> = (0..3)
        .map(|at| {
            let region = ForeignRegion::new(&theirs.foreign()).stride(STRIDE).offset(offset(at));
            ForeignPool::new(LAYOUTS[at]).region(region)
        })
        .collect();
    let publisher = publisher(&pools, shm::publish(2)).unwrap();
    let mut reader = Reader::start(LAYOUTS[0], shm::rails(2).unwrap(), Config::default()).unwrap();
    reader.add_layout(&LAYOUTS[1]).unwrap();
    reader.add_layout(&LAYOUTS[2]).unwrap();
    let pieces = [0, 1, 2].map(|layout| slots(&mut reader, &ours, layout));
    // Three blocks to a piece, and one is left.
    let counts = |pieces: &Vec<Slots>| pieces.iter().map(Slots::total).collect::<Vec<_>>();
    assert_eq!(pieces.each_ref().map(counts), [vec![3, 3, 1], vec![3, 3, 1], vec![3, 3, 1]]);
    let mut free = pieces.map(|pieces| pieces.into_iter().flatten().collect::<Vec<Slot>>());
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    let put = |block: u64, layout: usize, count: u64| -> Location {
        let pool = publisher.pool(PoolId(layout as u32)).unwrap();
        let slot = block as u32;
        let guard = pool.foreign().unwrap().overwrite(slot, KeyTag(u128::from(block) << 8)).unwrap();
        write(&theirs, block, layout, count);
        guard.publish()
    };
    let locations: Vec<[Location; 3]> =
        (0..BLOCKS).map(|block| [0, 1, 2].map(|layout| put(block, layout, 1))).collect();
    // One page of one key is overwritten since: the key is a miss, all of it.
    put(4, 1, 2);
    let mut batch = reader.batch().unwrap();
    let mut asked = HashMap::new();
    for (block, of) in (0..).zip(&locations) {
        for (layout, &location) in of.iter().enumerate() {
            let page = peer.pool_of(&LAYOUTS[layout]).unwrap().page(location).unwrap();
            let slot = free[layout].remove(0);
            asked.insert(slot.address(), (block, layout));
            match layout {
                0 => batch.read(page, slot).unwrap(),
                _ => batch.join(page, slot).unwrap(),
            }
        }
    }
    let until = clock::within(Duration::from_secs(20));
    reader.submit(batch, until).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(until),
        }
        assert!(clock::now() < until, "nothing is done: {reader:?}");
    };
    let (mut right, mut missed) = (0, 0);
    for page in done.pages() {
        let (block, layout) = asked[&page.slot.address()];
        assert_eq!(page.slot.address(), ours.range().addr + block * STRIDE + offset(layout));
        assert_eq!(page.result.is_ok(), block != 4, "block {block}, layout {layout}: {:?}", page.result);
        if page.result.is_ok() {
            right += 1;
            let bytes = page.slot.bytes().unwrap();
            assert_eq!(bytes.len(), LAYOUTS[layout].page_bytes() as usize);
            let from = offset(layout);
            assert!(bytes.iter().zip(from..).all(|(&b, at)| b == byte(block, at, 1)), "block {block}");
        } else {
            missed += 1;
        }
        free[layout].push(page.slot);
    }
    assert_eq!((right, missed), (3 * (BLOCKS - 1), 3));
}

/// Memory of the process, in pieces of a page more than three slots of the reader's layout.
#[test]
fn memory_of_ones_own_is_cut_between_slots() {
    let mut reader = Reader::start(LAYOUTS[2], shm::rails(1).unwrap(), Config::default()).unwrap();
    let page = LAYOUTS[2].page_bytes() as usize;
    let pieces = reader.register_in_pieces(memory::leaked(10 * page + 5).unwrap(), 3 * page as u64 + 8192);
    let pieces = pieces.unwrap();
    assert_eq!(pieces.iter().map(Slots::total).sum::<usize>(), 10);
    assert!(pieces.len() >= 4 && pieces.iter().all(|piece| piece.total() <= 3), "{pieces:?}");
    let whole = reader.register_in_pieces(memory::leaked(4 * page).unwrap(), u64::MAX).unwrap();
    assert_eq!(whole.iter().map(Slots::total).collect::<Vec<_>>(), [4]);
    for slots in pieces.into_iter().chain(whole) {
        reader.unregister(slots).unwrap();
    }
    // More pieces than the engine has places: nothing stays registered.
    let many = memory::leaked(300 * page).unwrap();
    assert!(matches!(
        reader.register_in_pieces(many, page as u64 + 8192),
        Err(RegionError::Full { limit: 256 })
    ));
    let again = reader.register_in_pieces(memory::leaked(250 * page).unwrap(), page as u64 + 8192).unwrap();
    assert_eq!(again.len(), 250);
}

/// Bytes behind the last slot hold none, and are in no piece: a piece that had them would be longer
/// than was asked for, and a rail may refuse it.
#[test]
fn bytes_behind_the_last_slot_make_no_piece_too_long() {
    let mut reader = Reader::start(LAYOUTS[2], shm::rails(1).unwrap(), Config::default()).unwrap();
    let page = u64::from(LAYOUTS[2].page_bytes());
    let memory = EngineMemory::of_bytes(7 * page - 1);
    let region = DestinationRegion { range: memory.range(), stride: page };
    for (slots, limit) in [(6, 6 * page + 8192), (3, 3 * page + 8192)] {
        // SAFETY: the memory is mapped as long as the process lives, and the slots alone use it.
        let pieces =
            unsafe { reader.register_foreign_in_pieces(&LAYOUTS[2], &[region], Access::Host, None, limit) };
        let pieces = pieces.unwrap();
        assert_eq!(pieces.iter().map(Slots::total).collect::<Vec<_>>(), vec![slots; 6 / slots]);
        for slots in pieces {
            let range = reader.unregister(slots).unwrap();
            assert!(range.len <= limit, "{range:?} is longer than {limit}");
        }
    }
}
