//! NumPy's `default_rng`: the generator PCG64, seeded through `SeedSequence`, with float32 and bounded integers.
//!
//! Other frameworks make the data of the benchmarks with it; the same numbers here let costs be compared, and nothing
//! else depends on it. A draw consumes the stream exactly as NumPy's does: 32-bit draws come in halves of a 64-bit one,
//! the low half first, whatever kind of draw they are for. Only what the benchmarks draw is here.
//!
//! Normal numbers agree to rounding: NumPy's tables of the ziggurat are constants, these are computed.
//!
//! Sources: Marsaglia and Tsang, "The Ziggurat Method for Generating Random Variables" (2000); O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number
//! Generation" (2014); O'Neill, "Developing a seed_seq Alternative" (2015); Lemire, "Fast Random Integer Generation in
//! an Interval" (2019). `tests/reference/generator.py` makes the values that the tests compare with.

/// Multiplier of the linear congruential generator.
const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// NumPy's `Generator(PCG64)`.
#[derive(Clone, Debug)]
pub struct Generator {
    state: u128,
    increment: u128,
    /// The high half of a draw whose low half has been used.
    half: Option<u32>,
}

impl Generator {
    /// The generator of `numpy.random.default_rng(seed)` for a seed of up to 32 bits.
    ///
    /// # Examples
    ///
    /// ```
    /// use hypatia_datasets::numpy::Generator;
    /// assert_eq!(Generator::new(1234).next_u64(), 18016930633132456890);
    /// ```
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let [a, b, c, d] = seed_sequence(seed);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let mut generator = Self { state: 0, increment: wide(c, d) << 1 | 1, half: None };
        generator.advance();
        generator.state = generator.state.wrapping_add(wide(a, b));
        generator.advance();
        generator
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.advance();
        let mixed = (self.state >> 64) as u64 ^ self.state as u64;
        mixed.rotate_right((self.state >> 122) as u32)
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let both = self.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }

    /// `random(dtype=float32)`: uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn next_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// `random(n, dtype=float32)`.
    pub fn random(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next_f32()).collect()
    }

    /// `integers(0, high, n)`: uniform in `0..high`; all zeros where `high` is 0 (NumPy refuses it).
    pub fn integers(&mut self, high: u32, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(high)).collect()
    }

    /// `standard_normal(n)`.
    pub fn standard_normal(&mut self, n: usize) -> Vec<f64> {
        let ziggurat = Ziggurat::new(52);
        (0..n).map(|_| ziggurat.draw(self, Self::layer_f64, Self::next_f64)).collect()
    }

    /// `standard_normal(n, dtype=float32)`.
    pub fn standard_normal_f32(&mut self, n: usize) -> Vec<f32> {
        let ziggurat = Ziggurat::new(23);
        let uniform = |generator: &mut Self| f64::from(generator.next_f32());
        (0..n).map(|_| ziggurat.draw(self, Self::layer_f32, uniform) as f32).collect()
    }

    /// `random()`: uniform in `[0, 1)`, a multiple of 2^-53.
    fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn layer_f64(&mut self) -> Layer {
        let bits = self.next_u64();
        Layer { number: bits as u8, is_negative: bits >> 8 & 1 == 1, place: bits >> 9 & ((1 << 52) - 1) }
    }

    fn layer_f32(&mut self) -> Layer {
        let bits = u64::from(self.next_u32());
        Layer { number: bits as u8, is_negative: bits >> 8 & 1 == 1, place: bits >> 9 }
    }

    fn below(&mut self, high: u32) -> u32 {
        if high <= 1 {
            return 0;
        }
        let threshold = high.wrapping_neg() % high;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(high);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }
}

/// A place in a layer of the ziggurat.
struct Layer {
    number: u8,
    is_negative: bool,
    place: u64,
}

/// 256 layers of equal area below the density of the normal distribution, for places of so many bits.
struct Ziggurat {
    /// The place below which a point lies below the density whatever its height.
    inside: [u64; 256],
    /// The width of a place.
    width: [f64; 256],
    /// The density at the end of a layer.
    density: [f64; 256],
}

impl Ziggurat {
    /// Where the tail begins.
    const TAIL: f64 = 3.654_152_885_361_009;
    /// The area of a layer.
    const AREA: f64 = 0.004_928_673_233_974_658;

    fn new(bits: u32) -> Self {
        let places = (1_u64 << bits) as f64;
        let density = |x: f64| (-0.5 * x * x).exp();
        let mut new = Self { inside: [0; 256], width: [0.0; 256], density: [1.0; 256] };
        let mut end = Self::TAIL;
        let base = Self::AREA / density(end);
        new.inside[0] = (end / base * places) as u64;
        new.width[0] = base / places;
        new.width[255] = end / places;
        new.density[255] = density(end);
        for layer in (1..255).rev() {
            let next = (-2.0 * (Self::AREA / end + density(end)).ln()).sqrt();
            new.inside[layer + 1] = (next / end * places) as u64;
            new.width[layer] = next / places;
            new.density[layer] = density(next);
            end = next;
        }
        new
    }

    fn draw(
        &self,
        generator: &mut Generator,
        layer: impl Fn(&mut Generator) -> Layer,
        uniform: impl Fn(&mut Generator) -> f64,
    ) -> f64 {
        loop {
            let Layer { number, is_negative, place } = layer(generator);
            let number = usize::from(number);
            let size = place as f64 * self.width[number];
            let x = if is_negative { -size } else { size };
            if place < self.inside[number] {
                return x;
            }
            if number == 0 {
                loop {
                    let beyond = -(-uniform(generator)).ln_1p() / Self::TAIL;
                    let height = -(-uniform(generator)).ln_1p();
                    if height + height > beyond * beyond {
                        let is_left = place >> 8 & 1 == 1;
                        return if is_left { -Self::TAIL - beyond } else { Self::TAIL + beyond };
                    }
                }
            }
            let between = self.density[number - 1] - self.density[number];
            if between * uniform(generator) + self.density[number] < (-0.5 * x * x).exp() {
                return x;
            }
        }
    }
}

/// `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u32) -> [u64; 4] {
    let mut constant: u32 = 0x43b0_d7e5;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ value >> 16
    };
    let mut pool = [seed, 0, 0, 0].map(&mut hash);
    for source in 0..pool.len() {
        for target in 0..pool.len() {
            if source != target {
                let left = pool[target].wrapping_mul(0xca01_f9dd);
                let mixed = left.wrapping_sub(hash(pool[source]).wrapping_mul(0x4973_f715));
                pool[target] = mixed ^ mixed >> 16;
            }
        }
    }
    let mut constant: u32 = 0x8b51_f9dd;
    let mut word = |index: usize| {
        let value = pool[index % pool.len()] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        u64::from(value ^ value >> 16)
    };
    [0, 2, 4, 6].map(|index| word(index) | word(index + 1) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums over 100,000 draws, which meet the tail and the edges of layers, and single ones, by NumPy 2.4:
    /// `g = default_rng(7); x = g.standard_normal(100_000)`, then the same with `dtype=float32`.
    #[test]
    fn normal_numbers_are_those_of_numpy() {
        let mut generator = Generator::new(7);
        let x = generator.standard_normal(100_000);
        let single: Vec<f64> = generator.standard_normal_f32(100_000).into_iter().map(f64::from).collect();
        let found = |x: &[f64]| {
            let largest = x.iter().copied().fold(f64::MIN, f64::max);
            let least = x.iter().copied().fold(f64::MAX, f64::min);
            [x[0], x[99_999], x.iter().map(|x| x * x * x).sum(), largest, least]
        };
        for (found, expected) in found(&x).iter().zip(NORMAL) {
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} {expected}");
        }
        for (found, expected) in found(&single).iter().zip(NORMAL_F32) {
            assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{found} {expected}");
        }
    }

    const NORMAL: [f64; 5] = [
        0.0012301533574825742,
        0.8518898525107713,
        -1327.6975578015113,
        4.06160631065189,
        -4.502222241099144,
    ];
    const NORMAL_F32: [f64; 5] =
        [-0.5276666283607483, 0.7338061928749084, 6.376584345683369, 4.295236110687256, -4.505232334136963];

    /// Values made by `tests/reference/generator.py`.
    const REFERENCE: &str = include_str!("../../../../tests/reference/generator.txt");

    fn numbers(line: &str) -> Vec<u64> {
        line.split_whitespace().skip(2).map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn draws_are_those_of_numpy() {
        let mut lines = 0;
        for line in REFERENCE.lines().filter(|line| !line.starts_with('#')) {
            let expected = numbers(line);
            let mut words = line.split_whitespace();
            let (kind, seed) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
            let mut generator = Generator::new(seed);
            let n = expected.len();
            let bits = |values: Vec<f32>| values.iter().map(|x| u64::from(x.to_bits())).collect::<Vec<_>>();
            let wide = |values: Vec<u32>| values.into_iter().map(u64::from).collect::<Vec<_>>();
            let found = match kind {
                "raw" => (0..n).map(|_| generator.next_u64()).collect(),
                "float32" => bits(generator.random(n)),
                "integers10" => wide(generator.integers(10, n)),
                // A large bound, so that draws are rejected.
                "integers3000000000" => wide(generator.integers(3_000_000_000, n)),
                // An odd number of halves, then integers, then floats again.
                "mixed" => {
                    let mut all = bits(generator.random(3));
                    all.extend(wide(generator.integers(10, 4)));
                    all.extend(bits(generator.random(n - 7)));
                    all
                }
                other => panic!("unknown kind {other}"),
            };
            assert_eq!(found, expected, "{kind} {seed}");
            lines += 1;
        }
        assert!(lines >= 20);
    }
}
