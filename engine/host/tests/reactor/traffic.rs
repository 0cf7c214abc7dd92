//! Bytes: many connections, and peers that take or give too much.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use kvrail_host::reactor::{Connection, Flow};

use crate::common::{Call, Probe, at_end, connect, deadline, echo, listening, next, pair, until};

const ROUNDS: usize = 4;

/// Connects, sends a message of its own in each of a few rounds and compares the echo.
fn caller(index: usize, say: std::sync::mpsc::Sender<usize>) -> Box<Probe> {
    let message = move |round: usize| -> Vec<u8> {
        (0..300 + index % 50).map(|at| (at * 7 + index * 31 + round * 3) as u8).collect()
    };
    let (mut round, mut sent, mut got) = (0, false, Vec::new());
    let does = move |call: Call<'_>, _: &mut _| {
        match call {
            Call::Fill(out) if !sent => {
                sent = true;
                out.extend(message(round));
            }
            Call::Bytes(bytes) => {
                got.extend_from_slice(bytes);
                let expected = message(round);
                if got.len() == expected.len() {
                    assert!(got == expected, "the echo of {index} in round {round}");
                    (round, sent) = (round + 1, false);
                    got.clear();
                    if round == ROUNDS {
                        sent = true;
                        let _ = say.send(index);
                    }
                }
            }
            _ => {}
        }
        Flow::GoOn
    };
    Probe::new(does).0
}

#[test]
fn a_thousand_connections_are_served_at_both_ends_by_one_thread() {
    let (_reactor, handle, address, _) = listening(|_| Some(echo()));
    let (say, said) = channel();
    for index in 0..1000 {
        handle.connect(address, deadline(), caller(index, say.clone())).unwrap();
    }
    let mut seen: Vec<_> = (0..1000).map(|_| next(&said)).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1000));
}

#[test]
fn peers_that_never_read_or_never_stop_sending_delay_no_other() {
    let (flood, sunk, stop) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (flooded, taken) = (Arc::clone(&flood), Arc::clone(&sunk));
    let mut kind = 0;
    let (_reactor, _handle, address, _) = listening(move |_| {
        kind += 1;
        let (flooded, taken) = (Arc::clone(&flooded), Arc::clone(&taken));
        let connection: Box<dyn Connection> = match kind {
            1 => {
                Probe::new(move |call, _| {
                    if let Call::Fill(out) = call {
                        out.resize(200_000, 5);
                        flooded.fetch_add(200_000, Ordering::Relaxed);
                    }
                    Flow::GoOn
                })
                .0
            }
            2 => {
                Probe::new(move |call, _| {
                    if let Call::Bytes(bytes) = call {
                        taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    }
                    Flow::GoOn
                })
                .0
            }
            _ => echo(),
        };
        Some(connection)
    });
    // Connections are accepted in the order in which they were made.
    let never_reads = connect(address);
    let mut sends = connect(address);
    let stopped = Arc::clone(&stop);
    let sender = std::thread::spawn(move || {
        let bytes = vec![1; 1 << 18];
        while !stopped.load(Ordering::Relaxed) {
            sends.write_all(&bytes).unwrap();
        }
    });
    until("bytes for the peer that does not read", || flood.load(Ordering::Relaxed) > 0);
    until("bytes of the sender", || sunk.load(Ordering::Relaxed) > 1 << 20);
    let mut other = connect(address);
    let before = sunk.load(Ordering::Relaxed);
    let mut answers = 0;
    while answers < 200 || sunk.load(Ordering::Relaxed) < before + (64 << 20) {
        other.write_all(b"question").unwrap();
        let mut answer = [0; 8];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"question");
        answers += 1;
    }
    let given = flood.load(Ordering::Relaxed);
    assert!(given < 64 << 20, "{given} bytes were asked for, and the peer took none");
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    drop(never_reads);
}

#[test]
fn a_half_closed_peer_gets_all_answers_and_the_end() {
    let (reactor, mut far) = (kvrail_host::reactor::Reactor::start("reactor").unwrap(), pair());
    let echo = echo();
    let most: Arc<AtomicUsize> = Arc::clone(&echo.most);
    reactor.handle().add(far.0, echo).unwrap();
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|at| (at / 3) as u8).collect();
    let mut writer = far.1.try_clone().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    // Nothing is read until both directions are full: the connection does not take bytes then.
    until("held bytes", || most.load(Ordering::Relaxed) >= 100_000);
    let mut got = Vec::new();
    far.1.read_to_end(&mut got).unwrap();
    assert!(got == bytes, "{} bytes came back", got.len());
    writer.join().unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!(most < 100_000 + (64 << 10), "{most} bytes were held");
}

#[test]
fn a_last_message_arrives_although_bytes_are_unread() {
    let (reactor, (near, mut far)) = (kvrail_host::reactor::Reactor::start("reactor").unwrap(), pair());
    let (mut last, mut calls) = (Some(vec![9; 100_000]), 0);
    let (probe, drops) = Probe::new(move |call, _| match call {
        Call::Bytes(_) => {
            calls += 1;
            assert_eq!(calls, 1, "no bytes after the last message");
            Flow::Finish { linger: 2 * crate::common::LIMIT }
        }
        Call::Fill(out) => {
            if calls > 0 {
                out.extend(last.take().unwrap_or_default());
            }
            Flow::GoOn
        }
        _ => panic!("only `fill` is called"),
    });
    // All this waits in the socket before the connection is served.
    far.write_all(&[1; 100_000]).unwrap();
    reactor.handle().add(near, probe).unwrap();
    far.write_all(&[1; 8 << 20]).unwrap();
    let mut got = vec![0; 100_000];
    far.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|&byte| byte == 9) && at_end(&mut far));
    far.write_all(&[1; 1 << 20]).unwrap();
    assert_eq!(drops.count(), 0, "it waits until the peer has read the message");
    drop(far);
    drops.wait();
}
