//! `hypatia train MODEL`.

use std::cell::OnceCell;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::builder::{StyledStr, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hypatia::Device;

use super::{Failure, all_models, chosen_model, print, with_models};
use crate::interrupt::{INTERRUPTED_STATUS, Interrupt};
use crate::model::{Defaults, Examples, Model, Settings, Source, parse_learning_rate};
use crate::run::{Begin, Console, Outcome, train};
use hypatia_datasets::Counted;

/// More threads than this help nobody.
pub(super) const MOST_THREADS: i64 = 256;

pub(super) fn command() -> Command {
    let about = "Trains a model and keeps checkpoint, log and pictures in a directory";
    with_models(Command::new("train").about(about), all_models(), |model, command| {
        with_run_options(with_data_options(with_training_options(command, model), model.examples))
    })
}

/// The options that decide what is trained, which `show` has as well.
pub(super) fn with_training_options(command: Command, model: &Model) -> Command {
    let Defaults { epochs, batch_size, learning_rate, seed } = model.defaults;
    let counts = value_parser!(u64).range(1..=1_000_000_000).into();
    let sizes = value_parser!(u32).range(1..).into();
    let rates = ValueParser::new(parse_learning_rate);
    let command = command
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
        ));
    model.trainer.add_options(with_machine_options(command)).about(model.about)
}

fn help(what: &str, default: &dyn Display) -> String {
    format!("{what} [default: {default}]")
}

/// The options for what computes.
pub(super) fn with_machine_options(command: Command) -> Command {
    let threads = value_parser!(u32).range(1..=MOST_THREADS).into();
    let threads_help = "Threads to compute with; the numbers do not depend on them [default: all cores]";
    command.arg(option("threads", "N", threads_help, threads)).arg(option(
        "device",
        "DEVICE",
        DEVICE_HELP,
        ValueParser::new(parse_device),
    ))
}

/// The options for where the examples come from.
pub(super) fn with_data_options(command: Command, examples: Examples) -> Command {
    let (fewest, most) = examples.generated_range;
    let counts = value_parser!(u32).range(i64::from(fewest)..=i64::from(most)).into();
    let data_help = help(examples.data, &format!("generated {}", examples.generated));
    let generated_help = help(examples.generated_help, &examples.generated_default);
    command
        .arg(option("data", "PATH", data_help, value_parser!(PathBuf)))
        .arg(option(examples.generated, "N", generated_help, counts).conflicts_with("data"))
}

/// What the options of [`with_data_options`] say; their defaults for a command that has none.
pub(super) fn source(matches: &ArgMatches, examples: Examples) -> Source {
    match given::<PathBuf>(matches, "data") {
        Some(path) => Source::Path(path),
        None => Source::Generated(given(matches, examples.generated).unwrap_or(examples.generated_default)),
    }
}

/// The directory of a run: the one of `--out`, or that of the model.
pub(super) fn run_directory(model: &Model, matches: &ArgMatches) -> PathBuf {
    match matches.get_one::<PathBuf>("out") {
        Some(directory) => directory.clone(),
        None => PathBuf::from("runs").join(model.name),
    }
}

fn with_run_options(command: Command) -> Command {
    let out_help = "Directory for checkpoint, log and pictures [default: runs/MODEL]";
    command
        .arg(option("out", "DIR", out_help, value_parser!(PathBuf)))
        .arg(flag("resume", "Go on from the checkpoint in the directory"))
        .arg(
            flag("overwrite", "Begin anew in a directory that holds a run, which is lost")
                .conflicts_with("resume"),
        )
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

/// The settings of a command line.
pub(super) fn settings(model: &Model, matches: &ArgMatches, source: Source) -> Settings {
    let defaults = model.settings(source);
    Settings {
        epochs: given(matches, "epochs").unwrap_or(defaults.epochs),
        batch_size: given::<u32>(matches, "batch-size").map_or(defaults.batch_size, |size| size as usize),
        learning_rate: given(matches, "learning-rate").unwrap_or(defaults.learning_rate),
        seed: given(matches, "seed").unwrap_or(defaults.seed),
        threads: given::<u32>(matches, "threads").map(|threads| threads as usize),
        device: given(matches, "device").unwrap_or_default(),
        ..defaults
    }
}

/// The value of an option that the command may not have.
fn given<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.try_get_one(name).ok().flatten().cloned()
}

/// A run that cannot be interrupted is better than none.
fn catch_signals() -> Interrupt {
    Interrupt::install().unwrap_or_else(|error| {
        let note =
            format!("note: signals are not caught ({error}); the state is saved after every epoch only");
        // Training goes on without an audience.
        let _ = writeln!(std::io::stderr(), "{note}");
        Interrupt::default()
    })
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let (model, matches) = chosen_model(matches, all_models())?;
    let settings = settings(model, matches, source(matches, model.examples));
    let directory = run_directory(model, matches);
    let json = matches.get_flag("json");
    let begin = match (matches.get_flag("resume"), matches.get_flag("overwrite")) {
        (true, _) => Begin::Resume,
        (false, true) => Begin::Overwrite,
        (false, false) => Begin::New,
    };
    // Signals are caught from the first question on: until then there is nothing to save, and a signal ends the program
    // as it ends any other, even one that waits for a file.
    let interrupt = OnceCell::new();
    let console = Console {
        directory: &directory,
        begin,
        log_output: json.then(|| Box::new(std::io::stdout()) as Box<dyn Write + Send>),
        stop: &|| interrupt.get_or_init(catch_signals).is_requested(),
    };
    let outcome = train(model, &settings, matches, console)?;
    match outcome {
        Outcome::Finished { .. } if json => Ok(0),
        Outcome::Finished { done, epochs, files } => {
            let percent = |error: f64| format!("{:.6} %", 100.0 * error);
            let mut text = format!("{} in {:.1} s", Counted(epochs, "epoch"), done.seconds);
            if let Some(error) = done.best_valid_error {
                text += &format!("; best validation error {}", percent(error));
            }
            if let Some(error) = done.test_error {
                text += &format!(", test error {}", percent(error));
            }
            for (name, value) in done.measures {
                text += &format!("; {} {value:.6}", name.replace('_', " "));
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
                "{line_break}interrupted after {} and {}; the state is in {}: the same command with --resume goes on",
                Counted(position.epochs, "epoch"),
                Counted(position.batches, "minibatch"),
                checkpoint.display()
            );
            // The state is saved, whether or not anybody reads of it.
            let _ = writeln!(std::io::stderr(), "{message}");
            Ok(u8::try_from(INTERRUPTED_STATUS).unwrap_or(super::FAILED))
        }
    }
}
