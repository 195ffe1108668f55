//! What a simplification did: counts that a user can read and a test can compare.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hypatia_graph::diagnostic::Site;
use hypatia_graph::text::Few;
use hypatia_graph::{Diagnostic, Graph};

use crate::saturate::Stop;
use crate::scans::Description;

/// What [`crate::simplify`] did. Equal for equal graphs, but for `time`.
#[derive(Clone)]
pub struct Report {
    /// How often each rule brought something new, by name; and how many scans each rewriting of scans changed. Bodies
    /// count as part of the graph, here and below.
    pub rules: BTreeMap<&'static str, u32>,
    /// Rounds of saturation, over all partitions.
    pub rounds: usize,
    /// Nodes of the e-graphs when saturation stopped.
    pub e_nodes: usize,
    /// E-graphs that were saturated: large graphs are simplified part by part, and what is left after folding once more.
    pub partitions: usize,
    /// Why saturation stopped; of several partitions the least complete one counts.
    pub stop: Stop,
    /// Nodes of the graph before, without bodies, only those that an output or update needs.
    pub nodes_before: usize,
    /// Nodes of the graph after.
    pub nodes_after: usize,
    /// Subgraphs of constants that were computed.
    pub folded: usize,
    /// Terms that may overflow, vanish or lose digits and stayed, where the rules did not see all there was to see: they
    /// were stopped early, or what the term is made of is in another part of a graph that was cut.
    pub risky: Vec<RiskyForm>,
    /// How long all took.
    pub time: Duration,
    /// What was done to the graph, one after another, where an explanation is wanted.
    pub(crate) stages: Option<Vec<Stage>>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("rules", &self.rules.len())
            .field("rounds", &self.rounds)
            .field("stop", &self.stop)
            .field("nodes_before", &self.nodes_before)
            .field("nodes_after", &self.nodes_after)
            .field("risky", &Few(&self.risky))
            .finish_non_exhaustive()
    }
}

/// A term that stayed though it may break or lose digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RiskyForm {
    /// The name of its operator.
    pub operator: &'static str,
    /// The user's line.
    pub site: Option<Site>,
    /// What kept the rules from it.
    pub reason: Unseen,
}

/// Why rules did not see all of a formula.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unseen {
    /// Saturation stopped before the rules had nothing more to say.
    Stopped(Stop),
    /// The graph is so large that it is simplified part by part.
    Cut,
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unseen::Stopped(stop) => write!(f, "simplification stopped early ({stop})"),
            Unseen::Cut => f.write_str("the graph is simplified in parts"),
        }
    }
}

/// A part of a simplification.
#[derive(Clone)]
pub(crate) enum Stage {
    /// A rewriting of scans, and the graph after it.
    Scans(&'static Description, Graph),
    /// The rules, and the graph before them.
    Formulas(Graph),
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Scans(rewriting, _) => write!(f, "Scans({})", rewriting.name),
            Stage::Formulas(_) => f.write_str("Formulas"),
        }
    }
}

impl Report {
    pub(crate) fn new() -> Report {
        Report {
            rules: BTreeMap::new(),
            rounds: 0,
            e_nodes: 0,
            partitions: 0,
            stop: Stop::Saturated,
            nodes_before: 0,
            nodes_after: 0,
            folded: 0,
            risky: Vec::new(),
            time: Duration::ZERO,
            stages: None,
        }
    }

    /// Notes how many scans were rewritten into what the graph is now.
    pub(crate) fn note_scans(&mut self, rewriting: &'static Description, count: u32, after: &Graph) {
        *self.rules.entry(rewriting.name).or_default() += count;
        if let Some(stages) = &mut self.stages {
            stages.push(Stage::Scans(rewriting, after.clone()));
        }
    }

    /// Adds what was done to the body of a scan, or to a formula before its gradient was taken.
    pub fn include(&mut self, part: &Report) {
        for (rule, count) in &part.rules {
            *self.rules.entry(rule).or_default() += count;
        }
        self.rounds += part.rounds;
        self.e_nodes += part.e_nodes;
        self.stop = self.stop.max(part.stop);
        self.folded += part.folded;
        self.note_risky(part.risky.iter().cloned());
    }

    /// Adds risky terms, each once.
    pub(crate) fn note_risky(&mut self, risky: impl IntoIterator<Item = RiskyForm>) {
        for form in risky {
            if !self.risky.contains(&form) {
                self.risky.push(form);
            }
        }
    }

    /// What a user should know: risky terms that stayed because the rules did not see everything.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let warn = |form: &RiskyForm| {
            let title = format!("`{}` may overflow or lose digits: {}", form.operator, form.reason);
            Diagnostic::warning(title)
                .at(form.site)
                .hint("write the stable form (`log1p`, `softplus`, `logsumexp`, ...), or a smaller function")
        };
        self.risky.iter().map(warn).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} nodes became {}: {} rounds, {} e-nodes, {}{}, {} constants folded, {:.1} ms",
            self.nodes_before,
            self.nodes_after,
            self.rounds,
            self.e_nodes,
            self.stop,
            if self.partitions > 1 { format!(", {} e-graphs", self.partitions) } else { String::new() },
            self.folded,
            self.time.as_secs_f64() * 1e3
        )?;
        for (rule, count) in &self.rules {
            writeln!(f, "{count:6}  {rule}")?;
        }
        for warning in self.warnings() {
            writeln!(f, "{warning}")?;
        }
        Ok(())
    }
}
