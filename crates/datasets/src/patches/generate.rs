//! Generated patches: overlapping surfaces, as in the dead leaves model of natural images (Lee, Mumford and Huang,
//! 2001), with more straight outlines.
//!
//! Only sums, products, quotients and square roots are used, which IEEE 754 defines to the last bit, and one
//! generator: the bytes are the same on every machine.

use super::CHANNELS;
use crate::numpy::Generator;

/// Red, green and blue, 0 to 255.
type Colour = [f32; CHANNELS];

/// Bytes of shape `[count, side, side, CHANNELS]`.
pub(super) fn generate_patches(seed: u32, side: usize, count: usize) -> Vec<u8> {
    let mut random = Random(Generator::new(seed));
    let mut bytes = Vec::with_capacity(count * side * side * CHANNELS);
    let mut canvas = vec![[0.0; CHANNELS]; side * side];
    for _ in 0..count {
        canvas.fill(random.colour());
        for _ in 0..2 + random.below(4) {
            random.surface(side as f32).paint(&mut canvas, side);
        }
        let shading = random.shading(side as f32);
        for (place, pixel) in canvas.iter().enumerate() {
            let (x, y) = ((place % side) as f32, (place / side) as f32);
            let light = 1.0 + shading.0 * x + shading.1 * y + shading.2;
            for value in pixel {
                let level = value * light + 1.5 * random.normal();
                bytes.push(level.round_ties_even().clamp(0.0, 255.0) as u8);
            }
        }
    }
    bytes
}

/// The outline of a surface.
enum Outline {
    /// All that lies on one side of a line.
    HalfPlane,
    /// All that is nearer to a line than half a width, in pixels.
    Bar(f32),
    /// All within a radius, in pixels.
    Disc(f32),
}

/// Something that covers what lies behind it.
struct Surface {
    outline: Outline,
    /// A point of the line, or the middle of the disc.
    point: (f32, f32),
    /// Unit vector across the line.
    across: (f32, f32),
    /// Pixels over which the edge is blurred.
    blur: f32,
    colour: Colour,
}

impl Surface {
    fn paint(&self, canvas: &mut [Colour], side: usize) {
        for (place, pixel) in canvas.iter_mut().enumerate() {
            let (x, y) = ((place % side) as f32 - self.point.0, (place / side) as f32 - self.point.1);
            let distance = x * self.across.0 + y * self.across.1;
            let inside = match self.outline {
                Outline::HalfPlane => distance,
                Outline::Bar(half_width) => half_width - distance.abs(),
                Outline::Disc(radius) => radius - (x * x + y * y).sqrt(),
            };
            let cover = (inside / self.blur + 0.5).clamp(0.0, 1.0);
            for (value, own) in pixel.iter_mut().zip(self.colour) {
                *value += (own - *value) * cover;
            }
        }
    }
}

struct Random(Generator);

impl Random {
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.next_f32()
    }

    fn below(&mut self, count: u32) -> u32 {
        // At most count - 1, as the uniform number is at most 1 - 2^-24.
        (self.0.next_f32() * count as f32) as u32
    }

    /// About standard normal: the sum of four uniforms, scaled to variance 1, never beyond 3.5.
    fn normal(&mut self) -> f32 {
        const SQRT_3: f32 = 1.732_050_8;
        let sum: f32 = (0..4).map(|_| self.0.next_f32()).sum();
        (sum - 2.0) * SQRT_3
    }

    /// A unit vector of any direction.
    fn direction(&mut self) -> (f32, f32) {
        loop {
            let (x, y) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let squared = x * x + y * y;
            if (1e-4..=1.0).contains(&squared) {
                let length = squared.sqrt();
                return (x / length, y / length);
            }
        }
    }

    /// Brightness varies most, then yellow against blue, then red against green, as in natural images (Ruderman,
    /// Cronin and Chiao, 1998).
    fn colour(&mut self) -> Colour {
        let brightness = self.between(15.0, 235.0);
        let (yellow, red) = (14.0 * self.normal(), 8.0 * self.normal());
        [brightness + yellow + red, brightness + yellow - red, brightness - 2.0 * yellow]
    }

    fn surface(&mut self, side: f32) -> Surface {
        let outline = match self.below(10) {
            0..=5 => Outline::HalfPlane,
            6 | 7 => Outline::Bar(self.between(0.05, 0.2) * side),
            _ => Outline::Disc(self.between(0.1, 0.6) * side),
        };
        Surface {
            outline,
            point: (self.between(-0.1, 1.1) * side, self.between(-0.1, 1.1) * side),
            across: self.direction(),
            blur: self.between(0.6, 2.5),
            colour: self.colour(),
        }
    }

    /// Change of the light by pixel to the right, by pixel downwards, and at the corner.
    fn shading(&mut self, side: f32) -> (f32, f32, f32) {
        let (right, down) = (0.15 * self.normal() / side, 0.15 * self.normal() / side);
        (right, down, -0.5 * (right + down) * side)
    }
}
