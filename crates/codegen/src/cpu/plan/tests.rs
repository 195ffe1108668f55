//! Plans that do not hold are refused, each for one thing.

use std::sync::Arc;

use hypatia_graph::scan::{Next, Scan};
use hypatia_graph::tensor::{matrix, scalar};
use hypatia_kernels::features::Features;

use super::{Action, Function, FunctionId, Inline, PackedId, Plan, Product, Scan as PlannedScan, Target};
use crate::scan::tests::{graph, numbers};

/// A scan run step by step, before which two matrices are packed, and a scan that is one function.
fn plan() -> Plan {
    let (x, w, v) = (matrix::<f32>("x"), matrix::<f32>("w"), matrix::<f32>("v"));
    let a = scalar::<f32>("a");
    let layers = Scan::new().carry(&x).steps(6).run(|step| {
        let x = &step.carries[0];
        Next::new().carry((x.dot(&w) + x.dot(&v)).tanh())
    });
    let small = Scan::new().carry(&a).steps(9).run(|step| Next::new().carry(step.carries[0].sin()));
    let matrices = [(&x, numbers(&[20, 40], 1)), (&w, numbers(&[40, 40], 2)), (&v, numbers(&[40, 40], 3))];
    let inputs = [matrices.as_slice(), &[(&a, numbers(&[], 4))]].concat();
    let graph = graph(&[&layers.last[0], &small.last[0]], &[], &inputs);
    Plan::new(Arc::new(crate::compile(&graph).unwrap()), &Features::portable(), 2).unwrap()
}

fn the_scan(plan: &mut Plan) -> &mut PlannedScan {
    let scan = plan.steps.iter_mut().find_map(|step| match &mut step.action {
        Action::Scan(scan) => Some(scan),
        _ => None,
    });
    scan.unwrap()
}

fn a_product(plan: &mut Plan) -> &mut Product {
    let product = the_scan(plan).body.iter_mut().find_map(|step| match &mut step.action {
        Action::Product(product) => Some(product),
        _ => None,
    });
    product.unwrap()
}

/// What breaks one thing.
type Break = fn(&mut Plan);

#[test]
fn plans_that_do_not_hold_are_refused() {
    let breaks: &[(&str, Break)] = &[
        ("a function that does not exist", |plan| {
            for step in &mut the_scan(plan).body {
                if let Action::Loop { function, .. } = &mut step.action {
                    *function = FunctionId(99);
                }
            }
        }),
        ("functions of other kernels", |plan| plan.functions.reverse()),
        ("a function of no step", |plan| plan.functions.push(Function::Kernel(99))),
        ("a native scan that lacks a step", |plan| {
            for function in &mut plan.functions {
                if let Function::Scan(_, body) = function {
                    body.pop();
                }
            }
        }),
        ("a native scan that carries out a kernel as a product", |plan| {
            for function in &mut plan.functions {
                if let Function::Scan(_, body) = function {
                    body[0] = Inline::Product { lanes: 4 };
                }
            }
        }),
        ("a step less", |plan| {
            plan.steps.pop();
        }),
        ("the second of a pair alone", |plan| plan.steps[0].action = Action::InPair),
        ("a pointer that nothing sets", |plan| {
            plan.places.pop();
        }),
        ("a pointer that two things set", |plan| plan.places.push(plan.places[0].clone())),
        ("a pointer beyond the table", |plan| plan.slots -= 1),
        ("a scan that sets a pointer from elsewhere", |plan| the_scan(plan).begins[0].1.slot += 10),
        ("a step with the pointers of another", |plan| plan.steps[0].slots += 1),
        ("a condition in another step's parameter", |plan| {
            the_scan(plan).until = Some(Target { slot: 0, offset: 0 })
        }),
        ("a pointer that moves and was not set", |plan| the_scan(plan).moves.push((0, 4))),
        ("a matrix that nothing packs", |plan| the_scan(plan).packings.clear()),
        ("a matrix that is packed twice", |plan| {
            let scan = the_scan(plan);
            scan.packings.push(scan.packings[0]);
        }),
        ("a matrix that does not exist", |plan| a_product(plan).packed = Some(PackedId(9))),
        ("a product planned for a packed matrix that is not", |plan| a_product(plan).packed = None),
    ];
    plan().verify().unwrap();
    for (what, breaks) in breaks {
        let mut plan = plan();
        breaks(&mut plan);
        assert!(plan.verify().is_err(), "{what}\n{plan}");
    }
}
