//! What the tests of foreign pools share: memory of an engine, two layouts side by side in it, and
//! a reader.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use kvrail::core::provider::MemoryRange;
use kvrail::{
    Batch, Bf16, Config, ForeignMemory, ForeignPool, ForeignRegion, KvLayout, Location, PageError,
    PageLayout, Peer, PeerKey, Publisher, PublisherConfig, PublisherError, PublisherTransport, Reader,
    ReaderTransport, Slot, clock, memory,
};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
pub(crate) struct Latent {
    latent: [Bf16; 64],
}

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
pub(crate) struct Index {
    key: [Bf16; 17],
}

pub(crate) const LATENT: PageLayout = PageLayout::of::<Latent>();
pub(crate) const INDEX: PageLayout = PageLayout::of::<Index>();
/// A block has a page of each layout, and bytes that belong to neither.
pub(crate) const BLOCK: u64 = (LATENT.page_bytes() + INDEX.page_bytes()) as u64 + 128;
/// Where the page of `INDEX` is in a block.
pub(crate) const BESIDE: u64 = LATENT.page_bytes() as u64 + 64;

pub(crate) fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

/// Memory of an inference engine: it writes its pages itself.
pub(crate) struct EngineMemory {
    at: *mut u8,
    len: usize,
}

// SAFETY: its address, whose bytes are accessed by raw writes alone. Each test writes a page from
// one thread at a time.
unsafe impl Sync for EngineMemory {}

impl EngineMemory {
    /// `blocks` blocks of zeros.
    pub(crate) fn of(blocks: u64) -> Self {
        Self::of_bytes(blocks * BLOCK)
    }

    /// `len` bytes, all zero.
    pub(crate) fn of_bytes(len: u64) -> Self {
        Self::map(len as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// `len` bytes of a file, from `offset` on.
    pub(crate) fn of_file(file: &OwnedFd, offset: u64, len: u64) -> Self {
        Self::map(len as usize, libc::MAP_SHARED, file.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: libc::c_int, file: libc::c_int, offset: u64) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file, offset.cast_signed()) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self { at: at.cast(), len }
    }

    pub(crate) fn range(&self) -> MemoryRange {
        MemoryRange { addr: self.at.expose_provenance() as u64, len: self.len as u64 }
    }

    /// The memory as a publisher takes it, by its address.
    pub(crate) fn foreign(&self) -> ForeignMemory {
        // SAFETY: the tests keep the memory mapped, but for the one that unmaps it on purpose, in
        // which the kernel alone reads it. They write a page under the guard of its slot.
        unsafe { ForeignMemory::host(self.range()) }
    }

    /// Fills a page.
    pub(crate) fn fill(&self, block: u32, layout: &PageLayout, byte: u8) {
        let beside = if *layout == INDEX { BESIDE } else { 0 };
        self.fill_at(u64::from(block) * BLOCK + beside, layout.page_bytes().into(), byte);
    }

    /// Fills `len` bytes from byte `from` on.
    pub(crate) fn fill_at(&self, from: u64, len: u64, byte: u8) {
        let (from, len) = (from as usize, len as usize);
        assert!(from + len <= self.len);
        // SAFETY: within the mapping, which nothing of this process has a reference to.
        unsafe { self.at.wrapping_add(from).write_bytes(byte, len) };
    }

    /// Writes `bytes` from byte `from` on.
    pub(crate) fn write_at(&self, from: u64, bytes: &[u8]) {
        let from = from as usize;
        assert!(from + bytes.len() <= self.len);
        // SAFETY: within the mapping, which nothing of this process has a reference to.
        unsafe { self.at.wrapping_add(from).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Unmaps the memory although it may be published: the broken promise.
    pub(crate) fn unmap(self) {
        // SAFETY: this value alone knows the mapping.
        let result = unsafe { libc::munmap(self.at.cast(), self.len) };
        assert_eq!(result, 0);
    }
}

/// A pool of the pages of `layout` in the blocks of `memory`.
pub(crate) fn pool(layout: PageLayout, memory: &ForeignMemory) -> ForeignPool {
    let offset = if layout == INDEX { BESIDE } else { 0 };
    ForeignPool::new(layout).region(ForeignRegion::new(memory).stride(BLOCK).offset(offset))
}

/// A publisher of these pools.
pub(crate) fn publisher(
    pools: &[ForeignPool],
    over: impl PublisherTransport,
) -> Result<Publisher, PublisherError> {
    let config = PublisherConfig::new("producer".parse().unwrap());
    let config = pools.iter().cloned().fold(config, PublisherConfig::foreign_pool);
    Publisher::start_pools(config, &"127.0.0.1:0".parse().unwrap(), key(), over)
}

/// A reader of one layout, with slots, and its peer.
pub(crate) struct Reads<N: ReaderTransport> {
    pub(crate) reader: Reader<N>,
    pub(crate) peer: Peer,
    free: Vec<Slot>,
}

impl<N: ReaderTransport> Reads<N> {
    pub(crate) fn of(layout: PageLayout, publisher: &Publisher, rails: N) -> Self {
        let mut reader = Reader::start(layout, rails, Config::default()).unwrap();
        let memory = memory::leaked(4 * layout.page_bytes() as usize).unwrap();
        let free = reader.register_for(&layout, memory).unwrap().collect();
        let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
        Self { reader, peer, free }
    }

    /// Reads the page at `location` of the peer's first pool, and returns the one byte that it
    /// consists of.
    pub(crate) fn read(&mut self, location: Location) -> Result<u8, PageError> {
        let mut batch = self.reader.batch().unwrap();
        batch.read(self.peer.page(location).unwrap(), self.free.pop().unwrap()).unwrap();
        self.finish(batch)
    }

    fn finish(&mut self, batch: Batch<'static>) -> Result<u8, PageError> {
        let until = clock::within(Duration::from_secs(20));
        self.reader.submit(batch, until).unwrap();
        let mut done = loop {
            self.reader.poll();
            match self.reader.next_done() {
                Some(done) => break done,
                None => self.reader.wait(until),
            }
            assert!(clock::now() < until, "nothing is done: {:?}", self.reader);
        };
        let page = done.pages().next().unwrap();
        let byte = page.result.map(|()| {
            let bytes = page.slot.bytes().unwrap();
            assert!(bytes.iter().all(|&byte| byte == bytes[0]), "a mixture");
            bytes[0]
        });
        self.free.push(page.slot);
        byte
    }
}
