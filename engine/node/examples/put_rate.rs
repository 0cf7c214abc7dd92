//! How many pages can be put in a second, by one thread and by two?
//!
//! ```text
//! cargo run --release -p kvrail-node --example put_rate
//! ```
//!
//! Every put stores a page of a new key, and so evicts another: the longest way through a pool.

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
    println!("| page | threads | puts/s | ns/put and thread |\n|---|---|---|---|");
    for layout in [PageLayout::of::<Tiny>(), PageLayout::of::<Small>(), PageLayout::of::<Large>()] {
        let (name, listen) = ("producer".parse()?, "127.0.0.1:0".parse()?);
        let keys = PeerKeys::none();
        let publisher = Arc::new(Publisher::start(name, layout, SLOTS, &listen, keys, shm::publish(1))?);
        let pool = PagePool::open(publisher, PoolId(0))?;
        let page = vec![7; pool.page_bytes()];
        let next = AtomicU64::new(0);
        for threads in [1, 2] {
            let (begin, puts) = (Instant::now(), AtomicU64::new(0));
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while begin.elapsed() < TIME {
                            let mine = next.fetch_add(64, Ordering::Relaxed);
                            for number in mine..mine + 64 {
                                // Spread as the tags of keys are.
                                let tag = u128::from(number) * 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
                                let put = pool.put(Key(KeyTag(tag)), &page);
                                assert!(matches!(put, Ok(Put::Stored(_))), "{put:?}");
                            }
                            puts.fetch_add(64, Ordering::Relaxed);
                        }
                    });
                }
            });
            let (puts, seconds) = (puts.into_inner() as f64, begin.elapsed().as_secs_f64());
            let each = seconds * 1e9 * f64::from(threads) / puts;
            println!("| {} | {threads} | {:.0} | {each:.0} |", pool.page_bytes(), puts / seconds);
        }
    }
    Ok(())
}
