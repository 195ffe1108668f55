//! Warnings of gradients that are lost at operators which move by jumps: where they are due, and where not.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use hypatia::rewrite::explain;
use hypatia::{
    All, Array, Builder, DType, Diagnostic, Disconnected, Gradient, Next, Numerics, RandomStreams, Scan,
    Shared, Tensor, concatenate, constant, grad, matrix, shared, switch,
};

fn weights(name: &str) -> Shared {
    shared(name, Array::new(&[3, 4], &[0.5_f32; 12]))
}

/// The warnings of a function that learns from a cost.
fn warnings(cost: &Tensor, parameters: &[&Shared]) -> Vec<Diagnostic> {
    let gradients = Gradient::of(cost).disconnected(Disconnected::Zero).wrt(parameters.iter().copied());
    let updates: Vec<(&Shared, Tensor)> =
        parameters.iter().zip(&gradients).map(|(p, gradient)| (*p, *p - gradient * 0.1)).collect();
    let function = Builder::new().outputs(&[cost]).updates(&updates).compile().unwrap();
    function.warnings()
}

fn x() -> Tensor {
    constant(Array::new(&[2, 3], &[1.0_f32, -2.0, 0.5, 0.25, 3.0, -1.0]))
}

#[test]
fn a_term_that_hangs_on_jumps_is_told_with_its_line() {
    let w = weights("w");
    let h = x().dot(&w).sigmoid();
    let rest = h.sqr().sum(All);
    // The contraction of the tutorial's later versions.
    let jacobian = (&h * (1.0 - &h)).sqr().dot(w.sqr().sum(0)).sum(All);
    let lost: [(&str, Tensor, u32); 9] = [
        ("floordiv", jacobian.floordiv(2), line!()),
        ("floordiv", (&jacobian * 2.0).floordiv(2).sqrt() * 0.1, line!()),
        ("floor", h.sqr().sum(1).floor().mean(All), line!()),
        ("round", (&h * 8.0).round().sum(All), line!()),
        ("gt", h.gt(0.5).cast(DType::F32).mean(All), line!()),
        ("ne", h.argmax(1).neq(1).mean(All), line!()),
        ("argmax", h.argmax(1).cast(DType::F32).mean(All), line!()),
        ("cast", (&h * 10.0).cast(DType::I32).cast(DType::F32).sum(All), line!()),
        ("sign", h.sign().sum(All), line!()),
    ];
    for (name, term, line) in lost {
        for cost in [&rest + &term, term.clone()] {
            let found = warnings(&cost, &[&w]);
            let [warning] = &found[..] else { panic!("{name}: {found:?}") };
            assert!(warning.title.contains(&format!("`{name}`")), "{warning}");
            let at = warning.at.unwrap();
            assert_eq!((at.file(), at.line()), (file!(), line), "{warning}");
        }
        assert!(warnings(&(&rest + term.stop_gradient()), &[&w]).is_empty(), "{name}");
    }
    // Rounded weights are a factor of what does learn, and do not learn themselves.
    let v = shared("v", Array::new(&[4, 2], &[0.5_f32; 8]));
    let found = warnings(&h.dot((&v * 4.0).round()).sum(All), &[&w, &v]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].title.contains("`round`") && found[0].to_string().contains("stop_gradient"),
        "{}",
        found[0]
    );
}

#[test]
fn what_is_meant_is_not_warned_of() {
    let (w, streams) = (weights("w"), RandomStreams::new(7));
    let pre = x().dot(&w);
    let h = pre.sigmoid();
    let mask = streams.uniform([2, 4], 0.0, 1.0).gt(0.5).cast(DType::F32);
    let largest = h.max_keepdims(1);
    let hit = h.eq(&largest).cast(DType::F32);
    let label = constant(Array::vector(&[1_i64, 2]));
    for (what, cost) in [
        ("dropout", (&h * mask).sum(All)),
        ("dropout by binomial", (&h * streams.binomial([2, 4], 1, 0.5)).sum(All)),
        ("a rectifier by a mask", (&pre * pre.gt(0.0).cast(DType::F32)).sum(All)),
        ("a rectifier", pre.relu().sum(All)),
        ("a choice", switch(pre.gt(0.0), &pre, pre.expm1()).sum(All)),
        ("a mask of the variable itself", (&w * w.abs().gt(0.1).cast(DType::F32)).sum(All)),
        ("max-pooling", (&h * hit).sum(All)),
        ("the largest", h.max(1).sum(All)),
        ("the element at the largest", h.pick(h.argmax(1)).sum(All)),
        ("the fraction of a number", (&pre - pre.floor()).sum(All)),
        ("the fraction of a weight", (&w - w.floor()).sum(All)),
        ("an error of rounding", (&pre - (&pre * 8.0).round() / 8.0).sqr().sum(All)),
        ("straight through", (&pre + (pre.round() - &pre).stop_gradient()).sum(All)),
        ("a size by its sign", (&pre * pre.sign()).sum(All)),
        ("clipped", pre.clip(-1.0, 1.0).sum(All)),
        ("a remainder", (&pre % 1.0).sum(All)),
        ("a likelihood", -h.softmax(1).log().pick(&label).mean(All)),
        ("steps of a number of examples", h.sum(All) * h.extent(0).cast(DType::F32).floordiv(2.0)),
        ("parts side by side", concatenate(&[h.clone(), pre.abs()], 0).sum(All)),
    ] {
        let found = warnings(&cost, &[&w]);
        assert!(found.is_empty(), "{what}: {found:?}");
    }
}

#[test]
fn what_is_not_differentiated_may_jump() {
    let w = weights("w");
    let probabilities = x().dot(&w).softmax(1);
    let label = constant(Array::vector(&[1_i64, 2]));
    let cost = -probabilities.log().pick(&label).mean(All);
    let error = probabilities.argmax(1).neq(&label).mean(All);
    let gradient = grad(&cost, [&w]).remove(0);
    let update = [(&w, &w - gradient)];
    let function = Builder::new().outputs(&[&cost, &error]).updates(&update).compile().unwrap();
    assert!(function.warnings().is_empty());
    // Held constant.
    let error_too = &cost + &error;
    let gradient = Gradient::of(&error_too).consider_constant([&error]).wrt([&w]).remove(0);
    let function = Builder::new().outputs(&[&gradient]).compile().unwrap();
    assert!(function.warnings().is_empty());
}

#[test]
fn a_jump_in_a_step_of_a_scan_is_found() {
    let w = shared("w", Array::new(&[4, 4], &[0.25_f32; 16]));
    let rows = matrix::<f32>("rows");
    let through = |steps: &dyn Fn(Tensor) -> Tensor| {
        let start = constant(Array::vector(&[0.0_f32; 4]));
        let scanned = Scan::new().sequence(&rows).carry(&start).run(|step| {
            let next = (&step.sequences[0] + step.carries[0].dot(&w)).tanh();
            Next::new().carry(steps(next))
        });
        let cost = scanned.last[0].sum(All);
        let gradient = grad(&cost, [&w]).remove(0);
        Builder::new().inputs(&[&rows]).outputs(&[&gradient]).compile().unwrap().warnings()
    };
    let rounded = through(&|h| (h * 4.0).round());
    assert_eq!(rounded.len(), 1, "{rounded:?}");
    assert!(rounded[0].title.contains("`round`"));
    assert!(through(&|h| &h * h.gt(0.1).cast(DType::F32)).is_empty());
    assert!(through(&|h| h).is_empty());
}

#[test]
fn explanations_warn_too() {
    let graph = |text: &str| hypatia::graph::text::parse_formula(text).unwrap().graph().unwrap();
    let lost = explain(&graph("x: f32[3]; grad(sum(x * x) + sum(x * 3) // 2, x)"), Numerics::Real);
    assert_eq!(lost.warnings.len(), 1);
    assert!(lost.to_string().contains("`floordiv`"), "{lost}");
    assert!(explain(&graph("x: f32[3]; grad(sum(x * x) / 2, x)"), Numerics::Real).warnings.is_empty());
}
