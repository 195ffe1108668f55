//! scratch
use hypatia_graph::collect::*; use hypatia_graph::tensor::*; use hypatia_graph::*; use hypatia_graph::compose::All;
use hypatia_graph::differentiate::differentiate; use hypatia_graph::gradient::grad; use hypatia_rewrite::*;
fn main() {
    let z = |n: &str, s: &[usize]| shared(n, Array::zeros(DType::F32, s));
    let x = input("x", DType::F32, &[Some(20), Some(784)]); let y = input("y", DType::I32, &[Some(20)]);
    let (w1, b1, w2, b2) = (z("W1", &[784, 500]), z("b1", &[500]), z("W2", &[500, 10]), z("b2", &[10]));
    let h = (x.dot(&w1) + &b1).tanh();
    let p = (h.dot(&w2) + &b2).softmax(1);
    let p = if std::env::var("NAIVE").is_ok() { let z = h.dot(&w2) + &b2; z.exp() / z.exp().sum_keepdims(1) } else { p };
    let cost = -p.log().pick(&y).mean(All) + 0.001 * w1.abs().sum(All) + 0.0001 * (w1.sqr().sum(All) + w2.sqr().sum(All));
    let params = [&w1, &b1, &w2, &b2];
    let g = grad(&cost, params);
    let updates = params.iter().zip(g).map(|(p, g)| ((*p).clone(), *p - 0.01 * g)).collect();
    let graph = collect(&Request { inputs: vec![x, y], outputs: vec![cost], updates, ..Request::default() }).unwrap();
    for round in 0..4 {
        let t = std::time::Instant::now();
        let mut fwd = 0.0;
        let d = differentiate(&graph, &mut |f| { let (s, r) = simplify(f, Numerics::Real); fwd += r.time.as_secs_f64()*1e3; s }).unwrap();
        let (s, r) = simplify(&d, Options { numerics: Numerics::Real, gradients_taken: true });
        println!("nodes {} -> diff {} -> {}; forward {fwd:.2} ms, final {:.2} ms, all {:.2} ms", graph.len(), d.len(), s.len(), r.time.as_secs_f64()*1e3, t.elapsed().as_secs_f64()*1e3);
        if round == 3 { println!("{s}\n{r}"); }
    }
}
