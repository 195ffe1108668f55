//! What can go wrong with a device.

use hypatia_graph::Broken;
use opencl3::error_codes::ClError;

use crate::kernel::RunError;

/// Why a device does not do what a program needs.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no OpenCL; why.
    #[error("no OpenCL: {0}")]
    Absent(&'static str),
    /// There is no device of that number.
    #[error("no OpenCL device {number}: there are {count}")]
    NoDevice {
        /// The number asked for.
        number: usize,
        /// The number of devices.
        count: usize,
    },
    /// The device lacks something.
    #[error("{device} {lacks}")]
    Lacks {
        /// Its name.
        device: String,
        /// What it lacks that the program uses.
        lacks: String,
    },
    /// The driver does not build the text of a program: its log, with the lines at fault.
    #[error("OpenCL failed to build a program: {0}")]
    Build(String),
    /// A call of the library failed.
    #[error("OpenCL failed {doing}: {}", ClError(*.code))]
    Call {
        /// What was to be done.
        doing: String,
        /// The library's number of the error.
        code: i32,
    },
    /// An invariant of the compiler does not hold.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<DeviceError> for RunError {
    fn from(error: DeviceError) -> RunError {
        match error {
            DeviceError::Broken(broken) => RunError::Broken(broken),
            error => RunError::Device(error.to_string()),
        }
    }
}
