//! The barriers between stores and loads that a device takes part in.
//!
//! | function | x86-64 | 64-bit ARM | others |
//! |---|---|---|---|
//! | [`entries_before_record`] | none: stores keep their order | `dmb oshst` | a SeqCst fence |
//! | [`record_before_register`] | `sfence` | `dsb st` | same |
//! | [`flush_register`] | `sfence` | `dsb st` | same |
//! | [`owner_before_entry`] | none: loads keep their order | `dmb oshld` | same |
//! | [`entries_before_consumer`] | none: stores stay behind earlier loads | `dmb osh` | same |
//!
//! Where no instruction is needed the compiler must still keep the order: each function is a fence
//! for it. The register is mapped write-combining, so stores to it are weakly ordered on x86-64,
//! too; hence the two `sfence`. A fence of the language alone would not do on ARM: it binds the
//! inner shareable domain, and a device sits in the outer one (kvrail-core's `barrier.rs`).
#![allow(unsafe_code, reason = "one barrier instruction per architecture")]

#[cfg(any(miri, not(target_arch = "aarch64")))]
use core::sync::atomic::{Ordering, fence};

#[cfg(all(target_arch = "aarch64", not(miri)))]
macro_rules! instruction {
    ($text:literal) => {
        // SAFETY: an instruction of every 64-bit ARM processor, which touches no register. The
        // compiler moves no access to memory over it, since it is not told that memory stays
        // untouched.
        unsafe { core::arch::asm!($text, options(nostack, preserves_flags)) }
    };
}

/// Work queue entries are in memory before the doorbell record that covers them.
#[inline]
pub(crate) fn entries_before_record() {
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    instruction!("dmb oshst");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fence(Ordering::Release);
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    fence(Ordering::SeqCst);
}

/// A doorbell record is in memory before the write to the register.
#[inline]
pub(crate) fn record_before_register() {
    write_combining();
}

/// A write to the register leaves the processor's write-combining buffer, before any later one.
#[inline]
pub(crate) fn flush_register() {
    write_combining();
}

#[inline]
fn write_combining() {
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    instruction!("dsb st");
    // SAFETY: every x86-64 processor has SSE; the instruction touches no register and no memory.
    // The compiler moves no store over it, since it is not told that memory stays untouched.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        core::arch::asm!("sfence", options(nostack, preserves_flags));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    fence(Ordering::SeqCst);
}

/// The owner of a completion queue entry is known before the rest of the entry is loaded, and
/// before the data that the entry announces.
#[inline]
pub(crate) fn owner_before_entry() {
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    instruction!("dmb oshld");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fence(Ordering::Acquire);
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    fence(Ordering::SeqCst);
}

/// Completion queue entries have been loaded before the device is told that it may write there.
#[inline]
pub(crate) fn entries_before_consumer() {
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    instruction!("dmb osh");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fence(Ordering::AcqRel);
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    /// Only a device could show whether the order is kept; this test checks that the code has the
    /// instruction that keeps it.
    #[test]
    #[cfg(all(not(miri), target_arch = "x86_64"))]
    fn writes_to_the_register_stand_between_fences() {
        const SFENCE: &[u8] = &[0x0F, 0xAE, 0xF8];
        let code = super::write_combining as fn() as *const u8;
        let mut seen = std::vec::Vec::new();
        while !seen.ends_with(SFENCE) {
            assert!(seen.len() < 64, "no {SFENCE:02x?} in {seen:02x?}");
            // SAFETY: within the program's code, which is mapped for reading: this function, whose
            // instruction ends the loop, or a few bytes of what follows it.
            seen.push(unsafe { code.wrapping_add(seen.len()).read_volatile() });
        }
    }
}
