//! What orders threads inside std, told to ThreadSanitizer.
//!
//! The std of a tool chain is not compiled for ThreadSanitizer. What is inlined into this project's
//! crates is; a function that stays in std is not, so what it orders would be reported as a race.
//! These functions are the ones of std that order memory and that the project's crates call. The
//! linker has each call of them come here (`--wrap`). Each does what it did, and says what it has
//! ordered: after a lock was taken, what was done before it was released has happened.
//!
//! `tsan/run` writes the names that the tool chain's std has for them in place of those between
//! signs.
#![allow(improper_ctypes, reason = "a tool chain agrees with itself")]

use std::ffi::c_void;
use std::sync::{BarrierWaitResult, OnceState};
use std::time::Duration;

/// Memory orders, as ThreadSanitizer numbers them.
const RELEASE: i32 = 3;
const ACQUIRE_RELEASE: i32 = 4;

unsafe extern "C" {
    fn __tsan_acquire(at: *mut c_void);
    fn __tsan_release(at: *mut c_void);
    fn __real___tsan_atomic64_fetch_sub(at: *mut u64, by: u64, order: i32) -> u64;
}

unsafe extern "Rust" {
    #[link_name = "__real_@Mutex14lock_contended@"]
    fn lock_contended(this: *mut c_void);
    #[link_name = "__real_@RwLock14read_contended@"]
    fn read_contended(this: *mut c_void);
    #[link_name = "__real_@RwLock15write_contended@"]
    fn write_contended(this: *mut c_void);
    #[link_name = "__real_@Condvar4wait@"]
    fn wait(this: *mut c_void, mutex: *mut c_void);
    #[link_name = "__real_@Barrier4wait@"]
    fn wait_for_all(this: *mut c_void) -> BarrierWaitResult;
    #[link_name = "__real_@Condvar12wait_timeout@"]
    fn wait_timeout(this: *mut c_void, mutex: *mut c_void, within: Duration) -> bool;
    #[link_name = "__real_@Once4call@"]
    fn call(this: *mut c_void, whatever: bool, run: &mut dyn FnMut(&OnceState));
    #[link_name = "__real_@decrement_num_running_threads@"]
    fn decrement(this: *mut c_void, panicked: bool);
}

/// A mutex that another thread had.
///
/// # Safety
///
/// As for the function that it replaces, like all below.
#[unsafe(export_name = "__wrap_@Mutex14lock_contended@")]
pub unsafe fn after_lock(this: *mut c_void) {
    // SAFETY: the caller's promise is the same.
    unsafe { lock_contended(this) };
    // SAFETY: it only notes an address. A mutex is its futex, whose release is inlined.
    unsafe { __tsan_acquire(this) };
}

#[unsafe(export_name = "__wrap_@RwLock14read_contended@")]
pub unsafe fn after_read(this: *mut c_void) {
    // SAFETY: the caller's promise is the same.
    unsafe { read_contended(this) };
    // SAFETY: it only notes an address. The lock's first word is its futex.
    unsafe { __tsan_acquire(this) };
}

#[unsafe(export_name = "__wrap_@RwLock15write_contended@")]
pub unsafe fn after_write(this: *mut c_void) {
    // SAFETY: the caller's promise is the same.
    unsafe { write_contended(this) };
    // SAFETY: as above.
    unsafe { __tsan_acquire(this) };
}

/// The mutex is released while the thread sleeps, and taken again.
#[unsafe(export_name = "__wrap_@Condvar4wait@")]
pub unsafe fn around_sleep(this: *mut c_void, mutex: *mut c_void) {
    // SAFETY: it only notes an address.
    unsafe { __tsan_release(mutex) };
    // SAFETY: the caller's promise is the same.
    unsafe { wait(this, mutex) };
    // SAFETY: as above.
    unsafe { __tsan_acquire(mutex) };
}

#[unsafe(export_name = "__wrap_@Barrier4wait@")]
pub unsafe fn around_barrier(this: *mut c_void) -> BarrierWaitResult {
    // SAFETY: it only notes an address.
    unsafe { __tsan_release(this) };
    // SAFETY: the caller's promise is the same.
    let result = unsafe { wait_for_all(this) };
    // SAFETY: as above.
    unsafe { __tsan_acquire(this) };
    result
}

/// As [`around_sleep`], for a time.
#[unsafe(export_name = "__wrap_@Condvar12wait_timeout@")]
pub unsafe fn around_wait(this: *mut c_void, mutex: *mut c_void, within: Duration) -> bool {
    // SAFETY: it only notes an address.
    unsafe { __tsan_release(mutex) };
    // SAFETY: the caller's promise is the same.
    let woken = unsafe { wait_timeout(this, mutex, within) };
    // SAFETY: as above.
    unsafe { __tsan_acquire(mutex) };
    woken
}

/// What runs once, before any thread sees that it has run.
#[unsafe(export_name = "__wrap_@Once4call@")]
pub unsafe fn around_call(this: *mut c_void, whatever: bool, run: &mut dyn FnMut(&OnceState)) {
    let mut run_and_tell = |state: &OnceState| {
        run(state);
        // SAFETY: it only notes an address.
        unsafe { __tsan_release(this) };
    };
    // SAFETY: the caller's promise is the same.
    unsafe { call(this, whatever, &mut run_and_tell) };
    // SAFETY: as above.
    unsafe { __tsan_acquire(this) };
}

/// A thread of `thread::scope` ends. The scope's own thread loads the count, which is one of the
/// first three words.
#[unsafe(export_name = "__wrap_@decrement_num_running_threads@")]
pub unsafe fn before_end(this: *mut c_void, panicked: bool) {
    for word in 0..3 {
        // SAFETY: the structure has three words.
        let at = unsafe { this.byte_add(8 * word) };
        // SAFETY: it only notes an address.
        unsafe { __tsan_release(at) };
    }
    // SAFETY: the caller's promise is the same.
    unsafe { decrement(this, panicked) };
}

/// `Arc` counts down with `Release`, and has a fence before it frees what it holds.
/// ThreadSanitizer does not know fences, so each such count is an `AcqRel` here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap___tsan_atomic64_fetch_sub(at: *mut u64, by: u64, order: i32) -> u64 {
    let order = if order == RELEASE { ACQUIRE_RELEASE } else { order };
    // SAFETY: the caller's promise is the same.
    unsafe { __real___tsan_atomic64_fetch_sub(at, by, order) }
}
