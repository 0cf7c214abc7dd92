//! A child of a fork: it keeps no port, and what it drops does not harm its parent.
#![allow(unsafe_code, reason = "forks")]

mod echo;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use kvrail_host::listener::Listener;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId, Reactor};

use crate::echo::{Echo, LIMIT, works};

/// Seconds after which the child ends by itself, if the test has not killed it.
const CHILD_LIVES_S: u32 = 120;

struct All;

impl Acceptor for All {
    fn accepted(&mut self, _: ConnectionId, _: SocketAddr, _: &TcpStream) -> Option<Box<dyn Connection>> {
        Some(Box::<Echo>::default())
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    tcp
}

/// Kills the child, also when the test fails.
struct Child(libc::pid_t);

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: system calls on a child that this test started and has not waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above; no status is written.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

#[test]
fn a_child_of_a_fork_keeps_no_port_and_ends_no_connection_of_its_parent() {
    let reactor = Reactor::start("reactor").unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "listener").unwrap();
    let address = listener.local_addr();
    reactor.handle().listen(listener, Box::new(All)).unwrap();
    let (mut stays, mut goes) = (connect(address), connect(address));
    works(&mut stays);
    works(&mut goes);

    let (mut said, say) = io::pipe().unwrap();
    // SAFETY: the child drops a reactor, which does nothing there, writes a byte and sleeps; none
    // of this takes a lock that another thread may have held.
    let child = match unsafe { libc::fork() } {
        0 => {
            drop(reactor);
            let _ = (&say).write_all(b"d");
            // SAFETY: a system call on an integer.
            unsafe { libc::alarm(CHILD_LIVES_S) };
            loop {
                // SAFETY: as above.
                unsafe { libc::pause() };
            }
        }
        ..0 => panic!("{}", io::Error::last_os_error()),
        pid => Child(pid),
    };
    drop(say);
    let mut dropped = [0];
    said.read_exact(&mut dropped).unwrap();
    works(&mut stays);

    // The child has a copy of this connection, and its peer sees the end all the same.
    goes.write_all(b"end").unwrap();
    assert!(matches!(goes.read(&mut [0]), Ok(0)));
    works(&mut stays);

    assert!(reactor.stop(Instant::now() + LIMIT / 10));
    assert!(matches!(stays.read(&mut [0]), Ok(0)));
    TcpListener::bind(address).unwrap();
    drop(child);
}
