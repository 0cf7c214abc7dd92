//! A reader of a churn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;
use kvrail::memory;
use kvrail_node::miss::LABELS;
use kvrail_node::{Destinations, Directory, FoundIn, GetBatch, Key, Node, NodeConfig};

use super::EXAMPLES;
use super::adversary::Adversary;
use crate::catalogue::NamedLayout;
use crate::cli::common::Transport;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::measure::directory;
use crate::measure::keys::PageKeys;
use crate::measure::node::Over;
use crate::measure::pattern::Wrong;
use crate::measure::place;
use crate::process::protocol::{ChurnReaderSetup, Order, Read, Ready, Reply, receive, send};

/// The most keys of a batch.
const BATCH: usize = 12;
/// How long a batch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The reader's main function.
pub(crate) fn child(setup: &ChurnReaderSetup) -> anyhow::Result<()> {
    let named =
        NamedLayout::find(&setup.layout).with_context(|| format!("no layout is called {}", setup.layout))?;
    let name = format!("kvrail-churn-{}", std::process::id()).parse()?;
    let key = setup.key.peer_key()?;
    let over = Over {
        transport: Transport::Shm,
        listen: "127.0.0.1:0",
        publish: &Rails::Count(1),
        read: &Rails::Count(1),
        verbs: &VerbsArgs::default(),
        lanes_per_rail: 1,
        chunk_bytes: setup.chunk_bytes,
    };
    let mut directory = directory::of_reader(&setup.directory, &key, name, named.layout, &over)?;
    let adversary = setup.adversary.then(|| Arc::new(Adversary::new(Arc::clone(&directory), setup.seed)));
    if let Some(adversary) = &adversary {
        directory = Arc::<Adversary>::clone(adversary) as Arc<dyn Directory>;
    }
    let mut config =
        NodeConfig::new(name, key).layout(named.layout).directory(directory).cache(1 << 10, setup.dir_cache);
    if !setup.validate {
        config = config.unvalidated_for_tests();
    }
    let started = over.start(config)?;
    let bytes = 2 * BATCH * named.layout.page_bytes() as usize;
    let mut reader = Reader {
        places: started.node.register(&named.layout, memory::leaked(bytes)?)?,
        node: &started.node,
        keys: PageKeys::of(&named.layout)?.first(setup.keys)?,
        batch: GetBatch::with_capacity(BATCH),
        newest: HashMap::new(),
        rng: Rng::with_seed(setup.seed),
        read: Read::default(),
    };
    send(&Reply::Ready(Ready {
        transport: started.label.clone(),
        rails: started.rails.clone(),
        chunk_bytes: started.chunk_bytes,
        pages: setup.keys as u32,
        metrics: None,
    }))?;
    while let Some(order) = receive()? {
        let Order::Churn(duration) = order else {
            bail!("a reader of a churn was told: {order:?}");
        };
        reader.run(Duration::from_nanos(duration))?;
        let mut read = std::mem::take(&mut reader.read);
        read.forged = adversary.as_ref().map_or(0, |adversary| adversary.take_forged());
        send(&Reply::Read(read))?;
    }
    Ok(())
}

struct Reader<'a> {
    node: &'a Node,
    places: Destinations,
    keys: Vec<Key>,
    batch: GetBatch,
    /// The newest version that it has had of each key.
    newest: HashMap<Key, u64>,
    rng: Rng,
    read: Read,
}

impl Reader<'_> {
    fn run(&mut self, duration: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let before = self.node.statistics().get;
        while began.elapsed() < duration {
            self.get()?;
        }
        let after = self.node.statistics().get;
        let read = &mut self.read;
        read.look_ups = after.look_ups - before.look_ups;
        read.keys_looked_up = after.keys_looked_up - before.keys_looked_up;
        read.keys_renewed = after.keys_renewed - before.keys_renewed;
        let misses = after.misses.iter().zip(before.misses).map(|(after, before)| after - before);
        read.misses = LABELS
            .iter()
            .zip(misses)
            .filter(|&(_, count)| count > 0)
            .map(|(&why, n)| (why.into(), n))
            .collect();
        Ok(())
    }

    /// Gets some keys, and checks what comes.
    fn get(&mut self) -> anyhow::Result<()> {
        let asked: Vec<Key> =
            (0..self.rng.usize(1..=BATCH)).map(|_| self.keys[self.rng.usize(..self.keys.len())]).collect();
        for &key in &asked {
            let mut to = self.places.take_any().context("no place for a page is free")?;
            // A page that was not written here is then seen to be none.
            place::wipe(&mut to)?;
            self.batch.read(key, to);
        }
        self.node.get(&mut self.batch, Instant::now() + PATIENCE);
        let read = &mut self.read;
        read.gets += 1;
        let mut had = Vec::with_capacity(asked.len());
        for page in self.batch.take_pages() {
            let Ok(hit) = page.result else { continue };
            read.hits += 1;
            match hit.found {
                FoundIn::Cache => read.hits_cache += 1,
                _ => read.hits_directory += 1,
            }
            let key = asked[page.index];
            let to = page.destination.context("a page has come, and its place has not")?;
            let newest = self.newest.get(&key).copied().unwrap_or(0);
            let (kind, what) = match place::check(&to, key)? {
                Ok(version) if version >= newest => {
                    had.push((key, version));
                    continue;
                }
                Ok(version) => ("older", format!("version {version} after version {newest}")),
                Err(wrong @ Wrong::OtherKey) => ("other_key", wrong.to_string()),
                Err(wrong @ Wrong::Mixture) => ("mixture", wrong.to_string()),
            };
            *read.wrong.entry(kind.into()).or_default() += 1;
            if read.examples.len() < EXAMPLES {
                read.examples.push(format!("key {:032x}, found in {}: {what}", key.0.0, hit.found.label()));
            }
        }
        // Pages of one batch may have been read in any order.
        for (key, version) in had {
            let newest = self.newest.entry(key).or_default();
            *newest = version.max(*newest);
        }
        Ok(())
    }
}
