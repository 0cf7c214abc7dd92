//! A chart of lines over named places.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{DrawError, GRID, INK, SERIES, axis_end, chart, drawn, legend, text};
use crate::output::numbers::time;

/// What the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// GB/s, from zero.
    Rate,
    /// Microseconds, by powers of ten.
    Time,
}

/// A line: at each place a value, or none.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// Draws the lines over these places.
pub(crate) fn draw(
    title: &str,
    places: &[String],
    lines: &[Series],
    scale: Scale,
) -> Result<String, DrawError> {
    let values = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let most = values().fold(0.0, f64::max);
    let names = legend(lines.iter().map(|line| &line.name));
    // Times are drawn by their logarithms.
    let height = |value: f64| if scale == Scale::Time { value.max(0.1).log10() } else { value };
    let (from, to) = match scale {
        Scale::Rate => (0.0, axis_end(most * 1.05)),
        Scale::Time => {
            let least = values().fold(f64::INFINITY, f64::min);
            let from = if least.is_finite() { height(least).floor() } else { 0.0 };
            (from, height(most).ceil().max(from + 1.0))
        }
    };
    let label = |value: &f64| format!("{value:.*}", if to < 5.0 { 1 } else { 0 });
    chart(title, &names, |area| {
        let mut plot = drawn(
            ChartBuilder::on(area)
                .margin(6)
                .margin_right(10)
                .set_label_area_size(LabelAreaPosition::Left, 52)
                .set_label_area_size(LabelAreaPosition::Bottom, 24)
                .build_cartesian_2d(-0.4..places.len() as f64 - 0.6, from..to),
        )?;
        drawn(
            plot.configure_mesh()
                .disable_x_mesh()
                .x_labels(0)
                .y_labels(if scale == Scale::Rate { 6 } else { 0 })
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(INK)
                .label_style(text(INK, HPos::Right, VPos::Center))
                .y_label_formatter(&label)
                .draw(),
        )?;
        let (left, top) = area.get_base_pixel();
        for value in if scale == Scale::Time { ticks(from, to) } else { Vec::new() } {
            let at = value.log10();
            let across = [(-0.4, at), (places.len() as f64 - 0.6, at)];
            drawn(plot.draw_series([PathElement::new(across, GRID)]))?;
            let (x, y) = plot.backend_coord(&(-0.4, at));
            let style = text(INK, HPos::Right, VPos::Center);
            let label = time(value).replace(".00", "");
            drawn(area.draw(&Text::new(label, (x - left - 6, y - top), style)))?;
        }
        for (at, line) in lines.iter().enumerate() {
            let colour = SERIES[at % SERIES.len()];
            let points: Vec<_> = line
                .values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| Some((place as f64, height((*value)?))))
                .collect();
            drawn(plot.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2))))?;
            drawn(plot.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled()))))?;
        }
        for (at, place) in places.iter().enumerate() {
            let (x, y) = plot.backend_coord(&(at as f64, from));
            let style = text(INK, HPos::Center, VPos::Top);
            drawn(area.draw(&Text::new(place.clone(), (x - left, y - top + 6), style)))?;
        }
        Ok(())
    })
}

/// The times at which an axis is labelled, between two powers of ten: these, and on a short axis
/// also twice and five times them.
#[expect(clippy::cast_possible_truncation, reason = "an axis has a few powers of ten")]
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let factors: &[f64] = if to - from > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = from.floor() as i32..=to.ceil() as i32;
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|tick| (from - 1e-9..=to + 1e-9).contains(&tick.log10())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_of_times_has_round_labels() {
        assert_eq!(ticks(1.0, 2.0), [10.0, 20.0, 50.0, 100.0]);
        assert_eq!(ticks(0.0, 4.0), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
    }
}
