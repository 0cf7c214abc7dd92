//! Which page should make room for another one? Runs eviction policies over synthetic requests of a
//! cluster that caches prefixes, and prints what share of the pages was there.
//!
//! ```text
//! cargo run --release -p kvrail-node --example eviction_trace
//! ```
//!
//! Pages have 64 tokens, and come in chains: a page is of use only if all pages before it are
//! there. A request looks its pages up from the first on, uses those that are there without a gap
//! (the *prefix*), and puts all others. "pages" counts the pages that were there, behind a gap too.
//!
//! - **Chats**: 400 at a time, 5 turns in the mean (geometric), each of 1 to 12 new pages. They
//!   begin with one of 100 prompts of 4 to 48 pages, chosen by Zipf's law with exponent 1.
//! - **Agents**: 24 at a time, 30 steps in the mean, each of 1 to 16 new pages, with 6 prompts of
//!   96 to 192 pages. One step in 20 starts another agent on the same pages.
//! - **Scans**: documents of 128 to 1024 pages that are read once.

mod policies;
#[allow(dead_code, reason = "the library's own file, with all that it needs there")]
#[path = "../../src/pool/policy.rs"]
mod policy;
mod traces;

use std::collections::HashMap;
use std::time::Instant;

use policies::{Clock, Lfu, Lru, S3Fifo, Sieve};
use policy::Policy;
use traces::{MIXES, Mix, Trace};

const REQUESTS: usize = 20_000;
/// Requests that fill the pool before anything is counted.
const WARM_UP: usize = 5_000;
const POOLS: [u32; 4] = [2_048, 8_192, 16_384, 32_768];

/// The slots of a pool, without bytes.
struct Pool<P> {
    policy: P,
    slots: HashMap<u64, u32>,
    pages: Vec<u64>,
    free: Vec<u32>,
}

impl<P: Policy> Pool<P> {
    fn new(slots: u32) -> Self {
        let free = (0..slots).rev().collect();
        let (policy, pages) = (P::new(slots), vec![0; slots as usize]);
        Self { policy, slots: HashMap::new(), pages, free }
    }

    /// Uses the page, if it is there.
    fn touch(&mut self, page: u64) -> bool {
        let Some(&slot) = self.slots.get(&page) else { return false };
        self.policy.touch(slot);
        true
    }

    fn put(&mut self, page: u64) {
        if self.touch(page) {
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.policy.evict().expect("the pool is full of pages");
            self.slots.remove(&self.pages[slot as usize]);
            slot
        });
        self.pages[slot as usize] = page;
        self.slots.insert(page, slot);
        self.policy.insert(slot, tag(page));
    }
}

/// A tag as keys have them: every bit looks random.
fn tag(page: u64) -> u128 {
    let mixed = (u128::from(page) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    (mixed ^ mixed >> 67).wrapping_mul(0xD134_2543_DE82_EF95_9FB2_1C65_1E98_DF25)
}

#[derive(Default)]
struct Counts {
    wanted: usize,
    there: usize,
    prefix: usize,
}

fn run<P: Policy>(mix: &Mix, slots: u32) -> Counts {
    let (mut trace, mut pool, mut counts) = (Trace::new(mix, 1), Pool::<P>::new(slots), Counts::default());
    for number in 0..REQUESTS {
        let request = trace.request();
        let is_there = |page: &&u64| pool.slots.contains_key(*page);
        let (there, prefix) =
            (request.iter().filter(is_there).count(), request.iter().take_while(is_there).count());
        // The last page first: policies that keep an order of use then evict the ends of chains.
        for &page in request[..prefix].iter().rev() {
            pool.touch(page);
        }
        for &page in &request[prefix..] {
            pool.put(page);
        }
        if number >= WARM_UP {
            counts.wanted += request.len();
            counts.there += there;
            counts.prefix += prefix;
        }
    }
    counts
}

fn main() {
    type Run = fn(&Mix, u32) -> Counts;
    let policies: [(&str, Run); 6] = [
        ("LRU", run::<Lru>),
        ("CLOCK", run::<Clock>),
        ("SIEVE", run::<Sieve>),
        ("S3-FIFO (paper)", run::<S3Fifo<10, 2>>),
        ("LFU", run::<Lfu>),
        ("S3-FIFO (kvrail)", run::<policy::S3Fifo>),
    ];
    let begin = Instant::now();
    print!("| requests | slots |");
    policies.iter().for_each(|(name, _)| print!(" {name} |"));
    print!("\n|---|---|{}\n", "---|".repeat(policies.len()));
    let mut sums = vec![(0.0, 0.0); policies.len()];
    for mix in &MIXES {
        for slots in POOLS {
            print!("| {} | {slots} |", mix.name);
            for ((_, run), (pages, prefixes)) in policies.iter().zip(&mut sums) {
                let Counts { wanted, there, prefix } = run(mix, slots);
                let percent = |part| 100.0 * part as f64 / wanted as f64;
                print!(" {:.1} / {:.1} |", percent(there), percent(prefix));
                *pages += percent(there);
                *prefixes += percent(prefix);
            }
            println!();
        }
    }
    let rows = (MIXES.len() * POOLS.len()) as f64;
    print!("| mean | |");
    sums.iter().for_each(|(pages, prefixes)| print!(" {:.1} / {:.1} |", pages / rows, prefixes / rows));
    println!("\n\npages there / in prefixes, in percent. {:.0?}", begin.elapsed());
}
