//! `churn`: pages are overwritten while they are read, and every byte that arrives is checked.

use std::process::ExitCode;
use std::time::Duration;

use kvrail::session::Address;

use crate::catalogue::{NamedLayout, named_layout};
use crate::cli::common::{Transport, chunk, duration};
use crate::cli::directory::{CacheArgs, DirectoryKind, DirectorySetup};
use crate::cli::key::Key;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::redis_server::RedisServer;
use crate::output::churn::{self, Report, Settings};
use crate::output::host::Watch;
use crate::output::json::Sink;
use crate::output::progress::Bar;
use crate::process::parent::Child;
use crate::process::protocol::{
    ChurnProducerSetup, ChurnReaderSetup, Order, Overwritten, ProducerSetup, Read, Reply, Role,
};
use crate::process::stop::Stop;

/// The longest round. After each round the progress bar moves, and a signal or a dead process is
/// noticed.
const ROUND: Duration = Duration::from_secs(1);
/// How long a process may take to start.
const START: Duration = Duration::from_secs(60);
/// How much longer than planned it may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The chunk of every second reader: a page then travels in several, between which its slot can be
/// overwritten.
const SMALL_CHUNK: u32 = 8 << 10;

/// Overwrite the pages of a small pool while readers get them by key, and check every byte that
/// they are given. A wrong page is a failure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pages of the producer's pool.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pool_pages: u32,
    /// Keys that are put and got: more than the pool has pages, so that pages are evicted.
    #[arg(long, default_value = "12", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    keys: u32,
    /// How long it goes on.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Where keys are looked up: embedded (in the producer), redis (a private redis-server on
    /// loopback), one-sided, redis://host:port, redis-cluster://host:port,host:port.
    #[arg(long, default_value = "embedded")]
    directory: DirectoryKind,
    #[command(flatten)]
    cache: CacheArgs,
    /// Read pages without validation, which no use of kvrail does: wrong pages must then be found.
    #[arg(long)]
    no_validation: bool,
    /// Spoil the directory's answers: swap records between keys, replay withdrawn ones, forge
    /// generations, slots, pools and owners.
    #[arg(long)]
    adversary: bool,
    /// Reading processes: 1 to 16.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u8).range(1..=16))]
    readers: u8,
    /// Pages that the producer writes in a second, in bursts of up to 16 back to back. With more,
    /// fewer of the pages that a directory names are still there.
    #[arg(long, default_value = "4000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pace: u32,
    /// The layout of the pages.
    #[arg(long, default_value = "vllm_fp8_ds_mla", value_parser = named_layout())]
    layout: NamedLayout,
    /// Pages travel in pieces of this size: a power of two, at least 4KiB. By default what suits
    /// the transport, and 8KiB for every second reader.
    #[arg(long, value_parser = chunk)]
    chunk_bytes: Option<u32>,
    /// Chooses keys and changes; the same seed makes the same choices.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Write the report as JSON to this file; `-` for stdout (the text then goes to stderr).
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Starts the processes, lets them churn, and reports.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::catch()?;
    let json = args.json.as_deref().map(Sink::open).transpose()?;
    let watch = Watch::start();
    let redis = matches!(args.directory, DirectoryKind::PrivateRedis).then(RedisServer::start).transpose()?;
    let url = match (&redis, &args.directory) {
        (Some(server), _) => Some(server.url()),
        (None, DirectoryKind::Redis(url)) => Some(url.clone()),
        _ => None,
    };
    // Runs that share a server do not meet.
    let prefix = format!("kvrail-churn-{}", std::process::id());
    let directory = |producer: Option<String>| match &url {
        Some(url) => DirectorySetup::Redis { url: url.clone(), prefix: prefix.clone() },
        None => DirectorySetup::of(&args.directory, producer),
    };

    let key = Key::random()?;
    let (mut producer, address) = start_producer(args, &key, directory(None))?;
    let mut readers = Vec::with_capacity(args.readers.into());
    for number in 0..args.readers {
        let setup = ChurnReaderSetup {
            key: key.clone(),
            layout: args.layout.name.into(),
            directory: directory(Some(address.to_string())),
            dir_cache: args.cache.dir_cache,
            keys: args.keys.into(),
            validate: !args.no_validation,
            adversary: args.adversary,
            chunk_bytes: args.chunk_bytes.or((number % 2 == 1).then_some(SMALL_CHUNK)),
            seed: args.seed.wrapping_add(1 + u64::from(number)),
        };
        readers.push(Child::start(format!("reader {}", number + 1), &Role::ChurnReader(setup))?);
    }
    for reader in &mut readers {
        match reader.reply(START)? {
            Reply::Ready(_) => {}
            other => return Err(reader.unexpected(&other)),
        }
    }

    let rounds = args.duration.as_nanos().div_ceil(ROUND.as_nanos()).max(1) as u32;
    let bar = Bar::steps("overwriting and reading", rounds.into());
    let (mut overwritten, mut read) = (Overwritten::default(), Read::default());
    let mut over = 0;
    while over < rounds && !stop.requested() {
        round(&mut producer, &mut readers, args.duration / rounds, &mut overwritten, &mut read)?;
        over += 1;
        bar.add(1);
    }
    bar.done();
    let settings = Settings {
        directory: args.directory.to_string(),
        layout: args.layout.name,
        page_bytes: args.layout.layout.page_bytes(),
        pool_pages: args.pool_pages,
        keys: args.keys,
        readers: args.readers,
        pace: args.pace,
        dir_cache_s: args.cache.dir_cache.as_secs_f64(),
        validation: !args.no_validation,
        adversary: args.adversary,
        seed: args.seed,
        seconds: (args.duration / rounds * over).as_secs_f64(),
        partial: stop.requested(),
    };
    churn::deliver(&Report::new(settings, overwritten, read, &watch), json)?;
    Ok(stop.exit_code())
}

fn start_producer(args: &Args, key: &Key, directory: DirectorySetup) -> anyhow::Result<(Child, Address)> {
    let page_bytes = u64::from(args.layout.layout.page_bytes());
    let setup = ChurnProducerSetup {
        producer: ProducerSetup {
            listen: "127.0.0.1:0".into(),
            key: key.clone(),
            transport: Transport::Shm,
            layout: args.layout.name.into(),
            working_set: page_bytes * u64::from(args.pool_pages),
            rails: Rails::Count(1),
            verbs: VerbsArgs::default(),
            near_nics: true,
            directory,
            copy: None,
        },
        pool_pages: args.pool_pages,
        keys: args.keys.into(),
        pace: args.pace,
        seed: args.seed,
    };
    let mut producer = Child::start("producer", &Role::ChurnProducer(setup))?;
    match producer.reply(START)? {
        Reply::Serving { address, .. } => Ok((producer, address.parse()?)),
        other => Err(producer.unexpected(&other)),
    }
}

/// Lets all processes work for `duration`, and adds up what they did.
fn round(
    producer: &mut Child,
    readers: &mut [Child],
    duration: Duration,
    overwritten: &mut Overwritten,
    read: &mut Read,
) -> anyhow::Result<()> {
    // The command line permits an hour at most.
    let order = Order::Churn(duration.as_nanos() as u64);
    producer.order(order)?;
    readers.iter_mut().try_for_each(|reader| reader.order(order))?;
    for reader in readers {
        match reader.reply(duration + PATIENCE)? {
            Reply::Read(more) => read.add(&more),
            other => return Err(reader.unexpected(&other)),
        }
    }
    match producer.reply(duration + PATIENCE)? {
        Reply::Overwritten(more) => overwritten.add(&more),
        other => return Err(producer.unexpected(&other)),
    }
    Ok(())
}
