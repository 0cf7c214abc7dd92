//! Which devices there are, and how they are broken.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time has the fabric.
static TURN: Mutex<()> = Mutex::new(());

/// Rails for both ends.
pub(crate) struct Devices {
    pub(crate) reader: String,
    pub(crate) producer: String,
    /// Whether rails can be broken: they are the lane's own.
    pub(crate) breakable: bool,
    _turn: MutexGuard<'static, ()>,
}

impl Devices {
    /// The rails of this host, or `None`, said loudly, where there are none.
    ///
    /// # Panics
    ///
    /// There are none and there must be: in the lane.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let devices: Vec<String> = std::fs::read_dir("/sys/class/infiniband")
            .map(|all| all.flatten().map(|d| d.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        if lane_has_fabric() {
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

    /// The same, for tests that break rails.
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

    /// Breaks `rails` (`a0`, `b1`); they are mended when what is returned is dropped.
    pub(crate) fn break_rails(&self, rails: &'static [&'static str], how: &[&str]) -> Broken {
        assert!(self.breakable);
        break_rails(rails, how)
    }
}

/// Whether the devices are the guest's own.
fn lane_has_fabric() -> bool {
    std::env::var("KVRAIL_LANE").is_ok_and(|lane| lane == "fabric")
}

/// The reader's rails, and the producer's.
pub(crate) fn rails() -> [String; 2] {
    if lane_has_fabric() { ["ra0,ra1", "rb0,rb1"] } else { ["auto"; 2] }.map(str::to_owned)
}

/// The same without the fabric at hand: from another thread than the one that reads.
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

/// Whether time is the guest's own here, counted in instructions: then a limit on a time says
/// something of kvrail. Elsewhere the host decides how long things take.
pub(crate) fn time_is_the_guests() -> bool {
    std::env::var("KVRAIL_TIME").is_ok_and(|time| time == "guest")
}

/// Says what a test found: on stderr past the harness, and in the lane's report.
pub(crate) fn said(line: &str) {
    let _ = writeln!(std::io::stderr(), "  {line}");
    let Some(out) = std::env::var_os("OUT") else { return };
    let report = std::path::Path::new(&out).join("report");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(report);
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}
