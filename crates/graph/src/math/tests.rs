//! Every function against float64 references on a stratified sample of all float32 numbers (on all of them
//! with `HYPATIA_EXHAUSTIVE=1`, best with `--release` and `--nocapture`), against mpmath values made by
//! `tests/reference/scalar_functions.py`, and at the limits that IEEE 754 prescribes.

use super::Plain;

/// The distance of `found` from `exact` in units in the last place of the float32 binade of `exact`. Infinity
/// counts as 2^128, so that rounding to infinity is as good as the exact result is near.
fn ulps(found: f32, exact: f64) -> f64 {
    if exact.is_nan() || found.is_nan() {
        return if exact.is_nan() && found.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let top = 2f64.powi(128);
    let exact = exact.clamp(-top, top);
    let found = f64::from(found).clamp(-top, top);
    let exponent = (((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023).clamp(-126, 127);
    (found - exact).abs() / f64::from_bits(((exponent - 23 + 1023) as u64) << 52)
}

/// The largest error found, and where.
struct Worst {
    ulps: f64,
    at: f32,
    count: u64,
}

impl Worst {
    fn new() -> Self {
        Self { ulps: 0.0, at: 0.0, count: 0 }
    }

    fn note(&mut self, ulps: f64, at: f32) {
        self.count += 1;
        if ulps > self.ulps {
            (self.ulps, self.at) = (ulps, at);
        }
    }
}

/// Every sign and exponent with the ends and `inner` pseudo-random mantissas each, then the neighbours of
/// `breaks`.
fn sample(inner: u32, breaks: &[f32]) -> Vec<f32> {
    let mut numbers = Vec::new();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for top in 0..512u32 {
        for mantissa in [0, 1, 2, 3, 0x3f_ffff, 0x40_0000, 0x40_0001, 0x7f_fffe, 0x7f_ffff] {
            numbers.push(f32::from_bits(top << 23 | mantissa));
        }
        for _ in 0..inner {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            numbers.push(f32::from_bits(top << 23 | (state >> 41) as u32));
        }
    }
    for &centre in breaks {
        for sign in [1.0, -1.0] {
            for step in -200..=200i32 {
                numbers.push(f32::from_bits((sign * centre).to_bits().wrapping_add(step.cast_unsigned())));
            }
        }
    }
    numbers
}

/// Where branches of the formulas, of the exact functions, or of their rounding meet.
const BREAKS: &[f32] = &[
    0.0,
    1e-45,
    f32::MIN_POSITIVE,
    5.96e-8,
    1.49e-8,
    0.346_573_6,
    0.5,
    0.6,
    0.693_147_2,
    std::f32::consts::FRAC_1_SQRT_2,
    std::f32::consts::FRAC_PI_4,
    0.93,
    1.0,
    1.039_720_8,
    std::f32::consts::SQRT_2,
    std::f32::consts::FRAC_PI_2,
    std::f32::consts::PI,
    4.2,
    9.010_913,
    10.054_7,
    10.1,
    16.635_532,
    17.328_68,
    25.0,
    80.0,
    86.9,
    87.336_54,
    88.029_69,
    88.722_84,
    89.415_99,
    103.972_08,
    104.0,
    125.4,
    126.0,
    128.0,
    149.0,
    150.0,
    151.0,
    1_073_741_824.0,
    8.507_059e37,
    f32::INFINITY,
];

fn measure(function: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, domain: impl Fn(f32) -> bool) -> Worst {
    let mut worst = Worst::new();
    let mut note = |x: f32| {
        if domain(x) {
            worst.note(ulps(function(x), exact(f64::from(x))), x);
        }
    };
    if std::env::var_os("HYPATIA_EXHAUSTIVE").is_some() {
        (0..=u32::MAX).for_each(|bits| note(f32::from_bits(bits)));
    } else {
        sample(150, BREAKS).into_iter().for_each(&mut note);
        // Most functions do their work between 2^-16 and 2^8.
        for top in (111..135).flat_map(|exponent| [exponent, exponent + 256]) {
            let mut mantissa = 0u32;
            while mantissa < 1 << 23 {
                note(f32::from_bits(top << 23 | mantissa));
                mantissa += 2_741;
            }
        }
    }
    worst
}

fn sigmoid64(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn softplus64(x: f64) -> f64 {
    if x < 0.0 { x.exp().ln_1p() } else { x + (-x).exp().ln_1p() }
}

fn log1mexp64(x: f64) -> f64 {
    if x > -0.7 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}

fn acosh64(x: f64) -> f64 {
    if x < 1.0 { f64::NAN } else { libm::acosh(x) }
}

macro_rules! accuracy {
    ($($name:ident, $exact:expr, $bound:expr, $domain:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let worst = measure(|x| crate::math::$name(&mut Plain, x), $exact, $domain);
                println!(
                    "{:10} {:.3} ULP at {:e} ({:#010x}), {} numbers",
                    stringify!($name), worst.ulps, worst.at, worst.at.to_bits(), worst.count
                );
                assert!(worst.ulps <= $bound, "{} ULP at {:e}", worst.ulps, worst.at);
            }
        )*
    };
}

fn anywhere(_: f32) -> bool {
    true
}

/// Where the argument reduction of the circular functions is exact, and where the result is NaN.
fn reducible(x: f32) -> bool {
    !(1e5 < x.abs() && x.is_finite())
}

mod accuracy {
    use super::*;

    accuracy! {
        exp, f64::exp, 1.5, anywhere;
        exp2, f64::exp2, 1.5, anywhere;
        expm1, f64::exp_m1, 1.5, anywhere;
        log, f64::ln, 1.5, anywhere;
        log2, f64::log2, 2.5, anywhere;
        log10, f64::log10, 2.5, anywhere;
        log1p, f64::ln_1p, 1.5, anywhere;
        log1mexp, log1mexp64, 2.5, anywhere;
        sin, f64::sin, 2.5, reducible;
        cos, f64::cos, 2.5, reducible;
        tan, f64::tan, 3.0, reducible;
        asin, f64::asin, 3.0, anywhere;
        acos, f64::acos, 3.0, anywhere;
        atan, f64::atan, 2.5, anywhere;
        sinh, f64::sinh, 2.5, anywhere;
        cosh, f64::cosh, 2.5, anywhere;
        tanh, f64::tanh, 1.5, anywhere;
        asinh, libm::asinh, 2.5, anywhere;
        acosh, acosh64, 2.5, anywhere;
        atanh, libm::atanh, 2.5, anywhere;
        sigmoid, sigmoid64, 1.5, anywhere;
        softplus, softplus64, 1.5, anywhere;
        erf, libm::erf, 2.5, anywhere;
        erfc, libm::erfc, 2.5, anywhere;
    }
}
