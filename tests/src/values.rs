//! Values for inputs: seeded random ones, and the edges of every element type.

use hypatia_graph::{Array, DType, Literal};

/// A small seeded generator (SplitMix64; Steele, Lea and Flood 2014), the same on every machine.
#[derive(Clone, Debug)]
pub struct Generator(pub u64);

impl Generator {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next_u64() >> 16) as usize % limit }
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in [low, high), or an integer among them.
    pub fn between(&mut self, low: f64, high: f64, dtype: DType) -> Literal {
        let value = low + (high - low) * self.unit();
        Literal::from_f64(if dtype.is_float() { value } else { value.floor() }, dtype)
    }

    /// An array of such numbers; truth values are true half the time.
    pub fn array(&mut self, dtype: DType, shape: &[usize], low: f64, high: f64) -> Array {
        let mut array = Array::zeros(dtype, shape).expect("a small array");
        for index in 0..array.len() {
            let value = match dtype {
                DType::Bool => Literal::Bool(self.unit() < 0.5),
                DType::U8 => self.between(low.max(0.0), high.max(1.0), dtype),
                DType::I32 | DType::I64 | DType::F32 | DType::F64 => self.between(low, high, dtype),
            };
            array.set(index, value);
        }
        array
    }

    /// One of the type's [`edges`].
    pub fn special(&mut self, dtype: DType) -> Literal {
        let edges = edges(dtype);
        edges[self.below(edges.len())]
    }

    /// An array of [`edges`].
    pub fn special_array(&mut self, dtype: DType, shape: &[usize]) -> Array {
        let mut array = Array::zeros(dtype, shape).expect("a small array");
        (0..array.len()).for_each(|index| array.set(index, self.special(dtype)));
        array
    }
}

/// Elements at which functions of that type change their behaviour, and some ordinary ones.
pub fn edges(dtype: DType) -> Vec<Literal> {
    let float = |values: &[f64]| values.iter().map(|&x| Literal::from_f64(x, dtype)).collect();
    let int = |values: &[i64]| values.iter().map(|&x| Literal::from_i64(x, dtype)).collect();
    let common = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.0,
        -2.0,
        2.5,
        3.0,
        -3.0,
        0.3,
        -0.7,
        7.25,
        -9.75,
        std::f64::consts::PI,
        std::f64::consts::FRAC_PI_2,
        1e-3,
        -1e-5,
        1e-8,
        17.3,
        -40.0,
        88.5,
        -88.5,
        104.0,
        -104.0,
        1e4,
        -123_456.7,
        16_777_217.0,
        1e10,
        4.8e6,
        6.1e11,
        (1u64 << 40) as f64,
        7.0,
        0.1,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    match dtype {
        DType::Bool => vec![Literal::Bool(false), Literal::Bool(true)],
        DType::U8 => int(&[0, 1, 2, 3, 7, 8, 100, 127, 128, 200, 254, 255]),
        DType::I32 => {
            int(&[0, 1, -1, 2, -2, 3, -3, 7, -8, 31, 100, -1000, 65_536, i32::MAX.into(), i32::MIN.into()])
        }
        DType::I64 => int(&[
            0,
            1,
            -1,
            2,
            -2,
            3,
            -3,
            7,
            -8,
            63,
            100,
            -1000,
            1 << 32,
            -(1 << 32),
            (1 << 53) + 1,
            i64::MAX,
            i64::MIN,
        ]),
        DType::F32 => {
            let mut all: Vec<Literal> = float(&common);
            all.extend(float(&[1e-40, -1e-45, 1.2e-38, 1e38, -3.4e38, 1e-30, 127.5, -126.5, -149.0]));
            all
        }
        DType::F64 => {
            let mut all: Vec<Literal> = float(&common);
            all.extend(float(&[5e-324, -1e-310, 1e-300, 1e300, -1.7e308, 709.5, -745.0, 1e15 + 0.5]));
            all
        }
    }
}
