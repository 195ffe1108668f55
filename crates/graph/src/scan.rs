//! Scans in formulas: Theano's `scan`, as an operator whose body is a graph.
//!
//! [`Scan`] says what a scan runs over, [`Scan::run`] calls a closure once to learn what a step computes, and
//! [`Scanned`] has the results. Everything is brought to one form here, so that no pass knows more than that: taps of a
//! sequence are aligned slices of it, a carry with several taps is several carries that pass their values on, and
//! reading backwards is a reversed sequence. What the closure mentions of outside is captured; the largest expressions
//! that do not depend on the step are, so that they are computed once.
//!
//! Random draws made inside the closure advance from step to step: their counters become carries, whose last values are
//! the counters' default updates. Deliberately absent: sequences that are read up to the shortest; lengths that differ
//! are an error, as a forgotten slice is the likelier reason.
//!
//! ```
//! use hypatia_graph::scan::{Next, Scan};
//! use hypatia_graph::tensor::{matrix, vector};
//!
//! // A recurrent layer: h[t] = tanh(x[t] + h[t - 1] . w), with rows for every step.
//! let (x, h0, w) = (matrix::<f32>("x"), vector::<f32>("h0"), matrix::<f32>("w"));
//! let hidden = Scan::new()
//!     .sequence(&x)
//!     .carry(&h0)
//!     .run(|step| Next::new().carry((&step.sequences[0] + step.carries[0].dot(&w)).tanh()));
//! assert_eq!(hidden.carries[0].ty().to_string(), "f32[?, ?]");
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::body::Body;
use crate::collect::key_of;
use crate::compose::{Size, squeeze_axes};
use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::DType;
use crate::graph::{Graph, NodeId, Operands};
use crate::index::Index;
use crate::leaf::{Leaf, LeafKind, fresh_leaf_id};
use crate::made::{self, Made};
use crate::op::{self, Backward, Dim, LeafId, Op, ScanResult};
use crate::shape::{Axes, Extent, TensorType};
use crate::tensor::{Shared, Tensor, build, build_plainly, faulty};
use crate::text::shown::Few;

/// How far the taps of a carry reach back at most: each lag is a value that the scan keeps.
const MOST_LAGS: i64 = 1 << 12;

/// A scan being described: what it runs over and what it keeps.
#[derive(Clone, Default)]
pub struct Scan {
    sequences: Vec<Sequence>,
    carries: Vec<Carry>,
    steps: Option<Size>,
    backwards: bool,
    backward: Backward,
}

#[derive(Clone, Debug)]
struct Sequence {
    values: Tensor,
    taps: Vec<i64>,
}

#[derive(Clone, Debug)]
struct Carry {
    initial: Tensor,
    /// With taps, `initial` has a leading axis of past values, oldest first.
    taps: Option<Vec<i64>>,
}

/// What a step sees.
#[derive(Clone)]
pub struct ScanStep {
    /// The elements of the sequences: all taps of the first, then of the second, and so on.
    pub sequences: Vec<Tensor>,
    /// The values that the carries have before the step: all taps of the first, then of the second, and so on.
    pub carries: Vec<Tensor>,
}

/// What a step gives.
#[derive(Clone, Default)]
pub struct Next {
    carries: Vec<Tensor>,
    outputs: Vec<Tensor>,
    until: Option<Tensor>,
    updates: Vec<(Shared, Tensor)>,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("sequences", &Few(&self.sequences))
            .field("carries", &Few(&self.carries))
            .field("steps", &self.steps)
            .field("backwards", &self.backwards)
            .field("backward", &self.backward)
            .finish()
    }
}

impl fmt::Debug for ScanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanStep")
            .field("sequences", &Few(&self.sequences))
            .field("carries", &Few(&self.carries))
            .finish()
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("carries", &Few(&self.carries))
            .field("outputs", &Few(&self.outputs))
            .field("until", &self.until)
            .field("updates", &Few(&self.updates))
            .finish()
    }
}

impl fmt::Debug for Scanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanned")
            .field("carries", &Few(&self.carries))
            .field("last", &Few(&self.last))
            .field("outputs", &Few(&self.outputs))
            .field("updates", &Few(&self.updates))
            .field("steps", &self.steps)
            .finish()
    }
}

impl Next {
    /// Nothing.
    pub fn new() -> Next {
        Next::default()
    }

    /// Adds the next value of a carry, in the order in which the carries were given; it has the carry's type.
    #[track_caller]
    pub fn carry(mut self, next: impl Into<Tensor>) -> Next {
        self.carries.push(next.into());
        self
    }

    /// Adds a value that is stacked over the steps.
    #[track_caller]
    pub fn output(mut self, output: impl Into<Tensor>) -> Next {
        self.outputs.push(output.into().settled());
        self
    }

    /// Ends the scan with the step that meets the condition, a `bool` scalar.
    ///
    /// How many rows the results then have is known only when the scan has run. Reductions count the rows made, `[-1]` is
    /// the last of them, and a function returns no others; what needs their number before is an error. See
    /// [`Tensor::padded`] for as many rows as the scan may make steps.
    #[track_caller]
    pub fn until(mut self, condition: impl Into<Tensor>) -> Next {
        self.until = Some(condition.into());
        self
    }

    /// Gives a shared variable a new value after each step; the step reads the one of the step before.
    #[track_caller]
    pub fn update(mut self, shared: &Shared, next: impl Into<Tensor>) -> Next {
        self.updates.push((shared.clone(), next.into()));
        self
    }
}

/// The results of a scan.
#[derive(Clone)]
#[must_use = "a scan is only made where its results are used, and its updates must be given to the function"]
pub struct Scanned {
    /// For each carry its value after every step made, `[steps, ..]`.
    pub carries: Vec<Tensor>,
    /// For each carry its value after the last step; the initial one (with taps the newest) where no step is made.
    pub last: Vec<Tensor>,
    /// For each output its value in every step made, `[steps, ..]`.
    pub outputs: Vec<Tensor>,
    /// The shared variables that the step updates with their values after the scan, for the updates of the function.
    pub updates: Vec<(Shared, Tensor)>,
    /// `i64[]`: the number of steps made; the number asked for unless there is a condition to end at.
    pub steps: Tensor,
}

impl Scan {
    /// A scan over nothing.
    pub fn new() -> Scan {
        Scan::default()
    }

    /// Adds a sequence: step `t` sees `values[t]`.
    #[track_caller]
    pub fn sequence(self, values: impl Into<Tensor>) -> Scan {
        self.sequence_taps(values, &[0])
    }

    /// Adds a sequence of which step `t` sees `values[t + tap]` for every tap, moved so that the first step sees no
    /// element before the first and the last none behind the last.
    #[track_caller]
    pub fn sequence_taps(mut self, values: impl Into<Tensor>, taps: &[i64]) -> Scan {
        self.sequences.push(Sequence { values: values.into().settled(), taps: taps.to_vec() });
        self
    }

    /// Adds a carry: a value that each step computes from that of the step before, `initial` at first.
    #[track_caller]
    pub fn carry(mut self, initial: impl Into<Tensor>) -> Scan {
        self.carries.push(Carry { initial: initial.into().settled(), taps: None });
        self
    }

    /// Adds a carry of which step `t` sees the values of the steps `t + tap`, for negative taps. `initial` holds as many
    /// values along its leading axis as the furthest tap reaches back, oldest first.
    #[track_caller]
    pub fn carry_taps(mut self, initial: impl Into<Tensor>, taps: &[i64]) -> Scan {
        self.carries.push(Carry { initial: initial.into().settled(), taps: Some(taps.to_vec()) });
        self
    }

    /// The number of steps, at most if the step has a condition to end at. Of sequences that many elements are read. Left
    /// out, it is the length of the sequences.
    pub fn steps(mut self, steps: impl Into<Size>) -> Scan {
        self.steps = Some(steps.into());
        self
    }

    /// Reads the sequences from their last elements to their first. Results are in the order of the steps.
    pub fn go_backwards(mut self) -> Scan {
        self.backwards = true;
        self
    }

    /// Lets gradients flow through the last steps only.
    pub fn truncate_gradient(mut self, steps: u32) -> Scan {
        self.backward.truncate = Some(steps);
        self
    }

    /// Keeps only every so many steps for the gradient and makes those between again: memory by the square root of the
    /// steps, for one more run of the scan.
    pub fn checkpointed(mut self) -> Scan {
        self.backward.checkpointed = true;
        self
    }

    /// The scan with that step. The closure is called once, here.
    #[track_caller]
    pub fn run(&self, step: impl FnOnce(&ScanStep) -> Next) -> Scanned {
        let site = Location::caller();
        let mut faults = Vec::new();
        let (sequences, steps) = self.aligned(&mut faults, site);
        let initial = self.initial(&mut faults, site);
        let born = fresh_leaf_id();
        let element = |values: &Tensor| {
            let mut ty = values.ty().clone();
            if ty.rank() > 0 {
                ty.shape.remove(0);
            }
            leaf(values.name(), ty, LeafKind::Input, site)
        };
        let elements: Vec<Tensor> = sequences.iter().map(element).collect();
        // Of each carry those of all lags, newest first.
        let kept = |values: &Vec<Tensor>| -> Vec<Tensor> {
            values.iter().map(|x| leaf(x.name(), x.ty().clone(), LeafKind::Carry, site)).collect()
        };
        let kept: Vec<Vec<Tensor>> = initial.iter().map(kept).collect();
        let seen = |(carry, lags): (&Carry, &Vec<Tensor>)| -> Vec<Tensor> {
            let taps = carry.taps.as_deref().unwrap_or(&[-1]);
            taps.iter().filter_map(|tap| lags.get(usize::try_from(-tap - 1).ok()?).cloned()).collect()
        };
        let seen: Vec<Tensor> = self.carries.iter().zip(&kept).flat_map(seen).collect();
        let next = step(&ScanStep { sequences: elements.clone(), carries: seen });

        let mut carries = Vec::new();
        if next.carries.len() != self.carries.len() {
            faults.push(Diagnostic::new(format!(
                "a step of a scan with {} carries gives the next values of {}",
                self.carries.len(),
                next.carries.len()
            )));
        }
        let mut heads = Vec::new();
        for ((lags, initial), next) in kept.iter().zip(&initial).zip(&next.carries) {
            let fault = next.number_fault(lags[0].dtype(), "the next value of a carry");
            faults.extend(fault.map(|fault| fault.at(Some(next.site()))));
            let next = if next.is_weak() { next.cast(lags[0].dtype()) } else { next.clone() };
            faults.extend(check_next(&lags[0], &initial[0], &next));
            heads.push(carries.len());
            let passed = std::iter::once(&next).chain(lags);
            carries.extend(lags.iter().zip(initial).zip(passed).map(|((lag, initial), next)| Carried {
                before: lag.clone(),
                initial: initial.clone(),
                next: next.clone(),
                of: None,
            }));
        }
        for (shared, next) in &next.updates {
            let next = if next.dtype().is_float() { next.cast(shared.dtype()) } else { next.clone() };
            faults.extend(check_next(shared, shared, &next));
            let (before, initial) = (Tensor::from(shared), Tensor::from(shared));
            carries.push(Carried { before, initial, next, of: Some(shared.clone()) });
        }
        if let Some(until) = next.until.as_ref().filter(|c| c.rank() != 0 || c.dtype() != DType::Bool) {
            faults.push(
                Diagnostic::new("the condition to end a scan at is a bool scalar")
                    .at(Some(until.site()))
                    .with("found", until.ty().to_string(), Some(until.site())),
            );
        }
        let given = next.carries.iter().chain(&next.outputs).chain(&next.until);
        let given = given.chain(next.updates.iter().map(|(_, next)| next));
        faults.extend(given.filter(|x| x.made().is_some()).map(|x| made::fault("as what a step gives", x)));
        let outputs: Vec<Tensor> =
            heads.iter().map(|&head| carries[head].next.clone()).chain(next.outputs).collect();
        let updates = carries.len() - next.updates.len()..carries.len();
        let gathered = Gathered::new(&elements, carries, outputs, next.until, born);
        faults.extend(gathered.fault.clone());
        self.results(&sequences, &steps, gathered, faults, (self.carries.len(), &heads, updates), site)
    }

    fn results(
        &self,
        sequences: &[Tensor],
        steps: &Tensor,
        gathered: Gathered,
        faults: Vec<Diagnostic>,
        (carries, heads, updates): (usize, &[usize], std::ops::Range<usize>),
        site: Site,
    ) -> Scanned {
        let known = if let Op::Literal(n) = steps.0.op { n.to_i64() } else { None };
        let dim = known.and_then(|n| usize::try_from(n).ok()).map_or(Dim::Operand, Dim::Known);
        let mut operands: SmallVec<[Tensor; 2]> = sequences.iter().cloned().collect();
        operands.extend(gathered.captured.iter().cloned());
        operands.extend(gathered.carries.iter().map(|carry| carry.initial.clone()));
        if dim == Dim::Operand {
            operands.push(steps.clone());
        }
        let rows = gathered.body.rows().len();
        let body = Arc::new(gathered.body);
        let fault = faults.into_iter().next();
        let broken = fault.map(|fault| {
            let fault = if fault.at.is_none() { fault.at(Some(site)) } else { fault };
            faulty(fault, operands.clone(), TensorType::scalar(DType::F32), site)
        });
        let result = |result: ScanResult| match &broken {
            // One message is enough: the results only carry the poison on.
            Some(broken) => build(Op::StopGradient, smallvec![broken.clone()], site),
            None => {
                let scan = op::Scan { body: body.clone(), steps: dim, result, backward: self.backward };
                build(Op::Scan(Box::new(scan)), operands.clone(), site)
            }
        };
        let made = if body.until { result(ScanResult::Steps) } else { steps.clone() };
        // Of at most one step it is known how many are made.
        let may_end = body.until && broken.is_none() && !matches!(dim, Dim::Known(0 | 1));
        let row = |output: usize| {
            let row = result(ScanResult::Rows(output as u16));
            if !may_end {
                return row;
            }
            build_plainly(row.0.op.clone(), row.0.operands.clone(), Some(Made::of_steps(&made)), site)
        };
        let last = |carry: usize| result(ScanResult::Last(carry as u16));
        if broken.is_none() {
            let drawn = || gathered.carries.iter().enumerate().skip(updates.end);
            let counters: Vec<Shared> = drawn().filter_map(|(_, carry)| carry.of.clone()).collect();
            for (index, carry) in drawn() {
                if let Some(counter) = &carry.of {
                    counter.set_default_update_among(last(index), &counters);
                }
            }
        }
        let updates =
            updates.filter_map(|carry| Some((gathered.carries[carry].of.clone()?, last(carry)))).collect();
        Scanned {
            carries: (0..carries).map(row).collect(),
            last: (0..carries).map(|carry| last(heads.get(carry).copied().unwrap_or(0))).collect(),
            outputs: (heads.len()..rows.max(heads.len())).map(row).collect(),
            updates,
            steps: made.clone(),
        }
    }

    /// A sequence for each tap, all of which begin with the first step, and the number of steps.
    fn aligned(&self, faults: &mut Vec<Diagnostic>, site: Site) -> (Vec<Tensor>, Tensor) {
        let range = |start: Option<Size>, stop: Option<Size>, step: i64| Index::Range { start, stop, step };
        let mut aligned = Vec::new();
        for Sequence { values, taps } in &self.sequences {
            let first = taps.iter().copied().min().unwrap_or(0).min(0);
            let last = taps.iter().copied().max().unwrap_or(0).max(0);
            if values.rank() == 0 {
                faults.push(Diagnostic::new("a sequence of a scan wants a leading axis to run along").with(
                    "sequence",
                    describe(values),
                    Some(values.site()),
                ));
            }
            for tap in taps {
                if values.rank() == 0 {
                    aligned.push(values.clone());
                    continue;
                }
                let (ahead, behind) = (tap - first, last - tap);
                let start = (ahead > 0).then(|| Size::from(ahead));
                let stop = (behind > 0).then(|| Size::from(-behind));
                let mut part = values.clone();
                if start.is_some() || stop.is_some() {
                    part = part.index_at(&[range(start, stop, 1)], site);
                }
                if self.backwards {
                    part = part.index_at(&[range(None, None, -1)], site);
                }
                aligned.push(part);
            }
        }
        let steps = match (&self.steps, aligned.first()) {
            (Some(Size::Number(n)), _) => Tensor::from(*n).settled(),
            (Some(Size::Tensor(n)), _) => n.settled(),
            (None, Some(sequence)) if sequence.rank() > 0 => return (aligned.clone(), sequence.extent(0)),
            (None, _) => {
                if self.sequences.is_empty() {
                    faults.push(
                        Diagnostic::new("a scan without sequences needs a number of steps")
                            .hint("give it with `.steps(n)`"),
                    );
                }
                Tensor::from(0).settled()
            }
        };
        if steps.rank() != 0 || !steps.dtype().is_int() {
            faults.push(Diagnostic::new("the number of steps of a scan is an integer scalar").with(
                "found",
                describe(&steps),
                Some(steps.site()),
            ));
            return (aligned, Tensor::from(0).settled());
        }
        let steps = steps.cast(DType::I64);
        if let Op::Literal(n) = steps.0.op
            && let Some(n) = n.to_i64().filter(|n| *n < 0)
        {
            faults.push(Diagnostic::new(format!("a scan of {n} steps")).at(Some(site)));
            return (aligned, steps);
        }
        let first = |values: Tensor| {
            let exact = matches!((&steps.0.op, values.ty().shape.first()),
                (Op::Literal(n), Some(Extent::Known(length))) if n.to_i64() == Some(*length as i64));
            if exact || values.rank() == 0 {
                values
            } else {
                values.index_at(&[range(None, Some(Size::from(&steps)), 1)], site)
            }
        };
        (aligned.into_iter().map(first).collect(), steps)
    }

    /// The initial values of each carry, that of the step before the first one first.
    fn initial(&self, faults: &mut Vec<Diagnostic>, site: Site) -> Vec<Vec<Tensor>> {
        let mut initial = Vec::new();
        for Carry { initial: values, taps } in &self.carries {
            let Some(taps) = taps else {
                initial.push(vec![values.clone()]);
                continue;
            };
            let lags = taps.iter().map(|tap| tap.saturating_neg()).max().unwrap_or(0);
            let distinct: HashSet<i64> = taps.iter().copied().collect();
            let length = values.ty().shape.first().copied();
            let fault = if taps.iter().any(|tap| *tap >= 0) || taps.is_empty() || distinct.len() < taps.len()
            {
                Some(Diagnostic::new(format!(
                    "the taps of a carry are negative and distinct, found {taps:?}"
                )))
            } else if lags > MOST_LAGS {
                Some(Diagnostic::new(format!(
                    "the taps of a carry reach back {MOST_LAGS} steps at most, found {taps:?}"
                )))
            } else if length.is_none_or(|n| n.unify(Extent::Known(lags as usize)).is_none()) {
                Some(
                    Diagnostic::new(format!(
                        "a carry with taps {taps:?} begins with {lags} values along the leading axis"
                    ))
                    .with("found", describe(values), Some(values.site())),
                )
            } else {
                None
            };
            if let Some(fault) = fault {
                faults.push(fault.at(Some(site)));
                initial.push(vec![values.clone()]);
                continue;
            }
            let lags = lags as usize;
            let value = |at: usize| {
                let part = values.part_of(0, at..at + 1, lags, site);
                squeeze_axes(&part, Axes::one(0), site)
            };
            initial.push((0..lags).rev().map(value).collect());
        }
        initial
    }
}

/// What is wrong with the next value of a carry.
fn check_next(before: &Tensor, initial: &Tensor, next: &Tensor) -> Option<Diagnostic> {
    if before.ty().accepts(next.ty()) || next.0.poisoned {
        return None;
    }
    let fault = Diagnostic::new("a step of a scan changes the type of a carry")
        .at(Some(next.site()))
        .with("expected", describe(before), Some(initial.site()))
        .with("found", describe(next), Some(next.site()));
    Some(if before.dtype() != next.dtype() && before.rank() == next.rank() {
        fault.hint(format!("convert where you mean to: `.cast(DType::{:?})`", before.dtype()))
    } else {
        fault
    })
}

fn describe(tensor: &Tensor) -> String {
    match tensor.name() {
        Some(name) => format!("{} `{name}`", tensor.ty()),
        None => tensor.ty().to_string(),
    }
}

fn leaf(name: Option<&str>, ty: TensorType, kind: LeafKind, site: Site) -> Tensor {
    let id = fresh_leaf_id();
    Tensor::of_leaf(&Arc::new(Leaf { id, name: name.map(Arc::from), ty, site: Some(site), kind }))
}

/// A value that goes from step to step.
struct Carried {
    /// What stands for it in the step.
    before: Tensor,
    initial: Tensor,
    next: Tensor,
    /// The shared variable that takes its last value.
    of: Option<Shared>,
}

/// A step as a graph.
struct Gathered {
    body: Body,
    captured: Vec<Tensor>,
    /// Those given, then the counters of the draws made in the step.
    carries: Vec<Carried>,
    /// What is wrong with an expression of the step.
    fault: Option<Diagnostic>,
}

impl Gathered {
    /// Leaves younger than `born` were made in the step.
    fn new(
        elements: &[Tensor],
        mut carries: Vec<Carried>,
        outputs: Vec<Tensor>,
        until: Option<Tensor>,
        born: LeafId,
    ) -> Gathered {
        let given: Vec<LeafId> =
            carries.iter().filter_map(|carry| carry.of.as_ref()).map(|shared| shared.leaf().id).collect();
        let mut inside = Inside::new(elements.iter().chain(carries.iter().map(|carry| &carry.before)));
        loop {
            let roots = outputs.iter().chain(&until).chain(carries.iter().map(|carry| &carry.next));
            let order = reached(roots);
            let known =
                |leaf: &Leaf| carries.iter().any(|c| c.before.leaf().is_some_and(|own| own.id == leaf.id));
            let counter = order.iter().find_map(|tensor| {
                let leaf = tensor.leaf().filter(|leaf| leaf.id > born && !known(leaf))?;
                let shared = Shared::of_leaf(leaf)?;
                Some((shared.default_update()?, shared))
            });
            if let Some((next, shared)) = counter {
                let (before, initial) = (Tensor::from(&shared), Tensor::from(&shared));
                inside.add(&before);
                carries.push(Carried { before, initial, next, of: Some(shared) });
                continue;
            }
            // An expression that a gradient taken in the step is for stands in the step, as does what is made of it.
            let pins = inside.spread(&order);
            if pins.iter().all(|pin| !inside.add(pin)) {
                let order = order.iter().filter(|tensor| inside.holds(tensor)).cloned().collect::<Vec<_>>();
                return Gathered::build(elements, carries, &outputs, until.as_ref(), &order, &inside, &given);
            }
        }
    }

    fn build(
        elements: &[Tensor],
        carries: Vec<Carried>,
        outputs: &[Tensor],
        until: Option<&Tensor>,
        order: &[Tensor],
        inside: &Inside,
        given: &[LeafId],
    ) -> Gathered {
        let mut builder = Builder { graph: Graph::new(), placed: HashMap::new(), captured: Vec::new() };
        for element in elements {
            builder.place_parameter(element, element);
        }
        // A shared variable stands in the body as a carry of its own: graphs know a leaf by one kind.
        let mut updates = Vec::new();
        for carry in &carries {
            let before = match &carry.of {
                Some(shared) => {
                    leaf(Some(shared.name()), shared.ty().clone(), LeafKind::Carry, carry.before.site())
                }
                None => carry.before.clone(),
            };
            updates.extend(before.leaf().map(|leaf| leaf.id));
            builder.place_parameter(&carry.before, &before);
        }
        let mut fault = None;
        for tensor in order {
            if fault.is_none() {
                fault = tensor.fault().cloned().or_else(|| forgotten(tensor, given, &carries));
            }
            if builder.placed.contains_key(&key_of(tensor)) {
                continue;
            }
            if inside.is_captured(tensor) {
                builder.capture(tensor);
                continue;
            }
            let operands: Operands = tensor.0.operands.iter().map(|operand| builder.node(operand)).collect();
            let id = builder.graph.add(tensor.0.op.clone(), &operands, Some(tensor.site()));
            if let Some(name) = tensor.0.name.get() {
                builder.graph.set_name(id, name.clone());
            }
            builder.placed.insert(key_of(tensor), id);
        }
        let outputs: Vec<NodeId> = outputs.iter().chain(until).map(|output| builder.node(output)).collect();
        let next: Vec<NodeId> = carries.iter().map(|carry| builder.node(&carry.next)).collect();
        let Builder { mut graph, captured, .. } = builder;
        graph.outputs = outputs;
        graph.updates = updates.into_iter().zip(next).collect();
        let mut body = Body::new(graph, elements.len(), until.is_some());
        let of = carries.iter().filter_map(|carry| carry.of.as_ref());
        body.updated =
            of.filter(|shared| given.contains(&shared.leaf().id)).map(|s| s.leaf().clone()).collect();
        Gathered { body, captured, carries, fault }
    }
}

/// What is wrong with a scan in a scan whose updates do not go on.
fn forgotten(tensor: &Tensor, given: &[LeafId], carries: &[Carried]) -> Option<Diagnostic> {
    let Op::Scan(scan) = &tensor.0.op else { return None };
    let leaf = scan.body.updated.iter().find(|leaf| !given.contains(&leaf.id))?;
    debug_assert!(carries.len() >= given.len(), "updates are carries");
    Some(
        Diagnostic::new(format!("a scan in a scan updates {}, and the outer step does not", leaf.label()))
            .at(Some(tensor.site()))
            .with("variable", leaf.ty.to_string(), leaf.site)
            .hint("give the inner scan's `updates` on with `Next::update`"),
    )
}

/// The body being built.
struct Builder {
    graph: Graph,
    placed: HashMap<usize, NodeId>,
    captured: Vec<Tensor>,
}

impl Builder {
    /// Puts the leaf of `parameter` in the place of an expression.
    fn place_parameter(&mut self, expression: &Tensor, parameter: &Tensor) {
        let Some(leaf) = parameter.leaf() else { return };
        let id = self.graph.add_leaf(leaf);
        if let LeafKind::Input = leaf.kind {
            self.graph.inputs.push(leaf.id);
        }
        self.placed.insert(key_of(expression), id);
    }

    /// The node of an expression; one of outside is captured, a number is written down.
    fn node(&mut self, tensor: &Tensor) -> NodeId {
        if let Some(id) = self.placed.get(&key_of(tensor)) {
            return *id;
        }
        if let Op::Literal(_) = tensor.0.op {
            let id = self.graph.add(tensor.0.op.clone(), &[], Some(tensor.site()));
            self.placed.insert(key_of(tensor), id);
            return id;
        }
        self.capture(tensor)
    }

    fn capture(&mut self, tensor: &Tensor) -> NodeId {
        let parameter = leaf(tensor.name(), tensor.ty().clone(), LeafKind::Input, tensor.site());
        self.place_parameter(tensor, &parameter);
        self.captured.push(tensor.clone());
        self.placed[&key_of(tensor)]
    }
}

/// Which expressions stand in a step.
struct Inside {
    /// Parameters of the step and what gradients taken in it are for.
    sources: HashSet<usize>,
    /// What depends on a source through its operands.
    dependent: HashSet<usize>,
}

impl Inside {
    fn new<'t>(parameters: impl Iterator<Item = &'t Tensor>) -> Inside {
        Inside { sources: parameters.map(key_of).collect(), dependent: HashSet::new() }
    }

    /// Adds a source; whether it is new.
    fn add(&mut self, tensor: &Tensor) -> bool {
        self.sources.insert(key_of(tensor))
    }

    fn holds(&self, tensor: &Tensor) -> bool {
        let key = key_of(tensor);
        self.sources.contains(&key) || self.dependent.contains(&key)
    }

    /// Whether an expression is a source that nothing else puts into the step.
    fn is_captured(&self, tensor: &Tensor) -> bool {
        !self.dependent.contains(&key_of(tensor))
    }

    /// Marks what depends on the sources, and gives what the gradients in the step are for.
    fn spread(&mut self, order: &[Tensor]) -> Vec<Tensor> {
        self.dependent.clear();
        let mut pins = Vec::new();
        for tensor in order {
            if tensor.0.operands.iter().any(|operand| self.holds(operand)) {
                self.dependent.insert(key_of(tensor));
                if let Op::Grad(grad) = &tensor.0.op {
                    let first = usize::from(grad.has_cost);
                    pins.extend(tensor.0.operands.iter().skip(first).cloned());
                }
            }
        }
        pins
    }
}

/// Everything that the roots are made of, operands before users.
fn reached<'t>(roots: impl Iterator<Item = &'t Tensor>) -> Vec<Tensor> {
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    let mut pending: Vec<(Tensor, bool)> = roots.map(|root| (root.clone(), false)).collect();
    pending.reverse();
    while let Some((tensor, done)) = pending.pop() {
        if done {
            order.push(tensor);
        } else if seen.insert(key_of(&tensor)) {
            pending.push((tensor.clone(), true));
            pending.extend(tensor.0.operands.iter().rev().map(|operand| (operand.clone(), false)));
        }
    }
    order
}

/// The values of a function at every element of sequences of one length, stacked.
#[track_caller]
pub fn map(sequences: &[&Tensor], f: impl FnOnce(&[Tensor]) -> Tensor) -> Tensor {
    let scan = sequences.iter().fold(Scan::new(), |scan, sequence| scan.sequence(*sequence));
    let Scanned { outputs, .. } = scan.run(|step| Next::new().output(f(&step.sequences)));
    outputs[0].clone()
}

/// The value of `f(f(f(initial, x[0]), x[1]), x[2])` and so on, over sequences of one length.
#[track_caller]
pub fn foldl(
    initial: impl Into<Tensor>,
    sequences: &[&Tensor],
    f: impl FnOnce(&Tensor, &[Tensor]) -> Tensor,
) -> Tensor {
    fold(Scan::new(), initial.into(), sequences, f)
}

/// As [`foldl`], from the last elements to the first.
#[track_caller]
pub fn foldr(
    initial: impl Into<Tensor>,
    sequences: &[&Tensor],
    f: impl FnOnce(&Tensor, &[Tensor]) -> Tensor,
) -> Tensor {
    fold(Scan::new().go_backwards(), initial.into(), sequences, f)
}

#[track_caller]
fn fold(
    scan: Scan,
    initial: Tensor,
    sequences: &[&Tensor],
    f: impl FnOnce(&Tensor, &[Tensor]) -> Tensor,
) -> Tensor {
    let scan = sequences.iter().fold(scan.carry(initial), |scan, sequence| scan.sequence(*sequence));
    let Scanned { last, .. } = scan.run(|step| Next::new().carry(f(&step.carries[0], &step.sequences)));
    last[0].clone()
}

/// The elements of a sequence joined from the first on: `f(f(x[0], x[1]), x[2])` and so on. There is at least one.
#[track_caller]
pub fn reduce(sequence: &Tensor, f: impl FnOnce(&Tensor, &Tensor) -> Tensor) -> Tensor {
    let rest = sequence.index([Index::Range { start: Some(Size::from(1)), stop: None, step: 1 }]);
    foldl(sequence.index([Index::At(Size::from(0))]), &[&rest], |joined, elements| f(joined, &elements[0]))
}

#[cfg(test)]
mod tests;
