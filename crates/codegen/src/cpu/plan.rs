//! What the processor does for a program: a value, made before any code is.
//!
//! A [`Plan`] says of each step which function runs it, in how many parts, how a product is computed and whether together with
//! the next; which right sides of products are packed, and before which scan; and which scans are one function
//! (`native`). Each parameter of each step has a slot in one table of pointers, and the plan says what it leads to: a
//! constant, a place of the program, or a parameter of the scan around it. Emission goes over the plan's functions; loading
//! binds its numbers to addresses.
//!
//! Always true (see `verify`): what is numbered exists; a function computes the kernel of each step that it runs, and calls
//! only functions before it; every slot is set by one thing, before it is read; a matrix is packed once, around all
//! products that read its packed form.
//!
//! Deliberately absent: addresses and machine code.

mod native;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use hypatia_graph::{Array, Broken, DType, broken};
use hypatia_kernels::convolution::{ConvolutionPlan, ConvolutionShape};
use hypatia_kernels::features::Features;
use hypatia_kernels::product::{Batch, Float, PackPlan, PairPlan, ProductPlan, ProductShape};

use crate::kernel::{
    ConvolutionKernel, Element, Kernel, LoopKernel, Place, ProductKernel, Program, RandomKernel, Scale,
    ScanKernel, Step, StoreKind,
};

/// Iterations below which a step is not worth a second thread.
const PART_WORK: usize = 1 << 14;

/// Parts of a step, however many threads there are.
const PARTS: usize = 8;

/// Steps of a scan from which packing the right side of a product beforehand pays.
const PACKED_STEPS: usize = 4;

/// Elements of a right side that are worth packing.
const PACKED_ELEMENTS: usize = 1 << 10;

/// A function, by its position in the plan's list.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct FunctionId(pub(super) usize);

/// A packed matrix, by its position in the plan's list.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct PackedId(pub(super) usize);

/// A pointer, by its position in the table.
pub(super) type Slot = usize;

/// How a program runs on a processor with some number of threads.
pub struct Plan {
    pub(super) program: Arc<Program>,
    pub(super) features: Features,
    /// Functions come after those that they call.
    pub(super) functions: Vec<Function>,
    pub(super) packed: Vec<PackPlan>,
    pub(super) steps: Vec<Planned>,
    /// The length of the table of pointers.
    pub(super) slots: usize,
    /// Slots that lead to constants.
    pub(super) constants: Vec<(Slot, Arc<Array>)>,
    /// Slots that lead to arguments, variables, results and the arena.
    pub(super) places: Vec<(Slot, Place)>,
    /// Constants that are packed when the program is loaded, with the bytes to where the matrix begins.
    pub(super) packed_constants: Vec<(PackedId, Arc<Array>, isize)>,
    /// Scratch memory that a product or a convolution needs.
    pub(super) scratch_bytes: usize,
}

/// What becomes a function of its own, by the number of the step. Equal kernels are one function.
pub(super) enum Function {
    /// A loop kernel.
    Kernel(usize),
    /// A scan, with how the steps of its body are carried out.
    Scan(usize, Vec<Inline>),
}

/// How a step in a native scan is carried out.
pub(super) enum Inline {
    /// A call of its function, which has wider vectors.
    Call(FunctionId),
    /// The kernel inline, its loops unrolled or not.
    Kernel {
        /// Whether no loop of the kernel is to be one.
        unrolled: bool,
    },
    /// The product inline, on vectors of as many lanes.
    Product {
        /// 1 for single elements.
        lanes: usize,
    },
    /// A scan inline, with the steps of its body.
    Scan(Vec<Inline>),
}

/// A step of a program or of a scan's body.
pub(super) struct Planned {
    /// Its number in the whole program (see [`Program::step`]).
    pub(super) number: usize,
    /// The slot of its first parameter.
    pub(super) slots: Slot,
    pub(super) action: Action,
}

/// How a step is carried out.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each step, and products are what most time goes to"
)]
pub(super) enum Action {
    /// A loop kernel.
    Loop { function: FunctionId, outermost: usize, parts: usize, checks: bool },
    /// A product.
    Product(Product),
    /// Two products over one matrix at one go: the first reads it, the second, which is the step that follows, adds to it.
    Pair { plan: PairPlan, products: Box<[Product; 2]> },
    /// The second of a pair.
    InPair,
    /// A convolution.
    Convolution { kernel: ConvolutionKernel, plan: ConvolutionPlan },
    /// Random numbers.
    Random { kernel: RandomKernel, parts: usize },
    /// A scan.
    Scan(Box<Scan>),
    /// A scan as one function.
    Native { function: FunctionId, steps: usize },
}

/// A product: how it is computed, and its right side if that is packed.
#[derive(Clone)]
pub(super) struct Product {
    pub(super) number: usize,
    pub(super) slots: Slot,
    pub(super) kernel: ProductKernel,
    pub(super) plan: ProductPlan,
    pub(super) packed: Option<PackedId>,
}

/// A scan, run step by step.
pub(super) struct Scan {
    pub(super) steps: usize,
    pub(super) body: Vec<Planned>,
    /// Matrices that are packed when the scan begins.
    pub(super) packings: Vec<(PackedId, Target)>,
    /// Pointers of the body as they are in the first step.
    pub(super) begins: Vec<(Slot, Target)>,
    /// Pointers that lead to another parameter from the second step on; set one distance short.
    pub(super) switches: Vec<(Slot, Target)>,
    /// Pointers that move, and the distances in bytes.
    pub(super) moves: Vec<(Slot, isize)>,
    /// Where the condition is.
    pub(super) until: Option<Target>,
    /// The parameter that gets the number of steps made.
    pub(super) made: Option<Slot>,
    /// The stacked outputs: parameter and bytes of a row.
    pub(super) rows: Vec<(Slot, usize)>,
    /// Outputs whose last row is copied: its parameter, its bytes, to which parameter.
    pub(super) kept: Vec<(Slot, usize, Slot)>,
}

/// Where a pointer of a scan leads: as many bytes from where a parameter of the scan begins.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) slot: Slot,
    pub(super) offset: isize,
}

impl Plan {
    /// Plans a program for a processor and a number of threads.
    ///
    /// # Errors
    /// A program that breaks an invariant of its form, on which code relies (see [`crate::kernel::verify`]).
    pub fn new(program: Arc<Program>, features: &Features, threads: usize) -> Result<Plan, Broken> {
        crate::kernel::verify::verify(&program)?;
        let mut planner = Planner {
            features,
            threads,
            known: HashMap::new(),
            functions: Vec::new(),
            packed: Vec::new(),
            slots: 0,
            constants: Vec::new(),
            packed_constants: Vec::new(),
            scratch_bytes: 0,
        };
        let Routine { steps, places, wanted } =
            planner.program(&program, 0, 1, &|_| 1).map_err(|broken| broken.with_input(&*program))?;
        if let Some(wanted) = wanted.first() {
            return Err(broken!("matrices packed around a scan", wanted.plan).with_input(&*program));
        }
        let Planner { functions, packed, slots, constants, packed_constants, scratch_bytes, .. } = planner;
        let plan = Plan {
            program,
            features: features.clone(),
            functions,
            packed,
            steps,
            slots,
            constants,
            places,
            packed_constants,
            scratch_bytes,
        };
        plan.verify().map_err(|broken| broken.with_input(&plan))?;
        Ok(plan)
    }

    /// How the step of that number is carried out, in words.
    pub fn describe(&self, number: usize) -> String {
        let mut steps = &self.steps;
        loop {
            let Some(index) = steps.partition_point(|step| step.number <= number).checked_sub(1) else {
                return "no such step".into();
            };
            let step = &steps[index];
            match &step.action {
                Action::Scan(scan) if step.number < number => steps = &scan.body,
                Action::Native { .. } if step.number < number => return "in the native scan".into(),
                action => return action.to_string(),
            }
        }
    }
}

/// A program while the plan is made.
#[derive(Default)]
struct Routine {
    steps: Vec<Planned>,
    /// The place that each pointer leads to, but for constants.
    places: Vec<(Slot, Place)>,
    /// Matrices that a scan around the program is to pack.
    wanted: Vec<Wanted<Place>>,
}

/// A matrix to be packed before a scan: its place in the program that is being planned, or the scan's parameter, and the bytes
/// to where it begins.
struct Wanted<P> {
    id: PackedId,
    plan: PackPlan,
    place: P,
    offset: isize,
}

struct Planner<'p> {
    features: &'p Features,
    threads: usize,
    known: HashMap<&'p LoopKernel, FunctionId>,
    functions: Vec<Function>,
    packed: Vec<PackPlan>,
    slots: usize,
    constants: Vec<(Slot, Arc<Array>)>,
    packed_constants: Vec<(PackedId, Arc<Array>, isize)>,
    scratch_bytes: usize,
}

impl<'p> Planner<'p> {
    /// Plans a program that is run as often in a call, and whose first step has that number. `stays` gives the number of runs
    /// in which an input is the same, one after another; 1 if it changes from one to the next.
    fn program(
        &mut self,
        program: &'p Program,
        first: usize,
        runs: usize,
        stays: &dyn Fn(usize) -> usize,
    ) -> Result<Routine, Broken> {
        let mut routine = Routine::default();
        let mut number = first;
        for step in &program.steps {
            let slots = self.slots;
            self.slots += step.arguments.len();
            let place = |param: u16| &program.buffers[step.arguments[usize::from(param)].index()].place;
            for (slot, argument) in (slots..).zip(&step.arguments) {
                match &program.buffers[argument.index()].place {
                    Place::Constant(index) => self.constants.push((slot, program.constants[*index].clone())),
                    place => routine.places.push((slot, place.clone())),
                }
            }
            let stays = |place: &Place| match place {
                Place::Constant(_) => runs,
                Place::Input(index) => stays(*index),
                Place::Shared(_) | Place::Output(_) | Place::Arena(_) => 1,
            };
            let action = match &step.kernel {
                Kernel::Loop(kernel) => Action::Loop {
                    function: self.kernel(kernel, number),
                    outermost: kernel.extents.first().copied().unwrap_or(1),
                    parts: parts(kernel),
                    checks: step.kernel.checks_indices() || !kernel.starts.is_empty(),
                },
                Kernel::Product(kernel) => {
                    let b = place(kernel.b.param);
                    let packed =
                        pays_to_pack(kernel, stays(b)).then(|| self.pack(kernel, b, &mut routine.wanted));
                    let shape = ProductShape { b_packed: packed.is_some(), ..product_shape(kernel) };
                    let plan = ProductPlan::new(shape, self.features, self.threads);
                    self.scratch_bytes = self.scratch_bytes.max(plan.scratch_bytes());
                    Action::Product(Product { number, slots, kernel: kernel.clone(), plan, packed })
                }
                Kernel::Convolution(kernel) => {
                    let plan = ConvolutionPlan::new(convolution_shape(kernel), self.features, self.threads);
                    self.scratch_bytes = self.scratch_bytes.max(plan.scratch_bytes());
                    Action::Convolution { kernel: kernel.clone(), plan }
                }
                Kernel::Random(kernel) => {
                    let parts = if kernel.len() < PART_WORK { 1 } else { PARTS };
                    Action::Random { kernel: kernel.clone(), parts }
                }
                Kernel::Scan(kernel) => match self.native(kernel, number) {
                    Some(function) => Action::Native { function, steps: kernel.steps },
                    None => {
                        let (mut scan, inner) =
                            self.scan(kernel, number, slots, runs, &|param| stays(place(param)))?;
                        for Wanted { id, plan, place: param, offset } in inner {
                            if stays(place(param)) > 1 {
                                routine.wanted.push(Wanted { id, plan, place: place(param).clone(), offset });
                            } else {
                                scan.packings.push((id, Target { slot: slots + usize::from(param), offset }));
                            }
                        }
                        Action::Scan(Box::new(scan))
                    }
                },
            };
            routine.steps.push(Planned { number, slots, action });
            number += step.count();
        }
        pair(program, &mut routine.steps);
        // Constants are packed once and for all.
        routine.wanted.retain(|wanted| match wanted.place {
            Place::Constant(index) => {
                let constant = program.constants[index].clone();
                self.packed_constants.push((wanted.id, constant, wanted.offset));
                false
            }
            Place::Input(_) | Place::Shared(_) | Place::Output(_) | Place::Arena(_) => true,
        });
        Ok(routine)
    }

    /// The function of a kernel, which is that of the step.
    fn kernel(&mut self, kernel: &'p LoopKernel, step: usize) -> FunctionId {
        let next = FunctionId(self.functions.len());
        let id = *self.known.entry(kernel).or_insert(next);
        if id == next {
            self.functions.push(Function::Kernel(step));
        }
        id
    }

    /// Has the right side of a product packed, unless that is wanted already.
    fn pack(&mut self, product: &ProductKernel, place: &Place, wanted: &mut Vec<Wanted<Place>>) -> PackedId {
        let plan = pack_plan(product, self.features);
        let offset = (product.b.position.offset * product.dtype.size() as i64) as isize;
        let known = wanted.iter().find(|w| w.plan == plan && w.place == *place && w.offset == offset);
        if let Some(known) = known {
            return known.id;
        }
        let id = PackedId(self.packed.len());
        self.packed.push(plan.clone());
        wanted.push(Wanted { id, plan, place: place.clone(), offset });
        id
    }

    /// Plans a scan that is run as often, whose parameters have the slots from `first` on and are the same in as many runs;
    /// gives as well what is to be packed before it.
    fn scan(
        &mut self,
        kernel: &'p ScanKernel,
        number: usize,
        first: Slot,
        runs: usize,
        outside: &dyn Fn(u16) -> usize,
    ) -> Result<(Scan, Vec<Wanted<u16>>), Broken> {
        let stays = |input: usize| match kernel.inputs.get(input) {
            Some(input) if input.stride == 0 => kernel.steps.saturating_mul(outside(input.param)),
            Some(_) | None => 1,
        };
        let Routine { steps: body, places, wanted } =
            self.program(&kernel.body, number + 1, runs.saturating_mul(kernel.steps), &stays)?;
        let slot = |param: u16| first + usize::from(param);
        let locate = |place: &Place, step: usize| {
            kernel.locate(place, step).ok_or_else(|| broken!("a parameter of the scan that holds {place:?}"))
        };
        let wanted = wanted.into_iter().map(|Wanted { id, plan, place, offset }| {
            let (param, begin) = locate(&place, 0)?;
            Ok(Wanted { id, plan, place: param, offset: offset + begin as isize })
        });
        let wanted = wanted.collect::<Result<_, Broken>>()?;
        let (mut begins, mut switches, mut moves) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, place) in places {
            let at = |step: usize| {
                locate(&place, step).map(|(param, offset)| Target {
                    slot: first + usize::from(param),
                    offset: offset as isize,
                })
            };
            let (begin, second, third) = (at(0)?, at(1)?, at(2)?);
            begins.push((slot, begin));
            let distance = third.offset - second.offset;
            if second.slot != begin.slot {
                switches.push((slot, Target { offset: second.offset - distance, ..second }));
            }
            if distance != 0 {
                moves.push((slot, distance));
            }
        }
        let size = |param: u16| kernel.params[usize::from(param)].dtype.size();
        let rows = kernel.rows.iter().map(|row| (slot(row.param), row.stride as usize * size(row.param)));
        let kept = kernel
            .kept_rows()
            .map(|(row, to)| (slot(row.param), row.stride as usize * size(row.param), slot(to)));
        let until = |until: &Element| Target { slot: slot(until.param), offset: until.offset as isize };
        let scan = Scan {
            steps: kernel.steps,
            body,
            packings: Vec::new(),
            begins,
            switches,
            moves,
            until: kernel.until.as_ref().map(until),
            made: kernel.made.map(slot),
            rows: rows.collect(),
            kept: kept.collect(),
        };
        Ok((scan, wanted))
    }
}

/// Joins products that follow each other over one matrix.
fn pair(program: &Program, steps: &mut [Planned]) {
    for index in 1..steps.len() {
        let [before, after] = &steps[index - 1..=index] else { continue };
        let (Action::Product(reads), Action::Product(adds)) = (&before.action, &after.action) else {
            continue;
        };
        if !program.is_pair(index - 1) {
            continue;
        }
        let Some(plan) = PairPlan::new(&reads.plan, &adds.plan) else { continue };
        let products = Box::new([reads.clone(), adds.clone()]);
        steps[index - 1].action = Action::Pair { plan, products };
        steps[index].action = Action::InPair;
    }
}

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

/// What a convolution is planned for.
fn convolution_shape(kernel: &ConvolutionKernel) -> ConvolutionShape {
    let strides = |strides: &[i64]| strides.iter().map(|stride| *stride as isize).collect();
    ConvolutionShape {
        dtype: if kernel.dtype == DType::F32 { Float::F32 } else { Float::F64 },
        lead: kernel.lead.to_vec(),
        images: kernel.images,
        filters: kernel.filters,
        channels: kernel.channels,
        axes: kernel.axes.to_vec(),
        x: strides(&kernel.x.strides),
        w: strides(&kernel.w.strides),
    }
}

/// How the right side of a product is packed.
fn pack_plan(product: &ProductKernel, features: &Features) -> PackPlan {
    let ProductShape { dtype, k, n, b, .. } = product_shape(product);
    PackPlan::new(dtype, k, n, b, features)
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

impl fmt::Display for PackedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Loop { parts, .. } => write!(f, "loop in {parts} parts"),
            Action::Product(Product { plan, .. }) => plan.fmt(f),
            Action::Pair { plan, .. } => plan.fmt(f),
            Action::Convolution { plan, .. } => plan.fmt(f),
            Action::InPair => f.write_str("with the step before"),
            Action::Random { parts, .. } => write!(f, "random in {parts} parts"),
            Action::Scan(scan) => {
                write!(f, "{} steps, {} matrices packed before", scan.steps, scan.packings.len())
            }
            Action::Native { steps, .. } => write!(f, "{steps} steps, one native scan"),
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({} steps, {} functions)", self.program.count(), self.functions.len())
    }
}

/// The functions, the packed matrices, and how each step is carried out.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, function) in self.functions.iter().enumerate() {
            match function {
                Function::Kernel(step) => writeln!(f, "f{number}: kernel of step {step}")?,
                Function::Scan(step, body) => {
                    writeln!(f, "f{number}: scan of step {step}")?;
                    show_inline(f, body, step + 1)?;
                }
            }
        }
        for (number, plan) in self.packed.iter().enumerate() {
            writeln!(f, "m{number}: {plan}")?;
        }
        for (packed, _, offset) in &self.packed_constants {
            writeln!(f, "{packed} from a constant + {offset}, once")?;
        }
        let set = self.features.instruction_set();
        writeln!(f, "{set}, {} pointers, {} bytes of scratch", self.slots, self.scratch_bytes)?;
        show_steps(f, &self.program.steps, &self.steps, 0)
    }
}

/// The steps of a native scan from that number on; the number of the next one.
fn show_inline(f: &mut fmt::Formatter<'_>, body: &[Inline], first: usize) -> Result<(), fmt::Error> {
    fn show(f: &mut fmt::Formatter<'_>, body: &[Inline], mut number: usize) -> Result<usize, fmt::Error> {
        for inline in body {
            write!(f, "  step {number}: ")?;
            number += 1;
            match inline {
                Inline::Call(function) => writeln!(f, "calls {function}")?,
                Inline::Kernel { unrolled: true } => writeln!(f, "unrolled")?,
                Inline::Kernel { unrolled: false } => writeln!(f, "inline")?,
                Inline::Product { lanes } => writeln!(f, "product of {lanes} lanes")?,
                Inline::Scan(body) => {
                    writeln!(f, "scan")?;
                    number = show(f, body, number)?;
                }
            }
        }
        Ok(number)
    }
    show(f, body, first).map(|_| ())
}

fn show_steps(f: &mut fmt::Formatter<'_>, steps: &[Step], planned: &[Planned], depth: usize) -> fmt::Result {
    let indent = 2 * depth;
    for (step, Planned { number, slots, action }) in steps.iter().zip(planned) {
        let end = slots + step.arguments.len();
        write!(f, "{:indent$}step {number}: {} at {slots}..{end}: {action}", "", step.label)?;
        match action {
            Action::Loop { function, .. } | Action::Native { function, .. } => writeln!(f, ", {function}")?,
            Action::Product(Product { packed: Some(packed), .. }) => writeln!(f, ", {packed}")?,
            Action::Product(_)
            | Action::Pair { .. }
            | Action::InPair
            | Action::Convolution { .. }
            | Action::Random { .. } => writeln!(f)?,
            Action::Scan(scan) => {
                writeln!(f)?;
                for (packed, Target { slot, offset }) in &scan.packings {
                    writeln!(f, "{:indent$}  {packed} from {slot} + {offset}", "")?;
                }
                for (slot, begin) in &scan.begins {
                    write!(f, "{:indent$}  {slot} = {} + {}", "", begin.slot, begin.offset)?;
                    if let Some((_, then)) = scan.switches.iter().find(|(other, _)| other == slot) {
                        write!(f, ", then {} + {}", then.slot, then.offset)?;
                    }
                    if let Some((_, distance)) = scan.moves.iter().find(|(other, _)| other == slot) {
                        write!(f, ", by {distance}")?;
                    }
                    writeln!(f)?;
                }
                if let Some(body) = step.kernel.body() {
                    show_steps(f, &body.steps, &scan.body, depth + 1)?;
                }
            }
        }
    }
    Ok(())
}
