//! The speed of loop kernels emitted for AVX-512: nanoseconds an element (or a row), and the time to emit them.
//!
//! `cargo run --release -p hypatia-codegen --example loop_speed`
#![allow(unsafe_code, reason = "the example runs emitted code")]

use std::time::Instant;

use hypatia_codegen::cpu::avx512;
use hypatia_codegen::kernel::{Address, Affine, Instruction, LoopKernel, Param, Store, StoreKind, Value};
use hypatia_graph::{DType, Fold, ScalarFn};
use smallvec::SmallVec;

type Code = unsafe extern "sysv64" fn(*const *mut u8, i64, i64, *mut [i64; 3]);

/// A kernel of float32 buffers under construction.
struct Builder(LoopKernel);

impl Builder {
    fn new(extents: &[usize], reduced: &[bool]) -> Builder {
        Builder(LoopKernel {
            extents: extents.iter().copied().collect(),
            reduced: reduced.iter().copied().collect(),
            ..LoopKernel::default()
        })
    }

    fn address(&mut self, strides: &[i64], written: bool) -> Address {
        let last: i64 = strides.iter().zip(&self.0.extents).map(|(s, e)| s * (*e as i64 - 1)).sum();
        self.0.params.push(Param { dtype: DType::F32, len: last as usize + 1, written });
        let strides = strides.iter().copied().collect();
        let position = Affine { offset: 0, strides, starts: SmallVec::new() };
        Address { param: self.0.params.len() as u16 - 1, position }
    }

    fn push(&mut self, instruction: Instruction) -> Value {
        self.0.body.push(instruction);
        self.0.types.push(DType::F32);
        Value(self.0.body.len() as u32 - 1)
    }

    fn load(&mut self, strides: &[i64]) -> Value {
        let address = self.address(strides, false);
        self.push(Instruction::Load(address))
    }

    fn map(&mut self, function: ScalarFn, operands: &[Value]) -> Value {
        self.push(Instruction::Map(function, operands.iter().copied().collect()))
    }

    fn store(mut self, strides: &[i64], value: Value, kind: StoreKind) -> LoopKernel {
        let address = self.address(strides, true);
        self.0.stores.push(Store { address, value, kind });
        self.0
    }
}

fn unary(function: ScalarFn, len: usize) -> LoopKernel {
    let mut builder = Builder::new(&[len], &[false]);
    let x = builder.load(&[1]);
    let y = builder.map(function, &[x]);
    builder.store(&[1], y, StoreKind::Plain)
}

fn gated(len: usize) -> LoopKernel {
    let mut builder = Builder::new(&[len], &[false]);
    let (a, b, c) = (builder.load(&[1]), builder.load(&[1]), builder.load(&[1]));
    let sum = builder.map(ScalarFn::Add, &[a, b]);
    let gate = builder.map(ScalarFn::Sigmoid, &[sum]);
    let y = builder.map(ScalarFn::Mul, &[gate, c]);
    builder.store(&[1], y, StoreKind::Plain)
}

fn multiply_add(len: usize) -> LoopKernel {
    let mut builder = Builder::new(&[len], &[false]);
    let (a, b, c) = (builder.load(&[1]), builder.load(&[1]), builder.load(&[1]));
    let product = builder.map(ScalarFn::Mul, &[a, b]);
    let y = builder.map(ScalarFn::Add, &[product, c]);
    builder.store(&[1], y, StoreKind::Plain)
}

fn fold(extents: &[usize], axis: usize, fold: Fold, square: bool) -> LoopKernel {
    let reduced: Vec<bool> = (0..extents.len()).map(|a| a == axis).collect();
    let mut builder = Builder::new(extents, &reduced);
    let strides: Vec<i64> =
        (0..extents.len()).map(|a| extents[a + 1..].iter().product::<usize>() as i64).collect();
    let mut x = builder.load(&strides);
    if square {
        x = builder.map(ScalarFn::Sqr, &[x]);
    }
    let mut step = 1;
    let mut kept = vec![0; extents.len()];
    for a in (0..extents.len()).rev().filter(|a| *a != axis) {
        kept[a] = step;
        step *= extents[a] as i64;
    }
    builder.store(&kept, x, StoreKind::Fold(fold))
}

/// `exp(x[i, j] - m[i])`, stored, or its sum over each row.
fn shifted_exponentials(rows: usize, columns: usize, sum: bool) -> LoopKernel {
    let mut builder = Builder::new(&[rows, columns], &[false, sum]);
    let x = builder.load(&[columns as i64, 1]);
    let m = builder.load(&[1, 0]);
    let difference = builder.map(ScalarFn::Sub, &[x, m]);
    let y = builder.map(ScalarFn::Exp, &[difference]);
    if sum {
        builder.store(&[1, 0], y, StoreKind::Fold(Fold::Sum))
    } else {
        builder.store(&[columns as i64, 1], y, StoreKind::Plain)
    }
}

/// `x[i, j] + b[j]`.
fn bias(rows: usize, columns: usize) -> LoopKernel {
    let mut builder = Builder::new(&[rows, columns], &[false, false]);
    let x = builder.load(&[columns as i64, 1]);
    let b = builder.load(&[0, 1]);
    let y = builder.map(ScalarFn::Add, &[x, b]);
    builder.store(&[columns as i64, 1], y, StoreKind::Plain)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints the median time of a run divided by `units`.
fn measure(name: &str, kernel: &LoopKernel, units: usize, unit: &str) {
    let emission = median(
        (0..25)
            .map(|_| {
                let begin = Instant::now();
                std::hint::black_box(avx512::emit(kernel).is_ok());
                begin.elapsed().as_secs_f64() * 1e6
            })
            .collect(),
    );
    let Ok(Some(bytes)) = avx512::emit(kernel) else {
        println!("{name:32} not covered");
        return;
    };
    let Ok(mut memory) = region::alloc(bytes.len(), region::Protection::READ_WRITE) else {
        println!("{name:32} no memory");
        return;
    };
    // SAFETY: the allocation has at least that many bytes and nothing else refers to it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_mut_ptr::<u8>(), bytes.len()) };
    // SAFETY: the pages belong to the allocation, which nothing writes to from here on.
    let protected =
        unsafe { region::protect(memory.as_ptr::<u8>(), memory.len(), region::Protection::READ_EXECUTE) };
    if protected.is_err() {
        println!("{name:32} no executable memory");
        return;
    }
    let mut seed = 1u32;
    let mut buffers: Vec<Vec<f32>> = kernel
        .params
        .iter()
        .map(|param| {
            let next = |_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                0.01 + (seed >> 8) as f32 / (1 << 22) as f32
            };
            (0..param.len).map(next).collect()
        })
        .collect();
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(|b| b.as_mut_ptr().cast()).collect();
    let mut error = [0; 3];
    let end = kernel.extents[0] as i64;
    let repetitions = (1_000_000 / kernel.extents.iter().product::<usize>()).max(1);
    let times = (0..41).map(|_| {
        let begin = Instant::now();
        for _ in 0..repetitions {
            // SAFETY: the memory holds a function with this signature, and the buffers have the kernel's lengths.
            unsafe {
                let code: Code = std::mem::transmute(memory.as_ptr::<u8>());
                code(pointers.as_ptr(), 0, end, &raw mut error);
            }
        }
        begin.elapsed().as_secs_f64() * 1e9 / (repetitions * units) as f64
    });
    let time = median(times.collect());
    println!("{name:32} {time:7.3} ns/{unit:8} {emission:6.1} us to emit {:5} bytes", bytes.len());
}

fn main() {
    if !avx512::is_supported() {
        println!("skipped: this processor lacks AVX-512");
        return;
    }
    let len = 10_000;
    for function in [
        ScalarFn::Exp,
        ScalarFn::Log,
        ScalarFn::Tanh,
        ScalarFn::Sigmoid,
        ScalarFn::Softplus,
        ScalarFn::Erf,
        ScalarFn::Sin,
        ScalarFn::Pow,
        ScalarFn::Sqrt,
    ] {
        if function.arity() == 1 {
            measure(function.name(), &unary(function, len), len, "element");
        }
    }
    measure("sigmoid(a + b) * c", &gated(len), len, "element");
    measure("a * b + c, 10k", &multiply_add(len), len, "element");
    measure("a * b + c, 100k", &multiply_add(100_000), 100_000, "element");
    measure("sum of squares, 10k", &fold(&[len], 0, Fold::Sum, true), len, "element");
    measure("sum of squares, 400k", &fold(&[400_000], 0, Fold::Sum, true), 400_000, "element");
    measure("maximum, 400k", &fold(&[400_000], 0, Fold::Max, false), 400_000, "element");
    measure("row sum 600x10", &fold(&[600, 10], 1, Fold::Sum, false), 600, "row");
    measure("row maximum 600x10", &fold(&[600, 10], 1, Fold::Max, false), 600, "row");
    measure("row sum of exp(x - m) 600x10", &shifted_exponentials(600, 10, true), 600, "row");
    measure("exp(x - m) 600x10", &shifted_exponentials(600, 10, false), 600, "row");
    measure("row sum 600x500", &fold(&[600, 500], 1, Fold::Sum, false), 600 * 500, "element");
    measure("column sum 600x500", &fold(&[600, 500], 0, Fold::Sum, false), 600 * 500, "element");
    measure("column sum 600x10", &fold(&[600, 10], 0, Fold::Sum, false), 600, "row");
    measure("x + b 600x500", &bias(600, 500), 600 * 500, "element");
    measure("x + b 20x500", &bias(20, 500), 20 * 500, "element");
    measure("x + b 600x10", &bias(600, 10), 600, "row");
    measure("exp of 1", &unary(ScalarFn::Exp, 1), 1, "call");
}
