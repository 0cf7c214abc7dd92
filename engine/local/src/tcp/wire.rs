//! Requests and responses, and a read that is bounded by a deadline.

use std::io::{self, Read as _};
use std::mem::offset_of;
use std::net::TcpStream;
use std::time::Instant;

use static_assertions::{const_assert, const_assert_eq};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::address::VERSION;
use crate::hello::Protocol;

pub(crate) const PROTOCOL: Protocol = Protocol { magic: *b"KVTH", version: VERSION };

/// The request of one READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Request {
    pub(crate) addr: U64,
    pub(crate) len: U32,
    pub(crate) rkey: U32,
}

/// The response. It precedes the bytes, and comes a second time after them, or stands instead of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Response {
    pub(crate) status: u8,
    pub(crate) zero: [u8; 7],
}

const_assert_eq!(size_of::<Request>(), 16);
const_assert!(offset_of!(Request, len) == 8 && offset_of!(Request, rkey) == 12);
const_assert_eq!(size_of::<Response>(), 8);

impl Response {
    /// The requested bytes follow. After the bytes: they are bytes of the region.
    pub(crate) const DATA: Self = Self { status: 0, zero: [0; 7] };
    /// The server has no region of this key and range. No byte follows. After the bytes: they are
    /// not, since the memory was withdrawn or is not mapped.
    pub(crate) const ACCESS: Self = Self { status: 1, zero: [0; 7] };
}

/// Fills `out` before `deadline`, however few bytes come at a time.
pub(crate) fn read_until(mut stream: &TcpStream, mut out: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !out.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(out) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => out = &mut out[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let request = Request { addr: U64::new(0x1122), len: U32::new(3), rkey: U32::new(4) };
        assert_eq!(request.as_bytes(), b"\x22\x11\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0");
        assert_eq!(Response::DATA.as_bytes(), [0; 8]);
        assert_eq!(Response::ACCESS.as_bytes(), [1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
