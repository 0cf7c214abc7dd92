//! `doctor --peer`: what differs between two hosts, of which both are folders that the test writes.

mod common;
#[path = "env/tree.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod tree;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{bench, complaint, run, signal, wait};
use tree::{Tree, device, net, port};

const SOON: Duration = Duration::from_secs(60);

/// A running `env --listen` and its address.
struct Given(Child, String);

impl Given {
    fn start(tree: &Tree) -> Self {
        let root = tree.root.to_str().unwrap();
        let mut command = bench(&["env", "--root", root, "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("kvrail-bench doctor --peer ").unwrap_or_default().to_owned();
        Self(child, address)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status of `doctor --peer`, and its lines about the peer.
fn doctor(tree: &Tree, peer: &str) -> (i32, Vec<String>) {
    let output = run(&["doctor", "--root", tree.root.to_str().unwrap(), "--peer", peer], SOON);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line[9..].starts_with("peer ")).map(str::to_owned).collect();
    (output.status.code().unwrap(), lines)
}

#[test]
fn two_machines_of_one_kind_differ_in_nothing() {
    let tree = Tree::reference();
    let given = Given::start(&tree);
    let (status, lines) = doctor(&tree, &given.1);
    assert_eq!(status, 0, "{lines:?}");
    assert!(lines.len() == 10 && lines.iter().all(|line| line.starts_with("ok ")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("differs")), "{lines:?}");
}

#[test]
fn each_difference_is_one_line_with_both_values() {
    let own = Tree::reference();
    let each = |change: &dyn Fn(&Tree, u32)| {
        let tree = Tree::reference();
        (0..8).for_each(|nic| change(&tree, nic));
        tree
    };
    for (peer, line) in [
        (
            each(&|tree, nic| tree.write(&format!("{}/mtu", net(nic)), "1500\n")),
            "peer packet    4096 here, 1024 there. Mend: ip link",
        ),
        (
            each(&|tree, nic| tree.write(&format!("{}/rate", port(nic)), "200 Gb/sec (4X HDR)\n")),
            "peer rate      400.0 here, 200.0 there",
        ),
        (
            each(&|tree, nic| {
                if nic > 5 {
                    tree.write(&format!("{}/state", port(nic)), "1: DOWN\n")
                }
            }),
            "peer ports     8 here, 6 there. Mend: give --rails",
        ),
        (
            each(&|tree, nic| {
                (0..4).for_each(|gid| {
                    tree.write(&format!("{}/gid_attrs/types/{gid}", port(nic)), "IB/RoCE v1\n")
                })
            }),
            "peer GID       RoCE v2 here, IB/RoCE v1 there",
        ),
    ] {
        let (status, lines) = doctor(&own, &Given::start(&peer).1);
        let wrong: Vec<_> = lines.iter().filter(|line| line.starts_with("WRONG")).collect();
        assert!(wrong.len() == 1 && wrong[0].contains(line), "{line}: {lines:?}");
        assert_eq!(status, 1);
    }
    // What may differ is told, and is no finding.
    let peer =
        each(&|tree, nic| tree.write(&format!("{}/infiniband/mlx5_{nic}/fw_ver", device(nic)), "28.40.1\n"));
    let (status, lines) = doctor(&own, &Given::start(&peer).1);
    assert_eq!(status, 0, "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("differs, without harm: 28.39.1002 here, 28.40.1 there")),
        "{lines:?}"
    );
    // A host without a port.
    let none = Tree::reference();
    none.remove("sys/class/infiniband");
    let (status, lines) = doctor(&own, &Given::start(&none).1);
    assert!(status == 1 && lines[0].contains("the peer has no RDMA port that is up"), "{lines:?}");
}

#[test]
fn a_peer_that_is_not_there_or_is_something_else_is_named() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = complaint(&run(&["doctor", "--peer", &unused], SOON));
    assert!(text.contains(&unused) && text.contains("env --listen") && text.contains("refused"), "{text}");
    let text = complaint(&run(&["doctor", "--peer", "nowhere"], SOON));
    assert!(text.contains("--peer nowhere") && text.contains("HOST:PORT"), "{text}");
    for (answer, why) in [
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "expected value"),
        ("{\"schema\": \"kvrail-bench-env/9\"}".into(), "its format is not kvrail-bench-env/1"),
        (String::new(), "EOF"),
        ("[".repeat(17 << 20), "more than 16777216 bytes"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let _ = listener.accept().unwrap().0.write_all(answer.as_bytes());
        });
        let text = complaint(&run(&["doctor", "--peer", &address], SOON));
        assert!(text.contains(why) && text.contains("env --listen"), "{why}: {text}");
        thread.join().unwrap();
    }
    let text = complaint(&run(&["env", "--listen", "192.0.2.1:0"], SOON));
    assert!(text.contains("cannot listen at 192.0.2.1:0") && text.contains("--listen"), "{text}");
}

#[test]
fn facts_are_given_until_a_signal_comes() {
    let tree = Tree::reference();
    let root = tree.root.to_str().unwrap();
    let mut command = bench(&["env", "--root", root, "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    signal(child.id(), "TERM");
    assert!(wait(child, SOON).status.success());
}
