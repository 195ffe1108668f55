//! The learning curve of a run as a picture: errors in percent on the left axis, the cost on the right one, and below
//! them a panel for each of the model's own measures.
//!
//! Curves that a model does not have are left out, together with their axis and their place in the legend. Values that
//! are not finite, or beyond 10^12, leave a gap. The lettering is the Ubuntu font of `epaint_default_fonts`, which is
//! part of the program.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use thiserror::Error;

use crate::log::Epoch;
use crate::picture::{Colours, Picture, PictureError};

const WIDTH: u32 = 900;
/// Of the first panel.
const HEIGHT: u32 = 600;
/// Of each panel below it.
const MEASURE_HEIGHT: u32 = 300;
const FONT: &str = "sans-serif";
const LABEL_SIZE: u32 = 19;
/// Curves of fewer points show them as dots, so that a single one is seen.
const FEW: usize = 40;
/// Values beyond this are left out: the plotting library does not end when it looks for ticks on such an axis.
const LARGEST: f64 = 1e12;

const COST: RGBColor = RGBColor(120, 120, 120);
const VALID: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 90, 14);
const MEASURE: RGBColor = RGBColor(44, 130, 70);

/// Why a plot cannot be made or stored.
#[derive(Debug, Error)]
pub enum PlotError {
    /// The curves cannot be drawn.
    #[error("cannot draw the learning curve: {0}")]
    Draw(String),
    /// The picture cannot be stored.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// Draws the learning curve of a run and writes it as a PNG file, 900 pixels wide and 600 high, and 300 more for each
/// panel below the first.
///
/// `best_epoch` is marked by an upright line. Epochs without any finite value give an empty frame.
///
/// # Errors
///
/// [`PlotError::Draw`] from the plotting library, [`PlotError::Picture`] with the path when it cannot be stored.
pub fn write_learning_curve(
    path: &Path,
    title: &str,
    epochs: &[Epoch],
    best_epoch: Option<u64>,
) -> Result<(), PlotError> {
    static REGISTER: Once = Once::new();
    // It fails on a file that is no font, which this constant one is not.
    REGISTER.call_once(|| drop(register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)));
    let curves = Curves::new(epochs);
    let panels = curves.panels();
    let height: u32 = panels.iter().map(|(_, height)| height).sum();
    let mut bytes = vec![0; (WIDTH * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut bytes, (WIDTH, height)).into_drawing_area();
        draw_all(&area, title, &curves, &panels, best_epoch)
            .map_err(|error| PlotError::Draw(error.to_string()))?;
    }
    let (height, width) = (height as usize, WIDTH as usize);
    Ok(Picture { height, width, colours: Colours::Rgb, bytes }.write_png(path)?)
}

/// Measures that are drawn at most; a log that has more was not written by a model.
const MOST_MEASURES: usize = 20;

/// The finite points of each curve: epoch, and cost, error in percent or measure.
struct Curves {
    cost: Vec<(f64, f64)>,
    valid: Vec<(f64, f64)>,
    test: Vec<(f64, f64)>,
    measures: Vec<(String, Vec<(f64, f64)>)>,
    last_epoch: f64,
}

impl Curves {
    fn new(epochs: &[Epoch]) -> Self {
        let points = |value: &dyn Fn(&Epoch) -> Option<f64>| {
            let points = epochs.iter().filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?)));
            points.filter(|(x, value)| *x <= LARGEST && value.abs() <= LARGEST).collect::<Vec<_>>()
        };
        let curve = |value: fn(&Epoch) -> Option<f64>, factor: f64| {
            points(&|epoch| value(epoch).map(|value| factor * value))
        };
        let names: BTreeSet<&String> = epochs.iter().flat_map(|epoch| epoch.measures.keys()).collect();
        let measures = names
            .into_iter()
            .map(|name| (name.clone(), points(&|epoch| epoch.measures.get(name).copied())))
            .collect();
        Self {
            cost: curve(|epoch| epoch.train_cost, 1.0),
            valid: curve(|epoch| epoch.valid_error, 100.0),
            test: curve(|epoch| epoch.test_error, 100.0),
            measures,
            last_epoch: epochs
                .iter()
                .map(|epoch| epoch.epoch)
                .max()
                .map_or(1.0, |last| (last as f64).min(LARGEST)),
        }
    }
}

/// What a panel of the picture shows.
#[derive(Copy, Clone)]
enum Panel {
    /// Errors and cost.
    Curves,
    /// The measure of that number.
    Measure(usize),
}

impl Curves {
    /// The panels from the top and their heights. There is always one.
    fn panels(&self) -> Vec<(Panel, u32)> {
        let all_empty = self.cost.is_empty() && self.valid.is_empty() && self.test.is_empty();
        let measures = (0..self.measures.len().min(MOST_MEASURES)).map(Panel::Measure);
        let curves = (!all_empty || self.measures.is_empty()).then_some(Panel::Curves);
        let heights = std::iter::once(HEIGHT).chain(std::iter::repeat(MEASURE_HEIGHT));
        curves.into_iter().chain(measures).zip(heights).collect()
    }
}

/// The range of an axis that shows all values, with a margin; from 0 when that is near.
fn range<'a>(values: impl Iterator<Item = &'a (f64, f64)>) -> Range<f64> {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
    if low > high {
        return 0.0..1.0;
    }
    let margin = 0.05 * (high - low).max(1e-3 * high.abs()).max(1e-9);
    let from_zero = low >= 0.0 && low < 0.5 * high;
    if from_zero { 0.0..high + margin } else { low - margin..high + margin }
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type DrawError<'a> = DrawingAreaErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>;

fn draw_all<'a>(
    area: &Area<'a>,
    title: &str,
    curves: &Curves,
    panels: &[(Panel, u32)],
    best_epoch: Option<u64>,
) -> Result<(), DrawError<'a>> {
    area.fill(&WHITE)?;
    let mut rest = area.clone();
    for (number, (panel, height)) in panels.iter().enumerate() {
        let (area, below) = rest.split_vertically(*height);
        match panel {
            Panel::Curves => draw_curves(&area, title, curves, best_epoch)?,
            Panel::Measure(measure) => {
                let Some((name, points)) = curves.measures.get(*measure) else { continue };
                let title = (number == 0).then_some(title);
                draw_measure(&area, title, &name.replace('_', " "), points, curves.last_epoch)?;
            }
        }
        rest = below;
    }
    area.present()
}

/// The epochs that an axis shows.
fn epoch_range(last_epoch: f64) -> Range<f64> {
    0.0..(last_epoch * 1.02).max(1.0)
}

fn draw_measure<'a>(
    area: &Area<'a>,
    title: Option<&str>,
    name: &str,
    points: &[(f64, f64)],
    last_epoch: f64,
) -> Result<(), DrawError<'a>> {
    let mut builder = ChartBuilder::on(area);
    if let Some(title) = title {
        builder.caption(title, (FONT, 24));
    }
    let mut chart = builder
        .margin(14)
        // As wide as the panel of errors and cost without its right axis.
        .margin_right(34)
        .x_label_area_size(52)
        .y_label_area_size(70)
        .build_cartesian_2d(epoch_range(last_epoch), range(points.iter()))?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(name)
        .label_style((FONT, LABEL_SIZE))
        .axis_desc_style((FONT, LABEL_SIZE + 1))
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .x_labels(10)
        .y_labels(5)
        .bold_line_style(BLACK.mix(0.14))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let size = if points.len() < FEW { 3 } else { 0 };
    let style = MEASURE.filled().stroke_width(2);
    chart.draw_series(LineSeries::new(points.to_vec(), style).point_size(size))?;
    Ok(())
}

fn draw_curves<'a>(
    area: &Area<'a>,
    title: &str,
    curves: &Curves,
    best_epoch: Option<u64>,
) -> Result<(), DrawError<'a>> {
    let has_errors = !(curves.valid.is_empty() && curves.test.is_empty());
    let cost_range = range(curves.cost.iter());
    // Without errors the cost has the left axis to itself.
    let left = if has_errors { range(curves.valid.iter().chain(&curves.test)) } else { cost_range.clone() };
    let x = epoch_range(curves.last_epoch);
    let right_size = if has_errors && !curves.cost.is_empty() { 70 } else { 20 };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 24))
        .margin(14)
        .x_label_area_size(52)
        .y_label_area_size(70)
        .right_y_label_area_size(right_size)
        .build_cartesian_2d(x.clone(), left.clone())?
        .set_secondary_coord(x, cost_range);
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(if has_errors { "error in percent" } else { "training cost" })
        .label_style((FONT, LABEL_SIZE))
        .axis_desc_style((FONT, LABEL_SIZE + 1))
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .x_labels(10)
        .y_labels(8)
        .bold_line_style(BLACK.mix(0.14))
        .light_line_style(TRANSPARENT)
        .draw()?;
    if has_errors && !curves.cost.is_empty() {
        chart
            .configure_secondary_axes()
            .y_desc("training cost")
            .label_style((FONT, LABEL_SIZE))
            .axis_desc_style((FONT, LABEL_SIZE + 1))
            .y_label_formatter(&tick)
            .y_labels(8)
            .draw()?;
    }
    if let Some(best) = best_epoch.filter(|best| *best as f64 <= curves.last_epoch) {
        let line = [(best as f64, left.start), (best as f64, left.end)];
        chart
            .draw_series(LineSeries::new(line, BLACK.mix(0.45).stroke_width(1)))?
            .label("best epoch")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], BLACK.mix(0.45).stroke_width(1)));
    }
    let legend = |colour: RGBColor| {
        move |(x, y): (i32, i32)| PathElement::new([(x, y), (x + 26, y)], colour.stroke_width(3))
    };
    let line =
        |points: &[(f64, f64)], colour: RGBColor| {
            // A single point is no line: it is drawn as a dot by its size.
            LineSeries::new(points.to_vec(), colour.filled().stroke_width(2))
                .point_size(if points.len() < FEW { 3 } else { 0 })
        };
    if !curves.cost.is_empty() {
        let series = line(&curves.cost, COST);
        let drawn =
            if has_errors { chart.draw_secondary_series(series)? } else { chart.draw_series(series)? };
        drawn.label("training cost").legend(legend(COST));
    }
    if !curves.test.is_empty() {
        chart
            .draw_series(line(&curves.test, TEST))?
            .label("test error at the best validation error")
            .legend(legend(TEST));
    }
    if !curves.valid.is_empty() {
        chart.draw_series(line(&curves.valid, VALID))?.label("validation error").legend(legend(VALID));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(14)
        .legend_area_size(36)
        .label_font((FONT, LABEL_SIZE))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .draw()
}

/// A tick in as few digits as tell it from its neighbours on any of the axes.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the plotting library passes ticks by reference")]
fn tick(value: &f64) -> String {
    let text = if value.abs() >= 1e5 || (*value != 0.0 && value.abs() < 1e-3) {
        format!("{value:.1e}")
    } else {
        format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if text == "-0" { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::BufReader;

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

    fn pixels(path: &Path) -> Vec<u8> {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
        assert_eq!((reader.info().width, (reader.info().height - HEIGHT) % MEASURE_HEIGHT), (WIDTH, 0));
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        bytes
    }

    fn count(pixels: &[u8], colour: RGBColor) -> usize {
        pixels.chunks_exact(3).filter(|pixel| **pixel == [colour.0, colour.1, colour.2]).count()
    }

    #[test]
    fn each_curve_is_drawn_in_its_colour() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learning_curve.png");
        write_learning_curve(&path, "mlp", &run(), Some(100)).unwrap();
        let all = pixels(&path);
        for colour in [COST, VALID, TEST] {
            assert!(count(&all, colour) > 300, "{colour:?}: {}", count(&all, colour));
        }
        let without_labels: Vec<Epoch> =
            run().into_iter().map(|epoch| Epoch { valid_error: None, test_error: None, ..epoch }).collect();
        write_learning_curve(&path, "rbm", &without_labels, None).unwrap();
        let cost_only = pixels(&path);
        assert!(count(&cost_only, COST) > 300);
        assert_eq!(count(&cost_only, VALID) + count(&cost_only, TEST), 0);
    }

    #[test]
    fn each_measure_has_a_panel() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learning_curve.png");
        let measured: Vec<Epoch> = run()
            .into_iter()
            .map(|epoch| {
                let measures = [("acceptance_rate", 0.9), ("pseudo_likelihood", -70.0 - epoch.epoch as f64)];
                let measures = measures.map(|(name, value)| (name.to_owned(), value)).into();
                Epoch { measures, ..epoch }
            })
            .collect();
        write_learning_curve(&path, "rbm", &measured, None).unwrap();
        let all = pixels(&path);
        assert_eq!(all.len(), (3 * WIDTH * (HEIGHT + 2 * MEASURE_HEIGHT)) as usize);
        let panels = all.split_at((3 * WIDTH * HEIGHT) as usize);
        let (first, second) = panels.1.split_at((3 * WIDTH * MEASURE_HEIGHT) as usize);
        assert!(count(first, MEASURE) > 300 && count(second, MEASURE) > 300);
        assert_eq!(count(panels.0, MEASURE), 0);
        // Without anything else a measure has the first panel.
        let only: Vec<Epoch> = measured
            .into_iter()
            .map(|epoch| Epoch { epoch: epoch.epoch, measures: epoch.measures, ..Epoch::default() })
            .collect();
        write_learning_curve(&path, "rbm", &only, None).unwrap();
        let all = pixels(&path);
        assert_eq!(all.len(), (3 * WIDTH * (HEIGHT + MEASURE_HEIGHT)) as usize);
        assert!(count(&all, MEASURE) > 600);
    }

    #[test]
    fn any_run_can_be_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learning_curve.png");
        let one = |train_cost, valid_error| Epoch { epoch: 1, train_cost, valid_error, ..Epoch::default() };
        for epochs in [
            vec![],
            vec![one(Some(f64::NAN), Some(f64::INFINITY))],
            vec![one(Some(0.0), Some(0.0))],
            vec![one(Some(-1e300), Some(1e300))],
            vec![Epoch { epoch: u64::MAX, ..one(Some(1.0), Some(0.5)) }],
            vec![one(Some(f64::MAX), None), one(Some(f64::MIN), None)],
            vec![Epoch {
                measures: (0..30).map(|i| (format!("measure {i}"), f64::from(i) / 0.0)).collect(),
                ..one(None, None)
            }],
        ] {
            write_learning_curve(&path, "any", &epochs, Some(1)).unwrap();
        }
        let error = write_learning_curve(&directory.path().join("no/where.png"), "any", &[], None);
        assert!(error.unwrap_err().to_string().contains("where.png"));
    }

    #[test]
    fn ticks_are_short() {
        let ticks = [0.0, -0.0, 12.5, 0.05, 100.0, 1e6, 1e-5, 2.0000000001].map(|value| tick(&value));
        assert_eq!(ticks, ["0", "0", "12.5", "0.05", "100", "1.0e6", "1.0e-5", "2"]);
    }
}
