//! Kernels for AVX2 with fused multiply-add.
#![allow(unsafe_code, reason = "vector intrinsics")]

use super::kernels::{self, Kernels, kernel_tables};
use super::vector::{MAX_LANES, Vector};
use std::arch::x86_64::*;

/// Sliding this window of ones and zeros gives the mask of the first few lanes.
static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Eight single-precision lanes.
#[derive(Clone, Copy)]
struct Singles(__m256);

// SAFETY (of every block below): `Vector` leaves to its caller that the processor has AVX2 and FMA, and that the memory
// of the lanes loaded or stored is valid.
impl Vector for Singles {
    type Element = f32;
    type Mask = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        // SAFETY: see the impl; the window has 8 entries from any start up to 8.
        unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - count.min(8)).cast()) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __m256i) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_maskload_ps(from, mask)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the impl.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __m256i) {
        // SAFETY: see the impl.
        unsafe { _mm256_maskstore_ps(to, mask, self.0) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_fmadd_ps(self.0, by.0, plus.0)) }
    }
    #[inline(always)]
    unsafe fn multiply(self, by: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_mul_ps(self.0, by.0)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        // SAFETY: see the impl.
        unsafe {
            let [a, b, c, d, e, f, g, h, ..] = *vectors;
            let first = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
            let last = _mm256_hadd_ps(_mm256_hadd_ps(e.0, f.0), _mm256_hadd_ps(g.0, h.0));
            Self(_mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(first, last),
                _mm256_permute2f128_ps::<0x31>(first, last),
            ))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        // SAFETY: a prefetch reads nothing that the program could see, from any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(from: *const f32) {
        // SAFETY: as for `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(square: &mut [Self; MAX_LANES]) {
        // SAFETY: see the impl. Pairs, then quadruples, then halves change places.
        unsafe {
            let r = *square;
            let mut pairs = [r[0].0; 8];
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i].0, r[2 * i + 1].0);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i].0, r[2 * i + 1].0);
            }
            let mut quads = [r[0].0; 8];
            for i in 0..2 {
                quads[4 * i] = _mm256_shuffle_ps::<0x44>(pairs[4 * i], pairs[4 * i + 2]);
                quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(pairs[4 * i], pairs[4 * i + 2]);
                quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(pairs[4 * i + 1], pairs[4 * i + 3]);
                quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(pairs[4 * i + 1], pairs[4 * i + 3]);
            }
            for i in 0..4 {
                square[i] = Self(_mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]));
                square[i + 4] = Self(_mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]));
            }
        }
    }
}

/// Four double-precision lanes.
#[derive(Clone, Copy)]
struct Doubles(__m256d);

// SAFETY (of every block below): as for `Singles`.
impl Vector for Doubles {
    type Element = f64;
    type Mask = __m256i;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        // SAFETY: see the impl; two entries of the window make one lane.
        unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - 2 * count.min(4)).cast()) }
    }
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_set1_pd(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_loadu_pd(from)) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f64, mask: __m256i) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_maskload_pd(from, mask)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: see the impl.
        unsafe { _mm256_storeu_pd(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f64, mask: __m256i) {
        // SAFETY: see the impl.
        unsafe { _mm256_maskstore_pd(to, mask, self.0) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_fmadd_pd(self.0, by.0, plus.0)) }
    }
    #[inline(always)]
    unsafe fn multiply(self, by: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_mul_pd(self.0, by.0)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm256_add_pd(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        // SAFETY: see the impl.
        unsafe {
            let [a, b, c, d, ..] = *vectors;
            let (first, last) = (_mm256_hadd_pd(a.0, b.0), _mm256_hadd_pd(c.0, d.0));
            Self(_mm256_add_pd(
                _mm256_permute2f128_pd::<0x20>(first, last),
                _mm256_permute2f128_pd::<0x31>(first, last),
            ))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f64) {
        // SAFETY: a prefetch reads nothing that the program could see, from any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(from: *const f64) {
        // SAFETY: as for `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(square: &mut [Self; MAX_LANES]) {
        // SAFETY: see the impl.
        unsafe {
            let r = *square;
            for i in 0..2 {
                let (low, high) = (
                    [_mm256_unpacklo_pd(r[0].0, r[1].0), _mm256_unpackhi_pd(r[0].0, r[1].0)][i],
                    [_mm256_unpacklo_pd(r[2].0, r[3].0), _mm256_unpackhi_pd(r[2].0, r[3].0)][i],
                );
                square[i] = Self(_mm256_permute2f128_pd::<0x20>(low, high));
                square[i + 2] = Self(_mm256_permute2f128_pd::<0x31>(low, high));
            }
        }
    }
}

kernel_tables! {
    features = "avx2,fma";
    F32: f32 = Singles;
    F64: f64 = Doubles;
    rows_by_vectors = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [1, 2, 3], [1]];
    dot_columns_by_rows = [1 => [1, 2, 3, 4], 2 => [1, 2, 3, 4], 3 => [1, 2, 3, 4]];
    offset_rows_by_vectors = [1 => [1, 2, 3, 4, 5, 6], 2 => [1, 2, 3, 4, 5, 6], 3 => [1, 2, 3, 4]];
    pair_terms = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    pair_rows = [1];
}
