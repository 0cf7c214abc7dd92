//! The null device and its driver, behind a table of C functions.
#![allow(unsafe_code, reason = "a driver behind a C function table works on raw queues and chains")]

use core::ptr;

use kvrail_core::id::{LaneId, WrId};
use kvrail_core::verbs_abi::{IBV_WR_RDMA_READ, SendFlags, SendWr, Wc, WcStatus};

pub(super) const EINVAL: i32 = 22;
pub(super) const ENOMEM: i32 = 12;

/// `ibv_context_ops`, as far as the data path goes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ops {
    /// `post_send(qp, wr, bad_wr)` returns 0 or an errno.
    pub post_send: unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> i32,
    /// `poll_cq(cq, num_entries, wc)` returns how many completions it has written.
    pub poll_cq: unsafe extern "C" fn(*mut Cq, i32, *mut Wc) -> i32,
}

/// `ibv_context`: an open device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Its driver.
    pub ops: Ops,
}

pub(super) static CONTEXT: Context = Context { ops: Ops { post_send, poll_cq } };

/// A work queue entry: control, remote address and data segment as mlx5 has them, in the byte order
/// of the wire, padded to a basic block of 64 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wqe(pub [u64; 8]);

impl Wqe {
    /// An entry that has not been written.
    pub const NEW: Self = Self([0; 8]);
}

/// A completion queue entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Cqe {
    wr_id: u64,
    qp: *mut Qp,
    /// The send queue's tail once this completion has been polled.
    upto: u32,
    status: WcStatus,
}

impl Cqe {
    /// An entry that has not been written.
    pub const NEW: Self = Self { wr_id: 0, qp: ptr::null_mut(), upto: 0, status: WcStatus::SUCCESS };
}

/// A completion queue.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Cq {
    context: &'static Context,
    ring: *mut Cqe,
    mask: u32,
    head: u32,
    tail: u32,
}

impl Cq {
    /// Not usable before [`NullRails::new`](super::NullRails::new) has set it up.
    pub const NEW: Self = Self { context: &CONTEXT, ring: ptr::null_mut(), mask: 0, head: 0, tail: 0 };

    pub(super) const fn over(ring: *mut Cqe, entries: u32) -> Self {
        Self { ring, mask: entries - 1, ..Self::NEW }
    }
}

/// A queue pair.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Qp {
    context: &'static Context,
    cq: *mut Cq,
    ring: *mut Wqe,
    mask: u32,
    /// Work queue entries posted.
    head: u32,
    /// Work queue entries known to be complete.
    tail: u32,
    doorbell: u32,
    qp_num: u32,
    /// Whether the QP is in the error state, in which every wr is flushed.
    pub(super) failed: bool,
    // The fields below belong to the provider.
    pub(super) unread: u8,
    pub(super) id: LaneId,
    /// The next QP of the list that this one is in.
    pub(super) link: *mut Qp,
}

impl Qp {
    /// Not usable before [`NullRails::new`](super::NullRails::new) has set it up.
    pub const NEW: Self = Self {
        context: &CONTEXT,
        cq: ptr::null_mut(),
        ring: ptr::null_mut(),
        mask: 0,
        head: 0,
        tail: 0,
        doorbell: 0,
        qp_num: 0,
        failed: false,
        unread: 0,
        id: LaneId::new(0, 0),
        link: ptr::null_mut(),
    };

    pub(super) const fn over(ring: *mut Wqe, entries: u32, qp_num: u32, link: *mut Self) -> Self {
        Self { ring, mask: entries - 1, qp_num, link, ..Self::NEW }
    }

    /// Makes it a new QP on `cq`, with an empty queue.
    pub(super) const fn reset(&mut self, cq: *mut Cq) {
        self.cq = cq;
        self.head = 0;
        self.tail = 0;
        self.failed = false;
    }

    pub(super) const fn cq(&self) -> *mut Cq {
        self.cq
    }

    /// The value last written to the doorbell: how many work queue entries have been posted, modulo
    /// 2^32.
    #[must_use]
    pub const fn doorbell(&self) -> u32 {
        self.doorbell
    }

    #[cfg(test)]
    pub(super) const fn ring(&self) -> *const Wqe {
        self.ring
    }
}

/// Posts a chain, as the inline function of that name in `verbs.h` does: through the context's
/// table.
///
/// # Safety
///
/// `qp` is that of a [`NullLane`](super::NullLane) which is alive, and nothing else uses the lane
/// or its rail during the call. `wr` heads a chain of live wrs that ends in null, each with as many
/// live sges as it says. `bad_wr` can be written.
#[inline]
pub unsafe fn ibv_post_send(qp: *mut Qp, wr: *mut SendWr, bad_wr: *mut *mut SendWr) -> i32 {
    // SAFETY: `qp` is a live QP (our caller's promise), which has had a context since it was made.
    let context = unsafe { (*qp).context };
    // SAFETY: our caller's promises are those of the driver's function.
    unsafe { (context.ops.post_send)(qp, wr, bad_wr) }
}

/// Takes completions, as the inline function of that name in `verbs.h` does.
///
/// # Safety
///
/// `cq` is that of a rail which is alive, and nothing else uses the rail or its lanes during the
/// call. `wc` has room for `num_entries`.
#[inline]
pub unsafe fn ibv_poll_cq(cq: *mut Cq, num_entries: i32, wc: *mut Wc) -> i32 {
    // SAFETY: `cq` is a live CQ (our caller's promise), which has a context.
    let context = unsafe { (*cq).context };
    // SAFETY: our caller's promises are those of the driver's function.
    unsafe { (context.ops.poll_cq)(cq, num_entries, wc) }
}

/// The driver's `post_send`. Safety: as for [`ibv_post_send`].
unsafe extern "C" fn post_send(qp: *mut Qp, mut wr: *mut SendWr, bad_wr: *mut *mut SendWr) -> i32 {
    // SAFETY: a live QP that nothing else uses during the call.
    let qp_ref = unsafe { &mut *qp };
    // SAFETY: a connected QP's CQ lives as long as it does, and nothing else uses it during the
    // call; it is another object than the QP.
    let cq = unsafe { &mut *qp_ref.cq };
    // These do not change during the call, so they can stay in registers.
    let Qp { ring, mask, tail, failed, qp_num, .. } = *qp_ref;
    let mut head = qp_ref.head;
    let mut errno = 0;
    while !wr.is_null() {
        // SAFETY: a chain of live wrs.
        let request = unsafe { &*wr };
        let signaled = failed || request.send_flags.contains(SendFlags::SIGNALED);
        let queues_are_full =
            head.wrapping_sub(tail) > mask || (signaled && cq.head.wrapping_sub(cq.tail) > cq.mask);
        if queues_are_full {
            errno = ENOMEM;
            break;
        }
        if request.opcode != IBV_WR_RDMA_READ || request.num_sge != 1 {
            // SAFETY: a live wr with as many live sges as it says; the ring of a QP, whose entries
            // outside of tail..head are free.
            match unsafe { scattered(request, (ring, mask), (head, tail), qp_num, signaled) } {
                Ok(next) => head = next,
                Err(error) => {
                    errno = error;
                    break;
                }
            }
        } else {
            // SAFETY: each wr has one live sge.
            let sge = unsafe { &*request.sg_list };
            // SAFETY: the index is at most `mask`, and the ring has mask + 1 entries.
            let wqe = unsafe { ring.add((head & mask) as usize) };
            // SAFETY: an entry of the ring, which belongs to the QP; a ring is written before it is
            // read.
            let Wqe(words) = unsafe { &mut *wqe };
            // The entry is written word by word in place: building it elsewhere and copying it
            // would wait for its own stores. Control: index and opcode (0x10, RDMA READ), QP number
            // and size (3 segments of 16 bytes), and whether a success gives a completion.
            words[0] = be(head << 8 | 0x10, qp_num << 8 | 3);
            words[1] = be(if signaled { 8 } else { 0 }, 0);
            words[2] = request.remote_addr.to_be();
            words[3] = be(request.rkey, 0);
            words[4] = be(sge.length, sge.lkey);
            words[5] = sge.addr.to_be();
            words[6] = 0;
            words[7] = 0;
            head = head.wrapping_add(1);
        }
        if signaled {
            let status = if failed { WcStatus::WR_FLUSH_ERR } else { WcStatus::SUCCESS };
            // SAFETY: the index is at most `mask`, and the ring has mask + 1 entries.
            let cqe = unsafe { cq.ring.add((cq.head & cq.mask) as usize) };
            // SAFETY: an entry of the ring, which belongs to the CQ.
            unsafe { cqe.write(Cqe { wr_id: request.wr_id, qp, upto: head, status }) };
            cq.head = cq.head.wrapping_add(1);
        }
        wr = request.next;
    }
    if errno != 0 {
        // SAFETY: our caller's promise.
        unsafe { bad_wr.write(wr) };
    }
    qp_ref.head = head;
    // SAFETY: a field of a live QP. Volatile, as a store to a device's register is.
    unsafe { ptr::write_volatile(&raw mut qp_ref.doorbell, head) };
    errno
}

/// The most data segments of a wr.
pub(super) const MAX_SGES: i32 = 30;

/// Writes a wr of several data segments: two in its first block, four in each further block.
/// Returns where the next wr begins.
///
/// # Errors
///
/// EINVAL for another opcode or number of segments, ENOMEM if the ring has no room.
///
/// # Safety
///
/// `request` has `num_sge` live sges. `ring` has mask + 1 entries, and the QP may write those
/// outside of tail..head.
#[cold]
#[inline(never)]
unsafe fn scattered(
    request: &SendWr,
    (ring, mask): (*mut Wqe, u32),
    (head, tail): (u32, u32),
    qp_num: u32,
    signaled: bool,
) -> Result<u32, i32> {
    let sges = request.num_sge;
    if request.opcode != IBV_WR_RDMA_READ || !(2..=MAX_SGES).contains(&sges) {
        return Err(EINVAL);
    }
    let sges = sges.unsigned_abs();
    let last = head.wrapping_add((sges - 2).div_ceil(4));
    if last.wrapping_sub(tail) > mask {
        return Err(ENOMEM);
    }
    // SAFETY: our caller's promise.
    let list = unsafe { core::slice::from_raw_parts(request.sg_list, sges as usize) };
    let control = [
        be(head << 8 | 0x10, qp_num << 8 | (2 + sges)),
        be(if signaled { 8 } else { 0 }, 0),
        request.remote_addr.to_be(),
        be(request.rkey, 0),
    ];
    let segments = list.iter().flat_map(|sge| [be(sge.length, sge.lkey), sge.addr.to_be()]);
    let (mut block, mut word) = (head, 0);
    for value in control.into_iter().chain(segments) {
        if word == 8 {
            (block, word) = (block.wrapping_add(1), 0);
        }
        // SAFETY: the index is at most `mask`, and the ring has mask + 1 entries.
        let wqe = unsafe { ring.add((block & mask) as usize) };
        // SAFETY: an entry of the ring, which belongs to the QP; a ring is written before it is
        // read.
        let Wqe(words) = unsafe { &mut *wqe };
        words[word] = value;
        word += 1;
    }
    Ok(last.wrapping_add(1))
}

/// Two 32-bit words, in that order, in the byte order of the wire.
#[inline]
const fn be(first: u32, second: u32) -> u64 {
    ((first as u64) << 32 | second as u64).to_be()
}

/// The driver's `poll_cq`. Safety: as for [`ibv_poll_cq`].
unsafe extern "C" fn poll_cq(cq: *mut Cq, num_entries: i32, wc: *mut Wc) -> i32 {
    // SAFETY: a live CQ that nothing else uses during the call.
    let cq = unsafe { &mut *cq };
    let mut n = 0;
    while n < num_entries && cq.tail != cq.head {
        // SAFETY: the index is at most `mask`, and the ring has mask + 1 entries.
        let cqe = unsafe { cq.ring.add((cq.tail & cq.mask) as usize) };
        // SAFETY: entries between tail and head have been written by `post_send`.
        let cqe = unsafe { cqe.read() };
        // SAFETY: QPs live as long as their CQ, and nothing uses them during the call; `purge`
        // removes the entries of a destroyed QP.
        let qp = unsafe { &mut *cqe.qp };
        qp.tail = cqe.upto;
        // SAFETY: 0 <= n < num_entries, for which there is room.
        let out = unsafe { wc.add(n.unsigned_abs() as usize) };
        // SAFETY: as above.
        unsafe { out.write(Wc::new(WrId(cqe.wr_id), cqe.status, 0, qp.qp_num)) };
        cq.tail = cq.tail.wrapping_add(1);
        n += 1;
    }
    n
}

/// Removes the completions of `qp` from `cq`, as `mlx5_cq_clean` does.
///
/// # Safety
///
/// `cq` is alive and nothing else uses it during the call.
pub(super) unsafe fn purge(cq: *mut Cq, qp: *mut Qp) {
    // SAFETY: our caller's promise.
    let cq = unsafe { &mut *cq };
    let mut kept = cq.tail;
    for at in 0..cq.head.wrapping_sub(cq.tail) {
        let at = cq.tail.wrapping_add(at);
        // SAFETY: the index is at most `mask`, and the ring has mask + 1 entries.
        let from = unsafe { cq.ring.add((at & cq.mask) as usize) };
        // SAFETY: entries between tail and head have been written.
        let cqe = unsafe { from.read() };
        if cqe.qp != qp {
            // SAFETY: as for `from`.
            let to = unsafe { cq.ring.add((kept & cq.mask) as usize) };
            // SAFETY: an entry of the ring, already read: `kept` is not beyond `at`.
            unsafe { to.write(cqe) };
            kept = kept.wrapping_add(1);
        }
    }
    cq.head = kept;
}
