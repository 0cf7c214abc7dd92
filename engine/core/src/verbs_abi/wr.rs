//! `ibv_send_wr` and `ibv_sge`: a work request as `ibv_post_send` takes it.

use core::mem::{offset_of, size_of};
use core::ptr;

use bitflags::bitflags;
use static_assertions::{assert_eq_size, const_assert_eq};

/// `IBV_WR_RDMA_READ` of `enum ibv_wr_opcode`.
pub const IBV_WR_RDMA_READ: u32 = 4;

bitflags! {
    /// `enum ibv_send_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct SendFlags: u32 {
        /// `IBV_SEND_FENCE`: begins only when all earlier READs of the QP have completed.
        const FENCE = 1;
        /// `IBV_SEND_SIGNALED`: a success gives a completion.
        const SIGNALED = 1 << 1;
        /// `IBV_SEND_SOLICITED`: unused by READs.
        const SOLICITED = 1 << 2;
        /// `IBV_SEND_INLINE`: unused by READs.
        const INLINE = 1 << 3;
        /// `IBV_SEND_IP_CSUM`: unused by READs.
        const IP_CSUM = 1 << 4;
    }
}

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

const_assert_eq!(size_of::<Sge>(), size_of::<[u64; 2]>());
const_assert_eq!(align_of::<Sge>(), align_of::<[u64; 2]>());

impl Sge {
    /// Its length and key, as the word behind its address.
    #[inline]
    pub(crate) const fn behind_addr(self) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.length.to_ne_bytes(), self.lkey.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

/// `struct ibv_send_wr`, with the member `wr.rdma` of its union spelled out and the rest as
/// padding.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SendWr {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// The next wr of the chain, or null.
    pub next: *mut SendWr,
    /// The local pieces that the remote bytes are scattered over, in order.
    pub sg_list: *mut Sge,
    /// How many pieces there are.
    pub num_sge: i32,
    /// [`IBV_WR_RDMA_READ`].
    pub opcode: u32,
    /// [`SendFlags::SIGNALED`] or nothing.
    pub send_flags: SendFlags,
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
    /// A READ whose addresses are 0, with one piece, not linked to another.
    pub const EMPTY: Self = Self {
        wr_id: 0,
        next: ptr::null_mut(),
        sg_list: ptr::null_mut(),
        num_sge: 1,
        opcode: IBV_WR_RDMA_READ,
        send_flags: SendFlags::empty(),
        imm_data: 0,
        remote_addr: 0,
        rkey: 0,
        rest: [0; 19],
    };
}

// rdma-core, libibverbs/verbs.h: struct ibv_sge, struct ibv_send_wr (LP64).
assert_eq_size!(SendFlags, u32);
const_assert_eq!(size_of::<Sge>(), 16);
const_assert_eq!(offset_of!(Sge, addr), 0);
const_assert_eq!(offset_of!(Sge, length), 8);
const_assert_eq!(offset_of!(Sge, lkey), 12);
const_assert_eq!(size_of::<SendWr>(), 128);
const_assert_eq!(align_of::<SendWr>(), 8);
const_assert_eq!(offset_of!(SendWr, wr_id), 0);
const_assert_eq!(offset_of!(SendWr, next), 8);
const_assert_eq!(offset_of!(SendWr, sg_list), 16);
const_assert_eq!(offset_of!(SendWr, num_sge), 24);
const_assert_eq!(offset_of!(SendWr, opcode), 28);
const_assert_eq!(offset_of!(SendWr, send_flags), 32);
const_assert_eq!(offset_of!(SendWr, imm_data), 36);
const_assert_eq!(offset_of!(SendWr, remote_addr), 40);
const_assert_eq!(offset_of!(SendWr, rkey), 48);
