//! The producing process: publishes pages and then does nothing; that is the point.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use kvrail::core::table::KeyTag;
use kvrail::session::Address;
use kvrail::{Publisher, shm, tcp};
use serde::{Deserialize, Serialize};

use crate::catalogue::Named;
use crate::child::{Order, Reply, hear, say};
use crate::cli::{Key, ServeArgs, Transport};
use crate::host;
use crate::memcpy::Copier;
use crate::pattern;
use crate::progress::Bar;
use crate::rails::{Rails, VerbsArgs};
use crate::window::count;

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
    let given = args.key.read()?;
    let key = match &given {
        Some(key) => key.clone(),
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
    let publisher = publish(&setup, &bar)?;
    bar.done();
    let key = match &args.key.key_file {
        Some(path) => format!("--key-file {}", path.display()),
        None => format!("--key {}", key.hex()),
    };
    // One write: whoever reads the pipe gets all of it or nothing.
    let line = format!(
        "kvrail-bench drive --connect {} {key} --transport {} --layout {}\n",
        publisher.local_addr(),
        args.transport.name(),
        args.layout.name
    );
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("cannot print the line for drive")?;
    drop(out);
    let _ = writeln!(
        std::io::stderr(),
        "{} pages of {} over {}; run the line above to read them, Ctrl-C to stop",
        publisher.slots(),
        args.layout.label(),
        args.transport.label()
    );
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// A producer's main function as a child.
pub(crate) fn child(setup: &Setup) -> anyhow::Result<()> {
    let publisher = publish(setup, &Bar::hidden())?;
    let mut copier = match setup.copier {
        Some((threads, run)) => Some(Copier::new(&publisher, threads, run)?),
        None => None,
    };
    say(&Reply::Serving { address: publisher.local_addr().to_string(), pages: publisher.slots() })?;
    let mut samples = Vec::new();
    while let Some(order) = hear()? {
        let reply = match order {
            Order::Round { start, warmup, duration, routine } => {
                let copier = copier.as_mut().context("this producer was not asked to copy")?;
                let (warmup, duration) = (Duration::from_nanos(warmup), Duration::from_nanos(duration));
                let (span, some) = copier.round(&publisher, routine, start, warmup, duration);
                samples = some;
                Reply::Ran(span)
            }
            Order::Count(span) => Reply::Counted(count(&samples, span)),
            Order::Verify => bail!("a producer has nothing to verify"),
        };
        say(&reply)?;
    }
    Ok(())
}

/// Makes the slots, and writes and publishes every page.
fn publish(setup: &Setup, bar: &Bar) -> anyhow::Result<Publisher> {
    let named = Named::find(&setup.layout).context("no such layout")?;
    let page_bytes = u64::from(named.layout.page_bytes());
    let slots =
        u32::try_from((setup.working_set / page_bytes).max(1)).context("--working-set is too large")?;
    host::afford(u64::from(slots) * page_bytes, &format!("{slots} pages of {}", named.name))?;
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
        let generation = publisher.publications(slot)? + 1;
        publisher.write(slot, KeyTag(seed ^ u64::from(slot)), |page| {
            pattern::fill(page, seed, slot, generation)
        })?;
        bar.add(page_bytes);
    }
    Ok(publisher)
}

/// Pages over TCP are served at the interface that the bootstrap is served at.
fn ip(listen: &str) -> anyhow::Result<IpAddr> {
    match listen.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        _ => bail!(
            "--listen {listen}: over tcp, give the IP address of the interface that readers reach, as in 10.0.0.1:7470"
        ),
    }
}
