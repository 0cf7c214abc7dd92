//! The notes beside the blocks of a send queue.

use kvrail_core::id::WrId;

/// A note of this crate beside a block of a send queue: which wr begins there.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PostedWr {
    wr_id: u64,
    /// The index of the block after its entry. At a block where no entry begins it is the block's
    /// own index.
    end: u32,
}

impl PostedWr {
    /// A note that says nothing.
    pub const EMPTY: Self = Self { wr_id: 0, end: 0 };

    #[inline]
    pub(crate) const fn new(wr_id: WrId, end: u32) -> Self {
        Self { wr_id: wr_id.0, end }
    }

    #[inline]
    pub(crate) const fn wr_id(self) -> WrId {
        WrId(self.wr_id)
    }

    #[inline]
    pub(crate) const fn end(self) -> u32 {
        self.end
    }
}
