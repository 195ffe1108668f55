//! Short random formulas whose constants and arguments are the numbers at which functions change: both zeros,
//! infinities, NaN, subnormals, the ends of integers.
//!
//! Every engine is compared with the interpreter on the formula as it was written; each policy also with the interpreter
//! on the formula that the policy made of it, so that values and gradients which the policies decide otherwise are
//! checked too. 100,000 formulas: `PROPTEST_CASES=25000 PROPTEST_RNG_SEED=7 cargo test --release -p conformance
//! special_values` (the cases of each of the four properties).

use hypatia_graph::DType;
use hypatia_rewrite::Numerics;
use proptest::prelude::*;

use crate::engines::{Engine, concrete, prepare};
use crate::generate::{Grown, Recipe, Soil, add_gradients, config, grow, recipes};
use crate::random_graphs::{agree_on, engines};

const SPECIAL: Soil =
    Soil { float: DType::F32, mixed: false, symbolic: false, wild: true, special: true, scans: 0 };

/// Machine code and the interpreter agree on what each policy has made of a formula.
fn policies_agree_with_themselves(grown: &Grown) -> Result<(), TestCaseError> {
    let literal = Engine::literal();
    let graph = concrete(&grown.graph, &grown.inputs).map_err(TestCaseError::fail)?;
    for numerics in [Numerics::Strict, Numerics::Real] {
        let graph = prepare(&graph, numerics).map_err(TestCaseError::fail)?;
        agree_on(&Grown { graph, inputs: grown.inputs.clone() }, &literal[..1])
            .map_err(|e| TestCaseError::fail(format!("{numerics:?}, of\n{}\n{e}", grown.graph)))?;
    }
    Ok(())
}

fn check(recipe: &Recipe, soil: Soil) -> Result<(), TestCaseError> {
    let grown = grow(recipe, soil);
    agree_on(&grown, &engines())?;
    policies_agree_with_themselves(&grown)
}

fn check_gradients(recipe: &Recipe, soil: Soil) -> Result<(), TestCaseError> {
    let mut grown = grow(recipe, soil);
    add_gradients(&mut grown.graph);
    agree_on(&grown, &engines()[..2])?;
    policies_agree_with_themselves(&grown)
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn formulas(recipe in recipes(1..9)) {
        check(&recipe, SPECIAL)?;
    }

    #[test]
    fn formulas_of_all_types(recipe in recipes(1..9)) {
        check(&recipe, Soil { float: DType::F64, mixed: true, ..SPECIAL })?;
    }

    #[test]
    fn scans(recipe in recipes(2..12)) {
        check(&recipe, Soil { scans: 2, ..SPECIAL })?;
    }

    #[test]
    fn gradients(recipe in recipes(1..9)) {
        check_gradients(&recipe, Soil { scans: 1, ..SPECIAL })?;
    }
}
