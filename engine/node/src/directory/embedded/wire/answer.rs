//! Answers of a shard.

use std::num::NonZeroU64;

use kvrail::session::service::MAX_SERVICE_BYTES;
use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::{Generation, KeyTag};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::FormatError;
use super::fields::{ANNOUNCE, HEADER, LOOK_UP, OWNERS, RENEW, WITHDRAW, answer_to, begin, items, no_value};
use super::lease::{Lease, OwnerBytes, read_lease, write_lease};
use super::limits::{MAX_EPOCHS, MAX_KEYS};
use super::question::Question;
use crate::directory::MAX_OWNERS;
use crate::record::Record;

/// A record of a key that is known.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PlaceBytes {
    owner: U64,
    generation: U64,
    pool: U32,
    slot: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AnnouncedBytes {
    life: U64,
    kept: U32,
    limit: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RenewedBytes {
    life: U64,
    known: U32,
    zero: U32,
}

const _: () = {
    assert!(size_of::<PlaceBytes>() == 24);
    assert!(size_of::<AnnouncedBytes>() == 16 && size_of::<RenewedBytes>() == 16);
    // The longest answers fit a message of the session.
    assert!(HEADER + MAX_KEYS * (1 + MAX_OWNERS * size_of::<PlaceBytes>()) <= MAX_SERVICE_BYTES);
    assert!(HEADER + MAX_EPOCHS * size_of::<OwnerBytes>() <= MAX_SERVICE_BYTES);
};

/// An answer of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The records of each key, [`MAX_OWNERS`] at most of each. Their keys are those of the
    /// question, which the parser is given.
    LookUp(Vec<Vec<Record>>),
    /// The owners, in the order of the question; `None` for one that is not known.
    Owners(Vec<Option<Lease>>),
    /// What has become of announced records.
    Announced(Announced),
    /// How many of the withdrawn records were there.
    Withdrawn(u32),
    /// The owner, as the shard knows it.
    Renewed(KnownOwner),
}

/// What has become of announced records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announced {
    /// Which of the owner's lives at the shard this is: another one after its lease has run out.
    pub life: u64,
    /// How many of the records are kept.
    pub kept: u32,
    /// The shard's limit in records, if it was the reason to keep fewer; else 0.
    pub limit: u32,
}

/// An owner, as a shard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownOwner {
    /// Which of the owner's lives at the shard this is.
    pub life: u64,
    /// Whether that life began before the question.
    pub known: bool,
}

impl Announced {
    pub(crate) const fn new(life: u64, kept: u32, limit: u32) -> Self {
        Self { life, kept, limit }
    }
}

impl KnownOwner {
    pub(crate) const fn new(life: u64, known: bool) -> Self {
        Self { life, known }
    }
}

impl Answer {
    /// The answer to `question` with these bytes.
    ///
    /// # Errors
    ///
    /// The bytes are no answer to that question.
    pub fn parse(question: &Question, bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(match question {
            Question::LookUp(tags) => {
                let found = FoundPlaces::parse(tags.len(), bytes)?.records(tags);
                Self::LookUp(found.map(|(_, records)| records.collect()).collect())
            }
            Question::Owners(epochs) => Self::Owners(found_owners(epochs, bytes)?),
            Question::Announce(..) => Self::Announced(announced(bytes)?),
            Question::Withdraw(_) => Self::Withdrawn(withdrawn(bytes)?),
            Question::Renew(_) => Self::Renewed(renewed(bytes)?),
        })
    }

    /// Appends its bytes to `out`.
    ///
    /// # Panics
    ///
    /// A list is longer than its bound.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::LookUp(found) => {
                let mut answer = LookUpAnswer::begin(found.len(), out);
                for (key, records) in found.iter().enumerate() {
                    let records = records.iter();
                    answer.key(key, records.map(|r| (r.owner, r.generation, r.pool, r.slot)));
                }
            }
            Self::Owners(owners) => write_owners(owners.iter().map(Option::as_ref), out),
            Self::Announced(announced) => write_announced(*announced, out),
            Self::Withdrawn(count) => write_withdrawn(*count, out),
            Self::Renewed(owner) => write_renewed(*owner, out),
        }
    }
}

/// The answer to a look-up, as a shard writes it: key by key, in order.
pub(crate) struct LookUpAnswer<'a> {
    out: &'a mut Vec<u8>,
    counts: usize,
}

impl<'a> LookUpAnswer<'a> {
    pub(crate) fn begin(keys: usize, out: &'a mut Vec<u8>) -> Self {
        begin(LOOK_UP, keys, MAX_KEYS, out);
        let counts = out.len();
        out.resize(counts + keys, 0);
        Self { out, counts }
    }

    /// The places of key number `key`, of which [`MAX_OWNERS`] are taken.
    pub(crate) fn key(&mut self, key: usize, places: impl Iterator<Item = (Epoch, Generation, PoolId, u32)>) {
        for (owner, generation, pool, slot) in places.take(MAX_OWNERS) {
            let (owner, generation) = (U64::new(owner.0.get()), U64::new(generation.0));
            let place = PlaceBytes { owner, generation, pool: U32::new(pool.0), slot: U32::new(slot) };
            self.out.extend_from_slice(place.as_bytes());
            self.out[self.counts + key] += 1;
        }
    }
}

/// The answer to a look-up, checked: the places of each key.
pub(crate) struct FoundPlaces<'a> {
    counts: &'a [u8],
    places: &'a [PlaceBytes],
}

impl<'a> FoundPlaces<'a> {
    /// The answer for so many keys.
    pub(crate) fn parse(keys: usize, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let body = answer_to(LOOK_UP, keys, bytes)?;
        let want = |places: usize| HEADER + keys + places * size_of::<PlaceBytes>();
        let length = |places| FormatError::Length { got: bytes.len(), want: want(places) };
        let (counts, places) = body.split_at_checked(keys).ok_or_else(|| length(0))?;
        if let Some(&got) = counts.iter().find(|&&count| usize::from(count) > MAX_OWNERS) {
            let want = "8 at most";
            return Err(FormatError::Field { field: "the number of a key's owners", got: got.into(), want });
        }
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let places = <[PlaceBytes]>::ref_from_bytes_with_elems(places, total).map_err(|_| length(total))?;
        if let Some(wrong) = places.iter().find(|place| !is_place(place)) {
            let want = "that of a page that some owner has published";
            let got = wrong.generation.get();
            return Err(FormatError::Field { field: "the generation or owner of a record", got, want });
        }
        Ok(Self { counts, places })
    }

    /// The records of each of `tags`, the keys that were asked for, in order.
    pub(crate) fn records(
        self,
        tags: &'a [KeyTag],
    ) -> impl Iterator<Item = (KeyTag, impl Iterator<Item = Record> + 'a)> + 'a {
        let Self { counts, mut places } = self;
        tags.iter().zip(counts).map(move |(&tag, &count)| {
            let (own, rest) = places.split_at(usize::from(count));
            places = rest;
            (tag, own.iter().filter_map(move |place| record(tag, place)))
        })
    }
}

fn is_place(place: &PlaceBytes) -> bool {
    Generation(place.generation.get()).is_valid() && place.owner.get() != 0
}

fn record(tag: KeyTag, place: &PlaceBytes) -> Option<Record> {
    let owner = Epoch(NonZeroU64::new(place.owner.get())?);
    let generation = Generation(place.generation.get());
    Some(Record { tag, owner, pool: PoolId(place.pool.get()), slot: place.slot.get(), generation })
}

pub(crate) fn write_owners<'a>(owners: impl ExactSizeIterator<Item = Option<&'a Lease>>, out: &mut Vec<u8>) {
    begin(OWNERS, owners.len(), MAX_EPOCHS, out);
    for owner in owners {
        let bytes = owner.map_or_else(OwnerBytes::new_zeroed, write_lease);
        out.extend_from_slice(bytes.as_bytes());
    }
}

pub(crate) fn found_owners(epochs: &[Epoch], bytes: &[u8]) -> Result<Vec<Option<Lease>>, FormatError> {
    let body = answer_to(OWNERS, epochs.len(), bytes)?;
    let read: &[OwnerBytes] = items(body, epochs.len())?;
    let owner = |(asked, read): (&Epoch, &OwnerBytes)| {
        if read.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let lease = read_lease(read)?;
        if lease.owner.epoch != *asked {
            let got = lease.owner.epoch.0.get();
            let field = "the epoch of an owner";
            return Err(FormatError::Field { field, got, want: "the one that was asked for" });
        }
        Ok(Some(lease))
    };
    epochs.iter().zip(read).map(owner).collect()
}

pub(crate) fn write_announced(announced: Announced, out: &mut Vec<u8>) {
    begin(ANNOUNCE, 0, 0, out);
    let Announced { life, kept, limit } = announced;
    let bytes = AnnouncedBytes { life: U64::new(life), kept: U32::new(kept), limit: U32::new(limit) };
    out.extend_from_slice(bytes.as_bytes());
}

pub(crate) fn announced(bytes: &[u8]) -> Result<Announced, FormatError> {
    let read: &[AnnouncedBytes] = items(answer_to(ANNOUNCE, 0, bytes)?, 1)?;
    Ok(Announced { life: read[0].life.get(), kept: read[0].kept.get(), limit: read[0].limit.get() })
}

pub(crate) fn write_withdrawn(count: u32, out: &mut Vec<u8>) {
    begin(WITHDRAW, 0, 0, out);
    out.extend_from_slice(&count.to_le_bytes());
}

pub(crate) fn withdrawn(bytes: &[u8]) -> Result<u32, FormatError> {
    let read: &[U32] = items(answer_to(WITHDRAW, 0, bytes)?, 1)?;
    Ok(read[0].get())
}

pub(crate) fn write_renewed(owner: KnownOwner, out: &mut Vec<u8>) {
    begin(RENEW, 0, 0, out);
    let (life, known) = (U64::new(owner.life), U32::new(owner.known.into()));
    out.extend_from_slice(RenewedBytes { life, known, zero: U32::new(0) }.as_bytes());
}

pub(crate) fn renewed(bytes: &[u8]) -> Result<KnownOwner, FormatError> {
    let read: &[RenewedBytes] = items(answer_to(RENEW, 0, bytes)?, 1)?;
    let RenewedBytes { life, known, zero } = read[0];
    no_value("a reserved part", zero.get())?;
    match known.get() {
        known @ (0 | 1) => Ok(KnownOwner { life: life.get(), known: known == 1 }),
        got => {
            Err(FormatError::Field { field: "whether an owner is known", got: got.into(), want: "0 or 1" })
        }
    }
}
