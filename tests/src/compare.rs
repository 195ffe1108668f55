//! How far a result may lie from the interpreter's.
//!
//! What an engine may differ by is found from the graph itself: it is interpreted a few more times with every rounding
//! operator disturbed by some units in the last place at random (stochastic arithmetic; Vignes 1993), and the spread of
//! the results is the condition of the formula. An element whose class (finite, infinite, NaN) or integer value the
//! disturbance changes is not decided by the formula, and not compared.
//! Where a formula decides (compares, rounds down, divides by what may be 0), a disturbance seldom hits the very edge,
//! which exact arithmetic may lie on: `cos(arccos(0))` is 0. So in further runs the operands of such operators are moved
//! to edges and across them as far as the spread of the runs before allows. What that changes is not compared either.
//! Always true: where nothing rounds, the tolerance is zero but for the last place.

use std::f64::consts::{FRAC_PI_2, PI};

use hypatia_graph::interp::{Evaluation, evaluate_node, interpret_with};
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Along, Class, Write};
use hypatia_graph::scalar::Edge;
use hypatia_graph::{Array, DType, Diagnostic, Fold, Graph, Literal, Op};
use hypatia_rewrite::Numerics;

use crate::engines::{Engine, concrete, prepare};
use crate::values::Generator;

/// Disturbed runs, and as many again in which decisions are moved to their edges.
const RUNS: usize = 6;
/// The largest disturbance, in units of the rounding error; the smallest is half of it, so that none is rounded away.
const DISTURBANCE: f64 = 4.0;
/// How many times the spread is allowed.
const MARGIN: f64 = 24.0;

/// What sums and products whose parts overflow come to in the disturbed runs, neighbours differently; a zero takes its
/// sign.
const ENDS: [f64; 4] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0];

/// Error of the functions of `f32` where products are rounded before they are added.
const UNFUSED: f64 = 1e-4;

/// What engines must give.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The interpreter's result.
    pub reference: Evaluation,
    disturbed: Vec<Evaluation>,
    /// Runs with decisions moved to their edges.
    moved: Vec<Evaluation>,
    /// Whether no value on the way is NaN, and none is infinite but for what comes from infinite constants.
    finite: bool,
    /// The roots that gradients are part of. A gradient is that of the formula which rewriting made, so whatever the
    /// policy its zeros may have another sign.
    gradients: Vec<bool>,
}

/// The interpreter's result on a graph as it was collected, and how well the graph determines it.
///
/// # Errors
/// What the interpreter or a pass before it says.
pub fn expected(graph: &Graph, inputs: &[Array]) -> Result<Expected, String> {
    let gradients = made_of_gradients(graph);
    let graph = prepare(&concrete(graph, inputs)?, Numerics::AsWritten)?;
    let mut decisions = Vec::new();
    let reference = interpret_with(&graph, inputs, &mut |op, operands| {
        note_decision(op, operands, &mut decisions);
        evaluate_node(op, operands)
    });
    let reference = reference.map_err(|e| e.to_string())?;
    let mut finite = true;
    let mut logs = vec![decisions];
    let mut disturbed = Vec::new();
    for run in 0..RUNS as u64 {
        let mut decisions = Vec::new();
        disturbed.push(interpret_disturbed(
            &graph,
            inputs,
            &mut Generator(run),
            run as usize,
            &mut finite,
            &mut decisions,
        )?);
        logs.push(decisions);
    }
    let moved = (0..RUNS as u64).map(|run| interpret_moved(&graph, inputs, &mut Generator(run), &logs));
    let moved = moved.collect::<Result<_, _>>()?;
    Ok(Expected { reference, disturbed, moved, finite, gradients })
}

/// For every root whether a gradient is part of it.
fn made_of_gradients(graph: &Graph) -> Vec<bool> {
    let mut made = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        let own = match &node.op {
            Op::Grad(_) => true,
            Op::Scan(scan) => made_of_gradients(&scan.body.graph).contains(&true),
            _ => false,
        };
        made.push(own || node.operands.iter().any(|x| made[x.index()]));
    }
    graph.roots().map(|root| made[root.index()]).collect()
}

/// An operator that decides, and what it decides on, in the order of a run.
type Decision = (Op, Vec<Array>);

/// How an operator decides on floats, if it does.
fn edge(op: &Op, operands: &[&Array]) -> Option<Edge> {
    if !operands.iter().any(|x| x.dtype().is_float()) {
        return None;
    }
    match op {
        Op::ArgMax(_) => Some(Edge::Jump),
        Op::Cast(dtype) => (!dtype.is_float()).then_some(Edge::Jump),
        Op::Map(f) => Some(f.properties().edge).filter(|edge| *edge != Edge::None),
        _ => None,
    }
}

fn note_decision(op: &Op, operands: &[&Array], decisions: &mut Vec<Decision>) {
    if edge(op, operands).is_some() {
        decisions.push((op.clone(), operands.iter().map(|x| (*x).clone()).collect()));
    }
}

/// A run with the operands of decisions moved as far as they differ between the runs before, of which the first one is
/// the reference.
fn interpret_moved(
    graph: &Graph,
    inputs: &[Array],
    generator: &mut Generator,
    logs: &[Vec<Decision>],
) -> Result<Evaluation, String> {
    let mut number = 0;
    // What underflows is 0 in some of the runs and not in others.
    let keeps_underflow = generator.0.is_multiple_of(2);
    let evaluation = interpret_with(graph, inputs, &mut |op, operands| {
        let Some(edge) = edge(op, operands) else {
            let value = evaluate_node(op, operands)?;
            return if keeps_underflow { with_underflow(op, operands, value) } else { Ok(value) };
        };
        // A scan that makes other steps makes other decisions; those that no run has made stay where they are.
        let alike = |decision: &Decision| {
            decision.0 == *op
                && decision.1.len() == operands.len()
                && decision.1.iter().zip(operands).all(|(x, y)| x.shape() == y.shape())
        };
        let runs: Vec<&[Array]> = (logs.iter())
            .filter_map(|log| log.get(number))
            .filter(|decision| alike(decision))
            .map(|(_, operands)| operands.as_slice())
            .collect();
        number += 1;
        let mut moved: Vec<Array> = operands.iter().map(|x| (*x).clone()).collect();
        for position in 0..moved.len() {
            move_operand(&mut moved, position, &runs, edge, generator);
        }
        let moved: Vec<&Array> = moved.iter().collect();
        let value = evaluate_node(op, &moved)?;
        if keeps_underflow { with_underflow(op, &moved, value) } else { Ok(value) }
    });
    evaluation.map_err(|e| e.to_string())
}

/// A value with the smallest numbers of single precision where it has zeros only because that has no smaller ones.
fn with_underflow(op: &Op, operands: &[&Array], mut value: Array) -> Result<Array, Diagnostic> {
    let zero = |value: &Array, index| value.get(index).to_f64() == 0.0;
    if value.dtype() != DType::F32 || !rounds(op) || !(0..value.len()).any(|index| zero(&value, index)) {
        return Ok(value);
    }
    let wide = |x: &&Array| if x.dtype() == DType::F32 { x.cast(DType::F64) } else { (*x).clone() };
    let operands: Vec<Array> = operands.iter().map(wide).collect();
    let exact = evaluate_node(op, &operands.iter().collect::<Vec<_>>())?;
    for index in 0..value.len() {
        if zero(&value, index) && !zero(&exact, index) {
            let least = f64::from(f32::from_bits(1)).copysign(exact.get(index).to_f64());
            value.set(index, Literal::F64(least.to_bits()));
        }
    }
    Ok(value)
}

/// Moves some elements of an operand to an edge or next to it or, where there are jumps, anywhere near.
fn move_operand(
    operands: &mut [Array],
    position: usize,
    runs: &[&[Array]],
    edge: Edge,
    generator: &mut Generator,
) {
    if !operands[position].dtype().is_float() {
        return;
    }
    let unit = unit_roundoff(operands[position].dtype());
    for index in 0..operands[position].len() {
        let x = operands[position].get(index).to_f64();
        let values = runs.iter().map(|run| run[position].get(index).to_f64());
        let (low, high) = values.fold((x, x), |(low, high), value| (low.min(value), high.max(value)));
        let reach = MARGIN * (high - low);
        if !x.is_finite() || !reach.is_finite() || reach == 0.0 {
            continue;
        }
        if edge == Edge::Pole {
            if ((x / PI - 0.5).round() * PI + FRAC_PI_2 - x).abs() <= reach {
                operands[position].set(index, Literal::F64(FRAC_PI_2.to_bits()));
            }
            continue;
        }
        let other = operands.get(1 - position.min(1)).filter(|y| position < 2 && y.len() > index);
        let other =
            other.map(|y| y.get(index).to_f64()).filter(|y| edge == Edge::Jump && (x - y).abs() <= reach);
        // The edges are wholes and halves, and above all 0, which may be near for numbers of any size.
        let near = (2.0 * x).round() / 2.0;
        let target = other.unwrap_or(if near == x && x.abs() <= reach { 0.0 } else { near });
        let size = 2.0 * generator.unit() - 1.0;
        let moved = match generator.below(4) {
            0 => x,
            1 if edge == Edge::Jump => x + reach * size,
            _ if (target - x).abs() > reach => x,
            1 | 2 => target,
            _ => target + 2.0 * unit * size.signum() * target.abs().max(unit),
        };
        operands[position].set(index, Literal::F64(moved.to_bits()));
    }
}

/// Half the distance from 1 to the next number.
fn unit_roundoff(dtype: DType) -> f64 {
    if dtype == DType::F32 { f64::from(f32::EPSILON) / 2.0 } else { f64::EPSILON / 2.0 }
}

fn disturb(array: &Array, generator: &mut Generator) -> Array {
    let mut result = array.clone();
    let scale = DISTURBANCE * unit_roundoff(array.dtype());
    for index in 0..array.len() {
        let x = array.get(index).to_f64();
        let size = 2.0 * generator.unit() - 1.0;
        let moved = x * (1.0 + scale * 0.5 * (size + size.signum()));
        // A disturbance must not push the largest numbers over the edge.
        if moved.is_finite() {
            result.set(index, Literal::F64(moved.to_bits()));
        }
    }
    result
}

/// Whether an operator rounds, so that engines may differ in the last places.
fn rounds(op: &Op) -> bool {
    match op.class() {
        Class::Map(f) => f.properties().rounds,
        Class::Fold(Along::Reduce(Fold::Max | Fold::Min | Fold::All | Fold::Any, _) | Along::ArgMax(_)) => {
            false
        }
        Class::Fold(_) | Class::Product | Class::Convolution(_) => true,
        Class::Assembly | Class::Indexed(_) => op.write() == Some(Write::Add),
        Class::Leaf(_)
        | Class::Literal(_)
        | Class::Index
        | Class::Cast(_)
        | Class::View(_)
        | Class::Random(_)
        | Class::Scan(_)
        | Class::Gradient(_) => false,
    }
}

fn all_finite(x: &Array) -> bool {
    !x.dtype().is_float() || (0..x.len()).all(|index| x.get(index).to_f64().is_finite())
}

/// Whether an operator has made no NaN, and no infinity of finite operands.
fn keeps_finite(op: &Op, operands: &[&Array], value: &Array) -> bool {
    if all_finite(value) {
        return true;
    }
    let is_nan = |index| value.get(index).to_f64().is_nan();
    if (0..value.len()).any(is_nan) || matches!(op, Op::Cast(_)) {
        return false;
    }
    let infinite = |x: &Array, index| x.get(index).to_f64().is_infinite();
    match op {
        Op::Literal(_) => true,
        Op::Map(_) => (0..value.len())
            .all(|index| !infinite(value, index) || operands.iter().any(|x| infinite(x, index))),
        _ => !operands.iter().all(|x| all_finite(x)),
    }
}

fn interpret_disturbed(
    graph: &Graph,
    inputs: &[Array],
    generator: &mut Generator,
    run: usize,
    finite: &mut bool,
    decisions: &mut Vec<Decision>,
) -> Result<Evaluation, String> {
    let live = graph.reachable();
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Leaf(leaf) = node.op {
            *finite &= all_finite(&leaf_value(graph, leaf, inputs)?);
        }
    }
    // Of scans, the nodes of the bodies are disturbed anew in every step.
    let evaluation = interpret_with(graph, inputs, &mut |op, operands| {
        note_decision(op, operands, decisions);
        let disturbs = rounds(op) && operands.iter().any(|x| x.dtype().is_float());
        // Partial sums round as well: their error is as if the terms had one.
        let accumulates = disturbs && !matches!(op, Op::Map(_));
        let moved: Vec<Array> = if accumulates {
            operands
                .iter()
                .map(|x| if x.dtype().is_float() { disturb(x, generator) } else { (*x).clone() })
                .collect()
        } else {
            Vec::new()
        };
        let value = if accumulates {
            evaluate_node(op, &moved.iter().collect::<Vec<_>>())?
        } else {
            evaluate_node(op, operands)?
        };
        let mut value = if disturbs && value.dtype().is_float() { disturb(&value, generator) } else { value };
        if accumulates && value.dtype().is_float() {
            disturb_ends(op, &moved, &mut value, run)?;
        }
        *finite &= keeps_finite(op, operands, &value);
        Ok(value)
    });
    evaluation.map_err(|e| e.to_string())
}

/// Sums and products of several elements are made in any order: one that comes to zero has either sign, and one whose
/// parts overflow, or vanish, may have any value.
fn disturb_ends(op: &Op, operands: &[Array], value: &mut Array, run: usize) -> Result<(), Diagnostic> {
    // Magnitudes bound every part of a sum; those above 1, and those below, every part of a product.
    let bounds: &[fn(f64) -> f64] = match op {
        Op::Reduce(Fold::Prod, _) => &[|x| x.abs().max(1.0), |x| x.abs().min(1.0)],
        _ => &[f64::abs],
    };
    // Below it a part has lost digits.
    let least = if value.dtype() == DType::F32 { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE };
    let mut parts = Vec::new();
    for bound in bounds {
        let sizes: Vec<Array> = operands.iter().map(|x| each(x, bound)).collect();
        parts.push(evaluate_node(op, &sizes.iter().collect::<Vec<_>>())?);
    }
    let beside = if let Op::Conv(axes) = op { taps_beside(op, axes.len(), operands)? } else { Vec::new() };
    for index in 0..value.len() {
        let end = ENDS[(run + index) % ENDS.len()];
        let vanishes = parts.get(1).is_some_and(|part| part.get(index).to_f64() < least);
        let is_beside = beside.get(index).is_some_and(|beside| *beside);
        if vanishes || is_beside || !parts[0].get(index).to_f64().is_finite() {
            value.set(index, Literal::from_f64(end, value.dtype()));
        } else if value.get(index).to_f64() == 0.0 {
            value.set(index, Literal::from_f64(0.0f64.copysign(end), value.dtype()));
        }
    }
    Ok(())
}

/// For each element of a convolution along `axes` axes, whether an infinite or NaN tap meets a zero beside the input, whose
/// product an engine computes or leaves out.
fn taps_beside(op: &Op, axes: usize, operands: &[Array]) -> Result<Vec<bool>, Diagnostic> {
    let [x, w] = [each(&operands[0], |_| 1.0), each(&operands[1], |x| f64::from(u8::from(!x.is_finite())))];
    // How many such taps meet an element, and how many there are in the filter.
    let met = evaluate_node(op, &[&x, &w])?;
    let lead = w.rank() - 2 - axes;
    let (images, filters) = (x.shape()[lead], w.shape()[lead]);
    let taps: usize = w.shape()[lead + 1..].iter().product();
    let places: usize = met.shape()[lead + 2..].iter().product();
    let all = |filter: usize| (0..taps).map(|tap| w.get(filter * taps + tap).to_f64()).sum::<f64>();
    let beside = |index: usize| {
        let row = index / places;
        let (stack, filter) = (row / filters / images, row % filters);
        met.get(index).to_f64() < all(stack * filters + filter)
    };
    Ok((0..met.len()).map(beside).collect())
}

/// A function of every element of a float array; other arrays stay as they are.
fn each(x: &Array, f: impl Fn(f64) -> f64) -> Array {
    let mut result = x.clone();
    if x.dtype().is_float() {
        (0..x.len()).for_each(|i| result.set(i, Literal::from_f64(f(x.get(i).to_f64()), x.dtype())));
    }
    result
}

/// The value of a leaf.
///
/// # Errors
/// An input that is not among the graph's.
pub fn leaf_value(graph: &Graph, id: hypatia_graph::LeafId, inputs: &[Array]) -> Result<Array, String> {
    match graph.leaf(id).map(|leaf| &leaf.kind) {
        Some(LeafKind::Constant(value)) => Ok((**value).clone()),
        Some(LeafKind::Shared(cell)) => Ok(cell.lock().host.clone()),
        Some(LeafKind::Carry) => Err("a carry has no value outside of its scan".to_string()),
        Some(LeafKind::Input) => graph
            .inputs
            .iter()
            .position(|i| *i == id)
            .and_then(|p| inputs.get(p).cloned())
            .ok_or_else(|| "an input is missing".to_string()),
        None => Err("a leaf is not listed".to_string()),
    }
}

/// Outputs, then updates.
fn roots(evaluation: &Evaluation) -> impl Iterator<Item = &Array> {
    evaluation.outputs.iter().chain(evaluation.updates.iter().map(|(_, value)| value))
}

/// Same bits, but that a NaN equals every NaN.
pub fn identical(found: Literal, expected: Literal) -> bool {
    found == expected
        || found.dtype() == expected.dtype() && found.to_f64().is_nan() && expected.to_f64().is_nan()
}

impl Expected {
    /// Whether an engine's result is right; the message names the first element that is not.
    ///
    /// # Errors
    /// The root, the element, what was found and what was expected.
    pub fn check(&self, engine: Engine, found: &Evaluation, elementwise: bool) -> Result<(), String> {
        if roots(found).count() != roots(&self.reference).count() {
            return Err(format!("{engine}: another number of results"));
        }
        for (position, (found, expected)) in roots(found).zip(roots(&self.reference)).enumerate() {
            if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
                return Err(format!("{engine}: root {position}: found {found:?}, expected {expected:?}"));
            }
            // Over the real numbers a comparison with what is no number may turn out otherwise.
            if engine.numerics() == Numerics::Real && !self.finite {
                continue;
            }
            for element in 0..expected.len() {
                let of = |runs: &[Evaluation]| -> Vec<Literal> {
                    let roots = runs.iter().filter_map(|run| roots(run).nth(position));
                    roots.map(|array| array.get(element)).collect()
                };
                let (disturbed, moved) = (of(&self.disturbed), of(&self.moved));
                let (x, y) = (found.get(element), expected.get(element));
                // A device has its own routines for functions of `f64`.
                let own = matches!(engine, Engine::OpenCl { .. }) && expected.dtype() == DType::F64;
                let fits = if elementwise && engine.is_exact() && !own {
                    identical(x, y)
                } else {
                    let signed = engine.numerics() == Numerics::AsWritten
                        || engine.numerics() == Numerics::Strict && !self.gradients[position];
                    is_near(x, y, &disturbed, engine, signed)
                        || moved.iter().any(|moved| !is_near(*moved, y, &disturbed, Engine::REFERENCE, true))
                };
                if !fits {
                    return Err(format!(
                        "{engine}: root {position}, element {element}: found {x:?}, expected {y:?} \
                         (disturbed {disturbed:?}, moved {moved:?})"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether an element is right; a zero's sign only counts if it is `signed` and nothing disturbs it.
fn is_near(found: Literal, expected: Literal, disturbed: &[Literal], engine: Engine, signed: bool) -> bool {
    if !expected.dtype().is_float() {
        return found == expected || disturbed.iter().any(|d| *d != expected);
    }
    let class = |x: f64| (x.is_nan(), if x.is_infinite() { x.signum() } else { 0.0 });
    let (x, y) = (found.to_f64(), expected.to_f64());
    if disturbed.iter().any(|d| class(d.to_f64()) != class(y)) {
        return true;
    }
    if !y.is_finite() {
        // Over the real numbers there may be a finite value where rounding or overflow left none.
        return engine.numerics() == Numerics::Real || class(x) == class(y);
    }
    let signed = signed && disturbed.iter().all(|d| *d == expected);
    if signed && x == 0.0 && y == 0.0 {
        return x.is_sign_negative() == y.is_sign_negative();
    }
    let spread = disturbed.iter().map(|d| (d.to_f64() - y).abs()).fold(0.0, f64::max);
    let smallest =
        if expected.dtype() == DType::F32 { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE };
    // Without fused multiply-add the reduction of arguments and the ends of polynomials lose some more bits.
    let lost = if engine.lacks_fused_multiply_add() { UNFUSED * (y.abs() + 0.1) } else { 0.0 };
    (x - y).abs() <= lost + MARGIN * spread + 4.0 * unit_roundoff(expected.dtype()) * y.abs() + smallest
}
