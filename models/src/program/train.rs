//! `hypatia train MODEL`.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::builder::{StyledStr, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hypatia::Device;

use super::{Failure, chosen_model, print, with_models};
use crate::interrupt::{INTERRUPTED_STATUS, Interrupt};
use crate::model::{Defaults, Model, Settings, Source, parse_learning_rate};
use crate::train::{Console, Outcome, train};

/// Images generated to learn from when nothing else is asked for.
const GENERATED_IMAGES: u32 = 10_000;
/// More generated images than this would fill the memory of a small machine.
const MOST_GENERATED_IMAGES: i64 = 200_000;
/// More threads than this help nobody.
pub(super) const MOST_THREADS: i64 = 256;

pub(super) fn command() -> Command {
    with_models(
        Command::new("train").about("Trains a model and keeps checkpoint, log and pictures in a directory"),
        with_run_options,
    )
}

/// The options that decide what is trained, which `show` has as well.
pub(super) fn with_common_options(command: Command, model: &dyn Model) -> Command {
    let Defaults { epochs, batch_size, learning_rate, seed } = model.defaults();
    let help = |what: &str, default: &dyn Display| format!("{what} [default: {default}]");
    let counts = value_parser!(u64).range(1..=1_000_000_000).into();
    let sizes = value_parser!(u32).range(1..).into();
    let rates = ValueParser::new(parse_learning_rate);
    let threads = value_parser!(u32).range(1..=MOST_THREADS).into();
    let threads_help = "Threads to compute with; the numbers do not depend on them [default: all cores]";
    let devices = ValueParser::new(parse_device);
    command
        .arg(option("epochs", "N", help("Largest number of epochs", &epochs), counts))
        .arg(option("batch-size", "N", help("Examples in a minibatch", &batch_size), sizes))
        .arg(
            option("learning-rate", "X", help("Step of the gradient descent", &learning_rate), rates)
                .allow_negative_numbers(true),
        )
        .arg(option(
            "seed",
            "N",
            help("Seed of the initial parameters and of generated data", &seed),
            value_parser!(u32).into(),
        ))
        .arg(option("threads", "N", threads_help, threads))
        .arg(option("device", "DEVICE", DEVICE_HELP, devices))
}

fn with_run_options(command: Command) -> Command {
    let digits = value_parser!(u32).range(5..=MOST_GENERATED_IMAGES).into();
    let digits_help = format!(
        "Without --data: digits to generate for training, and a fifth of that for validation and for the test each; \
         50000 gives the sizes of MNIST [default: {GENERATED_IMAGES}]"
    );
    let data_help =
        "mnist.pkl.gz, or a directory with it or with the four MNIST idx files [default: generated digits]";
    let out_help = "Directory for checkpoint, log and pictures [default: runs/MODEL]";
    command
        .arg(option("data", "PATH", data_help, value_parser!(PathBuf)))
        .arg(option("digits", "N", digits_help, digits).conflicts_with("data"))
        .arg(option("out", "DIR", out_help, value_parser!(PathBuf)))
        .arg(flag("resume", "Go on from the checkpoint in the directory"))
        .arg(flag("json", "Print one JSON object a line instead of progress"))
}

/// What `--device` takes.
pub(super) const DEVICE_HELP: &str =
    "cpu, opencl or opencl:N for the OpenCL device of that number [default: cpu]";

pub(super) fn option(
    name: &'static str,
    value: &'static str,
    help: impl Into<StyledStr>,
    parser: ValueParser,
) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help).value_parser(parser)
}

pub(super) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

pub(super) fn parse_device(text: &str) -> Result<Device, String> {
    let number = match text.split_once(':') {
        None if text == "cpu" => return Ok(Device::Cpu),
        None if text == "opencl" => Some(0),
        Some(("opencl", number)) => number.parse().ok(),
        Some(_) | None => None,
    };
    number.map(Device::OpenCl).ok_or_else(|| "expected cpu, opencl or opencl:N".to_owned())
}

/// The settings of a command line; every option has a value, given or by default.
pub(super) fn settings(model: &dyn Model, matches: &ArgMatches, source: Source) -> Settings {
    let defaults = model.defaults();
    Settings {
        source,
        epochs: matches.get_one("epochs").copied().unwrap_or(defaults.epochs),
        batch_size: matches.get_one("batch-size").copied().unwrap_or(defaults.batch_size) as usize,
        learning_rate: matches.get_one("learning-rate").copied().unwrap_or(defaults.learning_rate),
        seed: matches.get_one("seed").copied().unwrap_or(defaults.seed),
        threads: matches.get_one::<u32>("threads").map(|threads| *threads as usize),
        device: matches.get_one("device").copied().unwrap_or_default(),
    }
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let (model, matches) = chosen_model(matches)?;
    let source = match matches.get_one::<PathBuf>("data") {
        Some(path) => Source::Path(path.clone()),
        None => Source::Generated(matches.get_one("digits").copied().unwrap_or(GENERATED_IMAGES)),
    };
    let settings = settings(model, matches, source);
    let directory = match matches.get_one::<PathBuf>("out") {
        Some(directory) => directory.clone(),
        None => PathBuf::from("runs").join(model.name()),
    };
    let json = matches.get_flag("json");
    // Under `nohup`, or in the background of a script, some signals are ignored on purpose; that is no reason to fail.
    let interrupt = Interrupt::install().unwrap_or_else(|error| {
        let note =
            format!("note: signals are not caught ({error}); the state is saved after every epoch only");
        // Training goes on without an audience.
        let _ = writeln!(std::io::stderr(), "{note}");
        Interrupt::default()
    });
    let console = Console {
        directory: &directory,
        resume: matches.get_flag("resume"),
        log_output: json.then(|| Box::new(std::io::stdout()) as Box<dyn Write + Send>),
        stop: &|| interrupt.is_requested(),
    };
    let outcome = train(model, &settings, matches, console)?;
    match outcome {
        Outcome::Finished { .. } if json => Ok(0),
        Outcome::Finished { done, epochs, files } => {
            let percent = |error: f64| format!("{:.6} %", 100.0 * error);
            let mut text = format!("{} epochs in {:.1} s", epochs, done.seconds);
            if let Some(error) = done.best_valid_error {
                text += &format!("; best validation error {}", percent(error));
            }
            if let Some(error) = done.test_error {
                text += &format!(", test error {}", percent(error));
            }
            text.push('\n');
            for file in files {
                text += &format!("  {}\n", file.display());
            }
            print(&text)?;
            Ok(0)
        }
        Outcome::Interrupted { position, checkpoint } => {
            let line_break = if std::io::stderr().is_terminal() { "\n" } else { "" };
            let message = format!(
                "{line_break}interrupted after {} epochs and {} minibatches; the state is in {}: the same command with --resume goes on",
                position.epochs,
                position.batches,
                checkpoint.display()
            );
            // The state is saved, whether or not anybody reads of it.
            let _ = writeln!(std::io::stderr(), "{message}");
            Ok(u8::try_from(INTERRUPTED_STATUS).unwrap_or(super::FAILED))
        }
    }
}
