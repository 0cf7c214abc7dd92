//! Directories as the command line gives them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The beginnings of the URLs of servers.
const SCHEMES: [&str; 4] = ["redis://", "rediss://", "redis-cluster://", "rediss-cluster://"];

/// The value of `--directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryKind {
    /// The producer keeps it in memory.
    Embedded,
    /// The reader reads the producer's publication table.
    OneSided,
    /// Valkey or Redis: the URL of a server or cluster.
    Redis(String),
    /// A private redis-server, which `churn` starts.
    PrivateRedis,
}

impl FromStr for DirectoryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "one-sided" => Ok(Self::OneSided),
            "redis" => Ok(Self::PrivateRedis),
            url if SCHEMES.iter().any(|scheme| url.starts_with(scheme)) => {
                check_url(url)?;
                Ok(Self::Redis(url.into()))
            }
            _ => {
                Err("give embedded, one-sided, redis://host:port or redis-cluster://host:port,host:port"
                    .into())
            }
        }
    }
}

#[cfg(feature = "redis")]
fn check_url(url: &str) -> Result<(), String> {
    kvrail_node::directory::redis::RedisConfig::new(url).map(drop).map_err(|error| error.to_string())
}

#[cfg(not(feature = "redis"))]
fn check_url(_: &str) -> Result<(), String> {
    Err("this kvrail-bench was built without Redis: build it with --features redis".into())
}

impl fmt::Display for DirectoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::OneSided => f.write_str("one-sided"),
            Self::PrivateRedis => f.write_str("redis"),
            Self::Redis(url) => f.write_str(&without_login(url)),
        }
    }
}

/// A URL without user and password, for reports.
fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    format!("{scheme}://{hosts}")
}

/// The directory of `serve` and `drive`.
pub(crate) fn shared(text: &str) -> Result<DirectoryKind, String> {
    match text.parse()? {
        DirectoryKind::PrivateRedis => {
            Err("redis alone is for churn, which starts a server of its own; give redis://host:port".into())
        }
        kind => Ok(kind),
    }
}

/// How a child process reaches the directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum DirectorySetup {
    /// The nodes at these addresses keep it; none: the node itself does.
    Embedded(Vec<String>),
    /// The publication table of the producer at this address; no address: the node is that one.
    OneSided(String),
    /// A server or cluster, and what its keys begin with.
    Redis { url: String, prefix: String },
}

impl DirectorySetup {
    /// The prefix of `serve` and `drive`.
    const PREFIX: &str = "kvrail-bench";

    /// The directory of this kind, for the producer itself, or for a reader of the producer at
    /// `connect`.
    pub(crate) fn of(kind: &DirectoryKind, connect: Option<String>) -> Self {
        match kind {
            DirectoryKind::Embedded | DirectoryKind::PrivateRedis => {
                Self::Embedded(connect.into_iter().collect())
            }
            DirectoryKind::OneSided => Self::OneSided(connect.unwrap_or_default()),
            DirectoryKind::Redis(url) => Self::Redis { url: url.clone(), prefix: Self::PREFIX.into() },
        }
    }
}

/// How long records are believed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct CacheArgs {
    /// How long a reader keeps what the directory told it, in seconds; 0: not at all.
    #[arg(long = "dir-cache", alias = "dir-cache-ttl", value_name = "SECONDS", default_value = "5",
        value_parser = seconds)]
    pub(crate) dir_cache: Duration,
}

/// Parses a time in seconds: a day at most.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err(format!("{text} seconds: give 0 to 86400"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_or_given_by_their_url() {
        let parse = |text: &str| text.parse::<DirectoryKind>();
        assert_eq!(parse("embedded"), Ok(DirectoryKind::Embedded));
        assert_eq!(parse("one-sided"), Ok(DirectoryKind::OneSided));
        assert_eq!(parse("redis"), Ok(DirectoryKind::PrivateRedis));
        for bad in ["", "Redis", "http://host:1", "redis:host", "none"] {
            assert!(parse(bad).unwrap_err().contains("embedded"), "{bad}");
        }
        assert!(shared("redis").unwrap_err().contains("redis://host:port"));
        assert_eq!(shared("embedded"), Ok(DirectoryKind::Embedded));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_password_is_not_shown() {
        let kind: DirectoryKind = "redis://me:secret@10.0.0.5:6379/1".parse().unwrap();
        assert_eq!(kind.to_string(), "redis://10.0.0.5:6379/1");
        assert!("redis://".parse::<DirectoryKind>().is_err());
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "nan", "inf", "1e9", "soon", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
