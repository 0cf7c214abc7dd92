//! The Grafana dashboard and docs/metrics.md name the metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{busy, text};

/// Metrics that the dashboard leaves out on purpose, each with its reason.
const LEFT_OUT: [(&str, &str); 5] = [
    ("kvrail_hits_total", "the share of misses shows it"),
    ("kvrail_announced_records_total", "of interest beside withdrawals only, in a search for a fault"),
    ("kvrail_withdrawn_records_total", "the same"),
    ("kvrail_puts_refused_total", "the use of the pool shows it first"),
    ("kvrail_rail_lanes_stalled_total", "they are among the lanes that failed"),
];

fn docs(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of samples that are exported.
fn exported() -> BTreeSet<String> {
    let text = text(&busy());
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

/// The words of a text that begin with `kvrail_`.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kvrail_")).map(str::to_owned).collect()
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "expr" || name == "definition" => {
                        found.push(text.clone());
                    }
                    _ => expressions(field, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The name of a histogram for one of its series.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

#[test]
fn every_metric_of_the_dashboard_is_exported_and_every_exported_one_is_shown_or_left_out() {
    let board: Value = serde_json::from_str(&docs("grafana-dashboard.json")).unwrap();
    let mut found = Vec::new();
    expressions(&board, &mut found);
    assert!(found.len() > 15, "{found:?}");
    let exported = exported();
    let mut used = BTreeSet::new();
    for expression in &found {
        let names = names(expression);
        assert!(!names.is_empty(), "no metric in {expression}");
        for name in names {
            assert!(exported.contains(&name), "{name} of {expression} is not exported");
            used.insert(family(&name).to_owned());
        }
    }
    for (name, why) in LEFT_OUT {
        assert!(exported.contains(name) && !used.contains(name) && !why.is_empty(), "{name}");
        used.insert(name.to_owned());
    }
    let unused: Vec<_> = exported.iter().filter(|name| !used.contains(family(name))).collect();
    assert!(unused.is_empty(), "not on the dashboard, and not left out: {unused:?}");
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let listed = names(&docs("metrics.md"));
    let exported: BTreeSet<_> = exported().iter().map(|name| family(name).to_owned()).collect();
    let missing: Vec<_> = exported.iter().filter(|name| !listed.contains(*name)).collect();
    let known = |name: &&String| exported.contains(family(name));
    let wrong: Vec<_> = listed.iter().filter(|name| !known(name) && **name != "kvrail_").collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:?}, not there: {wrong:?}");
}
