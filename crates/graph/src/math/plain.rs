//! Plain numbers, one lane: what defines every function on them, for the interpreter and for tests.

use super::{Arith, Doubles, Floats, Integers, Library, Masks, Rare};
use crate::dtype::{DType, Literal};

/// One lane of float32 numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

/// One lane of float64 numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDouble;

/// One lane of integers of a type.
#[derive(Clone, Copy, Debug)]
pub struct PlainInteger(pub DType);

/// One lane of `i64`, `None` once a number has left the type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked;

macro_rules! plain_masks {
    ($($engine:ty),*) => {$(
        impl Masks for $engine {
            type M = bool;

            #[inline(always)]
            fn and(&mut self, x: bool, y: bool) -> bool {
                x & y
            }
            #[inline(always)]
            fn or(&mut self, x: bool, y: bool) -> bool {
                x | y
            }
            #[inline(always)]
            fn xor(&mut self, x: bool, y: bool) -> bool {
                x ^ y
            }
            #[inline(always)]
            fn not(&mut self, x: bool) -> bool {
                !x
            }
        }
    )*};
}
plain_masks!(Plain, PlainDouble, PlainInteger, Checked);

macro_rules! plain_floats {
    ($engine:ty, $float:ty) => {
        impl Floats for $engine {
            type F = $float;

            #[inline(always)]
            fn f(&mut self, value: f32) -> $float {
                value.into()
            }
            #[inline(always)]
            fn add(&mut self, x: $float, y: $float) -> $float {
                x + y
            }
            #[inline(always)]
            fn sub(&mut self, x: $float, y: $float) -> $float {
                x - y
            }
            #[inline(always)]
            fn mul(&mut self, x: $float, y: $float) -> $float {
                x * y
            }
            #[inline(always)]
            fn div(&mut self, x: $float, y: $float) -> $float {
                x / y
            }
            #[inline(always)]
            fn sqrt(&mut self, x: $float) -> $float {
                x.sqrt()
            }
            #[inline(always)]
            fn neg(&mut self, x: $float) -> $float {
                -x
            }
            #[inline(always)]
            fn abs(&mut self, x: $float) -> $float {
                x.abs()
            }
            #[inline(always)]
            fn floor(&mut self, x: $float) -> $float {
                x.floor()
            }
            #[inline(always)]
            fn ceil(&mut self, x: $float) -> $float {
                x.ceil()
            }
            #[inline(always)]
            fn trunc(&mut self, x: $float) -> $float {
                x.trunc()
            }
            #[inline(always)]
            fn nearest(&mut self, x: $float) -> $float {
                x.round_ties_even()
            }
            #[inline(always)]
            fn lt(&mut self, x: $float, y: $float) -> bool {
                x < y
            }
            #[inline(always)]
            fn le(&mut self, x: $float, y: $float) -> bool {
                x <= y
            }
            #[inline(always)]
            fn eq(&mut self, x: $float, y: $float) -> bool {
                x == y
            }
            #[inline(always)]
            fn select(&mut self, mask: bool, x: $float, y: $float) -> $float {
                if mask { x } else { y }
            }
            #[inline(always)]
            fn common_bits(&mut self, x: $float, y: $float) -> $float {
                <$float>::from_bits(x.to_bits() & y.to_bits())
            }
            #[inline(always)]
            fn joined_bits(&mut self, x: $float, y: $float) -> $float {
                <$float>::from_bits(x.to_bits() | y.to_bits())
            }
        }
    };
}
plain_floats!(Plain, f32);
plain_floats!(PlainDouble, f64);

impl Doubles for PlainDouble {
    fn d(&mut self, value: f64) -> f64 {
        value
    }
    fn call(&mut self, routine: &'static Library, [x, y]: [f64; 2]) -> f64 {
        (routine.value)(x, y)
    }
}

impl Arith for Plain {
    type I = i32;

    #[inline(always)]
    fn i(&mut self, value: i32) -> i32 {
        value
    }
    #[inline(always)]
    fn fma(&mut self, x: f32, y: f32, z: f32) -> f32 {
        x.mul_add(y, z)
    }
    #[inline(always)]
    fn i_lt(&mut self, x: i32, y: i32) -> bool {
        x < y
    }
    #[inline(always)]
    fn i_eq(&mut self, x: i32, y: i32) -> bool {
        x == y
    }
    #[inline(always)]
    fn select_i(&mut self, mask: bool, x: i32, y: i32) -> i32 {
        if mask { x } else { y }
    }
    #[inline(always)]
    fn bits(&mut self, x: f32) -> i32 {
        x.to_bits().cast_signed()
    }
    #[inline(always)]
    fn from_bits(&mut self, x: i32) -> f32 {
        f32::from_bits(x.cast_unsigned())
    }
    #[inline(always)]
    fn rarely(&mut self, mask: bool, operands: [f32; 2], usual: f32, rare: Rare<Plain>) -> f32 {
        if mask { rare(self, operands) } else { usual }
    }
    #[inline(always)]
    fn is_fused(&self) -> bool {
        true
    }
    #[inline(always)]
    fn i_add(&mut self, x: i32, y: i32) -> i32 {
        x.wrapping_add(y)
    }
    #[inline(always)]
    fn i_sub(&mut self, x: i32, y: i32) -> i32 {
        x.wrapping_sub(y)
    }
    #[inline(always)]
    fn i_mul(&mut self, x: i32, y: i32) -> i32 {
        x.wrapping_mul(y)
    }
    #[inline(always)]
    fn i_and(&mut self, x: i32, y: i32) -> i32 {
        x & y
    }
    #[inline(always)]
    fn i_or(&mut self, x: i32, y: i32) -> i32 {
        x | y
    }
    #[inline(always)]
    fn i_xor(&mut self, x: i32, y: i32) -> i32 {
        x ^ y
    }
    #[inline(always)]
    fn shl(&mut self, x: i32, count: u32) -> i32 {
        x.wrapping_shl(count)
    }
    #[inline(always)]
    fn shr(&mut self, x: i32, count: u32) -> i32 {
        x.cast_unsigned().wrapping_shr(count).cast_signed()
    }
    #[inline(always)]
    fn sar(&mut self, x: i32, count: u32) -> i32 {
        x.wrapping_shr(count)
    }
    #[inline(always)]
    fn to_float(&mut self, x: i32) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_int(&mut self, x: f32) -> i32 {
        x as i32
    }
}

impl PlainInteger {
    /// The number of the type that `value` wraps to.
    fn wrapped(self, value: i64) -> i64 {
        match Literal::from_i64(value, self.0) {
            Literal::U8(x) => x.into(),
            Literal::I32(x) => x.into(),
            Literal::Bool(_) | Literal::I64(_) | Literal::F32(_) | Literal::F64(_) => value,
        }
    }
}

impl Integers for PlainInteger {
    type N = i64;

    fn is_signed(&self) -> bool {
        self.0 != DType::U8
    }
    fn n(&mut self, value: i64) -> i64 {
        value
    }
    fn add(&mut self, x: i64, y: i64) -> i64 {
        self.wrapped(x.wrapping_add(y))
    }
    fn sub(&mut self, x: i64, y: i64) -> i64 {
        self.wrapped(x.wrapping_sub(y))
    }
    fn mul(&mut self, x: i64, y: i64) -> i64 {
        self.wrapped(x.wrapping_mul(y))
    }
    fn truncated_quotient(&mut self, x: i64, y: i64) -> i64 {
        x.wrapping_div(y)
    }
    fn truncated_remainder(&mut self, x: i64, y: i64) -> i64 {
        x.wrapping_rem(y)
    }
    fn natural_power(&mut self, x: i64, y: i64) -> i64 {
        let (mut base, mut exponent, mut power) = (x, y, 1);
        while exponent > 0 {
            if exponent & 1 == 1 {
                power = self.mul(power, base);
            }
            base = self.mul(base, base);
            exponent >>= 1;
        }
        power
    }
    fn maximum(&mut self, x: i64, y: i64) -> i64 {
        x.max(y)
    }
    fn minimum(&mut self, x: i64, y: i64) -> i64 {
        x.min(y)
    }
    fn bit_and(&mut self, x: i64, y: i64) -> i64 {
        x & y
    }
    fn bit_or(&mut self, x: i64, y: i64) -> i64 {
        x | y
    }
    fn bit_xor(&mut self, x: i64, y: i64) -> i64 {
        x ^ y
    }
    fn bit_not(&mut self, x: i64) -> i64 {
        self.wrapped(!x)
    }
    fn lt(&mut self, x: i64, y: i64) -> bool {
        x < y
    }
    fn le(&mut self, x: i64, y: i64) -> bool {
        x <= y
    }
    fn eq(&mut self, x: i64, y: i64) -> bool {
        x == y
    }
    fn select(&mut self, mask: bool, x: i64, y: i64) -> i64 {
        if mask { x } else { y }
    }
}

impl Integers for Checked {
    type N = Option<i64>;

    fn is_signed(&self) -> bool {
        true
    }
    fn n(&mut self, value: i64) -> Option<i64> {
        Some(value)
    }
    fn add(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        x?.checked_add(y?)
    }
    fn sub(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        x?.checked_sub(y?)
    }
    fn mul(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        x?.checked_mul(y?)
    }
    fn truncated_quotient(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        x?.checked_div(y?)
    }
    fn truncated_remainder(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        x?.checked_rem(y?)
    }
    fn natural_power(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        match (x?, y?) {
            // Of these any power is a number.
            (x @ -1..=1, y) => Some(PlainInteger(DType::I64).natural_power(x, y)),
            (x, y) => x.checked_pow(u32::try_from(y).ok()?),
        }
    }
    fn maximum(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        Some(x?.max(y?))
    }
    fn minimum(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        Some(x?.min(y?))
    }
    fn bit_and(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        Some(x? & y?)
    }
    fn bit_or(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        Some(x? | y?)
    }
    fn bit_xor(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        Some(x? ^ y?)
    }
    fn bit_not(&mut self, x: Option<i64>) -> Option<i64> {
        Some(!x?)
    }
    fn lt(&mut self, x: Option<i64>, y: Option<i64>) -> bool {
        x < y
    }
    fn le(&mut self, x: Option<i64>, y: Option<i64>) -> bool {
        x <= y
    }
    fn eq(&mut self, x: Option<i64>, y: Option<i64>) -> bool {
        x == y
    }
    fn select(&mut self, mask: bool, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        if mask { x } else { y }
    }
}
