//! Rare code: formulas that a strip needs only where a lane has an unusual operand, after the end of a function.
//!
//! Every value has a place on the stack, and each node loads its operands and stores its result, so registers are those of
//! the code around. The few that are used are saved and restored.

use super::allocate::{Function, RareUse};
use super::encode::*;
use super::strip::{Class, Id, Node};

/// Registers that rare code uses: three vectors and two masks.
const VECTORS: [u8; 3] = [0, 1, 2];
const MASKS: [u8; 2] = [2, 3];

/// Places on the stack, which all uses share.
struct Places {
    vectors: [i32; 3],
    masks: [i32; 2],
    /// The mask, the two operands, and the usual result, which becomes the result.
    mask: i32,
    operands: [i32; 2],
    result: i32,
    /// One for each node of the longest code.
    nodes: Vec<i32>,
}

/// Emits the rare code of each use; `None` if a node is not one of rare code.
pub(super) fn emit_rare_code(function: &mut Function<'_>) -> Option<()> {
    let uses = std::mem::take(&mut function.rare);
    if uses.is_empty() {
        return Some(());
    }
    let longest = function.strip.rare.iter().map(|code| code.nodes.len()).max()?;
    let frame = &mut function.frame;
    let places = Places {
        vectors: VECTORS.map(|_| frame.vector()),
        masks: MASKS.map(|_| frame.vector()),
        mask: frame.vector(),
        operands: [frame.vector(), frame.vector()],
        result: frame.vector(),
        nodes: (0..longest).map(|_| frame.vector()).collect(),
    };
    for each in &uses {
        let code = &function.strip.rare[usize::from(each.code)];
        Emitter { function, places: &places, nodes: &code.nodes }.emit(each, code.result)?;
    }
    Some(())
}

struct Emitter<'e, 'a> {
    function: &'e mut Function<'a>,
    places: &'e Places,
    nodes: &'a [Node],
}

impl Emitter<'_, '_> {
    fn emit(&mut self, each: &RareUse, result: Id) -> Option<()> {
        let places = self.places;
        self.function.asm.place(each.entry);
        self.store_vector(each.operands[0], places.operands[0]);
        self.store_vector(each.operands[1], places.operands[1]);
        self.store_vector(each.usual, places.result);
        self.store_mask(each.mask, places.mask);
        for (register, place) in VECTORS.into_iter().zip(places.vectors) {
            self.store_vector(register, place);
        }
        for (register, place) in MASKS.into_iter().zip(places.masks) {
            self.store_mask(register, place);
        }
        for position in 0..self.nodes.len() {
            self.node(position)?;
        }
        let ([usual, found, _], [mask, _]) = (VECTORS, MASKS);
        self.load_vector(usual, places.result);
        self.load(found, result);
        self.load_mask(mask, places.mask);
        let last = Operand::Register(found);
        self.function.asm.vector(VMOVAPS, usual, 0, last, Masking::Merge(mask), None);
        self.store_vector(usual, places.result);
        for (register, place) in VECTORS.into_iter().zip(places.vectors) {
            self.load_vector(register, place);
        }
        for (register, place) in MASKS.into_iter().zip(places.masks) {
            self.load_mask(register, place);
        }
        self.load_vector(each.result, places.result);
        self.function.asm.jump(each.back);
        Some(())
    }

    /// Computes a node into its place.
    fn node(&mut self, position: usize) -> Option<()> {
        let ([d, x1, x2], [k, k1]) = (VECTORS, MASKS);
        let node = self.nodes[position];
        match node {
            Node::Constant(_) | Node::Operand(_) => return Some(()),
            Node::Unary(form, x, immediate) => {
                self.load(d, x);
                self.function.asm.vector(form, d, 0, Operand::Register(d), Masking::All, immediate);
            }
            Node::Shift(extension, x, count) => {
                self.load(d, x);
                let last = Operand::Register(d);
                self.function.asm.vector(SHIFT_DWORDS, extension, d, last, Masking::All, Some(count));
            }
            Node::Binary(form, x, y) => {
                self.load(d, x);
                self.load(x1, y);
                self.function.asm.vector(form, d, d, Operand::Register(x1), Masking::All, None);
            }
            Node::Fma(x, y, z) => {
                self.load(d, z);
                self.load(x1, x);
                self.load(x2, y);
                self.function.asm.vector(VFMADD231PS, d, x1, Operand::Register(x2), Masking::All, None);
            }
            Node::Select(mask, x, y) => {
                self.load(k, mask);
                self.load(d, y);
                self.load(x1, x);
                self.function.asm.vector(VBLENDMPS, d, d, Operand::Register(x1), Masking::Merge(k), None);
            }
            Node::Compare(form, x, y, predicate) => {
                self.load(d, x);
                self.load(x1, y);
                let last = Operand::Register(x1);
                self.function.asm.vector(form, k, d, last, Masking::All, Some(predicate));
            }
            Node::Test(x) => {
                self.load(d, x);
                self.function.asm.vector(VPTESTMD, k, d, Operand::Register(d), Masking::All, None);
            }
            Node::MaskBinary(form, x, y) => {
                self.load(k, x);
                self.load(k1, y);
                self.function.asm.vex(form, k, k, Operand::Register(k1), None);
            }
            Node::MaskNot(x) => {
                self.load(k, x);
                self.function.asm.vex(KNOTW, k, 0, Operand::Register(k), None);
            }
            // Rare code has lanes only.
            Node::Rarely { .. }
            | Node::Load(..)
            | Node::LoadQuad(..)
            | Node::Gather(..)
            | Node::Position(_)
            | Node::Offset(..)
            | Node::Check(..)
            | Node::Store(..)
            | Node::Accumulate(..) => return None,
        }
        let place = self.places.nodes[position];
        match node.class() {
            Class::Mask => self.store_mask(k, place),
            Class::Vector | Class::Scalar | Class::Effect => self.store_vector(d, place),
        }
        Some(())
    }

    /// A node's value in a register of its class.
    fn load(&mut self, register: u8, id: Id) {
        let node = self.nodes[id.index()];
        match node {
            Node::Constant(constant) => self.function.load_constant(register, constant),
            Node::Operand(number) => self.load_vector(register, self.places.operands[usize::from(number)]),
            _ if node.class() == Class::Mask => self.load_mask(register, self.places.nodes[id.index()]),
            _ => self.load_vector(register, self.places.nodes[id.index()]),
        }
    }

    fn load_vector(&mut self, register: u8, place: i32) {
        self.function.asm.vector(VMOVUPS, register, 0, Memory::at(RSP, place), Masking::All, None);
    }

    fn store_vector(&mut self, register: u8, place: i32) {
        self.function.asm.vector(VMOVUPS_STORE, register, 0, Memory::at(RSP, place), Masking::All, None);
    }

    fn load_mask(&mut self, register: u8, place: i32) {
        self.function.asm.vex(KMOVW, register, 0, Memory::at(RSP, place), None);
    }

    fn store_mask(&mut self, register: u8, place: i32) {
        self.function.asm.vex(KMOVW_STORE, register, 0, Memory::at(RSP, place), None);
    }
}
