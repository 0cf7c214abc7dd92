//! The producing process: it publishes pages and then does nothing, because readers need no help of
//! its processor.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use kvrail::core::table::KeyTag;
use kvrail::session::Address;
use kvrail::{Publisher, shm, tcp};

use crate::catalogue::NamedLayout;
use crate::cli::common::Transport;
use crate::machine::addresses::own_addresses;
use crate::machine::memory::Memory;
use crate::measure::memcpy::Copier;
use crate::measure::pattern;
use crate::output::progress::Bar;
use crate::process::protocol::{Order, ProducerSetup, Reply, receive, send};
use crate::process::stop::Stop;

/// A producer's main function in a child process.
pub(crate) fn child(setup: &ProducerSetup) -> anyhow::Result<()> {
    let publisher = publish(setup, &Bar::hidden(), None)?.context("publishing stopped without a signal")?;
    let mut copier = setup.copy.map(|copy| Copier::new(&publisher, copy)).transpose()?;
    send(&Reply::Serving { address: publisher.local_addr().to_string(), pages: publisher.slots() })?;
    while let Some(order) = receive()? {
        let copier = copier.as_mut().context("this producer was set up without threads that copy");
        let reply = match order {
            Order::Round { start, warmup, duration, routine } => {
                Reply::Ran(copier?.round(&publisher, routine, start, warmup, duration)?)
            }
            Order::Count(span) => Reply::Counted(copier?.count(span)),
            Order::Verify | Order::Register => bail!("a producer reads no pages, and was told: {order:?}"),
        };
        send(&reply)?;
    }
    Ok(())
}

/// Makes the slots, and writes and publishes every page. `None` if `stop` was requested meanwhile.
pub(crate) fn publish(
    setup: &ProducerSetup,
    bar: &Bar,
    stop: Option<&Stop>,
) -> anyhow::Result<Option<Publisher>> {
    let named =
        NamedLayout::find(&setup.layout).with_context(|| format!("no layout is called {}", setup.layout))?;
    let page_bytes = u64::from(named.layout.page_bytes());
    let slots = (setup.working_set / page_bytes).max(1);
    let slots = u32::try_from(slots).with_context(|| {
        format!("{slots} pages of {} are too many: give a smaller --working-set", named.name)
    })?;
    Memory::now().afford(u64::from(slots) * page_bytes, 1, || format!("{slots} pages of {}", named.name))?;
    let listen: Address = setup.listen.parse()?;
    let node = "kvrail-bench-serve".parse()?;
    let key = setup.key.peer_key()?;
    let publisher = match setup.transport {
        Transport::Shm => {
            let over = shm::publish(setup.rails.count()?.into());
            Publisher::start(node, named.layout, slots, &listen, key, over)?
        }
        Transport::Tcp => {
            let over = tcp::publish(interface(&setup.listen)?, setup.rails.count()?.into());
            Publisher::start(node, named.layout, slots, &listen, key, over)?
        }
        #[cfg(feature = "verbs")]
        Transport::Verbs => {
            let over = kvrail::verbs::publish_with(setup.rails.ports()?, setup.verbs.config()?)?;
            Publisher::start(node, named.layout, slots, &listen, key, over)?
        }
        #[cfg(not(feature = "verbs"))]
        Transport::Verbs => crate::cli::rails::not_built()?,
    };
    let seed = publisher.epoch().0.get();
    bar.length(u64::from(slots) * page_bytes);
    for slot in 0..slots {
        if stop.is_some_and(Stop::requested) {
            return Ok(None);
        }
        let generation = publisher.publications(slot)? + 1;
        publisher.write(slot, KeyTag(u128::from(seed ^ u64::from(slot))), |page| {
            pattern::fill(page, seed, slot, generation)
        })?;
        bar.add(page_bytes);
    }
    Ok(Some(publisher))
}

/// The interface at which pages are served over TCP: that of the address where readers connect.
fn interface(listen: &str) -> anyhow::Result<IpAddr> {
    match listen.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        _ => {
            let own = own_addresses().unwrap_or_default();
            let own = own.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
            bail!(
                "--listen {listen}: over tcp, give the IP address of the interface that readers reach, as in {}",
                SocketAddr::new(own, 7470)
            )
        }
    }
}
