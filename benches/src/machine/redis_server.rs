//! A private redis-server on loopback, for as long as a command runs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::parent::Child;
use crate::process::protocol::Role;

/// The programs that will do, in the order in which they are tried.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// How often another port is tried: another process may take one before the server does.
const ATTEMPTS: u32 = 10;

/// A running server. It is killed, and its folder removed, when this is dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: u16,
    // Dropped before its folder is.
    _process: Child,
    _folder: Folder,
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl RedisServer {
    /// Starts a server at any free port of loopback. It keeps nothing on disk.
    ///
    /// # Errors
    ///
    /// There is no such program, or it does not start.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = find().context(
            "--directory redis starts a private redis-server, and this host has none: install it \
             (apt-get install redis-server, or valkey-server), or give a server's URL: --directory redis://host:port",
        )?;
        for _ in 0..ATTEMPTS {
            if let Some(server) = Self::try_start(program)? {
                return Ok(server);
            }
        }
        bail!("{program} did not start at any of {ATTEMPTS} ports of loopback")
    }

    fn try_start(program: &str) -> anyhow::Result<Option<Self>> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.context("no port of loopback is free")?.port();
        let path = std::env::temp_dir().join(format!("kvrail-bench-redis-{}-{port}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let folder = Folder(path);
        let (port_text, path) = (port.to_string(), folder.0.display().to_string());
        let args = [
            ["--port", &port_text],
            ["--bind", "127.0.0.1"],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--dir", &path],
            ["--logfile", "log"],
        ];
        let args = args.as_flattened().iter().map(|&word| word.to_owned()).collect();
        let mut process = Child::start("redis-server", &Role::Program { name: program.into(), args })?;
        let until = Instant::now() + START;
        loop {
            if process.failure().is_some() {
                return Ok(None);
            }
            let log = fs::read_to_string(folder.0.join("log")).unwrap_or_default();
            // Another process may have the port, and answer.
            let ready = log.contains("Ready to accept connections");
            if ready && TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Some(Self { port, _process: process, _folder: folder }));
            }
            if Instant::now() > until {
                bail!("{program} did not start within {START:?}; its log:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// The first of the programs that there is.
fn find() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| {
        let version =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    })
}
