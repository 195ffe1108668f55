//! The arithmetic of plain float32 numbers, one lane, for the interpreter and for tests.

use super::{Arith, Rare};

/// One lane of plain numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Arith for Plain {
    type F = f32;
    type I = i32;
    type M = bool;

    #[inline(always)]
    fn f(&mut self, value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn i(&mut self, value: i32) -> i32 {
        value
    }
    #[inline(always)]
    fn add(&mut self, x: f32, y: f32) -> f32 {
        x + y
    }
    #[inline(always)]
    fn sub(&mut self, x: f32, y: f32) -> f32 {
        x - y
    }
    #[inline(always)]
    fn mul(&mut self, x: f32, y: f32) -> f32 {
        x * y
    }
    #[inline(always)]
    fn div(&mut self, x: f32, y: f32) -> f32 {
        x / y
    }
    #[inline(always)]
    fn fma(&mut self, x: f32, y: f32, z: f32) -> f32 {
        x.mul_add(y, z)
    }
    #[inline(always)]
    fn sqrt(&mut self, x: f32) -> f32 {
        x.sqrt()
    }
    #[inline(always)]
    fn neg(&mut self, x: f32) -> f32 {
        -x
    }
    #[inline(always)]
    fn abs(&mut self, x: f32) -> f32 {
        x.abs()
    }
    #[inline(always)]
    fn floor(&mut self, x: f32) -> f32 {
        x.floor()
    }
    #[inline(always)]
    fn ceil(&mut self, x: f32) -> f32 {
        x.ceil()
    }
    #[inline(always)]
    fn trunc(&mut self, x: f32) -> f32 {
        x.trunc()
    }
    #[inline(always)]
    fn nearest(&mut self, x: f32) -> f32 {
        x.round_ties_even()
    }
    #[inline(always)]
    fn lt(&mut self, x: f32, y: f32) -> bool {
        x < y
    }
    #[inline(always)]
    fn le(&mut self, x: f32, y: f32) -> bool {
        x <= y
    }
    #[inline(always)]
    fn eq(&mut self, x: f32, y: f32) -> bool {
        x == y
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
    fn and(&mut self, x: bool, y: bool) -> bool {
        x & y
    }
    #[inline(always)]
    fn or(&mut self, x: bool, y: bool) -> bool {
        x | y
    }
    #[inline(always)]
    fn not(&mut self, x: bool) -> bool {
        !x
    }
    #[inline(always)]
    fn select(&mut self, mask: bool, x: f32, y: f32) -> f32 {
        if mask { x } else { y }
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
