//! Reading the memory of the exporter's process, by process_vm_readv(2).
//!
//! # Why no byte of another process, or of another program, counts
//!
//! The system call names a process by its number P. Three things could go wrong: P is not the
//! exporter's process; the process has died and P names another one; or it runs another program by
//! now (exec), whose memory has nothing to do with what was exported.
//!
//! **Which process.** P comes from the system (`SO_PEERCRED`), never from the peer: it is the
//! process that called listen(2) on the socket to which the reader is connected. The reader holds
//! that process by a pidfd, which the system makes of the same record (`SO_PEERPIDFD`, Linux 6.5).
//! On an older system the pidfd is opened by P, and afterwards the pipe (below) is found open. The
//! pipe came over the connection from a process that knows the address's secrets. So the
//! exporter's process lived after the pidfd had been opened, P was its number, and the pidfd is
//! its. Besides, the reader reads the exporter's probe, a random value at an address that the
//! exporter names, before it reads anything else.
//!
//! **Death.** A process's number is given to another one only when the process has been waited for,
//! and its pidfd is readable before that. After the bytes of each READ have been copied, the reader
//! asks whether the pidfd is readable. If not, P named the exporter's process during the call.
//!
//! **exec.** The write end of a pipe is in the descriptor table of the exporter's thread, which has
//! one of its own, and nowhere else: the exporter exports no such memory where the system gives it
//! no table. The reader has the read end. exec(2) ends all other threads of the process before it
//! replaces the memory, and a thread that ends closes its table first. So the pipe's end can be
//! seen before P names the memory of another program. After the bytes have been copied, the reader
//! asks for that, too: if the pipe is open, the call has read the memory of the exporter's program.
//! The same holds where the exporter is dropped.
//!
//! **A child of a fork** has another number, and no exporter: its thread is not there, and so is
//! not its table with the pipe. It never is the process that is read, and its memory is a copy.
//!
//! **A peer that cheats** can keep copies of the pipe's write end in other processes, run another
//! program in the same process, and so serve bytes of it. It can serve any bytes anyhow, and it
//! cannot make the reader read a process that never listened for it: the system says who did.
//!
//! Whether the memory still is what was exported is a question of its own: see `live`.
#![allow(unsafe_code, reason = "the kernel writes to memory that is given by address")]

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::wire::Probe;

/// `SO_PEERPIDFD` of asm-generic/socket.h.
const SO_PEERPIDFD: libc::c_int = 77;

/// Why a READ of process memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFault {
    /// The range is not mapped, or not all of it, or may not be read.
    NotMapped,
    /// The process has ended, or runs another program.
    Gone,
    /// The system does not let this process read it.
    Refused(Errno),
}

/// The process at the other end of a connection, as the system names it.
#[derive(Debug)]
pub(super) struct PeerPid {
    pub(super) pid: i32,
    /// The pidfd, or the system call that failed.
    pub(super) pidfd: Result<OwnedFd, (&'static str, Errno)>,
}

/// Finds out who listens at the other end of `socket`. `life` is the pipe that the exporter sent.
pub(super) fn peer_of(socket: BorrowedFd<'_>, life: BorrowedFd<'_>) -> PeerPid {
    let pid = match peer_pid(socket) {
        Ok(pid) => pid,
        Err(errno) => return PeerPid { pid: 0, pidfd: Err(("SO_PEERCRED", errno)) },
    };
    let pidfd = match peer_pidfd(socket) {
        Err(Errno::NOPROTOOPT) => pidfd_by_number(pid, life),
        other => other.map_err(|errno| ("SO_PEERPIDFD", errno)),
    };
    PeerPid { pid: pid.as_raw_nonzero().get(), pidfd }
}

/// The number of the process that listens at the other end. `ESRCH`: it has none here, since it is
/// in another pid namespace.
fn peer_pid(socket: BorrowedFd<'_>) -> Result<Pid, Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let out = (&raw mut credentials).cast();
    // SAFETY: the kernel writes at most `len` bytes to `credentials`, and the length to `len`.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, out, &raw mut len)
    };
    if result != 0 {
        return Err(last_errno());
    }
    Some(credentials.pid).filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or(Errno::SRCH)
}

/// The pidfd by the process's number, on Linux before 6.5.
fn pidfd_by_number(pid: Pid, life: BorrowedFd<'_>) -> Result<OwnedFd, (&'static str, Errno)> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| ("pidfd_open", errno))?;
    // Only now it is certain that the number was still the peer's.
    if is_quiet(&mut [PollFd::from_borrowed_fd(life, PollFlags::IN)]) {
        Ok(pidfd)
    } else {
        Err(("pidfd_open", Errno::SRCH))
    }
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut fd: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let out = (&raw mut fd).cast();
    // SAFETY: the kernel writes at most `len` bytes to `fd`, and the length to `len`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, out, &raw mut len) };
    if result != 0 {
        return Err(last_errno());
    }
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the kernel has just made this descriptor for this process, with close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether none of the descriptors is readable or has ended.
fn is_quiet(fds: &mut [PollFd<'_>]) -> bool {
    loop {
        match poll(fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(ready) => return ready == 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The exporter's process, whose memory can be read.
#[derive(Debug)]
pub(super) struct PeerProcess {
    pid: i32,
    pidfd: OwnedFd,
    /// The read end of the exporter's pipe.
    life: OwnedFd,
}

impl PeerProcess {
    pub(super) fn new(pid: i32, pidfd: OwnedFd, life: OwnedFd) -> Self {
        Self { pid, pidfd, life }
    }

    /// Reads the exporter's probe. `Ok(false)`: there is another value in its place.
    pub(super) fn check(&self, probe: Probe) -> Result<bool, ReadFault> {
        let mut value = [0; 16];
        // SAFETY: the range is `value`.
        match unsafe { self.read(probe.addr, value.as_mut_ptr(), value.len()) } {
            Err(ReadFault::NotMapped) => Ok(false),
            other => other.map(|()| value == probe.value),
        }
    }

    /// Copies `len` bytes at `addr` of the process to `to`. After a success they are bytes that the
    /// exporter's program had there during the call.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes until the call returns.
    pub(super) unsafe fn read(&self, addr: u64, to: *mut u8, len: usize) -> Result<(), ReadFault> {
        // SAFETY: the caller's promise.
        let copied = unsafe { self.copy(addr, to, len) };
        match copied {
            // Memory that is missing in another program says nothing about the exporter's.
            Ok(()) | Err(ReadFault::NotMapped) if !self.is_same() => Err(ReadFault::Gone),
            copied => copied,
        }
    }

    /// The copy of [`read`](Self::read), out of the process that has the number.
    ///
    /// # Safety
    ///
    /// As for [`read`](Self::read).
    unsafe fn copy(&self, addr: u64, to: *mut u8, len: usize) -> Result<(), ReadFault> {
        let mut done = 0;
        while done < len {
            let from = addr.checked_add(done as u64).and_then(|from| usize::try_from(from).ok());
            let from = from.ok_or(ReadFault::NotMapped)?;
            let local = libc::iovec { iov_base: to.wrapping_add(done).cast(), iov_len: len - done };
            let from = std::ptr::without_provenance_mut(from);
            let remote = libc::iovec { iov_base: from, iov_len: len - done };
            // SAFETY: the kernel writes to the rest of the caller's range alone, and reads the
            // other process's memory, of which this program has no reference.
            let copied =
                unsafe { libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
            match usize::try_from(copied) {
                Ok(0) => return Err(ReadFault::NotMapped),
                Ok(copied) => done += copied,
                Err(_) => match last_errno() {
                    Errno::INTR => {}
                    Errno::FAULT | Errno::INVAL | Errno::IO => return Err(ReadFault::NotMapped),
                    Errno::SRCH => return Err(ReadFault::Gone),
                    errno => return Err(ReadFault::Refused(errno)),
                },
            }
        }
        Ok(())
    }

    /// Whether the process lives and runs the exporter's program, as it did when the caller's last
    /// system call read it.
    fn is_same(&self) -> bool {
        is_quiet(&mut [
            PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.life.as_fd(), PollFlags::IN),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process that does nothing, killed when dropped.
    struct Idle(Child);

    impl Idle {
        fn start() -> Self {
            Self(Command::new("sleep").arg("60").spawn().expect("sleep(1)"))
        }

        fn pidfd(&self) -> OwnedFd {
            pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty()).unwrap()
        }

        fn end(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Drop for Idle {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn read(process: &PeerProcess, from: &[u8; 16]) -> (Result<(), ReadFault>, [u8; 16]) {
        let mut out = [0; 16];
        let addr = from.as_ptr().expose_provenance() as u64;
        // SAFETY: the range is `out`.
        let result = unsafe { process.read(addr, out.as_mut_ptr(), out.len()) };
        (result, out)
    }

    #[test]
    fn bytes_of_a_process_that_has_the_number_of_a_dead_one_are_no_success() {
        // This process plays the one that has got the number: its memory is copied.
        let this = std::process::id().cast_signed();
        let (life, _write) = rustix::pipe::pipe().unwrap();
        let mut idle = Idle::start();
        let process = PeerProcess::new(this, idle.pidfd(), life);
        assert_eq!(read(&process, &[7; 16]), (Ok(()), [7; 16]));
        idle.end();
        assert_eq!(read(&process, &[8; 16]), (Err(ReadFault::Gone), [8; 16]));
    }

    #[test]
    fn bytes_of_another_program_in_the_same_process_are_no_success() {
        let this = Pid::from_raw(std::process::id().cast_signed()).unwrap();
        let (life, write) = rustix::pipe::pipe().unwrap();
        let pidfd = pidfd_open(this, PidfdFlags::empty()).unwrap();
        let process = PeerProcess::new(this.as_raw_nonzero().get(), pidfd, life);
        assert_eq!(read(&process, &[7; 16]), (Ok(()), [7; 16]));
        // As exec closes it.
        drop(write);
        assert_eq!(read(&process, &[8; 16]), (Err(ReadFault::Gone), [8; 16]));
        let mut out = [0; 8];
        // SAFETY: the range is `out`.
        assert_eq!(unsafe { process.read(4096, out.as_mut_ptr(), out.len()) }, Err(ReadFault::Gone));
    }

    #[test]
    fn a_process_that_has_been_waited_for_is_gone_and_unmapped_memory_is_not() {
        let mut idle = Idle::start();
        let (life, _write) = rustix::pipe::pipe().unwrap();
        let process = PeerProcess::new(idle.0.id().cast_signed(), idle.pidfd(), life);
        let mut out = [0; 8];
        for addr in [0, 4096, u64::MAX, u64::MAX - 4] {
            // SAFETY: the range is `out`.
            let result = unsafe { process.read(addr, out.as_mut_ptr(), out.len()) };
            assert_eq!(result, Err(ReadFault::NotMapped), "{addr}");
        }
        idle.end();
        // SAFETY: the range is `out`.
        assert_eq!(unsafe { process.read(4096, out.as_mut_ptr(), out.len()) }, Err(ReadFault::Gone));
    }

    #[test]
    fn the_system_says_who_listens_with_and_without_the_newer_call() {
        use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
        let (one, _other) =
            net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (life, write) = rustix::pipe::pipe().unwrap();
        let this = std::process::id().cast_signed();
        let peer = peer_of(one.as_fd(), life.as_fd());
        assert_eq!(peer.pid, this);
        let by_number = || pidfd_by_number(Pid::from_raw(this).unwrap(), life.as_fd());
        for pidfd in [peer.pidfd.unwrap(), by_number().unwrap()] {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap();
            assert_eq!(pid.trim().parse::<i32>(), Ok(this));
        }
        drop(write);
        assert_eq!(by_number().unwrap_err(), ("pidfd_open", Errno::SRCH));
    }
}
