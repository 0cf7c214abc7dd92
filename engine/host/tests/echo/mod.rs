//! A connection that sends back what it receives.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kvrail_host::reactor::{Connection, Flow};

/// The bound of every wait. It decides no test that passes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Sends back what it receives, and closes after `end`.
#[derive(Default)]
pub(crate) struct Echo(Vec<u8>);

impl Connection for Echo {
    fn received(&mut self, _: Instant, bytes: &[u8]) -> Flow {
        if bytes == b"end" {
            return Flow::Close;
        }
        self.0.extend_from_slice(bytes);
        Flow::GoOn
    }

    fn ended(&mut self, _: Instant, _: Option<io::Error>) {}

    fn fill(&mut self, _: Instant, out: &mut Vec<u8>, _: usize) {
        out.append(&mut self.0);
    }

    fn due(&self) -> Instant {
        Instant::now() + LIMIT
    }

    fn tick(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }

    fn notified(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }
}

/// Checks that the other end of `tcp` is an [`Echo`] that answers.
pub(crate) fn works(tcp: &mut TcpStream) {
    tcp.write_all(b"ask").unwrap();
    let mut answer = [0; 3];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ask");
}
