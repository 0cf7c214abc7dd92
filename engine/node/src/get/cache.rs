//! The reader's cache of records.
//!
//! A record is a hint, so the cache may lose any and be late with any. What it must not do is cost
//! much: a hit reads one bucket of 256 bytes, and writes nothing. Keys are digests under a secret,
//! so their bits choose the bucket.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::{Generation, KeyTag};
use kvrail_core::time::{Nanos, Time};

use crate::record::Record;

/// Records of one bucket.
const WAYS: usize = 4;
/// The most records of a cache: 4 GiB of them.
const MAX_RECORDS: usize = 1 << 26;

/// Records by their keys, for a time.
pub(crate) struct RecordCache {
    /// A power of two of them, or none: then nothing is ever found.
    buckets: Box<[Bucket]>,
    mask: u64,
    ttl: Nanos,
}

/// Four records. A writer makes `sequence` odd before its first store and even after its last, so a
/// reader that sees the same even number before and after has read one writer's words.
#[derive(Default)]
#[repr(align(256))]
struct Bucket {
    sequence: AtomicU64,
    ways: [Way; WAYS],
}

/// A record, in words. `expires` is 0 where there is none.
#[derive(Default)]
struct Way {
    low: AtomicU64,
    high: AtomicU64,
    expires: AtomicU64,
    owner: AtomicU64,
    generation: AtomicU64,
    /// The pool in the upper half, the slot in the lower.
    place: AtomicU64,
}

const fn halves(tag: KeyTag) -> (u64, u64) {
    (tag.0 as u64, (tag.0 >> 64) as u64)
}

impl RecordCache {
    /// A cache of `records` records at least, none if that is 0, each of which is believed for
    /// `ttl`; no cache if that is zero.
    pub(crate) fn new(records: usize, ttl: Duration) -> Self {
        let ttl = Nanos(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        let records = if ttl.0 == 0 { 0 } else { records.min(MAX_RECORDS) };
        let buckets = if records == 0 { 0 } else { records.div_ceil(WAYS).next_power_of_two() };
        let mask = (buckets as u64).saturating_sub(1);
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect(), mask, ttl }
    }

    /// Whether it can hold a record.
    pub(crate) const fn is_on(&self) -> bool {
        !self.buckets.is_empty()
    }

    #[inline]
    fn bucket(&self, high: u64) -> Option<&Bucket> {
        self.buckets.get((high & self.mask) as usize)
    }

    /// The record of a key, if there is one and its time has not passed.
    #[inline]
    pub(crate) fn get(&self, tag: KeyTag, now: Time) -> Option<Record> {
        let (low, high) = halves(tag);
        let bucket = self.bucket(high)?;
        let sequence = bucket.sequence.load(Ordering::Acquire);
        for way in &bucket.ways {
            if way.low.load(Ordering::Relaxed) != low || way.high.load(Ordering::Relaxed) != high {
                continue;
            }
            let expires = way.expires.load(Ordering::Relaxed);
            let (owner, generation) =
                (way.owner.load(Ordering::Relaxed), way.generation.load(Ordering::Relaxed));
            let place = way.place.load(Ordering::Relaxed);
            // The words are read before the number is read again.
            fence(Ordering::Acquire);
            let undisturbed = bucket.sequence.load(Ordering::Relaxed) == sequence && sequence & 1 == 0;
            if !undisturbed || expires <= now.0 {
                return None;
            }
            return Some(Record {
                tag,
                owner: Epoch(NonZeroU64::new(owner)?),
                pool: PoolId((place >> 32) as u32),
                slot: place as u32,
                generation: Generation(generation),
            });
        }
        None
    }

    /// Keeps a record, in the place of an earlier one of its key, of one whose time has passed, or
    /// of the one in its bucket that was kept the longest ago. If another thread is writing in the
    /// bucket, the record is not kept.
    pub(crate) fn insert(&self, record: &Record, now: Time) {
        let (low, high) = halves(record.tag);
        let Some(bucket) = self.bucket(high) else { return };
        let sequence = bucket.sequence.load(Ordering::Relaxed);
        let odd = sequence | 1;
        if sequence == odd
            || bucket.sequence.compare_exchange(sequence, odd, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        // A reader that sees one of the stores below sees the odd number, too.
        fence(Ordering::Release);
        let same =
            |way: &&Way| (way.low.load(Ordering::Relaxed), way.high.load(Ordering::Relaxed)) == (low, high);
        let oldest = || bucket.ways.iter().min_by_key(|way| way.expires.load(Ordering::Relaxed));
        if let Some(way) = bucket.ways.iter().find(same).or_else(oldest) {
            way.low.store(low, Ordering::Relaxed);
            way.high.store(high, Ordering::Relaxed);
            way.owner.store(record.owner.0.get(), Ordering::Relaxed);
            way.generation.store(record.generation.0, Ordering::Relaxed);
            way.place.store(u64::from(record.pool.0) << 32 | u64::from(record.slot), Ordering::Relaxed);
            way.expires.store((now + self.ttl).0, Ordering::Relaxed);
        }
        bucket.sequence.store(odd.wrapping_add(1), Ordering::Release);
    }

    /// Drops the record of a key if it is this one. It needs no turn in the bucket: at worst it
    /// drops a record that another thread is just writing there.
    pub(crate) fn remove(&self, record: &Record) {
        let (low, high) = halves(record.tag);
        let Some(bucket) = self.bucket(high) else { return };
        let is_it = |way: &&Way| {
            (way.low.load(Ordering::Relaxed), way.high.load(Ordering::Relaxed)) == (low, high)
                && way.generation.load(Ordering::Relaxed) == record.generation.0
                && way.owner.load(Ordering::Relaxed) == record.owner.0.get()
        };
        if let Some(way) = bucket.ways.iter().find(is_it) {
            way.expires.store(0, Ordering::Relaxed);
        }
    }

    /// Drops the record of a key, whatever it says.
    pub(crate) fn forget(&self, tag: KeyTag) {
        let (low, high) = halves(tag);
        let Some(bucket) = self.bucket(high) else { return };
        for way in &bucket.ways {
            if (way.low.load(Ordering::Relaxed), way.high.load(Ordering::Relaxed)) == (low, high) {
                way.expires.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Drops all records.
    pub(crate) fn clear(&self) {
        for way in self.buckets.iter().flat_map(|bucket| &bucket.ways) {
            way.expires.store(0, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for RecordCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordCache")
            .field("records", &(self.buckets.len() * WAYS))
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
