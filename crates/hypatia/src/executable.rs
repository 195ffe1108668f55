//! A program for one set of argument shapes, ready to run, with the memory of its results.

use std::sync::Arc;
use std::time::Instant;

use hypatia_codegen::cpu::CodeError;
use hypatia_codegen::cpu::call::Workspace;
use hypatia_codegen::kernel::{OutOfRange, Place, Program, RunError};
use hypatia_graph::array::Extents;
use hypatia_graph::leaf::{LeafKind, SharedCell};
use hypatia_graph::{Array, Diagnostic, Diagnostics, Graph, broken};
use hypatia_kernels::pool::Pool;
use hypatia_rewrite::Numerics;

use crate::builder::Device;
use crate::engine::{Engine, load};
use crate::function::CallError;
use crate::pipeline::{Stages, prepare};

/// A program for one set of argument shapes, with the memory of its results.
pub(crate) struct Executable {
    pub(crate) stages: Stages,
    pub(crate) engine: Box<dyn Engine>,
    shared: Vec<Arc<SharedCell>>,
    updated: Vec<bool>,
    pub(crate) outputs: Vec<Array>,
    /// For each result that is cut, its memory while `outputs` has the rows made.
    whole: Vec<Option<Array>>,
}

impl Executable {
    /// Compiles a specialised graph, of which some results may be cut.
    pub(crate) fn new(
        graph: Graph,
        numerics: Numerics,
        device: Device,
        pool: &Arc<Pool>,
        cuts: usize,
    ) -> Result<Executable, Diagnostics> {
        let begin = Instant::now();
        let (simplified, report) = prepare(&graph, numerics, &mut |_, _| {})?;
        let simplification = begin.elapsed();
        let begin = Instant::now();
        let program = hypatia_codegen::compile(&simplified).map_err(|e| Diagnostic::new(e.to_string()))?;
        let program = Arc::new(program);
        let kernels = begin.elapsed();
        let begin = Instant::now();
        let outputs = simplified.outputs.iter().zip(&program.outputs).map(|(id, (dtype, shape))| {
            Array::zeros(*dtype, shape).map_err(|_| {
                let bytes = shape.iter().product::<usize>() * dtype.size();
                let found = format!("{}, {bytes} bytes", simplified.ty(*id));
                let fault = Diagnostic::new("out of memory for a result");
                fault.at(simplified.node(*id).site).with("result", found, None)
            })
        });
        let outputs = outputs.collect::<Result<Vec<Array>, Diagnostic>>()?;
        let engine = load(&program, device, pool)?;
        let times = [simplification, kernels, begin.elapsed()];
        let shared = program.shared.iter().map(|id| match simplified.leaf(*id).map(|leaf| &leaf.kind) {
            Some(LeafKind::Shared(cell)) => Ok(cell.clone()),
            other => Err(Diagnostics::from(broken!("a shared variable", format!("{other:?}")))),
        });
        let is_updated = |id| simplified.updates.iter().any(|(leaf, _)| leaf == id);
        Ok(Executable {
            shared: shared.collect::<Result<_, _>>()?,
            updated: program.shared.iter().map(is_updated).collect(),
            outputs,
            whole: vec![None; cuts],
            stages: Stages { graph, simplified, report, program, times },
            engine,
        })
    }

    /// Bytes that it holds besides working memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let results: usize = self.outputs.iter().map(|output| output.bytes().len()).sum();
        results + self.engine.bytes() + self.stages.bytes()
    }

    /// Gives up working memory for another executable to have.
    pub(crate) fn take_workspace(&mut self) -> Workspace {
        self.engine.take_workspace()
    }

    /// Gives it working memory.
    pub(crate) fn set_workspace(&mut self, workspace: Workspace) -> Result<(), CallError> {
        let done = self.engine.set_workspace(workspace);
        done.map_err(|error| too_large(&self.stages.program, &error).into())
    }

    pub(crate) fn run(&mut self, inputs: &[&Array]) -> Result<(), CallError> {
        // The system may have refused memory at the last call.
        if !self.engine.has_workspace() {
            self.set_workspace(Workspace::default())?;
        }
        let result = self.engine.run(&self.shared, &self.updated, inputs, &mut self.outputs);
        result.map_err(|error| self.explain(error))
    }

    /// Puts back the memory of results that were cut.
    pub(crate) fn make_whole(&mut self, cuts: &[(usize, usize)]) {
        for ((output, _), whole) in cuts.iter().zip(&mut self.whole) {
            if let Some(whole) = whole.take() {
                self.outputs[*output] = whole;
            }
        }
    }

    /// Leaves out the rows that were not made. The numbers of those made stand behind the results.
    pub(crate) fn cut(&mut self, cuts: &[(usize, usize)], results: usize) -> Result<(), CallError> {
        for (number, (output, axis)) in cuts.iter().enumerate() {
            let held = &self.outputs[*output];
            let made = self.outputs[results + number].get(0).to_i64();
            let made = made.and_then(|made| usize::try_from(made).ok());
            let made = made.ok_or_else(|| broken!("the number of rows that a scan made"))?;
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

/// The fault of a program whose values between steps no memory holds, at the step that makes the largest.
pub(crate) fn too_large(program: &Program, error: &CodeError) -> Diagnostic {
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
