//! What a function is made of: inputs, outputs, updates and choices.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hypatia_graph::array::IntoArray;
use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::differentiate::{check, lost_gradients};
use hypatia_graph::made::cuts;
use hypatia_graph::specialise::Arguments;
use hypatia_graph::text::Few;
use hypatia_graph::{Array, Diagnostic, Diagnostics, LeafId, Shared, Tensor};
use hypatia_kernels::pool::Pool;
use hypatia_rewrite::Numerics;

use crate::arguments::{Input, check_defaults};
use crate::cache::Cache;
use crate::function::Function;
use crate::pipeline::Failure;

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
    /// is kept but the last. What was compiled, kept and given up is part of the [`Profile`](crate::Profile).
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
        let lost_gradients = lost_gradients(&graph);
        let inputs = self.request.inputs.iter().filter_map(|t| t.leaf().cloned());
        let inputs: Vec<Input> =
            inputs.map(|leaf| Input { default: self.defaults.get(&leaf.id).cloned(), leaf }).collect();
        check_defaults(&inputs)?;
        let threads =
            self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        let mut function = Function {
            graph,
            lost_gradients,
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

/// The pool of that many threads, shared by all functions.
fn pool(threads: usize) -> Arc<Pool> {
    static POOLS: Mutex<BTreeMap<usize, Arc<Pool>>> = Mutex::new(BTreeMap::new());
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.entry(threads).or_insert_with(|| Arc::new(Pool::new(threads))).clone()
}
