//! Every rule of the tables, instantiated: the left side is built from its own text with random shapes, attributes and
//! values, and both sides are run by the interpreter. Once the values are plain numbers on the domain that the guards
//! name; once they are special ones, and what is known of them decides whether the guards hold.

use std::collections::BTreeMap;

use egg::Language;
use hypatia_graph::interp::interpret;
use hypatia_graph::op::{Op, Start, WindowAxis, known_dims};
use hypatia_graph::scalar::Domain;
use hypatia_graph::tensor::input;
use hypatia_graph::{Array, Axes, DType, Fold, Graph, Literal, NodeId, ScalarFn};
use smallvec::{SmallVec, smallvec};

use super::*;
use crate::extract::extract;
use crate::facts::Facts;
use crate::pattern::Head;
use crate::simplify::{emit, load};
use crate::term::Knowledge;

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn extent(&mut self) -> usize {
        [1, 2, 3, 2, 4, 1, 0][self.below(7)]
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

type Shape = SmallVec<[usize; 4]>;

/// A left side under construction.
struct Instance<'r> {
    rule: &'r Rule,
    random: &'r mut Random,
    graph: Graph,
    variables: Vec<Option<NodeId>>,
    ops: Vec<Option<Op>>,
    /// Values that inputs may take, by leaf.
    domains: BTreeMap<NodeId, (f64, f64, bool)>,
    /// Whether variables take special values; those of each leaf.
    special: bool,
    sets: BTreeMap<NodeId, Vec<Literal>>,
    /// The largest index that a variable used as indices may hold.
    indices: BTreeMap<NodeId, usize>,
    inputs: Vec<NodeId>,
}

impl Instance<'_> {
    fn guards(&self, variable: usize) -> impl Iterator<Item = &Guard> {
        self.rule.guards.iter().filter(move |guard| match guard {
            Guard::Constant(x)
            | Guard::Variable(x)
            | Guard::Positive(x)
            | Guard::Negative(x)
            | Guard::Nonnegative(x)
            | Guard::Nonpositive(x)
            | Guard::Nonzero(x)
            | Guard::NoPlusZero(x)
            | Guard::NoMinusZero(x)
            | Guard::AtLeastOne(x)
            | Guard::Finite(x)
            | Guard::Number(x)
            | Guard::Integer(x)
            | Guard::Float(x)
            | Guard::Discrete(x)
            | Guard::Bounded(x)
            | Guard::PowerOfTwo(x)
            | Guard::Invertible(x) => *x == variable,
            Guard::Below(x, y) | Guard::AtMost(x, y) | Guard::ZerosAgree(x, y) | Guard::Peak(x, y) => {
                *x == variable || *y == variable
            }
        })
    }

    /// Smallest and largest value of a variable, and whether it is an integer.
    fn domain(&self, variable: usize) -> (f64, f64, bool) {
        let mut domain = (WIDE.0, WIDE.1, false);
        for guard in self.guards(variable) {
            match guard {
                Guard::Positive(_) | Guard::Nonzero(_) => domain.0 = 0.25,
                Guard::Negative(_) => domain.1 = -0.25,
                Guard::Nonnegative(_) => domain.0 = domain.0.max(0.0),
                Guard::Nonpositive(_) => domain.1 = domain.1.min(0.0),
                Guard::NoMinusZero(_) if domain.1 > 0.0 => domain.0 = 0.25,
                Guard::NoMinusZero(_) | Guard::NoPlusZero(_) => domain.1 = -0.25,
                Guard::Integer(_) => domain.2 = true,
                Guard::Bounded(_) => domain = (-1.5, 1.5, false),
                Guard::Below(x, _) | Guard::AtMost(x, _) if *x == variable => domain.1 = -0.5,
                Guard::Below(..) | Guard::AtMost(..) => domain.0 = 0.5,
                Guard::Constant(_)
                | Guard::AtLeastOne(_)
                | Guard::ZerosAgree(..)
                | Guard::Variable(_)
                | Guard::Finite(_)
                | Guard::Number(_)
                | Guard::Float(_)
                | Guard::Discrete(_)
                | Guard::PowerOfTwo(_)
                | Guard::Invertible(_)
                | Guard::Peak(..) => {}
            }
        }
        domain
    }

    /// An input; `None` of a type that no tensor has.
    fn leaf(&mut self, dtype: DType, shape: &[usize]) -> Option<NodeId> {
        let extents: Vec<Option<usize>> = shape.iter().map(|n| Some(*n)).collect();
        let tensor = input(&format!("v{}", self.inputs.len()), dtype, &extents);
        let leaf = tensor.leaf()?.clone();
        let id = self.graph.add_leaf(&leaf);
        self.graph.inputs.push(leaf.id);
        self.inputs.push(id);
        Some(id)
    }

    fn add(&mut self, op: Op, operands: &[NodeId]) -> Option<NodeId> {
        let id = self.graph.add(op, operands, None);
        self.graph.check().is_ok().then_some(id)
    }

    /// A value of that type; `None` where chance chose attributes that do not fit together.
    fn build(&mut self, pattern: &Pattern, dtype: DType, shape: &[usize]) -> Option<NodeId> {
        match pattern {
            Pattern::Variable(index) => self.variable(*index, dtype, shape),
            Pattern::Number(value) | Pattern::Zero(value) => {
                Some(self.graph.add_uniform(Literal::from_f64(*value, dtype), shape, None))
            }
            Pattern::Stopped(inner) => {
                let inner = self.build(inner, dtype, shape)?;
                if self.random.below(2) == 0 { Some(inner) } else { self.add(Op::StopGradient, &[inner]) }
            }
            Pattern::Node { head, name, operands, more } => {
                let kept = name.and_then(|name| self.ops[name].clone());
                let (op, built) = self.node(head, kept, operands, *more, dtype, shape)?;
                if let Some(name) = *name {
                    self.ops[name] = Some(op.clone());
                }
                let id = self.add(op, &built)?;
                let ty = self.graph.ty(id);
                (ty.dtype == dtype && ty.extents()?.as_slice() == shape).then_some(id)
            }
            Pattern::Again { .. } | Pattern::Computed(..) => None,
        }
    }

    fn variable(&mut self, index: usize, dtype: DType, shape: &[usize]) -> Option<NodeId> {
        if let Some(id) = self.variables[index] {
            let ty = self.graph.ty(id);
            return (ty.dtype == dtype && ty.extents()?.as_slice() == shape).then_some(id);
        }
        let guards: Vec<Guard> = self.guards(index).cloned().collect();
        if guards.iter().any(|g| matches!(g, Guard::Discrete(_))) && dtype.is_float() {
            return None;
        }
        let constant = guards
            .iter()
            .any(|g| matches!(g, Guard::Constant(_) | Guard::PowerOfTwo(_) | Guard::Invertible(_)));
        let peak = guards
            .iter()
            .find_map(|g| if let Guard::Peak(m, x) = g { (*m == index).then_some(*x) } else { None });
        let id = if let Some(x) = peak {
            let x = self.variable(x, dtype, shape)?;
            let axes: Axes = (0..shape.len()).filter(|_| self.random.below(2) == 0).collect();
            let largest = self.add(Op::Reduce(Fold::Max, axes), &[x])?;
            let kept = axes.others(shape.len()).map(|a| a as u8).collect();
            self.add(Op::Broadcast { axes: kept, dims: known_dims(shape) }, &[largest])?
        } else if constant || (guards.is_empty() && self.random.below(6) == 0) {
            let whole = guards.iter().any(|g| matches!(g, Guard::PowerOfTwo(_)));
            let large = guards.iter().any(|g| matches!(g, Guard::AtLeastOne(_)));
            let domain = self.domain(index);
            let value = match () {
                () if self.special => self.random.pick(&specials(dtype)).to_f64(),
                () if large => self.random.pick(&[-1.5, 1.0, 3.0, 10.0]),
                () if whole => self.random.pick(&[0.5, 2.0, 4.0, -8.0]),
                () if dtype == DType::Bool => self.random.pick(&[0.0, 1.0]),
                () if !dtype.is_float() => self.random.pick(&[-1.0, 0.0, 1.0, 2.0, 5.0]),
                // Averages: one over the number of elements, or that number.
                () if self.rule.name.starts_with("variance") => {
                    let n = self.random.pick(&[1.0f64, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0, 12.0]);
                    if self.rule.name == "variance" { Literal::from_f64(1.0 / n, dtype).to_f64() } else { n }
                }
                () => self.random.pick(&[-1.5f64, 0.5, 0.75, 1.0, 3.0, 2.0]).clamp(domain.0, domain.1),
            };
            self.graph.add_uniform(Literal::from_f64(value, dtype), shape, None)
        } else {
            let id = self.leaf(dtype, shape)?;
            if self.special {
                let set = special_set(self.random, dtype, self.rule.exactness <= Exactness::Rounding);
                self.sets.insert(id, set);
            } else {
                let domain = self.domain(index);
                self.domains.insert(id, domain);
            }
            id
        };
        self.variables[index] = Some(id);
        Some(id)
    }

    /// The operator and operands of a node that shall have the given type.
    fn node(
        &mut self,
        head: &Head,
        kept: Option<Op>,
        operands: &[Pattern],
        more: bool,
        dtype: DType,
        shape: &[usize],
    ) -> Option<(Op, Vec<NodeId>)> {
        let floats = [DType::F32, DType::F64];
        let numbers = [DType::F32, DType::F64, DType::F32, DType::I64, DType::I32];
        match head {
            Head::Map(_) | Head::Unary | Head::Binary => {
                let f = match (head, kept) {
                    (Head::Map(f), _) => *f,
                    (_, Some(Op::Map(f))) => f,
                    (other, _) => {
                        let arity = if *other == Head::Unary { 1 } else { 2 };
                        let fitting: Vec<ScalarFn> =
                            ScalarFn::ALL.iter().copied().filter(|f| f.arity() == arity).collect();
                        self.random.pick(&fitting)
                    }
                };
                let operand_dtype = match f.domain() {
                    Domain::Float if dtype.is_float() => dtype,
                    Domain::Number if dtype != DType::Bool => dtype,
                    Domain::Bits if !dtype.is_float() => dtype,
                    Domain::Compare if dtype == DType::Bool => self.random.pick(&numbers),
                    Domain::Test if dtype == DType::Bool => self.random.pick(&floats),
                    Domain::Select => dtype,
                    Domain::Float | Domain::Number | Domain::Bits | Domain::Compare | Domain::Test => {
                        return None;
                    }
                };
                let mut built = Vec::new();
                for (i, operand) in operands.iter().enumerate() {
                    let wanted = if f == ScalarFn::Select && i == 0 { DType::Bool } else { operand_dtype };
                    built.push(self.build(operand, wanted, shape)?);
                }
                Some((Op::Map(f), built))
            }
            Head::Cast => {
                let from = self.random.pick(&DType::ALL);
                Some((Op::Cast(dtype), vec![self.build(&operands[0], from, shape)?]))
            }
            Head::Reduce(_) | Head::Mean => {
                let fold = match (head, &kept) {
                    (Head::Mean, _) => None,
                    (Head::Reduce(Some(fold)), _) | (_, Some(Op::Reduce(fold, _))) => Some(*fold),
                    (_, _) => Some(self.random.pick(&Fold::ALL)),
                };
                if !fold.map_or(dtype.is_float(), |fold| fold.takes(dtype)) {
                    return None;
                }
                let (axes, inner) = match kept {
                    Some(Op::Reduce(_, axes) | Op::Mean(axes)) => {
                        let rank = shape.len() + axes.len();
                        let mut next = shape.iter();
                        let inner: Shape = (0..rank)
                            .map(|axis| {
                                if axes.contains(axis) {
                                    self.random.extent()
                                } else {
                                    next.next().copied().unwrap_or(1)
                                }
                            })
                            .collect();
                        (axes, inner)
                    }
                    _ => {
                        let mut inner: Shape = smallvec![];
                        let mut axes = Axes::NONE;
                        let mut left = shape.iter().peekable();
                        loop {
                            if inner.len() < 4 && self.random.below(3) == 0 {
                                axes = axes.iter().chain([inner.len()]).collect();
                                let extent = self.random.extent();
                                inner.push(extent);
                            } else if let Some(n) = left.next() {
                                inner.push(*n);
                            } else {
                                break;
                            }
                        }
                        (axes, inner)
                    }
                };
                let op = fold.map_or(Op::Mean(axes), |fold| Op::Reduce(fold, axes));
                Some((op, vec![self.build(&operands[0], dtype, &inner)?]))
            }
            Head::ArgMax => {
                if dtype != DType::I64 {
                    return None;
                }
                let axis = self.random.below(shape.len() + 1);
                let mut inner: Shape = shape.into();
                inner.insert(axis, 1 + self.random.below(4));
                let from = self.random.pick(&floats);
                Some((Op::ArgMax(axis as u8), vec![self.build(&operands[0], from, &inner)?]))
            }
            Head::Dot => {
                let rank = shape.len();
                if !(2..=3).contains(&rank) || dtype == DType::Bool {
                    return None;
                }
                let k = self.random.extent();
                let (mut left, mut right): (Shape, Shape) = (shape.into(), shape.into());
                left[rank - 1] = k;
                right[rank - 2] = k;
                Some((
                    Op::Dot,
                    vec![self.build(&operands[0], dtype, &left)?, self.build(&operands[1], dtype, &right)?],
                ))
            }
            Head::View => {
                let head = match kept {
                    Some(Op::Broadcast { .. }) => Head::Broadcast,
                    Some(Op::Reshape(_)) => Head::Reshape,
                    Some(Op::Permute(_)) => Head::Permute,
                    _ => [Head::Broadcast, Head::Reshape, Head::Permute][self.random.below(3)].clone(),
                };
                self.node(&head, kept, operands, more, dtype, shape)
            }
            Head::Broadcast => {
                let axes: SmallVec<[u8; 8]> = match kept {
                    Some(Op::Broadcast { axes, .. }) => axes,
                    _ => (0..shape.len() as u8).filter(|_| self.random.below(3) > 0).collect(),
                };
                if axes.iter().any(|&a| usize::from(a) >= shape.len()) {
                    return None;
                }
                let inner: Shape = axes
                    .iter()
                    .map(|&a| if self.random.below(4) == 0 { 1 } else { shape[usize::from(a)] })
                    .collect();
                let op = Op::Broadcast { axes, dims: known_dims(shape) };
                Some((op, vec![self.build(&operands[0], dtype, &inner)?]))
            }
            Head::Reshape => {
                let count: usize = shape.iter().product();
                let mut inner: Shape = shape.into();
                match self.random.below(4) {
                    0 => inner = smallvec![count],
                    1 => inner.insert(self.random.below(shape.len() + 1), 1),
                    2 => inner.retain(|n| *n != 1),
                    _ if count.is_multiple_of(2) => inner = smallvec![2, count / 2],
                    _ => {}
                }
                Some((Op::Reshape(known_dims(shape)), vec![self.build(&operands[0], dtype, &inner)?]))
            }
            Head::Permute => {
                let permutation = match kept {
                    Some(Op::Permute(permutation)) => permutation,
                    _ => {
                        let mut permutation: SmallVec<[u8; 8]> = (0..shape.len() as u8).collect();
                        for i in (1..permutation.len()).rev() {
                            permutation.swap(i, self.random.below(i + 1));
                        }
                        permutation
                    }
                };
                if permutation.len() != shape.len() {
                    return None;
                }
                let mut inner: Shape = shape.into();
                for (axis, &own) in permutation.iter().enumerate() {
                    inner[usize::from(own)] = shape[axis];
                }
                Some((Op::Permute(permutation), vec![self.build(&operands[0], dtype, &inner)?]))
            }
            Head::Window => {
                let (windows, inner) = self.window_into(shape);
                Some((Op::Window(windows), vec![self.build(&operands[0], dtype, &inner)?]))
            }
            Head::SetWindow(write) => {
                if dtype == DType::Bool {
                    return None;
                }
                let windows: Box<[WindowAxis]> = match kept {
                    Some(Op::SetWindow(windows, _)) => windows,
                    _ => shape
                        .iter()
                        .map(|&n| {
                            let len = if self.random.below(2) == 0 { n } else { self.random.below(n + 1) };
                            WindowAxis { start: Start::Known(self.random.below(n - len + 1)), len, step: 1 }
                        })
                        .collect(),
                };
                let part: Shape = windows.iter().map(|w| w.len).collect();
                let x = self.build(&operands[0], dtype, shape)?;
                let y = match operands.get(1) {
                    Some(y) => self.build(y, dtype, &part)?,
                    None => return None,
                };
                Some((Op::SetWindow(windows, *write), vec![x, y]))
            }
            Head::Concat => {
                if shape.is_empty() {
                    return None;
                }
                let axis = self.random.below(shape.len());
                let first = if more { self.random.below(shape[axis] + 1) } else { shape[axis] };
                let (mut one, mut other): (Shape, Shape) = (shape.into(), shape.into());
                one[axis] = first;
                other[axis] = shape[axis] - first;
                let mut built = vec![self.build(&operands[0], dtype, &one)?];
                if more {
                    let rest = self.leaf(dtype, &other)?;
                    self.domains.insert(rest, (0.25, 2.0, false));
                    built.push(rest);
                }
                Some((Op::Concat(axis as u8), built))
            }
            Head::Gather | Head::Scatter(_) => {
                if shape.is_empty() || shape.len() > 3 {
                    return None;
                }
                let batch = match kept {
                    Some(Op::Gather { batch }) => usize::from(batch),
                    _ => self.random.below(shape.len()),
                };
                if batch >= shape.len() {
                    return None;
                }
                let n = 1 + self.random.below(4);
                let (mut x_shape, mut y_shape): (Shape, Shape) = (shape.into(), shape.into());
                let count = if *head == Head::Gather { shape[batch] } else { self.random.extent() };
                if *head == Head::Gather {
                    x_shape[batch] = n;
                } else {
                    y_shape[batch] = count;
                }
                let limit = x_shape[batch];
                if limit == 0 {
                    return None;
                }
                let x = self.build(&operands[0], dtype, &x_shape)?;
                let mut index_shape: Shape = shape[..batch].into();
                index_shape.push(count);
                let Pattern::Variable(index) = &operands[1] else { return None };
                let constant = self.guards(*index).any(|guard| matches!(guard, Guard::Constant(_)));
                let indices = if constant {
                    let place = self.random.below(2 * limit) as f64 - limit as f64;
                    self.graph.add_uniform(Literal::from_f64(place, DType::I64), &index_shape, None)
                } else {
                    let indices = self.leaf(DType::I64, &index_shape)?;
                    self.indices.insert(indices, limit);
                    indices
                };
                self.variables[*index] = Some(indices);
                if *head == Head::Gather {
                    return Some((Op::Gather { batch: batch as u8 }, vec![x, indices]));
                }
                if dtype == DType::Bool {
                    return None;
                }
                let y = self.build(&operands[2], dtype, &y_shape)?;
                let write = hypatia_graph::op::Write::Add;
                Some((Op::Scatter { batch: batch as u8, write }, vec![x, indices, y]))
            }
            Head::StopGradient => Some((Op::StopGradient, vec![self.build(&operands[0], dtype, shape)?])),
        }
    }

    fn window_into(&mut self, shape: &[usize]) -> (Box<[WindowAxis]>, Shape) {
        let mut windows = Vec::new();
        let mut inner: Shape = smallvec![];
        for &len in shape {
            let step = self.random.pick(&[1i64, 1, 2, -1]);
            let spare = self.random.below(3);
            let span = len.saturating_sub(1) * step.unsigned_abs() as usize;
            let low = self.random.below(spare + 1);
            let start = match (len, step > 0) {
                (0, _) => 0,
                (_, true) => low,
                (_, false) => low + span,
            };
            windows.push(WindowAxis { start: Start::Known(start), len, step });
            inner.push(if len == 0 { spare } else { span + 1 + spare });
        }
        (windows.into(), inner)
    }
}

/// The domain of a variable that no guard narrows; special values and large integers lie in it too.
const WIDE: (f64, f64) = (-2.0, 2.0);

const SPECIAL: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    1e-30,
    -1e-30,
    1e30,
    -1e30,
    88.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

/// Values that are special to some function or to arithmetic itself: zeros, infinities, NaN, subnormal numbers, ends of
/// types and of domains, thresholds of overflow.
fn specials(dtype: DType) -> Vec<Literal> {
    let integers = |values: &[i64]| values.iter().map(|n| Literal::from_i64(*n, dtype)).collect();
    match dtype {
        DType::Bool => integers(&[0, 1]),
        DType::U8 => integers(&[0, 1, 2, 3, 100, 127, 128, 200, 254, 255]),
        DType::I32 => {
            let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
            integers(&[least, least + 1, -300, -2, -1, 0, 1, 2, 5, 255, 300, most - 1, most])
        }
        DType::I64 => {
            let double = (1 << 53) + 1;
            integers(&[i64::MIN, i64::MIN + 1, -double, -2, -1, 0, 1, 2, 300, double, i64::MAX - 1, i64::MAX])
        }
        DType::F32 => {
            [0.0, f32::from_bits(1), 1e-40, f32::MIN_POSITIVE, 1e-30, 1e-10, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0]
                .into_iter()
                .chain([
                    10.0,
                    30.0,
                    87.33,
                    88.72283,
                    88.72284,
                    103.9,
                    104.0,
                    1e10,
                    1.844_674_3e19,
                    1e30,
                    f32::MAX,
                ])
                .chain([f32::INFINITY, f32::NAN])
                .flat_map(|x| [x, -x])
                .map(|x| Literal::F32(x.to_bits()))
                .collect()
        }
        DType::F64 => {
            [0.0, f64::from_bits(1), 1e-310, f64::MIN_POSITIVE, 1e-200, 1e-10, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0]
                .into_iter()
                .chain([
                    10.0,
                    40.0,
                    709.782_712_893_383_9,
                    709.782_712_893_384,
                    709.782_712_893_384_1,
                    745.1,
                    746.0,
                ])
                .chain([1e10, 1e160, 1e300, f64::MAX, f64::INFINITY, f64::NAN])
                .flat_map(|x| [x, -x])
                .map(|x| Literal::F64(x.to_bits()))
                .collect()
        }
    }
}

/// Special values that a variable takes, chosen so that guards are met. Where floats stand for real numbers these are
/// such that sums and products of a few of them do not overflow.
fn special_set(random: &mut Random, dtype: DType, strict: bool) -> Vec<Literal> {
    let all = specials(dtype);
    if !dtype.is_float() {
        let start = random.below(all.len());
        let len = 1 + random.below(all.len() - start);
        return all[start..start + len].to_vec();
    }
    let plus = |x: f64| x.is_sign_positive();
    let (kind, one) = (random.below(14), random.pick(&all).to_f64());
    let kept = |x: f64| match kind {
        0 => true,
        1 => x.is_finite(),
        2 => x >= 0.0,
        3 => x >= 0.0 && plus(x),
        4 => x > 0.0,
        5 => x <= 0.0,
        6 => x <= 0.0 && !plus(x),
        7 => x < 0.0,
        8 => x != 0.0 && x.is_finite(),
        9 => x.fract() == 0.0,
        10 => x.abs() <= 1.0,
        11 => x.is_finite() && x > 0.0,
        12 => x > one,
        _ => x <= one,
    };
    let set: Vec<Literal> =
        all.iter().copied().filter(|x| kept(x.to_f64()) && (strict || x.to_f64().abs() <= 1e10)).collect();
    if set.is_empty() { vec![Literal::from_f64(1.0, dtype)] } else { set }
}

fn values(
    random: &mut Random,
    instance_domain: (f64, f64, bool),
    special: bool,
    dtype: DType,
    shape: &[usize],
) -> Array {
    let mut array = Array::zeros(dtype, shape).unwrap();
    let (low, high, integer) = instance_domain;
    for i in 0..array.len() {
        let inside = |x: f64| x.is_nan() || (low <= x && x <= high) || (low, high) == WIDE;
        let x = match dtype {
            DType::Bool => random.below(2) as f64,
            DType::U8 => random.below(200) as f64,
            DType::I32 | DType::I64 if (low, high) == WIDE => (random.unit() * 20.0 - 9.0).round(),
            DType::I32 | DType::I64 => {
                (low + random.unit() * (high - low)).round().clamp(low.ceil(), high.floor())
            }
            DType::F32 | DType::F64 => {
                let special = random.pick(&SPECIAL.map(|x| if special && inside(x) { x } else { f64::MIN }));
                let plain = low + random.unit() * (high - low);
                // Of numbers nearer to 0 some left sides leave no digits in single precision.
                let plain = if integer { plain.round() } else { (plain * 64.0).round() / 64.0 };
                if special == f64::MIN || random.below(3) == 0 { plain } else { special }
            }
        };
        array.set(i, Literal::from_f64(x, dtype));
    }
    array
}

/// The facts that inputs from a domain have.
fn facts_of(domain: (f64, f64, bool), dtype: DType, special: bool) -> Facts {
    let unknown = Facts::unknown(dtype, special);
    let wide = (domain.0, domain.1) == WIDE;
    if !dtype.is_float() {
        return if wide {
            unknown
        } else {
            let end = |x: f64| Facts::of_literal(Literal::from_f64(x, dtype));
            end(domain.0.ceil()).or(&end(domain.1.floor()))
        };
    }
    let (low, high) = if wide { (f64::NEG_INFINITY, f64::INFINITY) } else { (domain.0, domain.1) };
    Facts { low, high, integer: domain.2, ..unknown }
}

/// What holds of every one of the values.
fn facts_of_set(set: &[Literal]) -> Facts {
    set.iter().map(|x| Facts::of_literal(*x)).reduce(|all, one| all.or(&one)).unwrap()
}

/// Instances of a rule that must be checked, and attempts to make them.
const ENOUGH: usize = 100;
const MOST_ATTEMPTS: usize = 6000;

enum Outcome {
    /// Chance chose what does not fit, or the rule did not apply.
    Nothing,
    Checked,
}

/// Element types of left sides, the frequent ones twice; `u8` has few plain numbers.
const ELEMENTS: [DType; 8] =
    [DType::F32, DType::F64, DType::F32, DType::F64, DType::Bool, DType::I64, DType::I32, DType::U8];

/// What values variables take.
#[derive(Copy, Clone, PartialEq)]
enum Values {
    /// On the domain of the guards; NaN and infinities among them.
    Plain { special: bool },
    /// Special ones.
    Special,
}

fn try_rule(rule: &Rule, random: &mut Random, kind: Values) -> Outcome {
    let rank = random.below(4);
    let shape: Shape = (0..rank).map(|_| random.extent()).collect();
    let dtype = random.pick(if kind == Values::Special { &ELEMENTS } else { &ELEMENTS[..7] });
    let mut instance = Instance {
        rule,
        random,
        graph: Graph::new(),
        variables: vec![None; rule.names.variables.len()],
        ops: vec![None; rule.names.terms.len()],
        domains: BTreeMap::new(),
        special: kind == Values::Special,
        sets: BTreeMap::new(),
        indices: BTreeMap::new(),
        inputs: Vec::new(),
    };
    let Some(root) = instance.build(&rule.left, dtype, &shape) else { return Outcome::Nothing };
    let Instance { mut graph, domains, sets, indices, inputs, .. } = instance;
    graph.outputs = vec![root];
    let guarded_finite = rule.guards.iter().any(|g| {
        matches!(
            g,
            Guard::Finite(_)
                | Guard::Number(_)
                | Guard::Bounded(_)
                | Guard::Below(..)
                | Guard::AtMost(..)
                | Guard::Integer(_)
                | Guard::Positive(_)
                | Guard::Negative(_)
                | Guard::Nonzero(_)
        )
    });
    let special = kind == (Values::Plain { special: true }) && !guarded_finite;
    let strict =
        special || rule.strict_only || kind == Values::Special && rule.exactness <= Exactness::Rounding;
    let facts: Vec<Facts> = graph
        .nodes()
        .map(|(id, node)| match (domains.get(&id), sets.get(&id)) {
            (Some(domain), _) => facts_of(*domain, node.ty.dtype, special),
            // The rule may know less than there is to know.
            (None, Some(_)) if random.below(4) == 0 => Facts::unknown(node.ty.dtype, strict),
            (None, Some(set)) => facts_of_set(set),
            (None, None) => Facts::unknown(node.ty.dtype, strict),
        })
        .collect();
    let mut egraph = Egraph::new(Knowledge::new(&graph, &facts, strict));
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    let loaded = load(&mut egraph, &graph, &nodes, &vec![false; nodes.len()]);
    egraph.rebuild();
    let class = egraph.find(loaded.classes[&root]);
    let steps: Vec<Step> = egraph[class]
        .nodes
        .iter()
        .filter(|term| !term.is_leaf())
        .flat_map(|term| rule.apply(&egraph, class, term))
        .map(|(_, step)| step)
        .collect();
    let arrays: Vec<Array> = inputs
        .iter()
        .map(|id| {
            let ty = graph.ty(*id).clone();
            let extents = ty.extents().unwrap();
            match indices.get(id) {
                Some(&limit) => {
                    let data: Vec<i64> = (0..extents.iter().product())
                        .map(|_| random.below(2 * limit) as i64 - limit as i64)
                        .collect();
                    Array::new(&extents, &data).unwrap()
                }
                None if sets.contains_key(id) => {
                    let mut array = Array::zeros(ty.dtype, &extents).unwrap();
                    for i in 0..array.len() {
                        array.set(i, random.pick(&sets[id]));
                    }
                    array
                }
                None => values(
                    random,
                    domains.get(id).copied().unwrap_or((WIDE.0, WIDE.1, false)),
                    special,
                    ty.dtype,
                    &extents,
                ),
            }
        })
        .collect();
    let mut outcome = Outcome::Nothing;
    for step in steps {
        egraph.analysis.rule = rule.name;
        match step {
            Step::Learn(learned) => {
                let value = interpret(&graph, &arrays).unwrap().outputs.remove(0);
                for i in 0..value.len() {
                    let x = value.get(i).to_f64();
                    assert!(
                        kind == Values::Special
                            || x.is_nan()
                            || (learned.low - 1e-6 <= x && x <= learned.high + 1e-6),
                        "`{}` says {learned:?} of {x}:\n{graph}",
                        rule.name
                    );
                }
            }
            Step::Replace(built) => {
                let ty = graph.ty(root).clone();
                let Some(right) = built.insert(&mut egraph, &ty) else { continue };
                assert_eq!(egraph[right].data.ty, ty, "`{}` changes the type:\n{graph}", rule.name);
                egraph.rebuild();
                let extraction = extract(&egraph, &[class, right], &loaded.built);
                let mut both = graph.emptied();
                let made = emit(&mut both, &graph, &egraph, &extraction, &vec![None; graph.len()]);
                both.outputs = extraction.roots.iter().map(|&position| made[position]).collect();
                let values = interpret(&both, &arrays).unwrap().outputs;
                let left = interpret(&graph, &arrays).unwrap().outputs.remove(0);
                match kind {
                    Values::Plain { .. } => compare(rule, &left, &values[1], &both, &arrays),
                    Values::Special
                        if rule.exactness == Exactness::Real && !all_are_numbers(&graph, &arrays) => {}
                    Values::Special => compare_special(rule, &left, &values[1], &both, &arrays),
                }
            }
        }
        outcome = Outcome::Checked;
    }
    outcome
}

fn compare(rule: &Rule, left: &Array, right: &Array, graph: &Graph, arrays: &[Array]) {
    let dtype = left.dtype();
    let scale =
        (0..left.len()).map(|i| left.get(i).to_f64().abs()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    // Left sides lose digits, that is what many rules are for: the value is judged in double precision, single
    // precision has to be near.
    let epsilon = if dtype == DType::F64 { 1e-7 } else { 1e-2 };
    // Sums of large numbers that cancel leave their roundings.
    let numbers = arrays.iter().flat_map(|array| (0..array.len()).map(|i| array.get(i).to_f64().abs()));
    let largest = numbers.filter(|x| x.is_finite()).fold(0.0, f64::max);
    let rounded = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) } * 8.0 * largest;
    for i in 0..left.len() {
        let (x, y) = (left.get(i).to_f64(), right.get(i).to_f64());
        let fits = match rule.exactness {
            _ if !dtype.is_float() => left.get(i) == right.get(i),
            Exactness::Exact => x == y || (x.is_nan() && y.is_nan()),
            Exactness::Rounding if !x.is_finite() || !y.is_finite() => x == y || x.is_nan() && y.is_nan(),
            // Where rounding brought the left side to a NaN or infinity, the right side is free.
            Exactness::Real if !x.is_finite() => true,
            Exactness::Rounding | Exactness::Real => {
                (x - y).abs() <= epsilon * (1.0 + x.abs().max(y.abs()).max(scale)) + rounded
            }
        };
        assert!(fits, "`{}` ({:?}): {x:e} becomes {y:e}\n{graph}\n{arrays:?}", rule.name, rule.exactness);
    }
}

/// Whether real arithmetic is what the left side does: nothing in it is NaN, infinite or subnormal, constants apart.
fn all_are_numbers(graph: &Graph, arrays: &[Array]) -> bool {
    let mut all = graph.clone();
    all.outputs = graph.nodes().filter(|(id, _)| graph.uniform(*id).is_none()).map(|(id, _)| id).collect();
    interpret(&all, arrays).unwrap().outputs.iter().all(|value| {
        (0..value.len()).all(|i| {
            let x = value.get(i).to_f64();
            x == 0.0 || x.is_finite() && (!value.dtype().is_float() || x.abs() >= tiny(value.dtype()))
        })
    })
}

/// Whether every constant is 0 or a normal number.
fn constants_are_normal(graph: &Graph) -> bool {
    let normal = |value: Literal| {
        let x = value.to_f64();
        let least =
            if value.dtype() == DType::F32 { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE };
        x == 0.0 || x.is_finite() && x.abs() >= least
    };
    graph.nodes().all(|(_, node)| !matches!(node.op, Op::Literal(value) if !normal(value)))
}

/// That a rule keeps what its exactness says, zeros, infinities and NaN above all.
fn compare_special(rule: &Rule, left: &Array, right: &Array, graph: &Graph, arrays: &[Array]) {
    for i in 0..left.len() {
        let (left, right) = (left.get(i), right.get(i));
        let (x, y) = (left.to_f64(), right.to_f64());
        let alike = left == right || x.is_nan() && y.is_nan();
        let fits = match rule.exactness {
            // A question that rounding decides.
            Exactness::Real if !left.dtype().is_float() && arrays.iter().any(|x| x.dtype().is_float()) => {
                true
            }
            _ if !left.dtype().is_float() => alike,
            Exactness::Exact => alike,
            Exactness::Rounding if x == 0.0 && y == 0.0 || !x.is_finite() || !y.is_finite() => alike,
            Exactness::Rounding => {
                let epsilon = if left.dtype() == DType::F64 { 1e-12 } else { 1e-5 };
                (x - y).abs() <= epsilon * x.abs().max(y.abs()).max(1.0)
            }
            // A number stays a number, unless it is next to the largest or the formula holds an infinite or
            // subnormal constant.
            Exactness::Real => {
                let largest = if left.dtype() == DType::F64 { f64::MAX } else { f64::from(f32::MAX) };
                y.is_finite() || x.abs() > 0.999 * largest || !constants_are_normal(graph)
            }
        };
        assert!(
            fits,
            "`{}` ({:?}): {left:?} becomes {right:?}\n{graph}\n{arrays:?}",
            rule.name, rule.exactness
        );
    }
}

/// Under its policy: `Strict` for what is exact or rounds, with any value; `Real` for the others, with finite ones and
/// any constant.
#[test]
fn special_values_go_through_every_rule() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let (mut never, mut wrong) = (Vec::new(), Vec::new());
    for rule in tables(true) {
        let mut checked = 0;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..MOST_ATTEMPTS {
                if let Outcome::Checked = try_rule(&rule, &mut random, Values::Special) {
                    checked += 1;
                }
                if checked >= 3 * ENOUGH {
                    break;
                }
            }
        }));
        match outcome {
            Err(_) => wrong.push(rule.name),
            Ok(()) if checked == 0 => never.push(rule.name),
            Ok(()) => {}
        }
    }
    assert!(wrong.is_empty() && never.is_empty(), "wrong: {wrong:?}\nnever applied: {never:?}");
}

/// All rules are tried before the test fails, so that one message names every wrong one.
#[test]
fn both_sides_of_every_rule_are_equal() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut never, mut wrong) = (Vec::new(), Vec::new());
    for rule in tables(true) {
        let mut checked = 0;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for attempt in 0..MOST_ATTEMPTS {
                // NaN and infinities are for the rules that keep them.
                let special = rule.exactness <= Exactness::Rounding && attempt % 2 == 0;
                if let Outcome::Checked = try_rule(&rule, &mut random, Values::Plain { special }) {
                    checked += 1;
                }
                if checked >= ENOUGH {
                    break;
                }
            }
        }));
        match outcome {
            Err(_) => wrong.push(rule.name),
            Ok(()) if checked == 0 => never.push(rule.name),
            Ok(()) => {}
        }
    }
    assert!(wrong.is_empty() && never.is_empty(), "wrong: {wrong:?}\nnever applied: {never:?}");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = tables(true).iter().map(|rule| rule.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// A class of many choices between its own values, as rules about choices make them: each is looked at once, where ways
/// through them are without number.
#[test]
fn a_maximum_is_found_among_many_choices() {
    let x = input("x", DType::F32, &[Some(2), Some(3)]);
    let mut graph = Graph::new();
    let x = graph.add_leaf(x.leaf().unwrap());
    let max = graph.add(Op::Reduce(Fold::Max, Axes::one(1)), &[x], None);
    let spread = graph.add(Op::Broadcast { axes: smallvec![0], dims: known_dims(&[2, 3]) }, &[max], None);
    let mut choices = vec![graph.add(Op::Map(ScalarFn::Exp), &[x], None)];
    for number in 0..60 {
        let limit = graph.add_uniform(Literal::from_f64(f64::from(number), DType::F32), &[2, 3], None);
        let condition = graph.add(Op::Map(ScalarFn::Gt), &[x, limit], None);
        let other = choices[number as usize];
        choices.push(graph.add(Op::Map(ScalarFn::Select), &[condition, x, other], None));
    }
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    let facts: Vec<Facts> = graph.nodes().map(|(_, node)| Facts::unknown(node.ty.dtype, false)).collect();
    for holds in [false, true] {
        let mut egraph = Egraph::new(Knowledge::new(&graph, &facts, false));
        let loaded = load(&mut egraph, &graph, &nodes, &vec![false; nodes.len()]);
        for choice in &choices[1..] {
            egraph.union(loaded.classes[&choices[0]], loaded.classes[choice]);
        }
        if holds {
            egraph.union(loaded.classes[&choices[0]], loaded.classes[&spread]);
        }
        egraph.rebuild();
        let found = stability::peak(&egraph, egraph.find(loaded.classes[&choices[0]]), loaded.classes[&x]);
        assert_eq!(found, holds.then(|| Axes::one(1)));
    }
}
