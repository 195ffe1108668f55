//! What is learnt, by name.

use hypatia::{Extent, Shared, Size, Tensor};

/// A shared variable of a model, and its name in checkpoints and messages.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name.
    pub name: String,
    /// The variable.
    pub shared: Shared,
}

impl Parameter {
    /// A parameter.
    #[must_use]
    pub fn new(name: impl Into<String>, shared: &Shared) -> Self {
        Self { name: name.into(), shared: shared.clone() }
    }

    /// Names for variables, one each.
    #[must_use]
    pub fn list<'a>(names: &[&str], shared: impl IntoIterator<Item = &'a Shared>) -> Vec<Self> {
        names.iter().zip(shared).map(|(name, shared)| Self::new(*name, shared)).collect()
    }
}

/// The extents of a tensor as sizes of another one, those that are known as numbers.
#[track_caller]
pub(crate) fn sizes(of: &Tensor) -> Vec<Size> {
    let size = |(axis, extent): (usize, &Extent)| match extent {
        Extent::Known(n) => Size::from(*n),
        Extent::Unknown => Size::from(of.extent(axis)),
    };
    of.ty().shape.iter().enumerate().map(size).collect()
}

/// The extents of a shared variable: its value has them, so all are known.
#[must_use]
pub fn extents(variable: &Shared) -> Vec<usize> {
    variable.ty().shape.iter().filter_map(|extent| extent.known()).collect()
}
