//! Where elements stand: axes of extent 1, axes that change places, copies side by side, padding.
//!
//! All are views but for [`Tensor::pad`], which writes once. Extents may be unknown and numbers of copies symbolic.
//! Deliberately absent: copies of a different number for each element, which are [`Tensor::take`].

use super::*;
use crate::index::Index;

/// What stands in the margins that [`Tensor::pad`] adds to an axis `a b c`.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Padding {
    /// A number, which the element type must have: `0 0 a b c 0 0`.
    Constant(f64),
    /// The element at the edge: `a a a b c c c`.
    Edge,
    /// The axis mirrored at the centre of its first and last element: `c b a b c b a`.
    Reflect,
    /// The axis mirrored at its edges: `b a a b c c b`.
    Symmetric,
    /// The axis again and again: `b c a b c a b`.
    Wrap,
}

impl Tensor {
    /// Without these axes, whose extents are 1; with [`All`], a scalar.
    #[track_caller]
    pub fn squeeze(&self, axes: impl AxisSet) -> Tensor {
        let site = Location::caller();
        let set = match axes.axes(self.rank()) {
            Ok(set) => set,
            Err(message) => return mistake(self, format!("`squeeze`: {message}"), site),
        };
        let is_longer = |axis: &usize| self.ty().shape[*axis].known().is_some_and(|extent| extent != 1);
        if let Some(axis) = set.iter().find(is_longer) {
            let found = self.ty().shape[axis];
            let message = format!("`squeeze` expected an extent of 1 at axis {axis}, found {found}");
            return mistake(self, message, site);
        }
        if set.is_empty() { self.clone() } else { squeeze_axes(self, set, site) }
    }

    /// With an axis of extent 1 that becomes axis `axis` of the result.
    #[track_caller]
    pub fn expand_dims(&self, axis: i64) -> Tensor {
        let site = Location::caller();
        let rank = self.rank() + 1;
        match resolve_axis(axis, rank) {
            Ok(new) => {
                let places: Vec<usize> = (0..rank).filter(|place| *place != new).collect();
                spread(self, &places, rank, None, site)
            }
            Err(message) => mistake(self, format!("`expand_dims`: {message}"), site),
        }
    }

    /// Two axes change places.
    #[track_caller]
    pub fn swapaxes(&self, first: i64, second: i64) -> Tensor {
        let site = Location::caller();
        let resolved =
            resolve_axis(first, self.rank()).and_then(|a| Ok((a, resolve_axis(second, self.rank())?)));
        match resolved {
            Ok((a, b)) => self.with_swapped(a, b, site),
            Err(message) => mistake(self, format!("`swapaxes`: {message}"), site),
        }
    }

    fn with_swapped(&self, a: usize, b: usize, site: Site) -> Tensor {
        let mut permutation: SmallVec<[u8; 8]> = (0..self.rank() as u8).collect();
        permutation.swap(a, b);
        if a == b { self.clone() } else { build(Op::Permute(permutation), smallvec![self.clone()], site) }
    }

    /// Each element so many times, one copy beside the other along an axis: `a b` twice is `a a b b`.
    #[track_caller]
    pub fn repeat(&self, times: impl Into<Size>, axis: i64) -> Tensor {
        let site = Location::caller();
        match resolve_axis(axis, self.rank()) {
            Ok(axis) => self.copied("repeat", axis, axis + 1, times.into(), site),
            Err(message) => mistake(self, format!("`repeat`: {message}"), site),
        }
    }

    /// The whole so many times along each axis: `a b` twice is `a b a b`. The numbers are aligned with the last axes; more
    /// numbers than axes make new axes in front.
    #[track_caller]
    pub fn tile<S: Into<Size>>(&self, times: impl IntoIterator<Item = S>) -> Tensor {
        let site = Location::caller();
        let times: Vec<Size> = times.into_iter().map(Into::into).collect();
        let rank = self.rank().max(times.len());
        let places: Vec<usize> = (rank - self.rank()..rank).collect();
        let all = if rank > self.rank() { spread(self, &places, rank, None, site) } else { self.clone() };
        let first = rank - times.len();
        times.into_iter().enumerate().fold(all, |tiled, (number, times)| match &times {
            Size::Number(1) => tiled,
            Size::Number(_) | Size::Tensor(_) => {
                tiled.copied("tile", first + number, first + number, times, site)
            }
        })
    }

    /// Copies of an axis: they stand along an axis of their own at `place`, which is then joined with `axis`.
    fn copied(&self, what: &str, axis: usize, place: usize, times: Size, site: Site) -> Tensor {
        let rank = self.rank() + 1;
        let mut operands: SmallVec<[Tensor; 2]> = smallvec![self.clone()];
        let mut dims = Vec::new();
        for new in 0..rank {
            dims.push(if new == place {
                match times.dim(what, &mut operands) {
                    Ok(dim) => dim,
                    Err(message) => return mistake(self, message, site),
                }
            } else {
                dim_of(self, if new < place { new } else { new - 1 }, &mut operands, site)
            });
        }
        let axes = (0..rank).filter(|new| *new != place).map(|new| new as u8).collect();
        let copies = build(Op::Broadcast { axes, dims: dims.into() }, operands, site);
        let joined = |own: usize| match (self.ty().shape[own], &times) {
            (Extent::Known(n), _) if own != axis => Size::from(n),
            (Extent::Known(n), Size::Number(times)) => Size::from(n.saturating_mul(*times as usize)),
            (_, Size::Tensor(times)) if own == axis => {
                Size::Tensor(self.extent(own) * times.cast(DType::I64))
            }
            (_, Size::Number(times)) if own == axis => Size::Tensor(self.extent(own) * *times),
            _ => Size::Tensor(self.extent(own)),
        };
        copies.reshape((0..self.rank()).map(joined))
    }

    /// With margins of so many elements before and after each axis.
    #[track_caller]
    pub fn pad(&self, margins: &[(usize, usize)], padding: Padding) -> Tensor {
        let site = Location::caller();
        if margins.len() != self.rank() {
            let message = format!("`pad` expected the margins of {} axes, found {margins:?}", self.rank());
            return mistake(self, message, site);
        }
        if let Padding::Constant(value) = padding {
            return self.padded_with(value, margins, site);
        }
        let padded = margins.iter().enumerate().filter(|(_, margins)| **margins != (0, 0));
        if let Some((axis, _)) = padded.clone().find(|(axis, _)| self.ty().shape[*axis] == Extent::Known(0)) {
            let message = format!("`pad` expected elements to copy along axis {axis}, found an extent of 0");
            return mistake(self, message, site);
        }
        padded.fold(self.clone(), |result, (axis, &(before, after))| {
            let n = result.extent(axis);
            let length = &n + (before + after) as i64;
            let position = arange(length) - before as i64;
            let inside = match padding {
                Padding::Edge => position.clip(0, &n - 1),
                // A single element is its own mirror image.
                Padding::Reflect => mirrored(&position, &((&n - 1) * 2).maximum(1), 0),
                Padding::Symmetric => mirrored(&position, &(&n * 2), 1),
                Padding::Wrap | Padding::Constant(_) => position % n,
            };
            result.with_swapped(0, axis, site).take(inside).with_swapped(0, axis, site)
        })
    }

    fn padded_with(&self, value: f64, margins: &[(usize, usize)], site: Site) -> Tensor {
        if let Err(fault) = number_as(value.into(), self.dtype(), "pad") {
            return faulty(fault, smallvec![self.clone()], self.ty().clone(), site);
        }
        if margins.iter().all(|margins| *margins == (0, 0)) {
            return self.clone();
        }
        let (mut extents, mut inside) = (Vec::new(), Vec::new());
        for (axis, &(before, after)) in margins.iter().enumerate() {
            let (length, stop) = match self.ty().shape[axis] {
                Extent::Known(n) => (Size::from(n + before + after), Size::from(n + before)),
                Extent::Unknown => {
                    let stop = self.extent(axis) + before as i64;
                    (Size::Tensor(&stop + after as i64), Size::Tensor(stop))
                }
            };
            extents.push(length);
            inside.push(Index::Range { start: Some(before.into()), stop: Some(stop), step: 1 });
        }
        full(value, self.dtype(), extents).set_index(inside, self)
    }
}

/// Positions of an axis that is followed by its mirror image again and again; position `-shared` is the image of 0.
fn mirrored(position: &Tensor, period: &Tensor, shared: i64) -> Tensor {
    let within = position % period;
    within.minimum(period - shared - &within)
}
