//! Threads with a descriptor table of their own, and values that know which process made them.
//!
//! A child of fork(2) gets a copy of the descriptor table of the thread that forked. So no child
//! gets the descriptors in another thread's own table, and the kernel closes them when the process
//! dies, even if a child lives on.
#![allow(unsafe_code, reason = "system calls that change descriptors, and a page that a fork wipes")]

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::thread::JoinHandle;
use std::{fs, io, ptr};

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use rustix::process::{Pid, getpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `CLOSE_RANGE_UNSHARE` of linux/close_range.h.
const CLOSE_RANGE_UNSHARE: libc::c_uint = 1 << 1;
/// The first descriptor number after standard input, output and error. These three stay open, so
/// that no other descriptor gets their numbers: a panic's message goes to standard error.
const FIRST_CLOSABLE: RawFd = 3;

/// Starts a thread called `name` with a descriptor table of its own, which holds the three standard
/// descriptors and `keep`.
///
/// `body` is called with the descriptors of `keep`, in their order, and with `Ok` if the thread has
/// a table of its own, or else with the error for which it shares the table of the process.
///
/// # Errors
///
/// The system could not start a thread.
///
/// # Safety
///
/// - The descriptors of `keep` are open, and stay open until the thread has ended.
/// - `body` neither takes in nor lets out any other value that owns a descriptor, and calls no code
///   that uses descriptors of its own (a logger, for instance): the same number means something
///   else in the other table.
pub unsafe fn spawn_isolated(
    name: &str,
    keep: Vec<RawFd>,
    body: impl FnOnce(&[BorrowedFd<'_>], Result<(), Errno>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let own = unshare(&keep);
        let borrow = |&fd: &RawFd| {
            // SAFETY: open in this thread's table, by the caller's promise: `unshare` keeps it if
            // the table is the thread's own. The thread closes none of them.
            unsafe { BorrowedFd::borrow_raw(fd) }
        };
        let borrowed: Vec<_> = keep.iter().map(borrow).collect();
        body(&borrowed, own);
    })
}

/// Gives this thread a table of its own with the standard descriptors and `keep`.
fn unshare(keep: &[RawFd]) -> Result<(), Errno> {
    let mut kept = keep.to_vec();
    kept.sort_unstable();
    kept.dedup();
    let above = kept.last().map_or(FIRST_CLOSABLE, |&last| FIRST_CLOSABLE.max(last + 1));
    // The kernel does not copy the descriptors after the last kept one into the new table, so
    // nothing is closed here.
    match close_range(above, libc::c_uint::MAX, CLOSE_RANGE_UNSHARE) {
        Ok(()) => {
            let mut first = FIRST_CLOSABLE;
            for &fd in kept.iter().filter(|&&fd| fd >= FIRST_CLOSABLE) {
                if fd > first {
                    // Cannot fail for a range in ascending order; if it did, a copy of a descriptor
                    // would stay open.
                    let _ = close_range(first, (fd - 1).unsigned_abs(), 0);
                }
                first = fd + 1;
            }
            Ok(())
        }
        // Linux before 5.9, or a filter of system calls that does not know this one.
        Err(_) => {
            // SAFETY: the rest of this thread uses the descriptors that are kept and those that it
            // makes, by the contract of `spawn_isolated`.
            unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
            close_all_but(&kept);
            Ok(())
        }
    }
}

fn close_range(first: RawFd, last: libc::c_uint, flags: libc::c_uint) -> Result<(), Errno> {
    let first = first.unsigned_abs();
    // SAFETY: the call reads no memory. It closes descriptors of the calling thread's own table:
    // the first call gives the thread that table, and the other calls come after it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOSYS))
    }
}

/// Closes all descriptors but the standard three and `kept`, in a table that has just been copied.
fn close_all_but(kept: &[RawFd]) {
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let open: Vec<RawFd> = match fs::read_dir("/proc/thread-self/fd") {
        Ok(entries) => entries.filter_map(number).collect(),
        // Without /proc: every number that a descriptor can have, up to 2^20.
        Err(_) => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            (0..limit.unwrap_or(1 << 20).min(1 << 20) as RawFd).collect()
        }
    };
    for fd in open.into_iter().filter(|fd| *fd >= FIRST_CLOSABLE && !kept.contains(fd)) {
        // SAFETY: the call takes an integer. The table is this thread's own, and no code uses its
        // other entries, which are copies.
        let _ = unsafe { libc::close(fd) };
    }
}

/// The process that made a value.
///
/// In a child of fork(2) the value is a copy: its threads are not there, and its descriptors are
/// the ones that the parent goes on using. A value with threads or connections keeps an
/// `OwnerProcess`, so that its drop in a child leaves them alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerProcess(Pid);

impl OwnerProcess {
    /// The calling process.
    #[must_use]
    pub fn current() -> Self {
        Self(this_process())
    }

    /// Whether the calling process is the one that made the value, and not a child of it. This
    /// takes no system call, so every call of a publisher can ask.
    #[must_use]
    #[inline]
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// Where the number of this process is kept: in a page that is zeros again in a child of a fork.
/// Null before it is first asked for.
static KEPT: AtomicPtr<AtomicI32> = AtomicPtr::new(ptr::null_mut());
/// What `KEPT` points to where the system has no such pages. It stays 0.
static NOT_KEPT: AtomicI32 = AtomicI32::new(0);

/// The number of the calling process. A child of vfork(2) or of clone(2) with its parent's memory,
/// which may only replace itself by another program, gets that of its parent.
#[inline]
fn this_process() -> Pid {
    let kept = KEPT.load(Ordering::Acquire);
    let kept = if kept.is_null() { keep_number() } else { kept };
    // SAFETY: `kept` is NOT_KEPT, or the beginning of a page that stays mapped. Zeros are a value
    // of the type, and in the process nothing but this file uses the page.
    let number = unsafe { &*kept };
    Pid::from_raw(number.load(Ordering::Relaxed)).unwrap_or_else(|| ask_for_number(number))
}

/// The number, from the system; it is kept in `place`. Two threads that do so store the same.
#[cold]
fn ask_for_number(place: &AtomicI32) -> Pid {
    let this = getpid();
    if !ptr::eq(place, &raw const NOT_KEPT) {
        place.store(this.as_raw_nonzero().get(), Ordering::Relaxed);
    }
    this
}

/// Makes the page, unless another thread has made it meanwhile. There is no lock that a child of a
/// fork could find taken.
#[cold]
fn keep_number() -> *mut AtomicI32 {
    let bytes = rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let page = unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) };
    let none = (&raw const NOT_KEPT).cast_mut();
    let Ok(page) = page else { return none };
    // SAFETY: the range is the mapping made above, which holds zeros and which no other code knows.
    let wiped = unsafe { mm::madvise(page, bytes, Advice::LinuxWipeOnFork) }.is_ok();
    let ours = if wiped { page.cast() } else { none };
    // Release: a thread that finds the pointer finds the page mapped. Acquire: as does this one.
    let kept = KEPT.compare_exchange(ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire);
    if !wiped || kept.is_err() {
        // SAFETY: the range is the mapping made above, and no pointer to it is left.
        let _ = unsafe { mm::munmap(page, bytes) };
    }
    kept.map_or_else(|theirs| theirs, |_| ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::sync::mpsc::channel;

    use rustix::event::{EventfdFlags, eventfd};

    fn open_numbers() -> Vec<RawFd> {
        let entries = fs::read_dir("/proc/thread-self/fd").unwrap();
        let mut all: Vec<_> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_thread_has_what_it_keeps_and_the_process_loses_nothing() {
        let [low, mid, high] = [(); 3].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let keep = vec![high.as_raw_fd(), low.as_raw_fd()];
        let (tell, told) = channel();
        let body = move |kept: &[BorrowedFd<'_>], own| {
            let &[high, low] = kept else { panic!("{kept:?}") };
            rustix::io::write(high, &7_u64.to_ne_bytes()).unwrap();
            tell.send((own, open_numbers(), high.as_raw_fd(), low.as_raw_fd())).unwrap();
        };
        // SAFETY: the descriptors are open until the thread has been joined below; the body uses
        // them and one that it opens and closes.
        let thread = unsafe { spawn_isolated("own", keep.clone(), body) };
        thread.unwrap().join().unwrap();
        let (own, seen, got_high, got_low) = told.recv().unwrap();
        assert_eq!((own, got_high, got_low), (Ok(()), keep[0], keep[1]));
        for fd in &keep {
            assert!(seen.contains(fd), "{seen:?}");
        }
        // One more is the folder that was read, which may have got the number of `mid`.
        let others = seen.iter().filter(|&&fd| fd >= FIRST_CLOSABLE && !keep.contains(&fd)).count();
        assert!(others <= 1, "{seen:?} beside {keep:?} and {}", mid.as_raw_fd());
        // The same object behind the same number, and open here still.
        let mut read = [0; 8];
        rustix::io::read(high.as_fd(), &mut read).unwrap();
        assert_eq!(u64::from_ne_bytes(read), 7);
        rustix::io::write(&mid, &1_u64.to_ne_bytes()).unwrap();
    }

    #[test]
    fn without_close_range_the_copy_is_emptied_one_by_one() {
        let kept = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let fd = kept.as_raw_fd();
        let seen = std::thread::spawn(move || {
            // SAFETY: this thread uses no descriptor but those that it opens from here on.
            unsafe { unshare_unsafe(UnshareFlags::FILES) }.unwrap();
            close_all_but(&[fd]);
            open_numbers()
        });
        let seen = seen.join().unwrap();
        assert!(seen.contains(&fd) && seen.iter().filter(|&&n| n >= FIRST_CLOSABLE).count() <= 2, "{seen:?}");
        rustix::io::write(&kept, &1_u64.to_ne_bytes()).unwrap();
    }

    #[test]
    fn a_child_of_a_fork_and_its_own_child_are_other_processes() {
        let parent = OwnerProcess::current();
        assert!(parent.is_current());
        assert_eq!(parent.0, getpid());
        // SAFETY: the child calls only fork, functions without locks or heap, and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let this = OwnerProcess::current();
            let mut right = !parent.is_current() && this.is_current() && this.0 == getpid();
            // SAFETY: as above.
            let grandchild = unsafe { libc::fork() };
            if grandchild == 0 {
                right &= !parent.is_current() && !this.is_current();
                // SAFETY: the call takes an integer and does not return.
                unsafe { libc::_exit(if right { 7 } else { 1 }) };
            }
            right &= exit_code(grandchild) == 7 && this.is_current();
            // SAFETY: the call takes an integer and does not return.
            unsafe { libc::_exit(if right { 7 } else { 1 }) };
        }
        assert_eq!(exit_code(child), 7);
        assert!(parent.is_current());
    }

    fn exit_code(child: libc::pid_t) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is a place for the result.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if ended == child && libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
    }
}
