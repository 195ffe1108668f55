//! Emitted code against the definition: each function on special and random values, and random kernels of every shape
//! against an evaluation that goes through the iterations one by one.
#![allow(unsafe_code, reason = "the tests run the emitted code")]

use hypatia_graph::{DType, Fold, Literal, ScalarFn};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use smallvec::{SmallVec, smallvec};

use super::*;
use crate::kernel::{Address, Affine, Instruction, Param, RuntimeStart, Store, StoreKind, Value};

/// Whether emitted code can run here; says so if not.
fn can_run() -> bool {
    let yes = is_supported();
    if !yes {
        eprintln!("skipped: this processor lacks AVX-512 (f, dq, bw, vl) or BMI");
    }
    yes
}

/// Bytes of a buffer, with a margin on both sides that must not change.
#[derive(Clone, PartialEq, Debug)]
struct Buffer(Vec<u8>);

const MARGIN: usize = 64;

impl Buffer {
    fn new(values: &[Literal], dtype: DType) -> Buffer {
        let mut buffer = Buffer(vec![0xa5; values.len() * dtype.size() + 2 * MARGIN]);
        for (position, value) in values.iter().enumerate() {
            buffer.set(position, *value);
        }
        buffer
    }

    fn get(&self, position: usize, dtype: DType) -> Literal {
        let bytes = &self.0[MARGIN + position * dtype.size()..][..dtype.size()];
        match dtype {
            DType::Bool => Literal::Bool(bytes[0] != 0),
            DType::U8 => Literal::U8(bytes[0]),
            DType::I32 => Literal::I32(i32::from_le_bytes(bytes.try_into().unwrap())),
            DType::F32 => Literal::F32(u32::from_le_bytes(bytes.try_into().unwrap())),
            DType::I64 => Literal::I64(i64::from_le_bytes(bytes.try_into().unwrap())),
            DType::F64 => Literal::F64(u64::from_le_bytes(bytes.try_into().unwrap())),
        }
    }

    fn set(&mut self, position: usize, value: Literal) {
        let bytes = match value {
            Literal::Bool(x) => vec![u8::from(x)],
            Literal::U8(x) => vec![x],
            Literal::I32(x) => x.to_le_bytes().to_vec(),
            Literal::F32(x) => x.to_le_bytes().to_vec(),
            Literal::I64(x) => x.to_le_bytes().to_vec(),
            Literal::F64(x) => x.to_le_bytes().to_vec(),
        };
        self.0[MARGIN + position * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
    }
}

type Code = unsafe extern "sysv64" fn(*const *mut u8, i64, i64, *mut [i64; 3]);

/// Runs the kernel on a part of its outermost axis.
fn run_part(kernel: &LoopKernel, buffers: &mut [Buffer], begin: i64, end: i64) -> Option<[i64; 3]> {
    let bytes = emit(kernel).unwrap()?;
    let mut memory = region::alloc(bytes.len(), region::Protection::READ_WRITE).unwrap();
    // SAFETY: the allocation has at least that many bytes and nothing else refers to it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_mut_ptr::<u8>(), bytes.len()) };
    // SAFETY: the pages belong to the allocation, which nothing writes to from here on.
    unsafe { region::protect(memory.as_ptr::<u8>(), memory.len(), region::Protection::READ_EXECUTE) }
        .unwrap();
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(|b| b.0[MARGIN..].as_mut_ptr()).collect();
    let mut error = [0; 3];
    // SAFETY: the memory holds a function with this signature, and the buffers have the lengths that the kernel says.
    unsafe {
        let code: Code = std::mem::transmute(memory.as_ptr::<u8>());
        code(pointers.as_ptr(), begin, end, &raw mut error);
    }
    Some(error)
}

fn run(kernel: &LoopKernel, buffers: &mut [Buffer]) -> Option<[i64; 3]> {
    let end = kernel.extents.first().map_or(1, |extent| *extent as i64);
    run_part(kernel, buffers, 0, end)
}

/// What the kernel means, one iteration after another; the indices found out of range, with their checks.
fn evaluate(kernel: &LoopKernel, buffers: &mut [Buffer]) -> Vec<(i64, i64)> {
    let mut errors = Vec::new();
    let starts: Vec<i64> = kernel
        .starts
        .iter()
        .enumerate()
        .map(|(number, start)| {
            let raw = buffers[usize::from(start.param)].get(0, DType::I64).to_i64().unwrap();
            match start.check().position(raw) {
                Some(position) => position as i64,
                None => {
                    errors.push((raw, number as i64));
                    0
                }
            }
        })
        .collect();
    let at = |affine: &Affine, iteration: &[usize]| -> i64 {
        affine.offset
            + affine.strides.iter().zip(iteration).map(|(s, i)| s * *i as i64).sum::<i64>()
            + affine.starts.iter().map(|(s, c)| starts[usize::from(*s)] * c).sum::<i64>()
    };
    let rank = kernel.extents.len();
    let last_reduced = kernel.reduced.last() == Some(&true);
    let dtype = |address: &Address| kernel.params[usize::from(address.param)].dtype;
    // Partial results of each fold, by address: LANES if the innermost axis is reduced, else one.
    let mut partials: Vec<std::collections::BTreeMap<i64, Vec<Literal>>> =
        vec![Default::default(); kernel.stores.len()];
    let reduced_to_one: Vec<usize> =
        (0..rank).map(|a| if kernel.reduced[a] { 1 } else { kernel.extents[a] }).collect();
    for iteration in iterations(&reduced_to_one) {
        for (number, store) in kernel.stores.iter().enumerate() {
            if let StoreKind::Fold(fold) = store.kind {
                let count = if last_reduced { LANES } else { 1 };
                let identity = fold.identity(dtype(&store.address));
                partials[number].insert(at(&store.address.position, &iteration), vec![identity; count]);
            }
        }
    }
    for iteration in iterations(&kernel.extents) {
        let mut values: Vec<Literal> = Vec::new();
        for (position, instruction) in kernel.body.iter().enumerate() {
            let load = |address: &Address, more: i64| {
                let position = (at(&address.position, &iteration) + more) as usize;
                buffers[usize::from(address.param)].get(position, dtype(address))
            };
            let value = match instruction {
                Instruction::Literal(literal) => *literal,
                Instruction::Load(address) => load(address, 0),
                Instruction::LoadAt { address, index, stride } => {
                    load(address, stride * values[index.index()].to_i64().unwrap())
                }
                Instruction::Position(position) => Literal::I64(at(position, &iteration)),
                Instruction::Index { index, extent, .. } => {
                    let raw = values[index.index()].to_i64().unwrap();
                    let extent = *extent as i64;
                    let from_begin = if raw < 0 { raw + extent } else { raw };
                    if !(0..extent).contains(&from_begin) {
                        errors.push((raw, (kernel.starts.len() + position) as i64));
                    }
                    Literal::I64(if (0..extent).contains(&from_begin) { from_begin } else { 0 })
                }
                Instruction::Map(function, operands) => {
                    let operands: Vec<Literal> = operands.iter().map(|x| values[x.index()]).collect();
                    function.eval(&operands).unwrap()
                }
                Instruction::Cast(to, x) => values[x.index()].cast(*to),
            };
            assert_eq!(value.dtype(), kernel.types[position]);
            values.push(value);
        }
        for (number, store) in kernel.stores.iter().enumerate() {
            let position = at(&store.address.position, &iteration);
            let value = values[store.value.index()];
            match store.kind {
                StoreKind::Plain => buffers[usize::from(store.address.param)].set(position as usize, value),
                StoreKind::Fold(fold) => {
                    let lane = if last_reduced { iteration[rank - 1] % LANES } else { 0 };
                    let partial = &mut partials[number].get_mut(&position).unwrap()[lane];
                    *partial = fold.join().eval(&[*partial, value]).unwrap();
                }
                StoreKind::ArgMax | StoreKind::At { .. } => unreachable!(),
            }
        }
    }
    for (number, store) in kernel.stores.iter().enumerate() {
        for (position, mut lanes) in std::mem::take(&mut partials[number]) {
            let StoreKind::Fold(fold) = store.kind else { unreachable!() };
            while lanes.len() > 1 {
                let upper = lanes.split_off(lanes.len() / 2);
                for (lane, other) in lanes.iter_mut().zip(upper) {
                    *lane = fold.join().eval(&[*lane, other]).unwrap();
                }
            }
            buffers[usize::from(store.address.param)].set(position as usize, lanes[0]);
        }
    }
    errors
}

fn iterations(extents: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for extent in extents {
        all = all.iter().flat_map(|i| (0..*extent).map(move |j| [i.as_slice(), &[j]].concat())).collect();
    }
    all
}

/// Equal bits, but any NaN for a NaN.
fn agree(x: Literal, y: Literal) -> bool {
    match (x, y) {
        (Literal::F32(a), Literal::F32(b)) => {
            a == b || (f32::from_bits(a).is_nan() && f32::from_bits(b).is_nan())
        }
        _ => x == y,
    }
}

/// Runs and evaluates; panics where they differ. Whether the kernel is covered.
fn check(kernel: &LoopKernel, buffers: &[Buffer]) -> bool {
    let mut actual = buffers.to_vec();
    let Some(error) = run(kernel, &mut actual) else { return false };
    let mut expected = buffers.to_vec();
    let errors = evaluate(kernel, &mut expected);
    if errors.is_empty() {
        assert_eq!(error[0], 0, "{kernel}");
    } else {
        assert_eq!(error[0], 1, "{kernel}");
        assert!(errors.contains(&(error[1], error[2])), "{error:?} {errors:?}\n{kernel}");
    }
    for (number, param) in kernel.params.iter().enumerate() {
        let (a, b) = (&actual[number], &expected[number]);
        for position in 0..param.len {
            let (x, y) = (a.get(position, param.dtype), b.get(position, param.dtype));
            assert!(agree(x, y), "p{number}[{position}] is {x:?}, expected {y:?}\n{kernel}");
        }
        let end = b.0.len() - MARGIN;
        assert!(a.0[..MARGIN] == b.0[..MARGIN] && a.0[end..] == b.0[end..], "p{number}'s margin\n{kernel}");
    }
    true
}

fn affine(strides: &[i64]) -> Affine {
    Affine { offset: 0, strides: strides.iter().copied().collect(), starts: SmallVec::new() }
}

fn address(param: u16, strides: &[i64]) -> Address {
    Address { param, position: affine(strides) }
}

fn param(dtype: DType, len: usize, written: bool) -> Param {
    Param { dtype, len, written }
}

/// `out[i] = function(in0[i], in1[i], ...)`.
fn elementwise(function: ScalarFn, dtype: DType, len: usize) -> LoopKernel {
    let arity = function.arity();
    let mut dtypes = vec![dtype; arity];
    if function == ScalarFn::Select {
        dtypes[0] = DType::Bool;
    }
    let result = function.result_dtype(&dtypes).unwrap();
    let mut kernel =
        LoopKernel { extents: smallvec![len], reduced: smallvec![false], ..LoopKernel::default() };
    for (number, dtype) in dtypes.iter().enumerate() {
        kernel.params.push(param(*dtype, len, false));
        kernel.body.push(Instruction::Load(address(number as u16, &[1])));
        kernel.types.push(*dtype);
    }
    kernel.params.push(param(result, len, true));
    let operands = (0..arity).map(|x| Value(x as u32)).collect();
    kernel.body.push(Instruction::Map(function, operands));
    kernel.types.push(result);
    kernel.stores.push(Store {
        address: address(arity as u16, &[1]),
        value: Value(arity as u32),
        kind: StoreKind::Plain,
    });
    kernel
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn literal(&mut self, dtype: DType) -> Literal {
        let bits = self.next();
        match dtype {
            DType::Bool => Literal::Bool(bits & 1 == 1),
            DType::U8 => Literal::U8(bits as u8),
            DType::I32 if bits & 3 == 0 => Literal::I32((bits >> 32) as i32),
            DType::I32 => Literal::I32((bits >> 32) as i32 % 100),
            DType::I64 => Literal::I64((bits >> 32) as i64 % 50 - 25),
            DType::F32 => Literal::F32(self.float().to_bits()),
            DType::F64 => Literal::F64(bits),
        }
    }

    fn float(&mut self) -> f32 {
        let bits = self.next();
        match bits & 7 {
            0 => f32::from_bits((bits >> 32) as u32),
            1 => self.pick(&SPECIAL),
            2 => (bits >> 40) as i8 as f32,
            _ => ((bits >> 32) as i32) as f32 / 2f32.powi(29),
        }
    }
}

const SPECIAL: [f32; 30] = [
    4.8e6,
    6.1e11,
    1.099_511_6e12,
    -7.0,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    -2.0,
    3.0,
    1e-45,
    -1e-45,
    1e-39,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    88.722_84,
    -103.9,
    -87.3,
    0.1,
    1e-7,
    100_000.0,
    8_388_609.5,
    2_147_483_648.0,
    -2_147_483_648.0,
];

/// Formulas with rare code are covered; processors that cannot run the code see that much.
#[test]
fn rare_code_is_emitted() {
    for function in [ScalarFn::Sin, ScalarFn::Cos, ScalarFn::Tan, ScalarFn::Mod, ScalarFn::FloorDiv] {
        assert!(emit(&elementwise(function, DType::F32, 100)).unwrap().is_some(), "{function}");
    }
}

/// Every function of floats on all pairs of special values and on random ones.
#[test]
fn functions_of_floats_are_the_defined_ones() {
    if !can_run() {
        return;
    }
    let mut random = Random(1);
    for &function in ScalarFn::ALL {
        let dtypes = vec![DType::F32; function.arity()];
        if function.result_dtype(&dtypes).is_none() {
            continue;
        }
        let mut x: Vec<f32> = SPECIAL.iter().flat_map(|x| SPECIAL.map(|_| *x)).collect();
        let mut y: Vec<f32> = SPECIAL.iter().flat_map(|_| SPECIAL).collect();
        for _ in 0..5000 {
            x.push(random.float());
            y.push(random.float());
        }
        let kernel = elementwise(function, DType::F32, x.len());
        let literals = |x: &[f32]| x.iter().map(|x| Literal::F32(x.to_bits())).collect::<Vec<_>>();
        let mut buffers = vec![Buffer::new(&literals(&x), DType::F32)];
        if function.arity() == 2 {
            buffers.push(Buffer::new(&literals(&y), DType::F32));
        }
        let result = kernel.params.last().unwrap().dtype;
        buffers.push(Buffer::new(&vec![Literal::from_i64(0, result); x.len()], result));
        assert!(check(&kernel, &buffers), "{function} is not covered");
    }
}

/// Functions of integers and truth values that are covered.
#[test]
fn functions_of_integers_are_the_defined_ones() {
    if !can_run() {
        return;
    }
    let mut random = Random(2);
    for &function in ScalarFn::ALL {
        for dtype in [DType::Bool, DType::U8, DType::I32] {
            let mut dtypes = vec![dtype; function.arity()];
            if function == ScalarFn::Select {
                dtypes[0] = DType::Bool;
            }
            if function.result_dtype(&dtypes).is_none() {
                continue;
            }
            let len = 1000 + 7;
            let kernel = elementwise(function, dtype, len);
            let buffers: Vec<Buffer> = kernel
                .params
                .iter()
                .map(|p| {
                    let values: Vec<Literal> = (0..len).map(|_| random.literal(p.dtype)).collect();
                    Buffer::new(&values, p.dtype)
                })
                .collect();
            let uncovered = [ScalarFn::FloorDiv, ScalarFn::Mod, ScalarFn::Pow].contains(&function);
            assert_eq!(check(&kernel, &buffers), !uncovered, "{function} of {dtype}");
        }
    }
}

/// All casts between the covered types.
#[test]
fn casts_are_the_defined_ones() {
    if !can_run() {
        return;
    }
    let mut random = Random(3);
    let dtypes = [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F32];
    for from in dtypes {
        for to in dtypes {
            let len = 500;
            let mut values: Vec<Literal> = (0..len).map(|_| random.literal(from)).collect();
            for (value, special) in values.iter_mut().zip(SPECIAL) {
                *value = Literal::F32(special.to_bits()).cast(from);
            }
            let kernel = LoopKernel {
                extents: smallvec![len],
                reduced: smallvec![false],
                params: vec![param(from, len, false), param(to, len, true)],
                starts: vec![],
                body: vec![Instruction::Load(address(0, &[1])), Instruction::Cast(to, Value(0))],
                types: vec![from, to],
                stores: vec![Store { address: address(1, &[1]), value: Value(1), kind: StoreKind::Plain }],
            };
            let zeros = vec![Literal::from_i64(0, to); len];
            let buffers = [Buffer::new(&values, from), Buffer::new(&zeros, to)];
            let uncovered = match from {
                DType::I64 => to == DType::I64 || to == DType::F32,
                DType::F32 => to == DType::I64,
                DType::Bool | DType::U8 | DType::I32 | DType::F64 => false,
            };
            assert_eq!(check(&kernel, &buffers), !uncovered, "{from} to {to}");
        }
    }
}

/// Builds random kernels that verify and whose every instruction is covered.
struct Builder {
    random: Random,
    kernel: LoopKernel,
    buffers: Vec<Buffer>,
}

impl Builder {
    fn new(seed: u64) -> Builder {
        let mut random = Random(seed);
        let rank = 1 + random.below(4);
        let mut extents: SmallVec<[usize; 4]> =
            (0..rank).map(|_| random.pick(&[1, 1, 2, 3, 5, 15, 16, 17, 33, 70])).collect();
        if random.below(20) == 0 {
            extents[random.below(rank)] = 0;
        }
        while extents.iter().product::<usize>() > 3000 {
            let axis = random.below(rank);
            extents[axis] = extents[axis].div_ceil(2);
        }
        let mut reduced: SmallVec<[bool; 4]> = smallvec![false; rank];
        match random.below(3) {
            0 => {}
            1 => {
                let first = random.below(rank);
                reduced[first..].fill(true);
            }
            _ => reduced[..rank - 1].fill_with(|| random.below(2) == 0),
        }
        let kernel = LoopKernel { extents, reduced, ..LoopKernel::default() };
        Builder { random, kernel, buffers: Vec::new() }
    }

    fn param(&mut self, dtype: DType, len: usize, written: bool) -> u16 {
        let values: Vec<Literal> = (0..len).map(|_| self.random.literal(dtype)).collect();
        self.buffers.push(Buffer::new(&values, dtype));
        self.kernel.params.push(param(dtype, len, written));
        self.kernel.params.len() as u16 - 1
    }

    /// Strides over the axes that the choice admits, dense in a random order of axes, some negative.
    fn address(
        &mut self,
        dtype: DType,
        written: bool,
        admits: impl Fn(usize) -> bool,
        more: usize,
    ) -> Address {
        let rank = self.kernel.extents.len();
        let mut order: Vec<usize> = (0..rank).rev().collect();
        if self.random.below(3) == 0 && dtype.size() == 4 {
            for axis in (1..rank).rev() {
                order.swap(axis, self.random.below(axis + 1));
            }
        }
        let mut strides = vec![0i64; rank];
        let mut len = 1;
        let spread = if dtype.size() == 4 && self.random.below(8) == 0 { 3 } else { 1 };
        len *= spread;
        for axis in order {
            if admits(axis) {
                strides[axis] = len;
                len *= self.kernel.extents[axis].max(1) as i64;
            }
        }
        let mut offset = self.random.below(3) as i64;
        let negative = self.random.below(rank);
        if self.random.below(6) == 0 && dtype.size() == 4 {
            offset += strides[negative] * (self.kernel.extents[negative].max(1) as i64 - 1);
            strides[negative] = -strides[negative];
        }
        let mut position = Affine { offset, ..affine(&strides) };
        let mut total = len as usize + 3 + more;
        if self.random.below(6) == 0 {
            let limit = self.random.below(4);
            let param = self.param(DType::I64, 1, false);
            let in_range = self.random.below(limit + 1) as i64;
            let raw = match self.random.below(8) {
                0 => 1000,
                1..4 => in_range - limit as i64 - 5,
                _ => in_range,
            };
            self.buffers[usize::from(param)].set(0, Literal::I64(raw));
            let is_range = self.random.below(2) == 0;
            let start = RuntimeStart { param, extent: limit + 5, limit, axis: 0, is_range };
            self.kernel.starts.push(start);
            position.starts.push((self.kernel.starts.len() as u16 - 1, 2));
            total += 2 * limit;
        }
        let param = self.param(dtype, total, written);
        Address { param, position }
    }

    fn push(&mut self, instruction: Instruction, dtype: DType) -> Value {
        self.kernel.body.push(instruction);
        self.kernel.types.push(dtype);
        Value(self.kernel.body.len() as u32 - 1)
    }

    fn value(&mut self, dtype: DType) -> Value {
        let known: Vec<u32> =
            (0..self.kernel.types.len() as u32).filter(|&x| self.kernel.types[x as usize] == dtype).collect();
        if !known.is_empty() && self.random.below(8) != 0 {
            return Value(self.random.pick(&known));
        }
        if self.random.below(6) == 0 {
            let literal = self.random.literal(dtype);
            return self.push(Instruction::Literal(literal), dtype);
        }
        let mask = self.random.next();
        let full = self.random.below(2) == 0;
        let address = self.address(dtype, false, |axis| full || mask >> axis & 1 == 1, 0);
        self.push(Instruction::Load(address), dtype)
    }

    fn instruction(&mut self) {
        let dtype =
            self.random.pick(&[DType::F32, DType::F32, DType::F32, DType::I32, DType::U8, DType::Bool]);
        match self.random.below(12) {
            0 => {
                let from = self.random.pick(&[DType::F32, DType::I32, DType::U8, DType::Bool]);
                let x = self.value(from);
                self.push(Instruction::Cast(dtype, x), dtype);
            }
            1 => {
                let strides: Vec<i64> =
                    self.kernel.extents.iter().map(|_| self.random.below(7) as i64 - 3).collect();
                let position = Affine { offset: self.random.below(9) as i64 - 4, ..affine(&strides) };
                let x = self.push(Instruction::Position(position), DType::I64);
                self.push(Instruction::Cast(DType::F32, x), DType::F32);
            }
            2 => {
                let source = self.random.pick(&[DType::I32, DType::I64, DType::U8]);
                let index = if source == DType::I64 {
                    let mask = self.random.next();
                    let address = self.address(source, false, |axis| mask >> axis & 1 == 1, 0);
                    self.push(Instruction::Load(address), source)
                } else {
                    self.value(source)
                };
                let extent = self.random.pick(&[1, 26, 300]);
                let index = self.push(Instruction::Index { index, extent, axis: 0 }, DType::I64);
                let stride = self.random.pick(&[1, 2, 5]);
                let mask = self.random.next();
                let dtype = self.random.pick(&[DType::F32, DType::I32]);
                let address =
                    self.address(dtype, false, |axis| mask >> axis & 1 == 1, stride as usize * extent);
                self.push(Instruction::LoadAt { address, index, stride }, dtype);
            }
            _ => {
                let uncovered = [ScalarFn::FloorDiv, ScalarFn::Mod, ScalarFn::Pow];
                let function = self.random.pick(ScalarFn::ALL);
                let mut dtypes = vec![dtype; function.arity()];
                if function == ScalarFn::Select {
                    dtypes[0] = DType::Bool;
                }
                let Some(result) = function.result_dtype(&dtypes) else { return };
                if uncovered.contains(&function) && dtype != DType::F32 {
                    return;
                }
                let operands = dtypes.iter().map(|dtype| self.value(*dtype)).collect();
                self.push(Instruction::Map(function, operands), result);
            }
        }
    }

    fn store(&mut self) {
        let dtype = self.random.pick(&[DType::F32, DType::F32, DType::I32, DType::U8, DType::Bool]);
        let value = self.value(dtype);
        let reduced = self.kernel.reduced.clone();
        if !reduced.contains(&true) || self.random.below(5) == 0 {
            let address = self.address(dtype, true, |_| true, 0);
            self.kernel.stores.push(Store { address, value, kind: StoreKind::Plain });
            return;
        }
        let folds: Vec<Fold> = Fold::ALL.into_iter().filter(|f| f.takes(dtype)).collect();
        let fold = self.random.pick(&folds);
        let address = self.address(dtype, true, |axis| !reduced[axis], 0);
        self.kernel.stores.push(Store { address, value, kind: StoreKind::Fold(fold) });
    }
}

fn random_kernel(seed: u64) -> (LoopKernel, Vec<Buffer>) {
    let mut builder = Builder::new(seed);
    let size = builder.random.pick(&[1, 2, 3, 5, 8, 20, 60]);
    while builder.kernel.body.len() < size {
        builder.instruction();
    }
    for _ in 0..1 + builder.random.below(3) {
        builder.store();
    }
    (builder.kernel, builder.buffers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_kernels_compute_what_they_mean(seed: u64) {
        if is_supported() {
            let (kernel, buffers) = random_kernel(seed);
            let is_empty = kernel.extents.iter().zip(&kernel.reduced).any(|(e, reduced)| *e == 0 && !reduced);
            let is_covered = !is_empty || kernel.starts.is_empty();
            prop_assert_eq!(check(&kernel, &buffers), is_covered, "{}", kernel);
        }
    }
}

/// A part of the outermost axis touches only its own elements, and the parts make the whole.
#[test]
fn parts_make_the_whole() {
    if !can_run() {
        return;
    }
    for extents in [[40, 1, 37], [7, 3, 20], [1, 100, 1], [5, 16, 16]] {
        for dense in [true, false] {
            let strides = |pad: i64| [(extents[1] * extents[2]) as i64 + pad, extents[2] as i64, 1];
            let len = extents[0] * (extents[1] * extents[2] + 3);
            let pad = if dense { 0 } else { 3 };
            let kernel = LoopKernel {
                extents: extents.into_iter().collect(),
                reduced: smallvec![false; 3],
                params: vec![param(DType::F32, len, false), param(DType::F32, len, true)],
                starts: vec![],
                body: vec![
                    Instruction::Load(address(0, &strides(pad))),
                    Instruction::Map(ScalarFn::Exp, smallvec![Value(0)]),
                ],
                types: vec![DType::F32; 2],
                stores: vec![Store {
                    address: address(1, &strides(pad)),
                    value: Value(1),
                    kind: StoreKind::Plain,
                }],
            };
            let mut random = Random(4);
            let values: Vec<Literal> = (0..len).map(|_| random.literal(DType::F32)).collect();
            let buffers = [Buffer::new(&values, DType::F32), Buffer::new(&values, DType::F32)];
            let mut expected = buffers.to_vec();
            evaluate(&kernel, &mut expected);
            let mut actual = buffers.to_vec();
            let end = extents[0] as i64;
            for (begin, end) in [(0, end / 3), (end / 3, end / 3), (end / 3, end)] {
                run_part(&kernel, &mut actual, begin, end).unwrap();
            }
            for position in 0..len {
                let (x, y) = (actual[1].get(position, DType::F32), expected[1].get(position, DType::F32));
                assert!(agree(x, y), "{position}: {x:?} {y:?}\n{kernel}");
            }
        }
    }
}
