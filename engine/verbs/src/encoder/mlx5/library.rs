//! `mlx5dv_init_obj`, which says where the queues of a QP or a CQ lie. libmlx5 is opened at run
//! time, as libibverbs is.
//!
//! The structs follow rdma-core's `providers/mlx5/mlx5dv.h` on 64-bit machines; sizes and offsets
//! are asserted below.
#![allow(unsafe_code, reason = "calls into libmlx5")]

use std::ffi::{c_int, c_void};
use std::fmt;
use std::mem::{offset_of, size_of};
use std::ptr::{self, NonNull};

use kvrail_mlx5::{CompletionQueueMemory, DoorbellRegister, PostedWr, SendQueueMemory};
use libloading::Library;
use rdma_mummy_sys as sys;
use static_assertions::const_assert_eq;

use super::unsuitable::Unsuitable;

/// `MLX5DV_OBJ_QP` and `MLX5DV_OBJ_CQ`.
const OBJ_QP: u64 = 1 << 0;
const OBJ_CQ: u64 = 1 << 1;

/// The send or receive queue in `struct mlx5dv_qp`.
#[repr(C)]
struct DvQueue {
    buf: *mut c_void,
    wqe_cnt: u32,
    stride: u32,
}

/// The doorbell register in `struct mlx5dv_qp`.
#[repr(C)]
struct DvRegister {
    reg: *mut c_void,
    size: u32,
}

/// `struct mlx5dv_qp`.
#[repr(C)]
struct DvQp {
    dbrec: *mut u32,
    sq: DvQueue,
    rq: DvQueue,
    bf: DvRegister,
    comp_mask: u64,
    uar_mmap_offset: i64,
    tirn: u32,
    tisn: u32,
    rqn: u32,
    sqn: u32,
    tir_icm_addr: u64,
}

/// `struct mlx5dv_cq`.
#[repr(C)]
struct DvCq {
    buf: *mut c_void,
    dbrec: *mut u32,
    cqe_cnt: u32,
    cqe_size: u32,
    cq_uar: *mut c_void,
    cqn: u32,
    comp_mask: u64,
}

/// One of the pairs of `struct mlx5dv_obj`: the object, and where its description goes.
#[repr(C)]
struct DvPair {
    from: *mut c_void,
    to: *mut c_void,
}

/// `struct mlx5dv_obj`: qp, cq, srq, rwq, dm, ah, pd, devx.
#[repr(C)]
struct DvObj {
    pairs: [DvPair; 8],
}

const_assert_eq!(size_of::<DvQp>(), 96);
const_assert_eq!(offset_of!(DvQp, sq), 8);
const_assert_eq!(offset_of!(DvQp, rq), 24);
const_assert_eq!(offset_of!(DvQp, bf), 40);
const_assert_eq!(offset_of!(DvQp, comp_mask), 56);
const_assert_eq!(offset_of!(DvQp, uar_mmap_offset), 64);
const_assert_eq!(offset_of!(DvQp, tirn), 72);
const_assert_eq!(offset_of!(DvQp, sqn), 84);
const_assert_eq!(offset_of!(DvQp, tir_icm_addr), 88);
const_assert_eq!(offset_of!(DvQueue, wqe_cnt), 8);
const_assert_eq!(offset_of!(DvQueue, stride), 12);
const_assert_eq!(offset_of!(DvRegister, size), 8);
const_assert_eq!(size_of::<DvCq>(), 48);
const_assert_eq!(offset_of!(DvCq, dbrec), 8);
const_assert_eq!(offset_of!(DvCq, cqe_cnt), 16);
const_assert_eq!(offset_of!(DvCq, cqe_size), 20);
const_assert_eq!(offset_of!(DvCq, cq_uar), 24);
const_assert_eq!(offset_of!(DvCq, cqn), 32);
const_assert_eq!(offset_of!(DvCq, comp_mask), 40);
const_assert_eq!(size_of::<DvObj>(), 128);

type InitObj = unsafe extern "C" fn(*mut DvObj, u64) -> c_int;

/// libmlx5, as far as it is used here.
pub(super) struct Mlx5Library {
    init_obj: InitObj,
    // Keeps the function mapped.
    _library: Library,
}

impl fmt::Debug for Mlx5Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mlx5Library(..)")
    }
}

impl Mlx5Library {
    /// Opens `library`, normally `libmlx5.so.1`.
    pub(super) fn open(library: &str) -> Result<Self, Unsuitable> {
        let missing = |error: libloading::Error| Unsuitable::Library { reason: error.to_string() };
        // SAFETY: libmlx5's initialisers are made to be run by any process; libibverbs opens it,
        // too.
        let library = unsafe { Library::new(library) }.map_err(missing)?;
        // SAFETY: the type is the one that mlx5dv.h gives this function.
        let init_obj = *unsafe { library.get::<InitObj>(b"mlx5dv_init_obj\0") }.map_err(missing)?;
        Ok(Self { init_obj, _library: library })
    }

    /// Fills in the description of the object at `place` of the pairs.
    ///
    /// # Safety
    ///
    /// `from` is a live object of an mlx5 context, of the kind of `kind` and `place`; `to` is the
    /// struct of that kind, all zero.
    unsafe fn describe(
        &self,
        (place, kind): (usize, u64),
        from: *mut c_void,
        to: *mut c_void,
    ) -> Result<(), Unsuitable> {
        let empty = || DvPair { from: ptr::null_mut(), to: ptr::null_mut() };
        let mut pairs = [0; 8].map(|_| empty());
        pairs[place] = DvPair { from, to };
        let mut obj = DvObj { pairs };
        // SAFETY: a local, whose only filled pair is that of `kind`, by our caller's promise.
        match unsafe { (self.init_obj)(&raw mut obj, kind) } {
            0 => Ok(()),
            errno => Err(Unsuitable::InitObj { errno: errno.abs() }),
        }
    }

    /// Where the send queue of a QP lies. `posted` is memory for its notes.
    ///
    /// # Safety
    ///
    /// The QP is alive and of an mlx5 device.
    pub(super) unsafe fn send_queue(
        &self,
        qp: NonNull<sys::ibv_qp>,
        posted: impl FnOnce(u32) -> NonNull<PostedWr>,
    ) -> Result<SendQueueMemory, Unsuitable> {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut dv: DvQp = unsafe { std::mem::zeroed() };
        // SAFETY: a QP by our caller's promise, and the struct of its description.
        unsafe { self.describe((0, OBJ_QP), qp.as_ptr().cast(), (&raw mut dv).cast())? };
        let missing = |what| Unsuitable::Missing { what };
        // SAFETY: a live QP; its number does not change.
        let qp_num = unsafe { (*qp.as_ptr()).qp_num };
        let address = NonNull::new(dv.bf.reg.cast()).ok_or(missing("doorbell register"))?;
        Ok(SendQueueMemory {
            blocks: NonNull::new(dv.sq.buf.cast()).ok_or(missing("send queue"))?,
            count: dv.sq.wqe_cnt,
            block_bytes: dv.sq.stride,
            doorbell_record: NonNull::new(dv.dbrec).ok_or(missing("doorbell record"))?,
            register: DoorbellRegister { address, bytes: dv.bf.size },
            qp_num,
            posted: posted(dv.sq.wqe_cnt),
        })
    }

    /// Where a completion queue lies. From now on libmlx5 leaves its entries alone, also when one
    /// of its QPs is destroyed.
    ///
    /// # Safety
    ///
    /// The queue is alive, of an mlx5 device, and was never polled.
    pub(super) unsafe fn completion_queue(
        &self,
        cq: NonNull<sys::ibv_cq>,
    ) -> Result<CompletionQueueMemory, Unsuitable> {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut dv: DvCq = unsafe { std::mem::zeroed() };
        // SAFETY: a CQ by our caller's promise, and the struct of its description.
        unsafe { self.describe((1, OBJ_CQ), cq.as_ptr().cast(), (&raw mut dv).cast())? };
        let missing = |what| Unsuitable::Missing { what };
        Ok(CompletionQueueMemory {
            entries: NonNull::new(dv.buf.cast()).ok_or(missing("completion queue"))?,
            count: dv.cqe_cnt,
            entry_bytes: dv.cqe_size,
            doorbell_record: NonNull::new(dv.dbrec).ok_or(missing("doorbell record of the CQ"))?,
            register: Some(NonNull::new(dv.cq_uar.cast()).ok_or(missing("register of the CQ"))?),
            number: dv.cqn,
        })
    }
}
