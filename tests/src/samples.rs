//! Graphs of one operator: every operator with several choices of its attributes, on every element type it takes, with
//! extents of 0 and 1 among the shapes.
//!
//! [`kinds`] matches every operator without a wildcard, so a new one does not compile until it is named here, and a test
//! fails until the table has it.

use hypatia_graph::op::Class;
use hypatia_graph::text::parse;
use hypatia_graph::{Array, DType, Graph, Op, ScalarFn, TensorType};

use crate::values::{Generator, edges};

/// A graph with arguments for it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it shows.
    pub title: String,
    /// The graph.
    pub graph: Graph,
    /// Its inputs.
    pub inputs: Vec<Array>,
    /// Whether it is of elementwise functions alone, which engines compute to the bit.
    pub elementwise: bool,
}

const FLOATS: &[DType] = &[DType::F32, DType::F64];
const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I32, DType::I64, DType::U8];
const ANY: &[DType] = &[DType::F32, DType::F64, DType::I32, DType::I64, DType::U8, DType::Bool];

/// An operator, its operands (`T` is each of the element types in turn), and the range of the values of operands of an
/// integer type that is written out.
struct Row(&'static str, &'static str, &'static [DType], (i64, i64));

const ROWS: &[Row] = &[
    Row("iota{dims=[5]}", "", &[DType::I64], (0, 1)),
    Row("iota{dims=[0]}", "", &[DType::I64], (0, 1)),
    Row("iota{dims=[?]}", "i64[]", &[DType::I64], (7, 8)),
    Row("random{key=7, dims=[37]}", "i64[]", &[DType::F32], (5, 6)),
    Row("random{key=18446744073709551615, dims=[3, ?]}", "i64[]; i64[]", &[DType::F32], (130, 131)),
    Row("random{key=1, dims=[0]}", "i64[]", &[DType::F32], (-1, 0)),
    Row("extent{axis=1}", "T[2, 5]", ANY, (0, 1)),
    Row("argmax{axis=0}", "T[7]", NUMBERS, (0, 1)),
    Row("argmax{axis=0}", "T[5, 4]", NUMBERS, (0, 1)),
    Row("argmax{axis=1}", "T[5, 40]", NUMBERS, (0, 1)),
    Row("argmax{axis=1}", "T[3, 1, 6]", NUMBERS, (0, 1)),
    Row("argmax{axis=1}", "T[0, 3]", NUMBERS, (0, 1)),
    Row("mean{axes=[0]}", "T[7]", FLOATS, (0, 1)),
    Row("mean{axes=[0]}", "T[1]", FLOATS, (0, 1)),
    Row("mean{axes=[]}", "T[3]", FLOATS, (0, 1)),
    Row("mean{axes=[0, 2]}", "T[3, 40, 2]", FLOATS, (0, 1)),
    Row("mean{axes=[1]}", "T[2, 0]", FLOATS, (0, 1)),
    Row("mean{axes=[0, 1]}", "T[200, 100]", FLOATS, (0, 1)),
    Row("cumsum{axis=0}", "T[7]", NUMBERS, (0, 1)),
    Row("cumsum{axis=0}", "T[1]", NUMBERS, (0, 1)),
    Row("cumsum{axis=1}", "T[0, 3]", NUMBERS, (0, 1)),
    Row("cumsum{axis=0}", "T[0, 3]", NUMBERS, (0, 1)),
    Row("cumsum{axis=1}", "T[3, 40]", NUMBERS, (0, 1)),
    Row("cumsum{axis=0}", "T[37, 2]", NUMBERS, (0, 1)),
    Row("cumsum{axis=1}", "T[2, 701, 3]", NUMBERS, (0, 1)),
    Row("cumsum{axis=7}", "T[1, 2, 1, 1, 2, 1, 1, 33]", NUMBERS, (0, 1)),
    Row("dot", "T[3, 4]; T[4, 5]", NUMBERS, (0, 1)),
    Row("dot", "T[1, 1]; T[1, 1]", NUMBERS, (0, 1)),
    Row("dot", "T[2, 0]; T[0, 3]", NUMBERS, (0, 1)),
    Row("dot", "T[0, 3]; T[3, 2]", NUMBERS, (0, 1)),
    Row("dot", "T[1, 37]; T[37, 1]", NUMBERS, (0, 1)),
    Row("dot", "T[17, 1]; T[1, 33]", NUMBERS, (0, 1)),
    Row("dot", "T[33, 65]; T[65, 18]", NUMBERS, (0, 1)),
    Row("dot", "T[2, 3, 4]; T[2, 4, 5]", NUMBERS, (0, 1)),
    Row("dot", "T[0, 3, 4]; T[0, 4, 5]", NUMBERS, (0, 1)),
    Row("dot", "T[3, 1, 7]; T[3, 7, 1]", NUMBERS, (0, 1)),
    Row(
        "conv{borders=[0:0], strides=[1], spreads=[1], dilations=[1]}",
        "T[2, 3, 9]; T[4, 3, 2]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[2:-1], strides=[2], spreads=[2], dilations=[3]}",
        "T[1, 2, 7]; T[3, 2, 2]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[half], strides=[1], spreads=[1], dilations=[1]}",
        "T[1, 0, 7]; T[3, 0, 3]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[0:0], strides=[1], spreads=[1], dilations=[1]}",
        "T[0, 2, 7]; T[3, 2, 3]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[0:0], strides=[1], spreads=[1], dilations=[1]}",
        "T[2, 2, 2]; T[3, 2, 4]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[0:0, 0:0], strides=[1, 1], spreads=[1, 1], dilations=[1, 1]}",
        "T[2, 3, 12, 12]; T[7, 3, 5, 5]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[full, half], strides=[1, 2], spreads=[1, 1], dilations=[2, 1]}",
        "T[2, 2, 5, 6]; T[3, 2, 2, 3]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[1:2, -1:0], strides=[3, 1], spreads=[2, 1], dilations=[1, 2]}",
        "T[2, 1, 2, 6, 7]; T[2, 2, 2, 2, 3]",
        FLOATS,
        (0, 1),
    ),
    Row(
        "conv{borders=[half, 0:0, full], strides=[1, 2, 1], spreads=[1, 1, 1], dilations=[1, 1, 1]}",
        "T[2, 2, 3, 4, 3]; T[3, 2, 3, 2, 2]",
        FLOATS,
        (0, 1),
    ),
    Row("broadcast{axes=[], dims=[2, 3]}", "T[]", ANY, (0, 1)),
    Row("broadcast{axes=[0], dims=[3, 4]}", "T[3]", ANY, (0, 1)),
    Row("broadcast{axes=[1], dims=[3, 4]}", "T[4]", ANY, (0, 1)),
    Row("broadcast{axes=[0, 2], dims=[2, 3, 40]}", "T[1, 40]", ANY, (0, 1)),
    Row("broadcast{axes=[0, 1], dims=[0, 3]}", "T[1, 3]", ANY, (0, 1)),
    Row("broadcast{axes=[1], dims=[?, 4]}", "T[4]; i64[]", ANY, (3, 4)),
    Row("broadcast{axes=[0], dims=[1, 1]}", "T[1]", ANY, (0, 1)),
    Row("reshape{dims=[6, 2]}", "T[3, 4]", ANY, (0, 1)),
    Row("reshape{dims=[]}", "T[1, 1]", ANY, (0, 1)),
    Row("reshape{dims=[3, 0]}", "T[0, 5]", ANY, (0, 1)),
    Row("reshape{dims=[?, 4]}", "T[3, 8]; i64[]", ANY, (6, 7)),
    Row("permute{axes=[1, 0]}", "T[3, 5]", ANY, (0, 1)),
    Row("permute{axes=[2, 0, 1]}", "T[3, 1, 20]", ANY, (0, 1)),
    Row("permute{axes=[0, 2, 1]}", "T[2, 33, 17]", ANY, (0, 1)),
    Row("permute{axes=[1, 0]}", "T[0, 5]", ANY, (0, 1)),
    Row("slice{ranges=[1:4]}", "T[5]", ANY, (0, 1)),
    Row("slice{ranges=[::-1, :]}", "T[3, 20]", ANY, (0, 1)),
    Row("slice{ranges=[:, ::-2]}", "T[3, 21]", ANY, (0, 1)),
    Row("slice{ranges=[-2:, 10:1:-3]}", "T[4, 12]", ANY, (0, 1)),
    Row("slice{ranges=[3:3]}", "T[5]", ANY, (0, 1)),
    Row("slice{ranges=[4:1]}", "T[5]", ANY, (0, 1)),
    Row("slice{ranges=[?:?]}", "T[9]; i64[]; i64[]", ANY, (2, 6)),
    Row("slice{ranges=[?:, :]}", "T[3, 2]; i64[]", ANY, (-3, 3)),
    Row("window{starts=[1, 0], lengths=[2, 3]}", "T[4, 3]", ANY, (0, 1)),
    Row("window{starts=[?, 0], lengths=[2, 3]}", "T[4, 3]; i64[]", ANY, (-4, -2)),
    Row("window{starts=[?, ?], lengths=[2, 16]}", "T[4, 20]; i64[]; i64[]", ANY, (0, 3)),
    Row("window{starts=[5, 0], lengths=[2, 3], steps=[-1, 4]}", "T[6, 9]", ANY, (0, 1)),
    Row("window{starts=[0, 0], lengths=[0, 3]}", "T[6, 9]", ANY, (0, 1)),
    Row("set_slice{ranges=[1:3, :]}", "T[4, 5]; T[2, 5]", ANY, (0, 1)),
    Row("set_slice{ranges=[::-2]}", "T[7]; T[4]", ANY, (0, 1)),
    Row("set_slice{ranges=[2:2]}", "T[7]; T[0]", ANY, (0, 1)),
    Row("inc_slice{ranges=[1:3, ::-1]}", "T[4, 5]; T[2, 5]", NUMBERS, (0, 1)),
    Row("inc_slice{ranges=[:]}", "T[0]; T[0]", NUMBERS, (0, 1)),
    Row("set_window{starts=[?, 1], lengths=[2, 3]}", "T[4, 5]; T[2, 3]; i64[]", ANY, (0, 3)),
    Row("set_window{starts=[0], lengths=[1]}", "T[1]; T[1]", ANY, (0, 1)),
    Row("inc_window{starts=[?], lengths=[17]}", "T[40]; T[17]; i64[]", NUMBERS, (-30, -20)),
    Row("inc_window{starts=[8, 0], lengths=[3, 2], steps=[-2, 3]}", "T[9, 5]; T[3, 2]", NUMBERS, (0, 1)),
    Row("concat{axis=0}", "T[2, 3]; T[1, 3]; T[4, 3]", ANY, (0, 1)),
    Row("concat{axis=1}", "T[2, 3]; T[2, 0]; T[2, 20]", ANY, (0, 1)),
    Row("concat{axis=0}", "T[3]", ANY, (0, 1)),
    Row("concat{axis=0}", "T[0, 3]; T[0, 3]", ANY, (0, 1)),
    Row("gather{batch=0}", "T[5]; i64[7]", ANY, (-5, 5)),
    Row("gather{batch=0}", "T[5, 3, 2]; i32[4]", ANY, (-5, 5)),
    Row("gather{batch=0}", "T[5, 40]; u8[3]", ANY, (0, 5)),
    Row("gather{batch=1}", "T[6, 4]; i64[6, 1]", ANY, (-4, 4)),
    Row("gather{batch=1}", "T[2, 4, 3]; i32[2, 5]", ANY, (-4, 4)),
    Row("gather{batch=0}", "T[5, 3]; i64[0]", ANY, (0, 5)),
    Row("gather{batch=0}", "T[0, 3]; i64[0]", ANY, (0, 1)),
    Row("scatter{batch=0}", "T[5, 3]; i64[4]; T[4, 3]", ANY, (-5, 5)),
    Row("scatter{batch=1}", "T[3, 4]; i32[3, 2]; T[3, 2]", ANY, (-4, 4)),
    Row("scatter{batch=0}", "T[5, 3]; i64[0]; T[0, 3]", ANY, (0, 5)),
    Row("scatter_add{batch=0}", "T[5, 3]; i64[9]; T[9, 3]", NUMBERS, (-5, 5)),
    Row("scatter_add{batch=0}", "T[3]; u8[40]; T[40]", NUMBERS, (0, 3)),
    Row("scatter_add{batch=1}", "T[3, 4]; i64[3, 2]; T[3, 2]", NUMBERS, (-4, 4)),
    Row("stop_gradient", "T[3]", ANY, (0, 1)),
    Row("stop_gradient", "T[0]", ANY, (0, 1)),
];

/// Shapes and axes of reductions.
const REDUCED: &[(&str, &str)] = &[
    ("[0]", "[7]"),
    ("[0]", "[1]"),
    ("[0]", "[0]"),
    ("[]", "[3]"),
    ("[0]", "[1000]"),
    ("[0]", "[5, 3]"),
    ("[1]", "[5, 3]"),
    ("[0, 1]", "[5, 3]"),
    ("[0]", "[0, 3]"),
    ("[1]", "[0, 3]"),
    ("[0]", "[200, 33]"),
    ("[1]", "[33, 200]"),
    ("[1]", "[3, 17]"),
    ("[1]", "[3, 16]"),
    ("[0, 2]", "[4, 5, 6]"),
    ("[1]", "[4, 5, 6]"),
    ("[0, 1, 2]", "[4, 5, 6]"),
    ("[1, 3]", "[2, 3, 1, 5]"),
];

/// The operators that samples must cover, each with its attributes left out.
pub fn kinds() -> Vec<&'static str> {
    let mut names: Vec<&str> = ScalarFn::ALL.iter().map(|f| f.name()).collect();
    names.extend(hypatia_graph::Fold::ALL.iter().map(|f| f.name()));
    names.extend([
        "iota",
        "extent",
        "cast",
        "argmax",
        "cumsum",
        "mean",
        "dot",
        "conv",
        "broadcast",
        "reshape",
        "permute",
        "slice",
    ]);
    names.extend(["set_slice", "inc_slice", "window", "set_window", "inc_window", "concat", "gather"]);
    names.extend(["scatter", "scatter_add", "stop_gradient", "random"]);
    names
}

/// Whether the samples are to show an operator; a new one must be added to [`kinds`].
pub fn is_sampled(op: &Op) -> bool {
    match op.class() {
        // Beginnings, which every sample has; scans and gradients, which have tests of their own.
        Class::Leaf(_) | Class::Literal(_) | Class::Scan(_) | Class::Gradient(_) => false,
        Class::Index
        | Class::Map(_)
        | Class::Cast(_)
        | Class::View(_)
        | Class::Assembly
        | Class::Indexed(_)
        | Class::Fold(_)
        | Class::Product
        | Class::Convolution(_)
        | Class::Random(_) => true,
    }
}

/// A sample of one operator on inputs of these types.
fn sample(op: &str, operands: &[String], range: (i64, i64), seed: u64, fixed: &[bool]) -> Sample {
    let mut text = String::new();
    for (position, ty) in operands.iter().enumerate() {
        text += &format!("input %x{position}: {ty}\n");
    }
    let names: Vec<String> = (0..operands.len()).map(|position| format!("%x{position}")).collect();
    text += &format!("%0 = {op}({})\noutput %0\n", names.join(", "));
    let graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut generator = Generator(seed);
    let ty = |id| graph.leaf(id).map_or(TensorType::scalar(DType::F32), |leaf| leaf.ty.clone());
    let inputs = graph.inputs.iter().enumerate().map(|(position, id)| {
        let ty = ty(*id);
        let shape = ty.extents().unwrap_or_default();
        // Few different integers, so that ties and zeros occur.
        let (low, high) = if fixed[position] { range } else { (-3, 4) };
        generator.array(ty.dtype, &shape, low as f64, high as f64)
    });
    let inputs = inputs.collect();
    Sample { title: format!("{op} of {}", operands.join(", ")), graph, inputs, elementwise: false }
}

/// Every operator but the elementwise functions.
pub fn operators() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (seed, Row(op, operands, dtypes, range)) in ROWS.iter().enumerate() {
        let pattern: Vec<&str> = operands.split("; ").filter(|s| !s.is_empty()).collect();
        let fixed: Vec<bool> = pattern.iter().map(|ty| !ty.starts_with('T')).collect();
        for dtype in *dtypes {
            let types: Vec<String> = pattern.iter().map(|ty| ty.replace('T', dtype.name())).collect();
            samples.push(sample(op, &types, *range, seed as u64, &fixed));
        }
    }
    for (seed, (axes, shape)) in REDUCED.iter().enumerate() {
        for fold in hypatia_graph::Fold::ALL {
            for dtype in ANY.iter().filter(|dtype| fold.takes(**dtype)) {
                let op = format!("{}{{axes={axes}}}", fold.name());
                samples.push(sample(&op, &[format!("{dtype}{shape}")], (0, 1), seed as u64, &[false]));
            }
        }
    }
    // A NaN among numbers, which maxima and positions must see wherever it stands.
    for op in [
        "max{axes=[1]}",
        "min{axes=[1]}",
        "argmax{axis=1}",
        "max{axes=[0]}",
        "min{axes=[0]}",
        "argmax{axis=0}",
    ] {
        for dtype in FLOATS {
            for position in [0, 17, 36, 100] {
                let mut nan = sample(op, &[format!("{dtype}[4, 37]")], (0, 1), position as u64, &[false]);
                let shown = hypatia_graph::Literal::from_f64(f64::NAN, *dtype);
                nan.inputs[0].set(position, shown);
                nan.title += &format!(" with a NaN at {position}");
                samples.push(nan);
            }
        }
    }
    samples
}

/// Conversions between all types, at the edges of each.
pub fn casts() -> Vec<Sample> {
    let mut samples = Vec::new();
    for from in ANY {
        for to in ANY {
            let values = edges(*from);
            let ty = format!("{from}[{}]", values.len());
            let mut cast = sample(&format!("cast{{dtype={to}}}"), &[ty], (0, 1), 0, &[false]);
            for (index, value) in values.iter().enumerate() {
                cast.inputs[0].set(index, *value);
            }
            cast.elementwise = true;
            samples.push(cast);
        }
    }
    samples
}

/// The element types of the operands of a function, one list for each choice.
pub fn signatures(f: ScalarFn) -> Vec<Vec<DType>> {
    let signature = |dtype: &DType| {
        let mut dtypes = vec![*dtype; f.arity()];
        if f == ScalarFn::Select {
            dtypes[0] = DType::Bool;
        }
        f.result_dtype(&dtypes).map(|_| dtypes)
    };
    ANY.iter().filter_map(signature).collect()
}

/// Every elementwise function alone, on every element type it takes: all pairs of edges of the type.
pub fn functions() -> Vec<Sample> {
    let mut samples = Vec::new();
    for f in ScalarFn::ALL {
        for dtypes in signatures(*f) {
            let values = edges(dtypes[dtypes.len() - 1]);
            let n = values.len();
            let count = if f.arity() == 1 { n } else { n * n };
            let types: Vec<String> = dtypes.iter().map(|dtype| format!("{dtype}[{count}]")).collect();
            let mut function = sample(f.name(), &types, (0, 1), 1, &vec![false; dtypes.len()]);
            let values_from = usize::from(*f == ScalarFn::Select);
            for index in 0..count {
                for (operand, place) in (values_from..dtypes.len()).zip([index % n, index / n % n]) {
                    function.inputs[operand].set(index, values[place]);
                }
            }
            function.elementwise = true;
            samples.push(function);
        }
    }
    samples
}

/// All elementwise functions of a type at once, at every kind of shape: vectors shorter than a register, of odd length,
/// and none at all.
pub fn function_shapes() -> Vec<Sample> {
    let mut samples = Vec::new();
    for shape in ["[]", "[1]", "[0]", "[3, 0]", "[3]", "[15]", "[16]", "[37]", "[2, 1, 5]", "[5, 33]"] {
        for dtype in ANY {
            let mut text =
                format!("input %c: bool{shape}\ninput %x: {dtype}{shape}\ninput %y: {dtype}{shape}\n");
            let mut outputs = String::new();
            for f in ScalarFn::ALL.iter().filter(|f| signatures(**f).iter().any(|s| s[s.len() - 1] == *dtype))
            {
                let operands = ["%x", "%c, %x", "%x, %y", "%c, %x, %y"];
                let operands = match (f.arity(), *f) {
                    (1, _) => operands[0],
                    (_, ScalarFn::Select) => operands[3],
                    _ => operands[2],
                };
                text += &format!("%r_{f} = {f}({operands})\n");
                outputs += &format!("output %r_{f}\n");
            }
            let graph = parse(&(text.clone() + &outputs)).unwrap_or_else(|e| panic!("{e}\n{text}"));
            let mut generator = Generator(9);
            let inputs = graph.inputs.iter().map(|id| {
                let ty = graph.leaf(*id).map_or(TensorType::scalar(DType::F32), |leaf| leaf.ty.clone());
                generator.array(ty.dtype, &ty.extents().unwrap_or_default(), -4.0, 5.0)
            });
            let inputs = inputs.collect();
            samples.push(Sample {
                title: format!("all functions of {dtype}{shape}"),
                graph,
                inputs,
                elementwise: true,
            });
        }
    }
    samples
}
