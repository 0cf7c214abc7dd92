//! Memory that a device reads and writes: the one place where this crate touches it.
//!
//! Queues are rings whose length is a power of two, and each access masks its index: no index can
//! be out of bounds. Every access is volatile, a word at a time, since the device may access the
//! same memory at any time. No reference to it is ever made.
#![allow(unsafe_code, reason = "queues are raw memory, shared with a device")]

use core::ptr::NonNull;

use crate::error::DirectQueueError;
use crate::format::{ARM_REGISTER_WORD, BITS_24, BLOCK, BLOCK_WORDS};
use crate::posted::PostedWr;

/// The index of a CQ's consumer in its doorbell record, in words of 32 bits.
const CONSUMER: usize = 0;
/// The index of what a CQ was armed with.
const ARMED: usize = 1;
/// The index of a send queue's producer in its QP's doorbell record.
const PRODUCER: usize = 1;

/// The memory of a send queue, as `mlx5dv_init_obj` gives it, and its owner's own notes.
///
/// The caller that gives it to [`DirectRails::open`](crate::DirectRails::open) makes the promises
/// that stand there.
#[derive(Clone, Copy, Debug)]
pub struct SendQueueMemory {
    /// The first basic block (`sq.buf`).
    pub blocks: NonNull<u64>,
    /// How many basic blocks there are (`sq.wqe_cnt`).
    pub count: u32,
    /// Bytes of a basic block (`sq.stride`).
    pub block_bytes: u32,
    /// The two words of the QP's doorbell record (`dbrec`).
    pub doorbell_record: NonNull<u32>,
    /// The QP's doorbell register.
    pub register: DoorbellRegister,
    /// The QP's number.
    pub qp_num: u32,
    /// Memory of the caller for `count` notes, one for each basic block. Their values do not
    /// matter.
    pub posted: NonNull<PostedWr>,
}

/// A doorbell register of a QP (`bf.reg` and `bf.size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorbellRegister {
    /// Its address.
    pub address: NonNull<u64>,
    /// Bytes for an entry that is written to the register as a whole (BlueFlame); as many follow
    /// for the next write. 0: the register takes doorbells of 8 bytes only.
    pub bytes: u32,
}

/// The memory of a completion queue, as `mlx5dv_init_obj` gives it.
#[derive(Clone, Copy, Debug)]
pub struct CompletionQueueMemory {
    /// The first entry (`buf`).
    pub entries: NonNull<u64>,
    /// How many there are (`cqe_cnt`).
    pub count: u32,
    /// Bytes of an entry (`cqe_size`).
    pub entry_bytes: u32,
    /// The two words of the doorbell record (`dbrec`).
    pub doorbell_record: NonNull<u32>,
    /// The page of registers by which the queue is armed (`cq_uar`). `None`: it cannot be armed.
    pub register: Option<NonNull<u64>>,
    /// The queue's number (`cqn`).
    pub number: u32,
}

fn check_length(what: &'static str, entries: u32, most: usize) -> Result<(), DirectQueueError> {
    let (entries, least) = (entries as usize, 2);
    if !entries.is_power_of_two() || entries < least || entries > most {
        return Err(DirectQueueError::Entries { what, entries, least, most });
    }
    Ok(())
}

fn check_size(what: &'static str, bytes: u32) -> Result<(), DirectQueueError> {
    let expected = BLOCK as u32;
    if bytes == expected { Ok(()) } else { Err(DirectQueueError::EntryBytes { what, bytes, expected }) }
}

fn check_alignment(what: &'static str, address: usize, align: usize) -> Result<(), DirectQueueError> {
    if address.is_multiple_of(align) {
        Ok(())
    } else {
        Err(DirectQueueError::Alignment { what, address, align })
    }
}

impl SendQueueMemory {
    /// Looks whether the queue is one that this crate writes.
    ///
    /// # Errors
    ///
    /// What this crate does not know, or what no device gives.
    pub fn check(&self) -> Result<(), DirectQueueError> {
        // The producer's index has 16 bits: a longer queue could not be told full from empty.
        check_length("send queue", self.count, 1 << 15)?;
        check_size("send queue", self.block_bytes)?;
        check_alignment("send queue", self.blocks.addr().get(), BLOCK)?;
        check_alignment("doorbell record", self.doorbell_record.addr().get(), 8)?;
        if self.qp_num == 0 || self.qp_num > BITS_24 {
            return Err(DirectQueueError::Number { qp_num: self.qp_num });
        }
        self.register.check()
    }
}

impl DoorbellRegister {
    fn check(&self) -> Result<(), DirectQueueError> {
        let bytes = self.bytes;
        if bytes != 0 && !(bytes.is_power_of_two() && (64..=1024).contains(&bytes)) {
            return Err(DirectQueueError::Register { bytes });
        }
        check_alignment("doorbell register", self.address.addr().get(), bytes.max(8) as usize)
    }
}

impl CompletionQueueMemory {
    /// Looks whether the queue is one that this crate reads.
    ///
    /// # Errors
    ///
    /// What this crate does not know, or what no device gives.
    pub fn check(&self) -> Result<(), DirectQueueError> {
        check_length("completion queue", self.count, 1 << 22)?;
        check_size("completion queue", self.entry_bytes)?;
        check_alignment("completion queue", self.entries.addr().get(), BLOCK)?;
        check_alignment("doorbell record", self.doorbell_record.addr().get(), 8)
    }
}

/// The basic blocks of a send queue, and a note for each.
#[derive(Debug)]
pub(crate) struct Blocks {
    first: NonNull<u64>,
    posted: NonNull<PostedWr>,
    mask: u32,
}

// SAFETY: the caller of `new` promised that the memory is used by this value alone, and by the
// device.
unsafe impl Send for Blocks {}

impl Blocks {
    /// # Safety
    ///
    /// The memory has been checked; its blocks and notes are valid for reads and writes as long as
    /// this value lives, and no other code but the device uses them.
    pub(crate) unsafe fn new(memory: &SendQueueMemory) -> Self {
        let mut this = Self { first: memory.blocks, posted: memory.posted, mask: memory.count - 1 };
        // So that each note that is read has been written.
        (0..this.count()).for_each(|index| this.note(index, PostedWr::EMPTY));
        this
    }

    /// How many blocks there are.
    #[inline]
    pub(crate) const fn count(&self) -> u32 {
        self.mask + 1
    }

    /// Block `index`, modulo their number.
    #[inline]
    pub(crate) fn block(&mut self, index: u32) -> Block<'_> {
        let at = (index & self.mask) as usize;
        // SAFETY: `at` is at most `mask`, and there are mask + 1 blocks.
        let first = unsafe { self.first.add(at * BLOCK_WORDS) };
        Block { first, queue: core::marker::PhantomData }
    }

    /// A word of block `index`, modulo their number, as it lies in memory.
    #[inline]
    fn word(&self, index: u32, word: usize) -> u64 {
        let at = (index & self.mask) as usize * BLOCK_WORDS + word % BLOCK_WORDS;
        // SAFETY: the block is one of mask + 1, and the word one of eight.
        let word = unsafe { self.first.add(at) };
        // SAFETY: valid for reads by the promise of `new`; the device only reads it.
        unsafe { word.read_volatile() }
    }

    /// Notes what was posted at block `index`, modulo their number.
    #[inline]
    pub(crate) fn note(&mut self, index: u32, posted: PostedWr) {
        let at = (index & self.mask) as usize;
        // SAFETY: `at` is at most `mask`, and there are mask + 1 notes.
        let note = unsafe { self.posted.add(at) };
        // SAFETY: valid for writes by the promise of `new`. The device does not know of it.
        unsafe { note.write(posted) };
    }

    /// What was noted last for block `index`, modulo their number.
    #[inline]
    pub(crate) fn noted(&self, index: u32) -> PostedWr {
        let at = (index & self.mask) as usize;
        // SAFETY: `at` is at most `mask`, and there are mask + 1 notes.
        let note = unsafe { self.posted.add(at) };
        // SAFETY: valid for reads by the promise of `new`, which has written every note.
        unsafe { note.read() }
    }
}

/// A basic block that is being written.
pub(crate) struct Block<'q> {
    first: NonNull<u64>,
    queue: core::marker::PhantomData<&'q mut Blocks>,
}

impl Block<'_> {
    /// Stores word `W`, which is already in the order of the device.
    #[inline]
    pub(crate) fn store<const W: usize>(&mut self, value: u64) {
        const { assert!(W < BLOCK_WORDS, "a block has eight words") };
        // SAFETY: W is one of the eight words of the block.
        let word = unsafe { self.first.add(W) };
        // SAFETY: valid for writes by the promise of `Blocks::new`, of which this is a borrow. The
        // device may read it at the same time, which it does as hardware, not as a thread.
        unsafe { word.write_volatile(value) };
    }

    /// Stores segment `segment` (of four) of two words.
    #[inline]
    pub(crate) fn store_segment(&mut self, segment: u32, words: [u64; 2]) {
        let [first, second] = words;
        match segment % 4 {
            0 => {
                self.store::<0>(first);
                self.store::<1>(second);
            }
            1 => {
                self.store::<2>(first);
                self.store::<3>(second);
            }
            2 => {
                self.store::<4>(first);
                self.store::<5>(second);
            }
            _ => {
                self.store::<6>(first);
                self.store::<7>(second);
            }
        }
    }
}

/// A word of a doorbell record of a QP: its producer's index.
#[derive(Debug)]
pub(crate) struct ProducerRecord(NonNull<u32>);

// SAFETY: as for `Blocks`.
unsafe impl Send for ProducerRecord {}

impl ProducerRecord {
    /// # Safety
    ///
    /// The doorbell record has two words, valid for writes as long as this value lives.
    pub(crate) unsafe fn new(record: NonNull<u32>) -> Self {
        // SAFETY: the second of two words, by our caller's promise.
        Self(unsafe { record.add(PRODUCER) })
    }

    /// Stores the index of the next block to be posted.
    #[inline]
    pub(crate) fn store(&mut self, index: u32) {
        // SAFETY: valid for writes by the promise of `new`.
        unsafe { self.0.write_volatile((index & 0xFFFF).to_be()) };
    }
}

/// The doorbell register that the queues of a rail share.
#[derive(Debug)]
pub(crate) struct Register {
    register: DoorbellRegister,
    /// Where the next write goes: 0 or `register.bytes`, in turn. The device takes entries at two
    /// places, so that one can be on its way while the next is written.
    offset: u32,
}

// SAFETY: as for `Blocks`.
unsafe impl Send for Register {}

impl Register {
    /// # Safety
    ///
    /// The register has been checked, and is valid for writes of twice its bytes, at least 8, as
    /// long as this value lives.
    pub(crate) const unsafe fn new(register: DoorbellRegister) -> Self {
        Self { register, offset: 0 }
    }

    /// What it was made of.
    #[inline]
    pub(crate) const fn register(&self) -> DoorbellRegister {
        self.register
    }

    /// The word of the register at which the next write begins. The one after goes to the other
    /// place.
    #[inline]
    fn next(&mut self) -> NonNull<u64> {
        let offset = self.offset as usize;
        self.offset ^= self.register.bytes;
        // SAFETY: the offset is 0 or `bytes`, and there are twice as many, by the promise of `new`.
        unsafe { self.register.address.byte_add(offset) }
    }

    /// Rings the doorbell with the first word of the entry that was posted last.
    #[inline]
    pub(crate) fn ring(&mut self, control: u64) {
        let to = self.next();
        // SAFETY: valid for a write of 8 bytes by the promise of `new`.
        unsafe { to.write_volatile(control) };
    }

    /// Whether the register takes an entry of so many blocks as a whole.
    #[inline]
    pub(crate) const fn takes(&self, blocks: u32) -> bool {
        blocks * BLOCK as u32 <= self.register.bytes
    }

    /// Writes an entry of `count` blocks to the register, which [`takes`](Self::takes) as many: the
    /// device need not fetch it then.
    #[inline]
    pub(crate) fn write(&mut self, from: &Blocks, first: u32, count: u32) {
        debug_assert!(self.takes(count), "{count} blocks for {} bytes", self.register.bytes);
        let words = (count as usize * BLOCK_WORDS).min(self.register.bytes as usize / 8);
        let to = self.next();
        for at in 0..words {
            let word = from.word(first.wrapping_add((at / BLOCK_WORDS) as u32), at % BLOCK_WORDS);
            // SAFETY: at most `bytes` from where a write may begin, by the promise of `new`.
            let place = unsafe { to.add(at) };
            // SAFETY: valid for a write of 8 bytes by the promise of `new`.
            unsafe { place.write_volatile(word) };
        }
    }
}

/// The entries of a completion queue, its doorbell record, and the register that arms it.
#[derive(Debug)]
pub(crate) struct CqEntries {
    memory: CompletionQueueMemory,
}

// SAFETY: as for `Blocks`.
unsafe impl Send for CqEntries {}

impl CqEntries {
    /// # Safety
    ///
    /// The memory has been checked; its entries are valid for reads and writes, the two words of
    /// its doorbell record and the doorbell of its register page for writes, as long as this value
    /// lives; no other code but the device uses them.
    pub(crate) const unsafe fn new(memory: CompletionQueueMemory) -> Self {
        Self { memory }
    }

    #[inline]
    pub(crate) const fn count(&self) -> u32 {
        self.memory.count
    }

    #[inline]
    fn place(&self, index: u32, word: usize) -> NonNull<u64> {
        let at = (index & (self.memory.count - 1)) as usize * BLOCK_WORDS + word % BLOCK_WORDS;
        // SAFETY: the entry is one of `count`, a power of two, and the word one of eight.
        unsafe { self.memory.entries.add(at) }
    }

    /// The last byte of entry `index`, modulo their number: opcode, format and owner.
    #[inline]
    pub(crate) fn owner(&self, index: u32) -> u8 {
        // SAFETY: byte 7 of a word of 8.
        let byte = unsafe { self.place(index, BLOCK_WORDS - 1).cast::<u8>().add(7) };
        // SAFETY: valid for reads by the promise of `new`. The device may write it at the same
        // time, which gives the byte before or after.
        unsafe { byte.read_volatile() }
    }

    /// A word of entry `index`, modulo their number, in the order of this machine.
    #[inline]
    pub(crate) fn load(&self, index: u32, word: usize) -> u64 {
        // SAFETY: as for `owner`: any value is possible, and each is a number.
        u64::from_be(unsafe { self.place(index, word).read_volatile() })
    }

    /// Stores a word of entry `index`, modulo their number.
    pub(crate) fn store(&mut self, index: u32, word: usize, value: u64) {
        // SAFETY: valid for writes by the promise of `new`.
        unsafe { self.place(index, word).write_volatile(value.to_be()) };
    }

    fn record(&mut self, word: usize, value: u32) {
        // SAFETY: one of the record's two words.
        let word = unsafe { self.memory.doorbell_record.add(word % 2) };
        // SAFETY: valid for writes by the promise of `new`.
        unsafe { word.write_volatile(value.to_be()) };
    }

    /// Tells the device that it may write all entries before `index` again.
    #[inline]
    pub(crate) fn consumed(&mut self, index: u32) {
        self.record(CONSUMER, index & BITS_24);
    }

    /// The first half of arming: the record. Returns false where there is no register.
    pub(crate) fn arm_record(&mut self, command: u32) -> bool {
        if self.memory.register.is_none() {
            return false;
        }
        self.record(ARMED, command);
        true
    }

    /// The second half of arming: the register.
    pub(crate) fn arm_register(&mut self, command: u32) {
        let Some(register) = self.memory.register else { return };
        // SAFETY: the doorbell of the register page, by the promise of `new`.
        let doorbell = unsafe { register.add(ARM_REGISTER_WORD) };
        let value = u64::from(command) << 32 | u64::from(self.memory.number);
        // SAFETY: valid for writes by the promise of `new`.
        unsafe { doorbell.write_volatile(value.to_be()) };
    }
}
