//! The device: queue pairs, completion queues and doorbell registers.

use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;

use kvrail_mlx5::{CompletionQueueMemory, DoorbellRegister, PostedWr, SendQueueMemory};

use crate::entry::{Found, FoundPiece};
use crate::memory_map::MemoryMap;
use crate::shared::Words;

/// 64-bit words of a basic block and of a completion queue entry.
const BLOCK: usize = 8;
/// Where the doorbell registers are in their page, in words: two places of 256 bytes.
const REGISTER: usize = 0x800 / 8;
const REGISTER_BYTES: u32 = 256;
/// Syndromes that the device gives by itself.
const LOCAL_PROTECTION: u8 = 0x04;
const FLUSHED: u8 = 0x05;
const REMOTE_ACCESS: u8 = 0x13;

/// What becomes of a READ, besides what its keys say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "tests decide what a device does")]
pub enum Fate {
    /// It is carried out.
    Fine,
    /// It fails, with this syndrome and that of the vendor.
    Fails(u8, u8),
    /// It is not carried out, and the device writes an entry that says anything about its QP.
    Nonsense {
        /// The entry's last word; the QP's number is put in.
        last: u64,
        /// The word before.
        before: u64,
    },
}

#[derive(Debug)]
struct Qp {
    rail: usize,
    blocks: Words,
    count: usize,
    record: Words,
    /// Memory of the code under test, which has a pointer to it while this value moves: moving
    /// a `Box` would invalidate that pointer.
    notes: Vec<PostedWr>,
    /// Blocks that were posted and carried out, modulo 2^16.
    producer: u16,
    consumer: u16,
    failed: bool,
}

#[derive(Debug)]
struct Cq {
    entries: Words,
    count: u32,
    record: Words,
    register_page: Words,
    /// How many entries were written.
    producer: u32,
}

/// A device. See the crate's documentation.
#[derive(Debug)]
pub struct Device {
    qps: BTreeMap<u32, Qp>,
    cqs: Vec<Cq>,
    /// The page of doorbell registers of each rail.
    registers: Vec<Words>,
    /// What READs go between.
    pub memory: MemoryMap,
    fates: VecDeque<Fate>,
    found: Option<Vec<Found>>,
}

impl Device {
    /// A device with rails, each with a completion queue of so many entries.
    ///
    /// # Panics
    ///
    /// Unless `cq_entries` is a power of two.
    #[must_use]
    pub fn new(rails: usize, cq_entries: u32, memory: MemoryMap) -> Self {
        assert!(cq_entries.is_power_of_two());
        let cq = |_| {
            let entries = Words::new(cq_entries as usize * BLOCK);
            // Entries that were never written have opcode 15.
            (0..cq_entries as usize).for_each(|at| entries.set(at * BLOCK + 7, 0xF0));
            Cq {
                entries,
                count: cq_entries,
                record: Words::new(1),
                register_page: Words::new(8),
                producer: 0,
            }
        };
        Self {
            qps: BTreeMap::new(),
            cqs: (0..rails).map(cq).collect(),
            registers: (0..rails).map(|_| Words::new(512)).collect(),
            memory,
            fates: VecDeque::new(),
            found: None,
        }
    }

    /// The completion queue of a rail, for `DirectRails::add_rail`.
    #[must_use]
    pub fn completion_queue(&self, rail: usize) -> CompletionQueueMemory {
        let cq = &self.cqs[rail];
        CompletionQueueMemory {
            entries: cq.entries.first(),
            count: cq.count,
            entry_bytes: 64,
            doorbell_record: cq.record.first().cast(),
            register: Some(cq.register_page.first()),
            number: 0x77 + rail as u32,
        }
    }

    /// Makes a QP of `blocks` blocks on a rail, for `DirectRails::open`. It has the lowest number
    /// that is free from 0x100 on.
    ///
    /// # Panics
    ///
    /// Unless `blocks` is a power of two.
    pub fn create(&mut self, rail: usize, blocks: u32) -> SendQueueMemory {
        assert!(blocks.is_power_of_two());
        let free = (0x100..).find(|number| !self.qps.contains_key(number));
        let number = free.expect("QP numbers do not end");
        let qp = Qp {
            rail,
            blocks: Words::new(blocks as usize * BLOCK),
            count: blocks as usize,
            record: Words::new(1),
            notes: vec![PostedWr::EMPTY; blocks as usize],
            producer: 0,
            consumer: 0,
            failed: false,
        };
        let qp = self.qps.entry(number).or_insert(qp);
        SendQueueMemory {
            blocks: qp.blocks.first(),
            count: blocks,
            block_bytes: 64,
            doorbell_record: qp.record.first().cast(),
            register: DoorbellRegister { address: self.registers[rail].at(REGISTER), bytes: REGISTER_BYTES },
            qp_num: number,
            posted: NonNull::from(qp.notes.as_mut_slice()).cast(),
        }
    }

    /// Moves a QP to the error state: what has not been carried out is flushed.
    pub fn fail(&mut self, qp_num: u32) {
        if let Some(qp) = self.qps.get_mut(&qp_num) {
            qp.failed = true;
        }
    }

    /// Destroys a QP. Its memory is freed, and its number is given again.
    pub fn destroy(&mut self, qp_num: u32) {
        self.qps.remove(&qp_num);
    }

    /// What becomes of the next READs that are carried out, before those that were asked for later.
    pub fn plan(&mut self, fates: impl IntoIterator<Item = Fate>) {
        self.fates.extend(fates);
    }

    /// From now on remembers what it finds in send queues.
    pub fn record_found(&mut self) {
        self.found = Some(Vec::new());
    }

    /// The READs that it has found since the last call, in its order.
    pub fn take_found(&mut self) -> Vec<Found> {
        self.found.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Looks at a rail's doorbell register, as the device does when it has been written to. There
    /// is one look after each commit, so no write is lost.
    ///
    /// # Panics
    ///
    /// Unless the write names the last entry of a QP, in 8 bytes or as a whole, and the doorbell
    /// record says so, too.
    #[inline(never)]
    pub fn doorbell(&mut self, rail: usize) {
        let page = &self.registers[rail];
        let places = [REGISTER, REGISTER + REGISTER_BYTES as usize / 8];
        let rung: Vec<usize> = places.into_iter().filter(|place| page.get(*place) != 0).collect();
        let [place] = rung[..] else {
            assert!(rung.is_empty(), "both places of the register were written for one commit");
            return;
        };
        let word = page.get(place);
        let (qp_num, index, segments) = (word as u32 >> 8, (word >> 40) as u16, word as usize & 0xFF);
        let qp = self.qps.get_mut(&qp_num).unwrap_or_else(|| panic!("a doorbell for QP {qp_num:#x}"));
        assert_eq!(qp.rail, rail, "a doorbell for QP {qp_num:#x} of another rail");
        let blocks = (segments * 2).div_ceil(BLOCK);
        // The second of two words of 32 bits; the first is for receives.
        let producer = qp.record.half(1);
        assert_eq!(qp.record.half(0), 0, "nothing is received");
        assert_eq!(producer, u32::from(index.wrapping_add(blocks as u16)), "the record of QP {qp_num:#x}");
        let posted = producer as u16;
        assert!(usize::from(posted.wrapping_sub(qp.consumer)) <= qp.count, "QP {qp_num:#x} is overrun");
        // An entry that was written to the register as a whole is the one in the queue.
        let whole = page.get(place + 1) != 0 || page.get(place + 2) != 0;
        let words = if whole { blocks * BLOCK } else { 1 };
        for at in 0..words {
            let there = (usize::from(index) * BLOCK + at) % (qp.count * BLOCK);
            assert_eq!(
                page.get(place + at),
                qp.blocks.get(there),
                "word {at} of the doorbell of {qp_num:#x}"
            );
        }
        (0..REGISTER_BYTES as usize / 8).for_each(|at| page.set(place + at, 0));
        qp.producer = posted;
    }

    /// Carries out at most `most` entries of a rail.
    ///
    /// # Panics
    ///
    /// On an entry that a device would not take.
    #[inline(never)]
    pub fn run(&mut self, rail: usize, most: usize) {
        let Self { qps, cqs, memory, fates, found, .. } = self;
        let mut left = most;
        for (number, qp) in qps.iter_mut().filter(|(_, qp)| qp.rail == rail) {
            while left > 0 && qp.consumer != qp.producer {
                left -= 1;
                let mut read = Found::read(&qp.blocks, qp.count, *number, qp.consumer);
                qp.consumer = qp.consumer.wrapping_add(read.blocks as u16);
                if let (false, Some(Fate::Nonsense { last, before })) = (qp.failed, fates.front()) {
                    let last = last & !(0xFF_FFFF << 32) | u64::from(*number) << 32;
                    cqs[rail].write(0, last, *before);
                    fates.pop_front();
                    continue;
                }
                let rest = qp.producer.wrapping_sub(qp.consumer);
                assert!(usize::from(rest) < qp.count, "QP {number:#x}: an entry that was posted in part");
                let outcome = if qp.failed { Err((FLUSHED, 0xF5)) } else { carry_out(&read, memory, fates) };
                qp.failed |= outcome.is_err();
                if read.signaled || outcome.is_err() {
                    let operation = 0x10_u64 << 56;
                    let wr = u64::from(*number) << 32 | u64::from(read.index) << 16;
                    match outcome {
                        Ok(()) => cqs[rail].write(0, operation | wr, u64::from(read.index)),
                        Err((syndrome, vendor)) => {
                            let why = u64::from(vendor) << 8 | u64::from(syndrome);
                            cqs[rail].write(0xD0, operation | wr, why);
                        }
                    }
                }
                read.failure = outcome.err();
                if let Some(found) = found {
                    found.push(read);
                }
            }
        }
    }

    /// Writes a completion queue entry that says anything, except about its owner: its last two
    /// words.
    pub fn write_completion(&mut self, rail: usize, last: u64, before: u64) {
        self.cqs[rail].write(0, last, before);
    }

    /// How many completion queue entries of a rail have not been given back, by its doorbell
    /// record.
    #[must_use]
    pub fn unread(&self, rail: usize) -> u32 {
        self.cqs[rail].unread()
    }

    /// What a rail's completion queue was armed with last: the record, and the register.
    #[must_use]
    pub fn armed(&self, rail: usize) -> (u32, u64) {
        let cq = &self.cqs[rail];
        (cq.record.half(1), cq.register_page.get(4))
    }
}

/// Moves a READ's bytes, or says with which syndrome it fails.
fn carry_out(read: &Found, memory: &MemoryMap, fates: &mut VecDeque<Fate>) -> Result<(), (u8, u8)> {
    if let Some(Fate::Fails(syndrome, vendor)) = fates.pop_front() {
        return Err((syndrome, vendor));
    }
    if read.pieces.is_empty() {
        return Ok(());
    }
    let bytes = memory.remote(read.rkey, read.remote_addr, read.len());
    let mut bytes = bytes.ok_or((REMOTE_ACCESS, 0x88))?;
    let allowed = |piece: &FoundPiece| memory.may_write(piece.lkey, piece.addr, piece.len.into());
    if !read.pieces.iter().all(allowed) {
        return Err((LOCAL_PROTECTION, 0x51));
    }
    for piece in &read.pieces {
        let (now, later) = bytes.split_at(bytes.len().min(piece.len as usize));
        memory.write(piece.lkey, piece.addr, now);
        bytes = later;
    }
    Ok(())
}

impl Cq {
    /// The difference of the counters, which have 24 bits in the record.
    fn unread(&self) -> u32 {
        self.producer.wrapping_sub(self.record.half(0)) & 0xFF_FFFF
    }

    /// Writes the next entry; `opcode` is the upper half of its last byte. Only the last two words
    /// hold what requesters need.
    fn write(&mut self, opcode: u64, last: u64, before: u64) {
        assert!(self.unread() < self.count, "the completion queue is overrun");
        let at = (self.producer & (self.count - 1)) as usize * BLOCK;
        let owner = u64::from(self.producer & self.count != 0);
        self.entries.set(at + 6, before);
        self.entries.set(at + 7, (last | opcode) & !1 | owner);
        self.producer = self.producer.wrapping_add(1);
    }
}
