//! The order of the steps and the place of all memory.
//!
//! Updates are computed from old values and written together: an update lies in its variable's own memory where every
//! reader of the old value can run before (or reads just the element it replaces), else it is copied there at the end.
//! Of several kernels that write parts of it, none reads what one before it has replaced.
//! Steps that write shared variables come after all that can fail; not so the carries of a scan, which nobody sees after a
//! failure. Everything else lies in one arena, places reused as
//! soon as their last reader has run; a kernel may write over an operand that dies with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hypatia_graph::array::Extents;
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::{Array, Broken, DType, Graph, LeafId, NodeId, Op, broken};
use smallvec::{SmallVec, smallvec};

use crate::kernel::checked::{CheckedIndices, checked_indices};
use crate::kernel::region::{Region, reads_only_what_it_writes};
use crate::kernel::{
    Address, Affine, Buffer, BufferId, Instruction, Kernel, LoopKernel, Param, Place, Program, Step, Store,
    StoreKind, Value,
};
use crate::lower::{Memory, UnplacedStep};

/// The program of the steps.
///
/// # Errors
/// Unplaced steps that name memory which the graph does not have.
pub fn place(graph: &Graph, steps: Vec<UnplacedStep>) -> Result<Program, Broken> {
    let mut placer = Placer::new(graph, steps);
    placer.place_outputs();
    placer.place_updates()?;
    placer.order()?;
    placer.finish()
}

struct Placer<'g> {
    graph: &'g Graph,
    steps: Vec<UnplacedStep>,
    /// Stored nodes that do not lie in the arena.
    places: BTreeMap<NodeId, Place>,
    shared: Vec<LeafId>,
    constants: Vec<(LeafId, Arc<Array>)>,
    /// Updates written in place: the node and the variable.
    in_place: BTreeMap<NodeId, LeafId>,
    /// Copies to make before anything is overwritten, and after everything.
    early: Vec<(LeafId, Place)>,
    late: Vec<(Memory, Place)>,
    commit: usize,
}

impl<'g> Placer<'g> {
    fn new(graph: &'g Graph, steps: Vec<UnplacedStep>) -> Placer<'g> {
        let constants = graph.leaves().filter_map(|leaf| match &leaf.kind {
            LeafKind::Constant(array) => Some((leaf.id, array.clone())),
            LeafKind::Input | LeafKind::Shared(_) | LeafKind::Carry => None,
        });
        Placer {
            graph,
            steps,
            places: BTreeMap::new(),
            shared: graph.shared(),
            constants: constants.collect(),
            in_place: BTreeMap::new(),
            early: Vec::new(),
            late: Vec::new(),
            commit: 0,
        }
    }

    fn memory(&self, id: NodeId) -> Memory {
        Memory::of(self.graph, id)
    }

    fn place_outputs(&mut self) {
        for (index, &id) in self.graph.outputs.iter().enumerate() {
            match self.memory(id) {
                Memory::Node(id) if !self.places.contains_key(&id) => {
                    self.places.insert(id, Place::Output(index));
                }
                Memory::Leaf(leaf) => self.early.push((leaf, Place::Output(index))),
                memory @ (Memory::Node(_) | Memory::Scratch(_) | Memory::Partial(..)) => {
                    self.late.push((memory, Place::Output(index)));
                }
            }
        }
    }

    fn place_updates(&mut self) -> Result<(), Broken> {
        let graph = self.graph;
        for (leaf, id) in &graph.updates {
            let index = self.shared.binary_search(leaf);
            let index = index.map_err(|_| broken!("the updated variable {leaf:?} among the shared ones"))?;
            let place = Place::Shared(index);
            match self.memory(*id) {
                Memory::Leaf(own) if own == *leaf => {}
                Memory::Node(id) if !self.places.contains_key(&id) && self.may_overwrite(id, *leaf) => {
                    self.places.insert(id, place);
                    self.in_place.insert(id, *leaf);
                }
                Memory::Leaf(other) => self.early.push((other, place)),
                memory @ (Memory::Node(_) | Memory::Scratch(_) | Memory::Partial(..)) => {
                    self.late.push((memory, place))
                }
            }
        }
        Ok(())
    }

    /// Whether the kernels that compute an update, one after another, read of the old value only what is there still.
    fn may_overwrite(&self, id: NodeId, leaf: LeafId) -> bool {
        let (old, new) = (Memory::Leaf(leaf), Memory::Node(id));
        let mut replaced: Vec<Region> = Vec::new();
        for step in self.steps.iter().filter(|step| writes(step, new)) {
            let reads = step.arguments.contains(&old);
            let Kernel::Loop(kernel) = &step.kernel else {
                // A product or a scan reads as it writes, and writes all of it.
                if reads {
                    return false;
                }
                replaced.push(Region::all());
                continue;
            };
            let is = |param: u16, memory: Memory| step.arguments[usize::from(param)] == memory;
            let read: Vec<Region> =
                Region::read(kernel).filter(|(param, _)| is(*param, old)).map(|(_, region)| region).collect();
            let meet =
                |ones: &[Region], others: &[Region]| ones.iter().any(|a| others.iter().any(|b| a.meets(b)));
            if meet(&read, &replaced) {
                return false;
            }
            // What is copied to where it lies already stays as it is.
            if copied(step) == Some((leaf, id)) {
                continue;
            }
            let written: Vec<Region> = Region::written(kernel)
                .filter(|(param, _)| is(*param, new))
                .map(|(_, region)| region)
                .collect();
            if meet(&read, &written)
                && !reads_only_what_it_writes(kernel, |param| is(param, old), |param| is(param, new))
            {
                return false;
            }
            replaced.extend(written);
        }
        true
    }

    /// Steps that write in place, and all that depend on them, go to the end; where that cannot be, the update is
    /// computed apart and copied.
    fn order(&mut self) -> Result<(), Broken> {
        loop {
            let mut deferred = self.deferred();
            if let Some(id) = deferred.culprit {
                self.demote(id)?;
                continue;
            }
            let pairs = self.pairs(&mut deferred.steps);
            match self.sorted(&deferred.steps, &pairs)? {
                Sorted::Order(order) => {
                    let early = self.steps.len() - order.len();
                    let mut steps: Vec<Option<UnplacedStep>> =
                        std::mem::take(&mut self.steps).into_iter().map(Some).collect();
                    let taken = order.iter().map(|i| steps[*i].take());
                    let tail = taken.map(|step| step.ok_or_else(|| broken!("an order without repetition")));
                    let tail = tail.collect::<Result<Vec<UnplacedStep>, Broken>>()?;
                    self.steps = steps.into_iter().flatten().collect();
                    self.commit = early;
                    self.steps.extend(tail);
                    return Ok(());
                }
                Sorted::InTheWay(id) => self.demote(id)?,
            }
        }
    }

    /// An update that cannot be in place is copied there at the end.
    fn demote(&mut self, id: NodeId) -> Result<(), Broken> {
        self.in_place.remove(&id);
        let place = self.places.remove(&id).ok_or_else(|| broken!("a place of the update {id:?}"))?;
        self.late.push((Memory::Node(id), place));
        Ok(())
    }

    fn deferred(&self) -> Deferred {
        // For each step, an update in place that it writes or depends on.
        let mut cause: BTreeMap<usize, NodeId> = BTreeMap::new();
        for &id in self.in_place.keys() {
            let mut tainted: BTreeSet<Memory> = BTreeSet::from([Memory::Node(id)]);
            for (index, step) in self.steps.iter().enumerate() {
                if step.arguments.iter().any(|memory| tainted.contains(memory)) {
                    cause.insert(index, id);
                    tainted.extend(written(step));
                }
            }
        }
        let early = || self.steps.iter().enumerate().filter(|(index, _)| !cause.contains_key(index));
        let checked: BTreeSet<_> = early().flat_map(|(_, step)| start_checks(step)).collect();
        let indices: Vec<_> = early().filter_map(|(_, step)| index_checks(step)).flatten().collect();
        let may_fail = |step: &UnplacedStep| {
            index_checks(step).is_none_or(|found| found.iter().any(|index| !indices.contains(index)))
                || start_checks(step).any(|check| !checked.contains(&check))
        };
        // Nobody sees the carries of a scan that has failed.
        let seen = |id: &NodeId| {
            let leaf = self.in_place.get(id).and_then(|leaf| self.graph.leaf(*leaf));
            leaf.is_none_or(|leaf| !matches!(leaf.kind, LeafKind::Carry))
        };
        let culprit =
            cause.iter().find(|(index, id)| seen(id) && may_fail(&self.steps[**index])).map(|(_, id)| *id);
        Deferred { steps: cause.into_keys().collect(), culprit }
    }

    /// For the last product that reads a variable, what should come right after it: the steps that add to the variable in
    /// place, if both can be computed at one go. The former, and all that depends on it, is deferred as well, which nothing
    /// that may fail can be.
    fn pairs(&self, deferred: &mut BTreeSet<usize>) -> BTreeMap<usize, usize> {
        let mut pairs = BTreeMap::new();
        for (id, leaf) in &self.in_place {
            let reads = |step: &UnplacedStep| step.arguments.contains(&Memory::Leaf(*leaf));
            let node = Memory::Node(*id);
            // The copy of the old value, which goes away because it lies there already, and the product.
            let writers: Vec<usize> =
                (0..self.steps.len()).filter(|i| writes(&self.steps[*i], node)).collect();
            let last = self.steps.iter().rposition(|step| reads(step) && !writes(step, node));
            let (Some(&adds), Some(last)) = (writers.last(), last) else { continue };
            let (before, after) = (&self.steps[last], &self.steps[adds]);
            let (Kernel::Product(first), Kernel::Product(second)) = (&before.kernel, &after.kernel) else {
                continue;
            };
            let in_whole = before.arguments[usize::from(first.b.param)] == Memory::Leaf(*leaf)
                && before.arguments[usize::from(first.a.param)] != Memory::Leaf(*leaf)
                && before.arguments[usize::from(first.a.param)]
                    == after.arguments[usize::from(second.b.param)]
                && after.arguments[usize::from(second.c.param)] == node;
            let independent = written(before).all(|memory| !after.arguments.contains(&memory));
            if !in_whole || !independent || !first.passes_back(second) {
                continue;
            }
            let mut behind = BTreeSet::from([last]);
            let mut made: BTreeSet<Memory> = written(before).collect();
            for (index, step) in self.steps.iter().enumerate().skip(last + 1) {
                if step.arguments.iter().any(|memory| made.contains(memory)) {
                    behind.insert(index);
                    made.extend(written(step));
                }
            }
            let may_fail = |index: &usize| {
                let kernel = &self.steps[*index].kernel;
                kernel.checks_indices() || !kernel.starts().is_empty()
            };
            if !behind.difference(deferred).any(may_fail) {
                deferred.extend(behind);
                pairs.extend(
                    std::iter::once(last).chain(writers.iter().copied()).zip(writers.iter().copied()),
                );
            }
        }
        pairs
    }

    /// The deferred steps so that readers of an old value come before its writers, and pairs beside each other where that
    /// can be; or an update in the way.
    fn sorted(&self, deferred: &BTreeSet<usize>, pairs: &BTreeMap<usize, usize>) -> Result<Sorted, Broken> {
        let (mut readers, mut writers) =
            (BTreeMap::<Memory, Vec<usize>>::new(), BTreeMap::<Memory, Vec<usize>>::new());
        for &i in deferred {
            for memory in &self.steps[i].arguments {
                readers.entry(*memory).or_default().push(i);
            }
            for memory in written(&self.steps[i]) {
                writers.entry(memory).or_default().push(i);
            }
        }
        let of = |map: &BTreeMap<Memory, Vec<usize>>, memory: Memory| {
            map.get(&memory).cloned().unwrap_or_default()
        };
        let mut before: BTreeMap<usize, BTreeSet<usize>> =
            deferred.iter().map(|i| (*i, BTreeSet::new())).collect();
        for (&j, waits) in &mut before {
            let feed = self.steps[j].arguments.iter().flat_map(|memory| of(&writers, *memory));
            waits.extend(feed.filter(|i| *i < j));
        }
        for (id, leaf) in &self.in_place {
            let overwrite = of(&writers, Memory::Node(*id));
            let read = of(&readers, Memory::Leaf(*leaf));
            for j in &overwrite {
                let others = read.iter().filter(|i| !overwrite.contains(i));
                before.entry(*j).or_default().extend(others);
            }
        }
        let mut behind: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (j, waits) in &before {
            for i in waits {
                behind.entry(*i).or_default().push(*j);
            }
        }
        let mut ready: BTreeSet<usize> =
            before.iter().filter(|(_, waits)| waits.is_empty()).map(|(i, _)| *i).collect();
        let mut order: Vec<usize> = Vec::new();
        loop {
            let partner =
                order.last().and_then(|last| pairs.get(last)).copied().filter(|i| ready.contains(i));
            let Some(next) = partner.or_else(|| ready.first().copied()) else { break };
            ready.remove(&next);
            before.remove(&next);
            for j in behind.remove(&next).unwrap_or_default() {
                let waits = before.get_mut(&j).ok_or_else(|| broken!("step {j} to wait for step {next}"))?;
                waits.remove(&next);
                if waits.is_empty() {
                    ready.insert(j);
                }
            }
            order.push(next);
        }
        if before.is_empty() {
            return Ok(Sorted::Order(order));
        }
        let stuck = |id: &&NodeId| before.keys().any(|i| writes(&self.steps[*i], Memory::Node(**id)));
        let id = self.in_place.keys().find(stuck).ok_or_else(|| broken!("an update in place in a circle"))?;
        Ok(Sorted::InTheWay(*id))
    }

    fn finish(mut self) -> Result<Program, Broken> {
        let graph = self.graph;
        let mut buffers = Buffers::default();
        for (index, leaf) in graph.inputs.iter().enumerate() {
            buffers.add_leaf(graph, *leaf, Place::Input(index))?;
        }
        for (index, leaf) in self.shared.iter().enumerate() {
            buffers.add_leaf(graph, *leaf, Place::Shared(index))?;
        }
        for (index, (leaf, _)) in self.constants.iter().enumerate() {
            buffers.add_leaf(graph, *leaf, Place::Constant(index))?;
        }
        for (&id, place) in &self.places {
            buffers.add(Memory::Node(id), graph.ty(id).dtype, extents(graph, id)?, place.clone());
        }
        let mut steps: Vec<Step> = Vec::new();
        let in_place = self.in_place.clone();
        let mut commit = None;
        let mut late: Vec<(BufferId, Place)> = Vec::new();
        for (leaf, place) in std::mem::take(&mut self.early) {
            let from = buffers.of(Memory::Leaf(leaf))?;
            if let Place::Output(_) = place {
                let to = buffers.place_like(from, place);
                steps.extend(copy_step(&buffers.list, from, to));
            } else if graph.updates.iter().all(|(updated, _)| *updated != leaf) {
                late.push((from, place));
            } else {
                // Another update may overwrite the variable whose old value this one takes.
                let kept = buffers.arena_like(from);
                steps.extend(copy_step(&buffers.list, from, kept));
                late.push((kept, place));
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            if index >= self.commit {
                commit.get_or_insert(steps.len());
            }
            if copied(step).is_some_and(|(leaf, id)| in_place.get(&id) == Some(&leaf)) {
                continue;
            }
            for (memory, param) in step.arguments.iter().zip(step.kernel.params()) {
                match memory {
                    Memory::Node(id) => {
                        buffers.add(*memory, graph.ty(*id).dtype, extents(graph, *id)?, Place::Arena(0));
                    }
                    Memory::Scratch(_) | Memory::Partial(..) => {
                        buffers.add(*memory, param.dtype, smallvec![param.len], Place::Arena(0));
                    }
                    Memory::Leaf(_) => {}
                }
            }
            let arguments = step.arguments.iter().map(|memory| buffers.of(*memory));
            steps.push(Step {
                kernel: step.kernel.clone(),
                arguments: arguments.collect::<Result<_, _>>()?,
                label: step.label.clone(),
                site: step.site,
            });
        }
        let commit = commit.unwrap_or(steps.len());
        for (memory, place) in &self.late {
            late.push((buffers.of(*memory)?, place.clone()));
        }
        for (from, place) in late {
            let to = buffers.place_like(from, place);
            steps.extend(copy_step(&buffers.list, from, to));
        }
        let arena_bytes = place_in_arena(&mut buffers.list, &steps);
        let outputs = graph.outputs.iter().map(|id| Ok((graph.ty(*id).dtype, extents(graph, *id)?)));
        Ok(Program {
            constants: self.constants.into_iter().map(|(_, array)| array).collect(),
            outputs: outputs.collect::<Result<_, Broken>>()?,
            buffers: buffers.list,
            steps,
            shared: self.shared,
            arena_bytes,
            commit,
        })
    }
}

/// Deferred steps in an order, or why there is none.
enum Sorted {
    Order(Vec<usize>),
    /// An update that cannot be in place.
    InTheWay(NodeId),
}

fn extents(graph: &Graph, id: NodeId) -> Result<Extents, Broken> {
    graph.ty(id).extents().ok_or_else(|| broken!("known extents of a node", graph.ty(id)))
}

/// What must run after the rest.
struct Deferred {
    steps: BTreeSet<usize>,
    /// An update that cannot be in place, because a step that may fail depends on it.
    culprit: Option<NodeId>,
}

fn written(step: &UnplacedStep) -> impl Iterator<Item = Memory> + '_ {
    step.arguments
        .iter()
        .zip(step.kernel.params())
        .filter(|(_, param)| param.written)
        .map(|(memory, _)| *memory)
}

fn writes(step: &UnplacedStep, memory: Memory) -> bool {
    written(step).any(|m| m == memory)
}

/// The run-time starts that a step checks: where the start lies, the extent, the last start that fits, whether it begins
/// a range. Checked once before anything is written, a start needs no further check.
fn start_checks(step: &UnplacedStep) -> impl Iterator<Item = (Memory, usize, usize, bool)> + '_ {
    let memory = |param: u16| step.arguments[usize::from(param)];
    let starts = step.kernel.starts().iter();
    starts.map(move |start| (memory(start.param), start.extent, start.limit, start.is_range))
}

/// The indices that a step checks, if that can be told; those checked before anything is written need no further check.
fn index_checks(step: &UnplacedStep) -> Option<Vec<CheckedIndices<Memory>>> {
    checked_indices(&step.kernel, |param| step.arguments[usize::from(param)])
}

/// The leaf and the node if a step copies elements of the one to the same places of the other, and nothing else, not
/// even check a start.
fn copied(step: &UnplacedStep) -> Option<(LeafId, NodeId)> {
    let Kernel::Loop(kernel) = &step.kernel else { return None };
    let ([Instruction::Load(from)], [store]) = (&kernel.body[..], &kernel.stores[..]) else { return None };
    let (Memory::Leaf(leaf), Memory::Node(id)) =
        (step.arguments[usize::from(from.param)], step.arguments[usize::from(store.address.param)])
    else {
        return None;
    };
    let same = store.kind == StoreKind::Plain && from.position == store.address.position;
    (same && kernel.starts.is_empty()).then_some((leaf, id))
}

/// The buffers of a program while it is put together.
#[derive(Default)]
struct Buffers {
    list: Vec<Buffer>,
    known: HashMap<Memory, BufferId>,
}

impl Buffers {
    /// The buffer of what was added.
    fn of(&self, memory: Memory) -> Result<BufferId, Broken> {
        self.known.get(&memory).copied().ok_or_else(|| broken!("a buffer of {memory:?}"))
    }

    fn add(&mut self, memory: Memory, dtype: DType, shape: Extents, place: Place) {
        let next = BufferId(self.list.len() as u32);
        if let std::collections::hash_map::Entry::Vacant(entry) = self.known.entry(memory) {
            entry.insert(next);
            self.list.push(Buffer { dtype, shape, place });
        }
    }

    fn add_leaf(&mut self, graph: &Graph, leaf: LeafId, place: Place) -> Result<(), Broken> {
        // The type in the graph is the specialised one; a leaf that no node reads has only its declaration.
        let node = graph.nodes().find(|(_, node)| node.op == Op::Leaf(leaf));
        let ty = node.map(|(_, node)| &node.ty).or(graph.leaf(leaf).map(|leaf| &leaf.ty));
        let ty = ty.ok_or_else(|| broken!("{leaf:?} among the leaves of the graph"))?;
        // Of an input that nothing reads the extents may be unknown; it needs no memory.
        if let Some(shape) = ty.extents() {
            self.add(Memory::Leaf(leaf), ty.dtype, shape, place);
        }
        Ok(())
    }

    /// The buffer at a place, of the type of another if it does not exist yet.
    fn place_like(&mut self, like: BufferId, place: Place) -> BufferId {
        match self.list.iter().position(|buffer| buffer.place == place) {
            Some(index) => BufferId(index as u32),
            None => self.push_like(like, place),
        }
    }

    fn arena_like(&mut self, like: BufferId) -> BufferId {
        self.push_like(like, Place::Arena(0))
    }

    fn push_like(&mut self, like: BufferId, place: Place) -> BufferId {
        self.list.push(Buffer { place, ..self.list[like.index()].clone() });
        BufferId(self.list.len() as u32 - 1)
    }
}

/// A step that copies a whole buffer; nothing where there is nothing to copy.
fn copy_step(buffers: &[Buffer], from: BufferId, to: BufferId) -> Option<Step> {
    let source = &buffers[from.index()];
    let len = source.len();
    if len == 0 {
        return None;
    }
    let (extents, strides): (Extents, SmallVec<[i64; 4]>) =
        if len == 1 { (smallvec![], smallvec![]) } else { (smallvec![len], smallvec![1]) };
    let position = Affine { offset: 0, strides, starts: smallvec![] };
    let param = |written| Param { dtype: source.dtype, len, written };
    let kernel = LoopKernel {
        reduced: smallvec![false; extents.len()],
        extents,
        params: vec![param(false), param(true)],
        starts: Vec::new(),
        body: vec![Instruction::Load(Address { param: 0, position: position.clone() })],
        types: vec![source.dtype],
        stores: vec![Store {
            address: Address { param: 1, position },
            value: Value(0),
            kind: StoreKind::Plain,
        }],
    };
    Some(Step { kernel: Kernel::Loop(kernel), arguments: vec![from, to], label: "copy".into(), site: None })
}

/// Gives every arena buffer its offset; returns the size of the arena.
fn place_in_arena(buffers: &mut [Buffer], steps: &[Step]) -> usize {
    let mut first = vec![usize::MAX; buffers.len()];
    let mut last = vec![0; buffers.len()];
    for (time, step) in steps.iter().enumerate() {
        for buffer in &step.arguments {
            first[buffer.index()] = first[buffer.index()].min(time);
            last[buffer.index()] = time;
        }
    }
    let mut space = Space::default();
    for (time, step) in steps.iter().enumerate() {
        for (param, buffer) in step.arguments.iter().enumerate() {
            let index = buffer.index();
            if first[index] != time || !matches!(buffers[index].place, Place::Arena(_)) {
                continue;
            }
            first[index] = usize::MAX;
            let bytes = buffers[index].bytes().next_multiple_of(64);
            let dying = overwritable(step, param, |candidate: usize| {
                last[candidate] == time
                    && first[candidate] == usize::MAX
                    && matches!(buffers[candidate].place, Place::Arena(_))
                    && buffers[candidate].bytes().next_multiple_of(64) == bytes
            });
            buffers[index].place = match dying {
                Some(operand) => {
                    // The place passes on; it is not given back when the operand dies.
                    last[operand] = usize::MAX;
                    buffers[operand].place.clone()
                }
                None => Place::Arena(space.take(bytes)),
            };
        }
        for buffer in &step.arguments {
            let index = buffer.index();
            if let (true, Place::Arena(offset)) = (last[index] == time, &buffers[index].place) {
                last[index] = usize::MAX;
                space.give_back(*offset, buffers[index].bytes().next_multiple_of(64));
            }
        }
    }
    space.end
}

/// The free places of the arena.
#[derive(Default)]
struct Space {
    /// Size by offset; neighbours are joined.
    free: BTreeMap<usize, usize>,
    end: usize,
}

impl Space {
    /// The first place that is large enough.
    fn take(&mut self, bytes: usize) -> usize {
        let fitting =
            self.free.iter().find(|(_, size)| **size >= bytes).map(|(offset, size)| (*offset, *size));
        let Some((offset, size)) = fitting else {
            // The last free place grows, if it is at the end.
            let (offset, size) = self.free.last_key_value().map_or((self.end, 0), |(o, s)| (*o, *s));
            let offset = if offset + size == self.end { offset } else { self.end };
            self.free.remove(&offset);
            self.end = offset + bytes;
            return offset;
        };
        self.free.remove(&offset);
        if size > bytes {
            self.free.insert(offset + bytes, size - bytes);
        }
        offset
    }

    fn give_back(&mut self, mut offset: usize, mut bytes: usize) {
        if bytes == 0 {
            return;
        }
        if let Some(size) = self.free.remove(&(offset + bytes)) {
            bytes += size;
        }
        if let Some((before, size)) = self.free.range(..offset).next_back().map(|(o, s)| (*o, *s))
            && before + size == offset
        {
            offset = before;
            bytes += size;
        }
        self.free.insert(offset, bytes);
    }
}

/// The buffer of an operand that the written parameter may replace: the kernel reads it only at the elements it writes.
fn overwritable(step: &Step, param: usize, candidate: impl Fn(usize) -> bool) -> Option<usize> {
    let Kernel::Loop(kernel) = &step.kernel else { return None };
    if !kernel.params[param].written || kernel.stores.len() != 1 {
        return None;
    }
    let is = |param: u16, other: usize| step.arguments[usize::from(param)] == step.arguments[other];
    (0..step.arguments.len()).filter(|&p| p != param && candidate(step.arguments[p].index())).find_map(|p| {
        let same_type = kernel.params[p].dtype.size() == kernel.params[param].dtype.size();
        (same_type && reads_only_what_it_writes(kernel, |read| is(read, p), |written| is(written, param)))
            .then(|| step.arguments[p].index())
    })
}

#[cfg(test)]
mod tests;
