//! `serve` runs, with all its threads and its memory, on the NUMA node of its NICs: what it would
//! do on the reference machine, and what the kernel says of a `serve` that runs here.

mod common;
#[path = "common/group.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod group;
#[path = "env/tree.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{KEY, Served, run};
use group::Group;
use tree::Tree;

const SOON: Duration = Duration::from_secs(60);
/// Published pages: more than all else that `serve` takes.
const WORKING_SET: u64 = 64 << 20;

/// What `serve --plan` says on the machine whose files are in the tree.
fn plan(tree: &Tree, more: &[&str]) -> String {
    let args = ["serve", "--plan", "--root", tree.root.to_str().unwrap()];
    let output = run(&[&args[..], more].concat(), SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn on_the_reference_machine_serve_goes_to_the_node_of_its_nics() {
    let tree = Tree::reference();
    let of = |rails: &str| plan(&tree, &["--transport", "verbs", "--rails", rails]);
    for nic in 0..8 {
        let node = if nic < 4 { "0, CPUs 0-95,192-287" } else { "1, CPUs 96-191,288-383" };
        assert_eq!(of(&format!("mlx5_{nic}")), format!("serve: NUMA node {node}\n"));
    }
    assert_eq!(of("mlx5_4,mlx5_5,mlx5_6,mlx5_7"), "serve: NUMA node 1, CPUs 96-191,288-383\n");
    assert_eq!(of("auto"), "serve: not bound: its rails are on 2 NUMA nodes\n");
    assert_eq!(of("mlx5_9"), "serve: not bound: mlx5_9 is no NIC port of this machine\n");
    let off = plan(&tree, &["--transport", "verbs", "--rails", "mlx5_0", "--numa", "off"]);
    assert_eq!(off, "serve: not bound: --numa off\n");
    assert_eq!(plan(&tree, &[]), "serve: not bound: its rails are no NICs\n");
    // A control group leaves some CPUs, or one node.
    let allow = |cpus: &str, nodes: &str| {
        let caps = "Name:\tx\nCapEff:\t0\n";
        let text = format!("{caps}Cpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{nodes}\n");
        tree.write("proc/self/status", text);
    };
    allow("90-99", "0-1");
    assert_eq!(of("mlx5_0"), "serve: NUMA node 0, CPUs 90-95\n");
    assert_eq!(of("mlx5_4"), "serve: NUMA node 1, CPUs 96-99\n");
    allow("0-383", "0");
    assert_eq!(of("mlx5_4"), "serve: not bound: this process gets no memory of NUMA node 1\n");
}

/// The numbers of a list such as `0-2,5`.
fn numbers(list: &str) -> Vec<u32> {
    let number = |text: &str| text.trim().parse::<u32>().unwrap();
    let ranges = list.trim().split(',').filter(|range| !range.is_empty());
    let ends = ranges.map(|range| range.split_once('-').unwrap_or((range, range)));
    ends.flat_map(|(first, last)| number(first)..=number(last)).collect()
}

/// What the kernel has of a field in a status.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("{name}: {status}")).to_owned()
}

/// The first and the last CPU on which this process may run; `None`, and a line on stderr, where it
/// may run on one only.
fn two_cpus() -> Option<[u32; 2]> {
    let all = numbers(&field(&fs::read_to_string("/proc/self/status").unwrap(), "Cpus_allowed_list"));
    if all.len() < 2 {
        eprintln!("SKIPPED: this process may run on one CPU only, so that no node is another one");
        return None;
    }
    Some([all[0], all[all.len() - 1]])
}

/// The reference machine with this one's first CPU on node 0 and its last on node 1, both of which
/// this process gets memory of.
fn split(cpus: [u32; 2]) -> Tree {
    let tree = Tree::reference();
    for (node, cpu) in cpus.iter().enumerate() {
        tree.write(&format!("sys/devices/system/node/node{node}/cpulist"), format!("{cpu}\n"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let nodes = format!("Mems_allowed_list:\t{}\n", field(&status, "Mems_allowed_list"));
    tree.write("proc/self/status", status.replace(&nodes, "Mems_allowed_list:\t0-1\n"));
    tree
}

/// A `serve` over shared memory that is placed as one with these NICs, started by the words before
/// it; and what it said about where it runs, if anything.
fn serve(before: &[&str], tree: &Tree, more: &[&str]) -> (Served, String) {
    let program = env!("CARGO_BIN_EXE_kvrail-bench");
    let words = [before, &[program, "serve", "--key", KEY, "--root", tree.root.to_str().unwrap()]].concat();
    let mut command = Command::new(words[0]);
    let pages = WORKING_SET.to_string();
    command.args(&words[1..]).args(["--layout", "opaque-128k", "--working-set", &pages]).args(more);
    let mut served = Served::run({
        command.stderr(Stdio::piped());
        command
    });
    let mut said = String::new();
    for line in BufReader::new(served.process.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.starts_with("runs on ") {
            said = line;
            break;
        }
    }
    (served, said)
}

/// The masks of all threads of a process, and how many threads there are.
fn masks(pid: u32) -> (BTreeSet<String>, usize) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses: Vec<_> =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok()).collect();
    let masks = statuses.iter().map(|status| field(status, "Cpus_allowed_list")).collect();
    (masks, statuses.len())
}

/// The nodes on which the pages of shared memory of a process are, each with bytes; `None` where
/// the kernel does not say.
fn shared_memory(pid: u32) -> Option<BTreeMap<u32, u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).ok()?;
    let mut nodes = BTreeMap::new();
    for line in maps.lines().filter(|line| line.contains("file=/memfd:")) {
        let page = line.split(' ').find_map(|word| word.strip_prefix("kernelpagesize_kB="));
        let page: u64 = page.map_or(4, |kib| kib.parse().unwrap());
        for (node, pages) in line.split(' ').filter_map(|word| word.strip_prefix('N')?.split_once('=')) {
            *nodes.entry(node.parse().unwrap()).or_default() += pages.parse::<u64>().unwrap() * page * 1024;
        }
    }
    Some(nodes)
}

/// The real node of a CPU.
fn node_of(cpu: u32) -> Option<u32> {
    let folder = fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
}

#[test]
fn a_serve_runs_with_all_its_threads_and_its_pages_on_the_node_of_its_nics() {
    let Some(cpus) = two_cpus() else { return };
    let tree = split(cpus);
    for (nics, node) in [("mlx5_0,mlx5_3", 0), ("mlx5_4", 1)] {
        let cpu = cpus[node];
        let (served, said) = serve(&[], &tree, &["--placed-as", nics]);
        assert_eq!(said, format!("runs on NUMA node {node}, CPUs {cpu}"));
        let pid = served.process.id();
        let bound = BTreeSet::from([cpu.to_string()]);
        // A reader makes it start what it starts for readers.
        let drive =
            [&served.args()[..], &["--duration", "100ms", "--op", "get", "--concurrency", "1"]].concat();
        for what in ["alone", "with a reader behind it"] {
            let (masks, threads) = masks(pid);
            assert!(masks == bound && threads > 1, "{what}: {masks:?} of {threads} threads, not {bound:?}");
            let output = run(&drive, SOON);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        match (shared_memory(pid), node_of(cpu)) {
            (Some(nodes), Some(node)) => {
                assert!(nodes.get(&node) >= Some(&WORKING_SET), "{nodes:?}");
                assert_eq!(nodes.keys().collect::<Vec<_>>(), [&node], "pages on another node: {nodes:?}");
            }
            unknown => eprintln!("SKIPPED: this kernel does not say where pages are: {unknown:?}"),
        }
    }
    let (served, said) = serve(&[], &tree, &["--placed-as", "mlx5_3,mlx5_4"]);
    assert_eq!(said, "runs on not bound: its rails are on 2 NUMA nodes");
    let own = masks(std::process::id()).0;
    assert_eq!(masks(served.process.id()).0, own);
    let (served, said) = serve(&[], &tree, &["--placed-as", "mlx5_4", "--numa", "off"]);
    assert_eq!(said, "runs on not bound: --numa off");
    assert_eq!(masks(served.process.id()).0, own);
}

/// What `serve` does that is started by these words, which leave it only `cpu`, the first one.
fn restricted(before: &[&str], cpus: [u32; 2]) {
    let tree = split(cpus);
    // The process's own: the kernel fills this file for each process that reads it.
    tree.remove("proc/self/status");
    symlink("/proc/self/status", tree.root.join("proc/self/status")).unwrap();
    let only = BTreeSet::from([cpus[0].to_string()]);
    for (nics, runs) in [
        ("mlx5_0", format!("NUMA node 0, CPUs {}", cpus[0])),
        ("mlx5_4", "not bound: this process may not run on NUMA node 1".into()),
    ] {
        let (served, said) = serve(before, &tree, &["--placed-as", nics]);
        assert_eq!(said, format!("runs on {runs}"));
        assert_eq!(masks(served.process.id()).0, only);
    }
}

#[test]
fn a_serve_that_may_use_some_cpus_only_stays_on_these() {
    let Some(cpus) = two_cpus() else { return };
    restricted(&["taskset", "-c", &cpus[0].to_string()], cpus);
}

#[test]
fn a_serve_in_a_control_group_of_some_cpus_stays_on_these() {
    let Some(cpus) = two_cpus() else { return };
    let (cpu, nodes) = (cpus[0].to_string(), fs::read_to_string("/proc/self/status").unwrap());
    let nodes = field(&nodes, "Mems_allowed_list");
    let limits = [("cpuset.cpus", &*cpu), ("cpuset.mems", &*nodes)];
    let Some(group) = Group::new("cpuset", "serve", &limits, &limits) else { return };
    restricted(&group.before().each_ref().map(String::as_str), cpus);
}
