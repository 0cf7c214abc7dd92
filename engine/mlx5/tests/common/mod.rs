//! Queues in ordinary memory, and their words and bytes.
#![allow(unsafe_code, reason = "queues are raw memory")]

use std::ptr::NonNull;

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Post, Read};
use kvrail_core::verbs_abi::Wc;
use kvrail_mlx5::{
    CompletionQueueMemory, CqeError, DirectPost, DirectRails, DoorbellRegister, PostedWr, QueuePlace,
    QueueRef, SendQueueMemory,
};

pub(crate) const BLOCKS: u32 = 256;
pub(crate) const QP_NUM: u32 = 0x1234;
/// Entries of the completion queue.
const CQES: u32 = 8;
pub(crate) const READ: Read = Read {
    wr_id: WrId(0),
    remote_addr: 0x1122_3344_5566_7788,
    local_addr: 0x99AA_BBCC_DDEE_FF00,
    len: 0x1_0203,
    rkey: 0xA0B0_C0D0,
    lkey: 0x0102_0304,
    signaled: true,
};
const RAIL: RailIndex = RailIndex(0);

pub(crate) fn wr(seq: u32) -> WrId {
    WrId::new(LaneId::new(3, 9), seq)
}

/// Words that are never freed, since a test is short.
struct Words(NonNull<u64>, usize);

impl Words {
    fn new(count: usize) -> Self {
        #[repr(align(4096))]
        #[derive(Clone)]
        struct Page(#[allow(dead_code, reason = "raw memory")] [u64; 512]);
        let pages = vec![Page([0; 512]); count.div_ceil(512)].leak();
        Self(NonNull::from(pages).cast(), count)
    }

    fn bytes(&self, from: usize, to: usize) -> Vec<u8> {
        assert!(to <= self.1 * 8);
        let byte = |at| {
            // SAFETY: within the words, as checked above, which are read as bytes.
            let byte = unsafe { self.0.cast::<u8>().add(at) };
            // SAFETY: as above.
            unsafe { byte.read_volatile() }
        };
        (from..to).map(byte).collect()
    }

    fn set(&self, index: usize, value: u64) {
        assert!(index < self.1);
        // SAFETY: within the words.
        let word = unsafe { self.0.add(index) };
        // SAFETY: as above.
        unsafe { word.write_volatile(value.to_be()) };
    }
}

/// A QP, a completion queue and a register page, and what this crate makes of them.
pub(crate) struct Memory {
    rails: DirectRails<Box<[QueuePlace]>>,
    queue: Option<QueueRef>,
    blocks: Words,
    records: Words,
    register: Words,
    entries: Words,
    arm_page: Words,
    posted: NonNull<PostedWr>,
    produced: u32,
    head: u32,
    doorbells: u32,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let (blocks, entries) = (Words::new(BLOCKS as usize * 8), Words::new(CQES as usize * 8));
        (0..CQES as usize).for_each(|at| entries.set(at * 8 + 7, 0xF0));
        let mut this = Self {
            rails: DirectRails::new((0..4).map(|_| QueuePlace::EMPTY).collect()).expect("a power of two"),
            queue: None,
            blocks,
            records: Words::new(2),
            register: Words::new(512),
            entries,
            arm_page: Words::new(8),
            posted: NonNull::from(vec![PostedWr::EMPTY; BLOCKS as usize].leak()).cast(),
            produced: 0,
            head: 0,
            doorbells: 0,
        };
        // SAFETY: the second of two words.
        let record = unsafe { this.records.0.add(1) };
        let cq = CompletionQueueMemory {
            entries: this.entries.0,
            count: CQES,
            entry_bytes: 64,
            doorbell_record: record.cast(),
            register: Some(this.arm_page.0),
            number: 0x77,
        };
        // SAFETY: memory of this test, which is never freed.
        unsafe { this.rails.add_rail(RAIL, cq) }.expect("a rail");
        this.open();
        this
    }

    pub(crate) fn memory(&self) -> SendQueueMemory {
        // SAFETY: within the page.
        let address = unsafe { self.register.0.byte_add(0x800) };
        SendQueueMemory {
            blocks: self.blocks.0,
            count: BLOCKS,
            block_bytes: 64,
            doorbell_record: self.records.0.cast(),
            register: DoorbellRegister { address, bytes: 256 },
            qp_num: QP_NUM,
            posted: self.posted,
        }
    }

    fn open(&mut self) {
        // SAFETY: memory of this test, which is never freed.
        self.queue = Some(unsafe { self.rails.open(RAIL, self.memory()) }.expect("a place"));
        self.head = 0;
    }

    pub(crate) fn close(&mut self) {
        self.rails.close(self.queue.take().expect("an open queue"));
    }

    pub(crate) fn open_again(&mut self) {
        self.close();
        self.open();
    }

    pub(crate) const fn head(&self) -> u32 {
        self.head
    }

    pub(crate) const fn doorbells(&self) -> u32 {
        self.doorbells
    }

    pub(crate) fn commit_with(&mut self, write: impl FnOnce(&mut DirectPost<'_>)) -> Commit {
        // SAFETY: no device carries the READs out.
        let mut post = unsafe { self.rails.begin(self.queue.as_ref().expect("open")) }.expect("open");
        write(&mut post);
        let commit = post.commit();
        let head = u32::from_be_bytes(self.record(1));
        let posted = head.wrapping_sub(self.head) & 0xFFFF;
        self.doorbells += u32::from(posted != 0);
        self.head += posted;
        commit
    }

    pub(crate) fn commit(&mut self, reads: &[Read]) -> Commit {
        self.commit_with(|post| reads.iter().for_each(|read| post.read(*read)))
    }

    pub(crate) fn drop_commit(&mut self, reads: &[Read]) {
        // SAFETY: no device carries the READs out.
        let mut post = unsafe { self.rails.begin(self.queue.as_ref().expect("open")) }.expect("open");
        reads.iter().for_each(|read| post.read(*read));
        assert_eq!(post.wrs(), reads.len());
    }

    pub(crate) fn drain(&mut self, wr_id: WrId) -> Result<(), i32> {
        // SAFETY: no device carries it out.
        unsafe { self.rails.drain(self.queue.as_ref().expect("open"), wr_id) }
    }

    /// Posts READs of `blocks` blocks, which complete; by an odd or even number of commits, if that
    /// matters.
    pub(crate) fn fill(&mut self, blocks: u32, odd: Option<bool>) {
        let mut parts: Vec<u32> = (0..blocks).step_by(100).map(|from| (blocks - from).min(100)).collect();
        if odd.is_some_and(|odd| odd != (parts.len() % 2 == 1)) {
            let part = parts.iter().position(|part| *part > 1).expect("a part that can be divided");
            parts[part] -= 1;
            parts.push(1);
        }
        for part in parts {
            self.fill_outstanding(part);
            self.complete((self.head - 1) as u16, 0, 0);
            assert_eq!(self.poll().len(), 1);
        }
    }

    pub(crate) fn fill_outstanding(&mut self, blocks: u32) {
        let reads: Vec<Read> = (0..blocks).map(|seq| Read { wr_id: wr(seq), ..READ }).collect();
        assert_eq!(self.commit(&reads), Commit::All);
    }

    /// The device completes the wr at a block: the last byte of the entry, without the owner's bit,
    /// and the word before the last.
    pub(crate) fn complete(&mut self, counter: u16, opcode: u8, before: u64) {
        let at = (self.produced % CQES) as usize * 8;
        let owner = u64::from(self.produced & CQES != 0);
        self.entries.set(at + 6, before);
        let last = 0x10 << 56 | u64::from(QP_NUM) << 32 | u64::from(counter) << 16 | u64::from(opcode);
        self.entries.set(at + 7, last | owner);
        self.produced += 1;
    }

    pub(crate) fn poll(&mut self) -> Vec<Wc> {
        let mut wcs = [Wc::default(); CQES as usize];
        let n = self.rails.poll(RAIL, &mut wcs);
        wcs[..n].to_vec()
    }

    pub(crate) fn arm(&mut self) -> bool {
        self.rails.arm(RAIL)
    }

    pub(crate) fn distrusted(&mut self) -> Option<(u32, CqeError)> {
        self.rails.take_distrusted().map(|found| (found.qp_num, found.error))
    }

    pub(crate) fn block(&self, index: u32) -> Vec<u8> {
        let at = (index % BLOCKS) as usize * 64;
        self.blocks.bytes(at, at + 64)
    }

    pub(crate) fn all(&self) -> Vec<u8> {
        let blocks = self.blocks.bytes(0, BLOCKS as usize * 64);
        [blocks, self.records.bytes(0, 8), self.register_page()].concat()
    }

    pub(crate) fn record(&self, word: usize) -> [u8; 4] {
        let bytes = self.records.bytes(word * 4, word * 4 + 4);
        bytes.try_into().expect("four bytes")
    }

    pub(crate) fn consumed(&self) -> u32 {
        u32::from_be_bytes(self.records.bytes(8, 12).try_into().expect("four bytes"))
    }

    pub(crate) fn armed(&self) -> (u32, u64) {
        let record = u32::from_be_bytes(self.records.bytes(12, 16).try_into().expect("four bytes"));
        let register = u64::from_be_bytes(self.arm_page.bytes(0x20, 0x28).try_into().expect("eight bytes"));
        (record, register)
    }

    pub(crate) fn register_page(&self) -> Vec<u8> {
        self.register.bytes(0, 4096)
    }

    pub(crate) fn clear_register(&self) {
        (0..512).for_each(|at| self.register.set(at, 0));
    }
}
