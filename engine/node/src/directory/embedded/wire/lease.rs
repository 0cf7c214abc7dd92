//! An owner and its lease.

use std::time::Duration;

use kvrail::{Address, NodeName};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::FormatError;
use super::fields::{HEADER, epoch, no_value};
use super::limits::{MAX_LEASE, MIN_LEASE};
use crate::directory::Owner;

/// The longest text of an address: 253 bytes of a host's name, a colon and a port.
const ADDRESS_BYTES: usize = 264;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct OwnerBytes {
    epoch: U64,
    lease_ms: U32,
    address_bytes: U16,
    zero: U16,
    node: [u8; 64],
    zone: [u8; 64],
    address: [u8; ADDRESS_BYTES],
}

const _: () = assert!(size_of::<OwnerBytes>() == 408);

/// An owner and the length of its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The owner.
    pub owner: Owner,
    /// How long its records stay after it was last heard of, in whole milliseconds.
    pub lease: Duration,
}

impl Lease {
    /// An owner whose lease is brought to whole milliseconds, and within its bounds.
    #[must_use]
    pub fn new(owner: Owner, lease: Duration) -> Self {
        let whole = lease.clamp(MIN_LEASE, MAX_LEASE).as_millis() as u64;
        Self { owner, lease: Duration::from_millis(whole) }
    }
}

pub(super) fn lease(body: &[u8]) -> Result<(Lease, &[u8]), FormatError> {
    let want = HEADER + size_of::<OwnerBytes>();
    let short = |_| FormatError::Length { got: HEADER + body.len(), want };
    let (read, rest) = OwnerBytes::ref_from_prefix(body).map_err(short)?;
    Ok((read_lease(read)?, rest))
}

pub(super) fn read_lease(read: &OwnerBytes) -> Result<Lease, FormatError> {
    let text = |field| FormatError::Text { field };
    no_value("a reserved part", read.zero.get().into())?;
    let lease = Duration::from_millis(read.lease_ms.get().into());
    if lease < MIN_LEASE || lease > MAX_LEASE {
        let want = "100 to 3600000 milliseconds";
        return Err(FormatError::Field { field: "a lease", got: read.lease_ms.get().into(), want });
    }
    let name = |field, bytes| NodeName::from_field(bytes).map_err(|_| text(field));
    let length = usize::from(read.address_bytes.get());
    let (address, zeros) = read.address.split_at_checked(length).ok_or_else(|| text("address"))?;
    let parsed: Option<Address> = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok());
    // Only the text that this side would have written.
    let same = |parsed: &Address| parsed.to_string().as_bytes() == address;
    let address = parsed.filter(same).filter(|_| zeros.iter().all(|&byte| byte == 0));
    let owner = Owner {
        epoch: epoch(read.epoch)?,
        node: name("name", &read.node)?,
        address: address.ok_or_else(|| text("address"))?,
        zone: name("zone", &read.zone)?,
    };
    Ok(Lease { owner, lease })
}

pub(super) fn write_lease(lease: &Lease) -> OwnerBytes {
    let Lease { owner: Owner { epoch, node, address, zone }, lease } = lease;
    let text = address.to_string();
    let mut bytes = OwnerBytes::new_zeroed();
    bytes.epoch = U64::new(epoch.0.get());
    // At most `MAX_LEASE`.
    bytes.lease_ms = U32::new(lease.as_millis() as u32);
    // An address has a name of 253 bytes at most; a longer text would be refused by the shard.
    let length = text.len().min(ADDRESS_BYTES);
    bytes.address_bytes = U16::new(length as u16);
    bytes.address[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes.node = *node.field();
    bytes.zone = *zone.field();
    bytes
}
