//! Progress of a training run for people, on standard error.
//!
//! On a terminal it is one bar that moves with the minibatches and shows the epoch, the cost, the errors and the time
//! left; elsewhere one plain line after each epoch. Time left is an upper bound when training may stop early. Standard
//! output is never touched: it belongs to the log.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log::Epoch;

/// The terminal is redrawn at most this often; training steps are much shorter.
const REDRAWS_PER_SECOND: u8 = 10;

/// Shows how far a run has come.
pub struct Progress {
    display: Display,
    epochs: u64,
    first_epoch: u64,
    started: Instant,
}

enum Display {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
    Hidden,
}

impl Progress {
    /// Progress on standard error: a bar on a terminal, lines elsewhere.
    ///
    /// The run has `epochs` epochs of `batches_per_epoch` minibatches, of which `epochs_done` were done before a resume.
    #[must_use]
    pub fn on_stderr(epochs: u64, batches_per_epoch: u64, epochs_done: u64) -> Self {
        let display = if io::stderr().is_terminal() {
            Display::Bar(bar(epochs, batches_per_epoch, epochs_done))
        } else {
            Display::Lines(Box::new(io::stderr()))
        };
        Self { display, epochs, first_epoch: epochs_done, started: Instant::now() }
    }

    /// Progress as plain lines.
    #[must_use]
    pub fn as_lines(output: Box<dyn Write + Send>, epochs: u64, epochs_done: u64) -> Self {
        Self { display: Display::Lines(output), epochs, first_epoch: epochs_done, started: Instant::now() }
    }

    /// Progress that is not shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self { display: Display::Hidden, epochs: 0, first_epoch: 0, started: Instant::now() }
    }

    /// Counts `batches` more minibatches.
    pub fn advance(&self, batches: u64) {
        if let Display::Bar(bar) = &self.display {
            bar.inc(batches);
        }
    }

    /// Shows the results of an epoch.
    pub fn epoch(&mut self, epoch: &Epoch) {
        let results = results(epoch);
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_prefix(title(epoch, self.epochs));
                bar.set_message(results);
            }
            Display::Lines(output) => {
                let left = time_left(
                    self.started.elapsed(),
                    epoch.epoch - self.first_epoch.min(epoch.epoch),
                    self.epochs - epoch.epoch.min(self.epochs),
                );
                // Training goes on without an audience.
                let _ = writeln!(output, "{}  {results}  {left}", title(epoch, self.epochs));
            }
            Display::Hidden => {}
        }
    }

    /// Shows a note between the results: where files were written, why the run stops.
    pub fn note(&mut self, text: &str) {
        match &mut self.display {
            Display::Bar(bar) => bar.println(text),
            Display::Lines(output) => {
                let _ = writeln!(output, "{text}");
            }
            Display::Hidden => {}
        }
    }

    /// Ends the bar and leaves its last state standing.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.abandon();
        }
    }
}

fn bar(epochs: u64, batches_per_epoch: u64, epochs_done: u64) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
    let bar = ProgressBar::with_draw_target(Some(epochs.saturating_mul(batches_per_epoch)), target);
    // The template is a constant that the test below parses, so the plain style is never fallen back to.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(format!("epoch {epochs_done}/{epochs}"));
    bar.set_position(epochs_done.saturating_mul(batches_per_epoch));
    // Batches of an earlier run say nothing about the speed of this one.
    bar.reset_eta();
    bar
}

const TEMPLATE: &str = "{prefix} [{bar:24}] {msg}  {elapsed} elapsed, at most {eta} left";

/// Which of how many epochs it is, within its phase where it has one.
fn title(epoch: &Epoch, epochs: u64) -> String {
    match &epoch.phase {
        Some(phase) => format!("{}: epoch {}/{}", phase.name, phase.epoch, phase.epochs),
        None => format!("epoch {}/{epochs}", epoch.epoch),
    }
}

/// The numbers of an epoch: errors in percent, a model's own measures by their names.
fn results(epoch: &Epoch) -> String {
    let mut text = String::new();
    let mut part = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let separator = if text.is_empty() { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{name} {value}");
        }
    };
    let percent = |error: f64| format!("{:.2} %", 100.0 * error);
    part("cost", epoch.train_cost.map(|cost| format!("{cost:.5}")));
    part("valid", epoch.valid_error.map(percent));
    part("test", epoch.test_error.map(percent));
    for (name, value) in &epoch.measures {
        part(&name.replace('_', " "), Some(format!("{value:.5}")));
    }
    text
}

fn time_left(elapsed: Duration, epochs_done: u64, epochs_left: u64) -> String {
    let left = elapsed.as_secs_f64() * epochs_left as f64 / epochs_done.max(1) as f64;
    let seconds = left.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("at most {seconds} s left"),
        (0, _) => format!("at most {minutes} min {seconds} s left"),
        _ => format!("at most {hours} h {minutes} min left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Measures, Phase};
    use indicatif::InMemoryTerm;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn epoch() -> Epoch {
        let (train_cost, valid_error) = (Some(0.345678), Some(0.12458333));
        Epoch {
            epoch: 3,
            train_cost,
            valid_error,
            test_error: Some(0.1209375),
            seconds: 1.0,
            ..Epoch::default()
        }
    }

    #[test]
    fn lines_show_the_results_of_an_epoch() {
        let output = Buffer::default();
        let mut progress = Progress::as_lines(Box::new(output.clone()), 1000, 0);
        progress.advance(7);
        progress.epoch(&epoch());
        progress.epoch(&Epoch { epoch: 4, train_cost: Some(90.0), ..Epoch::default() });
        let measures = Measures::from([("pseudo_likelihood".to_owned(), -62.5)]);
        let phase = Some(Phase { name: "layer 1".to_owned(), epoch: 5, epochs: 100 });
        progress.epoch(&Epoch { epoch: 5, phase, measures, ..Epoch::default() });
        progress.note("saved");
        progress.finish();
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("epoch 3/1000  cost 0.34568  valid 12.46 %  test 12.09 %  at most "),
            "{text}"
        );
        assert!(lines[1].starts_with("epoch 4/1000  cost 90.00000  at most "), "{text}");
        assert!(
            lines[2].starts_with("layer 1: epoch 5/100  pseudo likelihood -62.50000  at most "),
            "{text}"
        );
        assert_eq!(lines[3..], ["saved"]);
    }

    #[test]
    fn time_left_is_scaled_from_the_epochs_done() {
        assert_eq!(time_left(Duration::from_secs(10), 2, 3), "at most 15 s left");
        assert_eq!(time_left(Duration::from_secs(10), 1, 10), "at most 1 min 40 s left");
        assert_eq!(time_left(Duration::from_secs(100), 1, 100), "at most 2 h 46 min left");
        assert_eq!(time_left(Duration::from_secs(10), 0, 0), "at most 0 s left");
    }

    #[test]
    fn the_bar_shows_epoch_cost_errors_and_time() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
        let terminal = InMemoryTerm::new(4, 120);
        let bar = bar(10, 100, 0);
        bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let mut progress =
            Progress { display: Display::Bar(bar), epochs: 10, first_epoch: 0, started: Instant::now() };
        progress.advance(300);
        progress.epoch(&epoch());
        progress.finish();
        let shown = terminal.contents();
        for part in ["epoch 3/10 [=======>", "cost 0.34568  valid 12.46 %  test 12.09 %", "left"] {
            assert!(shown.contains(part), "{part:?} in {shown:?}");
        }
    }
}
