//! Small matrix products in native loops, as straight code.
//!
//! Only products whose plan sums the terms of an element one after another are taken; then the bits are those of the plan.
//! A group of columns is summed at a time, with each row of the right side loaded once for all rows of the left.

use cranelift_codegen::ir::{InstBuilder, Type, Value as Ir, types};
use cranelift_frontend::FunctionBuilder;
use hypatia_graph::DType;

use crate::cpu::emit::{Memory, flags};
use crate::cpu::features::Features;
use crate::cpu::held::{Element, Held};
use crate::cpu::product::{ProductPlan, Summation};
use crate::cpu::steps::product_shape;
use crate::kernel::{Matrix, ProductKernel, Scale};

/// Lanes of the vectors in use.
fn lanes(kernel: &ProductKernel) -> usize {
    match kernel.dtype {
        // The columns of the right side must lie side by side, as those of the result do.
        _ if kernel.b.column_stride != 1 => 1,
        DType::F32 => 4,
        DType::F64 | DType::Bool | DType::U8 | DType::I32 | DType::I64 => 2,
    }
}

/// The number of multiply-adds, of vectors where there are any; nothing for products that are not taken.
pub(super) fn work(kernel: &ProductKernel, features: &Features) -> Option<usize> {
    let plan = ProductPlan::new(product_shape(kernel), features, 1);
    let fused = features.fused_multiply_add();
    let is_taken = plan.summation() == Summation::Sequential { blocks: 1, fused }
        && kernel.k > 0
        && kernel.starts.is_empty()
        && kernel.dtype.is_float()
        && matches!(kernel.beta, Scale::Constant(_));
    let lanes = lanes(kernel);
    let columns = kernel.n / lanes + kernel.n % lanes;
    let rows = kernel.batch.saturating_mul(kernel.m).saturating_mul(kernel.k);
    is_taken.then(|| rows.saturating_mul(columns))
}

/// Emits a product where the builder stands.
pub(super) fn emit(
    b: &mut FunctionBuilder<'_>,
    kernel: &ProductKernel,
    memories: &[Memory],
    held: &mut Held,
    fused: bool,
) {
    Emitter { b, kernel, memories, held, fused }.emit();
}

struct Emitter<'e, 'b> {
    b: &'e mut FunctionBuilder<'b>,
    kernel: &'e ProductKernel,
    memories: &'e [Memory],
    held: &'e mut Held,
    fused: bool,
}

impl Emitter<'_, '_> {
    fn emit(&mut self) {
        let element = if self.kernel.dtype == DType::F32 { types::F32 } else { types::F64 };
        let lanes = lanes(self.kernel);
        let whole = self.kernel.n - self.kernel.n % lanes;
        let groups = (0..whole).step_by(lanes).map(|column| (column, lanes));
        let groups: Vec<(usize, usize)> =
            groups.chain((whole..self.kernel.n).map(|column| (column, 1))).collect();
        for batch in 0..self.kernel.batch {
            for &(column, lanes) in &groups {
                let ty = if lanes == 1 { element } else { element.by(lanes as u32).unwrap_or(element) };
                self.columns(batch, column, element, ty);
            }
        }
    }

    /// Some columns of a result.
    fn columns(&mut self, batch: usize, column: usize, element: Type, ty: Type) {
        let ProductKernel { m, k, a, b, c, alpha, beta, .. } = self.kernel;
        let zero = self.constant(0.0, element, ty);
        let mut sums = vec![zero; *m];
        for term in 0..*k {
            let right = self.load(b, [batch, term, column], ty);
            for (row, sum) in sums.iter_mut().enumerate() {
                let left = self.load(a, [batch, row, term], element);
                let left = self.everywhere(left, element, ty);
                *sum = self.multiply_add(left, right, *sum);
            }
        }
        let alpha = match *alpha {
            Scale::Constant(1.0) => None,
            Scale::Constant(value) => Some(self.constant(value, element, ty)),
            Scale::Param(param) => {
                let memory = self.memories[usize::from(param)];
                let value = self.read(memory, 0, element);
                Some(self.everywhere(value, element, ty))
            }
        };
        let beta = match *beta {
            Scale::Constant(value) if value != 0.0 => Some(self.constant(value, element, ty)),
            // `work` takes constants only.
            Scale::Constant(_) | Scale::Param(_) => None,
        };
        for (row, sum) in sums.into_iter().enumerate() {
            let mut value = sum;
            if let Some(alpha) = alpha {
                value = self.b.ins().fmul(value, alpha);
            }
            let (memory, offset) = self.place(c, [batch, row, column]);
            if let Some(beta) = beta {
                let old = self.read(memory, offset, ty);
                value = self.multiply_add(old, beta, value);
            }
            let (base, at) = self.address(memory, offset);
            self.b.ins().store(flags(ty), value, base, at);
            if let Some(space) = memory.space {
                self.held.set(Element { space, offset: memory.offset + offset }, ty, value);
            }
        }
    }

    fn constant(&mut self, value: f64, element: Type, ty: Type) -> Ir {
        let value = if element == types::F32 {
            self.b.ins().f32const(value as f32)
        } else {
            self.b.ins().f64const(value)
        };
        self.everywhere(value, element, ty)
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

    fn address(&mut self, memory: Memory, offset: i64) -> (Ir, i32) {
        let offset = memory.offset + offset;
        match i32::try_from(offset) {
            Ok(offset) => (memory.base, offset),
            Err(_) => (self.b.ins().iadd_imm_s(memory.base, offset), 0),
        }
    }

    /// An element of a factor. There are many, so they do not take up registers.
    fn load(&mut self, matrix: &Matrix, at: [usize; 3], ty: Type) -> Ir {
        let (memory, offset) = self.place(matrix, at);
        let (base, offset) = self.address(memory, offset);
        self.b.ins().load(ty, flags(ty), base, offset)
    }

    /// A value from a register if it is in one.
    fn read(&mut self, memory: Memory, offset: i64, ty: Type) -> Ir {
        let element = memory.space.map(|space| Element { space, offset: memory.offset + offset });
        if let Some(value) = element.and_then(|element| self.held.get(self.b, element, ty)) {
            return value;
        }
        let (base, offset) = self.address(memory, offset);
        self.b.ins().load(ty, flags(ty), base, offset)
    }
}
