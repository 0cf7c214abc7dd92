//! The producing process: publishes pages and then does nothing; that is the point.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use kvrail::core::table::KeyTag;
use kvrail::session::Address;
use kvrail::{Publisher, shm, tcp};
use serde::{Deserialize, Serialize};

use crate::budget::Memory;
use crate::catalogue::Named;
use crate::child::{Order, Reply, hear, say};
use crate::cli::{Key, ServeArgs, Transport};
use crate::drive_command::{self, Reachable};
use crate::memcpy::Copier;
use crate::output::{self, Read};
use crate::pattern;
use crate::progress::Bar;
use crate::rails::{Rails, VerbsArgs};
use crate::stop::Stop;

/// All that a producer has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) listen: String,
    pub(crate) key: Key,
    pub(crate) transport: Transport,
    pub(crate) layout: String,
    pub(crate) working_set: u64,
    pub(crate) rails: Rails,
    pub(crate) verbs: VerbsArgs,
    /// Threads of the plain copy, and pages that each copies at a time; none unless asked for.
    pub(crate) copier: Option<(usize, usize)>,
}

/// `serve`: until it is stopped.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    // Before anything is published, so that whatever is published is released.
    let mut stop = Stop::catch()?;
    let key = match args.key.read()? {
        Some(key) => key,
        None => Key::random()?,
    };
    let setup = Setup {
        listen: args.listen.to_string(),
        key: key.clone(),
        transport: args.transport,
        layout: args.layout.name.into(),
        working_set: args.working_set,
        rails: Rails::of(args.rails.as_ref(), args.transport, 1)?,
        verbs: args.verbs.clone(),
        copier: None,
    };
    let bar = Bar::new("publishing pages", 0);
    let Some(publisher) = publish(&setup, &bar, Some(&stop))? else { return Ok(()) };
    bar.done();
    let at = Reachable::of(publisher.local_addr())?;
    let line = drive_command::line(args, at.best, &key)?;
    // Without a reader nobody learns the key.
    if output::stdout(&line)? == Read::No {
        return Ok(());
    }
    let pages = format!("{} pages of {}", publisher.slots(), args.layout.label());
    output::stderr(explained(&pages, args.transport, &at).as_bytes())?;
    if let Some(signal) = stop.wait() {
        output::stderr(format!("stopped by {signal}\n").as_bytes())?;
    }
    Ok(())
}

/// What there is, and who can read it by the line that has been printed.
fn explained(pages: &str, transport: Transport, at: &Reachable) -> String {
    let mut text =
        format!("{pages} over {}; run the line above to read them, Ctrl-C to stop\n", transport.label());
    if transport == Transport::Shm {
        return text;
    }
    if at.from_afar {
        text += "On another host, run it with that host's kvrail-bench.\n";
    } else {
        text += "It reads from this host only: --listen an address that others reach, or 0.0.0.0.\n";
    }
    if !at.others.is_empty() {
        let others: Vec<_> = at.others.iter().map(ToString::to_string).collect();
        text += &format!("This host listens at {} as well.\n", others.join(", "));
    }
    text
}

/// A producer's main function as a child.
pub(crate) fn child(setup: &Setup) -> anyhow::Result<()> {
    let publisher = publish(setup, &Bar::hidden(), None)?.context("nobody stops this producer")?;
    let mut copier = match setup.copier {
        Some((threads, run)) => Some(Copier::new(&publisher, threads, run)?),
        None => None,
    };
    say(&Reply::Serving { address: publisher.local_addr().to_string(), pages: publisher.slots() })?;
    while let Some(order) = hear()? {
        let reply = match order {
            Order::Round { start, warmup, duration, routine } => {
                let copier = copier.as_mut().context("this producer was not asked to copy")?;
                let (warmup, duration) = (Duration::from_nanos(warmup), Duration::from_nanos(duration));
                Reply::Ran(copier.round(&publisher, routine, start, warmup, duration)?)
            }
            Order::Count(span) => {
                let copier = copier.as_ref().context("this producer was not asked to copy")?;
                Reply::Counted(copier.count(span))
            }
            Order::Verify | Order::Register => bail!("a producer has no pages to read: {order:?}"),
        };
        say(&reply)?;
    }
    Ok(())
}

/// Makes the slots, and writes and publishes every page; `None` if it is told to stop meanwhile.
fn publish(setup: &Setup, bar: &Bar, stop: Option<&Stop>) -> anyhow::Result<Option<Publisher>> {
    let named = Named::find(&setup.layout).context("no such layout")?;
    let page_bytes = u64::from(named.layout.page_bytes());
    let slots =
        u32::try_from((setup.working_set / page_bytes).max(1)).context("--working-set is too large")?;
    Memory::now().afford(u64::from(slots) * page_bytes, 1, || format!("{slots} pages of {}", named.name))?;
    let listen: Address = setup.listen.parse()?;
    let node = "kvrail-bench-serve".parse()?;
    let key = setup.key.peer_key()?;
    let mut publisher = match setup.transport {
        Transport::Shm => {
            let over = shm::publish(setup.rails.count()?.into());
            Publisher::start(node, named.layout, slots, &listen, key, over)?
        }
        Transport::Tcp => {
            let over = tcp::publish(ip(&setup.listen)?, setup.rails.count()?.into());
            Publisher::start(node, named.layout, slots, &listen, key, over)?
        }
        #[cfg(feature = "verbs")]
        Transport::Verbs => {
            let over = kvrail::verbs::publish_with(setup.rails.ports()?, setup.verbs.config()?)?;
            Publisher::start(node, named.layout, slots, &listen, key, over)?
        }
        #[cfg(not(feature = "verbs"))]
        Transport::Verbs => crate::rails::not_built()?,
    };
    let seed = publisher.epoch().0.get();
    bar.length(u64::from(slots) * page_bytes);
    for slot in 0..slots {
        if stop.is_some_and(Stop::asked) {
            return Ok(None);
        }
        let generation = publisher.publications(slot)? + 1;
        publisher.write(slot, KeyTag(seed ^ u64::from(slot)), |page| {
            pattern::fill(page, seed, slot, generation)
        })?;
        bar.add(page_bytes);
    }
    Ok(Some(publisher))
}

/// Pages over TCP are served at the interface that the bootstrap is served at.
fn ip(listen: &str) -> anyhow::Result<IpAddr> {
    match listen.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        _ => {
            let own = drive_command::own_addresses().unwrap_or_default();
            let own = own.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
            bail!(
                "--listen {listen}: over tcp, give the IP address of the interface that readers reach, as in {}",
                SocketAddr::new(own, 7470)
            )
        }
    }
}
