//! One side of a running hand-over is killed or stopped, and the other has its memory back.
//!
//! The survivor is this process: first a publisher whose readers die, then a reader whose producers
//! die. The other sides are processes of this program, one for each round, with the argument `read`
//! or `produce`. They read over shared memory, and their sessions are connections over loopback. In
//! each round the other side gets SIGKILL or SIGSTOP, after a random time or at a message: then it
//! sends itself the signal when it meets the k-th message of a kind, before or after it handles it.
//!
//! `KVRAIL_ROUNDS` says how many rounds there are, half of them for each survivor.

mod children;
mod measured;
mod owner;
#[path = "../handover/pattern.rs"]
mod pattern;
mod plan;
mod process;
mod producers_die;
mod readers_die;
mod rng;
mod taker;
mod trigger;

use std::time::Duration;

use kvrail::session::ServerConfig;
use kvrail::session::handover::HandoverConfig;
use kvrail::{Bf16, KvLayout, PageLayout, PeerKey};

/// How many rounds there are if `KVRAIL_ROUNDS` says nothing.
const ROUNDS: usize = 100;
/// How many rounds run at the same time.
const AT_ONCE: usize = 16;
/// The lease of all hand-overs.
const LEASE: Duration = Duration::from_secs(1);
/// How long a survivor may wait for its memory after the death of the other side.
const BOUND: Duration = Duration::from_secs(2);
/// How long a step of a round may take that has no bound of its own, so that a fault of the test
/// ends it.
const LIMIT: Duration = Duration::from_secs(60);

/// Requests of one reader at a time.
const REQUESTS: u32 = 3;
/// Blocks of a request.
const BLOCKS: u32 = 4;
const LAYERS: u32 = 4;

/// Pages of 4 layers; a part is a layer, of 2 KiB.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Mla {
    latent: [Bf16; 64],
}

const MLA: PageLayout = PageLayout::of::<Mla>();
const PAGE: usize = MLA.page_bytes() as usize;
const PART: usize = PAGE / LAYERS as usize;

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn server_config() -> ServerConfig {
    let renew_every = Duration::from_millis(200);
    let handovers = HandoverConfig { lease: LEASE, renew_every, ..HandoverConfig::default() };
    ServerConfig { handovers, ..ServerConfig::default() }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", address, number, plan] => children::read(address, number, plan),
        ["produce", number, plan] => children::produce(number, plan),
        _ if arguments.iter().any(|argument| argument == "--list") => println!("deaths: test"),
        _ => {
            let each = rounds().div_ceil(2);
            readers_die::run(each);
            producers_die::run(each);
        }
    }
}

fn rounds() -> usize {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("KVRAIL_RO")) {
        assert_eq!(name, "KVRAIL_ROUNDS", "{name} is set; this test knows KVRAIL_ROUNDS");
    }
    let Ok(value) = std::env::var("KVRAIL_ROUNDS") else { return ROUNDS };
    let rounds = value.parse().ok().filter(|&rounds| rounds >= ROUNDS);
    rounds.unwrap_or_else(|| panic!("KVRAIL_ROUNDS is {value:?}: expected a number of {ROUNDS} or more"))
}
