//! The barrier that orders stores for devices, not only for threads.
//!
//! A NIC reads memory as an observer outside of the processors' own domain. Rust's fences order
//! what *threads* see: on 64-bit ARM a sequentially consistent fence is `dmb ish`, which binds the
//! inner shareable domain only, and a NIC sits in the outer one. Stores that a device must see in
//! order therefore have a barrier of their own here, as they have in the Linux kernel (`dma_wmb`)
//! and in rdma-core (`udma_ordering_write_barrier`).
//!
//! The opposite direction needs no function: a provider library orders the reads that follow a
//! completion itself (`ibv_poll_cq` ends its look at an entry that the device wrote with `dmb
//! oshld`, or what its processor has for that), and `ibv_post_send` makes all earlier stores
//! visible before it rings the doorbell.
#![allow(unsafe_code, reason = "one barrier instruction per architecture")]

use core::sync::atomic::{Ordering, fence};

/// Orders the stores of this thread for every reader of the memory, devices included: a reader that
/// sees a store made after this call also sees every store made before it.
///
/// | processor | instruction | why this one |
/// |---|---|---|
/// | x86-64 | `sfence` | ordinary stores keep their order anyway; non-temporal stores need it |
/// | 64-bit ARM | `dmb oshst` | stores before stores, out to the domain where devices are |
/// | others | a sequentially consistent fence | the language's strongest; proven for no device |
///
/// It orders the stores of the calling thread, and those that other threads have handed to it by a
/// lock, a channel or a join (barriers are cumulative). It does not order non-temporal stores of
/// other threads: the thread that makes them ends them with an `sfence` before it hands them on.
// Never inlined, so that a test can look for the instruction in its code.
#[inline(never)]
pub fn device_release() {
    #[cfg(test)]
    tests::passed();
    // Orders the stores for threads, in the language's terms. On x86-64 it emits no instruction.
    fence(Ordering::Release);
    order_stores();
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn order_stores() {
    // SAFETY: every x86-64 processor has SSE; the instruction touches no register and no memory.
    // The compiler moves no store over it, since it is not told that memory stays untouched.
    unsafe { core::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
fn order_stores() {
    // SAFETY: an instruction of every 64-bit ARM processor, which touches no register and no
    // memory. The compiler moves no store over it, since it is not told that memory stays
    // untouched.
    unsafe { core::arch::asm!("dmb oshst", options(nostack, preserves_flags)) };
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn order_stores() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
pub(crate) mod tests {
    use core::cell::{Cell, RefCell};
    use std::boxed::Box;

    use super::*;

    std::thread_local! {
        /// How often this thread has passed the barrier.
        pub(crate) static CALLS: Cell<u32> = const { Cell::new(0) };
        /// What this thread does besides when it passes the barrier.
        pub(crate) static WATCH: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    // Not inlined: the test below looks for an instruction near the start of its caller.
    #[inline(never)]
    pub(super) fn passed() {
        CALLS.set(CALLS.get() + 1);
        WATCH.with_borrow_mut(|watch| watch.iter_mut().for_each(|watch| watch()));
    }

    /// Only a device could show whether the order is kept; this test checks that the code has the
    /// instruction that keeps it.
    #[test]
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn the_barrier_is_the_instruction_that_devices_need() {
        #[cfg(target_arch = "x86_64")]
        const WANTED: &[u8] = &[0x0F, 0xAE, 0xF8];
        #[cfg(target_arch = "aarch64")]
        const WANTED: &[u8] = &0xD503_32BF_u32.to_le_bytes();

        device_release();
        let code = device_release as fn() as *const u8;
        let mut seen = std::vec::Vec::new();
        while !seen.ends_with(WANTED) {
            assert!(seen.len() < 128, "no {WANTED:02x?} in {seen:02x?}");
            // SAFETY: within the program's code, which is mapped for reading: this function, whose
            // instruction ends the loop, or a few bytes of what follows it.
            seen.push(unsafe { code.wrapping_add(seen.len()).read_volatile() });
        }
    }
}
