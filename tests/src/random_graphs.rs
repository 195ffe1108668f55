//! Random well-typed graphs through every engine: as written, and rewritten under both policies.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hypatia_graph::DType;
use hypatia_graph::text::parse;
use proptest::prelude::*;

use crate::compare::expected;
use crate::engines::Engine;
use crate::generate::{Grown, Recipe, Soil, add_gradients, cases, grow, recipes};

fn agree(recipe: &Recipe, soil: Soil, engines: &[Engine]) -> Result<(), TestCaseError> {
    agree_on(&grow(recipe, soil), engines)
}

fn agree_on(grown: &Grown, engines: &[Engine]) -> Result<(), TestCaseError> {
    let fail =
        |message: String| TestCaseError::fail(format!("{message}\n{}\n{:?}", grown.graph, grown.inputs));
    let expected = expected(&grown.graph, &grown.inputs).map_err(fail)?;
    for engine in engines {
        // A panic must not keep the graph to itself.
        let run = AssertUnwindSafe(|| engine.run(&grown.graph, &grown.inputs));
        let found = catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_string()));
        let found = found.map_err(|e| fail(format!("{engine}: {e}")))?;
        expected.check(*engine, &found, false).map_err(fail)?;
    }
    Ok(())
}

fn engines() -> Vec<Engine> {
    let literal = Engine::literal();
    [vec![literal[1], literal[2]], Engine::rewriting()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn graphs_of_one_float_type(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: false, loops: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_of_all_types_and_symbolic_extents(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: false, loops: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_with_nan_and_infinity(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: true, loops: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_in_double_precision(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F64, mixed: true, symbolic: true, wild: false, loops: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_with_loops(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: false, loops: 2 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_with_loops_in_double_precision(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F64, mixed: false, symbolic: false, wild: true, loops: 3 };
        agree(&recipe, soil, &engines())?;
    }

    /// Gradients of loops, also of those that gradients are made of in bodies.
    #[test]
    fn gradients_of_loops(recipe in recipes(5..30)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: false, loops: 2 };
        let mut grown = grow(&recipe, soil);
        add_gradients(&mut grown.graph);
        agree_on(&grown, &engines())?;
    }

    /// The text form loses nothing that a graph means.
    #[test]
    fn text_returns(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: true, loops: 2 };
        let text = grow(&recipe, soil).graph.to_string();
        let read = parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(read.to_string(), text);
    }
}
