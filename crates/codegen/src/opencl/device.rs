//! OpenCL devices: one context and one in-order queue for each, shared by every program of the process, so that
//! commands of different programs on one device never overtake each other. The only file of this back end with
//! `unsafe` code.
//!
//! Transfers block, so host memory is never borrowed beyond a call. Kernels are only launched through
//! [`Compiled::launch`]; their text comes from [`super::emit`] and their program passed [`crate::kernel::verify`].
#![allow(unsafe_code, reason = "calls of the OpenCL library")]

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use hypatia_graph::leaf::RemoteValue;
use hypatia_graph::{Array, LeafId, broken};
use opencl3::command_queue::{CL_QUEUE_PROFILING_ENABLE, CommandQueue};
use opencl3::context::Context;
use opencl3::device::{CL_DEVICE_TYPE_ALL, CL_DEVICE_TYPE_CPU, CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT};
use opencl3::error_codes::{CL_PLATFORM_NOT_FOUND_KHR, ClError, DLOPEN_RUNTIME_LOAD_FAILED};
use opencl3::event::Event;
use opencl3::kernel::Kernel;
use opencl3::memory::{Buffer, CL_MEM_READ_WRITE, ClMem};
use opencl3::platform::get_platforms;
use opencl3::program::Program;
use opencl3::types::{CL_TRUE, cl_mem};

use super::emit::{Launch, Module};
use super::{DeviceError, DeviceInfo};

/// An opened device.
pub(super) struct Device {
    pub(super) info: DeviceInfo,
    /// Work items that a group may have.
    pub(super) largest_group: usize,
    /// Whether it is a processor, whose work items are lanes of vectors.
    pub(super) is_processor: bool,
    context: Context,
    queue: CommandQueue,
    correct_division: bool,
    resident: Mutex<BTreeMap<(LeafId, usize), Weak<Resident>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(doing: &str) -> impl Fn(ClError) -> DeviceError {
    move |error| DeviceError::Call { doing: doing.into(), code: error.0 }
}

/// The devices of all platforms, asked for once: some drivers fail when two threads wake them at the same time.
fn found() -> Result<&'static [(opencl3::device::Device, DeviceInfo)], DeviceError> {
    static FOUND: OnceLock<Result<Vec<(opencl3::device::Device, DeviceInfo)>, DeviceError>> = OnceLock::new();
    FOUND.get_or_init(find).as_deref().map_err(DeviceError::clone)
}

fn find() -> Result<Vec<(opencl3::device::Device, DeviceInfo)>, DeviceError> {
    let platforms = match get_platforms() {
        Ok(platforms) => platforms,
        Err(ClError(DLOPEN_RUNTIME_LOAD_FAILED)) => {
            return Err(DeviceError::Absent("its loader library (libOpenCL) is not installed"));
        }
        Err(ClError(CL_PLATFORM_NOT_FOUND_KHR)) => Vec::new(),
        Err(error) => return Err(failed("to list its platforms")(error)),
    };
    let mut devices = Vec::new();
    for platform in &platforms {
        let name = platform.name().map_err(failed("to name a platform"))?;
        // A platform without devices says so by an error.
        for id in platform.get_devices(CL_DEVICE_TYPE_ALL).unwrap_or_default() {
            let device = opencl3::device::Device::new(id);
            let ask = failed("to describe a device");
            let info = DeviceInfo {
                name: device.name().map_err(&ask)?,
                platform: name.clone(),
                version: device.version().map_err(&ask)?,
                compute_units: device.max_compute_units().map_err(&ask)?,
                memory: device.global_mem_size().map_err(&ask)?,
                fp64: device.double_fp_config().is_ok_and(|config| config != 0),
            };
            devices.push((device, info));
        }
    }
    match (platforms.len(), devices.len()) {
        (0, _) => Err(DeviceError::Absent("the loader library finds no platform (driver)")),
        (_, 0) => Err(DeviceError::Absent("no platform has a device")),
        _ => Ok(devices),
    }
}

/// The devices of all platforms.
pub(super) fn describe() -> Result<Vec<DeviceInfo>, DeviceError> {
    Ok(found()?.iter().map(|(_, info)| info.clone()).collect())
}

impl Device {
    /// The device with that number, opened once in a process.
    pub(super) fn open(number: usize) -> Result<Arc<Device>, DeviceError> {
        static OPEN: Mutex<BTreeMap<usize, Arc<Device>>> = Mutex::new(BTreeMap::new());
        let mut open = lock(&OPEN);
        if let Some(device) = open.get(&number) {
            return Ok(Arc::clone(device));
        }
        let devices = found()?;
        let Some((handle, info)) = devices.get(number) else {
            return Err(DeviceError::NoDevice { number, count: devices.len() });
        };
        let context = Context::from_device(handle).map_err(failed("to create a context"))?;
        // `clCreateCommandQueue`, since its successor is missing from OpenCL 1.2.
        // SAFETY: `handle` is the device of `context`.
        let queue = unsafe { CommandQueue::create(&context, handle.id(), CL_QUEUE_PROFILING_ENABLE) }
            .map_err(failed("to create a queue"))?;
        let config = handle.single_fp_config().unwrap_or(0);
        let device = Arc::new(Device {
            info: info.clone(),
            largest_group: handle.max_work_group_size().map_err(failed("to describe a device"))?,
            is_processor: handle.dev_type().is_ok_and(|ty| ty & CL_DEVICE_TYPE_CPU != 0),
            context,
            queue,
            correct_division: config & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT != 0,
            resident: Mutex::new(BTreeMap::new()),
        });
        open.insert(number, Arc::clone(&device));
        Ok(device)
    }

    /// The copy of a shared variable of that size on this device, made on first use.
    pub(super) fn resident(
        self: &Arc<Device>,
        leaf: LeafId,
        bytes: usize,
    ) -> Result<Arc<Resident>, DeviceError> {
        let mut resident = lock(&self.resident);
        resident.retain(|_, copy| copy.strong_count() > 0);
        if let Some(copy) = resident.get(&(leaf, bytes)).and_then(Weak::upgrade) {
            return Ok(copy);
        }
        let copy = Arc::new(Resident { memory: Memory::allocate(self, bytes)?, version: Mutex::new(None) });
        resident.insert((leaf, bytes), Arc::downgrade(&copy));
        Ok(copy)
    }

    /// Hands queued commands to the device.
    pub(super) fn flush(&self) -> Result<(), DeviceError> {
        self.queue.flush().map_err(failed("to begin"))
    }
}

/// Memory on a device.
pub(super) struct Memory {
    device: Arc<Device>,
    buffer: Mutex<Buffer<u8>>,
    bytes: usize,
}

impl Memory {
    /// At least that many bytes; their content is undefined.
    pub(super) fn allocate(device: &Arc<Device>, bytes: usize) -> Result<Memory, DeviceError> {
        // Buffers of no size do not exist.
        let size = bytes.max(64);
        // SAFETY: without a host pointer there is no memory that the buffer could outlive.
        let buffer = unsafe { Buffer::create(&device.context, CL_MEM_READ_WRITE, size, ptr::null_mut()) }
            .map_err(failed(&format!("to allocate {size} bytes")))?;
        Ok(Memory { device: Arc::clone(device), buffer: Mutex::new(buffer), bytes })
    }

    /// The number of bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies from the host; `data` has the size of the memory.
    pub(super) fn write(&self, data: &[u8]) -> Result<(), DeviceError> {
        self.check(data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer has `bytes` bytes, as many as `data`, and the call returns after the copy.
        unsafe { self.device.queue.enqueue_write_buffer(&mut lock(&self.buffer), CL_TRUE, 0, data, &[]) }
            .map_err(failed("to copy to the device"))?;
        Ok(())
    }

    /// Copies to the host after all that was queued before; `data` has the size of the memory.
    pub(super) fn read(&self, data: &mut [u8]) -> Result<(), DeviceError> {
        self.check(data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer has `bytes` bytes, as many as `data`, and the call returns after the copy.
        unsafe { self.device.queue.enqueue_read_buffer(&lock(&self.buffer), CL_TRUE, 0, data, &[]) }
            .map_err(failed("to copy from the device"))?;
        Ok(())
    }

    /// Copies from the host to a part that begins at `offset`.
    pub(super) fn write_at(&self, offset: usize, data: &[u8]) -> Result<(), DeviceError> {
        self.check_part(offset, data.len())?;
        // SAFETY: the part lies in the buffer, and the call returns after the copy.
        unsafe {
            self.device.queue.enqueue_write_buffer(&mut lock(&self.buffer), CL_TRUE, offset, data, &[])
        }
        .map_err(failed("to copy to the device"))?;
        Ok(())
    }

    /// Copies a part that begins at `offset` to the host, after all that was queued before.
    pub(super) fn read_at(&self, offset: usize, data: &mut [u8]) -> Result<(), DeviceError> {
        self.check_part(offset, data.len())?;
        // SAFETY: the part lies in the buffer, and the call returns after the copy.
        unsafe { self.device.queue.enqueue_read_buffer(&lock(&self.buffer), CL_TRUE, offset, data, &[]) }
            .map_err(failed("to copy from the device"))?;
        Ok(())
    }

    /// Queues a copy of some bytes from one offset to another, of this memory or another; the parts do not overlap.
    pub(super) fn copy_to(
        &self,
        from: usize,
        other: &Memory,
        to: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.check_part(from, bytes)?;
        other.check_part(to, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        let source = lock(&self.buffer).get();
        let target = lock(&other.buffer).get();
        // SAFETY: both parts lie in their buffers, which live while the command is queued, since OpenCL retains them.
        let event = unsafe {
            opencl3::command_queue::enqueue_copy_buffer(
                self.device.queue.get(),
                source,
                target,
                from,
                to,
                bytes,
                0,
                ptr::null(),
            )
        }
        .map_err(|code| failed("to copy on the device")(ClError(code)))?;
        drop(Event::new(event));
        Ok(())
    }

    fn check_part(&self, offset: usize, bytes: usize) -> Result<(), DeviceError> {
        if offset.checked_add(bytes).is_some_and(|end| end <= self.bytes) {
            return Ok(());
        }
        let memory = self.bytes;
        Err(broken!("a part of device memory of {memory} bytes", format!("{bytes} from {offset} on")).into())
    }

    fn check(&self, bytes: usize) -> Result<(), DeviceError> {
        if bytes == self.bytes {
            return Ok(());
        }
        let memory = self.bytes;
        Err(broken!("as many bytes as device memory has, {memory}", bytes).into())
    }
}

/// The copy of a shared variable on a device.
pub(super) struct Resident {
    pub(super) memory: Memory,
    /// Which version of the variable it holds.
    pub(super) version: Mutex<Option<u64>>,
}

/// The value of a shared variable that a device has updated.
pub(super) struct Remote(pub(super) Arc<Resident>);

impl RemoteValue for Remote {
    fn fetch(&self, host: &mut Array) -> Result<(), String> {
        self.0.memory.read(host.bytes_mut()).map_err(|error| error.to_string())
    }
}

/// The kernels of a program, built for a device.
pub(super) struct Compiled {
    device: Arc<Device>,
    kernels: Vec<Kernel>,
}

impl Compiled {
    pub(super) fn new(device: &Arc<Device>, module: &Module) -> Result<Compiled, DeviceError> {
        let division = if device.correct_division { " -cl-fp32-correctly-rounded-divide-sqrt" } else { "" };
        let options = format!("-cl-std=CL1.2 -w{division}");
        let program = Program::create_and_build_from_source(&device.context, &module.source, &options)
            .map_err(|log| build_error(&log, &module.source))?;
        let kernels = module.names.iter().map(|name| Kernel::create(&program, name));
        let kernels = kernels.collect::<Result<_, _>>().map_err(failed("to create a kernel"))?;
        Ok(Compiled { device: Arc::clone(device), kernels })
    }

    /// Queues a kernel with a buffer and byte offset for each parameter, and the error buffer with the step's number if
    /// it is fallible.
    pub(super) fn launch(
        &self,
        launch: &Launch,
        arguments: &[(&Memory, usize)],
        error: Option<(&Memory, usize)>,
    ) -> Result<Timer, DeviceError> {
        let kernel = &self.kernels[launch.kernel];
        let argument_failed = failed("to pass an argument");
        let mut position = 0;
        let mut pass = |memory: &Memory, offset: u64| -> Result<(), DeviceError> {
            let handle: cl_mem = lock(&memory.buffer).get();
            // SAFETY: `emit::head` declares a pointer and a 64-bit offset at these positions.
            unsafe {
                kernel.set_arg(position, &handle).map_err(&argument_failed)?;
                kernel.set_arg(position + 1, &offset).map_err(&argument_failed)?;
            }
            position += 2;
            Ok(())
        };
        for (memory, offset) in arguments {
            pass(memory, *offset as u64)?;
        }
        if let Some((memory, step)) = error {
            let handle: cl_mem = lock(&memory.buffer).get();
            let step = i32::try_from(step).map_err(|_| broken!("the number of a step in 32 bits", step))?;
            // SAFETY: `emit::head` declares the error buffer and a 32-bit number after the parameters.
            unsafe {
                kernel.set_arg(position, &handle).map_err(&argument_failed)?;
                kernel.set_arg(position + 1, &step).map_err(&argument_failed)?;
            }
        }
        let (global, local) = ([launch.groups * launch.group], [launch.group]);
        // SAFETY: every argument is set, and the buffers live while the command is queued, since OpenCL retains them.
        // Each access stays in its buffer: that was verified when the program was prepared, for every value that the
        // emitted checks of indices and starts let through.
        let event = unsafe {
            self.device.queue.enqueue_nd_range_kernel(
                kernel.get(),
                1,
                ptr::null(),
                global.as_ptr(),
                local.as_ptr(),
                &[],
            )
        }
        .map_err(failed("to launch a kernel"))?;
        Ok(Timer(event))
    }
}

/// A queued command.
pub(super) struct Timer(Event);

impl Timer {
    /// Nanoseconds that the command took; waits for it.
    pub(super) fn nanoseconds(&self) -> Result<u64, DeviceError> {
        let asked = failed("to time a command");
        self.0.wait().map_err(&asked)?;
        let begin = self.0.profiling_command_start().map_err(&asked)?;
        let end = self.0.profiling_command_end().map_err(&asked)?;
        Ok(end.saturating_sub(begin))
    }
}

/// The build log, followed by the lines of the source that it complains about.
pub(super) fn build_error(log: &str, source: &str) -> DeviceError {
    let mut text = format!("{}\n", log.trim());
    let lines: Vec<&str> = source.lines().collect();
    let faults: BTreeSet<usize> =
        log.lines().filter(|line| line.contains("error")).filter_map(line_number).collect();
    for fault in faults {
        if let Some(line) = fault.checked_sub(1).and_then(|n| lines.get(n)) {
            text.push_str(&format!("{fault:6} | {line}\n"));
        }
    }
    DeviceError::Build(text)
}

/// The number of the line that a compiler's message speaks of: `file:line:column: ...`.
fn line_number(message: &str) -> Option<usize> {
    let numbers: Vec<Option<usize>> = message.split(':').map(|part| part.parse().ok()).collect();
    numbers.windows(2).find_map(|pair| pair[1].and(pair[0]))
}
