//! Timers, and calls from other threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvrail_host::reactor::{Flow, Reactor};

use crate::common::{Call, Probe, deadline, far, next, pair, until};

const TIMED: usize = 200;

#[test]
fn ticks_come_in_the_order_of_their_times() {
    let reactor = Reactor::start("reactor").unwrap();
    let handle = reactor.handle();
    let base = Arc::new(Mutex::new(far()));
    let (say, said) = channel();
    let mut ids = Vec::new();
    let mut peers = Vec::new();
    for index in 0..TIMED {
        let (near, peer) = pair();
        let (base, say) = (Arc::clone(&base), say.clone());
        let after = Duration::from_millis((index * 77 % TIMED) as u64);
        let (probe, _) = Probe::new(move |call, state| {
            match call {
                Call::Notified => {
                    state.due = *base.lock().unwrap() + after;
                    say.send((None, state.due)).unwrap();
                }
                Call::Tick(_) => {
                    let due = std::mem::replace(&mut state.due, far());
                    say.send((Some(index), due)).unwrap();
                }
                _ => {}
            }
            Flow::GoOn
        });
        ids.push(handle.add(near, probe).unwrap());
        peers.push(peer);
    }
    // All times must be set before the first of them passes: otherwise it is done again with more
    // time.
    let mut wait = Duration::from_millis(100);
    let give_up = deadline();
    loop {
        assert!(Instant::now() < give_up);
        let begin = Instant::now() + wait;
        *base.lock().unwrap() = begin;
        ids.iter().for_each(|&id| handle.notify(id));
        let (mut set, mut ticks) = (0, Vec::new());
        let mut in_time = false;
        while set < TIMED || ticks.len() < TIMED {
            match next(&said) {
                (None, _) => {
                    set += 1;
                    in_time |= set == TIMED && Instant::now() < begin;
                }
                (Some(index), due) => ticks.push((due, index)),
            }
        }
        if in_time {
            assert!(ticks.is_sorted(), "{ticks:?}");
            let mut all: Vec<_> = ticks.iter().map(|tick| tick.1).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..TIMED));
            return;
        }
        wait *= 2;
    }
}

#[test]
fn a_time_that_moves_earlier_or_later_loses_no_tick() {
    let reactor = Reactor::start("reactor").unwrap();
    let handle = reactor.handle();
    let (say, said) = channel();
    let (near, _peer) = pair();
    let mut moves = 0;
    let (probe, _) = Probe::new(move |call, state| {
        match call {
            Call::Notified => {
                // Earlier in two of three cases, later in the third, while a tick is due soon.
                moves += 1;
                state.due = Instant::now() + Duration::from_millis([3, 1, 20][moves % 3]);
            }
            Call::Tick(now) => {
                say.send((now, state.due)).unwrap();
                state.due = far();
            }
            _ => {}
        }
        Flow::GoOn
    });
    let id = handle.add(near, probe).unwrap();
    for turn in 0..200 {
        handle.notify(id);
        if turn % 3 == 2 {
            let (now, due) = next(&said);
            assert!(now >= due);
        }
    }
    handle.notify(id);
    next(&said);
}

#[test]
fn a_time_that_stays_in_the_past_blocks_no_other_connection() {
    let reactor = Reactor::start("reactor").unwrap();
    let handle = reactor.handle();
    let ((near, _peer), (other, _other_peer)) = (pair(), pair());
    let ticks = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&ticks);
    let (probe, _) = Probe::new(move |call, _| {
        if let Call::Tick(_) = call {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Flow::GoOn
    });
    handle.add(near, probe.due(Instant::now())).unwrap();
    until("ticks", || ticks.load(Ordering::Relaxed) > 20);
    let (say, said) = channel();
    let (probe, _) = Probe::new(move |call, state| {
        if let Call::Tick(_) = call {
            state.due = far();
            say.send(()).unwrap();
        }
        Flow::GoOn
    });
    handle.add(other, probe.due(Instant::now() + Duration::from_millis(5))).unwrap();
    next(&said);
}

#[test]
fn notifications_that_wait_count_as_one() {
    let reactor = Reactor::start("reactor").unwrap();
    let handle = reactor.handle();
    let (near, _peer) = pair();
    let (say, said) = channel();
    let (release, released) = channel::<()>();
    let (probe, _) = Probe::new(move |call, _| {
        if let Call::Notified = call {
            say.send(()).unwrap();
            next(&released);
        }
        Flow::GoOn
    });
    let id = handle.add(near, probe).unwrap();
    handle.notify(id);
    next(&said);
    // The thread is in the first call.
    for _ in 0..1000 {
        handle.notify(id);
    }
    release.send(()).unwrap();
    next(&said);
    release.send(()).unwrap();
    // This one waits behind any other that was left.
    handle.notify(id);
    next(&said);
    release.send(()).unwrap();
    assert!(reactor.stop(Instant::now()));
    assert!(said.try_recv().is_err(), "a thousand notifications are one or two calls");
}

#[test]
fn no_notification_of_four_threads_is_lost() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50_000;
    const CONNECTIONS: usize = 8;
    let reactor = Reactor::start("reactor").unwrap();
    let handle = reactor.handle();
    let mut peers = Vec::new();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (near, peer) = pair();
            peers.push(peer);
            let (given, seen, calls) =
                (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
            let (of, to, count) = (Arc::clone(&given), Arc::clone(&seen), Arc::clone(&calls));
            let (probe, _) = Probe::new(move |call, _| {
                if let Call::Notified = call {
                    count.fetch_add(1, Ordering::SeqCst);
                    to.store(of.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                Flow::GoOn
            });
            (handle.add(near, probe).unwrap(), given, seen, calls)
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (handle, connections) = (handle.clone(), &connections);
            scope.spawn(move || {
                for turn in 0..EACH {
                    let (id, given, ..) = &connections[((turn * 5 + thread) % CONNECTIONS as u64) as usize];
                    given.fetch_add(1, Ordering::SeqCst);
                    handle.notify(*id);
                    if turn % 1024 == 0 {
                        // The reactor sleeps now and then.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
    });
    let mut total = 0;
    for (_, given, seen, calls) in &connections {
        until("the last notification", || seen.load(Ordering::SeqCst) == given.load(Ordering::SeqCst));
        total += given.load(Ordering::SeqCst);
        assert!((1..=given.load(Ordering::SeqCst)).contains(&calls.load(Ordering::SeqCst)));
    }
    assert_eq!(total, THREADS * EACH);
}
