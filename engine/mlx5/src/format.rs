//! The numbers of the device's interface that READs need, in the words of the ConnectX programmer's
//! manual and of `mlx5dv.h`.

/// Bytes of a basic block: an entry takes one or several.
pub(crate) const BLOCK: usize = 64;
/// 64-bit words of a basic block.
pub(crate) const BLOCK_WORDS: usize = BLOCK / 8;
/// Bytes of a segment: control, remote address, and each data segment.
pub(crate) const SEGMENT: usize = 16;
/// Segments of a READ without data: control and remote address.
pub(crate) const READ_SEGMENTS: u32 = 2;
/// The most data segments of an entry: the size has six bits, in segments.
pub(crate) const MAX_PIECES: u32 = 63 - READ_SEGMENTS;
/// `MLX5_OPCODE_RDMA_READ`.
pub(crate) const RDMA_READ: u8 = 0x10;
/// `MLX5_WQE_CTRL_CQ_UPDATE`: a success gives a completion.
pub(crate) const CQ_UPDATE: u32 = 2 << 2;
/// QP and CQ numbers have 24 bits, and so have the indices in doorbells of a CQ.
pub(crate) const BITS_24: u32 = (1 << 24) - 1;

/// Opcodes of completion queue entries: the upper four bits of the last byte.
pub(crate) const CQE_REQUESTER: u8 = 0;
pub(crate) const CQE_REQUESTER_ERROR: u8 = 13;
/// Entries that the device has not written.
pub(crate) const CQE_INVALID: u8 = 15;

/// The distance of the doorbell for arming from the start of the CQ's register page.
pub(crate) const ARM_REGISTER_WORD: usize = 0x20 / 8;

/// How many basic blocks `segments` take.
#[inline]
pub(crate) const fn blocks(segments: u32) -> u32 {
    segments.div_ceil((BLOCK / SEGMENT) as u32)
}

/// Two 32-bit words, in that order, in the byte order of the device.
#[inline]
pub(crate) const fn pair(first: u32, second: u32) -> u64 {
    ((first as u64) << 32 | second as u64).to_be()
}
