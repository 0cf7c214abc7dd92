//! Connections that have not proved anything yet, bounded in number without locking other
//! connections out.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The newcomers of one listener.
///
/// A connection is a newcomer until it has shown that it may be here. Any process that reaches the
/// port can make one, so when there are too many, the oldest goes, and not the one that has just
/// come: a connection that needs a few round trips gets them. The oldest that has said nothing goes
/// before the oldest that has spoken. An address (for IPv6 a /64 network) may have half of the
/// places; beyond that its own oldest goes.
#[derive(Debug)]
pub struct Newcomers {
    limit: usize,
    per_address: usize,
    waiting: Mutex<Vec<Arc<Newcomer>>>,
}

#[derive(Debug)]
struct Newcomer {
    from: IpAddr,
    stream: TcpStream,
    spoken: AtomicBool,
    sent_away: AtomicBool,
}

/// A newcomer's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    all: Arc<Newcomers>,
    this: Arc<Newcomer>,
}

impl Newcomers {
    /// Room for `limit` of them, at least 2.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let limit = limit.max(2);
        Arc::new(Self { limit, per_address: limit / 2, waiting: Mutex::new(Vec::with_capacity(limit)) })
    }

    /// How many there may be.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// A poisoned lock guards a list that is whole whatever panicked.
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Newcomer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection `stream` from `from` in. If one has to go for it, that one's stream
    /// ends for reading ([`Place::sent_away`] says why), and the second value is true.
    ///
    /// # Errors
    ///
    /// No file descriptor for a second handle of the stream.
    pub fn admit(self: &Arc<Self>, from: IpAddr, stream: &TcpStream) -> std::io::Result<(Place, bool)> {
        let this = Arc::new(Newcomer {
            from: network(from),
            stream: stream.try_clone()?,
            spoken: AtomicBool::new(false),
            sent_away: AtomicBool::new(false),
        });
        let mut waiting = self.waiting();
        let ours = waiting.iter().filter(|n| n.from == this.from).count();
        let goes = if ours >= self.per_address {
            oldest(&waiting, |n| n.from == this.from)
        } else if waiting.len() >= self.limit {
            oldest(&waiting, |_| true)
        } else {
            None
        };
        if let Some(at) = goes {
            // In the order of coming, so `swap_remove` will not do.
            let goes = waiting.remove(at);
            goes.sent_away.store(true, Ordering::Release);
            // Wakes the thread that reads from it. Fails if the peer has hung up already.
            let _ = goes.stream.shutdown(Shutdown::Read);
        }
        waiting.push(Arc::clone(&this));
        drop(waiting);
        Ok((Place { all: Arc::clone(self), this }, goes.is_some()))
    }
}

/// The oldest of those that `may` go; of these, the oldest that has said nothing, if there is one.
fn oldest(waiting: &[Arc<Newcomer>], may: impl Fn(&Newcomer) -> bool) -> Option<usize> {
    let silent = |n: &Arc<Newcomer>| may(n) && !n.spoken.load(Ordering::Relaxed);
    waiting.iter().position(silent).or_else(|| waiting.iter().position(|n| may(n)))
}

/// What counts as one address: an IPv6 host has a whole /64 network to choose from.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

impl Place {
    /// It has said something that makes sense.
    pub fn has_spoken(&self) {
        self.this.spoken.store(true, Ordering::Relaxed);
    }

    /// Whether it had to go for another.
    #[must_use]
    pub fn sent_away(&self) -> bool {
        self.this.sent_away.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.waiting().retain(|n| !Arc::ptr_eq(n, &self.this));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    struct Door {
        listener: TcpListener,
        all: Arc<Newcomers>,
    }

    impl Door {
        /// A connection, taken in as if from `from`, and its far end, which must stay.
        fn come(&self, from: &str) -> (Place, bool, [TcpStream; 2]) {
            let far = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let near = self.listener.accept().unwrap().0;
            let (place, someone_went) = self.all.admit(from.parse().unwrap(), &near).unwrap();
            (place, someone_went, [far, near])
        }
    }

    fn door(limit: usize) -> Door {
        Door { listener: TcpListener::bind("127.0.0.1:0").unwrap(), all: Newcomers::new(limit) }
    }

    #[test]
    fn the_oldest_silent_one_goes_first_and_notices() {
        let door = door(4);
        let some: Vec<_> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|ip| door.come(ip)).into();
        some[0].0.has_spoken();
        assert!(some.iter().all(|s| !s.1));
        let (_fifth, went, _far) = door.come("10.0.0.5");
        assert!(went);
        assert_eq!(some.iter().map(|s| s.0.sent_away()).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!((&some[1].2[1]).read(&mut [0]).unwrap(), 0, "its stream has ended");
        some[2].0.has_spoken();
        some[3].0.has_spoken();
        _fifth.has_spoken();
        let (_sixth, went, _far) = door.come("10.0.0.6");
        assert!(went && some[0].0.sent_away(), "where all have spoken the oldest goes");
    }

    #[test]
    fn one_address_displaces_its_own_alone() {
        let door = door(4);
        let other = door.come("fd00:0:0:1::1");
        let many: Vec<_> = (0..50).map(|host| door.come(&format!("fd00:0:0:2::{host:x}"))).collect();
        assert!(!other.0.sent_away());
        assert_eq!(many.iter().filter(|m| !m.0.sent_away()).count(), 2);
        drop(many);
        assert_eq!(door.all.waiting().len(), 1);
    }
}
