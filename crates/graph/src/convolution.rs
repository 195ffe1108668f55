//! Convolution and pooling as users call them, with Theano's semantics.
//!
//! ```
//! use hypatia_graph::convolution::Conv;
//! use hypatia_graph::tensor::tensor4;
//! let (x, w) = (tensor4::<f32>("x"), tensor4::<f32>("w"));
//! let y = x.conv2d(&w, Conv::half().stride([2, 2]));
//! let z = y.max_pool_2d([2, 2], true);
//! assert_eq!((y.rank(), z.rank()), (4, 4));
//! ```
//!
//! A convolution is one operator between views of its operands: filters are reversed by a slice, groups are an axis in front.
//! Pooling is made of windows side by side and a fold over them, so its gradient is that of the fold: tied largest elements
//! share it.

use std::panic::Location;

use smallvec::{SmallVec, smallvec};

use crate::array::{Array, Extents, element_count};
use crate::compose::{Size, filled, mistake, stack};
use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::{DType, Literal};
use crate::index::{Index, step};
use crate::op::{Border, ConvAxis, Fold, Op};
use crate::shape::{Axes, Extent};
use crate::tensor::{Tensor, build, constant, faulty};

/// How filters move over images along `N` axes: [`Conv::valid`], [`Conv::half`], [`Conv::full`] or [`Conv::padded`], then what
/// differs from a stride and a dilation of 1, one group, and reversed filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv<const N: usize> {
    axes: [ConvAxis; N],
    groups: usize,
    reverses: bool,
}

impl<const N: usize> Conv<N> {
    fn bordered(border: Border) -> Self {
        Self { axes: [ConvAxis { border, ..ConvAxis::VALID }; N], groups: 1, reverses: true }
    }

    /// Where the filters lie inside the image.
    #[must_use]
    pub fn valid() -> Self {
        Self::bordered(Border::Padded(0, 0))
    }

    /// With zeros around the image, half of the (dilated) filters' extent rounded down: of odd extents the result is as large as
    /// the image.
    #[must_use]
    pub fn half() -> Self {
        Self::bordered(Border::Half)
    }

    /// Wherever the filters and the image overlap.
    #[must_use]
    pub fn full() -> Self {
        Self::bordered(Border::Full)
    }

    /// With as many zeros before and behind the image, along each axis.
    #[must_use]
    pub fn padded(zeros: [[usize; 2]; N]) -> Self {
        // Numbers that are too large are refused with the other types.
        let zeros = zeros.map(|sides| sides.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
        Self::valid().with(|axis, n| axis.border = Border::Padded(zeros[n][0], zeros[n][1]))
    }

    fn with(mut self, change: impl Fn(&mut ConvAxis, usize)) -> Self {
        self.axes.iter_mut().enumerate().for_each(|(n, axis)| change(axis, n));
        self
    }

    /// The distance from one place of the filters to the next, along each axis (Theano's `subsample`).
    #[must_use]
    pub fn stride(self, stride: [usize; N]) -> Self {
        self.with(|axis, n| axis.stride = stride[n])
    }

    /// The distance between elements of the filters, along each axis (Theano's `filter_dilation`).
    #[must_use]
    pub fn dilation(self, dilation: [usize; N]) -> Self {
        self.with(|axis, n| axis.dilation = dilation[n])
    }

    /// The number of groups (Theano's `num_groups`): the first of as many equal parts of the filters sees the first part of the
    /// channels, and so on.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Without reversing the filters (Theano's `filter_flip=False`): a correlation.
    #[must_use]
    pub fn correlation(self) -> Self {
        Self { reverses: false, ..self }
    }
}

/// What is made of the elements in a window.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// The largest.
    Max,
    /// The sum.
    Sum,
    /// The mean, with the zeros of the padding.
    AverageIncPad,
    /// The mean of those that are no padding.
    AverageExcPad,
}

/// Windows over the last `N` axes and what is made of each: [`Pool::max`] and its like, then what differs from windows side by
/// side, no padding, and windows that reach over the border and hold what is inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool<const N: usize> {
    size: [usize; N],
    stride: [usize; N],
    pad: [usize; N],
    ignores_border: bool,
    mode: PoolMode,
}

impl<const N: usize> Pool<N> {
    /// Windows of a size.
    #[must_use]
    pub fn new(mode: PoolMode, size: [usize; N]) -> Self {
        Self { size, stride: size, pad: [0; N], ignores_border: false, mode }
    }

    /// The largest element of each window.
    #[must_use]
    pub fn max(size: [usize; N]) -> Self {
        Self::new(PoolMode::Max, size)
    }

    /// The sum of each window.
    #[must_use]
    pub fn sum(size: [usize; N]) -> Self {
        Self::new(PoolMode::Sum, size)
    }

    /// The distance from one window to the next, along each axis.
    #[must_use]
    pub fn stride(self, stride: [usize; N]) -> Self {
        Self { stride, ..self }
    }

    /// Elements before and behind, along each axis; less than the windows' size, and only with [`Pool::ignore_border`].
    #[must_use]
    pub fn pad(self, pad: [usize; N]) -> Self {
        Self { pad, ..self }
    }

    /// Leaves out windows that reach over the border.
    #[must_use]
    pub fn ignore_border(self) -> Self {
        Self { ignores_border: true, ..self }
    }

    /// The number of windows along an axis of an extent.
    fn windows(&self, axis: usize, extent: usize) -> usize {
        let (size, stride) = (self.size[axis], self.stride[axis]);
        let extent = extent + 2 * self.pad[axis];
        if self.ignores_border {
            if extent < size { 0 } else { (extent - size) / stride + 1 }
        } else if extent == 0 {
            0
        } else if stride >= size {
            (extent - 1) / stride + 1
        } else {
            extent.saturating_sub(size).div_ceil(stride) + 1
        }
    }

    /// How many elements a mean divides by, in each window along an axis.
    fn counts(&self, axis: usize, extent: usize) -> Vec<usize> {
        let pad = self.pad[axis];
        let inside = match self.mode {
            PoolMode::AverageIncPad => 0..extent + 2 * pad,
            PoolMode::Max | PoolMode::Sum | PoolMode::AverageExcPad => pad..extent + pad,
        };
        let count = |window: usize| {
            let begin = window * self.stride[axis];
            let end = (begin + self.size[axis]).min(inside.end);
            end.saturating_sub(begin.max(inside.start))
        };
        (0..self.windows(axis, extent)).map(count).collect()
    }

    fn mistake(&self) -> Option<String> {
        let zero = |name: &str, sizes: &[usize]| {
            sizes.contains(&0).then(|| format!("pooling with a {name} of {sizes:?}: expected 1 or more"))
        };
        let wide = || {
            let wide = self.pad.iter().zip(&self.size).any(|(pad, size)| pad >= size);
            let (pad, size) = (self.pad, self.size);
            wide.then(|| {
                format!(
                    "pooling with a padding of {pad:?} in windows of {size:?}: expected less than the window"
                )
            })
        };
        let kept = || {
            let kept = !self.ignores_border && self.pad.iter().any(|n| *n > 0);
            kept.then(|| {
                "padded pooling keeps no windows over the border: expected `.ignore_border()`".to_string()
            })
        };
        zero("size", &self.size).or_else(|| zero("stride", &self.stride)).or_else(wide).or_else(kept)
    }
}

/// An extent for a new shape.
fn size_of(x: &Tensor, axis: usize) -> Size {
    match x.ty().shape[axis] {
        Extent::Known(n) => Size::from(n),
        Extent::Unknown => Size::Tensor(x.extent(axis)),
    }
}

/// `axis`, which has groups one after another, as an axis of groups in front and one of what is in each.
fn by_group(x: &Tensor, axis: usize, groups: usize) -> Tensor {
    let mut sizes: Vec<Size> = (0..x.rank()).map(|axis| size_of(x, axis)).collect();
    let of_each = match x.ty().shape[axis] {
        Extent::Known(n) => Size::from(n / groups),
        Extent::Unknown => Size::Tensor(x.extent(axis).floordiv(groups as i64)),
    };
    sizes.splice(axis..=axis, [Size::from(groups), of_each]);
    let order: Vec<i64> =
        std::iter::once(axis).chain((0..=x.rank()).filter(|a| *a != axis)).map(|a| a as i64).collect();
    x.reshape(sizes).transpose(&order)
}

/// The convolution by the operator, of operands with groups as a leading axis if there are several, whose groups are then
/// channels again.
fn grouped(axes: &[ConvAxis], groups: usize, x: &Tensor, w: &Tensor, site: Site) -> Tensor {
    let op = Op::Conv(axes.into());
    if groups == 1 {
        return build(op, smallvec![x.clone(), w.clone()], site);
    }
    // [g, n, o, ..] to [n, g, o, ..] to [n, g o, ..].
    let result = build(op, smallvec![by_group(x, 1, groups), by_group(w, 0, groups)], site);
    let order: Vec<i64> = [1, 0].into_iter().chain(2..result.rank() as i64).collect();
    let result = result.transpose(&order);
    let mut sizes: Vec<Size> = (0..result.rank()).map(|axis| size_of(&result, axis)).collect();
    let channels = match w.ty().shape[0] {
        Extent::Known(n) => Size::from(n),
        Extent::Unknown => Size::Tensor(w.extent(0)),
    };
    sizes.splice(1..3, [channels]);
    result.reshape(sizes)
}

/// The filters with the axes behind the second one reversed.
fn reversed(w: &Tensor) -> Tensor {
    let range = |axis: usize| if axis < 2 { Index::from(..) } else { step(.., -1) };
    w.index((0..w.rank()).map(range).collect::<Vec<_>>())
}

impl Tensor {
    /// Operands of a convolution along `N` axes: of the common type, and what is wrong with them.
    fn convolved<const N: usize>(
        &self,
        filters: &Tensor,
        conv: &Conv<N>,
        channels: usize,
    ) -> Result<[Tensor; 2], Diagnostic> {
        let name = format!("conv{N}d");
        let fail = |title: String| {
            Diagnostic::new(title).with("input", self.ty().to_string(), None).with(
                "filters",
                filters.ty().to_string(),
                None,
            )
        };
        if self.rank() != N + 2 || filters.rank() != N + 2 {
            return Err(fail(format!(
                "`{name}` takes an input [batch, channel, ..] and filters [out, in, ..] with {N} axes behind"
            )));
        }
        let groups = conv.groups;
        let parts = [self.ty().shape[1], filters.ty().shape[0], filters.ty().shape[1]].map(Extent::known);
        if groups == 0 || parts[..2].iter().flatten().any(|n| n % groups != 0) {
            return Err(fail(format!(
                "`{name}` in {groups} groups: expected channels and filters that can be divided so"
            )));
        }
        // The channels of filters are those of one group.
        if let [Some(own), Some(outer), Some(inner)] = parts
            && own != if channels == 1 { inner * groups } else { outer }
        {
            let wanted = if channels == 1 { inner * groups } else { outer };
            return Err(fail(format!("`{name}` of {own} channels by filters of {wanted}")));
        }
        let dtype = self.dtype().promote(filters.dtype());
        Ok([self.cast(dtype), filters.cast(dtype)])
    }

    fn conv<const N: usize>(&self, filters: Tensor, conv: &Conv<N>, site: Site) -> Tensor {
        let [x, w] = match self.convolved(&filters, conv, 1) {
            Ok(operands) => operands,
            Err(fault) => return faulty(fault, smallvec![self.clone(), filters], self.ty().clone(), site),
        };
        let w = if conv.reverses { reversed(&w) } else { w };
        grouped(&conv.axes, conv.groups, &x, &w, site)
    }

    /// Convolution of `[batch, channel, position]` with filters `[out, in, tap]`; see [`Tensor::conv2d`].
    #[track_caller]
    pub fn conv1d(&self, filters: impl Into<Tensor>, conv: Conv<1>) -> Tensor {
        self.conv(filters.into(), &conv, Location::caller())
    }

    /// Convolution of images `[batch, channel, row, column]` with filters `[out, in, row, column]`, which are reversed unless
    /// `conv` says otherwise: `[batch, out, row, column]`, as Theano's `conv2d`. Elements are `f32` or `f64`.
    #[track_caller]
    pub fn conv2d(&self, filters: impl Into<Tensor>, conv: Conv<2>) -> Tensor {
        self.conv(filters.into(), &conv, Location::caller())
    }

    /// Convolution of `[batch, channel, depth, row, column]`; see [`Tensor::conv2d`].
    #[track_caller]
    pub fn conv3d(&self, filters: impl Into<Tensor>, conv: Conv<3>) -> Tensor {
        self.conv(filters.into(), &conv, Location::caller())
    }

    fn conv_transposed<const N: usize>(
        &self,
        filters: Tensor,
        extents: [usize; N],
        conv: &Conv<N>,
        site: Site,
    ) -> Tensor {
        let fault = |fault| faulty(fault, smallvec![self.clone(), filters.clone()], self.ty().clone(), site);
        let [x, w] = match self.convolved(&filters, conv, 0) {
            Ok(operands) => operands,
            Err(wrong) => return fault(wrong),
        };
        let mut axes = Vec::new();
        for (axis, &input) in extents.iter().enumerate() {
            let own = &conv.axes[axis];
            let (found, taps) = (x.ty().shape[axis + 2].known(), w.ty().shape[axis + 2].known());
            let expected = taps.map(|taps| own.extent(input, taps));
            match (taps, expected) {
                (Some(taps), Some(expected)) if found == Some(expected) => {
                    axes.push(own.by_input(input, taps))
                }
                _ => {
                    let expected =
                        expected.map_or("known extents of the filters".to_string(), |n| n.to_string());
                    let title = format!(
                        "a transposed convolution to {input} along axis {}: expected {expected}",
                        axis + 2
                    );
                    return fault(Diagnostic::new(title).with("input", self.ty().to_string(), None).with(
                        "filters",
                        filters.ty().to_string(),
                        None,
                    ));
                }
            }
        }
        // Reversed twice is not reversed.
        let w = if conv.reverses { w } else { reversed(&w) };
        if conv.groups == 1 {
            let order: Vec<i64> = [1, 0].into_iter().chain(2..N as i64 + 2).collect();
            return grouped(&axes, 1, &x, &w.transpose(&order), site);
        }
        // [g o, c, ..] to [g, c, o, ..] to [g c, o, ..].
        let order: Vec<i64> = [0, 2, 1].into_iter().chain(3..N as i64 + 3).collect();
        let turned = by_group(&w, 0, conv.groups).transpose(&order);
        let mut sizes: Vec<Size> = (0..turned.rank()).map(|axis| size_of(&turned, axis)).collect();
        let channels = match w.ty().shape[1] {
            Extent::Known(n) => Size::from(n * conv.groups),
            Extent::Unknown => Size::Tensor(w.extent(1) * conv.groups as i32),
        };
        sizes.splice(0..2, [channels]);
        grouped(&axes, conv.groups, &x, &turned.reshape(sizes), site)
    }

    /// See [`Tensor::conv2d_transposed`].
    #[track_caller]
    pub fn conv1d_transposed(
        &self,
        filters: impl Into<Tensor>,
        extents: [usize; 1],
        conv: Conv<1>,
    ) -> Tensor {
        self.conv_transposed(filters.into(), extents, &conv, Location::caller())
    }

    /// The transposed convolution: what takes a gradient by the result of `x.conv2d(filters, conv)`, which this tensor is as
    /// large as, to the one by `x`, whose rows and columns are `extents`. The extents of the filters have to be known.
    #[track_caller]
    pub fn conv2d_transposed(
        &self,
        filters: impl Into<Tensor>,
        extents: [usize; 2],
        conv: Conv<2>,
    ) -> Tensor {
        self.conv_transposed(filters.into(), extents, &conv, Location::caller())
    }

    /// See [`Tensor::conv2d_transposed`].
    #[track_caller]
    pub fn conv3d_transposed(
        &self,
        filters: impl Into<Tensor>,
        extents: [usize; 3],
        conv: Conv<3>,
    ) -> Tensor {
        self.conv_transposed(filters.into(), extents, &conv, Location::caller())
    }

    /// The largest element of each window of the last two axes, windows side by side; without those that reach over the border
    /// if `ignore_border`. Tied elements share the gradient.
    #[track_caller]
    pub fn max_pool_2d(&self, size: [usize; 2], ignore_border: bool) -> Tensor {
        let pool = Pool::max(size);
        self.pool(&if ignore_border { pool.ignore_border() } else { pool }, Location::caller())
    }

    /// Pooling over the last axis; see [`Tensor::pool_2d`].
    #[track_caller]
    pub fn pool_1d(&self, pool: Pool<1>) -> Tensor {
        self.pool(&pool, Location::caller())
    }

    /// What `pool` makes of each window over the last two axes, as Theano's `pool_2d`. The extents of these axes have to be
    /// known when the formula is built.
    #[track_caller]
    pub fn pool_2d(&self, pool: Pool<2>) -> Tensor {
        self.pool(&pool, Location::caller())
    }

    /// Pooling over the last three axes; see [`Tensor::pool_2d`].
    #[track_caller]
    pub fn pool_3d(&self, pool: Pool<3>) -> Tensor {
        self.pool(&pool, Location::caller())
    }

    fn pool<const N: usize>(&self, pool: &Pool<N>, site: Site) -> Tensor {
        let Some(lead) = self.rank().checked_sub(N) else {
            return mistake(self, format!("pooling over {N} axes of a tensor of rank {}", self.rank()), site);
        };
        let extents: Option<Extents> = self.ty().shape[lead..].iter().map(|extent| extent.known()).collect();
        let Some(extents) = extents else {
            let message =
                format!("pooling over axes of unknown extents: expected them known along the last {N}");
            return mistake(self, message, site);
        };
        if let Some(message) = pool.mistake() {
            return mistake(self, message, site);
        }
        let averages = matches!(pool.mode, PoolMode::AverageIncPad | PoolMode::AverageExcPad);
        let x = match self.dtype() {
            DType::F32 | DType::F64 => self.clone(),
            DType::Bool | DType::U8 | DType::I32 | DType::I64 if averages => self.cast(DType::F32),
            DType::Bool => self.cast(DType::I64),
            DType::U8 | DType::I32 | DType::I64 => self.clone(),
        };
        let fold = if pool.mode == PoolMode::Max { Fold::Max } else { Fold::Sum };
        let windows: Extents = (0..N).map(|axis| pool.windows(axis, extents[axis])).collect();
        let apart = (0..N).all(|axis| pool.stride[axis] >= pool.size[axis]);
        let needed: Extents = (0..N)
            .map(|axis| match windows[axis].checked_sub(1) {
                None => 0,
                Some(_) if apart => windows[axis] * pool.stride[axis],
                Some(last) => last * pool.stride[axis] + pool.size[axis],
            })
            .collect();
        let x = bordered(&x, &needed, &pool.pad, fold.identity(x.dtype()), site);
        let (windowed, joined) =
            if apart { split(&x, pool, &windows, lead) } else { stacked(&x, pool, &windows, lead) };
        let pooled = |fold| build(Op::Reduce(fold, joined), smallvec![windowed.clone()], site);
        if !averages {
            return pooled(fold);
        }
        let counts: Vec<Vec<usize>> = (0..N).map(|axis| pool.counts(axis, extents[axis])).collect();
        let whole = counts.iter().zip(pool.size).all(|(counts, size)| counts.iter().all(|n| *n == size));
        if whole {
            return build(Op::Mean(joined), smallvec![windowed], site);
        }
        let count = |mut window: usize| {
            let of_axis = |(counts, n): (&Vec<usize>, &usize)| {
                let count = counts[window % n];
                window /= n;
                count
            };
            counts.iter().zip(&windows).rev().map(of_axis).product::<usize>() as f64
        };
        let count: Vec<f64> = (0..element_count(&windows)).map(count).collect();
        pooled(Fold::Sum) / constant(Array::new(&windows, &count)).cast(x.dtype())
    }
}

/// The tensor with other extents of the last axes, from `pad` elements before its own on; `value` where it has nothing.
fn bordered(x: &Tensor, extents: &[usize], pad: &[usize], value: Literal, site: Site) -> Tensor {
    let lead = x.rank() - extents.len();
    let known = |axis: usize| x.ty().shape[lead + axis].known();
    // The part of the tensor that is kept, and where it lies.
    let parts: Vec<[usize; 2]> = (0..extents.len())
        .map(|axis| {
            let end = known(axis).map_or(0, |n| n.min(extents[axis].saturating_sub(pad[axis])));
            [pad[axis], end]
        })
        .collect();
    let whole = |axis: usize| Some(parts[axis][1]) == known(axis);
    let mut ranges: Vec<Index> = (0..lead).map(|_| Index::from(..)).collect();
    let mut places = ranges.clone();
    ranges.extend(parts.iter().map(|[_, end]| Index::from(0..*end)));
    places.extend(parts.iter().map(|[begin, end]| Index::from(*begin..begin + end)));
    let kept = if (0..extents.len()).all(whole) { x.clone() } else { x.index_at(&ranges, site) };
    if parts.iter().zip(extents).all(|(part, n)| *part == [0, *n]) {
        return kept;
    }
    let sizes: Vec<Size> =
        (0..lead).map(|axis| size_of(x, axis)).chain(extents.iter().map(|n| Size::from(*n))).collect();
    filled(value, &sizes, site).set_index(places, kept)
}

/// Windows that do not overlap, as axes behind those that count them, and which axes these are.
fn split<const N: usize>(x: &Tensor, pool: &Pool<N>, windows: &[usize], lead: usize) -> (Tensor, Axes) {
    let mut sizes: Vec<Size> = (0..lead).map(|axis| size_of(x, axis)).collect();
    for (count, stride) in windows.iter().zip(pool.stride) {
        sizes.extend([Size::from(*count), Size::from(stride)]);
    }
    let split = x.reshape(sizes);
    let own = |axis: usize| lead + 2 * axis + 1;
    let mut ranges: Vec<Index> = (0..split.rank()).map(|_| Index::from(..)).collect();
    (0..N).for_each(|axis| ranges[own(axis)] = Index::from(0..pool.size[axis]));
    let gapless = pool.stride == pool.size;
    (if gapless { split } else { split.index(ranges) }, (0..N).map(own).collect())
}

/// For each place in a window the elements of all windows there, along a new first axis.
fn stacked<const N: usize>(x: &Tensor, pool: &Pool<N>, windows: &[usize], lead: usize) -> (Tensor, Axes) {
    let places: usize = pool.size.iter().product();
    let at = |mut place: usize| {
        let mut ranges: SmallVec<[Index; 8]> = (0..lead).map(|_| Index::from(..)).collect();
        for axis in (0..N).rev() {
            let begin = place % pool.size[axis];
            place /= pool.size[axis];
            // From this place in the first window to that in the last.
            let behind = windows[axis].checked_sub(1).map_or(0, |last| last * pool.stride[axis] + 1);
            ranges.insert(lead, step(begin..begin + behind, pool.stride[axis] as i64));
        }
        x.index(ranges)
    };
    (stack(&(0..places).map(at).collect::<Vec<_>>(), 0), Axes::one(0))
}
