//! The core's structs against the headers', size and every offset, at compile time.
//!
//! The core writes `ibv_send_wr`s and reads `ibv_wc`s through structs of its own, since it may not depend
//! on bindings. Whoever builds this crate builds the proof that the two are the same bytes.

use std::mem::{align_of, offset_of, size_of};

use kvrail_core::verbs_abi::{IBV_SEND_SIGNALED, IBV_WR_RDMA_READ, SendWr, Sge, Wc, WcStatus};
use rdma_mummy_sys as sys;

/// `$ours.$field` lies where `$theirs.$member` does, and is as long.
macro_rules! same {
    ($ours:ty, $theirs:ty: $($field:ident = $($member:ident).+),+ $(,)?) => {
        const _: () = {
            assert!(size_of::<$ours>() == size_of::<$theirs>());
            assert!(align_of::<$ours>() == align_of::<$theirs>());
            $(assert!(offset_of!($ours, $field) == offset_of!($theirs, $($member).+));)+
        };
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
// What the core calls `rest` begins right behind the key and ends with the struct.
const _: () = assert!(offset_of!(SendWr, rest) == offset_of!(sys::ibv_send_wr, wr.rdma.rkey) + 4);
const _: () = assert!(offset_of!(SendWr, rest) + 19 * 4 == size_of::<sys::ibv_send_wr>());

/// The core keeps the fields of its `Wc` to itself; it publishes where they are.
const _: () = {
    assert!(size_of::<Wc>() == size_of::<sys::ibv_wc>());
    assert!(align_of::<Wc>() == align_of::<sys::ibv_wc>());
    assert!(Wc::OFFSETS.wr_id == offset_of!(sys::ibv_wc, wr_id));
    assert!(Wc::OFFSETS.status == offset_of!(sys::ibv_wc, status));
    assert!(Wc::OFFSETS.opcode == offset_of!(sys::ibv_wc, opcode));
    assert!(Wc::OFFSETS.vendor_err == offset_of!(sys::ibv_wc, vendor_err));
    assert!(Wc::OFFSETS.byte_len == offset_of!(sys::ibv_wc, byte_len));
    assert!(Wc::OFFSETS.imm_data == offset_of!(sys::ibv_wc, imm_data_invalidated_rkey_union));
    assert!(Wc::OFFSETS.qp_num == offset_of!(sys::ibv_wc, qp_num));
    assert!(Wc::OFFSETS.src_qp == offset_of!(sys::ibv_wc, src_qp));
    assert!(Wc::OFFSETS.wc_flags == offset_of!(sys::ibv_wc, wc_flags));
    assert!(Wc::OFFSETS.pkey_index == offset_of!(sys::ibv_wc, pkey_index));
    assert!(Wc::OFFSETS.slid == offset_of!(sys::ibv_wc, slid));
    assert!(Wc::OFFSETS.sl == offset_of!(sys::ibv_wc, sl));
    assert!(Wc::OFFSETS.dlid_path_bits == offset_of!(sys::ibv_wc, dlid_path_bits));
};

const _: () = {
    assert!(IBV_WR_RDMA_READ == sys::ibv_wr_opcode::IBV_WR_RDMA_READ);
    assert!(IBV_SEND_SIGNALED == sys::ibv_send_flags::IBV_SEND_SIGNALED.0);
    assert!(WcStatus::SUCCESS.0 == sys::ibv_wc_status::IBV_WC_SUCCESS);
    assert!(WcStatus::WR_FLUSH_ERR.0 == sys::ibv_wc_status::IBV_WC_WR_FLUSH_ERR);
    assert!(WcStatus::REM_ACCESS_ERR.0 == sys::ibv_wc_status::IBV_WC_REM_ACCESS_ERR);
    assert!(WcStatus::RETRY_EXC_ERR.0 == sys::ibv_wc_status::IBV_WC_RETRY_EXC_ERR);
    assert!(WcStatus::GENERAL_ERR.0 == sys::ibv_wc_status::IBV_WC_GENERAL_ERR);
};

/// `struct ibv_async_event` with the type as the integer that the driver wrote: the bindings make it a Rust
/// enum, and a value that a newer kernel adds would be undefined behaviour there.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AsyncEvent {
    /// The union's pointers (qp, cq, ..), or `port_num` in its first four bytes.
    pub(crate) element: u64,
    pub(crate) event_type: u32,
}

const _: () = {
    assert!(size_of::<AsyncEvent>() == size_of::<sys::ibv_async_event>());
    assert!(align_of::<AsyncEvent>() == align_of::<sys::ibv_async_event>());
    assert!(offset_of!(AsyncEvent, element) == offset_of!(sys::ibv_async_event, element));
    assert!(offset_of!(AsyncEvent, event_type) == offset_of!(sys::ibv_async_event, event_type));
};

impl AsyncEvent {
    /// The port of a port event: a `c_int` in the union's first bytes.
    pub(crate) fn port(self) -> i32 {
        let [a, b, c, d, ..] = self.element.to_ne_bytes();
        i32::from_ne_bytes([a, b, c, d])
    }
}
