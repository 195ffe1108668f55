//! Programs that anyone can put together by hand, each with one invariant broken: no engine takes them.

use std::sync::Arc;

use hypatia_graph::{Array, DType, Literal, ScalarFn};
use smallvec::smallvec;

use super::*;
use crate::cpu::CodeError;
use crate::cpu::call::CpuProgram;
use crate::kernel::{Buffer, CarryPlace, Element, Matrix, RowCarry, Step, Store};
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;

fn param(dtype: DType, len: usize, written: bool) -> Param {
    Param { dtype, len, written }
}

fn buffer(dtype: DType, len: usize, place: Place) -> Buffer {
    Buffer { dtype, shape: smallvec![len], place }
}

fn at(param: u16, offset: i64, strides: &[i64]) -> Address {
    Address { param, position: Affine { offset, strides: strides.into(), starts: smallvec![] } }
}

fn step(kernel: Kernel, arguments: &[u32]) -> Step {
    Step {
        kernel,
        arguments: arguments.iter().map(|b| BufferId(*b)).collect(),
        label: "test".into(),
        site: None,
    }
}

/// Six rows of eight, doubled: from an input to a result.
fn doubling() -> Program {
    let kernel = LoopKernel {
        extents: smallvec![6, 8],
        reduced: smallvec![false, false],
        params: vec![param(DType::F32, 48, false), param(DType::F32, 48, true)],
        starts: Vec::new(),
        body: vec![
            Instruction::Load(at(0, 0, &[8, 1])),
            Instruction::Map(ScalarFn::Add, smallvec![Value(0), Value(0)]),
        ],
        types: vec![DType::F32, DType::F32],
        stores: vec![Store { address: at(1, 0, &[8, 1]), value: Value(1), kind: StoreKind::Plain }],
    };
    Program {
        buffers: vec![buffer(DType::F32, 48, Place::Input(0)), buffer(DType::F32, 48, Place::Output(0))],
        outputs: vec![(DType::F32, smallvec![48])],
        steps: vec![step(Kernel::Loop(kernel), &[0, 1])],
        commit: 1,
        ..Program::default()
    }
}

/// Two rows of three times three rows of four.
fn product() -> Program {
    let matrix = |param: u16, row_stride: i64| Matrix {
        param,
        position: Affine::default(),
        batch_stride: 0,
        row_stride,
        column_stride: 1,
    };
    let kernel = ProductKernel {
        dtype: DType::F32,
        batch: 1,
        m: 2,
        n: 4,
        k: 3,
        a: matrix(0, 3),
        b: matrix(1, 4),
        c: matrix(2, 4),
        alpha: Scale::Constant(1.0),
        beta: Scale::Constant(0.0),
        params: vec![param(DType::F32, 6, false), param(DType::F32, 12, false), param(DType::F32, 8, true)],
        starts: Vec::new(),
    };
    Program {
        buffers: vec![
            buffer(DType::F32, 6, Place::Input(0)),
            buffer(DType::F32, 12, Place::Input(1)),
            buffer(DType::F32, 8, Place::Output(0)),
        ],
        outputs: vec![(DType::F32, smallvec![8])],
        steps: vec![step(Kernel::Product(kernel), &[0, 1, 2])],
        commit: 1,
        ..Program::default()
    }
}

/// Five steps, each of which doubles the row before it: a carry that lives in the rows.
fn rows() -> Program {
    let mut body = doubling();
    body.buffers[0].place = Place::Shared(0);
    body.shared = vec![hypatia_graph::LeafId(7)];
    let kernel = ScanKernel {
        steps: 5,
        body: Arc::new(body),
        inputs: Vec::new(),
        carries: vec![CarryPlace { param: 0, row: Some(RowCarry { output: 0, kept: true }) }],
        rows: vec![Element { param: 1, offset: 0, stride: 48 }],
        until: None,
        made: None,
        arena: None,
        params: vec![param(DType::F32, 48, true), param(DType::F32, 240, true)],
    };
    Program {
        buffers: vec![buffer(DType::F32, 48, Place::Arena(0)), buffer(DType::F32, 240, Place::Output(0))],
        outputs: vec![(DType::F32, smallvec![240])],
        steps: vec![step(Kernel::Scan(kernel), &[0, 1])],
        arena_bytes: 192,
        commit: 1,
        ..Program::default()
    }
}

fn load(program: Program) -> Result<CpuProgram, CodeError> {
    CpuProgram::new(Arc::new(program), &Features::detect(), Arc::new(Pool::new(1)))
}

fn the_loop(program: &mut Program) -> &mut LoopKernel {
    let Kernel::Loop(kernel) = &mut program.steps[0].kernel else { panic!("no loop kernel") };
    kernel
}

fn the_product(program: &mut Program) -> &mut ProductKernel {
    let Kernel::Product(kernel) = &mut program.steps[0].kernel else { panic!("no product") };
    kernel
}

fn the_scan(program: &mut Program) -> &mut ScanKernel {
    let Kernel::Scan(kernel) = &mut program.steps[0].kernel else { panic!("no scan") };
    kernel
}

/// What breaks one thing.
type Break = fn(&mut Program);

fn refused(whole: fn() -> Program, broken: &[(&str, Break)]) {
    assert!(load(whole()).is_ok(), "{:?}", verify(&whole()));
    for (what, breaks) in broken {
        let mut program = whole();
        breaks(&mut program);
        assert!(matches!(load(program), Err(CodeError::Broken(_))), "{what}");
    }
}

#[test]
fn loop_kernels_that_break_an_invariant_are_refused() {
    refused(
        doubling,
        &[
            ("a load beyond the end", |p| the_loop(p).body[0] = Instruction::Load(at(0, 1, &[8, 1]))),
            ("a store before the beginning", |p| the_loop(p).stores[0].address = at(1, -1, &[8, 1])),
            ("a store into an input", |p| the_loop(p).stores[0].address.param = 0),
            ("an input that is said to be written", |p| {
                the_loop(p).params[0].written = true;
                the_loop(p).stores[0].address.param = 0;
            }),
            ("a result that is not said to be written", |p| the_loop(p).params[1].written = false),
            ("a load of wider elements", |p| {
                the_loop(p).types = vec![DType::F64, DType::F64];
            }),
            ("a store of wider elements", |p| {
                the_loop(p).body.push(Instruction::Cast(DType::F64, Value(1)));
                the_loop(p).types.push(DType::F64);
                the_loop(p).stores[0].value = Value(2);
            }),
            ("a literal of another type", |p| the_loop(p).body[1] = Instruction::Literal(Literal::I64(3))),
            ("an index that nothing checked", |p| {
                the_loop(p).stores[0].kind =
                    StoreKind::At { index: Value(1), stride: 1, write: hypatia_graph::op::Write::Set };
            }),
            ("rows that lie on each other", |p| the_loop(p).stores[0].address = at(1, 0, &[7, 1])),
            ("two axes of one stride", |p| the_loop(p).stores[0].address = at(1, 0, &[1, 1])),
            ("a fold that keeps an axis without a stride", |p| {
                the_loop(p).reduced = smallvec![false, true];
                the_loop(p).stores[0].kind = StoreKind::Fold(hypatia_graph::Fold::Sum);
                the_loop(p).stores[0].address = at(1, 0, &[0, 0]);
            }),
            ("a reduced axis outside two kept ones", |p| {
                the_loop(p).extents = smallvec![2, 3, 8];
                the_loop(p).reduced = smallvec![true, false, false];
                the_loop(p).reduced.push(false);
                the_loop(p).extents.push(1);
                the_loop(p).body[0] = Instruction::Load(at(0, 0, &[24, 8, 1, 0]));
                the_loop(p).stores[0].address = at(1, 0, &[0, 8, 1, 0]);
                the_loop(p).stores[0].kind = StoreKind::Fold(hypatia_graph::Fold::Sum);
            }),
            ("two stores to one element", |p| {
                let store = the_loop(p).stores[0].clone();
                the_loop(p).stores.push(store);
            }),
            ("a result that is read backwards while it is written", |p| {
                p.steps[0].arguments[0] = BufferId(1);
                the_loop(p).body[0] = Instruction::Load(at(0, 47, &[-8, -1]));
            }),
            ("arena buffers that overlap by half", |p| {
                p.buffers[0].place = Place::Arena(64);
                p.buffers[1].place = Place::Arena(0);
                p.arena_bytes = 256;
            }),
            ("a buffer beyond the arena", |p| p.buffers[1].place = Place::Arena(64)),
            ("a result that is shorter than its buffer", |p| p.outputs[0].1 = smallvec![8]),
            ("a result that does not exist", |p| p.buffers[1].place = Place::Output(1)),
            ("a constant that does not exist", |p| p.buffers[0].place = Place::Constant(0)),
            ("a constant that is too short", |p| {
                p.buffers[0].place = Place::Constant(0);
                p.constants = vec![Arc::new(Array::zeros(DType::F32, &[47]).unwrap())];
            }),
            ("a shared variable that does not exist", |p| p.buffers[0].place = Place::Shared(0)),
            ("two buffers at one place that differ", |p| {
                p.buffers.push(buffer(DType::F32, 8, Place::Input(0)))
            }),
        ],
    );
}

#[test]
fn products_that_break_an_invariant_are_refused() {
    refused(
        product,
        &[
            ("wider elements than those of its factors", |p| the_product(p).dtype = DType::F64),
            ("integers", |p| {
                the_product(p).dtype = DType::I32;
                the_product(p).params.iter_mut().for_each(|param| param.dtype = DType::I32);
                p.buffers.iter_mut().for_each(|buffer| buffer.dtype = DType::I32);
                p.outputs[0].0 = DType::I32;
            }),
            ("rows of the result that lie on each other", |p| the_product(p).c.row_stride = 3),
            ("a result in a factor", |p| p.steps[0].arguments[1] = BufferId(2)),
            ("a factor that is the result", |p| the_product(p).a.param = 2),
            ("a factor that is too short", |p| the_product(p).k = 4),
            ("a result that is not said to be written", |p| the_product(p).params[2].written = false),
        ],
    );
}

#[test]
fn loops_over_steps_that_break_an_invariant_are_refused() {
    fn body(program: &mut Program) -> &mut Program {
        Arc::get_mut(&mut the_scan(program).body).expect("only one program has the body")
    }
    refused(
        rows,
        &[
            ("more steps than rows", |p| the_scan(p).steps = 6),
            ("rows that overlap", |p| the_scan(p).rows[0].stride = 24),
            ("a carry in rows that are not there", |p| {
                the_scan(p).carries[0].row = Some(RowCarry { output: 1, kept: false });
            }),
            ("a carry and rows in one parameter", |p| the_scan(p).carries[0].param = 1),
            ("a carry and rows in one buffer", |p| p.steps[0].arguments[0] = BufferId(1)),
            ("a sequence in the rows", |p| {
                the_scan(p).inputs.push(Element { param: 1, offset: 0, stride: 48 });
                body(p).buffers[0].place = Place::Input(0);
            }),
            ("a body that writes beyond its rows", |p| {
                the_loop(body(p)).stores[0].address = at(1, 1, &[8, 1])
            }),
            ("a body that writes a result as another type", |p| body(p).outputs[0].0 = DType::I32),
            ("a condition outside of its parameter", |p| {
                the_scan(p).until = Some(Element { param: 0, offset: 192, stride: 0 });
            }),
            ("a number of steps in a carry", |p| the_scan(p).made = Some(0)),
        ],
    );
}

/// Strides of 0 allow of extents whose products do not fit: memory that is not there is asked for and refused.
#[test]
fn products_of_huge_extents_are_refused() {
    let huge = |program: &mut Program, strides: [i64; 2]| {
        let kernel = the_product(program);
        (kernel.k, kernel.m) = (1 << 61, 2);
        (kernel.a.row_stride, kernel.a.column_stride) = (strides[0], 0);
        (kernel.b.row_stride, kernel.b.column_stride) = (0, strides[1]);
    };
    for strides in [[0, 0], [1, 1], [0, 1]] {
        let mut program = product();
        huge(&mut program, strides);
        match load(program) {
            Ok(program) => assert!(program.bytes() < 1 << 24),
            Err(error) => assert!(matches!(error, CodeError::Memory(_) | CodeError::Broken(_))),
        }
    }
}

#[test]
fn arrays_of_a_call_that_do_not_fit_are_refused() {
    let mut program = load(doubling()).unwrap();
    let whole = Array::vector(&[1.0f32; 48]);
    let mut outputs = [Array::zeros(DType::F32, &[48]).unwrap()];
    program.run(&[&whole], &mut [], &mut outputs).unwrap();
    assert_eq!(outputs[0], Array::vector(&[2.0f32; 48]));
    assert!(program.run(&[], &mut [], &mut outputs).is_err());
    assert!(program.run(&[&Array::vector(&[1.0f32; 47])], &mut [], &mut outputs).is_err());
    assert!(program.run(&[&Array::vector(&[1; 48])], &mut [], &mut outputs).is_err());
    assert!(program.run(&[&whole], &mut [], &mut []).is_err());
    assert!(program.run(&[&whole], &mut [], &mut [Array::zeros(DType::F32, &[8]).unwrap()]).is_err());
}
