//! Running a program on the processor: memory, arguments, results.
//!
//! A call fills in the pointers of its arguments and runs the steps in order (see `cpu::steps`). It allocates nothing.
//! Threads take parts of a step that write disjoint elements, so they change no bit.
#![allow(
    unsafe_code,
    reason = "generated code works on raw memory; the blocks argue from what `kernel::verify` and `cpu::plan` guarantee"
)]

use std::sync::Arc;
use std::time::Duration;

use hypatia_graph::{Array, DType, broken};

use crate::cpu::code::{Code, CodeError};
use crate::cpu::plan::Plan;
use crate::cpu::steps::{Addresses, Context};
use crate::kernel::{Place, Program, RunError};
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;

/// A program with its machine code and memory.
pub struct CpuProgram {
    plan: Plan,
    addresses: Addresses,
    /// The places of a call's arrays, with the element types and numbers of elements of these.
    expected: Vec<(Place, DType, usize)>,
    context: Context,
    /// Memory of values between steps; none while another program has it.
    arena: Option<Array>,
    /// What the functions lie in.
    code: LoadedCode,
}

// SAFETY: the pointers lead into memory and constants, which the value owns, or were filled in by the call that
// reads them; nothing is bound to a thread.
unsafe impl Send for CpuProgram {}

impl CpuProgram {
    /// Compiles a program for this processor.
    ///
    /// # Errors
    /// A program that breaks an invariant (it is verified, since its code checks nothing), or that needs more memory than
    /// there is.
    pub fn new(program: Arc<Program>, features: &Features, pool: Arc<Pool>) -> Result<CpuProgram, CodeError> {
        let plan = Plan::new(program, features, pool.threads())?;
        let code = LoadedCode(Code::new(&plan)?);
        let addresses = Addresses::bind(&plan, &code.0, &pool)?;
        let mut expected: Vec<(Place, DType, usize)> = Vec::new();
        for buffer in &plan.program.buffers {
            let given = matches!(buffer.place, Place::Input(_) | Place::Shared(_) | Place::Output(_));
            if given && expected.iter().all(|(place, ..)| *place != buffer.place) {
                expected.push((buffer.place.clone(), buffer.dtype, buffer.len()));
            }
        }
        let threads = pool.threads();
        let context = Context { reports: vec![[0; 3]; threads], scratch: Vec::new(), times: None, pool };
        let mut loaded = CpuProgram { plan, addresses, expected, context, arena: None, code };
        loaded.set_workspace(Workspace::default())?;
        Ok(loaded)
    }

    /// Gives up the memory in which the program computes, for another program to have; it needs some again before it runs.
    pub fn take_workspace(&mut self) -> Workspace {
        Workspace { arena: self.arena.take(), scratch: std::mem::take(&mut self.context.scratch) }
    }

    /// Whether it has memory to compute in.
    pub fn has_workspace(&self) -> bool {
        self.arena.is_some()
    }

    /// Gives the program memory to compute in, and more where that is too little.
    ///
    /// # Errors
    /// More memory than the system gives; the program has none then.
    pub fn set_workspace(&mut self, workspace: Workspace) -> Result<(), CodeError> {
        let Workspace { arena, scratch } = workspace;
        let fitting = |array: Option<Array>, bytes: usize| match array {
            Some(array) if array.bytes().len() >= bytes => Ok(array),
            _ => Array::zeros(DType::U8, &[bytes]).map_err(|_| CodeError::Memory(bytes)),
        };
        let bytes = self.plan.program.arena_bytes;
        let mut arena = fitting(arena, bytes.saturating_add(GUARD)).map_err(|_| CodeError::Memory(bytes))?;
        arena.bytes_mut()[bytes..][..GUARD].fill(GUARDED);
        let scratch = scratch.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let scratch = scratch.take(self.context.pool.threads());
        self.context.scratch =
            scratch.map(|array| fitting(array, self.plan.scratch_bytes)).collect::<Result<_, _>>()?;
        for (slot, place) in &self.plan.places {
            if let Place::Arena(offset) = place {
                self.addresses.point(*slot, arena.bytes_mut()[*offset..].as_mut_ptr());
            }
        }
        self.arena = Some(arena);
        Ok(())
    }

    /// Bytes that the program holds besides its description and its workspace: machine code and packed matrices.
    pub fn bytes(&self) -> usize {
        self.code.0.bytes() + self.addresses.packed_bytes()
    }

    /// What the processor does for the program.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Begins or ends measuring the time of each step.
    pub fn set_profiling(&mut self, on: bool) {
        self.context.times = on.then(|| vec![Duration::ZERO; self.plan.program.count()]);
    }

    /// The time spent in each step since measuring began, by the step's number (see [`Program::step`]); that of a scan
    /// holds that of the steps of its body.
    pub fn times(&self) -> Option<&[Duration]> {
        self.context.times.as_deref()
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
        if self.arena.is_none() {
            return Err(broken!("memory that the program computes in").into());
        }
        // Functions take every pointer to lead to as many elements as the program says.
        let fits = |(place, dtype, len): &(Place, DType, usize)| {
            let array = match place {
                Place::Input(index) => inputs.get(*index).copied(),
                Place::Shared(index) => shared.get(*index).map(|array| &**array),
                Place::Output(index) => outputs.get(*index),
                Place::Constant(_) | Place::Arena(_) => None,
            };
            array.is_some_and(|array| array.dtype() == *dtype && array.len() == *len)
        };
        if let Some((place, dtype, len)) = self.expected.iter().find(|expected| !fits(expected)) {
            return Err(RunError::Arrays(format!("expected {len} of {dtype} as {place:?}")));
        }
        for (slot, place) in &self.plan.places {
            let pointer = match place {
                Place::Input(index) => inputs.get(*index).map(|array| array.bytes().as_ptr().cast_mut()),
                Place::Shared(index) => shared.get_mut(*index).map(|array| array.bytes_mut().as_mut_ptr()),
                Place::Output(index) => outputs.get_mut(*index).map(|array| array.bytes_mut().as_mut_ptr()),
                Place::Arena(_) => continue,
                Place::Constant(_) => None,
            };
            let pointer = pointer.ok_or_else(|| broken!("an array of the call that lies in {place:?}"))?;
            self.addresses.point(*slot, pointer);
        }
        let result = self.addresses.run(&self.plan, &mut self.context);
        let guard = self.arena.as_ref().map(|arena| &arena.bytes()[self.plan.program.arena_bytes..][..GUARD]);
        assert!(
            guard.is_some_and(|guard| guard.iter().all(|byte| *byte == GUARDED)),
            "a kernel wrote behind the arena of the program\n{}",
            self.plan.program
        );
        result
    }
}

/// Bytes behind the arena that no kernel may change: a check of builds with assertions.
const GUARD: usize = if cfg!(debug_assertions) { 64 } else { 0 };
/// What stands in them.
const GUARDED: u8 = 0xa5;

/// Memory that programs which never run at one time may have one after another: what they find in it does not matter.
#[derive(Default)]
pub struct Workspace {
    arena: Option<Array>,
    /// One for each thread.
    scratch: Vec<Array>,
}

/// Machine code that is freed with the value.
struct LoadedCode(Code);

impl Drop for LoadedCode {
    fn drop(&mut self) {
        if let Some(module) = self.0.take_module() {
            // SAFETY: only `CpuProgram::run` calls the functions, on a borrow of the value that holds this one, and they
            // return before it does.
            unsafe { module.free_memory() };
        }
    }
}
