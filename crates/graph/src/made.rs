//! Rows that may not exist: results of scans that may end early.
//!
//! Memory holds as many rows of such a result as the scan may make steps, and those beyond the steps made repeat the last
//! one. What a user writes speaks of the steps made, as with Theano's `until`: `Made` goes along with expressions while
//! they are built, reductions leave out the rows beyond, an extent is the number of rows made, and a function cuts the
//! results it returns. What cannot be said so, since the extent is known only at run time, is an error that names
//! [`Tensor::padded`], the way to all the rows. Graphs know nothing of this.

use smallvec::{SmallVec, smallvec};

use crate::compose::{Size, spread_plainly};
use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::{DType, Literal};
use crate::index::Index;
use crate::op::{Dim, Fold, Op, SliceAxis};
use crate::scalar::ScalarFn;
use crate::shape::{Axes, Extent};
use crate::tensor::{Tensor, build, build_plainly, faulty};

/// How many rows of a tensor exist: `min(steps, limit) - less`, at least none.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// The axis that the rows stand along.
    axis: usize,
    /// `i64[]`: the steps that the scan made.
    pub(crate) steps: Tensor,
    /// Slices took at most so many,
    limit: i64,
    /// and left out so many.
    less: i64,
    /// Whether the rows beyond repeat the last one that exists.
    repeats: bool,
}

/// A result of a function that is returned without the rows that were not made.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The number of the result.
    pub output: usize,
    /// The axis of the rows.
    pub axis: usize,
    /// `i64[]`: how many there are.
    pub count: Tensor,
}

/// Which of some results are returned without rows that were not made.
pub fn cuts(outputs: &[Tensor]) -> Vec<Cut> {
    let cut = |(output, tensor): (usize, &Tensor)| {
        let made = tensor.made()?;
        Some(Cut { output, axis: made.axis, count: made.count(tensor.site()) })
    };
    outputs.iter().enumerate().filter_map(cut).collect()
}

type Operands = SmallVec<[Tensor; 2]>;

impl Made {
    /// The rows of a scan that made so many steps.
    pub(crate) fn of_steps(steps: &Tensor) -> Made {
        Made { axis: 0, steps: steps.clone(), limit: i64::MAX, less: 0, repeats: true }
    }

    /// Whether the same rows exist.
    pub(crate) fn agrees(&self, other: &Made) -> bool {
        let numbers = |made: &Made| (made.axis, made.steps.key(), made.limit, made.less);
        numbers(self) == numbers(other)
    }

    fn at(&self, axis: usize) -> Option<Made> {
        Some(Made { axis, ..self.clone() })
    }

    /// `i64[]`: how many rows there are.
    fn count(&self, site: Site) -> Tensor {
        let mut count = self.steps.clone();
        if self.limit < i64::MAX {
            count = of_scalars(ScalarFn::Min, [count, integer(self.limit, site)], site);
        }
        if self.less > 0 {
            let left = of_scalars(ScalarFn::Sub, [count, integer(self.less, site)], site);
            count = of_scalars(ScalarFn::Max, [left, integer(0, site)], site);
        }
        count
    }
}

fn integer(value: i64, site: Site) -> Tensor {
    build(Op::Literal(Literal::I64(value)), smallvec![], site)
}

fn of_scalars<const N: usize>(f: ScalarFn, operands: [Tensor; N], site: Site) -> Tensor {
    build(Op::Map(f), operands.into_iter().collect(), site)
}

/// The extent that memory has.
fn held(x: &Tensor, axis: usize, site: Site) -> Tensor {
    match x.ty().shape[axis] {
        Extent::Known(n) => integer(n as i64, site),
        Extent::Unknown => build(Op::Extent(axis as u8), smallvec![x.clone()], site),
    }
}

/// A mistake with rows that may not exist.
pub(crate) fn fault(what: &str, x: &Tensor) -> Diagnostic {
    Diagnostic::new(format!("the rows of a scan that may end early {what}"))
        .with("rows", x.ty().to_string(), Some(x.site()))
        .hint("how many there are is known only when it has run; `.padded()` has all, with the last one made repeated")
}

fn refused(what: &str, x: &Tensor, operands: &Operands, site: Site) -> Tensor {
    faulty(fault(what, x), operands.clone(), x.ty().clone(), site)
}

/// A node one of whose operands has rows that may not exist.
pub(crate) fn build_with(op: Op, operands: Operands, site: Site) -> Tensor {
    let plain = build_plainly(op.clone(), operands.clone(), None, site);
    if plain.0.poisoned {
        return plain;
    }
    match outcome(&op, &operands, site) {
        Ok((masked, made)) => build_plainly(op, masked, made, site),
        Err((what, position)) => refused(what, &operands[position], &operands, site),
    }
}

/// The operands without what does not exist where it would count, and what exists of the result; or what cannot be done
/// with which operand.
fn outcome(
    op: &Op,
    operands: &Operands,
    site: Site,
) -> Result<(Operands, Option<Made>), (&'static str, usize)> {
    let made = |position: usize| operands.get(position).and_then(Tensor::made);
    let first = operands.iter().position(|x| x.made().is_some()).unwrap_or(0);
    let unchanged = |made: Option<Made>| Ok((operands.clone(), made));
    match op {
        // Scalars that give extents.
        Op::Leaf(_) | Op::Literal(_) | Op::Iota(_) | Op::Random { .. } | Op::Extent(_) => unchanged(None),
        Op::Cast(_) | Op::StopGradient => unchanged(made(0).cloned()),
        Op::Map(_) => {
            let made = together(operands.iter())
                .ok_or(("beside values of another length in an elementwise function", first))?;
            unchanged(Some(made))
        }
        Op::Reduce(fold, axes) => {
            let Some(own) = made(0) else { return unchanged(None) };
            if !axes.contains(own.axis) {
                let gone = axes.iter().filter(|axis| *axis < own.axis).count();
                return unchanged(own.at(own.axis - gone));
            }
            let identity = fold.identity(operands[0].dtype());
            Ok((smallvec![existing(&operands[0], own, identity, site)], None))
        }
        Op::Mean(axes) => match made(0) {
            Some(own) if axes.contains(own.axis) => Err(("in the mean over its rows", 0)),
            Some(own) => {
                let gone = axes.iter().filter(|axis| *axis < own.axis).count();
                unchanged(own.at(own.axis - gone))
            }
            None => unchanged(None),
        },
        Op::ArgMax(axis) => {
            let Some(own) = made(0) else { return unchanged(None) };
            let axis = usize::from(*axis);
            if axis != own.axis {
                return unchanged(own.at(own.axis - usize::from(axis < own.axis)));
            }
            let smallest = match operands[0].dtype() {
                DType::Bool => Literal::Bool(false),
                dtype @ (DType::U8 | DType::I32 | DType::I64 | DType::F32 | DType::F64) => {
                    Fold::Max.identity(dtype)
                }
            };
            Ok((smallvec![existing(&operands[0], own, smallest, site)], None))
        }
        // Sums of rows that repeat do not repeat.
        Op::Cumsum(axis) => unchanged(
            made(0).map(|own| Made { repeats: own.repeats && own.axis != usize::from(*axis), ..own.clone() }),
        ),
        Op::Dot => product(operands, site),
        Op::Conv(axes) => match (made(0), made(1)) {
            (None, None) => unchanged(None),
            // Each image for itself.
            (Some(own), None) if own.axis + 2 + axes.len() == operands[0].rank() => {
                unchanged(Some(own.clone()))
            }
            _ => Err(("in a convolution, unless they are images of its input", first)),
        },
        Op::Broadcast { axes, .. } => {
            let own = made(0).and_then(|own| own.at(usize::from(*axes.get(own.axis)?)));
            unchanged(own)
        }
        Op::Reshape(dims) => {
            let Some(own) = made(0) else { return unchanged(None) };
            let axis = axis_in_view(operands, dims, own.axis).ok_or(("in `reshape`", 0))?;
            unchanged(own.at(axis))
        }
        Op::Permute(permutation) => {
            let Some(own) = made(0) else { return unchanged(None) };
            unchanged(
                permutation.iter().position(|&from| usize::from(from) == own.axis).and_then(|to| own.at(to)),
            )
        }
        Op::Slice(axes) => {
            let Some(own) = made(0) else { return unchanged(None) };
            let is_whole = axes.get(own.axis) == Some(&SliceAxis::WHOLE);
            if is_whole { unchanged(Some(own.clone())) } else { Err(("in a slice", 0)) }
        }
        Op::SetSlice(axes, _) => match (made(0), made(1)) {
            (Some(own), Some(value))
                if own.agrees(value) && axes.get(own.axis) == Some(&SliceAxis::WHOLE) =>
            {
                unchanged(own.at(own.axis))
            }
            _ => Err(("in a write to a part", first)),
        },
        Op::Window(_) | Op::SetWindow(..) => Err(("in a window", first)),
        Op::Concat(axis) => match together_all(operands) {
            Some(own) if own.axis != usize::from(*axis) => unchanged(Some(own)),
            _ => Err(("in `concatenate` along them or beside others", first)),
        },
        Op::Gather { batch } => {
            let batch = usize::from(*batch);
            match (made(0), made(1)) {
                (None, Some(indices)) if indices.axis == batch => unchanged(Some(indices.clone())),
                (Some(own), Some(indices)) if own.agrees(indices) && own.axis < batch => {
                    unchanged(Some(own.clone()))
                }
                (Some(own), None) if own.axis > batch => unchanged(Some(own.clone())),
                _ => Err(("in picking by indices", first)),
            }
        }
        Op::Scatter { .. } => Err(("in a write to rows by indices", first)),
        Op::Scan(scan) => {
            let captured = scan.body.sequences..scan.body.inputs();
            let other = (0..operands.len()).find(|i| made(*i).is_some() && !captured.contains(i));
            match other {
                Some(position) if position < captured.start => Err(("as a sequence of a scan", position)),
                Some(position) => Err(("as the initial value of a carry", position)),
                None => unchanged(None),
            }
        }
        Op::Grad(grad) => {
            let variables =
                usize::from(grad.has_cost)..usize::from(grad.has_cost) + usize::from(grad.variables);
            let known = variables.end..variables.end + 2 * usize::from(grad.known);
            match (variables.start..known.end).find(|position| made(*position).is_some()) {
                Some(position) => Err(("as a variable or a cotangent of a gradient", position)),
                None => unchanged(None),
            }
        }
    }
}

/// What exists of operands of equal shape: in each the same rows, or one row repeated.
fn together<'t>(operands: impl Iterator<Item = &'t Tensor> + Clone) -> Option<Made> {
    let mut all = operands.clone().filter_map(Tensor::made);
    let mut own = all.next()?.clone();
    for other in all {
        if !own.agrees(other) {
            return None;
        }
        own.repeats &= other.repeats;
    }
    let mut fixed = operands.filter(|x| x.made().is_none());
    fixed.all(|x| is_repeated(x, own.axis)).then_some(own)
}

/// The same where no row is repeated.
fn together_all(operands: &[Tensor]) -> Option<Made> {
    operands.iter().all(|x| x.made().is_some()).then(|| together(operands.iter()))?
}

/// Whether a tensor is one row, repeated along an axis.
fn is_repeated(x: &Tensor, axis: usize) -> bool {
    let Op::Broadcast { axes, .. } = &x.0.op else { return false };
    match axes.iter().position(|place| usize::from(*place) == axis) {
        None => true,
        Some(own) => x.0.operands[0].ty().shape[own] == Extent::Known(1),
    }
}

fn product(operands: &Operands, site: Site) -> Result<(Operands, Option<Made>), (&'static str, usize)> {
    let rank = operands[0].rank();
    let (rows, inner) = (rank - 2, rank - 1);
    match (operands[0].made(), operands[1].made()) {
        (Some(left), None) if left.axis == rows => Ok((operands.clone(), Some(left.clone()))),
        (None, Some(right)) if right.axis == inner => Ok((operands.clone(), Some(right.clone()))),
        // Each row of a stack by itself.
        (Some(left), Some(right)) if left.axis < rows && left.agrees(right) => {
            let repeats = left.repeats && right.repeats;
            Ok((operands.clone(), Some(Made { repeats, ..left.clone() })))
        }
        // The rows are summed.
        (Some(left), Some(right))
            if left.axis == inner
                && right.at(inner).is_some_and(|r| r.agrees(left))
                && right.axis == rows =>
        {
            let zero = |x: &Tensor| Literal::from_i64(0, x.dtype());
            let left = existing(&operands[0], left, zero(&operands[0]), site);
            let right = existing(&operands[1], right, zero(&operands[1]), site);
            Ok((smallvec![left, right], None))
        }
        (left, _) => {
            Err(("in `dot` beside values of another length, or along two axes", usize::from(left.is_none())))
        }
    }
}

/// Where an axis stands after a reshape that only adds or removes axes of one element.
fn axis_in_view(operands: &Operands, dims: &[Dim], axis: usize) -> Option<usize> {
    let x = &operands[0];
    let mut from = (0..x.rank()).filter(|own| x.ty().shape[*own] != Extent::Known(1));
    let mut scalars = operands[1..].iter();
    let mut place = None;
    for (to, dim) in dims.iter().enumerate() {
        let scalar = if *dim == Dim::Operand { scalars.next() } else { None };
        if *dim == Dim::Known(1) {
            continue;
        }
        let own = from.next()?;
        let same = match (dim, scalar) {
            (Dim::Known(n), _) => x.ty().shape[own] == Extent::Known(*n),
            (Dim::Operand, Some(scalar)) => {
                matches!(scalar.0.op, Op::Extent(a) if usize::from(a) == own)
                    && scalar.0.operands[0].key() == x.key()
            }
            (Dim::Operand, None) => false,
        };
        if !same {
            return None;
        }
        if own == axis {
            place = Some(to);
        }
    }
    if from.next().is_some() { None } else { place }
}

/// The rows that exist, and `identity` in the place of the others.
fn existing(x: &Tensor, made: &Made, identity: Literal, site: Site) -> Tensor {
    let dims = match x.ty().shape[made.axis] {
        Extent::Known(n) => (Dim::Known(n), smallvec![]),
        Extent::Unknown => (Dim::Operand, smallvec![held(x, made.axis, site)]),
    };
    let positions = build(Op::Iota(Box::new([dims.0])), dims.1, site);
    let count = spread_plainly(&made.count(site), &[], 1, Some(&positions), site);
    let exists = build(Op::Map(ScalarFn::Lt), smallvec![positions, count], site);
    let exists = spread_plainly(&exists, &[made.axis], x.rank(), Some(x), site);
    let identity = build(Op::Literal(identity), smallvec![], site);
    let identity = spread_plainly(&identity, &[], x.rank(), Some(x), site);
    build_plainly(Op::Map(ScalarFn::Select), smallvec![exists, x.clone(), identity], None, site)
}

/// `x`, which was repeated to the shape of `like`, with the rows that `like` has.
pub(crate) fn as_in(x: &Tensor, spread: Tensor, places: &[usize], like: &Tensor, site: Site) -> Tensor {
    let Some(made) = like.made() else { return spread };
    let own = places.iter().position(|place| *place == made.axis);
    let fits = match (spread.made(), own) {
        (Some(rows), _) => rows.agrees(made),
        (None, Some(own)) => x.ty().shape[own] == Extent::Known(1),
        (None, None) => true,
    };
    if !fits {
        return refused(
            "as the shape of values of another length",
            like,
            &smallvec![x.clone(), like.clone()],
            site,
        );
    }
    if spread.0.poisoned {
        return spread;
    }
    build_plainly(spread.0.op.clone(), spread.0.operands.clone(), Some(made.clone()), site)
}

impl Tensor {
    /// All the rows that memory holds of a result of a scan that may end early ([`until`](crate::scan::Next::until)): as
    /// many as it may make steps, of which those beyond the last one made repeat that one. Their number is known before
    /// the scan has run. Of any other tensor the tensor itself.
    ///
    /// ```
    /// use hypatia_graph::{compose::All, scan::{Next, Scan}, tensor::scalar};
    /// let x = scalar::<f32>("x");
    /// let doubled = Scan::new().carry(&x).steps(10).run(|step| {
    ///     let next = &step.carries[0] * 2.0;
    ///     Next::new().until(next.gt(100.0)).carry(next)
    /// });
    /// let rows_made = doubled.carries[0].sum(All);
    /// let ten_rows = doubled.carries[0].padded().sum(All);
    /// ```
    #[track_caller]
    pub fn padded(&self) -> Tensor {
        let site = std::panic::Location::caller();
        match self.made() {
            Some(made) if made.repeats && made.less == 0 => self.held_rows(site),
            Some(_) => refused("in `padded` after a slice", self, &smallvec![self.clone()], site),
            None => self.clone(),
        }
    }

    /// The same values, with all rows that memory holds.
    fn held_rows(&self, site: Site) -> Tensor {
        let whole = (0..self.rank()).map(|_| SliceAxis::WHOLE).collect();
        build_plainly(Op::Slice(whole), smallvec![self.clone()], None, site)
    }

    /// The extent along an axis where it is a number of rows made.
    pub(crate) fn rows_made(&self, axis: usize, site: Site) -> Option<Tensor> {
        self.made().filter(|made| made.axis == axis).map(|made| made.count(site))
    }

    /// Which rows exist once these other axes are gone.
    pub(crate) fn made_without(&self, gone: Axes) -> Option<Made> {
        let made = self.made()?;
        made.at(made.axis - gone.iter().filter(|axis| *axis < made.axis).count())
    }

    /// A part of rows that may not exist, if it says something of their axis.
    pub(crate) fn part_of_made(&self, indices: &[Index], site: Site) -> Option<Tensor> {
        let made = self.made()?;
        let index = indices.get(made.axis).filter(|_| indices.len() <= self.rank())?;
        let at = |index: Index| {
            let mut indices = indices.to_vec();
            indices[made.axis] = index;
            indices
        };
        match index {
            Index::Range { start: None, stop: None, step: 1 } => None,
            Index::At(position) => {
                let number = known(position);
                // The first row is there if any is, and the last one held repeats the last one made.
                let simple = made.less == 0 && (number == Some(0) || number == Some(-1) && made.repeats);
                let position = if simple { position.clone() } else { self.checked(made, position, site) };
                Some(self.held_rows(site).index_at(&at(Index::At(position)), site))
            }
            Index::Range { start, stop, step: 1 } => {
                let start_at = start.as_ref().map_or(Some(0), known).filter(|n| *n >= 0);
                let stop_at = stop.as_ref().map_or(Some(None), |stop| known(stop).map(Some));
                let (Some(first), Some(stop_at)) = (start_at, stop_at) else {
                    return Some(refused(
                        "in a slice with such bounds",
                        self,
                        &smallvec![self.clone()],
                        site,
                    ));
                };
                let mut rest = made.clone();
                match stop_at {
                    Some(n) if n < 0 => {
                        rest.less = rest.less.saturating_add(n.saturating_neg());
                        rest.repeats = false;
                    }
                    Some(n) => rest.limit = rest.limit.min(n.saturating_add(made.less)),
                    None => {}
                }
                rest.less = rest.less.saturating_add(first);
                let part = self.held_rows(site).index_at(&at(index.clone()), site);
                if part.0.poisoned {
                    return Some(part);
                }
                let gone = indices[..made.axis].iter().filter(|index| matches!(index, Index::At(_))).count();
                let rest = rest.at(made.axis - gone);
                Some(build_plainly(part.0.op.clone(), part.0.operands.clone(), rest, site))
            }
            Index::Range { .. } => {
                Some(refused("in a slice with a step", self, &smallvec![self.clone()], site))
            }
        }
    }

    /// A position among the rows made as one among those held; one that does not exist is out of range there too.
    fn checked(&self, made: &Made, position: &Size, site: Site) -> Size {
        let position = match position {
            Size::Number(n) => integer(*n, site),
            Size::Tensor(t) => t.cast(DType::I64),
        };
        let (count, zero) = (made.count(site), integer(0, site));
        let from_end = of_scalars(ScalarFn::Add, [position.clone(), count.clone()], site);
        let is_negative = of_scalars(ScalarFn::Lt, [position.clone(), zero.clone()], site);
        let position = of_scalars(ScalarFn::Select, [is_negative, from_end, position], site);
        let from_first = of_scalars(ScalarFn::Ge, [position.clone(), zero], site);
        let to_last = of_scalars(ScalarFn::Lt, [position.clone(), count], site);
        let exists = of_scalars(ScalarFn::And, [from_first, to_last], site);
        let beyond = held(self, made.axis, site);
        Size::Tensor(of_scalars(ScalarFn::Select, [exists, position, beyond], site))
    }
}

/// A bound that is a number.
fn known(size: &Size) -> Option<i64> {
    match size {
        Size::Number(n) => Some(*n),
        Size::Tensor(t) => {
            if let Op::Literal(value) = t.0.op {
                value.to_i64()
            } else {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
