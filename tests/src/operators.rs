//! Every operator through every engine, from the tables in [`crate::samples`].

use std::collections::BTreeSet;

use crate::compare::expected;
use crate::engines::Engine;
use crate::samples::{self, Sample};

/// Runs samples through engines; all that is wrong is listed at once, one line each.
fn check(samples: &[Sample], engines: &[Engine]) {
    let mut wrong = Vec::new();
    for sample in samples {
        let expected = match expected(&sample.graph, &sample.inputs) {
            Ok(expected) => expected,
            Err(e) => {
                wrong.push(format!("{}: {e}", sample.title));
                continue;
            }
        };
        for engine in engines {
            // Without fused multiply-add the remainder jumps where a quotient is rounded to another integer, and
            // trigonometric functions of thousands lose what the reduction of the argument cancels.
            let exact_only = ["mod of f32", "sin of f32", "cos of f32", "tan of f32"];
            if engine.lacks_fused_multiply_add() && exact_only.iter().any(|f| sample.title.starts_with(f)) {
                continue;
            }
            let result = engine.run(&sample.graph, &sample.inputs);
            if let Err(e) = result.and_then(|found| expected.check(*engine, &found, sample.elementwise)) {
                wrong.push(format!("{}: {e}", sample.title));
                // One engine's word is enough.
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), samples.len(), wrong.join("\n"));
}

#[test]
fn elementwise_functions_give_the_interpreters_bits() {
    check(&samples::functions(), &Engine::literal());
}

#[test]
fn elementwise_functions_survive_rewriting() {
    check(&samples::functions(), &Engine::rewriting());
}

#[test]
fn elementwise_functions_take_every_shape() {
    check(&samples::function_shapes(), &Engine::literal());
    check(&samples::function_shapes(), &Engine::rewriting());
}

#[test]
fn conversions_give_the_interpreters_bits() {
    check(&samples::casts(), &Engine::literal());
    check(&samples::casts(), &Engine::rewriting());
}

#[test]
fn operators_agree_as_written() {
    check(&samples::operators(), &Engine::literal());
}

#[test]
fn operators_agree_after_rewriting() {
    check(&samples::operators(), &Engine::rewriting());
}

#[test]
fn every_operator_has_a_sample() {
    let all = [samples::operators(), samples::casts(), samples::functions()].concat();
    let shown: BTreeSet<&str> = all
        .iter()
        .flat_map(|s| s.graph.nodes().map(|(_, node)| &node.op))
        .filter(|op| samples::is_sampled(op))
        .map(|op| op.name())
        .collect();
    let due: BTreeSet<&str> = samples::kinds().into_iter().collect();
    assert_eq!(shown, due);
}

/// Building for a device takes long, so every ninth sample, and all functions at one shape.
#[test]
fn opencl_agrees() {
    let engines = Engine::opencl();
    if engines.is_empty() {
        return;
    }
    let shapes = samples::function_shapes().into_iter().filter(|s| s.title.ends_with("[37]"));
    let some = samples::operators().into_iter().step_by(9);
    check(&shapes.chain(some).collect::<Vec<_>>(), &engines);
}
