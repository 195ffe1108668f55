//! Facts against values: for every function, conversion and reduction, and for operands from every interval between
//! special ends, all elements of the grid are evaluated, and the facts that are stated must hold of each result.

use hypatia_graph::interp::evaluate_node;
use hypatia_graph::{Array, Axes};

use super::*;

/// Ends of intervals: what may be special to a function or to arithmetic itself. Functions of two elements have fewer.
fn grid(dtype: DType, fine: bool) -> Vec<Literal> {
    let floats = |values: &[f64]| values.iter().map(|x| Literal::from_f64(*x, dtype)).collect();
    match dtype {
        DType::Bool => vec![Literal::Bool(false), Literal::Bool(true)],
        DType::U8 => [0, 1, 2, 3, 7, 100, 128, 200, 254, 255].map(Literal::U8).to_vec(),
        DType::I32 => {
            let (least, most) = (i32::MIN, i32::MAX);
            [least, least + 1, -70_000, -5, -1, 0, 1, 2, 3, 300, 65_536, most - 1, most]
                .map(Literal::I32)
                .to_vec()
        }
        DType::I64 => {
            let (least, most, double) = (i64::MIN, i64::MAX, (1i64 << 53) + 1);
            [least, least + 1, -double, -5, -1, 0, 1, 2, 3, 300, double, most - 1, most]
                .map(Literal::I64)
                .to_vec()
        }
        DType::F32 | DType::F64 => {
            let (tiny, subnormal, largest) = match dtype {
                DType::F64 => (f64::MIN_POSITIVE, f64::from_bits(1), f64::MAX),
                _ => (f64::from(f32::MIN_POSITIVE), f64::from(f32::from_bits(1)), f64::from(f32::MAX)),
            };
            let mut positive = vec![0.0, subnormal, tiny, 0.1, 1.0, 1.5, 3.0, 1e8, largest, f64::INFINITY];
            if fine {
                positive.extend([
                    1e-30,
                    1e-9,
                    1e-3,
                    0.5,
                    2.0,
                    10.0,
                    20.0,
                    50.0,
                    87.4,
                    103.9,
                    exp_limit(dtype),
                    745.1,
                ]);
                positive.sort_by(f64::total_cmp);
            }
            let mut values: Vec<f64> = positive.iter().rev().map(|x| -x).collect();
            values.extend(positive);
            floats(&values)
        }
    }
}

/// Every interval between two ends, less what a guard may exclude, with a NaN or without.
fn sets(dtype: DType, fine: bool) -> Vec<Vec<Literal>> {
    let grid = grid(dtype, fine);
    let mut sets = Vec::new();
    for low in 0..grid.len() {
        for high in low..grid.len() {
            let all = &grid[low..=high];
            if !dtype.is_float() {
                sets.push(all.to_vec());
                continue;
            }
            let kept = |test: &dyn Fn(f64) -> bool| -> Vec<Literal> {
                all.iter().copied().filter(|x| test(x.to_f64())).collect()
            };
            // There is no need of every kind on every interval.
            match (low + high) % 5 {
                0 => sets.push(kept(&|x| x != 0.0)),
                1 => sets.push(kept(&|x| x.fract() == 0.0)),
                2 => sets.push(kept(&|x| x.to_bits() != 0)),
                3 => sets.push(all.to_vec()),
                _ => sets.push(all.iter().copied().chain([Literal::from_f64(f64::NAN, dtype)]).collect()),
            }
        }
    }
    sets.retain(|set| !set.is_empty());
    sets.sort();
    sets.dedup();
    sets
}

/// What holds of all the elements, and no more.
fn facts_of(set: &[Literal]) -> Facts {
    set.iter().map(|x| Facts::of_literal(*x)).reduce(|all, one| all.or(&one)).unwrap()
}

/// What is wrong with the facts about an element.
fn fault(facts: &Facts, value: Literal) -> Option<String> {
    let x = value.to_f64();
    let float = value.dtype().is_float();
    let holds = x.is_nan() && !facts.finite && !facts.number
        || !x.is_nan()
            && facts.low <= x
            && x <= facts.high
            && value.to_i64().is_none_or(|n| facts.least <= n && n <= facts.most)
            && !(facts.nonzero() && x == 0.0)
            && !(facts.no_plus_zero() && x == 0.0 && x.is_sign_positive())
            && !(facts.no_minus_zero() && x == 0.0 && x.is_sign_negative())
            && !(facts.integer && x.is_finite() && x.fract() != 0.0)
            && (!facts.finite || x.is_finite());
    (!holds || !float && x.is_nan()).then(|| format!("{value:?} is not what {facts:?} says"))
}

/// Collects a message for each function that has one.
fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Where the elements of a set lie in a grid.
type Places = Vec<usize>;

/// Every function of one or two elements of the grid, computed once.
struct Table {
    f: ScalarFn,
    dtype: DType,
    grid: Vec<Literal>,
    values: Vec<Literal>,
    /// The sets, with what is known of them.
    sets: Vec<(Places, Facts)>,
}

impl Table {
    /// `None` where the function is not defined on the type.
    fn new(f: ScalarFn, dtype: DType, sets: &[Vec<Literal>]) -> Option<Table> {
        f.result_dtype(&vec![dtype; f.arity()])?;
        let mut grid: Vec<Literal> = sets.iter().flatten().copied().collect();
        grid.sort();
        grid.dedup();
        let places = |set: &Vec<Literal>| set.iter().map(|x| grid.binary_search(x).unwrap()).collect();
        let sets = sets.iter().map(|set| (places(set), facts_of(set))).collect();
        let values = match f.arity() {
            1 => grid.iter().map(|x| f.eval(&[*x]).unwrap()).collect(),
            _ => grid.iter().flat_map(|x| grid.iter().map(|y| f.eval(&[*x, *y]).unwrap())).collect(),
        };
        Some(Table { f, dtype, grid, values, sets })
    }

    fn stated(&self, operands: &[Facts], strict: bool) -> Facts {
        let result = self.values[0].dtype();
        let strict = strict || operands.iter().any(|x| !x.real);
        Facts::of_map(self.f, self.dtype, result, operands, strict)
    }

    /// The first element of which the facts do not hold.
    fn fault(&self, strict: bool, fault: fn(&Facts, Literal) -> Option<String>) -> Option<String> {
        let (f, grid) = (self.f, &self.grid);
        for (xs, known) in &self.sets {
            if f.arity() == 1 {
                let stated = self.stated(&[*known], strict);
                for &x in xs {
                    if let Some(fault) = fault(&stated, self.values[x]) {
                        return Some(format!("{f:?} of {:?} in {known:?}: {fault}", grid[x]));
                    }
                }
                continue;
            }
            for (ys, beside) in &self.sets {
                let stated = self.stated(&[*known, *beside], strict);
                for (&x, &y) in xs.iter().flat_map(|x| ys.iter().map(move |y| (x, y))) {
                    if let Some(fault) = fault(&stated, self.values[x * grid.len() + y]) {
                        let (x, y) = (grid[x], grid[y]);
                        return Some(format!("{f:?} of {x:?} in {known:?} and {y:?} in {beside:?}: {fault}"));
                    }
                }
            }
        }
        None
    }
}

#[test]
fn facts_of_functions_hold() {
    let mut faults = Vec::new();
    for dtype in DType::ALL {
        for arity in [1, 2] {
            let sets = sets(dtype, arity == 1);
            let tables = ScalarFn::ALL.iter().filter(|f| f.arity() == arity);
            let tables = tables.filter_map(|f| Table::new(*f, dtype, &sets));
            faults.extend(tables.filter_map(|table| table.fault(true, fault)));
        }
    }
    report(faults);
}

/// Of real numbers in real arithmetic, as far as double precision is that: the numbers are such that nothing overflows
/// or underflows. A constant that is infinite or NaN is none; then facts hold as under `Strict`.
#[test]
fn facts_of_functions_hold_in_real_arithmetic() {
    let double = |x: f64| Literal::F64(x.to_bits());
    let numbers: Vec<Literal> =
        [-20.0, -2.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 20.0].map(double).to_vec();
    let mut sets: Vec<Vec<Literal>> = Vec::new();
    for low in 0..numbers.len() {
        sets.extend((low..numbers.len()).map(|high| numbers[low..=high].to_vec()));
    }
    sets.extend([f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(|x| vec![double(x)]));
    let in_real_arithmetic = |facts: &Facts, value: Literal| {
        let x = value.to_f64();
        let near = if x.is_finite() { 1e-9 * (1.0 + x.abs()) } else { 0.0 };
        let holds =
            x.is_nan() || facts.low - near <= x && x <= facts.high + near && !(facts.nonzero() && x == 0.0);
        if facts.real {
            (!holds).then(|| format!("{x} is not what {facts:?} says"))
        } else {
            fault(facts, value)
        }
    };
    let tables =
        ScalarFn::ALL.iter().filter(|f| f.arity() <= 2).filter_map(|f| Table::new(*f, DType::F64, &sets));
    report(tables.filter_map(|table| table.fault(false, in_real_arithmetic)).collect());
}

#[test]
fn facts_of_choices_hold() {
    for dtype in DType::ALL {
        for pair in sets(dtype, true).windows(2) {
            let condition = Facts::unknown(DType::Bool, true);
            let operands = [condition, facts_of(&pair[0]), facts_of(&pair[1])];
            let stated = Facts::of_map(ScalarFn::Select, dtype, dtype, &operands, true);
            report(pair.iter().flatten().filter_map(|x| fault(&stated, *x)).collect());
        }
    }
}

#[test]
fn facts_of_conversions_hold() {
    let mut faults = Vec::new();
    for from in DType::ALL {
        for to in DType::ALL {
            let fault = sets(from, true).iter().find_map(|set| {
                let stated = cast(&facts_of(set), from, to, true);
                let wrong =
                    |x: &Literal| fault(&stated, x.cast(to)).map(|fault| format!("{x:?} as {to}: {fault}"));
                set.iter().find_map(wrong)
            });
            faults.extend(fault);
        }
    }
    report(faults);
}

#[test]
fn facts_of_reductions_hold() {
    let mut faults = Vec::new();
    for fold in Fold::ALL {
        for dtype in DType::ALL.into_iter().filter(|dtype| fold.takes(*dtype)) {
            faults.extend(sets(dtype, false).iter().find_map(|set| fault_of_reduction(fold, dtype, set)));
        }
    }
    report(faults);
}

/// Of rows of few elements and of many.
fn fault_of_reduction(fold: Fold, dtype: DType, set: &[Literal]) -> Option<String> {
    let (first, last) = (set[0], set[set.len() - 1]);
    let mut rows: Vec<Vec<Literal>> = vec![vec![], vec![first, last, first], vec![last, first, first, last]];
    rows.extend(set.iter().map(|x| vec![*x]));
    rows.extend(set.iter().map(|x| vec![*x, last]));
    rows.extend([first, last].map(|x| vec![x; 1000]));
    rows.into_iter().find_map(|row| {
        let stated = reduce(fold, Some(row.len()), &facts_of(set), dtype, true);
        let mut array = Array::zeros(dtype, &[row.len()]).unwrap();
        for (i, x) in row.iter().enumerate() {
            array.set(i, *x);
        }
        let exact = evaluate_node(&Op::Reduce(fold, Axes::one(0)), &[&array]).unwrap().get(0);
        let step = |sum: Literal, x: &Literal| fold.join().eval(&[sum, *x]).unwrap();
        let rounded = row.iter().fold(fold.identity(dtype), step);
        [exact, rounded].into_iter().find_map(|value| {
            fault(&stated, value).map(|fault| format!("{fold:?} of {} in {set:?}: {fault}", row.len()))
        })
    })
}
