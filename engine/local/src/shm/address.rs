//! The address of an exporter: the name of its socket, and the secrets that open it.

use std::mem::offset_of;

use kvrail_host::secret::{RandomError, Secret, random_bytes};
use static_assertions::{const_assert, const_assert_eq};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::address::LocalAddressError;

const MAGIC: [u8; 4] = *b"KVSM";
/// The version of the address and of the hello.
pub(crate) const VERSION: u16 = 2;

/// The address of a [`ShmExporter`](super::ShmExporter): 64 bytes that the peers' session carries.
///
/// Send it only to readers that the exporter trusts: a process that has it can read the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmAddress {
    /// The name of the abstract Unix socket. It is no secret: any process of the host can list it.
    pub(crate) name: [u8; 16],
    /// The reader sends it to the exporter.
    pub(crate) token: Secret,
    /// The exporter's reply to the token. It proves that this exporter made the address.
    pub(crate) answer: Secret,
}

/// The wire form.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version: U16,
    zero: [u8; 2],
    name: [u8; 16],
    token: [u8; 16],
    answer: [u8; 16],
    rest: [u8; 8],
}

const_assert_eq!(size_of::<Wire>(), 64);
const_assert!(offset_of!(Wire, name) == 8 && offset_of!(Wire, token) == 24 && offset_of!(Wire, answer) == 40);

impl ShmAddress {
    pub(crate) fn random() -> Result<Self, RandomError> {
        Ok(Self { name: random_bytes()?, token: Secret::random()?, answer: Secret::random()? })
    }

    /// Reads the wire form.
    ///
    /// # Errors
    ///
    /// The bytes are not an address of this kind and version.
    pub fn parse(bytes: &[u8; 64]) -> Result<Self, LocalAddressError> {
        let wire: Wire = transmute!(*bytes);
        LocalAddressError::check_head(wire.magic, MAGIC, wire.version.get(), VERSION)?;
        if (wire.zero, wire.rest) != ([0; 2], [0; 8]) {
            return Err(LocalAddressError::Field { field: "padding" });
        }
        Ok(Self {
            name: wire.name,
            token: Secret::from_bytes(wire.token),
            answer: Secret::from_bytes(wire.answer),
        })
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        transmute!(Wire {
            magic: MAGIC,
            version: U16::new(VERSION),
            zero: [0; 2],
            name: self.name,
            token: self.token.to_bytes(),
            answer: self.answer.to_bytes(),
            rest: [0; 8],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let address = ShmAddress {
            name: [1; 16],
            token: Secret::from_bytes([2; 16]),
            answer: Secret::from_bytes([3; 16]),
        };
        let mut golden = [0; 64];
        golden[..8].copy_from_slice(b"KVSM\x02\0\0\0");
        golden[8..24].fill(1);
        golden[24..40].fill(2);
        golden[40..56].fill(3);
        assert_eq!(address.to_bytes(), golden);
        assert_eq!(ShmAddress::parse(&golden), Ok(address));
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = ShmAddress::random().unwrap().to_bytes();
        for (at, what) in [(0, "begins with"), (4, "version"), (7, "padding"), (63, "padding")] {
            let mut bytes = good;
            bytes[at] ^= 0x80;
            let error = ShmAddress::parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
