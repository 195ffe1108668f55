//! Types of tensors: element type and extents, each known or not yet known.
//!
//! The rank is always known. An extent is unknown only while expressions are built: [`crate::specialise`] replaces
//! every one of them before differentiation, rewriting and code generation see the graph.

use std::fmt;

use smallvec::SmallVec;

use crate::array::{Extents, fits_in_memory};
use crate::diagnostic::Diagnostic;
use crate::dtype::DType;

/// The highest rank of a tensor.
pub const MAX_RANK: usize = 8;

/// The length of one axis.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Extent {
    /// Fixed.
    Known(usize),
    /// Depends on an argument of the function.
    Unknown,
}

impl Extent {
    /// The length, where it is known.
    pub fn known(self) -> Option<usize> {
        match self {
            Extent::Known(n) => Some(n),
            Extent::Unknown => None,
        }
    }

    /// The extent that both must have; `None` where they differ for certain.
    pub fn unify(self, other: Extent) -> Option<Extent> {
        match (self, other) {
            (Extent::Unknown, e) | (e, Extent::Unknown) => Some(e),
            (a, b) => (a == b).then_some(a),
        }
    }
}

impl From<usize> for Extent {
    fn from(n: usize) -> Extent {
        Extent::Known(n)
    }
}

impl From<Option<usize>> for Extent {
    fn from(n: Option<usize>) -> Extent {
        n.map_or(Extent::Unknown, Extent::Known)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Known(n) => write!(f, "{n}"),
            Extent::Unknown => f.write_str("?"),
        }
    }
}

/// Element type and extents of a tensor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TensorType {
    /// Type of the elements.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: SmallVec<[Extent; 4]>,
}

impl TensorType {
    /// A type with all extents known.
    pub fn known(dtype: DType, shape: &[usize]) -> TensorType {
        TensorType { dtype, shape: shape.iter().map(|&n| Extent::Known(n)).collect() }
    }

    /// A type from extents.
    pub fn new(dtype: DType, shape: &[Extent]) -> TensorType {
        TensorType { dtype, shape: shape.into() }
    }

    /// The type of a rank-0 tensor.
    pub fn scalar(dtype: DType) -> TensorType {
        TensorType { dtype, shape: SmallVec::new() }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The extents, where all are known.
    pub fn extents(&self) -> Option<Extents> {
        self.shape.iter().map(|e| e.known()).collect()
    }

    /// Whether all extents are known.
    pub fn is_known(&self) -> bool {
        self.shape.iter().all(|e| e.known().is_some())
    }

    /// The number of elements, where all extents are known and the number is one that a `usize` holds.
    pub fn element_count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(extent.known()?))
    }

    /// What is wrong with the type whatever its unknown extents are: too many axes, or more elements than memory has
    /// addresses for.
    pub fn fault(&self) -> Option<Diagnostic> {
        if self.rank() > MAX_RANK {
            let title = format!("a tensor has at most {MAX_RANK} axes, found {}", self.rank());
            return Some(Diagnostic::new(title));
        }
        let known: Extents = self.shape.iter().filter_map(|extent| extent.known()).collect();
        if fits_in_memory(&known) {
            return None;
        }
        let fault = Diagnostic::new("a tensor of more elements than memory can hold");
        Some(fault.with("found", self.to_string(), None))
    }

    /// The same shape with another element type.
    pub fn with_dtype(&self, dtype: DType) -> TensorType {
        TensorType { dtype, shape: self.shape.clone() }
    }

    /// Whether a value of type `other` may stand where this is expected: same element type and rank, and no extent
    /// that differs for certain.
    pub fn accepts(&self, other: &TensorType) -> bool {
        self.dtype == other.dtype
            && self.rank() == other.rank()
            && self.shape.iter().zip(&other.shape).all(|(a, b)| a.unify(*b).is_some())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (axis, extent) in self.shape.iter().enumerate() {
            write!(f, "{}{extent}", if axis > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

/// A set of axes below [`MAX_RANK`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Axes(u16);

impl Axes {
    /// No axis.
    pub const NONE: Axes = Axes(0);

    /// All axes of a tensor of that rank.
    pub fn all(rank: usize) -> Axes {
        (0..rank).collect()
    }

    /// One axis.
    pub fn one(axis: usize) -> Axes {
        Axes(1 << axis)
    }

    /// Whether the axis is in the set.
    pub fn contains(self, axis: usize) -> bool {
        self.0 >> axis & 1 == 1
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The number of axes in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The axes in rising order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = usize> {
        (0..MAX_RANK).filter(move |&axis| self.contains(axis))
    }

    /// The axes of a tensor of that rank that are not in the set, in rising order.
    pub fn others(self, rank: usize) -> impl DoubleEndedIterator<Item = usize> {
        (0..rank).filter(move |&axis| !self.contains(axis))
    }
}

impl FromIterator<usize> for Axes {
    fn from_iter<I: IntoIterator<Item = usize>>(axes: I) -> Axes {
        Axes(axes.into_iter().fold(0, |set, axis| set | 1 << axis))
    }
}

impl fmt::Debug for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
