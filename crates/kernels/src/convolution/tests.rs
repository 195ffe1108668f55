use super::*;
use crate::pool::Pool;

/// Numbers without a pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn all(&mut self, count: usize) -> Vec<f64> {
        // Small integers, whose sums of products are exact.
        (0..count).map(|_| self.below(9) as f64 - 4.0).collect()
    }
}

fn row_major(extents: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis] * extents[axis] as isize;
    }
    strides
}

/// A shape with row-major operands, with room around them now and then, or in another order of axes.
fn shape(numbers: &mut Numbers, axes: Vec<Axis>) -> ConvolutionShape {
    let lead: Vec<usize> = (0..numbers.below(3) / 2).map(|_| 1 + numbers.below(3)).collect();
    let [images, filters, channels] = [3, 30, 4].map(|n| 1 + numbers.below(n));
    let mut strides = |own: usize, of: fn(&Axis) -> usize| {
        let extents: Vec<usize> =
            lead.iter().copied().chain([own, channels]).chain(axes.iter().map(of)).collect();
        let mut order: Vec<usize> = (0..extents.len()).collect();
        if numbers.below(3) == 0 {
            let rank = order.len();
            order.swap(numbers.below(rank), numbers.below(rank));
        }
        let permuted: Vec<usize> = order.iter().map(|axis| extents[*axis] + numbers.below(6) / 5).collect();
        let mut strides = vec![0; extents.len()];
        for (axis, stride) in order.iter().zip(row_major(&permuted)) {
            strides[*axis] = stride;
        }
        strides
    };
    let (x, w) = (strides(images, |axis| axis.input), strides(filters, |axis| axis.taps));
    ConvolutionShape { dtype: Float::F64, lead, images, filters, channels, axes, x, w }
}

fn axis(numbers: &mut Numbers, most: usize) -> Axis {
    let input = 1 + numbers.below(most);
    let taps = 1 + numbers.below(5.min(most));
    let often_one = |numbers: &mut Numbers| 1 + numbers.below(6) / 4 * numbers.below(3);
    let [stride, spread, dilation] = [0; 3].map(|_| often_one(numbers));
    let low = numbers.below(3) as isize * (numbers.below(5) as isize - 1);
    let room = ((input - 1) * spread + 1) as isize + low + numbers.below(4) as isize
        - ((taps - 1) * dilation + 1) as isize;
    let result = if room < 0 { 1 + numbers.below(2) } else { room as usize / stride + 1 };
    Axis { input, taps, result, low, stride, spread, dilation }
}

/// All indices below extents.
fn indices(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![Vec::new()], |all, n| {
        all.into_iter().flat_map(|index| (0..*n).map(move |i| [&index[..], &[i]].concat())).collect()
    })
}

fn by_definition(shape: &ConvolutionShape, x: &[f64], w: &[f64]) -> Vec<f64> {
    let lead = shape.lead.len();
    let results: Vec<usize> = shape.axes.iter().map(|axis| axis.result).collect();
    let taps: Vec<usize> = shape.axes.iter().map(|axis| axis.taps).collect();
    let outer = [&shape.lead[..], &[shape.images, shape.filters], &results].concat();
    let at = |index: &[usize], strides: &[isize]| -> usize {
        index.iter().zip(strides).map(|(i, stride)| i * *stride as usize).sum()
    };
    let sum = |place: &Vec<usize>| {
        let mut sum = 0.0;
        for term in indices(&[&[shape.channels], &taps[..]].concat()) {
            let positions: Option<Vec<usize>> =
                (0..taps.len()).map(|i| shape.axes[i].source(place[lead + 2 + i], term[1 + i])).collect();
            let Some(positions) = positions else { continue };
            let from = [&place[..=lead], &term[..1], &positions].concat();
            let by = [&place[..lead], &[place[lead + 1]], &term[..]].concat();
            sum += x[at(&from, &shape.x)] * w[at(&by, &shape.w)];
        }
        sum
    };
    indices(&outer).iter().map(sum).collect()
}

fn reach(strides: &[isize], extents: &[usize]) -> usize {
    strides.iter().zip(extents).map(|(stride, n)| *stride as usize * n).sum::<usize>() + 1
}

#[test]
fn every_method_computes_the_definition() {
    let mut numbers = Numbers(1);
    let mut seen = Vec::new();
    for case in 0..200 {
        let axes = match case % 4 {
            0 => vec![axis(&mut numbers, 40)],
            1 | 2 => (0..2).map(|_| axis(&mut numbers, 12)).collect(),
            _ => (0..3).map(|_| axis(&mut numbers, 5)).collect(),
        };
        let shape = shape(&mut numbers, axes);
        let extents = |own: usize, of: fn(&Axis) -> usize| -> Vec<usize> {
            let axes = shape.axes.iter().map(of);
            shape.lead.iter().copied().chain([own, shape.channels]).chain(axes).collect()
        };
        let x = numbers.all(reach(&shape.x, &extents(shape.images, |axis| axis.input)));
        let w = numbers.all(reach(&shape.w, &extents(shape.filters, |axis| axis.taps)));
        let expected = by_definition(&shape, &x, &w);
        for set in Features::detect().available() {
            let features = Features::detect().restricted_to(set);
            for method in [None, Some(Method::Places), Some(Method::Elements), Some(Method::Filters)] {
                let threads = 1 + numbers.below(3);
                let plan = ConvolutionPlan::by(shape.clone(), &features, threads, method);
                let mut found = vec![7.0; expected.len()];
                plan.run(&x, &w, &mut found, &Pool::new(threads)).unwrap();
                assert_eq!(found, expected, "{plan}\n{:?}", plan.shape);
                let single = ConvolutionShape { dtype: Float::F32, ..shape.clone() };
                let plan = ConvolutionPlan::by(single, &features, threads, method);
                let [x, w] = [&x, &w].map(|all| all.iter().map(|x| *x as f32).collect::<Vec<f32>>());
                let mut found = vec![7.0f32; expected.len()];
                plan.run(&x, &w, &mut found, &Pool::new(threads)).unwrap();
                let expected: Vec<f32> = expected.iter().map(|x| *x as f32).collect();
                assert_eq!(found, expected, "{plan}\n{:?}", plan.shape);
                seen.push((plan.method, plan.padded, plan.grid.direct));
            }
        }
    }
    for method in [Method::Places, Method::Filters] {
        assert!(seen.iter().any(|(m, padded, _)| *m == method && *padded));
    }
    for (method, direct) in [(Method::Places, true), (Method::Elements, true), (Method::Elements, false)] {
        assert!(seen.iter().any(|(m, _, d)| *m == method && *d == direct));
    }
}

/// A layer of a model, and the gradients by its filters and by its input, as differentiation makes them.
fn layer(images: usize, channels: usize, filters: usize, input: usize, taps: usize) -> [ConvolutionShape; 3] {
    let result = input + 1 - taps;
    let axes = |input, taps, result, low| vec![Axis { input, taps, result, low, ..Axis::NONE }; 2];
    let x = row_major(&[images, channels, input, input]);
    let w = row_major(&[filters, channels, taps, taps]);
    let y = row_major(&[images, filters, result, result]);
    let turned = |strides: &[isize]| vec![strides[1], strides[0], strides[2], strides[3]];
    let of = |images, filters, channels, axes, x, w| ConvolutionShape {
        dtype: Float::F32,
        lead: Vec::new(),
        images,
        filters,
        channels,
        axes,
        x,
        w,
    };
    let low = taps as isize - 1;
    [
        of(images, filters, channels, axes(input, taps, result, 0), x.clone(), w.clone()),
        of(channels, filters, images, axes(input, result, taps, 0), turned(&x), turned(&y)),
        of(images, channels, filters, axes(result, taps, input, low), y, turned(&w)),
    ]
}

#[test]
fn layers_have_the_methods_that_suit_them() {
    let features = Features::portable();
    let methods = |layer: [ConvolutionShape; 3]| {
        layer.map(|shape| {
            let plan = ConvolutionPlan::new(shape, &features, 1);
            assert!(plan.scratch_bytes() < 1 << 20, "{plan}");
            plan.method
        })
    };
    let [forward, by_filters, _] = methods(layer(500, 1, 20, 28, 5));
    assert_eq!([forward, by_filters], [Method::Places, Method::Filters]);
    assert_eq!(methods(layer(500, 20, 50, 12, 5)), [Method::Places, Method::Filters, Method::Elements]);
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut numbers = Numbers(2);
    for shape in layer(9, 3, 7, 14, 3).into_iter().chain(layer(2, 40, 5, 9, 2)) {
        let extents = |n: usize, of: fn(&Axis) -> usize| {
            vec![n, shape.channels, of(&shape.axes[0]), of(&shape.axes[1])]
        };
        let x = extents(shape.images, |axis| axis.input);
        let w = extents(shape.filters, |axis| axis.taps);
        let values = |numbers: &mut Numbers, extents: &[usize]| -> Vec<f32> {
            (0..extents.iter().product()).map(|_| numbers.next() as f32 / 1e9).collect()
        };
        let (x, w) = (values(&mut numbers, &x), values(&mut numbers, &w));
        let count =
            shape.images * shape.filters * shape.axes.iter().map(|axis| axis.result).product::<usize>();
        let of = |threads: usize| {
            let plan = ConvolutionPlan::new(shape.clone(), &Features::detect(), threads);
            let mut found = vec![0.0f32; count];
            plan.run(&x, &w, &mut found, &Pool::new(threads)).unwrap();
            found
        };
        let one = of(1);
        for threads in [2, 3, 5] {
            assert_eq!(of(threads), one, "{shape:?}");
        }
    }
}

#[test]
fn slices_that_are_too_short_are_refused() {
    let [shape, ..] = layer(2, 1, 2, 6, 3);
    let plan = ConvolutionPlan::new(shape, &Features::portable(), 1);
    let (x, w) = (vec![0.0f32; 72], vec![0.0f32; 18]);
    let mut result = vec![0.0f32; 64];
    assert_eq!(plan.run(&x, &w, &mut result, &Pool::new(1)), Ok(()));
    let message = plan.run(&x[1..], &w, &mut result, &Pool::new(1)).unwrap_err().to_string();
    assert_eq!(message, "the input needs 72 elements, and its slice holds 71");
    let message = plan.run(&x, &w, &mut result[1..], &Pool::new(1)).unwrap_err().to_string();
    assert_eq!(message, "the result needs 64 elements, and its slice holds 63");
    assert!(plan.run(&[0.0f64; 72], &[0.0f64; 18], &mut [0.0f64; 64], &Pool::new(1)).is_err());
}
