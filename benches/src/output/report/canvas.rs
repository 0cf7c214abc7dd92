//! A chart's area, with its title, legend and axis.
//!
//! A chart is drawn in the colours of a light page, and a style sheet replaces them on a dark one.
//! Its size is that of a column of a narrow page, so that its text is legible there.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::output::grid::wrapped;

/// The size of a chart, in pixels.
pub(crate) const SIZE: (u32, u32) = (376, 280);
/// The size of text. The backend writes less than that: 12 pixels.
pub(crate) const TEXT: u32 = 15;
/// The most characters of a line of a title.
const TITLE: usize = 42;
/// Behind everything, so that a picture is legible on any page.
const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// Text and axes.
pub(crate) const INK: RGBColor = RGBColor(0x1A, 0x1A, 0x1A);
/// Lines behind the data.
pub(crate) const GRID: RGBColor = RGBColor(0xD0, 0xD0, 0xD0);
/// The series, which people with any colour vision can tell apart (Okabe and Ito).
pub(crate) const SERIES: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xA8, 0x4F, 0x85),
    RGBColor(0x8A, 0x6D, 0x00),
    RGBColor(0x44, 0x44, 0xAA),
];
/// The same colours on a dark page.
const DARK: [(RGBColor, &str); 9] = [
    (PAPER, "#181818"),
    (INK, "#E8E8E8"),
    (GRID, "#4A4A4A"),
    (SERIES[0], "#56B4E9"),
    (SERIES[1], "#FF8C3A"),
    (SERIES[2], "#2FD0A0"),
    (SERIES[3], "#E79AC8"),
    (SERIES[4], "#E6C229"),
    (SERIES[5], "#9FA0FF"),
];

/// The area of a chart.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Drawing failed, which happens to no string.
#[derive(Debug, thiserror::Error)]
#[error("a chart cannot be drawn: {0}")]
pub(crate) struct DrawError(pub(crate) String);

/// Names in the colours of their series.
pub(crate) fn legend<'a>(names: impl Iterator<Item = &'a String>) -> Vec<(String, RGBColor)> {
    names.cloned().zip(SERIES.into_iter().cycle()).collect()
}

/// Turns an error of the plotting crate into ours.
pub(crate) fn drawn<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, DrawError> {
    result.map_err(|error| DrawError(error.to_string()))
}

/// The style of text in a colour.
pub(crate) fn text(colour: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", TEXT).into_font());
    (style.color, style.pos) = (colour.to_backend_color(), Pos::new(h, v));
    style
}

/// A chart: what `draw` draws below its title and its legend.
pub(crate) fn chart(
    title: &str,
    legend: &[(String, RGBColor)],
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    const LINE: i32 = 18;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        drawn(area.fill(&PAPER))?;
        let heading = TextStyle::from(("sans-serif", TEXT + 1, FontStyle::Bold).into_font()).color(&INK);
        let mut y = 6;
        for line in wrapped(title, TITLE) {
            drawn(area.draw(&Text::new(line, (6, y), heading.clone())))?;
            y += LINE;
        }
        // Names flow into as many lines as they need.
        let mut x = 6;
        y += 2;
        for (name, colour) in legend {
            let width = 24 + 7 * i32::try_from(name.chars().count()).unwrap_or(i32::MAX / 8);
            if x > 6 && x + width > SIZE.0.cast_signed() {
                (x, y) = (6, y + LINE);
            }
            drawn(area.draw(&Rectangle::new([(x, y + 2), (x + 10, y + 12)], colour.filled())))?;
            let style = text(INK, HPos::Left, VPos::Top);
            drawn(area.draw(&Text::new(name.clone(), (x + 15, y + 1), style)))?;
            x += width;
        }
        let top = if legend.is_empty() { y } else { y + LINE + 4 };
        let (_, below) = area.split_vertically(top);
        draw(&below)?;
        drawn(area.present())?;
    }
    Ok(styled(&svg))
}

/// The picture with its style sheet inside, and with a size that follows its page.
fn styled(svg: &str) -> String {
    let Some((open, body)) = svg.split_once('>') else { return svg.into() };
    format!("{open}><style>{}</style>{}", style(), body.replace('\n', ""))
}

/// The style sheet that replaces the colours on a dark page.
fn style() -> String {
    let hex = |colour: RGBColor| format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
    let rule = |(light, dark): &(RGBColor, &str)| {
        let light = hex(*light);
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    };
    let rules: String = DARK.iter().map(rule).collect();
    format!("@media(prefers-color-scheme:dark){{{rules}}}")
}

/// A number that is a good end of an axis: at least `most`, and 1, 2 or 5 with zeros.
pub(crate) fn axis_end(most: f64) -> f64 {
    let ten = 10_f64.powf(most.max(1e-9).log10().floor());
    [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|factor| factor * ten)
        .find(|&end| end >= most)
        .unwrap_or(10.0 * ten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_beyond_the_data() {
        let ends = [0.43, 1.0, 5.9, 46.0, 413.1].map(axis_end);
        assert_eq!(ends.map(|end| format!("{end:.1}")), ["0.5", "1.0", "6.0", "50.0", "500.0"]);
    }

    #[test]
    fn every_colour_of_a_chart_has_one_for_dark_pages() {
        let style = style();
        for colour in SERIES.iter().chain([&INK, &GRID, &PAPER]) {
            let hex = format!("{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
            assert!(style.contains(&hex), "{hex}: {style}");
        }
    }
}
