//! Compiled functions: from arguments to results.
//!
//! A [`Function`] holds an executable for each set of argument shapes it has met, as many of them as its cache has room
//! for. Where all extents are known it is compiled at once; otherwise at the first call of each new shape. Executables of one
//! function never run at one time, so they have their working memory in common. Results are borrowed from the function until
//! the next call, so that a call allocates nothing.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use hypatia_codegen::cpu::Plan;
use hypatia_graph::text::Few;
use hypatia_graph::{Array, Broken, Diagnostic, Diagnostics, Graph, LeafId, TensorType, broken};
use hypatia_kernels::pool::Pool;
use hypatia_rewrite::{Numerics, Stop};

use crate::arguments::{Input, check_arguments, fits, hash, hash_key, key_of, with_defaults};
use crate::builder::Device;
use crate::cache::Cache;
use crate::executable::Executable;
use crate::pipeline::{Arguments, Failure, Stages, Unspecialised, specialise};
use crate::profile::{Profile, ProfileRow};

/// A function that can be called.
pub struct Function {
    pub(crate) graph: Graph,
    /// Warnings of gradients that are lost in it.
    pub(crate) lost_gradients: Vec<Diagnostic>,
    pub(crate) inputs: Vec<Input>,
    /// Integer inputs whose values extents depend on.
    pub(crate) needs: Vec<LeafId>,
    /// The number of results. The graph gives one more for each cut: how many rows were made.
    pub(crate) results: usize,
    /// Results of scans that may end early, with the axis of the rows that may not have been made.
    pub(crate) cuts: Vec<(usize, usize)>,
    /// That of the last call is the one in use.
    pub(crate) executables: Cache<Arguments, Executable>,
    pub(crate) hasher: RandomState,
    pub(crate) numerics: Numerics,
    pub(crate) device: Device,
    pub(crate) pool: Arc<Pool>,
    pub(crate) profiling: bool,
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
    pub(crate) fn keep(&mut self, key: Arguments, executable: Executable) {
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
    pub(crate) fn executable(&self, arguments: &Arguments) -> Result<Executable, Failure> {
        let graph = specialise(&self.graph, arguments).map_err(|failure| match failure {
            Unspecialised::Faults(faults) => Failure::Faults(faults),
            Unspecialised::Needs(needs) => Failure::Needs(needs),
        })?;
        Ok(Executable::new(graph, self.numerics, self.device, &self.pool, self.cuts.len())?)
    }

    /// The stages of the executable last used, once there is one.
    pub fn stages(&self) -> Option<&Stages> {
        self.executables.recent().map(|executable| &executable.stages)
    }

    /// What the processor does for the executable last used; nothing where there is none yet, or on another device.
    pub fn plan(&self) -> Option<&Plan> {
        self.executables.recent()?.engine.plan()
    }

    /// What to know of the function: gradients that are lost at operators which move by jumps
    /// ([`lost_gradients`](hypatia_graph::differentiate::lost_gradients)), and, of the executable last used, terms that may
    /// overflow or lose digits, where simplification did not see all of the formula.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let risky = self.stages().map(|stages| stages.report.warnings());
        self.lost_gradients.iter().cloned().chain(risky.into_iter().flatten()).collect()
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
            return Profile {
                rows: Vec::new(),
                executables,
                stop: Stop::Saturated,
                warnings: self.warnings(),
            };
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
        Profile { rows: rows.collect(), executables, stop: report.stop, warnings: self.warnings() }
    }
}
