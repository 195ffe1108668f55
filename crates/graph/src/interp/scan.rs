//! Runs scans: the graph of the body, step after step.
//!
//! Only what the wanted results depend on is computed, as in a graph that is no body. Rows and carries keep the extents
//! that the first step gave them. A scan that makes no step has rows of no step, whose extents are found by making the
//! body concrete for the types of the operands.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{Evaluate, Run, check_size, infer, resolve, type_of};
use crate::array::{Array, Extents};
use crate::body::Body;
use crate::diagnostic::Diagnostic;
use crate::dtype::DType;
use crate::graph::NodeId;
use crate::op::{Dim, LeafId, Op, Scan, ScanResult};
use crate::shape::TensorType;
use crate::specialise::{Arguments, Unspecialised, specialise};

/// The values of results of a scan, in the order in which they are wanted.
///
/// An error says which operand does not fit the body, that the number of steps is negative, that a row or a carry has
/// not the type it had before, or what went wrong in a step.
pub(super) fn run(
    scan: &Scan,
    operands: &[&Array],
    wanted: &[ScanResult],
    evaluate: Evaluate<'_>,
) -> Result<Vec<Array>, Diagnostic> {
    let body = &*scan.body;
    let types: Vec<TensorType> = operands.iter().map(|x| type_of(x)).collect();
    for result in wanted {
        let op = Op::Scan(Box::new(Scan { result: *result, ..scan.clone() }));
        infer(&op, &types.iter().collect::<Vec<_>>())?;
        let (op, values) = resolve(&op, operands)?;
        infer(&op, &types[..values.len()].iter().collect::<Vec<_>>())?;
    }
    let (op, values) = resolve(&Op::Scan(Box::new(scan.clone())), operands)?;
    let steps = if let Op::Scan(scan) = &op
        && let Dim::Known(steps) = scan.steps
    {
        steps
    } else {
        return Err(Diagnostic::new("the number of steps of a scan is not known when it is run"));
    };
    let (inputs, initial) = values.split_at(body.inputs());
    let (sequences, captured) = inputs.split_at(body.sequences.min(body.inputs()));
    let mut carries: Vec<Array> = initial.iter().map(|x| (*x).clone()).collect();
    let needed = Needed::of(body, wanted);
    let condition = body.condition();
    let mut rows: BTreeMap<u16, Rows> = needed.rows.iter().map(|(row, _)| (*row, Rows::default())).collect();
    let plan = Run::new(&body.graph, needed.roots());
    let mut made = 0;
    while made < steps {
        let elements = sequences.iter().map(|x| element(x, made)).collect::<Result<Vec<Array>, _>>()?;
        let inputs: Vec<&Array> = elements.iter().chain(captured.iter().copied()).collect();
        let next = {
            let old: Vec<&Array> = carries.iter().collect();
            let values = plan.values(&inputs, &old, evaluate)?;
            for (row, id) in &needed.rows {
                if let Some(rows) = rows.get_mut(row) {
                    rows.write(&op, *row, made, steps, values.of(*id)?)?;
                }
            }
            let next = needed.carries.iter().map(|(carry, id)| Ok((*carry, values.of(*id)?.clone())));
            let ends = condition
                .map(|id| values.of(id).map(|met| met.item().is_some_and(|x| x != 0.0)))
                .transpose()?;
            (next.collect::<Result<Vec<_>, Diagnostic>>()?, ends == Some(true))
        };
        made += 1;
        for (carry, value) in next.0 {
            replace(body, carry, &mut carries[carry], value)?;
        }
        if next.1 {
            break;
        }
    }
    for rows in rows.values_mut() {
        rows.repeat_last(made);
    }
    let result = |wanted: &ScanResult| match wanted {
        ScanResult::Steps => Ok(Array::scalar(made as i64)),
        ScanResult::Last(carry) => Ok(carries[usize::from(*carry)].clone()),
        ScanResult::Rows(row) => match rows.get(row).and_then(|rows| rows.stack.clone()) {
            Some(stack) => Ok(stack),
            None => no_rows(body, values, usize::from(*row)),
        },
    };
    wanted.iter().map(result).collect()
}

/// What a step must compute.
struct Needed {
    /// Rows that are wanted, and their nodes.
    rows: Vec<(u16, NodeId)>,
    condition: Option<NodeId>,
    /// Carries that something needed reads or that are wanted, and the nodes of their next values.
    carries: Vec<(usize, NodeId)>,
}

impl Needed {
    fn of(body: &Body, wanted: &[ScanResult]) -> Needed {
        let mut rows = Vec::new();
        let mut taken = vec![false; body.carries()];
        for result in wanted {
            match result {
                ScanResult::Rows(row) => {
                    rows.extend(body.rows().get(usize::from(*row)).map(|id| (*row, *id)))
                }
                ScanResult::Last(carry) => {
                    if let Some(taken) = taken.get_mut(usize::from(*carry)) {
                        *taken = true;
                    }
                }
                ScanResult::Steps => {}
            }
        }
        let places: BTreeMap<LeafId, usize> =
            body.graph.updates.iter().enumerate().map(|(place, (leaf, _))| (*leaf, place)).collect();
        let mut needed = Needed { rows, condition: body.condition(), carries: Vec::new() };
        loop {
            let next = body.graph.updates.iter().map(|(_, id)| *id).enumerate();
            needed.carries = next.filter(|(place, _)| taken[*place]).collect();
            let run = Run::new(&body.graph, needed.roots());
            let read =
                body.graph.nodes().filter(|(id, _)| run.uses[id.index()] > 0).filter_map(|(_, node)| {
                    if let Op::Leaf(leaf) = node.op { places.get(&leaf).copied() } else { None }
                });
            let mut grown = false;
            for place in read {
                grown |= !std::mem::replace(&mut taken[place], true);
            }
            if !grown {
                return needed;
            }
        }
    }

    fn roots(&self) -> impl Iterator<Item = NodeId> + '_ {
        let rows = self.rows.iter().map(|(_, id)| *id);
        rows.chain(self.condition).chain(self.carries.iter().map(|(_, id)| *id))
    }
}

/// Rows on their way to be one array.
#[derive(Default)]
struct Rows {
    stack: Option<Array>,
}

impl Rows {
    fn write(
        &mut self,
        op: &Op,
        output: u16,
        step: usize,
        steps: usize,
        row: &Array,
    ) -> Result<(), Diagnostic> {
        let stack = match &mut self.stack {
            Some(stack) => stack,
            None => {
                let shape: SmallVec<[usize; 4]> =
                    std::iter::once(steps).chain(row.shape().iter().copied()).collect();
                check_size(op, &shape, row.dtype())?;
                self.stack.insert(Array::zeros(row.dtype(), &shape)?)
            }
        };
        if stack.shape()[1..] != *row.shape() || stack.dtype() != row.dtype() {
            let before = TensorType::known(stack.dtype(), &stack.shape()[1..]);
            return Err(Diagnostic::new(format!(
                "output {output} of a scan changes its shape from step to step"
            ))
            .with("before", before.to_string(), None)
            .with(format!("step {step}"), type_of(row).to_string(), None));
        }
        let size = row.bytes().len();
        stack.bytes_mut()[step * size..(step + 1) * size].copy_from_slice(row.bytes());
        Ok(())
    }

    /// Fills the rows of steps that were not made with the last one that was.
    fn repeat_last(&mut self, made: usize) {
        let Some(stack) = &mut self.stack else { return };
        let steps = stack.shape()[0];
        let size = stack.bytes().len() / steps.max(1);
        for step in made..steps {
            stack.bytes_mut().copy_within((made - 1) * size..made * size, step * size);
        }
    }
}

/// Element `step` of a sequence.
fn element(sequence: &Array, step: usize) -> Result<Array, Diagnostic> {
    let mut element = Array::zeros(sequence.dtype(), &sequence.shape()[1..])?;
    let size = element.bytes().len();
    element.bytes_mut().copy_from_slice(&sequence.bytes()[step * size..(step + 1) * size]);
    Ok(element)
}

fn replace(body: &Body, carry: usize, old: &mut Array, new: Array) -> Result<(), Diagnostic> {
    if (old.dtype(), old.shape()) != (new.dtype(), new.shape()) {
        let (leaf, id) = body.graph.updates[carry];
        let label = body.graph.leaf(leaf).map_or_else(|| "a carry".to_string(), |leaf| leaf.label());
        let node = body.graph.node(id);
        return Err(Diagnostic::new(format!(
            "the next value of {label} of a scan has another type than the one before"
        ))
        .at(node.site)
        .with("expected", type_of(old).to_string(), None)
        .with("found", type_of(&new).to_string(), node.site));
    }
    *old = new;
    Ok(())
}

/// The rows of a scan without steps.
fn no_rows(body: &Body, values: &[&Array], row: usize) -> Result<Array, Diagnostic> {
    let mut graph = body.graph.clone();
    let mut known: BTreeMap<LeafId, i64> = BTreeMap::new();
    for (position, (leaf, value)) in body.parameters().zip(values).enumerate() {
        let in_step = usize::from(position < body.sequences);
        graph.retype_leaf(leaf, TensorType::known(value.dtype(), &value.shape()[in_step..]));
        let fixed = (body.sequences..body.inputs()).contains(&position);
        if fixed && value.rank() == 0 {
            known.extend(value.get(0).to_i64().map(|value| (leaf, value)));
        }
    }
    let concrete = specialise(&graph, &Arguments { shapes: BTreeMap::new(), values: known });
    let concrete = concrete.map_err(|reason| {
        let fault = Diagnostic::new("the extents of the rows of a scan that makes no step are not known");
        match reason {
            Unspecialised::Faults(faults) => faults
                .0
                .into_iter()
                .fold(fault, |fault, reason| fault.with("reason", reason.title, reason.at)),
            Unspecialised::Needs(_) => fault.hint("let them depend on shapes and captured integers only"),
        }
    })?;
    let ty = concrete.outputs.get(row).map(|id| concrete.ty(*id));
    let (dtype, shape): (DType, Extents) = ty
        .and_then(|ty| Some((ty.dtype, ty.extents()?)))
        .ok_or_else(|| Diagnostic::new("`scan` names a result that its body does not give"))?;
    let shape: SmallVec<[usize; 4]> = std::iter::once(0).chain(shape).collect();
    Array::zeros(dtype, &shape)
}
