//! Where a page is, as a directory says it.

use std::num::NonZeroU64;

use kvrail::Location;
use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The bytes of a record.
pub const RECORD_BYTES: usize = 48;
/// The version of a record's bytes.
pub const RECORD_VERSION: u16 = 1;

/// Where a page of a key is: a hint. A page is right because its owner's table says so after it has
/// been read, so a record may be stale, swapped, replayed or forged, and the worst is a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The page's key. A record whose tag is not that of the key that was looked up is no answer.
    pub tag: KeyTag,
    /// The owner, as it is since its last start.
    pub owner: Epoch,
    /// Which of the owner's pools.
    pub pool: PoolId,
    /// The slot of the pool.
    pub slot: u32,
    /// The publication of the slot.
    pub generation: Generation,
}

/// A record's bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordBytes {
    tag: U128,
    owner: U64,
    generation: U64,
    pool: U32,
    slot: U32,
    version: U16,
    reserved: [u8; 6],
}

const _: () = assert!(size_of::<RecordBytes>() == RECORD_BYTES);

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Another number of bytes.
    #[error("a record has {RECORD_BYTES} bytes, and this one has {bytes}")]
    Length {
        /// How many bytes.
        bytes: usize,
    },
    /// A version that this release does not know.
    #[error("a record of version {version}: this release knows version {RECORD_VERSION}")]
    Version {
        /// The record's version.
        version: u16,
    },
    /// A field has a value that it cannot have.
    #[error("the {field} of a record is {value:#x}: another program has written it")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl RecordError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Length { .. } => 7010,
            Self::Version { .. } => 7011,
            Self::Field { .. } => 7012,
        }
    }
}

impl Record {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let bytes = RecordBytes {
            tag: self.tag.0.into(),
            owner: self.owner.0.get().into(),
            generation: self.generation.0.into(),
            pool: self.pool.0.into(),
            slot: self.slot.into(),
            version: RECORD_VERSION.into(),
            reserved: [0; 6],
        };
        zerocopy::transmute!(bytes)
    }

    /// The record with these bytes.
    ///
    /// # Errors
    ///
    /// Another length or version, a generation that is not that of a published page, no owner, or
    /// reserved bytes that are not zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let length = || RecordError::Length { bytes: bytes.len() };
        let raw = RecordBytes::read_from_bytes(bytes).map_err(|_| length())?;
        if raw.version.get() != RECORD_VERSION {
            return Err(RecordError::Version { version: raw.version.get() });
        }
        let field = |field, value| Err(RecordError::Field { field, value });
        if raw.reserved != [0; 6] {
            return field(
                "reserved part",
                raw.reserved.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
            );
        }
        let generation = Generation(raw.generation.get());
        if !generation.is_valid() {
            return field("generation", generation.0);
        }
        let Some(owner) = NonZeroU64::new(raw.owner.get()) else { return field("owner", 0) };
        Ok(Self {
            tag: KeyTag(raw.tag.get()),
            owner: Epoch(owner),
            pool: PoolId(raw.pool.get()),
            slot: raw.slot.get(),
            generation,
        })
    }

    /// The location that it names: of a whole page. Whether it is there, the owner's table says.
    #[must_use]
    pub const fn location(&self) -> Location {
        let Self { tag, slot, generation, .. } = *self;
        Location { slot, expected: EntryValue { generation, ready: Ready::WHOLE, tag } }
    }
}
