use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use kvrail_node::metrics::http::{MetricsError, MetricsServer};

use crate::busy;

/// Sends bytes, and returns all that comes back until the end.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may have closed before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn start() -> MetricsServer {
    MetricsServer::start("127.0.0.1:0".parse().unwrap(), busy()).unwrap()
}

#[test]
fn prometheus_gets_all_samples() {
    let server = start();
    for path in ["/metrics", "/metrics?collect=all"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
        let answer = ask(server.local_addr(), request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("\nkvrail_hits_total 1\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
}

#[test]
fn other_requests_are_refused_and_the_next_is_answered() {
    let server = start();
    let cases: [(&[u8], &str); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"GET /metricsx HTTP/1.0\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"GET /metrics HTTP/2\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1 x\r\n\r\n", "400"),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
    ];
    for (request, status) in cases {
        let answer = ask(server.local_addr(), request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    // Longer than a request may be, with no end.
    let answer = ask(server.local_addr(), &[b'a'; 8 << 10]);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A client that says nothing is given up, and then the next one is served.
    let silent = TcpStream::connect(server.local_addr()).unwrap();
    let answer = ask(server.local_addr(), b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(silent);
}

#[test]
fn an_address_in_use_is_an_error_and_is_free_again_after_the_server() {
    let server = start();
    let address = server.local_addr();
    let error = MetricsServer::start(address, Arc::default()).unwrap_err();
    assert!(matches!(error, MetricsError::Listen { .. }) && error.code() == 7320, "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "no thread listens any more");
}
