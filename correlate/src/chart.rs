//! Throughput over time, with the starts after the kills marked, as an SVG.

use std::path::Path;

use plotters::{
    chart::ChartBuilder,
    drawing::IntoDrawingArea,
    element::{PathElement, Rectangle},
    series::LineSeries,
    style::{Color, RGBColor, WHITE},
};
use plotters_svg::SVGBackend;

use crate::{error::Error, status::Point};

const LINE: RGBColor = RGBColor(31, 119, 180);
const KILL: RGBColor = RGBColor(200, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Samples along the axis of time.
const SAMPLES: u64 = 120;

/// A history as rates.
#[derive(Debug, PartialEq)]
pub(crate) struct Rates {
    /// Seconds that a rate stands for.
    width: f64,
    /// Messages a second, one after another from the first point on.
    rates: Vec<f64>,
    /// When the program began again, in seconds.
    starts: Vec<f64>,
}

/// How many messages a second there were, and when the program began again.
pub(crate) fn rates(history: &[Point]) -> Rates {
    let at = |point: &Point| match *point {
        Point::Start(at) | Point::Merged(at, _) => at,
    };
    let (Some(first), Some(last)) = (history.iter().map(at).min(), history.iter().map(at).max()) else {
        return Rates { width: 1.0, rates: Vec::new(), starts: Vec::new() };
    };
    let width = ((last - first) / SAMPLES).max(100);
    let mut merged = vec![0_u64; ((last - first) / width + 1) as usize];
    let (mut before, mut starts) = (None, Vec::new());
    for point in history {
        match *point {
            Point::Start(at) => starts.push((at - first) as f64 / 1000.0),
            Point::Merged(at, messages) => {
                // The first that is known may stand for much that is not.
                merged[((at - first) / width) as usize] +=
                    messages - before.unwrap_or(messages).min(messages);
                before = Some(messages);
            }
        }
    }
    let rates = merged.into_iter().map(|messages| messages as f64 * 1000.0 / width as f64).collect();
    // The first start follows no kill.
    Rates { width: width as f64 / 1000.0, rates, starts: starts.split_off(starts.len().min(1)) }
}

/// Draws a history, with a red line for each start but the first.
pub(crate) fn draw(path: &Path, title: &str, history: &[Point]) -> Result<(), Error> {
    let Rates { width, rates, starts } = rates(history);
    let end = (rates.len() as f64 * width).max(0.1);
    let height = rates.iter().map(|rate| rate / 1e6).fold(0.1, f64::max) * 1.1;
    // A column for each rate, and a line over all of them.
    let columns: Vec<[(f64, f64); 2]> = rates
        .iter()
        .enumerate()
        .map(|(n, rate)| [(n as f64 * width, rate / 1e6), ((n + 1) as f64 * width, rate / 1e6)])
        .collect();
    let mut svg = String::new();
    let drawn = || -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::with_string(&mut svg, (960, 400)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..end, 0.0..height)?;
        let digits = |longest: f64| if longest < 10.0 { 1 } else { 0 };
        chart
            .configure_mesh()
            .max_light_lines(0)
            .disable_x_mesh()
            .bold_line_style(GRID)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .x_label_formatter(&|at| format!("{at:.*}", digits(end)))
            .y_label_formatter(&|rate| format!("{rate:.*}", if height < 1.0 { 2 } else { digits(height) }))
            .x_desc("seconds")
            .y_desc("million messages/s, committed")
            .draw()?;
        chart.draw_series(
            columns
                .iter()
                .map(|[left, right]| Rectangle::new([(left.0, 0.0), *right], LINE.mix(0.25).filled())),
        )?;
        chart.draw_series(LineSeries::new(columns.iter().flatten().copied(), &LINE))?;
        let kills = starts
            .iter()
            .map(|at| PathElement::new([(*at, 0.0), (*at, height)], KILL.mix(0.7).stroke_width(1)));
        chart.draw_series(kills)?;
        area.present()?;
        Ok(())
    };
    let failed = {
        let mut drawn = drawn;
        drawn().err().map(|error| error.to_string())
    };
    if let Some(words) = failed {
        return Err(Error::Request(format!("the chart cannot be drawn: {words}")));
    }
    std::fs::write(path, svg).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_and_the_first_start_is_no_kill() {
        let history =
            [Point::Start(1_000), Point::Merged(1_100, 50), Point::Merged(1_200, 150), Point::Start(1_300)];
        let wanted = Rates { width: 0.1, rates: vec![0.0, 0.0, 1_000.0, 0.0], starts: vec![0.3] };
        assert_eq!(rates(&history), wanted);
    }
}
