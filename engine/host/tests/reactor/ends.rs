//! How connections begin and end.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use kvrail_host::reactor::{Flow, Reactor};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use crate::common::{
    Call, Drops, LIMIT, Probe, at_end, connect, connect_reporting, deadline, echo, far, listening, next,
    pair, until,
};

fn works(tcp: &mut TcpStream) {
    tcp.write_all(b"ask").unwrap();
    let mut answer = [0; 3];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ask");
}

#[test]
fn a_linger_ends_although_the_peer_does_not() {
    let (reactor, (near, mut far)) = (Reactor::start("reactor").unwrap(), pair());
    let (probe, drops) = Probe::new(|call, _| match call {
        Call::Bytes(_) => Flow::Finish { linger: Duration::from_millis(20) },
        _ => Flow::GoOn,
    });
    reactor.handle().add(near, probe).unwrap();
    far.write_all(b"x").unwrap();
    drops.wait();
    assert!(at_end(&mut far));
}

#[test]
fn a_refused_connection_is_reported() {
    let reactor = Reactor::start("reactor").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (said, drops) = connect_reporting(&reactor.handle(), free, deadline());
    assert_eq!(next(&said), Some(io::ErrorKind::ConnectionRefused));
    drops.wait();
    // The system refuses this one before it sends anything.
    let broadcast: SocketAddr = "255.255.255.255:9".parse().unwrap();
    let (said, drops) = connect_reporting(&reactor.handle(), broadcast, deadline());
    assert!(next(&said).is_some());
    drops.wait();
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_connection_that_is_not_made_by_its_deadline_is_reported() {
    let reactor = Reactor::start("reactor").unwrap();
    let silent = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&silent, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&silent, 0).unwrap();
    let silent = TcpListener::from(silent);
    // The listener's queue has room for one or two connections; the others get no answer.
    let at = silent.local_addr().unwrap();
    let due = Instant::now() + Duration::from_millis(300);
    let all: Vec<_> = (0..6).map(|_| connect_reporting(&reactor.handle(), at, due)).collect();
    for (said, _) in &all[4..] {
        assert_eq!(next(said), Some(io::ErrorKind::TimedOut));
        assert!(Instant::now() >= due);
    }
    // Those that were made outlive the deadline.
    assert_eq!(all[0].1.count(), 0);
}

#[test]
fn a_reset_is_reported_once_and_ends_one_connection() {
    let (_reactor, handle, address, _) = listening(|_| Some(echo()));
    let mut other = connect(address);
    let (near, far) = pair();
    let (say, said) = channel();
    let (probe, drops) = Probe::new(move |call, state| {
        state.takes_bytes = false;
        match call {
            Call::Ended(error) => say.send(error.map(|error| error.kind())).unwrap(),
            Call::Notified => say.send(None).unwrap(),
            _ => {}
        }
        Flow::GoOn
    });
    let mut peer = near.try_clone().unwrap();
    let id = handle.add(far, probe).unwrap();
    handle.notify(id);
    assert_eq!(next(&said), None);
    // The connection takes no bytes, and is told of the reset all the same.
    peer.write_all(b"unread by the connection").unwrap();
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop((near, peer));
    assert_eq!(next(&said), Some(io::ErrorKind::ConnectionReset));
    drops.wait();
    works(&mut other);
    assert!(said.try_recv().is_err() && drops.count() == 1);
}

#[test]
fn an_id_of_an_earlier_connection_reaches_no_other() {
    let reactor = Reactor::start("reactor").unwrap();
    let handle = reactor.handle();
    let quiet = || Probe::new(|_, _| Flow::GoOn);
    let (first, drops) = quiet();
    let (near, mut peer) = pair();
    let old = handle.add(near, first).unwrap();
    handle.close(old);
    drops.wait();
    assert!(at_end(&mut peer));
    // The place is given back just after the drop.
    let (say, said) = channel();
    let mut others = Vec::new();
    let id = loop {
        let (near, peer) = pair();
        let say = say.clone();
        let (probe, drops) = Probe::new(move |call, _| {
            if let Call::Notified = call {
                say.send(()).unwrap();
            }
            Flow::GoOn
        });
        let id = handle.add(near, probe).unwrap();
        others.push((peer, drops));
        // The number of the place is the first half of what `Debug` shows.
        let place = |id| format!("{id:?}").split(',').next().map(str::to_owned);
        if place(id) == place(old) {
            break id;
        }
        assert!(others.len() < 1000, "the place comes back");
    };
    assert_ne!(id, old);
    handle.notify(old);
    handle.close(old);
    handle.notify(id);
    next(&said);
    let (_peer, drops) = others.pop().unwrap();
    assert!(said.try_recv().is_err() && drops.count() == 0);
    handle.close(id);
    drops.wait();
}

#[test]
fn a_panic_closes_its_connection_and_no_other() {
    let (_reactor, handle, address, _) = listening(|_| Some(echo()));
    let mut other = connect(address);
    works(&mut other);
    for kind in 0..6 {
        let (near, mut peer) = pair();
        // The drop of this value panics, where `kind` says so.
        struct Bomb(bool);
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert!(!self.0, "a drop panics, as the test wants");
            }
        }
        let bomb = Bomb(kind == 5);
        let (probe, drops) = Probe::new(move |call, _| {
            let _ = &bomb;
            let this = match call {
                Call::Bytes(_) => 0,
                Call::Fill(_) => 1,
                Call::Tick(_) => 2,
                Call::Notified => 3,
                Call::Ended(_) => 4,
            };
            assert_ne!(this, kind, "a call panics, as the test wants");
            Flow::GoOn
        });
        let due = if kind == 2 { Instant::now() } else { far() };
        let id = handle.add(near, probe.due(due)).unwrap();
        match kind {
            0 => peer.write_all(b"x").unwrap(),
            3 => handle.notify(id),
            4 => peer.shutdown(std::net::Shutdown::Write).unwrap(),
            5 => handle.close(id),
            _ => {}
        }
        let mut byte = [0];
        assert!(!matches!(peer.read(&mut byte), Ok(1..)), "{kind}: it is closed");
        drops.wait();
        works(&mut other);
        assert_eq!(drops.count(), 1, "{kind}");
    }
}

#[test]
fn an_acceptor_may_refuse_and_a_closed_listener_leaves_its_connections() {
    let mut count = 0;
    let (_reactor, handle, address, listener) = listening(move |_| {
        count += 1;
        match count {
            1 => None,
            2 => panic!("an acceptor panics, as the test wants"),
            3 => {
                // One that says why, and ends.
                let mut why = Some(b"too many".to_vec());
                let does = move |call: Call<'_>, _: &mut _| match call {
                    Call::Fill(out) => {
                        out.extend(why.take().unwrap_or_default());
                        Flow::GoOn
                    }
                    Call::Tick(_) => Flow::Finish { linger: LIMIT },
                    _ => Flow::GoOn,
                };
                Some(Probe::new(does).0.due(Instant::now()))
            }
            _ => Some(echo()),
        }
    });
    assert!(at_end(&mut connect(address)));
    assert!(at_end(&mut connect(address)));
    let mut why = String::new();
    connect(address).read_to_string(&mut why).unwrap();
    assert_eq!(why, "too many");
    let mut served = connect(address);
    works(&mut served);
    handle.close(listener);
    until("the port is free", || TcpListener::bind(address).is_ok());
    works(&mut served);
}

#[test]
fn a_stop_ends_all_connections_and_drops_each_once() {
    let (reactor, handle, address, _) = listening(|_| Some(echo()));
    let mut far_ends = Vec::new();
    let mut drops: Vec<Drops> = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..50 {
        let (near, peer) = pair();
        let mut last = None;
        let (probe, dropped) = Probe::new(move |call, _| {
            match call {
                Call::Notified => last = Some(b"bye".to_vec()),
                Call::Fill(out) => out.extend(last.take().unwrap_or_default()),
                _ => {}
            }
            Flow::GoOn
        });
        ids.push(handle.add(near, probe).unwrap());
        far_ends.push(peer);
        drops.push(dropped);
    }
    let mut accepted = connect(address);
    works(&mut accepted);
    ids.iter().for_each(|&id| handle.notify(id));
    let reader = std::thread::spawn(move || {
        for mut peer in far_ends {
            let mut said = Vec::new();
            peer.read_to_end(&mut said).unwrap();
            assert_eq!(said, b"bye");
        }
        assert!(at_end(&mut accepted));
    });
    assert!(reactor.stop(deadline()));
    reader.join().unwrap();
    assert!(drops.iter().all(|dropped| dropped.count() == 1));
    assert!(TcpListener::bind(address).is_ok());
    let (probe, dropped) = Probe::new(|_, _| Flow::GoOn);
    let refused = handle.add(pair().0, probe).unwrap_err();
    assert_eq!((refused.kind(), dropped.count()), (io::ErrorKind::BrokenPipe, 1));
    ids.iter().for_each(|&id| handle.notify(id));
}

#[test]
fn a_drop_closes_everything_at_once_whatever_waits() {
    let total = Arc::new(AtomicUsize::new(0));
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    for _ in 0..20 {
        let reactor = Reactor::start("reactor").unwrap();
        let handle = reactor.handle();
        let ends: Vec<_> = (0..50)
            .map(|_| {
                let (near, peer) = pair();
                let counted = Counted(Arc::clone(&total));
                let (probe, _) = Probe::new(move |call, _| {
                    let _ = &counted;
                    if let Call::Fill(out) = call {
                        out.resize(1 << 20, 0);
                    }
                    Flow::GoOn
                });
                handle.add(near, probe).unwrap();
                peer
            })
            .collect();
        drop(reactor);
        drop(ends);
    }
    assert_eq!(total.load(Ordering::SeqCst), 20 * 50);
}
