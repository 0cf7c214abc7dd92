//! The length of files, the width and the form of comments, and words that a reader stumbles over.

use std::fs;
use std::path::Path;

use crate::lexer::{Piece, lines};
use crate::workspace::shown;

/// The most lines of a source file.
pub const MAX_LINES: usize = 500;
/// The most columns of a line that has a comment.
pub const MAX_COLUMNS: usize = 100;

/// Words that comments, texts and docs do without, each with what to write instead.
pub const BANNED: [(&str, &str); 20] = [
    ("whoever", "name the caller, the thread or the peer"),
    ("nobody", "say which thread, peer or code does not"),
    ("as is", "unchanged"),
    ("of that which", "name the thing"),
    ("how manyeth", "every n-th"),
    ("carcass", "dead lane"),
    ("carcasses", "dead lanes"),
    ("grave", "reclaimer"),
    ("bury", "reclaim, destroy later"),
    ("buried", "reclaimed"),
    ("condemn", "stop using"),
    ("condemned", "no longer used"),
    ("accuse", "call faulty"),
    ("accused", "called faulty"),
    ("hushed", "silent"),
    ("deaf", "say what it no longer answers"),
    ("mute", "silent"),
    ("errand", "request"),
    ("furnish", "give, fill"),
    ("stranger", "say what it is not known to"),
];

/// A line when the file is longer than [`MAX_LINES`].
#[must_use]
pub fn length(path: &Path) -> Vec<String> {
    let count = read(path).lines().count();
    if count > MAX_LINES {
        vec![format!("{}: {count} lines, at most {MAX_LINES}: divide it", shown(path))]
    } else {
        Vec::new()
    }
}

/// A line for each comment of a Rust file that goes beyond [`MAX_COLUMNS`].
#[must_use]
pub fn width(path: &Path) -> Vec<String> {
    too_wide(&read(path)).map(|finding| format!("{}:{finding}", shown(path))).collect()
}

/// The same for a script or a TOML file, whose comments begin with `#`.
#[must_use]
pub fn width_of_script(path: &Path) -> Vec<String> {
    script_too_wide(&read(path)).map(|finding| format!("{}:{finding}", shown(path))).collect()
}

fn script_too_wide(source: &str) -> impl Iterator<Item = String> {
    let comments = source.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("# "));
    let wide = comments.map(|(at, line)| (at + 1, line.chars().count(), line.contains("://")));
    let wide = wide.filter(|(_, width, address)| *width > MAX_COLUMNS && !address);
    wide.map(|(number, width, _)| format!("{number}: a comment of {width} columns, at most {MAX_COLUMNS}"))
}

fn too_wide(source: &str) -> impl Iterator<Item = String> {
    let comments = lines(source).into_iter().filter(|line| line.piece == Piece::Comment);
    // An address cannot be broken.
    let wide = comments.filter(|line| line.width > MAX_COLUMNS && !line.text.contains("://"));
    wide.map(|line| format!("{}: a comment of {} columns, at most {MAX_COLUMNS}", line.number, line.width))
}

/// A line for each doc comment of a Rust file that has a second comment marker in it: two lines
/// that were joined by mistake.
#[must_use]
pub fn joined(path: &Path) -> Vec<String> {
    has_joined(&read(path))
        .map(|number| format!("{}:{number}: two comment lines in one", shown(path)))
        .collect()
}

fn has_joined(source: &str) -> impl Iterator<Item = usize> {
    let comments = lines(source).into_iter().filter(|line| line.piece == Piece::Comment);
    let joined = comments.filter(|line| {
        let mut words = line.text.split_whitespace();
        // In the example of a doc comment, a doc comment begins behind the first marker.
        let is_doc = words.next() != Some("//");
        is_doc && words.enumerate().any(|(at, word)| word == "//!" || (word == "///" && at > 0))
    });
    joined.map(|line| line.number)
}

/// A line for each banned word of a Rust file's comments and string literals.
#[must_use]
pub fn words_of_source(path: &Path) -> Vec<String> {
    let source = read(path);
    let found = lines(&source).into_iter().flat_map(|line| {
        banned(line.text).map(move |(word, instead)| format!("{}: \"{word}\": {instead}", line.number))
    });
    found.map(|finding| format!("{}:{finding}", shown(path))).collect()
}

/// The same of every line of a page.
#[must_use]
pub fn words_of_page(path: &Path) -> Vec<String> {
    let source = read(path);
    let found = source.lines().enumerate().flat_map(|(at, line)| {
        banned(line).map(move |(word, instead)| format!("{}: \"{word}\": {instead}", at + 1))
    });
    found.map(|finding| format!("{}:{finding}", shown(path))).collect()
}

/// The banned words of a text.
fn banned(text: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let text = text.to_lowercase();
    BANNED.into_iter().filter(move |(word, _)| {
        text.match_indices(word).any(|(at, _)| {
            let joins = |c: char| c.is_alphanumeric() || c == '_';
            let before = text[..at].chars().next_back().is_some_and(joins);
            let after = text[at + word.len()..].chars().next().is_some_and(joins);
            !before && !after
        })
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_word_is_found_as_a_word_only() {
        let found = |text| banned(text).map(|(word, _)| word).collect::<Vec<_>>();
        assert_eq!(found("Whoever asks"), ["whoever"]);
        assert_eq!(found("a graveyard, engraved, mute_all"), [""; 0]);
        assert_eq!(found("posted as is."), ["as is"]);
        assert_eq!(found("was issued, has isolated"), [""; 0]);
    }

    #[test]
    fn joined_comment_lines_are_found_and_a_marker_that_is_named_is_not() {
        let source =
            "//! One. //! //! Two.\n//! /// An example.\n/// Ends. ///\n/// They begin with `///`.\n";
        assert_eq!(has_joined(source).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_wide_comment_is_found_and_wide_code_is_not() {
        let wide = format!("let a = \"{}\";\n// {}\n", "x".repeat(120), "y".repeat(98));
        assert_eq!(too_wide(&wide).count(), 1);
        assert_eq!(too_wide(&format!("// {}", "y".repeat(97))).count(), 0);
        let wide = format!("a=\"{}\"\n  # {}\n# {}\n", "x".repeat(120), "y".repeat(97), "z".repeat(98));
        assert_eq!(script_too_wide(&wide).count(), 1);
    }
}
