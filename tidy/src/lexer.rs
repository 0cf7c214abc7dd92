//! Comments and string literals of a Rust file.
//!
//! `syn` drops comments, so they are found here. Only as much of the grammar is known as is needed
//! to tell a comment from a string, and a lifetime from a character.

/// What a piece of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A comment of any kind, its slashes included.
    Comment,
    /// The inside of a string literal, escapes as written.
    Literal,
}

/// One comment or string literal, cut at line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextLine<'a> {
    /// Comment or literal.
    pub piece: Piece,
    /// From 1.
    pub number: usize,
    /// Columns from the beginning of the file's line to the end of this text.
    pub width: usize,
    /// The text.
    pub text: &'a str,
}

/// All comments and string literals of `source`, in order.
#[must_use]
pub fn lines(source: &str) -> Vec<TextLine<'_>> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            push(&mut found, source, Piece::Comment, at, at + end);
            at += end;
        } else if rest.starts_with("/*") {
            let end = at + block_comment(rest);
            push(&mut found, source, Piece::Comment, at, end);
            at = end;
        } else if let Some((inside, end)) = raw_string(source, at) {
            push(&mut found, source, Piece::Literal, inside.0, inside.1);
            at = end;
        } else if bytes[at] == b'"' {
            let end = at + 1 + quoted(&rest[1..]);
            push(&mut found, source, Piece::Literal, at + 1, end);
            at = end + 1;
        } else if bytes[at] == b'\'' {
            at += character(rest);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

fn push<'a>(found: &mut Vec<TextLine<'a>>, source: &'a str, piece: Piece, start: usize, end: usize) {
    // Counted on from the piece before: files are long.
    let before = found.last().map_or((1, 0), |line| (line.number, offset(source, line.text)));
    let first = before.0 + source[before.1..start].matches('\n').count();
    let mut at = start;
    for (number, text) in (first..).zip(source[start..end.min(source.len())].split('\n')) {
        let line_start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let width = source[line_start..at].chars().count() + text.chars().count();
        found.push(TextLine { piece, number, width, text });
        at += text.len() + 1;
    }
}

/// Where `part` begins in `source`, which it is a part of.
fn offset(source: &str, part: &str) -> usize {
    part.as_ptr().addr() - source.as_ptr().addr()
}

/// The length of the block comment at the beginning of `text`; they nest.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The inside of the raw string that begins at `at`, and where the text after it begins.
fn raw_string(source: &str, at: usize) -> Option<((usize, usize), usize)> {
    let before = source[..at].chars().next_back();
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = &source[at..];
    let body = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = body.bytes().take_while(|&b| b == b'#').count();
    let body = body[hashes..].strip_prefix('"')?;
    let start = source.len() - body.len();
    let end = body.find(&format!("\"{}", "#".repeat(hashes))).map_or(source.len(), |i| start + i);
    Some(((start, end), (end + 1 + hashes).min(source.len())))
}

/// How far the string goes whose opening quote stands before `text`.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal or of the lifetime at the beginning of `text`.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|&(_, c)| c == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(Piece, usize, &str)> {
        lines(source).into_iter().map(|line| (line.piece, line.number, line.text)).collect()
    }

    #[test]
    fn comments_and_strings_are_told_apart() {
        let source = "let a = \"// no comment\"; // yes \"no string\"\n/* two\nlines */ 'a' '\"' '\\'' x";
        let expected = [
            (Piece::Literal, 1, "// no comment"),
            (Piece::Comment, 1, "// yes \"no string\""),
            (Piece::Comment, 2, "/* two"),
            (Piece::Comment, 3, "lines */"),
        ];
        assert_eq!(found(source), expected);
    }

    #[test]
    fn raw_strings_escapes_and_lifetimes() {
        let source = "fn f<'a>(x: &'a str) { r#\"a \"b\" // c\"#; \"\\\"d\"; br\"e\" }";
        let expected =
            [(Piece::Literal, 1, "a \"b\" // c"), (Piece::Literal, 1, "\\\"d"), (Piece::Literal, 1, "e")];
        assert_eq!(found(source), expected);
    }

    #[test]
    fn a_width_counts_what_stands_before_the_comment() {
        assert_eq!(lines("    x; // ä")[0].width, 11);
        assert_eq!(lines("/* a\n  b */")[1].width, 6);
    }
}
