//! What runs programs: a back end is an [`Engine`], and functions know nothing else of one.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use hypatia_codegen::cpu::CodeError;
use hypatia_codegen::cpu::Plan;
use hypatia_codegen::cpu::call::{CpuProgram, Workspace};
use hypatia_codegen::kernel::{Program, RunError};
#[cfg(feature = "opencl")]
use hypatia_codegen::opencl::OpenClProgram;
use hypatia_graph::leaf::{SharedCell, SharedState};
use hypatia_graph::{Array, Diagnostic};
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;
use smallvec::SmallVec;

use crate::builder::Device;
use crate::executable::too_large;

/// A program on a device.
pub(crate) trait Engine: Send {
    /// Runs the program once. Shared variables change only if that succeeds; `updated` says which do.
    fn run(
        &mut self,
        shared: &[Arc<SharedCell>],
        updated: &[bool],
        inputs: &[&Array],
        outputs: &mut [Array],
    ) -> Result<(), RunError>;

    /// Begins (or ends) measuring the time of each step.
    fn set_profiling(&mut self, on: bool);

    /// Time spent in each step since profiling began.
    fn times(&self) -> Option<&[Duration]>;

    /// How a step is carried out, in words.
    fn describe(&self, step: usize) -> String;

    /// Bytes that it holds besides its program and working memory, about.
    fn bytes(&self) -> usize;

    /// Whether it has working memory, which executables of one function share.
    fn has_workspace(&self) -> bool {
        true
    }

    /// Gives up working memory for another executable to have.
    fn take_workspace(&mut self) -> Workspace {
        Workspace::default()
    }

    /// Takes working memory.
    fn set_workspace(&mut self, _: Workspace) -> Result<(), CodeError> {
        Ok(())
    }

    /// What the processor does for the program, if it is what runs it.
    fn plan(&self) -> Option<&Plan> {
        None
    }
}

/// The program on a device.
///
/// # Errors
/// No such device, a failing one, or no memory.
pub(crate) fn load(
    program: &Arc<Program>,
    device: Device,
    pool: &Arc<Pool>,
) -> Result<Box<dyn Engine>, Diagnostic> {
    match device {
        Device::Cpu => match CpuProgram::new(program.clone(), &Features::detect(), pool.clone()) {
            Ok(program) => Ok(Box::new(program)),
            Err(error @ CodeError::Memory(_)) => Err(too_large(program, &error)),
            Err(error @ (CodeError::Code(_) | CodeError::Broken(_))) => {
                Err(Diagnostic::new(error.to_string()))
            }
        },
        #[cfg(feature = "opencl")]
        Device::OpenCl(number) => match OpenClProgram::new(program.clone(), number) {
            Ok(program) => Ok(Box::new(OnDevice { program, times: None })),
            Err(error) => Err(Diagnostic::new(error.to_string())),
        },
        #[cfg(not(feature = "opencl"))]
        Device::OpenCl(_) => Err(Diagnostic::new("this build has no OpenCL devices")
            .hint("build Hypatia with its feature `opencl`, which is on by default")),
    }
}

impl Engine for CpuProgram {
    fn run(
        &mut self,
        shared: &[Arc<SharedCell>],
        updated: &[bool],
        inputs: &[&Array],
        outputs: &mut [Array],
    ) -> Result<(), RunError> {
        // Cells are in rising order of identity, so two calls that share variables never wait for each other's locks.
        let mut states: SmallVec<[MutexGuard<'_, SharedState>; 16]> =
            shared.iter().map(|cell| cell.lock()).collect();
        for state in &mut states {
            state.fetch().map_err(RunError::Device)?;
        }
        let mut arrays: SmallVec<[&mut Array; 16]> = states.iter_mut().map(|state| &mut state.host).collect();
        let result = self.run(inputs, &mut arrays, outputs);
        drop(arrays);
        for (state, updated) in states.iter_mut().zip(updated) {
            state.version += u64::from(*updated);
        }
        result
    }

    fn set_profiling(&mut self, on: bool) {
        self.set_profiling(on);
    }

    fn times(&self) -> Option<&[Duration]> {
        self.times()
    }

    fn describe(&self, step: usize) -> String {
        self.plan().describe(step)
    }

    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn has_workspace(&self) -> bool {
        self.has_workspace()
    }

    fn take_workspace(&mut self) -> Workspace {
        self.take_workspace()
    }

    fn set_workspace(&mut self, workspace: Workspace) -> Result<(), CodeError> {
        self.set_workspace(workspace)
    }

    fn plan(&self) -> Option<&Plan> {
        Some(self.plan())
    }
}

/// A program on an OpenCL device.
#[cfg(feature = "opencl")]
struct OnDevice {
    program: OpenClProgram,
    /// The device's time for each step, while profiling.
    times: Option<Vec<Duration>>,
}

#[cfg(feature = "opencl")]
impl Engine for OnDevice {
    fn run(
        &mut self,
        shared: &[Arc<SharedCell>],
        _: &[bool],
        inputs: &[&Array],
        outputs: &mut [Array],
    ) -> Result<(), RunError> {
        let cells: SmallVec<[&SharedCell; 16]> = shared.iter().map(|cell| &**cell).collect();
        let Some(times) = &mut self.times else { return self.program.run(inputs, &cells, outputs) };
        let new = self.program.profile(inputs, &cells, outputs)?;
        times.resize(new.len(), Duration::ZERO);
        times.iter_mut().zip(new).for_each(|(total, step)| *total += step);
        Ok(())
    }

    fn set_profiling(&mut self, on: bool) {
        self.times = on.then(Vec::new);
    }

    fn times(&self) -> Option<&[Duration]> {
        self.times.as_deref()
    }

    fn describe(&self, _: usize) -> String {
        "OpenCL".into()
    }

    fn bytes(&self) -> usize {
        self.program.bytes()
    }
}
