//! Every command in the README and the chapters of docs/ that stands in a block, or in the text as
//! code, is run: those of kvrail-bench here, with less to do; the others by a test or a part of CI
//! that is looked up. A command that needs a NIC stands in a section that says so, and here it is
//! only seen that its arguments are taken.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use common::{KEY, Served, bench, signal, wait};

const SOON: Duration = Duration::from_secs(120);
/// The programs that begin a command.
const PROGRAMS: [&str; 11] = [
    "cargo",
    "kvrail-bench",
    "gcc",
    "pip",
    "touch",
    "cat",
    "ibv_devinfo",
    "CARGO_INCREMENTAL=0",
    "(umask",
    "modprobe",
    "numactl",
];
/// Programs and files of the tree that begin one.
const OF_THE_TREE: [&str; 4] = ["benches/", "engine/verbs/softroce/", "engine/capi/install", ".ci/run"];

/// A command, and where it stands.
#[derive(Clone, Debug)]
struct Command {
    text: String,
    file: String,
    /// The text from the heading above it to the end of its block.
    section: String,
}

/// What runs a command.
#[derive(Debug, PartialEq, Eq)]
enum By {
    /// This test.
    Here,
    /// A part of CI that has these words.
    Ci(String),
    /// This file, which CI runs or `cargo test` does.
    File(String),
    /// A person: it needs what a test does not have, which its section says with this word.
    Hand(&'static str),
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The command of a line in a block, without its prompt and the remark behind it.
fn of_line(line: &str) -> Option<String> {
    let line = line.trim();
    let (prompt, rest) = line.split_once('$').unwrap_or(("", line));
    let line = if prompt.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') { rest.trim() } else { line };
    let end = line.find("  ").into_iter().chain(line.find(" #")).min().unwrap_or(line.len());
    let text = line[..end].trim().to_owned();
    let first = text.split_whitespace().next()?;
    let known = PROGRAMS.contains(&first)
        || OF_THE_TREE.iter().any(|name| first.starts_with(name))
        || first.ends_with("/kvrail-bench");
    known.then_some(text)
}

/// All commands of the README and the book.
fn commands() -> Vec<Command> {
    let mut files = vec![top().join("README.md")];
    let docs = fs::read_dir(top().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let (mut block, mut section, mut paragraph) = (None::<String>, String::new(), String::new());
        for line in text.lines().chain([""]) {
            if block.is_none() && line.starts_with('#') {
                section.clear();
            }
            section += line;
            section.push('\n');
            let command = |text: String| Command { text, file: file.clone(), section: section.clone() };
            let fence = line.trim().strip_prefix("```");
            if block.is_none() && (line.is_empty() || fence.is_some()) {
                // Every second part is code, which may go on in the next line. A name alone is no
                // command.
                let code = paragraph.split('`').skip(1).step_by(2).filter(|code| code.contains(' '));
                all.extend(code.filter_map(of_line).map(command));
                paragraph.clear();
            }
            if let Some(language) = fence {
                block = if block.is_some() { None } else { Some(language.to_owned()) };
            } else if let Some(language) = &block {
                // Others are programs, or files of settings.
                if ["", "text", "sh", "console"].contains(&&**language) {
                    all.extend(of_line(line).map(command));
                }
            } else {
                paragraph = format!("{paragraph} {}", line.trim()).trim_start().to_owned();
            }
        }
    }
    all
}

/// The value of an option in a command.
fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
}

/// The file of a test, an example or a benchmark that a command of cargo names.
fn file_of(words: &[&str]) -> Option<String> {
    let package = option(words, "-p").unwrap_or(if words.contains(&"--bench") {
        "kvrail-bench"
    } else {
        "kvrail-examples"
    });
    let of_package = |manifest: &PathBuf| {
        let text = fs::read_to_string(manifest).unwrap_or_default();
        text.lines().any(|line| line == format!("name = \"{package}\""))
    };
    let folders = ["", "engine", "."].iter().flat_map(|folder| {
        let inside = fs::read_dir(top().join(folder)).unwrap().flatten();
        inside.map(|entry| entry.path().join("Cargo.toml"))
    });
    let manifest = folders.chain([top().join("benches/counted/Cargo.toml")]).find(of_package)?;
    let folder = manifest.parent()?.to_owned();
    let (kind, name) =
        [("--test", "tests"), ("--example", "examples"), ("--bench", "benches")]
            .into_iter()
            .find_map(|(option_name, folder)| option(words, option_name).map(|name| (folder, name)))?;
    // The examples of the workspace stand in a folder of their own.
    let places = [format!("{kind}/{name}.rs"), format!("{kind}/{name}/main.rs"), format!("{name}.rs")];
    let found = places.iter().map(|place| folder.join(place)).find(|path| path.is_file())?;
    Some(found.display().to_string())
}

/// What runs it. An error says what is wrong with it.
fn by(command: &Command) -> Result<By, String> {
    let words: Vec<_> = command.text.split_whitespace().collect();
    let ci = |text: &str| By::Ci(text.into());
    let of_bench = words[0].ends_with("kvrail-bench")
        || command.text.starts_with("cargo run --release -- ")
        || command.text.starts_with("cargo run -p kvrail-bench -- ");
    if of_bench {
        return Ok(By::Here);
    }
    Ok(match &words[..] {
        ["cargo", "run", "--release"] => ci("cargo run --release\n"),
        ["cargo", "test"] => ci("\n  cargo test\n"),
        ["cargo", "build", ..] if words.contains(&"kvrail-bench") && words.contains(&"verbs") => {
            ci("clippy -p kvrail -p kvrail-bench")
        }
        ["cargo", "build", "--release", "-p", "kvrail-capi", ..] => {
            ci("cargo build --release -p kvrail-capi")
        }
        ["cargo", "bench", "-p", "kvrail-counted"] => ci("cargo bench -p kvrail-counted"),
        ["cargo", "test", "-p", "kvrail-tidy"] => ci("cargo test -p kvrail-tidy"),
        ["cargo", "doc", ..] => ci("cargo doc --workspace --no-deps"),
        ["cargo", "run", ..] if words.contains(&"cuda") => By::Hand("NIC"),
        ["ibv_devinfo", ..] => By::Hand("device"),
        ["cargo", "run" | "test" | "bench", ..] => {
            By::File(file_of(&words).ok_or("no such test, example or benchmark")?)
        }
        ["cargo", ..] | ["touch", ..] | ["CARGO_INCREMENTAL=0", ..] | ["cat", ..] => By::Hand(""),
        [".ci/run", part] => By::Ci(format!("\npart {part} ")),
        ["engine/verbs/softroce/run", rest @ ..] if rest.contains(&"--kernel") || rest.len() > 1 => {
            ci("engine/verbs/softroce/run --timeout 1200 --kernel")
        }
        ["engine/verbs/softroce/run", what] => {
            By::Ci(format!("engine/verbs/softroce/run --timeout 1200 {what}"))
        }
        ["engine/verbs/softroce/install", ..] => ci("engine/verbs/softroce/install both"),
        ["engine/capi/install", ..] => ci("engine/capi/install "),
        ["benches/compare-nixl", ..] => By::Hand("NIXL"),
        [script, ..] if script.starts_with("benches/") => By::Ci(format!("  {script}")),
        ["gcc", ..] => ci("gcc -std=c11 "),
        ["pip", "wheel", ..] => ci("wheel --quiet --no-deps"),
        ["pip", "install", ..] => ci("install --quiet"),
        ["(umask", ..] => By::Here,
        ["modprobe" | "numactl", ..] => By::Hand("NIC"),
        _ => return Err("no test is known that runs it".into()),
    })
}

#[test]
fn every_command_is_run_by_something() {
    let ci = fs::read_to_string(top().join(".ci/run")).unwrap();
    let mut wrong = Vec::new();
    let all = commands();
    assert!(all.len() > 100, "{} commands", all.len());
    for command in &all {
        let problem = match by(command) {
            Err(why) => Some(why),
            Ok(By::Ci(words)) if !ci.contains(&words) => Some(format!(".ci/run has no `{words}`")),
            Ok(By::Hand(word)) if !command.section.contains(word) => {
                Some(format!("its section does not say that it takes a person: `{word}`"))
            }
            Ok(_) => None,
        };
        wrong.extend(problem.map(|why| format!("{}: `{}`: {why}", command.file, command.text)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What commands are run with.
struct Scene {
    folder: PathBuf,
    report: String,
}

impl Scene {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("kvrail-commands-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let report = folder.join("report.json");
        let at = report.to_str().unwrap().to_owned();
        // As a user would make it.
        let args = ["ladder", "--layout", "opaque-4k", "--rails", "2", "--json", &at];
        let less = ["--working-set", "1MiB", "--duration", "50ms", "--verify", "off"];
        let output = finished(&[&args[..], &less].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { folder, report: at }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// The arguments of a command of kvrail-bench: with the first of several choices, with all that
    /// is optional, and with values where it has placeholders.
    fn args(&self, text: &str) -> Vec<String> {
        let text = text.split_once(" -- ").map_or(text, |(_, rest)| rest);
        let mut words: Vec<String> = text
            .split_whitespace()
            .map(|word| word.trim_start_matches('[').trim_end_matches(']'))
            .map(|word| word.split_once('|').map_or(word, |(first, _)| first).into())
            .collect();
        if words[0].ends_with("kvrail-bench") {
            words.remove(0);
        }
        let mut args: Vec<String> = Vec::new();
        for word in words {
            let before = args.last().cloned().unwrap_or_default();
            let value = match (&*before, &*word) {
                ("--listen", _) => "127.0.0.1:0".into(),
                ("--key", _) => KEY.into(),
                ("--key-file", _) => self.path("key"),
                ("--rails", "N") => "2".into(),
                ("--layout", "A" | "A,B") => "opaque-4k".into(),
                ("--rate", _) => "1000".into(),
                ("--repeat", _) => "2".into(),
                ("--processes-per-rail", _) => "2".into(),
                ("--duration", _) => "100ms".into(),
                ("--dir-cache", "SECONDS") => "5".into(),
                ("--root", _) => "/".into(),
                ("--json" | "--html" | "--markdown", _) => self.path("out"),
                ("--svg", _) => self.path("charts"),
                ("layout", "NAME") => "v4_c4".into(),
                (_, "<name>") => "serve".into(),
                ("--hosts", _) => "2".into(),
                ("--meet", _) => free_address(),
                ("serve" | "drive" | "churn" | "ladder", "…") => continue,
                ("report", "…") | (_, "FILES…" | "BEFORE" | "AFTER" | "ladder.json") => {
                    self.report.clone()
                }
                _ => word,
            };
            args.push(value);
        }
        if args == ["report"] {
            args.push(self.report.clone());
        }
        args
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn finished(args: &[&str]) -> Output {
    wait(bench(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), SOON)
}

/// An address of this host at which no program listens.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Starts a command that runs until a signal, and returns it with its first line.
fn started(args: &[&str]) -> (Child, String) {
    let mut child = bench(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    (child, line)
}

/// Runs a command of kvrail-bench with less to do. An error says why it failed.
fn run_here(scene: &Scene, command: &Command) -> Result<(), String> {
    let mut args = scene.args(&command.text);
    let has = |args: &[String], name: &str| args.iter().any(|arg| arg == name);
    let value = |args: &[String], name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let what = args.first().cloned().unwrap_or_default();
    let verbs = value(&args, "--transport").as_deref() == Some("verbs");
    if verbs && !command.section.contains("NIC") {
        return Err("its section does not say that it needs a NIC".into());
    }
    let mut less = |more: &[&str]| args.extend(more.iter().map(ToString::to_string));
    match &*what {
        "serve" => less(&["--working-set", "5MiB"]),
        "drive" | "ladder" => less(&["--verify", "off"]),
        "churn" => less(&["--duration", "1s"]),
        "model" => less(&["--rails", "2"]),
        _ => {}
    }
    if has(&args, "--local") || what == "ladder" && !has(&args, "--connect") {
        args.extend(["--working-set".into(), "5MiB".into()]);
    }
    if ["drive", "ladder"].contains(&&*what) && !has(&args, "--duration") {
        args.extend(["--duration".into(), "50ms".into()]);
    }
    // A later value of an option that is given twice is an error.
    for name in ["--duration", "--working-set", "--rails", "--verify"] {
        while args.iter().filter(|arg| *arg == name).count() > 1 {
            let at = args.iter().position(|arg| arg == name).unwrap();
            args.drain(at..at + 2);
        }
    }
    let layout = value(&args, "--layout").unwrap_or_else(|| "sgl_mla_page_first_direct".into());
    let transport = value(&args, "--transport").filter(|_| !verbs).unwrap_or_else(|| "shm".into());
    let reads = what == "drive" && !has(&args, "--local") || has(&args, "--connect");
    let rails = if transport == "tcp" { "1" } else { "2" };
    let serve = ["--layout", &layout, "--working-set", "5MiB", "--transport", &transport, "--rails", rails];
    let served = reads.then(|| Served::start(&serve));
    if let Some(served) = &served {
        let address = served.args()[2].to_owned();
        match args.iter().position(|arg| arg == "--connect") {
            Some(at) if at + 1 == args.len() => return Err("--connect has no value".into()),
            Some(at) => args[at + 1] = address,
            None => args.extend(["--connect".into(), address]),
        }
        if !has(&args, "--key") && !has(&args, "--key-file") {
            args.extend(["--key".into(), KEY.into()]);
        }
    }
    let mut peer = None;
    if let Some(at) = args.iter().position(|arg| arg == "--peer") {
        let (child, line) = started(&["env", "--listen", "127.0.0.1:0"]);
        args[at + 1] = line.split_whitespace().last().unwrap().to_owned();
        peer = Some(child);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if args.contains(&"--help") {
        let output = finished(&args[..2]);
        return output.status.success().then_some(()).ok_or_else(|| "no help".into());
    }
    // Another host gives the same command.
    let meets = args.contains(&"--meet");
    let other = meets.then(|| bench(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let until_stopped = what == "serve" || args.contains(&"--listen");
    let output = if until_stopped && !verbs {
        let (child, _) = started(&args);
        signal(child.id(), "TERM");
        wait(child, SOON)
    } else {
        finished(&args)
    };
    if let Some(other) = other {
        wait(other, SOON);
    }
    if let Some(peer) = peer {
        signal(peer.id(), "TERM");
        wait(peer, SOON);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let good = match &*what {
        _ if text.contains("Usage:") || text.contains("panicked") => false,
        // What is wrong with this machine is no failure of the command.
        "doctor" => output.status.code() < Some(3),
        _ if verbs => true,
        _ => output.status.success(),
    };
    if good { Ok(()) } else { Err(format!("{args:?}: {}: {text}", output.status)) }
}

#[test]
fn every_command_of_kvrail_bench_runs_as_it_is_written() {
    let scene = Scene::new();
    let (mut wrong, mut done) = (Vec::new(), Vec::new());
    let mut all: Vec<_> = commands().into_iter().filter(|command| by(command) == Ok(By::Here)).collect();
    // The key is made first.
    all.sort_by_key(|command| !command.text.starts_with("(umask"));
    for command in all {
        if done.contains(&command.text) {
            continue;
        }
        let ran = if command.text.starts_with('(') {
            let shell = std::process::Command::new("sh")
                .args(["-c", &command.text])
                .current_dir(&scene.folder)
                .status();
            // Each `serve` of this test has the key of all tests.
            let key = scene.path("key");
            let made = shell.unwrap().success() && fs::metadata(&key).is_ok_and(|file| file.len() == 32);
            fs::write(&key, KEY).unwrap();
            made.then_some(()).ok_or("the shell fails".into())
        } else {
            run_here(&scene, &command)
        };
        wrong.extend(ran.err().map(|why| format!("{}: `{}`: {why}", command.file, command.text)));
        done.push(command.text);
    }
    assert!(done.len() > 20, "{done:?}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
