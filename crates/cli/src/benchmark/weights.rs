//! The data and the initial weights that all frameworks begin from.

use hypatia::{Array, Diagnostic, Shared};

use hypatia_datasets::numpy::Generator;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};

/// Rows of the random data.
pub(super) const ROWS: usize = 50_000;
/// Rows whose pixels are blackened at a time.
const ROWS_AT_ONCE: usize = 1_000;
/// Share of the pixels that are not black.
const INK: f32 = 0.25;

/// Random images `f32[ROWS, IMAGE_PIXELS]` and labels `i32[ROWS]`, those of NumPy's `default_rng(7)`.
pub(super) fn random_images() -> (Result<Array, Diagnostic>, Array) {
    let mut generator = Generator::new(7);
    let mut pixels = generator.random(ROWS * IMAGE_PIXELS);
    for rows in pixels.chunks_mut(ROWS_AT_ONCE * IMAGE_PIXELS) {
        for pixel in rows {
            if generator.next_f32() >= INK {
                *pixel = 0.0;
            }
        }
    }
    let labels: Vec<i32> =
        generator.integers(CLASSES as u32, ROWS).into_iter().map(|label| label as i32).collect();
    (Array::new(&[ROWS, IMAGE_PIXELS], &pixels), Array::vector(&labels))
}

/// The generator of the initial weights, to be drawn from in the order of the parameters.
pub(super) fn weight_generator() -> Generator {
    Generator::new(1234)
}

/// Filters of such extents, uniform within the bound for as many inputs and outputs of a unit; each from its last element to
/// the first, as the other frameworks do not reverse filters.
pub(super) fn filters(
    generator: &mut Generator,
    extents: [usize; 4],
    inputs: f64,
    outputs: f64,
) -> Result<Array, Diagnostic> {
    let bound = (6.0 / (inputs + outputs)).sqrt() as f32;
    let draws = generator.random(extents.iter().product());
    let mut weights: Vec<f32> = draws.into_iter().map(|x| (x * 2.0 - 1.0) * bound).collect();
    weights.chunks_mut((extents[2] * extents[3]).max(1)).for_each(<[f32]>::reverse);
    Array::new(&extents, &weights)
}

/// Weights uniform within `gain * sqrt(6 / (inputs + outputs))`, of shape `[inputs, outputs]`.
pub(super) fn glorot(
    generator: &mut Generator,
    inputs: usize,
    outputs: usize,
    gain: f64,
) -> Result<Array, Diagnostic> {
    let bound = (gain * (6.0 / (inputs + outputs) as f64).sqrt()) as f32;
    let draws = generator.random(inputs * outputs);
    let weights: Vec<f32> = draws.into_iter().map(|x| (x * 2.0 - 1.0) * bound).collect();
    Array::new(&[inputs, outputs], &weights)
}

/// Gives a variable a value of its own type.
pub(super) fn assign(variable: &Shared, value: Result<Array, Diagnostic>) {
    // A value of another type would be refused, and the first costs would tell.
    let _ = variable.set_value(value);
}
