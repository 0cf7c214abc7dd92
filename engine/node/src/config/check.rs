//! Makes checked values of those that a file has.

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kvrail::layouts::{Geometry, catalogue};
use kvrail::{Address, MANY_PEERS, PageLayout};
use toml::Spanned;

use super::error::NodeFileError;
use super::file::{DirectoryFile, NodeFile, NodeTransport, PoolFile, PoolSize};
use super::raw::{RawDirectory, RawFile, RawPool};
use crate::node::MAX_READERS;

/// The most bytes of a configuration file.
const MAX_FILE: u64 = 1 << 20;
/// The longest time that a key sets, in seconds.
const MAX_SECONDS: f64 = 86_400.0;

impl NodeFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is longer than a megabyte, or does not hold a configuration.
    pub fn read(path: &Path) -> Result<Self, NodeFileError> {
        let unreadable = |source| NodeFileError::File { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE {
            return Err(unreadable(std::io::Error::other("it is longer than a megabyte")));
        }
        Self::parse(&text, path)
    }

    /// Checks the text of a file, which errors call `path`. Relative paths in it are below the
    /// file's folder.
    ///
    /// # Errors
    ///
    /// It is no TOML, has a key that is not known, lacks one, or has a value that cannot be.
    pub fn parse(text: &str, path: &Path) -> Result<Self, NodeFileError> {
        Checker { text, path }.file()
    }
}

struct Checker<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Checker<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count()
    }

    fn wrong<T>(&self, key: &'static str, value: &Spanned<T>, why: impl Display) -> NodeFileError {
        let line = self.line(value.span().start);
        NodeFileError::Value { path: self.path.to_owned(), line, key, why: why.to_string() }
    }

    fn parsed<T: FromStr<Err: Display>>(
        &self,
        key: &'static str,
        value: &Spanned<String>,
    ) -> Result<T, NodeFileError> {
        value.get_ref().parse().map_err(|error| self.wrong(key, value, error))
    }

    fn optional<T: FromStr<Err: Display>>(
        &self,
        key: &'static str,
        value: Option<&Spanned<String>>,
    ) -> Result<Option<T>, NodeFileError> {
        value.map(|value| self.parsed(key, value)).transpose()
    }

    /// A path, below the folder of the file unless it begins with `/`.
    fn path(&self, key: &'static str, value: &Spanned<String>) -> Result<PathBuf, NodeFileError> {
        if value.get_ref().is_empty() {
            return Err(self.wrong(key, value, "no path: write the path of a file"));
        }
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        Ok(folder.join(value.get_ref()))
    }

    fn seconds(
        &self,
        key: &'static str,
        value: Option<&Spanned<f64>>,
        least: f64,
    ) -> Result<Option<Duration>, NodeFileError> {
        let Some(value) = value else { return Ok(None) };
        let seconds = *value.get_ref();
        // Not a number is in no range.
        if !(least..=MAX_SECONDS).contains(&seconds) {
            let why = format!("{seconds} seconds: write {least} to {MAX_SECONDS}");
            return Err(self.wrong(key, value, why));
        }
        Ok(Some(Duration::from_secs_f64(seconds)))
    }

    fn file(&self) -> Result<NodeFile, NodeFileError> {
        let raw: RawFile = toml::from_str(self.text).map_err(|error| NodeFileError::Syntax {
            path: self.path.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            why: error.message().to_owned(),
        })?;
        let (mut transport, mut rails, mut readers) = (NodeTransport::Tcp, Vec::new(), 1);
        let mut peers = None;
        if let Some(raw) = &raw.transport {
            transport = match raw.kind.get_ref().as_str() {
                "shm" => NodeTransport::Shm,
                "tcp" => NodeTransport::Tcp,
                "verbs" => NodeTransport::Verbs,
                other => {
                    let why = format!("{other:?} is no transport: write shm, tcp or verbs");
                    return Err(self.wrong("transport.kind", &raw.kind, why));
                }
            };
            for rail in &raw.rails {
                if rail.get_ref().is_empty() {
                    let why = "no name: leave `rails` out for all rails of the host";
                    return Err(self.wrong("transport.rails", rail, why));
                }
                rails.push(rail.get_ref().clone());
            }
            if let Some(rail) = raw.rails.first().filter(|_| transport != NodeTransport::Verbs) {
                let why = "rails of this kind are threads without names: leave `rails` out";
                return Err(self.wrong("transport.rails", rail, why));
            }
            if let Some(number) = &raw.readers {
                let good = usize::try_from(*number.get_ref()).ok();
                let good = good.filter(|number| (1..=MAX_READERS).contains(number));
                let why = || format!("{} readers: write 1 to {MAX_READERS}", number.get_ref());
                readers = good.ok_or_else(|| self.wrong("transport.readers", number, why()))?;
            }
            if let Some(number) = &raw.peers {
                let good = usize::try_from(*number.get_ref()).ok();
                let good = good.filter(|number| (1..=MANY_PEERS).contains(number));
                let why = || format!("{} peers: write 1 to {MANY_PEERS}", number.get_ref());
                peers = Some(good.ok_or_else(|| self.wrong("transport.peers", number, why()))?);
            }
        }
        if let Some(listen) = raw.listen.as_ref().filter(|_| transport == NodeTransport::Tcp)
            && listen.get_ref().parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
        {
            let why = "over tcp, write the address of the interface that readers reach";
            return Err(self.wrong("listen", listen, why));
        }
        let directory = raw.directory.as_ref();
        let timeouts = raw.timeouts.as_ref();
        let cache = directory.and_then(|raw| raw.cache_seconds.as_ref());
        let connect = timeouts.and_then(|raw| raw.connect_seconds.as_ref());
        let request = timeouts.and_then(|raw| raw.request_seconds.as_ref());
        Ok(NodeFile {
            name: self.parsed("name", &raw.name)?,
            listen: self.optional("listen", raw.listen.as_ref())?,
            advertise: self.optional("advertise", raw.advertise.as_ref())?,
            zone: self.optional("zone", raw.zone.as_ref())?,
            psk_file: self.path("psk_file", &raw.psk_file)?,
            tag_secret_file: self.path("tag_secret_file", &raw.tag_secret_file)?,
            transport,
            rails,
            readers,
            peers,
            near_nics: raw.transport.as_ref().and_then(|raw| raw.near_nics).unwrap_or(true),
            layouts: (raw.layouts.iter())
                .map(|name| self.layout("layouts", name).map(|(_, _, page)| page))
                .collect::<Result<_, _>>()?,
            pools: raw.pool.iter().map(|pool| self.pool(pool)).collect::<Result<_, _>>()?,
            directory: directory.map_or(Ok(DirectoryFile::None), |raw| self.directory(raw))?,
            directory_cache: self
                .seconds("directory.cache_seconds", cache, 0.0)?
                .unwrap_or(Duration::from_secs(5)),
            metrics: self.optional("metrics", raw.metrics.as_ref())?,
            slow_request: self.seconds("slow_request_seconds", raw.slow_request_seconds.as_ref(), 0.0)?,
            connect_timeout: self
                .seconds("timeouts.connect_seconds", connect, 0.001)?
                .unwrap_or(Duration::from_secs(2)),
            request_timeout: self
                .seconds("timeouts.request_seconds", request, 0.001)?
                .unwrap_or(Duration::from_secs(5)),
        })
    }

    /// A layout of the catalogue.
    fn layout(
        &self,
        key: &'static str,
        name: &Spanned<String>,
    ) -> Result<(&'static str, &'static Geometry, PageLayout), NodeFileError> {
        let listed = catalogue::all().find(|(listed, _)| listed == name.get_ref());
        let Some((layout, geometry)) = listed else {
            let why =
                format!("{:?} is no layout of the catalogue: docs/layouts.md lists them", name.get_ref());
            return Err(self.wrong(key, name, why));
        };
        let page = PageLayout::of_geometry(layout, geometry, false);
        Ok((layout, geometry, page.map_err(|error| self.wrong(key, name, error))?))
    }

    fn pool(&self, raw: &RawPool) -> Result<PoolFile, NodeFileError> {
        let (layout, geometry, page) = self.layout("pool.layout", &raw.layout)?;
        let size = match (&raw.pages, &raw.bytes) {
            (Some(pages), None) => {
                let number = u32::try_from(*pages.get_ref()).ok().filter(|&pages| pages > 0);
                let why = || format!("{} pages: write 1 to {}", pages.get_ref(), u32::MAX);
                PoolSize::Pages(number.ok_or_else(|| self.wrong("pool.pages", pages, why()))?)
            }
            (None, Some(bytes)) => {
                let page = geometry.page_bytes();
                let number = u64::try_from(*bytes.get_ref()).ok().filter(|&bytes| bytes >= page);
                let why = || format!("{} bytes, and a page of {layout} has {page}", bytes.get_ref());
                PoolSize::Bytes(number.ok_or_else(|| self.wrong("pool.bytes", bytes, why()))?)
            }
            _ => return Err(self.wrong("pool", &raw.layout, "write either `pages` or `bytes`")),
        };
        Ok(PoolFile { layout, geometry, page, size })
    }

    fn directory(&self, raw: &RawDirectory) -> Result<DirectoryFile, NodeFileError> {
        let kind = raw.kind.get_ref();
        let is_url = kind.contains("://");
        let with_candidates = matches!(kind.as_str(), "embedded" | "one-sided");
        let unused = |key, value: Option<&Spanned<String>>, fits: bool| match value {
            Some(value) if !fits => {
                Err(self.wrong(key, value, format!("a directory of this kind has no {key}")))
            }
            _ => Ok(()),
        };
        let candidates = raw.candidates.as_deref().unwrap_or_default();
        unused("directory.candidates", candidates.first(), with_candidates)?;
        unused("directory.prefix", raw.prefix.as_ref(), is_url)?;
        let lease = self.seconds("directory.lease_seconds", raw.lease_seconds.as_ref(), 0.3)?;
        if let Some(value) = raw.lease_seconds.as_ref().filter(|_| !is_url) {
            let why = "only a directory in Redis has a lease that is set here";
            return Err(self.wrong("directory.lease_seconds", value, why));
        }
        let parsed = candidates.iter().map(|address| self.parsed::<Address>("directory.candidates", address));
        let candidates = parsed.collect::<Result<Vec<_>, _>>()?;
        match kind.as_str() {
            "none" => Ok(DirectoryFile::None),
            "embedded" => Ok(DirectoryFile::Embedded { candidates }),
            "one-sided" => Ok(DirectoryFile::OneSided { candidates }),
            _ if is_url => {
                let url = kind.clone();
                let prefix = raw.prefix.as_ref().map(|prefix| prefix.get_ref().clone());
                self.redis(raw, &url, prefix.as_deref(), lease)?;
                Ok(DirectoryFile::Redis { url, prefix, lease })
            }
            _ => {
                // It may be a URL with a mistake, and a password in it.
                let why = "no kind of directory: write none, embedded, one-sided or a URL such as redis://host:6379";
                Err(self.wrong("directory.kind", &raw.kind, why))
            }
        }
    }

    #[cfg(feature = "redis")]
    fn redis(
        &self,
        raw: &RawDirectory,
        url: &str,
        prefix: Option<&str>,
        lease: Option<Duration>,
    ) -> Result<(), NodeFileError> {
        let config = crate::directory::redis::RedisConfig::new(url);
        let config = config.map_err(|error| self.wrong("directory.kind", &raw.kind, error))?;
        let config = match (prefix, &raw.prefix) {
            (Some(prefix), Some(value)) => {
                config.prefix(prefix).map_err(|error| self.wrong("directory.prefix", value, error))?
            }
            _ => config,
        };
        if let (Some(lease), Some(value)) = (lease, &raw.lease_seconds) {
            config.lease(lease).map_err(|error| self.wrong("directory.lease_seconds", value, error))?;
        }
        Ok(())
    }

    #[cfg(not(feature = "redis"))]
    fn redis(
        &self,
        raw: &RawDirectory,
        _: &str,
        _: Option<&str>,
        _: Option<Duration>,
    ) -> Result<(), NodeFileError> {
        let why = "this build has no directory in Redis: build kvrail-node with its feature `redis`";
        Err(self.wrong("directory.kind", &raw.kind, why))
    }
}
