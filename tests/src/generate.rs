//! Random well-typed graphs.
//!
//! A [`Recipe`] is a seed and a list of steps; [`grow`] makes each step one node (or none, where nothing fits). Nodes are
//! interpreted as they are added, so that types are known, indices lie in range, and most values stay finite and of
//! moderate size. Removing a step from a recipe gives another recipe: that is how failures shrink.

use hypatia_graph::array::element_count;
use hypatia_graph::interp::evaluate_node;
use std::sync::Arc;

use hypatia_graph::body::{Body, parameter};
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{
    Backward, Border, Bound, ConvAxis, Dim, Disconnected, Grad, Scan, ScanResult, SliceAxis, Write,
    known_dims,
};
use hypatia_graph::{
    Array, Axes, DType, Extent, Fold, Graph, LeafId, Literal, NodeId, Op, ScalarFn, TensorType, tensor,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use smallvec::SmallVec;

use crate::values::Generator;

mod updates;

pub use updates::grow_updates;

/// What a graph is grown from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Decides leaves, values and attributes.
    pub seed: u64,
    /// One node each.
    pub steps: Vec<u32>,
}

/// That many cases of a property, the same ones in every run: a test fails for what was changed, not by chance. Others,
/// and more, are tried with `PROPTEST_RNG_SEED` and `PROPTEST_CASES`.
pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Recipes of that many steps.
pub fn recipes(steps: std::ops::Range<usize>) -> impl Strategy<Value = Recipe> {
    (any::<u64>(), proptest::collection::vec(any::<u32>(), steps))
        .prop_map(|(seed, steps)| Recipe { seed, steps })
}

/// A random graph with arguments.
#[derive(Clone, Debug)]
pub struct Grown {
    /// The graph.
    pub graph: Graph,
    /// Its inputs.
    pub inputs: Vec<Array>,
}

/// What graphs may hold.
#[derive(Copy, Clone, Debug)]
pub struct Soil {
    /// The float type of most nodes.
    pub float: DType,
    /// Whether other float types occur, by conversion.
    pub mixed: bool,
    /// Whether some inputs have extents that only the call knows.
    pub symbolic: bool,
    /// Whether values that are not finite may occur.
    pub wild: bool,
    /// Whether leaves and constants are the numbers at which functions change: both zeros, infinities, NaN, subnormals,
    /// the ends of integers. Values of any size may then occur.
    pub special: bool,
    /// How deep scans may stand in each other; 0 for none.
    pub scans: usize,
}

/// The graph of a recipe.
pub fn grow(recipe: &Recipe, soil: Soil) -> Grown {
    let mut growth = Growth {
        graph: Graph::new(),
        values: Vec::new(),
        inputs: Vec::new(),
        generator: Generator(recipe.seed),
        soil,
    };
    growth.plant();
    for step in &recipe.steps {
        growth.generator = Generator(recipe.seed ^ (u64::from(*step) << 20));
        if soil.scans > 0 && step % 11 == 0 {
            growth.grow_scan();
        } else {
            growth.step(step % 64);
        }
    }
    growth.harvest();
    Grown { graph: growth.graph, inputs: growth.inputs }
}

/// Adds to the outputs the gradients of the sum of all float outputs with respect to all inputs and shared variables.
pub fn add_gradients(graph: &mut Graph) {
    let is_float = |graph: &Graph, id: NodeId| graph.ty(id).dtype.is_float();
    let mut origins: Vec<NodeId> = graph.outputs.iter().copied().filter(|id| is_float(graph, *id)).collect();
    origins.sort_unstable();
    origins.dedup();
    let live = graph.reachable();
    let mut variables: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    variables.retain(|id| live[id.index()] && is_float(graph, *id));
    // Nodes in between and constants may be one with others after simplification, and then move with them.
    let varies = |leaf: LeafId| {
        let kind = graph.leaf(leaf).map(|leaf| &leaf.kind);
        matches!(kind, Some(LeafKind::Input | LeafKind::Shared(_)))
    };
    variables.retain(|id| matches!(graph.node(*id).op, Op::Leaf(leaf) if varies(leaf)));
    let mut pairs = Vec::new();
    for origin in &origins {
        let Some(shape) = graph.ty(*origin).extents() else { continue };
        let one = Literal::from_i64(1, graph.ty(*origin).dtype);
        let cotangent = graph.add_uniform(one, &shape, None);
        pairs.extend([*origin, cotangent]);
    }
    for index in 0..variables.len() {
        let grad = Grad {
            index: index as u16,
            variables: variables.len() as u16,
            known: (pairs.len() / 2) as u16,
            constants: 0,
            has_cost: false,
            disconnected: Disconnected::Zero,
        };
        let operands: Vec<NodeId> = variables.iter().chain(&pairs).copied().collect();
        let gradient = graph.add(Op::Grad(Box::new(grad)), &operands, None);
        graph.outputs.push(gradient);
    }
}

struct Growth {
    graph: Graph,
    values: Vec<Array>,
    inputs: Vec<Array>,
    generator: Generator,
    soil: Soil,
}

/// The largest number of elements of a node.
const LARGEST: usize = 700;

impl Growth {
    fn extent(&mut self) -> usize {
        let extents = if self.soil.special { [1, 2, 3, 9, 2, 3, 4, 17] } else { [1, 2, 3, 4, 5, 17, 3, 2] };
        extents[self.generator.below(8)]
    }

    fn input(&mut self, dtype: DType, shape: &[usize], low: f64, high: f64) -> NodeId {
        let symbolic = self.soil.symbolic && self.generator.below(3) == 0;
        let extents: Vec<Extent> =
            shape.iter().map(|&n| if symbolic { Extent::Unknown } else { Extent::Known(n) }).collect();
        let name = format!("x{}", self.inputs.len());
        let input = tensor::input_of_type(&name, TensorType::new(dtype, &extents));
        let value = self.leaf_value(dtype, shape, low, high);
        self.inputs.push(value.clone());
        self.values.push(value);
        match input.leaf() {
            Some(leaf) => {
                self.graph.inputs.push(leaf.id);
                self.graph.add_leaf(leaf)
            }
            None => unreachable!("an input has a leaf"),
        }
    }

    /// The value of an input, a shared variable or a constant array.
    fn leaf_value(&mut self, dtype: DType, shape: &[usize], low: f64, high: f64) -> Array {
        if self.soil.special {
            self.generator.special_array(dtype, shape)
        } else {
            self.generator.array(dtype, shape, low, high)
        }
    }

    /// An input below `limit` that bounds and extents may be made of.
    fn count(&mut self, limit: usize) {
        let special = std::mem::replace(&mut self.soil.special, false);
        self.input(DType::I64, &[], 0.0, limit as f64);
        self.soil.special = special;
    }

    /// Inputs, shared variables and a constant, over few extents so that shapes meet.
    fn plant(&mut self) {
        let (m, n) = (self.extent(), self.extent());
        let float = self.soil.float;
        self.input(float, &[m, n], -2.0, 2.0);
        self.input(float, &[n], -2.0, 2.0);
        self.input(float, &[], 0.2, 1.5);
        self.input(DType::I64, &[m], -3.0, 4.0);
        self.count(3);
        self.input(DType::Bool, &[m, n], 0.0, 1.0);
        if self.soil.mixed {
            let dtype = [DType::F64, DType::F32, DType::I32, DType::U8][self.generator.below(4)];
            self.input(dtype, &[m, n], -3.0, 4.0);
        }
        for (name, shape) in [("w", vec![n, m]), ("b", vec![n])] {
            let value = self.leaf_value(float, &shape, -1.0, 1.0);
            self.graph.add_leaf(tensor::shared(name, value.clone()).leaf());
            self.values.push(value);
        }
        let value = self.leaf_value(float, &[m, n], -1.0, 1.0);
        if let Some(leaf) = tensor::constant(value.clone()).leaf() {
            self.graph.add_leaf(leaf);
            self.values.push(value);
        }
    }

    /// A node so far, more often a late one.
    fn pick(&mut self) -> NodeId {
        let count = self.values.len();
        let back = if self.generator.below(3) > 0 { count.min(6) } else { count };
        NodeId((count - 1 - self.generator.below(back)) as u32)
    }

    fn pick_where(&mut self, fits: impl Fn(&Array) -> bool) -> Option<NodeId> {
        let all: Vec<usize> = (0..self.values.len()).filter(|i| fits(&self.values[*i])).collect();
        let chosen = self.generator.below(all.len());
        all.get(chosen).map(|i| NodeId(*i as u32))
    }

    fn value(&self, id: NodeId) -> &Array {
        &self.values[id.index()]
    }

    /// Adds a node if it is well-typed, not too large and, unless wild ones are allowed, of moderate values.
    fn add(&mut self, op: Op, operands: &[NodeId]) -> Option<NodeId> {
        let given: Vec<&Array> = operands.iter().map(|o| &self.values[o.index()]).collect();
        let value = evaluate_node(&op, &given).ok()?;
        let moderate = |x: &Literal| x.to_f64().abs() < 1e6;
        let tame = !value.dtype().is_float() || (0..value.len()).all(|i| moderate(&value.get(i)));
        if value.len() > LARGEST
            || value.rank() > 4
            || !(tame || self.soil.special || self.soil.wild && self.generator.below(8) == 0)
        {
            return None;
        }
        let id = self.graph.add(op, operands, None);
        if id.index() == self.values.len() {
            self.values.push(value);
        }
        Some(id)
    }

    fn is_input(&self, id: NodeId) -> bool {
        !self.inputs.is_empty() && matches!(self.graph.node(id).op, Op::Leaf(_))
    }

    fn converted(&mut self, id: NodeId, dtype: DType) -> Option<NodeId> {
        if self.value(id).dtype() == dtype { Some(id) } else { self.add(Op::Cast(dtype), &[id]) }
    }

    /// An operand of that type and shape: one that is there, one repeated to it, or a number.
    fn partner(&mut self, dtype: DType, shape: &[usize]) -> Option<NodeId> {
        let choice = self.generator.below(6);
        let same = self.pick_where(|x| x.dtype() == dtype && x.shape() == shape);
        if let (Some(id), true) = (same, choice < 4) {
            return Some(id);
        }
        let suffix = self.pick_where(|x| {
            x.dtype() == dtype
                && x.rank() <= shape.len()
                && x.shape().iter().rev().zip(shape.iter().rev()).all(|(a, b)| a == b || *a == 1)
        });
        match suffix {
            Some(id) if choice != 5 => {
                let lead = shape.len() - self.value(id).rank();
                let axes = (lead..shape.len()).map(|axis| axis as u8).collect();
                self.add(Op::Broadcast { axes, dims: known_dims(shape) }, &[id])
            }
            _ => {
                let value = if self.soil.special {
                    self.generator.special(dtype)
                } else {
                    self.generator.between(-2.0, 3.0, dtype)
                };
                let scalar = self.add(Op::Literal(value), &[])?;
                let dims = known_dims(shape);
                self.add(Op::Broadcast { axes: SmallVec::new(), dims }, &[scalar])
            }
        }
    }

    fn some_dtype(&mut self) -> DType {
        let float = self.soil.float;
        let all = if self.soil.mixed {
            [float, float, DType::F32, DType::F64, DType::I32, DType::I64, DType::U8, DType::Bool]
        } else {
            [float, float, float, float, DType::I64, DType::I64, float, DType::Bool]
        };
        all[self.generator.below(all.len())]
    }

    /// One node; `None` where nothing fits.
    fn step(&mut self, kind: u32) -> Option<NodeId> {
        let x = self.pick();
        let (dtype, shape) = (self.value(x).dtype(), self.value(x).shape().to_vec());
        let rank = shape.len();
        let axis = self.generator.below(rank.max(1));
        match kind {
            0..=25 => {
                let f = ScalarFn::ALL[self.generator.below(ScalarFn::ALL.len())];
                self.map(f, x)
            }
            26..=31 => {
                // Arithmetic is what formulas are mostly made of.
                let f = [
                    ScalarFn::Add,
                    ScalarFn::Sub,
                    ScalarFn::Mul,
                    ScalarFn::Div,
                    ScalarFn::Select,
                    ScalarFn::Max,
                ];
                let chosen = self.generator.below(f.len());
                self.map(f[chosen], x)
            }
            32 => {
                let to = self.some_dtype();
                self.converted(x, to)
            }
            33..=37 => {
                let fold = Fold::ALL[self.generator.below(6)];
                let set: Axes = (0..rank).filter(|_| self.generator.below(2) == 0).collect();
                let wanted = if fold.takes(dtype) {
                    dtype
                } else if dtype == DType::Bool {
                    self.soil.float
                } else {
                    DType::Bool
                };
                let x = self.converted(x, wanted)?;
                self.add(Op::Reduce(fold, set), &[x])
            }
            38 if self.generator.below(3) == 0 => self.add(Op::ArgMax(axis as u8), &[x]),
            38 if self.generator.below(2) == 0 => {
                let set: Axes = (0..rank).filter(|_| self.generator.below(2) == 0).collect();
                let x = self.converted(x, if dtype.is_float() { dtype } else { self.soil.float })?;
                self.add(Op::Mean(set), &[x])
            }
            38 => {
                let x = self.converted(x, if dtype == DType::Bool { self.soil.float } else { dtype })?;
                self.add(Op::Cumsum(axis as u8), &[x])
            }
            39..=41 => self.dot(x),
            42 | 43 => self.conv(x),
            44..=46 => {
                let place = self.generator.below(rank + 1);
                let repeats = self.extent();
                let mut dims = shape.clone();
                dims.insert(place, repeats);
                let axes = (0..=rank).filter(|a| *a != place).map(|a| a as u8).collect();
                self.add(Op::Broadcast { axes, dims: known_dims(&dims) }, &[x])
            }
            47..=49 => {
                let total = element_count(&shape);
                let divisors: Vec<usize> = (1..=total.max(1)).filter(|d| total.is_multiple_of(*d)).collect();
                let d = divisors[self.generator.below(divisors.len())];
                let dims = match self.generator.below(3) {
                    0 => vec![total],
                    1 => vec![d, total / d],
                    _ => vec![total / d, 1, d],
                };
                self.add(Op::Reshape(known_dims(&dims)), &[x])
            }
            50 | 51 => {
                let mut permutation: SmallVec<[u8; 8]> = (0..rank as u8).collect();
                for i in (1..rank).rev() {
                    permutation.swap(i, self.generator.below(i + 1));
                }
                self.add(Op::Permute(permutation), &[x])
            }
            52..=54 => {
                let (axes, scalars) = self.bounds(&shape)?;
                let operands: Vec<NodeId> = [x].into_iter().chain(scalars).collect();
                self.add(Op::Slice(axes), &operands)
            }
            55 | 56 => {
                let (axes, scalars) = self.bounds(&shape)?;
                let operands: Vec<NodeId> = [x].into_iter().chain(scalars.iter().copied()).collect();
                let part = self.add(Op::Slice(axes.clone()), &operands)?;
                let part_shape = self.value(part).shape().to_vec();
                let y = self.partner(dtype, &part_shape)?;
                let write = self.write(dtype);
                let operands: Vec<NodeId> = [x, y].into_iter().chain(scalars).collect();
                self.add(Op::SetSlice(axes, write), &operands)
            }
            57 => {
                let y = self.pick_where(|y| {
                    y.dtype() == dtype
                        && y.rank() == rank
                        && (0..rank).all(|i| i == axis || y.shape()[i] == shape[i])
                });
                let y = y.unwrap_or(x);
                if rank == 0 { None } else { self.add(Op::Concat(axis as u8), &[x, y, x]) }
            }
            58 | 59 => {
                let (batch, indices) = self.indices(&shape)?;
                self.add(Op::Gather { batch }, &[x, indices])
            }
            60 | 61 => {
                let (batch, indices) = self.indices(&shape)?;
                let rows = self.add(Op::Gather { batch }, &[x, indices])?;
                let rows = self.value(rows).shape().to_vec();
                let y = self.partner(dtype, &rows)?;
                let write = self.write(dtype);
                self.add(Op::Scatter { batch, write }, &[x, indices, y])
            }
            62 => {
                let n = self.pick_where(|x| x.dtype() == DType::I64 && x.rank() == 0)?;
                match self.generator.below(4) {
                    0 => self.add(Op::Extent(axis as u8), &[x]),
                    // Only inputs of the function decide extents: others are refused when the graph is made concrete.
                    1 if self.is_input(n) => self.add(Op::Iota(Box::new([Dim::Operand])), &[n]),
                    2 => {
                        let dims = known_dims(&shape[..rank.min(2)]);
                        self.add(Op::Random { key: 7, dims }, &[n])
                    }
                    _ => self.add(Op::Iota(known_dims(&[5])), &[]),
                }
            }
            _ => self.add(Op::StopGradient, &[x]),
        }
    }

    /// A scan over some of the nodes, of as many steps as their leading axis is long, with a random body; all of its
    /// results, or none where one of them is not moderate.
    fn grow_scan(&mut self) -> Option<()> {
        let depth = self.soil.scans;
        let first = self.pick_where(|x| x.rank() > 0 && x.shape()[0] < 7);
        let length = first.map_or(3, |id| self.value(id).shape()[0]);
        let mut operands: Vec<NodeId> = Vec::new();
        for _ in 0..self.generator.below(3) {
            operands.extend(self.pick_where(|x| x.rank() > 0 && x.shape()[0] == length && x.rank() < 4));
        }
        let sequences = operands.len();
        for _ in 0..self.generator.below(4) {
            let id = self.pick();
            operands.push(id);
        }
        let inputs = operands.len();
        // A counter, for windows and random numbers that change from step to step.
        operands.extend(self.pick_where(|x| x.rank() == 0 && x.dtype() == DType::I64));
        for _ in 0..1 + self.generator.below(2) {
            let id = self.pick_where(|x| x.len() < 60)?;
            operands.push(id);
        }
        let mut body = Growth {
            graph: Graph::new(),
            values: Vec::new(),
            inputs: Vec::new(),
            generator: Generator(self.generator.next_u64()),
            soil: Soil { scans: depth - 1, ..self.soil },
        };
        let mut carries = Vec::new();
        for (position, id) in operands.iter().enumerate() {
            let (mut ty, mut value) = (self.graph.ty(*id).clone(), self.value(*id).clone());
            if position < sequences {
                ty.shape.remove(0);
                let mut element = Array::zeros(value.dtype(), &value.shape()[1..]).expect("a small array");
                if length > 0 {
                    (0..element.len()).for_each(|index| element.set(index, value.get(index)));
                }
                value = element;
            }
            let kind = if position < inputs { LeafKind::Input } else { LeafKind::Carry };
            let name = ["s", "c", "h"][usize::from(position >= sequences) + usize::from(position >= inputs)];
            let leaf = parameter(Some(format!("{name}{position}").into()), ty, kind);
            let node = body.graph.add_leaf(&leaf);
            body.values.push(value);
            if position < inputs {
                body.graph.inputs.push(leaf.id);
            } else {
                carries.push((leaf.id, node));
            }
        }
        for _ in 0..4 + body.generator.below(10) {
            let kind = body.generator.below(66) as u32;
            if kind >= 64 && body.soil.scans > 0 {
                body.grow_scan();
            } else {
                body.step(kind);
            }
        }
        // What the body gives: late nodes, as outputs and as next values.
        for _ in 0..1 + body.generator.below(3) {
            let output = body.pick();
            body.graph.outputs.push(output);
        }
        let until = (body.generator.below(3) == 0).then(|| body.condition()).flatten();
        body.graph.outputs.extend(until);
        for (position, (leaf, before)) in carries.iter().enumerate() {
            let (dtype, shape) = (body.value(*before).dtype(), body.value(*before).shape().to_vec());
            let counts = position == 0 && dtype == DType::I64 && shape.is_empty();
            let next = if counts {
                let one = body.add(Op::Literal(Literal::I64(1)), &[])?;
                body.add(Op::Map(ScalarFn::Add), &[*before, one])
            } else {
                let fits: Vec<usize> = (0..body.values.len())
                    .filter(|i| body.values[*i].dtype() == dtype && body.values[*i].shape() == shape)
                    .collect();
                // The latest is the likeliest to have been computed.
                let back = body.generator.below(3);
                fits.iter().rev().nth(back).or(fits.last()).map(|i| NodeId(*i as u32))
            };
            let next = next.filter(|next| body.graph.ty(*next) == body.graph.ty(*before)).unwrap_or(*before);
            body.graph.updates.push((*leaf, next));
        }
        let rows = body.graph.outputs.len() - usize::from(until.is_some());
        let body = Arc::new(Body::new(body.graph, sequences, until.is_some()));
        let count = carries.len();
        let steps = match first.filter(|_| self.generator.below(2) == 0) {
            Some(first) => {
                let length = self.add(Op::Extent(0), &[first])?;
                operands.push(length);
                Dim::Operand
            }
            None => Dim::Known(length),
        };
        let truncate = (self.generator.below(4) == 0).then(|| self.generator.below(5) as u32);
        let backward = Backward { truncate, checkpointed: self.generator.below(4) == 0 };
        let all = (0..rows).map(|row| ScanResult::Rows(row as u16));
        let all = all.chain((0..count).map(|carry| ScanResult::Last(carry as u16)));
        for result in all.chain([ScanResult::Steps]) {
            if self.generator.below(4) > 0 {
                let scan = Scan { body: body.clone(), steps, result, backward };
                self.add(Op::Scan(Box::new(scan)), &operands);
            }
        }
        Some(())
    }

    /// A truth value that is there, or whether a number exceeds another.
    fn condition(&mut self) -> Option<NodeId> {
        if let Some(id) = self.pick_where(|x| x.dtype() == DType::Bool && x.rank() == 0) {
            return Some(id);
        }
        let x = self.pick_where(|x| x.rank() == 0 && x.dtype() != DType::Bool)?;
        let limit = self.add(Op::Literal(Literal::from_i64(2, self.value(x).dtype())), &[])?;
        self.add(Op::Map(ScalarFn::Gt), &[x, limit])
    }

    fn write(&mut self, dtype: DType) -> Write {
        if dtype != DType::Bool && self.generator.below(2) == 0 { Write::Add } else { Write::Set }
    }

    fn map(&mut self, f: ScalarFn, x: NodeId) -> Option<NodeId> {
        let shape = self.value(x).shape().to_vec();
        let fits = |dtype: DType| {
            let mut dtypes = vec![dtype; f.arity()];
            if f == ScalarFn::Select {
                dtypes[0] = DType::Bool;
            }
            f.result_dtype(&dtypes).is_some()
        };
        let own = self.value(x).dtype();
        let wanted = [own, self.soil.float, DType::I64, DType::Bool].into_iter().find(|d| fits(*d))?;
        let x = self.converted(x, wanted)?;
        let mut operands = vec![x];
        if f == ScalarFn::Select {
            operands.insert(0, self.partner(DType::Bool, &shape)?);
        }
        while operands.len() < f.arity() {
            operands.push(self.partner(wanted, &shape)?);
        }
        if f != ScalarFn::Select && self.generator.below(2) == 0 {
            operands.reverse();
        }
        self.add(Op::Map(f), &operands)
    }

    fn dot(&mut self, x: NodeId) -> Option<NodeId> {
        let dtype =
            if self.value(x).dtype() == DType::Bool { self.soil.float } else { self.value(x).dtype() };
        let x = self.converted(x, dtype)?;
        let shape = self.value(x).shape().to_vec();
        let rank = shape.len();
        if !(2..=3).contains(&rank) {
            return None;
        }
        let inner = shape[rank - 1];
        let fits = |y: &Array| {
            y.dtype() == dtype
                && y.rank() == rank
                && y.shape()[rank - 2] == inner
                && (rank == 2 || y.shape()[0] == shape[0])
        };
        let y = match self.pick_where(fits) {
            Some(y) => y,
            None => {
                let last = rank as u8;
                let permutation = (0..last - 2).chain([last - 1, last - 2]).collect();
                self.add(Op::Permute(permutation), &[x])?
            }
        };
        self.add(Op::Dot, &[x, y])
    }

    /// A convolution of a value, whose last axes are images, channels and one or two along which filters move, with filters
    /// made of another value or of itself.
    fn conv(&mut self, x: NodeId) -> Option<NodeId> {
        let shape = self.value(x).shape().to_vec();
        let along = 1 + self.generator.below(2);
        if shape.len() < along + 2 || shape.len() > along + 3 {
            return None;
        }
        let dtype = self.value(x).dtype();
        let dtype = if dtype.is_float() { dtype } else { self.soil.float };
        let x = self.converted(x, dtype)?;
        let lead = shape.len() - along - 2;
        let fits = |w: &Array| {
            w.dtype() == dtype
                && w.rank() == shape.len()
                && w.shape()[..lead] == shape[..lead]
                && w.shape()[lead + 1] == shape[lead + 1]
        };
        let w = self.pick_where(fits)?;
        let border = |g: &mut Generator| match g.below(4) {
            0 => Border::Half,
            1 => Border::Full,
            _ => Border::Padded(g.below(3) as i64, g.below(4) as i64 - 1),
        };
        let mut axes = Vec::new();
        for _ in 0..along {
            let border = border(&mut self.generator);
            let [stride, spread, dilation] = [0; 3].map(|_| 1 + self.generator.below(5) / 3);
            axes.push(ConvAxis { border, stride, spread, dilation });
        }
        self.add(Op::Conv(axes.into()), &[x, w])
    }

    /// Bounds of a slice, now and then with operands: an input, and that plus a length.
    fn bounds(&mut self, shape: &[usize]) -> Option<(Box<[SliceAxis]>, Vec<NodeId>)> {
        let mut axes = Vec::new();
        let mut scalars = Vec::new();
        for &n in shape {
            let bound = |g: &mut Generator| match g.below(3) {
                0 => Bound::End,
                _ => Bound::Known(g.below(2 * n + 2) as i64 - n as i64 - 1),
            };
            let start = bound(&mut self.generator);
            let stop = bound(&mut self.generator);
            let axis = match self.generator.below(8) {
                0..=2 => SliceAxis::WHOLE,
                3 => SliceAxis::Range { start: Bound::End, stop: Bound::End, step: -1 },
                4 => SliceAxis::Range { start, stop, step: [-2, 2, 3][self.generator.below(3)] },
                5 if scalars.is_empty() && n >= 4 => {
                    // Below 3, in every step of a scan, so that the window lies inside.
                    let any = self.pick_where(|x| x.dtype() == DType::I64 && x.rank() == 0)?;
                    let input = if self.is_input(any) {
                        any
                    } else {
                        let three = self.add(Op::Literal(Literal::I64(3)), &[])?;
                        self.add(Op::Map(ScalarFn::Mod), &[any, three])?
                    };
                    let from = self.value(input).get(0).to_i64()?;
                    if !(0..3).contains(&from) {
                        return None;
                    }
                    let length = self.add(Op::Literal(Literal::I64(n as i64 - 2)), &[])?;
                    let to = self.add(Op::Map(ScalarFn::Add), &[input, length])?;
                    scalars.extend([input, to]);
                    SliceAxis::Range { start: Bound::Operand, stop: Bound::Operand, step: 1 }
                }
                _ => SliceAxis::Range { start, stop, step: 1 },
            };
            axes.push(axis);
        }
        Some((axes.into(), scalars))
    }

    /// Indices into a tensor of that shape, made by `mod` from integers that are there.
    fn indices(&mut self, shape: &[usize]) -> Option<(u8, NodeId)> {
        let vector = |x: &Array| x.dtype().is_int() && x.rank() == 1 && !x.is_empty();
        let batch = self.generator.below(2).min(shape.len().saturating_sub(1));
        let extent = *shape.get(batch)?;
        if extent == 0 {
            return None;
        }
        let indices = self.pick_where(vector)?;
        let mut indices = self.converted(indices, DType::I64)?;
        let count = self.value(indices).len();
        let modulus = self.add(Op::Literal(Literal::I64(extent as i64)), &[])?;
        let moduli =
            self.add(Op::Broadcast { axes: SmallVec::new(), dims: known_dims(&[count]) }, &[modulus])?;
        indices = self.add(Op::Map(ScalarFn::Mod), &[indices, moduli])?;
        if batch == 1 {
            let dims = known_dims(&[shape[0], count]);
            indices = self.add(Op::Broadcast { axes: SmallVec::from_slice(&[1]), dims }, &[indices])?;
        }
        Some((batch as u8, indices))
    }

    /// Chooses outputs and updates.
    fn harvest(&mut self) {
        let count = self.values.len();
        self.graph.outputs.push(NodeId((count - 1) as u32));
        for _ in 0..3 {
            let id = self.pick();
            self.graph.outputs.push(id);
        }
        let shared: Vec<_> = self.graph.shared_leaves();
        for (leaf, ty) in shared {
            let new = self.pick_where(|x| TensorType::known(x.dtype(), x.shape()) == ty);
            self.graph.updates.extend(new.map(|id| (leaf, id)));
        }
    }
}

/// The shared variables that stand in a graph.
trait SharedLeaves {
    fn shared_leaves(&self) -> Vec<(LeafId, TensorType)>;
}

impl SharedLeaves for Graph {
    fn shared_leaves(&self) -> Vec<(LeafId, TensorType)> {
        self.leaves()
            .filter(|leaf| matches!(leaf.kind, LeafKind::Shared(_)))
            .map(|leaf| (leaf.id, leaf.ty.clone()))
            .collect()
    }
}
