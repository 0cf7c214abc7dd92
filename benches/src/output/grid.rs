//! Rows of cells in columns that fit 80 columns of a terminal.

/// The columns of a terminal.
const WIDTH: usize = 80;

/// The spaces between columns.
const GAP: usize = 2;

/// The rows under their headings, or without any where `heads` is empty. All rows have as many
/// cells as there are headings. Where the rows are too wide, cells of the widest column are
/// wrapped.
pub(crate) fn grid(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|&head| head.into()).collect();
    let with_heads = (!heads.is_empty()).then_some(&heads);
    let all: Vec<Vec<String>> = with_heads
        .into_iter()
        .chain(rows)
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![1; columns];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let room = WIDTH.saturating_sub(GAP * columns.saturating_sub(1)).max(columns);
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max() else { break };
        *widest -= 1;
    }
    let mut text = String::new();
    for row in &all {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| wrapped(cell, width)).collect();
        for at in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                let part = cell.get(at).map_or("", String::as_str);
                line += &format!("{part:<width$}{:GAP$}", "");
            }
            text += line.trim_end();
            text.push('\n');
        }
    }
    text
}

/// The text in lines of at most `width` characters, divided at spaces where there are some.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        for char in word.chars() {
            if used == width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(char);
            used += 1;
        }
    }
    lines.push(line);
    lines
}

/// The text without characters that would change what a terminal shows.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_a_terminal_whatever_is_in_it() {
        let rows: Vec<_> = [("x".repeat(300), "a b ".repeat(60)), ("\u{1b}[2J".into(), "ä".repeat(100))]
            .map(|(a, b)| vec![a, b])
            .into();
        let text = grid(&["one", "two"], &rows);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.starts_with("one") && text.contains("?[2J") && !text.contains('\u{1b}'), "{text}");
        for (char, count) in [('x', 300), ('a', 60), ('ä', 100)] {
            assert_eq!(text.chars().filter(|&c| c == char).count(), count, "{char}");
        }
    }

    #[test]
    fn what_fits_is_not_wrapped() {
        let rows = [vec!["mlx5_0".into(), "4 8".into()], vec!["a".into(), "1".into()]];
        assert_eq!(grid(&["device", "n"], &rows), "device  n\nmlx5_0  4 8\na       1\n");
        assert_eq!(grid(&[], &rows[1..]), "a  1\n");
    }
}
