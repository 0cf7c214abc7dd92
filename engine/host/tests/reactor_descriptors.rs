//! A process without a descriptor for the next connection: those that it has go on.

mod echo;

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kvrail_host::listener::Listener;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId, Reactor};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::echo::{Echo, LIMIT, works};

struct All(Arc<AtomicUsize>);

impl Acceptor for All {
    fn accepted(&mut self, _: ConnectionId, _: SocketAddr, _: &TcpStream) -> Option<Box<dyn Connection>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Some(Box::<Echo>::default())
    }
}

#[test]
fn without_descriptors_new_connections_end_and_the_others_go_on() {
    let reactor = Reactor::start("reactor").unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "listener").unwrap();
    let (address, accepted) = (listener.local_addr(), Arc::new(AtomicUsize::new(0)));
    reactor.handle().listen(listener, Box::new(All(Arc::clone(&accepted)))).unwrap();
    let mut served = TcpStream::connect(address).unwrap();
    served.set_read_timeout(Some(LIMIT)).unwrap();
    works(&mut served);

    // These sockets have their descriptors before the limit falls below the next free number.
    let sockets: Vec<_> =
        (0..10).map(|_| socket(AddressFamily::INET, SocketType::STREAM, None).unwrap()).collect();
    let limit = getrlimit(Resource::Nofile);
    let next = u64::try_from(rustix::io::dup(&sockets[0]).unwrap().as_raw_fd()).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: limit.maximum }).unwrap();
    for socket in &sockets {
        connect(socket, &address).unwrap();
    }
    let turned_away: Vec<TcpStream> = sockets.into_iter().map(TcpStream::from).collect();
    // A pause follows each of them, and the served connection has answers meanwhile.
    let (say, said) = mpsc::channel();
    let watcher = move || {
        for mut tcp in turned_away {
            tcp.set_read_timeout(Some(LIMIT)).unwrap();
            // An end or a reset.
            let ended = !matches!(tcp.read(&mut [0]), Ok(1..));
            say.send((ended, tcp)).unwrap();
        }
    };
    let watcher = std::thread::spawn(watcher);
    let mut kept = Vec::new();
    while kept.len() < 10 {
        works(&mut served);
        match said.recv_timeout(Duration::from_millis(1)) {
            Ok((ended, tcp)) => {
                assert!(ended);
                // Its descriptor stays in use.
                kept.push(tcp);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the watcher ends after all ten"),
        }
    }
    watcher.join().unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 1);

    setrlimit(Resource::Nofile, limit).unwrap();
    let mut later = TcpStream::connect(address).unwrap();
    later.set_read_timeout(Some(LIMIT)).unwrap();
    works(&mut later);
    works(&mut served);
    assert!(reactor.stop(Instant::now()));
}
