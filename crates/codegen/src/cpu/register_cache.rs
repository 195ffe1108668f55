//! Elements of memory that are in registers while straight code is emitted.
//!
//! Memory is divided into spaces, which do not overlap; an element is known by its space and its offset. What was loaded or
//! stored is known until something is stored over it. Elements of a space that outlives a step of a scan may be asked for
//! before they are stored: each is then a variable, which whoever emits the scan defines before the scan and at the end of a
//! step. Nothing here emits a store: memory always holds everything.

use std::collections::BTreeMap;
use std::ops::Range;

use cranelift_codegen::ir::{InstBuilder, Type, Value as Ir};
use cranelift_frontend::{FunctionBuilder, Variable};

/// An element of memory.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CachedElement {
    /// The space.
    pub(super) space: usize,
    /// Bytes from the beginning of the space.
    pub(super) offset: i64,
}

/// An element as it is when a step begins.
#[derive(Copy, Clone)]
pub(super) struct Begin {
    /// Which.
    pub(super) element: CachedElement,
    /// As what it is loaded: one element or four.
    pub(super) ty: Type,
    /// Its value when the step begins.
    pub(super) variable: Variable,
}

/// What is in registers.
#[derive(Default)]
pub(super) struct RegisterCache {
    values: BTreeMap<CachedElement, Vec<(Type, Ir)>>,
    /// What was stored since the step began.
    written: Vec<(usize, Range<i64>)>,
    /// Whether elements of a space outlive a step.
    lasting: Vec<bool>,
    begins: Vec<Begin>,
}

impl RegisterCache {
    /// A new space; whether what lies in it when a step begins can be defined as a variable.
    pub(super) fn add_space(&mut self, lasting: bool) -> usize {
        self.lasting.push(lasting);
        self.lasting.len() - 1
    }

    /// The elements that were asked for as they are when a step begins.
    pub(super) fn begins(&self) -> &[Begin] {
        &self.begins
    }

    /// The value of an element, or of four from there.
    pub(super) fn get(
        &mut self,
        b: &mut FunctionBuilder<'_>,
        element: CachedElement,
        ty: Type,
    ) -> Option<Ir> {
        let value = self
            .exactly(element, ty)
            .or_else(|| self.lane(b, element, ty))
            .or_else(|| self.begin(b, element, ty))?;
        self.learn(element, ty, value);
        Some(value)
    }

    fn exactly(&self, element: CachedElement, ty: Type) -> Option<Ir> {
        let known = self.values.get(&element)?;
        known.iter().find(|(known, _)| *known == ty).map(|(_, value)| *value)
    }

    /// A lane of a vector that is known.
    fn lane(&self, b: &mut FunctionBuilder<'_>, element: CachedElement, ty: Type) -> Option<Ir> {
        let vector = ty.by(4).filter(|_| ty.bits() == 32)?;
        (0..4u8).find_map(|lane| {
            let offset = element.offset - 4 * i64::from(lane);
            let whole = self.exactly(CachedElement { offset, ..element }, vector)?;
            Some(b.ins().extractlane(whole, lane))
        })
    }

    fn begin(&mut self, b: &mut FunctionBuilder<'_>, element: CachedElement, ty: Type) -> Option<Ir> {
        let bytes = range(element, ty);
        let overwritten = |(space, range): &(usize, Range<i64>)| {
            *space == element.space && range.start < bytes.end && bytes.start < range.end
        };
        if !self.lasting[element.space] || self.written.iter().any(overwritten) {
            return None;
        }
        let known = self.begins.iter().find(|begin| begin.element == element && begin.ty == ty);
        let variable = match known {
            Some(begin) => begin.variable,
            None => {
                let variable = b.declare_var(ty);
                self.begins.push(Begin { element, ty, variable });
                variable
            }
        };
        Some(b.use_var(variable))
    }

    /// Takes note of a value that was loaded.
    pub(super) fn learn(&mut self, element: CachedElement, ty: Type, value: Ir) {
        let known = self.values.entry(element).or_default();
        if known.iter().all(|(known, _)| *known != ty) {
            known.push((ty, value));
        }
    }

    /// Takes note of a value that was stored.
    pub(super) fn set(&mut self, element: CachedElement, ty: Type, value: Ir) {
        let bytes = range(element, ty);
        // No type is longer than 16 bytes.
        let near = CachedElement { offset: bytes.start - 16, ..element }..CachedElement {
            offset: bytes.end,
            ..element
        };
        for (at, known) in self.values.range_mut(near) {
            known.retain(|(ty, _)| range(*at, *ty).end <= bytes.start || bytes.end <= at.offset);
        }
        self.written.push((element.space, bytes));
        self.learn(element, ty, value);
    }

    /// After a store somewhere in a space.
    pub(super) fn forget(&mut self, space: usize) {
        self.values.retain(|element, _| element.space != space);
        self.written.push((space, i64::MIN..i64::MAX));
    }
}

fn range(element: CachedElement, ty: Type) -> Range<i64> {
    element.offset..element.offset + i64::from(ty.bytes())
}
