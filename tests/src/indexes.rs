//! Indexes and bounds that are computed: each names the element that Python's would, or is an error that says which
//! index was given, along which axis, of which extent. In the interpreter and compiled, outside of scans and inside.

use hypatia::{
    All, Array, DType, Diagnostics, Function, Next, Scan, Shared, Tensor, arange, function, grad, input, ix,
    matrix, scalar, shared, vector,
};
use hypatia_graph::interp::interpret;

/// The first result, which the interpreter gives too, or the message, of which both have the first line.
fn both(function: Result<Function, Diagnostics>, arguments: &[Array]) -> Result<Vec<f64>, String> {
    let mut function = function.map_err(|faults| faults.to_string())?;
    let interpreted = interpret(function.graph(), arguments);
    let arguments: Vec<&Array> = arguments.iter().collect();
    let called = function.call(&arguments).map(|outputs| outputs.array(0).clone());
    match (called, interpreted) {
        (Ok(called), interpreted) => {
            // The interpreter takes no gradients.
            match interpreted {
                Ok(interpreted) => assert_eq!(called, interpreted.outputs[0]),
                Err(fault) => assert!(fault.title.starts_with("a gradient has no value"), "{fault}"),
            }
            Ok((0..called.len()).map(|i| called.get(i).to_f64()).collect())
        }
        (Err(called), Err(interpreted)) => {
            let (called, interpreted) = (called.to_string(), interpreted.to_string());
            if !interpreted.contains("a gradient has no value") {
                assert_eq!(called.lines().next(), interpreted.lines().next());
            }
            Err(called)
        }
        (called, interpreted) => panic!("compiled {called:?}, interpreted {interpreted:?}"),
    }
}

/// The position among `n` that an index of Python's names.
fn place(index: i64, n: usize) -> Option<usize> {
    let n = n as i64;
    (-n..n).contains(&index).then(|| index.rem_euclid(n) as usize)
}

fn given(index: i64, dtype: DType) -> Option<Array> {
    let exact = match dtype {
        DType::U8 => u8::try_from(index).is_ok(),
        DType::I32 => i32::try_from(index).is_ok(),
        _ => true,
    };
    exact.then(|| Array::scalar(index).cast(dtype))
}

const INDEXES: [i64; 19] = [
    0,
    1,
    4,
    5,
    6,
    9,
    10,
    255,
    -1,
    -4,
    -5,
    -6,
    -7,
    -10,
    -11,
    i64::MIN,
    i64::MAX,
    i32::MIN as i64,
    i32::MAX as i64,
];

const DATA: [f32; 5] = [10.0, 11.0, 12.0, 13.0, 14.0];

fn said(index: i64, axis: usize, n: usize) -> String {
    format!("index {index} is out of range for axis {axis} of extent {n}")
}

#[test]
fn an_index_below_the_first_or_behind_the_last_is_an_error() {
    let x = vector::<f32>("x");
    for dtype in [DType::U8, DType::I32, DType::I64] {
        let i = input("i", dtype, &[]);
        let forms: [(&str, Tensor); 8] = [
            ("read", x.index(ix![&i])),
            ("set", x.set_index(ix![&i], 1.0)),
            ("added to", x.inc_index(ix![&i], 1.0)),
            ("gradient", grad(&x.index(ix![&i]).sqr().sum(All), [&x])[0].clone()),
            ("taken", x.take(i.reshape([1]))),
            ("rows set", x.set_rows(i.reshape([1]), x.index(ix![0..1]) * 0.0 + 1.0)),
            ("rows added to", x.inc_rows(i.reshape([1]), x.index(ix![0..1]) * 0.0 + 1.0)),
            ("picked", x.reshape([1, 5]).pick(i.reshape([1]))),
        ];
        for (name, form) in &forms {
            for index in INDEXES {
                let Some(value) = given(index, dtype) else { continue };
                let found = both(function(&[&x, &i], &[form], &[]), &[Array::vector(&DATA), value]);
                let axis = usize::from(*name == "picked");
                match (place(index, 5), found) {
                    (Some(place), Ok(found)) => {
                        let mut expected: Vec<f64> = DATA.iter().map(|x| f64::from(*x)).collect();
                        match *name {
                            "read" | "taken" | "picked" => expected = vec![expected[place]],
                            "set" | "rows set" => expected[place] = 1.0,
                            "added to" | "rows added to" => expected[place] += 1.0,
                            _ => {
                                expected = vec![0.0; 5];
                                expected[place] = 2.0 * f64::from(DATA[place]);
                            }
                        }
                        assert_eq!(found, expected, "{name} at {index} {dtype}");
                    }
                    (None, Err(message)) => {
                        assert!(message.contains(&said(index, axis, 5)), "{name} at {index}: {message}");
                    }
                    (_, found) => panic!("{name} at {index} {dtype}: {found:?}"),
                }
            }
        }
    }
}

#[test]
fn an_axis_of_a_matrix_is_named() {
    let (x, i) = (matrix::<f32>("x"), scalar::<i64>("i"));
    let data = Array::zeros(DType::F32, &[3, 4]).unwrap();
    for index in [-5i64, -4, 0, 3, 4] {
        let found =
            both(function(&[&x, &i], &[&x.index(ix![.., &i])], &[]), &[data.clone(), Array::scalar(index)]);
        match place(index, 4) {
            Some(_) => assert_eq!(found.unwrap(), [0.0; 3]),
            None => {
                let message = found.unwrap_err();
                assert!(message.contains(&said(index, 1, 4)), "{message}");
                assert!(message.contains("expected  -4 to 3"), "{message}");
            }
        }
    }
    let rows =
        both(function(&[&x, &i], &[&x.set_index(ix![&i, &i], 1.0)], &[]), &[data, Array::scalar(3i64)]);
    assert!(rows.unwrap_err().contains(&said(3, 0, 3)));
}

#[test]
fn an_index_inside_a_scan_is_the_one_given() {
    let (x, indices) = (vector::<f32>("x"), vector::<i64>("indices"));
    let read = Scan::new().sequence(&indices).run(|step| {
        let index = &step.sequences[0];
        Next::new().output(x.index(ix![index]))
    });
    let written = Scan::new().sequence(&indices).carry(&x).run(|step| {
        let index = &step.sequences[0];
        Next::new().carry(step.carries[0].set_index(ix![index], 1.0))
    });
    let shifted = Scan::new().sequence(&indices).run(|step| {
        let index = &step.sequences[0];
        Next::new().output(x.index(ix![index.clone()..index + 2]).sum(All))
    });
    for index in INDEXES {
        let arguments = [Array::vector(&DATA), Array::vector(&[0, index, 1])];
        let reading = both(function(&[&x, &indices], &[&read.outputs[0]], &[]), &arguments);
        let writing = both(function(&[&x, &indices], &[&written.last[0]], &[]), &arguments);
        match place(index, 5) {
            Some(place) => {
                assert_eq!(reading.unwrap(), [10.0, f64::from(DATA[place]), 11.0]);
                let mut expected = DATA.map(f64::from);
                (expected[0], expected[1], expected[place]) = (1.0, 1.0, 1.0);
                assert_eq!(writing.unwrap(), expected);
            }
            None => {
                assert!(reading.unwrap_err().contains(&said(index, 0, 5)));
                assert!(writing.unwrap_err().contains(&said(index, 0, 5)));
            }
        }
        // The interpreter cuts slices off; that they have a fixed length is seen when a function is specialised.
        let mut sums = function(&[&x, &indices], &[&shifted.outputs[0]], &[]).unwrap();
        let sums = sums.call(&[&arguments[0], &arguments[1]]).map(|outputs| outputs.array(0).get(1).to_f64());
        match index {
            0 | 1 | -5 | -4 => assert_eq!(sums.unwrap(), [21.0, 23.0][place(index, 5).unwrap()]),
            _ => assert!(sums.unwrap_err().to_string().contains(&format!("the slice {index}.."))),
        }
    }
}

#[test]
fn an_update_at_an_index_out_of_range_changes_nothing() {
    let i = scalar::<i64>("i");
    let w = shared("w", Array::vector(&DATA));
    let mut write = function(&[&i], &[], &[(&w, w.set_index(ix![&i], 0.0))]).unwrap();
    for index in [-6i64, -7, -10, 5, i64::MIN, i64::MAX] {
        let message = write.call(&[&Array::scalar(index)]).unwrap_err().to_string();
        assert!(message.contains(&said(index, 0, 5)), "{message}");
        assert_eq!(w.get_value().unwrap(), Array::vector(&DATA));
    }
    write.call(&[&Array::scalar(-5i64)]).unwrap();
    assert_eq!(w.get_value().unwrap().get(0).to_f64(), 0.0);
}

/// `numpy.arange(10, 15)[i - back : i + ahead]` has the length `back + ahead` or is an error here.
#[test]
fn a_slice_of_fixed_length_is_numpys_or_an_error() {
    let (x, i) = (vector::<f32>("x"), scalar::<i64>("i"));
    for (back, ahead) in
        [(2, 0), (1, 0), (0, 1), (0, 2), (1, 1), (5, 0), (0, 5), (3, -1), (-1, 3), (2, -2), (-2, 2)]
    {
        let part = x.index(ix![&i - back..&i + ahead]);
        let written = x.set_index(ix![&i - back..&i + ahead], -1.0);
        let (part, written) = (function(&[&x, &i], &[&part], &[]), function(&[&x, &i], &[&written], &[]));
        let (mut part, mut written) = (part.unwrap(), written.unwrap());
        for at in -12i64..12 {
            let (start, stop) = (at - i64::from(back), at + i64::from(ahead));
            let clamped = |bound: i64| (if bound < 0 { bound + 5 } else { bound }).clamp(0, 5) as usize;
            let (from, to) = (clamped(start), clamped(stop).max(clamped(start)));
            let arguments = [&Array::vector(&DATA), &Array::scalar(at)];
            let found = part.call(&arguments).map(|outputs| outputs.array(0).clone());
            let changed = written.call(&arguments).map(|outputs| outputs.array(0).clone());
            if (to - from) as i64 == stop - start {
                assert_eq!(found.unwrap(), Array::vector(&DATA[from..to]), "{start}..{stop}");
                let mut expected = DATA;
                expected[from..to].fill(-1.0);
                assert_eq!(changed.unwrap(), Array::vector(&expected), "{start}..{stop}");
            } else {
                let said = format!("the slice {start}..{stop} does not lie within axis 0 of extent 5");
                for message in [found.unwrap_err().to_string(), changed.unwrap_err().to_string()] {
                    assert!(message.contains(&said), "{message}");
                }
            }
        }
    }
}

#[test]
fn bounds_of_bytes_wrap_as_their_sums_do() {
    let (x, i) = (vector::<f32>("x"), input("i", DType::U8, &[]));
    let data: Vec<f32> = (0..300).map(|i| i as f32).collect();
    let two = Tensor::from(2).cast(DType::U8);
    // NumPy: x[np.uint8(254) : np.uint8(0)] is empty, x[255 : 1] too.
    let mut part = function(&[&x, &i], &[&x.index(ix![i.clone()..&i + &two])], &[]).unwrap();
    for (at, expected) in [(3u8, 2), (253, 2), (254, 0), (255, 0)] {
        let found = part.call(&[&Array::vector(&data), &Array::scalar(at)]).unwrap().array(0).len();
        assert_eq!(found, expected, "from {at}");
    }
    let narrow = i.cast(DType::I64) + 250;
    let (start, stop) = (narrow.cast(DType::U8).cast(DType::I64), &narrow + 2);
    let mut part = function(&[&x, &i], &[&x.index(ix![start..stop])], &[]).unwrap();
    // From (250 + 10) mod 256 = 4 to 262.
    assert_eq!(part.call(&[&Array::vector(&data), &Array::scalar(10u8)]).unwrap().array(0).len(), 258);
}

#[test]
fn a_fixed_index_is_checked_where_the_extent_is_known_at_the_call() {
    let x = vector::<f32>("x");
    let five = Array::vector(&DATA);
    for index in [7, 5, -6] {
        let found = both(function(&[&x], &[&x.index(ix![index])], &[]), std::slice::from_ref(&five));
        let message = found.unwrap_err();
        assert!(message.contains(&said(index, 0, 5)), "{message}");
        assert!(message.contains("indexes.rs") && message.contains("f32[5] `x`"), "{message}");
        let found = both(function(&[&x], &[&x.set_index(ix![index], 0.0)], &[]), std::slice::from_ref(&five));
        assert!(found.unwrap_err().contains(&said(index, 0, 5)));
    }
    let last = both(function(&[&x], &[&x.index(ix![x.extent(0)])], &[]), &[five]);
    assert!(last.unwrap_err().contains(&said(5, 0, 5)));
    let known = input("known", DType::F32, &[Some(5)]);
    let message = both(function(&[&known], &[&known.index(ix![usize::MAX])], &[]), &[]).unwrap_err();
    assert!(message.contains("is out of range for axis 0 of extent 5"), "{message}");
}

#[test]
fn constant_indices_are_checked_as_given() {
    let x = vector::<f32>("x");
    for index in [-6i64, -7, 5] {
        for indices in [vec![index], vec![index; 3], vec![0, index]] {
            let indices = hypatia::constant(Array::vector(&indices));
            let found = both(function(&[&x], &[&x.take(&indices)], &[]), &[Array::vector(&DATA)]);
            assert!(found.unwrap_err().contains(&said(index, 0, 5)));
        }
    }
}

/// An index that is out of range is an error whatever stands at it or is written to it.
#[test]
fn what_is_read_or_written_does_not_matter() {
    let (x, i) = (vector::<f32>("x"), vector::<i64>("i"));
    let ones = x.ones_like();
    for form in [ones.take(&i), x.inc_rows(&i, i.cast(DType::F32) * 0.0), arange(5).take(&i).cast(DType::F32)]
    {
        let found = both(
            function(&[&x, &i], &[&(&form + x.sum(All))], &[]),
            &[Array::vector(&DATA), Array::vector(&[0i64, 5])],
        );
        assert!(found.unwrap_err().contains(&said(5, 0, 5)));
    }
    let at = scalar::<i64>("at");
    let found = both(
        function(&[&x, &at], &[&x.inc_index(ix![&at], 0.0)], &[]),
        &[Array::vector(&DATA), Array::scalar(5i64)],
    );
    assert!(found.unwrap_err().contains(&said(5, 0, 5)));
}

#[test]
fn there_is_no_index_into_nothing() {
    let (x, i) = (vector::<f32>("x"), scalar::<i64>("i"));
    let nothing = Array::zeros(DType::F32, &[0]).unwrap();
    for at in [0i64, -1] {
        let found =
            both(function(&[&x, &i], &[&x.take(i.reshape([1]))], &[]), &[nothing.clone(), Array::scalar(at)]);
        let message = found.unwrap_err();
        assert!(message.contains("axis 0, which has no element"), "{message}");
    }
    let mut read = function(&[&x, &i], &[&x.index(ix![&i])], &[]).unwrap();
    let message = read.call(&[&nothing, &Array::scalar(0i64)]).unwrap_err().to_string();
    assert!(message.contains("axis 0, which has no element"), "{message}");
}

#[test]
fn a_scan_updates_a_shared_table_at_indices_as_given() {
    let indices = vector::<i32>("indices");
    let table = shared("table", Array::vector(&DATA));
    let scanned = Scan::new()
        .sequence(&indices)
        .run(|step| Next::new().update(&table, table.inc_index(ix![&step.sequences[0]], 1.0)));
    let updates: Vec<(&Shared, Tensor)> = scanned.updates.iter().map(|(s, t)| (s, t.clone())).collect();
    let mut count = function(&[&indices], &[], &updates).unwrap();
    let message = count.call(&[&Array::vector(&[0i32, -6])]).unwrap_err().to_string();
    assert!(message.contains(&said(-6, 0, 5)), "{message}");
    assert_eq!(table.get_value().unwrap(), Array::vector(&DATA));
    count.call(&[&Array::vector(&[0i32, -5, 4])]).unwrap();
    assert_eq!(table.get_value().unwrap(), Array::vector(&[12.0f32, 11.0, 12.0, 13.0, 15.0]));
}
