//! The steps of a program ready to run on the processor, with loops over steps nested in them.
//!
//! Every parameter of every step is a pointer in a table. Those into constants are filled in when the program is loaded,
//! those of a program's arguments by each call, those of a loop's body when the loop begins; pointers that move from step
//! to step of a loop are advanced in place. So a step of a loop costs what its kernels cost, and nothing is allocated.
//! Right sides of products that stay the same through a loop are packed before the outermost loop in which they do.
//! A loop whose body is small is one function instead (see `cpu::native`).
#![allow(
    unsafe_code,
    reason = "generated code works on raw memory; the blocks argue from what the planner guarantees"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypatia_graph::{Array, DType};
use smallvec::SmallVec;

use crate::cpu::code::{CodeError, Unit};
use crate::cpu::native;
use crate::kernel::{
    Affine, Kernel, LoopKernel, OutOfRange, Place, ProductKernel, Program, RandomKernel, RunError, Scale,
    ScanKernel, StoreKind,
};
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;
use hypatia_kernels::product::{Batch, Float, PackPlan, PairOperands, PairPlan, ProductPlan, ProductShape};
use hypatia_kernels::random;

/// What a function reports: whether an index was out of range, which, and of what extent. The first word is 0, or 1 for the
/// function's own step, 2 for the one after it and so on.
pub(super) type Report = [i64; 3];

/// The signature of the function of a loop kernel or of a native loop: pointers of the parameters, range of the outermost
/// axis, report.
type LoopFunction = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut Report);

/// Iterations below which a step is not worth a second thread.
const PART_WORK: usize = 1 << 14;

/// Parts of a step, however many threads there are.
const PARTS: usize = 8;

/// Steps of a loop from which packing the right side of a product beforehand pays.
const PACKED_STEPS: usize = 4;

/// Elements of a right side that are worth packing.
const PACKED_ELEMENTS: usize = 1 << 10;

/// What the steps of a program share while they run.
pub(super) struct Context {
    pub(super) pool: Arc<Pool>,
    pub(super) features: Features,
    /// One for each thread.
    pub(super) reports: Vec<Report>,
    /// Scratch memory of products, one for each thread.
    pub(super) scratch: Vec<Array>,
    /// Time spent in each step, by its number, while it is measured.
    pub(super) times: Option<Vec<Duration>>,
}

/// The steps of a program.
pub(super) struct Steps {
    program: Arc<Program>,
    steps: Vec<Loaded>,
    /// Pointers of all steps' parameters, one after another.
    pointers: Vec<*mut u8>,
    /// The number of each step in the whole program.
    numbers: Vec<usize>,
}

/// A step ready to run.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each step, and products are what most time goes to"
)]
enum Loaded {
    Loop {
        function: LoopFunction,
        pointers: usize,
        outermost: usize,
        parts: usize,
        checks: bool,
    },
    Product(Product),
    /// Two products over one matrix at one go: the first reads it, the second, which is the step that follows, adds to it.
    Pair {
        plan: PairPlan,
        products: [Product; 2],
    },
    /// The second of a pair.
    InPair,
    Random {
        pointers: usize,
        parts: usize,
    },
    Scan {
        scan: Box<Scan>,
        pointers: usize,
    },
    /// A whole loop as one function.
    Native {
        function: LoopFunction,
        pointers: usize,
        steps: usize,
    },
}

/// A product ready to run: its plan, its first pointer, and its right side if that is packed.
struct Product {
    plan: ProductPlan,
    pointers: usize,
    packed: Option<*const u8>,
}

/// A loop over steps ready to run.
struct Scan {
    steps: usize,
    body: Steps,
    packings: Vec<Packing>,
    /// Pointers of the body as they are in the first step.
    begins: Vec<Pointer>,
    /// Pointers that lead to another parameter from the second step on; set one distance short.
    switches: Vec<Pointer>,
    /// Pointers that move, and the distances in bytes.
    moves: Vec<(usize, isize)>,
    /// Where the condition is.
    until: Option<(u16, usize)>,
    made: Option<u16>,
    /// The stacked outputs: parameter and bytes of a row.
    rows: Vec<(u16, usize)>,
    /// Outputs whose last row is copied: its parameter, its bytes, to which parameter.
    kept: Vec<(u16, usize, u16)>,
}

/// Where a pointer of a loop's body leads: a parameter of the loop and bytes from its beginning.
struct Pointer {
    slot: usize,
    param: u16,
    offset: isize,
}

/// The right side of products in a loop, packed when the loop begins.
struct Packing {
    plan: PackPlan,
    /// Where the matrix lies: a parameter of the loop and bytes from its beginning.
    param: u16,
    offset: isize,
    packed: *mut u8,
}

/// The same, where it is not yet known which loop does it: the matrix lies in a place of the program being loaded.
struct Wanted {
    plan: PackPlan,
    place: Place,
    offset: isize,
    packed: *mut u8,
}

/// Loads a program and the bodies of its loops.
pub(super) struct Loader<'a> {
    features: &'a Features,
    pool: &'a Pool,
    /// Functions of the units in the order of [`units`].
    functions: std::slice::Iter<'a, usize>,
    /// The number of the next step.
    number: usize,
    /// Scratch memory that a product needs.
    pub(super) scratch_bytes: usize,
    /// Memory of packed matrices.
    pub(super) packed: Vec<Array>,
}

/// A program as it is loaded.
pub(super) struct Routine {
    pub(super) steps: Steps,
    /// The place that each pointer leads to, but for constants.
    pub(super) places: Vec<(usize, Place)>,
    wanted: Vec<Wanted>,
}

/// What of a program, and of the bodies in it, becomes a function.
pub(super) fn units<'p>(program: &'p Program, features: &Features) -> Vec<Unit<'p>> {
    let mut list = Vec::new();
    for step in &program.steps {
        match &step.kernel {
            Kernel::Loop(kernel) => list.push(Unit::Kernel(kernel)),
            Kernel::Scan(kernel) if native::is_native(kernel, features) => list.push(Unit::Loop(kernel)),
            Kernel::Scan(kernel) => list.extend(units(&kernel.body, features)),
            Kernel::Product(_) | Kernel::Random(_) => {}
        }
    }
    list
}

impl<'a> Loader<'a> {
    /// A loader for a program with the addresses of the functions of its [`units`].
    pub(super) fn new(features: &'a Features, pool: &'a Pool, addresses: &'a [usize]) -> Loader<'a> {
        let functions = addresses.iter();
        Loader { features, pool, functions, number: 0, scratch_bytes: 0, packed: Vec::new() }
    }

    /// Loads a program that is run as often in a call. `stays` gives the number of runs in which an input is the same, one
    /// after another; 1 if it changes from one to the next.
    pub(super) fn load(
        &mut self,
        program: &Arc<Program>,
        runs: usize,
        stays: &dyn Fn(usize) -> usize,
    ) -> Result<Routine, CodeError> {
        let mut steps =
            Steps { program: program.clone(), steps: Vec::new(), pointers: Vec::new(), numbers: Vec::new() };
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        for step in &program.steps {
            steps.numbers.push(self.number);
            self.number += 1;
            let pointers = steps.pointers.len();
            let place = |param: u16| &program.buffers[step.arguments[usize::from(param)].index()].place;
            for argument in &step.arguments {
                let pointer = match &program.buffers[argument.index()].place {
                    Place::Constant(index) => program.constants[*index].bytes().as_ptr().cast_mut(),
                    place => {
                        places.push((steps.pointers.len(), place.clone()));
                        std::ptr::null_mut()
                    }
                };
                steps.pointers.push(pointer);
            }
            let stays = |place: &Place| match place {
                Place::Constant(_) => runs,
                Place::Input(index) => stays(*index),
                Place::Shared(_) | Place::Output(_) | Place::Arena(_) => 1,
            };
            steps.steps.push(match &step.kernel {
                Kernel::Loop(kernel) => {
                    let function = self.function()?;
                    let outermost = kernel.extents.first().copied().unwrap_or(1);
                    let checks = step.kernel.checks_indices() || !kernel.starts.is_empty();
                    Loaded::Loop { function, pointers, outermost, parts: parts(kernel), checks }
                }
                Kernel::Product(product) => {
                    let shape = product_shape(product);
                    let b = place(product.b.param);
                    let packed = pays_to_pack(product, stays(b))
                        .then(|| self.want(&mut wanted, product, b.clone()))
                        .flatten();
                    let shape = ProductShape { b_packed: packed.is_some(), ..shape };
                    let plan = ProductPlan::new(shape, self.features, self.pool.threads());
                    self.scratch_bytes = self.scratch_bytes.max(plan.scratch_bytes());
                    Loaded::Product(Product { plan, pointers, packed: packed.map(<*mut u8>::cast_const) })
                }
                Kernel::Random(random) => {
                    let parts = if random.len() < PART_WORK { 1 } else { PARTS };
                    Loaded::Random { pointers, parts }
                }
                Kernel::Scan(kernel) if native::is_native(kernel, self.features) => {
                    self.number += kernel.body.count();
                    let function = self.function()?;
                    Loaded::Native { function, pointers, steps: kernel.steps }
                }
                Kernel::Scan(kernel) => {
                    let (mut scan, inner) = self.scan(kernel, runs, &|param| stays(place(param)))?;
                    for Packing { plan, param, offset, packed } in inner {
                        if stays(place(param)) > 1 {
                            wanted.push(Wanted { plan, place: place(param).clone(), offset, packed });
                        } else {
                            scan.packings.push(Packing { plan, param, offset, packed });
                        }
                    }
                    Loaded::Scan { scan: Box::new(scan), pointers }
                }
            });
        }
        steps.pair();
        // Constants are packed once and for all.
        wanted.retain(|wanted| match wanted.place {
            Place::Constant(index) => {
                run_packing(
                    &wanted.plan,
                    program.constants[index].bytes().as_ptr().wrapping_offset(wanted.offset),
                    wanted.packed,
                    self.pool,
                );
                false
            }
            Place::Input(_) | Place::Shared(_) | Place::Output(_) | Place::Arena(_) => true,
        });
        Ok(Routine { steps, places, wanted })
    }

    /// The function of the next unit.
    fn function(&mut self) -> Result<LoopFunction, CodeError> {
        let missing = || CodeError::Code("a step has no function".into());
        let address = self.functions.next().copied().ok_or_else(missing)?;
        // SAFETY: the address is that of a function compiled with this signature; units are loaded in the order in which
        // they were compiled.
        Ok(unsafe { std::mem::transmute::<usize, LoopFunction>(address) })
    }

    /// Memory for the packed right side of a product, which is added to those wanted unless it is there. Where the system
    /// gives none the product reads the matrix as it lies.
    fn want(&mut self, wanted: &mut Vec<Wanted>, product: &ProductKernel, place: Place) -> Option<*mut u8> {
        let shape = product_shape(product);
        let plan = PackPlan::new(shape.dtype, shape.k, shape.n, shape.b, self.features);
        let offset = (product.b.position.offset * product.dtype.size() as i64) as isize;
        let known = wanted.iter().find(|w| w.plan == plan && w.place == place && w.offset == offset);
        if let Some(known) = known {
            return Some(known.packed);
        }
        let mut memory = Array::zeros(DType::U8, &[plan.packed_bytes()]).ok()?;
        let packed = memory.bytes_mut().as_mut_ptr();
        self.packed.push(memory);
        wanted.push(Wanted { plan, place, offset, packed });
        Some(packed)
    }

    /// Loads a loop that is run as often, with parameters that are the same in as many runs; returns as well what is to be
    /// packed before it.
    fn scan(
        &mut self,
        kernel: &ScanKernel,
        runs: usize,
        outside: &dyn Fn(u16) -> usize,
    ) -> Result<(Scan, Vec<Packing>), CodeError> {
        let stays = |input: usize| match kernel.inputs.get(input) {
            Some(input) if input.stride == 0 => kernel.steps.saturating_mul(outside(input.param)),
            Some(_) | None => 1,
        };
        let Routine { steps: body, places, wanted } =
            self.load(&kernel.body, runs.saturating_mul(kernel.steps), &stays)?;
        let missing = |place: &Place| CodeError::Code(format!("{place:?} of a loop's body lies nowhere"));
        let packings = wanted.into_iter().map(|wanted| {
            let Wanted { plan, place, offset, packed } = wanted;
            let (param, begin) = kernel.locate(&place, 0).ok_or_else(|| missing(&place))?;
            Ok(Packing { plan, param, offset: offset + begin as isize, packed })
        });
        let packings = packings.collect::<Result<_, CodeError>>()?;
        let (mut begins, mut switches, mut moves) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, place) in places {
            let at = |step: usize| kernel.locate(&place, step).ok_or_else(|| missing(&place));
            let ((param, begin), second, third) = (at(0)?, at(1)?, at(2)?);
            begins.push(Pointer { slot, param, offset: begin as isize });
            let distance = (third.1 - second.1) as isize;
            if second.0 != param {
                switches.push(Pointer { slot, param: second.0, offset: second.1 as isize - distance });
            }
            if distance != 0 {
                moves.push((slot, distance));
            }
        }
        let size = |param: u16| kernel.params[usize::from(param)].dtype.size();
        let rows = kernel.rows.iter().map(|row| (row.param, row.stride as usize * size(row.param)));
        let kept = kernel.kept_rows().map(|(row, to)| (row.param, row.stride as usize * size(row.param), to));
        let scan = Scan {
            steps: kernel.steps,
            body,
            packings: Vec::new(),
            begins,
            switches,
            moves,
            until: kernel.until.as_ref().map(|until| (until.param, until.offset as usize)),
            made: kernel.made,
            rows: rows.collect(),
            kept: kept.collect(),
        };
        Ok((scan, packings))
    }
}

impl Steps {
    /// Joins products that follow each other over one matrix.
    fn pair(&mut self) {
        for index in 1..self.steps.len() {
            let [before, after] = &mut self.steps[index - 1..=index] else { continue };
            let (Loaded::Product(reads), Loaded::Product(adds)) = (before, after) else { continue };
            if !self.program.is_pair(index - 1) {
                continue;
            }
            let Some(plan) = PairPlan::new(&reads.plan, &adds.plan) else { continue };
            let products = [reads, adds].map(|product| Product { plan: product.plan.clone(), ..*product });
            self.steps[index - 1] = Loaded::Pair { plan, products };
            self.steps[index] = Loaded::InPair;
        }
    }

    /// Sets pointers; `at` gives the memory of a place.
    pub(super) fn point(&mut self, slot: usize, pointer: *mut u8) {
        self.pointers[slot] = pointer;
    }

    /// How the step of that number is carried out, in words.
    pub(super) fn describe(&self, number: usize) -> String {
        let index = self.numbers.partition_point(|n| *n <= number);
        let Some(index) = index.checked_sub(1) else { return String::new() };
        match &self.steps[index] {
            Loaded::Loop { parts, .. } => format!("loop in {parts} parts"),
            Loaded::Product(Product { plan, .. }) => plan.to_string(),
            Loaded::Pair { plan, .. } => plan.to_string(),
            Loaded::InPair => "with the step before".into(),
            Loaded::Random { parts, .. } => format!("random in {parts} parts"),
            Loaded::Scan { scan, .. } if self.numbers[index] < number => scan.body.describe(number),
            Loaded::Native { .. } if self.numbers[index] < number => "in the native loop".into(),
            Loaded::Native { steps, .. } => format!("{steps} steps, one native loop"),
            Loaded::Scan { scan, .. } => {
                let packed = scan.packings.len();
                format!("{} steps, {packed} matrices packed before", scan.steps)
            }
        }
    }

    /// Runs all steps. Every pointer was set.
    pub(super) fn run(&mut self, context: &mut Context) -> Result<(), RunError> {
        if context.times.is_some() {
            return self.run_timed(context);
        }
        for index in 0..self.steps.len() {
            self.step(index, context)?;
        }
        Ok(())
    }

    fn run_timed(&mut self, context: &mut Context) -> Result<(), RunError> {
        for index in 0..self.steps.len() {
            let begin = Instant::now();
            self.step(index, context)?;
            if let Some(time) = context.times.as_mut().and_then(|times| times.get_mut(self.numbers[index])) {
                *time += begin.elapsed();
            }
        }
        Ok(())
    }

    fn step(&mut self, index: usize, context: &mut Context) -> Result<(), RunError> {
        let Steps { program, steps, pointers: table, numbers } = self;
        let number = numbers[index];
        match &mut steps[index] {
            Loaded::Loop { function, pointers, outermost, parts, checks } => {
                run_loop(*function, &table[*pointers..], *outermost, *parts, context);
                if *checks { found(number, &mut context.reports) } else { Ok(()) }
            }
            Loaded::Product(product) => {
                let Kernel::Product(kernel) = &program.steps[index].kernel else { return Ok(()) };
                run_product(&prepare(number, kernel, product, table)?, context);
                Ok(())
            }
            Loaded::Pair { plan, products: [first, second] } => {
                let (Kernel::Product(reads), Kernel::Product(adds)) =
                    (&program.steps[index].kernel, &program.steps[index + 1].kernel)
                else {
                    return Ok(());
                };
                let first = prepare(number, reads, first, table)?;
                let second = prepare(numbers[index + 1], adds, second, table)?;
                run_pair(plan, &first, &second, context);
                Ok(())
            }
            Loaded::InPair => Ok(()),
            Loaded::Random { pointers, parts } => {
                let Kernel::Random(kernel) = &program.steps[index].kernel else { return Ok(()) };
                run_random(kernel, &table[*pointers..], *parts, context);
                Ok(())
            }
            Loaded::Scan { scan, pointers } => scan.run(&table[*pointers..], context),
            Loaded::Native { function, pointers, .. } => {
                run_loop(*function, &table[*pointers..], 0, 1, context);
                found(number, &mut context.reports)
            }
        }
    }
}

impl Scan {
    /// Makes the steps. `params` begins with the pointers of the loop's parameters.
    fn run(&mut self, params: &[*mut u8], context: &mut Context) -> Result<(), RunError> {
        let at = |param: u16, offset: isize| params[usize::from(param)].wrapping_offset(offset);
        for Packing { plan, param, offset, packed } in &self.packings {
            run_packing(plan, at(*param, *offset), *packed, &context.pool);
        }
        for Pointer { slot, param, offset } in &self.begins {
            self.body.pointers[*slot] = at(*param, *offset);
        }
        let mut made = 0;
        while made < self.steps {
            if made == 1 {
                for Pointer { slot, param, offset } in &self.switches {
                    self.body.pointers[*slot] = at(*param, *offset);
                }
            }
            if made > 0 {
                for (slot, distance) in &self.moves {
                    let pointer = &mut self.body.pointers[*slot];
                    *pointer = pointer.wrapping_offset(*distance);
                }
            }
            self.body.run(context)?;
            made += 1;
            // SAFETY: the condition is a byte of the parameter (`kernel::verify`), which the step has written.
            if self.until.is_some_and(|(param, offset)| unsafe { *at(param, offset as isize) } != 0) {
                break;
            }
        }
        if let Some(last) = made.checked_sub(1) {
            for &(param, bytes) in &self.rows {
                let rows = params[usize::from(param)];
                for row in made..self.steps {
                    // SAFETY: the parameter holds a row for each step, and no two rows overlap.
                    unsafe {
                        let from = rows.wrapping_add(last * bytes);
                        std::ptr::copy_nonoverlapping(from, rows.wrapping_add(row * bytes), bytes);
                    }
                }
            }
            for &(from, bytes, to) in &self.kept {
                // SAFETY: both parameters hold a row, and the plan keeps parameters apart.
                unsafe {
                    let from = params[usize::from(from)].wrapping_add(last * bytes);
                    std::ptr::copy_nonoverlapping(from, params[usize::from(to)], bytes);
                }
            }
        }
        if let Some(param) = self.made {
            // SAFETY: the parameter is a buffer with at least one `i64`.
            unsafe { params[usize::from(param)].cast::<i64>().write(made as i64) };
        }
        Ok(())
    }
}

/// The index that a step found out of range.
fn found(step: usize, reports: &mut [Report]) -> Result<(), RunError> {
    let Some(report) = reports.iter_mut().find(|report| report[0] != 0) else { return Ok(()) };
    let [raised, value, check] = *report;
    reports.fill([0; 3]);
    let step = step + (raised - 1) as usize;
    Err(RunError::OutOfRange(OutOfRange { step, value, check: check as usize }))
}

fn run_loop(
    function: LoopFunction,
    pointers: &[*mut u8],
    outermost: usize,
    parts: usize,
    context: &mut Context,
) {
    let pointers = pointers.as_ptr();
    let reports = context.reports.as_mut_ptr();
    if parts == 1 || context.pool.threads() == 1 {
        // SAFETY: `pointers` leads to one pointer for each parameter, each to memory of the parameter's size that
        // the plan keeps apart from what else is live; the kernel's addresses lie inside (`kernel::verify`). There is a
        // report for every thread.
        unsafe { function(pointers, 0, outermost as i64, reports) };
        return;
    }
    let shared = &Pointers { pointers, reports };
    context.pool.run(parts, &move |part, thread| {
        let range = |p: usize| (outermost * p / parts) as i64;
        // SAFETY: as above; parts write disjoint ranges of the outermost axis, which no store folds over, and
        // each thread has a report of its own (`thread` is below the number of reports).
        unsafe { function(shared.pointers, range(part), range(part + 1), shared.reports.add(thread)) };
    });
}

fn run_random(kernel: &RandomKernel, pointers: &[*mut u8], parts: usize, context: &Context) {
    // SAFETY: the parameter of the counter is a buffer with at least one `i64` (`kernel::verify`).
    let counter = unsafe { pointers[usize::from(kernel.counter)].cast::<i64>().read() };
    let out = Out(pointers[usize::from(kernel.out)].cast::<f32>());
    let out = &out;
    let len = kernel.len();
    let blocks = len.div_ceil(random::ELEMENTS);
    let features = &context.features;
    context.pool.run(parts, &move |part, _| {
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

/// Into how many parts a loop step is divided: by its outermost axis if no fold runs over it and the work is enough.
fn parts(kernel: &LoopKernel) -> usize {
    let iterations = kernel.extents.iter().fold(1usize, |count, extent| count.saturating_mul(*extent));
    let work = iterations.saturating_mul(kernel.body.len().max(4)) / 4;
    let in_order = kernel.stores.iter().any(|s| matches!(s.kind, StoreKind::At { .. }));
    match (kernel.extents.first(), kernel.reduced.first()) {
        (Some(extent), Some(false)) if !in_order && work >= PART_WORK => PARTS.min(*extent).max(1),
        _ => 1,
    }
}

/// Whether to pack the right side of a product that is run so often with the same one.
fn pays_to_pack(product: &ProductKernel, runs: usize) -> bool {
    let stays = product.batch == 1 && product.b.position.starts.is_empty();
    stays && runs >= PACKED_STEPS && product.m > 0 && product.k.saturating_mul(product.n) >= PACKED_ELEMENTS
}

/// What a product is planned for, with a right side as it lies.
pub(super) fn product_shape(kernel: &ProductKernel) -> ProductShape {
    ProductShape {
        dtype: if kernel.dtype == DType::F32 { Float::F32 } else { Float::F64 },
        m: kernel.m,
        n: kernel.n,
        k: kernel.k,
        a: [kernel.a.row_stride as isize, kernel.a.column_stride as isize],
        b: [kernel.b.row_stride as isize, kernel.b.column_stride as isize],
        b_packed: false,
        c_row: kernel.c.row_stride as isize,
        accumulate: kernel.beta != Scale::Constant(0.0),
        batch: Batch {
            count: kernel.batch,
            a: kernel.a.batch_stride as isize,
            b: kernel.b.batch_stride as isize,
            c: kernel.c.batch_stride as isize,
        },
    }
}

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

/// Looks up where the factors of a product begin.
fn prepare<'a>(
    number: usize,
    kernel: &ProductKernel,
    product: &'a Product,
    table: &[*mut u8],
) -> Result<Prepared<'a>, RunError> {
    let pointers = &table[product.pointers..];
    // Windows of windows have any number of starts; eight stand without allocating.
    let mut starts: SmallVec<[i64; 8]> = SmallVec::new();
    for (check, start) in kernel.starts.iter().enumerate() {
        // SAFETY: the parameter of a start is a buffer with at least one `i64`.
        let given = unsafe { pointers[usize::from(start.param)].cast::<i64>().read() };
        let found = OutOfRange { step: number, value: given, check };
        let position = start.check().position(given).ok_or(RunError::OutOfRange(found))?;
        starts.push(position as i64);
    }
    let size = kernel.dtype.size() as isize;
    let at = |param: u16, position: &Affine| {
        let moved: i64 = position.starts.iter().map(|(s, c)| starts[usize::from(*s)] * c).sum();
        pointers[usize::from(param)].wrapping_offset((position.offset + moved) as isize * size)
    };
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
        plan: &product.plan,
        a: at(kernel.a.param, &kernel.a.position),
        b: product.packed.unwrap_or_else(|| at(kernel.b.param, &kernel.b.position)),
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
        // the packed form of B, which was made when the loop began; the program keeps C apart from A and B; the pool
        // gives each thread at work its own number, below the scratch's.
        unsafe {
            let scratch = (*scratch.add(thread)).bytes_mut().as_mut_ptr();
            plan.run_part(part, *a, *b, *c, *alpha, *beta, scratch);
        }
    };
    context.pool.run(product.plan.parts(), &run);
}

/// Runs two products over one matrix.
fn run_pair(plan: &PairPlan, reads: &Prepared<'_>, adds: &Prepared<'_>, context: &Context) {
    let factors = [[reads.alpha, reads.beta], [adds.alpha, adds.beta]];
    let operands = PairOperands { d: reads.a, x: adds.a, w: adds.c, back: reads.c, factors };
    // SAFETY: as for one product; the program keeps the matrix apart from what else is read, and the first result from all
    // that the second step has (`Program::is_pair`).
    unsafe { plan.run_raw(&operands, &context.pool) };
}
