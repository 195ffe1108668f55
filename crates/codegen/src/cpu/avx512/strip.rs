//! A kernel's body as straight-line code on strips: 16 lanes in a vector register, 16 truth values in a mask register.
//!
//! [`record`] translates the body into [`Node`]s, each one machine instruction or a short fixed sequence; the float32
//! functions of [`hypatia_graph::math`] are recorded through [`Arith`]. Every node has a level: how many loops of the
//! [`Nest`] it lies in, so loop-invariant nodes are hoisted by construction. Below the strip loop a node is computed for
//! each strip, above it all lanes are equal.
//!
//! Always true: a node's operands come before it, at the same or an outer level. `i32`, `u8` and those `i64` values that
//! are known to fit are 32-bit lanes (`u8` in 0..=255); `bool` values are masks. What does not fit is refused.

use hypatia_graph::math::{Arith, Floats, Integers, Masks, Rare};
use hypatia_graph::scalar::{Applied, AppliedInteger, Domain};
use hypatia_graph::{DType, Fold, Literal, ScalarFn};
use smallvec::SmallVec;

use super::encode::*;
use super::nest::Nest;
use crate::kernel::{Address, Affine, Instruction, LoopKernel, Store, StoreKind, Value};

/// A node.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Id(pub(super) u32);

impl Id {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A pointer (or position) that the outer loops advance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Group {
    /// The buffer; none for a position.
    pub(super) param: Option<u16>,
    /// Bytes (or positions) from one iteration to the next, for each loop of the nest; 0 for the strip loop.
    pub(super) steps: SmallVec<[i64; 4]>,
    /// Run-time starts with their factors in bytes (or positions).
    pub(super) starts: SmallVec<[(u16, i64); 1]>,
}

/// Elements of a buffer, one for each lane.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Access {
    pub(super) group: usize,
    /// Bytes (or positions) from the group's pointer.
    pub(super) displacement: i32,
    /// Elements from one lane to the next.
    pub(super) stride: i32,
    /// Bytes of an element; 1 for a position.
    pub(super) size: i32,
    /// A node with further bytes, equal in all lanes.
    pub(super) offset: Option<Id>,
}

/// How elements are kept in memory and in registers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Element {
    /// `f32`, `i32`: 32-bit lanes.
    Word,
    /// `u8`: 32-bit lanes.
    Byte,
    /// `bool`: a mask.
    Truth,
    /// `i64`: 32-bit lanes.
    Quad,
}

/// How a 64-bit integer becomes a 32-bit lane.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Narrowing {
    /// The low bits.
    Wrap,
    /// The nearest 32-bit integer.
    Saturate,
}

/// How a fold joins a value to what it has.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Join {
    /// By that instruction.
    Plain(Form),
    /// By that minimum or maximum, keeping NaN and ordering zeros by their signs.
    Float(Form),
}

/// An accumulator of a fold.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) struct Accumulator {
    pub(super) join: Join,
    /// Bits of the value of nothing.
    pub(super) identity: u32,
    /// Where the result goes.
    pub(super) access: Access,
    pub(super) element: Element,
}

/// A constant vector.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Constant {
    /// The same bits in all lanes.
    Splat(u32),
    /// The lane's number times that.
    Lanes(i32),
}

/// One step of the straight-line code.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) enum Node {
    /// A constant, never computed: read where it is needed.
    Constant(Constant),
    /// An operand of [`RareCode`], by its number.
    Operand(u8),
    /// What rare code of that number makes of the two operands in the lanes of the mask, elsewhere the last.
    Rarely { code: u16, mask: Id, operands: [Id; 2], usual: Id },
    /// Elements of a buffer.
    Load(Access, Element),
    /// 64-bit elements, narrowed.
    LoadQuad(Access, Narrowing),
    /// 32-bit elements at a distance (in elements) that is different in each lane.
    Gather(Access, Id),
    /// A position in the iteration space.
    Position(Access),
    /// A node's first lane times that many, as scalar.
    Offset(Id, i32),
    /// An instruction with one source and perhaps an immediate.
    Unary(Form, Id, Option<u8>),
    /// A shift: opcode extension, source, count.
    Shift(u8, Id, u8),
    /// An instruction with two sources.
    Binary(Form, Id, Id),
    /// `x y + z`.
    Fma(Id, Id, Id),
    /// A choice by a mask.
    Select(Id, Id, Id),
    /// A comparison into a mask.
    Compare(Form, Id, Id, u8),
    /// Lanes with a common bit.
    Test(Id),
    /// An instruction on two masks.
    MaskBinary(Form, Id, Id),
    /// The opposite of a mask.
    MaskNot(Id),
    /// Reports the first lane of the mask: the value there (of the node, or of the 64-bit elements) is out of an extent.
    Check(Id, Checked, u32),
    /// Writes the lanes.
    Store(Access, Element, Id),
    /// Joins the lanes to the accumulator of that number.
    Accumulate(u8, Id),
}

/// What a [`Node::Check`] reports.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) enum Checked {
    Lanes(Id),
    Quads(Access),
}

/// Which kind of register holds a node's value.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Vector,
    Mask,
    /// A general number, always on the stack.
    Scalar,
    /// No value.
    Effect,
}

impl Node {
    pub(super) fn class(&self) -> Class {
        match self {
            Node::Load(_, Element::Truth)
            | Node::Compare(..)
            | Node::Test(_)
            | Node::MaskBinary(..)
            | Node::MaskNot(_) => Class::Mask,
            Node::Constant(_)
            | Node::Operand(_)
            | Node::Rarely { .. }
            | Node::Load(..)
            | Node::LoadQuad(..)
            | Node::Gather(..)
            | Node::Position(_)
            | Node::Unary(..)
            | Node::Shift(..)
            | Node::Binary(..)
            | Node::Fma(..)
            | Node::Select(..) => Class::Vector,
            Node::Offset(..) => Class::Scalar,
            Node::Check(..) | Node::Store(..) | Node::Accumulate(..) => Class::Effect,
        }
    }

    /// Calls `visit` with each operand.
    pub(super) fn for_each_operand(&self, mut visit: impl FnMut(Id)) {
        match *self {
            Node::Constant(_) | Node::Operand(_) => {}
            Node::Rarely { mask, operands: [x, y], usual, .. } => {
                visit(mask);
                visit(x);
                visit(y);
                visit(usual);
            }
            Node::Load(access, _) | Node::LoadQuad(access, _) | Node::Position(access) => {
                access.offset.into_iter().for_each(visit);
            }
            Node::Gather(access, x) | Node::Store(access, _, x) => {
                visit(x);
                access.offset.into_iter().for_each(visit);
            }
            Node::Offset(x, _)
            | Node::Unary(_, x, _)
            | Node::Shift(_, x, _)
            | Node::Test(x)
            | Node::MaskNot(x)
            | Node::Accumulate(_, x) => visit(x),
            Node::Binary(_, x, y) | Node::Compare(_, x, y, _) | Node::MaskBinary(_, x, y) => {
                visit(x);
                visit(y);
            }
            Node::Fma(x, y, z) | Node::Select(x, y, z) => {
                visit(x);
                visit(y);
                visit(z);
            }
            Node::Check(mask, checked, _) => {
                visit(mask);
                match checked {
                    Checked::Lanes(x) => visit(x),
                    Checked::Quads(access) => access.offset.into_iter().for_each(visit),
                }
            }
        }
    }
}

/// A formula that few strips need: nodes of lanes only, in order. It stands apart from the other code.
pub(super) struct RareCode {
    pub(super) nodes: Vec<Node>,
    pub(super) result: Id,
}

/// A body ready for register allocation.
#[derive(Default)]
pub(super) struct Strip {
    pub(super) rare: Vec<RareCode>,
    pub(super) nodes: Vec<Node>,
    /// The level of each node.
    pub(super) levels: Vec<u8>,
    /// The nodes to compute at each level, in order, without constants.
    pub(super) blocks: Vec<Vec<Id>>,
    pub(super) groups: Vec<Group>,
    pub(super) accumulators: Vec<Accumulator>,
}

// Predicates of comparisons: floats (quiet) and integers.
const EQUAL: u8 = 0;
const UNORDERED: u8 = 3;
const NOT_EQUAL: u8 = 4;
const LESS: u8 = 0x11;
const LESS_OR_EQUAL: u8 = 0x12;
const GREATER_OR_EQUAL: u8 = 0x1d;
const GREATER: u8 = 0x1e;
const INTEGER_LESS: u8 = 1;
const INTEGER_LESS_OR_EQUAL: u8 = 2;
const INTEGER_NOT_LESS: u8 = 5;
const INTEGER_GREATER: u8 = 6;

const SIGN: u32 = 1 << 31;

/// Roundings of [`VRNDSCALEPS`], without the inexact flag.
const ROUND_NEAREST: u8 = 8;
const ROUND_DOWN: u8 = 9;
const ROUND_UP: u8 = 10;
const ROUND_TO_ZERO: u8 = 11;

/// The nodes so far.
struct Recorder<'a> {
    nest: &'a Nest,
    strip: Strip,
    /// For each node, whether its lanes may differ.
    varying: Vec<bool>,
    constants: Vec<(Constant, Id)>,
}

impl Recorder<'_> {
    fn push_at(&mut self, node: Node, own_level: usize) -> Id {
        let mut level = own_level as u8;
        let mut varying = match node {
            Node::Load(access, _) | Node::LoadQuad(access, _) | Node::Position(access) => access.stride != 0,
            Node::Constant(constant) => matches!(constant, Constant::Lanes(_)),
            Node::Gather(..) => true,
            Node::Operand(_)
            | Node::Rarely { .. }
            | Node::Offset(..)
            | Node::Unary(..)
            | Node::Shift(..)
            | Node::Binary(..)
            | Node::Fma(..)
            | Node::Select(..)
            | Node::Compare(..)
            | Node::Test(_)
            | Node::MaskBinary(..)
            | Node::MaskNot(_)
            | Node::Check(..)
            | Node::Store(..)
            | Node::Accumulate(..) => false,
        };
        node.for_each_operand(|x| {
            level = level.max(self.strip.levels[x.index()]);
            varying |= self.varying[x.index()];
        });
        self.strip.nodes.push(node);
        self.strip.levels.push(level);
        self.varying.push(varying);
        Id(self.strip.nodes.len() as u32 - 1)
    }

    fn push(&mut self, node: Node) -> Id {
        self.push_at(node, 0)
    }

    fn constant(&mut self, constant: Constant) -> Id {
        if let Some(&(_, id)) = self.constants.iter().find(|(known, _)| *known == constant) {
            return id;
        }
        let id = self.push(Node::Constant(constant));
        self.constants.push((constant, id));
        id
    }

    fn splat(&mut self, bits: u32) -> Id {
        self.constant(Constant::Splat(bits))
    }

    fn integer(&mut self, value: i32) -> Id {
        self.splat(value.cast_unsigned())
    }

    fn is_constant(&self, id: Id) -> bool {
        matches!(self.strip.nodes[id.index()], Node::Constant(_))
    }

    fn binary(&mut self, form: Form, x: Id, y: Id) -> Id {
        self.push(Node::Binary(form, x, y))
    }

    /// The constant operand last, where it can be read from memory.
    fn commutative(&mut self, form: Form, x: Id, y: Id) -> Id {
        let (x, y) = if self.is_constant(x) { (y, x) } else { (x, y) };
        self.binary(form, x, y)
    }

    fn round(&mut self, x: Id, rounding: u8) -> Id {
        self.push(Node::Unary(VRNDSCALEPS, x, Some(rounding)))
    }

    fn compare(&mut self, x: Id, y: Id, predicate: u8) -> Id {
        let flipped = match predicate {
            LESS => GREATER,
            LESS_OR_EQUAL => GREATER_OR_EQUAL,
            GREATER => LESS,
            GREATER_OR_EQUAL => LESS_OR_EQUAL,
            symmetric => symmetric,
        };
        if self.is_constant(x) {
            self.push(Node::Compare(VCMPPS, y, x, flipped))
        } else {
            self.push(Node::Compare(VCMPPS, x, y, predicate))
        }
    }

    fn compare_integers(&mut self, x: Id, y: Id, predicate: u8) -> Id {
        self.push(Node::Compare(VPCMPD, x, y, predicate))
    }

    fn mask_binary(&mut self, form: Form, x: Id, y: Id) -> Id {
        self.push(Node::MaskBinary(form, x, y))
    }

    /// The minimum or maximum that keeps a NaN of either operand and orders zeros by their signs. The instruction
    /// returns its second source unless the first is strictly beyond it.
    fn extreme(&mut self, form: Form, x: Id, y: Id) -> Id {
        let of_equal_x = self.binary(form, y, x);
        let of_equal_y = self.binary(form, x, y);
        let found = self.binary(joined_zeros(form), of_equal_x, of_equal_y);
        let nan = self.add(x, y);
        let is_nan = self.compare(x, y, UNORDERED);
        self.push(Node::Select(is_nan, nan, found))
    }

    fn zero_or_one(&mut self, mask: Id, one: u32) -> Id {
        let zero = self.splat(0);
        let one = self.splat(one);
        self.push(Node::Select(mask, one, zero))
    }
}

/// What makes of two equal numbers their minimum or maximum: they have equal bits, but for zeros.
pub(super) fn joined_zeros(form: Form) -> Form {
    if form == VMAXPS { VPANDD } else { VPORD }
}

/// Methods that record one node each.
macro_rules! nodes {
    ($($method:ident($($x:ident $(: $ty:ty)?),+) = $record:ident($($argument:expr),+);)*) => {$(
        fn $method(&mut self, $($x: nodes!(@ $($ty)?)),+) -> Id {
            self.$record($($argument),+)
        }
    )*};
    (@) => { Id };
    (@ $ty:ty) => { $ty };
}

impl Masks for Recorder<'_> {
    type M = Id;

    nodes! {
        and(x, y) = mask_binary(KANDW, x, y);
        or(x, y) = mask_binary(KORW, x, y);
        xor(x, y) = mask_binary(KXORW, x, y);
        not(x) = push(Node::MaskNot(x));
        truth_eq(x, y) = mask_binary(KXNORW, x, y);
        truth_lt(x, y) = mask_binary(KANDNW, x, y);
    }

    fn truth_le(&mut self, x: Id, y: Id) -> Id {
        let greater = self.mask_binary(KANDNW, y, x);
        self.not(greater)
    }
}

impl Floats for Recorder<'_> {
    type F = Id;

    nodes! {
        add(x, y) = commutative(VADDPS, x, y);
        sub(x, y) = binary(VSUBPS, x, y);
        mul(x, y) = commutative(VMULPS, x, y);
        div(x, y) = binary(VDIVPS, x, y);
        sqrt(x) = push(Node::Unary(VSQRTPS, x, None));
        floor(x) = round(x, ROUND_DOWN);
        ceil(x) = round(x, ROUND_UP);
        trunc(x) = round(x, ROUND_TO_ZERO);
        nearest(x) = round(x, ROUND_NEAREST);
        lt(x, y) = compare(x, y, LESS);
        le(x, y) = compare(x, y, LESS_OR_EQUAL);
        eq(x, y) = compare(x, y, EQUAL);
        ne(x, y) = compare(x, y, NOT_EQUAL);
        common_bits(x, y) = commutative(VPANDD, x, y);
        joined_bits(x, y) = commutative(VPORD, x, y);
        maximum(x, y) = extreme(VMAXPS, x, y);
        minimum(x, y) = extreme(VMINPS, x, y);
    }

    fn f(&mut self, value: f32) -> Id {
        self.splat(value.to_bits())
    }
    fn neg(&mut self, x: Id) -> Id {
        let sign = self.splat(SIGN);
        self.commutative(VPXORD, x, sign)
    }
    fn abs(&mut self, x: Id) -> Id {
        let magnitude = self.splat(!SIGN);
        self.commutative(VPANDD, x, magnitude)
    }
    fn select(&mut self, mask: Id, x: Id, y: Id) -> Id {
        // `p < q ? p : q` is the definition of the minimum instruction: its second source unless the first is less.
        if let Node::Compare(VCMPPS, p, q, predicate) = self.strip.nodes[mask.index()] {
            let is_kept = (x, y) == (p, q);
            let is_swapped = (x, y) == (q, p);
            if predicate == LESS && (is_kept || is_swapped) {
                return self.binary(if is_kept { VMINPS } else { VMAXPS }, x, y);
            }
            if predicate == GREATER && (is_kept || is_swapped) {
                return self.binary(if is_kept { VMAXPS } else { VMINPS }, x, y);
            }
        }
        self.push(Node::Select(mask, x, y))
    }
}

impl Arith for Recorder<'_> {
    type I = Id;

    nodes! {
        i_lt(x, y) = compare_integers(x, y, INTEGER_LESS);
        i_eq(x, y) = compare_integers(x, y, EQUAL);
        i_add(x, y) = commutative(VPADDD, x, y);
        i_sub(x, y) = binary(VPSUBD, x, y);
        i_mul(x, y) = commutative(VPMULLD, x, y);
        i_and(x, y) = commutative(VPANDD, x, y);
        i_or(x, y) = commutative(VPORD, x, y);
        i_xor(x, y) = commutative(VPXORD, x, y);
        shl(x, count: u32) = push(Node::Shift(SHIFT_LEFT, x, count as u8));
        shr(x, count: u32) = push(Node::Shift(SHIFT_RIGHT_LOGICAL, x, count as u8));
        sar(x, count: u32) = push(Node::Shift(SHIFT_RIGHT_ARITHMETIC, x, count as u8));
        to_float(x) = push(Node::Unary(VCVTDQ2PS, x, None));
        to_int(x) = push(Node::Unary(VCVTTPS2DQ, x, None));
    }

    fn i(&mut self, value: i32) -> Id {
        self.integer(value)
    }
    fn fma(&mut self, x: Id, y: Id, z: Id) -> Id {
        self.push(Node::Fma(x, y, z))
    }
    fn select_i(&mut self, mask: Id, x: Id, y: Id) -> Id {
        self.push(Node::Select(mask, x, y))
    }
    fn bits(&mut self, x: Id) -> Id {
        x
    }
    fn from_bits(&mut self, x: Id) -> Id {
        x
    }
    fn rarely(&mut self, mask: Id, operands: [Id; 2], usual: Id, rare: Rare<Self>) -> Id {
        let around = (
            std::mem::take(&mut self.strip.nodes),
            std::mem::take(&mut self.strip.levels),
            std::mem::take(&mut self.varying),
            std::mem::take(&mut self.constants),
        );
        let inner = [self.push(Node::Operand(0)), self.push(Node::Operand(1))];
        let result = rare(self, inner);
        let nodes = std::mem::take(&mut self.strip.nodes);
        (self.strip.nodes, self.strip.levels, self.varying, self.constants) = around;
        let code = self.strip.rare.len() as u16;
        self.strip.rare.push(RareCode { nodes, result });
        self.push(Node::Rarely { code, mask, operands, usual })
    }
    fn is_fused(&self) -> bool {
        true
    }
}

/// Builds functions of integers in 32-bit lanes, with the range of each value: `i32` wraps by itself, `u8` is cut, and
/// `i64` must fit. `None` of what does not.
struct IntegerLanes<'r, 'a> {
    recorder: &'r mut Recorder<'a>,
    dtype: DType,
}

/// A value and its range.
type Ranged = Option<(Id, Range)>;

impl IntegerLanes<'_, '_> {
    /// The lanes of a result, which lies in the range before it wraps.
    fn fitted(&mut self, id: Id, range: Range) -> Ranged {
        let limits = full_range(self.dtype);
        if range.0 >= limits.0 && range.1 <= limits.1 {
            return Some((id, range));
        }
        match self.dtype {
            DType::I32 => Some((id, I32_RANGE)),
            DType::U8 => {
                let low = self.recorder.integer(255);
                Some((self.recorder.i_and(id, low), U8_RANGE))
            }
            DType::Bool | DType::I64 | DType::F32 | DType::F64 => None,
        }
    }

    /// An operation bit by bit. The upper half of an `i64` is not at hand.
    fn on_bits(&mut self, form: Form, x: Ranged, y: Ranged) -> Ranged {
        if self.dtype == DType::I64 {
            return None;
        }
        let id = self.recorder.commutative(form, x?.0, y?.0);
        Some((id, full_range(self.dtype)))
    }

    fn compared(&mut self, predicate: u8, x: Ranged, y: Ranged) -> Option<Id> {
        Some(self.recorder.compare_integers(x?.0, y?.0, predicate))
    }

    /// What has no instruction.
    fn refused(&mut self, (): (), _: Ranged, _: Ranged) -> Ranged {
        None
    }
}

impl Masks for IntegerLanes<'_, '_> {
    type M = Option<Id>;

    fn and(&mut self, x: Option<Id>, y: Option<Id>) -> Option<Id> {
        Some(self.recorder.and(x?, y?))
    }
    fn or(&mut self, x: Option<Id>, y: Option<Id>) -> Option<Id> {
        Some(self.recorder.or(x?, y?))
    }
    fn xor(&mut self, x: Option<Id>, y: Option<Id>) -> Option<Id> {
        Some(self.recorder.xor(x?, y?))
    }
    fn not(&mut self, x: Option<Id>) -> Option<Id> {
        Some(self.recorder.not(x?))
    }
}

/// Methods that are a call each.
macro_rules! calls {
    ($($method:ident -> $ty:ty = $call:ident($argument:expr);)*) => {$(
        fn $method(&mut self, x: Ranged, y: Ranged) -> $ty {
            self.$call($argument, x, y)
        }
    )*};
}

impl Integers for IntegerLanes<'_, '_> {
    type N = Ranged;

    calls! {
        bit_and -> Ranged = on_bits(VPANDD);
        bit_or -> Ranged = on_bits(VPORD);
        bit_xor -> Ranged = on_bits(VPXORD);
        lt -> Option<Id> = compared(INTEGER_LESS);
        le -> Option<Id> = compared(INTEGER_LESS_OR_EQUAL);
        gt -> Option<Id> = compared(INTEGER_GREATER);
        ge -> Option<Id> = compared(INTEGER_NOT_LESS);
        eq -> Option<Id> = compared(EQUAL);
        ne -> Option<Id> = compared(NOT_EQUAL);
        truncated_quotient -> Ranged = refused(());
        truncated_remainder -> Ranged = refused(());
        natural_power -> Ranged = refused(());
    }

    fn is_signed(&self) -> bool {
        self.dtype != DType::U8
    }
    fn n(&mut self, value: i64) -> Ranged {
        Some((self.recorder.integer(i32::try_from(value).ok()?), (value, value)))
    }
    fn add(&mut self, x: Ranged, y: Ranged) -> Ranged {
        let ((x, of_x), (y, of_y)) = (x?, y?);
        let sum = self.recorder.i_add(x, y);
        self.fitted(sum, (of_x.0 + of_y.0, of_x.1 + of_y.1))
    }
    fn sub(&mut self, x: Ranged, y: Ranged) -> Ranged {
        let ((x, of_x), (y, of_y)) = (x?, y?);
        let difference = self.recorder.i_sub(x, y);
        self.fitted(difference, (of_x.0 - of_y.1, of_x.1 - of_y.0))
    }
    fn mul(&mut self, x: Ranged, y: Ranged) -> Ranged {
        let ((x, of_x), (y, of_y)) = (x?, y?);
        let ends = [of_x.0 * of_y.0, of_x.0 * of_y.1, of_x.1 * of_y.0, of_x.1 * of_y.1];
        let product = self.recorder.commutative(VPMULLD, x, y);
        self.fitted(product, (ends.into_iter().min()?, ends.into_iter().max()?))
    }
    fn maximum(&mut self, x: Ranged, y: Ranged) -> Ranged {
        let ((x, of_x), (y, of_y)) = (x?, y?);
        let largest = self.recorder.commutative(VPMAXSD, x, y);
        self.fitted(largest, (of_x.0.max(of_y.0), of_x.1.max(of_y.1)))
    }
    fn minimum(&mut self, x: Ranged, y: Ranged) -> Ranged {
        let ((x, of_x), (y, of_y)) = (x?, y?);
        let smallest = self.recorder.commutative(VPMINSD, x, y);
        self.fitted(smallest, (of_x.0.min(of_y.0), of_x.1.min(of_y.1)))
    }
    fn bit_not(&mut self, x: Ranged) -> Ranged {
        let ones = Some((self.recorder.integer(-1), full_range(self.dtype)));
        let (flipped, _) = self.on_bits(VPXORD, x, ones)?;
        let (_, of_x) = x?;
        self.fitted(flipped, (-1 - of_x.1, -1 - of_x.0))
    }
    fn select(&mut self, mask: Option<Id>, x: Ranged, y: Ranged) -> Ranged {
        let ((x, of_x), (y, of_y)) = (x?, y?);
        let chosen = self.recorder.push(Node::Select(mask?, x, y));
        Some((chosen, (of_x.0.min(of_y.0), of_x.1.max(of_y.1))))
    }
    fn abs(&mut self, x: Ranged) -> Ranged {
        let (x, of_x) = x?;
        let size = self.recorder.push(Node::Unary(VPABSD, x, None));
        self.fitted(size, (0, of_x.0.abs().max(of_x.1.abs())))
    }
    fn sqr(&mut self, x: Ranged) -> Ranged {
        let (x, of_x) = x?;
        let largest = of_x.0.abs().max(of_x.1.abs());
        let square = self.recorder.binary(VPMULLD, x, x);
        self.fitted(square, (0, largest.checked_mul(largest)?))
    }
}

/// The least and the largest value that an integer can have.
type Range = (i64, i64);

/// A value of the kernel's body.
#[derive(Copy, Clone, Debug)]
enum Lowered {
    /// 32-bit lanes of that type. The range of floats means nothing.
    Lanes(Id, DType, Range),
    /// A truth value.
    Mask(Id),
    /// 64-bit integers in memory, of which only parts can be had; the level where they are read.
    Quads(Access, usize),
}

const I32_RANGE: Range = (i32::MIN as i64, i32::MAX as i64);
const U8_RANGE: Range = (0, u8::MAX as i64);

fn full_range(dtype: DType) -> Range {
    if dtype == DType::U8 { U8_RANGE } else { I32_RANGE }
}

/// The body and stores of a kernel as nodes; `None` if something has no translation.
pub(super) fn record(kernel: &LoopKernel, nest: &Nest) -> Option<Strip> {
    let mut recorder = Recorder { nest, strip: Strip::default(), varying: Vec::new(), constants: Vec::new() };
    let mut values: Vec<Lowered> = Vec::with_capacity(kernel.body.len());
    for (position, instruction) in kernel.body.iter().enumerate() {
        let dtype = *kernel.types.get(position)?;
        let lowered = recorder.instruction(kernel, instruction, dtype, &values)?;
        values.push(lowered);
    }
    for store in &kernel.stores {
        recorder.store(kernel, store, &values)?;
    }
    Some(recorder.finish())
}

impl Recorder<'_> {
    fn access(&mut self, kernel: &LoopKernel, address: &Address) -> Option<Access> {
        let size = kernel.params.get(usize::from(address.param))?.dtype.size() as i64;
        self.affine(&address.position, Some(address.param), size)
    }

    fn affine(&mut self, position: &Affine, param: Option<u16>, size: i64) -> Option<Access> {
        let strip = self.nest.strip;
        let bytes = |stride: i64| stride.checked_mul(size).filter(|b| i32::try_from(*b).is_ok());
        let mut steps = SmallVec::new();
        for (l, each) in self.nest.loops.iter().enumerate() {
            steps.push(if l == strip { 0 } else { bytes(position.strides[each.axis])? });
        }
        let mut starts = SmallVec::new();
        for &(start, factor) in &position.starts {
            starts.push((start, bytes(factor)?));
        }
        let group = Group { param, steps, starts };
        let groups = &mut self.strip.groups;
        let group = groups.iter().position(|known| *known == group).unwrap_or_else(|| {
            groups.push(group);
            groups.len() - 1
        });
        let stride = position.strides[self.nest.loops[strip].axis];
        Some(Access {
            group,
            // Room for the displacements within an unrolled strip.
            displacement: i32::try_from(bytes(position.offset)?).ok().filter(|d| d.abs() < 1 << 30)?,
            stride: i32::try_from(stride).ok().filter(|s| s.abs() < 1 << 20)?,
            size: size as i32,
            offset: None,
        })
    }

    fn instruction(
        &mut self,
        kernel: &LoopKernel,
        instruction: &Instruction,
        dtype: DType,
        values: &[Lowered],
    ) -> Option<Lowered> {
        let value = |value: Value| values.get(value.index()).copied();
        match instruction {
            Instruction::Literal(literal) => self.literal(*literal),
            Instruction::Load(address) => {
                let access = self.access(kernel, address)?;
                let level = self.nest.level(&address.position);
                self.load(access, dtype, level)
            }
            Instruction::LoadAt { address, index, stride } => {
                self.load_at(kernel, address, value(*index)?, *stride, dtype)
            }
            Instruction::Position(position) => self.position(kernel, position),
            Instruction::Index { index, extent, .. } => {
                // Checks are counted from the starts on.
                let check = u32::try_from(kernel.starts.len() + values.len()).ok()?;
                self.index(value(*index)?, *extent, check)
            }
            Instruction::Map(function, operands) => {
                let operands: Option<SmallVec<[Lowered; 3]>> = operands.iter().map(|x| value(*x)).collect();
                self.map(*function, &operands?)
            }
            Instruction::Cast(to, from) => self.cast(value(*from)?, *to),
        }
    }

    fn literal(&mut self, literal: Literal) -> Option<Lowered> {
        Some(match literal {
            Literal::F32(bits) => Lowered::Lanes(self.splat(bits), DType::F32, I32_RANGE),
            Literal::Bool(truth) => {
                // The comparison of a constant with itself: rare enough to be computed.
                let zero = self.splat(0);
                let predicate = if truth { EQUAL } else { NOT_EQUAL };
                Lowered::Mask(self.compare_integers(zero, zero, predicate))
            }
            Literal::U8(_) | Literal::I32(_) | Literal::I64(_) => {
                let value = literal.to_i64()?;
                let id = self.integer(i32::try_from(value).ok()?);
                Lowered::Lanes(id, literal.dtype(), (value, value))
            }
            Literal::F64(_) => return None,
        })
    }

    fn load(&mut self, access: Access, dtype: DType, level: usize) -> Option<Lowered> {
        let element = match dtype {
            DType::F32 | DType::I32 => Element::Word,
            DType::U8 => Element::Byte,
            DType::Bool => Element::Truth,
            DType::I64 => Element::Quad,
            DType::F64 => return None,
        };
        let strided = access.stride != 0 && access.stride != 1;
        if strided && element != Element::Word {
            return None;
        }
        Some(match element {
            Element::Quad => Lowered::Quads(access, level),
            Element::Truth => Lowered::Mask(self.push_at(Node::Load(access, element), level)),
            Element::Word if strided => {
                let lanes = self.constant(Constant::Lanes(access.stride));
                Lowered::Lanes(self.push_at(Node::Gather(access, lanes), level), dtype, I32_RANGE)
            }
            Element::Word | Element::Byte => {
                Lowered::Lanes(self.push_at(Node::Load(access, element), level), dtype, full_range(dtype))
            }
        })
    }

    fn load_at(
        &mut self,
        kernel: &LoopKernel,
        address: &Address,
        index: Lowered,
        stride: i64,
        dtype: DType,
    ) -> Option<Lowered> {
        let access = self.access(kernel, address)?;
        let level = self.nest.level(&address.position);
        let Lowered::Lanes(index, _, range) = index else { return None };
        let stride = i32::try_from(stride).ok()?;
        if !self.varying[index.index()] {
            let bytes = stride.checked_mul(access.size)?;
            let offset = self.push(Node::Offset(index, bytes));
            let level = level.max(usize::from(self.strip.levels[offset.index()]));
            return self.load(Access { offset: Some(offset), ..access }, dtype, level);
        }
        let reach = range.0.abs().max(range.1.abs()).checked_mul(i64::from(stride).abs())?;
        if dtype.size() != 4 || dtype == DType::F64 || reach >= 1 << 30 {
            return None;
        }
        let mut distance = index;
        if stride != 1 {
            let stride = self.integer(stride);
            distance = self.commutative(VPMULLD, distance, stride);
        }
        if access.stride != 0 {
            let lanes = self.constant(Constant::Lanes(access.stride));
            distance = self.commutative(VPADDD, distance, lanes);
        }
        Some(Lowered::Lanes(self.push_at(Node::Gather(access, distance), level), dtype, I32_RANGE))
    }

    fn position(&mut self, kernel: &LoopKernel, position: &Affine) -> Option<Lowered> {
        let (mut low, mut high) = (position.offset, position.offset);
        let terms = position
            .strides
            .iter()
            .zip(&kernel.extents)
            .map(|(stride, extent)| (*stride, *extent as i64 - 1))
            .chain(position.starts.iter().map(|&(start, factor)| {
                (factor, kernel.starts.get(usize::from(start)).map_or(i64::MAX, |s| s.limit as i64))
            }));
        for (factor, last) in terms {
            let reach = factor.checked_mul(last)?;
            low = low.checked_add(reach.min(0))?;
            high = high.checked_add(reach.max(0))?;
        }
        let access = self.affine(position, None, 1)?;
        let level = self.nest.level(position);
        let id = self.push_at(Node::Position(access), level);
        fitting(id, DType::I64, (low, high))
    }

    fn index(&mut self, index: Lowered, extent: usize, check: u32) -> Option<Lowered> {
        let extent = i32::try_from(extent).ok()?;
        let (lanes, checked, range) = match index {
            Lowered::Lanes(id, dtype, range) if dtype != DType::F32 => (id, Checked::Lanes(id), range),
            Lowered::Quads(access, level) => {
                let id = self.push_at(Node::LoadQuad(access, Narrowing::Saturate), level);
                (id, Checked::Quads(access), I32_RANGE)
            }
            Lowered::Lanes(..) | Lowered::Mask(_) => return None,
        };
        let mut result = lanes;
        if range.0 < 0 {
            let zero = self.splat(0);
            let negative = self.compare_integers(lanes, zero, INTEGER_LESS);
            let bound = self.integer(extent);
            let more = self.push(Node::Select(negative, bound, zero));
            result = self.binary(VPADDD, lanes, more);
        }
        if range.0 < 0 || range.1 >= i64::from(extent) {
            let bound = self.integer(extent);
            let outside = self.push(Node::Compare(VPCMPUD, result, bound, INTEGER_NOT_LESS));
            self.push(Node::Check(outside, checked, check));
            let inside = self.push(Node::Compare(VPCMPUD, result, bound, INTEGER_LESS));
            let zero = self.splat(0);
            result = self.push(Node::Select(inside, result, zero));
        }
        Some(Lowered::Lanes(result, DType::I64, (0, i64::from(extent).max(1) - 1)))
    }

    fn cast(&mut self, value: Lowered, to: DType) -> Option<Lowered> {
        let truth = |recorder: &mut Self, mask: Id| match to {
            DType::Bool => Some(Lowered::Mask(mask)),
            DType::F32 => {
                Some(Lowered::Lanes(recorder.zero_or_one(mask, 1f32.to_bits()), DType::F32, I32_RANGE))
            }
            DType::U8 | DType::I32 | DType::I64 => {
                Some(Lowered::Lanes(recorder.zero_or_one(mask, 1), to, (0, 1)))
            }
            DType::F64 => None,
        };
        let (id, from, range) = match value {
            Lowered::Mask(mask) => return truth(self, mask),
            Lowered::Quads(access, level) => {
                let narrowing = match to {
                    DType::I64 => return Some(value),
                    DType::I32 | DType::U8 => Narrowing::Wrap,
                    DType::Bool => Narrowing::Saturate,
                    DType::F32 | DType::F64 => return None,
                };
                (self.push_at(Node::LoadQuad(access, narrowing), level), DType::I32, I32_RANGE)
            }
            Lowered::Lanes(id, from, range) => (id, from, range),
        };
        if from == DType::F32 {
            return self.cast_float(id, to);
        }
        Some(match to {
            DType::Bool => Lowered::Mask(self.push(Node::Test(id))),
            DType::F32 => Lowered::Lanes(self.to_float(id), to, I32_RANGE),
            DType::U8 if range.0 < 0 || range.1 > 255 => {
                let low = self.integer(255);
                Lowered::Lanes(self.i_and(id, low), to, U8_RANGE)
            }
            DType::U8 | DType::I32 | DType::I64 => Lowered::Lanes(id, to, range),
            DType::F64 => return None,
        })
    }

    fn cast_float(&mut self, x: Id, to: DType) -> Option<Lowered> {
        Some(match to {
            DType::F32 => Lowered::Lanes(x, to, I32_RANGE),
            DType::Bool => {
                let zero = self.splat(0);
                Lowered::Mask(self.compare(x, zero, NOT_EQUAL))
            }
            DType::I32 => {
                // Out of range and for NaN the instruction gives the smallest integer.
                let truncated = self.to_int(x);
                let limit = self.f(2_147_483_648.0);
                let is_large = self.compare(x, limit, GREATER_OR_EQUAL);
                let largest = self.integer(i32::MAX);
                Lowered::Lanes(self.push(Node::Select(is_large, largest, truncated)), to, I32_RANGE)
            }
            DType::U8 => {
                // Of a NaN these instructions return their second source.
                let zero = self.splat(0);
                let largest = self.f(255.0);
                let x = self.binary(VMAXPS, x, zero);
                let x = self.binary(VMINPS, x, largest);
                Lowered::Lanes(self.to_int(x), to, U8_RANGE)
            }
            DType::I64 | DType::F64 => return None,
        })
    }

    fn map(&mut self, function: ScalarFn, operands: &[Lowered]) -> Option<Lowered> {
        if operands.len() != function.arity() {
            return None;
        }
        if function.domain() == Domain::Select {
            return self.select_values(operands[0], operands[1], operands[2]);
        }
        let x = operands[0];
        let y = operands.get(1).copied().unwrap_or(x);
        match (x, y) {
            (Lowered::Lanes(x, DType::F32, _), Lowered::Lanes(y, DType::F32, _)) => {
                Some(match function.on_singles(self, x, y)? {
                    Applied::Float(id) => Lowered::Lanes(id, DType::F32, I32_RANGE),
                    Applied::Truth(mask) => Lowered::Mask(mask),
                })
            }
            (Lowered::Lanes(x, dtype, of_x), Lowered::Lanes(y, of_dtype, of_y)) if dtype == of_dtype => {
                self.map_integer(function, (x, of_x), (y, of_y), dtype)
            }
            (Lowered::Mask(x), Lowered::Mask(y)) => Some(Lowered::Mask(function.on_truths(self, x, y)?)),
            (Lowered::Quads(access, level), Lowered::Lanes(y, DType::I64, range)) => {
                let x = self.push_at(Node::LoadQuad(access, Narrowing::Saturate), level);
                self.compare_saturated(function, (x, I32_RANGE), (y, range), range)
            }
            (Lowered::Lanes(x, DType::I64, range), Lowered::Quads(access, level)) => {
                let y = self.push_at(Node::LoadQuad(access, Narrowing::Saturate), level);
                self.compare_saturated(function, (x, range), (y, I32_RANGE), range)
            }
            (Lowered::Lanes(..) | Lowered::Mask(_) | Lowered::Quads(..), _) => None,
        }
    }

    /// A function of 32-bit lanes.
    fn map_integer(
        &mut self,
        function: ScalarFn,
        x: (Id, Range),
        y: (Id, Range),
        dtype: DType,
    ) -> Option<Lowered> {
        let mut lanes = IntegerLanes { recorder: self, dtype };
        Some(match function.on_integers(&mut lanes, Some(x), Some(y))? {
            AppliedInteger::Integer(value) => {
                let (id, range) = value?;
                Lowered::Lanes(id, dtype, range)
            }
            AppliedInteger::Truth(mask) => Lowered::Mask(mask?),
        })
    }

    /// A comparison with saturated 64-bit numbers: they compare as the full ones do with anything strictly inside of the
    /// 32-bit range.
    fn compare_saturated(
        &mut self,
        function: ScalarFn,
        x: (Id, Range),
        y: (Id, Range),
        range: Range,
    ) -> Option<Lowered> {
        let inside = range.0 > I32_RANGE.0 && range.1 < I32_RANGE.1;
        let compares = function.domain() == Domain::Compare;
        if compares && inside { self.map_integer(function, x, y, DType::I64) } else { None }
    }

    fn select_values(&mut self, condition: Lowered, x: Lowered, y: Lowered) -> Option<Lowered> {
        let Lowered::Mask(mask) = condition else { return None };
        match (x, y) {
            (Lowered::Lanes(x, dtype, of_x), Lowered::Lanes(y, _, of_y)) => Some(Lowered::Lanes(
                self.push(Node::Select(mask, x, y)),
                dtype,
                (of_x.0.min(of_y.0), of_x.1.max(of_y.1)),
            )),
            (Lowered::Mask(x), Lowered::Mask(y)) => {
                let x = self.mask_binary(KANDW, mask, x);
                let y = self.mask_binary(KANDNW, mask, y);
                Some(Lowered::Mask(self.mask_binary(KORW, x, y)))
            }
            (Lowered::Lanes(..) | Lowered::Mask(_) | Lowered::Quads(..), _) => None,
        }
    }

    fn store(&mut self, kernel: &LoopKernel, store: &Store, values: &[Lowered]) -> Option<()> {
        let access = self.access(kernel, &store.address)?;
        let value = *values.get(store.value.index())?;
        let dtype = kernel.params[usize::from(store.address.param)].dtype;
        let (id, element) = match (value, dtype) {
            (Lowered::Mask(mask), DType::Bool) => (mask, Element::Truth),
            (Lowered::Lanes(id, DType::F32, _), DType::F32) => (id, Element::Word),
            (Lowered::Lanes(id, DType::I32, _), DType::I32) => (id, Element::Word),
            (Lowered::Lanes(id, DType::U8, _), DType::U8) => (id, Element::Byte),
            (Lowered::Lanes(id, DType::I64, _), DType::I64) => (id, Element::Quad),
            (Lowered::Mask(_) | Lowered::Lanes(..) | Lowered::Quads(..), _) => return None,
        };
        let depth = self.nest.loops.len();
        let single = self.nest.loops[self.nest.strip].extent == 1;
        match &store.kind {
            StoreKind::Plain => {
                let access = self.writable(access, element, single)?;
                self.push_at(Node::Store(access, element, id), depth);
            }
            StoreKind::Fold(fold) => {
                let reduced = |axis: usize| kernel.reduced[axis] && store.address.position.strides[axis] != 0;
                if (0..kernel.extents.len()).any(reduced) {
                    return None;
                }
                let access =
                    if self.nest.folds_lanes() { access } else { self.writable(access, element, single)? };
                self.fold(kernel, *fold, value, element, access)?;
            }
            StoreKind::ArgMax | StoreKind::At { .. } => return None,
        }
        Some(())
    }

    /// The access as a store of strips; a single element has any stride.
    fn writable(&self, access: Access, element: Element, single: bool) -> Option<Access> {
        let access = if single { Access { stride: 1, ..access } } else { access };
        (access.stride == 1 || (access.stride != 0 && element == Element::Word)).then_some(access)
    }

    fn fold(
        &mut self,
        kernel: &LoopKernel,
        fold: Fold,
        value: Lowered,
        element: Element,
        access: Access,
    ) -> Option<()> {
        let (id, dtype, range) = match value {
            // Truth values are folded as 0 and 1.
            Lowered::Mask(mask) => (self.zero_or_one(mask, 1), DType::Bool, (0, 1)),
            Lowered::Lanes(id, dtype, range) => (id, dtype, range),
            Lowered::Quads(..) => return None,
        };
        if dtype == DType::I64 {
            let count: i64 = kernel
                .extents
                .iter()
                .zip(&kernel.reduced)
                .map(|(extent, reduced)| if *reduced { *extent as i64 } else { 1 })
                .product();
            let reach = range.0.abs().max(range.1.abs()).checked_mul(count)?;
            // The largest and the smallest of nothing are no 32-bit numbers.
            if count == 0 && matches!(fold, Fold::Max | Fold::Min) {
                return None;
            }
            if fold == Fold::Prod || (fold == Fold::Sum && reach > I32_RANGE.1) {
                return None;
            }
        }
        let is_float = dtype == DType::F32;
        let (join, identity) = match fold {
            Fold::Sum if is_float => (Join::Plain(VADDPS), 0),
            Fold::Prod if is_float => (Join::Plain(VMULPS), 1f32.to_bits()),
            Fold::Max if is_float => (Join::Float(VMAXPS), f32::NEG_INFINITY.to_bits()),
            Fold::Min if is_float => (Join::Float(VMINPS), f32::INFINITY.to_bits()),
            Fold::Sum => (Join::Plain(VPADDD), 0),
            Fold::Prod => (Join::Plain(VPMULLD), 1),
            Fold::Max | Fold::Any => (Join::Plain(VPMAXSD), i32::MIN.cast_unsigned()),
            Fold::Min | Fold::All => (Join::Plain(VPMINSD), i32::MAX.cast_unsigned()),
        };
        let number = u8::try_from(self.strip.accumulators.len()).ok()?;
        self.strip.accumulators.push(Accumulator { join, identity, access, element });
        let depth = self.nest.loops.len();
        self.push_at(Node::Accumulate(number, id), depth);
        Some(())
    }

    fn finish(self) -> Strip {
        let mut strip = self.strip;
        let mut live = vec![false; strip.nodes.len()];
        let depth = self.nest.loops.len();
        strip.blocks = vec![Vec::new(); depth + 1];
        for (position, node) in strip.nodes.iter().enumerate().rev() {
            let needed = live[position] || node.class() == Class::Effect;
            if !needed {
                continue;
            }
            node.for_each_operand(|x| live[x.index()] = true);
            if !matches!(node, Node::Constant(_)) {
                strip.blocks[usize::from(strip.levels[position])].push(Id(position as u32));
            }
        }
        for block in &mut strip.blocks {
            block.reverse();
        }
        strip
    }
}

/// The lanes, if every value of the range is one of the type and of 32 bits.
fn fitting(id: Id, dtype: DType, range: Range) -> Option<Lowered> {
    let limits = full_range(dtype);
    (range.0 >= limits.0 && range.1 <= limits.1).then_some(Lowered::Lanes(id, dtype, range))
}
