//! Neighbouring loop kernels over the same iterations as one kernel with several stores.
//!
//! A value that several kernels use is stored once, by a kernel of its own; where the next kernel runs over the same
//! iterations and reads it only at the element that has just been computed, both can be one pass. So a chain whose
//! values are kept for the gradient becomes a few kernels, not one a link.

use std::collections::HashMap;

use hypatia_graph::{DType, Site};
use smallvec::SmallVec;

use crate::kernel::{
    Address, Affine, Instruction, Kernel, LoopKernel, Param, RuntimeStart, Store, StoreKind, Value,
};
use crate::lower::{Memory, UnplacedStep};

/// Instructions of a merged body, at most: beyond, registers run out and compiling takes longer than it saves.
const BODY_LIMIT: usize = 120;

/// Parameters of a merged kernel, at most.
const PARAM_LIMIT: usize = 48;

/// The steps with neighbours merged where that changes nothing but the number of passes.
pub fn merge(steps: Vec<UnplacedStep>) -> Vec<UnplacedStep> {
    let mut merged: Vec<UnplacedStep> = Vec::new();
    let mut group: Option<Group> = None;
    for step in steps {
        if let Some(open) = &mut group
            && open.append(&step)
        {
            continue;
        }
        merged.extend(group.take().map(Group::finish));
        match Group::begin(step) {
            Ok(open) => group = Some(open),
            Err(step) => merged.push(*step),
        }
    }
    merged.extend(group.map(Group::finish));
    merged
}

/// A kernel that grows.
struct Group {
    kernel: LoopKernel,
    arguments: Vec<Memory>,
    label: String,
    site: Option<Site>,
    /// What the kernel writes, with value and position.
    written: HashMap<Memory, (Value, Affine)>,
    known: HashMap<Instruction, Value>,
}

impl Group {
    /// A group of one, if the kernel can be merged with others at all.
    fn begin(step: UnplacedStep) -> Result<Group, Box<UnplacedStep>> {
        let Kernel::Loop(kernel) = &step.kernel else { return Err(Box::new(step)) };
        if !is_plain(kernel) {
            return Err(Box::new(step));
        }
        let instructions = kernel.body.iter().cloned().enumerate();
        let mut group = Group {
            kernel: kernel.clone(),
            known: instructions.map(|(i, instruction)| (instruction, Value(i as u32))).collect(),
            written: HashMap::new(),
            arguments: step.arguments,
            label: step.label,
            site: step.site,
        };
        group.note_stores(0);
        Ok(group)
    }

    fn finish(self) -> UnplacedStep {
        UnplacedStep {
            kernel: Kernel::Loop(self.kernel),
            arguments: self.arguments,
            label: self.label,
            site: self.site,
        }
    }

    fn note_stores(&mut self, from: usize) {
        for store in &self.kernel.stores[from..] {
            let memory = self.arguments[usize::from(store.address.param)];
            self.written.insert(memory, (store.value, store.address.position.clone()));
        }
    }

    /// Whether a kernel reads something that the group writes, and that only at the element just written.
    fn accepts(&self, step: &UnplacedStep, kernel: &LoopKernel) -> bool {
        let memory = |param: u16| step.arguments[usize::from(param)];
        let same_loops = self.kernel.extents == kernel.extents && is_plain(kernel);
        let small = self.kernel.body.len() + kernel.body.len() <= BODY_LIMIT
            && self.kernel.params.len() + kernel.params.len() <= PARAM_LIMIT;
        if !same_loops || !small {
            return false;
        }
        let mut feeds = false;
        for instruction in &kernel.body {
            match instruction {
                Instruction::Load(address) => {
                    if let Some((_, position)) = self.written.get(&memory(address.param)) {
                        feeds = true;
                        if *position != address.position {
                            return false;
                        }
                    }
                }
                Instruction::LoadAt { address, .. } if self.written.contains_key(&memory(address.param)) => {
                    return false;
                }
                Instruction::Literal(_)
                | Instruction::LoadAt { .. }
                | Instruction::Position(_)
                | Instruction::Index { .. }
                | Instruction::Map(..)
                | Instruction::Cast(..) => {}
            }
        }
        let starts = kernel.starts.iter().any(|start| self.written.contains_key(&memory(start.param)));
        // Memory is laid out on the promise that what a kernel writes, it does not read.
        let overwrites =
            kernel.stores.iter().any(|store| self.arguments.contains(&memory(store.address.param)));
        feeds && !starts && !overwrites
    }

    /// Adds a kernel to the group, if it fits.
    fn append(&mut self, step: &UnplacedStep) -> bool {
        let Kernel::Loop(kernel) = &step.kernel else { return false };
        if !self.accepts(step, kernel) {
            return false;
        }
        let pairs = step.arguments.iter().zip(&kernel.params);
        let params: Vec<u16> = pairs.map(|(memory, param)| self.param(*memory, param)).collect();
        let starts: SmallVec<[u16; 4]> =
            kernel.starts.iter().map(|start| self.start(start, params[usize::from(start.param)])).collect();
        let position = |position: &Affine| {
            let mut position = position.clone();
            for (start, _) in &mut position.starts {
                *start = starts[usize::from(*start)];
            }
            position
        };
        let moved = |address: &Address| Address {
            param: params[usize::from(address.param)],
            position: position(&address.position),
        };
        let mut values: Vec<Value> = Vec::new();
        for (instruction, dtype) in kernel.body.iter().zip(&kernel.types) {
            let of = |value: &Value| values[value.index()];
            let value = match instruction {
                Instruction::Load(address) => {
                    match self.written.get(&step.arguments[usize::from(address.param)]) {
                        Some((value, _)) => *value,
                        None => self.push(Instruction::Load(moved(address)), *dtype),
                    }
                }
                Instruction::LoadAt { address, index, stride } => self.push(
                    Instruction::LoadAt { address: moved(address), index: of(index), stride: *stride },
                    *dtype,
                ),
                Instruction::Position(affine) => self.push(Instruction::Position(position(affine)), *dtype),
                Instruction::Index { index, extent, axis } => {
                    self.push(Instruction::Index { index: of(index), extent: *extent, axis: *axis }, *dtype)
                }
                Instruction::Map(f, operands) => {
                    self.push(Instruction::Map(*f, operands.iter().map(of).collect()), *dtype)
                }
                Instruction::Cast(to, value) => self.push(Instruction::Cast(*to, of(value)), *dtype),
                Instruction::Literal(literal) => self.push(Instruction::Literal(*literal), *dtype),
            };
            values.push(value);
        }
        let before = self.kernel.stores.len();
        self.kernel.stores.extend(kernel.stores.iter().map(|store| Store {
            address: moved(&store.address),
            value: values[store.value.index()],
            kind: store.kind.clone(),
        }));
        self.note_stores(before);
        self.label.clone_from(&step.label);
        self.site = step.site;
        true
    }

    fn push(&mut self, instruction: Instruction, dtype: DType) -> Value {
        let next = Value(self.kernel.body.len() as u32);
        let value = *self.known.entry(instruction.clone()).or_insert(next);
        if value == next {
            self.kernel.body.push(instruction);
            self.kernel.types.push(dtype);
        }
        value
    }

    fn param(&mut self, memory: Memory, param: &Param) -> u16 {
        let known = self
            .arguments
            .iter()
            .zip(&self.kernel.params)
            .position(|(m, p)| *m == memory && p.written == param.written);
        known.unwrap_or_else(|| {
            self.arguments.push(memory);
            self.kernel.params.push(param.clone());
            self.arguments.len() - 1
        }) as u16
    }

    fn start(&mut self, start: &RuntimeStart, param: u16) -> u16 {
        let start = RuntimeStart { param, ..start.clone() };
        let known = self.kernel.starts.iter().position(|s| *s == start);
        known.unwrap_or_else(|| {
            self.kernel.starts.push(start);
            self.kernel.starts.len() - 1
        }) as u16
    }
}

/// Whether every iteration of a kernel stands alone.
fn is_plain(kernel: &LoopKernel) -> bool {
    kernel.stores.iter().all(|store| store.kind == StoreKind::Plain) && !kernel.reduced.contains(&true)
}
