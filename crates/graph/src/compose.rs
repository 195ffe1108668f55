//! The functions that users call on tensors: elementwise functions, reductions, products, shapes, and functions made
//! of functions (mean, softmax, cross entropies).
//!
//! Nothing here has a rule of its own anywhere else: a composite function gets its derivative, its rewriting and its
//! kernels from what it is made of. Axes may be negative, counting from the last. Where elements stand is in [`arrange`],
//! layers of networks are in [`layers`].

pub mod arrange;
pub mod layers;

use std::panic::Location;

use smallvec::{SmallVec, smallvec};

use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::{DType, Literal};
use crate::made;
use crate::op::{Dim, Fold, Op};
use crate::scalar::{ScalarFn, scalar_functions};
use crate::shape::{Axes, Extent, TensorType};
use crate::tensor::{Tensor, build, cast_at, common_dtype, faulty, map, number_as};

/// All axes of a tensor.
#[derive(Copy, Clone, Debug)]
pub struct All;

/// What names axes of a tensor: [`All`], a number, or numbers.
pub trait AxisSet {
    /// The axes of a tensor of that rank; the message says which one does not exist or is named twice.
    fn axes(&self, rank: usize) -> Result<Axes, String>;
}

impl AxisSet for All {
    fn axes(&self, rank: usize) -> Result<Axes, String> {
        Ok(Axes::all(rank))
    }
}

impl AxisSet for i64 {
    fn axes(&self, rank: usize) -> Result<Axes, String> {
        resolve_axis(*self, rank).map(Axes::one)
    }
}

impl AxisSet for i32 {
    fn axes(&self, rank: usize) -> Result<Axes, String> {
        i64::from(*self).axes(rank)
    }
}

impl AxisSet for [i32] {
    fn axes(&self, rank: usize) -> Result<Axes, String> {
        let mut set = Axes::NONE;
        for axis in self {
            let resolved = resolve_axis(i64::from(*axis), rank)?;
            if set.contains(resolved) {
                return Err(format!("axis {resolved} is named twice in {self:?}"));
            }
            set = set.iter().chain([resolved]).collect();
        }
        Ok(set)
    }
}

impl<const N: usize> AxisSet for [i32; N] {
    fn axes(&self, rank: usize) -> Result<Axes, String> {
        self.as_slice().axes(rank)
    }
}

/// The axis that a possibly negative number names.
pub(crate) fn resolve_axis(axis: i64, rank: usize) -> Result<usize, String> {
    // No negative number plus a rank overflows.
    let resolved = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(resolved)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in a tensor of rank {rank}"))
}

/// One extent of a new shape.
#[derive(Clone, Debug)]
pub enum Size {
    /// A number; -1 stands for what is left over.
    Number(i64),
    /// The value of an integer scalar.
    Tensor(Tensor),
}

macro_rules! size_from {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Size {
            fn from(n: $ty) -> Size { Size::Number(i64::try_from(n).unwrap_or(i64::MAX)) }
        }
        impl From<&$ty> for Size {
            fn from(n: &$ty) -> Size { Size::from(*n) }
        }
    )*};
}
size_from!(i32, i64, usize);

impl Size {
    /// The extent as an attribute, and the operand that gives it if it is no number; the message says what is no extent of
    /// what `what` makes.
    fn dim(&self, what: &str, operands: &mut SmallVec<[Tensor; 2]>) -> Result<Dim, String> {
        match self {
            Size::Number(n) => usize::try_from(*n)
                .map(Dim::Known)
                .map_err(|_| format!("`{what}` expected a number from 0, found {n}")),
            Size::Tensor(t) if t.rank() != 0 || !t.dtype().is_int() => {
                Err(format!("`{what}` expected an integer scalar, found {}", t.ty()))
            }
            Size::Tensor(t) => {
                operands.push(t.cast(DType::I64));
                Ok(Dim::Operand)
            }
        }
    }
}

impl From<Tensor> for Size {
    fn from(tensor: Tensor) -> Size {
        Size::Tensor(tensor)
    }
}

impl From<&Tensor> for Size {
    fn from(tensor: &Tensor) -> Size {
        Size::Tensor(tensor.clone())
    }
}

/// The methods of the functions of the list that have one.
macro_rules! methods {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $arity:tt
        $domain:ident($($formula:path),*) { $($properties:tt)* } $(as $method:ident)?;)*) => {
        impl Tensor {
            $(method! { $arity [$($method)?] $variant $(#[doc = $doc])+ })*
        }
    };
}

macro_rules! method {
    ($arity:tt [] $variant:ident $(#[doc = $doc:literal])+) => {};
    (1 [$method:ident] $variant:ident $(#[doc = $doc:literal])+) => {
        $(#[doc = $doc])+
        #[track_caller]
        pub fn $method(&self) -> Tensor {
            map(ScalarFn::$variant, &[self])
        }
    };
    (2 [$method:ident] $variant:ident $(#[doc = $doc:literal])+) => {
        $(#[doc = $doc])+
        #[track_caller]
        pub fn $method(&self, other: impl Into<Tensor>) -> Tensor {
            map(ScalarFn::$variant, &[self, &other.into()])
        }
    };
}

scalar_functions!(methods);

/// NumPy's `where`: `then` where `condition` (a `bool` tensor, or numbers: not zero) holds, else `otherwise`, element by
/// element.
#[track_caller]
pub fn switch(condition: impl Into<Tensor>, then: impl Into<Tensor>, otherwise: impl Into<Tensor>) -> Tensor {
    let condition = condition.into().cast(DType::Bool);
    map(ScalarFn::Select, &[&condition, &then.into(), &otherwise.into()])
}

/// A mistake in the arguments of a method, as a poisoned tensor of the same type.
pub(crate) fn mistake(x: &Tensor, message: String, site: Site) -> Tensor {
    let fault = Diagnostic::new(message).with("operand", x.ty().to_string(), None);
    faulty(fault, smallvec![x.clone()], x.ty().clone(), site)
}

/// An `i64` scalar constant.
fn integer(value: usize, site: Site) -> Tensor {
    build(Op::Literal(Literal::I64(value as i64)), smallvec![], site)
}

/// An extent as an attribute and, if it is not known, the operand that gives it.
fn dim_of(x: &Tensor, axis: usize, operands: &mut SmallVec<[Tensor; 2]>, site: Site) -> Dim {
    match x.ty().shape[axis] {
        Extent::Known(n) => Dim::Known(n),
        Extent::Unknown => {
            operands.push(build(Op::Extent(axis as u8), smallvec![x.clone()], site));
            Dim::Operand
        }
    }
}

/// `x` with its axes at `places` of a result of that rank; the other axes have extent 1, or that of `like` where given.
pub(crate) fn spread(x: &Tensor, places: &[usize], rank: usize, like: Option<&Tensor>, site: Site) -> Tensor {
    let spread = spread_plainly(x, places, rank, like, site);
    like.map_or(spread.clone(), |like| made::as_in(x, spread, places, like, site))
}

/// The same with all rows that memory holds of `like`.
pub(crate) fn spread_plainly(
    x: &Tensor,
    places: &[usize],
    rank: usize,
    like: Option<&Tensor>,
    site: Site,
) -> Tensor {
    let mut operands: SmallVec<[Tensor; 2]> = smallvec![x.clone()];
    let dims = (0..rank)
        .map(|axis| match (places.iter().position(|&p| p == axis), like) {
            (_, Some(like)) => dim_of(like, axis, &mut operands, site),
            (Some(own), None) => dim_of(x, own, &mut operands, site),
            (None, None) => Dim::Known(1),
        })
        .collect();
    build(Op::Broadcast { axes: places.iter().map(|&p| p as u8).collect(), dims }, operands, site)
}

/// `x` without the given axes, whose extents are 1.
pub(crate) fn squeeze_axes(x: &Tensor, axes: Axes, site: Site) -> Tensor {
    let mut operands: SmallVec<[Tensor; 2]> = smallvec![x.clone()];
    let dims = axes.others(x.rank()).map(|axis| dim_of(x, axis, &mut operands, site)).collect();
    build(Op::Reshape(dims), operands, site)
}

impl Tensor {
    fn fold(&self, fold: Fold, axes: &impl AxisSet, keepdims: bool, site: Site) -> Tensor {
        let set = match axes.axes(self.rank()) {
            Ok(set) => set,
            Err(message) => return mistake(self, format!("`{}`: {message}", fold.name()), site),
        };
        let operand = match (fold, self.dtype()) {
            (Fold::All | Fold::Any, _) => self.cast(DType::Bool),
            (Fold::Sum | Fold::Prod, _) => self.counted(site),
            (Fold::Max | Fold::Min, DType::Bool) => build(Op::Cast(DType::U8), smallvec![self.clone()], site),
            (Fold::Max | Fold::Min, _) => self.clone(),
        };
        let reduced = build(Op::Reduce(fold, set), smallvec![operand], site);
        if keepdims { keep_axes(&reduced, set, self.rank(), site) } else { reduced }
    }

    /// The elements as they are added and multiplied: `bool` and small integers as `i64`.
    fn counted(&self, site: Site) -> Tensor {
        match self.dtype() {
            DType::Bool | DType::U8 | DType::I32 => {
                build(Op::Cast(DType::I64), smallvec![self.clone()], site)
            }
            DType::I64 | DType::F32 | DType::F64 => self.clone(),
        }
    }

    /// Sum over axes; `bool`, `u8` and `i32` are summed as `i64`.
    #[track_caller]
    pub fn sum(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Sum, &axes, false, Location::caller())
    }

    /// As [`Tensor::sum`], with the axes kept as extents of 1.
    #[track_caller]
    pub fn sum_keepdims(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Sum, &axes, true, Location::caller())
    }

    /// Product over axes; `bool`, `u8` and `i32` are multiplied as `i64`.
    #[track_caller]
    pub fn prod(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Prod, &axes, false, Location::caller())
    }

    /// As [`Tensor::prod`], with the axes kept as extents of 1.
    #[track_caller]
    pub fn prod_keepdims(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Prod, &axes, true, Location::caller())
    }

    /// Largest over axes; NaN where there is one.
    #[track_caller]
    pub fn max(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Max, &axes, false, Location::caller())
    }

    /// As [`Tensor::max`], with the axes kept as extents of 1.
    #[track_caller]
    pub fn max_keepdims(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Max, &axes, true, Location::caller())
    }

    /// Smallest over axes; NaN where there is one.
    #[track_caller]
    pub fn min(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Min, &axes, false, Location::caller())
    }

    /// As [`Tensor::min`], with the axes kept as extents of 1.
    #[track_caller]
    pub fn min_keepdims(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Min, &axes, true, Location::caller())
    }

    /// Whether all are true (numbers: not zero) over axes.
    #[track_caller]
    pub fn all(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::All, &axes, false, Location::caller())
    }

    /// Whether any is true (numbers: not zero) over axes.
    #[track_caller]
    pub fn any(&self, axes: impl AxisSet) -> Tensor {
        self.fold(Fold::Any, &axes, false, Location::caller())
    }

    /// The number of elements along axes, as a scalar of the given float type.
    fn count(&self, set: Axes, dtype: DType, site: Site) -> Tensor {
        let known =
            |axis: usize| self.ty().shape[axis].known().filter(|_| self.rows_made(axis, site).is_none());
        let shape: SmallVec<[Extent; 4]> = set.iter().map(|axis| known(axis).into()).collect();
        if let Some(n) = (TensorType { dtype, shape }).element_count() {
            return build(Op::Literal(Literal::from_f64(n as f64, dtype)), smallvec![], site);
        }
        let extents = set.iter().map(|axis| self.extent(axis));
        let product = extents.reduce(|a, b| a * b).unwrap_or_else(|| integer(1, site));
        build(Op::Cast(dtype), smallvec![product], site)
    }

    /// The sum over axes, divided by their number of elements.
    fn sum_over_count(&self, set: Axes, site: Site) -> Tensor {
        // Integers are not numbers of `f32`. Sums of `i64` may be none of `i64`.
        let operand = if self.dtype() == DType::I64 { self.cast(DType::F64) } else { self.clone() };
        let sum = build(Op::Reduce(Fold::Sum, set), smallvec![operand.counted(site)], site);
        if self.dtype().is_float() {
            return sum / self.count(set, self.dtype(), site);
        }
        (sum.cast(DType::F64) / self.count(set, DType::F64, site)).cast(DType::F32)
    }

    fn mean_over(&self, axes: &impl AxisSet, keepdims: bool, site: Site) -> Tensor {
        let set = match axes.axes(self.rank()) {
            Ok(set) => set,
            Err(message) => return mistake(self, format!("`mean`: {message}"), site),
        };
        let all_made = set.iter().all(|axis| self.rows_made(axis, site).is_none());
        let mean = if self.dtype().is_float() && all_made {
            build(Op::Mean(set), smallvec![self.clone()], site)
        } else {
            self.sum_over_count(set, site)
        };
        if keepdims { keep_axes(&mean, set, self.rank(), site) } else { mean }
    }

    /// Arithmetic mean over axes, NaN of no elements. Of finite floats it lies between the least and the largest, whatever
    /// the roundings and however large they are; of integers and truth values it is `f32`, rounded once at the end.
    #[track_caller]
    pub fn mean(&self, axes: impl AxisSet) -> Tensor {
        self.mean_over(&axes, false, Location::caller())
    }

    /// As [`Tensor::mean`], with the axes kept as extents of 1.
    #[track_caller]
    pub fn mean_keepdims(&self, axes: impl AxisSet) -> Tensor {
        self.mean_over(&axes, true, Location::caller())
    }

    /// Mean squared distance from the mean over axes (divided by the number of elements), computed in two passes; of
    /// integers and truth values as `f32`, rounded once at the end.
    #[track_caller]
    pub fn var(&self, axes: impl AxisSet) -> Tensor {
        let site = Location::caller();
        let float = if self.dtype().is_float() { self.clone() } else { self.cast(DType::F64) };
        let set = match axes.axes(self.rank()) {
            Ok(set) => set,
            Err(message) => return mistake(self, format!("`var`: {message}"), site),
        };
        let (_, variance) = float.moments(set, site);
        if self.dtype().is_float() { variance } else { variance.cast(DType::F32) }
    }

    /// Mean and variance over axes, of floats.
    fn moments(&self, set: Axes, site: Site) -> (Tensor, Tensor) {
        let mean = self.sum_over_count(set, site);
        let centre = keep_axes(&mean, set, self.rank(), site);
        (mean, (self - centre).sqr().sum_over_count(set, site))
    }

    /// Square root of [`Tensor::var`]. Of equal values its gradient is 0.
    #[track_caller]
    pub fn std(&self, axes: impl AxisSet) -> Tensor {
        self.var(axes).sqrt()
    }

    /// `sum(|x|^order)^(1/order)` over axes: the Euclidean length for 2, with the limits for infinities (the largest and the
    /// smallest size) and for 0 (how many elements are not 0). Its gradient at 0 is 0 for orders above 1.
    #[track_caller]
    pub fn norm(&self, order: f64, axes: impl AxisSet) -> Tensor {
        let site = Location::caller();
        let float = if self.dtype().is_float() { self.clone() } else { self.cast(DType::F64) };
        let set = match axes.axes(self.rank()) {
            Ok(_) if order.is_nan() => Err("expected an order, found NaN".to_owned()),
            found => found,
        };
        let set = match set {
            Ok(set) => set,
            Err(message) => return mistake(self, format!("`norm`: {message}"), site),
        };
        let fold = |fold: Fold, x: Tensor| build(Op::Reduce(fold, set), smallvec![x], site);
        let norm = if order == f64::INFINITY {
            fold(Fold::Max, float.abs())
        } else if order == f64::NEG_INFINITY {
            fold(Fold::Min, float.abs())
        } else if order == 0.0 {
            fold(Fold::Sum, float.neq(0.0).cast(float.dtype()))
        } else if order == 1.0 {
            fold(Fold::Sum, float.abs())
        } else if order == 2.0 {
            fold(Fold::Sum, float.sqr()).sqrt()
        } else {
            fold(Fold::Sum, float.abs().pow(order)).pow(1.0 / order)
        };
        if self.dtype().is_float() { norm } else { norm.cast(DType::F32) }
    }

    /// Each element is the sum of those up to it along an axis, itself included; `bool`, `u8` and `i32` are summed as `i64`.
    ///
    /// Floats are added in blocks, and blocks of blocks, so that the error of a sum grows with the logarithm of its length.
    /// A NaN or an infinity reaches only the sums behind it. The order of additions is the same on every device.
    #[track_caller]
    pub fn cumsum(&self, axis: i64) -> Tensor {
        let site = Location::caller();
        match resolve_axis(axis, self.rank()) {
            Ok(axis) => build(Op::Cumsum(axis as u8), smallvec![self.counted(site)], site),
            Err(message) => mistake(self, format!("`cumsum`: {message}"), site),
        }
    }

    /// Position of the first largest element along an axis, `i64`.
    #[track_caller]
    pub fn argmax(&self, axis: i64) -> Tensor {
        let site = Location::caller();
        match resolve_axis(axis, self.rank()) {
            Ok(axis) => build(Op::ArgMax(axis as u8), smallvec![self.clone()], site),
            Err(message) => mistake(self, format!("`argmax`: {message}"), site),
        }
    }

    /// Position of the first smallest element along an axis, `i64`.
    #[track_caller]
    pub fn argmin(&self, axis: i64) -> Tensor {
        // The complement of integers turns their order around as the sign of floats does, and none overflows.
        let turned = if self.dtype().is_float() { -self } else { !self };
        turned.argmax(axis)
    }

    /// Matrix product of tensors of rank 1 or 2 (a vector stands for a row on the left, for a column on the right, and
    /// that axis goes away), or of two stacks `[b, m, k]`, `[b, k, n]`.
    #[track_caller]
    pub fn dot(&self, other: impl Into<Tensor>) -> Tensor {
        let site = Location::caller();
        let other = other.into();
        let dtype = match self.dtype().promote(other.dtype()) {
            DType::Bool => DType::I64,
            dtype @ (DType::U8 | DType::I32 | DType::I64 | DType::F32 | DType::F64) => dtype,
        };
        let (mut left, mut right) = (self.cast(dtype), other.cast(dtype));
        let ranks = (left.rank(), right.rank());
        if !matches!(ranks, (1 | 2, 1 | 2) | (3, 3)) {
            let fault = Diagnostic::new("`dot` takes operands of rank 1 or 2, or two stacks of matrices")
                .with("left", self.ty().to_string(), None)
                .with("right", other.ty().to_string(), None)
                .hint("reshape, or use `dimshuffle`, so that the axes to be summed over are the last and the first");
            return faulty(fault, smallvec![self.clone(), other], self.ty().clone(), site);
        }
        if left
            .ty()
            .shape
            .last()
            .zip(right.ty().shape.iter().nth_back(usize::from(ranks.1 > 1)))
            .is_some_and(|(a, b)| a.unify(*b).is_none())
        {
            let mut fault = Diagnostic::new("inner extents of `dot` differ")
                .with("left", self.ty().to_string(), None)
                .with("right", other.ty().to_string(), None);
            let inner = left.ty().shape.last().copied();
            if ranks.1 == 2 && right.ty().shape.last().copied() == inner {
                fault = fault.hint("the transpose of the right operand would match: use `.t()`");
            }
            return faulty(fault, smallvec![self.clone(), other], self.ty().clone(), site);
        }
        let mut gone = Axes::NONE;
        if ranks.0 == 1 {
            left = spread(&left, &[1], 2, None, site);
            gone = Axes::one(0);
        }
        if ranks.1 == 1 {
            right = spread(&right, &[0], 2, None, site);
            gone = gone.iter().chain([1]).collect();
        }
        let product = build(Op::Dot, smallvec![left, right], site);
        if gone.is_empty() { product } else { squeeze_axes(&product, gone, site) }
    }

    /// Product of every element of a vector with every element of another.
    #[track_caller]
    pub fn outer(&self, other: impl Into<Tensor>) -> Tensor {
        self.dimshuffle(&[Some(0), None]) * other.into().dimshuffle(&[None, Some(0)])
    }

    /// The axes in reverse order; the transpose of a matrix.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        let permutation = (0..self.rank() as u8).rev().collect();
        build(Op::Permute(permutation), smallvec![self.clone()], Location::caller())
    }

    /// Axis `i` of the result is axis `axes[i]`.
    #[track_caller]
    pub fn transpose(&self, axes: &[i64]) -> Tensor {
        let site = Location::caller();
        let resolved: Result<SmallVec<[u8; 8]>, String> =
            axes.iter().map(|&axis| resolve_axis(axis, self.rank()).map(|a| a as u8)).collect();
        match resolved {
            Ok(permutation) => build(Op::Permute(permutation), smallvec![self.clone()], site),
            Err(message) => mistake(self, format!("`transpose`: {message}"), site),
        }
    }

    /// Reorders, drops and inserts axes: entry `i` says which axis becomes axis `i`, `None` inserts an extent of 1.
    /// Only axes of extent 1 may be left out.
    #[track_caller]
    pub fn dimshuffle(&self, pattern: &[Option<usize>]) -> Tensor {
        let site = Location::caller();
        let kept: SmallVec<[usize; 8]> = pattern.iter().flatten().copied().collect();
        let kept_set: Axes = kept.iter().copied().filter(|&a| a < self.rank()).collect();
        if kept.iter().any(|&axis| axis >= self.rank()) || kept_set.len() != kept.len() {
            let message = format!(
                "`dimshuffle` wants axes of a tensor of rank {}, each at most once, found {pattern:?}",
                self.rank()
            );
            return mistake(self, message, site);
        }
        let dropped: Axes = kept_set.others(self.rank()).collect();
        if let Some(axis) = dropped.iter().find(|&axis| !matches!(self.ty().shape[axis], Extent::Known(1))) {
            let message = format!(
                "`dimshuffle` can drop axis {axis} only if its extent is 1, found {}",
                self.ty().shape[axis]
            );
            return mistake(self, message, site);
        }
        let squeezed = if dropped.is_empty() { self.clone() } else { squeeze_axes(self, dropped, site) };
        let left: Vec<usize> = kept_set.iter().collect();
        let place = |axis: usize| left.iter().position(|&k| k == axis).unwrap_or(0);
        let permutation: SmallVec<[u8; 8]> = kept.iter().map(|&axis| place(axis) as u8).collect();
        let ordered = if permutation.iter().enumerate().all(|(i, &p)| i == usize::from(p)) {
            squeezed
        } else {
            build(Op::Permute(permutation), smallvec![squeezed], site)
        };
        if kept.len() == pattern.len() {
            return ordered;
        }
        let places: Vec<usize> = (0..pattern.len()).filter(|&i| pattern[i].is_some()).collect();
        spread(&ordered, &places, pattern.len(), None, site)
    }

    /// The same elements in row-major order under another shape; one size may be -1.
    #[track_caller]
    pub fn reshape<S: Into<Size>>(&self, sizes: impl IntoIterator<Item = S>) -> Tensor {
        let site = Location::caller();
        let constant = |size: Size| match &size {
            Size::Tensor(Tensor(expression)) => {
                expression.op.literal().and_then(Literal::to_i64).map_or(size, Size::Number)
            }
            Size::Number(_) => size,
        };
        let sizes: Vec<Size> = sizes.into_iter().map(|size| constant(size.into())).collect();
        let inferred = sizes.iter().filter(|s| matches!(s, Size::Number(-1))).count();
        let wrong = sizes.iter().find_map(|s| match s {
            Size::Number(n) if *n < -1 => Some(format!("`reshape` to a negative extent {n}")),
            Size::Tensor(t) if t.rank() != 0 || !t.dtype().is_int() => {
                Some(format!("`reshape` takes extents as integer scalars, found {}", t.ty()))
            }
            Size::Number(_) | Size::Tensor(_) => None,
        });
        if let Some(message) = wrong {
            return mistake(self, message, site);
        }
        if inferred > 1 {
            return mistake(self, "`reshape` can infer one extent, found -1 more than once".into(), site);
        }
        let rest_known = sizes.iter().try_fold(Some(1usize), |rest, size| match size {
            Size::Number(-1) => Some(rest),
            Size::Number(n) => {
                let n = usize::try_from(*n).ok()?;
                match rest {
                    Some(rest) => rest.checked_mul(n).map(Some),
                    None => Some(None),
                }
            }
            Size::Tensor(_) => Some(None),
        });
        let Some(rest_known) = rest_known else {
            return mistake(self, "`reshape` to more elements than memory can hold".into(), site);
        };
        let mut operands: SmallVec<[Tensor; 2]> = smallvec![self.clone()];
        let mut dims = Vec::new();
        for size in &sizes {
            let dim = match (size, self.ty().element_count(), rest_known) {
                (Size::Number(-1), Some(total), Some(rest)) => {
                    if rest == 0 || total % rest != 0 {
                        let message = format!("`reshape` cannot divide {total} elements into rows of {rest}");
                        return mistake(self, message, site);
                    }
                    Dim::Known(total / rest)
                }
                (Size::Number(-1), _, _) => {
                    let total = (0..self.rank()).map(|axis| self.extent(axis)).reduce(|a, b| a * b);
                    let rest = sizes.iter().filter_map(|s| match s {
                        Size::Number(-1) => None,
                        Size::Number(n) => Some(integer(*n as usize, site)),
                        Size::Tensor(t) => Some(t.cast(DType::I64)),
                    });
                    let total = total.unwrap_or_else(|| integer(1, site));
                    operands.push(rest.fold(total, |total, n| total.floordiv(n)));
                    Dim::Operand
                }
                (Size::Number(n), _, _) => Dim::Known(*n as usize),
                (Size::Tensor(t), _, _) => {
                    if let Some(value) =
                        t.0.op.literal().filter(|value| value.to_i64().is_some_and(|n| n < 0))
                    {
                        let message = format!("`reshape` to a negative extent {value}");
                        return mistake(self, message, site);
                    }
                    operands.push(t.cast(DType::I64));
                    Dim::Operand
                }
            };
            dims.push(dim);
        }
        build(Op::Reshape(dims.into()), operands, site)
    }

    /// The first `rank - 1` axes kept, all others joined into one; `flatten(1)` is the vector of all elements.
    #[track_caller]
    pub fn flatten(&self, rank: usize) -> Tensor {
        if rank == 0 || rank > self.rank().max(1) {
            let message = format!("`flatten` of a tensor of rank {} to rank {rank}", self.rank());
            return mistake(self, message, Location::caller());
        }
        let mut sizes: Vec<Size> = (0..rank - 1)
            .map(|axis| match self.ty().shape[axis] {
                Extent::Known(n) => Size::from(n),
                Extent::Unknown => Size::Tensor(self.extent(axis)),
            })
            .collect();
        sizes.push(Size::Number(-1));
        self.reshape(sizes)
    }

    /// Repeats the elements to the shape of `like`, aligning axes from the last.
    #[track_caller]
    pub fn broadcast_like(&self, like: &Tensor) -> Tensor {
        let site = Location::caller();
        if self.rank() > like.rank() {
            let fault = Diagnostic::new("`broadcast_like` cannot lower the rank")
                .with("operand", self.ty().to_string(), None)
                .with("like", like.ty().to_string(), None);
            return faulty(fault, smallvec![self.clone(), like.clone()], like.ty().clone(), site);
        }
        let places: Vec<usize> = (like.rank() - self.rank()..like.rank()).collect();
        spread(self, &places, like.rank(), Some(like), site)
    }

    /// The same value everywhere, in the shape of this tensor and with its element type, which must have the value.
    #[track_caller]
    pub fn full_like(&self, value: f64) -> Tensor {
        let site = Location::caller();
        let literal = match number_as(value.into(), self.dtype(), "full_like") {
            Ok(literal) => build(Op::Literal(literal), smallvec![], site),
            Err(fault) => return faulty(fault, smallvec![self.clone()], self.ty().clone(), site),
        };
        spread(&literal, &[], self.rank(), Some(self), site)
    }

    /// Zeros in the shape of this tensor.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        self.full_like(0.0)
    }

    /// Ones in the shape of this tensor.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }

    /// Elements below `low` become `low`, above `high` become `high`. The gradient passes where the element is not
    /// outside the closed interval.
    #[track_caller]
    pub fn clip(&self, low: impl Into<Tensor>, high: impl Into<Tensor>) -> Tensor {
        self.maximum(low).minimum(high)
    }

    /// `max(x, 0)`; the gradient at 0 is 1, as for all ties of `maximum`.
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        self.maximum(0.0)
    }

    /// `e^x / sum(e^x)` along an axis, shifted by the largest element so that it never overflows.
    #[track_caller]
    pub fn softmax(&self, axis: i64) -> Tensor {
        let exponentials = self.shifted(axis).exp();
        let total = exponentials.sum_keepdims(axis);
        exponentials / total
    }

    /// `log(softmax(x))`, accurate where the softmax underflows.
    #[track_caller]
    pub fn log_softmax(&self, axis: i64) -> Tensor {
        let shifted = self.shifted(axis);
        let total = shifted.exp().sum_keepdims(axis);
        shifted - total.log()
    }

    /// `log(sum(e^x))` along an axis, which goes away. Of elements that are all -inf it is -inf, with a gradient of 0; with an
    /// infinite element it is infinite.
    #[track_caller]
    pub fn logsumexp(&self, axis: i64) -> Tensor {
        let total = self.shifted(axis).exp().sum(axis);
        let largest = self.max(axis).stop_gradient();
        // Without a sum, the largest element is the whole; the logarithm of 0 would have no gradient.
        switch(largest.eq(f64::NEG_INFINITY), 1.0, total).log() + largest
    }

    /// `log(e^x + e^y)`. Of -inf and -inf it is -inf, with a gradient of 0.
    #[track_caller]
    pub fn logaddexp(&self, other: impl Into<Tensor>) -> Tensor {
        let other = other.into();
        let floats = self.dtype().is_float() || other.dtype().is_float();
        let [x, y] = [self, &other].map(|t| if floats { t.clone() } else { t.cast(DType::F32) });
        let largest = x.maximum(&y);
        // The order of the operands of `minimum` makes equal ones share the gradient.
        let distance = switch(largest.isinf(), 0.0, y.minimum(&x) - &largest);
        switch(largest.eq(f64::NEG_INFINITY), f64::NEG_INFINITY, &largest + distance.softplus())
    }

    /// `x` minus its largest element along an axis, or minus 0 where that is infinite, as infinities would cancel to NaN.
    /// The shift cancels in what is made of it, so it carries no gradient.
    #[track_caller]
    fn shifted(&self, axis: i64) -> Tensor {
        let float = if self.dtype().is_float() { self.clone() } else { self.cast(DType::F32) };
        let largest = float.max_keepdims(axis);
        let shift = switch(largest.isinf(), 0.0, largest).stop_gradient();
        float - shift
    }

    /// The same value, through which no gradient flows.
    #[track_caller]
    pub fn stop_gradient(&self) -> Tensor {
        build(Op::StopGradient, smallvec![self.clone()], Location::caller())
    }

    /// Rows of ones and zeros: `1` in column `x[i]` of row `i`, of the given float type.
    #[track_caller]
    pub fn one_hot(&self, classes: usize, dtype: DType) -> Tensor {
        let columns = arange(classes).dimshuffle(&[None, Some(0)]);
        self.cast(DType::I64).dimshuffle(&[Some(0), None]).eq(columns).cast(dtype)
    }

    /// Cross entropy of probabilities `self` in (0, 1) against targets, element by element:
    /// `-(t log p + (1 - t) log(1 - p))`.
    #[track_caller]
    pub fn binary_crossentropy(&self, targets: impl Into<Tensor>) -> Tensor {
        let targets = targets.into();
        -(&targets * self.log() + (1.0 - &targets) * (1.0 - self).log())
    }

    /// Cross entropy of the logits `self` against targets, element by element, accurate for logits of any size.
    #[track_caller]
    pub fn sigmoid_binary_crossentropy(&self, targets: impl Into<Tensor>) -> Tensor {
        self.softplus() - self * targets.into()
    }

    /// Cross entropy of rows of probabilities against targets, one value a row: class numbers (an integer vector) or
    /// rows of probabilities.
    #[track_caller]
    pub fn categorical_crossentropy(&self, targets: impl Into<Tensor>) -> Tensor {
        let targets = targets.into();
        if targets.rank() == 1 && targets.dtype().is_int() {
            -self.log().pick(&targets)
        } else {
            -(targets * self.log()).sum(1)
        }
    }
}

/// `reduced` with extents of 1 at the axes that a reduction of a tensor of that rank took away.
fn keep_axes(reduced: &Tensor, axes: Axes, rank: usize, site: Site) -> Tensor {
    let places: Vec<usize> = axes.others(rank).collect();
    spread(reduced, &places, rank, None, site)
}

/// `i64[n]`: 0, 1, ..., n - 1; empty for an `n` below 0, as in Python.
#[track_caller]
pub fn arange(n: impl Into<Size>) -> Tensor {
    let site = Location::caller();
    match n.into() {
        Size::Number(n) => build(Op::Iota(Box::new([Dim::Known(n.max(0) as usize)])), smallvec![], site),
        Size::Tensor(t) if t.rank() != 0 || !t.dtype().is_int() => {
            mistake(&t, format!("`arange` takes an integer scalar, found {}", t.ty()), site)
        }
        Size::Tensor(t) => {
            // As of a number: below 0 there is nothing.
            let n = cast_at(&t, DType::I64, site);
            let zero = build(Op::Literal(Literal::I64(0)), smallvec![], site);
            let n = build(Op::Map(ScalarFn::Max), smallvec![n, zero], site);
            build(Op::Iota(Box::new([Dim::Operand])), smallvec![n], site)
        }
    }
}

/// The same value everywhere, of the given element type, which must have the value, and shape.
#[track_caller]
pub fn full<S: Into<Size>>(value: f64, dtype: DType, shape: impl IntoIterator<Item = S>) -> Tensor {
    let site = Location::caller();
    let literal = match number_as(value.into(), dtype, "full") {
        Ok(literal) => build(Op::Literal(literal), smallvec![], site),
        Err(fault) => return faulty(fault, smallvec![], TensorType::scalar(dtype), site),
    };
    let mut operands = smallvec![literal.clone()];
    let dims: Result<Vec<Dim>, String> =
        shape.into_iter().map(|size| size.into().dim("full", &mut operands)).collect();
    match dims {
        Ok(dims) => build(Op::Broadcast { axes: smallvec![], dims: dims.into() }, operands, site),
        Err(message) => mistake(&literal, message, site),
    }
}

/// Zeros of the given element type and shape.
#[track_caller]
pub fn zeros<S: Into<Size>>(dtype: DType, shape: impl IntoIterator<Item = S>) -> Tensor {
    full(0.0, dtype, shape)
}

/// Ones of the given element type and shape.
#[track_caller]
pub fn ones<S: Into<Size>>(dtype: DType, shape: impl IntoIterator<Item = S>) -> Tensor {
    full(1.0, dtype, shape)
}

/// The same value everywhere, of a shape.
pub(crate) fn filled(value: Literal, sizes: &[Size], site: Site) -> Tensor {
    let mut operands: SmallVec<[Tensor; 2]> = smallvec![build(Op::Literal(value), smallvec![], site)];
    let dims = sizes.iter().map(|size| match size {
        Size::Number(n) => Dim::Known(*n as usize),
        Size::Tensor(n) => {
            operands.push(n.clone());
            Dim::Operand
        }
    });
    let dims = dims.collect();
    build(Op::Broadcast { axes: smallvec![], dims }, operands, site)
}

/// Tensors one after another along an axis they all have, converted to their common element type.
#[track_caller]
pub fn concatenate(tensors: &[Tensor], axis: i64) -> Tensor {
    let site = Location::caller();
    let Some(first) = tensors.first() else {
        return faulty(
            Diagnostic::new("`concatenate` of nothing"),
            smallvec![],
            TensorType::scalar(DType::F32),
            site,
        );
    };
    let dtype = common_dtype(tensors.iter());
    match resolve_axis(axis, first.rank()) {
        Ok(axis) => build(Op::Concat(axis as u8), tensors.iter().map(|t| t.cast(dtype)).collect(), site),
        Err(message) => mistake(first, format!("`concatenate`: {message}"), site),
    }
}

/// Tensors of equal shape side by side along a new axis.
#[track_caller]
pub fn stack(tensors: &[Tensor], axis: i64) -> Tensor {
    let site = Location::caller();
    let Some(first) = tensors.first() else {
        return faulty(
            Diagnostic::new("`stack` of nothing"),
            smallvec![],
            TensorType::scalar(DType::F32),
            site,
        );
    };
    let axis = match resolve_axis(axis, first.rank() + 1) {
        Ok(axis) => axis,
        Err(message) => return mistake(first, format!("`stack`: {message}"), site),
    };
    let dtype = common_dtype(tensors.iter());
    let numbers = tensors.iter().filter(|t| t.is_weak());
    if let Some(fault) = numbers.filter_map(|t| t.number_fault(dtype, "stack")).next() {
        return faulty(fault, tensors.iter().cloned().collect(), first.ty().clone(), site);
    }
    let widened: Vec<Tensor> = tensors
        .iter()
        .map(|t| {
            let t = &t.cast(dtype);
            let rank = t.rank() + 1;
            let places: Vec<usize> = (0..rank).filter(|&a| a != axis.min(rank - 1)).collect();
            spread(t, &places, rank, None, site)
        })
        .collect();
    concatenate(&widened, axis as i64)
}
