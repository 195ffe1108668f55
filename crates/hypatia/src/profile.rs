//! What the kernels of a function cost.

use std::fmt;
use std::time::Duration;

use hypatia_graph::Diagnostic;
use hypatia_graph::text::Few;
use hypatia_rewrite::Stop;

use crate::cache::Counts;

/// What the kernels of a function cost.
#[derive(Clone)]
pub struct Profile {
    /// One row a kernel, in the order in which they run; a scan comes before the kernels of its body.
    pub rows: Vec<ProfileRow>,
    /// What was compiled for the shapes that the function has met.
    pub executables: Counts,
    /// Why simplification stopped.
    pub stop: Stop,
    /// As [`Function::warnings`](crate::Function::warnings).
    pub warnings: Vec<Diagnostic>,
}

/// What a kernel costs.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// The number of scans around it; the time of a scan holds that of its kernels.
    pub depth: usize,
    /// What it computes.
    pub label: String,
    /// How it is carried out.
    pub how: String,
    /// The user's line.
    pub site: String,
    /// Time since profiling began.
    pub time: Duration,
    /// Arithmetic operations of one run.
    pub operations: u64,
    /// Bytes of the elements that one run touches.
    pub bytes: u64,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("rows", &Few(&self.rows))
            .field("executables", &self.executables)
            .field("stop", &self.stop)
            .field("warnings", &Few(&self.warnings))
            .finish()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: Duration = self.rows.iter().filter(|row| row.depth == 0).map(|row| row.time).sum();
        writeln!(f, "{:>6} {:>10} {:>12} {:>12}  kernel", "share", "time/ms", "operations", "bytes")?;
        for row in &self.rows {
            let share = 100.0 * row.time.as_secs_f64() / total.as_secs_f64().max(1e-12);
            let time = row.time.as_secs_f64() * 1e3;
            writeln!(
                f,
                "{share:5.1}% {time:10.3} {:12} {:12}  {:indent$}{} ({}) {}",
                row.operations,
                row.bytes,
                "",
                row.label,
                row.how,
                row.site,
                indent = 2 * row.depth
            )?;
        }
        if self.stop != Stop::Saturated {
            writeln!(f, "simplification stopped early ({})", self.stop)?;
        }
        for warning in &self.warnings {
            writeln!(f, "{warning}")?;
        }
        writeln!(f, "{}", self.executables)
    }
}
