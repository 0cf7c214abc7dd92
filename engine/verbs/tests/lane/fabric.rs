//! The RDMA devices of the tests, and how tests break their links.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Only one test at a time uses the fabric.
static TURN: Mutex<()> = Mutex::new(());

/// Rails for both ends.
pub(crate) struct Devices {
    pub(crate) reader: String,
    pub(crate) producer: String,
    /// Whether tests may break rails: the devices are the guest's.
    pub(crate) breakable: bool,
    _turn: MutexGuard<'static, ()>,
}

impl Devices {
    /// The rails of this host. Where there are none: `None`, with a line on stderr.
    ///
    /// # Panics
    ///
    /// There are none although `KVRAIL_REQUIRE_RDMA` is set, as it is in the guest.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let devices: Vec<String> = std::fs::read_dir("/sys/class/infiniband")
            .map(|all| all.flatten().map(|d| d.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        if is_guest() {
            assert!(devices.len() >= 4, "the lane's fabric has {devices:?}");
            let [reader, producer] = rails();
            return Some(Self { reader, producer, breakable: true, _turn: turn });
        }
        if devices.is_empty() {
            return Self::skipped(test, "no RDMA device; engine/verbs/softroce/run fabric has four");
        }
        let [reader, producer] = rails();
        Some(Self { reader, producer, breakable: false, _turn: turn })
    }

    /// The rails of this host, if tests may break them.
    pub(crate) fn find_breakable(test: &str) -> Option<Self> {
        let fabric = Self::find(test)?;
        if !fabric.breakable {
            return Self::skipped(test, "it would take a port down, and this host's ports are not its own");
        }
        Some(fabric)
    }

    fn skipped(test: &str, why: &str) -> Option<Self> {
        assert!(std::env::var_os("KVRAIL_REQUIRE_RDMA").is_none(), "{test} must run here: {why}");
        // Not by eprintln!, which the test harness swallows.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
        None
    }

    /// Breaks `rails` (`a0`, `b1`). Dropping the returned value mends them.
    pub(crate) fn break_rails(&self, rails: &'static [&'static str], how: &[&str]) -> Broken {
        assert!(self.breakable);
        break_rails(rails, how)
    }
}

/// Whether the devices are the guest's own.
fn is_guest() -> bool {
    std::env::var("KVRAIL_LANE").is_ok_and(|lane| lane == "fabric")
}

/// The reader's rails, and the producer's.
pub(crate) fn rails() -> [String; 2] {
    if is_guest() { ["ra0,ra1", "rb0,rb1"] } else { ["auto"; 2] }.map(str::to_owned)
}

/// The same without the `Devices`: for another thread than the one that reads.
pub(crate) fn break_rails(rails: &'static [&'static str], how: &[&str]) -> Broken {
    let mended = match how[0] {
        "down" => "up",
        _ => "mend",
    };
    for rail in rails {
        let mut args = vec![how[0], rail];
        args.extend(&how[1..]);
        fabric_break(&args);
    }
    Broken { rails, mended }
}

/// Rails that are broken.
#[must_use]
pub(crate) struct Broken {
    rails: &'static [&'static str],
    mended: &'static str,
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.rails.iter().for_each(|rail| drop(fabric_break(&[self.mended, rail])));
    }
}

/// How many packets the broken `rails` have dropped so far.
pub(crate) fn dropped_by(rails: &[&str]) -> u64 {
    rails.iter().map(|rail| fabric_break(&["dropped", rail]).trim().parse::<u64>().unwrap()).sum()
}

fn fabric_break(args: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/softroce/fabric-break");
    let output = Command::new("bash").arg(script).args(args).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "fabric-break {args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Whether time is the guest's own, counted in instructions. Only then do times depend on kvrail
/// alone and not on the host, and tests check their limits.
pub(crate) fn time_is_the_guests() -> bool {
    std::env::var("KVRAIL_TIME").is_ok_and(|time| time == "guest")
}

/// Reports a test's result: on stderr past the test harness, and in the guest's report.
pub(crate) fn said(line: &str) {
    let _ = writeln!(std::io::stderr(), "  {line}");
    let Some(out) = std::env::var_os("OUT") else { return };
    let report = std::path::Path::new(&out).join("report");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(report);
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}
