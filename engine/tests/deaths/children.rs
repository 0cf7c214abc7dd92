//! The processes that are killed and stopped.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvrail::{Publisher, ReaderEvent, clock, shm};

use super::owner::Requests;
use super::process::SESSION_IS_OVER;
use super::rng::Rng;
use super::taker::{Destination, Taker, Tally};
use super::{BLOCKS, LIMIT, MLA, REQUESTS, key, server_config, trigger};

/// The process was stopped, and goes on. Everything that it had taken is over.
static GOES_ON: AtomicBool = AtomicBool::new(false);
/// The session is over as well.
static SESSION_OVER: AtomicBool = AtomicBool::new(false);

/// Ends the process with its parent, and takes in that it goes on.
fn watch_input() {
    let watch = || {
        let mut byte = [0];
        while let Ok(1) = std::io::stdin().read(&mut byte) {
            SESSION_OVER.store(byte[0] == SESSION_IS_OVER, Ordering::Relaxed);
            GOES_ON.store(true, Ordering::Release);
        }
        std::process::exit(0);
    };
    std::thread::Builder::new().name("input".into()).spawn(watch).unwrap();
}

/// The reader's process: it reads until it dies. If it was stopped and goes on, it waits until the
/// producer, or the end of the session, has ended all that it had taken, and until it has seen the
/// end of the session where there is one: the producer's last messages arrive before it. Then it
/// reads the pages once more, and says what came of it.
pub(crate) fn read(address: &str, round: &str, plan: &str) {
    watch_input();
    trigger::watch(plan);
    let mut at = Destination::new(256);
    let peer = at.reader.connect(&address.parse().unwrap(), key()).unwrap();
    let mut taker = Taker::new(peer, round.parse().unwrap());
    println!("connected");
    let mut lost = false;
    while !GOES_ON.load(Ordering::Acquire) {
        trigger::after_handling();
        taker.take(&mut at);
        lost |= step(&mut at, &mut taker);
    }
    let until = Instant::now() + LIMIT;
    let session_over = SESSION_OVER.load(Ordering::Relaxed);
    while (!taker.takings().is_empty() || (session_over && !lost)) && Instant::now() < until {
        lost |= step(&mut at, &mut taker);
    }
    let untold = taker.takings().len();
    taker.read_late(&mut at);
    while !taker.batches().is_empty() {
        lost |= step(&mut at, &mut taker);
    }
    let Tally { expired, late, late_served, wrong, .. } = taker.tally;
    println!("{untold} {expired} {late} {late_served} {wrong} {}", u8::from(lost));
    loop {
        std::thread::park();
    }
}

/// Takes in what has happened; returns whether the peer is lost.
fn step(at: &mut Destination, taker: &mut Taker) -> bool {
    at.reader.wait(clock::within(Duration::from_millis(4)));
    at.reader.poll();
    while let Some((taking, event)) = at.reader.next_taking_event() {
        taker.event(at, taking, &event);
    }
    while let Some(mut done) = at.reader.next_done() {
        assert!(taker.done(at, &mut done));
    }
    taker.turn(at);
    let lost = matches!(at.reader.next_event(), Some(ReaderEvent::Lost { .. }));
    if lost {
        taker.forget_all();
    }
    lost
}

/// The producer's process: it hands requests over until it dies.
pub(crate) fn produce(round: &str, plan: &str) {
    watch_input();
    trigger::watch(plan);
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let (slots, config) = (REQUESTS * BLOCKS, server_config());
    let publisher = Publisher::start_with(name, MLA, slots, &listen, key(), shm::publish(1), config).unwrap();
    println!("{}", publisher.local_addr());
    let round = round.parse().unwrap();
    let (mut requests, mut rng) = (Requests::new(round, (0..slots).collect()), Rng::new(round));
    loop {
        trigger::after_handling();
        while let Some(ended) = publisher.next_ended_handover() {
            requests.take_back(&publisher, &ended);
        }
        let opens = publisher.readers() > 0;
        requests.turn(&publisher, &mut rng, Instant::now(), opens);
        std::thread::sleep(Duration::from_millis(4));
    }
}
