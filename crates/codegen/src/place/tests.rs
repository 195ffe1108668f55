//! The order of steps, in programs that every engine runs as the interpreter does.

use hypatia_graph::compose::{All, concatenate};
use hypatia_graph::index::step;
use hypatia_graph::scan::{Next, Scan};
use hypatia_graph::tensor::{Shared, constant, matrix, shared, vector};
use hypatia_graph::{Array, Tensor, ix};

use crate::kernel::{Kernel, Program, Step};
use crate::scan::tests::{check, numbers};

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

/// A step of descent on a table of rows, of which the cost reads some.
#[test]
fn a_table_is_written_only_where_its_rows_were_read() {
    let table = shared("table", numbers(&[200, 8], 3));
    let all = shared("all", Array::new(&[3, 4], &[7_i64, 0, -1, 7, 3, 3, 3, 3, 1, 2, 3, 4]).unwrap());
    let batch = shared("batch", Array::scalar(2_i64));
    let rows = matrix::<f32>("rows");
    for (indices, count) in
        [(all.index(ix![1]), 4), (all.index(ix![Tensor::from(&batch)]), 4), (all.flatten(1), 12)]
    {
        let cost = table.take(&indices).sqr().sum(All);
        let inputs = [(&rows, numbers(&[count, 8], 1))];
        let (_, program) =
            check(&[&cost], &[(table.clone(), table.inc_rows(&indices, &rows))], &inputs, 1e-4);
        let is_long = |step: &Step| matches!(&step.kernel, Kernel::Loop(kernel) if kernel.extents.iter().product::<usize>() >= 1600);
        assert!(!program.steps.iter().any(is_long), "{program}");
        assert!(program.arena_bytes < 1600, "{program}");
        assert!(program.steps[program.commit..].iter().any(|step| step.kernel.checks_indices()), "{program}");
    }
}

/// Indices that nothing has checked before may be out of range, and then the table stays as it was.
#[test]
fn rows_at_unchecked_indices_are_written_apart() {
    let table = shared("table", numbers(&[200, 8], 3));
    let (i, rows) = (vector::<i64>("i"), matrix::<f32>("rows"));
    let inputs = [(&i, Array::vector(&[7_i64, 0])), (&rows, numbers(&[2, 8], 1))];
    let (_, program) = check(&[], &[(table.clone(), table.inc_rows(&i, &rows))], &inputs, 1e-4);
    assert!(program.steps[program.commit..].iter().all(|step| !step.kernel.checks_indices()), "{program}");
    // Other elements of the same vector, or an axis of another extent, prove nothing.
    let two = table.take(i.index(ix![..1])).sum(All) + table.index(ix![..100]).take(&i).sum(All) * 0.0;
    let (_, program) = check(&[&two], &[(table.clone(), table.inc_rows(&i, &rows))], &inputs, 1e-4);
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

/// The new value of a variable of six rows and eight columns, from the variable, a matrix like it, and two factors whose
/// product is one.
type Update = fn(&Tensor, &Tensor, &Tensor, &Tensor) -> Tensor;

/// Updates that bring back old elements after others were written over them, or move windows of the variable within it.
const OVERLAPPING: [(&str, Update); 24] = [
    ("the first row stays", |w, x, _, _| (w - x).set_index(ix![0], w.index(ix![0]))),
    ("the last row stays", |w, x, _, _| (w - x).set_index(ix![-1], w.index(ix![-1]))),
    ("a row in the middle stays", |w, x, _, _| (w - x).set_index(ix![2], w.index(ix![2]))),
    ("a column stays", |w, x, _, _| (w - x).set_index(ix![.., 3], w.index(ix![.., 3]))),
    ("every second row stays", |w, x, _, _| (w - x).set_index(ix![step(.., 2)], w.index(ix![step(.., 2)]))),
    ("a block stays", |w, x, _, _| (w * x).set_index(ix![1..4, 2..7], w.index(ix![1..4, 2..7]))),
    ("a row of an input stays", |w, x, _, _| x.set_index(ix![0], w.index(ix![0]))),
    ("a row of a product stays", |w, _, a, b| a.dot(b).set_index(ix![1], w.index(ix![1]))),
    ("a row of an accumulating product stays", |w, _, a, b| {
        (w - a.dot(b) * 0.5).set_index(ix![1], w.index(ix![1]))
    }),
    ("a row stays that was added to", |w, x, _, _| {
        w.inc_index(ix![2], x.index(ix![2])).set_index(ix![2], w.index(ix![2]))
    }),
    ("a row stays of rows that were added to", |w, x, _, _| {
        w.inc_index(ix![1..4], x.index(ix![1..4])).set_index(ix![2], w.index(ix![2]))
    }),
    ("a row takes what another was", |w, x, _, _| (w - x).set_index(ix![0], w.index(ix![1]))),
    ("two rows are exchanged", |w, _, _, _| {
        w.set_index(ix![0], w.index(ix![4])).set_index(ix![4], w.index(ix![0]))
    }),
    ("two columns are exchanged", |w, _, _, _| {
        w.set_index(ix![.., 0], w.index(ix![.., 5])).set_index(ix![.., 5], w.index(ix![.., 0]))
    }),
    ("rows move down", |w, _, _, _| w.set_index(ix![1..], w.index(ix![..-1]))),
    ("rows move up", |w, _, _, _| w.set_index(ix![..-1], w.index(ix![1..]))),
    ("columns move and rows stay", |w, x, _, _| {
        (w + x).set_index(ix![.., 1..], w.index(ix![.., ..-1])).set_index(ix![5], w.index(ix![5]))
    }),
    ("a part is written, a part stays", |w, x, _, _| {
        concatenate(&[(w.index(ix![..2]) - x.index(ix![..2])), w.index(ix![2..])], 0)
    }),
    ("columns are written, columns stay", |w, x, _, _| {
        concatenate(&[(w.index(ix![.., ..3]) - x.index(ix![.., ..3])), w.index(ix![.., 3..])], 1)
    }),
    ("halves are exchanged", |w, _, _, _| concatenate(&[w.index(ix![3..]), w.index(ix![..3])], 0)),
    ("a row of a sum over rows", |w, x, _, _| {
        (w - x).set_index(ix![0], w.sum(0)).set_index(ix![3], w.index(ix![3]))
    }),
    ("rows at indices stay", |w, x, _, _| {
        let rows = constant(Array::vector(&[5_i64, 0, 3]));
        (w - x).set_rows(&rows, w.take(&rows))
    }),
    ("rows are added to at indices, one stays", |w, x, _, _| {
        let rows = constant(Array::vector(&[5_i64, 0, 0]));
        w.inc_rows(&rows, x.index(ix![..3])).set_index(ix![0], w.index(ix![0]))
    }),
    ("a row of a scan's rows stays", |w, x, _, _| {
        let rows = Scan::new().sequence(x).run(|step| Next::new().output(step.sequences[0].tanh()));
        rows.outputs[0].set_index(ix![0], w.index(ix![0]))
    }),
];

#[test]
fn updates_that_overlap_themselves() {
    for (name, update) in OVERLAPPING {
        let (x, a, b) = (matrix::<f32>("x"), matrix::<f32>("a"), matrix::<f32>("b"));
        let w = shared("w", numbers(&[6, 8], 3));
        let new = update(&w, &x, &a, &b);
        let inputs = [(&x, numbers(&[6, 8], 1)), (&a, numbers(&[6, 5], 2)), (&b, numbers(&[5, 8], 4))];
        println!("{name}");
        check(&[&(a.dot(&b) + &x)], &[(w, new)], &inputs, 1e-5);
    }
}

#[test]
fn updates_that_read_each_other() {
    for (index, (name, update)) in OVERLAPPING.into_iter().enumerate() {
        for distance in [0, 1, 2, 3, 5, 7, 11] {
            let (other, second) = OVERLAPPING[(index + distance) % OVERLAPPING.len()];
            let (x, a, b) = (matrix::<f32>("x"), matrix::<f32>("a"), matrix::<f32>("b"));
            let [v, w] = [("v", 5), ("w", 6)].map(|(name, seed)| shared(name, numbers(&[6, 8], seed)));
            // Each takes from the other what it keeps.
            let updates = [(v.clone(), update(&w, &x, &a, &b)), (w.clone(), second(&v, &x, &a, &b))];
            let inputs = [(&x, numbers(&[6, 8], 1)), (&a, numbers(&[6, 5], 2)), (&b, numbers(&[5, 8], 4))];
            println!("{name}; {other}");
            check(&[&(a.dot(&b) + &x)], &updates, &inputs, 1e-5);
        }
    }
}

/// Neither a pass over the whole variable to copy it, nor memory for another one.
#[test]
fn parts_are_written_in_place_where_nothing_old_is_lost() {
    let forms: [(&str, Update); 6] = [
        ("a row", |w, x, _, _| w.set_index(ix![2], x.index(ix![1]))),
        ("a row, from another of its own", |w, _, _, _| w.set_index(ix![2], w.index(ix![1]))),
        ("rows are added to others", |w, _, _, _| w.inc_index(ix![..3], w.index(ix![3..]))),
        ("a block is added to", |w, x, _, _| w.inc_index(ix![1..4, 2..7], x.index(ix![..3, ..5]))),
        ("columns are written, columns stay", |w, x, _, _| {
            concatenate(&[w.index(ix![.., ..3]) - x.index(ix![.., ..3]), w.index(ix![.., 3..])], 1)
        }),
        ("rows between others are written", |w, x, _, _| {
            let middle = w.index(ix![2..4]) * x.index(ix![2..4]);
            concatenate(&[w.index(ix![..2]), middle, w.index(ix![4..])], 0)
        }),
    ];
    for (name, update) in forms {
        let (x, a, b) = (matrix::<f32>("x"), matrix::<f32>("a"), matrix::<f32>("b"));
        let w = shared("w", numbers(&[6, 8], 3));
        let new = update(&w, &x, &a, &b);
        let inputs = [(&x, numbers(&[6, 8], 1)), (&a, numbers(&[6, 5], 2)), (&b, numbers(&[5, 8], 4))];
        let (_, program) = check(&[&a.dot(&b), &(&x * 2.0)], &[(w, new)], &inputs, 1e-5);
        let whole = program.steps.iter().any(|step| step.label == "copy");
        assert!(!whole && program.arena_bytes == 0, "{name}: {program}");
    }
}
