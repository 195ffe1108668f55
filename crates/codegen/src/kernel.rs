//! Kernels and programs: the second and last intermediate form. Back ends see these and never the tensor graph.
//!
//! A [`LoopKernel`] is a nest of loops with fixed extents around a straight-line body on single elements; each store
//! writes a value or folds values over the reduced axes. A [`ProductKernel`] is a matrix product, a [`ConvolutionKernel`] a
//! convolution, a [`RandomKernel`] a buffer of random numbers, a [`ScanKernel`] a program that is run again and again. A [`Program`] is an ordered list of
//! steps, each a kernel with buffers for its parameters.
//!
//! Always true (see [`mod@verify`]): a body uses values computed before; every address lies inside its buffer for every
//! iteration, given the checks on its run-time starts; a fold's address does not depend on reduced axes. Loop order and
//! the lanes of a fold are part of the kernel's meaning, so every engine that follows them gives the same bits: a fold
//! along the innermost axis of a vectorised kernel keeps [`LANES`] partial results, element `j` joining partial
//! `j % LANES`, and joins them at the end in halves: 0..8 with 8..16, and so on. Every other fold joins its values one after
//! another. Sums and products of many floats come as several kernels, one a stage (see [`crate::folds`]), so no partial result
//! joins more than 32 values, and a sum of `n` of them has some `log(n)` roundings.

pub(crate) mod checked;
pub mod reference;
pub(crate) mod region;
pub mod verify;

use std::fmt;
use std::sync::Arc;

use hypatia_graph::array::Extents;
use hypatia_graph::op::{IndexCheck, Write};
use hypatia_graph::{Array, Broken, DType, Fold, LeafId, Literal, ScalarFn, Site};
use hypatia_kernels::convolution::Axis;
use smallvec::SmallVec;

/// Partial results that a fold along the innermost axis keeps.
pub const LANES: usize = 16;

/// A value computed in a body: the position of its instruction.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value(pub u32);

impl Value {
    /// As an index into the body.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A position: `offset + sum of strides[axis] * iteration[axis] + sum of coefficient * start`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Affine {
    /// The constant part.
    pub offset: i64,
    /// One coefficient for each loop axis.
    pub strides: SmallVec<[i64; 4]>,
    /// Run-time starts (indices into the kernel's `starts`) with coefficients.
    pub starts: SmallVec<[(u16, i64); 1]>,
}

/// An element of a parameter's buffer, in elements from its beginning.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// Which parameter.
    pub param: u16,
    /// Where.
    pub position: Affine,
}

/// A window's start, read from a buffer when the kernel begins: element 0 of an `i64` buffer, counted from the end if
/// negative, then in `0..=limit` or an error. The first bound of a range is out of range too where the second one, counted
/// from the end as well, would be 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RuntimeStart {
    /// The parameter whose buffer holds it.
    pub param: u16,
    /// Extent of the axis, added to negative starts.
    pub extent: usize,
    /// The last start for which the window fits.
    pub limit: usize,
    /// The axis, for messages.
    pub axis: u8,
    /// Whether it is the first bound of a range.
    pub is_range: bool,
}

impl RuntimeStart {
    /// What the start may be.
    pub fn check(&self) -> IndexCheck {
        let len = self.extent.saturating_sub(self.limit);
        IndexCheck { axis: self.axis, extent: self.extent, len, is_range: self.is_range }
    }

    /// The only start from the end that is out of range though the window would fit.
    pub fn refused(&self) -> Option<i64> {
        self.is_range.then(|| -(self.extent.saturating_sub(self.limit) as i64))
    }
}

/// One operation of a body, on single elements.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Instruction {
    /// A constant.
    Literal(Literal),
    /// Element at an address.
    Load(Address),
    /// Element at an address plus `stride` times a value, which [`Instruction::Index`] has checked.
    LoadAt {
        /// Where the row begins.
        address: Address,
        /// Which element, `i64`.
        index: Value,
        /// Distance between elements.
        stride: i64,
    },
    /// An `i64` position.
    Position(Affine),
    /// An index into an axis of that extent, as `i64`: negative ones count from the end; out of range is an error, and
    /// the value is then 0 so that the kernel can finish.
    Index {
        /// The index, of an integer type.
        index: Value,
        /// Extent of the axis.
        extent: usize,
        /// The axis, for messages.
        axis: u8,
    },
    /// A function of earlier values.
    Map(ScalarFn, SmallVec<[Value; 3]>),
    /// A conversion of an earlier value.
    Cast(DType, Value),
}

/// What a kernel writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Store {
    /// Where.
    pub address: Address,
    /// What.
    pub value: Value,
    /// How.
    pub kind: StoreKind,
}

/// How a kernel writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum StoreKind {
    /// Every iteration writes its own element.
    Plain,
    /// The values over the reduced axes, folded.
    Fold(Fold),
    /// The position (`i64`) of the first largest value along the only reduced axis; a NaN is largest.
    ArgMax,
    /// Every iteration, one after another in row-major order, writes or adds to element `address + stride * index`.
    At {
        /// Which element, checked by [`Instruction::Index`].
        index: Value,
        /// Distance between elements.
        stride: i64,
        /// Replace or add.
        write: Write,
    },
}

/// A parameter of a kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Param {
    /// Element type of the buffer.
    pub dtype: DType,
    /// Elements in the buffer.
    pub len: usize,
    /// Whether the kernel writes it.
    pub written: bool,
}

/// A nest of loops around a body.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct LoopKernel {
    /// Loop extents, outermost first.
    pub extents: Extents,
    /// For each loop axis, whether folds run over it. Reduced axes are not outside kept ones unless the innermost axis
    /// is kept (then folds go to memory, vector by vector).
    pub reduced: SmallVec<[bool; 4]>,
    /// Buffers.
    pub params: Vec<Param>,
    /// Run-time starts.
    pub starts: Vec<RuntimeStart>,
    /// Straight-line code.
    pub body: Vec<Instruction>,
    /// Element type of each value of the body.
    pub types: Vec<DType>,
    /// What is written.
    pub stores: Vec<Store>,
}

impl fmt::Debug for LoopKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoopKernel({:?}, {} instructions)", self.extents, self.body.len())
    }
}

impl LoopKernel {
    /// The extent below which a value lies, if it is a checked index.
    pub fn index_extent(&self, value: Value) -> Option<usize> {
        match self.body.get(value.index())? {
            Instruction::Index { extent, .. } => Some(*extent),
            Instruction::Literal(_)
            | Instruction::Load(_)
            | Instruction::LoadAt { .. }
            | Instruction::Position(_)
            | Instruction::Map(..)
            | Instruction::Cast(..) => None,
        }
    }
}

/// A factor of a product, constant or read from a buffer (element 0, the product's element type).
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Scale {
    /// Known when compiled.
    Constant(f64),
    /// The value in that parameter.
    Param(u16),
}

/// A stack of matrices in a buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matrix {
    /// Which parameter.
    pub param: u16,
    /// First element, with run-time starts (no loop axes).
    pub position: Affine,
    /// Elements from one matrix of the stack to the next.
    pub batch_stride: i64,
    /// Elements from one row to the next.
    pub row_stride: i64,
    /// Elements from one column to the next.
    pub column_stride: i64,
}

/// `C = beta C + alpha A B` for each matrix of a stack; `beta = 0` does not read C.
#[derive(Clone, PartialEq, Debug)]
pub struct ProductKernel {
    /// Element type; any number.
    pub dtype: DType,
    /// Matrices in the stack.
    pub batch: usize,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Left side.
    pub a: Matrix,
    /// Right side.
    pub b: Matrix,
    /// Result, row-major.
    pub c: Matrix,
    /// Factor of the product.
    pub alpha: Scale,
    /// Factor of the old C.
    pub beta: Scale,
    /// Buffers.
    pub params: Vec<Param>,
    /// Run-time starts.
    pub starts: Vec<RuntimeStart>,
}

impl ProductKernel {
    /// Whether the product is `D W'` and the other `W = beta W + X' D`, both over all of one matrix and with one factor D, as
    /// in backpropagation through a layer and the update of its weights. Which buffers the parameters are is not looked at.
    pub fn passes_back(&self, other: &ProductKernel) -> bool {
        let (b, c) = (&self.b, &other.c);
        let (d, same) = (&self.a, &other.b);
        let apart = |kernel: &ProductKernel| kernel.batch == 1 && kernel.starts.is_empty();
        apart(self)
            && apart(other)
            && self.dtype == other.dtype
            && (self.m, self.n, self.k) == (other.k, other.m, other.n)
            && d.position == same.position
            && (d.row_stride, d.column_stride) == (same.row_stride, same.column_stride)
            && b.position == c.position
            && (b.row_stride, b.column_stride) == (c.column_stride, c.row_stride)
    }
}

/// A value in a buffer, with distances in elements along each of its axes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strided {
    /// Which parameter.
    pub param: u16,
    /// First element, with run-time starts (no loop axes).
    pub position: Affine,
    /// Elements from one index to the next, along each axis.
    pub strides: SmallVec<[i64; 4]>,
}

/// `out[lead, image, filter, place] = sum of x[lead, image, channel, position] * w[lead, filter, channel, tap]` over channels
/// and taps, where the position of a place and a tap is [`Axis::source`] along each axis, and nothing is added where there is
/// none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConvolutionKernel {
    /// Element type; a float.
    pub dtype: DType,
    /// Leading extents, for each index of which there is a convolution.
    pub lead: Extents,
    /// Images.
    pub images: usize,
    /// Filters.
    pub filters: usize,
    /// Channels of images and filters.
    pub channels: usize,
    /// The axes along which filters move.
    pub axes: SmallVec<[Axis; 2]>,
    /// The input: leading axes, images, channels, `axes`.
    pub x: Strided,
    /// The filters: leading axes, filters, channels, `axes`.
    pub w: Strided,
    /// The parameter that is the result, row-major.
    pub out: u16,
    /// Buffers.
    pub params: Vec<Param>,
    /// Run-time starts.
    pub starts: Vec<RuntimeStart>,
}

impl ConvolutionKernel {
    fn extents(&self, of: usize, along: fn(&Axis) -> usize) -> Extents {
        let spatial = self.axes.iter().map(along);
        self.lead.iter().copied().chain([of, self.channels]).chain(spatial).collect()
    }

    /// The extents of the input.
    pub fn input(&self) -> Extents {
        self.extents(self.images, |axis| axis.input)
    }

    /// The extents of the filters.
    pub fn taps(&self) -> Extents {
        self.extents(self.filters, |axis| axis.taps)
    }

    /// The extents of the result.
    pub fn results(&self) -> Extents {
        let places = self.axes.iter().map(|axis| axis.result);
        self.lead.iter().copied().chain([self.images, self.filters]).chain(places).collect()
    }
}

/// Fills a buffer with uniform numbers in [0, 1): element `e` is [`uniform_element`] of the key, the counter, and `e`.
///
/// [`uniform_element`]: hypatia_graph::random::uniform_element
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RandomKernel {
    /// Which stream.
    pub key: u64,
    /// The parameter whose element 0, an `i64`, is the counter.
    pub counter: u16,
    /// The parameter that is filled from its beginning to its end.
    pub out: u16,
    /// Buffers.
    pub params: Vec<Param>,
}

impl RandomKernel {
    /// The number of elements written; 0 where the parameter does not exist.
    pub fn len(&self) -> usize {
        self.params.get(usize::from(self.out)).map_or(0, |param| param.len)
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value that the steps of a scan find in a parameter, each its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// Which parameter.
    pub param: u16,
    /// Where the first step's begins, in elements.
    pub offset: i64,
    /// Elements from one step's to the next; 0 where all see the same.
    pub stride: i64,
}

/// Where a carry lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CarryPlace {
    /// The parameter that holds the initial value when the scan begins, and the last one when it ends.
    pub param: u16,
    /// The stacked output whose rows are the values after each step. Then a step reads the row before its own (the first
    /// one `param`), and the last row is copied to `param` at the end if that is asked for.
    pub row: Option<RowCarry>,
}

/// A carry that lives in the rows of an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowCarry {
    /// Which output of the body.
    pub output: u16,
    /// Whether the last row is copied to the carry's own parameter.
    pub kept: bool,
}

/// Runs a program, the body, for a number of steps.
///
/// Inputs of the body are [`Element`]s, its shared variables the carries, which it updates in place, its outputs rows of
/// parameters. The body's arena is a parameter too, so that all memory of nested scans is that of the program.
#[derive(Clone)]
pub struct ScanKernel {
    /// Steps to make, at most if there is a condition.
    pub steps: usize,
    /// What a step runs.
    pub body: Arc<Program>,
    /// Where each input of the body lies.
    pub inputs: Vec<Element>,
    /// Where each shared variable of the body lies.
    pub carries: Vec<CarryPlace>,
    /// Where each output of the body goes, but for the condition.
    pub rows: Vec<Element>,
    /// Where the condition goes, the body's last output: the step that makes it true is the last. Rows not made are then
    /// copies of the last one made.
    pub until: Option<Element>,
    /// The parameter (`i64`) that gets the number of steps made.
    pub made: Option<u16>,
    /// The parameter (`u8`) that is the body's arena.
    pub arena: Option<u16>,
    /// Buffers.
    pub params: Vec<Param>,
}

impl fmt::Debug for ScanKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScanKernel({} steps of {:?})", self.steps, self.body)
    }
}

impl PartialEq for ScanKernel {
    fn eq(&self, other: &ScanKernel) -> bool {
        Arc::ptr_eq(&self.body, &other.body)
            && self.steps == other.steps
            && self.inputs == other.inputs
            && self.carries == other.carries
            && self.rows == other.rows
            && self.until == other.until
            && self.made == other.made
            && self.arena == other.arena
            && self.params == other.params
    }
}

impl ScanKernel {
    /// Where a place of the body lies in a step: the parameter and bytes from its beginning. `None` for constants, and
    /// for what the scan does not have.
    pub fn locate(&self, place: &Place, step: usize) -> Option<(u16, i64)> {
        let size = |param: u16| self.params.get(usize::from(param)).map(|p| p.dtype.size() as i64);
        let at = |element: &Element, step: i64| {
            let position = element.stride.checked_mul(step)?.checked_add(element.offset)?;
            Some((element.param, position.checked_mul(size(element.param)?)?))
        };
        let step = step as i64;
        match place {
            Place::Input(index) => at(self.inputs.get(*index)?, step),
            Place::Shared(index) => {
                let carry = self.carries.get(*index)?;
                match &carry.row {
                    Some(row) if step > 0 => at(self.rows.get(usize::from(row.output))?, step - 1),
                    Some(_) | None => Some((carry.param, 0)),
                }
            }
            Place::Output(index) if *index == self.rows.len() => at(self.until.as_ref()?, step),
            Place::Output(index) => at(self.rows.get(*index)?, step),
            Place::Arena(offset) => Some((self.arena?, *offset as i64)),
            Place::Constant(_) => None,
        }
    }

    /// The carries whose last value is copied from the last row: the output and the parameter.
    pub fn kept_rows(&self) -> impl Iterator<Item = (&Element, u16)> {
        self.carries.iter().filter_map(|carry| {
            let row = carry.row.as_ref().filter(|row| row.kept)?;
            Some((self.rows.get(usize::from(row.output))?, carry.param))
        })
    }
}

/// A unit of work.
#[allow(clippy::large_enum_variant, reason = "a program has tens of kernels; boxes would only be in the way")]
#[derive(Clone, PartialEq, Debug)]
pub enum Kernel {
    /// Loops around a body.
    Loop(LoopKernel),
    /// A matrix product.
    Product(ProductKernel),
    /// A convolution.
    Convolution(ConvolutionKernel),
    /// Random numbers.
    Random(RandomKernel),
    /// A scan.
    Scan(ScanKernel),
}

impl Kernel {
    /// Its parameters.
    pub fn params(&self) -> &[Param] {
        match self {
            Kernel::Loop(kernel) => &kernel.params,
            Kernel::Product(kernel) => &kernel.params,
            Kernel::Convolution(kernel) => &kernel.params,
            Kernel::Random(kernel) => &kernel.params,
            Kernel::Scan(kernel) => &kernel.params,
        }
    }

    /// The program that the kernel runs for each of its steps, if it is a scan.
    pub fn body(&self) -> Option<&Arc<Program>> {
        match self {
            Kernel::Scan(kernel) => Some(&kernel.body),
            Kernel::Loop(_) | Kernel::Product(_) | Kernel::Convolution(_) | Kernel::Random(_) => None,
        }
    }

    /// Whether the kernel checks indices, or in the body of a scan starts, which can only be seen while it runs.
    pub fn checks_indices(&self) -> bool {
        match self {
            Kernel::Loop(kernel) => kernel.body.iter().any(|i| matches!(i, Instruction::Index { .. })),
            Kernel::Product(_) | Kernel::Convolution(_) | Kernel::Random(_) => false,
            Kernel::Scan(kernel) => kernel
                .body
                .steps
                .iter()
                .any(|step| !step.kernel.starts().is_empty() || step.kernel.checks_indices()),
        }
    }

    /// Its run-time starts.
    pub fn starts(&self) -> &[RuntimeStart] {
        match self {
            Kernel::Loop(kernel) => &kernel.starts,
            Kernel::Product(kernel) => &kernel.starts,
            Kernel::Convolution(kernel) => &kernel.starts,
            Kernel::Random(_) | Kernel::Scan(_) => &[],
        }
    }

    /// What was checked by the check of that number: the starts are counted first, then the instructions of the body.
    pub fn check(&self, number: usize) -> Option<IndexCheck> {
        if let Some(start) = self.starts().get(number) {
            return Some(start.check());
        }
        let Kernel::Loop(kernel) = self else { return None };
        match kernel.body.get(number - kernel.starts.len())? {
            Instruction::Index { extent, axis, .. } => {
                Some(IndexCheck { axis: *axis, extent: *extent, len: 1, is_range: false })
            }
            Instruction::Literal(_)
            | Instruction::Load(_)
            | Instruction::LoadAt { .. }
            | Instruction::Position(_)
            | Instruction::Map(..)
            | Instruction::Cast(..) => None,
        }
    }

    /// Arithmetic operations of one run: one for each function of each element, two for each term of a product or convolution, twenty for
    /// each random number.
    pub fn operations(&self) -> u64 {
        match self {
            Kernel::Loop(kernel) => {
                let maps =
                    kernel.body.iter().filter(|i| matches!(i, Instruction::Map(..) | Instruction::Cast(..)));
                let folds = kernel.stores.iter().filter(|s| s.kind != StoreKind::Plain);
                ((maps.count() + folds.count()) * kernel.extents.iter().product::<usize>()) as u64
            }
            Kernel::Product(kernel) => 2 * (kernel.batch * kernel.m * kernel.n * kernel.k) as u64,
            Kernel::Convolution(kernel) => {
                let terms = kernel.channels * kernel.axes.iter().map(|axis| axis.taps).product::<usize>();
                2 * (kernel.results().iter().product::<usize>() * terms) as u64
            }
            // Ten rounds of two products, four exclusive ors and two sums give four words.
            Kernel::Random(kernel) => 20 * kernel.len() as u64,
            Kernel::Scan(kernel) => {
                let step: u64 = kernel.body.steps.iter().map(|step| step.kernel.operations()).sum();
                step * kernel.steps as u64
            }
        }
    }

    /// Bytes of the elements that one run touches, each buffer element counted once (in a scan, once a step).
    pub fn bytes(&self) -> u64 {
        match self {
            Kernel::Loop(kernel) => {
                let mut bytes = 0;
                let loads = kernel.body.iter().filter_map(|instruction| match instruction {
                    Instruction::Load(address) | Instruction::LoadAt { address, .. } => Some(address),
                    _ => None,
                });
                for address in loads.chain(kernel.stores.iter().map(|s| &s.address)) {
                    let touched: usize = kernel
                        .extents
                        .iter()
                        .zip(&address.position.strides)
                        .filter(|(_, stride)| **stride != 0)
                        .map(|(extent, _)| *extent)
                        .product();
                    bytes += touched * kernel.params[usize::from(address.param)].dtype.size();
                }
                bytes as u64
            }
            Kernel::Product(p) => {
                let c = p.m * p.n * if p.beta == Scale::Constant(0.0) { 1 } else { 2 };
                (p.batch * (p.m * p.k + p.k * p.n + c) * p.dtype.size()) as u64
            }
            Kernel::Convolution(kernel) => {
                let all = [kernel.input(), kernel.taps(), kernel.results()];
                let elements: usize = all.iter().map(|extents| extents.iter().product::<usize>()).sum();
                (elements * kernel.dtype.size()) as u64
            }
            Kernel::Random(kernel) => (DType::I64.size() + kernel.len() * DType::F32.size()) as u64,
            Kernel::Scan(kernel) => {
                let step: u64 = kernel.body.steps.iter().map(|step| step.kernel.bytes()).sum();
                step * kernel.steps as u64
            }
        }
    }
}

/// A buffer of a program.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(pub u32);

impl BufferId {
    /// As an index into the program's buffers.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a buffer lies.
#[derive(Clone, PartialEq, Debug)]
pub enum Place {
    /// The argument with that number.
    Input(usize),
    /// The shared variable with that number in the program's list.
    Shared(usize),
    /// The constant with that number in the program's list.
    Constant(usize),
    /// The result with that number.
    Output(usize),
    /// The arena, that many bytes from its beginning (a multiple of 64).
    Arena(usize),
}

/// Memory that kernels read and write.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Extents of the value it holds; row-major.
    pub shape: Extents,
    /// Where it lies.
    pub place: Place,
}

impl Buffer {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }
}

/// One kernel run with its buffers.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// What runs.
    pub kernel: Kernel,
    /// A buffer for each parameter.
    pub arguments: Vec<BufferId>,
    /// What it computes, for people: the operator or name of the node.
    pub label: String,
    /// The user's line.
    pub site: Option<Site>,
}

/// A compiled function before it becomes machine code.
#[derive(Clone, Default)]
pub struct Program {
    /// All memory.
    pub buffers: Vec<Buffer>,
    /// What runs, in order.
    pub steps: Vec<Step>,
    /// The shared variables in use, in rising order.
    pub shared: Vec<LeafId>,
    /// The constant arrays, which programs for other shapes have as well.
    pub constants: Vec<Arc<Array>>,
    /// Type and shape of each result, in order.
    pub outputs: Vec<(DType, Extents)>,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// The number of steps before the first that writes a shared variable. Every step that can fail (it checks an index
    /// or a start) is among them, so a failed call changes nothing.
    pub commit: usize,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} steps, {} buffers)", self.steps.len(), self.buffers.len())
    }
}

impl Step {
    /// The number of steps that this one stands for: itself and those in the body of a scan.
    pub fn count(&self) -> usize {
        1 + self.kernel.body().map_or(0, |body| body.count())
    }
}

impl Program {
    /// The number of steps, those in the bodies of scans included.
    pub fn count(&self) -> usize {
        self.steps.iter().map(Step::count).sum()
    }

    /// Bytes that the description holds, about, but for constants, which programs share.
    pub fn bytes(&self) -> usize {
        let steps: usize = self
            .steps
            .iter()
            .map(|step| {
                let kernel = match &step.kernel {
                    Kernel::Loop(kernel) => {
                        let body = kernel.body.len() * (size_of::<Instruction>() + size_of::<DType>());
                        body + kernel.stores.len() * size_of::<Store>()
                    }
                    Kernel::Product(_) | Kernel::Convolution(_) | Kernel::Random(_) => 0,
                    Kernel::Scan(kernel) => kernel.body.bytes() + kernel.inputs.len() * size_of::<Element>(),
                };
                let params = step.kernel.params().len() * (size_of::<Param>() + size_of::<BufferId>());
                size_of::<Step>() + kernel + params + step.label.len()
            })
            .sum();
        steps + self.buffers.len() * size_of::<Buffer>()
    }

    /// Every step, those in the bodies of scans included, by its number, with the number of scans around it.
    pub fn all_steps(&self) -> Vec<(usize, &Step)> {
        let mut all = Vec::with_capacity(self.count());
        for step in &self.steps {
            all.push((0, step));
            let inner = step.kernel.body().into_iter().flat_map(|body| body.all_steps());
            all.extend(inner.map(|(depth, step)| (depth + 1, step)));
        }
        all
    }

    /// Whether a step and the one that follows are two products over one matrix that can be computed at one go (see
    /// [`ProductKernel::passes_back`]).
    pub fn is_pair(&self, index: usize) -> bool {
        let Some([before, after]) = self.steps.get(index..index + 2) else { return false };
        let (Kernel::Product(reads), Kernel::Product(adds)) = (&before.kernel, &after.kernel) else {
            return false;
        };
        let place = |step: &Step, param: u16| &self.buffers[step.arguments[usize::from(param)].index()].place;
        let result = before.arguments[usize::from(reads.c.param)];
        let matrix = place(after, adds.c.param);
        reads.passes_back(adds)
            && place(before, reads.b.param) == matrix
            && place(before, reads.a.param) == place(after, adds.b.param)
            // A part reads the whole of D, which no part may have changed.
            && place(before, reads.a.param) != matrix
            && !after.arguments.contains(&result)
    }

    /// What an index was checked for that a run found out of range.
    pub fn check(&self, found: &OutOfRange) -> Option<IndexCheck> {
        self.step(found.step)?.kernel.check(found.check)
    }

    /// The step of that number. Steps are counted in their order; a scan comes before the steps of its body.
    pub fn step(&self, number: usize) -> Option<&Step> {
        let mut rest = number;
        let mut steps = self.steps.iter();
        loop {
            let step = steps.next()?;
            if rest == 0 {
                return Some(step);
            }
            if rest < step.count() {
                rest -= 1;
                steps = step.kernel.body()?.steps.iter();
            } else {
                rest -= step.count();
            }
        }
    }
}

/// An index or start found out of range while a program ran.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct OutOfRange {
    /// The number of the step that found it; see [`Program::step`].
    pub step: usize,
    /// The index, as it was given.
    pub value: i64,
    /// Which of the step's checks; see [`Kernel::check`].
    pub check: usize,
}

/// Why a program could not finish. Shared variables are as they were before.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RunError {
    /// An index is out of range.
    #[error("index {} is out of range", .0.value)]
    OutOfRange(OutOfRange),
    /// The arrays of a call are not those of the program; how they differ.
    #[error("{0}")]
    Arrays(String),
    /// The system does not give as many bytes of memory.
    #[error("out of memory: a run needs {0} bytes")]
    Memory(usize),
    /// A device failed, in its words.
    #[error("{0}")]
    Device(String),
    /// An invariant of the compiler does not hold.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

const AXIS_NAMES: [&str; 8] = ["i", "j", "k", "l", "m", "n", "o", "p"];

fn axis_name(axis: usize) -> &'static str {
    AXIS_NAMES.get(axis).copied().unwrap_or("q")
}

impl fmt::Display for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms: Vec<String> = Vec::new();
        let factor = |c: i64, name: String| if c == 1 { name } else { format!("{c}{name}") };
        terms.extend(self.starts.iter().map(|(s, c)| factor(*c, format!("s{s}"))));
        terms.extend(
            self.strides
                .iter()
                .enumerate()
                .filter(|(_, c)| **c != 0)
                .map(|(a, c)| factor(*c, axis_name(a).to_string())),
        );
        if self.offset != 0 || terms.is_empty() {
            terms.push(self.offset.to_string());
        }
        f.write_str(&terms.join(" + "))
    }
}

impl fmt::Display for LoopKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loop")?;
        for (axis, (extent, reduced)) in self.extents.iter().zip(&self.reduced).enumerate() {
            write!(f, " {}{}<{extent}", if *reduced { "fold " } else { "" }, axis_name(axis))?;
        }
        for (i, param) in self.params.iter().enumerate() {
            write!(
                f,
                "{}{}p{i}: {}[{}]",
                if i == 0 { " (" } else { ", " },
                if param.written { "out " } else { "" },
                param.dtype,
                param.len
            )?;
        }
        writeln!(f, "{}", if self.params.is_empty() { "" } else { ")" })?;
        for (i, start) in self.starts.iter().enumerate() {
            writeln!(f, "  s{i} = start p{}[0] of {} up to {}", start.param, start.extent, start.limit)?;
        }
        for (i, instruction) in self.body.iter().enumerate() {
            write!(f, "  v{i}: {} = ", self.types[i])?;
            match instruction {
                Instruction::Literal(value) => writeln!(f, "{value}")?,
                Instruction::Load(a) => writeln!(f, "p{}[{}]", a.param, a.position)?,
                Instruction::LoadAt { address, index, stride } => {
                    writeln!(f, "p{}[{} + {stride}{index}]", address.param, address.position)?;
                }
                Instruction::Position(position) => writeln!(f, "position {position}")?,
                Instruction::Index { index, extent, .. } => writeln!(f, "index {index} of {extent}")?,
                Instruction::Map(function, operands) => {
                    let operands: Vec<String> = operands.iter().map(Value::to_string).collect();
                    writeln!(f, "{function} {}", operands.join(", "))?;
                }
                Instruction::Cast(dtype, value) => writeln!(f, "cast {value} to {dtype}")?,
            }
        }
        for store in &self.stores {
            let place = format!("p{}[{}", store.address.param, store.address.position);
            match &store.kind {
                StoreKind::Plain => writeln!(f, "  {place}] = {}", store.value)?,
                StoreKind::Fold(fold) => writeln!(f, "  {place}] = {} {}", fold.name(), store.value)?,
                StoreKind::ArgMax => writeln!(f, "  {place}] = argmax {}", store.value)?,
                StoreKind::At { index, stride, write } => {
                    let sign = if *write == Write::Add { "+=" } else { "=" };
                    writeln!(f, "  {place} + {stride}{index}] {sign} {}", store.value)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scale::Constant(x) => write!(f, "{x:?}"),
            Scale::Param(p) => write!(f, "p{p}[0]"),
        }
    }
}

impl fmt::Display for ProductKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "product {} ", self.dtype)?;
        if self.batch != 1 {
            write!(f, "{}x", self.batch)?;
        }
        write!(f, "{}x{}x{}: ", self.m, self.k, self.n)?;
        let matrix =
            |m: &Matrix| format!("p{}[{} by {},{}]", m.param, m.position, m.row_stride, m.column_stride);
        write!(f, "{} =", matrix(&self.c))?;
        if self.beta != Scale::Constant(0.0) {
            write!(f, " {} {} +", self.beta, matrix(&self.c))?;
        }
        if self.alpha != Scale::Constant(1.0) {
            write!(f, " {}", self.alpha)?;
        }
        writeln!(f, " {} . {}", matrix(&self.a), matrix(&self.b))?;
        for (i, start) in self.starts.iter().enumerate() {
            writeln!(f, "  s{i} = start p{}[0] of {} up to {}", start.param, start.extent, start.limit)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConvolutionKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operand = |x: &Strided| format!("p{}[{} by {:?}]", x.param, x.position, x.strides.as_slice());
        let Self { dtype, images, filters, channels, .. } = self;
        write!(f, "convolution {dtype} ")?;
        self.lead.iter().try_for_each(|n| write!(f, "{n}x"))?;
        writeln!(f, "{images} images of {channels} channels, {filters} filters")?;
        for Axis { input, taps, result, low, stride, spread, dilation } in &self.axes {
            write!(f, "  {input} by {taps} gives {result}, from {}", -low)?;
            for (name, n) in [("stride", stride), ("spread", spread), ("dilation", dilation)] {
                if *n != 1 {
                    write!(f, ", {name} {n}")?;
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "  p{} = {} * {}", self.out, operand(&self.x), operand(&self.w))?;
        for (i, start) in self.starts.iter().enumerate() {
            writeln!(f, "  s{i} = start p{}[0] of {} up to {}", start.param, start.extent, start.limit)?;
        }
        Ok(())
    }
}

impl fmt::Display for RandomKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "random p{}[0..{}] = philox4x32_10 {:#018x} from p{}[0]",
            self.out,
            self.len(),
            self.key,
            self.counter
        )
    }
}

impl fmt::Display for ScanKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scan of {} steps", self.steps)?;
        let element = |e: &Element| match (e.offset, e.stride) {
            (offset, 0) => format!("p{}[{offset}..]", e.param),
            (0, stride) => format!("p{}[{stride}t..]", e.param),
            (offset, stride) => format!("p{}[{offset} + {stride}t..]", e.param),
        };
        for (index, input) in self.inputs.iter().enumerate() {
            writeln!(f, "  input {index} = {}", element(input))?;
        }
        for (index, carry) in self.carries.iter().enumerate() {
            write!(f, "  shared {index} = p{}", carry.param)?;
            match &carry.row {
                None => writeln!(f)?,
                Some(row) => {
                    let kept = if row.kept { ", the last kept" } else { "" };
                    writeln!(f, ", then output {} of the step before{kept}", row.output)?;
                }
            }
        }
        for (index, row) in self.rows.iter().enumerate() {
            writeln!(f, "  output {index} = {}", element(row))?;
        }
        if let Some(until) = &self.until {
            writeln!(f, "  until output {} = {}", self.rows.len(), element(until))?;
        }
        if let Some(made) = self.made {
            writeln!(f, "  p{made}[0] = steps made")?;
        }
        if let Some(arena) = self.arena {
            writeln!(f, "  arena = p{arena}")?;
        }
        for line in self.body.to_string().lines() {
            if line.is_empty() {
                writeln!(f)?;
            } else {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Loop(kernel) => kernel.fmt(f),
            Kernel::Product(kernel) => kernel.fmt(f),
            Kernel::Convolution(kernel) => kernel.fmt(f),
            Kernel::Random(kernel) => kernel.fmt(f),
            Kernel::Scan(kernel) => kernel.fmt(f),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, buffer) in self.buffers.iter().enumerate() {
            let place = match &buffer.place {
                Place::Input(n) => format!("input {n}"),
                Place::Shared(n) => format!("shared {n}"),
                Place::Constant(n) => format!("constant {n}"),
                Place::Output(n) => format!("output {n}"),
                Place::Arena(offset) => format!("arena {offset}"),
            };
            writeln!(f, "b{i}: {}{:?} in {place}", buffer.dtype, buffer.shape.as_slice())?;
        }
        writeln!(f, "arena of {} bytes", self.arena_bytes)?;
        for (i, step) in self.steps.iter().enumerate() {
            let arguments: Vec<String> = step.arguments.iter().map(|b| format!("b{}", b.0)).collect();
            writeln!(f, "\nstep {i}: {} ({})", step.label, arguments.join(", "))?;
            write!(f, "{}", step.kernel)?;
        }
        Ok(())
    }
}
