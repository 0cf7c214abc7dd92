//! The address of a server: its socket address, and the secrets that open it.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use kvrail_host::secret::{RandomError, Secret};
use static_assertions::{const_assert, const_assert_eq};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::address::LocalAddressError;

const MAGIC: [u8; 4] = *b"KVTC";
/// The version of the address, the hello and the requests.
pub(crate) const VERSION: u16 = 2;

/// The address of a [`TcpServer`](super::TcpServer): 64 bytes that the peers' session carries.
///
/// Send it only to readers that the server trusts: a process that has it can read the exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpAddress {
    pub(crate) socket: SocketAddr,
    /// The reader sends it to the server.
    pub(crate) token: Secret,
    /// The server's reply to the token. It proves that this server made the address.
    pub(crate) answer: Secret,
}

/// The wire form.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version: U16,
    /// 4 or 6.
    family: u8,
    zero: u8,
    port: U16,
    rest: [u8; 2],
    /// The scope id of an IPv6 link-local address; 0 otherwise.
    scope: U32,
    /// An IPv4 address is in the first four bytes, with zeros behind it.
    ip: [u8; 16],
    token: [u8; 16],
    answer: [u8; 16],
}

const_assert_eq!(size_of::<Wire>(), 64);
const_assert!(offset_of!(Wire, port) == 8 && offset_of!(Wire, scope) == 12 && offset_of!(Wire, ip) == 16);
const_assert!(offset_of!(Wire, token) == 32 && offset_of!(Wire, answer) == 48);

impl TcpAddress {
    pub(crate) fn random(socket: SocketAddr) -> Result<Self, RandomError> {
        Ok(Self { socket, token: Secret::random()?, answer: Secret::random()? })
    }

    /// The socket address at which the server listens.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// Reads the wire form.
    ///
    /// # Errors
    ///
    /// The bytes are not an address of this kind and version.
    pub fn parse(bytes: &[u8; 64]) -> Result<Self, LocalAddressError> {
        let wire: Wire = transmute!(*bytes);
        LocalAddressError::check_head(wire.magic, MAGIC, wire.version.get(), VERSION)?;
        let bad = |field| LocalAddressError::Field { field };
        if (wire.zero, wire.rest) != (0, [0; 2]) {
            return Err(bad("padding"));
        }
        let (port, scope) = (wire.port.get(), wire.scope.get());
        let socket = match (wire.family, wire.ip) {
            (4, [a, b, c, d, rest @ ..]) if rest == [0; 12] && scope == 0 => {
                SocketAddr::from((Ipv4Addr::new(a, b, c, d), port))
            }
            (6, ip) => SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope)),
            _ => return Err(bad("address family")),
        };
        if port == 0 || socket.ip().is_unspecified() {
            return Err(bad("IP address or port"));
        }
        Ok(Self { socket, token: Secret::from_bytes(wire.token), answer: Secret::from_bytes(wire.answer) })
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let (family, ip) = match self.socket.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(ip) => (6, ip.octets()),
        };
        let scope = match self.socket {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        transmute!(Wire {
            magic: MAGIC,
            version: U16::new(VERSION),
            family,
            zero: 0,
            port: U16::new(self.socket.port()),
            rest: [0; 2],
            scope: U32::new(scope),
            ip,
            token: self.token.to_bytes(),
            answer: self.answer.to_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(socket: &str) -> TcpAddress {
        TcpAddress {
            socket: socket.parse().unwrap(),
            token: Secret::from_bytes([2; 16]),
            answer: Secret::from_bytes([3; 16]),
        }
    }

    #[test]
    fn golden_bytes() {
        let mut golden = [0; 64];
        golden[..16].copy_from_slice(b"KVTC\x02\0\x04\0\x34\x12\0\0\0\0\0\0");
        golden[16..20].copy_from_slice(&[10, 1, 2, 3]);
        golden[32..48].fill(2);
        golden[48..].fill(3);
        assert_eq!(address("10.1.2.3:4660").to_bytes(), golden);
        for socket in ["10.1.2.3:4660", "[::1]:1", "[fe80::1%7]:65535"] {
            assert_eq!(TcpAddress::parse(&address(socket).to_bytes()), Ok(address(socket)));
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = address("10.1.2.3:4660").to_bytes();
        for (at, what) in [
            (0, "begins with"),
            (4, "version"),
            (6, "family"),
            (7, "padding"),
            (12, "family"),
            (20, "family"),
        ] {
            let mut bytes = good;
            bytes[at] ^= 0x80;
            let error = TcpAddress::parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        for socket in ["10.1.2.3:0", "0.0.0.0:1", "[::]:1"] {
            let error = TcpAddress::parse(&address(socket).to_bytes()).unwrap_err().to_string();
            assert!(error.contains("IP address or port"), "{error}");
        }
    }
}
