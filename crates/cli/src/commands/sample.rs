//! `hypatia sample MODEL`.

use std::path::PathBuf;

use clap::{ArgMatches, Command, value_parser};

use super::train::{option, run_directory, settings, source, with_data_options, with_machine_options};
use super::{Failure, all_models, chosen_model, print, with_models};
use crate::model::Model;
use crate::sample::sample;

fn models() -> impl Iterator<Item = &'static Model> + Clone {
    all_models().filter(|model| model.sampler.is_some())
}

pub(super) fn command() -> Command {
    let about = "Draws samples from a trained model";
    let out_help = "Directory of the training run, which gets the samples too [default: runs/MODEL]";
    with_models(Command::new("sample").about(about), models(), |model, command| {
        let seed_help = format!("Seed of the draws [default: {}]", model.defaults.seed);
        let command = command.arg(option("seed", "N", seed_help, value_parser!(u32).into()));
        let command = with_machine_options(command);
        let Some(sampler) = &model.sampler else { return command };
        let command =
            if sampler.begins_at_examples { with_data_options(command, model.examples) } else { command };
        let command = command.arg(option("out", "DIR", out_help, value_parser!(PathBuf)));
        sampler.add_options(command).about(sampler.about)
    })
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let (model, matches) = chosen_model(matches, models())?;
    let settings = settings(model, matches, source(matches, model.examples));
    let files = sample(model, &settings, matches, &run_directory(model, matches))?;
    let lines: Vec<String> = files.iter().map(|file| format!("{}\n", file.display())).collect();
    print(&lines.concat())?;
    Ok(0)
}
