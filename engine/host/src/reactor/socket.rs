//! How the sockets of connections are set up, and how connections are begun.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// Probes of an idle connection: a host that died is noticed after 4 + 3 * 2 = 10 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;
/// How many milliseconds sent bytes may stay unacknowledged, and a peer may take none. The system's
/// default is some 15 minutes.
const UNACKNOWLEDGED_MS: u32 = 10_000;

/// Sets a connection's socket up. A socket whose connection is being made is set up when it is
/// made, since the limit on unacknowledged bytes would bound the making, too.
pub(super) fn set_up(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nonblocking(true)?;
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
    Ok(sockopt::set_tcp_user_timeout(tcp, UNACKNOWLEDGED_MS)?)
}

/// Begins to connect to `to`, and returns the socket, and the error if the system refused at once.
pub(super) fn begin_connect(to: SocketAddr) -> io::Result<(TcpStream, Result<(), Errno>)> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    let begun = match connect(&socket, &to) {
        // A connect that a signal interrupts goes on by itself.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    };
    Ok((socket.into(), begun))
}

/// Whether the connection that was being made at `tcp` is made now.
///
/// # Errors
///
/// It cannot be made.
pub(super) fn is_made(tcp: &TcpStream) -> io::Result<bool> {
    if let Some(error) = tcp.take_error()? {
        return Err(error);
    }
    let peer = match tcp.peer_addr() {
        Ok(peer) => peer,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
        Err(error) => return Err(error),
    };
    // Where no process listens at a port of this host, the system may choose that port for this
    // end, and TCP connects the socket with itself.
    if tcp.local_addr()? == peer { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(true) }
}
