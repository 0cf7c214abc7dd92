//! Thread names that Linux cuts off.

use std::fs;
use std::path::Path;

use crate::lexer::{Piece, lines};
use crate::workspace::shown;

/// The bytes of a thread's name that Linux keeps (`TASK_COMM_LEN` less its zero byte).
const KEPT: usize = 15;
/// How long a number in a name is taken to be: names have the index of a rail, of which there are
/// 16 at most.
const DIGITS: usize = 2;
/// The calls that name a thread.
const CALLS: [&str; 3] = [".name(", "spawn_isolated(", "Listener::bind("];

/// A line for each thread name of a Rust file that is longer than [`KEPT`] bytes, and for each
/// thread without a name.
#[must_use]
pub fn names(path: &Path) -> Vec<String> {
    let source = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found(&source).into_iter().map(|finding| format!("{}:{finding}", shown(path))).collect()
}

fn found(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().collect();
    let mut findings = Vec::new();
    for literal in lines(source).iter().filter(|line| line.piece == Piece::Literal) {
        let named = CALLS.iter().any(|call| code[literal.number - 1].contains(call));
        if named && literal.text.starts_with("kvrail-") && length(literal.text) > KEPT {
            findings.push(format!(
                "{}: Linux cuts off the thread name {} after {KEPT} bytes",
                literal.number, literal.text
            ));
        }
    }
    for (number, line) in (1..).zip(&code) {
        if line.contains("thread::Builder::new().spawn") {
            findings.push(format!("{number}: a thread without a name"));
        }
    }
    findings
}

/// The length of a name whose numbers are [`DIGITS`] long.
fn length(name: &str) -> usize {
    let mut parts = name.split('{');
    let first = parts.next().map_or(0, str::len);
    first + parts.map(|part| DIGITS + part.split_once('}').map_or(0, |(_, after)| after.len())).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_too_long_are_found() {
        assert_eq!(length("kvrail-rail-{index}"), 14);
        let source = "b.name(\"kvrail-accept\".into());\nb.name(format!(\"kvrail-session-{n}\"));\n\
                      let package = \"kvrail-conformance\";\nstd::thread::Builder::new().spawn(f);\n";
        let found = found(source);
        assert!(found[0].starts_with("2: ") && found[1].starts_with("4: "), "{found:?}");
        assert_eq!(found.len(), 2);
    }
}
