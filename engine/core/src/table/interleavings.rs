//! Every order in which a reader can see what an owner stores, for two generations of two parts.
//!
//! The owner runs the real code of [`Entry`]. At each barrier the memory is noted: the changes
//! between two barriers are a *stretch*, whose stores may become visible in any order, and all of
//! whose stores are visible before any of a later stretch is. That is what the barrier promises and
//! all that it promises. The reader reads word by word. Each word is read at some moment of some
//! stretch, before or after the word's change in it; the words of one READ in any order, those of a
//! later READ at a later moment. All choices of moments are tried.

use core::cell::RefCell;
use std::boxed::Box;
use std::rc::Rc;
use std::vec::Vec;

use super::*;
use crate::barrier::tests::WATCH;

/// The words of a slot: generation and ready word of its entry, and a word for the bytes of each
/// part. A part's bytes have the value of the generation that wrote them.
type Memory = [u64; 4];
const GENERATION: usize = 0;
const READY: usize = 1;
const PART: usize = 2;

/// How the first generation is published. The second always grows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum First {
    Whole,
    Growing,
}

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Nothing,
    /// The reader reads a part that it has not seen ready.
    Unseen,
    /// The reader takes a ready word of any generation.
    AnyWord,
    /// The owner makes a part ready before it writes the part's bytes.
    EarlyReady,
    /// No barrier orders anything.
    NoBarriers,
    /// The reader has its bytes only after it has read the entry for the last time.
    CheckedFirst,
}

/// The slot's memory, and what it was at each barrier.
#[derive(Default)]
struct Slot {
    entry: Entry,
    parts: [AtomicU64; 2],
    seen: RefCell<Vec<Memory>>,
}

impl Slot {
    fn note(&self) {
        let words = [&self.entry.generation, &self.entry.ready, &self.parts[0], &self.parts[1]];
        self.seen.borrow_mut().push(words.map(|word| u64::from_le(word.load(Ordering::Relaxed))));
    }

    fn grow(&self, nonce: u32, broken: Broken) {
        self.entry.invalidate();
        let generation = self.entry.begin(KeyTag(9), nonce);
        for (part, ready) in self.parts.iter().zip(1..) {
            if broken == Broken::EarlyReady {
                self.entry.set_ready(ready).unwrap();
            }
            part.store(generation.0, Ordering::Relaxed);
            self.entry.set_ready(ready).unwrap();
        }
        self.entry.finish().unwrap();
    }

    fn whole(&self, nonce: u32) {
        self.entry.invalidate();
        let next = self.entry.load().successor(nonce);
        self.parts.iter().for_each(|part| part.store(next.0, Ordering::Relaxed));
        assert_eq!(self.entry.publish(KeyTag(9), nonce), next);
    }
}

/// What the owner's stores leave in memory at each barrier, the first and the last moment included.
fn history(first: First, broken: Broken) -> Vec<Memory> {
    let slot = Rc::new(Slot::default());
    slot.note();
    let watched = Rc::clone(&slot);
    WATCH.set(Some(Box::new(move || watched.note())));
    match first {
        First::Whole => slot.whole(1),
        First::Growing => slot.grow(1, broken),
    }
    slot.grow(2, broken);
    slot.entry.invalidate();
    WATCH.set(None);
    slot.note();
    slot.seen.take()
}

/// A moment: a stretch of the history, and whether the changes of this stretch are visible.
type Moment = (usize, bool);

/// The values that `word` can have from stretch `from` on, each with its moment.
fn values(history: &[Memory], word: usize, from: usize) -> impl Iterator<Item = (Moment, u64)> {
    (from..history.len() - 1).flat_map(move |stretch| {
        [(stretch, false), (stretch, true)]
            .map(|moment| (moment, history[stretch + usize::from(moment.1)][word]))
    })
}

/// Tries all readers of part `part`. Returns how many have a part that they take for one of a
/// generation, and how many of these are wrong.
fn readers(history: &[Memory], part: usize, broken: Broken) -> (u32, u32) {
    let (mut hits, mut wrong) = (0, 0);
    // Without barriers each word changes as it likes: a later READ may see earlier values of other
    // words.
    let later = |(stretch, _): Moment| if broken == Broken::NoBarriers { 0 } else { stretch };
    for (ready_at, word) in values(history, READY, 0) {
        for (seen_at, generation) in values(history, GENERATION, 0) {
            let generation = Generation(generation);
            let ready = match broken {
                Broken::AnyWord => Ready(word as u32),
                _ => EntryValue::ready_in(word, generation),
            };
            if !generation.is_valid() || broken != Broken::Unseen && ready.0 as usize <= part {
                continue;
            }
            // The bytes are read after both words of the entry have arrived.
            let seen = ready_at.max(seen_at);
            for (read_at, bytes) in values(history, PART + part, later(seen)) {
                // The check looks at the generation alone. This word was read before, and no later
                // look at it shows an earlier value.
                let from = if broken == Broken::CheckedFirst { seen_at } else { read_at };
                for (after_at, after) in values(history, GENERATION, later(from)) {
                    if after_at < seen_at || after != generation.0 {
                        continue;
                    }
                    hits += 1;
                    wrong += u32::from(bytes != generation.0);
                }
            }
        }
    }
    (hits, wrong)
}

/// Hits and wrong pages of all readers of all parts.
fn all(broken: Broken) -> (u32, u32) {
    let mut sum = (0, 0);
    for first in [First::Whole, First::Growing] {
        let history = history(first, broken);
        for part in 0..2 {
            let (hits, wrong) = readers(&history, part, broken);
            assert!(hits > 0, "{first:?}, part {part}: no reader finds a page");
            sum = (sum.0 + hits, sum.1 + wrong);
        }
    }
    sum
}

#[test]
fn a_part_that_was_seen_ready_is_of_the_generation_that_is_found_afterwards() {
    let (hits, wrong) = all(Broken::Nothing);
    assert_eq!(wrong, 0, "of {hits}");
}

#[test]
fn every_rule_is_needed() {
    let rules =
        [Broken::Unseen, Broken::AnyWord, Broken::EarlyReady, Broken::NoBarriers, Broken::CheckedFirst];
    for broken in rules {
        let (hits, wrong) = all(broken);
        assert!(wrong > 0, "{broken:?} makes none of {hits} pages wrong");
    }
}

/// The enumeration takes what changes between two barriers for stores without an order, so it must
/// see each of them.
#[test]
fn no_word_is_stored_twice_between_two_barriers() {
    let history = history(First::Growing, Broken::Nothing);
    let mut generations: Vec<u64> = history.iter().map(|memory| memory[GENERATION]).collect();
    generations.dedup();
    assert_eq!(generations.len(), 5, "none, valid, invalid, valid, invalid: {generations:x?}");
    let mut ready: Vec<u64> = history.iter().map(|memory| memory[READY]).collect();
    ready.dedup();
    let parts: Vec<_> = ready.iter().map(|&word| Ready(word as u32)).collect();
    let [none, one, two, whole] = [Ready::NONE, Ready(1), Ready(2), Ready::WHOLE];
    assert_eq!(parts, [none, none, one, two, whole, none, one, two, whole]);
}
