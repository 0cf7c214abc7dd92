//! The producer of a churn.
//!
//! It writes in bursts: some pages back to back, so that reads under way meet overwrites, and then
//! a pause of the length that keeps to its pace, in which the directory hears of the pages and
//! readers find them.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;
use kvrail_node::{Key, PagePool, Put, PutPlace};

use crate::catalogue::NamedLayout;
use crate::measure::keys::PageKeys;
use crate::measure::{pattern, producer};
use crate::process::protocol::{ChurnProducerSetup, Order, Overwritten, Reply, receive, send};

/// The most pages of a burst.
const BURST: u32 = 16;

/// The producer's main function.
pub(crate) fn child(setup: &ChurnProducerSetup) -> anyhow::Result<()> {
    let layout = &setup.producer.layout;
    let named = NamedLayout::find(layout).with_context(|| format!("no layout is called {layout}"))?;
    let producer = producer::start(&setup.producer, setup.pool_pages)?;
    let pool = producer.node.pool_of(&named.layout).context("the node has no pool of its layout")?;
    let keys = PageKeys::of(&named.layout)?.first(setup.keys)?;
    let mut churn = Churn { pool, keys, rng: Rng::with_seed(setup.seed), version: 0, pace: setup.pace };
    send(&Reply::Serving { address: producer.at.best.to_string(), pages: setup.pool_pages })?;
    while let Some(order) = receive()? {
        let Order::Churn(duration) = order else {
            bail!("a producer that churns was told: {order:?}");
        };
        send(&Reply::Overwritten(churn.run(Duration::from_nanos(duration))?))?;
    }
    Ok(())
}

struct Churn<'a> {
    pool: &'a PagePool,
    keys: Vec<Key>,
    rng: Rng,
    /// The version of the page that was written last.
    version: u64,
    /// Pages in a second.
    pace: u32,
}

impl Churn<'_> {
    fn run(&mut self, duration: Duration) -> anyhow::Result<Overwritten> {
        let before = self.pool.statistics();
        let began = Instant::now();
        let (mut due, mut written) = (began, 0_u64);
        while began.elapsed() < duration {
            let burst = self.rng.u32(1..=BURST);
            for _ in 0..burst {
                written += u64::from(self.change()?);
            }
            due += Duration::from_secs(1) * burst / self.pace;
            // A producer that was held up does not catch up in one long burst.
            due = due.max(Instant::now() - Duration::from_millis(20));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let after = self.pool.statistics();
        // Of the slots that were written, those without an earlier page were never used before.
        let fresh = u64::from(after.slots).saturating_sub(before.puts).min(written);
        Ok(Overwritten {
            puts: written,
            overwrites: written - fresh,
            evictions: after.evictions - before.evictions,
            removed: after.removed - before.removed,
        })
    }

    /// Changes the page of a key. Returns whether one was written.
    fn change(&mut self) -> anyhow::Result<bool> {
        let key = self.keys[self.rng.usize(..self.keys.len())];
        self.version += 1;
        let version = self.version;
        let fill = |page: &mut [u8]| pattern::fill(page, key.0.0, version);
        match self.rng.u32(..16) {
            0 => {
                self.pool.remove(key);
                Ok(false)
            }
            // A page that is there stays. One that is not evicts another.
            1..=7 => Ok(matches!(self.pool.put_with(key, fill)?, Put::Stored(_))),
            _ => match self.pool.replace_in_place(key)? {
                PutPlace::Fill(mut place) => {
                    fill(place.bytes());
                    place.commit()?;
                    Ok(true)
                }
                _ => bail!("a page that one thread writes was being written"),
            },
        }
    }
}
