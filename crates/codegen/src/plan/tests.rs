//! The order of steps, in programs that every engine runs as the interpreter does.

use hypatia_graph::scan::{Next, Scan};
use hypatia_graph::tensor::{Shared, matrix, shared, vector};
use hypatia_graph::{Array, Tensor, ix};

use crate::kernel::{Kernel, Program};
use crate::loops::tests::{check, numbers};

/// A layer's weights; the error passed back through them, and the weights updated.
fn layer(x: &Tensor, d: &Tensor) -> (Shared, Tensor, Tensor) {
    let w = shared("w", numbers(&[300, 500], 3));
    let back = d.dot(w.t());
    let new = &w - x.t().dot(d) * 0.1;
    (w, back, new)
}

/// Products that read a matrix just before it is added to.
fn pairs(program: &Program) -> Vec<usize> {
    (0..program.steps.len()).filter(|index| program.is_pair(*index)).collect()
}

#[test]
fn an_error_passes_back_just_before_the_weights_change() {
    let (x, d) = (matrix::<f32>("x"), matrix::<f32>("d"));
    let (w, back, new) = layer(&x, &d);
    // What depends on the error passed back comes after it, and so after the update of the weights.
    let below = shared("v", numbers(&[40, 300], 4));
    let z = matrix::<f32>("z");
    let updates = [(below.clone(), &below - z.t().dot(&(&back * 2.0)) * 0.1), (w, new)];
    let inputs = [(&x, numbers(&[10, 300], 1)), (&d, numbers(&[10, 500], 2)), (&z, numbers(&[10, 40], 5))];
    let (_, program) = check(&[&back], &updates, &inputs, 1e-4);
    let [index] = pairs(&program)[..] else { panic!("one pair expected:\n{program}") };
    assert!(index >= program.commit, "{program}");
}

#[test]
fn a_step_that_may_fail_is_not_put_off() {
    let (x, d, i) = (matrix::<f32>("x"), matrix::<f32>("d"), vector::<i64>("i"));
    let (w, back, new) = layer(&x, &d);
    // Indices may be out of range.
    let rows = back.take(&i) + 1.0;
    let inputs =
        [(&x, numbers(&[10, 300], 1)), (&d, numbers(&[10, 500], 2)), (&i, Array::vector(&[7_i64, 0]))];
    let (_, program) = check(&[&rows], &[(w, new)], &inputs, 1e-4);
    assert_eq!(pairs(&program), [0; 0], "{program}");
    assert!(program.steps[program.commit..].iter().all(|step| !step.kernel.checks_indices()), "{program}");
}

#[test]
fn an_update_that_uses_the_product_comes_after_all_of_it() {
    let (x, d) = (matrix::<f32>("x"), matrix::<f32>("d"));
    let (w, back, _) = layer(&x, &d);
    // Every part of the update needs the whole product.
    let new = &w - (&back + &x).t().dot(&d) * 0.1;
    let inputs = [(&x, numbers(&[10, 300], 1)), (&d, numbers(&[10, 500], 2))];
    check(&[&back], &[(w, new)], &inputs, 1e-4);
}

#[test]
fn a_product_of_the_weights_with_themselves_comes_before_their_update() {
    let (x, d) = (matrix::<f32>("x"), matrix::<f32>("d"));
    let w = shared("w", numbers(&[40, 5000], 3));
    let inputs = [(&x, numbers(&[10, 40], 1)), (&d, numbers(&[10, 5000], 2))];
    let new = &w - x.t().dot(&d) * 0.1;
    let (_, program) = check(&[&w.dot(w.t())], &[(w, new)], &inputs, 1e-4);
    assert_eq!(pairs(&program), [0; 0], "{program}");
}

/// The work of a step does not grow with the carry, though the indices may be out of range.
#[test]
fn a_carry_is_written_at_an_index_in_place() {
    let (start, places) = (vector::<f32>("start"), vector::<i64>("places"));
    let scanned = Scan::new().sequence(&places).carry(&start).run(|step| {
        let (place, values) = (&step.sequences[0], &step.carries[0]);
        Next::new().carry(values.set_index(ix![place], values.index(ix![place]) * 2.0))
    });
    let inputs = [(&start, numbers(&[1000], 1)), (&places, Array::vector(&[3i64, -1, 3]))];
    let (_, program) = check(&[&scanned.last[0]], &[], &inputs, 1e-6);
    let bodies = program.steps.iter().filter_map(|step| step.kernel.body());
    let kernels: Vec<&Kernel> = bodies.flat_map(|body| &body.steps).map(|step| &step.kernel).collect();
    assert!(!kernels.is_empty());
    assert!(kernels.iter().all(|kernel| kernel.operations() < 100 && kernel.bytes() < 100), "{program}");
}
