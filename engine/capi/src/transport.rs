//! Transports, as a text of a configuration names them.

use std::net::{IpAddr, Ipv4Addr};

use crate::error::CapiError;

/// A transport that a text names. Both ends may have the same text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `shm:<rails>`.
    Shm { rails: usize },
    /// `tcp:<address>:<rails>`, or without the address, which a publisher needs and a reader does
    /// not.
    Tcp { ip: IpAddr, rails: usize },
    /// `verbs:<affinity>`.
    #[cfg(feature = "verbs")]
    Verbs { spec: String },
}

impl Transport {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Result<Self, CapiError> {
        let bad = |why| CapiError::Transport { text: text.chars().take(100).collect(), why };
        let count = |text: &str| match text.parse() {
            Ok(rails @ 1..=16) => Ok(rails),
            _ => Err(bad("the number of rails is 1 to 16")),
        };
        let (kind, rest) = text.split_once(':').ok_or_else(|| bad("a colon is missing"))?;
        match kind {
            "shm" => Ok(Self::Shm { rails: count(rest)? }),
            "tcp" => match rest.rsplit_once(':') {
                None => Ok(Self::Tcp { ip: Ipv4Addr::LOCALHOST.into(), rails: count(rest)? }),
                Some((ip, rails)) => {
                    let ip = ip.trim_start_matches('[').trim_end_matches(']');
                    let ip = ip.parse().map_err(|_| bad("the address is no IP address"))?;
                    Ok(Self::Tcp { ip, rails: count(rails)? })
                }
            },
            #[cfg(feature = "verbs")]
            "verbs" => Ok(Self::Verbs { spec: rest.to_owned() }),
            #[cfg(not(feature = "verbs"))]
            "verbs" => Err(CapiError::NotBuilt("verbs")),
            _ => Err(bad("the name before the colon is none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_transports_or_say_why_not() {
        assert_eq!(Transport::parse("shm:2").unwrap(), Transport::Shm { rails: 2 });
        let ip = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(Transport::parse("tcp:127.0.0.1:1").unwrap(), Transport::Tcp { ip, rails: 1 });
        assert_eq!(Transport::parse("tcp:1").unwrap(), Transport::Tcp { ip, rails: 1 });
        let ip = IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
        assert_eq!(Transport::parse("tcp:[::1]:3").unwrap(), Transport::Tcp { ip, rails: 3 });
        for text in ["", "shm", "shm:", "shm:0", "shm:17", "shm:x", "tcp:host:1", "udp:1", "tcp:::"] {
            assert_eq!(Transport::parse(text).unwrap_err().code(), 8010, "{text}");
        }
    }
}
