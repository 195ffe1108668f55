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

/// Methods that are an expression each.
macro_rules! plain {
    ($($method:ident($($x:ident: $of:ty),*) -> $to:ty = $value:expr;)*) => {$(
        #[inline(always)]
        fn $method(&mut self, $($x: $of),*) -> $to {
            $value
        }
    )*};
}

macro_rules! plain_masks {
    ($($engine:ty),*) => {$(
        impl Masks for $engine {
            type M = bool;

            plain! {
                and(x: bool, y: bool) -> bool = x & y;
                or(x: bool, y: bool) -> bool = x | y;
                xor(x: bool, y: bool) -> bool = x ^ y;
                not(x: bool) -> bool = !x;
            }
        }
    )*};
}
plain_masks!(Plain, PlainDouble, PlainInteger, Checked);

macro_rules! plain_floats {
    ($engine:ty, $float:ty) => {
        impl Floats for $engine {
            type F = $float;

            plain! {
                add(x: $float, y: $float) -> $float = x + y;
                sub(x: $float, y: $float) -> $float = x - y;
                mul(x: $float, y: $float) -> $float = x * y;
                div(x: $float, y: $float) -> $float = x / y;
                sqrt(x: $float) -> $float = x.sqrt();
                neg(x: $float) -> $float = -x;
                abs(x: $float) -> $float = x.abs();
                floor(x: $float) -> $float = x.floor();
                ceil(x: $float) -> $float = x.ceil();
                trunc(x: $float) -> $float = x.trunc();
                nearest(x: $float) -> $float = x.round_ties_even();
                lt(x: $float, y: $float) -> bool = x < y;
                le(x: $float, y: $float) -> bool = x <= y;
                eq(x: $float, y: $float) -> bool = x == y;
                select(mask: bool, x: $float, y: $float) -> $float = if mask { x } else { y };
                common_bits(x: $float, y: $float) -> $float = <$float>::from_bits(x.to_bits() & y.to_bits());
                joined_bits(x: $float, y: $float) -> $float = <$float>::from_bits(x.to_bits() | y.to_bits());
            }

            #[inline(always)]
            fn f(&mut self, value: f32) -> $float {
                value.into()
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

    plain! {
        i(value: i32) -> i32 = value;
        fma(x: f32, y: f32, z: f32) -> f32 = x.mul_add(y, z);
        i_lt(x: i32, y: i32) -> bool = x < y;
        i_eq(x: i32, y: i32) -> bool = x == y;
        select_i(mask: bool, x: i32, y: i32) -> i32 = if mask { x } else { y };
        bits(x: f32) -> i32 = x.to_bits().cast_signed();
        from_bits(x: i32) -> f32 = f32::from_bits(x.cast_unsigned());
        i_add(x: i32, y: i32) -> i32 = x.wrapping_add(y);
        i_sub(x: i32, y: i32) -> i32 = x.wrapping_sub(y);
        i_mul(x: i32, y: i32) -> i32 = x.wrapping_mul(y);
        i_and(x: i32, y: i32) -> i32 = x & y;
        i_or(x: i32, y: i32) -> i32 = x | y;
        i_xor(x: i32, y: i32) -> i32 = x ^ y;
        shl(x: i32, count: u32) -> i32 = x.wrapping_shl(count);
        shr(x: i32, count: u32) -> i32 = x.cast_unsigned().wrapping_shr(count).cast_signed();
        sar(x: i32, count: u32) -> i32 = x.wrapping_shr(count);
        to_float(x: i32) -> f32 = x as f32;
        to_int(x: f32) -> i32 = x as i32;
    }

    #[inline(always)]
    fn rarely(&mut self, mask: bool, operands: [f32; 2], usual: f32, rare: Rare<Plain>) -> f32 {
        if mask { rare(self, operands) } else { usual }
    }
    #[inline(always)]
    fn is_fused(&self) -> bool {
        true
    }
}

impl PlainInteger {
    /// The number of the type that `value` wraps to.
    fn wrapped(&self, value: i64) -> i64 {
        match Literal::from_i64(value, self.0) {
            Literal::U8(x) => x.into(),
            Literal::I32(x) => x.into(),
            Literal::Bool(_) | Literal::I64(_) | Literal::F32(_) | Literal::F64(_) => value,
        }
    }
}

impl Integers for PlainInteger {
    type N = i64;

    plain! {
        n(value: i64) -> i64 = value;
        truncated_quotient(x: i64, y: i64) -> i64 = x.wrapping_div(y);
        truncated_remainder(x: i64, y: i64) -> i64 = x.wrapping_rem(y);
        maximum(x: i64, y: i64) -> i64 = x.max(y);
        minimum(x: i64, y: i64) -> i64 = x.min(y);
        bit_and(x: i64, y: i64) -> i64 = x & y;
        bit_or(x: i64, y: i64) -> i64 = x | y;
        bit_xor(x: i64, y: i64) -> i64 = x ^ y;
        lt(x: i64, y: i64) -> bool = x < y;
        le(x: i64, y: i64) -> bool = x <= y;
        eq(x: i64, y: i64) -> bool = x == y;
        select(mask: bool, x: i64, y: i64) -> i64 = if mask { x } else { y };
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
    fn bit_not(&mut self, x: i64) -> i64 {
        self.wrapped(!x)
    }
    fn is_signed(&self) -> bool {
        self.0 != DType::U8
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
}

impl Integers for Checked {
    type N = Option<i64>;

    plain! {
        n(value: i64) -> Option<i64> = Some(value);
        add(x: Option<i64>, y: Option<i64>) -> Option<i64> = x?.checked_add(y?);
        sub(x: Option<i64>, y: Option<i64>) -> Option<i64> = x?.checked_sub(y?);
        mul(x: Option<i64>, y: Option<i64>) -> Option<i64> = x?.checked_mul(y?);
        truncated_quotient(x: Option<i64>, y: Option<i64>) -> Option<i64> = x?.checked_div(y?);
        truncated_remainder(x: Option<i64>, y: Option<i64>) -> Option<i64> = x?.checked_rem(y?);
        maximum(x: Option<i64>, y: Option<i64>) -> Option<i64> = Some(x?.max(y?));
        minimum(x: Option<i64>, y: Option<i64>) -> Option<i64> = Some(x?.min(y?));
        bit_and(x: Option<i64>, y: Option<i64>) -> Option<i64> = Some(x? & y?);
        bit_or(x: Option<i64>, y: Option<i64>) -> Option<i64> = Some(x? | y?);
        bit_xor(x: Option<i64>, y: Option<i64>) -> Option<i64> = Some(x? ^ y?);
        bit_not(x: Option<i64>) -> Option<i64> = Some(!x?);
        lt(x: Option<i64>, y: Option<i64>) -> bool = x < y;
        le(x: Option<i64>, y: Option<i64>) -> bool = x <= y;
        eq(x: Option<i64>, y: Option<i64>) -> bool = x == y;
        select(mask: bool, x: Option<i64>, y: Option<i64>) -> Option<i64> = if mask { x } else { y };
    }

    fn is_signed(&self) -> bool {
        true
    }
    fn natural_power(&mut self, x: Option<i64>, y: Option<i64>) -> Option<i64> {
        match (x?, y?) {
            // Of these any power is a number.
            (x @ -1..=1, y) => Some(PlainInteger(DType::I64).natural_power(x, y)),
            (x, y) => x.checked_pow(u32::try_from(y).ok()?),
        }
    }
}
