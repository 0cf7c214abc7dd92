//! How many keys a second one thread looks up in the embedded directory, over loopback.
//!
//! ```text
//! cargo run --release -p kvrail-node --example look_ups       # a shard and a client
//! … look_ups shard                          # a shard alone: prints its address
//! … look_ups client ADDRESS BATCH BATCHES   # a client alone, for callgrind
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::num::NonZeroU64;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::PeerKey;
use kvrail::session::{Epoch, NoLanes, PoolId, ProducerDescription, Server, ServerConfig};
use kvrail_core::table::{Generation, KeyTag};
use kvrail_node::directory::embedded::{
    DIRECTORY_SERVICE, EmbeddedConfig, EmbeddedDirectory, EmbeddedShard, ShardConfig,
};
use kvrail_node::{Directory, Found, Owner, Record};

/// Keys that are known, each of one owner.
const KEYS: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shard"] => shard(),
        ["client", address, batch, batches] => client(address, batch.parse()?, batches.parse()?),
        _ => both(),
    }
}

fn key() -> PeerKey {
    PeerKey::from_bytes([0x5a; 32])
}

/// A shard, until its standard input ends.
fn shard() -> Result<(), Box<dyn Error>> {
    let shard = Arc::new(EmbeddedShard::new(ShardConfig::default()));
    let config = ServerConfig::default().service(DIRECTORY_SERVICE, shard);
    let producer = ProducerDescription { node: "shard".parse()?, pools: Vec::new() };
    let server = Server::start(&"127.0.0.1:0".parse()?, key(), producer, NoLanes, config)?;
    println!("{}", server.local_addr());
    std::io::stdin().lines().count();
    Ok(())
}

/// A shard in a process of its own, and clients of several sizes of batches.
fn both() -> Result<(), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("shard")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    for batch in [1, 8, 32, 128] {
        client(address.trim(), batch, 20_000)?;
    }
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

fn client(address: &str, batch: usize, batches: usize) -> Result<(), Box<dyn Error>> {
    let mut config = EmbeddedConfig::new(vec![address.parse()?], key(), "client".parse()?);
    // Under valgrind, or on a machine that does much else, making a session takes long.
    (config.connect, config.lease) = (Duration::from_secs(10), Duration::from_secs(600));
    let directory = EmbeddedDirectory::start(config)?;
    let owner = Owner {
        epoch: Epoch(NonZeroU64::MIN),
        node: "prefill-0".parse()?,
        address: "10.0.0.1:7470".parse()?,
        zone: "?".parse()?,
    };
    let tag = |key: usize| KeyTag((key as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let record = |key: usize| Record {
        tag: tag(key),
        owner: owner.epoch,
        pool: PoolId(0),
        slot: key as u32,
        generation: Generation(1),
    };
    let soon = || Instant::now() + Duration::from_secs(30);
    let records: Vec<_> = (0..KEYS).map(record).collect();
    directory.announce(&owner, &records, soon())?;
    let tags: Vec<_> = records.iter().map(|record| record.tag).collect();
    let mut found = Found::default();
    let (begun, mut hits) = (Instant::now(), 0);
    for round in 0..batches {
        let first = round * batch % (KEYS - batch);
        directory.look_up(&tags[first..first + batch], soon(), &mut found);
        hits += (0..batch).filter(|&key| found.records(key).is_ok_and(|records| records.len() == 1)).count();
    }
    let took = begun.elapsed();
    let keys = batch * batches;
    if hits != keys {
        return Err(format!("{} of {keys} keys were not found", keys - hits).into());
    }
    println!(
        "batches of {batch:3}: {:9.0} keys/s, {:6.1} us a batch",
        keys as f64 / took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / batches as f64
    );
    Ok(())
}
