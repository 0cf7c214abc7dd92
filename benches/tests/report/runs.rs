//! The reports of two small runs, and folders for them.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::run;

/// A folder of a test's own, which is removed when this is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("kvrail-report-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }

    pub(crate) fn write(&self, name: &str, report: Value) -> String {
        self.write_text(name, &report.to_string())
    }

    pub(crate) fn write_text(&self, name: &str, text: &str) -> String {
        let path = self.path(&format!("{name}.json"));
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn measured(args: &[&str]) -> Value {
    let output = run(&[args, &["--json", "-"]].concat(), Duration::from_secs(120));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The report of a small ladder.
pub(crate) fn ladder() -> Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    let args = ["ladder", "--layout", "opaque-128k", "--rails", "2", "--working-set", "2MiB"];
    REPORT.get_or_init(|| measured(&[&args[..], &["--duration", "400ms"]].concat())).clone()
}

/// The report of a small sweep.
pub(crate) fn sweep() -> Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    let args = ["drive", "--local", "--layout", "opaque-4k,opaque-128k", "--concurrency", "1,4"];
    let more = ["--duration", "50ms", "--repeat", "3", "--working-set", "1MiB", "--rails", "1"];
    REPORT.get_or_init(|| measured(&[&args[..], &more].concat())).clone()
}

/// GB/s of a row as everything shows them: the median of its rounds.
#[allow(dead_code, reason = "two of the tests use it")]
pub(crate) fn shown(row: &Value) -> String {
    format!("{:.2}", row["rounds_gb_per_s"]["median"].as_f64().unwrap())
}

/// The report with a change.
#[allow(dead_code, reason = "one of the tests uses it")]
pub(crate) fn changed(mut report: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut report);
    report
}
