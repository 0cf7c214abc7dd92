//! What a put costs, and how often two threads are in each other's way.
//!
//! ```text
//! cargo run --release -p kvrail-node --example put_rate cargo run --release -p kvrail-node
//! --example put_rate count PUTS # pages of 64 bytes, for callgrind
//! ```
//!
//! Every put stores a page of a new key, and so evicts another: the longest way through a pool. A
//! thread that finds the pool's lock taken spins for a moment and then sleeps, so the sleeps of the
//! threads, which the kernel counts, are the waits that cost more than that moment. Puts a second
//! say something only on processors that nothing else uses.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvrail::session::PoolId;
use kvrail::{KeyTag, KvLayout, PageLayout, PeerKeys, Publisher, shm};
use kvrail_node::{Key, PagePool, Put};

/// A page of 64 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 1)]
#[allow(dead_code, reason = "a declaration")]
struct Tiny {
    bytes: [u8; 64],
}

/// A page of 4 KiB.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Small {
    bytes: [u8; 64],
}

/// A page of 128 KiB.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Large {
    bytes: [u8; 2048],
}

const SLOTS: u32 = 1024;
const TIME: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [count, puts] = &arguments[..]
        && count == "count"
    {
        return count_puts(puts.parse()?);
    }
    println!("| page | threads | puts/s | ns/put and thread | sleeps in 1,000 puts |\n|---|---|---|---|---|");
    for layout in [PageLayout::of::<Tiny>(), PageLayout::of::<Small>(), PageLayout::of::<Large>()] {
        let pool = pool(layout)?;
        let page = vec![7; pool.page_bytes()];
        let next = AtomicU64::new(0);
        for threads in [1, 2] {
            let (begin, puts, sleeps) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let before = sleeps_of_this_thread();
                        while begin.elapsed() < TIME {
                            let mine = next.fetch_add(64, Ordering::Relaxed);
                            (mine..mine + 64).for_each(|number| put(&pool, number, &page));
                            puts.fetch_add(64, Ordering::Relaxed);
                        }
                        sleeps.fetch_add(sleeps_of_this_thread() - before, Ordering::Relaxed);
                    });
                }
            });
            let (puts, seconds) = (puts.into_inner() as f64, begin.elapsed().as_secs_f64());
            let each = seconds * 1e9 * f64::from(threads) / puts;
            let sleeps = 1000.0 * sleeps.into_inner() as f64 / puts;
            println!(
                "| {} | {threads} | {:.0} | {each:.0} | {sleeps:.2} |",
                pool.page_bytes(),
                puts / seconds
            );
        }
    }
    Ok(())
}

fn pool(layout: PageLayout) -> Result<PagePool, Box<dyn Error>> {
    let (name, listen, keys) = ("producer".parse()?, "127.0.0.1:0".parse()?, PeerKeys::none());
    let publisher = Arc::new(Publisher::start(name, layout, SLOTS, &listen, keys, shm::publish(1))?);
    Ok(PagePool::open(publisher, PoolId(0))?)
}

fn put(pool: &PagePool, number: u64, page: &[u8]) {
    // Spread as the tags of keys are.
    let tag = u128::from(number) * 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    let put = pool.put(Key(KeyTag(tag)), page);
    assert!(matches!(put, Ok(Put::Stored(_))), "{put:?}");
}

/// Puts pages in a full pool by a thread of its own, whose instructions are counted.
fn count_puts(puts: u64) -> Result<(), Box<dyn Error>> {
    let pool = pool(PageLayout::of::<Tiny>())?;
    let page = vec![7; pool.page_bytes()];
    thread::scope(|scope| {
        let counted = || (0..u64::from(SLOTS) + puts).for_each(|number| put(&pool, number, &page));
        scope.spawn(counted).join().map_err(|_| "a put failed".into())
    })
}

/// How often the calling thread has slept; 0 where the kernel does not say it.
fn sleeps_of_this_thread() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
