//! The scalar functions as Cranelift instructions, on one float or on four at once.
//!
//! One instantiation of [`Arith`] serves both: Cranelift's instructions take scalars and 128-bit vectors alike. Truth
//! values are bytes for one lane and all-ones masks of 32 bits for four.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::FunctionBuilder;
use hypatia_graph::math::{Arith, Rare};

/// How many elements an instruction works on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// One.
    One,
    /// Four, of 32 bits each.
    Four,
}

/// Builds the instructions of scalar functions at the end of the current block.
pub(super) struct Lanes<'a, 'b> {
    /// Where instructions go.
    pub(super) builder: &'a mut FunctionBuilder<'b>,
    /// Elements at once.
    pub(super) width: Width,
    /// Whether the processor multiplies and adds in one rounding. Without, `fma` would be a library call for each
    /// lane; a multiplication and an addition cost some accuracy (see [`hypatia_graph::math`]) and no time.
    pub(super) fused: bool,
}

impl Lanes<'_, '_> {
    fn float(&self) -> Type {
        if self.width == Width::One { types::F32 } else { types::F32X4 }
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

impl Arith for Lanes<'_, '_> {
    type F = Value;
    type I = Value;
    type M = Value;

    fn f(&mut self, value: f32) -> Value {
        let x = self.builder.ins().f32const(value);
        self.everywhere(x, types::F32X4)
    }

    fn i(&mut self, value: i32) -> Value {
        let x = self.builder.ins().iconst(types::I32, i64::from(value as u32));
        self.everywhere(x, types::I32X4)
    }

    fn add(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fadd(x, y)
    }

    fn sub(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fsub(x, y)
    }

    fn mul(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fmul(x, y)
    }

    fn div(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fdiv(x, y)
    }

    fn fma(&mut self, x: Value, y: Value, z: Value) -> Value {
        if self.fused {
            return self.builder.ins().fma(x, y, z);
        }
        let product = self.builder.ins().fmul(x, y);
        self.builder.ins().fadd(product, z)
    }

    fn sqrt(&mut self, x: Value) -> Value {
        self.builder.ins().sqrt(x)
    }

    fn neg(&mut self, x: Value) -> Value {
        self.builder.ins().fneg(x)
    }

    fn abs(&mut self, x: Value) -> Value {
        self.builder.ins().fabs(x)
    }

    fn floor(&mut self, x: Value) -> Value {
        self.builder.ins().floor(x)
    }

    fn ceil(&mut self, x: Value) -> Value {
        self.builder.ins().ceil(x)
    }

    fn trunc(&mut self, x: Value) -> Value {
        self.builder.ins().trunc(x)
    }

    fn nearest(&mut self, x: Value) -> Value {
        self.builder.ins().nearest(x)
    }

    fn lt(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fcmp(FloatCC::LessThan, x, y)
    }

    fn le(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fcmp(FloatCC::LessThanOrEqual, x, y)
    }

    fn eq(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().fcmp(FloatCC::Equal, x, y)
    }

    fn i_lt(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().icmp(IntCC::SignedLessThan, x, y)
    }

    fn i_eq(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().icmp(IntCC::Equal, x, y)
    }

    fn and(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().band(x, y)
    }

    fn or(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().bor(x, y)
    }

    fn not(&mut self, x: Value) -> Value {
        if self.width == Width::Four {
            return self.builder.ins().bnot(x);
        }
        let one = self.builder.ins().iconst(types::I8, 1);
        self.builder.ins().bxor(x, one)
    }

    fn select(&mut self, mask: Value, x: Value, y: Value) -> Value {
        self.choose(mask, x, y)
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

    fn i_add(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().iadd(x, y)
    }

    fn i_sub(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().isub(x, y)
    }

    fn i_mul(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().imul(x, y)
    }

    fn i_and(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().band(x, y)
    }

    fn i_or(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().bor(x, y)
    }

    fn i_xor(&mut self, x: Value, y: Value) -> Value {
        self.builder.ins().bxor(x, y)
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
