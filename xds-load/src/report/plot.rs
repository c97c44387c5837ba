//! Line plots as SVG text: axes, a grid, and a legend above.

use std::fmt::Write as _;

use super::{Unit, metric::write_value};

/// A line: points from left to right.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A plot.
pub struct Plot {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

/// What an axis shows.
#[derive(Clone, Copy)]
pub enum Axis {
    /// From 0, in this unit.
    Linear(Unit),
    /// Decades, in this unit.
    Decades(Unit),
    /// Shares of all, so that each tenth of what is left has the same room: 90 %, 99 %, 99.9 %.
    Share,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 84.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 8.0;
const RIGHT: f64 = 28.0;
/// The least that is left on a share axis: 99.99 %.
const LEAST: f64 = 1e-4;

/// An axis with its ends.
struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
}

impl Scale {
    fn new(axis: Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let largest = values.clone().fold(0.0, f64::max);
        let (low, high) = match axis {
            Axis::Linear(_) => (0.0, if largest > 0.0 { largest * 1.05 } else { 1.0 }),
            Axis::Decades(_) => {
                let least = values.filter(|v| *v > 0.0).fold(f64::MAX, f64::min).min(largest.max(1e-9));
                let (low, high) = (least.log10().floor(), largest.max(1e-9).log10().ceil());
                (low, if high > low { high } else { low + 1.0 })
            }
            Axis::Share => (0.0, -LEAST.log10()),
        };
        Self { axis, low, high }
    }

    /// From 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let value = match self.axis {
            Axis::Linear(_) => value,
            Axis::Decades(_) => value.max(1e-12).log10(),
            Axis::Share => -(1.0 - value).max(LEAST).log10(),
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let label = |value, unit| {
            let mut text = String::new();
            // A string takes everything.
            _ = write_value(&mut text, value, unit);
            text
        };
        match self.axis {
            Axis::Linear(unit) => {
                let step = match unit {
                    Unit::Bytes => (self.high / 4.0).max(1.0).log2().ceil().exp2(),
                    _ => nice(self.high / 4.0),
                };
                let steps = (0..=20).map(|n| f64::from(n) * step).take_while(|value| *value <= self.high);
                steps.map(|value| (value, label(value, unit))).collect()
            }
            Axis::Decades(unit) => (self.low as i32..=self.high as i32)
                .map(|power| 10_f64.powi(power))
                .map(|value| (value, label(value, unit)))
                .collect(),
            Axis::Share => [
                (0.0, "0 %"),
                (0.5, "50 %"),
                (0.9, "90 %"),
                (0.99, "99 %"),
                (0.999, "99.9 %"),
                (0.9999, "99.99 %"),
            ]
            .map(|(value, text)| (value, text.to_owned()))
            .to_vec(),
        }
    }
}

/// The next of 1, 2, 5, 10 …
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|nice| *nice >= step).unwrap_or(step)
}

impl Plot {
    /// A `figure`. Lines have the classes `l0`, `l1` …
    pub fn figure(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let (x, y) = (Scale::new(self.x, points().map(|p| p.0)), Scale::new(self.y, points().map(|p| p.1)));
        let across = |value| LEFT + x.at(value) * (WIDTH - LEFT - RIGHT);
        let up = |value| HEIGHT - BOTTOM - y.at(value) * (HEIGHT - BOTTOM - TOP);
        let mut out = format!("<figure><figcaption>{}</figcaption><p class=legend>", self.title);
        for (number, line) in self.lines.iter().enumerate() {
            _ = write!(out, "<span class=l{}>{}</span> ", number % 8, super::html::escape(&line.name));
        }
        _ = write!(out, "</p><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{}'>", self.title);
        for (value, text) in x.ticks() {
            let at = across(value);
            _ = write!(
                out,
                "<path class=grid d='M{at:.1} {TOP}V{:.1}'/><text x={at:.1} y={:.1} text-anchor=middle>{text}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0
            );
        }
        for (value, text) in y.ticks() {
            let at = up(value);
            _ = write!(
                out,
                "<path class=grid d='M{LEFT} {at:.1}H{:.1}'/><text x={:.1} y={:.1} text-anchor=end>{text}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (number, line) in self.lines.iter().enumerate() {
            let mut path = String::new();
            for (place, (px, py)) in line.points.iter().enumerate() {
                _ = write!(path, "{}{:.1} {:.1}", if place == 0 { 'M' } else { 'L' }, across(*px), up(*py));
            }
            _ = write!(out, "<path class='line l{}' d='{path}'/>", number % 8);
        }
        out.push_str("</svg></figure>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, Line, Plot, Scale, Unit, nice};

    #[test]
    fn scales_go_from_end_to_end() {
        let linear = Scale::new(Axis::Linear(Unit::Count), [1.0, 100.0].into_iter());
        assert!(linear.at(0.0) == 0.0 && linear.at(100.0) > 0.9);
        let decades = Scale::new(Axis::Decades(Unit::Seconds), [0.002, 0.5].into_iter());
        assert_eq!((decades.low, decades.high), (-3.0, 0.0));
        assert!((decades.at(0.01) - 1.0 / 3.0).abs() < 1e-9);
        let share = Scale::new(Axis::Share, std::iter::empty());
        assert!((share.at(0.99) - 0.5).abs() < 1e-9 && share.at(1.0) == 1.0);
        assert_eq!([nice(0.3), nice(7.0), nice(1.0)], [0.5, 10.0, 1.0]);
    }

    #[test]
    fn a_plot_has_its_lines_even_without_points() {
        let lines = vec![
            Line { name: "a<b".into(), points: vec![(0.0, 1.0), (1.0, 2.0)] },
            Line { name: "none".into(), points: vec![] },
        ];
        let (x, y) = (Axis::Linear(Unit::Seconds), Axis::Linear(Unit::Bytes));
        let figure = Plot { title: "t", x, y, lines }.figure();
        assert!(figure.contains("a&lt;b") && figure.matches("class='line").count() == 2);
        assert!(!figure.contains("NaN") && !figure.contains("inf"));
    }
}
