//! How the sockets of connections are set up, and how connections are begun.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// Probes of an idle connection to another host: a host that died is noticed after 4 + 3 * 2 = 10
/// seconds.
///
/// A connection within this host is not probed: its peer's host does not die alone, and the probes
/// would do harm. Linux sends the probes of all connections that became idle within some 250 ms at
/// once, and its queue for packets to the host itself (`net.core.netdev_max_backlog`) holds 1000:
/// of 5000 idle connections, two fifths were ended for probes that the host had dropped.
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
    if tcp.local_addr()?.ip() != tcp.peer_addr()?.ip() {
        sockopt::set_socket_keepalive(tcp, true)?;
        sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Whether a connection from the first address to the second is probed.
    fn probed(from: &str, to: &str) -> bool {
        let listener = TcpListener::bind((to, 0)).unwrap();
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let from: SocketAddr = format!("{from}:0").parse().unwrap();
        rustix::net::bind(&socket, &from).unwrap();
        connect(&socket, &listener.local_addr().unwrap()).unwrap();
        let tcp = TcpStream::from(socket);
        set_up(&tcp).unwrap();
        assert!(tcp.nodelay().unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&tcp), Ok(UNACKNOWLEDGED_MS));
        sockopt::socket_keepalive(&tcp).unwrap()
    }

    #[test]
    fn connections_to_another_address_alone_are_probed() {
        assert!(!probed("127.0.0.1", "127.0.0.1"));
        assert!(probed("127.0.0.1", "127.0.0.2"));
    }
}
