//! Kernels for AVX-512 (F, BW, DQ, VL).
#![allow(unsafe_code, reason = "vector intrinsics")]

use super::kernels::{self, Kernels, kernel_tables};
use super::vector::{MAX_LANES, Vector};
use std::arch::x86_64::*;

/// Sixteen single-precision lanes.
#[derive(Clone, Copy)]
struct Singles(__m512);

// SAFETY (of every block below): `Vector` leaves to its caller that the processor has these extensions, and that the
// memory of the lanes loaded or stored is valid.
impl Vector for Singles {
    type Element = f32;
    type Mask = __mmask16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __mmask16 {
        ((1u32 << count.min(16)) - 1) as __mmask16
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_maskz_loadu_ps(mask, from)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the impl.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
        // SAFETY: see the impl.
        unsafe { _mm512_mask_storeu_ps(to, mask, self.0) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_fmadd_ps(self.0, by.0, plus.0)) }
    }
    #[inline(always)]
    unsafe fn multiply(self, by: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_mul_ps(self.0, by.0)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        // SAFETY: see the impl. Halves are added until four lanes are left of each vector, then a transposition of these
        // within quarters of the register adds four vectors at once.
        unsafe {
            let mut fours = [_mm512_setzero_ps(); 4];
            for i in 0..4 {
                // These four make a lane of each quarter of the result.
                let (a, b, c, d) = (vectors[i].0, vectors[4 + i].0, vectors[8 + i].0, vectors[12 + i].0);
                let ab =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
                let cd =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
                fours[i] =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
            }
            let [a, b, c, d] = fours;
            let ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
            let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
            let cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
            let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
            let first = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low));
            let second = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low));
            let third = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high));
            let fourth = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high));
            Self(_mm512_add_ps(_mm512_add_ps(first, second), _mm512_add_ps(third, fourth)))
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
        // SAFETY: see the impl. Lanes change places in pairs, quadruples, and twice in quarters of the register.
        unsafe {
            let mut r = [square[0].0; 16];
            for i in 0..16 {
                r[i] = square[i].0;
            }
            let mut t = r;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..4 {
                for half in 0..2 {
                    let upper = _mm512_castps_pd(t[4 * i + half]);
                    let lower = _mm512_castps_pd(t[4 * i + half + 2]);
                    r[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
                    r[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
                }
            }
            for i in 0..4 {
                t[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]);
                t[i + 4] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[i + 4]);
                t[i + 8] = _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]);
                t[i + 12] = _mm512_shuffle_f32x4::<0xdd>(r[i + 8], r[i + 12]);
            }
            for i in 0..4 {
                square[i] = Self(_mm512_shuffle_f32x4::<0x88>(t[i], t[i + 8]));
                square[i + 8] = Self(_mm512_shuffle_f32x4::<0xdd>(t[i], t[i + 8]));
                square[i + 4] = Self(_mm512_shuffle_f32x4::<0x88>(t[i + 4], t[i + 12]));
                square[i + 12] = Self(_mm512_shuffle_f32x4::<0xdd>(t[i + 4], t[i + 12]));
            }
        }
    }
}

/// Eight double-precision lanes.
#[derive(Clone, Copy)]
struct Doubles(__m512d);

// SAFETY (of every block below): as for `Singles`.
impl Vector for Doubles {
    type Element = f64;
    type Mask = __mmask8;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __mmask8 {
        ((1u32 << count.min(8)) - 1) as __mmask8
    }
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_set1_pd(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_loadu_pd(from)) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f64, mask: __mmask8) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_maskz_loadu_pd(mask, from)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: see the impl.
        unsafe { _mm512_storeu_pd(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f64, mask: __mmask8) {
        // SAFETY: see the impl.
        unsafe { _mm512_mask_storeu_pd(to, mask, self.0) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_fmadd_pd(self.0, by.0, plus.0)) }
    }
    #[inline(always)]
    unsafe fn multiply(self, by: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_mul_pd(self.0, by.0)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_add_pd(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        // SAFETY: see the impl. Halves, then neighbours, then what is left of each vector is added.
        unsafe {
            let mut halves = [_mm512_setzero_pd(); 4];
            for i in 0..4 {
                let (a, b) = (vectors[i / 2 * 4 + i % 2].0, vectors[i / 2 * 4 + i % 2 + 2].0);
                halves[i] =
                    _mm512_add_pd(_mm512_shuffle_f64x2::<0x44>(a, b), _mm512_shuffle_f64x2::<0xee>(a, b));
            }
            let [a, b, c, d] = halves;
            let first = _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            let last = _mm512_add_pd(_mm512_unpacklo_pd(c, d), _mm512_unpackhi_pd(c, d));
            Self(_mm512_add_pd(
                _mm512_shuffle_f64x2::<0x88>(first, last),
                _mm512_shuffle_f64x2::<0xdd>(first, last),
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
        // SAFETY: see the impl. Lanes change places in pairs, then twice in quarters of the register.
        unsafe {
            let mut pairs = [square[0].0; 8];
            for i in 0..4 {
                pairs[i] = _mm512_unpacklo_pd(square[2 * i].0, square[2 * i + 1].0);
                pairs[i + 4] = _mm512_unpackhi_pd(square[2 * i].0, square[2 * i + 1].0);
            }
            for odd in 0..2 {
                let p = &pairs[4 * odd..4 * odd + 4];
                let even_low = _mm512_shuffle_f64x2::<0x88>(p[0], p[1]);
                let odd_low = _mm512_shuffle_f64x2::<0xdd>(p[0], p[1]);
                let even_high = _mm512_shuffle_f64x2::<0x88>(p[2], p[3]);
                let odd_high = _mm512_shuffle_f64x2::<0xdd>(p[2], p[3]);
                square[odd] = Self(_mm512_shuffle_f64x2::<0x88>(even_low, even_high));
                square[odd + 4] = Self(_mm512_shuffle_f64x2::<0xdd>(even_low, even_high));
                square[odd + 2] = Self(_mm512_shuffle_f64x2::<0x88>(odd_low, odd_high));
                square[odd + 6] = Self(_mm512_shuffle_f64x2::<0xdd>(odd_low, odd_high));
            }
        }
    }
}

kernel_tables! {
    features = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
    F32: f32 = Singles;
    F64: f64 = Doubles;
    rows_by_vectors = [
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3]
    ];
    dot_columns_by_rows = [
        1 => [1, 2, 3, 4, 5, 6],
        2 => [1, 2, 3, 4, 5, 6],
        3 => [1, 2, 3, 4, 5, 6],
        4 => [1, 2, 3, 4, 5, 6],
        5 => [1, 2, 3, 4, 5]
    ];
    offset_rows_by_vectors = [
        1 => [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        2 => [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        3 => [1, 2, 3, 4, 5, 6, 7, 8],
        4 => [1, 2, 3, 4, 5, 6]
    ];
    pair_terms = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    pair_rows = [1, 2];
}
