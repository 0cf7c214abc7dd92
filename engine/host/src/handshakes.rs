//! A bound on connections that have not authenticated yet. A peer that opens many of them does not
//! keep other peers out.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of one listener whose handshake is not over.
///
/// Any process that reaches the port can open such a connection. When there are too many, a new
/// connection displaces (ends) an older one: the oldest that has sent nothing valid, or else the
/// oldest. A handshake of a few round trips is usually over before that. Connections from one
/// address (for IPv6 from one /64 network) get half of the places; a further connection from that
/// address displaces one of the same address.
#[derive(Debug)]
pub struct Handshakes {
    limit: usize,
    per_address: usize,
    waiting: Mutex<Vec<Arc<Waiting>>>,
}

/// One connection.
#[derive(Debug)]
struct Waiting {
    from: IpAddr,
    stream: TcpStream,
    /// It has sent something valid.
    spoken: AtomicBool,
    /// Another connection has taken its place.
    displaced: AtomicBool,
}

/// A connection's place among the [`Handshakes`], until it is dropped.
#[derive(Debug)]
pub struct HandshakePlace {
    all: Arc<Handshakes>,
    this: Arc<Waiting>,
}

impl Handshakes {
    /// Room for `limit` connections, at least 2.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let limit = limit.max(2);
        Arc::new(Self { limit, per_address: limit / 2, waiting: Mutex::new(Vec::with_capacity(limit)) })
    }

    /// How many connections may be in their handshake at a time.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// The list is valid even if a thread panicked while it held the lock.
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection `stream` from `from` a place. Returns the place, and `true` if another
    /// connection was displaced; that connection's stream ends for reading, and
    /// [`HandshakePlace::was_displaced`] says why.
    ///
    /// # Errors
    ///
    /// The process has no file descriptor for a second handle of the stream.
    pub fn admit(
        self: &Arc<Self>,
        from: IpAddr,
        stream: &TcpStream,
    ) -> std::io::Result<(HandshakePlace, bool)> {
        let this = Arc::new(Waiting {
            from: network(from),
            stream: stream.try_clone()?,
            spoken: AtomicBool::new(false),
            displaced: AtomicBool::new(false),
        });
        let mut waiting = self.waiting();
        let ours = waiting.iter().filter(|n| n.from == this.from).count();
        let at = if ours >= self.per_address {
            oldest(&waiting, |n| n.from == this.from)
        } else if waiting.len() >= self.limit {
            oldest(&waiting, |_| true)
        } else {
            None
        };
        if let Some(at) = at {
            // The list is in the order of arrival, so `swap_remove` will not do.
            let displaced = waiting.remove(at);
            displaced.displaced.store(true, Ordering::Release);
            // Wakes the thread that reads from it. Fails if the peer has closed the connection
            // already.
            let _ = displaced.stream.shutdown(Shutdown::Read);
        }
        waiting.push(Arc::clone(&this));
        drop(waiting);
        Ok((HandshakePlace { all: Arc::clone(self), this }, at.is_some()))
    }
}

/// Among the connections for which `may` holds: the oldest that has sent nothing valid, or else the
/// oldest.
fn oldest(waiting: &[Arc<Waiting>], may: impl Fn(&Waiting) -> bool) -> Option<usize> {
    let silent = |n: &Arc<Waiting>| may(n) && !n.spoken.load(Ordering::Relaxed);
    waiting.iter().position(silent).or_else(|| waiting.iter().position(|n| may(n)))
}

/// What counts as one address: an IPv6 host has a whole /64 network to choose from.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

impl HandshakePlace {
    /// Notes that the connection has sent something valid.
    pub fn mark_spoken(&self) {
        self.this.spoken.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was displaced by another.
    #[must_use]
    pub fn was_displaced(&self) -> bool {
        self.this.displaced.load(Ordering::Acquire)
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.all.waiting().retain(|n| !Arc::ptr_eq(n, &self.this));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    struct Fixture {
        listener: TcpListener,
        all: Arc<Handshakes>,
    }

    impl Fixture {
        fn new(limit: usize) -> Self {
            Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), all: Handshakes::new(limit) }
        }

        /// A connection, admitted as if from `from`, and its two ends, which must stay open.
        fn connect(&self, from: &str) -> (HandshakePlace, bool, [TcpStream; 2]) {
            let far = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let near = self.listener.accept().unwrap().0;
            let (place, displaced) = self.all.admit(from.parse().unwrap(), &near).unwrap();
            (place, displaced, [far, near])
        }
    }

    #[test]
    fn the_oldest_silent_connection_is_displaced_first_and_notices() {
        let f = Fixture::new(4);
        let some: Vec<_> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|ip| f.connect(ip)).into();
        some[0].0.mark_spoken();
        assert!(some.iter().all(|s| !s.1));
        let (fifth, displaced, _far) = f.connect("10.0.0.5");
        assert!(displaced);
        let seen: Vec<_> = some.iter().map(|s| s.0.was_displaced()).collect();
        assert_eq!(seen, [false, true, false, false]);
        assert_eq!((&some[1].2[1]).read(&mut [0]).unwrap(), 0, "its stream has ended");
        some[2].0.mark_spoken();
        some[3].0.mark_spoken();
        fifth.mark_spoken();
        let (_sixth, displaced, _far) = f.connect("10.0.0.6");
        assert!(displaced && some[0].0.was_displaced(), "where all have spoken the oldest is displaced");
    }

    #[test]
    fn one_address_displaces_its_own_connections_alone() {
        let f = Fixture::new(4);
        let other = f.connect("fd00:0:0:1::1");
        let many: Vec<_> = (0..50).map(|host| f.connect(&format!("fd00:0:0:2::{host:x}"))).collect();
        assert!(!other.0.was_displaced());
        assert_eq!(many.iter().filter(|m| !m.0.was_displaced()).count(), 2);
        drop(many);
        assert_eq!(f.all.waiting().len(), 1);
    }
}
