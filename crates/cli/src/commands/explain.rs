//! `hypatia explain 'FORMULA'`: what a formula becomes, and by which rules.

use clap::{Arg, ArgMatches, Command};
use hypatia::Numerics;
use hypatia::graph::text::parse_formula;
use hypatia::rewrite::explain;

use super::train::flag;
use super::{Failure, print};

const FORMULAS: &str = "\
A formula is written as in Python and NumPy: log(1 + exp(x)). Names are float32 scalars unless they are declared first,
as in 'x: f32[8, 10]; log(softmax(x))'.";

pub(super) fn command() -> Command {
    Command::new("explain")
        .about("Simplifies a formula and prints each step with its rule")
        .after_help(FORMULAS)
        .arg(
            Arg::new("formula")
                .value_name("FORMULA")
                .required(true)
                .allow_hyphen_values(true)
                .help("The formula"),
        )
        .arg(flag("strict", "Only steps that never hide a NaN or an infinity"))
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let text = matches.get_one::<String>("formula").map_or("", String::as_str);
    let formula = parse_formula(text).map_err(Failure::usage)?;
    let graph = formula.graph().map_err(Failure::usage)?;
    let numerics = if matches.get_flag("strict") { Numerics::Strict } else { Numerics::Real };
    print(&explain(&graph, numerics).to_string())?;
    Ok(0)
}
