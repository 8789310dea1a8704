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

/// Samples along the axis of time.
const SAMPLES: u64 = 120;

/// A history as rates: seconds since its first point, and messages a second until the next; and when the program began
/// again.
pub(crate) fn rates(history: &[Point]) -> (Vec<(f64, f64)>, Vec<f64>) {
    let at = |point: &Point| match *point {
        Point::Start(at) | Point::Merged(at, _) => at,
    };
    let (Some(first), Some(last)) = (history.iter().map(at).min(), history.iter().map(at).max()) else {
        return (Vec::new(), Vec::new());
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
    let seconds = |n: usize| n as f64 * width as f64 / 1000.0;
    let rate = |messages: u64| messages as f64 * 1000.0 / width as f64;
    let rates = merged.into_iter().enumerate().map(|(n, messages)| (seconds(n), rate(messages))).collect();
    // The first start follows no kill.
    (rates, starts.split_off(starts.len().min(1)))
}

/// Draws a history.
pub(crate) fn draw(path: &Path, title: &str, history: &[Point]) -> Result<(), Error> {
    let (rates, starts) = rates(history);
    let width = rates.last().map_or(1.0, |(at, _)| at + 0.1).max(0.1);
    let height = rates.iter().map(|(_, rate)| rate / 1e6).fold(0.1, f64::max) * 1.1;
    let mut svg = String::new();
    let drawn = || -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::with_string(&mut svg, (960, 400)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..width, 0.0..height)?;
        chart.configure_mesh().x_desc("seconds").y_desc("million messages/s, committed").draw()?;
        let bars = rates.windows(2).map(|pair| {
            Rectangle::new([(pair[0].0, 0.0), (pair[1].0, pair[0].1 / 1e6)], LINE.mix(0.2).filled())
        });
        chart.draw_series(bars)?;
        chart.draw_series(LineSeries::new(rates.iter().map(|(at, rate)| (*at, rate / 1e6)), &LINE))?;
        let kills =
            starts.iter().map(|at| PathElement::new([(*at, 0.0), (*at, height)], KILL.stroke_width(1)));
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
        let (rates, kills) = rates(&history);
        assert_eq!(rates, [(0.0, 0.0), (0.1, 0.0), (0.2, 1_000.0), (0.3, 0.0)]);
        assert_eq!(kills, [0.3]);
    }
}
