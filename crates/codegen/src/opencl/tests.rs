//! Every instruction, store, type and product through a device, against [`crate::kernel::reference`], to the bit where
//! the kernel form defines bits. Tests of a device say so and pass where there is none.

use std::sync::Arc;

use hypatia_graph::array::Extents;
use hypatia_graph::collect::{Request, collect};
use hypatia_graph::compose::All;
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::grad;
use hypatia_graph::op::Write;
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::tensor::{scalar, shared};
use hypatia_graph::{Array, DType, Fold, Literal, ScalarFn, Shared, Tensor, ix};
use smallvec::{SmallVec, smallvec};

use super::*;
use crate::kernel::reference::{evaluate, evaluate_kernel};
use crate::kernel::{
    Address, Affine, Buffer, BufferId, Instruction, Kernel, LoopKernel, Matrix, Param, ProductKernel,
    RandomKernel, RuntimeStart, Scale, Step, Store, StoreKind, Value,
};

fn has_device() -> bool {
    match devices() {
        Ok(_) => true,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
    }
}

/// A loop kernel while it is put together.
struct Sketch(LoopKernel);

impl Sketch {
    fn new(extents: &[usize], reduced: &[bool]) -> Sketch {
        Sketch(LoopKernel { extents: extents.into(), reduced: reduced.into(), ..LoopKernel::default() })
    }

    fn param(&mut self, dtype: DType, len: usize, written: bool) -> u16 {
        self.0.params.push(Param { dtype, len, written });
        self.0.params.len() as u16 - 1
    }

    fn push(&mut self, instruction: Instruction, dtype: DType) -> Value {
        self.0.body.push(instruction);
        self.0.types.push(dtype);
        Value(self.0.body.len() as u32 - 1)
    }

    fn load(&mut self, param: u16, strides: &[i64]) -> Value {
        let dtype = self.0.params[usize::from(param)].dtype;
        self.push(Instruction::Load(at(param, 0, strides)), dtype)
    }

    fn map(&mut self, function: ScalarFn, operands: &[Value]) -> Value {
        let dtypes: Vec<DType> = operands.iter().map(|v| self.0.types[v.index()]).collect();
        let dtype = function.result_dtype(&dtypes).unwrap();
        self.push(Instruction::Map(function, operands.into()), dtype)
    }

    fn store(&mut self, param: u16, strides: &[i64], value: Value, kind: StoreKind) {
        self.0.stores.push(Store { address: at(param, 0, strides), value, kind });
    }
}

fn at(param: u16, offset: i64, strides: &[i64]) -> Address {
    Address { param, position: Affine { offset, strides: strides.into(), starts: smallvec![] } }
}

/// A program of one step for each kernel. Parameters that are written are shared variables of their own, the others
/// inputs of their own, both numbered in order. Unlike a program that was verified it may check indices after the commit:
/// verdicts on these are not asked for here.
fn program(kernels: Vec<Kernel>, variables: &[Shared]) -> Program {
    let mut program =
        Program { shared: variables.iter().map(|s| s.leaf().id).collect(), ..Program::default() };
    let (mut inputs, mut written) = (0, 0);
    for kernel in kernels {
        let mut arguments = Vec::new();
        for param in kernel.params() {
            let count = if param.written { &mut written } else { &mut inputs };
            let place = if param.written { Place::Shared(*count) } else { Place::Input(*count) };
            *count += 1;
            arguments.push(BufferId(program.buffers.len() as u32));
            program.buffers.push(Buffer { dtype: param.dtype, shape: smallvec![param.len], place });
        }
        program.steps.push(Step { kernel, arguments, label: "test".to_string(), site: None });
    }
    program
}

/// Runs the kernels with a buffer for each parameter on the reference and on the device, products in both forms; compares
/// and returns what was written.
fn compare(kernels: Vec<Kernel>, buffers: Vec<Array>, same: impl Fn(Literal, Literal) -> bool) -> Vec<Array> {
    let params: Vec<Param> = kernels.iter().flat_map(|k| k.params().to_vec()).collect();
    assert_eq!(params.len(), buffers.len());
    let of = |written: bool| -> Vec<Array> {
        params.iter().zip(&buffers).filter(|(p, _)| p.written == written).map(|(_, b)| b.clone()).collect()
    };
    let inputs = of(false);
    let inputs: Vec<&Array> = inputs.iter().collect();
    let mut expected = of(true);
    let variables: Vec<Shared> = expected.iter().map(|value| shared("w", value.clone())).collect();
    let program = program(kernels, &variables);
    evaluate(&program, &inputs, &mut expected).unwrap();
    if !has_device() {
        return expected;
    }
    let cells: Vec<&SharedCell> = variables.iter().map(|s| &**s.cell()).collect();
    let products = program.steps.iter().any(|step| matches!(step.kernel, Kernel::Product(_)));
    let forms = if products { vec![Form::Vectors, Form::Tiles] } else { vec![Form::Tiles] };
    for form in forms {
        for (variable, value) in variables.iter().zip(of(true)) {
            variable.set_value(value).unwrap();
        }
        let device = Device::open(0).unwrap();
        let mut compiled = OpenClProgram::prepare(form, Arc::new(program.clone()), device).unwrap();
        compiled.run(&inputs, &cells, &mut []).unwrap();
        for (n, (variable, expected)) in variables.iter().zip(&expected).enumerate() {
            let found = variable.get_value().unwrap();
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()));
            for index in 0..found.len() {
                let (e, f) = (expected.get(index), found.get(index));
                assert!(same(e, f), "{form:?}: result {n}[{index}]: expected {e:?}, found {f:?}\n{program}");
            }
        }
    }
    expected
}

/// Equal bits, or both NaN (whose bits no engine promises).
fn identical(x: Literal, y: Literal) -> bool {
    x == y || (x.to_f64().is_nan() && y.to_f64().is_nan())
}

/// Within some units in the last place, for float64 functions that are the device's own.
fn close(x: Literal, y: Literal) -> bool {
    let (a, b) = (x.to_f64(), y.to_f64());
    identical(x, y) || (a - b).abs() <= 1e-13 * a.abs().max(1e-280)
}

/// Reproducible bits (Steele, Lea and Flood 2014, splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const EDGES: [f64; 28] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    -7.0,
    255.0,
    256.5,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    1e-45,
    -1e-40,
    1.17e-38,
    88.7,
    -87.4,
    -103.9,
    3.4e38,
    2_147_483_648.0,
    -2_147_483_649.0,
    9.3e18,
    -9.3e18,
    1e300,
];

/// Edge values, values of moderate size, and values of any bits.
fn sample(dtype: DType, count: usize, seed: u64) -> Array {
    let mut state = seed;
    let mut array = Array::zeros(dtype, &[count]).unwrap();
    for index in 0..count {
        let bits = random(&mut state);
        let moderate = (bits >> 11) as f64 / (1u64 << 53) as f64 * 20.0 - 10.0;
        let value = match (dtype, (index + seed as usize) % 3) {
            (_, 0) => Literal::from_f64(EDGES[(bits % EDGES.len() as u64) as usize], dtype),
            (DType::F32, 1) => Literal::F32(bits as u32),
            (DType::F64, 1) => Literal::F64(bits),
            (DType::I64, 1) => Literal::I64(bits as i64),
            (DType::I32, 1) => Literal::I32(bits as i32),
            _ => Literal::from_f64(moderate, dtype),
        };
        array.set(index, value);
    }
    array
}

/// Numbers whose sums and products neither overflow nor are exact.
fn numbers(dtype: DType, count: usize, seed: u64) -> Array {
    let mut state = seed;
    let mut array = Array::zeros(dtype, &[count]).unwrap();
    for index in 0..count {
        let unit = (random(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
        let value = if dtype.is_float() { unit * 2.0 - 1.0 } else { (unit * 200.0 - 100.0).abs().floor() };
        array.set(index, Literal::from_f64(value, dtype));
    }
    array
}

/// Every function on a type, some to a kernel, with a sample for each operand.
fn all_functions(dtype: DType, count: usize) -> (Vec<Kernel>, Vec<Array>) {
    let dtypes = |function: ScalarFn| {
        let mut dtypes = vec![dtype; function.arity()];
        if function == ScalarFn::Select {
            dtypes[0] = DType::Bool;
        }
        dtypes
    };
    let typed = ScalarFn::ALL.iter().filter_map(|&f| Some((f, f.result_dtype(&dtypes(f))?)));
    let typed: Vec<(ScalarFn, DType)> = typed.collect();
    let (mut kernels, mut buffers) = (Vec::new(), Vec::new());
    for some in typed.chunks(9) {
        let mut sketch = Sketch::new(&[count], &[false]);
        let mut operands = SmallVec::<[Value; 3]>::new();
        for (seed, dtype) in [(1, DType::Bool), (2, dtype), (3, dtype)] {
            let param = sketch.param(dtype, count, false);
            operands.push(sketch.load(param, &[1]));
            buffers.push(sample(dtype, count, seed));
        }
        for (function, result) in some {
            let first = usize::from(*function != ScalarFn::Select);
            let value = sketch.map(*function, &operands[first..first + function.arity()]);
            let out = sketch.param(*result, count, true);
            buffers.push(Array::zeros(*result, &[count]).unwrap());
            sketch.store(out, &[1], value, StoreKind::Plain);
        }
        kernels.push(Kernel::Loop(sketch.0));
    }
    (kernels, buffers)
}

#[test]
fn float32_functions_have_the_bits_of_their_definition() {
    let (kernels, buffers) = all_functions(DType::F32, 6000);
    compare(kernels, buffers, identical);
}

#[test]
fn integer_functions_wrap_and_divide_as_defined() {
    for dtype in [DType::Bool, DType::U8, DType::I32, DType::I64] {
        let (kernels, buffers) = all_functions(dtype, 3000);
        compare(kernels, buffers, identical);
    }
}

#[test]
fn float64_functions_are_close_to_their_definition() {
    let (kernels, buffers) = all_functions(DType::F64, 3000);
    compare(kernels, buffers, close);
}

#[test]
fn casts_between_all_types() {
    let (mut kernels, mut buffers) = (Vec::new(), Vec::new());
    for from in DType::ALL {
        let mut sketch = Sketch::new(&[900], &[false]);
        let x = sketch.param(from, 900, false);
        let value = sketch.load(x, &[1]);
        buffers.push(sample(from, 900, 5));
        for to in DType::ALL {
            let out = sketch.param(to, 900, true);
            let cast = sketch.push(Instruction::Cast(to, value), to);
            sketch.store(out, &[1], cast, StoreKind::Plain);
            buffers.push(Array::zeros(to, &[900]).unwrap());
        }
        kernels.push(Kernel::Loop(sketch.0));
    }
    compare(kernels, buffers, identical);
}

#[test]
fn literals_of_every_type() {
    let values = [
        Literal::Bool(true),
        Literal::U8(255),
        Literal::I32(i32::MIN),
        Literal::I32(-7),
        Literal::I64(i64::MIN),
        Literal::I64(i64::MAX),
        Literal::F32(1.1f32.to_bits()),
        Literal::F32((-0.0f32).to_bits()),
        Literal::F32(1),
        Literal::F32(f32::MAX.to_bits()),
        Literal::F32(f32::NEG_INFINITY.to_bits()),
        Literal::F32(f32::NAN.to_bits()),
        Literal::F64(0.1f64.to_bits()),
        Literal::F64((-1e-310f64).to_bits()),
        Literal::F64(f64::INFINITY.to_bits()),
        Literal::F64((-0.0f64).to_bits()),
    ];
    let mut sketch = Sketch::new(&[], &[]);
    for value in values {
        let out = sketch.param(value.dtype(), 1, true);
        let element = sketch.push(Instruction::Literal(value), value.dtype());
        sketch.store(out, &[], element, StoreKind::Plain);
    }
    let buffers = values.iter().map(|value| Array::zeros(value.dtype(), &[1]).unwrap()).collect();
    let results = compare(vec![Kernel::Loop(sketch.0)], buffers, identical);
    assert!(results.iter().zip(values).all(|(result, value)| identical(result.get(0), value)));
}

/// Folds over an axis set of `[3, 5, 37]`; the innermost axis is long enough for two rounds of lanes.
#[test]
fn folds_keep_their_order() {
    let (mut kernels, mut buffers) = (Vec::new(), Vec::new());
    for reduced in [
        [false, false, true],
        [false, true, true],
        [true, true, true],
        [true, false, false],
        [true, true, false],
        [false, true, false],
    ] {
        let extents = [3, 5, 37];
        let mut sketch = Sketch::new(&extents, &reduced);
        let mut strides = [0i64; 3];
        let mut len = 1;
        for axis in (0..3).rev().filter(|axis| !reduced[*axis]) {
            strides[axis] = len;
            len *= extents[axis] as i64;
        }
        for dtype in DType::ALL {
            let x = sketch.param(dtype, 3 * 5 * 37, false);
            let value = sketch.load(x, &[5 * 37, 37, 1]);
            let mut values = numbers(dtype, 3 * 5 * 37, 1);
            if dtype == DType::F64 {
                values.set(100, Literal::from_f64(f64::NAN, dtype));
            }
            buffers.push(values);
            for fold in Fold::ALL.into_iter().filter(|fold| fold.takes(dtype)) {
                let out = sketch.param(dtype, len as usize, true);
                sketch.store(out, &strides, value, StoreKind::Fold(fold));
                buffers.push(Array::zeros(dtype, &[len as usize]).unwrap());
            }
        }
        kernels.push(Kernel::Loop(sketch.0));
    }
    compare(kernels, buffers, identical);
}

#[test]
fn folds_of_nothing_and_over_large_axes() {
    let (mut kernels, mut buffers) = (Vec::new(), Vec::new());
    for (extents, reduced, len) in
        [([4, 0], [false, true], 4), ([0, 4], [true, false], 4), ([2, 40_001], [false, true], 2)]
    {
        let count: usize = extents.iter().product();
        let mut sketch = Sketch::new(&extents, &reduced);
        let x = sketch.param(DType::F32, count, false);
        let value = sketch.load(x, &[extents[1] as i64, 1]);
        let strides = if reduced[1] { [1, 0] } else { [0, 1] };
        buffers.push(numbers(DType::F32, count, 3));
        for fold in [Fold::Sum, Fold::Prod, Fold::Max, Fold::Min] {
            let out = sketch.param(DType::F32, len, true);
            sketch.store(out, &strides, value, StoreKind::Fold(fold));
            buffers.push(Array::zeros(DType::F32, &[len]).unwrap());
        }
        let out = sketch.param(DType::I64, len, true);
        sketch.store(out, &strides, value, StoreKind::ArgMax);
        buffers.push(Array::zeros(DType::I64, &[len]).unwrap());
        kernels.push(Kernel::Loop(sketch.0));
    }
    let results = compare(kernels, buffers, identical);
    assert_eq!(results[0].to_vec::<f32>().unwrap(), [0.0; 4]);
    assert_eq!(results[2].to_vec::<f32>().unwrap(), [f32::NEG_INFINITY; 4]);
}

#[test]
fn the_first_largest_and_the_first_nan_win() {
    let nan = f32::NAN;
    let rows: [[f32; 20]; 4] = [
        [1.0, 3.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0],
        [9.0, 3.0, 2.0, nan, 0.0, 0.0, nan, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, nan, 9.0],
        [f32::NEG_INFINITY; 20],
        [
            -1.0, -2.0, -3.0, -0.5, -4.0, -5.0, -6.0, -7.0, -8.0, -9.0, -9.5, -1.0, -1.0, -1.0, -1.0, -1.0,
            -1.0, -0.25, -1.0, -0.25,
        ],
    ];
    let along_rows = {
        let mut sketch = Sketch::new(&[4, 20], &[false, true]);
        let (x, out) = (sketch.param(DType::F32, 80, false), sketch.param(DType::I64, 4, true));
        let value = sketch.load(x, &[20, 1]);
        sketch.store(out, &[1, 0], value, StoreKind::ArgMax);
        Kernel::Loop(sketch.0)
    };
    let along_columns = {
        let mut sketch = Sketch::new(&[4, 20], &[true, false]);
        let (x, out) = (sketch.param(DType::F32, 80, false), sketch.param(DType::I64, 20, true));
        let value = sketch.load(x, &[20, 1]);
        sketch.store(out, &[0, 1], value, StoreKind::ArgMax);
        Kernel::Loop(sketch.0)
    };
    let x = Array::new(&[80], &rows.concat()).unwrap();
    let buffers =
        vec![x.clone(), Array::zeros(DType::I64, &[4]).unwrap(), x, Array::zeros(DType::I64, &[20]).unwrap()];
    let results = compare(vec![along_rows, along_columns], buffers, identical);
    assert_eq!(results[0].to_vec::<i64>().unwrap(), [1, 3, 0, 17]);
    assert_eq!(results[1].to_vec::<i64>().unwrap()[..5], [1, 0, 0, 1, 0]);
}

/// A value computed in every iteration is stored beside the folds of it, and in place.
#[test]
fn a_fold_beside_plain_stores_in_place() {
    for reduced in [[false, true], [true, false]] {
        let mut sketch = Sketch::new(&[6, 19], &reduced);
        let (x, out) = (sketch.param(DType::F32, 114, true), sketch.param(DType::F32, 19, true));
        let value = sketch.load(x, &[19, 1]);
        let value = sketch.map(ScalarFn::Exp, &[value]);
        sketch.store(x, &[19, 1], value, StoreKind::Plain);
        let strides = if reduced[1] { [1, 0] } else { [0, 1] };
        sketch.store(out, &strides, value, StoreKind::Fold(Fold::Sum));
        let buffers = vec![numbers(DType::F32, 114, 8), Array::zeros(DType::F32, &[19]).unwrap()];
        compare(vec![Kernel::Loop(sketch.0)], buffers, identical);
    }
}

/// `out[i, j] = table[index[i], j]`, a reversed copy and a position.
fn gather(rows: usize, indices: usize) -> Kernel {
    let mut sketch = Sketch::new(&[indices, 3], &[false, false]);
    let index = sketch.param(DType::I32, indices, false);
    let table = sketch.param(DType::F32, rows * 3, false);
    let out = sketch.param(DType::F32, indices * 3, true);
    let places = sketch.param(DType::I64, indices * 3, true);
    let at_row = sketch.load(index, &[1, 0]);
    let row = sketch.push(Instruction::Index { index: at_row, extent: rows, axis: 0 }, DType::I64);
    let element = Instruction::LoadAt { address: at(table, 0, &[0, 1]), index: row, stride: 3 };
    let element = sketch.push(element, DType::F32);
    let end = indices as i64 * 3 - 1;
    sketch.0.stores.push(Store { address: at(out, end, &[-3, -1]), value: element, kind: StoreKind::Plain });
    let position = Affine { offset: -5, strides: smallvec![100, -1], starts: smallvec![] };
    let position = sketch.push(Instruction::Position(position), DType::I64);
    sketch.store(places, &[3, 1], position, StoreKind::Plain);
    Kernel::Loop(sketch.0)
}

#[test]
fn gathers_count_negative_indices_from_the_end() {
    let table: Vec<f32> = (0..12).map(|x| x as f32).collect();
    let buffers = vec![
        Array::vector(&[1i32, -1, 0]),
        Array::vector(&table),
        Array::zeros(DType::F32, &[9]).unwrap(),
        Array::zeros(DType::I64, &[9]).unwrap(),
    ];
    let results = compare(vec![gather(4, 3)], buffers, identical);
    let reversed = [2.0, 1.0, 0.0, 11.0, 10.0, 9.0, 5.0, 4.0, 3.0];
    assert_eq!(results[0].to_vec::<f32>().unwrap(), reversed);
    assert_eq!(results[1].to_vec::<i64>().unwrap(), [-5, -6, -7, 95, 94, 93, 195, 194, 193]);
}

/// Copies a window of 4 elements from a start.
fn window(len: usize) -> Kernel {
    let mut sketch = Sketch::new(&[4], &[false]);
    let x = sketch.param(DType::F32, len, false);
    let start = sketch.param(DType::I64, 1, false);
    let out = sketch.param(DType::F32, 4, true);
    sketch.0.starts.push(RuntimeStart {
        param: start,
        extent: len,
        limit: len - 4,
        axis: 0,
        is_range: false,
    });
    let position = Affine { offset: 0, strides: smallvec![1], starts: smallvec![(0, 1)] };
    let value = sketch.push(Instruction::Load(Address { param: x, position }), DType::F32);
    sketch.store(out, &[1], value, StoreKind::Plain);
    Kernel::Loop(sketch.0)
}

#[test]
fn windows_begin_at_run_time_starts() {
    let x: Vec<f32> = (0..10).map(|x| x as f32).collect();
    for (start, first) in [(0i64, 0.0f32), (6, 6.0), (-4, 6.0), (-10, 0.0)] {
        let buffers =
            vec![Array::vector(&x), Array::vector(&[start]), Array::zeros(DType::F32, &[4]).unwrap()];
        let results = compare(vec![window(10)], buffers, identical);
        assert_eq!(results[0].get(0), Literal::F32(first.to_bits()));
    }
}

#[test]
fn an_index_out_of_range_changes_nothing() {
    let cases: [(Kernel, Vec<Array>, OutOfRange); 3] = [
        (
            gather(4, 3),
            vec![Array::vector(&[1i32, 4, 0]), Array::zeros(DType::F32, &[12]).unwrap()],
            OutOfRange { step: 0, value: 4, check: 1 },
        ),
        (
            window(10),
            vec![Array::zeros(DType::F32, &[10]).unwrap(), Array::vector(&[7i64])],
            OutOfRange { step: 0, value: 7, check: 0 },
        ),
        (
            window(10),
            vec![Array::zeros(DType::F32, &[10]).unwrap(), Array::vector(&[i64::MIN])],
            OutOfRange { step: 0, value: i64::MIN, check: 0 },
        ),
    ];
    for (kernel, inputs, expected) in cases {
        // The kernel writes outputs; a copy into a shared variable follows the commit.
        let kernel_outputs: Vec<Param> = kernel.params().iter().filter(|p| p.written).cloned().collect();
        let variable = shared("w", Array::vector(&[5.0f32]));
        let mut copy = Sketch::new(&[1], &[false]);
        let out = copy.param(DType::F32, 1, true);
        let nine = copy.push(Instruction::Literal(Literal::F32(9f32.to_bits())), DType::F32);
        copy.store(out, &[1], nine, StoreKind::Plain);
        let mut program = program(vec![kernel], std::slice::from_ref(&variable));
        let mut outputs = Vec::new();
        for buffer in &mut program.buffers {
            if let Place::Shared(n) = buffer.place {
                buffer.place = Place::Output(n);
                outputs.push(Array::zeros(buffer.dtype, &buffer.shape).unwrap());
            }
        }
        program.outputs = kernel_outputs.iter().map(|p| (p.dtype, smallvec![p.len])).collect();
        let id = BufferId(program.buffers.len() as u32);
        program.buffers.push(Buffer { dtype: DType::F32, shape: smallvec![1], place: Place::Shared(0) });
        let step =
            Step { kernel: Kernel::Loop(copy.0), arguments: vec![id], label: String::new(), site: None };
        program.steps.push(step);
        program.commit = 1;
        let inputs: Vec<&Array> = inputs.iter().collect();
        let mut values = [Array::vector(&[5.0f32])];
        assert_eq!(evaluate(&program, &inputs, &mut values), Err(RunError::OutOfRange(expected)));
        assert_eq!(values[0], Array::vector(&[5.0f32]));
        if has_device() {
            let mut compiled = OpenClProgram::new(Arc::new(program), 0).unwrap();
            let result = compiled.run(&inputs, &[variable.cell()], &mut outputs);
            assert_eq!(result, Err(RunError::OutOfRange(expected)));
            assert_eq!(variable.get_value().unwrap(), Array::vector(&[5.0f32]));
            assert_eq!(variable.cell().lock().version, 0);
        }
    }
}

/// `out[index[i], j] (+)= x[i, j]`, and the transposed walk, whose rows are not independent.
fn scatter(dtype: DType, transposed: bool) -> Kernel {
    let (extents, x_strides, i_strides, o_strides, stride) =
        if transposed { ([4, 5], [1, 4], [0, 1], [3, 0], 1) } else { ([5, 4], [4, 1], [1, 0], [0, 1], 4) };
    let mut sketch = Sketch::new(&extents, &[false, false]);
    let index = sketch.param(DType::I64, 5, false);
    let x = sketch.param(dtype, 20, false);
    let row = sketch.load(index, &i_strides);
    let row = sketch.push(Instruction::Index { index: row, extent: 3, axis: 0 }, DType::I64);
    let value = sketch.load(x, &x_strides);
    for write in [Write::Set, Write::Add] {
        let out = sketch.param(dtype, 12, true);
        sketch.store(out, &o_strides, value, StoreKind::At { index: row, stride, write });
    }
    Kernel::Loop(sketch.0)
}

#[test]
fn writes_at_computed_positions_keep_their_order() {
    let (mut kernels, mut buffers) = (Vec::new(), Vec::new());
    for dtype in DType::ALL {
        for transposed in [false, true] {
            kernels.push(scatter(dtype, transposed));
            buffers.push(Array::vector(&[2i64, 0, 2, -1, 0]));
            buffers.push(numbers(dtype, 20, 7));
            buffers.extend([numbers(dtype, 12, 9), numbers(dtype, 12, 9)]);
        }
    }
    compare(kernels, buffers, identical);
    // Two axes that meet in one element: everything in one work item.
    let mut sketch = Sketch::new(&[7, 3], &[false, false]);
    let (x, out) = (sketch.param(DType::F32, 21, false), sketch.param(DType::F32, 9, true));
    let zero = sketch.push(Instruction::Literal(Literal::I64(0)), DType::I64);
    let zero = sketch.push(Instruction::Index { index: zero, extent: 1, axis: 0 }, DType::I64);
    let value = sketch.load(x, &[3, 1]);
    sketch.store(out, &[1, 1], value, StoreKind::At { index: zero, stride: 1, write: Write::Add });
    let buffers = vec![numbers(DType::F32, 21, 2), Array::zeros(DType::F32, &[9]).unwrap()];
    compare(vec![Kernel::Loop(sketch.0)], buffers, identical);
}

/// A histogram beside a sum: two kernels in the text.
#[test]
fn a_fold_beside_writes_at_computed_positions() {
    let mut sketch = Sketch::new(&[50], &[true]);
    let x = sketch.param(DType::I32, 50, false);
    let (counts, total) = (sketch.param(DType::I32, 100, true), sketch.param(DType::I32, 1, true));
    let value = sketch.load(x, &[1]);
    let bin = sketch.push(Instruction::Index { index: value, extent: 100, axis: 0 }, DType::I64);
    let one = sketch.push(Instruction::Literal(Literal::I32(1)), DType::I32);
    sketch.store(counts, &[0], one, StoreKind::At { index: bin, stride: 1, write: Write::Add });
    sketch.store(total, &[0], value, StoreKind::Fold(Fold::Sum));
    let x = numbers(DType::I32, 50, 4);
    let buffers = vec![x, Array::zeros(DType::I32, &[100]).unwrap(), Array::zeros(DType::I32, &[1]).unwrap()];
    let results = compare(vec![Kernel::Loop(sketch.0)], buffers, identical);
    assert_eq!(results[0].to_vec::<i32>().unwrap().iter().sum::<i32>(), 50);
}

/// A stack of products with the sides stored row-major or transposed.
fn product(
    dtype: DType,
    [batch, m, k, n]: [usize; 4],
    transposed: [bool; 2],
    alpha: Scale,
    beta: Scale,
) -> Kernel {
    let matrix = |param, rows: usize, columns: usize, transposed| Matrix {
        param,
        position: Affine::default(),
        batch_stride: (rows * columns) as i64,
        row_stride: if transposed { 1 } else { columns as i64 },
        column_stride: if transposed { rows as i64 } else { 1 },
    };
    let param = |len, written| Param { dtype, len, written };
    Kernel::Product(ProductKernel {
        dtype,
        batch,
        m,
        n,
        k,
        a: matrix(0, m, k, transposed[0]),
        b: matrix(1, k, n, transposed[1]),
        c: matrix(2, m, n, false),
        alpha,
        beta,
        params: vec![
            param(batch * m * k, false),
            param(batch * k * n, false),
            param(batch * m * n, true),
            param(1, false),
        ],
        starts: Vec::new(),
    })
}

#[test]
fn products_of_every_type_and_shape() {
    let (mut kernels, mut buffers) = (Vec::new(), Vec::new());
    let mut seed = 0;
    let mut case = |dtype, shape: [usize; 4], transposed, alpha, beta| {
        let kernel = product(dtype, shape, transposed, alpha, beta);
        seed += 4;
        buffers
            .extend(kernel.params().iter().enumerate().map(|(n, p)| numbers(dtype, p.len, seed + n as u64)));
        kernels.push(kernel);
    };
    let (one, zero) = (Scale::Constant(1.0), Scale::Constant(0.0));
    for dtype in [DType::U8, DType::I32, DType::I64, DType::F32, DType::F64] {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            case(dtype, [2, 17, 33, 19], transposed, Scale::Constant(-2.0), Scale::Param(3));
        }
        case(dtype, [1, 5, 0, 3], [false, false], one, Scale::Constant(3.0));
        case(dtype, [1, 1, 40, 70], [false, false], Scale::Param(3), zero);
    }
    for shape in [
        [1, 1, 1, 1],
        [1, 70, 50, 1],
        [1, 1, 300, 1],
        [1, 20, 784, 30],
        [2, 200, 20, 130],
        [1, 130, 70, 515],
        [0, 3, 3, 3],
        [1, 0, 3, 3],
    ] {
        case(DType::F32, shape, [false, false], one, zero);
        case(DType::F32, shape, [true, false], Scale::Constant(-0.5), one);
    }
    // Up to 784 partial sums, each well below 100, are rounded to the nearest.
    compare(kernels, buffers, |x, y| {
        let unit = match x.dtype() {
            DType::F32 => f64::from(f32::EPSILON),
            DType::F64 => f64::EPSILON,
            DType::Bool | DType::U8 | DType::I32 | DType::I64 => 0.0,
        };
        (x.to_f64() - y.to_f64()).abs() <= 1000.0 * unit * x.to_f64().abs().max(1.0)
    });
}

#[test]
fn a_product_does_not_read_what_it_overwrites_and_begins_at_starts() {
    let Kernel::Product(mut kernel) =
        product(DType::F32, [1, 2, 2, 2], [false, false], Scale::Constant(1.0), Scale::Constant(0.0))
    else {
        return;
    };
    // Two rows of a matrix of five, from a start.
    kernel.params[0].len = 10;
    kernel.params[3] = Param { dtype: DType::I64, len: 1, written: false };
    kernel.starts.push(RuntimeStart { param: 3, extent: 5, limit: 3, axis: 0, is_range: false });
    kernel.a.position = Affine { offset: 0, strides: smallvec![], starts: smallvec![(0, 2)] };
    let a: Vec<f32> = (0..10).map(|x| x as f32).collect();
    let buffers = vec![
        Array::vector(&a),
        Array::vector(&[1.0f32, 2.0, 3.0, 4.0]),
        Array::vector(&[f32::NAN; 4]),
        Array::vector(&[-2i64]),
    ];
    let results = compare(vec![Kernel::Product(kernel)], buffers, identical);
    // [[6, 7], [8, 9]] times [[1, 2], [3, 4]].
    assert_eq!(results[0].to_vec::<f32>().unwrap(), [27.0, 40.0, 35.0, 52.0]);
}

#[test]
fn random_numbers_have_the_bits_of_the_definition() {
    let mut kernels = Vec::new();
    let mut buffers = Vec::new();
    for (counter, len) in [(0i64, 1usize), (16, 64), ((1 << 32) - 7, 1000), (-5, 20_011)] {
        let param = |dtype, len, written| Param { dtype, len, written };
        kernels.push(Kernel::Random(RandomKernel {
            key: 0xfedc_ba98_7654_3210,
            counter: 0,
            out: 1,
            params: vec![param(DType::I64, 1, false), param(DType::F32, len, true)],
        }));
        buffers.extend([Array::vector(&[counter]), Array::zeros(DType::F32, &[len]).unwrap()]);
    }
    let results = compare(kernels, buffers, identical);
    let last = results[3].to_vec::<f32>().unwrap();
    let element = |e: u64| hypatia_graph::random::uniform_element(0xfedc_ba98_7654_3210, -5, e);
    assert_eq!([last[0], last[20_010]], [element(0), element(20_010)]);
}

/// `w += x` on a variable of three elements.
fn accumulation() -> Kernel {
    let mut sketch = Sketch::new(&[3], &[false]);
    let (x, w) = (sketch.param(DType::F32, 3, false), sketch.param(DType::F32, 3, true));
    let (a, b) = (sketch.load(x, &[1]), sketch.load(w, &[1]));
    let sum = sketch.map(ScalarFn::Add, &[a, b]);
    sketch.store(w, &[1], sum, StoreKind::Plain);
    Kernel::Loop(sketch.0)
}

#[test]
fn programs_share_what_lies_on_the_device() {
    if !has_device() {
        return;
    }
    let variable = shared("w", Array::vector(&[1.0f32, 2.0, 3.0]));
    let program = Arc::new(program(vec![accumulation()], std::slice::from_ref(&variable)));
    let mut first = OpenClProgram::new(program.clone(), 0).unwrap();
    let mut second = OpenClProgram::new(program, 0).unwrap();
    let x = Array::vector(&[1.0f32, 1.0, 1.0]);
    first.run(&[&x], &[variable.cell()], &mut []).unwrap();
    second.run(&[&x], &[variable.cell()], &mut []).unwrap();
    first.run(&[&x], &[variable.cell()], &mut []).unwrap();
    // The value is on the device alone; the copy on the host is the old one.
    assert_eq!(variable.cell().lock().host, Array::vector(&[1.0f32, 2.0, 3.0]));
    assert_eq!(variable.cell().lock().version, 3);
    assert_eq!(variable.get_value().unwrap(), Array::vector(&[4.0f32, 5.0, 6.0]));
    variable.set_value(Array::vector(&[10.0f32, 20.0, 30.0])).unwrap();
    second.run(&[&x], &[variable.cell()], &mut []).unwrap();
    drop((first, second));
    // The program is gone, its results are not.
    assert_eq!(variable.get_value().unwrap(), Array::vector(&[11.0f32, 21.0, 31.0]));
}

#[test]
fn every_step_is_timed() {
    if !has_device() {
        return;
    }
    let variables = [
        shared("a", Array::zeros(DType::F32, &[3]).unwrap()),
        shared("b", Array::zeros(DType::F32, &[3]).unwrap()),
    ];
    let program = Arc::new(program(vec![accumulation(), accumulation()], &variables));
    let mut compiled = OpenClProgram::new(program, 0).unwrap();
    let x = Array::vector(&[1.0f32, 1.0, 1.0]);
    let cells: Vec<&SharedCell> = variables.iter().map(|s| &**s.cell()).collect();
    let times = compiled.profile(&[&x, &x], &cells, &mut []).unwrap();
    assert_eq!(times.len(), 2);
    assert!(times.iter().all(|time| *time > Duration::ZERO), "{times:?}");
}

#[test]
fn wrong_arguments_are_named() {
    if !has_device() {
        return;
    }
    let variable = shared("w", Array::zeros(DType::F32, &[3]).unwrap());
    let program = Arc::new(program(vec![accumulation()], std::slice::from_ref(&variable)));
    let mut compiled = OpenClProgram::new(program, 0).unwrap();
    let message = |result: Result<(), RunError>| result.unwrap_err().to_string();
    let (x, long) = (Array::zeros(DType::F32, &[3]).unwrap(), Array::zeros(DType::F64, &[4]).unwrap());
    let cell = variable.cell();
    assert_eq!(message(compiled.run(&[], &[cell], &mut [])), "expected 1 inputs, found 0");
    assert_eq!(message(compiled.run(&[&x], &[], &mut [])), "expected 1 shared variables, found 0");
    assert_eq!(
        message(compiled.run(&[&long], &[cell], &mut [])),
        "input 0: expected 3 of f32, found 4 of f64"
    );
    let message = |result: Result<OpenClProgram, DeviceError>| result.err().unwrap().to_string();
    assert!(message(OpenClProgram::new(Arc::new(Program::default()), 99)).starts_with("no OpenCL device 99"));
    let mut beyond = accumulation();
    if let Kernel::Loop(kernel) = &mut beyond {
        kernel.extents[0] = 4;
    }
    let beyond = self::program(vec![beyond], &[shared("w", Array::zeros(DType::F32, &[3]).unwrap())]);
    let beyond = message(OpenClProgram::new(Arc::new(beyond), 0));
    assert!(beyond.contains("p0[i] reaches 0 to 3 of 3 elements"), "{beyond}");
}

#[test]
fn equal_kernels_are_written_once() {
    let variables = [
        shared("a", Array::zeros(DType::F32, &[3]).unwrap()),
        shared("b", Array::zeros(DType::F32, &[3]).unwrap()),
    ];
    let text = source(&program(vec![accumulation(), accumulation()], &variables)).unwrap();
    assert_eq!(text.matches("__kernel").count(), 1);
    assert_eq!(
        text,
        "#pragma OPENCL FP_CONTRACT OFF

/*
loop i<3 (p0: f32[3], out p1: f32[3])
  v0: f32 = p0[i]
  v1: f32 = p1[i]
  v2: f32 = add v0, v1
  p1[i] = v2
*/
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void k0(__global uchar *b0, ulong o0, __global uchar *b1, ulong o1)
{
    __global const float *p0 = (__global const float *)(b0 + o0);
    __global float *p1 = (__global float *)(b1 + o1);
    const int item = get_global_id(0);
    if (item >= 3)
        return;
    const int i0 = item;
    const float v0 = p0[i0];
    const float v1 = p1[i0];
    const float v2 = v0 + v1;
    p1[i0] = v2;
}
"
    );
}

#[test]
fn build_errors_show_the_lines_at_fault() {
    let source = "first\nsecond line\nthird";
    let text = device::build_error("input.cl:2:7: error: unknown name", source).to_string();
    assert!(text.ends_with("     2 | second line\n"), "{text}");
    if !has_device() {
        return;
    }
    let module = Module {
        source: "__kernel void k0(__global float *x)\n{\n    x[0] = missing;\n}\n".to_string(),
        names: vec!["k0".to_string()],
        launches: Vec::new(),
    };
    let device = Device::open(0).unwrap();
    let message = Compiled::new(&device, &module).err().unwrap().to_string();
    assert!(message.contains("x[0] = missing;"), "{message}");
}

#[test]
fn buffers_share_the_arena_at_their_offsets() {
    let mut kernels = Vec::new();
    for function in [ScalarFn::Sqr, ScalarFn::Neg] {
        let mut sketch = Sketch::new(&[5], &[false]);
        let (x, out) = (sketch.param(DType::F32, 5, false), sketch.param(DType::F32, 5, true));
        let value = sketch.load(x, &[1]);
        let value = sketch.map(function, &[value]);
        sketch.store(out, &[1], value, StoreKind::Plain);
        kernels.push(Kernel::Loop(sketch.0));
    }
    let shape: Extents = smallvec![5];
    let buffer = |place| Buffer { dtype: DType::F32, shape: shape.clone(), place };
    let step = |kernel, from, to| Step {
        kernel,
        arguments: vec![BufferId(from), BufferId(to)],
        label: String::new(),
        site: None,
    };
    let mut kernels = kernels.into_iter();
    let program = Program {
        buffers: vec![
            buffer(Place::Constant(0)),
            buffer(Place::Arena(64)),
            buffer(Place::Arena(192)),
            buffer(Place::Output(0)),
        ],
        steps: vec![
            step(kernels.next().unwrap(), 0, 1),
            step(kernels.next().unwrap(), 1, 2),
            step(Kernel::Loop(copy()), 2, 3),
        ],
        constants: vec![Arc::new(Array::vector(&[1.0f32, 2.0, 3.0, 4.0, 5.0]))],
        outputs: vec![(DType::F32, shape.clone())],
        arena_bytes: 256,
        commit: 3,
        ..Program::default()
    };
    let expected = [-1.0f32, -4.0, -9.0, -16.0, -25.0];
    assert_eq!(evaluate(&program, &[], &mut []).unwrap(), [Array::vector(&expected)]);
    if has_device() {
        let mut outputs = [Array::zeros(DType::F32, &[5]).unwrap()];
        OpenClProgram::new(Arc::new(program), 0).unwrap().run(&[], &[], &mut outputs).unwrap();
        assert_eq!(outputs[0], Array::vector(&expected));
    }
}

fn copy() -> LoopKernel {
    let mut sketch = Sketch::new(&[5], &[false]);
    let (x, out) = (sketch.param(DType::F32, 5, false), sketch.param(DType::F32, 5, true));
    let value = sketch.load(x, &[1]);
    sketch.store(out, &[1], value, StoreKind::Plain);
    sketch.0
}

#[test]
fn one_kernel_runs_on_buffers() {
    let mut buffers = [Array::vector(&[1.0f32, 2.0, 3.0]), Array::vector(&[10.0f32, 20.0, 30.0])];
    evaluate_kernel(&accumulation(), &mut buffers).unwrap();
    assert_eq!(buffers[1], Array::vector(&[11.0f32, 22.0, 33.0]));
}

/// Training steps of a perceptron with one hidden layer on minibatches of shared data, as they are lowered from a graph.
#[test]
fn training_steps_follow_the_reference() {
    let data = shared("data", numbers(DType::F32, 60 * 30, 1).reshaped(&[60, 30]).unwrap());
    let labels: Vec<i32> = (0..60).map(|n| n % 5).collect();
    let labels = shared("labels", Array::vector(&labels));
    let w = shared("w", numbers(DType::F32, 30 * 17, 2).reshaped(&[30, 17]).unwrap());
    let v = shared("v", numbers(DType::F32, 17 * 5, 3).reshaped(&[17, 5]).unwrap());
    let b = shared("b", Array::zeros(DType::F32, &[5]).unwrap());
    let index = scalar::<i64>("index");
    let from_to = &index * 20..(&index + 1) * 20;
    let (x, y) = (data.index(ix![from_to.clone()]), labels.index(ix![from_to]));
    let hidden = x.dot(&w).tanh();
    let logits = hidden.dot(&v) + &b;
    let cost = logits.softmax(1).categorical_crossentropy(&y).mean(All);
    let gradients = grad(&cost, [&w, &v, &b]);
    let wrong = logits.argmax(1).neq(y.cast(DType::I64)).cast(DType::F32).sum(All);
    let updates = [&w, &v, &b].into_iter().zip(&gradients);
    let updates = updates.map(|(s, g)| (s.clone(), Tensor::from(s) - g * 0.5f32)).collect();
    let request = Request { inputs: vec![index], outputs: vec![cost, wrong], updates, ..Request::default() };
    let graph = specialise(&collect(&request).unwrap(), &Arguments::default()).unwrap();
    let graph = differentiate(&graph, &mut |forward| forward.clone()).unwrap();
    let program = Arc::new(crate::compile(&graph).unwrap());
    let variables: Vec<&Shared> = program
        .shared
        .iter()
        .map(|leaf| [&data, &labels, &w, &v, &b].into_iter().find(|s| s.leaf().id == *leaf).unwrap())
        .collect();
    let mut values: Vec<Array> = variables.iter().map(|s| s.get_value().unwrap()).collect();
    let mut outputs: Vec<Array> = program.outputs.iter().map(|(d, s)| Array::zeros(*d, s).unwrap()).collect();
    let mut compiled = has_device().then(|| OpenClProgram::new(program.clone(), 0).unwrap());
    let cells: Vec<&SharedCell> = variables.iter().map(|s| &**s.cell()).collect();
    let near =
        |x: &Array, y: &Array| (0..x.len()).all(|n| (x.get(n).to_f64() - y.get(n).to_f64()).abs() <= 1e-5);
    let mut costs = Vec::new();
    for step in 0..30i64 {
        let index = Array::scalar(step % 3);
        let expected = evaluate(&program, &[&index], &mut values).unwrap();
        costs.push(expected[0].item().unwrap());
        if let Some(compiled) = &mut compiled {
            compiled.run(&[&index], &cells, &mut outputs).unwrap();
            assert!(outputs.iter().zip(&expected).all(|(x, y)| near(x, y)), "{outputs:?} {expected:?}");
        }
    }
    // It learns.
    assert!(costs[29] < 0.5 * costs[0], "{costs:?}");
    if let Some(compiled) = &mut compiled {
        let before: Vec<Array> = variables.iter().map(|s| s.get_value().unwrap()).collect();
        assert!(before.iter().zip(&values).all(|(x, y)| near(x, y)));
        let error = compiled.run(&[&Array::scalar(3i64)], &cells, &mut outputs).unwrap_err();
        assert!(matches!(error, RunError::OutOfRange(found) if found.value == 60), "{error}");
        let after: Vec<Array> = variables.iter().map(|s| s.get_value().unwrap()).collect();
        assert_eq!(before, after);
    }
}
