//! `hypatia show MODEL`: the functions of a model at each stage of their compilation.

use std::fmt::Write;
use std::io::Write as _;

use clap::{Arg, ArgMatches, Command};
use hypatia::Function;

use super::train::{flag, settings, with_training_options};
use super::{Failure, all_models, chosen_model, print, with_models};
use crate::dot::{graph_dot, program_dot};
use crate::model::Source;

const STAGES: [&str; 5] = ["graph", "simplified", "kernels", "program", "plan"];

pub(super) fn command() -> Command {
    let about = "Prints a function of a model as a graph, as kernels, as a program or as a plan, for data in the extents of the tutorial";
    with_models(Command::new("show").about(about), all_models(), |model, command| {
        with_training_options(command, model)
            .arg(
                Arg::new("stage")
                    .long("stage")
                    .value_name("STAGE")
                    .help("What to print: the graph as written, simplified and with its gradients, the kernels, the program with its memory, or what the processor does for it")
                    .value_parser(STAGES)
                    .default_value("simplified"),
            )
            .arg(
                Arg::new("function")
                    .long("function")
                    .value_name("NAME")
                    .help("Which function, for example train or validate [default: the training step]"),
            )
            .arg(flag("dot", "Print for Graphviz"))
    })
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let (model, matches) = chosen_model(matches, all_models())?;
    let training = model.trainer.prepare(&settings(model, matches, Source::Blank), matches)?;
    let functions = training.functions();
    let function = match matches.get_one::<String>("function") {
        None => functions.first().map(|(_, function)| *function),
        Some(wanted) => Some(
            functions.iter().find(|(name, _)| name == wanted).map(|(_, function)| *function).ok_or_else(
                || {
                    let names: Vec<&str> = functions.iter().map(|(name, _)| *name).collect();
                    Failure::usage(format!(
                        "--function: expected a function of {}, one of {}, found `{wanted}`",
                        model.name,
                        names.join(", ")
                    ))
                },
            )?,
        ),
    };
    let stage = matches.get_one::<String>("stage").map_or("simplified", String::as_str);
    let text = function.and_then(|function| render(function, stage, matches.get_flag("dot")));
    let text = text.ok_or_else(|| {
        Failure::failed("the function is compiled at its first call, when the shapes of its inputs are known")
    })?;
    print(&text)?;
    for warning in function.iter().flat_map(|function| function.warnings()) {
        // What was asked for stands on standard output already.
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    Ok(0)
}

/// The text of a stage; `None` for a function that is not compiled yet.
fn render(function: &Function, stage: &str, dot: bool) -> Option<String> {
    let stages = function.stages()?;
    Some(match (stage, dot) {
        ("graph", true) => graph_dot(function.graph()),
        ("graph", false) => function.graph().to_string(),
        ("simplified", true) => graph_dot(&stages.simplified),
        ("simplified", false) => stages.simplified.to_string(),
        (_, true) => program_dot(&stages.program),
        ("plan", false) => match function.plan() {
            Some(plan) => plan.to_string(),
            None => "the function does not run on the processor\n".into(),
        },
        ("kernels", false) => {
            let mut text = String::new();
            for (number, step) in stages.program.steps.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(text, "{}{number}: {}", if number > 0 { "\n" } else { "" }, step.label);
                let _ = match step.site {
                    Some(site) => writeln!(text, " ({}:{})", site.file(), site.line()),
                    None => writeln!(text),
                };
                let _ = write!(text, "{}", step.kernel);
            }
            text
        }
        (_, false) => stages.program.to_string(),
    })
}
