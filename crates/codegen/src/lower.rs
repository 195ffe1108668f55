//! From stored nodes to kernels: loops, index arithmetic, bodies.
//!
//! The kernel of a stored node asks for the value of one element at symbolic positions; inlined operands answer with
//! instructions, movements (permute, window, broadcast, reshape) by changing the positions, memory with a load. So
//! fusion is nothing but not stopping to ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hypatia_graph::array::{element_count, row_major_strides};
use hypatia_graph::op::{Dim, IndexCheck, Scan, Start, WindowAxis, Write};
use hypatia_graph::{Axes, Broken, DType, Fold, Graph, LeafId, Literal, NodeId, Op, ScalarFn, Site, broken};
use smallvec::{SmallVec, smallvec};

use crate::kernel::{
    Address, Affine, CarryPlace, Element, Instruction, Kernel, LoopKernel, Matrix, Param, Place,
    ProductKernel, RandomKernel, RowCarry, RuntimeStart, Scale, ScanKernel, Store, StoreKind, Value,
};
use crate::loops::{self, Key, Results, StepGraph};
use crate::schedule::{axis_groups, is_contiguous, is_movement, is_one_hot, shape};

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
pub struct Draft {
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
///
/// # Errors
/// A graph that is not specialised.
pub fn lower(graph: &Graph, stored: &[bool]) -> Result<Vec<Draft>, Broken> {
    let live = graph.reachable();
    let leaves = graph
        .nodes()
        .filter_map(|(id, node)| if let Op::Leaf(leaf) = node.op { Some((leaf, id)) } else { None });
    let values = &Values { graph, stored, leaves: leaves.collect() };
    let mut lowering = Lowering { graph, values, loops: loops::results(graph, &live), drafts: Vec::new() };
    for (id, _) in graph.nodes() {
        if live[id.index()] && stored[id.index()] {
            lowering.node(id)?;
        }
    }
    Ok(lowering.drafts)
}

/// What lowering knows of the graph.
struct Values<'g> {
    graph: &'g Graph,
    stored: &'g [bool],
    leaves: HashMap<LeafId, NodeId>,
}

impl Values<'_> {
    /// The node whose value a memory holds.
    fn node(&self, memory: Memory) -> NodeId {
        match memory {
            Memory::Node(id) | Memory::Scratch(id) | Memory::Partial(id, _) => id,
            Memory::Leaf(leaf) => self.leaves.get(&leaf).copied().unwrap_or(NodeId(0)),
        }
    }
}

struct Lowering<'g> {
    graph: &'g Graph,
    values: &'g Values<'g>,
    loops: BTreeMap<Key<'g>, Results>,
    drafts: Vec<Draft>,
}

impl<'g> Lowering<'g> {
    fn push(&mut self, id: NodeId, kernel: Kernel, arguments: Vec<Memory>) {
        let node = self.graph.node(id);
        let label = self.graph.name(id).unwrap_or(node.op.name()).to_string();
        self.drafts.push(Draft { kernel, arguments, label, site: node.site });
    }

    fn node(&mut self, id: NodeId) -> Result<(), Broken> {
        let node = self.graph.node(id);
        let extents = shape(self.graph, id);
        match &node.op {
            Op::Reduce(fold, axes) => self.reduce(id, node.operands[0], *axes, StoreKind::Fold(*fold)),
            Op::ArgMax(axis) => {
                self.reduce(id, node.operands[0], Axes::one(usize::from(*axis)), StoreKind::ArgMax);
            }
            Op::Dot if node.ty.dtype.is_float() => {
                self.product(id, [Scale::Constant(1.0), Scale::Constant(0.0)], id)
            }
            Op::Dot => self.integer_product(id),
            Op::Map(ScalarFn::Add) if self.accumulates(id) => {}
            Op::Concat(axis) => {
                let mut begin = 0;
                for &part in &node.operands {
                    let mut window: SmallVec<[WindowAxis; 4]> =
                        extents.iter().map(|n| WindowAxis::whole(*n)).collect();
                    window[usize::from(*axis)].start = Start::Known(begin);
                    let part_extents = shape(self.graph, part);
                    begin += part_extents[usize::from(*axis)];
                    self.write_window(id, part, &window, &[], Write::Set);
                }
            }
            Op::SetWindow(window, write) => {
                self.copy(id, node.operands[0]);
                self.write_window(id, node.operands[1], window, &node.operands[2..], *write);
            }
            Op::Scatter { batch, write } if !is_one_hot(self.graph, id) => {
                self.copy(id, node.operands[0]);
                self.scatter(id, usize::from(*batch), *write);
            }
            Op::Random { key, .. } => self.random(id, *key),
            Op::Scan(scan) => self.scan(id, scan)?,
            Op::Leaf(_)
            | Op::Literal(_)
            | Op::Iota(_)
            | Op::Extent(_)
            | Op::Map(_)
            | Op::Cast(_)
            | Op::Broadcast { .. }
            | Op::Reshape(_)
            | Op::Permute(_)
            | Op::Slice(_)
            | Op::SetSlice(..)
            | Op::Window(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::StopGradient
            | Op::Grad(_) => self.copy(id, id),
        }
        Ok(())
    }

    /// The kernel of a loop, which comes where the first of its results is due.
    fn scan(&mut self, id: NodeId, scan: &'g Scan) -> Result<(), Broken> {
        let node = self.graph.node(id);
        let results = self.loops.get(&Key::new(scan, &node.operands)).cloned().unwrap_or_default();
        let Dim::Known(steps) = scan.steps else { return Err(broken!("a known number of steps")) };
        if results.live.first() != Some(&id) {
            return Ok(());
        }
        let StepGraph { graph: step, rows: row_of } = loops::step_graph(&scan.body, &results);
        let program = crate::unverified(&step)?;
        let (inputs, initial) = node.operands.split_at(scan.body.inputs());
        let mut body = Body::new(self.values, id, &[]);
        let inputs = inputs.iter().enumerate();
        let inputs = inputs.map(|(index, input)| body.element(*input, index < scan.body.sequences)).collect();
        let rows: Vec<Element> = results
            .rows
            .values()
            .map(|row| {
                let stride = shape(self.graph, *row)[1..].iter().product::<usize>() as i64;
                Element { param: body.param(Memory::Node(*row), true), offset: 0, stride }
            })
            .collect();
        // The shared variables of the body in their order, then the carries that no step reads.
        let leaves = scan.body.graph.updates.iter().map(|(leaf, _)| leaf);
        let mut order: Vec<(usize, usize)> = leaves
            .enumerate()
            .map(|(carry, leaf)| (program.shared.binary_search(leaf).unwrap_or(usize::MAX), carry))
            .collect();
        order.sort_unstable();
        let mut carries = Vec::new();
        for (place, carry) in order {
            let Some(&last) = results.last.get(&(carry as u16)) else { continue };
            let kept = results.live.contains(&last);
            if place == usize::MAX && !kept {
                continue;
            }
            if let Some(&initial) = initial.get(carry) {
                self.copy(last, initial);
            }
            let row = row_of.get(carry).copied().flatten().map(|output| RowCarry { output, kept });
            carries.push(CarryPlace { param: body.param(Memory::Node(last), true), row });
        }
        let made = results.made.map(|made| body.param(Memory::Node(made), true));
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

    fn random(&mut self, id: NodeId, key: u64) {
        let (Some(&counter), len) =
            (self.graph.node(id).operands.first(), element_count(&shape(self.graph, id)))
        else {
            return;
        };
        if len == 0 {
            return;
        }
        let counter = match self.graph.node(counter).op {
            Op::Leaf(leaf) => Memory::Leaf(leaf),
            _ => Memory::Node(counter),
        };
        let kernel = RandomKernel {
            key,
            counter: 0,
            out: 1,
            params: vec![
                Param { dtype: DType::I64, len: 1, written: false },
                Param { dtype: DType::F32, len, written: true },
            ],
        };
        self.push(id, Kernel::Random(kernel), vec![counter, Memory::Node(id)]);
    }

    /// Writes the value of `value`, computed element by element, to the memory of `id`.
    fn copy(&mut self, id: NodeId, value: NodeId) {
        let mut body = Body::new(self.values, id, &shape(self.graph, id));
        let position = body.iterations();
        let element = body.value(value, &position);
        let address = body.address(Memory::Node(id), &position, true);
        body.kernel.stores.push(Store { address, value: element, kind: StoreKind::Plain });
        self.finish(id, body);
    }

    fn reduce(&mut self, id: NodeId, operand: NodeId, axes: Axes, kind: StoreKind) {
        let extents = shape(self.graph, operand);
        let mut body = Body::new(self.values, id, &extents);
        let position = body.iterations();
        let element = body.value(operand, &position);
        let kept: SmallVec<[Affine; 4]> =
            axes.others(extents.len()).map(|axis| position[axis].clone()).collect();
        let address = body.address(Memory::Node(id), &kept, true);
        body.kernel.reduced = (0..extents.len()).map(|axis| axes.contains(axis)).collect();
        body.kernel.stores.push(Store { address, value: element, kind });
        self.finish(id, body);
    }

    /// The region of `id`'s memory that a window describes is replaced by `part`, or `part` is added to it.
    fn write_window(
        &mut self,
        id: NodeId,
        part: NodeId,
        window: &[WindowAxis],
        starts: &[NodeId],
        write: Write,
    ) {
        let part_extents = shape(self.graph, part);
        let mut body = Body::new(self.values, id, &part_extents);
        let position = body.iterations();
        let mut element = body.value(part, &position);
        let region = body.window(window, starts, &shape(self.graph, id), &position);
        let address = body.address(Memory::Node(id), &region, true);
        if write == Write::Add {
            let old = body.push(Instruction::Load(address.clone()), self.graph.ty(id).dtype);
            element =
                body.push(Instruction::Map(ScalarFn::Add, smallvec![old, element]), self.graph.ty(id).dtype);
        }
        body.kernel.stores.push(Store { address, value: element, kind: StoreKind::Plain });
        self.finish(id, body);
    }

    fn scatter(&mut self, id: NodeId, batch: usize, write: Write) {
        let [_, indices, rows] = self.graph.node(id).operands[..] else { return };
        let extents = shape(self.graph, id);
        let mut body = Body::new(self.values, id, &shape(self.graph, rows));
        let position = body.iterations();
        let element = body.value(rows, &position);
        let index = body.value(indices, &position[..=batch]);
        let index =
            body.push(Instruction::Index { index, extent: extents[batch], axis: batch as u8 }, DType::I64);
        let mut row = position.clone();
        row[batch] = body.origin();
        let stride = row_major_strides(&extents)[batch] as i64;
        let address = body.address(Memory::Node(id), &row, true);
        body.kernel.stores.push(Store {
            address,
            value: element,
            kind: StoreKind::At { index, stride, write },
        });
        self.finish(id, body);
    }

    /// `beta C + alpha A B` into the memory of `id`; the operands are those of the product node.
    fn product(&mut self, id: NodeId, [alpha, beta]: [Scale; 2], product: NodeId) {
        self.product_with(id, [alpha, beta], product, Vec::new(), Vec::new());
    }

    fn product_with(
        &mut self,
        id: NodeId,
        [alpha, beta]: [Scale; 2],
        product: NodeId,
        params: Vec<Param>,
        arguments: Vec<Memory>,
    ) {
        let node = self.graph.node(product);
        let extents = shape(self.graph, product);
        let rank = extents.len();
        let mut body = Body::new(self.values, id, &[]);
        body.kernel.params = params;
        body.arguments = arguments;
        let [a, b] = [body.matrix(node.operands[0]), body.matrix(node.operands[1])];
        let k = shape(self.graph, node.operands[0])[rank - 1];
        let c = Matrix {
            param: body.param(Memory::Node(id), true),
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
    }

    /// The form that [`crate::accumulate`] leaves: `beta W + alpha (A . B)` is a copy of W, which placing elides when the
    /// result may lie in W's own memory, and a product that accumulates.
    fn accumulates(&mut self, id: NodeId) -> bool {
        let Some(form) = crate::accumulate::accumulation(self.graph, id) else { return false };
        if self.values.stored[form.product.index()] {
            return false;
        }
        self.copy(id, form.base);
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
        self.product_with(id, scales, form.product, params, arguments);
        true
    }

    /// A product of integers, as a fold of elementwise products.
    fn integer_product(&mut self, id: NodeId) {
        let [a, b] = self.graph.node(id).operands[..] else { return };
        let extents = shape(self.graph, id);
        let rank = extents.len();
        let mut loops = extents.clone();
        loops.push(shape(self.graph, a)[rank - 1]);
        let mut body = Body::new(self.values, id, &loops);
        let p = body.iterations();
        let lead = &p[..rank - 2];
        let at = |x: &Affine, y: &Affine| -> SmallVec<[Affine; 4]> {
            lead.iter().cloned().chain([x.clone(), y.clone()]).collect()
        };
        let (row, inner, column) = (&p[rank - 2], &p[rank], &p[rank - 1]);
        let left = body.value(a, &at(row, inner));
        let right = body.value(b, &at(inner, column));
        let dtype = self.graph.ty(id).dtype;
        let term = body.push(Instruction::Map(ScalarFn::Mul, smallvec![left, right]), dtype);
        let address = body.address(Memory::Node(id), &p[..rank], true);
        body.kernel.reduced[rank] = true;
        body.kernel.stores.push(Store { address, value: term, kind: StoreKind::Fold(Fold::Sum) });
        self.finish(id, body);
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
    values: &'g Values<'g>,
    /// The node whose value is computed; it is not loaded, although it is stored.
    root: NodeId,
    kernel: LoopKernel,
    arguments: Vec<Memory>,
    memo: HashMap<(NodeId, SmallVec<[Affine; 4]>), Value>,
    known: HashMap<Instruction, Value>,
}

impl<'g> Body<'g> {
    fn new(values: &'g Values<'g>, root: NodeId, extents: &[usize]) -> Body<'g> {
        let kernel = LoopKernel {
            extents: extents.into(),
            reduced: smallvec![false; extents.len()],
            ..LoopKernel::default()
        };
        Body {
            graph: values.graph,
            values,
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

    fn param(&mut self, memory: Memory, written: bool) -> u16 {
        let known = self
            .arguments
            .iter()
            .zip(&self.kernel.params)
            .position(|(m, p)| *m == memory && p.written == written);
        if let Some(index) = known {
            return index as u16;
        }
        let ty = self.graph.ty(self.values.node(memory));
        self.kernel.params.push(Param { dtype: ty.dtype, len: ty.element_count().unwrap_or(0), written });
        self.arguments.push(memory);
        (self.arguments.len() - 1) as u16
    }

    /// A parameter of that many bytes for the kernel's own use.
    fn scratch(&mut self, bytes: usize) -> u16 {
        self.kernel.params.push(Param { dtype: DType::U8, len: bytes, written: true });
        self.arguments.push(Memory::Scratch(self.root));
        (self.arguments.len() - 1) as u16
    }

    /// The memory of a node, unless it is to be computed here.
    fn memory(&self, id: NodeId) -> Option<Memory> {
        let memory = Memory::of(self.graph, id);
        let here = matches!(memory, Memory::Node(_)) && (!self.values.stored[id.index()] || id == self.root);
        (!here).then_some(memory)
    }

    /// Where an element of row-major memory lies, given its position along each axis.
    fn address(&mut self, memory: Memory, position: &[Affine], written: bool) -> Address {
        let extents = shape(self.graph, self.values.node(memory));
        let position = self.linear(&extents, position);
        Address { param: self.param(memory, written), position }
    }

    fn linear(&self, extents: &[usize], position: &[Affine]) -> Affine {
        let strides = row_major_strides(extents);
        let mut sum = self.origin();
        for (axis, stride) in position.iter().zip(strides) {
            sum = sum.plus(axis, stride as i64);
        }
        sum
    }

    /// Positions in the operand of a movement, given positions in its result; `None` where they are not affine.
    fn moved(&mut self, id: NodeId, position: &[Affine]) -> Option<SmallVec<[Affine; 4]>> {
        let node = self.graph.node(id);
        let from = shape(self.graph, node.operands[0]);
        Some(match &node.op {
            Op::StopGradient => position.into(),
            Op::Permute(permutation) => {
                let mut moved: SmallVec<[Affine; 4]> = position.into();
                for (to, &axis) in permutation.iter().enumerate() {
                    moved[usize::from(axis)] = position[to].clone();
                }
                moved
            }
            Op::Broadcast { axes, .. } => {
                let place = |(own, &axis): (usize, &u8)| {
                    if from[own] == 1 { self.origin() } else { position[usize::from(axis)].clone() }
                };
                axes.iter().enumerate().map(place).collect()
            }
            Op::Window(window) => self.window(window, &node.operands[1..], &from, position),
            Op::Reshape(_) => {
                let to = shape(self.graph, id);
                let mut moved: SmallVec<[Affine; 4]> = smallvec![self.origin(); from.len()];
                for (own, result) in axis_groups(&from, &to)? {
                    let mut long = own.clone().filter(|axis| from[*axis] != 1);
                    let Some(axis) = long.next() else { continue };
                    if long.next().is_some() {
                        return None;
                    }
                    moved[axis] = self.linear(&to[result.clone()], &position[result]);
                }
                moved
            }
            _ => return None,
        })
    }

    /// Positions in the whole, given positions in a window of it.
    fn window(
        &mut self,
        window: &[WindowAxis],
        starts: &[NodeId],
        extents: &[usize],
        position: &[Affine],
    ) -> SmallVec<[Affine; 4]> {
        let mut starts = starts.iter();
        let mut moved = SmallVec::new();
        for (number, ((axis, part), &extent)) in position.iter().zip(window).zip(extents).enumerate() {
            let mut whole = self.origin().plus(axis, part.step);
            match (part.start, part.check(number, extent)) {
                (Start::Known(start), _) => whole.offset += start as i64,
                (Start::Operand | Start::Range, check) => {
                    if let (Some(&start), Some(check)) = (starts.next(), check) {
                        self.add_start(&mut whole, start, check);
                    }
                }
            }
            moved.push(whole);
        }
        moved
    }

    fn add_start(&mut self, position: &mut Affine, start: NodeId, check: IndexCheck) {
        let memory = Memory::of(self.graph, start);
        let IndexCheck { axis, extent, len, is_range } = check;
        let param = self.param(memory, false);
        let start = RuntimeStart { param, extent, limit: extent.saturating_sub(len), axis, is_range };
        let known = self.kernel.starts.iter().position(|s| *s == start);
        let index = known.unwrap_or_else(|| {
            self.kernel.starts.push(start);
            self.kernel.starts.len() - 1
        });
        position.starts.push((index as u16, 1));
    }

    /// Memory and place of an element, if a node is memory under movements.
    fn chase(&mut self, mut id: NodeId, position: &[Affine]) -> Option<Address> {
        let mut position: SmallVec<[Affine; 4]> = position.into();
        loop {
            if let Some(memory) = self.memory(id) {
                return Some(self.address(memory, &position, false));
            }
            let node = self.graph.node(id);
            if !is_movement(&node.op) {
                return None;
            }
            if matches!(node.op, Op::Reshape(_))
                && is_contiguous(self.graph, node.operands[0], self.values.stored)
            {
                return self.contiguous(id, &position);
            }
            position = self.moved(id, &position)?;
            id = node.operands[0];
        }
    }

    /// The place of an element of a reshape of row-major memory: row-major order is the same under every shape.
    fn contiguous(&mut self, id: NodeId, position: &[Affine]) -> Option<Address> {
        let linear = self.linear(&shape(self.graph, id), position);
        let mut base = id;
        while self.memory(base).is_none() {
            base = *self.graph.node(base).operands.first()?;
        }
        let memory = self.memory(base)?;
        Some(Address { param: self.param(memory, false), position: linear })
    }

    /// The address of the elements of a node that is memory under movements, with a stride for each of its axes.
    fn strided(&mut self, id: NodeId) -> Address {
        let extents = shape(self.graph, id);
        // Axes of the node stand in for loop axes, so that the address has a stride for each.
        let mut probe = Body::new(self.values, self.root, &extents);
        std::mem::swap(&mut probe.kernel.params, &mut self.kernel.params);
        std::mem::swap(&mut probe.kernel.starts, &mut self.kernel.starts);
        std::mem::swap(&mut probe.arguments, &mut self.arguments);
        let position = probe.iterations();
        let address = probe.chase(id, &position);
        std::mem::swap(&mut probe.kernel.params, &mut self.kernel.params);
        std::mem::swap(&mut probe.kernel.starts, &mut self.kernel.starts);
        std::mem::swap(&mut probe.arguments, &mut self.arguments);
        address.unwrap_or(Address { param: 0, position: probe.origin() })
    }

    /// An operand of a loop as its steps see it: rows along the leading axis, or the whole.
    fn element(&mut self, id: NodeId, is_sequence: bool) -> Element {
        let Address { param, position } = self.strided(id);
        let stride = if is_sequence { position.strides.first().copied().unwrap_or(0) } else { 0 };
        Element { param, offset: position.offset, stride }
    }

    /// A node of rank 2 or 3 as matrices in memory.
    fn matrix(&mut self, id: NodeId) -> Matrix {
        let address = self.strided(id);
        let rank = shape(self.graph, id).len();
        let strides = &address.position.strides;
        Matrix {
            param: address.param,
            batch_stride: if rank == 3 { strides[0] } else { 0 },
            row_stride: strides[rank - 2],
            column_stride: strides[rank - 1],
            position: Affine {
                offset: address.position.offset,
                strides: smallvec![],
                starts: address.position.starts,
            },
        }
    }

    /// The instruction that gives the element of a node at a position.
    fn value(&mut self, id: NodeId, position: &[Affine]) -> Value {
        let key = (id, SmallVec::from(position));
        if let Some(value) = self.memo.get(&key) {
            return *value;
        }
        let value = self.compute(id, position);
        self.memo.insert(key, value);
        value
    }

    fn compute(&mut self, id: NodeId, position: &[Affine]) -> Value {
        let node = self.graph.node(id);
        let dtype = node.ty.dtype;
        if let Some(address) = self.chase(id, position) {
            return self.push(Instruction::Load(address), dtype);
        }
        match &node.op {
            Op::Literal(value) => self.push(Instruction::Literal(*value), dtype),
            Op::Iota(_) => self.push(Instruction::Position(position[0].clone()), dtype),
            Op::Map(f) => {
                let operands = node.operands.iter().map(|o| self.value(*o, position)).collect();
                self.push(Instruction::Map(*f, operands), dtype)
            }
            Op::Cast(to) => {
                let operand = self.value(node.operands[0], position);
                self.push(Instruction::Cast(*to, operand), dtype)
            }
            Op::Gather { batch } => self.gather(id, usize::from(*batch), position),
            Op::Scatter { batch, write } => self.one_hot(id, usize::from(*batch), *write, position),
            Op::Broadcast { .. } | Op::Reshape(_) | Op::Permute(_) | Op::Window(_) | Op::StopGradient => {
                let moved = self.moved(id, position).unwrap_or_default();
                self.value(node.operands[0], &moved)
            }
            // The schedule stores these; `chase` has found their memory.
            Op::Leaf(_)
            | Op::Extent(_)
            | Op::Reduce(..)
            | Op::ArgMax(_)
            | Op::Dot
            | Op::Slice(_)
            | Op::SetSlice(..)
            | Op::SetWindow(..)
            | Op::Concat(_)
            | Op::Random { .. }
            | Op::Scan(_)
            | Op::Grad(_) => self.push(Instruction::Literal(Literal::from_i64(0, dtype)), dtype),
        }
    }

    fn gather(&mut self, id: NodeId, batch: usize, position: &[Affine]) -> Value {
        let [x, indices] = self.graph.node(id).operands[..] else { return Value(0) };
        let extent = shape(self.graph, x)[batch];
        let index = self.value(indices, &position[..=batch]);
        let index = self.push(Instruction::Index { index, extent, axis: batch as u8 }, DType::I64);
        let mut row: SmallVec<[Affine; 4]> = position.into();
        row[batch] = self.origin();
        let begin = self.chase(x, &row);
        row[batch].offset = 1;
        let next = self.chase(x, &row);
        let (Some(address), Some(next)) = (begin, next) else { return index };
        let stride = next.position.offset - address.position.offset;
        self.push(Instruction::LoadAt { address, index, stride }, self.graph.ty(id).dtype)
    }

    /// Each element compares its position with the index of its row.
    fn one_hot(&mut self, id: NodeId, batch: usize, write: Write, position: &[Affine]) -> Value {
        let [x, indices, rows] = self.graph.node(id).operands[..] else { return Value(0) };
        let dtype = self.graph.ty(id).dtype;
        let old = self.value(x, position);
        let mut row: SmallVec<[Affine; 4]> = position.into();
        row[batch] = self.origin();
        let index = self.value(indices, &row[..=batch]);
        let extent = shape(self.graph, id)[batch];
        let index = self.push(Instruction::Index { index, extent, axis: batch as u8 }, DType::I64);
        let here = self.push(Instruction::Position(position[batch].clone()), DType::I64);
        let hit = self.push(Instruction::Map(ScalarFn::Eq, smallvec![here, index]), DType::Bool);
        let new = self.value(rows, &row);
        let new = match write {
            Write::Set => new,
            Write::Add => self.push(Instruction::Map(ScalarFn::Add, smallvec![old, new]), dtype),
        };
        self.push(Instruction::Map(ScalarFn::Select, smallvec![hit, new, old]), dtype)
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
/// neighbouring axes that every address crosses in one stride joined into one, no fold over nothing.
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
