//! Compiles fixtures with the libraries that the running `cargo test` has built, and compares the
//! compiler's messages.
//!
//! A fixture is one `rustc` call: nothing of the workspace is compiled a second time. The libraries
//! lie beside the test's own program, where cargo may have left older ones, too. The newest of a
//! name is the right one: had the sources changed since, cargo would have built it anew before it
//! ran this test.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use std::{env, fs, thread};

/// The crates that fixtures may name.
const CRATES: [&str; 3] = ["kvrail", "kvrail_layouts", "kvrail_macros"];

/// How a fixture is compiled.
pub(crate) struct Compiler {
    /// The folder with cargo's libraries.
    libraries: PathBuf,
    /// The library of each of [`CRATES`].
    externs: Vec<String>,
    workspace: String,
}

impl Compiler {
    /// The compiler of this test run.
    ///
    /// # Panics
    ///
    /// If the libraries cannot be found beside the test's program, or do not fit together.
    pub(crate) fn of_this_build() -> Self {
        let program = env::current_exe().expect("the path of this test's program");
        let libraries = program.parent().expect("a folder around the program").to_path_buf();
        let externs = CRATES.map(|name| format!("--extern={name}={}", newest(&libraries, name).display()));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("macros lies in the workspace");
        let workspace = root.to_str().expect("a path in UTF-8").to_owned();
        let compiler = Self { libraries, externs: externs.into(), workspace };
        let probe = compiler.folder("probe").join("probe.rs");
        let source: String = CRATES.iter().map(|name| format!("use {name} as _;\n")).collect();
        fs::write(&probe, source + "fn main() {}\n").expect("writing a probe");
        let output = compiler.run(&probe, "metadata");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the libraries in {} do not fit: {said}",
            compiler.libraries.display()
        );
        compiler
    }

    /// A folder for the outputs of this fixture.
    fn folder(&self, fixture: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui").join(fixture);
        fs::create_dir_all(&folder).expect("a folder for outputs");
        folder
    }

    fn run(&self, source: &Path, emit: &str) -> Output {
        let name = source.file_stem().and_then(|stem| stem.to_str()).expect("a fixture's name");
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        // Paths in the libraries are relative to the workspace: from there the compiler finds what
        // they name.
        command.current_dir(&self.workspace).arg(Path::new("macros").join(source)).args([
            "--crate-type=bin",
            "--edition=2024",
            "-Adead_code",
        ]);
        command.args(["--color=never", "--diagnostic-width=140", &format!("--emit={emit}")]);
        command.arg(format!("-Ldependency={}", self.libraries.display())).args(&self.externs);
        command.arg("--out-dir").arg(self.folder(name)).args(["--crate-name", name]);
        // A macro reads the package's manifest. Its messages must not depend on where the test
        // runs.
        command.env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"));
        command.output().unwrap_or_else(|error| panic!("rustc does not run: {error}"))
    }

    /// The fixture must not compile, and the compiler must say what stands beside it in `.stderr`,
    /// which is written where the environment has `BLESS`.
    pub(crate) fn must_fail(&self, source: &Path) -> Result<(), String> {
        let output = self.run(source, "obj");
        if output.status.success() {
            return Err(format!("{} compiles, and must not\n", source.display()));
        }
        let found = self.normalised(&String::from_utf8_lossy(&output.stderr), source);
        let beside = source.with_extension("stderr");
        if env::var_os("BLESS").is_some() {
            fs::write(&beside, &found).expect("writing the expectation");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if found == expected { Ok(()) } else { Err(difference(source, &expected, &found)) }
    }

    /// The fixture must compile, run and succeed.
    pub(crate) fn must_pass(&self, source: &Path) -> Result<(), String> {
        let output = self.run(source, "link");
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("{} does not compile:\n{said}", source.display()));
        }
        let name = source.file_stem().and_then(|stem| stem.to_str()).expect("a fixture's name");
        let output = Command::new(self.folder(name).join(name)).output().expect("the fixture's program runs");
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{}: {output:?}\n", source.display())),
        }
    }

    /// The compiler's words without what differs between machines and over time: the workspace's
    /// path, and line numbers in files other than the fixture.
    fn normalised(&self, said: &str, source: &Path) -> String {
        let ends = ["error: aborting due to", "For more information about", "Some errors have detailed"];
        let said = said.replace(&format!("{}/", self.workspace), "$WORKSPACE/");
        let messages = said
            .split("\n\n")
            .map(str::trim_end)
            .filter(|message| !message.is_empty() && !ends.iter().any(|end| message.starts_with(end)));
        let mut normalised =
            messages.map(|message| message_of(message, source)).collect::<Vec<_>>().join("\n\n");
        normalised.push('\n');
        normalised
    }
}

/// One message: the margin that holds line numbers becomes as wide as those of the fixture need.
fn message_of(message: &str, source: &Path) -> String {
    let fixture = format!("macros/{}", source.display());
    let (mut lines, mut in_fixture, mut wide, mut needed) = (Vec::new(), true, 0, 1);
    for line in message.lines().map(str::trim_end) {
        let text = line.trim_start();
        let arrow = ["--> ", "::: "].iter().find_map(|arrow| text.strip_prefix(arrow));
        if let Some(place) = arrow {
            wide = wide.max(line.len() - text.len());
            in_fixture = place.starts_with(&fixture);
            let begin = &line[..line.len() - place.len()];
            lines.push(if in_fixture {
                format!("{begin}{}", &place["macros/".len()..])
            } else {
                let root = if place.starts_with(['/', '$']) { "" } else { "$WORKSPACE/" };
                format!("{begin}{root}{}", place.trim_end_matches(|c: char| c == ':' || c.is_ascii_digit()))
            });
            continue;
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if in_fixture {
            needed = needed.max(digits);
        }
        let line = match digits {
            0 => line.to_owned(),
            _ if in_fixture => line.to_owned(),
            n => line.replacen(&text[..n], &" ".repeat(n), 1),
        };
        lines.push(match text.strip_suffix(" others").and_then(|text| text.strip_prefix("and ")) {
            Some(count) => line.replacen(count, "$N", 1),
            None => line,
        });
    }
    let spare = " ".repeat(wide.saturating_sub(needed));
    let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix(&*spare).unwrap_or(line)).collect();
    lines.join("\n")
}

/// Checks all fixtures of a folder, on as many threads as there are cores.
///
/// # Panics
///
/// With all failures, if there are any; or if the folder holds no fixture.
pub(crate) fn all(folder: &str, check: impl Fn(&Path) -> Result<(), String> + Sync) {
    let mut fixtures: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    assert!(!fixtures.is_empty(), "no fixture in {folder}");
    fixtures.sort();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(fixture) = fixtures.get(next.fetch_add(1, Ordering::Relaxed)) {
            failures.extend(check(fixture).err());
        }
        failures
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of fixtures")).collect()
    });
    assert!(
        failures.is_empty(),
        "{} of {} fixtures:\n{}",
        failures.len(),
        fixtures.len(),
        failures.join("\n")
    );
}

/// The newest library of this crate: `libname-<hash>.rlib`, or `.so` of a crate of macros.
fn newest(folder: &Path, name: &str) -> PathBuf {
    let written =
        |path: &PathBuf| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let wanted = |path: &PathBuf| {
        let hash = path.file_stem().and_then(|stem| stem.to_str()?.strip_prefix(&format!("lib{name}-")));
        let kind = path.extension().is_some_and(|kind| kind == "rlib" || kind == "so");
        kind && hash.is_some_and(|hash| hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let paths = fs::read_dir(folder).expect("the folder of libraries").flatten().map(|entry| entry.path());
    let found = paths.filter(wanted).min_by_key(|path| Reverse(written(path)));
    found.unwrap_or_else(|| panic!("no library of {name} in {}", folder.display()))
}

fn difference(source: &Path, expected: &str, found: &str) -> String {
    let mut text = format!("{}: BLESS=1 would write this over its .stderr:\n", source.display());
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    for line in expected.iter().filter(|line| !found.contains(line)) {
        let _ = writeln!(text, "  - {line}");
    }
    for line in &found {
        let _ = writeln!(text, "  {} {line}", if expected.contains(line) { " " } else { "+" });
    }
    text
}
