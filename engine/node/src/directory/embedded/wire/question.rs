//! Questions to a shard.

use kvrail::session::Epoch;
use kvrail::session::service::MAX_SERVICE_BYTES;
use kvrail_core::table::KeyTag;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U64, U128};

use super::error::FormatError;
use super::fields::{
    ANNOUNCE, HEADER, LOOK_UP, OWNERS, RENEW, WITHDRAW, begin, bounded, end, epoch, items, open,
};
use super::lease::{Lease, OwnerBytes, lease, write_lease};
use super::limits::{MAX_EPOCHS, MAX_KEYS, MAX_RECORDS};
use crate::record::{RECORD_BYTES, Record};

// The longest question fits a message of the session.
const _: () = assert!(HEADER + size_of::<OwnerBytes>() + MAX_RECORDS * RECORD_BYTES <= MAX_SERVICE_BYTES);

/// A question to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// Who has the pages of these keys, [`MAX_KEYS`] at most. With none it is a heartbeat.
    LookUp(Vec<KeyTag>),
    /// The owners with these epochs, [`MAX_EPOCHS`] at most.
    Owners(Vec<Epoch>),
    /// The owner has these pages, [`MAX_RECORDS`] at most. All records name the owner.
    Announce(Lease, Vec<Record>),
    /// These records are to be forgotten, [`MAX_RECORDS`] at most.
    Withdraw(Vec<Record>),
    /// The owner's lease begins anew.
    Renew(Lease),
}

impl Question {
    /// The question with these bytes.
    ///
    /// # Errors
    ///
    /// The bytes are no question: the error says which number is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, body) = open(bytes)?;
        let count = usize::from(header.count.get());
        Ok(match header.operation {
            LOOK_UP => {
                let tags: &[U128] =
                    items(body, bounded(count, MAX_KEYS, "the number of keys, 128 at most")?)?;
                Self::LookUp(tags.iter().map(|tag| KeyTag(tag.get())).collect())
            }
            OWNERS => {
                let count = bounded(count, MAX_EPOCHS, "the number of epochs, 64 at most")?;
                let epochs = items::<U64>(body, count)?.iter().map(|read| epoch(*read));
                Self::Owners(epochs.collect::<Result<_, _>>()?)
            }
            ANNOUNCE => {
                let (lease, rest) = lease(body)?;
                let records = records(rest, count)?;
                if records.iter().any(|record| record.owner != lease.owner.epoch) {
                    let want = "the owner that announces it";
                    return Err(FormatError::Field { field: "the owner of a record", got: 0, want });
                }
                Self::Announce(lease, records)
            }
            WITHDRAW => Self::Withdraw(records(body, count)?),
            RENEW => {
                bounded(count, 0, "0")?;
                let (lease, rest) = lease(body)?;
                end(rest)?;
                Self::Renew(lease)
            }
            got => return Err(FormatError::Operation { got }),
        })
    }

    /// Appends its bytes to `out`.
    ///
    /// # Panics
    ///
    /// A list is longer than its bound.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::LookUp(tags) => look_up(tags, out),
            Self::Owners(epochs) => owners(epochs, out),
            Self::Announce(lease, records) => announce(lease, records, out),
            Self::Withdraw(records) => withdraw(records, out),
            Self::Renew(lease) => renew(lease, out),
        }
    }
}

/// Appends the question who has the pages of `tags`.
///
/// # Panics
///
/// There are more than [`MAX_KEYS`].
pub(crate) fn look_up(tags: &[KeyTag], out: &mut Vec<u8>) {
    out.reserve(HEADER + size_of_val(tags));
    begin(LOOK_UP, tags.len(), MAX_KEYS, out);
    let first = out.len();
    out.resize(first + size_of_val(tags), 0);
    for (bytes, tag) in out[first..].chunks_exact_mut(size_of::<KeyTag>()).zip(tags) {
        bytes.copy_from_slice(&tag.0.to_le_bytes());
    }
}

pub(crate) fn owners(epochs: &[Epoch], out: &mut Vec<u8>) {
    begin(OWNERS, epochs.len(), MAX_EPOCHS, out);
    for epoch in epochs {
        out.extend_from_slice(&epoch.0.get().to_le_bytes());
    }
}

pub(crate) fn announce(lease: &Lease, records: &[Record], out: &mut Vec<u8>) {
    begin(ANNOUNCE, records.len(), MAX_RECORDS, out);
    out.extend_from_slice(write_lease(lease).as_bytes());
    write_records(records, out);
}

pub(crate) fn withdraw(records: &[Record], out: &mut Vec<u8>) {
    begin(WITHDRAW, records.len(), MAX_RECORDS, out);
    write_records(records, out);
}

pub(crate) fn renew(lease: &Lease, out: &mut Vec<u8>) {
    begin(RENEW, 0, 0, out);
    out.extend_from_slice(write_lease(lease).as_bytes());
}

fn records(body: &[u8], count: usize) -> Result<Vec<Record>, FormatError> {
    let count = bounded(count, MAX_RECORDS, "the number of records, 256 at most")?;
    let read = items::<[u8; RECORD_BYTES]>(body, count)?.iter();
    Ok(read.map(|bytes| Record::parse(bytes)).collect::<Result<_, _>>()?)
}

fn write_records(records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        out.extend_from_slice(&record.to_bytes());
    }
}
