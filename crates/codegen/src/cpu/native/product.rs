//! Small matrix products in native scans.
//!
//! Only products whose plan sums the terms of an element in their order, in one range of stretches, are taken; then the bits
//! are those of the plan.
//! The sums of a tile of the result stay in registers while one loop goes over the terms.

use std::ops::Range;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value as Ir, types};
use cranelift_frontend::{FunctionBuilder, Variable};
use hypatia_graph::{Broken, DType, broken};

use crate::cpu::emit::{Memory, flags};
use crate::cpu::register_cache::{CachedElement, RegisterCache};
use crate::kernel::{Matrix, ProductKernel, Scale};
use hypatia_kernels::product::{piece, stretches};

/// Sums of a tile, at most: enough to hide the latency of the multiply-add, few enough for sixteen registers to hold them
/// with a row of the right side and an element of the left.
const SUMS: usize = 9;

/// Rows of a tile, at most.
const ROWS: usize = 4;

/// Emits a product where the builder stands, on vectors of as many lanes.
pub(super) fn emit(
    b: &mut FunctionBuilder<'_>,
    kernel: &ProductKernel,
    lanes: usize,
    memories: &[Memory],
    cache: &mut RegisterCache,
    fused: bool,
) -> Result<(), Broken> {
    Emitter { b, kernel, memories, cache, fused }.emit(lanes)
}

struct Emitter<'e, 'b> {
    b: &'e mut FunctionBuilder<'b>,
    kernel: &'e ProductKernel,
    memories: &'e [Memory],
    cache: &'e mut RegisterCache,
    fused: bool,
}

/// Neighbouring columns that are summed in one vector, or one column.
#[derive(Copy, Clone)]
struct Group {
    column: usize,
    ty: Type,
}

impl Emitter<'_, '_> {
    fn emit(&mut self, lanes: usize) -> Result<(), Broken> {
        let ProductKernel { batch, m, n, .. } = *self.kernel;
        let element = if self.kernel.dtype == DType::F32 { types::F32 } else { types::F64 };
        let vector =
            element.by(lanes as u32).ok_or_else(|| broken!("vectors of {lanes} lanes of {element}"))?;
        // The last vector of a row may begin in the one before it, as both have the same values there; but what is added to
        // must not be read when it was written.
        let most = SUMS / ROWS.min(m).max(1);
        let overlaps = n >= lanes && (self.kernel.beta == Scale::Constant(0.0) || n.div_ceil(lanes) <= most);
        let vectors = if overlaps { n.div_ceil(lanes) } else { n / lanes };
        let vector_at = |index: usize| Group { column: (index * lanes).min(n - lanes), ty: vector };
        let mut groups: Vec<Group> = (0..vectors).map(vector_at).collect();
        groups.extend((vectors * lanes..n).map(|column| Group { column, ty: element }));
        for batch in 0..batch {
            for first in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - first);
                let tiles = groups.len().div_ceil((SUMS / rows).max(1)).max(1);
                for groups in groups.chunks(groups.len().div_ceil(tiles).max(1)) {
                    self.tile(batch, first..first + rows, groups, element)?;
                }
            }
        }
        Ok(())
    }

    /// Some rows and columns of a result.
    fn tile(
        &mut self,
        batch: usize,
        rows: Range<usize>,
        groups: &[Group],
        element: Type,
    ) -> Result<(), Broken> {
        let ProductKernel { c, alpha, beta, .. } = self.kernel;
        let sums = self.sums(batch, rows.clone(), groups, element);
        let alpha = match *alpha {
            Scale::Constant(1.0) => None,
            Scale::Constant(value) => Some(self.constant(value, element)),
            Scale::Param(param) => Some(self.read(self.memories[usize::from(param)], 0, element)),
        };
        let beta = match *beta {
            Scale::Constant(0.0) => None,
            Scale::Constant(value) => Some(self.constant(value, element)),
            Scale::Param(_) => return Err(broken!("a constant factor of the old elements", beta)),
        };
        // What is added to is read before anything is written over it.
        let mut values = Vec::new();
        let places = rows.flat_map(|row| groups.iter().map(move |group| (row, *group)));
        for ((row, Group { column, ty }), sum) in places.zip(sums) {
            let mut value = sum;
            if let Some(alpha) = alpha {
                let alpha = self.everywhere(alpha, element, ty);
                value = self.b.ins().fmul(value, alpha);
            }
            let (memory, offset) = self.place(c, [batch, row, column]);
            if let Some(beta) = beta {
                let old = self.read(memory, offset, ty);
                let beta = self.everywhere(beta, element, ty);
                value = self.multiply_add(old, beta, value);
            }
            values.push((memory, offset, ty, value));
        }
        for (memory, offset, ty, value) in values {
            let (base, at) = self.address(memory.base, memory.offset + offset);
            self.b.ins().store(flags(ty), value, base, at);
            if let Some(space) = memory.space {
                self.cache.set(CachedElement { space, offset: memory.offset + offset }, ty, value);
            }
        }
        Ok(())
    }

    /// The sums of a tile, row by row: those of its stretches, added in order.
    fn sums(&mut self, batch: usize, rows: Range<usize>, groups: &[Group], element: Type) -> Vec<Ir> {
        let k = self.kernel.k;
        let stretches = stretches(k);
        let mut totals = self.stretch(piece(k, stretches, 0), batch, rows.clone(), groups, element);
        for stretch in 1..stretches {
            let sums = self.stretch(piece(k, stretches, stretch), batch, rows.clone(), groups, element);
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total = self.b.ins().fadd(*total, sum);
            }
        }
        totals
    }

    /// The sums of some terms.
    fn stretch(
        &mut self,
        terms: Range<usize>,
        batch: usize,
        rows: Range<usize>,
        groups: &[Group],
        element: Type,
    ) -> Vec<Ir> {
        let ProductKernel { a, b, .. } = self.kernel;
        let mut sums: Vec<Variable> = Vec::new();
        for _ in rows.clone() {
            for group in groups {
                let variable = self.b.declare_var(group.ty);
                let zero = self.constant(0.0, element);
                let zero = self.everywhere(zero, element, group.ty);
                self.b.def_var(variable, zero);
                sums.push(variable);
            }
        }
        let (head, inside, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let term = self.b.append_block_param(head, types::I64);
        let first = self.b.ins().iconst(types::I64, terms.start as i64);
        self.b.ins().jump(head, &[first.into()]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, term, terms.end as i64);
        self.b.ins().brif(more, inside, &[], done, &[]);
        self.b.switch_to_block(inside);
        let size = self.kernel.dtype.size() as i64;
        let left_base = self.moved(a, term, a.column_stride * size);
        let right_base = self.moved(b, term, b.row_stride * size);
        // Of one row each element of the right side is used once, and need not be in a register before.
        let mut right: Vec<Option<Ir>> = vec![None; groups.len()];
        let mut sum = sums.iter();
        for row in rows {
            let left = self.load(left_base, a, [batch, row, 0], element);
            for ((group, right), variable) in groups.iter().zip(&mut right).zip(&mut sum) {
                let at = [batch, 0, group.column];
                let right = *right.get_or_insert_with(|| self.load(right_base, b, at, group.ty));
                let left = self.everywhere(left, element, group.ty);
                let old = self.b.use_var(*variable);
                let new = self.multiply_add(left, right, old);
                self.b.def_var(*variable, new);
            }
        }
        let next = self.b.ins().iadd_imm_s(term, 1);
        self.b.ins().jump(head, &[next.into()]);
        self.b.switch_to_block(done);
        sums.into_iter().map(|variable| self.b.use_var(variable)).collect()
    }

    /// The address that a factor's memory is counted from, moved on by as many bytes for each term.
    fn moved(&mut self, matrix: &Matrix, term: Ir, bytes: i64) -> Ir {
        let base = self.memories[usize::from(matrix.param)].base;
        let bytes = self.b.ins().iconst(types::I64, bytes);
        let distance = self.b.ins().imul(term, bytes);
        self.b.ins().iadd(base, distance)
    }

    fn constant(&mut self, value: f64, element: Type) -> Ir {
        if element == types::F32 { self.b.ins().f32const(value as f32) } else { self.b.ins().f64const(value) }
    }

    fn everywhere(&mut self, value: Ir, element: Type, ty: Type) -> Ir {
        if ty == element { value } else { self.b.ins().splat(ty, value) }
    }

    fn multiply_add(&mut self, x: Ir, y: Ir, z: Ir) -> Ir {
        if self.fused {
            return self.b.ins().fma(x, y, z);
        }
        let product = self.b.ins().fmul(x, y);
        self.b.ins().fadd(product, z)
    }

    /// The memory of an element and its bytes from the beginning of it.
    fn place(&self, matrix: &Matrix, [batch, row, column]: [usize; 3]) -> (Memory, i64) {
        let strides = [matrix.batch_stride, matrix.row_stride, matrix.column_stride];
        let steps: i64 =
            strides.iter().zip([batch, row, column]).map(|(stride, at)| stride * at as i64).sum();
        let offset = (matrix.position.offset + steps) * self.kernel.dtype.size() as i64;
        (self.memories[usize::from(matrix.param)], offset)
    }

    fn address(&mut self, base: Ir, offset: i64) -> (Ir, i32) {
        match i32::try_from(offset) {
            Ok(offset) => (base, offset),
            Err(_) => (self.b.ins().iadd_imm_s(base, offset), 0),
        }
    }

    /// An element of a factor, or a group, from the address that its memory is counted from.
    fn load(&mut self, base: Ir, matrix: &Matrix, at: [usize; 3], ty: Type) -> Ir {
        let (memory, offset) = self.place(matrix, at);
        let (base, offset) = self.address(base, memory.offset + offset);
        self.b.ins().load(ty, flags(ty), base, offset)
    }

    /// A value from a register if it is in one.
    fn read(&mut self, memory: Memory, offset: i64, ty: Type) -> Ir {
        let element = memory.space.map(|space| CachedElement { space, offset: memory.offset + offset });
        if let Some(value) = element.and_then(|element| self.cache.get(self.b, element, ty)) {
            return value;
        }
        let (base, offset) = self.address(memory.base, memory.offset + offset);
        self.b.ins().load(ty, flags(ty), base, offset)
    }
}
