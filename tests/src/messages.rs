//! Every message a user's mistake can bring, as one golden text: what was expected, what was found, and where.

use hypatia::{
    All, Array, Builder, CallError, DType, Diagnostics, Function, Gradient, Next, Scan, ScanStep, Tensor,
    arange, concatenate, function, grad, input, ix, matrix, scalar, shared, stack, step, switch, tensor3,
    vector,
};
use std::fmt::Write;

use crate::snapshot::golden;

/// The messages, each under the mistake that brings it.
#[derive(Default)]
struct Book(String);

impl Book {
    fn add(&mut self, mistake: &str, message: &str) {
        let mut text = String::new();
        for line in message.lines() {
            // Lines move as tests are added; files do not.
            let mut rest = line.trim_end();
            while let Some(at) = rest.find(".rs:") {
                let after = &rest[at + 4..];
                let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                text += &rest[..at].replace('\\', "/");
                text += ".rs:LINE";
                rest = &after[digits..];
            }
            text += rest;
            text += "\n";
        }
        writeln!(self.0, "== {mistake}\n{text}").unwrap();
    }

    /// A mistake that compiling must find.
    fn compile(&mut self, mistake: &str, result: Result<Function, Diagnostics>) {
        match result {
            Ok(_) => panic!("{mistake}: compiled"),
            Err(faults) => self.add(mistake, &faults.to_string()),
        }
    }

    /// A mistake in an expression.
    fn expression(&mut self, mistake: &str, inputs: &[&Tensor], output: &Tensor) {
        self.compile(mistake, function(inputs, &[output], &[]));
    }

    /// A mistake that a call must find.
    fn call(&mut self, mistake: &str, function: Result<Function, Diagnostics>, arguments: &[&Array]) {
        let mut function = function.unwrap_or_else(|e| panic!("{mistake}: {e}"));
        match function.call(arguments) {
            Ok(_) => panic!("{mistake}: called"),
            Err(fault) => self.add(mistake, &fault.to_string()),
        }
    }
}

fn known(name: &str, shape: &[usize]) -> Tensor {
    let shape: Vec<Option<usize>> = shape.iter().map(|&n| Some(n)).collect();
    input(name, DType::F32, &shape)
}

#[test]
fn building() {
    let mut book = Book::default();
    let (x, y) = (known("x", &[64, 10]), known("y", &[10, 64]));
    book.expression("operands that differ in shape", &[&x, &y], &(&x + &y));
    let hidden = (&x * 2.0).named("hidden");
    let faults = (&hidden + &y).sum(All) + x.dot(&x).sum(All) + x.reshape([7, 7]).sum(All);
    book.expression("three mistakes at once", &[&x, &y], &faults);
    book.expression("inner extents of a product", &[&x, &y], &x.dot(known("z", &[11, 3])));
    book.expression("a product that wants a transpose", &[&x], &x.dot(&x));
    book.expression("a product of scalars", &[&x], &x.dot(x.sum(All)));
    book.expression("a product of a stack and a matrix", &[&x], &tensor3::<f32>("stack").dot(&x));
    book.expression("reshape to another size", &[&x], &x.reshape([3, 4]));
    book.expression("reshape that does not divide", &[&x], &x.reshape([7, -1]));
    book.expression("reshape with two unknowns", &[&x], &x.reshape([-1, -1]));
    book.expression("reshape to a negative extent", &[&x], &x.reshape([-2, 3]));
    book.expression("flatten to a higher rank", &[&x], &x.flatten(3));
    book.expression("an axis that does not exist", &[&x], &x.sum(2));
    book.expression("a negative axis that does not exist", &[&x], &x.mean(-3));
    book.expression("argmax along an axis that does not exist", &[&x], &x.argmax(5));
    book.expression("softmax along an axis that does not exist", &[&x], &x.softmax(2));
    book.expression("a sum over an axis twice", &[&x], &x.sum([0, 0]));
    book.expression("a sum over an axis by both its names", &[&x], &x.sum([0, -2]));
    book.expression("a split that does not add up", &[&x], &x.split(&[60, 5], 0)[0]);
    book.expression("a split along an axis that does not exist", &[&x], &x.split(&[60, 4], 2)[0]);
    book.expression("a number that its type does not hold", &[&x], &x.full_like(1e300));
    book.expression("an input of nine axes", &[], &input("nine", DType::F32, &[None; 9]));
    let vast = input("vast", DType::F32, &[Some((1 << 62) + 1), Some(4)]);
    book.expression("an input of more elements than memory", &[&vast], &vast.sum(All));
    let padded = shared("padded", Array::new(&[2, 3], &[1f32; 5]));
    book.expression("a shared variable of too few elements", &[], &(&padded * 2.0).sum(All));
    book.expression("transpose with an axis that does not exist", &[&x], &x.transpose(&[0, 2]));
    book.expression("transpose with an axis twice", &[&x], &x.transpose(&[0, 0]));
    book.expression("dimshuffle that drops an extent", &[&x], &x.dimshuffle(&[Some(0)]));
    book.expression("dimshuffle with an axis that does not exist", &[&x], &x.dimshuffle(&[Some(2), None]));
    book.expression("an index outside", &[&x], &x.index(ix![64]));
    book.expression("too many indices", &[&x], &x.index(ix![0, 0, 0]));
    book.expression("a slice with a step of 0", &[&x], &x.index(ix![step(.., 0)]));
    book.expression("a bound that is no integer", &[&x], &x.index(ix![x.sum(All)..]));
    book.expression("a part written with another shape", &[&x, &y], &x.set_index(ix![0..2], &y));
    book.expression("rows by float indices", &[&x], &x.take(x.sum(1)));
    book.expression("pick from a vector", &[&x], &x.sum(0).pick(vector::<i64>("c")));
    book.expression("pick with float columns", &[&x], &x.pick(x.sum(1)));
    book.expression("rows set to another width", &[&x, &y], &x.set_rows(arange(10), &y));
    book.expression("concatenate of unequal widths", &[&x, &y], &concatenate(&[x.clone(), y.clone()], 0));
    book.expression("concatenate of nothing", &[], &concatenate(&[], 0));
    book.expression(
        "concatenate along an axis that does not exist",
        &[&x],
        &concatenate(std::slice::from_ref(&x), 2),
    );
    book.expression("stack of unequal shapes", &[&x, &y], &stack(&[x.clone(), y.clone()], 0));
    book.expression("stack of nothing", &[], &stack(&[], 0));
    book.expression("broadcast to a lower rank", &[&x], &x.broadcast_like(&x.sum(0)));
    let add: fn(Tensor, Tensor) -> Tensor = std::ops::Add::add;
    book.expression("a function that does not see its caller", &[&x, &y], &add(x.clone(), &y + 1.0));
    book.expression("switch between unequal shapes", &[&x, &y], &switch(x.gt(0.0), &x, &y));
    book.expression("bit operations on floats", &[&x], &(&x & &x));
    book.expression("logic on unequal types", &[&x], &!&x);
    golden("messages/building.txt", &book.0);
}

#[test]
fn functions() {
    let mut book = Book::default();
    let (x, y) = (known("x", &[2, 3]), scalar::<f32>("y"));
    let w = shared("w", Array::zeros(DType::F32, &[2, 3]).unwrap());
    let n = shared("n", 1i64);
    let sum = (&x * &y).sum(All);
    book.compile("a missing input", function(&[&x], &[&sum], &[]));
    book.compile("two missing inputs", function(&[], &[&sum], &[]));
    book.compile("an unused input", function(&[&x, &y], &[&x], &[]));
    book.compile("an input twice", function(&[&x, &y, &x], &[&sum], &[]));
    book.compile("a computed expression as an input", function(&[&x, &y, &sum], &[&sum], &[]));
    book.compile("a shared variable as an input", function(&[&x, &y, &w], &[&sum], &[]));
    book.compile("an update of another shape", function(&[&x], &[], &[(&w, x.sum(0))]));
    book.compile("an update of another rank", function(&[&x], &[], &[(&w, x.sum(All))]));
    book.compile("an update of another element type", function(&[&y], &[], &[(&n, &n * &y)]));
    book.compile(
        "an update by a number too large",
        function(&[], &[], &[(&shared("s", 1f32), Tensor::from(1e300))]),
    );
    book.compile("an update twice", function(&[&x], &[], &[(&w, &w + &x), (&w, &w - &x)]));
    book.compile(
        "an update of another type and a missing input",
        function(&[&x], &[], &[(&w, (&x * &y).sum(0))]),
    );
    let given = Builder::new().inputs(&[&x]).outputs(&[&sum]).given(&y, &x).compile();
    book.compile("a given of another type", given);
    let given = Builder::new().inputs(&[&x]).outputs(&[&sum]).given(&y, w.sum(All)).given(&y, w.max(All));
    book.compile("an expression given twice", given.compile());
    let (a, b) = (scalar::<f32>("a"), scalar::<f32>("b"));
    let chained = Builder::new()
        .inputs(&[])
        .outputs(&[&a])
        .given(&a, &b * 2.0)
        .given(&b, Tensor::from(3.0).cast(DType::F32));
    book.compile("a given that speaks of what is given", chained.compile());
    let default = Builder::new().inputs(&[&x]).input_with_default(&y, Array::vector(&[1.0f32]));
    book.compile("a default of another type", default.outputs(&[&sum]).compile());
    golden("messages/functions.txt", &book.0);
}

#[test]
fn gradients() {
    let mut book = Book::default();
    let x = known("x", &[2, 3]);
    let other = known("other", &[4]);
    let labels = input("labels", DType::I64, &[Some(2)]);
    let cost = x.sqr().sum(All);
    let one = |gradients: Vec<Tensor>| gradients[0].clone();
    book.expression("a gradient of a matrix", &[&x], &one(grad(&x.sqr(), [&x])));
    book.expression("a gradient of an integer", &[&labels], &one(grad(&labels.sum(All), [&x])));
    book.expression("a gradient of nothing", &[&x], &one(Gradient::of_known().wrt([&x])));
    book.expression("a gradient with respect to integers", &[&x, &labels], &one(grad(&cost, [&labels])));
    book.expression("a gradient that is disconnected", &[&x, &other], &(one(grad(&cost, [&other])) + &other));
    let broken = x.argmax(1).cast(DType::F32).sum(All);
    book.expression("a gradient broken by integers", &[&x], &one(grad(&broken, [&x])));
    let stopped = x.stop_gradient().sum(All);
    book.expression("a gradient that was stopped", &[&x], &one(grad(&stopped, [&x])));
    let constant = Gradient::of(&cost).consider_constant([&x]).wrt([&x]);
    book.expression("a gradient with respect to what is constant", &[&x], &one(constant));
    let known_of_another_type = Gradient::of(&cost).known(&x, x.sum(0)).wrt([&x]);
    book.expression("a known cotangent of another type", &[&x], &one(known_of_another_type));
    golden("messages/gradients.txt", &book.0);
}

#[test]
fn scans() {
    let mut book = Book::default();
    let (x, y, h) = (known("x", &[5, 3]), known("y", &[4, 3]), known("h", &[3]));
    let n = scalar::<i64>("n");
    let sum = |step: &ScanStep| Next::new().carry(&step.carries[0] + &step.sequences[0]);
    let scanned = Scan::new().sequence(&x).sequence(&y).carry(&h).run(sum);
    book.expression("sequences of unequal length", &[&x, &y, &h], &scanned.last[0]);
    let scanned = Scan::new().sequence(&x).carry(&h).steps(6).run(sum);
    book.expression("more steps than a sequence is long", &[&x, &h], &scanned.last[0]);
    let scanned = Scan::new().sequence(x.sum(All)).carry(&h).run(sum);
    book.expression("a scalar as a sequence", &[&x, &h], &scanned.last[0]);
    let scanned = Scan::new().carry(&h).run(|step| Next::new().carry(&step.carries[0] * 2.0));
    book.expression("a scan without sequences or steps", &[&h], &scanned.last[0]);
    let halved = |step: &ScanStep| Next::new().carry(&step.carries[0] * 0.5);
    let scanned = Scan::new().carry(&h).steps(-2).run(halved);
    book.expression("a negative number of steps", &[&h], &scanned.last[0]);
    let scanned = Scan::new().carry(&h).steps(h.sum(All)).run(halved);
    book.expression("a number of steps that is no integer", &[&h], &scanned.last[0]);
    let scanned =
        Scan::new().sequence(&x).carry(&h).run(|step| Next::new().carry(step.sequences[0].sum(All)));
    book.expression("a carry of another rank", &[&x, &h], &scanned.last[0]);
    let scanned = Scan::new().sequence(&x).carry(&h).run(|_| Next::new().carry(x.sum(1)));
    book.expression("a carry of another extent", &[&x, &h], &scanned.last[0]);
    let scanned =
        Scan::new().sequence(&x).carry(&h).run(|step| Next::new().carry(step.sequences[0].cast(DType::F64)));
    book.expression("a carry of another element type", &[&x, &h], &scanned.last[0]);
    let scanned = Scan::new().sequence(&x).carry(&h).run(|step| Next::new().output(&step.carries[0]));
    book.expression("a carry without a next value", &[&x, &h], &scanned.last[0]);
    let scanned =
        Scan::new().sequence(&x).run(|step| Next::new().carry(&step.sequences[0]).output(&step.sequences[0]));
    book.expression("a next value without a carry", &[&x], &scanned.outputs[0]);
    let until = |condition: fn(&Tensor) -> Tensor| {
        let step = |step: &ScanStep| halved(step).until(condition(&step.carries[0]));
        Scan::new().carry(&h).steps(4).run(step).last[0].clone()
    };
    book.expression("a condition that is no truth value", &[&h], &until(|h| h.sum(All)));
    book.expression("a condition that is no scalar", &[&h], &until(|h| h.gt(0.0)));
    let taps = |initial: &Tensor, taps: &[i64]| {
        Scan::new().carry_taps(initial, taps).steps(3).run(halved).last[0].clone()
    };
    book.expression("a carry with a tap that is not past", &[&x], &taps(&x, &[-1, 0]));
    book.expression("a carry with too few initial values", &[&x], &taps(&x, &[-7, -1]));
    let mut outside = None;
    let scanned = Scan::new().sequence(&x).carry(&h).run(|step| {
        outside = Some(step.carries[0].clone());
        sum(step)
    });
    book.expression("a value of a step used outside", &[&x, &h], &(&scanned.last[0] + outside.unwrap()));
    let total = shared("total", Array::zeros(DType::F32, &[3]).unwrap());
    let counted = Scan::new().sequence(&x).run(|step| {
        Next::new().output(step.sequences[0].sum(All)).update(&total, &total + &step.sequences[0])
    });
    book.expression("updates of a scan that are forgotten", &[&x], &counted.outputs[0]);
    let inner = |_: &ScanStep| {
        let inner = Scan::new().steps(2).run(|_| Next::new().output(&n).update(&total, &total * 2.0));
        Next::new().output(&inner.outputs[0])
    };
    let scanned = Scan::new().steps(3).run(inner);
    book.expression("updates of an inner scan that are forgotten", &[&n], &scanned.outputs[0]);
    let faulty = Scan::new().sequence(&x).carry(&h).run(|step| sum(step).output(step.sequences[0].dot(&y)));
    book.expression("a mistake in a step", &[&x, &y, &h], &faulty.outputs[0]);
    let integers = Scan::new().sequence(&x).run(|step| Next::new().output(step.sequences[0].argmax(0)));
    let cost = integers.outputs[0].sum(All).cast(DType::F32);
    book.expression("a gradient broken in a step", &[&x], &grad(&cost, [&x])[0]);

    let rows = matrix::<f32>("rows");
    let repeated = Scan::new().carry(&h).steps(&n).run(halved);
    let halving = function(&[&h, &n], &[&repeated.last[0]], &[]);
    let h_value = Array::zeros(DType::F32, &[3]).unwrap();
    book.call("a negative number of steps at a call", halving, &[&h_value, &Array::scalar(-1i64)]);
    let summed = Scan::new().sequence(&rows).carry(&h).run(sum);
    let summing = function(&[&rows, &h], &[&summed.last[0]], &[]);
    book.call(
        "elements that do not fit the carry",
        summing,
        &[&Array::zeros(DType::F32, &[5, 4]).unwrap(), &h_value],
    );
    let both = Scan::new().sequence(&rows).sequence(&x).carry(&h).run(sum);
    let joining = function(&[&rows, &x, &h], &[&both.last[0]], &[]);
    let x_value = Array::zeros(DType::F32, &[5, 3]).unwrap();
    let short = Array::zeros(DType::F32, &[4, 3]).unwrap();
    book.call("sequences of unequal length at a call", joining, &[&short, &x_value, &h_value]);
    let indices = vector::<i64>("indices");
    let picked = Scan::new().sequence(&indices).carry(&h).run(|step| {
        let index = &step.sequences[0];
        Next::new().carry(&step.carries[0] + x.index(ix![index]))
    });
    let picking = function(&[&x, &indices, &h], &[&picked.last[0]], &[]);
    book.call(
        "an index out of range in a step",
        picking,
        &[&x_value, &Array::vector(&[0i64, 5, 1]), &h_value],
    );
    golden("messages/scans.txt", &book.0);
}

#[test]
fn calls() {
    let mut book = Book::default();
    let (x, y) = (matrix::<f32>("x"), vector::<f32>("y"));
    let (i, labels) = (scalar::<i64>("i"), vector::<i32>("labels"));
    let matrix_of = |m: usize, n: usize| Array::zeros(DType::F32, &[m, n]).unwrap();
    let vector_of = |n: usize| Array::zeros(DType::F32, &[n]).unwrap();
    let sum = || function(&[&x, &y], &[&(x.sum(0) + &y)], &[]);
    book.call("too few arguments", sum(), &[&matrix_of(2, 3)]);
    book.call("too many arguments", sum(), &[&matrix_of(2, 3), &vector_of(3), &vector_of(3)]);
    let defaults = Builder::new().inputs(&[&x]).input_with_default(&y, Array::vector(&[1.0f32]));
    book.call("too few arguments beside defaults", defaults.outputs(&[&(x.sum(0) + &y)]).compile(), &[]);
    book.call(
        "an argument of another element type",
        sum(),
        &[&matrix_of(2, 3).cast(DType::F64), &vector_of(3)],
    );
    book.call("an argument of another rank", sum(), &[&vector_of(3), &vector_of(3)]);
    book.call("arguments whose shapes do not fit", sum(), &[&matrix_of(2, 3), &vector_of(4)]);
    let two = x.dot(&y).sum(All) + (&x + x.t()).sum(All);
    let both = function(&[&x, &y], &[&two], &[]);
    book.call("two mistakes in the shapes of arguments", both, &[&matrix_of(2, 3), &vector_of(2)]);
    let fixed = input("fixed", DType::F32, &[Some(2), None]);
    let known = function(&[&fixed], &[&fixed.sum(All)], &[]);
    book.call("an argument of another known extent", known, &[&matrix_of(3, 3)]);
    let reshaped = function(&[&x], &[&x.reshape([2, 3])], &[]);
    book.call("a reshape that is impossible for the argument", reshaped, &[&matrix_of(2, 4)]);
    let inferred = function(&[&x], &[&x.reshape([4, -1])], &[]);
    book.call("a reshape that does not divide the argument", inferred, &[&matrix_of(2, 3)]);
    let split = function(&[&x], &[&concatenate(&[x.clone(), x.t()], 0)], &[]);
    book.call("a concatenation that does not fit", split, &[&matrix_of(2, 3)]);
    let stretched = function(&[&x], &[&(&x * x.t())], &[]);
    book.call("an extent that only happens to be 1", stretched, &[&matrix_of(1, 3)]);

    let w = shared("w", Array::zeros(DType::F32, &[2]).unwrap());
    let update = function(&[&y], &[], &[(&w, &w + 0.0 * w.sum(All) + y.index(ix![0..]))]);
    book.call("an update of another shape, seen at the call", update, &[&vector_of(3)]);
    let update = function(&[&y], &[], &[(&w, &y * 2.0)]);
    book.call("an update by an argument of another shape", update, &[&vector_of(3)]);

    let logits = matrix_of(2, 3);
    let pick = || function(&[&x, &labels], &[&x.pick(&labels)], &[]);
    book.call("a label out of range", pick(), &[&logits, &Array::vector(&[0, 3])]);
    book.call("a label far below", pick(), &[&logits, &Array::vector(&[0, -4])]);
    let floats = vector::<f32>("float_labels");
    let nan = function(&[&x, &floats], &[&x.pick(floats.cast(DType::I32))], &[]);
    book.call("a NaN label", nan, &[&logits, &Array::vector(&[0.0f32, f32::NAN])]);
    let softmax = -x.softmax(1).log().pick(&labels).mean(All);
    let trained = grad(&softmax, [&x]).remove(0);
    let both = function(&[&x, &labels], &[&softmax, &trained], &[]);
    book.call("a label out of range in a cost with a gradient", both, &[&logits, &Array::vector(&[0, 7])]);
    let rows = function(&[&x, &labels], &[&x.take(&labels)], &[]);
    book.call("a row out of range", rows, &[&logits, &Array::vector(&[0, 2])]);
    let rows = function(&[&x, &labels], &[&x.inc_rows(&labels, &x)], &[]);
    book.call("a row to be written out of range", rows, &[&logits, &Array::vector(&[0, 2])]);
    let window = || function(&[&x, &i], &[&x.index(ix![&i * 2..(&i + 1) * 2]).sum(All)], &[]);
    book.call("a window past the end", window(), &[&matrix_of(4, 3), &Array::scalar(2i64)]);
    book.call("a window before the beginning", window(), &[&matrix_of(4, 3), &Array::scalar(-3i64)]);
    let at = function(&[&x, &i], &[&x.index(ix![&i])], &[]);
    book.call("a computed index outside", at, &[&matrix_of(4, 3), &Array::scalar(4i64)]);
    let sized = function(&[&i], &[&arange(6).reshape([&i, &i])], &[]);
    book.call("a negative extent", sized, &[&Array::scalar(-1i64)]);
    // More than the 2^47 bytes that a process can address, so that no system promises them.
    let square = || arange(&i).dimshuffle(&[Some(0), None]) * arange(&i);
    let result = function(&[&i], &[&square()], &[]);
    book.call("a result that no memory holds", result, &[&Array::scalar(6_000_000i64)]);
    let factor = square().cast(DType::F64).sin();
    let between = function(&[&i], &[&factor.dot(arange(&i).cast(DType::F64))], &[]);
    book.call("a factor that no memory holds", between, &[&Array::scalar(6_000_000i64)]);
    let computed = function(&[&y], &[&arange(y.sum(All).cast(DType::I64))], &[]);
    book.call("an extent that is computed from floats", computed, &[&vector_of(2)]);

    let (parts, whole) = (y.split(&[2, 3], 0), Array::vector(&[1f32; 6]));
    book.call("a split that leaves something over", function(&[&y], &[&parts[0]], &[]), &[&whole]);
    let taps = Scan::new().carry_taps(&y, &[-2, -1]).steps(3);
    let taps = taps.run(|step| Next::new().carry(&step.carries[0] + &step.carries[1]));
    book.call("more initial values than taps", function(&[&y], &[&taps.last[0]], &[]), &[&whole]);

    let second = vector::<f32>("y");
    let twice = function(&[&y, &second], &[&(&y + &second)], &[]);
    match twice.unwrap().call_named(&[("y", &whole)]) {
        Ok(_) => panic!("called"),
        Err(fault) => book.add("a name that two inputs have", &fault.to_string()),
    }
    let mut whole_of = function(&[&y], &[&y], &[]).unwrap();
    let outputs = whole_of.call(&[&whole]).unwrap();
    book.add("a vector taken as a scalar", &outputs.scalar(0).unwrap_err().to_string());
    book.add("a result that is not there", &outputs.scalar(1).unwrap_err().to_string());

    let mut named = sum().unwrap();
    let mut by_name = |mistake: &str, arguments: &[(&str, &Array)]| match named.call_named(arguments) {
        Ok(_) => panic!("{mistake}: called"),
        Err(CallError::Arguments(faults)) => book.add(mistake, &faults.to_string()),
        Err(error @ (CallError::Device(_) | CallError::Broken(_))) => panic!("{mistake}: {error}"),
    };
    by_name("a name that no input has", &[("x", &logits), ("z", &logits)]);
    by_name("a named argument left out", &[("x", &logits)]);
    by_name("an argument named twice", &[("x", &logits), ("x", &logits), ("y", &vector_of(3))]);
    golden("messages/calls.txt", &book.0);
}

#[test]
fn shared_variables() {
    let mut book = Book::default();
    let w = shared("w", Array::zeros(DType::F32, &[2, 3]).unwrap());
    let mut set = |mistake: &str, value: Array| match w.set_value(value) {
        Ok(()) => panic!("{mistake}: set"),
        Err(fault) => book.add(mistake, &fault.to_string()),
    };
    set("a value of another shape", Array::zeros(DType::F32, &[3, 2]).unwrap());
    set("a value of another rank", Array::scalar(1.0f32));
    set("a value of another element type", Array::zeros(DType::F64, &[2, 3]).unwrap());
    assert_eq!(w.get_value().unwrap(), Array::zeros(DType::F32, &[2, 3]).unwrap());
    golden("messages/shared_variables.txt", &book.0);
}
