//! A request's pages are handed over between two processes, part by part, over shared memory. The
//! producer aborts requests at random and writes into their slots at once, while the reader reads
//! them: a part is right, in every byte, or a miss.
//!
//! This program is both processes: with the argument `produce` it is the producer.

mod pattern;
mod produce;
mod read;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use kvrail::{Address, Bf16, KvLayout, PageLayout, PeerKey};

/// Parts that are to be served.
const PARTS: u64 = 100_000;
const LIMIT: Duration = Duration::from_secs(300);
/// Blocks of a request.
const BLOCKS: u32 = 8;
const LAYERS: u32 = 16;
/// Requests at a time.
const AT_ONCE: u32 = 6;

/// Pages of 16 layers; a part is a layer, of 2 KiB.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 16, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Mla {
    latent: [Bf16; 64],
}

const MLA: PageLayout = PageLayout::of::<Mla>();
const PART: usize = MLA.page_bytes() as usize / LAYERS as usize;

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

/// The producer's process. It ends when its standard input is closed.
struct Producer {
    child: Child,
    input: Option<ChildStdin>,
    address: Address,
}

impl Producer {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("produce")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|error| panic!("`{line}`: {error}"));
        Self { input: child.stdin.take(), child, address }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.input.take();
        let until = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "produce") {
        return produce::run();
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return println!("parts: test");
    }
    let producer = Producer::start();
    let begun = Instant::now();
    let tally = read::parts(&producer.address, PARTS, begun + LIMIT);
    let seconds = begun.elapsed().as_secs_f64();
    println!("{tally}, in {seconds:.1} s");
    std::io::stdout().flush().unwrap();
    assert_eq!(tally.wrong, 0, "parts are served wrong");
    assert!(tally.served >= PARTS, "only {} parts in {LIMIT:?}", tally.served);
    // Otherwise the two have not met.
    assert!(tally.aborted > 100 && tally.growing > PARTS / 10, "{tally}");
}
