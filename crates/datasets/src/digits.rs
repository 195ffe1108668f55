//! Generated digits that look handwritten: training data that needs no download.
//!
//! A digit is drawn as a pen would: one of several letter forms, its control points moved, bent, slanted, turned,
//! scaled and shifted at random, stroked with a pen of random width and pressure, with noise on the ink. Image `i` of
//! a set depends on the seed, the set and `i` alone, so sets of any size are beginnings of one another and are drawn
//! in parallel. Only sums, products, quotients and square roots are used, which IEEE 754 defines to the last bit:
//! the images are the same on every machine. Curves are Catmull-Rom splines; angles enter by the tangent of their
//! half, so that no trigonometric function is needed.

mod forms;

use std::thread;

use crate::{CLASSES, Dataset, IMAGE_PIXELS, IMAGE_SIDE, LabelledImages, SetSizes};
use forms::FORMS;

/// Straight pieces that a spline is drawn with between two control points.
const PIECES: usize = 6;

/// One of the independent sets of images of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigitSet {
    /// Images to learn from.
    Train,
    /// Images that decide when to stop.
    Valid,
    /// Images that tell how good the result is.
    Test,
}

/// The three sets of `seed` in the sizes asked for.
#[must_use]
pub fn generate_dataset(seed: u64, sizes: SetSizes) -> Dataset {
    Dataset {
        train: generate_digits(seed, DigitSet::Train, sizes.train),
        valid: generate_digits(seed, DigitSet::Valid, sizes.valid),
        test: generate_digits(seed, DigitSet::Test, sizes.test),
        origin: format!("generated digits, seed {seed}"),
    }
}

/// The first `count` images of a set.
#[must_use]
pub fn generate_digits(seed: u64, set: DigitSet, count: usize) -> LabelledImages {
    let mut pixels = vec![0.0; count * IMAGE_PIXELS];
    let mut labels = vec![0; count];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    thread::scope(|scope| {
        let shares = pixels.chunks_mut(share * IMAGE_PIXELS).zip(labels.chunks_mut(share));
        for (number, (pixels, labels)) in shares.enumerate() {
            scope.spawn(move || {
                let (images, _) = pixels.as_chunks_mut::<IMAGE_PIXELS>();
                for (offset, (image, label)) in images.iter_mut().zip(labels).enumerate() {
                    *label = draw_digit(seed, set, number * share + offset, image);
                }
            });
        }
    });
    LabelledImages::new(pixels, labels)
}

/// Draws image `index` of a set into `image`, which must be all zero, and returns its label.
fn draw_digit(seed: u64, set: DigitSet, index: usize, image: &mut [f32; IMAGE_PIXELS]) -> i32 {
    let mut rng = Rng::new(seed, set, index);
    let label = rng.below(CLASSES);
    let forms = FORMS[label];
    let strokes = place(bend(forms[rng.below(forms.len())], &mut rng), &mut rng);
    let pen = Pen {
        radius: rng.between(0.75, 1.75),
        softness: rng.between(0.9, 1.5),
        pressure_slope: rng.normal() * 0.12,
        ink: rng.between(0.8, 1.0),
    };
    for stroke in &strokes {
        pen.draw(stroke, image);
    }
    add_noise(image, &mut rng);
    label as i32
}

/// A point: x to the right, y downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    x: f32,
    y: f32,
}

/// Moves the control points of a form and bends the whole, then draws splines through them, in the form's own units.
fn bend(form: &[&[(f32, f32)]], rng: &mut Rng) -> Vec<Vec<Point>> {
    let jitter = rng.between(0.012, 0.045);
    // Coefficients of a quadratic deformation about the middle of the form.
    let warp = [(); 6].map(|()| rng.normal() * 0.09);
    let mut last: Option<((f32, f32), Point)> = None;
    let mut splines = Vec::with_capacity(form.len());
    for stroke in form {
        let mut controls = Vec::with_capacity(stroke.len() + 2);
        for &(x, y) in *stroke {
            // A stroke that begins where the last one ended makes a corner and stays joined to it.
            let point = match last {
                Some((end, moved)) if end == (x, y) => moved,
                Some(_) | None => {
                    let (u, v) = (x - 0.5 + jitter * rng.normal(), y - 0.5 + jitter * rng.normal());
                    Point {
                        x: u + warp[0] * u * u + warp[1] * u * v + warp[2] * v * v,
                        y: v + warp[3] * u * u + warp[4] * u * v + warp[5] * v * v,
                    }
                }
            };
            last = Some(((x, y), point));
            controls.push(point);
        }
        splines.push(spline(&controls));
    }
    splines
}

/// A polyline along the uniform Catmull-Rom spline through `controls` (Catmull and Rom, 1974).
fn spline(controls: &[Point]) -> Vec<Point> {
    let mut line = Vec::with_capacity(controls.len() * PIECES + 1);
    let at = |i: usize| controls[i.min(controls.len() - 1)];
    for i in 0..controls.len().saturating_sub(1) {
        let (before, from, to, after) = (at(i.saturating_sub(1)), at(i), at(i + 1), at(i + 2));
        for piece in 0..PIECES {
            let t = piece as f32 / PIECES as f32;
            let blend = |a: f32, b: f32, c: f32, d: f32| {
                0.5 * (2.0 * b
                    + t * ((c - a) + t * ((2.0 * a - 5.0 * b + 4.0 * c - d) + t * (3.0 * (b - c) + d - a))))
            };
            line.push(Point {
                x: blend(before.x, from.x, to.x, after.x),
                y: blend(before.y, from.y, to.y, after.y),
            });
        }
    }
    line.extend(controls.last());
    line
}

/// Slants, turns, scales and shifts the strokes into the image, in pixels.
fn place(mut strokes: Vec<Vec<Point>>, rng: &mut Rng) -> Vec<Vec<Point>> {
    let slant = 0.12 + 0.21 * rng.normal();
    let narrowing = rng.between(0.66, 1.0);
    let half_tangent = 0.06 * rng.normal();
    let norm = 1.0 + half_tangent * half_tangent;
    let (cos, sin) = ((1.0 - half_tangent * half_tangent) / norm, 2.0 * half_tangent / norm);
    let (mut low, mut high) = (Point { x: f32::MAX, y: f32::MAX }, Point { x: f32::MIN, y: f32::MIN });
    for point in strokes.iter_mut().flatten() {
        let (x, y) = (point.x * narrowing - slant * point.y, point.y);
        *point = Point { x: cos * x - sin * y, y: sin * x + cos * y };
        low = Point { x: low.x.min(point.x), y: low.y.min(point.y) };
        high = Point { x: high.x.max(point.x), y: high.y.max(point.y) };
    }
    // As in MNIST the longer side fills about 20 of 28 pixels, here with some play in size and place.
    let extent = (high.x - low.x).max(high.y - low.y).max(0.1);
    let scale = rng.between(16.0, 20.5) / extent;
    let middle = (IMAGE_SIDE as f32 - 1.0) / 2.0;
    let (shift_x, shift_y) = (middle + 0.95 * rng.normal(), middle + 0.95 * rng.normal());
    for point in strokes.iter_mut().flatten() {
        point.x = (point.x - (low.x + high.x) / 2.0) * scale + shift_x;
        point.y = (point.y - (low.y + high.y) / 2.0) * scale + shift_y;
    }
    strokes
}

/// How a stroke leaves ink.
struct Pen {
    /// Half the width of the stroke at its middle, in pixels.
    radius: f32,
    /// Width of the edge over which the ink fades, in pixels.
    softness: f32,
    /// Change of the radius from the middle of a stroke to its end, as a fraction.
    pressure_slope: f32,
    /// Darkness of the stroke, 1 for black.
    ink: f32,
}

impl Pen {
    /// Draws a polyline; where strokes cross, the darker one shows.
    fn draw(&self, line: &[Point], image: &mut [f32; IMAGE_PIXELS]) {
        let last = line.len().saturating_sub(1).max(1) as f32;
        for (number, ends) in line.windows(2).enumerate() {
            let along = 2.0 * (number as f32 / last) - 1.0;
            let radius = self.radius * (1.0 + self.pressure_slope * along);
            self.draw_piece(ends[0], ends[1], radius, image);
        }
    }

    fn draw_piece(&self, from: Point, to: Point, radius: f32, image: &mut [f32; IMAGE_PIXELS]) {
        let reach = radius + 0.5 * self.softness;
        let pixels = |low: f32, high: f32| {
            let first = (low - reach).ceil().max(0.0) as usize;
            let end = (high + reach).floor().min(IMAGE_SIDE as f32 - 1.0) + 1.0;
            first..end.max(0.0) as usize
        };
        let (dx, dy) = (to.x - from.x, to.y - from.y);
        let squared = (dx * dx + dy * dy).max(1e-12);
        for row in pixels(from.y.min(to.y), from.y.max(to.y)) {
            for column in pixels(from.x.min(to.x), from.x.max(to.x)) {
                let (px, py) = (column as f32 - from.x, row as f32 - from.y);
                let t = ((px * dx + py * dy) / squared).clamp(0.0, 1.0);
                let (ex, ey) = (px - t * dx, py - t * dy);
                let distance = (ex * ex + ey * ey).sqrt();
                let cover = ((radius - distance) / self.softness + 0.5).clamp(0.0, 1.0);
                let pixel = &mut image[row * IMAGE_SIDE + column];
                *pixel = pixel.max(self.ink * cover);
            }
        }
    }
}

/// Roughens the ink, leaves a few specks on the paper, and rounds to the 256 levels of a scanned image.
fn add_noise(image: &mut [f32; IMAGE_PIXELS], rng: &mut Rng) {
    let roughness = rng.between(0.02, 0.12);
    for pixel in image.iter_mut().filter(|pixel| **pixel > 0.0) {
        *pixel *= 1.0 - roughness * rng.normal().abs();
    }
    for _ in 0..rng.below(6) {
        let speck = &mut image[rng.below(IMAGE_PIXELS)];
        *speck = speck.max(rng.between(0.1, 0.5));
    }
    for pixel in image.iter_mut() {
        *pixel = (*pixel * 255.0).round_ties_even().clamp(0.0, 255.0) / 256.0;
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014), one stream for each image.
struct Rng(u64);

impl Rng {
    fn new(seed: u64, set: DigitSet, index: usize) -> Self {
        let mut rng = Self(seed);
        let key = rng.next().wrapping_add(set as u64);
        let mut rng = Self(key);
        let key = rng.next().wrapping_add(index as u64);
        let mut rng = Self(key);
        Self(rng.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; the bias of less than count / 2^32 does not matter here.
    fn below(&mut self, count: usize) -> usize {
        (((self.next() >> 32) * count as u64) >> 32) as usize
    }

    /// About standard normal: the sum of four uniforms, scaled to variance 1, never beyond 3.5.
    fn normal(&mut self) -> f32 {
        const SQRT_3: f32 = 1.732_050_8;
        (self.unit() + self.unit() + self.unit() + self.unit() - 2.0) * SQRT_3
    }
}
