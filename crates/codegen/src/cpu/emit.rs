//! Loop kernels as Cranelift code: the portable path, which covers every kernel.
//!
//! The innermost loop works on four elements at once where all that depends on it is 32 bits wide; the rest of the row,
//! and kernels with wider types, go element by element. Instructions stand in the outermost loop that gives them all
//! they depend on. The order of folds is that of [`crate::kernel`], so the bits do not depend on the width.
//!
//! A kernel is a function of its own or stands in the midst of other code ([`emit_between`]). Loops of known bounds that run
//! once, and all loops of a kernel that is unrolled, leave no code; what is then loaded and stored at known places passes
//! through [`RegisterCache`], which keeps it in registers. Every store goes to memory all the same.
#![warn(clippy::wildcard_enum_match_arm)]

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    Block, FuncRef, InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind, Type, Value as Ir,
    types,
};
use cranelift_frontend::{FunctionBuilder, Variable};
use hypatia_graph::op::Write;
use hypatia_graph::scalar::{Applied, AppliedInteger, Domain};
use hypatia_graph::{Broken, DType, Literal, ScalarFn, broken};
use smallvec::SmallVec;

use crate::cpu::lanes::{IntegerLanes, Lanes, Precision, Width};
use crate::cpu::register_cache::{CachedElement, RegisterCache};
use crate::kernel::{Address, Affine, Instruction, LANES, LoopKernel, Store, StoreKind, Value};

/// Routines that code calls.
#[derive(Copy, Clone)]
pub(super) struct Routines {
    /// Double-precision functions that are no instructions, `(function, x, y) -> f64`.
    pub(super) double: FuncRef,
    /// Integer powers, `(x, y) -> i64`.
    pub(super) power: FuncRef,
}

/// Memory of a parameter.
#[derive(Copy, Clone)]
pub(super) struct Memory {
    /// Its address, up to an offset.
    pub(super) base: Ir,
    /// Bytes from there to the first element.
    pub(super) offset: i64,
    /// The space in which [`RegisterCache`] knows elements by their offsets; none where nothing is to be kept in registers.
    pub(super) space: Option<usize>,
}

/// What is done about an index out of range.
#[derive(Copy, Clone)]
pub(super) struct Report {
    /// Address of three words: raised, value, check.
    pub(super) words: Ir,
    /// What the first word becomes; not 0.
    pub(super) raised: i64,
    /// Where a bad start goes on: nothing of the kernel was done.
    pub(super) failed: Block,
}

/// Fills the body of `fn(buffers, begin, end, error)`: buffers is a table of pointers, `begin..end` a range of the
/// outermost axis, `error` three words (raised, value, check).
pub(super) fn emit(
    builder: &mut FunctionBuilder<'_>,
    kernel: &LoopKernel,
    routines: Routines,
    fused: bool,
) -> Result<(), Broken> {
    let [buffers, begin, end, words] = function_params(builder)?;
    let failed = builder.create_block();
    let memories: Vec<Memory> = (0..kernel.params.len())
        .map(|i| Memory { base: table_entry(builder, buffers, i), offset: 0, space: None })
        .collect();
    let report = Report { words, raised: 1, failed };
    let range = [begin, end].map(|at| Counter { running: Some(at), plus: 0 });
    let mut cache = RegisterCache::default();
    Emitter::new(builder, kernel, &memories, &mut cache, report, routines, fused, false).emit(range)?;
    builder.ins().return_(&[]);
    builder.switch_to_block(failed);
    builder.ins().return_(&[]);
    Ok(())
}

/// Begins a function; its parameters.
pub(super) fn function_params(builder: &mut FunctionBuilder<'_>) -> Result<[Ir; 4], Broken> {
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let params = builder.block_params(entry);
    params.try_into().map_err(|_| broken!("four parameters of a function", params.len()))
}

/// Emits a kernel whole where the builder stands, with loops or unrolled. Elements in `cache` are those of straight code.
#[expect(clippy::too_many_arguments, reason = "all that stands around a kernel")]
pub(super) fn emit_between(
    builder: &mut FunctionBuilder<'_>,
    kernel: &LoopKernel,
    memories: &[Memory],
    cache: &mut RegisterCache,
    report: Report,
    routines: Routines,
    fused: bool,
    unrolled: bool,
) -> Result<(), Broken> {
    let outermost = kernel.extents.first().copied().unwrap_or(1);
    let range = [Counter::known(0), Counter::known(outermost as i64)];
    Emitter::new(builder, kernel, memories, cache, report, routines, fused, unrolled).emit(range)
}

/// The pointer at that place of a table.
pub(super) fn table_entry(builder: &mut FunctionBuilder<'_>, table: Ir, index: usize) -> Ir {
    builder.ins().load(types::I64, MemFlagsData::trusted(), table, 8 * index as i32)
}

/// Whether a kernel folds floats along its innermost axis.
fn folds_lanes(kernel: &LoopKernel) -> bool {
    let folds = |store: &Store| {
        matches!(store.kind, StoreKind::Fold(_)) && kernel.types[store.value.index()].is_float()
    };
    kernel.reduced.last().is_some_and(|reduced| *reduced) && kernel.stores.iter().any(folds)
}

/// Elements of a kernel's innermost loop that are emitted apart when it is unrolled: sets of four and single ones.
pub(super) fn row_parts(kernel: &LoopKernel) -> usize {
    let row = kernel.extents.last().copied().unwrap_or(1);
    if is_vector(kernel, &levels(kernel)) && !folds_lanes(kernel) { row / 4 + row % 4 } else { row }
}

/// The counter of a loop that is open.
#[derive(Copy, Clone)]
struct Counter {
    /// The part that changes while the code runs.
    running: Option<Ir>,
    /// What is known of it.
    plus: i64,
}

impl Counter {
    fn known(value: i64) -> Counter {
        Counter { running: None, plus: value }
    }

    fn value(self) -> Option<i64> {
        if self.running.is_none() { Some(self.plus) } else { None }
    }
}

/// A place in memory.
#[derive(Copy, Clone)]
struct Pointer {
    param: u16,
    base: Ir,
    /// Bytes from there.
    offset: i32,
    /// What is kept in registers goes by this, where the whole address is known.
    element: Option<CachedElement>,
}

struct Emitter<'e, 'b> {
    b: &'e mut FunctionBuilder<'b>,
    kernel: &'e LoopKernel,
    routines: Routines,
    fused: bool,
    memories: &'e [Memory],
    cache: &'e mut RegisterCache,
    range: [Counter; 2],
    report: Report,
    starts: Vec<Ir>,
    /// The counters of the loops that are open.
    counters: Vec<Counter>,
    /// How many of them are loops of the code.
    running: usize,
    /// Whether no loop is to be one.
    unrolled: bool,
    /// How many loops must be open for each instruction.
    levels: Vec<usize>,
    /// Whether the innermost loop works on four elements at once.
    vector: bool,
    /// Values that do not depend on the innermost loop, one lane each.
    outer: Vec<Option<Ir>>,
    /// Values of the innermost loop, in the present width.
    inner: Vec<Option<Ir>>,
    width: Width,
    fold: Option<FoldState>,
    /// The partial results of an unrolled fold of floats that are not its identity.
    partials: [Option<Ir>; LANES],
}

/// Where a fold keeps its partial results.
#[derive(Copy, Clone)]
enum FoldState {
    /// `LANES` partial results of floats, in memory between rows.
    Lanes(StackSlot),
    /// The same, in registers.
    Registers,
    /// One result of an integer fold.
    One(Variable),
    /// The largest value so far, whether there is one, and its position.
    ArgMax { best: Variable, found: Variable, at: Variable },
    /// In the result itself, element by element.
    Memory,
}

/// For each instruction, the number of loops that must be open around it.
fn levels(kernel: &LoopKernel) -> Vec<usize> {
    let affine = |a: &Affine| a.strides.iter().rposition(|s| *s != 0).map_or(0, |axis| axis + 1);
    let mut levels: Vec<usize> = Vec::new();
    for instruction in &kernel.body {
        let of = |v: &Value| levels[v.index()];
        levels.push(match instruction {
            Instruction::Literal(_) => 0,
            Instruction::Load(address) => affine(&address.position),
            Instruction::LoadAt { address, index, .. } => affine(&address.position).max(of(index)),
            Instruction::Position(position) => affine(position),
            Instruction::Index { index, .. } => of(index),
            Instruction::Map(_, operands) => operands.iter().map(of).max().unwrap_or(0),
            Instruction::Cast(_, value) => of(value),
        });
    }
    levels
}

/// Whether the innermost loop can work on four elements at once: all it computes fits lanes of 32 bits.
fn is_vector(kernel: &LoopKernel, levels: &[usize]) -> bool {
    let rank = kernel.extents.len();
    let stores = kernel.stores.iter().all(|store| match store.kind {
        StoreKind::Plain => matches!(
            kernel.params[usize::from(store.address.param)].dtype,
            DType::F32 | DType::I32 | DType::Bool
        ),
        StoreKind::Fold(_) => kernel.types[store.value.index()] == DType::F32,
        StoreKind::ArgMax | StoreKind::At { .. } => false,
    });
    if rank == 0 || kernel.extents[rank - 1] < 4 || !stores {
        return false;
    }
    // Whether an i64 value is known to fit 32 bits.
    let mut narrow = vec![false; kernel.body.len()];
    let small = kernel.extents.iter().product::<usize>() < 1 << 30;
    for (i, instruction) in kernel.body.iter().enumerate() {
        let ty = |v: &Value| kernel.types[v.index()];
        let fits = |v: &Value| ty(v) != DType::I64 || narrow[v.index()];
        let is_narrow = match instruction {
            Instruction::Literal(value) => value.to_i64().is_some_and(|v| i32::try_from(v).is_ok()),
            Instruction::Position(p) => {
                small
                    && p.starts.is_empty()
                    && p.offset.abs() < 1 << 30
                    && p.strides.iter().all(|s| s.abs() < 1 << 10)
            }
            Instruction::Index { extent, .. } => *extent < 1 << 30,
            Instruction::Cast(_, value) => fits(value) && !ty(value).is_float(),
            Instruction::Load(_) | Instruction::LoadAt { .. } | Instruction::Map(..) => false,
        };
        let ok = match (instruction, kernel.types[i]) {
            // Outside the innermost loop everything is computed one by one; only what crosses over must be narrow.
            _ if levels[i] < rank => {
                kernel.types[i] != DType::I64 || is_narrow || !crosses(kernel, levels, i, rank)
            }
            (_, DType::F64 | DType::U8) => false,
            (Instruction::Literal(_) | Instruction::Position(_), _) => {
                kernel.types[i] != DType::I64 || is_narrow
            }
            (Instruction::Load(_), ty) => ty != DType::I64,
            (Instruction::LoadAt { index, .. }, ty) => ty == DType::F32 && fits(index),
            (Instruction::Index { index, .. }, _) => {
                fits(index) && matches!(ty(index), DType::I32 | DType::I64)
            }
            (Instruction::Cast(to, value), _) => match (ty(value), to) {
                (DType::F32, DType::F32 | DType::I32) => true,
                (DType::I32 | DType::Bool, to) => *to != DType::Bool || ty(value) == DType::Bool,
                (DType::I64, to) => fits(value) && *to != DType::Bool,
                (DType::F32 | DType::F64 | DType::U8, _) => false,
            },
            (Instruction::Map(f, operands), _) => match ty(&operands[operands.len() - 1]) {
                DType::F32 | DType::Bool => true,
                DType::I32 => !f.properties().takes_steps,
                DType::I64 => operands.iter().all(fits) && kernel.types[i] == DType::Bool,
                DType::U8 | DType::F64 => false,
            },
        };
        if !ok {
            return false;
        }
        narrow[i] = is_narrow;
    }
    true
}

/// Whether a value from outside the innermost loop is used in it.
fn crosses(kernel: &LoopKernel, levels: &[usize], value: usize, rank: usize) -> bool {
    let is = |v: &Value| v.index() == value;
    kernel.stores.iter().any(|store| is(&store.value))
        || kernel.body.iter().zip(levels).any(|(instruction, level)| {
            *level == rank
                && match instruction {
                    Instruction::Map(_, operands) => operands.iter().any(is),
                    Instruction::Cast(_, v)
                    | Instruction::Index { index: v, .. }
                    | Instruction::LoadAt { index: v, .. } => is(v),
                    Instruction::Literal(_) | Instruction::Load(_) | Instruction::Position(_) => false,
                }
        })
}

/// How memory is reached: never outside, elements where they belong, vectors anywhere.
pub(super) fn flags(ty: Type) -> MemFlagsData {
    let flags = MemFlagsData::new().with_notrap();
    if ty.is_vector() { flags } else { flags.with_aligned() }
}

/// The type of one element in registers.
pub(super) fn scalar_type(dtype: DType) -> Type {
    match dtype {
        DType::Bool | DType::U8 => types::I8,
        DType::I32 => types::I32,
        DType::I64 => types::I64,
        DType::F32 => types::F32,
        DType::F64 => types::F64,
    }
}

impl<'e, 'b> Emitter<'e, 'b> {
    #[expect(clippy::too_many_arguments, reason = "all that stands around a kernel")]
    fn new(
        b: &'e mut FunctionBuilder<'b>,
        kernel: &'e LoopKernel,
        memories: &'e [Memory],
        cache: &'e mut RegisterCache,
        report: Report,
        routines: Routines,
        fused: bool,
        unrolled: bool,
    ) -> Emitter<'e, 'b> {
        let levels = levels(kernel);
        // Elements of an unrolled fold are joined one by one.
        let vector = is_vector(kernel, &levels) && !(unrolled && folds_lanes(kernel));
        Emitter {
            b,
            kernel,
            routines,
            fused,
            memories,
            cache,
            range: [Counter::known(0); 2],
            report,
            starts: Vec::new(),
            counters: Vec::new(),
            running: 0,
            unrolled,
            levels,
            vector,
            outer: vec![None; kernel.body.len()],
            inner: vec![None; kernel.body.len()],
            width: Width::One,
            fold: None,
            partials: [None; LANES],
        }
    }

    /// The whole kernel, with that range of the outermost axis.
    fn emit(&mut self, range: [Counter; 2]) -> Result<(), Broken> {
        self.range = range;
        self.starts();
        self.nest(0)
    }

    fn int(&mut self, value: i64) -> Ir {
        self.b.ins().iconst(types::I64, value)
    }

    fn rank(&self) -> usize {
        self.kernel.extents.len()
    }

    /// Reads and checks run-time starts; the first bad one ends the call before anything is written.
    fn starts(&mut self) {
        for (number, start) in self.kernel.starts.iter().enumerate() {
            let pointer = self.place(start.param, 0, &[]);
            let given = self.load_from(pointer, types::I64);
            let wrapped = self.wrap(given, start.extent as i64);
            let limit = self.int(start.limit as i64);
            let mut bad = self.b.ins().icmp(IntCC::UnsignedGreaterThan, wrapped, limit);
            if let Some(refused) = start.refused() {
                let refused = self.int(refused);
                let refused = self.b.ins().icmp(IntCC::Equal, given, refused);
                bad = self.b.ins().bor(bad, refused);
            }
            let (fail, go) = (self.b.create_block(), self.b.create_block());
            self.b.set_cold_block(fail);
            self.b.ins().brif(bad, fail, &[], go, &[]);
            self.b.switch_to_block(fail);
            self.raise(given, number);
            self.b.ins().jump(self.report.failed, &[]);
            self.b.switch_to_block(go);
            self.starts.push(wrapped);
        }
    }

    /// Counts negative indices from the end.
    fn wrap(&mut self, index: Ir, extent: i64) -> Ir {
        let n = self.int(extent);
        let zero = self.int(0);
        let negative = self.b.ins().icmp(IntCC::SignedLessThan, index, zero);
        let counted = self.b.ins().iadd(index, n);
        self.b.ins().select(negative, counted, index)
    }

    /// Says which value was found out of range, and by which check: see [`crate::kernel::Kernel::check`].
    fn raise(&mut self, value: Ir, check: usize) {
        let flags = MemFlagsData::trusted();
        let (raised, check) = (self.int(self.report.raised), self.int(check as i64));
        self.b.ins().store(flags, raised, self.report.words, 0);
        self.b.ins().store(flags, value, self.report.words, 8);
        self.b.ins().store(flags, check, self.report.words, 16);
    }

    /// A position in elements, from the counters that are open; those above `open` count as 0. What is known of it is
    /// apart from the rest.
    fn position(&mut self, affine: &Affine) -> (i64, Option<Ir>) {
        let mut known = affine.offset;
        let mut sum = None;
        for &(start, coefficient) in &affine.starts {
            let term = self.scaled(self.starts[usize::from(start)], coefficient);
            sum = Some(self.plus(sum, term));
        }
        for axis in 0..self.counters.len().min(affine.strides.len()) {
            let (counter, stride) = (self.counters[axis], affine.strides[axis]);
            known += counter.plus * stride;
            if let (Some(running), true) = (counter.running, stride != 0) {
                let term = self.scaled(running, stride);
                sum = Some(self.plus(sum, term));
            }
        }
        (known, sum)
    }

    fn plus(&mut self, sum: Option<Ir>, term: Ir) -> Ir {
        match sum {
            Some(sum) => self.b.ins().iadd(sum, term),
            None => term,
        }
    }

    fn scaled(&mut self, x: Ir, factor: i64) -> Ir {
        if factor == 1 {
            return x;
        }
        let factor = self.int(factor);
        self.b.ins().imul(x, factor)
    }

    /// The place `bytes` from the first element of a parameter, and further by what is computed.
    fn place(&mut self, param: u16, bytes: i64, computed: &[Ir]) -> Pointer {
        let Memory { mut base, offset, space } = self.memories[usize::from(param)];
        for bytes in computed {
            base = self.b.ins().iadd(base, *bytes);
        }
        let known = computed.is_empty() && self.running == 0;
        let element = space.filter(|_| known).map(|space| CachedElement { space, offset: 0 });
        self.further(Pointer { param, base, offset: 0, element }, offset + bytes)
    }

    fn further(&mut self, pointer: Pointer, bytes: i64) -> Pointer {
        let element =
            pointer.element.map(|element| CachedElement { offset: element.offset + bytes, ..element });
        match i32::try_from(i64::from(pointer.offset) + bytes) {
            Ok(offset) => Pointer { offset, element, ..pointer },
            Err(_) => {
                let bytes = self.int(bytes);
                Pointer { base: self.b.ins().iadd(pointer.base, bytes), element, ..pointer }
            }
        }
    }

    fn pointer(&mut self, address: &Address, extra: Option<Ir>) -> Pointer {
        let size = self.kernel.params[usize::from(address.param)].dtype.size() as i64;
        let mut outside = address.position.clone();
        let mut terms: SmallVec<[Ir; 3]> = SmallVec::new();
        let mut inside = None;
        // The part that does not depend on the innermost counter is apart, so that it leaves the innermost loop.
        let innermost = self.rank().wrapping_sub(1);
        if let Some(Counter { running: Some(running), plus }) = self.counters.get(innermost).copied() {
            let stride = std::mem::take(&mut outside.strides[innermost]);
            outside.offset += plus * stride;
            inside = (stride != 0).then_some((running, stride));
        }
        let (known, computed) = self.position(&outside);
        for (term, factor) in
            [computed.map(|term| (term, 1)), inside, extra.map(|extra| (extra, 1))].into_iter().flatten()
        {
            terms.push(self.scaled(term, factor * size));
        }
        self.place(address.param, known * size, &terms)
    }

    /// The value at a place, from a register if it is in one.
    fn load_from(&mut self, pointer: Pointer, ty: Type) -> Ir {
        let Pointer { base, offset, element, .. } = pointer;
        if let Some(value) = element.and_then(|element| self.cache.get(self.b, element, ty)) {
            return value;
        }
        let value = self.b.ins().load(ty, flags(ty), base, offset);
        if let Some(element) = element {
            self.cache.learn(element, ty, value);
        }
        value
    }

    fn store_to(&mut self, pointer: Pointer, value: Ir) {
        let ty = self.b.func.dfg.value_type(value);
        self.b.ins().store(flags(ty), value, pointer.base, pointer.offset);
        match (pointer.element, self.memories[usize::from(pointer.param)].space) {
            (Some(element), _) => self.cache.set(element, ty, value),
            (None, Some(space)) => self.cache.forget(space),
            (None, None) => {}
        }
    }

    /// The loops from `axis` inwards, with what belongs between them.
    fn nest(&mut self, axis: usize) -> Result<(), Broken> {
        let rank = self.rank();
        let folds_from = (0..rank).find(|&a| self.kernel.reduced[a]);
        if folds_from == Some(axis) && self.fold.is_none()
            || rank == axis && self.has_fold() && self.fold.is_none()
        {
            self.begin_fold()?;
            self.nest(axis)?;
            return self.end_fold();
        }
        self.outer_instructions(axis)?;
        if axis + 1 < rank || axis + 1 == rank && !self.vector {
            let [from, to] = self.bounds(axis);
            self.counted(from, to, 1, &mut |e, counter| {
                e.counters.push(counter);
                e.nest(axis + 1)?;
                e.counters.pop();
                Ok(())
            })
        } else if axis + 1 == rank {
            self.vector_row(axis)
        } else {
            self.width = Width::One;
            self.row_element()
        }
    }

    fn has_fold(&self) -> bool {
        self.kernel.stores.iter().any(|s| matches!(s.kind, StoreKind::Fold(_) | StoreKind::ArgMax))
    }

    fn bounds(&self, axis: usize) -> [Counter; 2] {
        if axis == 0 {
            self.range
        } else {
            [Counter::known(0), Counter::known(self.kernel.extents[axis] as i64)]
        }
    }

    /// A loop from `from` while the counter is below `to`; no loop if it is to be unrolled or known to run once at most.
    fn counted(
        &mut self,
        from: Counter,
        to: Counter,
        step: i64,
        body: &mut dyn FnMut(&mut Self, Counter) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if let (Some(from), Some(to)) = (from.value(), to.value())
            && (self.unrolled || to - from <= step)
        {
            let mut at = from;
            while at < to {
                body(self, Counter::known(at))?;
                at += step;
            }
            return Ok(());
        }
        let (from, to) = (self.counter(from), self.counter(to));
        let (head, inside, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let counter = self.b.append_block_param(head, types::I64);
        self.b.ins().jump(head, &[from.into()]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, counter, to);
        self.b.ins().brif(more, inside, &[], done, &[]);
        self.b.switch_to_block(inside);
        self.running += 1;
        body(self, Counter { running: Some(counter), plus: 0 })?;
        self.running -= 1;
        let step = self.int(step);
        let next = self.b.ins().iadd(counter, step);
        self.b.ins().jump(head, &[next.into()]);
        self.b.switch_to_block(done);
        Ok(())
    }

    /// A counter as a value.
    fn counter(&mut self, counter: Counter) -> Ir {
        match counter {
            Counter { running: None, plus } => self.int(plus),
            Counter { running: Some(running), plus: 0 } => running,
            Counter { running: Some(running), plus } => {
                let plus = self.int(plus);
                self.b.ins().iadd(running, plus)
            }
        }
    }

    /// The instructions that need exactly the loops open now and are not of the innermost loop.
    fn outer_instructions(&mut self, level: usize) -> Result<(), Broken> {
        self.width = Width::One;
        for i in 0..self.kernel.body.len() {
            if self.levels[i] == level && (level < self.rank() || self.rank() == 0) {
                self.outer[i] = Some(self.instruction(i)?);
            }
        }
        Ok(())
    }

    /// The innermost loop: four at once, then the rest one by one.
    fn vector_row(&mut self, axis: usize) -> Result<(), Broken> {
        let [from, to] = self.bounds(axis);
        let lanes = match self.fold {
            Some(FoldState::Lanes(slot)) => Some(slot),
            _ => None,
        };
        let step = if lanes.is_some() { LANES as i64 } else { 4 };
        let middle = match (from.value(), to.value()) {
            (Some(from), Some(to)) => Counter::known(from + ((to - from) & !(step - 1))),
            _ => {
                let (from, to) = (self.counter(from), self.counter(to));
                let length = self.b.ins().isub(to, from);
                let mask = self.int(!(step - 1));
                let whole = self.b.ins().band(length, mask);
                Counter { running: Some(self.b.ins().iadd(from, whole)), plus: 0 }
            }
        };
        let partials: Vec<Variable> = match lanes {
            Some(slot) => (0..4)
                .map(|i| {
                    let variable = self.b.declare_var(types::F32X4);
                    let address = self.b.ins().stack_addr(types::I64, slot, 16 * i);
                    let value = self.b.ins().load(types::F32X4, MemFlagsData::trusted(), address, 0);
                    self.b.def_var(variable, value);
                    variable
                })
                .collect(),
            None => Vec::new(),
        };
        self.counted(from, middle, step, &mut |e, counter| {
            for part in 0..step / 4 {
                e.counters.push(Counter { plus: counter.plus + 4 * part, ..counter });
                e.width = Width::Four;
                e.inner.fill(None);
                e.inner_instructions()?;
                if let Some(&variable) = partials.get(part as usize) {
                    let store = &e.kernel.stores[0];
                    let value = e.get(store.value)?;
                    let old = e.b.use_var(variable);
                    let joined = e.join(&store.kind, old, value, DType::F32)?;
                    e.b.def_var(variable, joined);
                } else {
                    e.stores()?;
                }
                e.counters.pop();
            }
            Ok(())
        })?;
        // What follows is no vector: where loops are unrolled, the next row begins with single elements.
        self.width = Width::One;
        if let Some(slot) = lanes {
            for (i, variable) in partials.iter().enumerate() {
                let value = self.b.use_var(*variable);
                let address = self.b.ins().stack_addr(types::I64, slot, 16 * i as i32);
                self.b.ins().store(MemFlagsData::trusted(), value, address, 0);
            }
        }
        self.counted(middle, to, 1, &mut |e, counter| {
            e.counters.push(counter);
            e.width = Width::One;
            e.row_element()?;
            e.counters.pop();
            Ok(())
        })
    }

    /// One element of the innermost loop.
    fn row_element(&mut self) -> Result<(), Broken> {
        self.inner.fill(None);
        self.inner_instructions()?;
        self.stores()
    }

    fn inner_instructions(&mut self) -> Result<(), Broken> {
        for i in 0..self.kernel.body.len() {
            if self.levels[i] == self.rank() && self.rank() > 0 {
                self.inner[i] = Some(self.instruction(i)?);
            }
        }
        Ok(())
    }

    /// What is folded: the only store of its kernel.
    fn folded(&self) -> Result<&'e Store, Broken> {
        match &self.kernel.stores[..] {
            [store] if matches!(store.kind, StoreKind::Fold(_) | StoreKind::ArgMax) => Ok(store),
            stores => {
                Err(broken!("one fold of a kernel with a reduced axis", format!("{} stores", stores.len())))
            }
        }
    }

    fn begin_fold(&mut self) -> Result<(), Broken> {
        let store = self.folded()?;
        let dtype = self.kernel.types[store.value.index()];
        let rank = self.rank();
        let innermost_kept = rank > 0 && !self.kernel.reduced[rank - 1];
        self.fold = Some(match &store.kind {
            StoreKind::ArgMax => {
                let best = self.b.declare_var(scalar_type(dtype));
                let found = self.b.declare_var(types::I8);
                let at = self.b.declare_var(types::I64);
                let value = self.constant(Literal::from_i64(0, dtype));
                self.b.def_var(best, value);
                let none = self.b.ins().iconst(types::I8, 0);
                self.b.def_var(found, none);
                let zero = self.int(0);
                self.b.def_var(at, zero);
                FoldState::ArgMax { best, found, at }
            }
            StoreKind::Fold(fold) if innermost_kept => {
                // The result itself keeps the partial results; begin with the fold's identity.
                let fold = *fold;
                let rank = self.rank();
                let [from, to] = self.bounds(rank - 1);
                let address = store.address.clone();
                let open = self.counters.clone();
                self.counted(from, to, 1, &mut |e, counter| {
                    e.counters.resize(rank - 1, Counter::known(0));
                    e.counters.push(counter);
                    let pointer = e.pointer(&address, None);
                    let identity = e.constant(fold.identity(dtype));
                    e.store_to(pointer, identity);
                    e.counters.clone_from(&open);
                    Ok(())
                })?;
                FoldState::Memory
            }
            StoreKind::Fold(_) if dtype.is_float() && self.unrolled => {
                self.partials = [None; LANES];
                FoldState::Registers
            }
            StoreKind::Fold(fold) if dtype.is_float() => {
                let bytes = LANES * dtype.size();
                let slot = self.b.create_sized_stack_slot(StackSlotData::new(
                    StackSlotKind::ExplicitSlot,
                    bytes as u32,
                    4,
                ));
                let identity = self.constant(fold.identity(dtype));
                for lane in 0..LANES {
                    let address = self.b.ins().stack_addr(types::I64, slot, (lane * dtype.size()) as i32);
                    self.b.ins().store(MemFlagsData::trusted(), identity, address, 0);
                }
                FoldState::Lanes(slot)
            }
            StoreKind::Fold(fold) => {
                let variable = self.b.declare_var(scalar_type(dtype));
                let identity = self.constant(fold.identity(dtype));
                self.b.def_var(variable, identity);
                FoldState::One(variable)
            }
            StoreKind::Plain | StoreKind::At { .. } => return Err(broken!("a fold", self.kernel)),
        });
        Ok(())
    }

    fn end_fold(&mut self) -> Result<(), Broken> {
        let store = self.folded()?;
        let dtype = self.kernel.types[store.value.index()];
        let result = match self.fold.take().ok_or_else(|| broken!("a fold that has begun"))? {
            FoldState::Memory => return Ok(()),
            FoldState::One(variable) => self.b.use_var(variable),
            FoldState::ArgMax { at, .. } => self.b.use_var(at),
            FoldState::Registers => self.joined(&store.kind, dtype)?,
            FoldState::Lanes(slot) => {
                let ty = scalar_type(dtype);
                let mut lanes: Vec<Ir> = (0..LANES)
                    .map(|lane| {
                        let address = self.b.ins().stack_addr(types::I64, slot, (lane * dtype.size()) as i32);
                        self.b.ins().load(ty, MemFlagsData::trusted(), address, 0)
                    })
                    .collect();
                self.width = Width::One;
                while lanes.len() > 1 {
                    let half = lanes.len() / 2;
                    lanes = (0..half)
                        .map(|i| self.join(&store.kind, lanes[i], lanes[i + half], dtype))
                        .collect::<Result<_, _>>()?;
                }
                lanes[0]
            }
        };
        let pointer = self.pointer(&store.address, None);
        self.store_to(pointer, result);
        Ok(())
    }

    /// The partial results in registers, joined as those in memory. What was joined with the identity once stays the same
    /// when it is joined with it again.
    fn joined(&mut self, kind: &StoreKind, dtype: DType) -> Result<Ir, Broken> {
        self.width = Width::One;
        let mut lanes = self.partials.to_vec();
        while lanes.len() > 1 {
            let half = lanes.len() / 2;
            lanes = (0..half)
                .map(|i| match (lanes[i], lanes[i + half]) {
                    (Some(x), Some(y)) => self.join(kind, x, y, dtype).map(Some),
                    (x, y) => Ok(x.or(y)),
                })
                .collect::<Result<_, _>>()?;
        }
        match (lanes[0], kind) {
            (Some(result), _) => Ok(result),
            (None, StoreKind::Fold(fold)) => Ok(self.constant(fold.identity(dtype))),
            (None, StoreKind::Plain | StoreKind::ArgMax | StoreKind::At { .. }) => {
                Err(broken!("partial results of a fold", self.kernel))
            }
        }
    }

    /// Joins two partial results of a fold.
    fn join(&mut self, kind: &StoreKind, x: Ir, y: Ir, dtype: DType) -> Result<Ir, Broken> {
        match kind {
            StoreKind::Fold(fold) => self.map(fold.join(), &[x, y], &[dtype, dtype]),
            StoreKind::Plain | StoreKind::ArgMax | StoreKind::At { .. } => {
                Err(broken!("partial results of a fold", self.kernel))
            }
        }
    }

    /// The counter of the innermost loop; 0 where there is none.
    fn innermost(&self) -> Counter {
        self.counters.last().copied().unwrap_or(Counter::known(0))
    }

    fn stores(&mut self) -> Result<(), Broken> {
        let kernel = self.kernel;
        for store in &kernel.stores {
            match (&store.kind, self.fold) {
                (StoreKind::At { index, stride, write }, _) => {
                    let index = self.get(*index)?;
                    let extra = self.scaled(index, *stride);
                    let pointer = self.pointer(&store.address, Some(extra));
                    self.write(store, pointer, *write)?;
                }
                (StoreKind::Fold(_), Some(FoldState::Memory)) => {
                    let dtype = self.kernel.types[store.value.index()];
                    let pointer = self.pointer(&store.address, None);
                    let ty = if self.width == Width::Four { types::F32X4 } else { scalar_type(dtype) };
                    let old = self.load_from(pointer, ty);
                    let value = self.get(store.value)?;
                    let joined = self.join(&store.kind, old, value, dtype)?;
                    self.store_to(pointer, joined);
                }
                (StoreKind::Fold(fold), Some(FoldState::Registers)) => {
                    let dtype = self.kernel.types[store.value.index()];
                    let lane = self.innermost().plus as usize % LANES;
                    let old = match self.partials[lane] {
                        Some(old) => old,
                        None => self.constant(fold.identity(dtype)),
                    };
                    let value = self.get(store.value)?;
                    self.partials[lane] = Some(self.join(&store.kind, old, value, dtype)?);
                }
                (StoreKind::Fold(_), Some(FoldState::Lanes(slot))) => {
                    let dtype = self.kernel.types[store.value.index()];
                    let address = self.b.ins().stack_addr(types::I64, slot, 0);
                    let mask = self.int(LANES as i64 - 1);
                    let counter = self.counter(self.innermost());
                    let lane = self.b.ins().band(counter, mask);
                    let bytes = self.scaled(lane, dtype.size() as i64);
                    let pointer = self.b.ins().iadd(address, bytes);
                    let old = self.b.ins().load(scalar_type(dtype), MemFlagsData::trusted(), pointer, 0);
                    let value = self.get(store.value)?;
                    let joined = self.join(&store.kind, old, value, dtype)?;
                    self.b.ins().store(MemFlagsData::trusted(), joined, pointer, 0);
                }
                (StoreKind::Fold(_), Some(FoldState::One(variable))) => {
                    let dtype = self.kernel.types[store.value.index()];
                    let value = self.get(store.value)?;
                    let old = self.b.use_var(variable);
                    let joined = self.join(&store.kind, old, value, dtype)?;
                    self.b.def_var(variable, joined);
                }
                (StoreKind::ArgMax, Some(FoldState::ArgMax { best, found, at })) => {
                    self.argmax(store, best, found, at)?;
                }
                (StoreKind::Plain, None) => self.store_plain(store)?,
                (StoreKind::Plain | StoreKind::Fold(_) | StoreKind::ArgMax, _) => {
                    return Err(broken!("stores that go with the fold of their kernel", self.kernel));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, store: &Store, pointer: Pointer, write: Write) -> Result<(), Broken> {
        let dtype = self.kernel.types[store.value.index()];
        let mut value = self.get(store.value)?;
        if write == Write::Add {
            let old = self.load_from(pointer, scalar_type(dtype));
            value = self.map(ScalarFn::Add, &[old, value], &[dtype, dtype])?;
        }
        self.store_to(pointer, value);
        Ok(())
    }

    fn store_plain(&mut self, store: &Store) -> Result<(), Broken> {
        let value = self.get(store.value)?;
        let pointer = self.pointer(&store.address, None);
        if self.width == Width::One {
            self.store_to(pointer, value);
            return Ok(());
        }
        let dtype = self.kernel.params[usize::from(store.address.param)].dtype;
        let stride = store.address.position.strides[self.rank() - 1];
        if stride == 1 && dtype != DType::Bool {
            self.store_to(pointer, value);
            return Ok(());
        }
        for lane in 0..4u8 {
            let mut element = self.b.ins().extractlane(value, lane);
            if dtype == DType::Bool {
                let low = self.b.ins().ireduce(types::I8, element);
                let one = self.b.ins().iconst(types::I8, 1);
                element = self.b.ins().band(low, one);
            }
            let pointer = self.further(pointer, i64::from(lane) * stride * dtype.size() as i64);
            self.store_to(pointer, element);
        }
        Ok(())
    }

    fn argmax(&mut self, store: &Store, best: Variable, found: Variable, at: Variable) -> Result<(), Broken> {
        let dtype = self.kernel.types[store.value.index()];
        let value = self.get(store.value)?;
        let old = self.b.use_var(best);
        let any = self.b.use_var(found);
        let none = self.b.ins().bxor_imm_u(any, 1);
        let mut better = if dtype.is_float() {
            let above = self.b.ins().fcmp(FloatCC::GreaterThan, value, old);
            let nan = self.b.ins().fcmp(FloatCC::Unordered, value, value);
            let was_number = self.b.ins().fcmp(FloatCC::Ordered, old, old);
            let first_nan = self.b.ins().band(nan, was_number);
            self.b.ins().bor(above, first_nan)
        } else {
            let greater = if dtype == DType::U8 || dtype == DType::Bool {
                IntCC::UnsignedGreaterThan
            } else {
                IntCC::SignedGreaterThan
            };
            self.b.ins().icmp(greater, value, old)
        };
        better = self.b.ins().bor(better, none);
        let new = self.b.ins().select(better, value, old);
        self.b.def_var(best, new);
        // Over no axis the only position is 0.
        let axis = self.kernel.reduced.iter().position(|r| *r);
        let here = self.counter(axis.map_or(Counter::known(0), |axis| self.counters[axis]));
        let position = self.b.use_var(at);
        let position = self.b.ins().select(better, here, position);
        self.b.def_var(at, position);
        let one = self.b.ins().iconst(types::I8, 1);
        self.b.def_var(found, one);
        Ok(())
    }

    /// The value of an earlier instruction in the present width.
    fn get(&mut self, value: Value) -> Result<Ir, Broken> {
        let i = value.index();
        if let Some(ir) = self.inner[i] {
            return Ok(ir);
        }
        let scalar = self.outer[i].ok_or_else(|| broken!("{value} computed before it is used"))?;
        if self.width == Width::One {
            return Ok(scalar);
        }
        Ok(match self.kernel.types[i] {
            DType::F32 => self.b.ins().splat(types::F32X4, scalar),
            DType::I32 => self.b.ins().splat(types::I32X4, scalar),
            DType::I64 => {
                let narrow = self.b.ins().ireduce(types::I32, scalar);
                self.b.ins().splat(types::I32X4, narrow)
            }
            DType::Bool => {
                let mask = self.b.ins().bmask(types::I32, scalar);
                self.b.ins().splat(types::I32X4, mask)
            }
            dtype @ (DType::U8 | DType::F64) => {
                return Err(broken!("values of 32 bits in a vector kernel", dtype));
            }
        })
    }

    fn constant(&mut self, literal: Literal) -> Ir {
        let wide = self.width == Width::Four;
        match literal {
            Literal::F32(bits) => {
                let x = self.b.ins().f32const(f32::from_bits(bits));
                if wide { self.b.ins().splat(types::F32X4, x) } else { x }
            }
            Literal::F64(bits) => self.b.ins().f64const(f64::from_bits(bits)),
            Literal::Bool(x) if wide => {
                let mask = self.b.ins().iconst(types::I32, if x { 0xffff_ffff } else { 0 });
                self.b.ins().splat(types::I32X4, mask)
            }
            Literal::Bool(x) => self.b.ins().iconst(types::I8, i64::from(x)),
            Literal::U8(x) => self.b.ins().iconst(types::I8, i64::from(x)),
            Literal::I32(x) => {
                let x = self.b.ins().iconst(types::I32, i64::from(x as u32));
                if wide { self.b.ins().splat(types::I32X4, x) } else { x }
            }
            Literal::I64(x) if wide => {
                let x = self.b.ins().iconst(types::I32, i64::from(x as u32));
                self.b.ins().splat(types::I32X4, x)
            }
            Literal::I64(x) => self.b.ins().iconst(types::I64, x),
        }
    }

    fn instruction(&mut self, i: usize) -> Result<Ir, Broken> {
        let dtype = self.kernel.types[i];
        Ok(match self.kernel.body[i].clone() {
            Instruction::Literal(value) => self.constant(value),
            Instruction::Load(address) => self.load(&address, dtype),
            Instruction::LoadAt { address, index, stride } => {
                let index = self.get(index)?;
                if self.width == Width::One {
                    let extra = self.scaled(index, stride);
                    let pointer = self.pointer(&address, Some(extra));
                    return Ok(self.load_from(pointer, scalar_type(dtype)));
                }
                let own = address.position.strides[self.rank() - 1] * dtype.size() as i64;
                let pointer = self.pointer(&address, None);
                let lanes: SmallVec<[Ir; 4]> = (0..4u8)
                    .map(|lane| {
                        let index = self.b.ins().extractlane(index, lane);
                        let index = self.b.ins().sextend(types::I64, index);
                        let bytes = self.scaled(index, stride * dtype.size() as i64);
                        let base = self.b.ins().iadd(pointer.base, bytes);
                        let element = Pointer { base, element: None, ..pointer };
                        let element = self.further(element, i64::from(lane) * own);
                        self.load_from(element, types::F32)
                    })
                    .collect();
                self.gathered(types::F32X4, &lanes)
            }
            Instruction::Position(position) => {
                let (known, computed) = self.position(&position);
                let known = self.int(known);
                let scalar = computed.map_or(known, |computed| self.b.ins().iadd(computed, known));
                if self.width == Width::One {
                    return Ok(scalar);
                }
                let stride = position.strides[self.rank() - 1];
                let narrow = self.b.ins().ireduce(types::I32, scalar);
                let lanes: SmallVec<[Ir; 4]> =
                    (0..4).map(|lane| self.b.ins().iadd_imm_s(narrow, lane * stride)).collect();
                self.gathered(types::I32X4, &lanes)
            }
            Instruction::Index { index, extent, .. } => self.index(index, extent as i64, i)?,
            Instruction::Map(f, operands) => {
                let dtypes: SmallVec<[DType; 3]> =
                    operands.iter().map(|v| self.kernel.types[v.index()]).collect();
                let values = operands.iter().map(|v| self.get(*v));
                let values = values.collect::<Result<SmallVec<[Ir; 3]>, _>>()?;
                match self.power_of_two(f, &operands) {
                    Some(exponent) => {
                        let amount = self.int(exponent);
                        self.b.ins().sshr(values[0], amount)
                    }
                    None => self.map(f, &values, &dtypes)?,
                }
            }
            Instruction::Cast(to, value) => {
                let from = self.kernel.types[value.index()];
                let value = self.get(value)?;
                self.cast(value, from, to)
            }
        })
    }

    /// The exponent of a signed floor division by a constant power of two, which is a shift.
    fn power_of_two(&self, f: ScalarFn, operands: &[Value]) -> Option<i64> {
        let (ScalarFn::FloorDiv, [_, by]) = (f, operands) else { return None };
        let Instruction::Literal(by @ (Literal::I32(_) | Literal::I64(_))) = self.kernel.body[by.index()]
        else {
            return None;
        };
        let by = by.to_i64().filter(|by| *by > 0)?;
        (by.count_ones() == 1).then(|| i64::from(by.trailing_zeros()))
    }

    fn gathered(&mut self, ty: Type, lanes: &[Ir]) -> Ir {
        let mut vector = self.b.ins().splat(ty, lanes[0]);
        for (lane, value) in lanes.iter().enumerate().skip(1) {
            vector = self.b.ins().insertlane(vector, *value, lane as u8);
        }
        vector
    }

    fn load(&mut self, address: &Address, dtype: DType) -> Ir {
        let pointer = self.pointer(address, None);
        if self.width == Width::One {
            return self.load_from(pointer, scalar_type(dtype));
        }
        let stride = address.position.strides[self.rank() - 1];
        let vector = if dtype == DType::F32 { types::F32X4 } else { types::I32X4 };
        if stride == 1 && dtype != DType::Bool {
            return self.load_from(pointer, vector);
        }
        let lanes: SmallVec<[Ir; 4]> = (0..4)
            .map(|lane| {
                let pointer = self.further(pointer, lane * stride * dtype.size() as i64);
                let element = self.load_from(pointer, scalar_type(dtype));
                if dtype == DType::Bool { self.b.ins().bmask(types::I32, element) } else { element }
            })
            .collect();
        self.gathered(vector, &lanes)
    }

    /// Wraps and checks an index, instruction `i`; a bad one is reported and becomes 0.
    fn index(&mut self, index: Value, extent: i64, i: usize) -> Result<Ir, Broken> {
        let check = self.kernel.starts.len() + i;
        let dtype = self.kernel.types[index.index()];
        let given = self.get(index)?;
        if self.width == Width::One {
            let wide = self.widen(given, dtype);
            return Ok(self.checked(wide, extent, check));
        }
        let lanes: SmallVec<[Ir; 4]> = (0..4u8)
            .map(|lane| {
                let element = self.b.ins().extractlane(given, lane);
                let wide = self.b.ins().sextend(types::I64, element);
                let checked = self.checked(wide, extent, check);
                self.b.ins().ireduce(types::I32, checked)
            })
            .collect();
        Ok(self.gathered(types::I32X4, &lanes))
    }

    fn checked(&mut self, given: Ir, extent: i64, check: usize) -> Ir {
        let wrapped = self.wrap(given, extent);
        let limit = self.int(extent);
        let bad = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, wrapped, limit);
        let (fail, go) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(fail);
        self.b.ins().brif(bad, fail, &[], go, &[]);
        self.b.switch_to_block(fail);
        self.raise(given, check);
        self.b.ins().jump(go, &[]);
        self.b.switch_to_block(go);
        let zero = self.int(0);
        self.b.ins().select(bad, zero, wrapped)
    }

    /// A number as an `i64`.
    fn widen(&mut self, x: Ir, dtype: DType) -> Ir {
        match dtype {
            DType::I64 => x,
            DType::I32 => self.b.ins().sextend(types::I64, x),
            DType::U8 | DType::Bool => self.b.ins().uextend(types::I64, x),
            DType::F32 | DType::F64 => self.cast_from_float(x, dtype, DType::I64),
        }
    }

    fn lanes(&mut self, precision: Precision) -> Lanes<'_, 'b> {
        Lanes { builder: self.b, width: self.width, precision, fused: self.fused }
    }

    fn map(&mut self, f: ScalarFn, x: &[Ir], dtypes: &[DType]) -> Result<Ir, Broken> {
        let dtype = dtypes[dtypes.len() - 1];
        let y = x.get(1).copied().unwrap_or(x[0]);
        let found = match (f.domain(), dtype) {
            (Domain::Select, _) => Some(self.lanes(Precision::Single).choose(x[0], x[1], x[2])),
            (_, DType::F32) => {
                let found = f.on_singles(&mut self.lanes(Precision::Single), x[0], y);
                found.map(|(Applied::Float(value) | Applied::Truth(value))| value)
            }
            (_, DType::F64) => match f.on_floats(&mut self.lanes(Precision::Double), x[0], y) {
                Some(Applied::Float(value) | Applied::Truth(value)) => Some(value),
                None => {
                    let which = self.int(f as i64);
                    let call = self.b.ins().call(self.routines.double, &[which, x[0], y]);
                    Some(self.b.inst_results(call)[0])
                }
            },
            (_, DType::Bool) => f.on_truths(&mut self.lanes(Precision::Single), x[0], y),
            (_, DType::U8 | DType::I32 | DType::I64) => {
                let routines = self.routines;
                let lanes = self.lanes(Precision::Single);
                let found = f.on_integers(&mut IntegerLanes { lanes, dtype, routines }, x[0], y);
                found.map(|(AppliedInteger::Integer(value) | AppliedInteger::Truth(value))| value)
            }
        };
        found.ok_or_else(|| broken!("a function of {dtype}", f))
    }

    /// Conversion as [`Literal::cast`].
    fn cast(&mut self, x: Ir, from: DType, to: DType) -> Ir {
        if from == to {
            return x;
        }
        let wide = self.width == Width::Four;
        if from.is_float() && !to.is_float() {
            return self.cast_from_float(x, from, to);
        }
        let b = &mut *self.b;
        match (from, to) {
            (DType::F32, DType::F64) => b.ins().fpromote(types::F64, x),
            (DType::F64, DType::F32) => b.ins().fdemote(types::F32, x),
            (DType::Bool, DType::F32) if wide => {
                let one = b.ins().f32const(1.0);
                let ones = b.ins().splat(types::F32X4, one);
                let ones = self.lanes(Precision::Single).same_bits(ones, types::I32X4);
                let kept = self.b.ins().band(x, ones);
                self.lanes(Precision::Single).same_bits(kept, types::F32X4)
            }
            (_, DType::F32) if wide => b.ins().fcvt_from_sint(types::F32X4, x),
            (DType::Bool, _) if wide => b.ins().ineg(x),
            (_, _) if wide => x,
            (DType::Bool | DType::U8, DType::F32 | DType::F64) => {
                let x = b.ins().uextend(types::I32, x);
                b.ins().fcvt_from_sint(scalar_type(to), x)
            }
            (_, DType::F32 | DType::F64) => b.ins().fcvt_from_sint(scalar_type(to), x),
            (_, DType::Bool) => b.ins().icmp_imm_u(IntCC::NotEqual, x, 0),
            (DType::Bool, DType::U8) => x,
            (DType::Bool | DType::U8, _) => b.ins().uextend(scalar_type(to), x),
            (DType::I32, DType::I64) => b.ins().sextend(types::I64, x),
            (_, _) => b.ins().ireduce(scalar_type(to), x),
        }
    }

    /// Truncates and saturates; a NaN becomes the smallest integer, and is true.
    fn cast_from_float(&mut self, x: Ir, from: DType, to: DType) -> Ir {
        let wide = self.width == Width::Four;
        if to == DType::Bool {
            let zero =
                if from == DType::F32 { self.b.ins().f32const(0.0) } else { self.b.ins().f64const(0.0) };
            return self.b.ins().fcmp(FloatCC::NotEqual, x, zero);
        }
        if wide {
            let truncated = self.b.ins().fcvt_to_sint_sat(types::I32X4, x);
            let nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
            let least = self.b.ins().iconst(types::I32, i64::from(i32::MIN as u32));
            let least = self.b.ins().splat(types::I32X4, least);
            return self.lanes(Precision::Single).choose(nan, least, truncated);
        }
        if to == DType::U8 {
            let truncated = self.b.ins().fcvt_to_uint_sat(types::I32, x);
            let most = self.b.ins().iconst(types::I32, 255);
            let kept = self.b.ins().umin(truncated, most);
            return self.b.ins().ireduce(types::I8, kept);
        }
        let ty = scalar_type(to);
        let truncated = self.b.ins().fcvt_to_sint_sat(ty, x);
        let nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
        let least =
            self.b.ins().iconst(ty, if to == DType::I32 { i64::from(i32::MIN as u32) } else { i64::MIN });
        self.b.ins().select(nan, least, truncated)
    }
}
