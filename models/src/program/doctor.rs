//! `hypatia doctor`: what this machine offers.

use clap::Command;
use hypatia::codegen::cpu::features::Features;

use super::{Failure, print};

pub(super) fn command() -> Command {
    Command::new("doctor").about("Says what this machine offers: processor, threads, OpenCL devices")
}

pub(super) fn execute() -> Result<u8, Failure> {
    let threads = match std::thread::available_parallelism() {
        Ok(threads) => format!("{threads}"),
        Err(error) => format!("1 (the system does not say how many: {error})"),
    };
    let lines = [
        format!("hypatia    {}", env!("CARGO_PKG_VERSION")),
        format!("processor  {}", Features::detect()),
        format!("threads    {threads}"),
    ];
    print(&(lines.join("\n") + "\n"))?;
    Ok(0)
}
