//! `ibv_send_wr` and `ibv_sge`.

use core::mem::{offset_of, size_of};
use core::ptr;

/// `IBV_WR_RDMA_READ` of `enum ibv_wr_opcode`.
pub const IBV_WR_RDMA_READ: u32 = 4;
/// `IBV_SEND_SIGNALED` of `enum ibv_send_flags`.
pub const IBV_SEND_SIGNALED: u32 = 1 << 1;

/// `struct ibv_sge`: one piece of local memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sge {
    /// Start of the piece.
    pub addr: u64,
    /// Its length in bytes.
    pub length: u32,
    /// The local key of the region that holds it, on the rail that posts.
    pub lkey: u32,
}

/// `struct ibv_send_wr`, with the member `wr.rdma` of its union spelled out and the rest as padding.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SendWr {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// The next wr of the chain, or null.
    pub next: *mut SendWr,
    /// The local pieces that the remote bytes are scattered over, in order.
    pub sg_list: *mut Sge,
    /// How many pieces.
    pub num_sge: i32,
    /// [`IBV_WR_RDMA_READ`].
    pub opcode: u32,
    /// [`IBV_SEND_SIGNALED`] or nothing.
    pub send_flags: u32,
    /// `imm_data`, unused by READs.
    pub imm_data: u32,
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// The peer's key for the region that holds it, on the peer's rail.
    pub rkey: u32,
    /// The rest of the unions: atomics, UD, XRC, memory windows, TSO.
    pub rest: [u32; 19],
}

impl SendWr {
    /// A READ of nothing, from nowhere, linked to nothing.
    pub const EMPTY: Self = Self {
        wr_id: 0,
        next: ptr::null_mut(),
        sg_list: ptr::null_mut(),
        num_sge: 1,
        opcode: IBV_WR_RDMA_READ,
        send_flags: 0,
        imm_data: 0,
        remote_addr: 0,
        rkey: 0,
        rest: [0; 19],
    };
}

// rdma-core, libibverbs/verbs.h: struct ibv_sge, struct ibv_send_wr (LP64).
const _: () = {
    assert!(size_of::<Sge>() == 16);
    assert!(offset_of!(Sge, addr) == 0);
    assert!(offset_of!(Sge, length) == 8);
    assert!(offset_of!(Sge, lkey) == 12);
    assert!(size_of::<SendWr>() == 128);
    assert!(align_of::<SendWr>() == 8);
    assert!(offset_of!(SendWr, wr_id) == 0);
    assert!(offset_of!(SendWr, next) == 8);
    assert!(offset_of!(SendWr, sg_list) == 16);
    assert!(offset_of!(SendWr, num_sge) == 24);
    assert!(offset_of!(SendWr, opcode) == 28);
    assert!(offset_of!(SendWr, send_flags) == 32);
    assert!(offset_of!(SendWr, imm_data) == 36);
    assert!(offset_of!(SendWr, remote_addr) == 40);
    assert!(offset_of!(SendWr, rkey) == 48);
};
