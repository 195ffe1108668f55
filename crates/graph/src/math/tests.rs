//! Every function against float64 references on a stratified sample of all float32 numbers (on every n-th
//! of them with `HYPATIA_EXHAUSTIVE=n`, 1 for all; best with `--release` and `--nocapture`), against mpmath values made by
//! `tests/reference/scalar_functions.py`, and at the limits that IEEE 754 prescribes.

use super::{Plain, PlainDouble};
use crate::dtype::Literal;
use crate::scalar::{Domain, ScalarFn};

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
    std::f32::consts::LN_2,
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

fn measure(function: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> Worst {
    let mut worst = Worst::new();
    let mut note = |x: f32| worst.note(ulps(function(x), exact(f64::from(x))), x);
    if let Ok(stride) = std::env::var("HYPATIA_EXHAUSTIVE") {
        let stride = stride.parse().expect("HYPATIA_EXHAUSTIVE is a positive number");
        (0..=u32::MAX).step_by(stride).for_each(|bits| note(f32::from_bits(bits)));
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

/// The unary functions of floats that are rounded.
fn unary() -> impl Iterator<Item = ScalarFn> {
    ScalarFn::ALL
        .iter()
        .copied()
        .filter(|f| f.domain() == Domain::Float && f.arity() == 1 && f.properties().rounds)
}

fn single(f: ScalarFn, x: f32) -> f32 {
    f.eval(&[Literal::F32(x.to_bits())]).unwrap().to_f64() as f32
}

fn double(f: ScalarFn, x: f64) -> f64 {
    f.eval(&[Literal::from(x)]).unwrap().to_f64()
}

fn pow(x: f32, y: f32) -> f32 {
    crate::math::pow(&mut Plain, x, y)
}

fn atan2(y: f32, x: f32) -> f32 {
    crate::math::atan2(&mut Plain, y, x)
}

/// Each against its definition in double precision.
#[test]
fn accuracy() {
    for f in unary() {
        // The reference is rounded too.
        let bound = f.properties().ulps + 1e-6;
        let worst = measure(|x| single(f, x), |x| double(f, x));
        let (ulps, at) = (worst.ulps, worst.at);
        println!("{:10} {ulps:.3} ULP at {at:e} ({:#010x}), {} numbers", f.name(), at.to_bits(), worst.count);
        assert!(ulps <= bound, "{f}: {ulps} ULP at {at:e}");
    }
}

#[test]
fn reference_values() {
    let mut lines = 0;
    for line in include_str!("reference.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let argument = |i: usize| f32::from_bits(u32::from_str_radix(fields[i], 16).unwrap());
        let exact = f64::from_bits(u64::from_str_radix(fields[fields.len() - 1], 16).unwrap());
        let f = ScalarFn::from_name(fields[0]).unwrap();
        let operands: Vec<f32> = (1..=f.arity()).map(argument).collect();
        let singles: Vec<Literal> = operands.iter().map(|x| Literal::F32(x.to_bits())).collect();
        let found = f.eval(&singles).unwrap().to_f64() as f32;
        let error = ulps(found, exact);
        assert!(error <= f.properties().ulps + 1e-6, "{line}: found {found:e}, exact {exact:e}, {error} ULP");
        let doubles: Vec<Literal> = operands.iter().map(|x| Literal::from(f64::from(*x))).collect();
        let found = f.eval(&doubles).unwrap().to_f64();
        let close = (found - exact).abs() <= 4.0 * f64::EPSILON * exact.abs() || found == exact;
        assert!(close, "{line}: found {found:e} in double precision, exact {exact:e}");
        lines += 1;
    }
    assert!(lines > 1_500, "{lines} lines");
}

/// The same number, with the sign of zero; any NaN for NaN.
fn same(found: f32, expected: f32) -> bool {
    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
}

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

#[test]
fn limits() {
    let half_pi = std::f32::consts::FRAC_PI_2;
    // Name, then results at +0, -0, 1, -1, infinity, -infinity; those that are rounded numbers are left out.
    let table: &[(&str, [Option<f32>; 6])] = &[
        ("exp", [Some(1.0), Some(1.0), None, None, Some(INF), Some(0.0)]),
        ("exp2", [Some(1.0), Some(1.0), Some(2.0), Some(0.5), Some(INF), Some(0.0)]),
        ("expm1", [Some(0.0), Some(-0.0), None, None, Some(INF), Some(-1.0)]),
        ("log", [Some(-INF), Some(-INF), Some(0.0), Some(NAN), Some(INF), Some(NAN)]),
        ("log2", [Some(-INF), Some(-INF), Some(0.0), Some(NAN), Some(INF), Some(NAN)]),
        ("log10", [Some(-INF), Some(-INF), Some(0.0), Some(NAN), Some(INF), Some(NAN)]),
        ("log1p", [Some(0.0), Some(-0.0), None, Some(-INF), Some(INF), Some(NAN)]),
        ("log1mexp", [Some(-INF), Some(-INF), Some(NAN), None, Some(NAN), Some(-0.0)]),
        ("sin", [Some(0.0), Some(-0.0), None, None, Some(NAN), Some(NAN)]),
        ("cos", [Some(1.0), Some(1.0), None, None, Some(NAN), Some(NAN)]),
        ("tan", [Some(0.0), Some(-0.0), None, None, Some(NAN), Some(NAN)]),
        ("arcsin", [Some(0.0), Some(-0.0), Some(half_pi), Some(-half_pi), Some(NAN), Some(NAN)]),
        ("arccos", [Some(half_pi), Some(half_pi), Some(0.0), None, Some(NAN), Some(NAN)]),
        ("arctan", [Some(0.0), Some(-0.0), None, None, Some(half_pi), Some(-half_pi)]),
        ("sinh", [Some(0.0), Some(-0.0), None, None, Some(INF), Some(-INF)]),
        ("cosh", [Some(1.0), Some(1.0), None, None, Some(INF), Some(INF)]),
        ("tanh", [Some(0.0), Some(-0.0), None, None, Some(1.0), Some(-1.0)]),
        ("arcsinh", [Some(0.0), Some(-0.0), None, None, Some(INF), Some(-INF)]),
        ("arccosh", [Some(NAN), Some(NAN), Some(0.0), Some(NAN), Some(INF), Some(NAN)]),
        ("arctanh", [Some(0.0), Some(-0.0), Some(INF), Some(-INF), Some(NAN), Some(NAN)]),
        ("sigmoid", [Some(0.5), Some(0.5), None, None, Some(1.0), Some(0.0)]),
        ("softplus", [None, None, None, None, Some(INF), Some(0.0)]),
        ("erf", [Some(0.0), Some(-0.0), None, None, Some(1.0), Some(-1.0)]),
        ("erfc", [Some(1.0), Some(1.0), None, None, Some(0.0), Some(2.0)]),
    ];
    for (name, expected) in table {
        let f = ScalarFn::from_name(name).unwrap();
        for (x, expected) in [0.0, -0.0, 1.0, -1.0, INF, -INF].into_iter().zip(expected) {
            if let Some(expected) = *expected {
                let found = single(f, x);
                assert!(same(found, expected), "{name}({x}) = {found}, expected {expected}");
            }
        }
    }
    for f in unary() {
        for bits in
            [0x7fc0_0000u32, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff, 0x7fc1_2345]
        {
            let found = single(f, f32::from_bits(bits));
            assert!(found.is_nan(), "{f}(NaN {bits:#x}) = {found}");
        }
    }
}

#[test]
fn circular_functions_stay_bounded() {
    for x in sample(50, &[]).into_iter().filter(|x| x.is_finite()) {
        let (sine, cosine) = (crate::math::sin(&mut Plain, x), crate::math::cos(&mut Plain, x));
        assert!(sine.abs() <= 1.0 && cosine.abs() <= 1.0, "sin({x:e}) = {sine}, cos({x:e}) = {cosine}");
        assert!(!crate::math::tan(&mut Plain, x).is_nan(), "tan({x:e})");
    }
}

#[test]
fn pow_special_cases() {
    for y in [0.0, -0.0, 0.5, 1.0, -3.0, INF, -INF, NAN] {
        assert!(same(pow(1.0, y), 1.0), "1^{y}");
    }
    for x in [0.0, -0.0, 0.5, -2.0, INF, -INF, NAN] {
        assert!(same(pow(x, 0.0), 1.0) && same(pow(x, -0.0), 1.0), "{x}^0");
    }
    let table = [
        (0.0, 3.0, 0.0),
        (-0.0, 3.0, -0.0),
        (-0.0, 2.0, 0.0),
        (-0.0, 0.5, 0.0),
        (0.0, -3.0, INF),
        (-0.0, -3.0, -INF),
        (-0.0, -2.0, INF),
        (0.0, INF, 0.0),
        (0.0, -INF, INF),
        (-1.0, INF, 1.0),
        (-1.0, -INF, 1.0),
        (0.5, INF, 0.0),
        (0.5, -INF, INF),
        (-0.5, INF, 0.0),
        (2.0, INF, INF),
        (-2.0, INF, INF),
        (2.0, -INF, 0.0),
        (INF, 2.0, INF),
        (INF, -2.0, 0.0),
        (INF, 1e-30, INF),
        (-INF, 3.0, -INF),
        (-INF, 2.0, INF),
        (-INF, 0.5, INF),
        (-INF, -3.0, -0.0),
        (-INF, -2.0, 0.0),
        (-8.0, 1.0 / 3.0, NAN),
        (-2.0, 3.0, -8.0),
        (-2.0, 4.0, 16.0),
        (-2.0, -1.0, -0.5),
        (-2.0, 16_777_216.0, INF),
        (-0.5, 16_777_215.0, -0.0),
        (NAN, 1.0, NAN),
        (2.0, NAN, NAN),
        (-1.0, NAN, NAN),
        (2.0, 127.0, 1.701_411_8e38),
        (2.0, 128.0, INF),
        (2.0, -149.0, 1e-45),
        (2.0, -151.0, 0.0),
        (3.0, 2.0, 9.0),
        (10.0, 3.0, 1000.0),
        (1e-45, 1.0, 1e-45),
        (1e-45, 1e-45, 1.0),
    ];
    for (x, y, expected) in table {
        let found = pow(x, y);
        assert!(same(found, expected), "{x}^{y} = {found}, expected {expected}");
    }
}

#[test]
fn atan2_special_cases() {
    let points = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, INF, -INF];
    for y in points {
        for x in points {
            let exact = f64::from(y).atan2(f64::from(x));
            let found = atan2(y, x);
            assert!(ulps(found, exact) <= 1.0, "atan2({y}, {x}) = {found}, expected {exact}");
            assert_eq!(found.is_sign_negative(), y.is_sign_negative(), "atan2({y}, {x}) = {found}");
        }
        assert!(atan2(y, NAN).is_nan() && atan2(NAN, y).is_nan());
    }
}

#[test]
fn binary_accuracy() {
    let mut power = Worst::new();
    let mut angle = Worst::new();
    let numbers = sample(2, BREAKS.get(..12).unwrap_or_default());
    for (i, &x) in numbers.iter().enumerate() {
        for &y in numbers.iter().skip(i % 37).step_by(37) {
            angle.note(ulps(atan2(x, y), f64::from(x).atan2(f64::from(y))), x);
            if !x.is_nan() && !y.is_nan() {
                power.note(ulps(pow(x, y), f64::from(x).powf(f64::from(y))), x);
            }
        }
    }
    // Bases of every magnitude, and near 1, with exponents that keep the result in range.
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state) / 4_294_967_296.0
    };
    for _ in 0..1_000_000 {
        let spread = [149.0, 4.0, 0.5, 0.01][(uniform() * 4.0) as usize];
        let x = ((uniform() * 2.0 - 1.0) * spread).exp2() as f32;
        let logarithm = f64::from(x).log2();
        let y = ((uniform() * 277.0 - 149.0) / logarithm) as f32;
        if x > 0.0 && x < INF {
            power.note(ulps(pow(x, y), f64::from(x).powf(f64::from(y))), x);
        }
        let (s, t) = ((uniform() * 2.0 - 1.0) as f32, (uniform() * 2.0 - 1.0) as f32);
        angle.note(ulps(atan2(s, t), f64::from(s).atan2(f64::from(t))), s);
    }
    println!("pow        {:.3} ULP at base {:e}, {} pairs", power.ulps, power.at, power.count);
    println!("atan2      {:.3} ULP at {:e}, {} pairs", angle.ulps, angle.at, angle.count);
    assert!(power.ulps <= 2.0, "{} ULP at base {:e}", power.ulps, power.at);
    assert!(angle.ulps <= 2.5, "{} ULP at {:e}", angle.ulps, angle.at);
}

/// Values from NumPy, made by `tests/reference/division.py`.
#[test]
fn division_is_that_of_numpy() {
    let mut lines = 0;
    for line in include_str!("division.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let bits = |i: usize| {
            let nan = if fields[0] == "f32" { u64::from(f32::NAN.to_bits()) } else { f64::NAN.to_bits() };
            if fields[i] == "nan" { nan } else { u64::from_str_radix(fields[i], 16).unwrap() }
        };
        if fields[0] == "f32" {
            let number = |i: usize| f32::from_bits(bits(i) as u32);
            let (x, y) = (number(1), number(2));
            let quotient = crate::math::floor_quotient(&mut Plain, x, y);
            let remainder = crate::math::floor_remainder(&mut Plain, x, y);
            assert!(same(quotient, number(3)), "{x:e} // {y:e} = {quotient:e}, expected {:e}", number(3));
            assert!(same(remainder, number(4)), "{x:e} % {y:e} = {remainder:e}, expected {:e}", number(4));
        } else {
            let number = |i: usize| f64::from_bits(bits(i));
            let same =
                |found: f64, i: usize| found.to_bits() == bits(i) || found.is_nan() && number(i).is_nan();
            let (x, y) = (number(1), number(2));
            let quotient = crate::math::floor_quotient_double(&mut PlainDouble, x, y);
            let remainder = crate::math::floor_remainder_double(&mut PlainDouble, x, y);
            assert!(same(quotient, 3), "{x:e} // {y:e} = {quotient:e}, expected {:e}", number(3));
            assert!(same(remainder, 4), "{x:e} % {y:e} = {remainder:e}, expected {:e}", number(4));
        }
        lines += 1;
    }
    assert!(lines > 4_000, "{lines} lines");
}

/// The remainder against the processor's own, over quotients of any size.
#[test]
fn remainders_are_exact() {
    let numbers = sample(3, &[]);
    for (i, &x) in numbers.iter().enumerate() {
        for &y in numbers.iter().skip(i % 11).step_by(11) {
            let truncated = x % y;
            let expected = if truncated == 0.0 {
                0f32.copysign(y)
            } else if (truncated < 0.0) != (y < 0.0) {
                truncated + y
            } else {
                truncated
            };
            let found = crate::math::floor_remainder(&mut Plain, x, y);
            assert!(same(found, expected), "{x:e} % {y:e} = {found:e}, expected {expected:e}");
        }
    }
}
