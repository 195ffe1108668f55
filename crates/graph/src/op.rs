//! The operators of the tensor graph: one closed list, matched once per pass without wildcard arms.
//!
//! A variant earns its place only if it cannot be composed from others, or if its fast code could not be found again
//! from the composition (`Dot`, `Conv`). There are no composite functions here (softmax, mean, cross entropies are builders in
//! [`crate::compose`]), no fused operators, and none that exist for gradients only: `Grad` stands for a gradient not
//! yet taken and is gone once [`crate::differentiate`] has run.
//!
//! What passes ask of every operator (is it a view, is it dear, which axes does it keep apart) is answered beside this
//! list, in `op/class.rs`. What only one pass knows (the derivative, the text) stands in that pass.
//!
//! Operands of `Map` have equal shapes; [`Op::Broadcast`] is the only operator that repeats elements.

mod class;
mod conv;
mod fold;
mod part;
mod scan;

use smallvec::SmallVec;

pub use self::class::{Along, Class, View};
pub use self::conv::{Border, ConvAxis};
pub use self::fold::Fold;
pub use self::part::{Bound, Dim, Dims, IndexCheck, SliceAxis, Start, WindowAxis, Write, known_dims};
pub use self::scan::{Backward, Scan, ScanResult};
use crate::dtype::{DType, Literal};
use crate::scalar::ScalarFn;
use crate::shape::Axes;

/// Identity of a leaf (input, shared variable or constant array), unique in the process.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeafId(pub u64);

/// What happens where a gradient is asked with respect to something that the cost does not depend on.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Disconnected {
    /// An error that names it.
    #[default]
    Raise,
    /// Zeros of its shape.
    Zero,
}

/// A gradient to be taken. Operands: the cost, the variables, then `known` pairs of an expression and its cotangent,
/// then `constants` expressions through which nothing flows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Grad {
    /// Which of the variables this node is the gradient for.
    pub index: u16,
    /// Number of variables.
    pub variables: u16,
    /// Number of known cotangents.
    pub known: u16,
    /// Number of expressions considered constant.
    pub constants: u16,
    /// Whether the first operand is a cost; without one the known cotangents are where the gradient begins.
    pub has_cost: bool,
    /// What to do with a variable that nothing depends on.
    pub disconnected: Disconnected,
}

impl Grad {
    /// Whether a change of an operand reaches the gradient: not of what is considered constant.
    pub(crate) fn connects(&self, operand: usize) -> bool {
        operand < usize::from(self.has_cost) + usize::from(self.variables) + 2 * usize::from(self.known)
    }
}

/// An operator with its attributes. Each variant's comment gives its operands and the type of its result.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    /// No operands: an input, a shared variable or a constant array.
    Leaf(LeafId),
    /// No operands: a constant of rank 0.
    Literal(Literal),
    /// `i64[n]`: 0, 1, ..., n - 1. One extent.
    Iota(Dims),
    /// `i64[]`: the extent of the operand along an axis.
    Extent(u8),
    /// Elementwise function; operands of equal shape, the result has that shape.
    Map(ScalarFn),
    /// Elementwise conversion as [`Literal::cast`].
    Cast(DType),
    /// Folds away the axes of the set, in a fixed order that is part of the compiled program, not of the meaning.
    Reduce(Fold, Axes),
    /// The mean over axes, which go away; floats only, NaN of none. Between the least and the largest element, and never
    /// infinite where all elements are finite.
    Mean(Axes),
    /// `i64`: position of the first largest element along an axis, which goes away. A NaN counts as largest.
    ArgMax(u8),
    /// Each element is the sum of those up to it along an axis, itself included; the result has the operand's type, numbers
    /// only. The order of additions is part of the compiled program, not of the meaning, but no element goes into a sum
    /// that stands before it.
    Cumsum(u8),
    /// Matrix product: `[m, k] . [k, n] -> [m, n]`, or the same for each leading index: `[b, m, k] . [b, k, n]`.
    /// Numbers of one type.
    Dot,
    /// Correlation of `x[B.., n, c, S..]` with filters `[B.., o, c, S..]`, along the axes `S` that have attributes:
    /// `[B.., n, o, S..]`, where each element is the sum over `c` and the filter's elements (see [`ConvAxis`]), and zeros
    /// stand where the input has nothing: whether an infinite or NaN element of the filters meets such a zero, or is left
    /// out there, is not part of the meaning. Floats of one type.
    Conv(Box<[ConvAxis]>),
    /// Axis `i` of the operand becomes axis `axes[i]` (rising) of the result and is repeated there if its extent is 1.
    Broadcast {
        /// Place of each axis of the operand.
        axes: SmallVec<[u8; 8]>,
        /// Extents of the result.
        dims: Dims,
    },
    /// The same elements in row-major order under another shape of equal size.
    Reshape(Dims),
    /// Axis `i` of the result is axis `permutation[i]` of the operand.
    Permute(SmallVec<[u8; 8]>),
    /// Part of the operand: positions and NumPy's ranges. Exists only before specialisation, which makes it a `Window`.
    Slice(Box<[SliceAxis]>),
    /// The first operand with the part replaced by the second, or with the second added to it.
    SetSlice(Box<[SliceAxis]>, Write),
    /// Part of the operand; every bound is known but for starts.
    Window(Box<[WindowAxis]>),
    /// The first operand with a window replaced by the second, or with the second added to it.
    SetWindow(Box<[WindowAxis]>, Write),
    /// The operands one after another along an axis; all other extents are equal.
    Concat(u8),
    /// `x[B.., N, R..]`, indices `i[B.., M]` of `i32`, `i64` or `u8` give `[B.., M, R..]`: along axis `batch`, element
    /// `i[b, m]`. Negative indices count from the end; others out of range are an error when run.
    Gather {
        /// Number of leading axes that `x` and the indices share.
        batch: u8,
    },
    /// `x[B.., N, R..]`, indices `i[B.., M]`, `y[B.., M, R..]` give `x` with row `i[b, m]` replaced by `y[b, m]` (the last
    /// wins, and takes the gradient), or with `y[b, m]` added to it (all add up). Indices as in `Gather`.
    Scatter {
        /// Number of leading axes that `x` and the indices share.
        batch: u8,
        /// Replace or add.
        write: Write,
    },
    /// `f32`, uniform in [0, 1), of the extents; operands: a counter `i64[]`, then those of extents. Element `e` in
    /// row-major order is [`crate::random::uniform_element`] of key, counter and `e`: a pure function, without state.
    /// Nothing is differentiable in it.
    Random {
        /// Which stream.
        key: u64,
        /// Extents of the result.
        dims: Dims,
    },
    /// The operand; no gradient flows through it.
    StopGradient,
    /// One result of a scan; see [`Scan`] for the operands.
    Scan(Box<Scan>),
    /// A gradient not yet taken; the result has the type of the variable.
    Grad(Box<Grad>),
}

impl Op {
    /// The name in text, messages and rules, without attributes.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Leaf(_) => "leaf",
            Op::Literal(_) => "literal",
            Op::Iota(_) => "iota",
            Op::Extent(_) => "extent",
            Op::Map(f) => f.name(),
            Op::Cast(_) => "cast",
            Op::Reduce(fold, _) => fold.name(),
            Op::Mean(_) => "mean",
            Op::ArgMax(_) => "argmax",
            Op::Cumsum(_) => "cumsum",
            Op::Dot => "dot",
            Op::Conv(_) => "conv",
            Op::Broadcast { .. } => "broadcast",
            Op::Reshape(_) => "reshape",
            Op::Permute(_) => "permute",
            Op::Slice(_) => "slice",
            Op::SetSlice(_, Write::Set) => "set_slice",
            Op::SetSlice(_, Write::Add) => "inc_slice",
            Op::Window(_) => "window",
            Op::SetWindow(_, Write::Set) => "set_window",
            Op::SetWindow(_, Write::Add) => "inc_window",
            Op::Concat(_) => "concat",
            Op::Gather { .. } => "gather",
            Op::Scatter { write: Write::Set, .. } => "scatter",
            Op::Scatter { write: Write::Add, .. } => "scatter_add",
            Op::Random { .. } => "random",
            Op::StopGradient => "stop_gradient",
            Op::Scan(_) => "scan",
            Op::Grad(_) => "grad",
        }
    }
}
