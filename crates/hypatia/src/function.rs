//! Compiled functions: from a request to calls.
//!
//! A [`Function`] holds an executable for each set of argument shapes it has met, as many of them as its cache has room
//! for. Where all extents are known it is compiled at once; otherwise at the first call of each new shape. Executables of one
//! function never run at one time, so they have their working memory in common. Results are borrowed from the function until
//! the next call, so that a call allocates nothing.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hypatia_codegen::cpu::call::{CpuProgram, Workspace};
use hypatia_codegen::cpu::{CodeError, Plan};
use hypatia_codegen::kernel::{OutOfRange, Place, Program, RunError};
use hypatia_codegen::opencl::OpenClProgram;
use hypatia_graph::array::{Extents, IntoArray};
use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::differentiate::{check, differentiate};
use hypatia_graph::leaf::{Leaf, LeafKind, SharedCell, SharedState};
use hypatia_graph::made::cuts;
use hypatia_graph::specialise::{Arguments, Unspecialised, specialise};
use hypatia_graph::text::Few;
use hypatia_graph::{
    Array, Broken, Diagnostic, Diagnostics, Graph, LeafId, Shared, Tensor, TensorType, broken,
};
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;
use hypatia_rewrite::{Numerics, Options, Report, Stop, simplify};
use smallvec::SmallVec;

use crate::cache::{Cache, Counts};

/// Bytes of executables that a function keeps besides the one in use, unless the builder says otherwise.
const CACHE_BYTES: usize = 64 << 20;

/// Where a function runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// This processor.
    #[default]
    Cpu,
    /// The OpenCL device with that number.
    OpenCl(usize),
}

/// A compiled function of the given inputs that returns `outputs` and then gives shared variables new values, all
/// computed from the old ones. [`Builder`] has the choices.
///
/// # Errors
/// All that is wrong with the expressions, each with the line that built it.
pub fn function(
    inputs: &[&Tensor],
    outputs: &[&Tensor],
    updates: &[(&Shared, Tensor)],
) -> Result<Function, Diagnostics> {
    Builder::new().inputs(inputs).outputs(outputs).updates(updates).compile()
}

/// A function with choices.
#[derive(Clone, Default)]
pub struct Builder {
    request: Request,
    defaults: HashMap<LeafId, Array>,
    /// What is wrong with values that were given.
    faults: Vec<Diagnostic>,
    numerics: Numerics,
    threads: Option<usize>,
    device: Device,
    cache_bytes: Option<usize>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("inputs", &Few(&self.request.inputs))
            .field("outputs", &Few(&self.request.outputs))
            .field("updates", &self.request.updates.len())
            .field("numerics", &self.numerics)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// A function of nothing that does nothing.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Adds inputs, in the order of the call.
    pub fn inputs(mut self, inputs: &[&Tensor]) -> Builder {
        self.request.inputs.extend(inputs.iter().map(|t| (*t).clone()));
        self
    }

    /// Adds an input with the value it takes when a call leaves it out. Such inputs come last.
    pub fn input_with_default(mut self, input: &Tensor, default: impl IntoArray) -> Builder {
        let default = match default.into_array() {
            Ok(default) => Some(default),
            Err(fault) => {
                self.faults.push(fault);
                None
            }
        };
        if let (Some(leaf), Some(default)) = (input.leaf(), default) {
            let default = if leaf.ty.dtype.is_float() && default.dtype().is_float() {
                default.cast(leaf.ty.dtype)
            } else {
                default
            };
            self.defaults.insert(leaf.id, default);
        }
        self.request.inputs.push(input.clone());
        self
    }

    /// Adds results.
    pub fn outputs(mut self, outputs: &[&Tensor]) -> Builder {
        self.request.outputs.extend(outputs.iter().map(|t| (*t).clone()));
        self
    }

    /// Adds updates of shared variables.
    pub fn updates<U: Into<Tensor> + Clone>(mut self, updates: &[(&Shared, U)]) -> Builder {
        self.request
            .updates
            .extend(updates.iter().map(|(shared, new)| ((*shared).clone(), new.clone().into())));
        self
    }

    /// Puts `replacement` in the place of an expression, wherever the function meets it.
    pub fn given(mut self, expression: &Tensor, replacement: impl Into<Tensor>) -> Builder {
        self.request.givens.push((expression.clone(), replacement.into()));
        self
    }

    /// What to do about an input that nothing depends on; an error by default.
    pub fn on_unused_input(mut self, unused: Unused) -> Builder {
        self.request.unused = unused;
        self
    }

    /// Whether formulas may be rewritten as over the real numbers (the default), or must keep every NaN.
    pub fn numerics(mut self, numerics: Numerics) -> Builder {
        self.numerics = numerics;
        self
    }

    /// How many threads a call uses; by default as many as the machine has cores. The results do not depend on it.
    pub fn threads(mut self, threads: usize) -> Builder {
        self.threads = Some(threads.max(1));
        self
    }

    /// Where it runs.
    pub fn device(mut self, device: Device) -> Builder {
        self.device = device;
        self
    }

    /// How many bytes of executables for other shapes than those of the last call the function may keep, about; 64 MiB by
    /// default. A function is compiled for each set of argument shapes (and values that extents depend on) that it meets.
    /// Where there are more than fit, the least recently used is given up, and compiled again should its shapes come back; with 0 none
    /// is kept but the last. What was compiled, kept and given up is part of the [`Profile`].
    pub fn cache_bytes(mut self, bytes: usize) -> Builder {
        self.cache_bytes = Some(bytes);
        self
    }

    /// Checks and compiles.
    ///
    /// # Errors
    /// All that is wrong with the expressions, each with the line that built it; a device that does not exist.
    pub fn compile(mut self) -> Result<Function, Diagnostics> {
        if !self.faults.is_empty() {
            return Err(Diagnostics(self.faults));
        }
        let results = self.request.outputs.len();
        let cuts = cuts(&self.request.outputs);
        self.request.outputs.extend(cuts.iter().map(|cut| cut.count.clone()));
        let cuts = cuts.iter().map(|cut| (cut.output, cut.axis)).collect();
        let graph = collect(&self.request)?;
        check(&graph)?;
        let inputs = self.request.inputs.iter().filter_map(|t| t.leaf().cloned());
        let inputs: Vec<Input> =
            inputs.map(|leaf| Input { default: self.defaults.get(&leaf.id).cloned(), leaf }).collect();
        check_defaults(&inputs)?;
        let threads =
            self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        let mut function = Function {
            graph,
            inputs,
            needs: Vec::new(),
            results,
            cuts,
            executables: Cache::new(self.cache_bytes.unwrap_or(CACHE_BYTES)),
            hasher: RandomState::new(),
            numerics: self.numerics,
            device: self.device,
            pool: pool(threads),
            profiling: false,
        };
        if function.inputs.iter().all(|input| input.leaf.ty.is_known()) {
            match function.executable(&Arguments::default()) {
                Ok(executable) => function.keep(Arguments::default(), executable),
                Err(Failure::Faults(faults)) => return Err(faults),
                Err(Failure::Needs(needs)) => function.needs = needs,
            }
        }
        Ok(function)
    }
}

fn check_defaults(inputs: &[Input]) -> Result<(), Diagnostics> {
    let wrong = inputs.iter().find_map(|input| {
        let default = input.default.as_ref()?;
        let found = TensorType::known(default.dtype(), default.shape());
        (!input.leaf.ty.accepts(&found)).then(|| {
            Diagnostic::new(format!("the default of {} has another type than the input", input.leaf.label()))
                .at(input.leaf.site)
                .with("expected", input.leaf.ty.to_string(), input.leaf.site)
                .with("found", found.to_string(), None)
        })
    });
    wrong.map_or(Ok(()), |fault| Err(fault.into()))
}

/// The pool of that many threads, shared by all functions.
fn pool(threads: usize) -> Arc<Pool> {
    static POOLS: Mutex<BTreeMap<usize, Arc<Pool>>> = Mutex::new(BTreeMap::new());
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.entry(threads).or_insert_with(|| Arc::new(Pool::new(threads))).clone()
}

#[derive(Debug)]
struct Input {
    leaf: Arc<Leaf>,
    default: Option<Array>,
}

/// A function that can be called.
pub struct Function {
    graph: Graph,
    inputs: Vec<Input>,
    /// Integer inputs whose values extents depend on.
    needs: Vec<LeafId>,
    /// The number of results. The graph gives one more for each cut: how many rows were made.
    results: usize,
    /// Results of loops that may end early, with the axis of the rows that may not have been made.
    cuts: Vec<(usize, usize)>,
    /// That of the last call is the one in use.
    executables: Cache<Arguments, Executable>,
    hasher: RandomState,
    numerics: Numerics,
    device: Device,
    pool: Arc<Pool>,
    profiling: bool,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("graph", &self.graph)
            .field("device", &self.device)
            .field("numerics", &self.numerics)
            .finish_non_exhaustive()
    }
}

/// A program for one set of argument shapes, with the memory of its results.
struct Executable {
    stages: Stages,
    engine: Engine,
    shared: Vec<Arc<SharedCell>>,
    updated: Vec<bool>,
    outputs: Vec<Array>,
    /// For each result that is cut, its memory while `outputs` has the rows made.
    whole: Vec<Option<Array>>,
}

/// What runs a program.
enum Engine {
    Cpu(Box<CpuProgram>),
    OpenCl {
        program: Box<OpenClProgram>,
        /// The device's time for each step, while profiling.
        times: Option<Vec<Duration>>,
    },
}

impl Engine {
    fn set_profiling(&mut self, on: bool) {
        match self {
            Engine::Cpu(program) => program.set_profiling(on),
            Engine::OpenCl { times, .. } => *times = on.then(Vec::new),
        }
    }

    /// Time spent in each step since profiling began.
    fn times(&self) -> Option<&[Duration]> {
        match self {
            Engine::Cpu(program) => program.times(),
            Engine::OpenCl { times, .. } => times.as_deref(),
        }
    }

    /// How a step is carried out, in words.
    fn describe(&self, step: usize) -> String {
        match self {
            Engine::Cpu(program) => program.plan().describe(step),
            Engine::OpenCl { .. } => "OpenCL".into(),
        }
    }
}

/// What a function is at each stage of its compilation, and how long that took.
#[derive(Clone)]
pub struct Stages {
    /// With every extent known.
    pub graph: Graph,
    /// With gradients taken, and simplified.
    pub simplified: Graph,
    /// What simplification did, before gradients were taken and after.
    pub report: Report,
    /// Kernels and memory.
    pub program: Arc<Program>,
    /// Time of taking gradients and simplifying, of making kernels, and of making machine code.
    pub times: [Duration; 3],
}

impl Stages {
    /// Bytes that the description holds, about.
    fn bytes(&self) -> usize {
        self.graph.bytes() + self.simplified.bytes() + self.program.bytes()
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages")
            .field("graph", &self.graph)
            .field("simplified", &self.simplified)
            .field("kernels", &self.program.steps.len())
            .field("times", &self.times)
            .finish()
    }
}

enum Failure {
    Faults(Diagnostics),
    Needs(Vec<LeafId>),
}

impl From<Diagnostics> for Failure {
    fn from(faults: Diagnostics) -> Failure {
        Failure::Faults(faults)
    }
}

/// The fault of a program whose values between steps no memory holds, at the step that makes the largest.
fn too_large(program: &Program, error: &CodeError) -> Diagnostic {
    let fault = Diagnostic::new(error.to_string());
    let buffers = program.steps.iter().flat_map(|step| {
        let written = step.arguments.iter().zip(step.kernel.params()).filter(|(_, param)| param.written);
        written.map(move |(argument, _)| (step, &program.buffers[argument.index()]))
    });
    let between = buffers.filter(|(_, buffer)| matches!(buffer.place, Place::Arena(_)));
    match between.max_by_key(|(_, buffer)| buffer.bytes()) {
        Some((step, buffer)) => {
            let found =
                format!("{}{:?}, {} bytes, of `{}`", buffer.dtype, buffer.shape, buffer.bytes(), step.label);
            fault.at(step.site).with("largest", found, None)
        }
        None => fault,
    }
}

/// Why a call failed. Shared variables are as they were before it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// Arguments are missing, too many or of a wrong type, shapes do not fit, or an index is out of range.
    #[error("{0}")]
    Arguments(Diagnostics),
    /// A device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// An invariant of the compiler does not hold.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<Diagnostic> for CallError {
    fn from(fault: Diagnostic) -> CallError {
        CallError::Arguments(fault.into())
    }
}

/// The results of a call, borrowed from the function until the next one.
#[derive(Copy, Clone)]
pub struct Outputs<'f>(&'f [Array]);

impl fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outputs").field(&Few(self.0)).finish()
    }
}

impl<'f> Outputs<'f> {
    /// A result by its number, which is below the number of outputs of the function.
    ///
    /// # Panics
    /// Where there are fewer outputs, as slices do.
    pub fn array(&self, index: usize) -> &'f Array {
        &self.0[index]
    }

    /// The only element of a result.
    ///
    /// # Errors
    /// A result of more or fewer elements, or one that does not exist.
    #[track_caller]
    pub fn scalar(&self, index: usize) -> Result<f64, CallError> {
        let site = Some(Location::caller());
        let Some(result) = self.0.get(index) else {
            let title = format!("a function of {} results has no result {index}", self.0.len());
            return Err(Diagnostic::new(title).at(site).into());
        };
        result.item().ok_or_else(|| {
            let found = TensorType::known(result.dtype(), result.shape());
            let fault = Diagnostic::new(format!("result {index} is no scalar")).at(site);
            fault.with("expected", "one element", None).with("found", found.to_string(), None).into()
        })
    }

    /// All results.
    pub fn arrays(&self) -> &'f [Array] {
        self.0
    }
}

impl Function {
    /// Computes the results and makes the updates. Arguments in the order of the inputs; inputs with defaults may be left
    /// out at the end.
    ///
    /// # Errors
    /// Arguments that do not fit, indices out of range, a failing device. Shared variables are then as before.
    pub fn call(&mut self, arguments: &[&Array]) -> Result<Outputs<'_>, CallError> {
        loop {
            let key = {
                let all = with_defaults(&self.inputs, arguments)?;
                check_arguments(&self.inputs, &all)?;
                let fits = |key: &Arguments| fits(key, &self.inputs, &self.needs, &all);
                if self.executables.is_recent(fits) {
                    break;
                }
                let hash = hash(&self.hasher, &self.inputs, &self.needs, &all);
                if let Some(before) = self.executables.switch(hash, fits) {
                    let workspace = before.map(Executable::take_workspace).unwrap_or_default();
                    if let Some(executable) = self.executables.recent_mut() {
                        executable.set_workspace(workspace)?;
                    }
                    self.executables.shrink();
                    break;
                }
                key_of(&self.inputs, &self.needs, &all)
            };
            self.specialise(key)?;
        }
        let Some(executable) = self.executables.recent_mut() else {
            return Err(broken!("an executable of the function").into());
        };
        if executable.engine.times().is_some() != self.profiling {
            executable.engine.set_profiling(self.profiling);
        }
        executable.make_whole(&self.cuts);
        executable.run(&with_defaults(&self.inputs, arguments)?)?;
        executable.cut(&self.cuts, self.results)?;
        Ok(Outputs(&executable.outputs[..self.results]))
    }

    /// As [`Function::call`], with arguments by the names of their inputs, in any order.
    ///
    /// # Errors
    /// As [`Function::call`]; a name that no input has.
    pub fn call_named(&mut self, arguments: &[(&str, &Array)]) -> Result<Outputs<'_>, CallError> {
        let position = |name: &str| self.inputs.iter().position(|i| i.leaf.name.as_deref() == Some(name));
        if let Some((name, _)) = arguments.iter().find(|(name, _)| position(name).is_none()) {
            let names: Vec<&str> = self.inputs.iter().filter_map(|i| i.leaf.name.as_deref()).collect();
            return Err(Diagnostic::new(format!("no input is called `{name}`"))
                .with("inputs", names.join(", "), None)
                .into());
        }
        let repeated = |(index, (name, _)): &(usize, &(&str, &Array))| {
            arguments[..*index].iter().any(|(earlier, _)| earlier == name)
        };
        for (name, _) in arguments {
            let called: Vec<&Input> =
                self.inputs.iter().filter(|i| i.leaf.name.as_deref() == Some(*name)).collect();
            if called.len() < 2 {
                continue;
            }
            let fault = Diagnostic::new(format!("{} inputs are called `{name}`", called.len()));
            let fault = called
                .iter()
                .fold(fault, |fault, input| fault.with("input", input.leaf.ty.to_string(), input.leaf.site));
            return Err(fault.hint("give the arguments in the order of the inputs, with `call`").into());
        }
        if let Some((_, (name, _))) = arguments.iter().enumerate().find(repeated) {
            return Err(Diagnostic::new(format!("the argument `{name}` is given twice")).into());
        }
        let mut all: Vec<Array> = Vec::new();
        for input in &self.inputs {
            let given = arguments.iter().find(|(name, _)| input.leaf.name.as_deref() == Some(*name));
            match given.map(|(_, array)| *array).or(input.default.as_ref()) {
                Some(array) => all.push(array.clone()),
                None => {
                    return Err(Diagnostic::new(format!("no argument for the input {}", input.leaf.label()))
                        .with("input", input.leaf.ty.to_string(), input.leaf.site)
                        .into());
                }
            }
        }
        let all: Vec<&Array> = all.iter().collect();
        self.call(&all)
    }

    /// Adds the executable for a key, or finds out which values the key must have besides.
    fn specialise(&mut self, key: Arguments) -> Result<(), CallError> {
        match self.executable(&key) {
            Ok(executable) => self.keep(key, executable),
            Err(Failure::Faults(faults)) => return Err(CallError::Arguments(faults)),
            Err(Failure::Needs(needs)) => {
                let new: Vec<LeafId> = needs.into_iter().filter(|id| !self.needs.contains(id)).collect();
                self.needs.extend(&new);
                if new.is_empty() {
                    let fault =
                        Diagnostic::new("an extent depends on an input that is not an integer scalar");
                    return Err(fault.into());
                }
            }
        }
        Ok(())
    }

    /// Makes a new executable the one in use.
    fn keep(&mut self, key: Arguments, executable: Executable) {
        let given = self.inputs.iter().map(|input| input.leaf.id);
        let given =
            given.map(|id| (key.shapes.get(&id).map(|shape| &shape[..]), key.values.get(&id).copied()));
        let hash = hash_key(&self.hasher, given);
        let bytes = executable.bytes();
        if let Some(before) = self.executables.insert(key, hash, executable, bytes) {
            // The new one has memory of its own, and this one gets it where its shapes come back.
            drop(before.take_workspace());
        }
        self.executables.shrink();
    }

    /// Specialises and compiles the graph.
    fn executable(&self, arguments: &Arguments) -> Result<Executable, Failure> {
        let graph = specialise(&self.graph, arguments).map_err(|failure| match failure {
            Unspecialised::Faults(faults) => Failure::Faults(faults),
            Unspecialised::Needs(needs) => Failure::Needs(needs),
        })?;
        let begin = Instant::now();
        let options = |gradients_taken| Options { numerics: self.numerics, gradients_taken };
        let mut forward_reports = Vec::new();
        let differentiated = differentiate(&graph, &mut |forward| {
            let (simplified, report) = simplify(forward, options(false));
            forward_reports.push(report);
            simplified
        })?;
        let (simplified, mut report) = simplify(&differentiated, options(true));
        forward_reports.iter().for_each(|forward| report.include(forward));
        let simplification = begin.elapsed();
        let begin = Instant::now();
        let failed = |e: &dyn fmt::Display| Failure::Faults(Diagnostic::new(e.to_string()).into());
        let program = Arc::new(hypatia_codegen::compile(&simplified).map_err(|e| failed(&e))?);
        let kernels = begin.elapsed();
        let begin = Instant::now();
        let outputs = simplified.outputs.iter().zip(&program.outputs).map(|(id, (dtype, shape))| {
            Array::zeros(*dtype, shape).map_err(|_| {
                let bytes = shape.iter().product::<usize>() * dtype.size();
                let found = format!("{}, {bytes} bytes", simplified.ty(*id));
                let fault = Diagnostic::new("a result needs more memory than the system gives");
                Failure::Faults(fault.at(simplified.node(*id).site).with("result", found, None).into())
            })
        });
        let outputs = outputs.collect::<Result<Vec<Array>, Failure>>()?;
        let engine = match self.device {
            Device::Cpu => {
                let engine = CpuProgram::new(program.clone(), &Features::detect(), self.pool.clone());
                let engine = engine.map_err(|e| match e {
                    CodeError::Memory(_) => Failure::Faults(too_large(&program, &e).into()),
                    CodeError::Code(_) | CodeError::Broken(_) => failed(&e),
                });
                Engine::Cpu(Box::new(engine?))
            }
            Device::OpenCl(number) => {
                let engine = OpenClProgram::new(program.clone(), number);
                Engine::OpenCl { program: Box::new(engine.map_err(|e| failed(&e))?), times: None }
            }
        };
        let times = [simplification, kernels, begin.elapsed()];
        let shared = program.shared.iter().map(|id| match simplified.leaf(*id).map(|leaf| &leaf.kind) {
            Some(LeafKind::Shared(cell)) => Ok(cell.clone()),
            other => Err(Diagnostics::from(broken!("a shared variable", format!("{other:?}")))),
        });
        Ok(Executable {
            shared: shared.collect::<Result<_, _>>()?,
            updated: program
                .shared
                .iter()
                .map(|id| simplified.updates.iter().any(|(leaf, _)| leaf == id))
                .collect(),
            outputs,
            whole: vec![None; self.cuts.len()],
            stages: Stages { graph, simplified, report, program, times },
            engine,
        })
    }

    /// The stages of the executable last used, once there is one.
    pub fn stages(&self) -> Option<&Stages> {
        self.executables.recent().map(|executable| &executable.stages)
    }

    /// What the processor does for the executable last used; nothing where there is none yet, or on another device.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.executables.recent()?.engine {
            Engine::Cpu(program) => Some(program.plan()),
            Engine::OpenCl { .. } => None,
        }
    }

    /// What to know of the executable last used: terms that may overflow or lose digits, where simplification did not see
    /// all of the formula.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        self.stages().map_or_else(Vec::new, |stages| stages.report.warnings())
    }

    /// The graph as it was collected, before anything is known of the arguments.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Begins (or ends) measuring the time of every kernel; see [`Function::profile`].
    pub fn set_profiling(&mut self, on: bool) {
        self.profiling = on;
    }

    /// Time, operations and bytes of every kernel since profiling began, of the executable last used; and how many
    /// executables there are.
    pub fn profile(&self) -> Profile {
        let executables = self.executables.counts();
        let Some(executable) = self.executables.recent() else {
            return Profile { rows: Vec::new(), executables, stop: Stop::Saturated, warnings: Vec::new() };
        };
        let times = executable.engine.times().unwrap_or(&[]);
        let steps = executable.stages.program.all_steps();
        let rows = steps.into_iter().zip(times).enumerate();
        let rows = rows.map(|(index, ((depth, step), time))| ProfileRow {
            depth,
            label: step.label.clone(),
            how: executable.engine.describe(index),
            site: step.site.map(|site| format!("{}:{}", site.file(), site.line())).unwrap_or_default(),
            time: *time,
            operations: step.kernel.operations(),
            bytes: step.kernel.bytes(),
        });
        let report = &executable.stages.report;
        Profile { rows: rows.collect(), executables, stop: report.stop, warnings: report.warnings() }
    }
}

/// The first elements along an axis. An error where no memory holds them.
fn first_along(array: &Array, axis: usize, count: usize) -> Result<Array, Diagnostic> {
    let mut shape = Extents::from(array.shape());
    let held = std::mem::replace(&mut shape[axis], count);
    let mut first = Array::zeros(array.dtype(), &shape)?;
    let size = shape[axis + 1..].iter().product::<usize>() * array.dtype().size();
    let (from, to) = (held * size, count * size);
    if to > 0 {
        for (old, new) in array.bytes().chunks_exact(from).zip(first.bytes_mut().chunks_exact_mut(to)) {
            new.copy_from_slice(&old[..to]);
        }
    }
    Ok(first)
}

/// The arguments with the defaults of those left out at the end.
fn with_defaults<'a>(
    inputs: &'a [Input],
    arguments: &[&'a Array],
) -> Result<SmallVec<[&'a Array; 8]>, Diagnostic> {
    let mut all: SmallVec<[&Array; 8]> = SmallVec::from(arguments);
    all.extend(inputs.iter().skip(arguments.len()).map_while(|input| input.default.as_ref()));
    if all.len() == inputs.len() {
        return Ok(all);
    }
    let required = inputs.iter().filter(|i| i.default.is_none()).count();
    let expected = if required == inputs.len() {
        required.to_string()
    } else {
        format!("{required} to {}", inputs.len())
    };
    let mut fault =
        Diagnostic::new(format!("the function takes {expected} arguments, found {}", arguments.len()));
    for input in inputs {
        fault = fault.with("input", format!("{} {}", input.leaf.ty, input.leaf.label()), input.leaf.site);
    }
    Err(fault)
}

/// An error if an argument does not fit its input.
fn check_arguments(inputs: &[Input], arguments: &[&Array]) -> Result<(), Diagnostic> {
    for (input, argument) in inputs.iter().zip(arguments) {
        let declared = &input.leaf.ty;
        let fits = declared.dtype == argument.dtype()
            && declared.rank() == argument.rank()
            && declared
                .shape
                .iter()
                .zip(argument.shape())
                .all(|(e, n)| e.known().is_none_or(|known| known == *n));
        if !fits {
            let found = TensorType::known(argument.dtype(), argument.shape());
            let fault = Diagnostic::new(format!("an argument does not fit the input {}", input.leaf.label()))
                .with("expected", declared.to_string(), input.leaf.site)
                .with("found", found.to_string(), None);
            let hint = declared.dtype != argument.dtype() && declared.rank() == argument.rank();
            return Err(if hint {
                fault.hint(format!("convert it: `.cast(DType::{:?})`", declared.dtype))
            } else {
                fault
            });
        }
    }
    Ok(())
}

/// Whether an executable's key is that of these arguments.
fn fits(key: &Arguments, inputs: &[Input], needs: &[LeafId], arguments: &[&Array]) -> bool {
    inputs.iter().zip(arguments).all(|(input, argument)| {
        key.shapes.get(&input.leaf.id).is_none_or(|shape| shape.as_slice() == argument.shape())
            && key.values.get(&input.leaf.id).is_none_or(|value| argument.get(0).to_i64() == Some(*value))
    }) && key.values.len() == needs.len()
}

/// The value that the key of these arguments has for an input.
fn needed(input: &Input, needs: &[LeafId], argument: &Array) -> Option<i64> {
    // Only integer scalars are ever needed; another argument may be empty.
    let needed = needs.contains(&input.leaf.id) && argument.rank() == 0;
    needed.then(|| argument.get(0).to_i64()).flatten()
}

/// The hash of the key of these arguments.
fn hash(hasher: &RandomState, inputs: &[Input], needs: &[LeafId], arguments: &[&Array]) -> u64 {
    let given = inputs.iter().zip(arguments).map(|(input, argument)| {
        let shape = (!input.leaf.ty.is_known()).then(|| argument.shape());
        (shape, needed(input, needs, argument))
    });
    hash_key(hasher, given)
}

/// The hash of the shapes and values that a key has for each input.
fn hash_key<'a>(
    hasher: &RandomState,
    given: impl Iterator<Item = (Option<&'a [usize]>, Option<i64>)>,
) -> u64 {
    let mut hasher = hasher.build_hasher();
    given.for_each(|each| each.hash(&mut hasher));
    hasher.finish()
}

fn key_of(inputs: &[Input], needs: &[LeafId], arguments: &[&Array]) -> Arguments {
    let mut key = Arguments::default();
    for (input, argument) in inputs.iter().zip(arguments) {
        if !input.leaf.ty.is_known() {
            key.shapes.insert(input.leaf.id, Extents::from(argument.shape()));
        }
        if let Some(value) = needed(input, needs, argument) {
            key.values.insert(input.leaf.id, value);
        }
    }
    key
}

impl Executable {
    /// Bytes that it holds besides working memory, about.
    fn bytes(&self) -> usize {
        let results: usize = self.outputs.iter().map(|output| output.bytes().len()).sum();
        let engine = match &self.engine {
            Engine::Cpu(program) => program.bytes(),
            Engine::OpenCl { program, .. } => program.bytes(),
        };
        results + engine + self.stages.bytes()
    }

    /// Gives up working memory for another executable to have.
    fn take_workspace(&mut self) -> Workspace {
        match &mut self.engine {
            Engine::Cpu(program) => program.take_workspace(),
            Engine::OpenCl { .. } => Workspace::default(),
        }
    }

    /// Gives it working memory.
    fn set_workspace(&mut self, workspace: Workspace) -> Result<(), CallError> {
        match &mut self.engine {
            Engine::Cpu(program) => program.set_workspace(workspace).map_err(|error| {
                let fault = too_large(&self.stages.program, &error);
                CallError::Arguments(fault.into())
            }),
            Engine::OpenCl { .. } => Ok(()),
        }
    }

    fn run(&mut self, inputs: &[&Array]) -> Result<(), CallError> {
        let result = match &mut self.engine {
            Engine::Cpu(program) => {
                // The system may have refused memory at the last call.
                if !program.has_workspace() {
                    self.set_workspace(Workspace::default())?;
                    return self.run(inputs);
                }
                run_on_cpu(program, &self.shared, &self.updated, inputs, &mut self.outputs)?
            }
            Engine::OpenCl { program, times } => {
                let cells: SmallVec<[&SharedCell; 16]> = self.shared.iter().map(|cell| &**cell).collect();
                match times {
                    None => program.run(inputs, &cells, &mut self.outputs),
                    Some(times) => program.profile(inputs, &cells, &mut self.outputs).map(|new| {
                        times.resize(new.len(), Duration::ZERO);
                        times.iter_mut().zip(new).for_each(|(total, step)| *total += step);
                    }),
                }
            }
        };
        result.map_err(|error| self.explain(error))
    }

    /// Puts back the memory of results that were cut.
    fn make_whole(&mut self, cuts: &[(usize, usize)]) {
        for ((output, _), whole) in cuts.iter().zip(&mut self.whole) {
            if let Some(whole) = whole.take() {
                self.outputs[*output] = whole;
            }
        }
    }

    /// Leaves out the rows that were not made. The numbers of those made stand behind the results.
    fn cut(&mut self, cuts: &[(usize, usize)], results: usize) -> Result<(), CallError> {
        for (number, (output, axis)) in cuts.iter().enumerate() {
            let held = &self.outputs[*output];
            let made = self.outputs[results + number].get(0).to_i64();
            let made = made.and_then(|made| usize::try_from(made).ok());
            let made = made.ok_or_else(|| broken!("the number of rows that a loop made"))?;
            if made < held.shape()[*axis] {
                let cut = first_along(held, *axis, made)?;
                self.whole[number] = Some(std::mem::replace(&mut self.outputs[*output], cut));
            }
        }
        Ok(())
    }

    fn explain(&self, error: RunError) -> CallError {
        match error {
            RunError::OutOfRange(found) => {
                let program = &self.stages.program;
                let (Some(step), Some(check)) = (program.step(found.step), program.check(&found)) else {
                    let OutOfRange { step, check, .. } = found;
                    return broken!("a check {check} of step {step}").with_input(&**program).into();
                };
                check.fault(found.value).at(step.site).into()
            }
            RunError::Device(message) => CallError::Device(message),
            RunError::Arrays(_) | RunError::Memory(_) => Diagnostic::new(error.to_string()).into(),
            RunError::Broken(broken) => broken.into(),
        }
    }
}

/// Runs a program on the processor with the shared variables locked. The outer error is that of a device which has not
/// given back a value.
fn run_on_cpu(
    program: &mut CpuProgram,
    shared: &[Arc<SharedCell>],
    updated: &[bool],
    inputs: &[&Array],
    outputs: &mut [Array],
) -> Result<Result<(), RunError>, CallError> {
    // Cells are in rising order of identity, so two calls that share variables never wait for each other's locks.
    let mut states: SmallVec<[MutexGuard<'_, SharedState>; 16]> =
        shared.iter().map(|cell| cell.lock()).collect();
    for state in &mut states {
        state.fetch().map_err(CallError::Device)?;
    }
    let mut arrays: SmallVec<[&mut Array; 16]> = states.iter_mut().map(|state| &mut state.host).collect();
    let result = program.run(inputs, &mut arrays, outputs);
    drop(arrays);
    for (state, updated) in states.iter_mut().zip(updated) {
        state.version += u64::from(*updated);
    }
    Ok(result)
}

/// What the kernels of a function cost.
#[derive(Clone)]
pub struct Profile {
    /// One row a kernel, in the order in which they run; a loop comes before the kernels of its body.
    pub rows: Vec<ProfileRow>,
    /// What was compiled for the shapes that the function has met.
    pub executables: Counts,
    /// Why simplification stopped.
    pub stop: Stop,
    /// As [`Function::warnings`].
    pub warnings: Vec<Diagnostic>,
}

/// What a kernel costs.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// The number of loops around it; the time of a loop holds that of its kernels.
    pub depth: usize,
    /// What it computes.
    pub label: String,
    /// How it is carried out.
    pub how: String,
    /// The user's line.
    pub site: String,
    /// Time since profiling began.
    pub time: Duration,
    /// Arithmetic operations of one run.
    pub operations: u64,
    /// Bytes of the elements that one run touches.
    pub bytes: u64,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("rows", &Few(&self.rows))
            .field("executables", &self.executables)
            .field("stop", &self.stop)
            .field("warnings", &Few(&self.warnings))
            .finish()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: Duration = self.rows.iter().filter(|row| row.depth == 0).map(|row| row.time).sum();
        writeln!(f, "{:>6} {:>10} {:>12} {:>12}  kernel", "share", "time/ms", "operations", "bytes")?;
        for row in &self.rows {
            let share = 100.0 * row.time.as_secs_f64() / total.as_secs_f64().max(1e-12);
            let time = row.time.as_secs_f64() * 1e3;
            writeln!(
                f,
                "{share:5.1}% {time:10.3} {:12} {:12}  {:indent$}{} ({}) {}",
                row.operations,
                row.bytes,
                "",
                row.label,
                row.how,
                row.site,
                indent = 2 * row.depth
            )?;
        }
        if self.stop != Stop::Saturated {
            writeln!(f, "simplification stopped early ({})", self.stop)?;
        }
        for warning in &self.warnings {
            writeln!(f, "{warning}")?;
        }
        writeln!(f, "{}", self.executables)
    }
}
