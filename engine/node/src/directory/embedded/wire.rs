//! The bytes of questions to a shard, and of its answers. docs/protocol.md describes them.
//!
//! Little-endian, alignment 1, every part of a fixed size: a header of 8 bytes, the fixed part of
//! the operation, and the items, whose number the header has. Parsing is strict: other lengths,
//! versions and numbers, and reserved bytes that are not zero, are refused.

use std::num::NonZeroU64;
use std::time::Duration;

use kvrail::session::{Epoch, PoolId, ServiceNumber};
use kvrail::{Address, NodeName};
use kvrail_core::table::{Generation, KeyTag};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::directory::{MAX_OWNERS, Owner};
use crate::record::{RECORD_BYTES, Record, RecordError};

/// The number of the service that a shard is.
pub const DIRECTORY_SERVICE: ServiceNumber = ServiceNumber(1);
/// The version of the bytes of questions and answers.
pub const VERSION: u8 = 1;
/// The most keys of a question.
pub const MAX_KEYS: usize = 128;
/// The most records of a question.
pub const MAX_RECORDS: usize = 256;
/// The most epochs of a question.
pub const MAX_EPOCHS: usize = 64;
/// The shortest lease.
pub const MIN_LEASE: Duration = Duration::from_millis(100);
/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);

const LOOK_UP: u8 = 1;
const OWNERS: u8 = 2;
const ANNOUNCE: u8 = 3;
const WITHDRAW: u8 = 4;
const RENEW: u8 = 5;

/// The longest text of an address: 253 bytes of a host's name, a colon and a port.
const ADDRESS_BYTES: usize = 264;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    version: u8,
    operation: u8,
    count: U16,
    zero: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OwnerBytes {
    epoch: U64,
    lease_ms: U32,
    address_bytes: U16,
    zero: U16,
    node: [u8; 64],
    zone: [u8; 64],
    address: [u8; ADDRESS_BYTES],
}

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

const HEADER: usize = size_of::<Header>();

const _: () = {
    assert!(HEADER == 8 && size_of::<OwnerBytes>() == 408 && size_of::<PlaceBytes>() == 24);
    assert!(size_of::<AnnouncedBytes>() == 16 && size_of::<RenewedBytes>() == 16);
    // What the longest question and the longest answers take fits a message of the session.
    let most = kvrail::session::service::MAX_SERVICE_BYTES;
    assert!(HEADER + MAX_KEYS * (1 + MAX_OWNERS * size_of::<PlaceBytes>()) <= most);
    assert!(HEADER + size_of::<OwnerBytes>() + MAX_RECORDS * RECORD_BYTES <= most);
    assert!(HEADER + MAX_EPOCHS * size_of::<OwnerBytes>() <= most);
};

/// Why bytes are no question to a shard, or no answer of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Another length.
    #[error("{got} bytes, and {want} by the numbers in them")]
    Length {
        /// How many there are.
        got: usize,
        /// How many there must be.
        want: usize,
    },
    /// A version that this release does not know.
    #[error("version {got} of look-ups is not known: run the same release on all nodes")]
    Version {
        /// The version.
        got: u8,
    },
    /// Another operation.
    #[error("operation {got} is not one that is due here")]
    Operation {
        /// Its number.
        got: u8,
    },
    /// A field has a value that it cannot have.
    #[error("{field} is {got}: {want}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it may be.
        want: &'static str,
    },
    /// A name or an address is none.
    #[error("the {field} of an owner is not one")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// A record is none.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl FormatError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Length { .. } => 7030,
            Self::Version { .. } => 7031,
            Self::Operation { .. } => 7032,
            Self::Field { .. } => 7033,
            Self::Text { .. } => 7034,
            Self::Record(source) => source.code(),
        }
    }
}

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
    for tag in tags {
        out.extend_from_slice(&tag.0.to_le_bytes());
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

fn begin(operation: u8, count: usize, max: usize, out: &mut Vec<u8>) {
    assert!(count <= max, "operation {operation} with {count} items: {max} at most");
    // Every bound is far below 2^16.
    let count = U16::new(count as u16);
    out.extend_from_slice(Header { version: VERSION, operation, count, zero: U32::new(0) }.as_bytes());
}

/// The header, checked but for its operation and count, and what follows it.
fn open(bytes: &[u8]) -> Result<(Header, &[u8]), FormatError> {
    let short = |_| FormatError::Length { got: bytes.len(), want: HEADER };
    let (header, body) = Header::read_from_prefix(bytes).map_err(short)?;
    if header.version != VERSION {
        return Err(FormatError::Version { got: header.version });
    }
    no_value("a reserved part", header.zero.get())?;
    Ok((header, body))
}

/// What follows the header of an answer, which must be to this operation with so many items.
fn answer_to(operation: u8, count: usize, bytes: &[u8]) -> Result<&[u8], FormatError> {
    let (header, body) = open(bytes)?;
    if header.operation != operation {
        return Err(FormatError::Operation { got: header.operation });
    }
    let got = header.count.get();
    if usize::from(got) != count {
        return Err(FormatError::Field { field: "the count", got: got.into(), want: "that of the question" });
    }
    Ok(body)
}

fn bounded(count: usize, max: usize, want: &'static str) -> Result<usize, FormatError> {
    if count > max {
        return Err(FormatError::Field { field: "the count", got: count as u64, want });
    }
    Ok(count)
}

/// All of `body` as so many items.
fn items<T>(body: &[u8], count: usize) -> Result<&[T], FormatError>
where
    T: FromBytes + Immutable + Unaligned,
{
    let want = HEADER + count * size_of::<T>();
    let wrong = || FormatError::Length { got: HEADER + body.len(), want };
    <[T]>::ref_from_bytes_with_elems(body, count).map_err(|_| wrong())
}

fn end(rest: &[u8]) -> Result<(), FormatError> {
    items::<u8>(rest, 0).map(drop)
}

fn no_value(field: &'static str, got: u32) -> Result<(), FormatError> {
    if got == 0 { Ok(()) } else { Err(FormatError::Field { field, got: got.into(), want: "0" }) }
}

fn epoch(read: U64) -> Result<Epoch, FormatError> {
    let zero = FormatError::Field { field: "an epoch", got: 0, want: "any other number" };
    NonZeroU64::new(read.get()).map(Epoch).ok_or(zero)
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

fn lease(body: &[u8]) -> Result<(Lease, &[u8]), FormatError> {
    let want = HEADER + size_of::<OwnerBytes>();
    let short = |_| FormatError::Length { got: HEADER + body.len(), want };
    let (read, rest) = OwnerBytes::ref_from_prefix(body).map_err(short)?;
    Ok((read_lease(read)?, rest))
}

fn read_lease(read: &OwnerBytes) -> Result<Lease, FormatError> {
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

fn write_lease(lease: &Lease) -> OwnerBytes {
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
