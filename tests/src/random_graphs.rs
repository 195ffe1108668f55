//! Random well-typed graphs through every engine: as written, and rewritten under both policies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use hypatia_graph::text::parse;
use hypatia_graph::{Array, DType};
use proptest::prelude::*;

use crate::compare::expected;
use crate::engines::Engine;
use crate::generate::{Grown, Recipe, Soil, add_gradients, config, grow, grow_updates, recipes};

fn agree(recipe: &Recipe, soil: Soil, engines: &[Engine]) -> Result<(), TestCaseError> {
    agree_on(&grow(recipe, soil), engines)
}

pub(crate) fn agree_on(grown: &Grown, engines: &[Engine]) -> Result<(), TestCaseError> {
    let fail = |message: String| {
        TestCaseError::fail(format!("{message}\n{}\n{:?}", grown.graph.pruned(), grown.inputs))
    };
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

pub(crate) fn engines() -> Vec<Engine> {
    let literal = Engine::literal();
    [vec![literal[1], literal[2]], Engine::rewriting()].concat()
}

/// The engines of the OpenCL device, asked for once.
fn opencl() -> &'static [Engine] {
    static ENGINES: LazyLock<Vec<Engine>> = LazyLock::new(Engine::opencl);
    &ENGINES
}

proptest! {
    // A driver takes a while for each kernel.
    #![proptest_config(config(8))]

    #[test]
    fn graphs_on_opencl(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: true, wild: false, special: false, scans: 0 };
        agree(&recipe, soil, opencl())?;
    }

    #[test]
    fn graphs_with_scans_on_opencl(recipe in recipes(5..30)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: true, wild: false, special: false, scans: 2 };
        agree(&recipe, soil, opencl())?;
    }

    #[test]
    fn updates_that_overlap_on_opencl(recipe in recipes(3..20)) {
        agree_on(&grow_updates(&recipe, DType::F32), opencl())?;
    }

    #[test]
    fn gradients_of_scans_on_opencl(recipe in recipes(5..20)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: false, special: false, scans: 2 };
        let mut grown = grow(&recipe, soil);
        add_gradients(&mut grown.graph);
        agree_on(&grown, opencl())?;
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn graphs_of_one_float_type(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: false, special: false, scans: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_of_all_types_and_symbolic_extents(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: false, special: false, scans: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_with_nan_and_infinity(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: true, special: false, scans: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_in_double_precision(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F64, mixed: true, symbolic: true, wild: false, special: false, scans: 0 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_with_scans(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: false, special: false, scans: 2 };
        agree(&recipe, soil, &engines())?;
    }

    #[test]
    fn graphs_with_scans_in_double_precision(recipe in recipes(5..40)) {
        let soil = Soil { float: DType::F64, mixed: false, symbolic: false, wild: true, special: false, scans: 3 };
        agree(&recipe, soil, &engines())?;
    }

    /// Gradients of scans, also of those that gradients are made of in bodies.
    #[test]
    fn gradients_of_scans(recipe in recipes(5..30)) {
        let soil = Soil { float: DType::F32, mixed: false, symbolic: false, wild: false, special: false, scans: 2 };
        let mut grown = grow(&recipe, soil);
        add_gradients(&mut grown.graph);
        agree_on(&grown, &engines())?;
    }

    /// Of variables that read and write windows of themselves and of each other.
    #[test]
    fn updates_that_overlap(recipe in recipes(3..20)) {
        agree_on(&grow_updates(&recipe, DType::F32), &engines())?;
    }

    #[test]
    fn updates_that_overlap_of_integers(recipe in recipes(3..20)) {
        agree_on(&grow_updates(&recipe, DType::I32), &engines())?;
    }

    /// The text form loses nothing that a graph means.
    #[test]
    fn text_returns(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: true, special: false, scans: 2 };
        let text = grow(&recipe, soil).graph.to_string();
        let read = parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(read.to_string(), text);
    }
}

/// What exact arithmetic decides otherwise than rounded one, so that policies may differ.
#[test]
fn decisions_at_their_edges() {
    let cases: [(&str, &[Array]); 3] = [
        // cos(arccos(0)) is 0, and rounded it is not: the scan ends after one step or after two.
        (
            "input %x: i64[]\n\
             body b0 {\n\
               carry %h: i64[]\n\
               %0 = cast{dtype=f32}(%h)\n\
               %1 = arccos(%0)\n\
               %2 = cos(%1)\n\
               %3 = cast{dtype=bool}(%2)\n\
               %4 = add(%h, 1i64)\n\
               until %3\n\
               next %h = %4\n\
             }\n\
             %0 = scan{body=b0, result=steps, steps=4}(%x)\n\
             output %0\n",
            &[Array::scalar(0i64)],
        ),
        // erfc(17) is 5e-127, which single precision does not hold.
        (
            "input %x: f32[]\n\
             %0 = erfc(17.0f32)\n\
             %1 = arctan2(%0, %0)\n\
             %2 = mul(%1, %x)\n\
             output %2\n",
            &[Array::scalar(1.5f32)],
        ),
        // A third of three times a number, rounded down.
        (
            "input %x: f32[3]\n\
             %0 = broadcast{axes=[], dims=[3]}(3.0f32)\n\
             %1 = div(%x, %0)\n\
             %2 = mul(%1, %0)\n\
             %3 = sub(%2, %x)\n\
             %4 = floor(%2)\n\
             %5 = sign(%3)\n\
             output %4\n\
             output %5\n",
            &[Array::vector(&[41.0f32, 47.0, 55.0])],
        ),
    ];
    for (text, inputs) in cases {
        let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let grown = Grown { graph, inputs: inputs.to_vec() };
        if let Err(e) = agree_on(&grown, &engines()) {
            panic!("{e}");
        }
    }
}
