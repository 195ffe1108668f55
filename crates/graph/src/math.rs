//! placeholder until the branch `math` is merged
pub(crate) struct Plain;
macro_rules! via { ($($n:ident $m:ident),*) => { $(pub(crate) fn $n(_: &mut Plain, x: f32) -> f32 { libm::$m(f64::from(x)) as f32 })* } }
via!(exp exp, exp2 exp2, expm1 expm1, log log, log2 log2, log10 log10, log1p log1p, sin sin, cos cos, tan tan, asin asin, acos acos, atan atan, sinh sinh, cosh cosh, tanh tanh, asinh asinh, acosh acosh, atanh atanh, erf erf, erfc erfc);
pub(crate) fn log1mexp(_: &mut Plain, x: f32) -> f32 {
    libm::log(-libm::expm1(f64::from(x))) as f32
}
pub(crate) fn sigmoid(_: &mut Plain, x: f32) -> f32 {
    (1.0 / (1.0 + libm::exp(-f64::from(x)))) as f32
}
pub(crate) fn softplus(_: &mut Plain, x: f32) -> f32 {
    let x = f64::from(x);
    (x.max(0.0) + libm::log1p(libm::exp(-x.abs()))) as f32
}
pub(crate) fn pow(_: &mut Plain, x: f32, y: f32) -> f32 {
    libm::pow(f64::from(x), f64::from(y)) as f32
}
pub(crate) fn atan2(_: &mut Plain, x: f32, y: f32) -> f32 {
    libm::atan2(f64::from(x), f64::from(y)) as f32
}
