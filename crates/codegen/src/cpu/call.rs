//! Running a program on the processor: the only place that calls generated code.
//!
//! Pointers are worked out when the program is loaded; a call fills in those of its arguments and runs the steps in
//! order. A call allocates nothing. Threads take parts of a step that write disjoint elements, so they change no bit.
#![allow(
    unsafe_code,
    reason = "generated code works on raw memory; the blocks argue from what the planner guarantees"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypatia_graph::{Array, DType};
use smallvec::SmallVec;

use crate::cpu::code::{Code, CodeError};
use crate::cpu::features::Features;
use crate::cpu::pool::Pool;
use crate::cpu::product::{Batch, Float, ProductPlan, ProductShape};
use crate::cpu::random;
use crate::kernel::{
    Affine, Kernel, LoopKernel, OutOfRange, Place, ProductKernel, Program, RandomKernel, RunError, Scale,
};

/// What a loop kernel's function reports: whether an index was out of range, which, and of what extent.
type Report = [i64; 3];

/// The signature of a loop kernel's function: pointers of the parameters, range of the outermost axis, report.
type LoopFunction = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut Report);

/// Iterations below which a step is not worth a second thread.
const PART_WORK: usize = 1 << 14;

/// Parts of a step, however many threads there are.
const PARTS: usize = 8;

/// A program with its machine code and memory.
pub struct CpuProgram {
    program: Arc<Program>,
    code: Code,
    steps: Vec<Loaded>,
    /// Pointers of all steps' parameters, one after another.
    pointers: Vec<*mut u8>,
    /// Which pointers depend on the arguments of a call, and on which.
    changing: Vec<(usize, Place)>,
    arena: Array,
    /// Scratch memory of products, one for each thread.
    scratch: Vec<Array>,
    reports: Vec<Report>,
    pool: Arc<Pool>,
    features: Features,
    times: Option<Vec<Duration>>,
}

// SAFETY: the pointers lead into the arena and the constants, which the value owns, or were filled in by the call that
// reads them; nothing is bound to a thread.
unsafe impl Send for CpuProgram {}

/// A step ready to run.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each step, and products are what most time goes to"
)]
enum Loaded {
    Loop { function: LoopFunction, pointers: usize, outermost: usize, parts: usize },
    Product { plan: ProductPlan, pointers: usize },
    Random { pointers: usize, parts: usize },
}

impl CpuProgram {
    /// Compiles a program for this processor.
    pub fn new(program: Arc<Program>, features: &Features, pool: Arc<Pool>) -> Result<CpuProgram, CodeError> {
        let loops = program.steps.iter().filter_map(|step| match &step.kernel {
            Kernel::Loop(kernel) => Some(kernel),
            Kernel::Product(_) | Kernel::Random(_) => None,
        });
        let code = Code::new(loops, features)?;
        let arena = Array::zeros(DType::U8, &[program.arena_bytes]);
        let mut loaded = CpuProgram {
            steps: Vec::new(),
            pointers: Vec::new(),
            changing: Vec::new(),
            arena,
            scratch: Vec::new(),
            reports: vec![[0; 3]; pool.threads()],
            pool,
            features: features.clone(),
            times: None,
            code,
            program,
        };
        loaded.load(features);
        Ok(loaded)
    }

    fn load(&mut self, features: &Features) {
        let program = self.program.clone();
        let mut functions = self.code.addresses().iter();
        let mut scratch = 0;
        for step in &program.steps {
            let pointers = self.pointers.len();
            for argument in &step.arguments {
                let place = &program.buffers[argument.index()].place;
                let pointer = match place {
                    Place::Arena(offset) => self.arena.bytes_mut()[*offset..].as_mut_ptr(),
                    Place::Constant(index) => program.constants[*index].bytes().as_ptr().cast_mut(),
                    Place::Input(_) | Place::Shared(_) | Place::Output(_) => {
                        self.changing.push((self.pointers.len(), place.clone()));
                        std::ptr::null_mut()
                    }
                };
                self.pointers.push(pointer);
            }
            self.steps.push(match &step.kernel {
                Kernel::Loop(kernel) => {
                    let address = functions.next().copied().unwrap_or_default();
                    // SAFETY: the address is that of a function compiled with this signature for this very kernel.
                    let function = unsafe { std::mem::transmute::<usize, LoopFunction>(address) };
                    let outermost = kernel.extents.first().copied().unwrap_or(1);
                    Loaded::Loop { function, pointers, outermost, parts: parts(kernel) }
                }
                Kernel::Product(product) => {
                    let plan = ProductPlan::new(product_shape(product), features);
                    scratch = scratch.max(plan.scratch_bytes());
                    Loaded::Product { plan, pointers }
                }
                Kernel::Random(random) => {
                    let parts = if random.len() < PART_WORK { 1 } else { PARTS };
                    Loaded::Random { pointers, parts }
                }
            });
        }
        self.scratch = (0..self.pool.threads()).map(|_| Array::zeros(DType::U8, &[scratch])).collect();
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Begins or ends measuring the time of each step.
    pub fn set_profiling(&mut self, on: bool) {
        self.times = on.then(|| vec![Duration::ZERO; self.steps.len()]);
    }

    /// The time spent in each step since measuring began.
    pub fn times(&self) -> Option<&[Duration]> {
        self.times.as_deref()
    }

    /// How each step is carried out, in words.
    pub fn describe(&self, step: usize) -> String {
        match self.steps.get(step) {
            Some(Loaded::Loop { parts, .. }) => format!("loop in {parts} parts"),
            Some(Loaded::Product { plan, .. }) => plan.to_string(),
            Some(Loaded::Random { parts, .. }) => format!("random in {parts} parts"),
            None => String::new(),
        }
    }

    /// Runs the steps. `inputs`, `shared` and `outputs` have the element types and shapes of the program's buffers.
    ///
    /// # Errors
    /// An index out of range; shared variables are as they were. The lists must be as long as the program's.
    pub fn run(
        &mut self,
        inputs: &[&Array],
        shared: &mut [&mut Array],
        outputs: &mut [Array],
    ) -> Result<(), RunError> {
        let fits = |array: &Array, place: &Place| {
            let buffer = self.program.buffers.iter().find(|b| b.place == *place);
            buffer.is_none_or(|b| b.dtype == array.dtype() && b.len() == array.len())
        };
        let all_fit = inputs.iter().enumerate().all(|(i, a)| fits(a, &Place::Input(i)))
            && shared.iter().enumerate().all(|(i, a)| fits(a, &Place::Shared(i)))
            && outputs.iter().enumerate().all(|(i, a)| fits(a, &Place::Output(i)));
        if !all_fit {
            return Err(RunError::Device("memory of a call is not that of the program".into()));
        }
        for (slot, place) in &self.changing {
            let pointer = match place {
                Place::Input(index) => inputs.get(*index).map(|array| array.bytes().as_ptr().cast_mut()),
                Place::Shared(index) => shared.get_mut(*index).map(|array| array.bytes_mut().as_mut_ptr()),
                Place::Output(index) => outputs.get_mut(*index).map(|array| array.bytes_mut().as_mut_ptr()),
                Place::Constant(_) | Place::Arena(_) => None,
            };
            let Some(pointer) = pointer else {
                return Err(RunError::Device("a call lacks memory that the program uses".into()));
            };
            self.pointers[*slot] = pointer;
        }
        for index in 0..self.steps.len() {
            let begin = self.times.is_some().then(Instant::now);
            self.step(index)?;
            if let (Some(times), Some(begin)) = (&mut self.times, begin) {
                times[index] += begin.elapsed();
            }
        }
        Ok(())
    }

    fn step(&mut self, index: usize) -> Result<(), RunError> {
        match &self.steps[index] {
            Loaded::Loop { function, pointers, outermost, parts } => {
                self.run_loop(index, *function, *pointers, *outermost, *parts)
            }
            Loaded::Product { plan, pointers } => {
                let Kernel::Product(kernel) = &self.program.steps[index].kernel else { return Ok(()) };
                run_product(index, kernel, plan, &self.pointers[*pointers..], &self.pool, &mut self.scratch)
            }
            Loaded::Random { pointers, parts } => {
                let Kernel::Random(kernel) = &self.program.steps[index].kernel else { return Ok(()) };
                self.run_random(kernel, &self.pointers[*pointers..], *parts);
                Ok(())
            }
        }
    }

    fn run_random(&self, kernel: &RandomKernel, pointers: &[*mut u8], parts: usize) {
        // SAFETY: the parameter of the counter is a buffer with at least one `i64` (`kernel::verify`).
        let counter = unsafe { pointers[usize::from(kernel.counter)].cast::<i64>().read() };
        let out = Out(pointers[usize::from(kernel.out)].cast::<f32>());
        let out = &out;
        let len = kernel.len();
        let blocks = len.div_ceil(random::ELEMENTS);
        let features = &self.features;
        self.pool.run(parts, &move |part, _| {
            let (first, last) = (blocks * part / parts, blocks * (part + 1) / parts);
            let (begin, end) = (first * random::ELEMENTS, (last * random::ELEMENTS).min(len));
            // SAFETY: the buffer has `len` elements, parts are disjoint ranges of it, and no other parameter of the
            // step lies in it.
            let elements = unsafe { std::slice::from_raw_parts_mut(out.0.add(begin), end - begin) };
            random::fill(features, kernel.key, counter, first as u64, elements);
        });
    }

    fn run_loop(
        &mut self,
        index: usize,
        function: LoopFunction,
        pointers: usize,
        outermost: usize,
        parts: usize,
    ) -> Result<(), RunError> {
        let threads = self.pool.threads();
        let pointers = self.pointers[pointers..].as_ptr();
        if parts == 1 || threads == 1 {
            let report = &mut self.reports[0];
            // SAFETY: `pointers` leads to one pointer for each parameter, each to memory of the parameter's size that
            // the plan keeps apart from what else is live; the kernel's addresses lie inside (`kernel::verify`).
            unsafe { function(pointers, 0, outermost as i64, report) };
        } else {
            let shared = Pointers { pointers, reports: self.reports.as_mut_ptr() };
            let shared = &shared;
            self.pool.run(parts, &move |part, thread| {
                let range = |p: usize| (outermost * p / parts) as i64;
                // SAFETY: as above; parts write disjoint ranges of the outermost axis, which no store folds over, and
                // each thread has a report of its own (`thread` is below the number of reports).
                unsafe {
                    function(shared.pointers, range(part), range(part + 1), shared.reports.add(thread))
                };
            });
        }
        match self.reports.iter_mut().find(|report| report[0] != 0) {
            None => Ok(()),
            Some(report) => {
                let [_, value, extent] = std::mem::take(report);
                self.reports.fill([0; 3]);
                Err(RunError::OutOfRange(OutOfRange { step: index, value, extent }))
            }
        }
    }
}

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

impl Drop for CpuProgram {
    fn drop(&mut self) {
        if let Some(module) = self.code.take_module() {
            // SAFETY: only `run` calls the functions, which needs the value that is being dropped.
            unsafe { module.free_memory() };
        }
    }
}

/// Into how many parts a loop step is divided: by its outermost axis if no fold runs over it and the work is enough.
fn parts(kernel: &LoopKernel) -> usize {
    let work: usize = kernel.extents.iter().product::<usize>() * kernel.body.len().max(4) / 4;
    let in_order = kernel.stores.iter().any(|s| matches!(s.kind, crate::kernel::StoreKind::At { .. }));
    match (kernel.extents.first(), kernel.reduced.first()) {
        (Some(extent), Some(false)) if !in_order && work >= PART_WORK => PARTS.min(*extent).max(1),
        _ => 1,
    }
}

fn product_shape(kernel: &ProductKernel) -> ProductShape {
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

/// Memory of a product, for all threads.
struct Factors {
    a: *const u8,
    b: *const u8,
    c: *mut u8,
    scratch: *mut Array,
}

// SAFETY: A and B are only read; parts write disjoint regions of C, and each thread its own scratch.
unsafe impl Sync for Factors {}

fn run_product(
    index: usize,
    kernel: &ProductKernel,
    plan: &ProductPlan,
    pointers: &[*mut u8],
    pool: &Pool,
    scratch: &mut [Array],
) -> Result<(), RunError> {
    // Windows of windows have any number of starts; eight stand without allocating.
    let mut starts: SmallVec<[i64; 8]> = SmallVec::new();
    for start in &kernel.starts {
        // SAFETY: the parameter of a start is a buffer with at least one `i64`.
        let given = unsafe { pointers[usize::from(start.param)].cast::<i64>().read() };
        let value = if given < 0 { given + start.extent as i64 } else { given };
        if !(0..=start.limit as i64).contains(&value) {
            let extent = start.limit as i64 + 1;
            return Err(RunError::OutOfRange(OutOfRange { step: index, value: given, extent }));
        }
        starts.push(value);
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
    let (alpha, beta) = (scale(kernel.alpha), scale(kernel.beta));
    let factors = Factors {
        a: at(kernel.a.param, &kernel.a.position),
        b: at(kernel.b.param, &kernel.b.position),
        c: at(kernel.c.param, &kernel.c.position),
        scratch: scratch.as_mut_ptr(),
    };
    let factors = &factors;
    pool.run(plan.parts(), &move |part, thread| {
        // SAFETY: strides and extents are those of the kernel, whose elements lie inside the parameters' buffers; the
        // plan keeps C apart from A and B; the pool gives each thread at work its own number, below the scratch's.
        unsafe {
            let scratch = (*factors.scratch.add(thread)).bytes_mut().as_mut_ptr();
            plan.run_part(part, factors.a, factors.b, factors.c, alpha, beta, scratch);
        }
    });
    Ok(())
}
