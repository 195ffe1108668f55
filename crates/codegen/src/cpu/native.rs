//! Scans as machine code, for bodies of little work (`cpu::plan` chooses them).
//!
//! The whole scan is one function: the steps, the addresses that move with them, the kernels inline, the condition, rows
//! repeated after an early end, last rows. Small kernels are unrolled, and elements pass from kernel to kernel and from step
//! to step in registers (see `register_cache`); kernels for which wide vectors pay are called. The arithmetic and its order are those
//! of the kernels, so the bits are the same as when a scan is run step by step.

mod product;

use std::collections::HashMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, FuncRef, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Type, Value as Ir, types,
};
use cranelift_frontend::FunctionBuilder;
use hypatia_graph::{Broken, DType, broken};

use crate::cpu::emit::{Memory, Report, Routines, emit_between, function_params, scalar_type, table_entry};
use crate::cpu::plan::{FunctionId, Inline};
use crate::cpu::register_cache::{CachedElement, RegisterCache};
use crate::kernel::{self, Kernel, LoopKernel, Place, ScanKernel};

/// Fills the body of `fn(buffers, begin, end, error)`: buffers is a table of pointers of the scan's parameters, `error` three
/// words (raised, value, check), where raised is the number of the step that found an index out of range, counted from
/// the scan itself, which is 1. The range is not looked at. `body` says how each step of the scan's body is carried out,
/// `called` has the functions that it calls.
pub(super) fn emit(
    builder: &mut FunctionBuilder<'_>,
    kernel: &ScanKernel,
    body: &[Inline],
    called: &HashMap<FunctionId, FuncRef>,
    routines: Routines,
    fused: bool,
) -> Result<(), Broken> {
    let [buffers, _, _, words] = function_params(builder)?;
    let failed = builder.create_block();
    let params: Vec<Origin> = (0..kernel.params.len())
        .map(|index| Origin { base: table_entry(builder, buffers, index), offset: 0 })
        .collect();
    Native { b: builder, called, routines, fused, words, failed, number: 1 }.scan(kernel, body, &params)?;
    builder.ins().return_(&[]);
    builder.switch_to_block(failed);
    builder.ins().return_(&[]);
    Ok(())
}

struct Native<'n, 'b> {
    b: &'n mut FunctionBuilder<'b>,
    called: &'n HashMap<FunctionId, FuncRef>,
    routines: Routines,
    fused: bool,
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
    cache: RegisterCache,
}

impl Native<'_, '_> {
    fn int(&mut self, value: i64) -> Ir {
        self.b.ins().iconst(types::I64, value)
    }

    /// The steps of a scan whose parameters begin there, and what comes after them.
    fn scan(&mut self, kernel: &ScanKernel, body: &[Inline], params: &[Origin]) -> Result<(), Broken> {
        self.number += 1;
        if kernel.steps == 0 {
            self.number += kernel.body.count() as i64;
            let none = self.int(0);
            self.write_made(kernel, params, none);
            return Ok(());
        }
        let (before, head, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().jump(before, &[]);
        self.b.switch_to_block(head);
        let counter = self.b.declare_var(types::I64);
        let step = self.b.use_var(counter);
        let mut spaces = Spaces { kernel, memories: Vec::new(), cache: RegisterCache::default() };
        self.body(&mut spaces, body, params, step)?;

        // What the next step begins with.
        for begin in spaces.cache.begins().to_vec() {
            let (place, memory) = spaces.memories[begin.element.space].clone();
            let next = match place {
                Place::Shared(index) => match kernel.carries[index].row.as_ref() {
                    Some(row) => self.memory(&mut spaces, params, step, &Place::Output(row.output.into()))?,
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
            let memory = self.memory(&mut spaces, params, step, &place)?;
            let condition = self.value(&mut spaces, memory, 0, types::I8);
            let is_not = self.b.ins().icmp_imm_u(IntCC::Equal, condition, 0);
            goes_on = self.b.ins().band(goes_on, is_not);
        }
        self.b.ins().brif(goes_on, head, &[], done, &[]);

        // What the first step begins with.
        self.b.switch_to_block(before);
        let none = self.int(0);
        self.b.def_var(counter, none);
        for begin in spaces.cache.begins() {
            let (place, memory) = &spaces.memories[begin.element.space];
            let origin = self.first(kernel, params, place)?;
            let offset = origin.offset + begin.element.offset - memory.offset;
            let value = self.load(Origin { offset, ..origin }, begin.ty);
            self.b.def_var(begin.variable, value);
        }
        self.b.ins().jump(head, &[]);

        self.b.switch_to_block(done);
        self.finish(kernel, params, made);
        Ok(())
    }

    /// The kernels of a step.
    fn body(
        &mut self,
        spaces: &mut Spaces<'_>,
        body: &[Inline],
        params: &[Origin],
        step: Ir,
    ) -> Result<(), Broken> {
        let program = spaces.kernel.body.clone();
        let memories = program.buffers.iter().map(|buffer| self.memory(spaces, params, step, &buffer.place));
        let memories = memories.collect::<Result<Vec<Memory>, Broken>>()?;
        for (each, inline) in program.steps.iter().zip(body) {
            let arguments: Vec<Memory> = each.arguments.iter().map(|id| memories[id.index()]).collect();
            match (&each.kernel, inline) {
                (Kernel::Loop(kernel), Inline::Call(function)) => {
                    let called = self.called.get(function);
                    let called =
                        *called.ok_or_else(|| broken!("{function} among the functions that a scan calls"))?;
                    self.call(called, kernel, &arguments, &mut spaces.cache);
                    if each.kernel.checks_indices() || !kernel.starts.is_empty() {
                        self.check_call();
                    }
                    self.number += 1;
                }
                (Kernel::Loop(kernel), Inline::Kernel { unrolled }) => {
                    let report = Report { words: self.words, raised: self.number, failed: self.failed };
                    self.number += 1;
                    let (cache, routines) = (&mut spaces.cache, self.routines);
                    emit_between(self.b, kernel, &arguments, cache, report, routines, self.fused, *unrolled)?;
                    if each.kernel.checks_indices() {
                        self.check();
                    }
                }
                (Kernel::Scan(inner), Inline::Scan(body)) => {
                    let origins: Vec<Origin> = arguments
                        .iter()
                        .map(|memory| Origin { base: memory.base, offset: memory.offset })
                        .collect();
                    self.scan(inner, body, &origins)?;
                    for (param, memory) in inner.params.iter().zip(&arguments) {
                        if let (true, Some(space)) = (param.written, memory.space) {
                            spaces.cache.forget(space);
                        }
                    }
                }
                (Kernel::Product(kernel), Inline::Product { lanes }) => {
                    self.number += 1;
                    product::emit(self.b, kernel, *lanes, &arguments, &mut spaces.cache, self.fused)?;
                }
                (kernel, _) => return Err(broken!("a kernel that the plan carries out inline", kernel)),
            }
        }
        Ok(())
    }

    /// Calls the function of a kernel.
    fn call(
        &mut self,
        function: FuncRef,
        kernel: &LoopKernel,
        arguments: &[Memory],
        cache: &mut RegisterCache,
    ) {
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
                cache.forget(space);
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
    fn memory(
        &mut self,
        spaces: &mut Spaces<'_>,
        params: &[Origin],
        step: Ir,
        place: &Place,
    ) -> Result<Memory, Broken> {
        // All of the arena is one space.
        let (place, further) = match place {
            Place::Arena(offset) => (Place::Arena(0), *offset as i64),
            Place::Input(_) | Place::Shared(_) | Place::Constant(_) | Place::Output(_) => (place.clone(), 0),
        };
        if let Some((_, memory)) = spaces.memories.iter().find(|(known, _)| *known == place) {
            return Ok(Memory { offset: memory.offset + further, ..*memory });
        }
        let kernel = spaces.kernel;
        let first = self.first(kernel, params, &place)?;
        let (origin, lasting) = if let Place::Constant(_) = place {
            (first, true)
        } else {
            // Addresses are linear in the step from the second on.
            let (begin, second, third) =
                (locate(kernel, &place, 0)?, locate(kernel, &place, 1)?, locate(kernel, &place, 2)?);
            let distance = third.1 - second.1;
            let moved = self.int(distance);
            let moved = self.b.ins().imul(step, moved);
            if matches!(place, Place::Shared(_)) && second != begin {
                // From the second step on, the row that the step before has made.
                let rows = params[usize::from(second.0)];
                let before = self.b.ins().iadd_imm_s(rows.base, rows.offset + second.1 - distance);
                let row = self.b.ins().iadd(before, moved);
                let initial = self.b.ins().iadd_imm_s(first.base, first.offset);
                (Origin { base: self.b.ins().select(step, row, initial), offset: 0 }, true)
            } else if matches!(place, Place::Input(_) | Place::Shared(_)) && distance == 0 {
                (first, true)
            } else {
                (Origin { base: self.b.ins().iadd(first.base, moved), ..first }, false)
            }
        };
        let space = spaces.cache.add_space(lasting);
        let memory = Memory { base: origin.base, offset: origin.offset, space: Some(space) };
        spaces.memories.push((place, memory));
        Ok(Memory { offset: memory.offset + further, ..memory })
    }

    /// Where a place of the body lies in the first step.
    fn first(&mut self, kernel: &ScanKernel, params: &[Origin], place: &Place) -> Result<Origin, Broken> {
        if let Place::Constant(index) = place {
            // The program that holds the constant outlives its code.
            let address = kernel.body.constants[*index].bytes().as_ptr() as i64;
            return Ok(Origin { base: self.int(address), offset: 0 });
        }
        let (param, begin) = locate(kernel, place, 0)?;
        let Origin { base, offset } = params[usize::from(param)];
        Ok(Origin { base, offset: offset + begin })
    }

    /// An element of a place, from a register or from memory.
    fn value(&mut self, spaces: &mut Spaces<'_>, memory: Memory, beyond: i64, ty: Type) -> Ir {
        let offset = memory.offset + beyond;
        let element = memory.space.map(|space| CachedElement { space, offset });
        match element.and_then(|element| spaces.cache.get(self.b, element, ty)) {
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
        let rows = |row: &kernel::Element| {
            let dtype = kernel.params[usize::from(row.param)].dtype;
            let origin = params[usize::from(row.param)];
            let size = dtype.size() as i64;
            (
                Origin { base: origin.base, offset: origin.offset + row.offset * size },
                row.stride * size,
                dtype,
            )
        };
        let last = self.b.ins().iadd_imm_s(made, -1);
        if kernel.until.is_some() {
            for (origin, bytes, dtype) in kernel.rows.iter().map(rows) {
                let from = self.row(origin, bytes, last);
                let all = self.int(kernel.steps as i64);
                self.counted(made, all, |native, row| {
                    let to = native.row(origin, bytes, row);
                    native.copy(from, to, bytes, dtype);
                });
            }
        }
        for (row, param) in kernel.kept_rows() {
            let (origin, bytes, dtype) = rows(row);
            let from = self.row(origin, bytes, last);
            let to = params[usize::from(param)];
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

/// Where a place of the body lies in a step.
fn locate(kernel: &ScanKernel, place: &Place, step: usize) -> Result<(u16, i64), Broken> {
    kernel.locate(place, step).ok_or_else(|| broken!("a parameter of the scan that holds {place:?}"))
}
