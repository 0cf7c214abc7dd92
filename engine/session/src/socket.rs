//! Sockets of sessions: how a reader's connection is made.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::net::sockopt;

use crate::address::Address;
use crate::error::{Cause, SessionError, Step};

/// How many milliseconds sent bytes may stay unacknowledged, and a peer may take none. The system's
/// default is some 15 minutes.
const UNACKNOWLEDGED_MS: u32 = 10_000;

/// The addresses at which to connect to the producer at `address`, at least one, to be tried in
/// turn: [`share_of_time`] says until when each. Blocks until `deadline` at most, unless `address`
/// is an IP address.
///
/// # Errors
///
/// The name does not resolve, or one cannot connect to the address: its port is 0, or it names all
/// interfaces of a host.
pub fn addresses_of(address: &Address, deadline: Instant) -> Result<Vec<SocketAddr>, SessionError> {
    let error = |step, e| SessionError { peer: address.to_string(), step, cause: Cause::Io(e) };
    if address.port() == 0 || address.is_unspecified() {
        let why = "one can listen on this address, and not connect to it";
        return Err(error(Step::Connecting, io::Error::new(io::ErrorKind::InvalidInput, why)));
    }
    address.resolve(deadline).map_err(|e| error(Step::Resolving, e))
}

/// Until when to try one of `untried` addresses, where all must be tried by `deadline`. Each gets
/// an equal share of the time that is left, so that one that does not answer leaves time for the
/// others.
#[must_use]
pub fn share_of_time(now: Instant, deadline: Instant, untried: usize) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + left / u32::try_from(untried.max(1)).unwrap_or(u32::MAX)
}

/// Connects to the first of `targets` at which a process listens.
pub(crate) fn dial(targets: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::TimedOut.into();
    for (tried, target) in targets.iter().enumerate() {
        let now = Instant::now();
        let time = share_of_time(now, deadline, targets.len() - tried).saturating_duration_since(now);
        if time.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(target, time).and_then(set_up) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Makes a socket non-blocking. It needs no probes: a session is never silent.
fn set_up(tcp: TcpStream) -> io::Result<TcpStream> {
    if tcp.local_addr()? == tcp.peer_addr()? {
        // Where no process listens at a port of this host, the system may choose that port for this
        // end, and TCP connects the socket with itself.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tcp.set_nonblocking(true)?;
    tcp.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&tcp, UNACKNOWLEDGED_MS)?;
    Ok(tcp)
}
