//! What a `get` of cached keys costs above a bare `read`, to be counted by callgrind.
//!
//! ```text
//! cargo build --release -p kvrail-node --example get_cost
//! engine/node/examples/count-get
//! ```
//!
//! `read N` reads N batches of 32 pages by a [`Reader`] and their locations; `get N` gets N batches
//! of 32 keys by a node that this thread drives, key bytes to destinations, records cached. Both
//! are over shared memory. Only the calling thread counts: the rails' threads copy the same in
//! both.
//!
//! `kept N` does the same as `get N`, but has made its [`Key`]s once, as an engine does that hashes
//! a page once and asks for it again and again.
//!
//! `embedded N` gets them with no cache, and looks each batch up in the embedded directory, which
//! the owner keeps. Then a thread for look-ups (`kvrail-look-0`) and one for the sessions
//! (`kvrail-lookups`) count as well; the owner's threads, which are in this process, do not.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::TagSecret;
use kvrail::{Bf16, Config, KvLayout, PageLayout, PeerKey, Reader, Slot, clock, memory, shm};
use kvrail_node::{Destination, Directory, GetBatch, Key, KeySpace, Namespace, Node, NodeConfig, Put};

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
const BATCH: usize = 32;
/// A digest of tokens, as engines name pages.
const KEY_BYTES: usize = 32;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // The second thread of the process, with a stack that valgrind does not guess.
    let counted = std::thread::Builder::new().name("counted".into()).stack_size(16 << 20);
    counted.spawn(run)?.join().map_err(|_| "the counted thread panicked")?
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let (what, batches) = match &arguments[..] {
        [_, what, batches] => (what.as_str(), batches.parse::<usize>()?),
        _ => return Err("usage: get_cost read|get|kept|embedded|hash BATCHES".into()),
    };
    let peer_key = PeerKey::from_bytes([4; 32]);
    let directory = Arc::new(MapDirectory::default());
    let config = NodeConfig::new("owner".parse()?, peer_key.clone()).pool(PAGE, BATCH as u32);
    let config = match what {
        "embedded" => config.embedded(Vec::new()),
        _ => config.directory(Arc::clone(&directory) as Arc<dyn Directory>),
    };
    let owner = Node::start(config, shm::publish(1), || shm::rails(1))?;
    let namespace = Namespace { model: "m".into(), layout: PAGE.fingerprint(), shape: "tp 1".into() };
    let space = KeySpace::new(&TagSecret::from_bytes([7; 32]), &namespace)?;
    let names: Vec<[u8; KEY_BYTES]> = (0..BATCH as u8).map(|n| [n; KEY_BYTES]).collect();
    let mut locations = Vec::new();
    for name in &names {
        let Put::Stored(record) = owner.put(&PAGE, space.key(name)?, &[name[0]; BYTES])? else {
            return Err("the page was there".into());
        };
        locations.push(record.location());
    }
    owner.announcer().ok_or("no announcer")?.flush(Instant::now() + Duration::from_secs(5))?;
    match what {
        "read" => {
            let mut reader = Reader::start(PAGE, shm::rails(1)?, Config::default())?;
            let mut slots: Vec<Slot> = reader.register(memory::leaked(BATCH * BYTES)?)?.collect();
            let address = owner.publisher().ok_or("no publisher")?.local_addr().into();
            let peer = reader.connect(&address, &peer_key)?;
            for _ in 0..batches {
                read(&mut reader, &peer, &locations, &mut slots)?;
            }
        }
        "get" | "kept" | "embedded" => {
            let config = NodeConfig::new("reader".parse()?, peer_key).layout(PAGE).look_up_threads(1);
            let config = if what == "embedded" {
                config.embedded(vec![owner.address().ok_or("no address")?]).cache(0, Duration::ZERO)
            } else {
                config.directory(directory).cache(1 << 16, Duration::from_secs(36_000))
            };
            let (node, mut driver) = Node::start_driven(config, shm::publish(1), shm::rails(1)?)?;
            let memory = memory::leaked(BATCH * BYTES)?;
            let places = std::thread::scope(|scope| {
                let registering = scope.spawn(|| node.register(&PAGE, memory));
                while !registering.is_finished() {
                    driver.poll();
                    driver.wait(Instant::now() + Duration::from_millis(10));
                }
                registering.join().map_err(|_| "registering panicked")
            })??;
            let mut held: Vec<Destination> = std::iter::from_fn(|| places.take_any()).collect();
            let mut batch = GetBatch::with_capacity(BATCH);
            let keys = names.iter().map(|name| space.key(name)).collect::<Result<Vec<_>, _>>()?;
            let kept_keys = what == "kept";
            let mut get = |n: usize| -> Result<(), Failure> {
                for (name, &key) in names.iter().zip(&keys) {
                    let key = if kept_keys { key } else { space.key(name)? };
                    batch.read(key, held.pop().ok_or("no destination")?);
                }
                let deadline = Instant::now() + Duration::from_secs(60);
                let mut handle = node.begin_get(std::mem::take(&mut batch), deadline);
                while !handle.poll() {
                    driver.poll();
                    if handle.poll() {
                        break;
                    }
                    driver.wait(deadline);
                }
                let Ok((got, counts)) = handle.finish() else { return Err("it was done".into()) };
                if counts.misses > 0 {
                    return Err(format!("batch {n}: {:?}", got.results().find_map(Result::err)).into());
                }
                batch = got;
                for destination in batch.take_destinations() {
                    held.push(destination);
                }
                Ok(())
            };
            for n in 0..batches {
                get(n)?;
            }
        }
        "hash" => {
            for _ in 0..batches {
                for name in &names {
                    let Key(tag) = space.key(std::hint::black_box(name))?;
                    std::hint::black_box(tag);
                }
            }
        }
        other => return Err(format!("`{other}`: read, get, kept, embedded or hash").into()),
    }
    Ok(())
}

fn read(
    reader: &mut Reader<shm::ShmRails>,
    peer: &kvrail::Peer,
    locations: &[kvrail::Location],
    slots: &mut Vec<Slot>,
) -> Result<(), Failure> {
    let mut batch = reader.batch().ok_or("all batches are in use")?;
    for &location in locations {
        let slot = slots.pop().ok_or("no slot")?;
        batch.read(peer.page(location)?, slot).map_err(|(error, _)| error)?;
    }
    let deadline = clock::within(Duration::from_secs(60));
    reader.submit(batch, deadline).map_err(|rejected| rejected.to_string())?;
    loop {
        reader.poll();
        if let Some(mut done) = reader.next_done() {
            for page in done.pages() {
                page.result?;
                slots.push(page.slot);
            }
            return Ok(());
        }
        reader.wait(deadline);
    }
}
