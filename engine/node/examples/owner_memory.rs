//! The memory of a reader that is connected to many owners.
//!
//! ```text
//! cargo run --release -p kvrail-node --example owner_memory [OWNERS [PEERS]]
//! ```
//!
//! Another process has the owners (512), each with one page of 2,304 bytes. A node with places for
//! PEERS of them (512) and one rail of shared memory reads all pages twice. Prints the process's
//! resident bytes before the node is started, after it, and when all owners were read from.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read as _};
use std::num::NonZeroU64;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::{Epoch, PoolId};
use kvrail::{Bf16, KeyTag, KvLayout, NodeName, PageLayout, PeerKey, Publisher, memory, shm};
use kvrail_core::table::Generation;
use kvrail_node::{Directory, GetBatch, Key, Node, NodeConfig, Owner, Record};

mod common;
use common::MapDirectory;

/// 8 tokens of one layer of a small MLA: 2,304 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code, reason = "the fields say what a page is")]
struct Page {
    latent: [Bf16; 128],
    rope: [Bf16; 16],
}
const PAGE: PageLayout = PageLayout::of::<Page>();
const BYTES: usize = PAGE.page_bytes() as usize;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, owners] = &arguments[..]
        && role == "owners"
    {
        return own(owners.parse()?);
    }
    let number = |at: usize| arguments.get(at).map_or(Ok(512), |text| text.parse::<usize>());
    read(number(0)?, number(1)?)
}

fn peer_key() -> PeerKey {
    PeerKey::from_bytes([4; 32])
}

const fn tag(number: usize) -> KeyTag {
    KeyTag(1 + number as u128)
}

/// Publishes a page of each of so many owners, says where they are, and stays until its standard
/// input ends.
fn own(owners: usize) -> Result<(), Failure> {
    let mut publishers = Vec::with_capacity(owners);
    for number in 0..owners {
        let at = "127.0.0.1:0".parse()?;
        let publisher = Publisher::start("owner".parse()?, PAGE, 1, &at, peer_key(), shm::publish(1))?;
        let location = publisher.write(0, tag(number), |page| page.fill(number as u8))?;
        println!("{} {} {}", publisher.local_addr(), publisher.epoch().0, location.expected.generation.0);
        publishers.push(publisher);
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn read(owners: usize, peers: usize) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program);
    let child = child.args(["owners", &owners.to_string()]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let directory = Arc::new(MapDirectory::default());
    let far = Instant::now() + Duration::from_secs(60);
    for number in 0..owners {
        let line = lines.next().ok_or("an owner did not start")??;
        let [address, epoch, generation] = &line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(line.into());
        };
        let (owner, generation) = (Epoch(epoch.parse::<NonZeroU64>()?), Generation(generation.parse()?));
        let record = Record { tag: tag(number), owner, pool: PoolId(0), slot: 0, generation };
        let known = Owner {
            epoch: owner,
            node: "owner".parse()?,
            address: address.parse()?,
            zone: NodeName::lossy(""),
        };
        directory.announce(&known, &[record], far)?;
    }
    let before = Resident::now()?;
    let config = NodeConfig::new("reader".parse()?, peer_key()).layout(PAGE).peers(peers);
    let config = config.directory(directory).cache(0, Duration::ZERO);
    let node = Node::start(config, shm::publish(1), || shm::rails(1))?;
    let places = node.register(&PAGE, memory::leaked(owners * BYTES)?)?;
    let started = Resident::now()?;
    let mut batch = GetBatch::with_capacity(owners);
    for _ in 0..2 {
        for number in 0..owners {
            batch.read(Key(tag(number)), places.take_any().ok_or("no place")?);
        }
        let counts = node.get(&mut batch, Instant::now() + Duration::from_secs(60));
        if counts.misses > 0 {
            return Err(format!("{:?}", batch.results().find_map(Result::err)).into());
        }
        batch.clear();
    }
    let connected = Resident::now()?;
    println!(
        "{owners} owners, places for {peers}; resident bytes of the reader's process, private and shared:"
    );
    for (what, of) in [("before", &before), ("node started", &started), ("all read from", &connected)] {
        println!("{what:>14}: {:>12} {:>12}", of.private, of.shared);
    }
    let each = |now: u64, then: u64| now.saturating_sub(then) / owners.max(1) as u64;
    println!(
        "an owner: {} private, {} shared",
        each(connected.private, started.private),
        each(connected.shared, started.shared)
    );
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

/// What a process has in memory.
struct Resident {
    /// Memory of its own.
    private: u64,
    /// Of files and shared memory: also that of the owners, which their own processes have.
    shared: u64,
}

impl Resident {
    fn now() -> Result<Self, Failure> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = |line: &str| {
            let (name, rest) = line.split_once(':')?;
            let kilobytes = rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
            Some((name.to_owned(), kilobytes * 1024))
        };
        let of: HashMap<_, _> = status.lines().filter_map(line).collect();
        let of = |name: &str| of.get(name).copied().ok_or("the kernel does not say it");
        Ok(Self { private: of("RssAnon")?, shared: of("RssFile")? + of("RssShmem")? })
    }
}
