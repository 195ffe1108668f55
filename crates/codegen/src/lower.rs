//! From stored nodes to kernels: loops, index arithmetic, bodies.
//!
//! The kernel of a stored node asks for the value of one element at symbolic positions; inlined operands answer with
//! instructions, movements (permute, window, broadcast, reshape) by changing the positions, memory with a load. So
//! fusion is nothing but not stopping to ask.
#![warn(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hypatia_graph::array::{element_count, row_major_strides};
use hypatia_graph::op::{ConvAxis, Dim, IndexCheck, Scan, Start, View, WindowAxis, Write};
use hypatia_graph::scan_nodes::ScanKey;
use hypatia_graph::{Axes, Broken, DType, Fold, Graph, LeafId, Literal, NodeId, Op, ScalarFn, Site, broken};
use hypatia_kernels::convolution::Axis;
use smallvec::{SmallVec, smallvec};

use crate::fuse_update::Accumulation;
use crate::kernel::{
    Address, Affine, CarryPlace, ConvolutionKernel, Element, Instruction, Kernel, LoopKernel, Matrix, Param,
    Place, ProductKernel, RandomKernel, RowCarry, RuntimeStart, Scale, ScanKernel, Store, StoreKind, Strided,
    Value,
};
use crate::scan::{self, Results, StepGraph};
use crate::schedule::{Compute, Inline, Schedule, Whole, axis_groups};

/// The most elements along each axis, and axes, of a fold that is written out.
const FEW: usize = 4;
/// The most instructions of a fold that is written out.
const FEW_INSTRUCTIONS: usize = 80;
/// The extent from which an axis is worth being the innermost loop instead of one of a few elements.
const LONG: usize = 8;

/// Memory before it has a place: that of a leaf, of a stored node, or what a kernel needs besides.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Memory {
    /// An input, shared variable or constant.
    Leaf(LeafId),
    /// The value of a stored node.
    Node(NodeId),
    /// Bytes that the kernel of that node needs while it runs.
    Scratch(NodeId),
    /// What a stage of a long sum leaves to the next one, with the node and the number of the stage.
    Partial(NodeId, u16),
}

impl Memory {
    /// The memory of a leaf or a stored node.
    pub fn of(graph: &Graph, id: NodeId) -> Memory {
        if let Op::Leaf(leaf) = graph.node(id).op { Memory::Leaf(leaf) } else { Memory::Node(id) }
    }
}

/// A step before its memory has a place.
#[derive(Clone, Debug)]
pub struct UnplacedStep {
    /// What runs.
    pub kernel: Kernel,
    /// Memory for each parameter.
    pub arguments: Vec<Memory>,
    /// What it computes, for people.
    pub label: String,
    /// The user's line.
    pub site: Option<Site>,
}

/// The steps that compute every stored node, operands first.
pub fn lower(schedule: &Schedule<'_>) -> Result<Vec<UnplacedStep>, Broken> {
    let graph = schedule.graph;
    let live = graph.reachable();
    let mut lowering = Lowering { schedule, graph, scans: scan::results(graph, &live), steps: Vec::new() };
    for (id, _) in graph.nodes() {
        if live[id.index()] && schedule.is_stored(id) {
            lowering.node(id)?;
        }
    }
    Ok(lowering.steps)
}

struct Lowering<'g> {
    schedule: &'g Schedule<'g>,
    graph: &'g Graph,
    scans: BTreeMap<ScanKey<'g>, Results>,
    steps: Vec<UnplacedStep>,
}

impl<'g> Lowering<'g> {
    fn push(&mut self, id: NodeId, kernel: Kernel, arguments: Vec<Memory>) {
        let node = self.graph.node(id);
        let label = self.graph.name(id).unwrap_or(node.op.name()).to_string();
        self.steps.push(UnplacedStep { kernel, arguments, label, site: node.site });
    }

    fn node(&mut self, id: NodeId) -> Result<(), Broken> {
        let node = self.graph.node(id);
        let operands = &node.operands;
        let whole = match self.schedule.compute(id) {
            Compute::Whole(whole) => whole,
            Compute::Leaf | Compute::Inline(_) => return self.copy(id, id),
        };
        match whole {
            Whole::Reduce(fold, axes) => self.reduce(id, operands[0], axes, StoreKind::Fold(fold)),
            Whole::ArgMax(axis) => self.reduce(id, operands[0], Axes::one(axis), StoreKind::ArgMax),
            Whole::Product if node.ty.dtype.is_float() => {
                self.product(id, id, [Scale::Constant(1.0), Scale::Constant(0.0)], Vec::new(), Vec::new())
            }
            Whole::Product => self.integer_product(id),
            Whole::Convolution(axes) => self.convolution(id, axes),
            Whole::Accumulation(form) => self.accumulate(id, form),
            Whole::Concat(axis) => {
                let extents = self.schedule.shape(id);
                let mut begin = 0;
                for &part in operands {
                    let mut window: SmallVec<[WindowAxis; 4]> =
                        extents.iter().map(|n| WindowAxis::whole(*n)).collect();
                    window[axis].start = Start::Known(begin);
                    begin += self.schedule.shape(part)[axis];
                    self.write_window(id, part, &window, &[], Write::Set)?;
                }
                Ok(())
            }
            Whole::SetWindow(window, write) => {
                self.copy(id, operands[0])?;
                self.write_window(id, operands[1], window, &operands[2..], write)
            }
            Whole::Scatter(axis, write) => {
                self.copy(id, operands[0])?;
                self.scatter(id, [operands[1], operands[2]], axis, write)
            }
            Whole::Random(key) => {
                self.random(id, operands[0], key);
                Ok(())
            }
            Whole::Scan(scan) => self.scan(id, scan),
        }
    }

    /// The kernel of a scan, which comes where the first of its results is due.
    fn scan(&mut self, id: NodeId, scan: &'g Scan) -> Result<(), Broken> {
        let node = self.graph.node(id);
        let key = ScanKey::new(scan, &node.operands);
        let results = self.scans.get(&key).ok_or_else(|| broken!("the results of a scan"))?.clone();
        let Dim::Known(steps) = scan.steps else { return Err(broken!("a known number of steps")) };
        if results.live.first() != Some(&id) {
            return Ok(());
        }
        let StepGraph { graph: step, rows: row_of } = scan::step_graph(&scan.body, &results)?;
        let program = crate::unverified(&step)?;
        let (inputs, initial) = node.operands.split_at(scan.body.inputs());
        let mut body = Body::new(self.schedule, id, &[]);
        let inputs = inputs.iter().enumerate();
        let inputs = inputs
            .map(|(index, input)| body.element(*input, index < scan.body.sequences))
            .collect::<Result<_, _>>()?;
        let rows: Vec<Element> = results
            .rows
            .values()
            .map(|row| {
                let stride = self.schedule.shape(*row)[1..].iter().product::<usize>() as i64;
                Element { param: body.param(*row, true), offset: 0, stride }
            })
            .collect();
        // The shared variables of the body in their order, then the carries that no step reads.
        let leaves = scan.body.graph.updates.iter().map(|(leaf, _)| leaf);
        let mut order: Vec<(Option<usize>, usize)> = leaves
            .enumerate()
            .map(|(carry, leaf)| (program.shared.binary_search(leaf).ok(), carry))
            .collect();
        order.sort_unstable_by_key(|(place, carry)| (place.is_none(), *place, *carry));
        let mut carries = Vec::new();
        for (place, carry) in order {
            let last =
                *results.last.get(&(carry as u16)).ok_or_else(|| broken!("the last value of a carry"))?;
            let kept = results.live.contains(&last);
            if place.is_none() && !kept {
                continue;
            }
            self.copy(last, initial[carry])?;
            let row = row_of[carry].map(|output| RowCarry { output, kept });
            carries.push(CarryPlace { param: body.param(last, true), row });
        }
        let made = results.made.map(|made| body.param(made, true));
        let condition = scan.body.until.then_some(program.arena_bytes);
        let bytes = program.arena_bytes + usize::from(scan.body.until);
        // What has no elements takes no bytes of the arena, and lies in it all the same.
        let in_arena = program.buffers.iter().any(|buffer| matches!(buffer.place, Place::Arena(_)));
        let arena = (bytes > 0 || in_arena).then(|| body.scratch(bytes.max(1)));
        let until =
            condition.zip(arena).map(|(offset, param)| Element { param, offset: offset as i64, stride: 0 });
        let kernel = ScanKernel {
            steps,
            body: Arc::new(program),
            inputs,
            carries,
            rows,
            until,
            made,
            arena,
            params: body.kernel.params,
        };
        let arguments = body.arguments;
        self.push(id, Kernel::Scan(kernel), arguments);
        Ok(())
    }

    fn random(&mut self, id: NodeId, counter: NodeId, key: u64) {
        let len = element_count(&self.schedule.shape(id));
        if len == 0 {
            return;
        }
        let kernel = RandomKernel {
            key,
            counter: 0,
            out: 1,
            params: vec![
                Param { dtype: DType::I64, len: 1, written: false },
                Param { dtype: DType::F32, len, written: true },
            ],
        };
        let arguments = vec![Memory::of(self.graph, counter), Memory::Node(id)];
        self.push(id, Kernel::Random(kernel), arguments);
    }

    /// Writes the value of `value`, computed element by element, to the memory of `id`.
    fn copy(&mut self, id: NodeId, value: NodeId) -> Result<(), Broken> {
        let mut body = Body::new(self.schedule, id, &self.schedule.shape(id));
        let position = body.iterations();
        let element = body.value(value, &position)?;
        let address = body.address(id, &position, true);
        body.kernel.stores.push(Store { address, value: element, kind: StoreKind::Plain });
        self.finish(id, body);
        Ok(())
    }

    /// A fold over a few elements that lie beside others, as in pooling: the elements by name, joined one after another as a
    /// loop would. `None` where a loop is better: there are more, or computing them takes more.
    fn small_fold(
        &mut self,
        id: NodeId,
        operand: NodeId,
        axes: Axes,
        fold: Fold,
    ) -> Result<Option<()>, Broken> {
        let extents = self.schedule.shape(operand);
        let folded: SmallVec<[usize; 4]> = axes.iter().map(|axis| extents[axis]).collect();
        let count = element_count(&folded);
        let few = folded.len() > 1 && folded.iter().all(|n| (1..=FEW).contains(n)) && count <= FEW * FEW;
        let kept = self.schedule.shape(id);
        if !few || element_count(&kept) == 0 {
            return Ok(None);
        }
        let mut body = Body::new(self.schedule, id, &kept);
        let own = body.iterations();
        let dtype = self.graph.ty(id).dtype;
        let mut total = body.push(Instruction::Literal(fold.identity(dtype)), dtype);
        for element in 0..count {
            let mut rest = element;
            let mut others = own.iter();
            let mut position: SmallVec<[Affine; 4]> = smallvec![body.origin(); extents.len()];
            for axis in (0..extents.len()).rev().filter(|axis| axes.contains(*axis)) {
                position[axis].offset = (rest % extents[axis]) as i64;
                rest /= extents[axis];
            }
            for axis in axes.others(extents.len()) {
                position[axis] = others.next().ok_or_else(|| broken!("an axis of the fold {id}"))?.clone();
            }
            let value = body.value(operand, &position)?;
            total = body.push(Instruction::Map(fold.join(), smallvec![total, value]), dtype);
        }
        if body.kernel.body.len() > FEW_INSTRUCTIONS {
            return Ok(None);
        }
        let address = body.address(id, &own, true);
        body.kernel.stores.push(Store { address, value: total, kind: StoreKind::Plain });
        self.finish(id, body);
        Ok(Some(()))
    }

    fn reduce(&mut self, id: NodeId, operand: NodeId, axes: Axes, kind: StoreKind) -> Result<(), Broken> {
        if let StoreKind::Fold(fold) = kind
            && self.small_fold(id, operand, axes, fold)?.is_some()
        {
            return Ok(());
        }
        let extents = self.schedule.shape(operand);
        let mut body = Body::new(self.schedule, id, &extents);
        let position = body.iterations();
        let element = body.value(operand, &position)?;
        let kept: SmallVec<[Affine; 4]> =
            axes.others(extents.len()).map(|axis| position[axis].clone()).collect();
        let address = body.address(id, &kept, true);
        body.kernel.reduced = (0..extents.len()).map(|axis| axes.contains(axis)).collect();
        body.kernel.stores.push(Store { address, value: element, kind });
        self.finish(id, body);
        Ok(())
    }

    /// The region of `id`'s memory that a window describes is replaced by `part`, or `part` is added to it.
    fn write_window(
        &mut self,
        id: NodeId,
        part: NodeId,
        window: &[WindowAxis],
        starts: &[NodeId],
        write: Write,
    ) -> Result<(), Broken> {
        let part_extents = self.schedule.shape(part);
        let mut body = Body::new(self.schedule, id, &part_extents);
        let position = body.iterations();
        let mut element = body.value(part, &position)?;
        let region = body.window(window, starts, &self.schedule.shape(id), &position)?;
        let address = body.address(id, &region, true);
        if write == Write::Add {
            let old = body.push(Instruction::Load(address.clone()), self.graph.ty(id).dtype);
            element =
                body.push(Instruction::Map(ScalarFn::Add, smallvec![old, element]), self.graph.ty(id).dtype);
        }
        body.kernel.stores.push(Store { address, value: element, kind: StoreKind::Plain });
        self.finish(id, body);
        Ok(())
    }

    fn scatter(
        &mut self,
        id: NodeId,
        [indices, rows]: [NodeId; 2],
        batch: usize,
        write: Write,
    ) -> Result<(), Broken> {
        let extents = self.schedule.shape(id);
        let mut body = Body::new(self.schedule, id, &self.schedule.shape(rows));
        let position = body.iterations();
        let element = body.value(rows, &position)?;
        let index = body.value(indices, &position[..=batch])?;
        let index =
            body.push(Instruction::Index { index, extent: extents[batch], axis: batch as u8 }, DType::I64);
        let mut row = position.clone();
        row[batch] = body.origin();
        let stride = row_major_strides(&extents)[batch] as i64;
        let address = body.address(id, &row, true);
        body.kernel.stores.push(Store {
            address,
            value: element,
            kind: StoreKind::At { index, stride, write },
        });
        self.finish(id, body);
        Ok(())
    }

    /// `beta C + alpha A B` into the memory of `id`; the operands are those of the product node. Scales that are
    /// parameters are the given ones.
    fn product(
        &mut self,
        id: NodeId,
        product: NodeId,
        [alpha, beta]: [Scale; 2],
        params: Vec<Param>,
        arguments: Vec<Memory>,
    ) -> Result<(), Broken> {
        let node = self.graph.node(product);
        let extents = self.schedule.shape(product);
        let rank = extents.len();
        let mut body = Body::new(self.schedule, id, &[]);
        body.kernel.params = params;
        body.arguments = arguments;
        let [a, b] = [body.matrix(node.operands[0])?, body.matrix(node.operands[1])?];
        let k = self.schedule.shape(node.operands[0])[rank - 1];
        let c = Matrix {
            param: body.param(id, true),
            position: Affine::default(),
            batch_stride: if rank == 3 { (extents[1] * extents[2]) as i64 } else { 0 },
            row_stride: extents[rank - 1] as i64,
            column_stride: 1,
        };
        let kernel = ProductKernel {
            dtype: node.ty.dtype,
            batch: if rank == 3 { extents[0] } else { 1 },
            m: extents[rank - 2],
            n: extents[rank - 1],
            k,
            a,
            b,
            c,
            alpha,
            beta,
            params: body.kernel.params,
            starts: body.kernel.starts,
        };
        let arguments = body.arguments;
        self.push(id, Kernel::Product(kernel), arguments);
        Ok(())
    }

    fn convolution(&mut self, id: NodeId, axes: &[ConvAxis]) -> Result<(), Broken> {
        let node = self.graph.node(id);
        let shape = self.schedule.shape(id);
        if element_count(&shape) == 0 {
            return Ok(());
        }
        let [x, w] = [0, 1].map(|operand: usize| self.schedule.shape(node.operands[operand]));
        let lead = x.len() - 2 - axes.len();
        let along = |(number, axis): (usize, &ConvAxis)| {
            let at = lead + 2 + number;
            let low = axis.padding(w[at])[0] as isize;
            let ConvAxis { stride, spread, dilation, .. } = *axis;
            Axis { input: x[at], taps: w[at], result: shape[at], low, stride, spread, dilation }
        };
        let mut body = Body::new(self.schedule, id, &[]);
        let (from, by) = (body.elements(node.operands[0])?, body.elements(node.operands[1])?);
        let kernel = ConvolutionKernel {
            dtype: node.ty.dtype,
            lead: x[..lead].into(),
            images: x[lead],
            filters: w[lead],
            channels: x[lead + 1],
            axes: axes.iter().enumerate().map(along).collect(),
            x: from,
            w: by,
            out: body.param(id, true),
            params: body.kernel.params,
            starts: body.kernel.starts,
        };
        let arguments = body.arguments;
        self.push(id, Kernel::Convolution(kernel), arguments);
        Ok(())
    }

    /// The form that [`crate::fuse_update`] leaves: `beta W + alpha (A . B)` is a copy of W, which placing elides when the
    /// result may lie in W's own memory, and a product that accumulates.
    fn accumulate(&mut self, id: NodeId, form: Accumulation) -> Result<(), Broken> {
        self.copy(id, form.base)?;
        let mut params = Vec::new();
        let mut arguments = Vec::new();
        let mut scale = |scale: NodeId| match self.graph.uniform(scale) {
            Some(value) => Scale::Constant(value.to_f64()),
            None => {
                let memory = Memory::of(self.graph, scale);
                params.push(Param { dtype: self.graph.ty(scale).dtype, len: 1, written: false });
                arguments.push(memory);
                Scale::Param(params.len() as u16 - 1)
            }
        };
        let scales = [scale(form.alpha), scale(form.beta)];
        self.product(id, form.product, scales, params, arguments)
    }

    /// A product of integers, as a fold of elementwise products.
    fn integer_product(&mut self, id: NodeId) -> Result<(), Broken> {
        let operands = &self.graph.node(id).operands;
        let (a, b) = (operands[0], operands[1]);
        let extents = self.schedule.shape(id);
        let rank = extents.len();
        let mut loops = extents.clone();
        loops.push(self.schedule.shape(a)[rank - 1]);
        let mut body = Body::new(self.schedule, id, &loops);
        let p = body.iterations();
        let lead = &p[..rank - 2];
        let at = |x: &Affine, y: &Affine| -> SmallVec<[Affine; 4]> {
            lead.iter().cloned().chain([x.clone(), y.clone()]).collect()
        };
        let (row, inner, column) = (&p[rank - 2], &p[rank], &p[rank - 1]);
        let left = body.value(a, &at(row, inner))?;
        let right = body.value(b, &at(inner, column))?;
        let dtype = self.graph.ty(id).dtype;
        let term = body.push(Instruction::Map(ScalarFn::Mul, smallvec![left, right]), dtype);
        let address = body.address(id, &p[..rank], true);
        body.kernel.reduced[rank] = true;
        body.kernel.stores.push(Store { address, value: term, kind: StoreKind::Fold(Fold::Sum) });
        self.finish(id, body);
        Ok(())
    }

    fn finish(&mut self, id: NodeId, mut body: Body<'_>) {
        // Nothing to write; an empty fold still writes its identity.
        let kept = body.kernel.extents.iter().zip(&body.kernel.reduced).filter(|(_, reduced)| !**reduced);
        if kept.map(|(n, _)| *n).product::<usize>() == 0 {
            return;
        }
        tidy(&mut body.kernel);
        let arguments = body.arguments;
        self.push(id, Kernel::Loop(body.kernel), arguments);
    }
}

/// A loop kernel being written.
struct Body<'g> {
    graph: &'g Graph,
    schedule: &'g Schedule<'g>,
    /// The node whose value is computed; it is not loaded, although it is stored.
    root: NodeId,
    kernel: LoopKernel,
    arguments: Vec<Memory>,
    memo: HashMap<(NodeId, SmallVec<[Affine; 4]>), Value>,
    known: HashMap<Instruction, Value>,
}

impl<'g> Body<'g> {
    fn new(schedule: &'g Schedule<'g>, root: NodeId, extents: &[usize]) -> Body<'g> {
        let kernel = LoopKernel {
            extents: extents.into(),
            reduced: smallvec![false; extents.len()],
            ..LoopKernel::default()
        };
        Body {
            graph: schedule.graph,
            schedule,
            root,
            kernel,
            arguments: Vec::new(),
            memo: HashMap::new(),
            known: HashMap::new(),
        }
    }

    fn push(&mut self, instruction: Instruction, dtype: DType) -> Value {
        if let Some(value) = self.known.get(&instruction) {
            return *value;
        }
        let value = Value(self.kernel.body.len() as u32);
        self.known.insert(instruction.clone(), value);
        self.kernel.body.push(instruction);
        self.kernel.types.push(dtype);
        value
    }

    /// The position 0 along an axis.
    fn origin(&self) -> Affine {
        Affine { offset: 0, strides: smallvec![0; self.kernel.extents.len()], starts: smallvec![] }
    }

    /// The positions of the iteration itself, one for each loop axis.
    fn iterations(&self) -> SmallVec<[Affine; 4]> {
        (0..self.kernel.extents.len())
            .map(|axis| {
                let mut position = self.origin();
                position.strides[axis] = 1;
                position
            })
            .collect()
    }

    /// The parameter that is the memory of a node.
    fn param(&mut self, id: NodeId, written: bool) -> u16 {
        let memory = Memory::of(self.graph, id);
        let known = self
            .arguments
            .iter()
            .zip(&self.kernel.params)
            .position(|(m, p)| *m == memory && p.written == written);
        if let Some(index) = known {
            return index as u16;
        }
        let (dtype, len) = (self.graph.ty(id).dtype, element_count(&self.schedule.shape(id)));
        self.kernel.params.push(Param { dtype, len, written });
        self.arguments.push(memory);
        (self.arguments.len() - 1) as u16
    }

    /// A parameter of that many bytes for the kernel's own use.
    fn scratch(&mut self, bytes: usize) -> u16 {
        self.kernel.params.push(Param { dtype: DType::U8, len: bytes, written: true });
        self.arguments.push(Memory::Scratch(self.root));
        (self.arguments.len() - 1) as u16
    }

    /// Whether the value of a node is read from memory, and not computed here.
    fn is_memory(&self, id: NodeId) -> bool {
        match self.schedule.compute(id) {
            Compute::Leaf => true,
            Compute::Inline(_) | Compute::Whole(_) => self.schedule.is_stored(id) && id != self.root,
        }
    }

    /// Where an element of a node's memory lies, given its position along each axis.
    fn address(&mut self, id: NodeId, position: &[Affine], written: bool) -> Address {
        let position = self.linear(&self.schedule.shape(id), position);
        Address { param: self.param(id, written), position }
    }

    fn linear(&self, extents: &[usize], position: &[Affine]) -> Affine {
        let strides = row_major_strides(extents);
        let mut sum = self.origin();
        for (axis, stride) in position.iter().zip(strides) {
            sum = sum.plus(axis, stride as i64);
        }
        sum
    }

    /// Positions in the operand of a view, given positions in the view; `None` where they are not affine.
    fn moved(
        &mut self,
        id: NodeId,
        view: View<'_>,
        position: &[Affine],
    ) -> Result<Option<SmallVec<[Affine; 4]>>, Broken> {
        let operands = &self.graph.node(id).operands;
        let from = self.schedule.shape(operands[0]);
        Ok(Some(match view {
            View::Same => position.into(),
            View::Permute(permutation) => {
                let mut moved: SmallVec<[Affine; 4]> = position.into();
                for (to, &axis) in permutation.iter().enumerate() {
                    moved[usize::from(axis)] = position[to].clone();
                }
                moved
            }
            View::Broadcast(axes) => {
                let place = |(own, &axis): (usize, &u8)| {
                    if from[own] == 1 { self.origin() } else { position[usize::from(axis)].clone() }
                };
                axes.iter().enumerate().map(place).collect()
            }
            View::Window(window) => self.window(window, &operands[1..], &from, position)?,
            View::Reshape => {
                let to = self.schedule.shape(id);
                let mut moved: SmallVec<[Affine; 4]> = smallvec![self.origin(); from.len()];
                let Some(groups) = axis_groups(&from, &to) else { return Ok(None) };
                for (own, result) in groups {
                    let mut long = own.clone().filter(|axis| from[*axis] != 1);
                    let Some(axis) = long.next() else { continue };
                    if long.next().is_some() {
                        return Ok(None);
                    }
                    moved[axis] = self.linear(&to[result.clone()], &position[result]);
                }
                moved
            }
            View::Slice => return Err(broken!("resolved bounds of {id}", "a slice")),
        }))
    }

    /// Positions in the whole, given positions in a window of it.
    fn window(
        &mut self,
        window: &[WindowAxis],
        starts: &[NodeId],
        extents: &[usize],
        position: &[Affine],
    ) -> Result<SmallVec<[Affine; 4]>, Broken> {
        let mut starts = starts.iter();
        let mut moved = SmallVec::new();
        for (number, ((axis, part), &extent)) in position.iter().zip(window).zip(extents).enumerate() {
            let mut whole = self.origin().plus(axis, part.step);
            match part.start {
                Start::Known(start) => whole.offset += start as i64,
                Start::Operand | Start::Range => {
                    let start = starts.next().zip(part.check(number, extent));
                    let (start, check) =
                        start.ok_or_else(|| broken!("an operand for the start of a window"))?;
                    self.add_start(&mut whole, *start, check);
                }
            }
            moved.push(whole);
        }
        Ok(moved)
    }

    fn add_start(&mut self, position: &mut Affine, start: NodeId, check: IndexCheck) {
        let IndexCheck { axis, extent, len, is_range } = check;
        let param = self.param(start, false);
        let start = RuntimeStart { param, extent, limit: extent.saturating_sub(len), axis, is_range };
        let known = self.kernel.starts.iter().position(|s| *s == start);
        let index = known.unwrap_or_else(|| {
            self.kernel.starts.push(start);
            self.kernel.starts.len() - 1
        });
        position.starts.push((index as u16, 1));
    }

    /// Memory and place of an element, if a node is memory under views.
    fn chase(&mut self, mut id: NodeId, position: &[Affine]) -> Result<Option<Address>, Broken> {
        let mut position: SmallVec<[Affine; 4]> = position.into();
        while !self.is_memory(id) {
            let Some(view) = self.schedule.view(id) else { return Ok(None) };
            let operand = self.schedule.viewed(id);
            if matches!(view, View::Reshape) && self.schedule.is_contiguous(operand) {
                // Row-major order is the same under every shape.
                let linear = self.linear(&self.schedule.shape(id), &position);
                let mut base = operand;
                while !self.is_memory(base) && self.schedule.view(base).is_some() {
                    base = self.schedule.viewed(base);
                }
                let address = Address { param: self.param(base, false), position: linear };
                return Ok(self.is_memory(base).then_some(address));
            }
            let Some(moved) = self.moved(id, view, &position)? else { return Ok(None) };
            (id, position) = (operand, moved);
        }
        Ok(Some(self.address(id, &position, false)))
    }

    /// The address of the elements of a node that is memory under views, with a stride for each of its axes.
    fn strided(&mut self, id: NodeId) -> Result<Address, Broken> {
        let extents = self.schedule.shape(id);
        // Axes of the node stand in for loop axes, so that the address has a stride for each.
        let mut probe = Body::new(self.schedule, self.root, &extents);
        std::mem::swap(&mut probe.kernel.params, &mut self.kernel.params);
        std::mem::swap(&mut probe.kernel.starts, &mut self.kernel.starts);
        std::mem::swap(&mut probe.arguments, &mut self.arguments);
        let position = probe.iterations();
        let address = probe.chase(id, &position);
        std::mem::swap(&mut probe.kernel.params, &mut self.kernel.params);
        std::mem::swap(&mut probe.kernel.starts, &mut self.kernel.starts);
        std::mem::swap(&mut probe.arguments, &mut self.arguments);
        address?.ok_or_else(|| broken!("the memory of {id}", "a computed value"))
    }

    /// An operand of a scan as its steps see it: rows along the leading axis, or the whole.
    fn element(&mut self, id: NodeId, is_sequence: bool) -> Result<Element, Broken> {
        let Address { param, position } = self.strided(id)?;
        let stride = if is_sequence { position.strides[0] } else { 0 };
        Ok(Element { param, offset: position.offset, stride })
    }

    /// A node as elements in memory, with a distance along each of its axes.
    fn elements(&mut self, id: NodeId) -> Result<Strided, Broken> {
        let Address { param, mut position } = self.strided(id)?;
        let strides = std::mem::take(&mut position.strides);
        Ok(Strided { param, position, strides })
    }

    /// A node of rank 2 or 3 as matrices in memory.
    fn matrix(&mut self, id: NodeId) -> Result<Matrix, Broken> {
        let address = self.strided(id)?;
        let rank = self.schedule.shape(id).len();
        let strides = &address.position.strides;
        Ok(Matrix {
            param: address.param,
            batch_stride: if rank == 3 { strides[0] } else { 0 },
            row_stride: strides[rank - 2],
            column_stride: strides[rank - 1],
            position: Affine {
                offset: address.position.offset,
                strides: smallvec![],
                starts: address.position.starts,
            },
        })
    }

    /// The instruction that gives the element of a node at a position.
    fn value(&mut self, id: NodeId, position: &[Affine]) -> Result<Value, Broken> {
        let key = (id, SmallVec::from(position));
        if let Some(value) = self.memo.get(&key) {
            return Ok(*value);
        }
        let value = self.compute(id, position)?;
        self.memo.insert(key, value);
        Ok(value)
    }

    fn compute(&mut self, id: NodeId, position: &[Affine]) -> Result<Value, Broken> {
        let node = self.graph.node(id);
        let dtype = node.ty.dtype;
        if let Some(address) = self.chase(id, position)? {
            return Ok(self.push(Instruction::Load(address), dtype));
        }
        let Compute::Inline(inline) = self.schedule.compute(id) else {
            return Err(broken!("the memory of {id}", node.op.name()));
        };
        let instruction = match inline {
            Inline::Literal(value) => Instruction::Literal(value),
            Inline::Position => Instruction::Position(position[0].clone()),
            Inline::Map(f) => {
                let operands = node.operands.iter().map(|o| self.value(*o, position));
                Instruction::Map(f, operands.collect::<Result<_, _>>()?)
            }
            Inline::Cast(to) => Instruction::Cast(to, self.value(node.operands[0], position)?),
            Inline::Gather(axis) => return self.gather(id, axis, position),
            Inline::OneHot(axis, write) => return self.one_hot(id, axis, write, position),
            Inline::View(view) => {
                let moved = self.moved(id, view, position)?;
                let moved = moved.ok_or_else(|| broken!("affine positions in a view {id}", "others"))?;
                return self.value(node.operands[0], &moved);
            }
        };
        Ok(self.push(instruction, dtype))
    }

    fn gather(&mut self, id: NodeId, batch: usize, position: &[Affine]) -> Result<Value, Broken> {
        let operands = &self.graph.node(id).operands;
        let (x, indices) = (operands[0], operands[1]);
        let extent = self.schedule.shape(x)[batch];
        let index = self.value(indices, &position[..=batch])?;
        let index = self.push(Instruction::Index { index, extent, axis: batch as u8 }, DType::I64);
        let mut row: SmallVec<[Affine; 4]> = position.into();
        row[batch] = self.origin();
        let begin = self.chase(x, &row)?;
        row[batch].offset = 1;
        let next = self.chase(x, &row)?;
        let (address, next) =
            begin.zip(next).ok_or_else(|| broken!("the memory of {x}", "a computed value"))?;
        let stride = next.position.offset - address.position.offset;
        Ok(self.push(Instruction::LoadAt { address, index, stride }, self.graph.ty(id).dtype))
    }

    /// Each element compares its position with the index of its row.
    fn one_hot(
        &mut self,
        id: NodeId,
        batch: usize,
        write: Write,
        position: &[Affine],
    ) -> Result<Value, Broken> {
        let operands = &self.graph.node(id).operands;
        let dtype = self.graph.ty(id).dtype;
        let old = self.value(operands[0], position)?;
        let mut row: SmallVec<[Affine; 4]> = position.into();
        row[batch] = self.origin();
        let index = self.value(operands[1], &row[..=batch])?;
        let extent = self.schedule.shape(id)[batch];
        let index = self.push(Instruction::Index { index, extent, axis: batch as u8 }, DType::I64);
        let here = self.push(Instruction::Position(position[batch].clone()), DType::I64);
        let hit = self.push(Instruction::Map(ScalarFn::Eq, smallvec![here, index]), DType::Bool);
        let new = self.value(operands[2], &row)?;
        let new = match write {
            Write::Set => new,
            Write::Add => self.push(Instruction::Map(ScalarFn::Add, smallvec![old, new]), dtype),
        };
        Ok(self.push(Instruction::Map(ScalarFn::Select, smallvec![hit, new, old]), dtype))
    }
}

impl Affine {
    /// This plus `factor` times another.
    fn plus(&self, other: &Affine, factor: i64) -> Affine {
        let mut sum = self.clone();
        sum.offset += other.offset * factor;
        for (own, stride) in sum.strides.iter_mut().zip(&other.strides) {
            *own += stride * factor;
        }
        for &(start, coefficient) in &other.starts {
            match sum.starts.iter_mut().find(|(s, _)| *s == start) {
                Some((_, own)) => *own += coefficient * factor,
                None => sum.starts.push((start, coefficient * factor)),
            }
        }
        sum
    }
}

/// Every affine expression of a kernel.
pub(crate) fn affines(kernel: &mut LoopKernel) -> impl Iterator<Item = &mut Affine> {
    let body = kernel.body.iter_mut().filter_map(|instruction| match instruction {
        Instruction::Load(address) | Instruction::LoadAt { address, .. } => Some(&mut address.position),
        Instruction::Position(position) => Some(position),
        Instruction::Literal(_)
        | Instruction::Index { .. }
        | Instruction::Map(..)
        | Instruction::Cast(..) => None,
    });
    body.chain(kernel.stores.iter_mut().map(|store| &mut store.address.position))
}

/// Puts the loops into their final form: no axis of extent 1, folds innermost unless the innermost axis is kept,
/// neighbouring axes that every address crosses in one stride joined into one, no fold over nothing, a few elements not the
/// innermost loop where there is a longer one.
pub(crate) fn tidy(kernel: &mut LoopKernel) {
    let rank = kernel.extents.len();
    let last = (0..rank).rev().find(|&axis| kernel.extents[axis] != 1);
    let mut order: SmallVec<[usize; 8]> = (0..rank).filter(|&axis| kernel.extents[axis] != 1).collect();
    let in_order =
        kernel.stores.iter().any(|store| matches!(store.kind, StoreKind::At { .. } | StoreKind::ArgMax));
    if let Some(last) = last
        && (!in_order || kernel.stores.iter().any(|store| store.kind == StoreKind::ArgMax))
    {
        let argmax = in_order;
        order.sort_by_key(|&axis| match (kernel.reduced[axis], axis == last && !argmax) {
            (false, false) => 0,
            (true, _) => 1,
            (false, true) => 2,
        });
    }
    let reorder = |axes: &[usize], strides: &[i64]| -> SmallVec<[i64; 4]> {
        axes.iter().map(|a| strides[*a]).collect()
    };
    kernel.extents = order.iter().map(|&axis| kernel.extents[axis]).collect();
    kernel.reduced = order.iter().map(|&axis| kernel.reduced[axis]).collect();
    for affine in affines(kernel) {
        affine.strides = reorder(&order, &affine.strides);
    }
    let mut axis = kernel.extents.len();
    while axis > 1 {
        axis -= 1;
        let extent = kernel.extents[axis] as i64;
        let joins = kernel.reduced[axis - 1] == kernel.reduced[axis]
            && affines(kernel).all(|affine| affine.strides[axis - 1] == affine.strides[axis] * extent);
        if joins {
            kernel.extents[axis - 1] *= kernel.extents[axis];
            kernel.extents.remove(axis);
            kernel.reduced.remove(axis);
            for affine in affines(kernel) {
                affine.strides.remove(axis - 1);
            }
        }
    }
    if !kernel.reduced.contains(&true) {
        store_alone(kernel);
        let rank = kernel.extents.len();
        let plain = kernel.stores.iter().all(|store| store.kind == StoreKind::Plain);
        if let [.., before, innermost] = kernel.extents[..]
            && plain
            && innermost <= FEW
            && before >= LONG
        {
            // Vectors run along the axis that fills them.
            kernel.extents.swap(rank - 2, rank - 1);
            affines(kernel).for_each(|affine| affine.strides.swap(rank - 2, rank - 1));
        }
    }
}

/// Folds of one element each: the element itself, at position 0.
fn store_alone(kernel: &mut LoopKernel) {
    for store in &mut kernel.stores {
        match store.kind {
            StoreKind::Fold(_) => store.kind = StoreKind::Plain,
            StoreKind::ArgMax => {
                store.value = Value(kernel.body.len() as u32);
                store.kind = StoreKind::Plain;
                kernel.body.push(Instruction::Literal(Literal::I64(0)));
                kernel.types.push(DType::I64);
            }
            StoreKind::Plain | StoreKind::At { .. } => {}
        }
    }
}
