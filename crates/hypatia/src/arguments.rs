//! The arguments of a call: which they are, whether they fit, and which executable is for them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hypatia_graph::array::Extents;
use hypatia_graph::leaf::Leaf;
use hypatia_graph::specialise::Arguments;
use hypatia_graph::{Array, Diagnostic, Diagnostics, LeafId, TensorType};
use smallvec::SmallVec;

/// An input of a function.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) leaf: Arc<Leaf>,
    pub(crate) default: Option<Array>,
}

pub(crate) fn check_defaults(inputs: &[Input]) -> Result<(), Diagnostics> {
    let wrong = inputs.iter().find_map(|input| {
        let default = input.default.as_ref()?;
        let found = TensorType::known(default.dtype(), default.shape());
        (!input.leaf.ty.accepts(&found)).then(|| {
            Diagnostic::new(format!("the default of {} has another type than the input", input.leaf.label()))
                .at(input.leaf.site)
                .with("expected", input.leaf.ty.to_string(), input.leaf.site)
                .with("found", found.to_string(), None)
        })
    });
    wrong.map_or(Ok(()), |fault| Err(fault.into()))
}

/// The arguments with the defaults of those left out at the end.
pub(crate) fn with_defaults<'a>(
    inputs: &'a [Input],
    arguments: &[&'a Array],
) -> Result<SmallVec<[&'a Array; 8]>, Diagnostic> {
    let mut all: SmallVec<[&Array; 8]> = SmallVec::from(arguments);
    all.extend(inputs.iter().skip(arguments.len()).map_while(|input| input.default.as_ref()));
    if all.len() == inputs.len() {
        return Ok(all);
    }
    let required = inputs.iter().filter(|i| i.default.is_none()).count();
    let expected = if required == inputs.len() {
        required.to_string()
    } else {
        format!("{required} to {}", inputs.len())
    };
    let mut fault =
        Diagnostic::new(format!("the function takes {expected} arguments, found {}", arguments.len()));
    for input in inputs {
        fault = fault.with("input", format!("{} {}", input.leaf.ty, input.leaf.label()), input.leaf.site);
    }
    Err(fault)
}

/// An error if an argument does not fit its input.
pub(crate) fn check_arguments(inputs: &[Input], arguments: &[&Array]) -> Result<(), Diagnostic> {
    for (input, argument) in inputs.iter().zip(arguments) {
        let declared = &input.leaf.ty;
        let fits = declared.dtype == argument.dtype()
            && declared.rank() == argument.rank()
            && declared
                .shape
                .iter()
                .zip(argument.shape())
                .all(|(e, n)| e.known().is_none_or(|known| known == *n));
        if !fits {
            let found = TensorType::known(argument.dtype(), argument.shape());
            let fault = Diagnostic::new(format!("an argument does not fit the input {}", input.leaf.label()))
                .with("expected", declared.to_string(), input.leaf.site)
                .with("found", found.to_string(), None);
            let hint = declared.dtype != argument.dtype() && declared.rank() == argument.rank();
            return Err(if hint {
                fault.hint(format!("convert it: `.cast(DType::{:?})`", declared.dtype))
            } else {
                fault
            });
        }
    }
    Ok(())
}

/// Whether an executable's key is that of these arguments.
pub(crate) fn fits(key: &Arguments, inputs: &[Input], needs: &[LeafId], arguments: &[&Array]) -> bool {
    inputs.iter().zip(arguments).all(|(input, argument)| {
        key.shapes.get(&input.leaf.id).is_none_or(|shape| shape.as_slice() == argument.shape())
            && key.values.get(&input.leaf.id).is_none_or(|value| argument.get(0).to_i64() == Some(*value))
    }) && key.values.len() == needs.len()
}

/// The value that the key of these arguments has for an input.
fn needed(input: &Input, needs: &[LeafId], argument: &Array) -> Option<i64> {
    // Only integer scalars are ever needed; another argument may be empty.
    let needed = needs.contains(&input.leaf.id) && argument.rank() == 0;
    needed.then(|| argument.get(0).to_i64()).flatten()
}

/// The hash of the key of these arguments.
pub(crate) fn hash(hasher: &RandomState, inputs: &[Input], needs: &[LeafId], arguments: &[&Array]) -> u64 {
    let given = inputs.iter().zip(arguments).map(|(input, argument)| {
        let shape = (!input.leaf.ty.is_known()).then(|| argument.shape());
        (shape, needed(input, needs, argument))
    });
    hash_key(hasher, given)
}

/// The hash of the shapes and values that a key has for each input.
pub(crate) fn hash_key<'a>(
    hasher: &RandomState,
    given: impl Iterator<Item = (Option<&'a [usize]>, Option<i64>)>,
) -> u64 {
    let mut hasher = hasher.build_hasher();
    given.for_each(|each| each.hash(&mut hasher));
    hasher.finish()
}

pub(crate) fn key_of(inputs: &[Input], needs: &[LeafId], arguments: &[&Array]) -> Arguments {
    let mut key = Arguments::default();
    for (input, argument) in inputs.iter().zip(arguments) {
        if !input.leaf.ty.is_known() {
            key.shapes.insert(input.leaf.id, Extents::from(argument.shape()));
        }
        if let Some(value) = needed(input, needs, argument) {
            key.values.insert(input.leaf.id, value);
        }
    }
    key
}
