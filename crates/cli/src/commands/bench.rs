//! `hypatia bench`: time of one step of each model.
//!
//! Several workloads are measured in a process each, so that the memory of one is not counted for another.

use std::fmt::Write;
use std::process::{Command as Process, Stdio};
use std::time::Instant;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::Value;

use super::train::{DEVICE_HELP, MOST_THREADS, flag, option, parse_device};
use super::{Failure, print};
use crate::benchmark::{Method, WORKLOADS, Workload, measure};

pub(super) fn command() -> Command {
    let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
    let threads = value_parser!(u32).range(1..=MOST_THREADS).into();
    Command::new("bench")
        .about("Times one step of each model, on random data in the extents of the tutorials")
        .arg(
            Arg::new("workload")
                .long("workload")
                .value_name("NAME")
                .help("What to time, several if repeated [default: all]")
                .value_parser(names)
                .action(ArgAction::Append),
        )
        .arg(option(
            "threads",
            "N",
            "Threads, and processors set aside for them [default: all cores]",
            threads,
        ))
        .arg(
            option(
                "seconds",
                "S",
                "Seconds in a window; at least three are timed",
                ValueParser::new(parse_seconds),
            )
            .default_value("1.5"),
        )
        .arg(option("device", "DEVICE", DEVICE_HELP, ValueParser::new(parse_device)))
        .arg(flag("profile", "Also time every kernel of a step"))
        .arg(flag("json", "Print one JSON object a line instead of a table"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.001..=600.0).contains(seconds));
    seconds.ok_or_else(|| "expected a number from 0.001 to 600".to_owned())
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let started = Instant::now();
    let threads = match matches.get_one::<u32>("threads") {
        Some(threads) => *threads as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let method = Method {
        threads,
        seconds: matches.get_one("seconds").copied().unwrap_or(1.5),
        device: matches.get_one("device").copied().unwrap_or_default(),
        profile: matches.get_flag("profile"),
    };
    let wanted: Option<Vec<&String>> = matches.get_many("workload").map(Iterator::collect);
    let chosen: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|workload| wanted.as_ref().is_none_or(|names| names.iter().any(|n| *n == workload.name)))
        .collect();
    let json = matches.get_flag("json");
    let mut entries = Vec::new();
    for workload in &chosen {
        let entry = match chosen.as_slice() {
            [only] => measure(only, method, started).map_err(Failure::failed)?,
            _ => measure_apart(workload, method)?,
        };
        if json {
            print(&format!("{entry}\n"))?;
        }
        entries.push(entry);
    }
    if !json {
        print(&table(&entries))?;
        for entry in &entries {
            if let (Some(name), Some(profile)) = (entry["workload"].as_str(), entry["profile"].as_str()) {
                print(&format!("\n{name}\n{profile}"))?;
            }
        }
    }
    Ok(0)
}

/// Measures a workload in a process of its own.
fn measure_apart(workload: &Workload, method: Method) -> Result<Value, Failure> {
    let failed = |reason: String| Failure::failed(format!("workload {}: {reason}", workload.name));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Process::new(program)
        .args(["bench", "--json", "--workload", workload.name])
        .args(["--threads", &method.threads.to_string(), "--seconds", &method.seconds.to_string()])
        .args(["--device", &crate::run::device_name(method.device)])
        .args(method.profile.then_some("--profile"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!(
            "expected a measurement, found that its process ended with {}",
            output.status
        )));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

fn table(entries: &[Value]) -> String {
    let mut text = format!(
        "{:14} {:>7} {:>10} {:>10} {:>10} {:>8} {:>11} {:>9} {:>10}\n",
        "workload",
        "threads",
        "median/ms",
        "min/ms",
        "p90/ms",
        "steps",
        "compile/s",
        "peak/MiB",
        "contention"
    );
    for entry in entries {
        let number = |key: &str| entry.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let name = entry.get("workload").and_then(Value::as_str).unwrap_or("");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:14} {:7} {:10.4} {:10.4} {:10.4} {:8} {:11.3} {:9.0} {:10.2}",
            number("threads"),
            number("median_ms"),
            number("min_ms"),
            number("p90_ms"),
            number("steps"),
            number("function_compile_s"),
            number("peak_rss_mb"),
            number("contention"),
        );
    }
    text
}
