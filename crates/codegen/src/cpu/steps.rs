//! Running the steps of a plan, with scans nested in them.
//!
//! Every parameter of every step is a pointer in one table. Those into constants are set when the program is loaded, those of
//! a program's arguments by each call, those of a scan's body when the scan begins; pointers that move from step to step of a
//! scan are advanced in place. So a step of a scan costs what its kernels cost, and nothing is allocated. What runs, and in
//! how many parts, is the plan's to say (see `cpu::plan`).
#![allow(
    unsafe_code,
    reason = "generated code works on raw memory; the blocks argue from what `kernel::verify` and `cpu::plan` guarantee"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypatia_graph::{Array, DType, broken};
use smallvec::SmallVec;

use crate::cpu::code::{Code, CodeError};
use crate::cpu::plan::{Action, FunctionId, PackedId, Plan, Planned, Product, Scan, Slot, Target};
use crate::kernel::{
    Affine, ConvolutionKernel, OutOfRange, RandomKernel, RunError, RuntimeStart, Scale, Strided,
};
use hypatia_kernels::convolution::ConvolutionPlan;
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;
use hypatia_kernels::product::{PackPlan, PairOperands, PairPlan, ProductPlan};
use hypatia_kernels::random;

/// What a function reports: whether an index was out of range, which, and of what extent. The first word is 0, or 1 for the
/// function's own step, 2 for the one after it and so on.
pub(super) type Report = [i64; 3];

/// The signature of the function of a loop kernel or of a native scan: pointers of the parameters, range of the outermost
/// axis, report.
type LoopFunction = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut Report);

/// What the steps of a program share while they run.
pub(super) struct Context {
    pub(super) pool: Arc<Pool>,
    /// One for each thread.
    pub(super) reports: Vec<Report>,
    /// Scratch memory of products and convolutions, one for each thread.
    pub(super) scratch: Vec<Array>,
    /// Time spent in each step, by its number, while it is measured.
    pub(super) times: Option<Vec<Duration>>,
}

/// The addresses of what a plan numbers.
pub(super) struct Addresses {
    functions: Vec<LoopFunction>,
    /// The pointers of all parameters.
    table: Vec<*mut u8>,
    packed: Vec<*mut u8>,
    /// What the packed matrices lie in.
    memory: Vec<Array>,
}

impl Addresses {
    /// Binds a plan to its code and to memory for its matrices, and packs its constants.
    pub(super) fn bind(plan: &Plan, code: &Code, pool: &Pool) -> Result<Addresses, CodeError> {
        let compiled = code.addresses().iter().filter(|address| !address.is_null()).count();
        if (compiled, code.addresses().len()) != (plan.functions.len(), plan.functions.len()) {
            return Err(broken!("code of all functions of the plan", compiled).into());
        }
        // SAFETY: the addresses are those of functions compiled with this signature, one for each function of the plan, and
        // none is null.
        let function =
            |address: &*const u8| unsafe { std::mem::transmute::<*const u8, LoopFunction>(*address) };
        let functions = code.addresses().iter().map(function).collect();
        let memory = plan.packed.iter().map(|plan| {
            let bytes = plan.packed_bytes();
            Array::zeros(DType::U8, &[bytes]).map_err(|_| CodeError::Memory(bytes))
        });
        let mut memory = memory.collect::<Result<Vec<Array>, CodeError>>()?;
        let packed = memory.iter_mut().map(|array| array.bytes_mut().as_mut_ptr()).collect();
        let mut table = vec![std::ptr::null_mut(); plan.slots];
        for (slot, constant) in &plan.constants {
            table[*slot] = constant.bytes().as_ptr().cast_mut();
        }
        let addresses = Addresses { functions, table, packed, memory };
        for (id, constant, offset) in &plan.packed_constants {
            let matrix = constant.bytes().as_ptr().wrapping_offset(*offset);
            run_packing(&plan.packed[id.0], matrix, addresses.packed[id.0], pool);
        }
        Ok(addresses)
    }

    /// Sets a pointer.
    pub(super) fn point(&mut self, slot: Slot, pointer: *mut u8) {
        self.table[slot] = pointer;
    }

    /// Bytes of the packed matrices.
    pub(super) fn packed_bytes(&self) -> usize {
        self.memory.iter().map(|array| array.bytes().len()).sum()
    }

    /// Runs all steps of a plan. Every pointer was set.
    pub(super) fn run(&mut self, plan: &Plan, context: &mut Context) -> Result<(), RunError> {
        Run { plan, addresses: self, context }.steps(&plan.steps)
    }

    fn at(&self, target: Target) -> *mut u8 {
        self.table[target.slot].wrapping_offset(target.offset)
    }
}

/// A run of a plan.
struct Run<'r> {
    plan: &'r Plan,
    addresses: &'r mut Addresses,
    context: &'r mut Context,
}

impl Run<'_> {
    fn steps(&mut self, steps: &[Planned]) -> Result<(), RunError> {
        if self.context.times.is_none() {
            return steps.iter().try_for_each(|step| self.step(step));
        }
        for step in steps {
            let begin = Instant::now();
            self.step(step)?;
            if let Some(times) = &mut self.context.times {
                times[step.number] += begin.elapsed();
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Planned) -> Result<(), RunError> {
        let Addresses { table, .. } = &*self.addresses;
        match &step.action {
            Action::Loop { function, outermost, parts, checks } => {
                self.call(*function, step.slots, *outermost, *parts);
                if *checks { self.found(step.number) } else { Ok(()) }
            }
            Action::Product(product) => {
                run_product(&prepare(product, self.addresses)?, self.context);
                Ok(())
            }
            Action::Pair { plan, products } => {
                let [reads, adds] = &**products;
                let (reads, adds) = (prepare(reads, self.addresses)?, prepare(adds, self.addresses)?);
                run_pair(plan, &reads, &adds, self.context);
                Ok(())
            }
            Action::InPair => Ok(()),
            Action::Convolution { kernel, plan } => {
                run_convolution(kernel, plan, &table[step.slots..], step.number, self.context)
            }
            Action::Random { kernel, parts } => {
                run_random(kernel, &table[step.slots..], *parts, &self.plan.features, &self.context.pool);
                Ok(())
            }
            Action::Scan(scan) => self.scan(scan),
            Action::Native { function, .. } => {
                self.call(*function, step.slots, 0, 1);
                self.found(step.number)
            }
        }
    }

    /// Makes the steps of a scan.
    fn scan(&mut self, scan: &Scan) -> Result<(), RunError> {
        for (id, from) in &scan.packings {
            let matrix = self.addresses.at(*from);
            run_packing(&self.plan.packed[id.0], matrix, self.addresses.packed[id.0], &self.context.pool);
        }
        for (slot, target) in &scan.begins {
            self.addresses.table[*slot] = self.addresses.at(*target);
        }
        let mut made = 0;
        while made < scan.steps {
            if made == 1 {
                for (slot, target) in &scan.switches {
                    self.addresses.table[*slot] = self.addresses.at(*target);
                }
            }
            if made > 0 {
                for (slot, distance) in &scan.moves {
                    let pointer = &mut self.addresses.table[*slot];
                    *pointer = pointer.wrapping_offset(*distance);
                }
            }
            self.steps(&scan.body)?;
            made += 1;
            // SAFETY: the condition is a byte of the parameter (`kernel::verify`), which the step has written.
            if scan.until.is_some_and(|until| unsafe { *self.addresses.at(until) } != 0) {
                break;
            }
        }
        let table = &self.addresses.table;
        if let Some(last) = made.checked_sub(1) {
            for &(slot, bytes) in &scan.rows {
                let rows = table[slot];
                for row in made..scan.steps {
                    // SAFETY: the parameter holds a row for each step, and no two rows overlap.
                    unsafe {
                        let from = rows.wrapping_add(last * bytes);
                        std::ptr::copy_nonoverlapping(from, rows.wrapping_add(row * bytes), bytes);
                    }
                }
            }
            for &(from, bytes, to) in &scan.kept {
                // SAFETY: both parameters hold a row, and the program keeps parameters apart.
                unsafe {
                    let from = table[from].wrapping_add(last * bytes);
                    std::ptr::copy_nonoverlapping(from, table[to], bytes);
                }
            }
        }
        if let Some(slot) = scan.made {
            // SAFETY: the parameter is a buffer with at least one `i64`.
            unsafe { table[slot].cast::<i64>().write(made as i64) };
        }
        Ok(())
    }

    /// The index that a step found out of range.
    fn found(&mut self, step: usize) -> Result<(), RunError> {
        let reports = &mut self.context.reports;
        let Some(report) = reports.iter_mut().find(|report| report[0] != 0) else { return Ok(()) };
        let [raised, value, check] = *report;
        reports.fill([0; 3]);
        let step = step + (raised - 1) as usize;
        Err(RunError::OutOfRange(OutOfRange { step, value, check: check as usize }))
    }

    /// Calls a function, in parts, on the parameters from a slot on.
    fn call(&mut self, function: FunctionId, slots: Slot, outermost: usize, parts: usize) {
        let function = self.addresses.functions[function.0];
        let pointers = self.addresses.table[slots..].as_ptr();
        let reports = self.context.reports.as_mut_ptr();
        if parts == 1 || self.context.pool.threads() == 1 {
            // SAFETY: `pointers` leads to one pointer for each parameter, each to memory of the parameter's size that
            // the program keeps apart from what else is live; the kernel's addresses lie inside (`kernel::verify`), and
            // the function is that of the step (`cpu::plan`). There is a report for every thread.
            unsafe { function(pointers, 0, outermost as i64, reports) };
            return;
        }
        let shared = &Pointers { pointers, reports };
        self.context.pool.run(parts, &move |part, thread| {
            let range = |p: usize| (outermost * p / parts) as i64;
            // SAFETY: as above; parts write disjoint ranges of the outermost axis, which no store folds over, and
            // each thread has a report of its own (`thread` is below the number of reports).
            unsafe { function(shared.pointers, range(part), range(part + 1), shared.reports.add(thread)) };
        });
    }
}

fn run_random(kernel: &RandomKernel, pointers: &[*mut u8], parts: usize, features: &Features, pool: &Pool) {
    // SAFETY: the parameter of the counter is a buffer with at least one `i64` (`kernel::verify`).
    let counter = unsafe { pointers[usize::from(kernel.counter)].cast::<i64>().read() };
    let out = Out(pointers[usize::from(kernel.out)].cast::<f32>());
    let out = &out;
    let len = kernel.len();
    let blocks = len.div_ceil(random::ELEMENTS);
    pool.run(parts, &move |part, _| {
        let (first, last) = (blocks * part / parts, blocks * (part + 1) / parts);
        let (begin, end) = (first * random::ELEMENTS, (last * random::ELEMENTS).min(len));
        // SAFETY: the buffer has `len` elements, parts are disjoint ranges of it, and no other parameter of the
        // step lies in it.
        let elements = unsafe { std::slice::from_raw_parts_mut(out.0.add(begin), end - begin) };
        random::fill(features, kernel.key, counter, first as u64, elements);
    });
}

fn run_packing(plan: &PackPlan, matrix: *const u8, packed: *mut u8, pool: &Pool) {
    let matrices = &Matrices { matrix, packed };
    pool.run(plan.parts(), &move |part, _| {
        // SAFETY: the matrix has the extents and strides of the plan, as those of the product that reads it, which lie
        // inside their buffer; `packed` leads to as many bytes as the plan fills, and nobody reads them meanwhile.
        unsafe { plan.run_part(part, matrices.matrix, matrices.packed) };
    });
}

/// Where a packing reads and writes.
struct Matrices {
    matrix: *const u8,
    packed: *mut u8,
}

// SAFETY: the matrix is only read, and parts of a packing write disjoint panels.
unsafe impl Sync for Matrices {}

/// Where a random step writes.
struct Out(*mut f32);

// SAFETY: each part of the step writes a range of its own.
unsafe impl Sync for Out {}

/// What all threads of a loop step may use.
struct Pointers {
    pointers: *const *mut u8,
    reports: *mut Report,
}

// SAFETY: the pointers are read only, and each thread writes its own report.
unsafe impl Sync for Pointers {}

/// A product with all that it needs to run.
struct Prepared<'a> {
    plan: &'a ProductPlan,
    a: *const u8,
    b: *const u8,
    c: *mut u8,
    alpha: f64,
    beta: f64,
}

/// What all threads of a product may use.
struct Shared<'a> {
    product: &'a Prepared<'a>,
    scratch: *mut Array,
}

// SAFETY: A and B are only read; parts write disjoint regions of C, and each thread its own scratch.
unsafe impl Sync for Shared<'_> {}

/// The run-time starts of a step, checked. Windows of windows have any number of them; eight stand without allocating.
fn read_starts(
    starts: &[RuntimeStart],
    pointers: &[*mut u8],
    step: usize,
) -> Result<SmallVec<[i64; 8]>, RunError> {
    let read = |(check, start): (usize, &RuntimeStart)| {
        // SAFETY: the parameter of a start is a buffer with at least one `i64`.
        let value = unsafe { pointers[usize::from(start.param)].cast::<i64>().read() };
        let found = OutOfRange { step, value, check };
        let position = start.check().position(value).ok_or(RunError::OutOfRange(found))?;
        Ok(position as i64)
    };
    starts.iter().enumerate().map(read).collect()
}

/// Where a position without loop axes lies in a parameter.
fn place(pointers: &[*mut u8], param: u16, position: &Affine, starts: &[i64], dtype: DType) -> *mut u8 {
    let moved: i64 = position.starts.iter().map(|(s, c)| starts[usize::from(*s)] * c).sum();
    pointers[usize::from(param)].wrapping_offset((position.offset + moved) as isize * dtype.size() as isize)
}

/// Looks up where the factors of a product begin.
fn prepare<'a>(product: &'a Product, addresses: &Addresses) -> Result<Prepared<'a>, RunError> {
    let Product { number, slots, kernel, plan, packed } = product;
    let pointers = &addresses.table[*slots..];
    let starts = read_starts(&kernel.starts, pointers, *number)?;
    let at = |param: u16, position: &Affine| place(pointers, param, position, &starts, kernel.dtype);
    let scale = |scale: Scale| match scale {
        Scale::Constant(value) => value,
        // SAFETY: the parameter of a scale is a buffer with at least one element of the product's type.
        Scale::Param(param) => unsafe {
            let pointer = pointers[usize::from(param)];
            if kernel.dtype == DType::F32 {
                f64::from(pointer.cast::<f32>().read())
            } else {
                pointer.cast::<f64>().read()
            }
        },
    };
    Ok(Prepared {
        plan,
        a: at(kernel.a.param, &kernel.a.position),
        b: match packed {
            Some(PackedId(id)) => addresses.packed[*id],
            None => at(kernel.b.param, &kernel.b.position),
        },
        c: at(kernel.c.param, &kernel.c.position),
        alpha: scale(kernel.alpha),
        beta: scale(kernel.beta),
    })
}

/// Runs a product.
fn run_product(product: &Prepared<'_>, context: &mut Context) {
    let shared = &Shared { product, scratch: context.scratch.as_mut_ptr() };
    let run = |part: usize, thread: usize| {
        let Shared { product: Prepared { plan, a, b, c, alpha, beta }, scratch } = *shared;
        // SAFETY: strides and extents are those of the kernel, whose elements lie inside the parameters' buffers, or in
        // the packed form of B, which was made when the scan began; the program keeps C apart from A and B; the pool
        // gives each thread at work its own number, below the scratch's.
        unsafe {
            let scratch = (*scratch.add(thread)).bytes_mut().as_mut_ptr();
            plan.run_part(part, *a, *b, *c, *alpha, *beta, scratch);
        }
    };
    context.pool.run(product.plan.parts(), &run);
}

/// Where a convolution reads and writes, and the scratch memory of all threads.
struct Images {
    x: *const u8,
    w: *const u8,
    result: *mut u8,
    scratch: *mut Array,
}

// SAFETY: the input and the filters are only read; parts write disjoint regions of the result, and each thread its own
// scratch.
unsafe impl Sync for Images {}

/// Runs a convolution.
fn run_convolution(
    kernel: &ConvolutionKernel,
    plan: &ConvolutionPlan,
    pointers: &[*mut u8],
    step: usize,
    context: &mut Context,
) -> Result<(), RunError> {
    let starts = read_starts(&kernel.starts, pointers, step)?;
    let at = |operand: &Strided| place(pointers, operand.param, &operand.position, &starts, kernel.dtype);
    let images = &Images {
        x: at(&kernel.x),
        w: at(&kernel.w),
        result: pointers[usize::from(kernel.out)],
        scratch: context.scratch.as_mut_ptr(),
    };
    context.pool.run(plan.parts(), &move |part, thread| {
        // SAFETY: strides and extents are those of the kernel, whose elements lie inside the parameters' buffers
        // (`kernel::verify`); the program keeps the result apart from what is read; the pool gives each thread at work its
        // own number, below the scratch's.
        unsafe {
            let scratch = (*images.scratch.add(thread)).bytes_mut().as_mut_ptr();
            plan.run_part(part, images.x, images.w, images.result, scratch);
        }
    });
    Ok(())
}

/// Runs two products over one matrix.
fn run_pair(plan: &PairPlan, reads: &Prepared<'_>, adds: &Prepared<'_>, context: &Context) {
    let factors = [[reads.alpha, reads.beta], [adds.alpha, adds.beta]];
    let operands = PairOperands { d: reads.a, x: adds.a, w: adds.c, back: reads.c, factors };
    // SAFETY: as for one product; the program keeps the matrix apart from what else is read, and the first result from all
    // that the second step has (`Program::is_pair`).
    unsafe { plan.run_raw(&operands, &context.pool) };
}
