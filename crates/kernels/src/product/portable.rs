//! Kernels in plain Rust, for processors without a vector extension that this crate knows.
//!
//! Vectors are arrays of 128 bits, which every usual target has in one register. Multiply and add round separately:
//! a fused one would be a library call per lane where the processor has none.
#![allow(unsafe_code, reason = "vectors read and write raw memory")]

use super::kernels::{self, Kernels, kernel_tables};
use super::vector::{Element, MAX_LANES, Vector};

/// A vector as an array.
#[derive(Clone, Copy)]
struct Lanes<T, const N: usize>([T; N]);

impl<T: Element, const N: usize> Vector for Lanes<T, N> {
    type Element = T;
    type Mask = usize;
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn mask(count: usize) -> usize {
        count.min(N)
    }
    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller gives N readable elements; an array of them has their layout.
        unsafe { Self(from.cast::<[T; N]>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const T, mask: usize) -> Self {
        // SAFETY: the caller gives `mask` readable elements.
        Self(std::array::from_fn(|lane| if lane < mask { unsafe { *from.add(lane) } } else { T::ZERO }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller gives N writable elements.
        unsafe { to.cast::<[T; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut T, mask: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(mask) {
            // SAFETY: the caller gives `mask` writable elements.
            unsafe { *to.add(lane) = value }
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * by.0[lane] + plus.0[lane]))
    }
    #[inline(always)]
    unsafe fn multiply(self, by: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * by.0[lane]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(always)]
    unsafe fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        Self(std::array::from_fn(|lane| {
            vectors[lane].0.into_iter().reduce(|sum, term| sum + term).unwrap_or(T::ZERO)
        }))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const T) {}
    #[inline(always)]
    unsafe fn prefetch_far(_: *const T) {}
    #[inline(always)]
    unsafe fn transpose(square: &mut [Self; MAX_LANES]) {
        let before = *square;
        for (row, vector) in square.iter_mut().enumerate().take(N) {
            *vector = Self(std::array::from_fn(|column| before[column].0[row]));
        }
    }
}

kernel_tables! {
    features = none;
    F32: f32 = Lanes<f32, 4>;
    F64: f64 = Lanes<f64, 2>;
    rows_by_vectors = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [1]];
    dot_columns_by_rows = [1 => [1, 2, 3], 2 => [1, 2, 3], 3 => [1, 2, 3]];
    offset_rows_by_vectors = [1 => [1, 2, 3, 4], 2 => [1, 2, 3, 4]];
    pair_terms = [1, 2, 3, 4];
    pair_rows = [1];
}
