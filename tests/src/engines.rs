//! What can run a graph: the interpreter, which defines the result, and the compiled engines.
//!
//! Every engine takes a graph as it was collected and does all of its compilation itself, with the verifier after each
//! pass. Shared variables are read and never written: new values come back beside the outputs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hypatia::pipeline::{self, Arguments, Unspecialised, specialise};
use hypatia_codegen::cpu::call::CpuProgram;
use hypatia_codegen::kernel::Program;
use hypatia_codegen::opencl::OpenClProgram;
use hypatia_graph::interp::{Evaluation, interpret};
use hypatia_graph::leaf::{LeafKind, SharedCell};
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Array, Graph, LeafId};
use hypatia_kernels::features::{Features, InstructionSet};
use hypatia_kernels::pool::Pool;
use hypatia_rewrite::Numerics;

/// A way to run a graph.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Engine {
    /// The definition of every operator.
    Interpreter {
        /// The policy under which the graph is rewritten before it is interpreted.
        numerics: Numerics,
    },
    /// Machine code.
    Cpu {
        /// The policy under which the graph is rewritten.
        numerics: Numerics,
        /// The most that kernels may use of the processor.
        limit: InstructionSet,
        /// Threads of a call.
        threads: usize,
    },
    /// The first OpenCL device.
    OpenCl {
        /// The policy under which the graph is rewritten.
        numerics: Numerics,
    },
}

impl Engine {
    /// The interpreter on the graph as it stands.
    pub const REFERENCE: Engine = Engine::Interpreter { numerics: Numerics::AsWritten };

    /// Engines that compute the formula as it was written.
    pub fn literal() -> Vec<Engine> {
        let cpu = |limit, threads| Engine::Cpu { numerics: Numerics::AsWritten, limit, threads };
        vec![
            cpu(InstructionSet::Avx512, 1),
            cpu(InstructionSet::Avx512, 2),
            cpu(InstructionSet::Avx2, 1),
            cpu(InstructionSet::Portable, 1),
        ]
    }

    /// Engines that rewrite the formula first.
    pub fn rewriting() -> Vec<Engine> {
        let cpu = |numerics, threads| Engine::Cpu { numerics, limit: InstructionSet::Avx512, threads };
        vec![
            Engine::Interpreter { numerics: Numerics::Strict },
            cpu(Numerics::Strict, 1),
            Engine::Interpreter { numerics: Numerics::Real },
            cpu(Numerics::Real, 2),
        ]
    }

    /// The OpenCL device, as written and rewritten; empty, and says so, where there is none.
    pub fn opencl() -> Vec<Engine> {
        match hypatia_codegen::opencl::devices() {
            Ok(devices) if !devices.is_empty() => {
                [Numerics::AsWritten, Numerics::Real].map(|numerics| Engine::OpenCl { numerics }).to_vec()
            }
            Ok(_) => {
                eprintln!("skipped: OpenCL has no device");
                Vec::new()
            }
            Err(reason) => {
                eprintln!("skipped: {reason}");
                Vec::new()
            }
        }
    }

    /// Under which policy the formula is rewritten.
    pub fn numerics(self) -> Numerics {
        match self {
            Engine::Interpreter { numerics } | Engine::Cpu { numerics, .. } | Engine::OpenCl { numerics } => {
                numerics
            }
        }
    }

    /// Whether elementwise functions of `f32` must give the interpreter's very bits: fused multiply-add is what the
    /// functions are defined with, and the portable kernels of a processor without it multiply and add.
    pub fn is_exact(self) -> bool {
        match self {
            Engine::Interpreter { numerics } | Engine::OpenCl { numerics } => numerics == Numerics::AsWritten,
            Engine::Cpu { numerics, limit, .. } => {
                numerics == Numerics::AsWritten
                    && Features::detect().restricted_to(limit).fused_multiply_add()
            }
        }
    }

    /// Whether products are rounded before they are added, where functions of `f32` are defined with fused multiply-add.
    pub fn lacks_fused_multiply_add(self) -> bool {
        match self {
            Engine::Interpreter { .. } | Engine::OpenCl { .. } => false,
            Engine::Cpu { limit, .. } => !Features::detect().restricted_to(limit).fused_multiply_add(),
        }
    }

    /// Runs the graph on inputs in its order.
    ///
    /// # Errors
    /// What the graph's user would be told, or what a pass has broken.
    pub fn run(self, graph: &Graph, inputs: &[Array]) -> Result<Evaluation, String> {
        let concrete = concrete(graph, inputs)?;
        let prepared = prepare(&concrete, self.numerics())?;
        match self {
            Engine::Interpreter { .. } => interpret(&prepared, inputs).map_err(|e| e.to_string()),
            Engine::Cpu { limit, threads, .. } => run_on_cpu(&prepared, inputs, limit, threads),
            Engine::OpenCl { .. } => run_on_opencl(&prepared, inputs),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rewriting = match self.numerics() {
            Numerics::AsWritten => "as written",
            Numerics::Strict => "strict",
            Numerics::Real => "real",
        };
        match self {
            Engine::Interpreter { .. } => write!(f, "interpreter, {rewriting}"),
            Engine::OpenCl { .. } => write!(f, "opencl, {rewriting}"),
            Engine::Cpu { limit, threads, .. } => write!(f, "cpu, {limit}, {threads} threads, {rewriting}"),
        }
    }
}

/// The graph with every extent known, for inputs of these shapes and, where extents depend on them, values.
///
/// # Errors
/// What specialisation found wrong.
pub fn concrete(graph: &Graph, inputs: &[Array]) -> Result<Graph, String> {
    let mut arguments = Arguments::default();
    let given: BTreeMap<_, _> = graph.inputs.iter().copied().zip(inputs).collect();
    for (id, array) in &given {
        if graph.leaf(*id).is_some_and(|leaf| !leaf.ty.is_known()) {
            arguments.shapes.insert(*id, array.shape().into());
        }
    }
    loop {
        match specialise(graph, &arguments) {
            Ok(concrete) => {
                verify(&concrete, Stage::Specialised).map_err(|e| format!("after specialise: {e}"))?;
                return Ok(concrete);
            }
            Err(Unspecialised::Faults(faults)) => return Err(faults.to_string()),
            Err(Unspecialised::Needs(needs)) => {
                let known = arguments.values.len();
                for id in needs {
                    let value = given.get(&id).filter(|a| a.len() == 1).and_then(|a| a.get(0).to_i64());
                    arguments.values.extend(value.map(|value| (id, value)));
                }
                if arguments.values.len() == known {
                    return Err("an extent needs a value that no input has".into());
                }
            }
        }
    }
}

/// Takes gradients, and simplifies before and after.
///
/// # Errors
/// Gradients that cannot be taken, or what a pass has broken.
pub fn prepare(concrete: &Graph, numerics: Numerics) -> Result<Graph, String> {
    let mut broken = None;
    let mut look = |pass: &'static str, graph: &Graph| {
        if let (None, Err(reason)) = (&broken, verify(graph, Stage::Differentiated)) {
            broken = Some(format!("after {pass}: {reason}\n{graph}"));
        }
    };
    let (prepared, _) = pipeline::prepare(concrete, numerics, &mut look).map_err(|e| e.to_string())?;
    broken.map_or(Ok(prepared), Err)
}

/// The pool of that many threads, made once.
fn pool(threads: usize) -> Arc<Pool> {
    static POOLS: Mutex<BTreeMap<usize, Arc<Pool>>> = Mutex::new(BTreeMap::new());
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.entry(threads).or_insert_with(|| Arc::new(Pool::new(threads))).clone()
}

/// The shared variables of a program, in its order.
fn shared_cells(graph: &Graph, program: &Program) -> Result<Vec<Arc<SharedCell>>, String> {
    let cell = |id: &LeafId| match graph.leaf(*id).map(|leaf| &leaf.kind) {
        Some(LeafKind::Shared(cell)) => Ok(cell.clone()),
        Some(LeafKind::Input | LeafKind::Constant(_) | LeafKind::Carry) | None => {
            Err(format!("the program's shared variable {id:?} is none of the graph's"))
        }
    };
    program.shared.iter().map(cell).collect()
}

fn run_on_cpu(
    graph: &Graph,
    inputs: &[Array],
    limit: InstructionSet,
    threads: usize,
) -> Result<Evaluation, String> {
    let program = Arc::new(hypatia_codegen::compile(graph).map_err(|e| format!("{e}\n{graph}"))?);
    let features = Features::detect().restricted_to(limit);
    let mut cpu = CpuProgram::new(program.clone(), &features, pool(threads)).map_err(|e| e.to_string())?;
    let mut shared: Vec<Array> =
        shared_cells(graph, &program)?.iter().map(|cell| cell.lock().host.clone()).collect();
    let before = shared.clone();
    let inputs: Vec<&Array> = inputs.iter().collect();
    let mut outputs: Vec<Array> = program
        .outputs
        .iter()
        .map(|(dtype, shape)| Array::zeros(*dtype, shape).expect("memory for the results"))
        .collect();
    let mut evaluations = Vec::new();
    // The second call finds the arena as the first one left it, and must give the same.
    for _ in 0..2 {
        shared.clone_from(&before);
        let mut cells: Vec<&mut Array> = shared.iter_mut().collect();
        cpu.run(&inputs, &mut cells, &mut outputs).map_err(|e| e.to_string())?;
        let updates = graph.updates.iter().map(|(id, _)| {
            let position = program.shared.iter().position(|s| s == id);
            position
                .map(|p| (*id, shared[p].clone()))
                .ok_or_else(|| format!("no update of {id:?} in the program"))
        });
        evaluations
            .push(Evaluation { outputs: outputs.clone(), updates: updates.collect::<Result<Vec<_>, _>>()? });
    }
    let updated: Vec<_> = graph.updates.iter().map(|(id, _)| *id).collect();
    for ((id, old), new) in program.shared.iter().zip(&before).zip(&shared) {
        if !updated.contains(id) && old != new {
            return Err(format!("the shared variable {id:?} has no update and was written"));
        }
    }
    let second = evaluations.pop();
    match (evaluations.pop(), second) {
        (Some(first), Some(second)) if first == second => Ok(first),
        _ => Err("a second call gave another result than the first".into()),
    }
}

fn run_on_opencl(graph: &Graph, inputs: &[Array]) -> Result<Evaluation, String> {
    let program = Arc::new(hypatia_codegen::compile(graph).map_err(|e| format!("{e}\n{graph}"))?);
    let mut device = OpenClProgram::new(program.clone(), 0).map_err(|e| e.to_string())?;
    let cells = shared_cells(graph, &program)?;
    let before: Vec<Array> = cells.iter().map(|cell| cell.lock().host.clone()).collect();
    let inputs: Vec<&Array> = inputs.iter().collect();
    let mut outputs: Vec<Array> = program
        .outputs
        .iter()
        .map(|(dtype, shape)| Array::zeros(*dtype, shape).expect("memory for the results"))
        .collect();
    let shared: Vec<&SharedCell> = cells.iter().map(|cell| &**cell).collect();
    device.run(&inputs, &shared, &mut outputs).map_err(|e| e.to_string())?;
    let mut after = Vec::new();
    for (cell, old) in cells.iter().zip(before) {
        let mut state = cell.lock();
        state.fetch()?;
        after.push(std::mem::replace(&mut state.host, old));
        state.version += 1;
    }
    let updates = graph.updates.iter().map(|(id, _)| {
        let position = program.shared.iter().position(|s| s == id);
        position.map(|p| (*id, after[p].clone())).ok_or_else(|| format!("no update of {id:?} in the program"))
    });
    Ok(Evaluation { outputs, updates: updates.collect::<Result<_, _>>()? })
}
