//! Products against a triple loop in double precision.
//!
//! The bound is the textbook one: a sum of k products in any order is within `(k + 2) u * sum |a| |b|` of the exact one,
//! where u is the rounding unit (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); two more roundings
//! are for alpha and beta.

use super::*;
use crate::pool::Pool;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// A number of either type, to compute with in double precision.
trait Real: Element {
    const UNIT: f64;
    fn wide(self) -> f64;
}
impl Real for f32 {
    const UNIT: f64 = f32::EPSILON as f64 / 2.0;
    fn wide(self) -> f64 {
        f64::from(self)
    }
}
impl Real for f64 {
    const UNIT: f64 = f64::EPSILON / 2.0;
    fn wide(self) -> f64 {
        self
    }
}

/// Numbers in (-1, 1), from a linear congruential generator.
fn numbers<E: Real>(count: usize, seed: u64) -> Vec<E> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            E::round_from((state >> 33) as f64 / f64::from(1u32 << 30) - 1.0)
        })
        .collect()
}

/// Threads that plans are made for, so that they have several parts.
const THREADS: usize = 3;

/// Elements up to the last that is reached.
fn reach(axes: [(usize, isize); 3]) -> usize {
    if axes.iter().any(|(extent, _)| *extent == 0) {
        return 0;
    }
    1 + axes.iter().map(|(extent, stride)| (extent - 1) * stride.unsigned_abs()).sum::<usize>()
}

/// Runs a shape on each instruction set and compares every element of C; what lies between its rows must stay.
fn check<E: Real>(
    shape: ProductShape,
    alpha: f64,
    beta: f64,
    seed: u64,
    threads: usize,
) -> Result<(), TestCaseError> {
    let ProductShape { m, n, k, batch, a: [a_row, a_column], b: [b_row, b_column], c_row, .. } = shape;
    let a = numbers::<E>(reach([(batch.count, batch.a), (m, a_row), (k, a_column)]), seed);
    let b = numbers::<E>(reach([(batch.count, batch.b), (k, b_row), (n, b_column)]), seed + 1);
    let before = if shape.accumulate {
        numbers::<E>(reach([(batch.count, batch.c), (m, c_row), (n, 1)]), seed + 2)
    } else {
        // Whoever reads C would spread these.
        vec![E::round_from(f64::NAN); reach([(batch.count, batch.c), (m, c_row), (n, 1)])]
    };
    let pool = Pool::new(threads);
    for set in Features::detect().available() {
        let features = Features::detect().restricted_to(set);
        let plan = ProductPlan::new(shape, &features, threads);
        let mut c = before.clone();
        plan.run(&a, &b, &mut c, alpha, beta, &pool)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut seen = vec![false; c.len()];
        for index in 0..batch.count {
            for i in 0..m {
                for j in 0..n {
                    let at = |distance: isize, row: isize, column: isize, i: usize, j: usize| {
                        index * distance as usize + i * row as usize + j * column as usize
                    };
                    let (mut sum, mut bound) = (0.0, 0.0);
                    for p in 0..k {
                        let x = a[at(batch.a, a_row, a_column, i, p)].wide()
                            * b[at(batch.b, b_row, b_column, p, j)].wide();
                        sum += x;
                        bound += x.abs();
                    }
                    let place = at(batch.c, c_row, 1, i, j);
                    let old = if shape.accumulate { before[place].wide() * beta } else { 0.0 };
                    let (expected, found) = (alpha * sum + old, c[place].wide());
                    let allowed = 2.0 * E::UNIT * ((k + 4) as f64 * bound * alpha.abs() + 4.0 * old.abs());
                    prop_assert!(
                        (expected - found).abs() <= allowed,
                        "{plan}: element ({index}, {i}, {j}) is {found}, expected {expected} within {allowed}"
                    );
                    prop_assert!(!seen[place]);
                    seen[place] = true;
                }
            }
        }
        for place in 0..c.len() {
            let kept = seen[place] || c[place].wide().to_bits() == before[place].wide().to_bits();
            prop_assert!(kept, "{plan}: wrote outside C at {place}");
        }
    }
    Ok(())
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows { gap: usize },
    Columns { gap: usize },
    Strided { inner: usize, gap: usize },
    Repeated,
}

impl Layout {
    fn strides(self, rows: usize, columns: usize) -> [isize; 2] {
        match self {
            Self::Rows { gap } => [(columns + gap) as isize, 1],
            Self::Columns { gap } => [1, (rows + gap) as isize],
            Self::Strided { inner, gap } => [(columns * inner + gap) as isize, inner as isize],
            Self::Repeated => [0, 1],
        }
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![
        4 => (0usize..4).prop_map(|gap| Layout::Rows { gap }),
        4 => (0usize..4).prop_map(|gap| Layout::Columns { gap }),
        1 => (2usize..4, 0usize..3).prop_map(|(inner, gap)| Layout::Strided { inner, gap }),
        1 => Just(Layout::Repeated),
    ]
}

/// Extents that are often 0, 1, or next to the sizes of tiles.
fn extent(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 2 => Just(1), 6 => 2usize..20, 4 => 20usize..most]
}

fn shape(dtype: Float) -> impl Strategy<Value = ProductShape> {
    (
        extent(140),
        extent(140),
        extent(90),
        layout(),
        layout(),
        0usize..5,
        any::<bool>(),
        prop_oneof![4 => Just(1usize), 1 => 0usize..4],
    )
        .prop_map(move |(m, n, k, a, b, gap, accumulate, count)| {
            let [a, b] = [a.strides(m, k), b.strides(k, n)];
            let c_row = (n + gap) as isize;
            let batch = Batch {
                count,
                a: reach([(1, 0), (m, a[0]), (k, a[1])]) as isize,
                b: if count == 2 { 0 } else { reach([(1, 0), (k, b[0]), (n, b[1])]) as isize + 1 },
                c: m as isize * c_row + 2,
            };
            ProductShape { dtype, m, n, k, a, b, b_packed: false, c_row, accumulate, batch }
        })
}

const FACTORS: [(f64, f64); 4] = [(1.0, 1.0), (-0.75, 1.0), (1.0, 0.5), (2.0, -3.0)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_single_product(shape in shape(Float::F32), seed in 0u64..1000, factors in 0usize..4, threads in 1usize..3) {
        check::<f32>(shape, FACTORS[factors].0, FACTORS[factors].1, seed, threads)?;
    }

    #[test]
    fn any_double_product(shape in shape(Float::F64), seed in 0u64..1000, factors in 0usize..4, threads in 1usize..3) {
        check::<f64>(shape, FACTORS[factors].0, FACTORS[factors].1, seed, threads)?;
    }

    /// Regions cover C once, whatever the shape.
    #[test]
    fn regions_cover_the_result(shape in shape(Float::F32), scale in 1usize..12) {
        let shape = ProductShape { m: shape.m * scale, n: shape.n * scale, k: shape.k * scale, ..shape };
        for set in Features::detect().available() {
            let plan = ProductPlan::new(shape, &Features::detect().restricted_to(set), THREADS);
            let mut counts = vec![0u8; shape.batch.count * shape.m * shape.n];
            for part in 0..plan.parts() {
                let Region { batch, rows, columns } = plan.region(part);
                for index in batch {
                    for row in rows.clone() {
                        for column in columns.clone() {
                            counts[(index * shape.m + row) * shape.n + column] += 1;
                        }
                    }
                }
            }
            prop_assert!(counts.iter().all(|count| *count == 1), "{}", plan);
        }
    }
}

/// The shapes of models, forward and backward, large enough for several parts and ranges of k.
fn model_shapes() -> Vec<ProductShape> {
    let mut shapes = Vec::new();
    for (inputs, outputs) in [(784, 100), (100, 784), (500, 10), (784, 10), (105, 256)] {
        for m in [1, 20, 65, 130] {
            let forward = ProductShape::row_major(Float::F32, m, inputs, outputs);
            shapes.push(forward);
            shapes
                .push(ProductShape::row_major(Float::F32, inputs, m, outputs).a_transposed().accumulating());
            shapes.push(ProductShape::row_major(Float::F32, m, outputs, inputs).b_transposed());
            shapes
                .push(ProductShape::row_major(Float::F32, m, inputs, outputs).a_transposed().b_transposed());
        }
    }
    shapes.push(ProductShape::row_major(Float::F32, 300, 500, 700));
    shapes.push(ProductShape::row_major(Float::F32, 1, 5000, 1));
    shapes.push(ProductShape::row_major(Float::F32, 4000, 300, 1).accumulating());
    shapes.push(ProductShape::row_major(Float::F32, 4000, 300, 1).a_transposed());
    shapes
}

#[test]
fn products_of_models_are_right() {
    for (seed, shape) in model_shapes().into_iter().enumerate() {
        check::<f32>(shape, 0.5, 1.5, seed as u64, 2).unwrap();
    }
}

/// The bits of the result in C, computed by `pool`.
fn bits(plan: &ProductPlan, pool: &Pool, a: &[f32], b: &[f32]) -> Vec<u32> {
    let mut c = numbers::<f32>(plan.shape().m * plan.shape().n, 9);
    plan.run(a, b, &mut c, 0.5, 1.5, pool).unwrap();
    c.into_iter().map(f32::to_bits).collect()
}

#[test]
fn threads_do_not_change_bits() {
    let (one, three) = (Pool::new(1), Pool::new(3));
    for shape in model_shapes() {
        let (a, b) = (numbers::<f32>(shape.m * shape.k, 1), numbers::<f32>(shape.k * shape.n, 2));
        for set in Features::detect().available() {
            let plan = |threads| ProductPlan::new(shape, &Features::detect().restricted_to(set), threads);
            let alone = bits(&plan(1), &one, &a, &b);
            assert_eq!(alone, bits(&plan(1), &three, &a, &b), "{}", plan(1));
            assert_eq!(alone, bits(&plan(3), &three, &a, &b), "{}", plan(3));
        }
    }
}

/// Packing beforehand keeps the bits of every plan with the same summation, and the values of all others.
#[test]
fn packing_does_not_change_bits() {
    let pool = Pool::new(1);
    let mut equal_summations = 0;
    for shape in model_shapes() {
        let (a, b) = (numbers::<f32>(shape.m * shape.k, 1), numbers::<f32>(shape.k * shape.n, 2));
        for set in Features::detect().available() {
            let features = Features::detect().restricted_to(set);
            let pack = PackPlan::new(shape.dtype, shape.k, shape.n, shape.b, &features);
            // Whatever lies in the buffer before must not matter.
            let mut packed = vec![f32::NAN; pack.packed_bytes() / 4];
            pack.run(&b, &mut packed, &pool).unwrap();
            let plan = ProductPlan::new(shape, &features, THREADS);
            let beforehand = ProductPlan::new(shape.packed(), &features, THREADS);
            let (expected, found) = (bits(&plan, &pool, &a, &b), bits(&beforehand, &pool, &a, &packed));
            if plan.summation() == beforehand.summation() {
                equal_summations += 1;
                assert_eq!(expected, found, "{plan} and {beforehand}");
            }
            for (expected, found) in expected.into_iter().zip(found) {
                let (expected, found) = (f32::from_bits(expected), f32::from_bits(found));
                let allowed = 2.0 * f32::EPSILON * (shape.k + 4) as f32 * (shape.k as f32).sqrt();
                assert!((expected - found).abs() <= allowed, "{beforehand}: {found}, expected {expected}");
            }
        }
    }
    assert!(equal_summations > 100, "{equal_summations}");
}

/// A row of the result is the same whatever the other rows are, when the summation is.
#[test]
fn rows_do_not_depend_on_each_other() {
    let pool = Pool::new(1);
    let features = Features::detect();
    let (k, n) = (500, 150);
    let (a, b) = (numbers::<f32>(200 * k, 1), numbers::<f32>(k * n, 2));
    let large = ProductPlan::new(ProductShape::row_major(Float::F32, 200, k, n), &features, THREADS);
    let expected = bits(&large, &pool, &a, &b);
    for m in [1, 2, 5, 14, 15, 64, 65] {
        let plan = ProductPlan::new(ProductShape::row_major(Float::F32, m, k, n), &features, THREADS);
        assert_eq!(plan.summation(), large.summation());
        assert_eq!(bits(&plan, &pool, &a[..m * k], &b), expected[..m * n], "{plan}");
    }
}

#[test]
fn parts_in_any_order() {
    let (one, many) = (Pool::new(1), Pool::new(4));
    let mut several = 0;
    for shape in model_shapes() {
        let (a, b) = (numbers::<f32>(shape.m * shape.k, 1), numbers::<f32>(shape.k * shape.n, 2));
        for set in Features::detect().available() {
            let plan = ProductPlan::new(shape, &Features::detect().restricted_to(set), THREADS);
            several += usize::from(plan.parts() > 1);
            let expected = bits(&plan, &one, &a, &b);
            for pool in [&one, &many] {
                let mut c = numbers::<f32>(shape.m * shape.n, 9);
                plan.run_ordered(&a, &b, &mut c, [0.5, 1.5], pool, true).unwrap();
                assert!(c.into_iter().map(f32::to_bits).eq(expected.iter().copied()), "{plan}");
            }
        }
    }
    assert!(several > 20, "{several}");
}

/// A layer's error passed back through its weights and the update of these, at one go and one after the other; rows of all
/// matrices are apart from each other.
fn check_pair<E: Real>(dtype: Float, [m, inputs, outputs]: [usize; 3], threads: usize) {
    let gap = 3;
    let (d_row, x_row, w_row, c_row) = (outputs + gap, inputs + gap, outputs + gap, inputs + gap);
    let reads = ProductShape {
        a: [d_row as isize, 1],
        b: [1, w_row as isize],
        c_row: c_row as isize,
        ..ProductShape::row_major(dtype, m, outputs, inputs)
    };
    let adds = ProductShape {
        a: [1, x_row as isize],
        b: [d_row as isize, 1],
        c_row: w_row as isize,
        ..ProductShape::row_major(dtype, inputs, m, outputs).accumulating()
    };
    let pool = Pool::new(threads);
    let (d, x) = (numbers::<E>(m * d_row, 1), numbers::<E>(m * x_row, 2));
    for set in Features::detect().available() {
        for reads in [reads, reads.accumulating()] {
            let plan = |shape| ProductPlan::new(shape, &Features::detect().restricted_to(set), threads);
            let (reads, adds) = (plan(reads), plan(adds));
            let (mut w, mut back) = (numbers::<E>(inputs * w_row, 3), numbers::<E>(m * c_row, 4));
            let (mut new, mut first) = (w.clone(), back.clone());
            reads.run(&d, &w, &mut first, 0.5, 1.5, &pool).unwrap();
            adds.run(&x, &d, &mut new, -0.1, 0.9, &pool).unwrap();
            let pair = PairPlan::new(&reads, &adds);
            // Registers of the portable kernels are few.
            let Some(pair) = pair else {
                assert!(m > 4 && set == InstructionSet::Portable || m > 10, "{reads} and {adds}");
                continue;
            };
            assert!(m <= 10);
            pair.run(&d, &x, &mut w, &mut back, [[0.5, 1.5], [-0.1, 0.9]], &pool).unwrap();
            let bits = |values: &[E]| values.iter().map(|value| value.wide().to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&first), "{pair}");
            assert_eq!(bits(&w), bits(&new), "{pair}");
            assert_eq!(PairPlan::new(&adds, &reads), None);
        }
    }
}

#[test]
fn pairs_have_the_bits_of_both_products() {
    for m in [1, 2, 3, 9, 10, 11] {
        for (inputs, outputs) in [(17, 64), (20, 65), (33, 96), (47, 113), (300, 500)] {
            check_pair::<f32>(Float::F32, [m, inputs, outputs], 1);
            check_pair::<f64>(Float::F64, [m, inputs, outputs], THREADS);
        }
    }
}

#[test]
fn negative_strides_are_refused_on_slices() {
    let shape = ProductShape { a: [-3, 1], ..ProductShape::row_major(Float::F32, 2, 3, 2) };
    let plan = ProductPlan::new(shape, &Features::portable(), THREADS);
    let error = plan.run(&[0f32; 6], &[0f32; 6], &mut [0f32; 4], 1.0, 0.0, &Pool::new(1)).unwrap_err();
    assert_eq!(error.to_string(), "A has the stride -3: expected 0 or more for a product on slices");
}

#[test]
fn wrong_slices_are_refused() {
    let pool = Pool::new(1);
    let shape = ProductShape::row_major(Float::F32, 2, 3, 2);
    let plan = ProductPlan::new(shape, &Features::portable(), THREADS);
    let short = plan.run(&[0f32; 5], &[0f32; 6], &mut [0f32; 4], 1.0, 0.0, &pool).unwrap_err();
    assert_eq!(short.to_string(), "A needs 6 elements, and its slice holds 5");
    let wide = plan.run(&[0f64; 6], &[0f64; 6], &mut [0f64; 4], 1.0, 0.0, &pool).unwrap_err();
    assert_eq!(wide.to_string(), "the product was planned for f32, and the slices hold f64");
    let overlapping = ProductPlan::new(ProductShape { c_row: 1, ..shape }, &Features::portable(), THREADS);
    let overlap = overlapping.run(&[0f32; 6], &[0f32; 6], &mut [0f32; 4], 1.0, 0.0, &pool).unwrap_err();
    assert!(matches!(overlap, ProductError::Overlap { rows: 1, .. }), "{overlap}");
    let packed = ProductPlan::new(shape.packed(), &Features::portable(), THREADS);
    let short = packed.run(&[0f32; 6], &[0f32; 6], &mut [0f32; 4], 1.0, 0.0, &pool).unwrap_err();
    assert!(matches!(short, ProductError::Short { operand: "packed B", .. }), "{short}");
}

#[test]
fn plans_print() {
    let plan = |shape| ProductPlan::new(shape, &Features::portable(), THREADS).to_string();
    let shape = ProductShape::row_major(Float::F32, 20, 784, 500);
    assert_eq!(
        plan(shape),
        "f32 20x784x500: streamed in stretches, by panels, k in 2 x 392, 10 parts, portable"
    );
    assert_eq!(
        plan(shape.packed()),
        "f32 20x784x500: packed beforehand, by panels, k in 2 x 392, 10 parts, portable"
    );
    assert_eq!(plan(shape.b_transposed()), "f32 20x784x500: dots by columns, 10 parts, portable");
    let pack = PackPlan::new(Float::F32, 784, 500, [500, 1], &Features::portable());
    assert_eq!(pack.to_string(), "f32 784x500 into panels of 8, k in 2 x 392");
}

/// Extents whose products do not fit are no reason to write beyond a slice.
#[test]
fn sizes_that_do_not_fit_are_refused() {
    let features = Features::detect();
    let pool = Pool::new(1);
    for (k, n) in [(1 << 62, 16), (16, usize::MAX), (usize::MAX, usize::MAX), (1 << 40, 1 << 40)] {
        let plan = PackPlan::new(Float::F32, k, n, [0, 0], &features);
        let error = plan.run(&[1.0f32], &mut [0.0f32; 64], &pool).unwrap_err();
        assert!(matches!(error, ProductError::Short { operand: "packed B", .. }), "{error}");
        let shape = ProductShape { a: [0, 0], ..ProductShape::row_major(Float::F32, 1, k, n) }.packed();
        let plan = ProductPlan::new(shape, &features, 1);
        let error = plan.run(&[1.0f32], &[1.0f32], &mut [0.0f32; 64], 1.0, 0.0, &pool).unwrap_err();
        assert!(matches!(error, ProductError::Short { .. }), "{error}");
    }
}
