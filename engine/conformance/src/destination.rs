//! The local memory that READs of the suite land in.
#![allow(unsafe_code, reason = "memory that a provider writes from outside of Rust's view")]

use core::ptr;

use kvrail_core::provider::MemoryRange;

use crate::pattern::BYTES;

/// [`BYTES`] bytes of local memory, which the provider may write until the program ends. The memory
/// is never given back: a provider that breaks its contract may write late, and must not write into
/// memory of other code then.
#[derive(Debug)]
pub struct Destination {
    start: *mut u8,
}

impl Destination {
    /// Takes the memory, and fills it with zeros.
    ///
    /// # Panics
    /// If `memory` is not [`BYTES`] long.
    #[must_use]
    pub fn new(memory: &'static mut [u8]) -> Self {
        assert_eq!(memory.len(), BYTES, "a destination has BYTES bytes");
        memory.fill(0);
        Self { start: memory.as_mut_ptr() }
    }

    /// Its range, to be registered with a provider.
    #[must_use]
    pub fn range(&self) -> MemoryRange {
        MemoryRange { addr: self.start.expose_provenance() as u64, len: BYTES as u64 }
    }

    /// The byte at `at` now.
    pub(crate) fn get(&self, at: usize) -> u8 {
        assert!(at < BYTES);
        // SAFETY: `at` is within the BYTES bytes.
        let byte = unsafe { self.start.add(at) };
        // SAFETY: the memory was lent for the rest of the program, and no reference to it exists. A
        // provider may write it at the same time; the load is volatile, so that each call loads the
        // byte.
        unsafe { ptr::read_volatile(byte) }
    }

    /// Writes `value` to `len` bytes from `at` on.
    pub(crate) fn fill(&self, at: usize, len: usize, value: u8) {
        assert!(at <= BYTES && len <= BYTES - at);
        // SAFETY: `at` is within the BYTES bytes or at their end.
        let first = unsafe { self.start.add(at) };
        // SAFETY: `len` bytes from `at` on are within the memory, which was lent for the rest of
        // the program; no reference to it exists.
        unsafe { ptr::write_bytes(first, value, len) };
    }
}
