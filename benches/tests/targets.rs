//! The README gives the number of targets that are not met, and the table in docs/performance.md
//! names them.

use std::fs;
use std::path::Path;

const NUMBERS: [&str; 16] = [
    "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen", "Fifteen",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readme_counts_the_targets_that_are_missed() {
    let performance = read("docs/performance.md");
    let (_, section) = performance.split_once("### Against the targets\n").unwrap();
    let rows = section.lines().skip(1).take_while(|line| line.starts_with('|'));
    let missed = rows.filter(|row| row.contains("**no**")).count();
    // A target outside of the table would not be counted.
    let elsewhere =
        performance.lines().filter(|line| line.starts_with('|') && line.contains("**no**")).count();
    assert_eq!(elsewhere, missed, "a target that is missed stands outside of the table");
    let verb = if missed == 1 { "target is" } else { "targets are" };
    let told = format!("{} {verb} not met", NUMBERS[missed]);
    let readme = read("README.md");
    assert!(readme.contains(&told), "the README does not say: {told}");
    assert_eq!(readme.matches("not met").count(), 1);
}
