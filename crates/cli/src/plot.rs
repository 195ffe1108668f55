//! The learning curve of a run as an SVG picture: errors in percent on the left axis, the cost on the right one, and
//! below them a panel for each of the model's own measures.
//!
//! Curves that a model does not have are left out, together with their axis and their place in the legend, as are values
//! that are not finite or beyond 10^12. SVG is text: letters are drawn by whoever shows the picture, so no font and no
//! rasteriser is part of the program. A plotting library would bring both, for one picture.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::log::Epoch;

const WIDTH: f64 = 900.0;
/// Of the first panel.
const HEIGHT: f64 = 560.0;
/// Of each panel below it.
const MEASURE_HEIGHT: f64 = 300.0;
/// Space around the axes of a panel: to the left and to the right, above, below.
const MARGINS: (f64, f64, f64) = (84.0, 62.0, 54.0);
/// Measures that are drawn at most; a log that has more was not written by a model.
const MOST_MEASURES: usize = 20;
/// Curves of fewer points show them as dots, so that a single one is seen.
const FEW: usize = 40;
/// Of longer curves every second, third, .. point is drawn.
const MANY: usize = 2_000;
/// Values beyond this are left out.
const LARGEST: f64 = 1e12;

const COST: &str = "#787878";
const VALID: &str = "#1f77b4";
const TEST: &str = "#d65a0e";
const MEASURE: &str = "#2c8246";
const BEST: &str = "#999999";

/// An epoch and what was measured in it.
type Point = (f64, f64);

struct Curve {
    name: String,
    colour: &'static str,
    points: Vec<Point>,
    /// Whether the right axis is its own.
    right: bool,
}

/// Curves above one axis of epochs.
struct Panel {
    height: f64,
    /// What the left and the right axis show.
    labels: [String; 2],
    curves: Vec<Curve>,
    /// The epoch that an upright line marks.
    best: Option<f64>,
}

/// The learning curve of a run as the text of an SVG picture, 900 pixels wide.
///
/// `best_epoch` is marked by an upright line. Epochs without any finite value give an empty frame.
#[must_use]
pub fn learning_curve(title: &str, epochs: &[Epoch], best_epoch: Option<u64>) -> String {
    let panels = panels(epochs, best_epoch);
    let last = epochs.iter().map(|epoch| epoch.epoch).max().map_or(1.0, |last| (last as f64).min(LARGEST));
    let height: f64 = panels.iter().map(|panel| panel.height).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"15\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    put_text(&mut svg, WIDTH / 2.0, 26.0, "middle\" font-size=\"20", title);
    let mut top = 0.0;
    for panel in panels {
        panel.draw(&mut svg, top, last);
        top += panel.height;
    }
    svg + "</svg>\n"
}

/// The panels from the top. There is always one.
fn panels(epochs: &[Epoch], best_epoch: Option<u64>) -> Vec<Panel> {
    let points = |value: &dyn Fn(&Epoch) -> Option<f64>| -> Vec<Point> {
        let points = epochs.iter().filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?)));
        points.filter(|(x, y)| *x <= LARGEST && y.abs() <= LARGEST).collect()
    };
    let percent = |value: Option<f64>| value.map(|value| 100.0 * value);
    let errors = [
        ("test error at the best validation error", TEST, points(&|epoch| percent(epoch.test_error))),
        ("validation error", VALID, points(&|epoch| percent(epoch.valid_error))),
    ];
    let cost = points(&|epoch| epoch.train_cost);
    let has_errors = errors.iter().any(|(_, _, points)| !points.is_empty());
    let curves: Vec<Curve> = [("training cost", COST, cost)]
        .into_iter()
        .chain(errors)
        .filter(|(_, _, points)| !points.is_empty())
        // Without errors the cost has the left axis to itself.
        .map(|(name, colour, points)| Curve {
            name: name.to_owned(),
            colour,
            points,
            right: has_errors && colour == COST,
        })
        .collect();
    let names: BTreeSet<&String> = epochs.iter().flat_map(|epoch| epoch.measures.keys()).collect();
    let mut panels = Vec::new();
    if !curves.is_empty() || names.is_empty() {
        let left = if has_errors { "error in percent" } else { "training cost" };
        let labels = [left.to_owned(), "training cost".to_owned()];
        panels.push(Panel { height: HEIGHT, labels, curves, best: best_epoch.map(|best| best as f64) });
    }
    for name in names.into_iter().take(MOST_MEASURES) {
        let points = points(&|epoch| epoch.measures.get(name).copied());
        let label = name.replace('_', " ");
        let curve = Curve { name: label.clone(), colour: MEASURE, points, right: false };
        let height = if panels.is_empty() { HEIGHT } else { MEASURE_HEIGHT };
        panels.push(Panel { height, labels: [label, String::new()], curves: vec![curve], best: None });
    }
    panels
}

/// An axis: the values at its ends, and where on the picture these lie.
struct Axis {
    values: [f64; 2],
    ends: [f64; 2],
}

impl Axis {
    /// From 0 to the last epoch.
    fn of_epochs(last: f64, ends: [f64; 2]) -> Self {
        Self { values: [0.0, (1.02 * last).max(1.0)], ends }
    }

    /// That of all values with a margin; from 0 when that is near.
    fn of_values<'a>(points: impl Iterator<Item = &'a Point>, ends: [f64; 2]) -> Self {
        let (low, high) =
            points.fold((f64::MAX, f64::MIN), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
        if low > high {
            return Self { values: [0.0, 1.0], ends };
        }
        let margin = 0.05 * (high - low).max(0.02 * high.abs()).max(1e-9);
        let from_zero = low >= 0.0 && low < 0.5 * high;
        Self { values: [if from_zero { 0.0 } else { low - margin }, high + margin], ends }
    }

    fn place(&self, value: f64) -> f64 {
        let [low, high] = self.values;
        self.ends[0] + (value - low) / (high - low) * (self.ends[1] - self.ends[0])
    }

    /// Round values, about six of them, no nearer to each other than `nearest`.
    fn ticks(&self, nearest: f64) -> Vec<f64> {
        let [low, high] = self.values;
        let raw = (high - low) / 6.0;
        let power = 10_f64.powf(raw.log10().floor());
        let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw).unwrap_or(10.0);
        let step = (factor * power).max(nearest);
        let first = (low / step).ceil();
        let count = ((high / step).floor() - first) as usize;
        (0..=count).map(|number| (first + number as f64) * step).collect()
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, top: f64, last_epoch: f64) {
        let (side, above, below) = MARGINS;
        let [left, right] = [side, WIDTH - side];
        let [upper, lower] = [top + above, top + self.height - below];
        let middle = f64::midpoint(upper, lower);
        let points = |on_right: bool| {
            let curves = self.curves.iter().filter(move |curve| curve.right == on_right);
            curves.flat_map(|curve| &curve.points)
        };
        let x = Axis::of_epochs(last_epoch, [left, right]);
        let y = [false, true].map(|on_right| Axis::of_values(points(on_right), [lower, upper]));
        for tick in x.ticks(1.0) {
            put_line(svg, [x.place(tick), lower], [x.place(tick), upper], "#dddddd", 1);
            put_text(svg, x.place(tick), lower + 20.0, "middle", &number(tick));
        }
        put_text(svg, WIDTH / 2.0, lower + 42.0, "middle", "epoch");
        for tick in y[0].ticks(0.0) {
            put_line(svg, [left, y[0].place(tick)], [right, y[0].place(tick)], "#dddddd", 1);
            put_text(svg, left - 8.0, y[0].place(tick) + 5.0, "end", &number(tick));
        }
        put_turned_text(svg, 20.0, middle, &self.labels[0]);
        if self.curves.iter().any(|curve| curve.right) {
            for tick in y[1].ticks(0.0) {
                put_line(svg, [right, y[1].place(tick)], [right + 5.0, y[1].place(tick)], "black", 1);
                put_text(svg, right + 8.0, y[1].place(tick) + 5.0, "start", &number(tick));
            }
            put_turned_text(svg, WIDTH - 8.0, middle, &self.labels[1]);
        }
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{upper:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"none\" stroke=\"black\"/>",
            right - left,
            lower - upper
        );
        let best = self.best.filter(|best| *best <= last_epoch);
        if let Some(best) = best {
            put_line(svg, [x.place(best), lower], [x.place(best), upper], BEST, 1);
        }
        for curve in &self.curves {
            let y = &y[usize::from(curve.right)];
            let every = curve.points.len().div_ceil(MANY).max(1);
            let places: Vec<Point> = curve
                .points
                .iter()
                .step_by(every)
                .map(|point| (x.place(point.0), y.place(point.1)))
                .collect();
            put_curve(svg, &places, curve.colour);
        }
        let curves = self.curves.iter().map(|curve| (curve.name.as_str(), curve.colour));
        let legend: Vec<_> = curves.chain(best.map(|_| ("best epoch", BEST))).collect();
        let mut at = left;
        // A curve that is alone has its name at its axis.
        for (name, colour) in legend.iter().filter(|_| legend.len() > 1) {
            put_line(svg, [at, upper - 16.0], [at + 22.0, upper - 16.0], colour, 3);
            put_text(svg, at + 28.0, upper - 11.0, "start", name);
            // Letters of this size are seven to eight pixels wide on average.
            at += 50.0 + 7.4 * name.len() as f64;
        }
    }
}

// Writing to a string cannot fail.

fn put_line(svg: &mut String, from: [f64; 2], to: [f64; 2], colour: &str, width: u32) {
    let ([x1, y1], [x2, y2]) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

fn put_curve(svg: &mut String, places: &[Point], colour: &str) {
    let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"");
    for (x, y) in places {
        let _ = write!(svg, "{x:.1},{y:.1} ");
    }
    svg.push_str("\"/>\n");
    for (x, y) in places.iter().filter(|_| places.len() < FEW) {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

fn put_text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text));
}

/// Text that is read from below, around a place.
fn put_turned_text(svg: &mut String, x: f64, y: f64, text: &str) {
    let _ = writeln!(
        svg,
        "<text text-anchor=\"middle\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A tick in as few digits as tell it from its neighbours.
fn number(value: f64) -> String {
    let text = if value.abs() >= 1e5 || (value != 0.0 && value.abs() < 1e-3) {
        format!("{value:.1e}")
    } else {
        format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if text == "-0" { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Vec<Epoch> {
        let epoch = |number: u64| {
            let decay = 1.0 / (1.0 + 0.3 * number as f64);
            Epoch {
                epoch: number,
                train_cost: Some(2.3 * decay),
                valid_error: Some(0.02 + 0.12 * decay),
                test_error: (!number.is_multiple_of(3)).then_some(0.022 + 0.12 * decay),
                seconds: number as f64,
                ..Epoch::default()
            }
        };
        (1..=100).map(epoch).collect()
    }

    fn count(svg: &str, part: &str) -> usize {
        svg.matches(part).count()
    }

    #[test]
    fn each_curve_is_drawn_in_its_colour() {
        let all = learning_curve("mlp", &run(), Some(100));
        // A line of the legend and the curve itself.
        assert!([COST, VALID, TEST].iter().all(|colour| count(&all, colour) == 2), "{all}");
        assert!(count(&all, "<polyline") == 3 && count(&all, "best epoch") == 1, "{all}");
        assert_eq!(count(&all, "training cost"), 2);
        let without_labels: Vec<Epoch> =
            run().into_iter().map(|epoch| Epoch { valid_error: None, test_error: None, ..epoch }).collect();
        let cost_only = learning_curve("rbm", &without_labels, None);
        assert!(count(&cost_only, COST) == 1 && count(&cost_only, "<polyline") == 1, "{cost_only}");
        assert!(!cost_only.contains("error") && !cost_only.contains("best"), "{cost_only}");
    }

    #[test]
    fn each_measure_has_a_panel() {
        let measured = run().into_iter().map(|epoch| {
            let measures = [("acceptance_rate", 0.9), ("pseudo_likelihood", -70.0 - epoch.epoch as f64)];
            Epoch { measures: measures.map(|(name, value)| (name.to_owned(), value)).into(), ..epoch }
        });
        let measured: Vec<Epoch> = measured.collect();
        let all = learning_curve("rbm", &measured, None);
        assert!(count(&all, "<polyline") == 5 && all.contains("height=\"1160\""), "{all}");
        assert_eq!(count(&all, "pseudo likelihood"), 1);
        // Without anything else a measure has the first panel.
        let only = measured.into_iter().map(|epoch| Epoch {
            epoch: epoch.epoch,
            measures: epoch.measures,
            ..Epoch::default()
        });
        let only = learning_curve("rbm", &only.collect::<Vec<_>>(), None);
        assert!(count(&only, "<polyline") == 2 && only.contains("height=\"860\""), "{only}");
    }

    #[test]
    fn any_run_can_be_drawn() {
        let one = |train_cost, valid_error| Epoch { epoch: 1, train_cost, valid_error, ..Epoch::default() };
        for epochs in [
            vec![],
            vec![one(Some(f64::NAN), Some(f64::INFINITY))],
            vec![one(Some(0.0), Some(0.0))],
            vec![one(Some(-1e300), Some(1e300))],
            vec![one(Some(1e12), Some(1e-300))],
            vec![Epoch { epoch: u64::MAX, ..one(Some(1.0), Some(0.5)) }],
            vec![one(Some(f64::MAX), None), one(Some(f64::MIN), None)],
            vec![Epoch {
                measures: (0..30).map(|i| (format!("measure {i}"), f64::from(i) / 0.0)).collect(),
                ..one(None, None)
            }],
        ] {
            let svg = learning_curve("a < b & c", &epochs, Some(1));
            assert!(
                svg.contains("a &lt; b &amp; c") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
            assert!(svg.len() < 100_000);
        }
        let long: Vec<Epoch> = (1..=100_000).map(|epoch| Epoch { epoch, ..one(Some(1.0), None) }).collect();
        assert!(learning_curve("long", &long, None).len() < 100_000);
    }

    #[test]
    fn ticks_are_round_and_short() {
        let ticks = |low, high, nearest| Axis { values: [low, high], ends: [0.0, 1.0] }.ticks(nearest);
        assert_eq!(ticks(0.0, 102.0, 1.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.0, 1.02, 1.0), [0.0, 1.0]);
        assert_eq!(ticks(-3.0, 3.0, 0.0), [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        let numbers = [0.0, -0.0, 12.5, 0.05, 100.0, 1e6, 1e-5, 2.0000000001].map(number);
        assert_eq!(numbers, ["0", "0", "12.5", "0.05", "100", "1.0e6", "1.0e-5", "2"]);
    }
}
