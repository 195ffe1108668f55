//! Which scans become one function, and how it carries out each step.
//!
//! Where all kernels of a body are loop kernels or products of few elements, or such scans again, walking the steps and
//! calling a function for each of them would be most of the time there is. Small kernels are unrolled; kernels for which
//! wide vectors pay are called. Random numbers, products that are not summed term by term, and kernels so large that threads
//! pay stand against it.

use hypatia_graph::DType;
use hypatia_kernels::features::{Features, InstructionSet};
use hypatia_kernels::product::{ProductPlan, Summation};

use super::{Function, FunctionId, Inline, Planner, product_shape};
use crate::cpu::emit::row_parts;
use crate::kernel::{Instruction, Kernel, LoopKernel, ProductKernel, Scale, ScanKernel};

/// Instructions of a kernel at most, about.
const MOST_WORK: usize = 4000;

/// Instructions of a kernel from which a call of a function of its own is faster, where that uses wide vectors.
const CALLED_WORK: usize = 150;

/// Instructions of a kernel that is unrolled, at most.
const MOST_UNROLLED: usize = 150;

/// Multiply-adds of a product, at most.
const MOST_PRODUCT: usize = 200;

/// Instructions of code for a whole scan, at most.
const MOST_CODE: usize = 3000;

impl<'p> Planner<'p> {
    /// The function of a scan, if it is to be one.
    pub(super) fn native(&mut self, kernel: &'p ScanKernel, number: usize) -> Option<FunctionId> {
        let (body, size) = self.inline(kernel, number)?;
        if size > MOST_CODE {
            return None;
        }
        self.functions.push(Function::Scan(number, body));
        Some(FunctionId(self.functions.len() - 1))
    }

    /// How the steps of a scan are carried out in one function, and about the instructions of its code; nothing if a step
    /// stands against it. Kernels that it calls have functions of their own also where the scan is not one function.
    fn inline(&mut self, kernel: &'p ScanKernel, number: usize) -> Option<(Vec<Inline>, usize)> {
        let mut number = number + 1;
        let (mut body, mut code) = (Vec::new(), 0);
        for step in &kernel.body.steps {
            let (inline, size) = match &step.kernel {
                Kernel::Loop(kernel) => match work(kernel) {
                    work if work > MOST_WORK => return None,
                    work if work > CALLED_WORK && has_wide_vectors(kernel, self.features) => {
                        (Inline::Call(self.kernel(kernel, number)), kernel.params.len())
                    }
                    work if work <= MOST_UNROLLED => (Inline::Kernel { unrolled: true }, work),
                    // A loop has a copy for four elements and one for one.
                    _ => (Inline::Kernel { unrolled: false }, 2 * weight(kernel)),
                },
                Kernel::Scan(kernel) => {
                    let (body, size) = self.inline(kernel, number)?;
                    (Inline::Scan(body), size)
                }
                Kernel::Product(kernel) => {
                    let lanes = lanes(kernel);
                    let work = product_work(kernel, lanes, self.features)?;
                    if work > MOST_PRODUCT {
                        return None;
                    }
                    (Inline::Product { lanes }, work / kernel.k * 2)
                }
                Kernel::Convolution(_) | Kernel::Random(_) => return None,
            };
            body.push(inline);
            code += size;
            number += step.count();
        }
        Some((body, code))
    }
}

/// Whether the function of a kernel has vectors wider than those of code inline.
fn has_wide_vectors(kernel: &LoopKernel, features: &Features) -> bool {
    features.instruction_set() == InstructionSet::Avx512 && !kernel.types.contains(&DType::F64)
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

/// Lanes of the vectors in which a product is computed.
fn lanes(kernel: &ProductKernel) -> usize {
    match kernel.dtype {
        // The columns of the right side must lie side by side, as those of the result do.
        _ if kernel.b.column_stride != 1 => 1,
        DType::F32 => 4,
        DType::F64 | DType::Bool | DType::U8 | DType::I32 | DType::I64 => 2,
    }
}

/// The number of multiply-adds, of vectors where there are any; nothing for products that are summed otherwise than term by
/// term, whose starts or factors are known only when they run, or that are not of floats.
fn product_work(kernel: &ProductKernel, lanes: usize, features: &Features) -> Option<usize> {
    let plan = ProductPlan::new(product_shape(kernel), features, 1);
    let fused = features.fused_multiply_add();
    let is_taken = plan.summation() == Summation::Sequential { blocks: 1, fused }
        && kernel.k > 0
        && kernel.starts.is_empty()
        && kernel.dtype.is_float()
        && matches!(kernel.beta, Scale::Constant(_));
    let columns = kernel.n.div_ceil(lanes);
    let rows = kernel.batch.saturating_mul(kernel.m).saturating_mul(kernel.k);
    is_taken.then(|| rows.saturating_mul(columns))
}
