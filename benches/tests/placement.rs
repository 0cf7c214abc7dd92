//! Processes run on the NUMA node of their NICs, on those of its CPUs that they may use.

mod common;
#[path = "env/tree.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod tree;

use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{bench, complaint, run, wait};
use tree::Tree;

const SOON: Duration = Duration::from_secs(30);

/// Which processes of `drive` would run where, on the machine whose files are in the tree.
fn plan(tree: &Tree, more: &[&str]) -> Vec<String> {
    let root = tree.root.to_str().unwrap();
    let args = ["drive", "--plan", "--local", "--transport", "verbs", "--root", root];
    let output = run(&[&args[..], more].concat(), SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn drive_places_a_process_of_each_nic_on_its_own_node() {
    let tree = Tree::reference();
    let lines = plan(&tree, &["--processes-per-rail", "2"]);
    let rows: Vec<_> =
        lines.iter().filter(|line| line.starts_with("drive ")).map(|line| words(line)).collect();
    assert_eq!(rows.len(), 16, "{lines:?}");
    for (number, row) in rows.iter().enumerate() {
        let cpus = if number < 8 { "0-95,192-287" } else { "96-191,288-383" };
        assert_eq!(row[2..], [&*format!("mlx5_{}", number / 2), cpus], "{lines:?}");
    }
    let said = "process with mlx5_7: NUMA node 1, CPUs 96-191,288-383";
    assert!(lines.iter().any(|line| line == said), "{lines:?}");

    let four = plan(&tree, &["--rails", "mlx5_0,mlx5_1,mlx5_2,mlx5_3", "--processes", "2"]);
    let bound =
        four.iter().filter(|line| line.ends_with("0-95,192-287") && line.starts_with("drive ")).count();
    assert_eq!(bound, 2, "{four:?}");
    let all = plan(&tree, &[]);
    assert!(all.iter().any(|line| line.ends_with("not bound: its rails are on 2 NUMA nodes")), "{all:?}");
    let off = plan(&tree, &["--rails", "mlx5_0", "--numa", "off"]);
    assert!(off.iter().any(|line| line == "process with mlx5_0: not bound: --numa off"), "{off:?}");

    let root = tree.root.to_str().unwrap();
    let nine =
        ["drive", "--plan", "--local", "--transport", "verbs", "--root", root, "--processes-per-rail", "9"];
    assert!(complaint(&run(&nine, SOON)).contains("1..=8"));
    let both = ["drive", "--local", "--processes", "2", "--processes-per-rail", "2"];
    assert!(complaint(&run(&both, SOON)).contains("cannot be used with"));
}

/// The first CPU on which this process may run.
fn first_cpu() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    let digits: String = list.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn the_mask_of_the_process_decides_which_cpus_of_a_node_are_left() {
    let tree = Tree::reference();
    // The machine is the tree's, and the process is this one with its own mask: the kernel fills
    // this file for each process that reads it.
    tree.remove("proc/self/status");
    symlink("/proc/self/status", tree.root.join("proc/self/status")).unwrap();
    let cpu = first_cpu();
    let node = |number: u32| format!("sys/devices/system/node/node{number}/cpulist");
    tree.write(&node(0), format!("{cpu}-{}\n", cpu + 1000));
    tree.write(&node(1), format!("{}-{}\n", cpu + 1001, cpu + 2000));
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string(), env!("CARGO_BIN_EXE_kvrail-bench"), "drive", "--plan", "--local"]);
    command.args([
        "--transport",
        "verbs",
        "--processes-per-rail",
        "1",
        "--root",
        tree.root.to_str().unwrap(),
    ]);
    let output = wait(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), SOON);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("process with mlx5_0: NUMA node 0, CPUs {cpu}\n")), "{text}");
    let refused = "process with mlx5_4: not bound: this process may not run on NUMA node 1";
    assert!(text.contains(refused), "{text}");
}

#[test]
fn a_process_that_is_placed_runs_there_with_all_that_it_starts() {
    let cpu = first_cpu();
    let role = format!(
        r#"{{"Placed":{{"cpus":"{cpu}","role":{{"Program":{{"name":"cat","args":["/proc/self/status"]}}}}}}}}"#
    );
    let mut child = bench(&["child"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{role}").unwrap();
    let output = wait(child, SOON);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("Cpus_allowed_list:\t{cpu}\n")), "{text}");
}
