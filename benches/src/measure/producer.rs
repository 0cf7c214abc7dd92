//! The producing process: it puts pages into its pool and then does nothing, because readers need
//! no help of its processor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvrail::Publisher;
use kvrail::session::Address;
use kvrail_node::{Node, NodeConfig};

use crate::catalogue::NamedLayout;
use crate::cli::rails::Rails;
use crate::machine::addresses::Reachable;
use crate::machine::memory::Memory;
use crate::measure::directory::ProducerDirectory;
use crate::measure::keys::PageKeys;
use crate::measure::memcpy::Copier;
use crate::measure::node::Over;
use crate::measure::pattern;
use crate::output::progress::Bar;
use crate::process::parent::Child;
use crate::process::protocol::{Order, ProducerSetup, Reply, Role, receive, send};
use crate::process::stop::Stop;

/// How long the directory may take to hear of the pages.
const ANNOUNCE: Duration = Duration::from_secs(60);
/// How long a child may take to write its pages.
const FILL: Duration = Duration::from_secs(90);
/// The version of pages that stay as they are.
const VERSION: u64 = 1;

/// A producer's main function in a child process.
pub(crate) fn child(setup: &ProducerSetup) -> anyhow::Result<()> {
    let producer = publish(setup, &Bar::hidden(), None)?.context("publishing stopped without a signal")?;
    let publisher = &producer.publisher;
    let mut copier = setup.copy.map(|copy| Copier::new(publisher, copy)).transpose()?;
    send(&Reply::Serving { address: publisher.local_addr().to_string(), pages: publisher.slots() })?;
    while let Some(order) = receive()? {
        let copier = copier.as_mut().context("this producer was set up without threads that copy");
        let reply = match order {
            Order::Round { start, warmup, duration, copying } => {
                let copying = copying.context("a producer is told how it copies")?;
                Reply::Ran(copier?.round(publisher, copying, start, warmup, duration)?)
            }
            Order::Count(span) => Reply::Counted(copier?.count(span)),
            Order::Verify | Order::Register | Order::Churn(_) => {
                bail!("a producer reads no pages, and was told: {order:?}")
            }
        };
        send(&reply)?;
    }
    Ok(())
}

/// Starts a producer as a child of this process, and returns it with its address once its pages are
/// published.
pub(crate) fn start_child(setup: &ProducerSetup) -> anyhow::Result<(Child, String)> {
    let mut producer = Child::start("producer", &Role::Producer(setup.clone()))?;
    match producer.reply(FILL)? {
        Reply::Serving { address, .. } => Ok((producer, address)),
        other => Err(producer.unexpected(&other)),
    }
}

/// A node with a pool.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) node: Node,
    pub(crate) publisher: Arc<Publisher>,
    /// Where readers reach it.
    pub(crate) at: Reachable,
}

/// Starts a node whose pool has room for `slots` pages, and which announces them.
pub(crate) fn start(setup: &ProducerSetup, slots: u32) -> anyhow::Result<Producer> {
    let named =
        NamedLayout::find(&setup.layout).with_context(|| format!("no layout is called {}", setup.layout))?;
    let listen: Address = setup.listen.parse()?;
    let (name, key) = ("kvrail-bench-serve".parse()?, setup.key.peer_key()?);
    let directory = Arc::new(ProducerDirectory::new(setup.directory.clone(), key.clone(), name));
    let config =
        NodeConfig::new(name, key).pool(named.layout, slots).listen(listen).near_nics(setup.near_nics);
    let mut config = config.server(directory.server());
    if directory.announces() {
        config = config.directory(Arc::<ProducerDirectory>::clone(&directory));
    }
    // It reads nothing, so one rail is enough.
    let read = match &setup.rails {
        Rails::Count(_) => Rails::Count(1),
        ports @ Rails::Ports(_) => ports.clone(),
    };
    let over = Over {
        transport: setup.transport,
        listen: &setup.listen,
        publish: &setup.rails,
        read: &read,
        verbs: &setup.verbs,
        lanes_per_rail: 1,
        chunk_bytes: None,
    };
    let node = over.start(config)?.node;
    let publisher = Arc::clone(node.publisher().context("a node with a pool has a publisher")?);
    let at = Reachable::of(publisher.local_addr())?;
    if directory.announces() {
        directory.reached_at(at.best.into())?;
    }
    Ok(Producer { node, publisher, at })
}

/// Puts every page under its key. `None` if `stop` was requested meanwhile.
pub(crate) fn publish(
    setup: &ProducerSetup,
    bar: &Bar,
    stop: Option<&Stop>,
) -> anyhow::Result<Option<Producer>> {
    let named =
        NamedLayout::find(&setup.layout).with_context(|| format!("no layout is called {}", setup.layout))?;
    let page_bytes = u64::from(named.layout.page_bytes());
    let slots = (setup.working_set / page_bytes).max(1);
    let slots = u32::try_from(slots).with_context(|| {
        format!("{slots} pages of {} are too many: give a smaller --working-set", named.name)
    })?;
    Memory::now().afford(u64::from(slots) * page_bytes, 1, || format!("{slots} pages of {}", named.name))?;
    let producer = start(setup, slots)?;
    let pool = producer.node.pool_of(&named.layout).context("the node has no pool of its layout")?;
    let keys = PageKeys::of(&named.layout)?;
    bar.length(u64::from(slots) * page_bytes);
    for number in 0..slots {
        if stop.is_some_and(Stop::requested) {
            return Ok(None);
        }
        let key = keys.key(number.into())?;
        let _ = pool.put_with(key, |page| pattern::fill(page, key.0.0, VERSION))?;
        bar.add(page_bytes);
    }
    if let Some(announcer) = producer.node.announcer() {
        announcer.flush(Instant::now() + ANNOUNCE).context("the pages cannot be announced")?;
    }
    Ok(Some(producer))
}
