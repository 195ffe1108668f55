//! The OpenCL back end: programs as OpenCL C 1.2, and their run on a device.
//!
//! The OpenCL library is loaded when it is first asked for: everything here builds and answers on a machine that has
//! none. Elementwise float32 values and folds have the bits of [`crate::kernel::reference`] on devices that round as
//! IEEE 754 says; products and float64 functions come near.
//!
//! Shared variables stay on the device between calls. A program uploads one only if its version is not the one that the
//! device holds, and leaves the new value there until somebody fetches it. Programs on one device share these copies.

mod convolution;
mod device;
mod emit;
mod error;
mod product;
mod random;
mod scalar;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use hypatia_graph::leaf::{SharedCell, SharedState};
use hypatia_graph::{Array, Broken, DType, broken};

use crate::kernel::verify::verify;
use crate::kernel::{Kernel, OutOfRange, Place, Program, RunError, ScanKernel, Step};
use device::{Compiled, Device, Memory, Remote, Resident};
use emit::{Launch, Module};
use product::Form;

pub use error::DeviceError;

/// A device that OpenCL knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// The platform (driver) that offers it.
    pub platform: String,
    /// The version of OpenCL that it supports.
    pub version: String,
    /// Units that work in parallel.
    pub compute_units: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Whether it has float64.
    pub fp64: bool,
}

/// The devices of all platforms, in the order of their numbers.
///
/// # Errors
/// Why there is none.
pub fn devices() -> Result<Vec<DeviceInfo>, DeviceError> {
    device::describe()
}

/// The OpenCL C of every distinct kernel of a program, as for a graphics processor. On processors products have another form.
///
/// # Errors
/// An invalid program.
pub fn source(program: &Program) -> Result<String, Broken> {
    verify(program)?;
    Ok(emit::emit(program, Form::Tiles)?.source)
}

/// A program ready to run on a device.
pub struct OpenClProgram {
    program: Arc<Program>,
    device: Arc<Device>,
    compiled: Compiled,
    launches: Vec<Vec<Launch>>,
    fallible: bool,
    inputs: Vec<Memory>,
    shared: Vec<Arc<Resident>>,
    constants: Constants,
    outputs: Vec<Memory>,
    arena: Memory,
    error: Memory,
    /// For each shared variable, whether a step writes it.
    updated: Vec<bool>,
    /// Type and number of elements of each input, where the program uses it.
    input_types: Vec<Option<(DType, usize)>>,
}

/// The constants of a program, and of the bodies of its scans by the steps that run them.
struct Constants {
    arrays: Vec<Memory>,
    bodies: BTreeMap<usize, Constants>,
}

impl Constants {
    fn new(device: &Arc<Device>, program: &Program) -> Result<Constants, DeviceError> {
        let upload = |array: &Arc<Array>| -> Result<Memory, DeviceError> {
            let memory = Memory::allocate(device, array.bytes().len())?;
            memory.write(array.bytes())?;
            Ok(memory)
        };
        let bodies = program.steps.iter().enumerate();
        let bodies = bodies.filter_map(|(index, step)| Some((index, step.kernel.body()?)));
        Ok(Constants {
            arrays: program.constants.iter().map(upload).collect::<Result<_, _>>()?,
            bodies: bodies
                .map(|(index, body)| Ok((index, Constants::new(device, body)?)))
                .collect::<Result<_, DeviceError>>()?,
        })
    }
}

/// A program or the body of a scan while it runs.
struct Running<'p> {
    program: &'p Program,
    constants: &'p Constants,
    /// The number of the program's first step.
    first: usize,
}

/// Memory and byte offset of a place.
type Located<'p> = Result<(&'p Memory, usize), Broken>;

/// The three words of the error buffer: step plus one, value, extent.
const ERROR_WORDS: usize = 3;

impl OpenClProgram {
    /// Builds the program for the device with that number in [`devices`]. Building takes the driver a tenth of a second
    /// or more.
    ///
    /// # Errors
    /// What the device lacks, or the build log with the lines at fault; an invalid program.
    pub fn new(program: Arc<Program>, device: usize) -> Result<OpenClProgram, DeviceError> {
        verify(&program)?;
        let device = Device::open(device)?;
        let form = if device.is_processor { Form::Vectors } else { Form::Tiles };
        OpenClProgram::prepare(form, program, device)
    }

    /// As [`OpenClProgram::new`], of a program whose kernels keep to their buffers.
    fn prepare(form: Form, program: Arc<Program>, device: Arc<Device>) -> Result<OpenClProgram, DeviceError> {
        let lacks = |lacks: String| DeviceError::Lacks { device: device.info.name.clone(), lacks };
        if emit::uses_float64(&program) && !device.info.fp64 {
            return Err(lacks("has no float64, which the program uses".into()));
        }
        let module: Module = emit::emit(&program, form)?;
        if let Some(launch) = module.launches.iter().flatten().find(|l| l.group > device.largest_group) {
            let (most, needed) = (device.largest_group, launch.group);
            return Err(lacks(format!("runs groups of {most} work items at most; a kernel needs {needed}")));
        }
        let compiled = Compiled::new(&device, &module)?;
        let inputs = places(&program, |place| if let Place::Input(n) = place { Some(*n) } else { None });
        let mut input_types = vec![None; inputs.len()];
        for buffer in &program.buffers {
            if let Place::Input(n) = buffer.place {
                input_types[n] = Some((buffer.dtype, buffer.len()));
            }
        }
        let allocate = |sizes: Vec<usize>| -> Result<Vec<Memory>, DeviceError> {
            sizes.into_iter().map(|bytes| Memory::allocate(&device, bytes)).collect()
        };
        let sizes = places(&program, |place| if let Place::Shared(n) = place { Some(*n) } else { None });
        let shared = program.shared.iter().enumerate();
        let shared = shared
            .map(|(n, leaf)| {
                let bytes = sizes.get(n).ok_or_else(|| broken!("a buffer of shared variable {n}"))?;
                device.resident(*leaf, *bytes)
            })
            .collect::<Result<_, DeviceError>>()?;
        let constants = Constants::new(&device, &program)?;
        let bytes = |(dtype, shape): &(DType, hypatia_graph::array::Extents)| {
            shape.iter().product::<usize>() * dtype.size()
        };
        let prepared = OpenClProgram {
            fallible: program.steps.iter().any(|step| emit::is_fallible(&step.kernel)),
            launches: module.launches,
            inputs: allocate(inputs)?,
            outputs: allocate(program.outputs.iter().map(bytes).collect())?,
            arena: Memory::allocate(&device, program.arena_bytes)?,
            error: Memory::allocate(&device, ERROR_WORDS * 8)?,
            updated: written_shared(&program),
            shared,
            constants,
            compiled,
            device,
            program,
            input_types,
        };
        for (number, buffer) in prepared.program.buffers.iter().enumerate() {
            let (memory, offset) = prepared.memory(&buffer.place)?;
            if memory.len() < offset + buffer.bytes() {
                return Err(broken!("memory that holds buffer {number}", memory.len()).into());
            }
        }
        Ok(prepared)
    }

    /// Bytes of the device's memory that the program holds for itself.
    pub fn bytes(&self) -> usize {
        let own = self.inputs.iter().chain(&self.outputs).chain(&self.constants.arrays);
        own.map(Memory::len).sum::<usize>() + self.arena.len()
    }

    /// Runs the program: `shared` are the shared variables in the order of [`Program::shared`], `outputs` arrays of the
    /// types and shapes of [`Program::outputs`]. If an index is out of range, nothing of the shared variables has
    /// changed; of several such indices any may be reported. A failure of the device can lose updates.
    ///
    /// # Errors
    /// An index out of range, arrays of other types or shapes, a failing device.
    pub fn run(
        &mut self,
        inputs: &[&Array],
        shared: &[&SharedCell],
        outputs: &mut [Array],
    ) -> Result<(), RunError> {
        self.execute(inputs, shared, outputs, None)
    }

    /// As [`OpenClProgram::run`], and says how long the device took for each step, by its number (see [`Program::step`]).
    ///
    /// # Errors
    /// As [`OpenClProgram::run`].
    pub fn profile(
        &mut self,
        inputs: &[&Array],
        shared: &[&SharedCell],
        outputs: &mut [Array],
    ) -> Result<Vec<Duration>, RunError> {
        let mut times = vec![Duration::ZERO; self.program.count()];
        self.execute(inputs, shared, outputs, Some(&mut times))?;
        Ok(times)
    }

    fn execute(
        &mut self,
        inputs: &[&Array],
        shared: &[&SharedCell],
        outputs: &mut [Array],
        mut times: Option<&mut Vec<Duration>>,
    ) -> Result<(), RunError> {
        self.check(inputs, shared, outputs).map_err(RunError::Arrays)?;
        let mut states: Vec<MutexGuard<'_, SharedState>> = shared.iter().map(|cell| cell.lock()).collect();
        self.upload(inputs, &mut states)?;
        let commit = self.program.commit;
        let program = Running { program: &self.program, constants: &self.constants, first: 0 };
        let place = |place: &Place| self.memory(place);
        self.launch(&program, 0..commit, &place, &mut times)?;
        if self.fallible {
            self.verdict()?;
        }
        self.launch(&program, commit..self.program.steps.len(), &place, &mut times)?;
        for ((state, copy), updated) in states.iter_mut().zip(&self.shared).zip(&self.updated) {
            if *updated {
                state.version += 1;
                state.remote = Some(Box::new(Remote(Arc::clone(copy))));
                *copy.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.version);
            }
        }
        for (memory, output) in self.outputs.iter().zip(outputs) {
            memory.read(output.bytes_mut())?;
        }
        Ok(self.device.flush()?)
    }

    /// What is wrong with the arrays of a call.
    fn check(&self, inputs: &[&Array], shared: &[&SharedCell], outputs: &[Array]) -> Result<(), String> {
        let count = |what: &str, expected: usize, found: usize| {
            if expected == found { Ok(()) } else { Err(format!("expected {expected} {what}, found {found}")) }
        };
        if inputs.len() < self.inputs.len() {
            count("inputs", self.inputs.len(), inputs.len())?;
        }
        count("shared variables", self.shared.len(), shared.len())?;
        count("outputs", self.outputs.len(), outputs.len())?;
        for (n, (input, expected)) in inputs.iter().zip(&self.input_types).enumerate() {
            if let Some((dtype, len)) = expected
                && (input.dtype() != *dtype || input.len() != *len)
            {
                let (found, elements) = (input.dtype(), input.len());
                return Err(format!("input {n}: expected {len} of {dtype}, found {elements} of {found}"));
            }
        }
        for (n, (output, (dtype, shape))) in outputs.iter().zip(&self.program.outputs).enumerate() {
            if output.dtype() != *dtype || output.shape() != shape.as_slice() {
                let (found, extents) = (output.dtype(), output.shape());
                let shape = shape.as_slice();
                return Err(format!("output {n}: expected {dtype}{shape:?}, found {found}{extents:?}"));
            }
        }
        // Locking a variable twice would never end.
        for (n, cell) in shared.iter().enumerate() {
            if shared[..n].iter().any(|before| std::ptr::eq(*before, *cell)) {
                return Err(format!("shared variable {n} is passed twice"));
            }
        }
        Ok(())
    }

    fn upload(&self, inputs: &[&Array], states: &mut [MutexGuard<'_, SharedState>]) -> Result<(), RunError> {
        for ((memory, input), used) in self.inputs.iter().zip(inputs).zip(&self.input_types) {
            if used.is_some() {
                memory.write(input.bytes())?;
            }
        }
        for (state, copy) in states.iter_mut().zip(&self.shared) {
            let mut version = copy.version.lock().unwrap_or_else(PoisonError::into_inner);
            if *version != Some(state.version) {
                state.fetch().map_err(RunError::Device)?;
                *version = None;
                copy.memory.write(state.host.bytes())?;
                *version = Some(state.version);
            }
        }
        if self.fallible {
            self.error.write(&[0; ERROR_WORDS * 8])?;
        }
        Ok(())
    }

    /// Launches some steps of a program; `place` gives the memory of its places.
    fn launch<'m>(
        &'m self,
        running: &Running<'m>,
        steps: std::ops::Range<usize>,
        place: &dyn Fn(&Place) -> Located<'m>,
        times: &mut Option<&mut Vec<Duration>>,
    ) -> Result<(), DeviceError> {
        let Running { program, constants, first } = *running;
        let mut number = first + program.steps[..steps.start].iter().map(Step::count).sum::<usize>();
        for (index, step) in program.steps.iter().enumerate().take(steps.end).skip(steps.start) {
            let arguments = step.arguments.iter().map(|id| place(&program.buffers[id.index()].place));
            let arguments = arguments.collect::<Result<Vec<(&Memory, usize)>, Broken>>()?;
            let mut timers = Vec::new();
            for launch in &self.launches[number] {
                let error = launch.fallible.then_some((&self.error, number));
                timers.push(self.compiled.launch(launch, &arguments, error)?);
            }
            if let Kernel::Scan(kernel) = &step.kernel {
                let constants = constants.bodies.get(&index);
                let constants = constants.ok_or_else(|| broken!("constants of the body of step {number}"))?;
                let body = Running { program: &kernel.body, constants, first: number + 1 };
                self.scan(kernel, &body, &arguments, times)?;
            }
            if let Some(times) = times {
                for timer in timers {
                    times[number] += Duration::from_nanos(timer.nanoseconds()?);
                }
                if let Kernel::Scan(kernel) = &step.kernel {
                    times[number] = Duration::ZERO;
                    let mut inner = number + 1;
                    for step in &kernel.body.steps {
                        let time = times[inner];
                        times[number] += time;
                        inner += step.count();
                    }
                }
            }
            number += step.count();
        }
        Ok(())
    }

    /// Makes the steps of a scan, one after another; only a condition to end at comes back in between.
    fn scan<'m>(
        &'m self,
        kernel: &ScanKernel,
        body: &Running<'m>,
        params: &[(&'m Memory, usize)],
        times: &mut Option<&mut Vec<Duration>>,
    ) -> Result<(), DeviceError> {
        let size = |param: u16| kernel.params[usize::from(param)].dtype.size();
        let param = |param: u16| params[usize::from(param)];
        let mut made = 0;
        for step in 0..kernel.steps {
            let place = |place: &Place| -> Located<'m> {
                if let Place::Constant(index) = place {
                    return Ok((&body.constants.arrays[*index], 0));
                }
                let located = kernel.locate(place, step).and_then(|(number, bytes)| {
                    let (memory, offset) = param(number);
                    Some((memory, offset.checked_add_signed(bytes as isize)?))
                });
                located.ok_or_else(|| broken!("a parameter of the scan that holds {place:?}"))
            };
            self.launch(body, 0..body.program.steps.len(), &place, times)?;
            made = step + 1;
            if let Some(until) = &kernel.until {
                let (memory, offset) = param(until.param);
                let mut condition = [0];
                memory.read_at(offset + until.offset as usize, &mut condition)?;
                if condition != [0] {
                    break;
                }
            }
        }
        if let Some(last) = made.checked_sub(1) {
            for row in &kernel.rows {
                let (memory, offset) = param(row.param);
                let bytes = row.stride as usize * size(row.param);
                for step in made..kernel.steps {
                    memory.copy_to(offset + last * bytes, memory, offset + step * bytes, bytes)?;
                }
            }
            for (row, to) in kernel.kept_rows() {
                let ((memory, offset), (target, to)) = (param(row.param), param(to));
                let bytes = row.stride as usize * size(row.param);
                memory.copy_to(offset + last * bytes, target, to, bytes)?;
            }
        }
        if let Some(to) = kernel.made {
            let (memory, offset) = param(to);
            memory.write_at(offset, &(made as i64).to_ne_bytes())?;
        }
        Ok(())
    }

    /// Memory and byte offset of a place of the program.
    fn memory(&self, place: &Place) -> Located<'_> {
        let memory = match place {
            Place::Input(n) => self.inputs.get(*n),
            Place::Shared(n) => self.shared.get(*n).map(|resident| &resident.memory),
            Place::Constant(n) => self.constants.arrays.get(*n),
            Place::Output(n) => self.outputs.get(*n),
            Place::Arena(offset) => return Ok((&self.arena, *offset)),
        };
        Ok((memory.ok_or_else(|| broken!("device memory of {place:?}"))?, 0))
    }

    /// Whether an index was out of range; waits for the steps so far.
    fn verdict(&self) -> Result<(), RunError> {
        let mut words = [0u8; ERROR_WORDS * 8];
        self.error.read(&mut words)?;
        let mut numbers = [0i64; ERROR_WORDS];
        for (number, bytes) in numbers.iter_mut().zip(words.chunks_exact(8)) {
            *number = bytes.iter().rev().fold(0, |value, byte| value << 8 | i64::from(*byte));
        }
        let [step, value, check] = numbers;
        match usize::try_from(step - 1) {
            Ok(step) => Err(RunError::OutOfRange(OutOfRange { step, value, check: check as usize })),
            Err(_) => Ok(()),
        }
    }
}

/// The bytes of each numbered place of one kind.
fn places(program: &Program, number: impl Fn(&Place) -> Option<usize>) -> Vec<usize> {
    let mut sizes = Vec::new();
    for buffer in &program.buffers {
        if let Some(n) = number(&buffer.place) {
            if sizes.len() <= n {
                sizes.resize(n + 1, 0);
            }
            sizes[n] = sizes[n].max(buffer.bytes());
        }
    }
    sizes
}

fn written_shared(program: &Program) -> Vec<bool> {
    let mut written = vec![false; program.shared.len()];
    for step in &program.steps {
        for (param, id) in step.kernel.params().iter().zip(&step.arguments) {
            if let (true, Place::Shared(n)) = (param.written, &program.buffers[id.index()].place) {
                written[*n] = true;
            }
        }
    }
    written
}
