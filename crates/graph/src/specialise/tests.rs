use super::*;
use crate::array::Array;
use crate::interp::interpret;
use crate::text::parse;

/// The faults of a text's graph for inputs of these shapes.
fn faults(text: &str, shapes: &[&[usize]]) -> String {
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let shapes = graph.inputs.iter().copied().zip(shapes.iter().map(|shape| shape.iter().copied().collect()));
    let arguments = Arguments { shapes: shapes.collect(), ..Arguments::default() };
    match specialise(&graph, &arguments) {
        Err(Unspecialised::Faults(faults)) => faults.to_string(),
        Err(Unspecialised::Needs(leaves)) => panic!("needs {leaves:?}"),
        Ok(graph) => panic!("no fault in\n{graph}"),
    }
}

/// What is built on a node that is found faulty at the call has more axes than the faulty node's operand.
const ON_A_FAULT: [&str; 8] = [
    "%1 = slice{ranges=[1:, :2]}(%0)",
    "%1 = set_slice{ranges=[:, ::2]}(%0, %m)",
    "%1 = extent{axis=1}(%0)",
    "%1 = sum{axes=[1]}(%0)",
    "%1 = argmax{axis=1}(%0)",
    "%1 = permute{axes=[1, 0]}(%0)",
    "%1 = dot(%m, %0)",
    "%1 = concat{axis=1}(%0, %m, %0)",
];

#[test]
fn extents_that_contradict_each_other_at_the_call_are_named() {
    for line in ON_A_FAULT {
        let text = format!(
            "input %v: f32[?]\ninput %m: f32[?, ?]\n\
             %0 = broadcast{{axes=[1], dims=[3, 4]}}(%v)\n{line}\noutput %1\n"
        );
        let found = faults(&text, &[&[5], &[3, 2]]);
        assert!(found.contains("cannot broadcast: an extent is neither 1 nor that of the result"), "{found}");
        assert!(found.contains("f32[5]") && found.contains("f32[3, 4]"), "{found}");
    }
}

/// A scalar through operators that leave it as it is gives an extent; what is not known before it is run gives none.
#[test]
fn extents_are_known_or_refused() {
    let specialised = |line: &str, values: &[i64]| {
        let text = format!(
            "input %n: i64[]\nbody b0 {{\ncarry %h: i64[]\nnext %h = %h\n}}\n{line}\n\
             %result = iota{{dims=[?]}}(%0)\noutput %result\n"
        );
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e}"));
        let values = graph.inputs.iter().copied().zip(values.iter().copied()).collect();
        let specialised = specialise(&graph, &Arguments { values, ..Arguments::default() });
        specialised.map(|graph| graph.ty(graph.outputs[0]).to_string())
    };
    let same = [
        "permute{axes=[]}(OF)",
        "sum{axes=[]}(OF)",
        "slice{ranges=[]}(OF)",
        "set_slice{ranges=[]}(1i64, OF)",
    ];
    for op in same {
        let (of_literal, of_input) = (op.replace("OF", "3i64"), op.replace("OF", "%n"));
        assert_eq!(specialised(&format!("%0 = {of_literal}"), &[]).unwrap(), "i64[3]", "{op}");
        let needs = specialised(&format!("%0 = {of_input}"), &[]);
        assert!(matches!(needs, Err(Unspecialised::Needs(_))), "{op}: {needs:?}");
        assert_eq!(specialised(&format!("%0 = {of_input}"), &[4]).unwrap(), "i64[4]", "{op}");
    }
    for (of, values) in [("3i64", &[][..]), ("%n", &[4])] {
        let found = specialised(&format!("%0 = scan{{body=b0, result=last 0, steps=2}}({of})"), values);
        let Err(Unspecialised::Faults(faults)) = found else { panic!("{found:?}") };
        assert!(faults.to_string().contains("an extent depends on a computed value"), "{faults}");
    }
}

/// What depends on the extents of something faulty is not faulty for that.
#[test]
fn faults_are_told_once() {
    let text = "input %x: f32[?, ?]\ninput %y: f32[?, ?]\n%0 = dot(%x, %y)\n%1 = extent{axis=0}(%0)\n\
                %2 = mul(%1, 2i64)\n%3 = iota{dims=[?]}(%2)\n%4 = broadcast{axes=[], dims=[?]}(1.0f32, %2)\n\
                output %3\noutput %4\n";
    let found = faults(text, &[&[2, 3], &[4, 5]]);
    assert_eq!(found.matches("error").count(), 1, "{found}");
    assert!(found.contains("inner extents of `dot` differ"), "{found}");
}

/// The same in the body of a scan: without steps, whose rows have the extents that a step would give, and with some.
#[test]
fn extents_that_contradict_each_other_in_a_scan_are_named() {
    for line in ON_A_FAULT {
        let text = format!(
            "body b0 {{\nsequence %x: f32[]\ncaptured %v: f32[?]\ncaptured %m: f32[?, ?]\n\
             %0 = broadcast{{axes=[1], dims=[3, 4]}}(%v)\n{line}\nrow %1\n}}\n\
             input %xs: f32[?]\ninput %v: f32[?]\ninput %m: f32[?, ?]\n\
             %0 = scan{{body=b0, result=rows 0, steps=?}}(%xs, %v, %m, %1)\noutput %0\n"
        )
        .replace("%0 = scan", "%1 = extent{axis=0}(%xs)\n%0 = scan");
        for steps in [0, 2] {
            let message = "cannot broadcast: an extent is neither 1 nor that of the result";
            let found = faults(&text, &[&[steps], &[5], &[3, 2]]);
            assert!(found.contains(message), "{found}");
            let graph = parse(&text).unwrap();
            let inputs = [&[steps][..], &[5], &[3, 2]].map(|shape| Array::zeros(DType::F32, shape).unwrap());
            let found = interpret(&graph, &inputs).unwrap_err().to_string();
            assert!(found.contains(message), "{found}");
        }
    }
}
