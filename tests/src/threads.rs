//! Bits do not depend on the number of threads.

use hypatia::{
    All, Array, Builder, DType, Next, Scan, ScanStep, Tensor, concatenate, grad, input, ix, scan, shared,
    step,
};

use crate::values::Generator;

fn float(shape: &[usize], generator: &mut Generator) -> Array {
    generator.array(DType::F32, shape, -1.0, 1.0)
}

/// Results of a call for 1, 2 and 3 threads.
fn check(name: &str, inputs: &[&Tensor], outputs: &[&Tensor], arguments: &[&Array]) {
    let mut results: Vec<Vec<Array>> = Vec::new();
    for threads in 1..=3 {
        let function = Builder::new().inputs(inputs).outputs(outputs).threads(threads).compile();
        let mut function = function.unwrap_or_else(|e| panic!("{name}: {e}"));
        for _ in 0..3 {
            results
                .push(function.call(arguments).unwrap_or_else(|e| panic!("{name}: {e}")).arrays().to_vec());
        }
    }
    for result in &results {
        assert!(*result == results[0], "{name}: another number of threads gave other bits");
    }
}

#[test]
fn large_operators() {
    let mut g = Generator(1);
    let (m, n) = (301, 517);
    let x = input("x", DType::F32, &[Some(m), Some(n)]);
    let a = float(&[m, n], &mut g);
    let rows = input("i", DType::I64, &[Some(1000)]);
    let i = g.array(DType::I64, &[1000], -100.0, 100.0);
    let elementwise = (&x * 2.0).tanh() + x.exp();
    let reversed = x.index(ix![step(.., -1), 3..500]).t();
    let outputs = [
        elementwise.clone(),
        x.sum(0),
        x.sum(1),
        x.sum(All),
        elementwise.mean(All),
        x.prod(1),
        x.max(0),
        x.argmax(1),
        x.argmax(0),
        x.softmax(1),
        x.log_softmax(0),
        x.var(0),
        reversed.clone(),
        reversed.sum(1),
        x.take(&rows),
        x.inc_rows(&rows, x.take(&rows)),
        concatenate(&[x.clone(), elementwise.clone()], 0),
        x.gt(0.0).all(1),
    ];
    for (position, output) in outputs.iter().enumerate() {
        let uses_rows = matches!(position, 14 | 15);
        let (inputs, arguments): (&[&Tensor], &[&Array]) =
            if uses_rows { (&[&x, &rows], &[&a, &i]) } else { (&[&x], &[&a]) };
        check(&format!("output {position}"), inputs, &[output], arguments);
    }
    check("all at once", &[&x, &rows], &outputs.iter().collect::<Vec<_>>(), &[&a, &i]);
}

#[test]
fn products() {
    let mut g = Generator(2);
    for (m, k, n) in [(20, 784, 500), (784, 600, 10), (1, 1000, 1000), (333, 17, 65), (500, 20, 784)] {
        for dtype in [DType::F32, DType::F64] {
            let (a, b) = (input("a", dtype, &[Some(m), Some(k)]), input("b", dtype, &[Some(k), Some(n)]));
            let arrays = [float(&[m, k], &mut g).cast(dtype), float(&[k, n], &mut g).cast(dtype)];
            let product = a.dot(&b);
            check(&format!("{m}x{k}x{n} {dtype}"), &[&a, &b], &[&product], &[&arrays[0], &arrays[1]]);
        }
    }
}

#[test]
fn training_steps() {
    let run = |threads: usize| {
        let mut g = Generator(3);
        let x = shared("x", float(&[400, 120], &mut g));
        let y = shared("y", g.array(DType::I32, &[400], 0.0, 10.0));
        let hidden = shared("hidden", float(&[120, 150], &mut g));
        let out = shared("out", float(&[150, 10], &mut g));
        let b = shared("b", float(&[150], &mut g));
        let i = input("i", DType::I64, &[]);
        let rows = |t: &Tensor| t.index(ix![&i * 100..(&i + 1) * 100]);
        let p = (rows(&x).dot(&hidden) + &b).tanh().dot(&out).softmax(1);
        let cost = -p.log().pick(rows(&y)).mean(All);
        let g = grad(&cost, [&hidden, &out, &b]);
        let updates = [(&hidden, &hidden - &g[0] * 0.1), (&out, &out - &g[1] * 0.1), (&b, &b - &g[2] * 0.1)];
        let mut function = Builder::new()
            .inputs(&[&i])
            .outputs(&[&cost])
            .updates(&updates)
            .threads(threads)
            .compile()
            .unwrap();
        let mut results = Vec::new();
        for step in 0..8i64 {
            results.push(function.call(&[&Array::scalar(step % 4)]).unwrap().array(0).clone());
        }
        assert!(results[7].item().unwrap() < results[3].item().unwrap(), "it does not learn: {results:?}");
        results.extend([&hidden, &out, &b].map(|s| s.get_value().unwrap()));
        results
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3), "another number of threads trained other weights");
}

#[test]
fn scans() {
    let mut g = Generator(4);
    let x = input("x", DType::F32, &[Some(30), Some(40), Some(120)]);
    let h = input("h", DType::F32, &[Some(40), Some(150)]);
    let w = input("w", DType::F32, &[Some(120), Some(150)]);
    let u = input("u", DType::F32, &[Some(150), Some(150)]);
    let layer = |step: &ScanStep| {
        let next = (step.sequences[0].dot(&w) + step.carries[0].dot(&u)).tanh();
        Next::new().carry(&next).output(next.max(1))
    };
    let scan = Scan::new().sequence(&x).carry(&h);
    let (kept, checkpointed) = (scan.run(layer), scan.clone().checkpointed().run(layer));
    let cost = kept.carries[0].sqr().mean(All) + kept.last[0].sum(All);
    let again = checkpointed.last[0].sqr().sum(All);
    let gradients = [grad(&cost, [&x, &w, &u]), grad(&again, [&h, &u])].concat();
    let wide = float(&[150, 150], &mut g);
    let arguments = [&[30, 40, 120][..], &[40, 150], &[120, 150]].map(|shape| float(shape, &mut g));
    let arguments = [&arguments[0], &arguments[1], &arguments[2], &wide];
    let inputs = [&x, &h, &w, &u];
    let mut outputs = vec![&kept.last[0], &kept.carries[0], &kept.outputs[0], &checkpointed.last[0]];
    outputs.extend(&gradients);
    check("a recurrent layer and its gradients", &inputs, &outputs, &arguments);
    // A scan over rows of a scan: the inner one is too small to share.
    let rows = scan::map(&[&x], |row| scan::map(&[&row[0]], |element| element[0].exp().sum(0)));
    check("a scan in a scan", &[&x], &[&rows], &[arguments[0]]);
}
