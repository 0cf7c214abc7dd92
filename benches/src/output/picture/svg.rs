//! A page as a picture: bars, each of which shows the parts of one block of the bar above it.
//!
//! Widths are not to scale: an axis shows its first blocks and its last, and a field is as wide as
//! its text at least. The bytes are written down.

use std::fmt::Write;

use kvrail::layouts::{Axis, AxisKind, Field, Geometry, Spread};

use crate::output::numbers::grouped;
use crate::output::picture::blocks::{Block, Distance, page};

const MARGIN: f64 = 16.0;
const WIDTH: f64 = 960.0;
/// The height of a bar, and of a bar of fields, which has three lines.
const BAR: f64 = 30.0;
const ROW: f64 = 56.0;
/// The height of the words above a bar, and of the funnel from the bar above.
const WORDS: f64 = 20.0;
const FUNNEL: f64 = 22.0;
/// The space between planes beside each other.
const GAP: f64 = 24.0;
/// The width of one character in the fonts below.
const CHARACTER: f64 = 6.2;
/// The colours of the planes, which repeat from the fifth plane on.
const COLOURS: [&str; 4] = ["#cfe3f7", "#fbe3c4", "#d6efd3", "#eadcf4"];
/// The colour of a block that holds several planes.
const TOGETHER: &str = "#eceff3";

/// Draws a page.
pub(crate) fn picture(name: &str, geometry: &Geometry) -> String {
    let mut canvas = Canvas { geometry, body: String::new(), bottom: 0.0 };
    canvas.text(MARGIN, 30.0, "title", name);
    canvas.text(MARGIN, 50.0, "words", &summary(geometry));
    canvas.block(&page(geometry), None, MARGIN, 62.0, WIDTH - 2.0 * MARGIN);
    let height = canvas.bottom + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" \
         aria-label=\"{name}\">\n\
         <style>\n\
         .title {{ font: bold 16px sans-serif }} .words {{ font: 12px sans-serif; fill: #444 }}\n\
         .cell {{ font: 11px sans-serif; text-anchor: middle }} \
         .name {{ font: bold 11px sans-serif; text-anchor: middle }}\n\
         .box {{ stroke: #5b6673; stroke-width: 1 }} .funnel {{ fill: #f4f6f8 }}\n\
         </style>\n\
         <defs><pattern id=\"pad\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#fff\"/>\
         <line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" stroke=\"#b5bcc4\" stroke-width=\"2\"/></pattern></defs>\n\
         <rect width=\"{WIDTH:.0}\" height=\"{height:.0}\" fill=\"#fff\"/>\n{}</svg>\n",
        canvas.body
    )
}

fn summary(geometry: &Geometry) -> String {
    let mut text = bytes(geometry.page_bytes());
    if geometry.regions() > 1 {
        write!(text, " in {} regions", geometry.regions()).unwrap_or_default();
    }
    if geometry.tokens() > 0 {
        write!(text, ", {} tokens", geometry.tokens()).unwrap_or_default();
    }
    if geometry.tokens_per_state() > 1 {
        write!(text, ", {} to a state", geometry.tokens_per_state()).unwrap_or_default();
    }
    for Axis { kind, extent, spread } in geometry.axes() {
        match spread {
            Spread::Whole => Ok(()),
            Spread::Sharded { ranks, .. } => write!(text, ", {kind} {extent} on each of {ranks} ranks"),
            Spread::Replicated { ranks } => write!(text, ", {kind} the same on {ranks} ranks"),
            Spread::Stage { first, of } => write!(text, ", {kind} {extent} of {of} from {first} on"),
        }
        .unwrap_or_default();
    }
    text
}

fn bytes(number: u64) -> String {
    format!("{} {}", grouped(number), if number == 1 { "byte" } else { "bytes" })
}

struct Canvas<'a> {
    geometry: &'a Geometry,
    body: String,
    bottom: f64,
}

/// A box of a bar.
struct Cell {
    lines: Vec<String>,
    fill: String,
    /// Its share of the width that the texts leave.
    weight: f64,
}

impl Canvas<'_> {
    /// Draws a block in the given width, and its parts below it.
    fn block(&mut self, block: &Block, plane: Option<usize>, x: f64, y: f64, width: f64) {
        match block {
            Block::Axis { axis, every, pad, inner } => {
                let fill = fill(plane.or(only_plane(inner)));
                let mut cells: Vec<_> = shown(axis.extent)
                    .into_iter()
                    .map(|index| match index {
                        Some(index) => {
                            Cell { lines: vec![index.to_string()], fill: fill.clone(), weight: 1.0 }
                        }
                        None => Cell { lines: vec!["…".into()], fill: "#fff".into(), weight: 0.7 },
                    })
                    .collect();
                cells.extend(padding(*pad));
                let what = match every {
                    Distance::Bytes(step) => {
                        format!("{}, every {}", self.counted(axis), bytes(*step))
                    }
                    Distance::Unknown => format!("{}, at a distance known at run time", self.counted(axis)),
                    Distance::Regions(_) => format!("{}, each in a region", self.counted(axis)),
                };
                let boxes = self.bar(&what, &cells, x, y, width, BAR);
                self.funnel(boxes[0], x, y + WORDS + BAR, width);
                self.block(inner, plane, x, y + WORDS + BAR + FUNNEL, width);
            }
            Block::Planes { planes, apart, pad } => {
                let mut cells: Vec<_> = planes
                    .iter()
                    .map(|(plane, size, _)| {
                        let names: Vec<_> = self.fields(*plane).map(Field::name).collect();
                        let line = format!("{}: {}", names.join(", "), bytes(*size));
                        Cell { lines: vec![line], fill: fill(Some(*plane)), weight: 1.0 }
                    })
                    .collect();
                cells.extend(padding(*pad));
                let each = if *apart { ", each in a region" } else { "" };
                let boxes = self.bar(&format!("{} planes{each}", planes.len()), &cells, x, y, width, BAR);
                let gaps = GAP * (planes.len() - 1) as f64;
                let column = (width - gaps) / planes.len() as f64;
                for (at, (plane, _, inner)) in planes.iter().enumerate() {
                    let x = x + at as f64 * (column + GAP);
                    self.funnel(boxes[at], x, y + WORDS + BAR, column);
                    self.block(inner, Some(*plane), x, y + WORDS + BAR + FUNNEL, column);
                }
            }
            Block::Row { plane, pad } => {
                let fields: Vec<Field> = self.fields(*plane).copied().collect();
                let all: u64 = fields.iter().map(Field::bytes).sum();
                let mut cells: Vec<_> = fields
                    .iter()
                    .map(|field| Cell {
                        lines: vec![
                            field.name().into(),
                            format!("{} × {}", grouped(field.count()), field.kind()),
                            format!("{} at {}", bytes(field.bytes()), grouped(field.row_offset())),
                        ],
                        fill: fill(Some(*plane)),
                        weight: field.bytes() as f64 / all as f64,
                    })
                    .collect();
                cells.extend(padding(*pad));
                self.bar(&format!("a row of {}", bytes(all + pad)), &cells, x, y, width, ROW);
                self.bottom = self.bottom.max(y + WORDS + ROW);
            }
        }
    }

    /// The number of indices of an axis in words: "64 tokens", or states where the axis counts
    /// those.
    fn counted(&self, axis: &Axis) -> String {
        let s = if axis.extent == 1 { "" } else { "s" };
        match axis.kind {
            AxisKind::Token if self.geometry.tokens_per_state() > 1 => format!("{} state{s}", axis.extent),
            kind => format!("{} {kind}{s}", axis.extent),
        }
    }

    fn fields(&self, plane: usize) -> impl Iterator<Item = &Field> {
        self.geometry.fields().iter().filter(move |field| field.plane() == plane)
    }

    /// Draws words and a bar below them. Returns the left edge and the width of each box.
    fn bar(
        &mut self,
        words: &str,
        cells: &[Cell],
        x: f64,
        y: f64,
        width: f64,
        height: f64,
    ) -> Vec<(f64, f64)> {
        self.text(x, y + WORDS - 6.0, "words", words);
        let mut at = x;
        let mut boxes = Vec::new();
        for (cell, width) in cells.iter().zip(widths(cells, width)) {
            let top = y + WORDS;
            let fill = &cell.fill;
            writeln!(
                self.body,
                "<rect class=\"box\" x=\"{at:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill=\"{fill}\"/>"
            )
            .unwrap_or_default();
            let first = top + height / 2.0 + 4.0 - 15.0 * (cell.lines.len() - 1) as f64 / 2.0;
            for (line, text) in cell.lines.iter().enumerate() {
                let class = if line == 0 && cell.lines.len() > 1 { "name" } else { "cell" };
                self.text(at + width / 2.0, first + 15.0 * line as f64, class, text);
            }
            boxes.push((at, width));
            at += width;
        }
        boxes
    }

    /// Draws the funnel from a box to the bar that shows its parts.
    fn funnel(&mut self, (left, wide): (f64, f64), x: f64, y: f64, width: f64) {
        let (right, end, below) = (left + wide, x + width, y + FUNNEL);
        writeln!(
            self.body,
            "<polygon class=\"funnel\" points=\"{left:.1},{y:.1} {right:.1},{y:.1} {end:.1},{below:.1} {x:.1},{below:.1}\"/>"
        )
        .unwrap_or_default();
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        writeln!(self.body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")
            .unwrap_or_default();
    }
}

fn fill(plane: Option<usize>) -> String {
    plane.map_or(TOGETHER, |plane| COLOURS[plane % COLOURS.len()]).into()
}

fn padding(pad: u64) -> Option<Cell> {
    (pad > 0).then(|| Cell {
        lines: vec![format!("pad {}", grouped(pad))],
        fill: "url(#pad)".into(),
        weight: 0.0,
    })
}

/// The plane of a block that has only one.
fn only_plane(block: &Block) -> Option<usize> {
    match block {
        Block::Axis { inner, .. } => only_plane(inner),
        Block::Planes { .. } => None,
        Block::Row { plane, .. } => Some(*plane),
    }
}

/// The indices of an axis that are drawn, with a `None` for those that are left out.
fn shown(extent: u64) -> Vec<Option<u64>> {
    if extent <= 8 {
        return (0..extent).map(Some).collect();
    }
    [Some(0), Some(1), Some(2), None, Some(extent - 1)].into()
}

/// The widths of the boxes of a bar: what each text needs, and a share of the rest by weight.
fn widths(cells: &[Cell], width: f64) -> Vec<f64> {
    let least = |cell: &Cell| {
        let longest = cell.lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        longest as f64 * CHARACTER + 12.0
    };
    let all: f64 = cells.iter().map(least).sum();
    let weights: f64 = cells.iter().map(|cell| cell.weight).sum();
    // The width that the texts leave is shared by weight.
    let rest = (width - all).max(0.0);
    let scale = (width / all).min(1.0);
    cells.iter().map(|cell| least(cell) * scale + rest * cell.weight / weights).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_singular() {
        assert_eq!([0, 1, 4_497_408].map(bytes), ["0 bytes", "1 byte", "4,497,408 bytes"]);
    }

    #[test]
    fn a_bar_is_filled_exactly() {
        let cell = |text: &str, weight| Cell { lines: vec![text.into()], fill: String::new(), weight };
        let few = [cell("latent", 0.9), cell("rope", 0.1), cell("pad 8", 0.0)];
        assert!((widths(&few, 500.0).iter().sum::<f64>() - 500.0).abs() < 1e-9);
        assert!((widths(&few, 50.0).iter().sum::<f64>() - 50.0).abs() < 1e-9);
        assert_eq!(shown(3), [Some(0), Some(1), Some(2)]);
        assert_eq!(shown(61), [Some(0), Some(1), Some(2), None, Some(60)]);
    }
}
