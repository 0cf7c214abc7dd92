//! `serve` and `drive` with a directory in a real redis-server.

mod common;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{KEY, Served, complaint, run};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const SMALL: [&str; 4] = ["--layout", "vllm_fp8_ds_mla", "--working-set", "4MiB"];

/// A server on loopback that keeps nothing on disk, and is killed when the test ends.
struct RedisServer {
    process: Child,
    url: String,
}

impl RedisServer {
    /// `None` if there is no redis-server, unless the tests require it.
    fn start() -> Option<Self> {
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            let Ok(process) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
                skip();
                return None;
            };
            let mut server = Self { process, url: format!("redis://127.0.0.1:{port}") };
            let until = Instant::now() + SOON;
            // Another process may have taken the port meanwhile: then the server ends.
            while server.process.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(server);
                }
                assert!(Instant::now() < until, "redis-server does not start");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("redis-server does not start at any of 20 ports");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn skip() {
    use std::io::Write as _;
    let required = std::env::var_os("KVRAIL_REDIS_TESTS").is_some_and(|value| value == "required");
    assert!(
        !required,
        "KVRAIL_REDIS_TESTS=required, and there is no redis-server: apt-get install redis-server"
    );
    let _ =
        writeln!(std::io::stderr(), "*** SKIPPED: there is no redis-server (apt-get install redis-server)");
}

#[test]
fn drive_finds_the_pages_of_serve_in_redis() {
    let Some(redis) = RedisServer::start() else { return };
    let served = Served::start(&[&SMALL[..], &["--directory", &redis.url]].concat());
    assert!(served.line.contains(&format!(" --directory {}", redis.url)), "{}", served.line);
    let more = ["--duration", "200ms", "--warmup", "20ms", "--json", "-"];
    let gets = |args: &[&str]| {
        let output = run(&[args, &more].concat(), SOON);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let report: Value = serde_json::from_slice(&output.stdout).expect(&errors);
        let row = &report["results"][0];
        // 4 MiB are 99 pages of 41,984 bytes.
        let compared = [&row["pages_verified"], &row["pages_wrong"], &row["hit_ratio"]];
        assert_eq!(compared, [&Value::from(99), &0.into(), &1.0.into()], "{row}");
        assert_eq!(row["errors"], serde_json::json!({}), "{row}");
    };
    gets(&[&served.args()[..], &["--op", "get"]].concat());
    gets(&[&served.args()[..], &["--op", "get", "--dir-cache", "0"]].concat());
    // Keys are enough: the producer's address is in the directory.
    gets(&["drive", "--key", KEY, "--layout", "vllm_fp8_ds_mla", "--op", "get", "--directory", &redis.url]);
}

#[test]
fn a_redis_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("redis://127.0.0.1:{port}");
    let args = ["drive", "--key", KEY, "--layout", "vllm_fp8_ds_mla", "--op", "get", "--directory", &url];
    let text = complaint(&run(&[&args[..], &["--duration", "200ms"]].concat(), SOON));
    assert!(text.contains("directory") && text.contains("serve"), "{text}");
}
