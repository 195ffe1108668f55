use crate::array::Array;
use crate::collect::{Request, Unused, collect};
use crate::compose::{All, arange, concatenate, full, stack};
use crate::diagnostic::Diagnostics;
use crate::differentiate::differentiate;
use crate::dtype::DType;
use crate::gradient::{Gradient, grad};
use crate::graph::Graph;
use crate::index::step;
use crate::interp::interpret;
use crate::ix;
use crate::made::cuts;
use crate::scan::{Next, Scan, Scanned, map};
use crate::specialise::{Arguments, specialise};
use crate::tensor::{Tensor, constant, matrix, scalar, shared, vector};

fn collected(outputs: &[Tensor], inputs: &[&Tensor]) -> Result<Graph, Diagnostics> {
    let request = Request {
        inputs: inputs.iter().map(|input| (*input).clone()).collect(),
        outputs: outputs.to_vec(),
        unused: Unused::Ignore,
        ..Request::default()
    };
    collect(&request)
}

/// The values of formulas, each with all that memory holds.
fn results(outputs: &[Tensor], inputs: &[(&Tensor, Array)]) -> Result<Vec<Vec<f64>>, String> {
    let names: Vec<&Tensor> = inputs.iter().map(|(input, _)| *input).collect();
    let graph = collected(outputs, &names).unwrap_or_else(|faults| panic!("{faults}"));
    let shapes = graph.inputs.iter().zip(inputs).map(|(id, (_, x))| (*id, x.shape().into())).collect();
    let counts = graph.inputs.iter().zip(inputs).filter(|(_, (_, x))| x.rank() == 0 && x.dtype().is_int());
    let values = counts.map(|(id, (_, x))| (*id, x.get(0).to_i64().unwrap())).collect();
    let concrete = specialise(&graph, &Arguments { shapes, values }).unwrap();
    let taken = differentiate(&concrete, &mut Graph::clone).unwrap();
    let arrays: Vec<Array> = inputs.iter().map(|(_, x)| x.clone()).collect();
    let found = interpret(&taken, &arrays).map_err(|fault| fault.to_string())?.outputs;
    Ok(found.iter().map(|x| (0..x.len()).map(|i| x.get(i).to_f64()).collect()).collect())
}

/// `x, x + 1, x + 2, ..` times each of `w`, as many as the count given, of ten.
fn rising(x: &Tensor, w: &Tensor, count: &Tensor) -> Scanned {
    Scan::new().carry(x).carry(constant(Array::scalar(0i64))).steps(10).run(|s| {
        let made = &s.carries[1] + 1i64;
        Next::new().carry(&s.carries[0] + 1.0).carry(&made).output(&s.carries[0] * w).until(made.ge(count))
    })
}

#[test]
fn formulas_count_the_rows_made() {
    let (x, w, n) = (scalar::<f64>("x"), vector::<f64>("w"), scalar::<i64>("n"));
    let scanned = rising(&x, &w, &n);
    let rows = &scanned.outputs[0];
    let first = &scanned.carries[0];
    // Each formula of the rows beside the same of a matrix of those that are made.
    type Formula = Box<dyn Fn(&Tensor) -> Tensor>;
    let formulas: Vec<(&str, Formula)> = vec![
        ("sum", Box::new(|r| r.sum(All))),
        ("sum over rows", Box::new(|r| r.sum(0))),
        ("sum over columns", Box::new(|r| (r.sum(1) * 2.0).sum(All))),
        ("product", Box::new(|r| (r * 0.5).prod(0))),
        ("largest", Box::new(|r| (-r).max(0))),
        ("smallest", Box::new(|r| r.min(All))),
        ("mean", Box::new(|r| r.mean(0))),
        ("mean of all", Box::new(|r| r.sqr().mean(All))),
        ("std", Box::new(|r| r.std(0))),
        ("variance of columns", Box::new(|r| r.t().var(1))),
        ("softmax", Box::new(|r| (r.softmax(0).sqr()).sum(0))),
        ("logsumexp", Box::new(|r| (r * 0.1).logsumexp(0))),
        ("all", Box::new(|r| r.lt(5.0).all(0).cast(DType::F64))),
        ("any", Box::new(|r| r.gt(3.0).any(All).cast(DType::F64))),
        ("argmax", Box::new(|r| (-r).argmax(0).cast(DType::F64))),
        ("length", Box::new(|r| r.extent(0).cast(DType::F64))),
        ("product with a matrix", Box::new(|r| r.dot(r.t().dot(r)).sum(0))),
        ("moments", Box::new(|r| r.t().dot(r))),
        ("last", Box::new(|r| r.index(ix![-1]))),
        ("last of a function", Box::new(|r| r.exp().sum(1).index(ix![-1]))),
        ("first", Box::new(|r| r.index(ix![0]))),
        ("second", Box::new(|r| r.index(ix![1]))),
        ("last but one", Box::new(|r| r.index(ix![-2, 0]))),
        ("column", Box::new(|r| r.index(ix![.., 1]).sum(0))),
        ("differences", Box::new(|r| (r.index(ix![1..]).sqr() - r.index(ix![..-1])).sum(0))),
        ("last difference", Box::new(|r| (r.index(ix![1..]) - r.index(ix![..-1])).index(ix![-1]))),
        ("first three", Box::new(|r| r.index(ix![..3]).sum(0))),
        ("middle", Box::new(|r| r.index(ix![1..4, 1..]).index(ix![..2]).mean(All))),
        ("ones", Box::new(|r| r.ones_like().sum(All))),
        ("written column", Box::new(|r| r.set_index(ix![.., 0], 3.0).sum(All))),
        ("columns side by side", Box::new(|r| concatenate(&[r.clone(), r * 2.0], 1).sum(0))),
        (
            "used by steps",
            Box::new(|r| {
                let total = map(&[&arange(3)], |i| r.sum(0) * i[0].cast(DType::F64));
                total.sum(0)
            }),
        ),
    ];
    for (name, formula) in formulas {
        for made in [2i64, 4, 10] {
            let unrolled = |x: &Tensor| {
                let rows: Vec<Tensor> = (0..made).map(|t| (x + t as f64) * &w).collect();
                stack(&rows, 0)
            };
            let inputs = [
                (&x, Array::scalar(0.5f64)),
                (&w, Array::vector(&[1.0f64, -2.0])),
                (&n, Array::scalar(made)),
            ];
            let both = [formula(rows), formula(&unrolled(&x))].map(|value| {
                let cost = (&value + value.sqr() * 0.5).sum(All);
                let mut all = vec![value];
                let gradient = Gradient::of(&cost).disconnected(crate::op::Disconnected::Zero);
                all.extend(gradient.wrt([&x, &w]));
                results(&all, &inputs).unwrap()
            });
            for (found, expected) in both[0].iter().zip(&both[1]) {
                assert_eq!(found.len(), expected.len(), "{name} of {made}");
                for (a, b) in found.iter().zip(expected) {
                    assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{name} of {made}: {both:?}");
                }
            }
        }
    }
    // A result that is returned has as many rows as were made.
    let cut = cuts(&[first.clone(), scanned.last[0].clone(), rows.t().exp(), rows.index(ix![2..])]);
    let axes: Vec<(usize, usize)> = cut.iter().map(|cut| (cut.output, cut.axis)).collect();
    assert_eq!(axes, [(0, 0), (2, 1), (3, 0)]);
    let inputs = [(&x, Array::scalar(0.5f64)), (&w, Array::vector(&[1.0f64])), (&n, Array::scalar(4i64))];
    let counts: Vec<Tensor> = cut.iter().map(|cut| cut.count.clone()).collect();
    assert_eq!(results(&counts, &inputs).unwrap(), [[4.0], [4.0], [2.0]]);
    // All rows on request, and of one that must be there.
    let padded = results(&[first.padded(), first.padded().sum(All)], &inputs).unwrap();
    assert_eq!(padded[0], [1.5, 2.5, 3.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5]);
    assert_eq!(padded[1], [39.0]);
    let beyond = |index: i64| results(&[first.index(ix![index])], &inputs);
    assert_eq!(beyond(3).unwrap(), [[4.5]]);
    assert_eq!(beyond(-4).unwrap(), [[1.5]]);
    assert!(beyond(4).is_err() && beyond(-5).is_err());
    let nothing = results(&[first.index(ix![6..]).sum(All), first.index(ix![..-7]).sum(All)], &inputs);
    assert_eq!(nothing.unwrap(), [[0.0], [0.0]]);
    assert!(results(&[first.index(ix![6..]).index(ix![-1])], &inputs).is_err());
    // No step at all.
    let steps = scalar::<i64>("steps");
    let empty = Scan::new().carry(&x).steps(&steps).run(|s| {
        let next = &s.carries[0] * 2.0;
        Next::new().until(next.gt(5.0)).carry(next)
    });
    let inputs = [(&x, Array::scalar(1.0f64)), (&steps, Array::scalar(0i64))];
    let cost = empty.carries[0].sqr().sum(All);
    let all = [cost.clone(), grad(&cost, [&x]).remove(0), empty.carries[0].extent(0)];
    assert_eq!(results(&all, &inputs).unwrap(), [[0.0], [0.0], [0.0]]);
}

#[test]
fn what_needs_the_number_of_rows_before_is_refused() {
    let (x, w, n) = (scalar::<f64>("x"), vector::<f64>("w"), scalar::<i64>("n"));
    let (m, long) = (matrix::<f64>("m"), vector::<f64>("long"));
    let scanned = rising(&x, &w, &n);
    let other = rising(&(&x + 1.0), &w, &n);
    let (rows, line) = (&scanned.outputs[0], &scanned.carries[0]);
    let refused = [
        ("reshape", rows.reshape([-1])),
        ("flatten", rows.flatten(1)),
        ("elementwise", line + &long),
        ("constant", line * arange(10).cast(DType::F64)),
        ("another scan", rows - &other.outputs[0]),
        ("dot", line.dot(&long)),
        ("both sides", rows.dot(rows.t())),
        ("concatenate", concatenate(&[line.clone(), long.clone()], 0)),
        ("stack", stack(&[line.clone(), long.clone()], 0)),
        ("reversed", rows.index(ix![step(.., -1)])),
        ("from the end", rows.index(ix![-2..])),
        ("computed bound", rows.index(ix![&n..])),
        ("write", rows.set_index(ix![0], 1.0)),
        ("write rows", m.inc_rows(arange(10), rows)),
        ("pick", line.take(arange(3))),
        ("sequence", map(&[line], |e| e[0].sqr())),
        (
            "initial",
            Scan::new().carry(line).steps(2).run(|s| Next::new().carry(&s.carries[0])).last.remove(0),
        ),
        ("step", map(&[&long], |e| line * &e[0])),
        ("variable", grad(&line.sum(All), [line]).remove(0)),
        ("cotangent", Gradient::of_known().known(line, line.ones_like()).wrt([&x]).remove(0)),
        ("shape", long.broadcast_like(line)),
        ("part", rows.index(ix![1..]).padded()),
    ];
    for (name, formula) in refused {
        let faults = collected(&[formula], &[&x, &w, &n, &m, &long]).expect_err(name);
        assert_eq!(faults.0.len(), 1, "{name}: {faults}");
        let fault = &faults.0[0];
        assert!(fault.title.starts_with("the rows of a scan that may end early"), "{name}: {faults}");
        assert!(faults.to_string().contains("`.padded()`"), "{name}: {faults}");
        assert!(fault.at.is_some_and(|site| site.file().ends_with("made/tests.rs")), "{name}: {faults}");
    }
    let variable = shared("variable", Array::zeros(DType::F64, &[10]));
    let request = Request {
        inputs: vec![x.clone(), n.clone(), w.clone()],
        updates: vec![(variable.clone(), line.clone())],
        unused: Unused::Ignore,
        ..Request::default()
    };
    assert!(collect(&request).unwrap_err().to_string().contains("as an update of `variable`"));
    let given = Request {
        inputs: vec![x.clone(), n.clone(), w.clone(), long.clone()],
        outputs: vec![line.sum(All)],
        givens: vec![(line.clone(), long.clone())],
        unused: Unused::Ignore,
        ..Request::default()
    };
    assert!(collect(&given).unwrap_err().to_string().contains("in a given"));
    // With all rows everything is as with any other tensor.
    let padded = line.padded();
    let fine = [
        padded.reshape([2, 5]),
        &padded * full(2.0, DType::F64, [10]),
        map(&[&padded], |e| e[0].sqr()),
        grad(&padded.sqr().sum(All), [&padded]).remove(0),
    ];
    collected(&fine, &[&x, &w, &n]).unwrap();
}
