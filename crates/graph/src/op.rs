//! The operators of the tensor graph: one closed list, matched once per pass without wildcard arms.
//!
//! A variant earns its place only if it cannot be composed from others, or if its fast code could not be found again
//! from the composition (`Dot`). There are no composite functions here (softmax, mean, cross entropies are builders in
//! [`crate::compose`]), no fused operators, and none that exist for gradients only: `Grad` stands for a gradient not
//! yet taken and is gone once [`crate::differentiate`] has run.
//!
//! Operands of `Map` have equal shapes; [`Op::Broadcast`] is the only operator that repeats elements.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::body::Body;
use crate::diagnostic::Diagnostic;
use crate::dtype::{DType, Literal};
use crate::scalar::ScalarFn;
use crate::shape::Axes;

/// Identity of a leaf (input, shared variable or constant array), unique in the process.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeafId(pub u64);

/// How a reduction joins elements.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fold {
    /// Sum; 0 of nothing. Numbers only: the builder counts `bool` as `i64`.
    Sum,
    /// Product; 1 of nothing. Numbers only.
    Prod,
    /// Largest; a NaN anywhere gives NaN. Of nothing: the smallest value of the type, `-inf` for floats.
    /// The gradient is shared equally by tied elements.
    Max,
    /// Smallest; as `Max`, mirrored.
    Min,
    /// Whether all are true; `bool` only.
    All,
    /// Whether any is true; `bool` only.
    Any,
}

impl Fold {
    /// Every fold, for tables and tests.
    pub const ALL: [Fold; 6] = [Fold::Sum, Fold::Prod, Fold::Max, Fold::Min, Fold::All, Fold::Any];

    /// The name in text, messages and rules.
    pub fn name(self) -> &'static str {
        match self {
            Fold::Sum => "sum",
            Fold::Prod => "prod",
            Fold::Max => "max",
            Fold::Min => "min",
            Fold::All => "all",
            Fold::Any => "any",
        }
    }

    /// The function that joins two elements.
    pub fn join(self) -> ScalarFn {
        match self {
            Fold::Sum => ScalarFn::Add,
            Fold::Prod => ScalarFn::Mul,
            Fold::Max => ScalarFn::Max,
            Fold::Min => ScalarFn::Min,
            Fold::All => ScalarFn::And,
            Fold::Any => ScalarFn::Or,
        }
    }

    /// The value of an empty reduction.
    pub fn identity(self, dtype: DType) -> Literal {
        match self {
            Fold::Sum => Literal::from_i64(0, dtype),
            Fold::Prod => Literal::from_i64(1, dtype),
            Fold::Max if dtype == DType::U8 => Literal::U8(0),
            Fold::Min if dtype == DType::U8 => Literal::U8(u8::MAX),
            Fold::Max => Literal::from_f64(f64::NEG_INFINITY, dtype),
            Fold::Min => Literal::from_f64(f64::INFINITY, dtype),
            Fold::All => Literal::Bool(true),
            Fold::Any => Literal::Bool(false),
        }
    }

    /// Whether elements of the type can be reduced so.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Fold::Sum | Fold::Prod | Fold::Max | Fold::Min => dtype != DType::Bool,
            Fold::All | Fold::Any => dtype == DType::Bool,
        }
    }
}

/// An extent given to an operator.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dim {
    /// Fixed.
    Known(usize),
    /// The value of the next `i64` scalar operand; gone after specialisation.
    Operand,
}

/// Extents given to an operator; those that are [`Dim::Operand`] take the operands after the main ones, in order.
pub type Dims = Box<[Dim]>;

/// A bound of a [`SliceAxis`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Bound {
    /// Left out: from or to the end, depending on the sign of the step.
    End,
    /// Fixed; negative ones count from the end.
    Known(i64),
    /// The value of the next `i64` scalar operand.
    Operand,
}

/// What is taken along one axis.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SliceAxis {
    /// One position, which stays as an axis of extent 1. `Known` or `Operand`; a negative one counts from the end. One
    /// that does not exist is an error.
    At(Bound),
    /// A range with NumPy's meaning: negative bounds count from the end, bounds are clamped to the axis.
    Range {
        /// First position.
        start: Bound,
        /// Position before which to stop.
        stop: Bound,
        /// Distance from one element to the next; not zero.
        step: i64,
    },
    /// Some of the elements of an axis that is taken apart as a whole: another extent is an error.
    Part {
        /// First position.
        start: usize,
        /// Position before which to stop.
        stop: usize,
        /// The extent that the axis has.
        of: usize,
    },
}

impl SliceAxis {
    /// The whole axis.
    pub const WHOLE: SliceAxis = SliceAxis::Range { start: Bound::End, stop: Bound::End, step: 1 };

    /// The bounds, in the order of their operands.
    pub fn bounds(&self) -> SmallVec<[Bound; 2]> {
        match *self {
            SliceAxis::At(at) => smallvec![at],
            SliceAxis::Range { start, stop, .. } => smallvec![start, stop],
            SliceAxis::Part { .. } => smallvec![],
        }
    }
}

/// Where a window begins along an axis.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Start {
    /// Fixed.
    Known(usize),
    /// The value of the next `i64` scalar operand: the position of the first element, a negative one counted from the
    /// end; checked when run.
    Operand,
    /// Likewise, the first bound of a range whose bounds are the window's length apart; checked when run. Where the first
    /// one is negative, the second one counts from the end as well, so it must be negative too.
    Range,
}

/// What an index into an axis, or the start of a window along it, may be.
///
/// This is the one place that says how a value given when run names a position, and what is wrong with one that names
/// none.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IndexCheck {
    /// The axis, for messages.
    pub axis: u8,
    /// Extent of the axis.
    pub extent: usize,
    /// Elements that are taken from there on.
    pub len: usize,
    /// Whether it is the first bound of a range: see [`Start::Range`].
    pub is_range: bool,
}

impl IndexCheck {
    /// The position that a value names; `None` where it names none.
    pub fn position(&self, value: i64) -> Option<usize> {
        let (extent, len) = (i64::try_from(self.extent).ok()?, i64::try_from(self.len).ok()?);
        let position = if value < 0 { value + extent } else { value };
        let fits = (0..=extent - len).contains(&position) && !(self.is_range && value == -len);
        usize::try_from(position).ok().filter(|_| fits)
    }

    /// What is wrong with a value that names no position.
    pub fn fault(&self, value: i64) -> Diagnostic {
        let IndexCheck { axis, extent, len, is_range } = *self;
        let found = if is_range {
            format!("{value}..{}", i128::from(value) + len as i128)
        } else {
            value.to_string()
        };
        let title = match (is_range, len) {
            (true, _) => format!("the slice {found} does not lie within axis {axis} of extent {extent}"),
            (false, 1) => format!("index {found} is out of range for axis {axis} of extent {extent}"),
            (false, _) => {
                format!("{len} elements from {found} on do not lie within axis {axis} of extent {extent}")
            }
        };
        let (extent, len) = (extent as i128, len as i128);
        let expected = match (is_range, extent - len) {
            (_, ..0) => "none: the axis is too short".to_string(),
            (false, last) => format!("{} to {last}", -extent),
            (true, 0) => format!("a start of 0, as {len} elements are taken"),
            (true, last) => {
                format!("a start of 0 to {last}, or of {} to {} from the end", -extent, -len - 1)
            }
        };
        let fault = Diagnostic::new(title).with("expected", expected, None).with("found", found, None);
        if is_range {
            return fault.hint(
                "a slice whose bounds are a fixed distance apart is never cut off: keep both bounds inside, or clip them",
            );
        }
        // What a NaN becomes as an integer.
        if value == i64::from(i32::MIN) || value == i64::MIN {
            return fault.hint("a NaN converted to an integer becomes the smallest integer");
        }
        fault
    }
}

/// Part of an axis: the elements `start + step * j` for `j` below `len`, all of which exist.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WindowAxis {
    /// First position.
    pub start: Start,
    /// Number of elements.
    pub len: usize,
    /// Distance from one element to the next, not zero; 1 where the start is an operand.
    pub step: i64,
}

impl WindowAxis {
    /// What the value of the start may be, where it is an operand, along an axis of that number and extent.
    pub fn check(&self, axis: usize, extent: usize) -> Option<IndexCheck> {
        let is_range = match self.start {
            Start::Known(_) => return None,
            Start::Operand => false,
            Start::Range => true,
        };
        Some(IndexCheck { axis: axis as u8, extent, len: self.len, is_range })
    }

    /// The whole of an axis of that extent.
    pub fn whole(extent: usize) -> WindowAxis {
        WindowAxis { start: Start::Known(0), len: extent, step: 1 }
    }
}

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

/// One result of a loop.
///
/// The operands are those of the body: a value for each of its inputs (for a sequence, one with a leading axis over the
/// steps), then the initial value of each carry, then the steps where they are [`Dim::Operand`]. The results of one
/// loop are the nodes with equal operands and equal attributes but for `result`; whoever executes them makes the loop
/// once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Scan {
    /// What a step computes.
    pub body: Arc<Body>,
    /// How many steps are made, at most if the body has a condition to end at.
    pub steps: Dim,
    /// Which of the loop's results this node is.
    pub result: ScanResult,
    /// How its gradient is taken.
    pub backward: Backward,
}

/// What a loop gives.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScanResult {
    /// The values of an output of the body, stacked along a new leading axis of extent `steps`. Where the loop ended early
    /// the last row made is repeated, which expressions leave out ([`crate::made`]); rows of a loop that made no step do not exist.
    Rows(u16),
    /// The value of a carry after the last step; the initial one where no step was made.
    Last(u16),
    /// `i64[]`: the number of steps made.
    Steps,
}

/// How the gradient of a loop is taken.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Backward {
    /// The number of last steps through which cotangents flow; `None` for all. Through earlier ones nothing flows, so
    /// the initial values get none unless there are fewer steps.
    pub truncate: Option<u32>,
    /// Whether only every so many steps are kept for it and those between are made again: memory by the square root of
    /// the steps.
    pub checkpointed: bool,
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
    /// `i64`: position of the first largest element along an axis, which goes away. A NaN counts as largest.
    ArgMax(u8),
    /// Matrix product: `[m, k] . [k, n] -> [m, n]`, or the same for each leading index: `[b, m, k] . [b, k, n]`.
    /// Numbers of one type.
    Dot,
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
    /// One result of a loop; see [`Scan`] for the operands.
    Scan(Box<Scan>),
    /// A gradient not yet taken; the result has the type of the variable.
    Grad(Box<Grad>),
}

/// How a part is written.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Write {
    /// The old elements are replaced.
    Set,
    /// The new ones are added to the old.
    Add,
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
            Op::ArgMax(_) => "argmax",
            Op::Dot => "dot",
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

/// `n` known extents as operator attributes.
pub fn known_dims(shape: &[usize]) -> Dims {
    shape.iter().map(|&n| Dim::Known(n)).collect()
}
