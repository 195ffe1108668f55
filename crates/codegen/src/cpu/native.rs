//! Loops over steps as machine code, for bodies of little work.
//!
//! Where all kernels of a body are loop kernels or products of few elements, or such loops again, walking the steps and
//! calling a function for each of them would be most of the time there is. The whole loop is then one function: the
//! steps, the addresses that move with them, the kernels inline, the condition, rows repeated after an early end, last
//! rows. Small kernels are unrolled, and elements pass from kernel to kernel and from step to step in registers (see
//! `held`); kernels for which wide vectors pay are called. The arithmetic and its order are those of the kernels, so the
//! bits are the same as when a loop is run step by step.
//!
//! Deliberately absent: random numbers, products whose plan sums in another order than term by term, and kernels so large
//! that threads pay. A body with one of them is run step by step.

mod product;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, FuncRef, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Type, Value as Ir, types,
};
use cranelift_frontend::FunctionBuilder;
use hypatia_graph::DType;

use crate::cpu::emit::{Memory, Report, Routines, emit_between, row_parts, scalar_type, table_entry};
use crate::cpu::held::{Element, Held};
use crate::kernel::{Instruction, Kernel, LoopKernel, Place, ScanKernel};
use hypatia_kernels::features::{Features, InstructionSet};

/// Instructions of a kernel at most, about.
const MOST_WORK: usize = 4000;

/// Instructions of a kernel from which a call of a function of its own is faster, where that uses wide vectors.
const CALLED_WORK: usize = 150;

/// Instructions of a kernel that is unrolled, at most.
const MOST_UNROLLED: usize = 150;

/// Multiply-adds of a product, at most.
const MOST_PRODUCT: usize = 200;

/// Instructions of code for a whole loop, at most.
const MOST_CODE: usize = 3000;

/// Whether a loop is to be one function.
pub(super) fn is_native(kernel: &ScanKernel, features: &Features) -> bool {
    code_size(kernel, features).is_some_and(|size| size <= MOST_CODE)
}

/// About the instructions of a loop's code; nothing if a kernel of it stands against it.
fn code_size(kernel: &ScanKernel, features: &Features) -> Option<usize> {
    kernel.body.steps.iter().try_fold(0, |sum: usize, step| {
        let size = match &step.kernel {
            Kernel::Loop(kernel) => {
                let work = work(kernel);
                if work > MOST_WORK {
                    return None;
                }
                if is_called(kernel, features) {
                    kernel.params.len()
                } else if work <= MOST_UNROLLED {
                    work
                } else {
                    // A loop has a copy for four elements and one for one.
                    2 * weight(kernel)
                }
            }
            Kernel::Scan(kernel) => code_size(kernel, features)?,
            Kernel::Product(kernel) => {
                product::work(kernel, features).filter(|work| *work <= MOST_PRODUCT)? / kernel.k * 2
            }
            Kernel::Random(_) => return None,
        };
        Some(sum + size)
    })
}

/// Whether a kernel keeps a function of its own, with vectors wider than those of code inline.
fn is_called(kernel: &LoopKernel, features: &Features) -> bool {
    let wide = features.instruction_set() == InstructionSet::Avx512 && !kernel.types.contains(&DType::F64);
    wide && work(kernel) > CALLED_WORK
}

/// The kernels that a native loop calls, in the order of their steps.
pub(super) fn called_kernels<'k>(kernel: &'k ScanKernel, features: &Features) -> Vec<&'k LoopKernel> {
    let mut list = Vec::new();
    for step in &kernel.body.steps {
        match &step.kernel {
            Kernel::Loop(kernel) if is_called(kernel, features) => list.push(kernel),
            Kernel::Scan(kernel) => list.extend(called_kernels(kernel, features)),
            Kernel::Loop(_) | Kernel::Product(_) | Kernel::Random(_) => {}
        }
    }
    list
}

/// About the instructions that a kernel runs.
fn work(kernel: &LoopKernel) -> usize {
    let rows: usize = kernel.extents.iter().rev().skip(1).product();
    rows.saturating_mul(row_parts(kernel)).saturating_mul(weight(kernel))
}

/// About the instructions for one element or for four.
fn weight(kernel: &LoopKernel) -> usize {
    let instructions = kernel.body.iter().map(|instruction| match instruction {
        Instruction::Map(f, _) => f.work() as usize,
        Instruction::LoadAt { .. } | Instruction::Index { .. } => 4,
        Instruction::Literal(_) => 0,
        Instruction::Load(_) | Instruction::Position(_) | Instruction::Cast(..) => 1,
    });
    instructions.sum::<usize>() + kernel.stores.len()
}

/// Fills the body of `fn(buffers, begin, end, error)`: buffers is a table of pointers of the loop's parameters, `error` three
/// words (raised, value, check), where raised is the number of the step that found an index out of range, counted from
/// the loop itself, which is 1. The range is not looked at. `called` are the functions of the [`called_kernels`].
pub(super) fn emit(
    builder: &mut FunctionBuilder<'_>,
    kernel: &ScanKernel,
    called: Vec<FuncRef>,
    routines: Routines,
    features: &Features,
) {
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let [buffers, _, _, words] = builder.block_params(entry)[..] else { return };
    let failed = builder.create_block();
    let params: Vec<Origin> = (0..kernel.params.len())
        .map(|index| Origin { base: table_entry(builder, buffers, index), offset: 0 })
        .collect();
    let called = called.into_iter();
    Native { b: builder, called, routines, features, words, failed, number: 1 }.scan(kernel, &params);
    builder.ins().return_(&[]);
    builder.switch_to_block(failed);
    builder.ins().return_(&[]);
}

struct Native<'n, 'b> {
    b: &'n mut FunctionBuilder<'b>,
    called: std::vec::IntoIter<FuncRef>,
    routines: Routines,
    features: &'n Features,
    words: Ir,
    /// Where code goes on after an index out of range.
    failed: Block,
    /// The number of the next kernel.
    number: i64,
}

/// Where memory begins.
#[derive(Copy, Clone)]
struct Origin {
    base: Ir,
    /// Bytes from there.
    offset: i64,
}

/// Where a body's buffers lie in a step.
struct Spaces<'k> {
    kernel: &'k ScanKernel,
    /// Places with the memory that they are in this step; arena buffers have one for them all.
    memories: Vec<(Place, Memory)>,
    held: Held,
}

impl Native<'_, '_> {
    fn int(&mut self, value: i64) -> Ir {
        self.b.ins().iconst(types::I64, value)
    }

    /// The steps of a loop whose parameters begin there, and what comes after them.
    fn scan(&mut self, kernel: &ScanKernel, params: &[Origin]) {
        self.number += 1;
        if kernel.steps == 0 {
            self.number += kernel.body.count() as i64;
            let none = self.int(0);
            self.write_made(kernel, params, none);
            return;
        }
        let (before, head, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().jump(before, &[]);
        self.b.switch_to_block(head);
        let counter = self.b.declare_var(types::I64);
        let step = self.b.use_var(counter);
        let mut spaces = Spaces { kernel, memories: Vec::new(), held: Held::default() };
        self.body(&mut spaces, params, step);

        // What the next step begins with.
        for begin in spaces.held.begins().to_vec() {
            let (place, memory) = spaces.memories[begin.element.space].clone();
            let next = match place {
                Place::Shared(index) => match kernel.carries[index].row.as_ref() {
                    Some(row) => self.memory(&mut spaces, params, step, &Place::Output(row.output.into())),
                    None => memory,
                },
                // These stay what they are.
                Place::Input(_) | Place::Constant(_) | Place::Output(_) | Place::Arena(_) => continue,
            };
            let beyond = begin.element.offset - memory.offset;
            let value = self.value(&mut spaces, next, beyond, begin.ty);
            self.b.def_var(begin.variable, value);
        }
        let made = self.b.ins().iadd_imm_s(step, 1);
        self.b.def_var(counter, made);
        let all = self.int(kernel.steps as i64);
        let mut goes_on = self.b.ins().icmp(IntCC::SignedLessThan, made, all);
        if kernel.until.is_some() {
            let place = Place::Output(kernel.rows.len());
            let memory = self.memory(&mut spaces, params, step, &place);
            let condition = self.value(&mut spaces, memory, 0, types::I8);
            let is_not = self.b.ins().icmp_imm_u(IntCC::Equal, condition, 0);
            goes_on = self.b.ins().band(goes_on, is_not);
        }
        self.b.ins().brif(goes_on, head, &[], done, &[]);

        // What the first step begins with.
        self.b.switch_to_block(before);
        let none = self.int(0);
        self.b.def_var(counter, none);
        for begin in spaces.held.begins() {
            let (place, memory) = &spaces.memories[begin.element.space];
            let origin = self.first(kernel, params, place);
            let offset = origin.offset + begin.element.offset - memory.offset;
            let value = self.load(Origin { offset, ..origin }, begin.ty);
            self.b.def_var(begin.variable, value);
        }
        self.b.ins().jump(head, &[]);

        self.b.switch_to_block(done);
        self.finish(kernel, params, made);
    }

    /// The kernels of a step.
    fn body(&mut self, spaces: &mut Spaces<'_>, params: &[Origin], step: Ir) {
        let body = spaces.kernel.body.clone();
        let memories: Vec<Memory> =
            body.buffers.iter().map(|buffer| self.memory(spaces, params, step, &buffer.place)).collect();
        for each in &body.steps {
            let arguments: Vec<Memory> = each.arguments.iter().map(|id| memories[id.index()]).collect();
            match &each.kernel {
                Kernel::Loop(kernel) if is_called(kernel, self.features) => {
                    self.call(kernel, &arguments, &mut spaces.held);
                    if each.kernel.checks_indices() || !kernel.starts.is_empty() {
                        self.check_call();
                    }
                    self.number += 1;
                }
                Kernel::Loop(kernel) => {
                    let report = Report { words: self.words, raised: self.number, failed: self.failed };
                    self.number += 1;
                    let unrolled = work(kernel) <= MOST_UNROLLED;
                    let held = &mut spaces.held;
                    let (routines, fused) = (self.routines, self.features.fused_multiply_add());
                    emit_between(self.b, kernel, &arguments, held, report, routines, fused, unrolled);
                    if each.kernel.checks_indices() {
                        self.check();
                    }
                }
                Kernel::Scan(inner) => {
                    let origins: Vec<Origin> = arguments
                        .iter()
                        .map(|memory| Origin { base: memory.base, offset: memory.offset })
                        .collect();
                    self.scan(inner, &origins);
                    for (param, memory) in inner.params.iter().zip(&arguments) {
                        if let (true, Some(space)) = (param.written, memory.space) {
                            spaces.held.forget(space);
                        }
                    }
                }
                Kernel::Product(kernel) => {
                    self.number += 1;
                    let fused = self.features.fused_multiply_add();
                    product::emit(self.b, kernel, &arguments, &mut spaces.held, fused);
                }
                // Not in a native loop.
                Kernel::Random(_) => {}
            }
        }
    }

    /// Calls the function of a kernel.
    fn call(&mut self, kernel: &LoopKernel, arguments: &[Memory], held: &mut Held) {
        let Some(function) = self.called.next() else { return };
        let bytes = 8 * arguments.len() as u32;
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
        let slot = self.b.create_sized_stack_slot(data);
        for (index, memory) in arguments.iter().enumerate() {
            let pointer = self.b.ins().iadd_imm_s(memory.base, memory.offset);
            self.b.ins().stack_store(types::I64, pointer, slot, 8 * index as i32);
        }
        let table = self.b.ins().stack_addr(types::I64, slot, 0);
        let outermost = kernel.extents.first().copied().unwrap_or(1);
        let (begin, end) = (self.int(0), self.int(outermost as i64));
        self.b.ins().call(function, &[table, begin, end, self.words]);
        for (param, memory) in kernel.params.iter().zip(arguments) {
            if let (true, Some(space)) = (param.written, memory.space) {
                held.forget(space);
            }
        }
    }

    /// Leaves the function if the kernel called has found an index out of range.
    fn check_call(&mut self) {
        let flags = MemFlagsData::trusted();
        let raised = self.b.ins().load(types::I64, flags, self.words, 0);
        let (fail, go) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(fail);
        self.b.ins().brif(raised, fail, &[], go, &[]);
        self.b.switch_to_block(fail);
        // The kernel knows itself as 1.
        let number = self.int(self.number);
        self.b.ins().store(flags, number, self.words, 0);
        self.b.ins().jump(self.failed, &[]);
        self.b.switch_to_block(go);
    }

    /// Leaves the function if a kernel has found an index out of range.
    fn check(&mut self) {
        let raised = self.b.ins().load(types::I64, MemFlagsData::trusted(), self.words, 0);
        let go = self.b.create_block();
        self.b.ins().brif(raised, self.failed, &[], go, &[]);
        self.b.switch_to_block(go);
    }

    /// The memory of a place of the body in this step.
    fn memory(&mut self, spaces: &mut Spaces<'_>, params: &[Origin], step: Ir, place: &Place) -> Memory {
        // All of the arena is one space.
        let (place, further) = match place {
            Place::Arena(offset) => (Place::Arena(0), *offset as i64),
            Place::Input(_) | Place::Shared(_) | Place::Constant(_) | Place::Output(_) => (place.clone(), 0),
        };
        if let Some((_, memory)) = spaces.memories.iter().find(|(known, _)| *known == place) {
            return Memory { offset: memory.offset + further, ..*memory };
        }
        let kernel = spaces.kernel;
        let first = self.first(kernel, params, &place);
        // Addresses are linear in the step from the second on.
        let at = |step: usize| kernel.locate(&place, step);
        let distance = at(2).zip(at(1)).map_or(0, |(third, second)| third.1 - second.1);
        let moved = self.int(distance);
        let moved = self.b.ins().imul(step, moved);
        let (origin, lasting) = match (&place, at(1)) {
            (Place::Shared(_), Some((param, second))) if at(0) != Some((param, second)) => {
                // From the second step on, the row that the step before has made.
                let rows = params[usize::from(param)];
                let before = self.b.ins().iadd_imm_s(rows.base, rows.offset + second - distance);
                let row = self.b.ins().iadd(before, moved);
                let initial = self.b.ins().iadd_imm_s(first.base, first.offset);
                (Origin { base: self.b.ins().select(step, row, initial), offset: 0 }, true)
            }
            (Place::Input(_) | Place::Shared(_) | Place::Constant(_), _) if distance == 0 => (first, true),
            _ => (Origin { base: self.b.ins().iadd(first.base, moved), ..first }, false),
        };
        let space = spaces.held.add_space(lasting);
        let memory = Memory { base: origin.base, offset: origin.offset, space: Some(space) };
        spaces.memories.push((place, memory));
        Memory { offset: memory.offset + further, ..memory }
    }

    /// Where a place of the body lies in the first step.
    fn first(&mut self, kernel: &ScanKernel, params: &[Origin], place: &Place) -> Origin {
        if let Place::Constant(index) = place {
            // The program that holds the constant outlives its code.
            let address = kernel.body.constants[*index].bytes().as_ptr() as i64;
            return Origin { base: self.int(address), offset: 0 };
        }
        match kernel.locate(place, 0) {
            Some((param, begin)) => {
                let Origin { base, offset } = params[usize::from(param)];
                Origin { base, offset: offset + begin }
            }
            // Only what nothing reads or writes lies nowhere (`kernel::verify`).
            None => Origin { base: self.int(0), offset: 0 },
        }
    }

    /// An element of a place, from a register or from memory.
    fn value(&mut self, spaces: &mut Spaces<'_>, memory: Memory, beyond: i64, ty: Type) -> Ir {
        let offset = memory.offset + beyond;
        let element = memory.space.map(|space| Element { space, offset });
        match element.and_then(|element| spaces.held.get(self.b, element, ty)) {
            Some(value) => value,
            None => self.load(Origin { base: memory.base, offset }, ty),
        }
    }

    fn load(&mut self, from: Origin, ty: Type) -> Ir {
        let address = self.b.ins().iadd_imm_s(from.base, from.offset);
        self.b.ins().load(ty, MemFlagsData::new().with_notrap(), address, 0)
    }

    /// After the last step: rows that were not made, last rows, the number of steps.
    fn finish(&mut self, kernel: &ScanKernel, params: &[Origin], made: Ir) {
        let rows = |output: usize| {
            let row = kernel.rows.get(output)?;
            let dtype = kernel.params[usize::from(row.param)].dtype;
            let origin = params[usize::from(row.param)];
            let size = dtype.size() as i64;
            Some((
                Origin { base: origin.base, offset: origin.offset + row.offset * size },
                row.stride * size,
                dtype,
            ))
        };
        let last = self.b.ins().iadd_imm_s(made, -1);
        for (origin, bytes, dtype) in (0..kernel.rows.len()).filter_map(rows) {
            if kernel.until.is_none() {
                break;
            }
            let from = self.row(origin, bytes, last);
            let all = self.int(kernel.steps as i64);
            self.counted(made, all, |native, row| {
                let to = native.row(origin, bytes, row);
                native.copy(from, to, bytes, dtype);
            });
        }
        for carry in &kernel.carries {
            let Some(row) = carry.row.as_ref().filter(|row| row.kept) else { continue };
            let Some((origin, bytes, dtype)) = rows(row.output.into()) else { continue };
            let from = self.row(origin, bytes, last);
            let to = params[usize::from(carry.param)];
            let to = self.b.ins().iadd_imm_s(to.base, to.offset);
            self.copy(from, to, bytes, dtype);
        }
        self.write_made(kernel, params, made);
    }

    /// The address of a row.
    fn row(&mut self, rows: Origin, bytes: i64, row: Ir) -> Ir {
        let bytes = self.int(bytes);
        let distance = self.b.ins().imul(row, bytes);
        let begin = self.b.ins().iadd_imm_s(rows.base, rows.offset);
        self.b.ins().iadd(begin, distance)
    }

    /// Copies a row, element by element.
    fn copy(&mut self, from: Ir, to: Ir, bytes: i64, dtype: DType) {
        let size = dtype.size() as i64;
        let (begin, end) = (self.int(0), self.int(bytes / size));
        self.counted(begin, end, |native, element| {
            let size = native.int(size);
            let offset = native.b.ins().imul(element, size);
            let (from, to) = (native.b.ins().iadd(from, offset), native.b.ins().iadd(to, offset));
            let flags = MemFlagsData::trusted();
            let value = native.b.ins().load(scalar_type(dtype), flags, from, 0);
            native.b.ins().store(flags, value, to, 0);
        });
    }

    fn counted(&mut self, from: Ir, to: Ir, body: impl FnOnce(&mut Self, Ir)) {
        let (head, inside, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let counter = self.b.append_block_param(head, types::I64);
        self.b.ins().jump(head, &[from.into()]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, counter, to);
        self.b.ins().brif(more, inside, &[], done, &[]);
        self.b.switch_to_block(inside);
        body(self, counter);
        let next = self.b.ins().iadd_imm_s(counter, 1);
        self.b.ins().jump(head, &[next.into()]);
        self.b.switch_to_block(done);
    }

    fn write_made(&mut self, kernel: &ScanKernel, params: &[Origin], made: Ir) {
        if let Some(param) = kernel.made {
            let to = params[usize::from(param)];
            let address = self.b.ins().iadd_imm_s(to.base, to.offset);
            self.b.ins().store(MemFlagsData::trusted(), made, address, 0);
        }
    }
}
