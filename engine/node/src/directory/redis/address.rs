//! Which servers a URL names, and how they are spoken to.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// The most servers that a URL names.
pub const MAX_SEEDS: usize = 32;
/// The most bytes of a prefix.
pub const MAX_PREFIX: usize = 64;

/// Where the records are, and how long they stay.
#[derive(Clone)]
pub struct RedisConfig {
    servers: Servers,
    prefix: Box<str>,
    /// How long an owner's records stay after it was last heard of.
    pub(super) lease: Duration,
    /// How often an owner is told to announce all of its records again.
    pub(super) refresh: Duration,
    /// How long connecting to a server may take, the log-in included.
    pub(super) connect: Duration,
    /// How long a server may take to reply before its connection is given up.
    pub(super) reply: Duration,
}

/// The servers of a URL.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) cluster: bool,
    pub(super) tls: bool,
    /// At least one.
    pub(super) seeds: Vec<(String, u16)>,
    login: RedisConnectionInfo,
}

/// Why a configuration of a Redis directory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// The text is no URL of a directory. It is not repeated here: it may hold a password.
    #[error(
        "not a URL of a Redis directory: {why}; write redis://[user:password@]host[:port][/db] or \
         redis-cluster://[user:password@]host:port,host:port, with rediss or rediss-cluster for TLS"
    )]
    Url {
        /// What is wrong with it.
        why: String,
    },
    /// TLS is asked for, and this build has none.
    #[error("the URL asks for TLS: build kvrail-node with its feature `redis-tls`")]
    Tls,
    /// The prefix of the keys cannot be used.
    #[error(
        "{prefix:?} is no prefix of keys: write 1 to {MAX_PREFIX} letters, digits, dots, hyphens and underscores"
    )]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// A time is too short or too long.
    #[error("{what} of {time:?}: write {least:?} to {most:?}")]
    Time {
        /// Which time.
        what: &'static str,
        /// What it is.
        time: Duration,
        /// The least that it may be.
        least: Duration,
        /// The most that it may be.
        most: Duration,
    },
}

impl RedisConfigError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Url { .. } => 7300,
            Self::Tls => 7301,
            Self::Prefix { .. } => 7302,
            Self::Time { .. } => 7303,
        }
    }
}

impl RedisConfig {
    /// The servers of `url`:
    ///
    /// - `redis://[user:password@]host[:port][/db]` for one server,
    /// - `redis-cluster://[user:password@]host:port,host:port` for a cluster, of which any servers
    ///   are named, and
    /// - `rediss` and `rediss-cluster` for the same over TLS.
    ///
    /// Special characters of the user and the password are written as in every URL (`%40` for `@`).
    ///
    /// # Errors
    ///
    /// The text is no such URL, or asks for TLS that this build does not have.
    pub fn new(url: &str) -> Result<Self, RedisConfigError> {
        Ok(Self {
            servers: Servers::parse(url)?,
            prefix: "kvrail".into(),
            lease: Duration::from_secs(30),
            refresh: Duration::from_secs(15 * 60),
            connect: Duration::from_secs(1),
            reply: Duration::from_secs(1),
        })
    }

    /// What all keys begin with; `kvrail` unless it is set here. Groups of nodes that share a
    /// server have a prefix each.
    ///
    /// # Errors
    ///
    /// It is empty or too long, or has other characters than letters, digits, `.`, `-` and `_`.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, RedisConfigError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(good) {
            return Err(RedisConfigError::Prefix { prefix: prefix.chars().take(MAX_PREFIX).collect() });
        }
        self.prefix = prefix.into();
        Ok(self)
    }

    /// How long an owner's records stay after it was last heard of; 30 s unless it is set here.
    ///
    /// # Errors
    ///
    /// Less than 300 ms, or more than a day.
    pub fn lease(mut self, lease: Duration) -> Result<Self, RedisConfigError> {
        self.lease = within("a lease", lease, Duration::from_millis(300), Duration::from_secs(86_400))?;
        Ok(self)
    }

    /// How often an owner is told to announce all of its records again, which repairs what the
    /// servers have lost unseen; 15 minutes unless it is set here. A record that is not announced
    /// again goes away after twice that time.
    ///
    /// # Errors
    ///
    /// Less than a second, or more than a week.
    pub fn refresh(mut self, refresh: Duration) -> Result<Self, RedisConfigError> {
        let most = Duration::from_secs(7 * 86_400);
        self.refresh = within("a time between announcements", refresh, Duration::from_secs(1), most)?;
        Ok(self)
    }

    /// How long connecting may take, and how long a server may take to reply before its connection
    /// is given up; 1 s each unless they are set here. They do not lengthen the deadline of a call.
    ///
    /// # Errors
    ///
    /// Less than 10 ms, or more than a minute.
    pub fn timeouts(mut self, connect: Duration, reply: Duration) -> Result<Self, RedisConfigError> {
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
        self.connect = within("a time-out for connecting", connect, least, most)?;
        self.reply = within("a time-out for replies", reply, least, most)?;
        Ok(self)
    }

    pub(super) fn key_prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) const fn servers(&self) -> &Servers {
        &self.servers
    }
}

fn within(
    what: &'static str,
    time: Duration,
    least: Duration,
    most: Duration,
) -> Result<Duration, RedisConfigError> {
    let good = (least..=most).contains(&time);
    good.then_some(time).ok_or(RedisConfigError::Time { what, time, least, most })
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The log-in is secret.
        f.debug_struct("RedisConfig")
            .field("servers", &self.servers.to_string())
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Servers {
    fn parse(url: &str) -> Result<Self, RedisConfigError> {
        let wrong = |why: &str| RedisConfigError::Url { why: why.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no ://"))?;
        let (cluster, tls) = match scheme {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (false, true),
            "redis-cluster" | "valkey-cluster" => (true, false),
            "rediss-cluster" | "valkeys-cluster" => (true, true),
            _ => return Err(wrong("it has another scheme")),
        };
        if tls && !cfg!(feature = "redis-tls") {
            return Err(RedisConfigError::Tls);
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("it has a query, which would say nothing"));
        }
        let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(login, hosts)| (login, hosts));
        let (hosts, database) =
            hosts.split_once('/').map_or((hosts, ""), |(hosts, database)| (hosts, database));
        if cluster && !database.is_empty() {
            return Err(wrong("it names a database, and a cluster has only one"));
        }
        let count = hosts.split(',').count();
        if count > MAX_SEEDS || (!cluster && count > 1) {
            return Err(wrong("it names too many servers"));
        }
        // The crate's own parser decodes the log-in and checks each host and port.
        let at = if login.is_empty() { "" } else { "@" };
        let info = |host: &str| {
            let info = format!("redis://{login}{at}{host}/{database}").into_connection_info();
            // The crate's text may repeat what it was given, so only its category is passed on.
            info.map_err(|error| wrong(error.category()))
        };
        let (mut seeds, mut settings) = (Vec::with_capacity(count), RedisConnectionInfo::default());
        for host in hosts.split(',') {
            let info = info(host)?;
            let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(wrong("a host is missing")) };
            if host.is_empty() {
                return Err(wrong("a host is missing"));
            }
            seeds.push((host.clone(), *port));
            settings = info.redis_settings().clone();
        }
        Ok(Self { cluster, tls, seeds, login: settings.set_skip_set_lib_name() })
    }

    /// What the crate wants to know to connect to one server.
    pub(super) fn connection(&self, host: &str, port: u16) -> Result<ConnectionInfo, redis::RedisError> {
        let host = host.to_owned();
        let addr = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        Ok(addr.into_connection_info()?.set_redis_settings(self.login.clone()))
    }

    /// The scheme of the URL.
    pub(super) const fn scheme(&self) -> &'static str {
        match (self.cluster, self.tls) {
            (false, false) => "redis",
            (false, true) => "rediss",
            (true, false) => "redis-cluster",
            (true, true) => "rediss-cluster",
        }
    }
}

/// The URL without the log-in.
impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        for (at, (host, port)) in self.seeds.iter().enumerate() {
            write!(f, "{}{}", if at > 0 { "," } else { "" }, server_name(host, *port))?;
        }
        Ok(())
    }
}

/// A server's name: `host:port`, with brackets around an IPv6 address.
pub(super) fn server_name(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
