//! Arbitrary bytes are a block list that encodes to the same bytes, or an error that can be
//! printed. Arbitrary pages give a block list within its limit of bytes, which holds the same pages
//! after parsing.

use arbitrary::{Arbitrary, Unstructured};
use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_session::blocks::{BlockList, Head};
use kvrail_session::{Epoch, Fingerprint};

/// Pages in a row, whose slots, generations and tags each go on by a step.
#[derive(Arbitrary, Debug)]
struct Stretch {
    pages: u8,
    slot: (u32, u32),
    generation: (u64, u64),
    tag: (u128, u128),
    ready: (u32, bool),
}

impl Stretch {
    fn pages(&self) -> impl Iterator<Item = Location> + '_ {
        (0..=u32::from(self.pages)).map(|i| {
            let slot = self.slot.0.wrapping_add(self.slot.1.wrapping_mul(i));
            let generation = self.generation.0.wrapping_add(self.generation.1.wrapping_mul(i.into()));
            let tag = KeyTag(self.tag.0.wrapping_add(self.tag.1.wrapping_mul(i.into())));
            let ready = Ready(self.ready.0.wrapping_add(if self.ready.1 { i } else { 0 }));
            let expected = EntryValue { generation: Generation(generation | 1), ready, tag };
            Location { slot, expected }
        })
    }
}

fn parse(bytes: &[u8]) {
    match BlockList::parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(list) => {
            assert_eq!(list.encode(), bytes);
            let pages: Vec<_> = list.locations().collect();
            assert_eq!(pages.len(), list.len());
            assert!(pages.iter().all(|page| page.expected.generation.is_valid()));
            // A new list of the same pages may be shorter, and holds the same.
            let again = BlockList::new(*list.head(), &pages).unwrap();
            assert!(again.encode().len() <= bytes.len());
            assert!(again.locations().eq(pages));
        }
    }
}

fn make(stretches: &[Stretch], region: u16, request: u64) {
    let pages: Vec<_> = stretches.iter().flat_map(Stretch::pages).collect();
    let (fingerprint, epoch) = (Fingerprint::from_bytes([7; 16]), Epoch(1.try_into().unwrap()));
    match BlockList::new(Head { fingerprint, epoch, region, request }, &pages) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(list) => {
            let bytes = list.encode();
            assert!(bytes.len() <= 120 + 32 * pages.len());
            assert!(list.locations().eq(pages));
            assert_eq!(BlockList::parse(&bytes), Ok(list));
        }
    }
}

/// Runs the target. The first byte chooses between bytes and pages.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((0, bytes)) => parse(bytes),
        Some((_, bytes)) => {
            if let Ok((stretches, region, request)) =
                <(Vec<Stretch>, u16, u64)>::arbitrary_take_rest(Unstructured::new(bytes))
            {
                make(&stretches, region, request);
            }
        }
        None => {}
    }
}
