//! Which address and which key a session tries next, and by when.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use kvrail_session::{PeerKeys, Session, SessionError, Step, share_of_time};

/// One attempt to establish a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) address: SocketAddr,
    /// Which of the keys, counted from 0.
    pub(super) key: usize,
    /// When the making of the connection is given up.
    pub(super) until: Instant,
}

/// The attempts of one session: each address of the producer until a connection is made, and there
/// each key until the producer knows one.
pub(super) struct Attempts {
    keys: PeerKeys,
    deadline: Instant,
    /// The address and the key of the last attempt.
    last: Option<(SocketAddr, usize)>,
    /// Addresses that have not been tried.
    left: VecDeque<SocketAddr>,
}

impl Attempts {
    pub(super) const fn new(keys: PeerKeys, deadline: Instant) -> Self {
        Self { keys, deadline, last: None, left: VecDeque::new() }
    }

    pub(super) const fn keys(&self) -> &PeerKeys {
        &self.keys
    }

    /// The first attempt, where the producer has these addresses: at least one.
    pub(super) fn first(&mut self, addresses: Vec<SocketAddr>, now: Instant) -> Option<Attempt> {
        self.left = addresses.into();
        self.next_address(now)
    }

    /// The attempt after one that ended by `error`. `None`: no other attempt can do better, or the
    /// deadline has passed.
    pub(super) fn after(&mut self, error: &SessionError, now: Instant) -> Option<Attempt> {
        if error.step == Step::Connecting {
            return self.next_address(now);
        }
        let (address, key) = self.last?;
        let key = Session::next_attempt(&self.keys, key, error)?;
        self.last = Some((address, key));
        (now < self.deadline).then_some(Attempt { address, key, until: self.deadline })
    }

    fn next_address(&mut self, now: Instant) -> Option<Attempt> {
        let until = share_of_time(now, self.deadline, self.left.len());
        let address = self.left.pop_front().filter(|_| now < until)?;
        // A key that another address did not know may be right here, so each begins with the first.
        self.last = Some((address, 0));
        Some(Attempt { address, key: 0, until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::time::Duration;

    use kvrail_session::Cause;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn failed(step: Step) -> SessionError {
        SessionError { peer: "peer".into(), step, cause: Cause::Io(io::ErrorKind::TimedOut.into()) }
    }

    #[test]
    fn addresses_that_do_not_answer_share_the_time() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(12);
        let mut attempts = Attempts::new(PeerKeys::none(), deadline);
        let first = attempts.first([1, 2, 3].map(address).into(), now).unwrap();
        assert_eq!(first, Attempt { address: address(1), key: 0, until: now + Duration::from_secs(4) });
        // The first one failed at once, so two share all of the time.
        let second = attempts.after(&failed(Step::Connecting), now).unwrap();
        assert_eq!(second, Attempt { address: address(2), key: 0, until: now + Duration::from_secs(6) });
        let third = attempts.after(&failed(Step::Connecting), second.until).unwrap();
        assert_eq!((third.address, third.until), (address(3), deadline));
        assert_eq!(attempts.after(&failed(Step::Connecting), now), None);
    }

    #[test]
    fn after_the_deadline_no_address_is_tried() {
        let now = Instant::now();
        let mut attempts = Attempts::new(PeerKeys::none(), now);
        assert_eq!(attempts.first(vec![address(1)], now), None);
    }
}
