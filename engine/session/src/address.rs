//! The address at which a peer listens, as users write it: `host:port`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Instant;

/// Where a peer listens: a name or an IPv4 address and a port (`prefill-1:7470`, `10.0.0.1:7470`),
/// or an IPv6 address in brackets (`[fd00::1]:7470`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// An IP address, which needs no resolver.
    Known(SocketAddr),
    Name(String),
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {why}; write host:port, 10.0.0.1:7470 or [fd00::1]:7470")]
pub struct ParseAddressError {
    text: String,
    why: &'static str,
}

impl ParseAddressError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        4040
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let bad = |why| ParseAddressError { text: text.chars().take(300).collect(), why };
        if let Ok(known) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Known(known), port: known.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        if host.starts_with('[') {
            return Err(bad("the text between the brackets is not an IPv6 address"));
        }
        if text.parse::<Ipv6Addr>().is_ok() || host.contains(':') {
            return Err(bad("an IPv6 address must be in brackets, with the port behind them"));
        }
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.len() > 253 || !host.chars().all(legal) {
            return Err(bad("the host has characters that no host name has"));
        }
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad("the port is not a number"));
        }
        let port = port.parse().map_err(|_| bad("the port is above 65535"))?;
        Ok(Self { host: Host::Name(host.into()), port })
    }
}

impl From<SocketAddr> for Address {
    fn from(known: SocketAddr) -> Self {
        Self { host: Host::Known(known), port: known.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Known(known) => known.fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Address {
    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether its host is an IP address, which needs no resolver.
    #[must_use]
    pub const fn is_ip(&self) -> bool {
        matches!(self.host, Host::Known(_))
    }

    /// Whether it names every interface of a host: a server can listen there, and no client can
    /// connect to it.
    pub(crate) fn is_unspecified(&self) -> bool {
        matches!(self.host, Host::Known(SocketAddr::V4(a)) if a.ip().is_unspecified())
            || matches!(self.host, Host::Known(SocketAddr::V6(a)) if IpAddr::V6(*a.ip()).is_unspecified())
    }

    /// The IP addresses of the host, at least one.
    ///
    /// A resolver has no deadline of its own, so a thread calls it. After `deadline` that thread is
    /// left to itself.
    ///
    /// # Errors
    ///
    /// The resolver's error, or [`io::ErrorKind::TimedOut`].
    pub fn resolve(&self, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        let name = match &self.host {
            Host::Known(known) => return Ok(vec![*known]),
            Host::Name(name) => name.clone(),
        };
        let (sender, receiver) = mpsc::sync_channel(1);
        let port = self.port;
        std::thread::Builder::new().name("kvrail-resolve".into()).spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            // After the deadline the receiver is gone.
            let _ = sender.send(found);
        })?;
        let found = receiver
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the resolver did not answer in time"))??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in ["prefill-1:7470", "10.0.0.1:7470", "[fd00::1]:7470", "[::]:0", "a.b_c:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_error_of_a_bad_address_says_what_is_wrong() {
        for (text, why) in [
            ("", "the port is missing"),
            ("prefill-1", "the port is missing"),
            (":7470", "the host is missing"),
            ("host:", "the port is not a number"),
            ("host:+80", "the port is not a number"),
            ("host:65536", "above 65535"),
            ("fd00::1", "in brackets"),
            ("fd00::1:x", "in brackets"),
            ("[fd00::1]", "between the brackets"),
            ("[fd00::g]:7470", "between the brackets"),
            ("ho st:1", "that no host name has"),
            ("http://host:1", "in brackets"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(&format!("`{text}`")), "{text}: {error}");
        }
    }

    #[test]
    fn localhost_resolves_and_an_invalid_name_does_not() {
        let soon = Instant::now() + Duration::from_secs(20);
        let found = "localhost:7470".parse::<Address>().unwrap().resolve(soon).unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 7470), "{found:?}");
        assert!("kvrail.invalid:1".parse::<Address>().unwrap().resolve(soon).is_err());
    }
}
