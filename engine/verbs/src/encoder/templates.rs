//! The chain of work request templates, and the memory that it borrows.
#![allow(unsafe_code, reason = "a chain and what it borrows, in one value")]

use std::fmt;
use std::ptr::NonNull;

use kvrail_core::verbs_abi::{Chain, ChainStorage};

use crate::config::MAX_SGES;

/// The most READs in one commit: as many as a reader's send queue has entries by default.
pub(super) const CHAIN: usize = 128;
/// The most pieces of memory that one READ writes.
pub(super) const SGES: usize = MAX_SGES as usize;

/// A chain that owns its storage.
pub(super) struct Templates {
    chain: Chain<'static, CHAIN, SGES>,
    storage: NonNull<ChainStorage<CHAIN, SGES>>,
}

// SAFETY: the storage is this value's own, and the chain is Send itself.
unsafe impl Send for Templates {}

impl Templates {
    pub(super) fn new() -> Self {
        let storage = NonNull::from(Box::leak(Box::new(ChainStorage::new())));
        // SAFETY: out of a box just now, and freed by `drop` alone, which runs after the last use
        // of the chain.
        let chain = Chain::new(unsafe { &mut *storage.as_ptr() });
        Self { chain, storage }
    }

    #[inline]
    pub(super) fn chain(&mut self) -> &mut Chain<'static, CHAIN, SGES> {
        &mut self.chain
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        // The chain has nothing to drop, and is not used again: a commit borrows `self`.
        // SAFETY: from a box, in `new`.
        drop(unsafe { Box::from_raw(self.storage.as_ptr()) });
    }
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CHAIN} templates")
    }
}
