//! Compares core's structs with the C headers' at compile time: sizes and every offset.
//!
//! Core writes `ibv_send_wr`s and reads `ibv_wc`s through structs of its own, since it does not
//! depend on the bindings. This crate compiles only if core's structs and the bindings' have the
//! same layout.

use std::mem::{offset_of, size_of};

use kvrail_core::verbs_abi::{IBV_WR_RDMA_READ, SendFlags, SendWr, Sge, Wc, WcStatus};
use rdma_mummy_sys as sys;
use static_assertions::{assert_eq_align, assert_eq_size, const_assert_eq};

/// `$ours` and `$theirs` have one size and alignment, and `$ours.$field` lies where
/// `$theirs.$member` does.
macro_rules! same {
    ($ours:ty, $theirs:ty: $($field:ident = $($member:ident).+),+ $(,)?) => {
        assert_eq_size!($ours, $theirs);
        assert_eq_align!($ours, $theirs);
        $(const_assert_eq!(offset_of!($ours, $field), offset_of!($theirs, $($member).+));)+
    };
}

same!(Sge, sys::ibv_sge: addr = addr, length = length, lkey = lkey);

same!(SendWr, sys::ibv_send_wr:
    wr_id = wr_id,
    next = next,
    sg_list = sg_list,
    num_sge = num_sge,
    opcode = opcode,
    send_flags = send_flags,
    imm_data = imm_data_invalidated_rkey_union,
    remote_addr = wr.rdma.remote_addr,
    rkey = wr.rdma.rkey,
);
// Core's field `rest` begins right behind the key and ends with the struct.
const_assert_eq!(offset_of!(SendWr, rest), offset_of!(sys::ibv_send_wr, wr.rdma.rkey) + 4);
const_assert_eq!(offset_of!(SendWr, rest) + 19 * 4, size_of::<sys::ibv_send_wr>());

/// Core's `Wc` has private fields, and publishes their offsets.
macro_rules! same_wc {
    ($($field:ident = $member:ident),+ $(,)?) => {
        assert_eq_size!(Wc, sys::ibv_wc);
        assert_eq_align!(Wc, sys::ibv_wc);
        $(const_assert_eq!(Wc::OFFSETS.$field, offset_of!(sys::ibv_wc, $member));)+
    };
}

same_wc!(
    wr_id = wr_id,
    status = status,
    opcode = opcode,
    vendor_err = vendor_err,
    byte_len = byte_len,
    imm_data = imm_data_invalidated_rkey_union,
    qp_num = qp_num,
    src_qp = src_qp,
    wc_flags = wc_flags,
    pkey_index = pkey_index,
    slid = slid,
    sl = sl,
    dlid_path_bits = dlid_path_bits,
);

const_assert_eq!(IBV_WR_RDMA_READ, sys::ibv_wr_opcode::IBV_WR_RDMA_READ);
const_assert_eq!(SendFlags::SIGNALED.bits(), sys::ibv_send_flags::IBV_SEND_SIGNALED.0);
const_assert_eq!(WcStatus::SUCCESS.0, sys::ibv_wc_status::IBV_WC_SUCCESS);
const_assert_eq!(WcStatus::WR_FLUSH_ERR.0, sys::ibv_wc_status::IBV_WC_WR_FLUSH_ERR);
const_assert_eq!(WcStatus::REM_ACCESS_ERR.0, sys::ibv_wc_status::IBV_WC_REM_ACCESS_ERR);
const_assert_eq!(WcStatus::RETRY_EXC_ERR.0, sys::ibv_wc_status::IBV_WC_RETRY_EXC_ERR);
const_assert_eq!(WcStatus::GENERAL_ERR.0, sys::ibv_wc_status::IBV_WC_GENERAL_ERR);

/// `struct ibv_async_event` with the type as the integer that the driver wrote. The bindings make
/// the type a Rust enum, where a value that a newer kernel adds would be undefined behaviour.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AsyncEvent {
    /// The union's pointers (qp, cq, ..), or `port_num` in its first four bytes.
    pub(crate) element: u64,
    pub(crate) event_type: u32,
}

same!(AsyncEvent, sys::ibv_async_event: element = element, event_type = event_type);

impl AsyncEvent {
    /// The port of a port event, which is a `c_int` in the union's first bytes.
    pub(crate) fn port(self) -> i32 {
        let [a, b, c, d, ..] = self.element.to_ne_bytes();
        i32::from_ne_bytes([a, b, c, d])
    }
}
