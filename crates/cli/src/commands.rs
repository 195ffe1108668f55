//! The command line of the `hypatia` program: `train`, `sample`, `bench`, `show`, `explain`,
//! `convolve`, `doctor`.
//!
//! Exit status: 0 for success, 1 for a failure, 2 for wrong usage, 130 after an interruption that was saved. Results go to
//! standard output, everything else to standard error. Every model is a command below `train` and `show`, with its own
//! options and help.

mod bench;
mod convolve;
mod doctor;
mod explain;
mod sample;
mod show;
mod train;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::error::TrainError;
use crate::interrupt::keep_writing_errors;
use crate::model::Model;
use crate::models::MODELS;

/// What a command fails with.
#[derive(Debug)]
enum Failure {
    /// A message and the exit status.
    Message(String, u8),
    /// The command line is not one; help, too, is such a one.
    CommandLine(Box<clap::Error>),
}

/// Exit status of a failure.
const FAILED: u8 = 1;
/// Exit status of wrong usage.
const USAGE: u8 = 2;

impl Failure {
    fn failed(message: impl ToString) -> Self {
        Self::Message(message.to_string(), FAILED)
    }

    fn usage(message: impl ToString) -> Self {
        Self::Message(message.to_string(), USAGE)
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(Box::new(error))
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        if let TrainError::Usage(message) = error { Self::usage(message) } else { Self::failed(error) }
    }
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
}

/// The program: reads the command line, whose first word is the program's name, and does what it says.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Where the system refuses, a file that grows too large ends the program.
    let _ = keep_writing_errors();
    match execute(arguments.into_iter().collect()) {
        Ok(status) => ExitCode::from(status),
        Err(Failure::CommandLine(error)) => {
            // There is nobody left to tell.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
        }
        Err(Failure::Message(message, status)) => {
            let prefix = if message.starts_with("error: ") { "" } else { "error: " };
            let _ = writeln!(std::io::stderr(), "{prefix}{message}");
            ExitCode::from(status)
        }
    }
}

fn execute(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let matches = command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        Some(("train", matches)) => train::execute(matches),
        Some(("sample", matches)) => sample::execute(matches),
        Some(("bench", matches)) => bench::execute(matches),
        Some(("show", matches)) => show::execute(matches),
        Some(("convolve", matches)) => convolve::execute(matches),
        Some(("explain", matches)) => explain::execute(matches),
        Some(("doctor", _)) => doctor::execute(),
        Some(_) | None => Err(Failure::usage("expected a command; see `hypatia --help`")),
    }
}

fn command() -> Command {
    Command::new("hypatia")
        .about("Symbolic tensors, compiled: trains, measures and explains the models of the Deep Learning Tutorials")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(train::command())
        .subcommand(sample::command())
        .subcommand(bench::command())
        .subcommand(show::command())
        .subcommand(explain::command())
        .subcommand(convolve::command())
        .subcommand(doctor::command())
}

/// A command with one command below it for each of the models, made by `of_model` from an empty one.
fn with_models(
    command: Command,
    models: impl Iterator<Item = &'static Model>,
    of_model: impl Fn(&'static Model, Command) -> Command,
) -> Command {
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand_value_name("MODEL")
        .subcommand_help_heading("Models")
        .disable_help_subcommand(true)
        .allow_external_subcommands(true)
        .subcommands(models.map(|model| of_model(model, Command::new(model.name))))
}

/// The model that a command made by [`with_models`] of the same models was given, and the options for it.
fn chosen_model(
    matches: &ArgMatches,
    mut models: impl Iterator<Item = &'static Model> + Clone,
) -> Result<(&'static Model, &ArgMatches), Failure> {
    let Some((name, options)) = matches.subcommand() else {
        return Err(Failure::usage("expected a model"));
    };
    let names: Vec<&str> = models.clone().map(|model| model.name).collect();
    let model = models.find(|model| model.name == name).ok_or_else(|| {
        Failure::usage(format!("expected a model, one of {}, found `{name}`", names.join(", ")))
    })?;
    Ok((model, options))
}

/// Every model.
fn all_models() -> impl Iterator<Item = &'static Model> + Clone {
    MODELS.iter()
}
