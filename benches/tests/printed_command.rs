//! A shell runs the line that `serve` prints, unchanged, in another folder.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{KEY, Served, wait};

const SOON: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_kvrail-bench");
const SMALL: [&str; 4] = ["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"];

/// A folder whose name a shell would split into words. It is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kvrail it's {name} {}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the line that a `serve` prints which `command` starts. Returns the line and the address in
/// it.
fn run_printed(mut command: Command, path: Option<&Path>) -> (String, SocketAddr) {
    command.stderr(Stdio::null());
    let served = Served::run(command);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", served.line.trim_end()]).current_dir("/");
    if let Some(path) = path {
        shell.env("PATH", path);
    }
    let output = wait(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), SOON);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && table.contains("24, 0 wrong"), "{}: {output:?}", served.line);
    let address = served.args()[2].parse().unwrap();
    (served.line.clone(), address)
}

#[test]
fn the_line_runs_after_a_start_by_a_relative_path() {
    // As `cargo run` starts it.
    let program = Path::new(PROGRAM);
    let mut command = Command::new(Path::new(".").join(program.file_name().unwrap()));
    command.current_dir(program.parent().unwrap()).arg("serve").args(SMALL);
    let (line, _) = run_printed(command, None);
    assert!(line.contains("--key "), "{line}");
}

#[test]
fn the_line_runs_after_a_start_by_name_and_with_a_key_file_next_to_it() {
    let folder = Folder::new("name");
    symlink(PROGRAM, folder.0.join("kvrail-bench")).unwrap();
    let key = folder.0.join("key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec kvrail-bench serve --key-file key \"$@\"", "sh"]).args(SMALL);
    command.current_dir(&folder.0).env("PATH", &folder.0);
    let (line, _) = run_printed(command, Some(&folder.0));
    assert!(line.starts_with("kvrail-bench drive ") && line.contains("--key-file '/"), "{line}");
}

#[test]
fn the_line_runs_from_a_folder_whose_name_a_shell_would_split() {
    let folder = Folder::new("$HOME `id`");
    let program = folder.0.join("the program");
    symlink(PROGRAM, &program).unwrap();
    let mut command = Command::new(program);
    command.arg("serve").args(SMALL);
    let (line, _) = run_printed(command, None);
    assert!(line.starts_with('\''), "{line}");
}

#[test]
fn a_serve_at_every_address_prints_one_that_can_be_connected_to() {
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        if let Err(error) = TcpListener::bind(everywhere) {
            eprintln!("SKIPPED: this host has no {everywhere} ({error})");
            continue;
        }
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--listen", everywhere]).args(SMALL);
        let (line, address) = run_printed(command, None);
        assert!(!address.ip().is_unspecified(), "{line}");
        assert_eq!(address.is_ipv4(), everywhere.starts_with('0'), "{line}");
        // The address is a loopback address only if this host has no other.
        if address.ip().is_loopback() {
            eprintln!("SKIPPED: this host has no address beside loopback's for {everywhere}");
        }
    }
}
