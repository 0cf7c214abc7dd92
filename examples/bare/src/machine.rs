//! What a C library would do: start the program, write, end, and move bytes.
#![allow(unsafe_code, reason = "system calls, and functions that compiled code calls by name")]

use core::arch::{asm, naked_asm};
use core::fmt;
use core::panic::PanicInfo;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const WRITE: usize = 1;
    pub(super) const EXIT: usize = 60;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const WRITE: usize = 64;
    pub(super) const EXIT: usize = 93;
}

/// The kernel starts the program here, with the stack as it should be at a jump, and a compiled
/// function wants it as it is after a call.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("call {begin}", "ud2", begin = sym begin);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("bl {begin}", "brk #1", begin = sym begin);
}

extern "C" fn begin() -> ! {
    exit(super::main())
}

fn exit(status: i32) -> ! {
    // SAFETY: `exit` takes a number and touches no memory; it does not return.
    unsafe { system_call(number::EXIT, status as usize, 0, 0) };
    loop {
        core::hint::spin_loop();
    }
}

/// Standard output, without a buffer.
pub(crate) struct Output;

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: `write` reads the bytes of `rest` and writes to no memory of the program.
            let written = unsafe { system_call(number::WRITE, 1, rest.as_ptr() as usize, rest.len()) };
            let written = usize::try_from(written).map_err(|_| fmt::Error)?;
            rest = rest.get(written.max(1)..).ok_or(fmt::Error)?;
        }
        Ok(())
    }
}

/// # Safety
///
/// What the kernel does at the call `number` with these arguments must be sound.
unsafe fn system_call(number: usize, a: usize, b: usize, c: usize) -> isize {
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the registers are those of Linux's convention, and the caller promises the rest.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => answer, in("rdi") a, in("rsi") b, in("rdx") c,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a as isize => answer, in("x1") b, in("x2") c,
            options(nostack));
    }
    answer
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}

// The compiler takes these four functions for granted wherever code runs. Volatile, so that it does
// not make a call of the function out of the loop in it.

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    for i in 0..bytes {
        // SAFETY: the caller has `bytes` bytes at `from`.
        let byte = unsafe { from.add(i).read_volatile() };
        // SAFETY: and at `to`.
        unsafe { to.add(i).write_volatile(byte) };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    let forwards = to.addr() <= from.addr();
    for k in 0..bytes {
        let i = if forwards { k } else { bytes - 1 - k };
        // SAFETY: the caller has `bytes` bytes at `from`. In this direction each is read before it
        // is overwritten.
        let byte = unsafe { from.add(i).read_volatile() };
        // SAFETY: and at `to`.
        unsafe { to.add(i).write_volatile(byte) };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    for i in 0..bytes {
        // SAFETY: the caller has `bytes` bytes at `to`.
        unsafe { to.add(i).write_volatile(byte as u8) };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    for i in 0..bytes {
        // SAFETY: the caller has `bytes` bytes at `a`.
        let left = unsafe { a.add(i).read_volatile() };
        // SAFETY: and at `b`.
        let right = unsafe { b.add(i).read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}
