//! Filling memory with uniform random numbers, for each instruction set.
//!
//! All fillers give the bits of [`hypatia_graph::random::uniform_element`]. Sixteen neighbouring counters stand side by
//! side in vectors, whose four words are four whole vectors of the result: nothing is ever transposed. Any part that
//! begins at a block can be filled apart, so threads change no bit. Nothing here has state or knows of kernels.
#![allow(
    unsafe_code,
    reason = "vector intrinsics; the only callers have asked the processor through `Features`"
)]

use hypatia_graph::random::{BLOCK, KEY_STEPS, LANES, MULTIPLIERS, ROUNDS, unit_float};

use crate::features::{Features, InstructionSet};

/// Counters side by side.
const WIDTH: usize = LANES as usize;

/// Elements of a block.
pub const ELEMENTS: usize = BLOCK as usize;

/// Fills `out` with the elements of the random tensor from block `block` (64 elements each) on.
pub fn fill(features: &Features, key: u64, counter: i64, block: u64, out: &mut [f32]) {
    let counter = (counter as u64).wrapping_add(block.wrapping_mul(LANES));
    let key = [key as u32, (key >> 32) as u32];
    match features.instruction_set() {
        // SAFETY: a `Features` names only what the processor has.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => unsafe { avx512::fill(out, key, counter) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { fill_avx2(out, key, counter) },
        InstructionSet::Portable => fill_lanes(out, key, counter),
        #[cfg(not(target_arch = "x86_64"))]
        InstructionSet::Avx2 | InstructionSet::Avx512 => fill_lanes(out, key, counter),
    }
}

/// The plain loops, which the compiler turns into vectors of eight.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(out: &mut [f32], key: [u32; 2], counter: u64) {
    fill_lanes(out, key, counter);
}

#[inline(always)]
fn fill_lanes(out: &mut [f32], key: [u32; 2], counter: u64) {
    for (block, part) in out.chunks_mut(ELEMENTS).enumerate() {
        let words = philox_lanes(counter.wrapping_add(LANES * block as u64), key);
        for (vector, words) in part.chunks_mut(WIDTH).zip(&words) {
            for (element, word) in vector.iter_mut().zip(words) {
                *element = unit_float(*word);
            }
        }
    }
}

/// The four words of the counters from `counter` on.
#[inline(always)]
fn philox_lanes(counter: u64, key: [u32; 2]) -> [[u32; WIDTH]; 4] {
    let at: [u64; WIDTH] = std::array::from_fn(|lane| counter.wrapping_add(lane as u64));
    let mut x = [at.map(|at| at as u32), at.map(|at| (at >> 32) as u32), [0; WIDTH], [0; WIDTH]];
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let mut next = [[0u32; WIDTH]; 4];
        for lane in 0..WIDTH {
            let left = u64::from(MULTIPLIERS[0]) * u64::from(x[0][lane]);
            let right = u64::from(MULTIPLIERS[1]) * u64::from(x[2][lane]);
            next[0][lane] = (right >> 32) as u32 ^ x[1][lane] ^ k0;
            next[1][lane] = right as u32;
            next[2][lane] = (left >> 32) as u32 ^ x[3][lane] ^ k1;
            next[3][lane] = left as u32;
        }
        x = next;
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    x
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{ELEMENTS, KEY_STEPS, LANES, MULTIPLIERS, ROUNDS, WIDTH};
    use std::arch::x86_64::*;

    /// Two blocks at a time: each hides the latency of the other's products.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) fn fill(out: &mut [f32], key: [u32; 2], counter: u64) {
        let mut counter = counter;
        let mut pairs = out.chunks_exact_mut(2 * ELEMENTS);
        for pair in &mut pairs {
            let (first, second) = pair.split_at_mut(ELEMENTS);
            let [a, b] = blocks([counter, counter.wrapping_add(LANES)], key);
            store(first, a);
            store(second, b);
            counter = counter.wrapping_add(2 * LANES);
        }
        for part in pairs.into_remainder().chunks_mut(ELEMENTS) {
            let [words] = blocks([counter], key);
            store(part, words);
            counter = counter.wrapping_add(LANES);
        }
    }

    /// Lower and upper halves of the products of sixteen words with a factor that stands in every 64-bit lane.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn products(x: __m512i, factor: __m512i) -> (__m512i, __m512i) {
        let even = _mm512_mul_epu32(x, factor);
        let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(x), factor);
        let low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64::<32>(odd));
        let high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64::<32>(even), odd);
        (low, high)
    }

    /// The four words of sixteen counters from each of `counters` on.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn blocks<const N: usize>(counters: [u64; N], key: [u32; 2]) -> [[__m512i; 4]; N] {
        let factors = MULTIPLIERS.map(|m| _mm512_set1_epi64(i64::from(m)));
        let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let zero = _mm512_setzero_si512();
        let mut state = counters.map(|counter| {
            let (low, high) = (counter as u32 as i32, (counter >> 32) as u32 as i32);
            let first = _mm512_add_epi32(_mm512_set1_epi32(low), lanes);
            let carry = _mm512_cmplt_epu32_mask(first, lanes);
            let high = _mm512_set1_epi32(high);
            let second = _mm512_mask_add_epi32(high, carry, high, _mm512_set1_epi32(1));
            [first, second, zero, zero]
        });
        let [mut k0, mut k1] = key;
        for _ in 0..ROUNDS {
            let keys = [_mm512_set1_epi32(k0 as i32), _mm512_set1_epi32(k1 as i32)];
            for x in &mut state {
                let (low0, high0) = products(x[0], factors[0]);
                let (low1, high1) = products(x[2], factors[1]);
                // 0x96 is the exclusive or of three.
                *x = [
                    _mm512_ternarylogic_epi32::<0x96>(high1, x[1], keys[0]),
                    low1,
                    _mm512_ternarylogic_epi32::<0x96>(high0, x[3], keys[1]),
                    low0,
                ];
            }
            k0 = k0.wrapping_add(KEY_STEPS[0]);
            k1 = k1.wrapping_add(KEY_STEPS[1]);
        }
        state
    }

    /// Writes the words of a block as floats; the last block may be cut short.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn store(out: &mut [f32], words: [__m512i; 4]) {
        let unit = _mm512_set1_ps(1.0 / 16_777_216.0);
        for (vector, word) in out.chunks_mut(WIDTH).zip(words) {
            let floats = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32::<8>(word)), unit);
            let mask = ((1u32 << vector.len()) - 1) as __mmask16;
            // SAFETY: the mask leaves out the lanes beyond the end of `vector`.
            unsafe { _mm512_mask_storeu_ps(vector.as_mut_ptr(), mask, floats) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fill;
    use crate::features::Features;
    use hypatia_graph::random::uniform_element;

    /// Every instruction set, lengths around a block, counters whose lower and upper halves overflow.
    #[test]
    fn fillers_give_the_elements_of_the_definition() {
        let all = Features::detect();
        for set in all.available() {
            let features = all.clone().restricted_to(set);
            for counter in [0, 5, (1 << 32) - 9, -3, i64::MAX - 20, 1 << 40] {
                for len in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 200, 1000] {
                    let key = 0x1234_5678_9abc_def0;
                    let mut out = vec![-1.0f32; len];
                    fill(&features, key, counter, 0, &mut out);
                    for (e, got) in out.iter().enumerate() {
                        let expected = uniform_element(key, counter, e as u64);
                        assert_eq!(*got, expected, "{set} counter {counter} element {e} of {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_are_filled_as_the_whole() {
        let features = Features::detect();
        let mut whole = vec![0.0f32; 1000];
        fill(&features, 7, 100, 0, &mut whole);
        let mut part = vec![0.0f32; 300];
        fill(&features, 7, 100, 3, &mut part);
        assert_eq!(part, whole[192..492]);
    }
}
