//! The scalar functions as Cranelift instructions, on one element or on four at once.
//!
//! One instantiation of [`Arith`] serves both: Cranelift's instructions take scalars and 128-bit vectors alike. The basic
//! ones of [`Floats`] serve both precisions too, and those of [`Integers`] all integer types. Truth values are bytes for
//! one lane and all-ones masks of 32 bits for four.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::FunctionBuilder;
use hypatia_graph::DType;
use hypatia_graph::math::{Arith, Floats, Integers, Masks, Rare};

use super::emit::{Routines, scalar_type};

/// How many elements an instruction works on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// One.
    One,
    /// Four, of 32 bits each.
    Four,
}

/// The precision of floats.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Precision {
    /// `f32`.
    Single,
    /// `f64`, one at a time.
    Double,
}

/// Builds the instructions of scalar functions at the end of the current block.
pub(super) struct Lanes<'a, 'b> {
    /// Where instructions go.
    pub(super) builder: &'a mut FunctionBuilder<'b>,
    /// Elements at once.
    pub(super) width: Width,
    /// Of what floats.
    pub(super) precision: Precision,
    /// Whether the processor multiplies and adds in one rounding. Without, `fma` would be a library call for each
    /// lane; a multiplication and an addition cost some accuracy (see [`hypatia_graph::math`]) and no time.
    pub(super) fused: bool,
}

impl<'b> Lanes<'_, 'b> {
    fn builder(&mut self) -> &mut FunctionBuilder<'b> {
        self.builder
    }

    fn float(&self) -> Type {
        match (self.precision, self.width) {
            (Precision::Single, Width::One) => types::F32,
            (Precision::Single, Width::Four) => types::F32X4,
            (Precision::Double, _) => types::F64,
        }
    }

    /// Joins the bits of two floats.
    fn on_bits(
        &mut self,
        x: Value,
        y: Value,
        join: fn(&mut FunctionBuilder<'_>, Value, Value) -> Value,
    ) -> Value {
        let ty = if self.precision == Precision::Double { types::I64 } else { self.int() };
        let (x, y) = (self.same_bits(x, ty), self.same_bits(y, ty));
        let joined = join(self.builder, x, y);
        let ty = self.float();
        self.same_bits(joined, ty)
    }

    fn int(&self) -> Type {
        if self.width == Width::One { types::I32 } else { types::I32X4 }
    }

    fn everywhere(&mut self, x: Value, ty: Type) -> Value {
        if self.width == Width::One { x } else { self.builder.ins().splat(ty, x) }
    }

    /// The same bits as another type of equal size.
    pub(super) fn same_bits(&mut self, x: Value, ty: Type) -> Value {
        if self.builder.func.dfg.value_type(x) == ty {
            return x;
        }
        let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        self.builder.ins().bitcast(ty, flags, x)
    }

    /// `x` where the mask holds, else `y`; both of one type.
    pub(super) fn choose(&mut self, mask: Value, x: Value, y: Value) -> Value {
        if self.width == Width::One {
            return self.builder.ins().select(mask, x, y);
        }
        let ty = self.builder.func.dfg.value_type(x);
        let mask = self.same_bits(mask, ty);
        self.builder.ins().bitselect(mask, x, y)
    }

    fn shift_count(&mut self, count: u32) -> Value {
        self.builder.ins().iconst(types::I32, i64::from(count))
    }
}

/// Methods that are one instruction each, of one or two operands.
macro_rules! instructions {
    ($builder:ident: $($method:ident($($x:ident),+) = $instruction:ident($($argument:expr),+);)*) => {$(
        fn $method(&mut self, $($x: Value),+) -> Value {
            self.$builder().ins().$instruction($($argument),+)
        }
    )*};
}

impl Masks for Lanes<'_, '_> {
    type M = Value;

    instructions! { builder:
        and(x, y) = band(x, y);
        or(x, y) = bor(x, y);
        xor(x, y) = bxor(x, y);
    }

    fn not(&mut self, x: Value) -> Value {
        if self.width == Width::Four {
            return self.builder.ins().bnot(x);
        }
        let one = self.builder.ins().iconst(types::I8, 1);
        self.builder.ins().bxor(x, one)
    }
}

impl Floats for Lanes<'_, '_> {
    type F = Value;

    instructions! { builder:
        add(x, y) = fadd(x, y);
        sub(x, y) = fsub(x, y);
        mul(x, y) = fmul(x, y);
        div(x, y) = fdiv(x, y);
        sqrt(x) = sqrt(x);
        neg(x) = fneg(x);
        abs(x) = fabs(x);
        floor(x) = floor(x);
        ceil(x) = ceil(x);
        trunc(x) = trunc(x);
        nearest(x) = nearest(x);
        lt(x, y) = fcmp(FloatCC::LessThan, x, y);
        le(x, y) = fcmp(FloatCC::LessThanOrEqual, x, y);
        eq(x, y) = fcmp(FloatCC::Equal, x, y);
        ne(x, y) = fcmp(FloatCC::NotEqual, x, y);
    }

    fn f(&mut self, value: f32) -> Value {
        let x = match self.precision {
            Precision::Single => self.builder.ins().f32const(value),
            Precision::Double => self.builder.ins().f64const(f64::from(value)),
        };
        let ty = self.float();
        self.everywhere(x, ty)
    }

    fn select(&mut self, mask: Value, x: Value, y: Value) -> Value {
        self.choose(mask, x, y)
    }

    fn common_bits(&mut self, x: Value, y: Value) -> Value {
        self.on_bits(x, y, |builder, x, y| builder.ins().band(x, y))
    }

    fn joined_bits(&mut self, x: Value, y: Value) -> Value {
        self.on_bits(x, y, |builder, x, y| builder.ins().bor(x, y))
    }
}

impl Arith for Lanes<'_, '_> {
    type I = Value;

    instructions! { builder:
        i_lt(x, y) = icmp(IntCC::SignedLessThan, x, y);
        i_eq(x, y) = icmp(IntCC::Equal, x, y);
        i_add(x, y) = iadd(x, y);
        i_sub(x, y) = isub(x, y);
        i_mul(x, y) = imul(x, y);
        i_and(x, y) = band(x, y);
        i_or(x, y) = bor(x, y);
        i_xor(x, y) = bxor(x, y);
    }

    fn i(&mut self, value: i32) -> Value {
        let x = self.builder.ins().iconst(types::I32, i64::from(value as u32));
        self.everywhere(x, types::I32X4)
    }

    fn fma(&mut self, x: Value, y: Value, z: Value) -> Value {
        if self.fused {
            return self.builder.ins().fma(x, y, z);
        }
        let product = self.builder.ins().fmul(x, y);
        self.builder.ins().fadd(product, z)
    }

    fn select_i(&mut self, mask: Value, x: Value, y: Value) -> Value {
        self.choose(mask, x, y)
    }

    fn bits(&mut self, x: Value) -> Value {
        let ty = self.int();
        self.same_bits(x, ty)
    }

    fn from_bits(&mut self, x: Value) -> Value {
        let ty = self.float();
        self.same_bits(x, ty)
    }

    fn rarely(&mut self, mask: Value, operands: [Value; 2], usual: Value, rare: Rare<Self>) -> Value {
        let any = if self.width == Width::One { mask } else { self.builder.ins().vany_true(mask) };
        let (apart, done) = (self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(apart);
        let ty = self.float();
        let result = self.builder.append_block_param(done, ty);
        self.builder.ins().brif(any, apart, &[], done, &[usual.into()]);
        self.builder.switch_to_block(apart);
        let found = rare(self, operands);
        let found = self.choose(mask, found, usual);
        self.builder.ins().jump(done, &[found.into()]);
        self.builder.switch_to_block(done);
        result
    }

    fn is_fused(&self) -> bool {
        self.fused
    }

    fn shl(&mut self, x: Value, count: u32) -> Value {
        let count = self.shift_count(count);
        self.builder.ins().ishl(x, count)
    }

    fn shr(&mut self, x: Value, count: u32) -> Value {
        let count = self.shift_count(count);
        self.builder.ins().ushr(x, count)
    }

    fn sar(&mut self, x: Value, count: u32) -> Value {
        let count = self.shift_count(count);
        self.builder.ins().sshr(x, count)
    }

    fn to_float(&mut self, x: Value) -> Value {
        let ty = self.float();
        self.builder.ins().fcvt_from_sint(ty, x)
    }

    fn to_int(&mut self, x: Value) -> Value {
        let ty = self.int();
        self.builder.ins().fcvt_to_sint_sat(ty, x)
    }
}

/// Builds the instructions of functions of integers.
pub(super) struct IntegerLanes<'a, 'b> {
    /// Where instructions go, and how many elements they work on.
    pub(super) lanes: Lanes<'a, 'b>,
    /// The type of the elements.
    pub(super) dtype: DType,
    /// What takes more than a few instructions.
    pub(super) routines: Routines,
}

impl<'b> IntegerLanes<'_, 'b> {
    fn builder(&mut self) -> &mut FunctionBuilder<'b> {
        self.lanes.builder
    }

    /// A division of numbers that have 32 bits or more.
    fn divided(
        &mut self,
        x: Value,
        y: Value,
        divide: fn(&mut FunctionBuilder<'_>, Value, Value) -> Value,
    ) -> Value {
        let builder = &mut *self.lanes.builder;
        if self.dtype != DType::U8 {
            return divide(builder, x, y);
        }
        let (x, y) = (builder.ins().uextend(types::I32, x), builder.ins().uextend(types::I32, y));
        let found = divide(builder, x, y);
        builder.ins().ireduce(types::I8, found)
    }

    /// An `i64` of the same value.
    fn widened(&mut self, x: Value) -> Value {
        match self.dtype {
            DType::I32 => self.lanes.builder.ins().sextend(types::I64, x),
            DType::U8 => self.lanes.builder.ins().uextend(types::I64, x),
            DType::Bool | DType::I64 | DType::F32 | DType::F64 => x,
        }
    }
}

impl Masks for IntegerLanes<'_, '_> {
    type M = Value;

    instructions! { builder:
        and(x, y) = band(x, y);
        or(x, y) = bor(x, y);
        xor(x, y) = bxor(x, y);
    }

    fn not(&mut self, x: Value) -> Value {
        self.lanes.not(x)
    }
}

impl Integers for IntegerLanes<'_, '_> {
    type N = Value;

    instructions! { builder:
        add(x, y) = iadd(x, y);
        sub(x, y) = isub(x, y);
        mul(x, y) = imul(x, y);
        neg(x) = ineg(x);
        bit_and(x, y) = band(x, y);
        bit_or(x, y) = bor(x, y);
        bit_xor(x, y) = bxor(x, y);
        bit_not(x) = bnot(x);
        eq(x, y) = icmp(IntCC::Equal, x, y);
        ne(x, y) = icmp(IntCC::NotEqual, x, y);
    }

    fn is_signed(&self) -> bool {
        self.dtype != DType::U8
    }

    fn n(&mut self, value: i64) -> Value {
        let ty = scalar_type(self.dtype);
        let bits = if ty.bits() == 64 { value } else { value & ((1 << ty.bits()) - 1) };
        let x = self.lanes.builder.ins().iconst(ty, bits);
        self.lanes.everywhere(x, types::I32X4)
    }

    fn truncated_quotient(&mut self, x: Value, y: Value) -> Value {
        if self.is_signed() {
            self.divided(x, y, |builder, x, y| builder.ins().sdiv(x, y))
        } else {
            self.divided(x, y, |builder, x, y| builder.ins().udiv(x, y))
        }
    }

    fn truncated_remainder(&mut self, x: Value, y: Value) -> Value {
        if self.is_signed() {
            self.divided(x, y, |builder, x, y| builder.ins().srem(x, y))
        } else {
            self.divided(x, y, |builder, x, y| builder.ins().urem(x, y))
        }
    }

    fn natural_power(&mut self, x: Value, y: Value) -> Value {
        let (x, y) = (self.widened(x), self.widened(y));
        let builder = &mut *self.lanes.builder;
        let call = builder.ins().call(self.routines.power, &[x, y]);
        let power = builder.inst_results(call)[0];
        let ty = scalar_type(self.dtype);
        if ty == types::I64 { power } else { builder.ins().ireduce(ty, power) }
    }

    fn maximum(&mut self, x: Value, y: Value) -> Value {
        let ins = self.lanes.builder.ins();
        if self.dtype == DType::U8 { ins.umax(x, y) } else { ins.smax(x, y) }
    }

    fn minimum(&mut self, x: Value, y: Value) -> Value {
        let ins = self.lanes.builder.ins();
        if self.dtype == DType::U8 { ins.umin(x, y) } else { ins.smin(x, y) }
    }

    fn lt(&mut self, x: Value, y: Value) -> Value {
        let order = if self.is_signed() { IntCC::SignedLessThan } else { IntCC::UnsignedLessThan };
        self.lanes.builder.ins().icmp(order, x, y)
    }

    fn le(&mut self, x: Value, y: Value) -> Value {
        let order =
            if self.is_signed() { IntCC::SignedLessThanOrEqual } else { IntCC::UnsignedLessThanOrEqual };
        self.lanes.builder.ins().icmp(order, x, y)
    }

    fn select(&mut self, mask: Value, x: Value, y: Value) -> Value {
        self.lanes.choose(mask, x, y)
    }

    fn abs(&mut self, x: Value) -> Value {
        if self.is_signed() { self.lanes.builder.ins().iabs(x) } else { x }
    }
}
