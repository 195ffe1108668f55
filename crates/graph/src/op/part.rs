//! Extents given to operators, and the parts of tensors that they read or write: NumPy's slices, and the windows that
//! specialisation makes of them.

use smallvec::{SmallVec, smallvec};

use crate::diagnostic::Diagnostic;

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

/// `n` known extents as operator attributes.
pub fn known_dims(shape: &[usize]) -> Dims {
    shape.iter().map(|&n| Dim::Known(n)).collect()
}

/// How a part is written.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Write {
    /// The old elements are replaced.
    Set,
    /// The new ones are added to the old.
    Add,
}
