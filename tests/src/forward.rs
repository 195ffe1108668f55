//! Derivatives without the differentiator: dual numbers, carried forward through a graph.
//!
//! A graph is interpreted together with the directional derivative of every node. Derivatives of the elementwise
//! functions are closed forms written here from mathematics and from the conventions of the operators' documentation
//! (ties, kinks), so that the reverse rules are compared with something that shares no line with them.
//! Works in `f64`; a tangent that is absent is zero.

use std::collections::BTreeMap;

use hypatia_graph::array::row_major_strides;
use hypatia_graph::interp::evaluate_node;
use hypatia_graph::{Array, Axes, DType, Fold, Graph, Literal, NodeId, Op, ScalarFn};

use crate::compare::leaf_value;

/// Values and tangents of all reachable nodes.
#[derive(Debug)]
pub struct Dual {
    /// The value of each node; absent for those that nothing needs.
    pub values: Vec<Option<Array>>,
    /// The tangent of each node; absent for zero.
    pub tangents: Vec<Option<Array>>,
}

/// Interprets a graph without gradients to be taken, moving the given nodes along tangents besides what moves them.
///
/// # Errors
/// What the interpreter says.
pub fn forward(graph: &Graph, inputs: &[Array], seeds: &BTreeMap<NodeId, Array>) -> Result<Dual, String> {
    let live = graph.reachable();
    let mut dual = Dual { values: vec![None; graph.len()], tangents: vec![None; graph.len()] };
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        let (value, tangent) = if let Op::Leaf(leaf) = node.op {
            (leaf_value(graph, leaf, inputs)?, None)
        } else {
            let operands: Vec<&Array> =
                node.operands.iter().filter_map(|o| dual.values.get(o.index())?.as_ref()).collect();
            let tangents: Vec<Option<&Array>> =
                node.operands.iter().map(|o| dual.tangents.get(o.index())?.as_ref()).collect();
            let value = evaluate_node(&node.op, &operands).map_err(|e| e.to_string())?;
            let tangent = if tangents.iter().all(Option::is_none) || !value.dtype().is_float() {
                None
            } else {
                tangent_of(&node.op, &operands, &tangents, &value)?
            };
            (value, tangent)
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
    Array::zeros(x.dtype(), x.shape())
}

fn tangent_of(
    op: &Op,
    operands: &[&Array],
    tangents: &[Option<&Array>],
    value: &Array,
) -> Result<Option<Array>, String> {
    // The value of the operator with the chosen operands replaced by their tangents.
    let moved = |places: &[usize]| {
        let zeros: Vec<Array> = operands.iter().map(|x| zeros_like(x)).collect();
        let replaced: Vec<&Array> = (0..operands.len())
            .map(|i| if places.contains(&i) { tangents[i].unwrap_or(&zeros[i]) } else { operands[i] })
            .collect();
        evaluate_node(op, &replaced).map_err(|e| e.to_string())
    };
    Ok(match op {
        Op::Map(f) => Some(map_tangent(*f, operands, tangents, value)),
        Op::Cast(dtype) => tangents[0].map(|t| t.cast(*dtype)),
        Op::Reduce(Fold::Sum, _)
        | Op::Broadcast { .. }
        | Op::Reshape(_)
        | Op::Permute(_)
        | Op::Slice(_)
        | Op::Window(_)
        | Op::Gather { .. } => match tangents[0] {
            Some(_) => Some(moved(&[0])?),
            None => None,
        },
        Op::SetSlice(..) | Op::SetWindow(..) => Some(moved(&[0, 1])?),
        Op::Scatter { .. } => Some(moved(&[0, 2])?),
        Op::Concat(_) => Some(moved(&(0..operands.len()).collect::<Vec<_>>())?),
        Op::Dot => {
            let (left, right) = (moved(&[0])?, moved(&[1])?);
            Some(combine(&left, &right, |a, b| a + b))
        }
        Op::Reduce(fold @ (Fold::Prod | Fold::Max | Fold::Min), axes) => {
            tangents[0].map(|t| reduce_tangent(*fold, *axes, operands[0], t, value))
        }
        Op::Leaf(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Extent(_)
        | Op::Reduce(Fold::All | Fold::Any, _)
        | Op::ArgMax(_)
        | Op::Random { .. }
        | Op::StopGradient
        | Op::Scan(_)
        | Op::Grad(_) => None,
    })
}

fn reduce_tangent(fold: Fold, axes: Axes, x: &Array, t: &Array, value: &Array) -> Array {
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
            group.iter().map(|i| t.get(*i).to_f64() * others(*i)).sum()
        } else {
            let extreme = value.get(place).to_f64();
            let tied: Vec<usize> = group.iter().copied().filter(|i| at(*i) == extreme).collect();
            tied.iter().map(|i| t.get(*i).to_f64()).sum::<f64>() / tied.len().max(1) as f64
        };
        result.set(place, Literal::F64(slope.to_bits()));
    }
    result
}

fn map_tangent(f: ScalarFn, operands: &[&Array], tangents: &[Option<&Array>], value: &Array) -> Array {
    let mut result = Array::zeros(DType::F64, value.shape());
    for index in 0..value.len() {
        let at = |operand: usize| operands.get(operand).map_or(0.0, |x| x.get(index).to_f64());
        let slopes = slopes(f, at(0), at(1));
        let total: f64 = tangents
            .iter()
            .zip(slopes)
            .filter_map(|(t, slope)| Some(t.as_ref()?.get(index).to_f64() * slope))
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
