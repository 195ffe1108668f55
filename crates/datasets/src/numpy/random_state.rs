//! NumPy's legacy `RandomState`: the Mersenne Twister MT19937 and the distributions on top of it, draw for draw.
//!
//! Published runs of the tutorials initialise their parameters from `numpy.random.RandomState(seed)`. NumPy has
//! frozen that stream, so the same seed gives the same numbers here, and those runs can be reproduced.
//! Every method consumes the generator exactly as NumPy's does; mixing calls in the same order gives the same values.
//! Random draws inside a graph have nothing to do with this: they are counter-based.
//!
//! The normal distribution takes a logarithm from the system's mathematical library, as NumPy does, so its last bit
//! is the system's; everything else is exact arithmetic and equal on every machine.

use thiserror::Error;

/// Words of state of MT19937.
const STATE_WORDS: usize = 624;
/// Distance between the words that the recurrence combines.
const SHIFT: usize = 397;

/// Why a distribution cannot be drawn from.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RandomStateError {
    /// `randint` over a range that holds no integer.
    #[error("randint: expected low < high, found low = {low}, high = {high}")]
    EmptyRange {
        /// Smallest value asked for.
        low: i64,
        /// Value past the largest one asked for.
        high: i64,
    },
    /// A binomial outside of what the inversion method covers.
    #[error(
        "binomial: expected a probability in [0, 1] with n * min(p, 1 - p) <= 30, found n = {trials}, p = {probability}"
    )]
    Binomial {
        /// Number of trials.
        trials: u32,
        /// Probability of success.
        probability: f64,
    },
    /// A saved state that is not one of MT19937.
    #[error(
        "random state: expected {STATE_WORDS} words and a position up to {STATE_WORDS}, found {words} words and position {position}"
    )]
    State {
        /// Words found.
        words: usize,
        /// Position found.
        position: usize,
    },
}

/// The position in the stream of a [`RandomState`], as `numpy.random.RandomState.get_state` gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mt19937State {
    /// The 624 words of the generator.
    pub words: Vec<u32>,
    /// Index of the next word to be used, 624 when a new block is due.
    pub position: usize,
    /// Second value of the last pair of normal draws, when it has not been used yet.
    pub cached_normal: Option<f64>,
}

/// NumPy's legacy generator, `numpy.random.RandomState`.
///
/// Values come back as flat vectors in C order; shape them as needed.
#[derive(Debug, Clone)]
pub struct RandomState {
    words: [u32; STATE_WORDS],
    position: usize,
    cached_normal: Option<f64>,
}

impl RandomState {
    /// The generator of `numpy.random.RandomState(seed)` for an integer seed.
    ///
    /// # Examples
    ///
    /// ```
    /// use hypatia_datasets::numpy::RandomState;
    /// let mut rng = RandomState::new(1234);
    /// assert_eq!(rng.random_sample(1), [0.1915194503788923]);
    /// ```
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut words = [0; STATE_WORDS];
        let mut word = seed;
        for (index, slot) in (0u32..).zip(words.iter_mut()) {
            *slot = word;
            word = 1_812_433_253_u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(index + 1);
        }
        Self { words, position: STATE_WORDS, cached_normal: None }
    }

    /// The generator of `numpy.random.RandomState([k0, k1, ...])`, seeded by a sequence of words.
    ///
    /// An empty key is taken as `[0]` (NumPy refuses it).
    #[must_use]
    pub fn from_key(key: &[u32]) -> Self {
        let key = if key.is_empty() { &[0] } else { key };
        let mut words = Self::new(19_650_218).words;
        let (mut i, mut j) = (1, 0);
        for _ in 0..STATE_WORDS.max(key.len()) {
            let previous = words[i - 1];
            words[i] = (words[i] ^ (previous ^ (previous >> 30)).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == STATE_WORDS {
                words[0] = words[STATE_WORDS - 1];
                i = 1;
            }
        }
        for _ in 0..STATE_WORDS - 1 {
            let previous = words[i - 1];
            words[i] =
                (words[i] ^ (previous ^ (previous >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i == STATE_WORDS {
                words[0] = words[STATE_WORDS - 1];
                i = 1;
            }
        }
        words[0] = 0x8000_0000;
        Self { words, position: STATE_WORDS, cached_normal: None }
    }

    /// The position in the stream, to be saved.
    #[must_use]
    pub fn state(&self) -> Mt19937State {
        Mt19937State {
            words: self.words.to_vec(),
            position: self.position,
            cached_normal: self.cached_normal,
        }
    }

    /// A generator that goes on from a saved position.
    ///
    /// # Errors
    ///
    /// [`RandomStateError::State`] when the number of words or the position cannot be that of MT19937.
    pub fn from_state(state: &Mt19937State) -> Result<Self, RandomStateError> {
        match <[u32; STATE_WORDS]>::try_from(state.words.as_slice()) {
            Ok(words) if state.position <= STATE_WORDS => {
                Ok(Self { words, position: state.position, cached_normal: state.cached_normal })
            }
            Ok(_) | Err(_) => {
                Err(RandomStateError::State { words: state.words.len(), position: state.position })
            }
        }
    }

    /// The next 32 random bits (Matsumoto and Nishimura, 1998, with their tempering).
    pub fn next_u32(&mut self) -> u32 {
        if self.position == STATE_WORDS {
            self.regenerate();
            self.position = 0;
        }
        let mut y = self.words[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The next 64 random bits: two words, the first one the upper half.
    pub fn next_u64(&mut self) -> u64 {
        let upper = u64::from(self.next_u32());
        upper << 32 | u64::from(self.next_u32())
    }

    fn regenerate(&mut self) {
        for i in 0..STATE_WORDS {
            let y = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % STATE_WORDS] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + SHIFT) % STATE_WORDS] ^ (y >> 1) ^ twist;
        }
    }

    /// One float64 of 53 random bits in `[0, 1)`.
    fn double(&mut self) -> f64 {
        let upper = f64::from(self.next_u32() >> 5);
        let lower = f64::from(self.next_u32() >> 6);
        (upper * 67_108_864.0 + lower) / 9_007_199_254_740_992.0
    }

    /// `n` values uniform in `[0, 1)`: `random_sample(n)`, also `rand(n)`.
    pub fn random_sample(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.double()).collect()
    }

    /// `n` values uniform in `[low, high)`: `uniform(low, high, n)`.
    ///
    /// `low + (high - low) * u` as in NumPy, for any values of the two ends.
    ///
    /// # Examples
    ///
    /// The weights of the tutorial's hidden layer, drawn in float64 and then cast:
    ///
    /// ```
    /// use hypatia_datasets::numpy::RandomState;
    /// let bound = (6.0_f64 / (784.0 + 500.0)).sqrt();
    /// let weights: Vec<f32> =
    ///     RandomState::new(1234).uniform(-bound, bound, 784 * 500).into_iter().map(|w| w as f32).collect();
    /// assert_eq!(weights[0], -0.042174593);
    /// ```
    pub fn uniform(&mut self, low: f64, high: f64, n: usize) -> Vec<f64> {
        let range = high - low;
        (0..n).map(|_| low + range * self.double()).collect()
    }

    /// One value of `standard_normal()`: the polar method of Marsaglia, which draws pairs and keeps the second.
    fn normal_draw(&mut self) -> f64 {
        if let Some(value) = self.cached_normal.take() {
            return value;
        }
        loop {
            let x1 = 2.0 * self.double() - 1.0;
            let x2 = 2.0 * self.double() - 1.0;
            let r2 = x1 * x1 + x2 * x2;
            if r2 < 1.0 && r2 != 0.0 {
                let f = (-2.0 * r2.ln() / r2).sqrt();
                self.cached_normal = Some(f * x1);
                return f * x2;
            }
        }
    }

    /// `n` values of the standard normal distribution: `standard_normal(n)`, also `randn(n)`.
    pub fn standard_normal(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.normal_draw()).collect()
    }

    /// `n` values of the normal distribution: `normal(mean, deviation, n)`.
    pub fn normal(&mut self, mean: f64, deviation: f64, n: usize) -> Vec<f64> {
        (0..n).map(|_| mean + deviation * self.normal_draw()).collect()
    }

    /// `n` integers uniform in `low..high`: `randint(low, high, n)` with NumPy's default dtype on 64-bit Linux, int64.
    ///
    /// `randint(high)` of NumPy is `randint(0, high, n)` here. Ranges that fit 32 bits take one word a try, larger ones
    /// two; values above the range are drawn again under the smallest mask of ones that covers it.
    ///
    /// # Errors
    ///
    /// [`RandomStateError::EmptyRange`] unless `low < high`.
    pub fn randint(&mut self, low: i64, high: i64, n: usize) -> Result<Vec<i64>, RandomStateError> {
        if low >= high {
            return Err(RandomStateError::EmptyRange { low, high });
        }
        let largest = high.wrapping_sub(1).wrapping_sub(low) as u64;
        Ok((0..n).map(|_| low.wrapping_add(self.interval(largest) as i64)).collect())
    }

    /// One integer in `0..=largest`, by masked rejection. A range of one value consumes nothing.
    fn interval(&mut self, largest: u64) -> u64 {
        if largest == 0 {
            return 0;
        }
        let mask = u64::MAX >> largest.leading_zeros();
        loop {
            let bits =
                if largest <= u64::from(u32::MAX) { u64::from(self.next_u32()) } else { self.next_u64() };
            if bits & mask <= largest {
                return bits & mask;
            }
        }
    }

    /// Shuffles in place: `shuffle(values)` of a list or along the first axis of an array.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            let j = self.interval(i as u64) as usize;
            values.swap(i, j);
        }
    }

    /// A random order of `0..n`: `permutation(n)`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// `n` draws of the number of successes in `trials` trials: `binomial(trials, probability, n)`.
    ///
    /// NumPy's inversion method, one uniform a draw with rare retries; `binomial(1, p)` is the coin of the tutorials.
    ///
    /// # Errors
    ///
    /// [`RandomStateError::Binomial`] for a probability outside `[0, 1]`, and where NumPy changes to another method
    /// (`trials * min(p, 1 - p) > 30`), which no tutorial needs.
    pub fn binomial(
        &mut self,
        trials: u32,
        probability: f64,
        n: usize,
    ) -> Result<Vec<u32>, RandomStateError> {
        let rarer = if probability <= 0.5 { probability } else { 1.0 - probability };
        let mean = rarer * f64::from(trials);
        if !(0.0..=1.0).contains(&probability) || mean > 30.0 {
            return Err(RandomStateError::Binomial { trials, probability });
        }
        if trials == 0 || probability == 0.0 {
            return Ok(vec![0; n]);
        }
        let draws = (0..n).map(|_| self.binomial_inversion(trials, rarer));
        if probability <= 0.5 { Ok(draws.collect()) } else { Ok(draws.map(|k| trials - k).collect()) }
    }

    fn binomial_inversion(&mut self, trials: u32, p: f64) -> u32 {
        let n = f64::from(trials);
        let q = 1.0 - p;
        let none = (n * q.ln()).exp();
        let bound = n.min(n * p + 10.0 * (n * p * q + 1.0).sqrt()) as u32;
        let (mut k, mut probability_of_k, mut u) = (0, none, self.double());
        while u > probability_of_k {
            k += 1;
            if k > bound {
                (k, probability_of_k, u) = (0, none, self.double());
            } else {
                u -= probability_of_k;
                let left = n - f64::from(k) + 1.0;
                probability_of_k = (left * p * probability_of_k) / (f64::from(k) * q);
            }
        }
        k
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of NumPy, made by `tests/reference/random_state.py`.
    const REFERENCE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/random_state.txt"));

    fn reference(name: &str) -> Vec<&'static str> {
        let line = REFERENCE.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no reference named {name}")).split(' ').collect()
    }

    fn floats(name: &str) -> Vec<f64> {
        let from_bits = |text: &&str| f64::from_bits(u64::from_str_radix(text, 16).unwrap());
        reference(name).iter().map(from_bits).collect()
    }

    fn integers(name: &str) -> Vec<i64> {
        reference(name).iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn uniform_draws_equal_numpy_bit_for_bit() {
        for seed in [0, 1, 1234, u32::MAX] {
            assert_eq!(RandomState::new(seed).random_sample(5), floats(&format!("sample {seed}")));
            assert_eq!(
                RandomState::new(seed).randint(0, 1 << 32, 5).unwrap(),
                integers(&format!("words {seed}"))
            );
        }
        let mut late = RandomState::new(7);
        late.random_sample(5000);
        assert_eq!(late.random_sample(3), floats("late sample 7"));
    }

    #[test]
    fn a_sequence_seeds_as_in_numpy() {
        assert_eq!(RandomState::from_key(&[1, 2, 3]).random_sample(5), floats("key 1 2 3"));
        let long: Vec<u32> = (0..1000).collect();
        assert_eq!(RandomState::from_key(&long).random_sample(5), floats("key long"));
    }

    #[test]
    fn the_mlp_starts_from_the_published_weights() {
        let bound = (6.0_f64 / (784.0 + 500.0)).sqrt();
        let weights = RandomState::new(1234).uniform(-bound, bound, 784 * 500);
        assert_eq!(weights[..6], floats("mlp head"));
        assert_eq!(weights[weights.len() - 6..], floats("mlp tail"));
        let single: Vec<u32> = weights.iter().map(|w| (*w as f32).to_bits()).collect();
        let head: Vec<String> = single[..6].iter().map(|bits| format!("{bits:08x}")).collect();
        assert_eq!(head, reference("mlp float32 head"));
        let sum: u64 = single.iter().map(|bits| u64::from(*bits)).sum();
        assert_eq!(sum.to_string(), reference("mlp float32 sum of bits")[0]);
    }

    #[test]
    fn the_autoencoder_draws_its_seed_before_its_weights() {
        let mut rng = RandomState::new(123);
        assert_eq!(rng.randint(0, 1 << 30, 1).unwrap(), integers("randint 2**30"));
        let bound = 4.0 * (6.0_f64 / (500.0 + 784.0)).sqrt();
        assert_eq!(rng.uniform(-bound, bound, 4), floats("da after randint"));
    }

    #[test]
    fn integers_take_the_32_bit_and_the_64_bit_path_of_numpy() {
        let draw = |low, high, n| RandomState::new(3).randint(low, high, n).unwrap();
        assert_eq!(draw(-5, 12, 20), integers("randint -5 12"));
        assert_eq!(draw(0, 1 << 32, 4), integers("randint 2**32"));
        assert_eq!(draw(0, (1 << 32) + 1, 4), integers("randint 2**32+1"));
        assert_eq!(draw(0, 1_000_000_000_000_000, 6), integers("randint 10**15"));
        assert_eq!(draw(i64::MIN, i64::MAX, 4), integers("randint full"));
        assert_eq!(draw(5, 6, 3), integers("randint one"));
        let error = RandomState::new(3).randint(4, 4, 1).unwrap_err();
        assert_eq!(error.to_string(), "randint: expected low < high, found low = 4, high = 4");
    }

    #[test]
    fn normal_draws_keep_the_second_value_of_a_pair() {
        assert_eq!(RandomState::new(44).standard_normal(7), floats("normal 44"));
        let mut rng = RandomState::new(5);
        let mut mixed = rng.standard_normal(3);
        mixed.extend(rng.random_sample(2));
        mixed.extend(rng.normal(10.0, 3.0, 4));
        assert_eq!(mixed, floats("mixed"));
    }

    #[test]
    fn orders_equal_numpy() {
        let order: Vec<i64> = RandomState::new(123).permutation(20).into_iter().map(|i| i as i64).collect();
        assert_eq!(order, integers("permutation"));
        let mut rng = RandomState::new(9);
        let mut values: Vec<i64> = (0..11).collect();
        rng.shuffle(&mut values);
        assert_eq!(values, integers("shuffle"));
        assert_eq!(rng.random_sample(1), floats("after shuffle"));
        assert!(RandomState::new(0).permutation(0).is_empty());
    }

    #[test]
    fn binomial_draws_equal_numpy() {
        for (seed, trials, probability, name) in [
            (89677, 1, 0.3, "binomial 1 0.3"),
            (89677, 1, 0.9, "binomial 1 0.9"),
            (1, 40, 0.2, "binomial 40 0.2"),
            (1, 40, 0.75, "binomial 40 0.75"),
        ] {
            let expected = integers(name);
            let found = RandomState::new(seed).binomial(trials, probability, expected.len()).unwrap();
            assert_eq!(found.into_iter().map(i64::from).collect::<Vec<_>>(), expected, "{name}");
        }
        assert_eq!(RandomState::new(0).binomial(3, 0.0, 2).unwrap(), [0, 0]);
        assert_eq!(RandomState::new(0).binomial(3, 1.0, 2).unwrap(), [3, 3]);
        for (trials, probability) in [(1, -0.1), (1, 1.1), (1, f64::NAN), (100, 0.5)] {
            assert!(RandomState::new(0).binomial(trials, probability, 1).is_err());
        }
    }

    #[test]
    fn a_saved_state_goes_on_where_it_stopped() {
        let mut rng = RandomState::new(11);
        rng.standard_normal(7);
        let mut resumed = RandomState::from_state(&rng.state()).unwrap();
        assert_eq!(resumed.standard_normal(9), rng.standard_normal(9));
        let broken = Mt19937State { words: vec![0; 3], position: 0, cached_normal: None };
        assert!(RandomState::from_state(&broken).is_err());
        let broken = Mt19937State { position: 625, ..rng.state() };
        assert!(RandomState::from_state(&broken).is_err());
    }
}
