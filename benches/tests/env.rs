//! `env` and `doctor` over the files of a machine that the test writes: the reference machine of
//! the published baseline, whole, with one fact broken, and with garbage.
//!
//! `BLESS=1 cargo test -p kvrail-bench --test env` writes the expected outputs again; look at the
//! difference.

mod common;
#[path = "env/tree.rs"]
mod tree;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::run;
use serde_json::Value;
use tree::{Tree, device, net, port};

const SOON: Duration = Duration::from_secs(60);

/// Runs a command over the tree. No text of it may name a panic.
fn over(tree: &Tree, args: &[&str]) -> Output {
    over_root(tree.root.to_str().unwrap(), args)
}

fn over_root(root: &str, args: &[&str]) -> Output {
    let output = run(&[args, &["--root", root]].concat(), SOON);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The exit status and the lines of `doctor`.
fn doctor(tree: &Tree) -> (i32, Vec<String>) {
    let output = over(tree, &["doctor"]);
    (output.status.code().unwrap(), stdout(&output).lines().map(str::to_owned).collect())
}

/// The table and the JSON of `env`, which always succeeds.
fn env(root: &str) -> (String, Value) {
    let output = over_root(root, &["env", "--json", "-"]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stderr.clone()).unwrap();
    for line in table.lines() {
        assert!(line.chars().count() <= 80 && !line.chars().any(char::is_control), "{line}");
    }
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema"], "kvrail-bench-env/1");
    assert!(json["created_at"].is_string());
    (table, json["environment"].clone())
}

/// Compares with the expected output in a file beside this test.
fn same_as(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
}

#[test]
fn the_reference_machine_is_shown_whole_and_nothing_is_wrong_with_it() {
    let tree = Tree::reference();
    let (table, mut facts) = env(tree.root.to_str().unwrap());
    same_as("table.txt", &table);
    assert_eq!(stdout(&over(&tree, &["env"])), table, "without --json the table goes to stdout");
    assert!(!facts.to_string().contains("unknown"), "{facts}");
    let devices = facts["devices"].as_array_mut().unwrap();
    assert_eq!(devices.len(), 8);
    // One of the eight stands for all.
    devices.truncate(1);
    facts["gpu"]["devices"].as_array_mut().unwrap().truncate(1);
    same_as("facts.json", &(serde_json::to_string_pretty(&facts).unwrap() + "\n"));
    let (status, lines) = doctor(&tree);
    same_as("doctor.txt", &(lines.join("\n") + "\n"));
    assert_eq!(status, 0);
}

/// One fact of the machine that is broken, and the exit status of `doctor` then.
struct Break {
    what: &'static str,
    how: fn(&Tree),
    status: i32,
}

const BREAKS: &[Break] = &[
    Break {
        what: "locked memory has a limit",
        how: |tree| tree.replace("proc/self/limits", "memory         unlimited", "memory         8388608  "),
        status: 1,
    },
    Break {
        what: "a port is down",
        how: |tree| {
            tree.write(&format!("{}/state", port(2)), "1: DOWN\n");
            tree.write(&format!("{}/phys_state", port(2)), "3: Disabled\n");
        },
        status: 1,
    },
    Break {
        what: "a port runs at half its rate",
        how: |tree| tree.write(&format!("{}/rate", port(6)), "200 Gb/sec (4X HDR)\n"),
        status: 1,
    },
    Break {
        what: "the MTU of a port is another",
        how: |tree| tree.write(&format!("{}/mtu", net(3)), "1500\n"),
        status: 1,
    },
    Break {
        what: "the MTU of all ports is small",
        how: |tree| (0..8).for_each(|nic| tree.write(&format!("{}/mtu", net(nic)), "1500\n")),
        status: 1,
    },
    Break {
        what: "a port has no GID",
        how: |tree| {
            let zero = "0000:0000:0000:0000:0000:0000:0000:0000\n";
            (0..4).for_each(|index| tree.write(&format!("{}/gids/{index}", port(1)), zero));
        },
        status: 1,
    },
    Break {
        what: "a port has a link-local GID only",
        how: |tree| {
            let zero = "0000:0000:0000:0000:0000:0000:0000:0000\n";
            (2..4).for_each(|index| tree.write(&format!("{}/gids/{index}", port(1)), zero));
        },
        status: 1,
    },
    Break {
        what: "a link on PCIe has half its lanes",
        how: |tree| tree.write(&format!("{}/current_link_width", device(5)), "8\n"),
        status: 1,
    },
    Break {
        what: "a link on PCIe is slower than it could be",
        how: |tree| tree.write(&format!("{}/current_link_speed", device(0)), "16.0 GT/s PCIe\n"),
        status: 1,
    },
    Break {
        what: "a device is at its best, and carries less than its port",
        how: |tree| {
            for name in ["current_link_speed", "max_link_speed"] {
                tree.write(&format!("{}/{name}", device(0)), "16.0 GT/s PCIe\n");
            }
        },
        status: 1,
    },
    Break {
        what: "the process may run on one node only",
        how: |tree| tree.replace("proc/self/status", "0-383", "0-95"),
        status: 1,
    },
    Break {
        what: "the process gets memory of one node only",
        how: |tree| tree.replace("proc/self/status", "0-1", "1"),
        status: 1,
    },
    Break {
        what: "ib_uverbs is not loaded",
        how: |tree| tree.replace("proc/modules", "ib_uverbs 16384 0 - Live 0x0000000000000000\n", ""),
        status: 1,
    },
    Break {
        what: "nvidia_peermem is not loaded",
        how: |tree| tree.replace("proc/modules", "nvidia_peermem 16384 0 - Live 0x0000000000000000\n", ""),
        status: 1,
    },
    Break { what: "the container has no device files", how: |tree| tree.remove("dev/infiniband"), status: 1 },
    Break {
        what: "libibverbs is missing",
        how: |tree| tree.remove("usr/lib/x86_64-linux-gnu/libibverbs.so.1"),
        status: 1,
    },
    Break {
        what: "the container's memory is limited",
        how: |tree| tree.write("sys/fs/cgroup/job/memory.max", "2147483648\n"),
        status: 1,
    },
    Break {
        what: "the container's CPU time is limited",
        how: |tree| tree.write("sys/fs/cgroup/job/cpu.max", "400000 100000\n"),
        status: 1,
    },
    Break {
        what: "transparent huge pages are off",
        how: |tree| tree.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
        status: 1,
    },
    Break {
        what: "shared memory has no huge pages",
        how: |tree| {
            let text = "always within_size advise [never] deny force\n";
            tree.write("sys/kernel/mm/transparent_hugepage/shmem_enabled", text);
        },
        status: 1,
    },
    Break {
        what: "a link's width cannot be read",
        how: |tree| tree.remove(&format!("{}/current_link_width", device(5))),
        status: 2,
    },
    Break {
        what: "a rate is garbage",
        how: |tree| tree.write(&format!("{}/rate", port(0)), "fast\n"),
        status: 2,
    },
    Break { what: "limits cannot be read", how: |tree| tree.remove("proc/self/limits"), status: 2 },
    Break {
        what: "the machine does not say on which node a NIC is",
        how: |tree| tree.write(&format!("{}/numa_node", device(7)), "-1\n"),
        status: 2,
    },
    Break {
        what: "the control group is not mounted",
        how: |tree| tree.write("proc/self/mountinfo", "30 24 0:26 / /elsewhere rw - tmpfs tmpfs rw\n"),
        status: 2,
    },
];

#[test]
fn one_broken_fact_changes_one_line_and_the_exit_status() {
    let (_, fine) = doctor(&Tree::reference());
    let mut all = String::new();
    for Break { what, how, status } in BREAKS {
        let tree = Tree::reference();
        how(&tree);
        let (got, lines) = doctor(&tree);
        let differ: Vec<_> = lines.iter().filter(|line| !fine.contains(line)).collect();
        let gone: Vec<_> = fine.iter().filter(|line| !lines.contains(line)).collect();
        // Memory and CPU time are limits of one group: where it is not mounted, both are unknown.
        let expected = if *what == "the control group is not mounted" { 2 } else { 1 };
        assert_eq!((differ.len(), gone.len()), (expected, expected), "{what}: {}", lines.join("\n"));
        let mark = if *status == 1 { "WRONG" } else { "unknown" };
        assert!(differ.iter().all(|line| line.starts_with(mark)), "{what}: {differ:?}");
        assert!(*status != 1 || differ[0].contains(". Mend: "), "{what}: {differ:?}");
        assert_eq!(got, *status, "{what}");
        let lines: String = differ.iter().map(|line| format!("    {line}\n")).collect();
        write!(all, "{what}, exit status {got}:\n{lines}").unwrap();
    }
    same_as("broken.txt", &all);
}

#[test]
fn a_finding_counts_more_than_what_is_unknown() {
    let tree = Tree::reference();
    tree.remove("proc/self/limits");
    tree.write(&format!("{}/mtu", net(3)), "1500\n");
    assert_eq!(doctor(&tree).0, 1);
}

#[test]
fn a_capability_lifts_the_limit_on_locked_memory_on_the_host_only() {
    let tree = Tree::reference();
    tree.replace("proc/self/limits", "memory         unlimited", "memory         8388608  ");
    tree.replace("proc/self/status", "CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff");
    assert_eq!(doctor(&tree).0, 0);
    tree.write("proc/self/uid_map", "         0       1000          1\n");
    assert_eq!(doctor(&tree).0, 1);
}

#[test]
fn an_address_of_another_container_is_not_the_one_that_is_used() {
    let tree = Tree::reference();
    // The table names an interface of that name, but the address is not one of this host's.
    tree.write(&format!("{}/gids/4", port(0)), "0000:0000:0000:0000:0000:ffff:0a09:0909\n");
    tree.write(&format!("{}/gid_attrs/types/4", port(0)), "RoCE v2\n");
    tree.write(&format!("{}/gid_attrs/ndevs/4", port(0)), "eth1\n");
    let (_, facts) = env(tree.root.to_str().unwrap());
    let rows = facts["devices"][0]["ports"][0]["gids"].as_array().unwrap();
    let of = |index: usize| (rows[index]["role"].as_str().unwrap(), rows[index]["why"].as_str().unwrap());
    assert_eq!(of(3), ("used", "RoCE v2 over IPv4: the best of the table"));
    assert_eq!(of(4).0, "rejected");
    assert!(of(4).1.contains("not in this network namespace"), "{rows:?}");
}

#[test]
fn a_machine_without_rdma_is_told_so() {
    let tree = Tree::reference();
    tree.remove("sys/class/infiniband");
    let (status, lines) = doctor(&tree);
    assert_eq!(status, 1);
    assert!(lines[0].contains("no RDMA device"), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line.starts_with("ok")), "{lines:?}");
    let (table, facts) = env(tree.root.to_str().unwrap());
    assert!(table.contains("RDMA devices   none"), "{table}");
    assert_eq!(facts["devices"], serde_json::json!([]));
}

#[test]
fn a_root_without_files_leaves_everything_unknown() {
    let empty = Tree::empty();
    let missing = empty.path("missing");
    let file = empty.path("file");
    fs::write(&file, "").unwrap();
    for root in [&empty.root, &missing, &file] {
        let root = root.to_str().unwrap();
        let (table, facts) = env(root);
        assert!(table.contains("/proc/version: not"), "{table}");
        assert!(facts["devices"]["unknown"].is_string() && facts["numa"]["unknown"].is_string(), "{facts}");
        let output = over_root(root, &["doctor"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stdout(&output).lines().all(|line| line.starts_with("unknown")), "{output:?}");
    }
}

/// Each file of the tree in turn, and all at once, is something else than the kernel writes.
#[test]
fn garbage_in_any_file_is_unknown_and_no_panic() {
    let long = "9".repeat(1 << 20);
    let kinds: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("no text", b"\xFF\xFE\x00"),
        ("words", b"garbage \x1b[2J\n"),
        ("a huge number", b"99999999999999999999999999\n"),
        ("a long line", long.as_bytes()),
    ];
    let tree = Tree::reference();
    let root = tree.root.to_str().unwrap();
    // All NICs and GPUs are read by the same code: one of each is enough.
    let one = |path: &Path| {
        let path = path.to_str().unwrap();
        let others = (1..8).any(|nic| path.contains(&device(nic)) || path.ends_with(&format!("uverbs{nic}")));
        let gpu = path.contains("proc/driver/nvidia/gpus") || path.contains("sys/bus/pci");
        !others && (!gpu || path.contains("0000:18:00.0"))
    };
    for path in tree.files().iter().filter(|path| one(path)) {
        let text = fs::read(path).unwrap();
        // The other kinds are tried below, in all files at once.
        for (kind, garbage) in [kinds[2], kinds[4]] {
            fs::write(path, garbage).unwrap();
            let output = over(&tree, &["doctor"]);
            assert!(output.status.code().is_some(), "{kind} in {}: {output:?}", path.display());
        }
        env(root);
        fs::write(path, text).unwrap();
    }
    assert_eq!(doctor(&tree).0, 0, "the tree is whole again");
    for (kind, garbage) in kinds {
        let tree = Tree::reference();
        tree.files().iter().for_each(|path| fs::write(path, garbage).unwrap());
        let (table, facts) = env(tree.root.to_str().unwrap());
        assert!(table.lines().any(|line| line.starts_with("unknown")), "{kind}: {table}");
        assert!(facts["system"]["ram_bytes"]["unknown"].is_string(), "{kind}: {facts}");
        assert_ne!(doctor(&tree).0, 0, "{kind}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_unknown_with_the_reason() {
    let tree = Tree::reference();
    let width = tree.path(&format!("{}/current_link_width", device(0)));
    fs::remove_file(&width).unwrap();
    fs::create_dir(&width).unwrap();
    let text = doctor(&tree).1.join("\n");
    assert!(text.contains("/sys/class/infiniband/mlx5_0/device/current_link_width: not a file"), "{text}");

    // Opening a FIFO would wait for a writer for ever.
    let tree = Tree::reference();
    for path in ["proc/self/limits", "proc/self/cgroup", "proc/cpuinfo"] {
        tree.remove(path);
        assert!(Command::new("mkfifo").arg(tree.path(path)).status().unwrap().success());
    }
    let (status, lines) = doctor(&tree);
    assert_eq!(status, 2);
    assert!(lines.join("\n").contains("/proc/self/limits: not a file"), "{lines:?}");

    let tree = Tree::reference();
    let limits = tree.path("proc/self/limits");
    fs::set_permissions(&limits, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&limits).is_ok() {
        return eprintln!("SKIPPED: this user can read every file, so none is unreadable");
    }
    let (status, lines) = doctor(&tree);
    assert_eq!(status, 2);
    assert!(lines.join("\n").contains("/proc/self/limits: permission denied"), "{lines:?}");
}

#[test]
fn this_machine_is_shown_too() {
    let (_, facts) = env("/");
    assert!(facts["system"]["ram_bytes"].as_u64().unwrap() > 1 << 20, "{facts}");
    assert!(facts["process"]["cpus"].is_string(), "{facts}");
}
