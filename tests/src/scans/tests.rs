use hypatia_graph::differentiate::differentiate;
use hypatia_graph::interp::{Evaluation, interpret};
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Array, DType, Graph, Op};
use proptest::prelude::*;

use super::{fixed, unrolled};
use crate::compare::expected;
use crate::engines::{Engine, concrete};
use crate::generate::{Recipe, Soil, config, grow, recipes};

/// Fixed scans through engines; all that is wrong is listed at once.
fn check(engines: &[Engine]) {
    let mut wrong = Vec::new();
    for sample in fixed() {
        let expected = match expected(&sample.graph, &sample.inputs) {
            Ok(expected) => expected,
            Err(e) => {
                wrong.push(format!("{}: {e}", sample.title));
                continue;
            }
        };
        for engine in engines {
            let result = engine.run(&sample.graph, &sample.inputs);
            if let Err(e) = result.and_then(|found| expected.check(*engine, &found, false)) {
                wrong.push(format!("{}: {engine}: {e}", sample.title));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn fixed_scans_agree_as_written() {
    check(&Engine::literal());
}

#[test]
fn fixed_scans_agree_after_rewriting() {
    check(&Engine::rewriting());
}

#[test]
fn fixed_scans_agree_on_opencl() {
    check(&Engine::opencl());
}

/// Whether the interpreter gives the same bits for a graph and for the graph with its scans written out; nothing where
/// a scan cannot be written out.
fn same_written_out(graph: &Graph, inputs: &[Array]) -> Result<bool, String> {
    let graph = concrete(graph, inputs)?;
    let Ok(flat) = unrolled(&graph) else { return Ok(false) };
    verify(&flat, Stage::Collected)
        .map_err(|e| format!("the graph with its scans written out is wrong: {e}"))?;
    assert!(flat.nodes().all(|(_, node)| !matches!(node.op, Op::Scan(_))), "a scan is left");
    let taken = |graph: &Graph| {
        let taken = differentiate(graph, &mut Graph::clone);
        taken.map_err(|e| e.to_string())
    };
    let (found, expected) = (interpret(&taken(&graph)?, inputs), interpret(&taken(&flat)?, inputs));
    let (found, expected) = (found.map_err(|e| e.to_string())?, expected.map_err(|e| e.to_string())?);
    let roots = |e: &Evaluation| -> Vec<Vec<u8>> {
        let updates = e.updates.iter().map(|(_, value)| value);
        e.outputs.iter().chain(updates).map(|value| value.bytes().to_vec()).collect()
    };
    if roots(&found) == roots(&expected) {
        Ok(true)
    } else {
        Err(format!("step by step {found:?}, written out {expected:?}"))
    }
}

#[test]
fn fixed_scans_are_their_steps_written_out() {
    let mut compared = 0;
    for sample in fixed() {
        match same_written_out(&sample.graph, &sample.inputs) {
            Ok(done) => compared += usize::from(done),
            Err(e) => panic!("{}: {e}", sample.title),
        }
    }
    assert!(compared >= 20, "{compared} compared");
}

fn written_out(recipe: &Recipe, soil: Soil) -> Result<(), TestCaseError> {
    let grown = grow(recipe, soil);
    let fail = |e: String| TestCaseError::fail(format!("{e}\n{:#}\n{:?}", grown.graph, grown.inputs));
    same_written_out(&grown.graph, &grown.inputs).map(|_| ()).map_err(fail)
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn random_scans_are_their_steps_written_out(recipe in recipes(5..60)) {
        let soil = Soil { float: DType::F32, mixed: true, symbolic: true, wild: true, special: false, scans: 3 };
        written_out(&recipe, soil)?;
    }
}

/// The graphs that tests of scans grow do have scans, of every kind.
#[test]
fn random_graphs_have_scans() {
    let mut counts = [0; 6];
    for seed in 0..200u64 {
        let steps = (0..40).map(|step| (seed * 40 + step).wrapping_mul(2_654_435_761) as u32).collect();
        let soil =
            Soil { float: DType::F32, mixed: true, symbolic: true, wild: false, special: false, scans: 2 };
        let grown = grow(&Recipe { seed, steps }, soil);
        for (_, node) in grown.graph.nodes() {
            let Op::Scan(scan) = &node.op else { continue };
            let body = &scan.body;
            let nested = body.graph.nodes().any(|(_, node)| matches!(node.op, Op::Scan(_)));
            let computed =
                body.graph.updates.iter().any(|(leaf, id)| body.graph.node(*id).op != Op::Leaf(*leaf));
            let kinds =
                [true, body.until, body.sequences > 0, body.inputs() > body.sequences, nested, computed];
            for (count, kind) in counts.iter_mut().zip(kinds) {
                *count += usize::from(kind);
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}
