//! The reference evaluation of kernels and programs: slow, obvious, the definition of the kernel form. Back ends are
//! tested against it.
//!
//! Iterations run one after another in row-major order; each evaluates the whole body, then the stores in their order.
//! A fold begins at its identity and takes its values in iteration order; where the innermost axis is reduced it keeps
//! [`LANES`] partial results, one for each innermost index modulo [`LANES`] over all reduced axes, joined at the end in
//! halves. So elementwise values and folds are defined to the bit. Products are not: they are summed in float64 (`i64`
//! for integers) and rounded once, and engines come near. Of several indices out of range the first is reported.
//!
//! Every address and argument is checked: a program that breaks the rules of the kernel form gives
//! [`RunError::Broken`] with the fault in words, never a panic.

use hypatia_graph::array::Extents;
use hypatia_graph::op::{IndexCheck, Write};
use hypatia_graph::random::uniform_element;
use hypatia_graph::{Array, DType, Literal, ScalarFn, broken};
use smallvec::SmallVec;

use super::{
    Address, Affine, ConvolutionKernel, Instruction, Kernel, LANES, LoopKernel, Matrix, OutOfRange, Place,
    ProductKernel, Program, RandomKernel, RunError, RuntimeStart, Scale, ScanKernel, Store, StoreKind, Value,
};

/// Runs a program: its results, in order. `shared` holds the shared variables in the order of [`Program::shared`];
/// they are updated in place, or left as they were if the program fails.
pub fn evaluate(program: &Program, inputs: &[&Array], shared: &mut [Array]) -> Result<Vec<Array>, RunError> {
    let mut memory = Memory::new(program, inputs, shared)?;
    let mut next = 0;
    for step in &program.steps {
        let number = next;
        next += step.count();
        if let Some((parameter, argument)) =
            step.kernel.params().iter().zip(&step.arguments).find(|(param, id)| {
                let buffer = program.buffers.get(id.index());
                buffer.is_none_or(|b| b.dtype != param.dtype || b.len() < param.len)
            })
        {
            return fault(format!("step {number} passes buffer {} as {parameter:?}", argument.0));
        }
        if step.kernel.params().len() != step.arguments.len() {
            return fault(format!("step {number} has {} arguments", step.arguments.len()));
        }
        let mut run = Run { step: number, kernel: &step.kernel, memory: &mut memory, found: None };
        let slots: Vec<Place> =
            step.arguments.iter().map(|id| program.buffers[id.index()].place.clone()).collect();
        run.kernel(&slots)?;
        if let Some(found) = run.found {
            return Err(RunError::OutOfRange(found));
        }
    }
    for (value, bytes) in shared.iter_mut().zip(&memory.shared) {
        value.bytes_mut().copy_from_slice(bytes);
    }
    let outputs = program.outputs.iter().zip(&memory.outputs).map(|((dtype, shape), bytes)| {
        let mut value = zeros(*dtype, shape)?;
        value.bytes_mut().copy_from_slice(bytes);
        Ok(value)
    });
    outputs.collect()
}

/// Runs one kernel on a buffer for each parameter. What it wrote before an index was found out of range stays.
pub fn evaluate_kernel(kernel: &Kernel, buffers: &mut [Array]) -> Result<(), RunError> {
    if buffers.len() != kernel.params().len() {
        return fault(format!("{} buffers for {} parameters", buffers.len(), kernel.params().len()));
    }
    for (number, (buffer, param)) in buffers.iter().zip(kernel.params()).enumerate() {
        if buffer.dtype() != param.dtype || buffer.len() != param.len {
            return fault(format!("buffer {number} is {}[{}], not {param:?}", buffer.dtype(), buffer.len()));
        }
    }
    let mut memory = Memory {
        outputs: buffers.iter().map(|buffer| buffer.bytes().to_vec()).collect(),
        ..Memory::default()
    };
    let slots: Vec<Place> = (0..buffers.len()).map(Place::Output).collect();
    let mut run = Run { step: 0, kernel, memory: &mut memory, found: None };
    let result = run.kernel(&slots);
    let found = run.found;
    for (buffer, bytes) in buffers.iter_mut().zip(&memory.outputs) {
        buffer.bytes_mut().copy_from_slice(bytes);
    }
    result?;
    found.map_or(Ok(()), |found| Err(RunError::OutOfRange(found)))
}

fn zeros(dtype: DType, shape: &[usize]) -> Result<Array, RunError> {
    let bytes = shape.iter().fold(dtype.size(), |bytes, extent| bytes.saturating_mul(*extent));
    Array::zeros(dtype, shape).map_err(|_| RunError::Memory(bytes))
}

fn fault<T>(found: String) -> Result<T, RunError> {
    Err(broken!("a valid program and its arrays", found).into())
}

/// The bytes behind every place.
#[derive(Default)]
struct Memory {
    inputs: Vec<Vec<u8>>,
    shared: Vec<Vec<u8>>,
    constants: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    arena: Vec<u8>,
}

impl Memory {
    fn new(program: &Program, inputs: &[&Array], shared: &[Array]) -> Result<Memory, RunError> {
        if shared.len() != program.shared.len() {
            return fault(format!("{} shared variables, not {}", shared.len(), program.shared.len()));
        }
        let memory = Memory {
            inputs: inputs.iter().map(|a| a.bytes().to_vec()).collect(),
            shared: shared.iter().map(|a| a.bytes().to_vec()).collect(),
            constants: program.constants.iter().map(|a| a.bytes().to_vec()).collect(),
            outputs: program
                .outputs
                .iter()
                .map(|(dtype, shape)| vec![0; shape.iter().product::<usize>() * dtype.size()])
                .collect(),
            arena: vec![0; program.arena_bytes],
        };
        for (number, buffer) in program.buffers.iter().enumerate() {
            let (bytes, from) = memory.at(&buffer.place);
            if bytes.is_none_or(|bytes| bytes.len() < from + buffer.bytes()) {
                return fault(format!("buffer {number} does not fit into {:?}", buffer.place));
            }
        }
        Ok(memory)
    }

    fn at(&self, place: &Place) -> (Option<&Vec<u8>>, usize) {
        match place {
            Place::Input(n) => (self.inputs.get(*n), 0),
            Place::Shared(n) => (self.shared.get(*n), 0),
            Place::Constant(n) => (self.constants.get(*n), 0),
            Place::Output(n) => (self.outputs.get(*n), 0),
            Place::Arena(offset) => (Some(&self.arena), *offset),
        }
    }

    fn at_mut(&mut self, place: &Place) -> (Option<&mut Vec<u8>>, usize) {
        match place {
            Place::Input(_) | Place::Constant(_) => (None, 0),
            Place::Shared(n) => (self.shared.get_mut(*n), 0),
            Place::Output(n) => (self.outputs.get_mut(*n), 0),
            Place::Arena(offset) => (Some(&mut self.arena), *offset),
        }
    }
}

/// An element; `None` where `bytes` has not the size of the type.
fn from_bytes(dtype: DType, bytes: &[u8]) -> Option<Literal> {
    Some(match dtype {
        DType::Bool => Literal::Bool(u8::from_ne_bytes(bytes.try_into().ok()?) != 0),
        DType::U8 => Literal::U8(u8::from_ne_bytes(bytes.try_into().ok()?)),
        DType::I32 => Literal::I32(i32::from_ne_bytes(bytes.try_into().ok()?)),
        DType::I64 => Literal::I64(i64::from_ne_bytes(bytes.try_into().ok()?)),
        DType::F32 => Literal::F32(u32::from_ne_bytes(bytes.try_into().ok()?)),
        DType::F64 => Literal::F64(u64::from_ne_bytes(bytes.try_into().ok()?)),
    })
}

fn to_bytes(value: Literal) -> SmallVec<[u8; 8]> {
    match value {
        Literal::Bool(x) => SmallVec::from_slice(&[u8::from(x)]),
        Literal::U8(x) => SmallVec::from_slice(&[x]),
        Literal::I32(x) => SmallVec::from_slice(&x.to_ne_bytes()),
        Literal::I64(x) => SmallVec::from_slice(&x.to_ne_bytes()),
        Literal::F32(x) => SmallVec::from_slice(&x.to_ne_bytes()),
        Literal::F64(x) => SmallVec::from_slice(&x.to_ne_bytes()),
    }
}

/// One kernel while it runs.
struct Run<'a> {
    step: usize,
    kernel: &'a Kernel,
    memory: &'a mut Memory,
    found: Option<OutOfRange>,
}

impl Run<'_> {
    fn kernel(&mut self, slots: &[Place]) -> Result<(), RunError> {
        let starts = self
            .kernel
            .starts()
            .iter()
            .enumerate()
            .map(|(number, start)| self.start(slots, number, start))
            .collect::<Result<Vec<i64>, _>>()?;
        match self.kernel {
            Kernel::Loop(kernel)
                if kernel.reduced.len() != kernel.extents.len()
                    || kernel.types.len() != kernel.body.len()
                    || kernel.stores.iter().any(|store| store.value.index() >= kernel.body.len()) =>
            {
                fault(format!("step {} has lists of unequal length", self.step))
            }
            Kernel::Loop(kernel) => self.loops(kernel, slots, &starts),
            Kernel::Product(kernel) => self.product(kernel, slots, &starts),
            Kernel::Convolution(kernel) => self.convolution(kernel, slots, &starts),
            Kernel::Random(kernel) => self.random(kernel, slots),
            Kernel::Scan(kernel) => self.scan(kernel, slots),
        }
    }

    /// The body is run on copies of what its places hold, which are then written back.
    fn scan(&mut self, kernel: &ScanKernel, slots: &[Place]) -> Result<(), RunError> {
        let mut made = 0;
        for step in 0..kernel.steps {
            let taken = |place: &Place| self.taken(kernel, slots, place, step);
            let inputs =
                (0..kernel.inputs.len()).map(|n| taken(&Place::Input(n))).collect::<Result<Vec<_>, _>>()?;
            let mut shared = (0..kernel.body.shared.len())
                .map(|n| taken(&Place::Shared(n)))
                .collect::<Result<Vec<_>, _>>()?;
            let inputs: Vec<&Array> = inputs.iter().collect();
            let outputs = evaluate(&kernel.body, &inputs, &mut shared).map_err(|error| match error {
                RunError::OutOfRange(found) => {
                    RunError::OutOfRange(OutOfRange { step: self.step + 1 + found.step, ..found })
                }
                other @ (RunError::Arrays(_)
                | RunError::Memory(_)
                | RunError::Device(_)
                | RunError::Broken(_)) => other,
            })?;
            for (n, value) in shared.iter().enumerate() {
                // What a step reads in the row before its own it does not write.
                if kernel.carries.get(n).is_some_and(|carry| carry.row.is_none()) {
                    self.put(kernel, slots, &Place::Shared(n), step, value)?;
                }
            }
            let (rows, condition) = outputs.split_at(kernel.rows.len().min(outputs.len()));
            for (n, row) in rows.iter().enumerate() {
                self.put(kernel, slots, &Place::Output(n), step, row)?;
            }
            made = step + 1;
            if condition.iter().any(|met| met.get(0) == Literal::Bool(true)) {
                for step in made..kernel.steps {
                    for (n, row) in rows.iter().enumerate() {
                        self.put(kernel, slots, &Place::Output(n), step, row)?;
                    }
                }
                break;
            }
        }
        if let Some(last) = made.checked_sub(1) {
            for (row, param) in kernel.kept_rows() {
                for element in 0..row.stride {
                    let value =
                        self.load(slots, row.param, row.offset + row.stride * last as i64 + element)?;
                    self.store(slots, param, element, value)?;
                }
            }
        }
        match kernel.made {
            Some(param) => self.store(slots, param, 0, Literal::I64(made as i64)),
            None => Ok(()),
        }
    }

    /// The value that a place of a scan's body holds in a step; an empty one for a place that no buffer has.
    fn taken(
        &self,
        kernel: &ScanKernel,
        slots: &[Place],
        place: &Place,
        step: usize,
    ) -> Result<Array, RunError> {
        let Some(buffer) = kernel.body.buffers.iter().find(|buffer| buffer.place == *place) else {
            return zeros(DType::U8, &[0]);
        };
        let Some((param, begin)) = kernel.locate(place, step) else {
            return fault(format!("step {} has a body with {place:?}", self.step));
        };
        let mut value = zeros(buffer.dtype, &buffer.shape)?;
        for element in 0..buffer.len() {
            let literal = self.load(slots, param, begin / buffer.dtype.size() as i64 + element as i64)?;
            value.bytes_mut()[element * buffer.dtype.size()..][..buffer.dtype.size()]
                .copy_from_slice(&to_bytes(literal));
        }
        Ok(value)
    }

    /// Writes the value of a place of a scan's body.
    fn put(
        &mut self,
        kernel: &ScanKernel,
        slots: &[Place],
        place: &Place,
        step: usize,
        value: &Array,
    ) -> Result<(), RunError> {
        let Some((param, begin)) = kernel.locate(place, step) else {
            return fault(format!("step {} has a body with {place:?}", self.step));
        };
        for element in 0..value.len() {
            let position = begin / value.dtype().size() as i64 + element as i64;
            self.store(slots, param, position, value.get(element))?;
        }
        Ok(())
    }

    fn random(&mut self, kernel: &RandomKernel, slots: &[Place]) -> Result<(), RunError> {
        let counter = integer(self.load(slots, kernel.counter, 0)?)?;
        for element in 0..kernel.len() as u64 {
            let value = uniform_element(kernel.key, counter, element);
            self.store(slots, kernel.out, element as i64, Literal::F32(value.to_bits()))?;
        }
        Ok(())
    }

    fn load(&self, slots: &[Place], param: u16, position: i64) -> Result<Literal, RunError> {
        let (declared, slot) = self.parameter(slots, param, position)?;
        let (bytes, from) = self.memory.at(slot);
        let size = declared.size();
        let from = from + position as usize * size;
        let bytes = bytes.and_then(|bytes| bytes.get(from..from + size));
        match bytes.and_then(|bytes| from_bytes(declared, bytes)) {
            Some(value) => Ok(value),
            None => fault(format!("step {} has no memory for parameter {param}", self.step)),
        }
    }

    fn store(&mut self, slots: &[Place], param: u16, position: i64, value: Literal) -> Result<(), RunError> {
        let (declared, slot) = self.parameter(slots, param, position)?;
        if value.dtype() != declared {
            return fault(format!(
                "step {} stores {} into parameter {param} of {declared}",
                self.step,
                value.dtype()
            ));
        }
        let size = declared.size();
        if !self.kernel.params()[usize::from(param)].written {
            return fault(format!(
                "step {} writes parameter {param}, which is not declared written",
                self.step
            ));
        }
        let (bytes, from) = self.memory.at_mut(slot);
        let from = from + position as usize * size;
        match bytes.and_then(|bytes| bytes.get_mut(from..from + size)) {
            Some(bytes) => bytes.copy_from_slice(&to_bytes(value)),
            None => return fault(format!("step {} may not write parameter {param}", self.step)),
        }
        Ok(())
    }

    fn parameter<'s>(
        &self,
        slots: &'s [Place],
        param: u16,
        position: i64,
    ) -> Result<(DType, &'s Place), RunError> {
        let declared = self.kernel.params().get(usize::from(param));
        match (declared, slots.get(usize::from(param))) {
            (Some(declared), Some(slot)) if position >= 0 && (position as u64) < declared.len as u64 => {
                Ok((declared.dtype, slot))
            }
            (Some(declared), Some(_)) => fault(format!(
                "step {} touches element {position} of parameter {param}, which has {}",
                self.step, declared.len
            )),
            _ => fault(format!("step {} has no parameter {param}", self.step)),
        }
    }

    fn start(&mut self, slots: &[Place], number: usize, start: &RuntimeStart) -> Result<i64, RunError> {
        let value = integer(self.load(slots, start.param, 0)?)?;
        Ok(self.checked(number, start.check(), value))
    }

    /// The position that a value names; 0 where it names none, which is reported.
    fn checked(&mut self, number: usize, check: IndexCheck, value: i64) -> i64 {
        match check.position(value) {
            Some(position) => position as i64,
            None => {
                self.found.get_or_insert(OutOfRange { step: self.step, value, check: number });
                0
            }
        }
    }

    fn loops(&mut self, kernel: &LoopKernel, slots: &[Place], starts: &[i64]) -> Result<(), RunError> {
        let rank = kernel.extents.len();
        let lanes = if kernel.reduced.last() == Some(&true) { LANES } else { 1 };
        let kept: Vec<usize> = (0..rank).filter(|axis| !kernel.reduced[*axis]).collect();
        let results: usize = kept.iter().map(|axis| kernel.extents[*axis]).product();
        let mut folds: Vec<Vec<Partial>> = kernel
            .stores
            .iter()
            .map(|store| match store.kind {
                StoreKind::Fold(fold) => {
                    let identity = fold.identity(kernel.types[store.value.index()]);
                    vec![Partial { value: identity, position: 0 }; results * lanes]
                }
                StoreKind::ArgMax => {
                    let smallest = hypatia_graph::Fold::Max.identity(kernel.types[store.value.index()]);
                    vec![Partial { value: smallest, position: -1 }; results]
                }
                StoreKind::Plain | StoreKind::At { .. } => Vec::new(),
            })
            .collect();
        for_each_index(&kernel.extents, |index| {
            let values = self.body(kernel, slots, starts, index)?;
            let result = kept.iter().fold(0, |number, axis| number * kernel.extents[*axis] + index[*axis]);
            for (store, partials) in kernel.stores.iter().zip(&mut folds) {
                let value = value_of(&values, store.value)?;
                let position = place(&store.address.position, index, starts)?;
                match store.kind {
                    StoreKind::Plain => self.store(slots, store.address.param, position, value)?,
                    StoreKind::Fold(fold) => {
                        let lane = if lanes == 1 { 0 } else { index[rank - 1] % lanes };
                        let partial = &mut partials[result * lanes + lane];
                        partial.value = map(fold.join(), &[partial.value, value])?;
                    }
                    StoreKind::ArgMax => {
                        let along =
                            (0..rank).find(|axis| kernel.reduced[*axis]).map_or(0, |axis| index[axis]);
                        let best = &mut partials[result];
                        if best.position < 0 || exceeds(value, best.value) {
                            *best = Partial { value, position: along as i64 };
                        }
                    }
                    StoreKind::At { index: at, stride, write } => {
                        if kernel.params.get(usize::from(store.address.param)).is_some_and(|p| p.len == 0) {
                            continue;
                        }
                        let position = position + stride * integer(value_of(&values, at)?)?;
                        let value = match write {
                            Write::Set => value,
                            Write::Add => {
                                let old = self.load(slots, store.address.param, position)?;
                                add(old, value)?
                            }
                        };
                        self.store(slots, store.address.param, position, value)?;
                    }
                }
            }
            Ok(())
        })?;
        let kept_extents: Vec<usize> = kept.iter().map(|axis| kernel.extents[*axis]).collect();
        for (store, partials) in kernel.stores.iter().zip(&folds) {
            let mut number = 0;
            for_each_index(&kept_extents, |kept_index| {
                let mut index = vec![0; rank];
                for (axis, at) in kept.iter().zip(kept_index) {
                    index[*axis] = *at;
                }
                self.finish(
                    store,
                    slots,
                    partials,
                    lanes,
                    number,
                    place(&store.address.position, &index, starts)?,
                )?;
                number += 1;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes the result of a fold.
    fn finish(
        &mut self,
        store: &Store,
        slots: &[Place],
        partials: &[Partial],
        lanes: usize,
        number: usize,
        position: i64,
    ) -> Result<(), RunError> {
        let value = match store.kind {
            StoreKind::Plain | StoreKind::At { .. } => return Ok(()),
            StoreKind::ArgMax => Literal::I64(partials[number].position.max(0)),
            StoreKind::Fold(fold) => {
                let mut values: Vec<Literal> =
                    partials[number * lanes..(number + 1) * lanes].iter().map(|p| p.value).collect();
                while values.len() > 1 {
                    let upper = values.split_off(values.len() / 2);
                    for (low, high) in values.iter_mut().zip(upper) {
                        *low = map(fold.join(), &[*low, high])?;
                    }
                }
                values[0]
            }
        };
        self.store(slots, store.address.param, position, value)
    }

    fn body(
        &mut self,
        kernel: &LoopKernel,
        slots: &[Place],
        starts: &[i64],
        index: &[usize],
    ) -> Result<Vec<Literal>, RunError> {
        let mut values: Vec<Literal> = Vec::with_capacity(kernel.body.len());
        for (instruction, dtype) in kernel.body.iter().zip(&kernel.types) {
            let value = match instruction {
                Instruction::Literal(value) => *value,
                Instruction::Load(address) => self.element(kernel, slots, address, starts, index, 0)?,
                Instruction::LoadAt { address, index: at, stride } => {
                    let shift = stride * integer(value_of(&values, *at)?)?;
                    self.element(kernel, slots, address, starts, index, shift)?
                }
                Instruction::Position(position) => Literal::I64(place(position, index, starts)?),
                Instruction::Index { index: at, extent, axis } => {
                    let found = integer(value_of(&values, *at)?)?;
                    let check = IndexCheck { axis: *axis, extent: *extent, len: 1, is_range: false };
                    Literal::I64(self.checked(kernel.starts.len() + values.len(), check, found))
                }
                Instruction::Map(function, operands) => {
                    let operands =
                        operands.iter().map(|v| value_of(&values, *v)).collect::<Result<Vec<_>, _>>()?;
                    map(*function, &operands)?
                }
                Instruction::Cast(dtype, value) => value_of(&values, *value)?.cast(*dtype),
            };
            if value.dtype() != *dtype {
                return fault(format!(
                    "step {}: v{} is {}, declared {dtype}",
                    self.step,
                    values.len(),
                    value.dtype()
                ));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// An element of a buffer; of a buffer without elements (after an index was out of range) zero.
    fn element(
        &self,
        kernel: &LoopKernel,
        slots: &[Place],
        address: &Address,
        starts: &[i64],
        index: &[usize],
        shift: i64,
    ) -> Result<Literal, RunError> {
        match kernel.params.get(usize::from(address.param)) {
            Some(param) if param.len == 0 && self.found.is_some() => Ok(Literal::from_i64(0, param.dtype)),
            _ => self.load(slots, address.param, place(&address.position, index, starts)? + shift),
        }
    }

    fn product(&mut self, kernel: &ProductKernel, slots: &[Place], starts: &[i64]) -> Result<(), RunError> {
        let alpha = self.scale(slots, kernel.alpha, kernel.dtype)?;
        let beta = self.scale(slots, kernel.beta, kernel.dtype)?;
        let at = |matrix: &Matrix, batch: usize, row: usize, column: usize| {
            let further = matrix.batch_stride * batch as i64
                + matrix.row_stride * row as i64
                + matrix.column_stride * column as i64;
            place(&matrix.position, &[], starts).map(|begin| begin + further)
        };
        for_each_index(&[kernel.batch, kernel.m, kernel.n], |index| {
            let [batch, row, column] = [index[0], index[1], index[2]];
            let mut sum = Sum::zero(kernel.dtype);
            for k in 0..kernel.k {
                let a = self.load(slots, kernel.a.param, at(&kernel.a, batch, row, k)?)?;
                let b = self.load(slots, kernel.b.param, at(&kernel.b, batch, k, column)?)?;
                sum.add(a, b)?;
            }
            let mut total = Sum::zero(kernel.dtype);
            total.add_sum(alpha, sum)?;
            let position = at(&kernel.c, batch, row, column)?;
            if kernel.beta != Scale::Constant(0.0) {
                let old = self.load(slots, kernel.c.param, position)?;
                total.add(beta, old)?;
            }
            self.store(slots, kernel.c.param, position, total.round(kernel.dtype))
        })
    }

    fn convolution(
        &mut self,
        kernel: &ConvolutionKernel,
        slots: &[Place],
        starts: &[i64],
    ) -> Result<(), RunError> {
        let lead = kernel.lead.len();
        let terms: Vec<usize> = kernel.taps()[lead + 1..].to_vec();
        let along = |strides: &[i64], index: &[usize]| -> i64 {
            strides.iter().zip(index).map(|(stride, i)| stride * *i as i64).sum()
        };
        let begins = [place(&kernel.x.position, &[], starts)?, place(&kernel.w.position, &[], starts)?];
        let mut out = 0;
        for_each_index(&kernel.results(), |index| {
            let mut sum = Sum::zero(kernel.dtype);
            for_each_index(&terms, |term| {
                let mut x: Extents = index[..=lead].into();
                let mut w: Extents = index[..lead].into();
                x.push(term[0]);
                w.push(index[lead + 1]);
                w.extend_from_slice(term);
                for (number, axis) in kernel.axes.iter().enumerate() {
                    let Some(source) = axis.source(index[lead + 2 + number], term[1 + number]) else {
                        return Ok(());
                    };
                    x.push(source);
                }
                let a = self.load(slots, kernel.x.param, begins[0] + along(&kernel.x.strides, &x))?;
                let b = self.load(slots, kernel.w.param, begins[1] + along(&kernel.w.strides, &w))?;
                sum.add(a, b)
            })?;
            out += 1;
            self.store(slots, kernel.out, out - 1, sum.round(kernel.dtype))
        })
    }

    fn scale(&self, slots: &[Place], scale: Scale, dtype: DType) -> Result<Literal, RunError> {
        match scale {
            Scale::Constant(value) => Ok(Literal::from_f64(value, dtype)),
            Scale::Param(param) => self.load(slots, param, 0),
        }
    }
}

/// A fold in progress.
#[derive(Copy, Clone)]
struct Partial {
    value: Literal,
    position: i64,
}

/// A sum of products: wide, wrapping for integers.
#[derive(Copy, Clone)]
enum Sum {
    Float(f64),
    Integer(i64),
}

impl Sum {
    fn zero(dtype: DType) -> Sum {
        if dtype.is_float() { Sum::Float(0.0) } else { Sum::Integer(0) }
    }

    fn add(&mut self, a: Literal, b: Literal) -> Result<(), RunError> {
        match self {
            Sum::Float(sum) => *sum += a.to_f64() * b.to_f64(),
            Sum::Integer(sum) => *sum = sum.wrapping_add(integer(a)?.wrapping_mul(integer(b)?)),
        }
        Ok(())
    }

    fn add_sum(&mut self, factor: Literal, other: Sum) -> Result<(), RunError> {
        match (self, other) {
            (Sum::Float(sum), Sum::Float(other)) => *sum += factor.to_f64() * other,
            (Sum::Integer(sum), Sum::Integer(other)) => {
                *sum = sum.wrapping_add(integer(factor)?.wrapping_mul(other));
            }
            (Sum::Float(_), Sum::Integer(_)) | (Sum::Integer(_), Sum::Float(_)) => {}
        }
        Ok(())
    }

    fn round(self, dtype: DType) -> Literal {
        match self {
            Sum::Float(sum) => Literal::from_f64(sum, dtype),
            Sum::Integer(sum) => Literal::from_i64(sum, dtype),
        }
    }
}

fn integer(value: Literal) -> Result<i64, RunError> {
    value.to_i64().map_or_else(|| fault(format!("{value:?} where an integer is needed")), Ok)
}

fn value_of(values: &[Literal], value: Value) -> Result<Literal, RunError> {
    values
        .get(value.index())
        .copied()
        .map_or_else(|| fault(format!("{value} is used before it is there")), Ok)
}

fn map(function: ScalarFn, operands: &[Literal]) -> Result<Literal, RunError> {
    function.eval(operands).map_or_else(|| fault(format!("{function} is not defined on {operands:?}")), Ok)
}

/// Adds elements of any type; truth values by `or`.
fn add(x: Literal, y: Literal) -> Result<Literal, RunError> {
    let function = if x.dtype() == DType::Bool { ScalarFn::Or } else { ScalarFn::Add };
    map(function, &[x, y])
}

/// Whether `value` comes before `best` as the largest: larger, or the first NaN.
fn exceeds(value: Literal, best: Literal) -> bool {
    match (value.to_i64(), best.to_i64()) {
        (Some(value), Some(best)) => value > best,
        _ => !best.to_f64().is_nan() && (value.to_f64().is_nan() || value.to_f64() > best.to_f64()),
    }
}

fn place(position: &Affine, index: &[usize], starts: &[i64]) -> Result<i64, RunError> {
    let axes: i64 = position.strides.iter().zip(index).map(|(stride, at)| stride * *at as i64).sum();
    let begins = position.starts.iter().map(|(number, factor)| match starts.get(usize::from(*number)) {
        Some(start) => Ok(factor * start),
        None => fault(format!("a position of a start {number}")),
    });
    Ok(position.offset + axes + begins.sum::<Result<i64, RunError>>()?)
}

/// Calls `visit` with every index of a box, in row-major order.
fn for_each_index(
    extents: &[usize],
    mut visit: impl FnMut(&[usize]) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let count: usize = extents.iter().product();
    let mut index = vec![0; extents.len()];
    for _ in 0..count {
        visit(&index)?;
        for axis in (0..extents.len()).rev() {
            index[axis] += 1;
            if index[axis] < extents[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::kernel::Param;
    use hypatia_graph::Fold;

    /// A kernel over `extents` that reads `p0` row by row and stores that into `p1`.
    fn fold(extents: &[usize], reduced: &[bool], strides: [i64; 2], dtype: DType, kind: StoreKind) -> Kernel {
        let address = |param, strides: [i64; 2]| Address {
            param,
            position: Affine { offset: 0, strides: strides[..].into(), starts: smallvec![] },
        };
        let result = if kind == StoreKind::ArgMax { DType::I64 } else { dtype };
        let kept = extents.iter().zip(reduced).filter(|(_, r)| !**r).map(|(n, _)| *n).product();
        Kernel::Loop(LoopKernel {
            extents: extents.into(),
            reduced: reduced.into(),
            params: vec![
                Param { dtype, len: extents.iter().product(), written: false },
                Param { dtype: result, len: kept, written: true },
            ],
            starts: Vec::new(),
            body: vec![Instruction::Load(address(0, [extents[1] as i64, 1]))],
            types: vec![dtype],
            stores: vec![Store { address: address(1, strides), value: Value(0), kind }],
        })
    }

    /// In float32 2^24 + 1 is 2^24: whether a one is lost tells which partial result it joined.
    #[test]
    fn sums_along_the_innermost_axis_keep_sixteen_partial_results() {
        let big = 16_777_216f32;
        let mut values = [0f32; 34];
        // Lane 0: 2^24, then 1 (lost). Lane 1: 1 and 1. Lane 8 joins lane 0 first: -2^24.
        (values[0], values[16], values[1], values[17], values[8]) = (big, 1.0, 1.0, 1.0, -big);
        let kernel = fold(&[1, 34], &[false, true], [1, 0], DType::F32, StoreKind::Fold(Fold::Sum));
        let mut buffers = [Array::vector(&values), Array::vector(&[0f32])];
        evaluate_kernel(&kernel, &mut buffers).unwrap();
        assert_eq!(buffers[1], Array::vector(&[2.0f32]));
        // One after another all ones are lost before -2^24 comes, but for the last.
        let kernel = fold(&[34, 1], &[true, false], [0, 1], DType::F32, StoreKind::Fold(Fold::Sum));
        evaluate_kernel(&kernel, &mut buffers).unwrap();
        assert_eq!(buffers[1], Array::vector(&[2.0f32]));
        (values[8], values[33]) = (0.0, -big);
        buffers[0] = Array::vector(&values);
        evaluate_kernel(&kernel, &mut buffers).unwrap();
        assert_eq!(buffers[1], Array::vector(&[0.0f32]));
    }

    #[test]
    fn the_position_of_the_largest_is_that_of_the_first() {
        let kernel = fold(&[2, 4], &[false, true], [1, 0], DType::F64, StoreKind::ArgMax);
        let values = [1.0, 5.0, 5.0, 2.0, 7.0, f64::NAN, 9.0, f64::NAN];
        let mut buffers = [Array::vector(&values), Array::vector(&[0i64; 2])];
        evaluate_kernel(&kernel, &mut buffers).unwrap();
        assert_eq!(buffers[1], Array::vector(&[1i64, 1]));
    }

    #[test]
    fn faults_are_told_in_words() {
        let mut kernel = fold(&[2, 4], &[false, true], [1, 0], DType::I32, StoreKind::Fold(Fold::Max));
        let mut buffers = [Array::vector(&[0i32; 8]), Array::vector(&[0i32; 2])];
        evaluate_kernel(&kernel, &mut buffers).unwrap();
        let message = |result: Result<(), RunError>| result.unwrap_err().to_string();
        let few = message(evaluate_kernel(&kernel, &mut buffers[..1]));
        assert!(few.ends_with("found 1 buffers for 2 parameters"), "{few}");
        if let Kernel::Loop(kernel) = &mut kernel {
            kernel.stores[0].address.position.offset = 1;
        }
        let beyond = message(evaluate_kernel(&kernel, &mut buffers));
        assert!(beyond.ends_with("found step 0 touches element 2 of parameter 1, which has 2"), "{beyond}");
    }
}
