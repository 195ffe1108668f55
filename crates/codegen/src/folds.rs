//! Long sums in stages, so that none of them is one long chain of roundings.
//!
//! A kernel joins the values of a fold one after another; of `n` values that is up to `n` roundings of a sum that has long
//! outgrown its terms. So a sum or product of floats with more than `CHAIN` values for each partial result is cut: one
//! kernel folds pieces and stores what each gives, and another folds these, which is cut again where there are many. The
//! result has seen a few roundings for each stage, some `log(n)` in all, and the pieces are rows that threads can share.
//! What the pieces are depends on the extents alone, so the order is the same for every engine and any number of threads.
//!
//! A product of matrices with more than `TERMS` terms is cut the same way: products of pieces, whose results are folded.
//! Inside of a piece, back ends cut it into stretches of their own.

use hypatia_graph::{DType, Fold, ScalarFn};
use smallvec::{SmallVec, smallvec};

use crate::kernel::{
    Address, Affine, Instruction, Kernel, LANES, LoopKernel, Matrix, Param, ProductKernel, Scale, Store,
    StoreKind, Value,
};
use crate::lower::{Memory, UnplacedStep, affines, tidy};

/// The values that a kernel joins one after another, at most, where it folds floats by addition or multiplication.
const CHAIN: usize = 32;

/// The terms of a product of matrices that one kernel adds up, at most.
const TERMS: usize = 4096;

/// The steps with long sums in stages.
pub fn in_stages(steps: Vec<UnplacedStep>) -> Vec<UnplacedStep> {
    let mut staged = Staged { steps: Vec::with_capacity(steps.len()), stages: 0 };
    for step in steps {
        staged.stages = 0;
        match &step.kernel {
            Kernel::Loop(_) => staged.fold(step),
            Kernel::Product(product) if is_deep(product) => staged.product(&step, product),
            Kernel::Product(_) | Kernel::Convolution(_) | Kernel::Random(_) | Kernel::Scan(_) => {
                staged.steps.push(step)
            }
        }
    }
    staged.steps
}

/// Where a fold is cut: into pieces of an axis. The reduced axes outside of it are not folded in this stage.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Cut {
    axis: usize,
    piece: usize,
}

impl Cut {
    /// The cut that leaves no partial result with more than [`CHAIN`] values; nothing where there is none to begin with.
    fn of(kernel: &LoopKernel) -> Option<Cut> {
        let innermost = kernel.extents.len().checked_sub(1)?;
        let mut room = CHAIN;
        for axis in (0..=innermost).rev().filter(|axis| kernel.reduced[*axis]) {
            // Elements of the innermost axis join as many partial results as there are lanes.
            let lanes = if axis == innermost { LANES } else { 1 };
            let values = kernel.extents[axis].div_ceil(lanes);
            if values > room {
                return Some(Cut { axis, piece: piece(kernel.extents[axis], room * lanes, lanes) });
            }
            room /= values;
        }
        None
    }
}

/// The length of the pieces of an axis: a multiple of the unit and at most that many, without a rest if it can be.
fn piece(extent: usize, most: usize, unit: usize) -> usize {
    let least = (most / 8).next_multiple_of(unit).max(unit);
    let even = (least..=most).rev().find(|piece| piece % unit == 0 && extent.is_multiple_of(*piece));
    even.unwrap_or_else(|| extent.div_ceil(extent.div_ceil(most)).next_multiple_of(unit))
}

struct Staged {
    steps: Vec<UnplacedStep>,
    /// Stages of the present step so far.
    stages: u16,
}

impl Staged {
    /// Memory for the partial results of another stage.
    fn partial(&mut self, result: Memory) -> Option<Memory> {
        let (Memory::Node(id) | Memory::Partial(id, _)) = result else { return None };
        self.stages += 1;
        Some(Memory::Partial(id, self.stages))
    }

    /// A step like another, with its loops in order.
    fn push(&mut self, like: &UnplacedStep, mut kernel: LoopKernel, arguments: Vec<Memory>) {
        tidy(&mut kernel);
        self.steps.push(UnplacedStep { kernel: Kernel::Loop(kernel), arguments, ..like.clone() });
    }

    fn fold(&mut self, mut step: UnplacedStep) {
        while let Some(rest) = self.stage(&step) {
            step = rest;
        }
        self.steps.push(step);
    }

    /// The first stage of a fold that is too long; what is left is the fold of its results.
    fn stage(&mut self, step: &UnplacedStep) -> Option<UnplacedStep> {
        let Kernel::Loop(kernel) = &step.kernel else { return None };
        let [Store { address, value, kind: StoreKind::Fold(fold) }] = &kernel.stores[..] else { return None };
        let dtype = kernel.types[value.index()];
        let rounds = dtype.is_float() && matches!(fold, Fold::Sum | Fold::Prod);
        if !rounds || !address.position.starts.is_empty() || kernel.extents.contains(&0) {
            return None;
        }
        let Cut { axis, piece } = Cut::of(kernel)?;
        let out = usize::from(address.param);
        let partial = self.partial(step.arguments[out])?;
        let (pieces, rest) = (kernel.extents[axis] / piece, kernel.extents[axis] % piece);

        // The axis becomes two: over the pieces, and within one.
        let mut whole = kernel.clone();
        for affine in affines(&mut whole) {
            let stride = affine.strides[axis];
            affine.strides.insert(axis, stride * piece as i64);
        }
        whole.extents.insert(axis, pieces);
        whole.extents[axis + 1] = piece;
        whole.reduced.insert(axis, false);
        whole.reduced[..axis].fill(false);
        // The partial results lie in the order of the loops.
        let mut strides: SmallVec<[i64; 4]> = smallvec![0; whole.extents.len()];
        let mut len = 1;
        for own in (0..whole.extents.len()).rev().filter(|own| !whole.reduced[*own]) {
            strides[own] = len as i64;
            len *= if own == axis { pieces + usize::from(rest > 0) } else { whole.extents[own] };
        }
        let result = Param { dtype, len, written: true };
        let place = |offset: i64, strides: &[i64]| Address {
            param: address.param,
            position: Affine { offset, strides: strides.into(), starts: smallvec![] },
        };
        let mut arguments = step.arguments.clone();
        arguments[out] = partial;
        whole.params[out] = result.clone();
        whole.stores[0].address = place(0, &strides);

        // The fold of the partial results.
        let mut last = LoopKernel {
            params: vec![Param { written: false, ..result.clone() }, kernel.params[out].clone()],
            types: vec![dtype],
            ..LoopKernel::default()
        };
        let (mut from, mut to) =
            (Affine::default(), Affine { offset: address.position.offset, ..Affine::default() });
        for own in (0..whole.extents.len()).filter(|own| !whole.reduced[*own]) {
            let original = if own < axis { Some(own) } else { own.checked_sub(1).filter(|_| own > axis) };
            last.extents.push(if own == axis { len_of(pieces, rest) } else { whole.extents[own] });
            last.reduced.push(original.is_none_or(|original| kernel.reduced[original]));
            from.strides.push(strides[own]);
            to.strides.push(original.map_or(0, |original| address.position.strides[original]));
        }
        last.body.push(Instruction::Load(Address { param: 0, position: from }));
        last.stores.push(Store {
            address: Address { param: 1, position: to },
            value: Value(0),
            kind: StoreKind::Fold(*fold),
        });

        let mut remaining = kernel.clone();
        for affine in affines(&mut remaining) {
            affine.offset += affine.strides[axis] * (pieces * piece) as i64;
        }
        remaining.extents[axis] = rest;
        remaining.reduced[..axis].fill(false);
        remaining.params[out] = result;
        let offset = strides.remove(axis) * pieces as i64;
        remaining.stores[0].address = place(offset, &strides);

        self.push(step, whole, arguments.clone());
        if rest > 0 {
            self.push(step, remaining, arguments);
        }
        tidy(&mut last);
        let arguments = vec![partial, step.arguments[out]];
        Some(UnplacedStep { kernel: Kernel::Loop(last), arguments, ..step.clone() })
    }

    /// A product of many terms: products of pieces, then the sum of these.
    fn product(&mut self, step: &UnplacedStep, product: &ProductKernel) {
        let ProductKernel { dtype, batch, m, n, k, .. } = *product;
        let out = usize::from(product.c.param);
        let Some(partial) = self.partial(step.arguments[out]) else {
            self.steps.push(step.clone());
            return;
        };
        let depth = k.div_ceil(k.div_ceil(TERMS));
        let (pieces, rest) = (k / depth, k % depth);
        let count = len_of(pieces, rest);
        let size = batch * m * n;
        let matrix_size = (m * n) as i64;
        let result = |written: bool| Param { dtype, len: count * size, written };
        let mut arguments = step.arguments.clone();
        arguments[out] = partial;
        // The product of the terms from a piece on, or of as many pieces as a stack.
        let part = |first: usize, stack: Option<usize>, terms: usize| {
            let begin = (first * depth) as i64;
            let side = |matrix: &Matrix, stride: i64| {
                let mut side = matrix.clone();
                side.position.offset += begin * stride;
                if stack.is_some() {
                    side.batch_stride = depth as i64 * stride;
                }
                side
            };
            let mut part = product.clone();
            part.batch = stack.unwrap_or(batch);
            part.k = terms;
            part.a = side(&product.a, product.a.column_stride);
            part.b = side(&product.b, product.b.row_stride);
            part.c = Matrix {
                param: product.c.param,
                position: Affine { offset: (first * size) as i64, ..Affine::default() },
                batch_stride: matrix_size,
                row_stride: n as i64,
                column_stride: 1,
            };
            part.beta = Scale::Constant(0.0);
            part.params[out] = result(true);
            UnplacedStep { kernel: Kernel::Product(part), arguments: arguments.clone(), ..step.clone() }
        };
        if batch == 1 {
            self.steps.push(part(0, Some(pieces), depth));
        } else {
            self.steps.extend((0..pieces).map(|piece| part(piece, None, depth)));
        }
        if rest > 0 {
            self.steps.push(part(pieces, None, rest));
        }

        let adds = product.beta != Scale::Constant(0.0);
        let sum = if adds { self.partial(partial) } else { None };
        let target = step.arguments[out];
        let offset = if adds { 0 } else { product.c.position.offset };
        let along =
            |offset: i64, strides: &[i64]| Affine { offset, strides: strides.into(), starts: smallvec![] };
        let sum_param = Param { dtype, len: size, written: true };
        let mut last = LoopKernel {
            extents: smallvec![count, size],
            reduced: smallvec![true, false],
            params: vec![result(false), if adds { sum_param.clone() } else { product.params[out].clone() }],
            body: vec![Instruction::Load(Address { param: 0, position: along(0, &[size as i64, 1]) })],
            types: vec![dtype],
            stores: vec![Store {
                address: Address { param: 1, position: along(offset, &[0, 1]) },
                value: Value(0),
                kind: StoreKind::Fold(Fold::Sum),
            }],
            ..LoopKernel::default()
        };
        tidy(&mut last);
        let arguments = vec![partial, sum.unwrap_or(target)];
        self.fold(UnplacedStep { kernel: Kernel::Loop(last), arguments, ..step.clone() });
        if let Some(sum) = sum {
            self.add_scaled(step, product, sum, size);
        }
    }

    /// `C = beta C + sum`, for a C whose elements lie side by side.
    fn add_scaled(&mut self, step: &UnplacedStep, product: &ProductKernel, sum: Memory, size: usize) {
        let dtype = product.dtype;
        let out = usize::from(product.c.param);
        let position = |offset: i64| Affine { offset, strides: smallvec![1], starts: smallvec![] };
        let mut params = vec![Param { dtype, len: size, written: false }, product.params[out].clone()];
        let mut arguments = vec![sum, step.arguments[out]];
        let place = Address { param: 1, position: position(product.c.position.offset) };
        let beta = match product.beta {
            Scale::Constant(value) => Instruction::Literal(hypatia_graph::Literal::from_f64(value, dtype)),
            Scale::Param(param) => {
                params.push(product.params[usize::from(param)].clone());
                arguments.push(step.arguments[usize::from(param)]);
                Instruction::Load(Address {
                    param: 2,
                    position: Affine { offset: 0, strides: smallvec![0], starts: smallvec![] },
                })
            }
        };
        let kernel = LoopKernel {
            extents: smallvec![size],
            reduced: smallvec![false],
            params,
            starts: Vec::new(),
            body: vec![
                Instruction::Load(Address { param: 0, position: position(0) }),
                Instruction::Load(place.clone()),
                beta,
                Instruction::Map(ScalarFn::Mul, smallvec![Value(1), Value(2)]),
                Instruction::Map(ScalarFn::Add, smallvec![Value(3), Value(0)]),
            ],
            types: vec![dtype; 5],
            stores: vec![Store { address: place, value: Value(4), kind: StoreKind::Plain }],
        };
        self.push(step, kernel, arguments);
    }
}

fn len_of(pieces: usize, rest: usize) -> usize {
    pieces + usize::from(rest > 0)
}

/// Whether a product has too many terms for one kernel, and a result whose elements lie side by side.
fn is_deep(product: &ProductKernel) -> bool {
    let ProductKernel { dtype, batch, m, n, k, c, .. } = product;
    let compact = c.column_stride == 1
        && (*m == 1 || c.row_stride == *n as i64)
        && (*batch == 1 || c.batch_stride == (m * n) as i64)
        && c.position.starts.is_empty();
    matches!(dtype, DType::F32 | DType::F64) && *k > TERMS && batch * m * n > 0 && compact
}

#[cfg(test)]
mod tests;
