//! A TCP listener that no child of a fork inherits.
#![allow(unsafe_code, reason = "its thread has a descriptor table of its own")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::accept::{ConnectionSource, PAUSE, concerns_one_connection};
use crate::descriptors::{OwnerProcess, spawn_isolated};

/// How many connections can wait until they are accepted (`net.core.somaxconn` may lower it).
const BACKLOG: i32 = 1024;

/// A listening TCP socket that is closed when this process dies, even if a child of it lives on.
///
/// An ordinary listening socket is inherited by the children of a fork. If the process dies and a
/// child lives on, the socket goes on listening: the port is taken, and a connect hangs, since no
/// process accepts. This socket is in the descriptor table of a thread of its own (Linux 5.9, or
/// where `unshare` is allowed), so it is closed with the process. The thread accepts connections
/// and hands them over to the process.
///
/// Its file descriptor is readable when [`accept`](ConnectionSource::accept) has a connection.
/// Tools that look for a port's owner in `/proc/<pid>/fd` (`ss -p`, `lsof`) show no process for it.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    /// This end of a socket pair: the thread sends connections through the other end.
    ours: OwnedFd,
    /// The thread's end, which it has borrowed.
    _theirs: OwnedFd,
    thread: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

/// The thread's first message: the address, and whether its descriptor table is its own.
type BindReport = (io::Result<SocketAddr>, Result<(), Errno>);

impl Listener {
    /// Listens at `address` (port 0: any free port) from a thread called `name`.
    ///
    /// # Errors
    ///
    /// The system refuses the address, or has no thread or descriptor left.
    pub fn bind(address: SocketAddr, name: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (sender, receiver) = sync_channel(1);
        let body = move |kept: &[BorrowedFd<'_>], own| run(address, kept[0], own, &sender);
        // SAFETY: `theirs` is open until the thread has been joined, here or in `drop`. The thread
        // takes in an address and a channel and lets out messages, which own no descriptor; it logs
        // nothing.
        let thread = unsafe { spawn_isolated(name, vec![theirs.as_raw_fd()], body) }?;
        let ended = |_| io::Error::other("the listener's thread ended at once");
        let begun = receiver.recv().map_err(ended).and_then(|(bound, own)| Ok((bound?, own)));
        let (address, own) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // The thread ends now, and `theirs` must outlive it.
                let _ = thread.join();
                return Err(error);
            }
        };
        if let Err(errno) = own {
            tracing::warn!(
                %address, %errno,
                "a child of a fork would keep this port after this process has died: \
                 the system gives a thread no descriptor table of its own"
            );
        }
        Ok(Self { address, ours, _theirs: theirs, thread: Some(thread), owner: OwnerProcess::current() })
    }

    /// The address at which it listens, with the port that it got.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl ConnectionSource for Listener {
    type Connection = (TcpStream, SocketAddr);

    /// The next connection. Does not block.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): no connection waits. `EMFILE`: a connection came,
    /// and this process has no descriptor left for it.
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof): the thread has ended. Others: the
    /// connection was gone already.
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let mut byte = [0; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = net::recvmsg(&self.ours, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let connection = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        match connection {
            Some(fd) => {
                let stream = TcpStream::from(fd);
                let from = stream.peer_addr()?;
                Ok((stream, from))
            }
            None if message.bytes == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            // The process had no descriptor left for the connection.
            None => Err(Errno::MFILE.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // In a child of a fork the thread is not there, and the socket is the parent's.
        if !self.owner.is_current() {
            self.thread.take();
            return;
        }
        // The thread sees the end of the pair. To close this end is not enough: a child of a fork
        // may have it open.
        let _ = net::shutdown(&self.ours, net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// The thread: binds, reports that, and passes connections on until the other end of the pair is
/// closed.
fn run(address: SocketAddr, out: BorrowedFd<'_>, own: Result<(), Errno>, sender: &SyncSender<BindReport>) {
    let bound = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        // The second listen(2) gives a longer backlog than the standard library's.
        .and_then(|listener| Ok(net::listen(&listener, BACKLOG).map(|()| listener)?))
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    let listener = match bound {
        Ok((listener, address)) => {
            let _ = sender.send((Ok(address), own));
            listener
        }
        Err(error) => return drop(sender.send((Err(error), own))),
    };
    // The loop accepts only while the pair has room. Otherwise connections wait in the kernel's
    // backlog.
    while wait(out, PollFlags::OUT, None) == Some(true) {
        let mut fds = [PollFd::from_borrowed_fd(out, PollFlags::IN), PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let passed = match listener.accept() {
            Ok((stream, _)) => pass(out, &stream),
            Err(error) if concerns_one_connection(&error) => Ok(()),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
        if passed.is_err() && wait(out, PollFlags::IN, Some(pause)).is_none_or(|ended| ended) {
            return;
        }
    }
}

/// Waits until the pair is ready for `what` (`true`) or `time` has passed (`false`). `None`: the
/// pair is closed, or the system cannot wait.
fn wait(out: BorrowedFd<'_>, what: PollFlags, time: Option<Timespec>) -> Option<bool> {
    let mut fds = [PollFd::from_borrowed_fd(out, what)];
    loop {
        match poll(&mut fds, time.as_ref()) {
            Ok(0) => return Some(false),
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => return None,
            Ok(_) => return Some(true),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Sends a connection to the process. The caller closes this thread's descriptor of it.
fn pass(out: BorrowedFd<'_>, stream: &TcpStream) -> Result<(), Errno> {
    let fds = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match net::sendmsg(out, &[IoSlice::new(&[1])], &mut control, flags) {
        Ok(_) => Ok(()),
        Err(errno) => {
            // The pair is full of connections that have not been taken out yet: this one ends at
            // once.
            let _ = stream.shutdown(Shutdown::Both);
            Err(errno)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::time::{Duration, Instant};

    fn accept(listener: &Listener) -> (TcpStream, SocketAddr) {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })), Ok(1));
        listener.accept().unwrap()
    }

    #[test]
    fn connections_come_through_and_the_port_is_free_at_the_end() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let address = listener.local_addr();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let again = Listener::bind(address, "test").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        for turn in 0..300_u32 {
            let mut far = TcpStream::connect(address).unwrap();
            far.write_all(&turn.to_le_bytes()).unwrap();
            let (mut near, from) = accept(&listener);
            assert_eq!(from, far.local_addr().unwrap());
            let mut bytes = [0; 4];
            near.read_exact(&mut bytes).unwrap();
            assert_eq!(u32::from_le_bytes(bytes), turn);
        }
        // Connections that the pair has no room for wait in the listener's own queue.
        let many: Vec<_> = (0..400).map(|_| TcpStream::connect(address).unwrap()).collect();
        let near: Vec<_> = many.iter().map(|_| accept(&listener)).collect();
        assert_eq!(near.len(), 400);
        drop((many, near));
        let start = Instant::now();
        drop(listener);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(TcpListener::bind(address).unwrap());
    }
}
