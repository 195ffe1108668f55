//! What a node that is one result of a scan says of the scan.

use std::sync::Arc;

use super::Dim;
use crate::body::Body;

/// One result of a scan.
///
/// The operands are those of the body: a value for each of its inputs (for a sequence, one with a leading axis over the
/// steps), then the initial value of each carry, then the steps where they are [`Dim::Operand`]. The results of one
/// scan are the nodes with equal operands and equal attributes but for `result`; whoever executes them makes the scan
/// once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Scan {
    /// What a step computes.
    pub body: Arc<Body>,
    /// How many steps are made, at most if the body has a condition to end at.
    pub steps: Dim,
    /// Which of the scan's results this node is.
    pub result: ScanResult,
    /// How its gradient is taken.
    pub backward: Backward,
}

/// What a scan gives.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScanResult {
    /// The values of an output of the body, stacked along a new leading axis of extent `steps`. Where the scan ended early
    /// the last row made is repeated, which expressions leave out ([`crate::made`]); rows of a scan that made no step do not exist.
    Rows(u16),
    /// The value of a carry after the last step; the initial one where no step was made.
    Last(u16),
    /// `i64[]`: the number of steps made.
    Steps,
}

/// How the gradient of a scan is taken.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Backward {
    /// The number of last steps through which cotangents flow; `None` for all. Through earlier ones nothing flows, so
    /// the initial values get none unless there are fewer steps.
    pub truncate: Option<u32>,
    /// Whether only every so many steps are kept for it and those between are made again: memory by the square root of
    /// the steps.
    pub checkpointed: bool,
}
