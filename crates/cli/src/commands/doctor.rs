//! `hypatia doctor`: what this machine offers.

use clap::Command;
use hypatia::codegen::opencl;
use hypatia::kernels::features::Features;

use super::{Failure, print};

pub(super) fn command() -> Command {
    Command::new("doctor").about("Says what this machine offers: processor, threads, OpenCL devices")
}

pub(super) fn execute() -> Result<u8, Failure> {
    let threads = match std::thread::available_parallelism() {
        Ok(threads) => format!("{threads}"),
        Err(error) => format!("1 (the system does not say how many: {error})"),
    };
    let mut lines = vec![
        format!("hypatia    {}", env!("CARGO_PKG_VERSION")),
        format!("processor  {}", Features::detect()),
        format!("threads    {threads}"),
    ];
    match opencl::devices() {
        Ok(devices) if devices.is_empty() => lines.push("opencl     no device".to_owned()),
        Ok(devices) => lines.extend(devices.iter().enumerate().map(|(number, device)| {
            format!(
                "opencl:{number:<3} {} ({}, {}), {} compute units, {:.1} GiB, float64 {}",
                device.name,
                device.platform,
                device.version,
                device.compute_units,
                device.memory as f64 / f64::from(1 << 30),
                if device.fp64 { "yes" } else { "no" }
            )
        })),
        Err(reason) => lines.push(format!("opencl     no device: {reason}")),
    }
    print(&(lines.join("\n") + "\n"))?;
    Ok(0)
}
