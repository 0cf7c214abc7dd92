//! The ladder in the README, its text and its charts, is what `report` makes of one report that
//! stands in the tree. `BLESS=1` draws the charts again; the README is edited by hand.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::run;

#[test]
fn the_readmes_ladder_is_made_of_one_report() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pictures = top.join("docs/pictures");
    let report = pictures.join("ladder.json");
    let bless = std::env::var_os("BLESS").is_some();
    let drawn = std::env::temp_dir().join(format!("kvrail-readme-{}", std::process::id()));
    let args = ["report", report.to_str().unwrap(), "--svg", drawn.to_str().unwrap()];
    let output = run(&args, Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let readme = fs::read_to_string(top.join("README.md")).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(" us |") || line.contains(" ms |"))
        .collect();
    assert!(rows.len() >= 20, "{text}");
    for row in rows {
        assert!(readme.contains(row), "the README does not have this row of the report: {row}");
    }
    let charts: Vec<_> = fs::read_dir(&drawn).unwrap().map(|entry| entry.unwrap().path()).collect();
    let ladders: Vec<_> = charts
        .iter()
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ladder-ladder-"))
        .collect();
    assert_eq!(ladders.len(), 2);
    for chart in ladders {
        let name = chart.file_name().unwrap().to_str().unwrap();
        let kept = pictures.join(name);
        if bless {
            fs::copy(chart, &kept).unwrap();
        }
        assert!(readme.contains(&format!("docs/pictures/{name}")), "the README does not show {name}");
        let same = fs::read(chart).unwrap() == fs::read(&kept).unwrap_or_default();
        assert!(same, "{} is not what the report gives: run this test with BLESS=1", kept.display());
    }
    fs::remove_dir_all(drawn).unwrap();
}
