//! The counter-based generator Philox4x32-10: a keyed bijection of 128-bit counters whose values are random
//! bits. It has no state: equal counter and key give equal bits on every device.

/// The multipliers of the two halves of a round.
pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by between rounds: the golden ratio, and the square root of 3 less 1.
pub const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Rounds of the generator.
pub const ROUNDS: usize = 10;

/// Four random words for a counter and a key, by ten rounds of Philox (Salmon, Moraes, Dror and Shaw,
/// "Parallel random numbers: as easy as 1, 2, 3", SC11). Words stand least significant first, as in Random123.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let (low0, high0) = x0.carrying_mul(MULTIPLIERS[0], 0);
        let (low1, high1) = x2.carrying_mul(MULTIPLIERS[1], 0);
        (x0, x1, x2, x3) = (high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0);
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    [x0, x1, x2, x3]
}

/// The counter that a random tensor with `elements` elements leaves behind is its own plus this: four words a counter,
/// in blocks of [`BLOCK`] elements.
pub fn counters_used(elements: u64) -> u64 {
    elements.div_ceil(BLOCK) * LANES
}

/// Elements that [`LANES`] neighbouring counters give.
pub const BLOCK: u64 = 4 * LANES;

/// Counters whose words lie side by side: element `64 b + 16 w + l` is word `w` of counter `16 b + l`, so that a vector
/// of counters gives four whole vectors of elements.
pub const LANES: u64 = 16;

/// Element `element`, in row-major order, of the random tensor with that key and counter: the upper 24 bits of its
/// word as a multiple of 2^-24 in [0, 1). The counter is read as an unsigned number; it and the key stand least
/// significant word first, the upper half of the generator's counter is 0.
pub fn uniform_element(key: u64, counter: i64, element: u64) -> f32 {
    let (block, word, lane) = (element / BLOCK, element % BLOCK / LANES, element % LANES);
    let at = (counter as u64).wrapping_add(LANES * block + lane);
    let words = philox4x32_10([at as u32, (at >> 32) as u32, 0, 0], [key as u32, (key >> 32) as u32]);
    unit_float(words[word as usize])
}

/// The upper 24 bits of a word as a multiple of 2^-24 in [0, 1), without rounding.
pub fn unit_float(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// The known answers of Random123 1.09, `tests/kat_vectors`, lines `philox4x32 10`.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }
}
