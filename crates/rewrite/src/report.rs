//! What a simplification did: counts that a user can read and a test can compare.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::saturate::Stop;

/// What [`crate::simplify`] did. Equal for equal graphs, but for `time`.
#[derive(Clone, Debug)]
pub struct Report {
    /// How often each rule brought something new, by name; and how many loops each rewriting of loops changed. Bodies
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
    /// How long all took.
    pub time: Duration,
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
            time: Duration::ZERO,
        }
    }

    /// Adds what was done to the body of a loop.
    pub(crate) fn include(&mut self, body: &Report) {
        for (rule, count) in &body.rules {
            *self.rules.entry(rule).or_default() += count;
        }
        self.rounds += body.rounds;
        self.e_nodes += body.e_nodes;
        self.stop = self.stop.max(body.stop);
        self.folded += body.folded;
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
        Ok(())
    }
}
