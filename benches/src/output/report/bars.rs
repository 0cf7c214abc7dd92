//! A chart of bars in groups.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{DrawError, GRID, INK, SERIES, axis_end, chart, drawn, legend, text};

/// A bar: its height, and the range that half of the rounds fall into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) series: usize,
    pub(crate) value: f64,
    pub(crate) range: Option<(f64, f64)>,
}

/// Bars that stand together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// Draws the groups. `limit` is a line across, with its name in the legend.
pub(crate) fn draw(
    title: &str,
    series: &[String],
    groups: &[Group],
    limit: Option<(f64, &str)>,
) -> Result<String, DrawError> {
    let bars = groups.iter().flat_map(|group| &group.bars);
    let most = bars.map(|bar| bar.range.map_or(bar.value, |(_, high)| high.max(bar.value)));
    let most = most.chain(limit.map(|(value, _)| value)).fold(0.0, f64::max);
    let end = axis_end(most * 1.08);
    let mut names = legend(series.iter());
    names.extend(limit.map(|(value, name)| (format!("{name}: {value:.2}"), INK)));
    chart(title, &names, |area| {
        let mut plot = drawn(
            ChartBuilder::on(area)
                .margin(6)
                .margin_right(10)
                .set_label_area_size(LabelAreaPosition::Left, 40)
                .set_label_area_size(LabelAreaPosition::Bottom, 24)
                .build_cartesian_2d(0.0..groups.len() as f64, 0.0..end),
        )?;
        drawn(
            plot.configure_mesh()
                .disable_x_mesh()
                .x_labels(0)
                .y_labels(6)
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(INK)
                .label_style(text(INK, HPos::Right, VPos::Center))
                .y_label_formatter(&|value| format!("{value:.*}", if end < 5.0 { 1 } else { 0 }))
                .draw(),
        )?;
        for (at, group) in groups.iter().enumerate() {
            let width = 0.8 / group.bars.len().max(1) as f64;
            for (number, bar) in group.bars.iter().enumerate() {
                let from = at as f64 + 0.1 + number as f64 * width;
                let to = from + width * 0.88;
                let colour = SERIES[bar.series % SERIES.len()];
                let shape = Rectangle::new([(from, 0.0), (to, bar.value)], colour.filled());
                drawn(plot.draw_series([shape]))?;
                if let Some((low, high)) = bar.range {
                    let middle = f64::midpoint(from, to);
                    let line = PathElement::new(vec![(middle, low), (middle, high)], INK);
                    drawn(plot.draw_series([line]))?;
                }
            }
            let (x, y) = plot.backend_coord(&(at as f64 + 0.5, 0.0));
            let (left, top) = area.get_base_pixel();
            let style = text(INK, HPos::Center, VPos::Top);
            drawn(area.draw(&Text::new(group.label.clone(), (x - left, y - top + 6), style)))?;
        }
        if let Some((value, _)) = limit {
            let line =
                PathElement::new(vec![(0.0, value), (groups.len() as f64, value)], INK.stroke_width(2));
            drawn(plot.draw_series([line]))?;
        }
        Ok(())
    })
}
