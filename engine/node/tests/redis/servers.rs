//! Private redis-server processes on loopback: one, or a cluster of three.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kvrail_node::Directory;
use kvrail_node::directory::redis::{RedisConfig, RedisDirectory};
use rustix::process::{Pid, Signal, kill_process};

use crate::directory_suite::Cluster;

/// The owners' lease in tests that wait for the end of one.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// The owners' lease in all other tests, which outlasts each of them on a busy machine.
const LONG_LEASE: Duration = Duration::from_secs(300);
/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);
const SLOTS: u32 = 16_384;

/// Whether there is a redis-server. Without one the tests are skipped, or fail if required.
pub(crate) fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let version = Command::new("redis-server").arg("--version").output();
        let there = version.is_ok_and(|output| output.status.success());
        if !there {
            let required = std::env::var_os("KVRAIL_REDIS_TESTS").is_some_and(|value| value == "required");
            assert!(
                !required,
                "KVRAIL_REDIS_TESTS=required, and there is no redis-server: apt-get install redis-server"
            );
        }
        there
    })
}

/// Says that a test is skipped, past the capture of its output.
pub(crate) fn skipped() {
    use std::io::Write as _;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(
        std::io::stderr(),
        "*** SKIPPED: {name}: there is no redis-server (apt-get install redis-server)"
    );
}

/// A folder that is removed when the test ends.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kvrail-redis-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One server, which is killed when the test ends, however it ends.
#[derive(Debug)]
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    arguments: Vec<String>,
    folder: Folder,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) fn new(cluster: bool, extra: &[&str]) -> Self {
        let mut arguments: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            .into_iter()
            .chain(["--logfile", "log", "--dbfilename", "dump.rdb"])
            .map(str::to_owned)
            .collect();
        arguments.extend(extra.iter().map(|&argument| argument.to_owned()));
        // Another process may take a free port before the server does.
        for _ in 0..20 {
            let (port, bus) = (free_port(), free_port());
            let mut own = arguments.clone();
            if cluster {
                let settings = format!(
                    "--cluster-enabled yes --cluster-config-file nodes.conf --cluster-port {bus} \
                     --cluster-node-timeout 3000 --cluster-require-full-coverage no"
                );
                own.extend(settings.split_whitespace().map(str::to_owned));
            }
            let mut server = Self { port, arguments: own, folder: Folder::new(), child: None };
            if server.start() {
                return server;
            }
        }
        panic!("no redis-server starts");
    }

    /// Starts it; whether it runs.
    pub(crate) fn start(&mut self) -> bool {
        assert!(self.child.is_none());
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(&self.folder.0).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let limit = Instant::now() + START;
        loop {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.child = None;
                return false;
            }
            let answers = std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            if answers && self.log().contains("Ready to accept connections") {
                return true;
            }
            assert!(Instant::now() < limit, "redis-server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        }
    }

    /// Stops it. No thread of it runs any more once this has returned.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let Some(child) = &self.child else { return };
        let limit = Instant::now() + START;
        let stopped = |stat: &str| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"));
        loop {
            let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
            let stat =
                |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            if threads.flatten().map(stat).all(|stat| stopped(&stat)) {
                return;
            }
            assert!(Instant::now() < limit, "redis-server does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.folder.0.join("log"));
    }

    /// A connection of the test's own, to look at and to spoil what is there.
    pub(crate) fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let limit = Instant::now() + START;
        loop {
            match client.get_connection_with_timeout(Duration::from_secs(5)) {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < limit, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn cluster_id(&self) -> String {
        redis::cmd("CLUSTER").arg("MYID").query(&mut self.connection()).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The servers of one test.
pub(crate) struct Servers {
    pub(crate) all: Vec<RedisServer>,
    /// Connections that ask for the servers' counters, and how often each of them has asked.
    counters: Vec<Counter>,
    asked: u64,
    lease: Duration,
}

struct Counter(redis::Connection);

impl Counter {
    fn reads(&mut self) -> u64 {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut self.0).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
        line.trim().parse().unwrap()
    }
}

/// One server; `None` without redis-server.
pub(crate) fn one() -> Option<Servers> {
    one_with(&[])
}

/// One server with further settings.
pub(crate) fn one_with(settings: &[&str]) -> Option<Servers> {
    if !is_there() {
        skipped();
        return None;
    }
    Some(Servers {
        all: vec![RedisServer::new(false, settings)],
        counters: Vec::new(),
        asked: 0,
        lease: LONG_LEASE,
    })
}

/// A cluster of three servers, each with a third of the slots.
pub(crate) fn three() -> Option<Servers> {
    if !is_there() {
        skipped();
        return None;
    }
    let all: Vec<_> = (0..3).map(|_| RedisServer::new(true, &[])).collect();
    let ports = |server: &RedisServer| {
        let bus = server.arguments.iter().position(|argument| argument == "--cluster-port").unwrap();
        (server.port, server.arguments[bus + 1].clone())
    };
    for (at, server) in (0_u32..).zip(&all) {
        let mut connection = server.connection();
        let (first, last) = (at * SLOTS / 3, (at + 1) * SLOTS / 3 - 1);
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("ADDSLOTSRANGE").arg(first).arg(last).exec(&mut connection).unwrap();
        for (port, bus) in all[..at as usize].iter().map(ports) {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(port).arg(bus).exec(&mut connection).unwrap();
        }
    }
    let servers = Servers { all, counters: Vec::new(), asked: 0, lease: LONG_LEASE };
    servers.wait_until_complete();
    Some(servers)
}

impl Servers {
    /// With a lease that is short enough to be waited for, if the test waits for one.
    pub(crate) fn for_test(mut self, name: &str) -> Self {
        let waits = ["expire", "lease", "renews"].iter().any(|word| name.contains(word));
        self.lease = if waits { LEASE } else { LONG_LEASE };
        self
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.all.len() > 1
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.all.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let scheme = if self.is_cluster() { "redis-cluster" } else { "redis" };
        format!("{scheme}://{}", hosts.join(","))
    }

    pub(crate) fn config(&self) -> RedisConfig {
        RedisConfig::new(&self.url()).unwrap().lease(self.lease).unwrap()
    }

    pub(crate) fn start(&self) -> RedisDirectory {
        RedisDirectory::start(self.config()).unwrap()
    }

    /// Waits until every server of the cluster knows who has which slot.
    pub(crate) fn wait_until_complete(&self) {
        if !self.is_cluster() {
            return;
        }
        let limit = Instant::now() + START;
        let knows_all = |server: &RedisServer| {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut server.connection()).unwrap();
            let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut server.connection()).unwrap();
            info.contains("cluster_state:ok")
                && info.contains("cluster_slots_ok:16384")
                && info.contains("cluster_known_nodes:3")
                && !nodes.contains("fail")
        };
        while !self.all.iter().all(knows_all) {
            assert!(Instant::now() < limit, "the cluster does not come together");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Cluster for Servers {
    fn client(&self) -> Box<dyn Directory> {
        Box::new(self.start())
    }

    fn look_ups(&mut self) -> Option<u64> {
        if self.counters.is_empty() {
            self.counters = self.all.iter().map(|server| Counter(server.connection())).collect();
        }
        self.asked += 1;
        // A message is one read from a connection; this question is one, too.
        let reads: u64 = self.counters.iter_mut().map(Counter::reads).sum();
        Some(reads - self.asked * self.all.len() as u64)
    }

    fn shards(&self) -> usize {
        self.all.len()
    }

    fn kill_part(&mut self) {
        self.all[0].kill();
    }

    fn kill_all(&mut self) {
        self.all.iter_mut().for_each(RedisServer::kill);
    }

    fn restart(&mut self) {
        for server in self.all.iter_mut().filter(|server| server.child.is_none()) {
            assert!(server.start(), "a server does not start again");
        }
        self.wait_until_complete();
    }

    fn freeze(&mut self) {
        self.all.iter().for_each(RedisServer::freeze);
    }

    fn thaw(&mut self) {
        self.all.iter().for_each(RedisServer::thaw);
    }
}
