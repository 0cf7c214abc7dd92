//! A directory that lies: between a reader and its directory it swaps records between keys, replays
//! earlier ones, and forges generations, slots, pools and owners.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use kvrail::core::table::{Generation, KeyTag};
use kvrail::session::{Epoch, PoolId};
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

/// Records that it remembers, to replay them.
const REMEMBERED: usize = 4_096;

/// A directory whose answers are spoilt.
#[derive(Debug)]
pub(super) struct Adversary {
    inner: Arc<dyn Directory>,
    state: Mutex<State>,
    forged: AtomicU64,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// Records of all keys, some of which were withdrawn long ago.
    seen: VecDeque<Record>,
    /// An owner that exists, behind whose address forged owners are said to be.
    owner: Option<Owner>,
}

impl Adversary {
    pub(super) fn new(inner: Arc<dyn Directory>, seed: u64) -> Self {
        let state = State { rng: Rng::with_seed(!seed), seen: VecDeque::new(), owner: None };
        Self { inner, state: Mutex::new(state), forged: AtomicU64::new(0) }
    }

    /// How many answers it has spoilt since the last call.
    pub(super) fn take_forged(&self) -> u64 {
        self.forged.swap(0, Ordering::Relaxed)
    }
}

impl State {
    /// One of the remembered records.
    fn any(&mut self) -> Option<Record> {
        if self.seen.is_empty() { None } else { self.seen.get(self.rng.usize(..self.seen.len())).copied() }
    }

    /// A lie about `tag`, whose newest record is `true_one` if there is any.
    fn lie(&mut self, tag: KeyTag, true_one: Option<Record>) -> Option<Record> {
        let record = true_one.or_else(|| self.any())?;
        let forged = match self.rng.u32(..6) {
            // Another key's record under this key's name.
            0 => self.any()?,
            // An earlier record of this key, or else of any.
            1 => {
                let earlier: Vec<_> = self.seen.iter().filter(|record| record.tag == tag).copied().collect();
                if earlier.is_empty() { self.any()? } else { earlier[self.rng.usize(..earlier.len())] }
            }
            // The slot's earlier or later publication. Its lowest bit, by which it is one that a
            // page can have, stays as it is.
            2 => {
                let other = Generation(record.generation.0.wrapping_add_signed(2 * self.rng.i64(-4..=4)));
                Record { generation: if other.is_valid() { other } else { record.generation }, ..record }
            }
            3 => {
                let far = [0, 1, 2, 3, record.slot.wrapping_add(1), 4, 1 << 20, u32::MAX];
                Record { slot: far[self.rng.usize(..far.len())], ..record }
            }
            4 => Record { pool: PoolId(self.rng.u32(..3) * 0x4000_0001), ..record },
            _ => Record { owner: Epoch(epoch(self.rng.u64(1..8))), ..record },
        };
        Some(Record { tag, ..forged })
    }
}

/// An epoch that no node has.
const fn epoch(number: u64) -> NonZeroU64 {
    match NonZeroU64::new(number) {
        Some(number) => number,
        None => NonZeroU64::MAX,
    }
}

impl Directory for Adversary {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        let mut honest = Found::default();
        self.inner.look_up(tags, deadline, &mut honest);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        found.reset(tags.len());
        for (key, &tag) in tags.iter().enumerate() {
            let records = match honest.records(key) {
                Ok(records) => records,
                Err(Some(why)) => {
                    found.not_answered([key], why.clone());
                    continue;
                }
                Err(None) => continue,
            };
            state.seen.extend(records);
            while state.seen.len() > REMEMBERED {
                state.seen.pop_front();
            }
            let mut answer = records.to_vec();
            if state.rng.bool() {
                for _ in 0..state.rng.usize(1..=3) {
                    let lie = state.lie(tag, records.first().copied());
                    let at = state.rng.usize(..=answer.len());
                    if let Some(lie) = lie {
                        answer.insert(at, lie);
                        self.forged.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // The truth may be left out.
                if state.rng.u32(..4) == 0 {
                    answer.retain(|record| !records.contains(record));
                }
            }
            found.answer(key, tag, answer);
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        let mut owners = self.inner.owners(epochs, deadline)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owners.iter().flatten().next() {
            state.owner = Some(owner.clone());
        }
        // A forged owner is said to be where another one is.
        for (owner, &epoch) in owners.iter_mut().zip(epochs).filter(|(owner, _)| owner.is_none()) {
            *owner = state.owner.clone().map(|other| Owner { epoch, ..other });
        }
        Ok(owners)
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.inner.announce(owner, records, deadline)
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.inner.withdraw(records, deadline)
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        self.inner.renew(owner, deadline)
    }

    fn lease(&self) -> Duration {
        self.inner.lease()
    }

    fn describe(&self) -> String {
        format!("{}, spoilt", self.inner.describe())
    }
}
