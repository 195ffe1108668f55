//! scratch
use hypatia_graph::*; use hypatia_graph::op::Op; use hypatia_rewrite::*;
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let kind = std::env::args().nth(2).unwrap_or_default();
    let x = hypatia_graph::tensor::input("x", DType::F32, &[Some(4)]);
    let mut g = Graph::new();
    let leaf = x.leaf().unwrap().clone();
    let mut id = g.add_leaf(&leaf); g.inputs.push(leaf.id);
    let x0 = id;
    let fs = [ScalarFn::Tanh, ScalarFn::Sin, ScalarFn::Exp, ScalarFn::Sigmoid, ScalarFn::Sqr];
    for i in 0..n {
        id = match kind.as_str() {
            "add" => g.add(Op::Map(ScalarFn::Add), &[id, x0], None),
            "double" => g.add(Op::Map(ScalarFn::Add), &[id, id], None),
            "logexp" => g.add(Op::Map(if i % 2 == 0 { ScalarFn::Exp } else { ScalarFn::Log }), &[id], None),
            _ => g.add(Op::Map(fs[i % 5]), &[id], None),
        };
    }
    g.outputs.push(id);
    let t = std::time::Instant::now();
    let (s, r) = simplify(&g, Numerics::Real);
    println!("{:?} {}", t.elapsed(), s.len());
    println!("{r}");
}
