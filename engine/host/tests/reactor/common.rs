//! Connections for the tests, and waits with a deadline.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kvrail_host::listener::Listener;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId, Flow, Handle, Reactor};

/// The bound of every wait. It decides no test that passes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn deadline() -> Instant {
    Instant::now() + LIMIT
}

pub(crate) fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

pub(crate) fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(LIMIT).expect("it comes within a minute")
}

/// Waits until `true`.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = deadline();
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The two ends of a connection.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(LIMIT)).unwrap();
    far.set_write_timeout(Some(LIMIT)).unwrap();
    (listener.accept().unwrap().0, far)
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    tcp.set_write_timeout(Some(LIMIT)).unwrap();
    tcp
}

/// Whether the peer ends the connection in order, and sends nothing before.
pub(crate) fn at_end(tcp: &mut TcpStream) -> bool {
    matches!(tcp.read(&mut [0]), Ok(0))
}

/// What a [`Probe`] does when it is called.
pub(crate) type Does = Box<dyn FnMut(Call<'_>, &mut State) -> Flow + Send>;

pub(crate) enum Call<'a> {
    Bytes(&'a [u8]),
    Ended(Option<io::Error>),
    Fill(&'a mut Vec<u8>),
    Tick(Instant),
    Notified,
}

/// What a [`Probe`] has beside its code.
pub(crate) struct State {
    pub(crate) due: Instant,
    pub(crate) takes_bytes: bool,
}

/// A connection whose code is a closure, and whose drops are counted.
pub(crate) struct Probe {
    does: Does,
    state: State,
    drops: Arc<AtomicUsize>,
}

impl Probe {
    pub(crate) fn new(does: impl FnMut(Call<'_>, &mut State) -> Flow + Send + 'static) -> (Box<Self>, Drops) {
        let drops = Arc::new(AtomicUsize::new(0));
        let state = State { due: far(), takes_bytes: true };
        (Box::new(Self { does: Box::new(does), state, drops: Arc::clone(&drops) }), Drops(drops))
    }

    pub(crate) fn due(mut self: Box<Self>, due: Instant) -> Box<Self> {
        self.state.due = due;
        self
    }
}

pub(crate) struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn wait(&self) {
        until("the drop of a connection", || self.count() > 0);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

impl Connection for Probe {
    fn received(&mut self, _: Instant, bytes: &[u8]) -> Flow {
        assert!(!bytes.is_empty() && bytes.len() <= 64 << 10);
        (self.does)(Call::Bytes(bytes), &mut self.state)
    }

    fn ended(&mut self, _: Instant, error: Option<io::Error>) {
        (self.does)(Call::Ended(error), &mut self.state);
    }

    fn fill(&mut self, _: Instant, out: &mut Vec<u8>, room: usize) {
        assert!(out.is_empty() && room > 0);
        (self.does)(Call::Fill(out), &mut self.state);
    }

    fn due(&self) -> Instant {
        self.state.due
    }

    fn tick(&mut self, now: Instant) -> Flow {
        assert!(now >= self.state.due);
        (self.does)(Call::Tick(now), &mut self.state)
    }

    fn notified(&mut self, _: Instant) -> Flow {
        (self.does)(Call::Notified, &mut self.state)
    }

    fn takes_bytes(&self) -> bool {
        self.state.takes_bytes
    }
}

/// A connection that sends back what it receives, and holds 100,000 bytes and a read at most.
pub(crate) struct Echo {
    held: Vec<u8>,
    pub(crate) most: Arc<AtomicUsize>,
}

impl Connection for Echo {
    fn received(&mut self, _: Instant, bytes: &[u8]) -> Flow {
        self.held.extend_from_slice(bytes);
        self.most.fetch_max(self.held.len(), Ordering::Relaxed);
        Flow::GoOn
    }

    fn ended(&mut self, _: Instant, error: Option<io::Error>) {
        assert!(error.is_none(), "{error:?}");
    }

    fn fill(&mut self, _: Instant, out: &mut Vec<u8>, room: usize) {
        out.extend(self.held.drain(..self.held.len().min(room)));
    }

    fn due(&self) -> Instant {
        far()
    }

    fn tick(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }

    fn notified(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }

    fn takes_bytes(&self) -> bool {
        self.held.len() < 100_000
    }
}

pub(crate) fn echo() -> Box<Echo> {
    Box::new(Echo { held: Vec::new(), most: Arc::default() })
}

pub(crate) struct Accept<F>(pub(crate) F);

impl<F: FnMut(ConnectionId) -> Option<Box<dyn Connection>> + Send> Acceptor for Accept<F> {
    fn accepted(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        tcp: &TcpStream,
    ) -> Option<Box<dyn Connection>> {
        assert_eq!(tcp.peer_addr().unwrap(), peer);
        assert!(tcp.nodelay().unwrap());
        (self.0)(id)
    }
}

/// A reactor that listens, and accepts what `make` gives.
pub(crate) fn listening(
    make: impl FnMut(ConnectionId) -> Option<Box<dyn Connection>> + Send + 'static,
) -> (Reactor, Handle, SocketAddr, ConnectionId) {
    let reactor = Reactor::start("reactor").unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "listener").unwrap();
    let address = listener.local_addr();
    let handle = reactor.handle();
    let id = handle.listen(listener, Box::new(Accept(make))).unwrap();
    (reactor, handle, address, id)
}

/// Connects with a connection that reports how it ended.
pub(crate) fn connect_reporting(
    handle: &Handle,
    to: SocketAddr,
    deadline: Instant,
) -> (Receiver<End>, Drops) {
    let (say, said) = channel();
    let (probe, drops) = Probe::new(reporting(say));
    handle.connect(to, deadline, probe).unwrap();
    (said, drops)
}

pub(crate) type End = Option<io::ErrorKind>;

fn reporting(say: Sender<End>) -> impl FnMut(Call<'_>, &mut State) -> Flow {
    move |call, _| {
        if let Call::Ended(error) = call {
            let _ = say.send(error.map(|error| error.kind()));
        }
        Flow::GoOn
    }
}
