//! Derivatives without the differentiator: dual numbers, carried forward through a graph.
//!
//! A graph is interpreted together with the directional derivative of every node. Derivatives of the elementwise
//! functions are closed forms written here from mathematics and from the conventions of the operators' documentation
//! (ties, kinks), so that the reverse rules are compared with something that shares no line with them.
//! A scan is run step by step with the tangents of its carries. Works in `f64`; a tangent that is absent is zero.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use hypatia_graph::array::row_major_strides;
use hypatia_graph::interp::evaluate_node;
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Along, Class, Dim, Scan, ScanResult, View};
use hypatia_graph::{Array, Axes, DType, Fold, Graph, LeafId, Literal, NodeId, Op, ScalarFn};

use crate::compare::leaf_value;

/// Values and tangents of all reachable nodes.
#[derive(Debug)]
pub struct Dual {
    /// The value of each node; absent for those that nothing needs.
    pub values: Vec<Option<Array>>,
    /// The tangent of each node; absent for zero.
    pub tangents: Vec<Option<Array>>,
}

/// A value and how it moves.
type Pair = (Array, Option<Array>);

/// Interprets a graph without gradients to be taken, moving the given nodes along tangents besides what moves them.
///
/// # Errors
/// What the interpreter says.
pub fn forward(graph: &Graph, inputs: &[Array], seeds: &BTreeMap<NodeId, Array>) -> Result<Dual, String> {
    forward_from(graph, &|leaf| Ok((leaf_value(graph, leaf, inputs)?, None)), seeds, Terms::Signed)
}

/// As [`forward`], with absolute values for all that is added up: the tangents are how large the terms are of which the
/// derivatives are sums, however much of them cancels. Rounding errors are in proportion to that.
///
/// # Errors
/// What the interpreter says.
pub fn forward_sizes(
    graph: &Graph,
    inputs: &[Array],
    seeds: &BTreeMap<NodeId, Array>,
) -> Result<Dual, String> {
    let seeds = seeds.iter().map(|(id, seed)| (*id, Terms::Absolute.of(seed))).collect();
    forward_from(graph, &|leaf| Ok((leaf_value(graph, leaf, inputs)?, None)), &seeds, Terms::Absolute)
}

/// What derivatives are sums of.
#[derive(Copy, Clone, PartialEq)]
enum Terms {
    /// The terms themselves.
    Signed,
    /// Their absolute values.
    Absolute,
}

impl Terms {
    fn of(self, x: &Array) -> Array {
        match self {
            Terms::Signed => x.clone(),
            Terms::Absolute => combine(x, x, |x, _| x.abs()),
        }
    }

    fn of_number(self, x: f64) -> f64 {
        if self == Terms::Absolute { x.abs() } else { x }
    }
}

fn forward_from(
    graph: &Graph,
    leaf_pair: &dyn Fn(LeafId) -> Result<Pair, String>,
    seeds: &BTreeMap<NodeId, Array>,
    terms: Terms,
) -> Result<Dual, String> {
    let live = graph.reachable();
    let mut dual = Dual { values: vec![None; graph.len()], tangents: vec![None; graph.len()] };
    let mut scans: BTreeMap<NodeId, ScanTangents> = BTreeMap::new();
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        let operands: Vec<&Array> =
            node.operands.iter().filter_map(|o| dual.values.get(o.index())?.as_ref()).collect();
        let tangents: Vec<Option<&Array>> =
            node.operands.iter().map(|o| dual.tangents.get(o.index())?.as_ref()).collect();
        let (value, tangent) = match &node.op {
            Op::Leaf(leaf) => leaf_pair(*leaf)?,
            Op::Scan(scan) => {
                let first = graph.nodes().find(|(_, other)| {
                    let same = |of: &Scan| of.body == scan.body && of.backward == scan.backward;
                    matches!(&other.op, Op::Scan(of) if same(of)) && other.operands == node.operands
                });
                let key = first.map_or(id, |(first, _)| first);
                let made = match scans.entry(key) {
                    Entry::Occupied(made) => made.into_mut(),
                    Entry::Vacant(place) => place.insert(forward_scan(scan, &operands, &tangents, terms)?),
                };
                made.result(scan.result)?
            }
            _ => {
                let value = evaluate_node(&node.op, &operands).map_err(|e| e.to_string())?;
                let tangent = if tangents.iter().all(Option::is_none) || !value.dtype().is_float() {
                    None
                } else {
                    tangent_of(&node.op, &operands, &tangents, &value, terms)?
                };
                (value, tangent)
            }
        };
        let tangent = match (tangent, seeds.get(&id)) {
            (Some(t), Some(seed)) => Some(combine(&t, seed, |a, b| a + b)),
            (t, seed) => t.or_else(|| seed.cloned()),
        };
        dual.values[id.index()] = Some(value);
        dual.tangents[id.index()] = tangent;
    }
    Ok(dual)
}

/// All results of a scan.
struct ScanTangents {
    made: usize,
    rows: Vec<Pair>,
    last: Vec<Pair>,
}

impl ScanTangents {
    fn result(&self, result: ScanResult) -> Result<Pair, String> {
        let pair = match result {
            ScanResult::Rows(row) => self.rows.get(usize::from(row)).cloned(),
            ScanResult::Last(carry) => self.last.get(usize::from(carry)).cloned(),
            ScanResult::Steps => Some((Array::scalar(self.made as i64), None)),
        };
        pair.ok_or_else(|| "a scan has no such result".to_string())
    }
}

/// Runs a scan with known steps, each on the values and tangents that the one before left. Truncation stops all motion
/// at the beginning of the first step that gradients flow through.
fn forward_scan(
    scan: &Scan,
    operands: &[&Array],
    tangents: &[Option<&Array>],
    terms: Terms,
) -> Result<ScanTangents, String> {
    let body = &*scan.body;
    let Dim::Known(steps) = scan.steps else { return Err("the number of steps is not known".into()) };
    let count = Op::Scan(Box::new(Scan { result: ScanResult::Steps, ..scan.clone() }));
    let made = evaluate_node(&count, operands).map_err(|e| e.to_string())?;
    let made = made.get(0).to_i64().map_or(0, |made| made as usize);
    let still = scan.backward.truncate.map_or(0, |last| made.saturating_sub(last as usize));
    let own = |x: &Array, t: Option<&Array>| (x.clone(), t.cloned());
    let initial = body.inputs()..body.inputs() + body.carries();
    let mut carries: Vec<Pair> =
        initial.map(|position| own(operands[position], tangents[position])).collect();
    let mut outputs: Vec<Vec<Pair>> = vec![Vec::new(); body.rows().len()];
    for step in 0..made {
        if step == still && step > 0 {
            carries.iter_mut().for_each(|(_, tangent)| *tangent = None);
        }
        let leaf_pair = |leaf: LeafId| -> Result<Pair, String> {
            if let Some(LeafKind::Constant(value)) = body.graph.leaf(leaf).map(|leaf| &leaf.kind) {
                return Ok(((**value).clone(), None));
            }
            let position = body.parameters().position(|parameter| parameter == leaf);
            let position = position.ok_or("a leaf of a body is no parameter")?;
            let (value, tangent) = match position {
                p if p < body.sequences => {
                    (element(operands[p], step), tangents[p].map(|tangent| element(tangent, step)))
                }
                p if p < body.inputs() => own(operands[p], tangents[p]),
                p => carries[p - body.inputs()].clone(),
            };
            Ok((value, if step < still { None } else { tangent }))
        };
        let dual = forward_from(&body.graph, &leaf_pair, &BTreeMap::new(), terms)?;
        let pair = |id: NodeId| -> Result<Pair, String> {
            let value = dual.values[id.index()].clone().ok_or("a root was not computed")?;
            Ok((value, dual.tangents[id.index()].clone()))
        };
        for (rows, id) in outputs.iter_mut().zip(body.rows()) {
            rows.push(pair(*id)?);
        }
        carries = body.graph.updates.iter().map(|(_, id)| pair(*id)).collect::<Result<_, _>>()?;
    }
    if still == made && made > 0 {
        carries.iter_mut().for_each(|(_, tangent)| *tangent = None);
    }
    let result =
        |row: usize| Op::Scan(Box::new(Scan { result: ScanResult::Rows(row as u16), ..scan.clone() }));
    let rows = outputs.iter().enumerate().map(|(row, pairs)| {
        let value = evaluate_node(&result(row), operands).map_err(|e| e.to_string())?;
        if pairs.iter().all(|(_, tangent)| tangent.is_none()) {
            return Ok((value, None));
        }
        let mut tangent = zeros_like(&value);
        let size = value.len() / steps.max(1);
        // Rows of steps that were not made repeat the last, and move with it.
        for step in 0..steps {
            if let Some((_, Some(moved))) = pairs.get(step.min(made - 1)) {
                for index in 0..size {
                    tangent.set(step * size + index, moved.get(index));
                }
            }
        }
        Ok((value, Some(tangent)))
    });
    let rows = rows.collect::<Result<_, String>>()?;
    Ok(ScanTangents { made, rows, last: carries })
}

/// Element `step` of a sequence.
fn element(sequence: &Array, step: usize) -> Array {
    let mut element = Array::zeros(sequence.dtype(), &sequence.shape()[1..]).expect("a small array");
    for index in 0..element.len() {
        element.set(index, sequence.get(step * element.len() + index));
    }
    element
}

fn combine(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
    let mut result = a.clone();
    for index in 0..a.len() {
        result.set(index, Literal::F64(f(a.get(index).to_f64(), b.get(index).to_f64()).to_bits()));
    }
    result
}

/// The sum of the products of elements at equal places.
pub fn inner_product(a: &Array, b: &Array) -> f64 {
    (0..a.len().min(b.len())).map(|i| a.get(i).to_f64() * b.get(i).to_f64()).sum()
}

fn zeros_like(x: &Array) -> Array {
    Array::zeros(x.dtype(), x.shape()).expect("a small array")
}

fn tangent_of(
    op: &Op,
    operands: &[&Array],
    tangents: &[Option<&Array>],
    value: &Array,
    terms: Terms,
) -> Result<Option<Array>, String> {
    // The value of the operator with the chosen operands replaced by their tangents.
    let moved = |places: &[usize]| {
        let zeros: Vec<Array> = operands.iter().map(|x| zeros_like(x)).collect();
        let replaced: Vec<&Array> = (0..operands.len())
            .map(|i| if places.contains(&i) { tangents[i].unwrap_or(&zeros[i]) } else { operands[i] })
            .collect();
        if matches!(op.class(), Class::Product | Class::Convolution(_)) {
            let sizes: Vec<Array> = replaced.iter().map(|x| terms.of(x)).collect();
            return evaluate_node(op, &sizes.iter().collect::<Vec<_>>()).map_err(|e| e.to_string());
        }
        evaluate_node(op, &replaced).map_err(|e| e.to_string())
    };
    // Of an operator that is linear in all elements that it carries.
    let linear = || {
        let carried: Vec<usize> = (0..operands.len()).filter(|i| op.carries(*i)).collect();
        carried.iter().any(|i| tangents[*i].is_some()).then(|| moved(&carried)).transpose()
    };
    Ok(match op.class() {
        Class::Map(f) => Some(map_tangent(f, operands, tangents, value, terms)),
        Class::Cast(dtype) => tangents[0].map(|t| t.cast(dtype)),
        Class::View(View::Same) => None,
        Class::View(_) | Class::Assembly | Class::Indexed(_) => linear()?,
        Class::Product | Class::Convolution(_) => {
            let (left, right) = (moved(&[0])?, moved(&[1])?);
            Some(combine(&left, &right, |a, b| a + b))
        }
        Class::Fold(Along::Reduce(Fold::Sum, _) | Along::Mean(_) | Along::Cumsum(_)) => linear()?,
        Class::Fold(Along::Reduce(fold @ (Fold::Prod | Fold::Max | Fold::Min), axes)) => {
            tangents[0].map(|t| reduce_tangent(fold, axes, operands[0], t, value, terms))
        }
        Class::Fold(Along::Reduce(Fold::All | Fold::Any, _) | Along::ArgMax(_))
        | Class::Leaf(_)
        | Class::Literal(_)
        | Class::Index
        | Class::Random(_)
        | Class::Scan(_)
        | Class::Gradient(_) => None,
    })
}

fn reduce_tangent(fold: Fold, axes: Axes, x: &Array, t: &Array, value: &Array, terms: Terms) -> Array {
    let strides = row_major_strides(x.shape());
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); value.len()];
    for index in 0..x.len() {
        let group = axes
            .others(x.rank())
            .fold(0, |group, axis| group * x.shape()[axis] + index / strides[axis] % x.shape()[axis]);
        groups[group].push(index);
    }
    let mut result = zeros_like(value);
    for (place, group) in groups.iter().enumerate() {
        let at = |i: usize| x.get(i).to_f64();
        let slope: f64 = if fold == Fold::Prod {
            let others = |i: usize| group.iter().filter(|j| **j != i).map(|j| at(*j)).product::<f64>();
            group.iter().map(|i| t.get(*i).to_f64() * terms.of_number(others(*i))).sum()
        } else {
            let extreme = value.get(place).to_f64();
            let tied: Vec<usize> = group.iter().copied().filter(|i| at(*i) == extreme).collect();
            tied.iter().map(|i| t.get(*i).to_f64()).sum::<f64>() / tied.len().max(1) as f64
        };
        result.set(place, Literal::F64(slope.to_bits()));
    }
    result
}

fn map_tangent(
    f: ScalarFn,
    operands: &[&Array],
    tangents: &[Option<&Array>],
    value: &Array,
    terms: Terms,
) -> Array {
    let mut result = Array::zeros(DType::F64, value.shape()).expect("a small array");
    for index in 0..value.len() {
        let at = |operand: usize| operands.get(operand).map_or(0.0, |x| x.get(index).to_f64());
        let slopes = slopes(f, at(0), at(1));
        let total: f64 = tangents
            .iter()
            .zip(slopes)
            .filter_map(|(t, slope)| Some(t.as_ref()?.get(index).to_f64() * terms.of_number(slope)))
            .sum();
        result.set(index, Literal::F64(total.to_bits()));
    }
    result
}

/// The partial derivatives with respect to each operand; `x` is the condition of `switch`.
pub fn slopes(f: ScalarFn, x: f64, y: f64) -> [f64; 3] {
    let one = |slope: f64| [slope, 0.0, 0.0];
    let two = |first: f64, second: f64| [first, second, 0.0];
    let indicator = |condition: bool| if condition { 1.0 } else { 0.0 };
    match f {
        ScalarFn::Add => two(1.0, 1.0),
        ScalarFn::Sub => two(1.0, -1.0),
        ScalarFn::Mul => two(y, x),
        ScalarFn::Div => two(1.0 / y, -x / (y * y)),
        ScalarFn::Mod => two(1.0, -(x / y).floor()),
        ScalarFn::Pow => two(
            if y == 0.0 { 0.0 } else { y * x.powf(y - 1.0) },
            if x == 0.0 { 0.0 } else { x.powf(y) * x.ln() },
        ),
        ScalarFn::Max => two(indicator(x >= y), 1.0 - indicator(x >= y)),
        ScalarFn::Min => two(indicator(x <= y), 1.0 - indicator(x <= y)),
        ScalarFn::Neg => one(-1.0),
        ScalarFn::Abs => one(indicator(x > 0.0) - indicator(x < 0.0)),
        ScalarFn::Sqr => one(2.0 * x),
        ScalarFn::Sqrt => one(0.5 / x.sqrt()),
        ScalarFn::Recip => one(-1.0 / (x * x)),
        ScalarFn::Exp | ScalarFn::Expm1 => one(x.exp()),
        ScalarFn::Exp2 => one(x.exp2() * 2f64.ln()),
        ScalarFn::Log => one(1.0 / x),
        ScalarFn::Log2 => one(1.0 / (x * 2f64.ln())),
        ScalarFn::Log10 => one(1.0 / (x * 10f64.ln())),
        ScalarFn::Log1p => one(1.0 / (1.0 + x)),
        ScalarFn::XLogY => {
            two(if x == 0.0 && y <= 0.0 { 0.0 } else { y.ln() }, if x == 0.0 { 0.0 } else { x / y })
        }
        ScalarFn::Log1mexp => one(x.exp() / x.exp_m1()),
        ScalarFn::Sin => one(x.cos()),
        ScalarFn::Cos => one(-x.sin()),
        ScalarFn::Tan => one(1.0 / (x.cos() * x.cos())),
        ScalarFn::Asin => one(1.0 / ((1.0 - x) * (1.0 + x)).sqrt()),
        ScalarFn::Acos => one(-1.0 / ((1.0 - x) * (1.0 + x)).sqrt()),
        ScalarFn::Atan => one(1.0 / (1.0 + x * x)),
        ScalarFn::Atan2 => two(y / (x * x + y * y), -x / (x * x + y * y)),
        ScalarFn::Sinh => one(x.cosh()),
        ScalarFn::Cosh => one(x.sinh()),
        ScalarFn::Tanh => one(1.0 / (x.cosh() * x.cosh())),
        ScalarFn::Asinh => one(1.0 / (x * x + 1.0).sqrt()),
        ScalarFn::Acosh => one(1.0 / ((x - 1.0) * (x + 1.0)).sqrt()),
        ScalarFn::Atanh => one(1.0 / ((1.0 - x) * (1.0 + x))),
        ScalarFn::Sigmoid => {
            let e = (-x.abs()).exp();
            one(e / ((1.0 + e) * (1.0 + e)))
        }
        ScalarFn::Softplus => one(1.0 / (1.0 + (-x).exp())),
        ScalarFn::Erf => one(std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()),
        ScalarFn::Erfc => one(-std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()),
        ScalarFn::Erfinv => {
            let value = f.eval(&[Literal::from(x)]).map_or(f64::NAN, Literal::to_f64);
            one((value * value).exp() / std::f64::consts::FRAC_2_SQRT_PI)
        }
        ScalarFn::Select => [0.0, indicator(x != 0.0), indicator(x == 0.0)],
        ScalarFn::FloorDiv
        | ScalarFn::Sign
        | ScalarFn::Floor
        | ScalarFn::Ceil
        | ScalarFn::Trunc
        | ScalarFn::Round
        | ScalarFn::Lt
        | ScalarFn::Le
        | ScalarFn::Gt
        | ScalarFn::Ge
        | ScalarFn::Eq
        | ScalarFn::Ne
        | ScalarFn::And
        | ScalarFn::Or
        | ScalarFn::Xor
        | ScalarFn::Not
        | ScalarFn::IsNan
        | ScalarFn::IsInf => [0.0; 3],
    }
}
