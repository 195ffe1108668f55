//! Generated digits: equal everywhere, of the sizes asked for, and what a scanned digit is.

use hypatia_datasets::digits::{DigitSet, generate_digits};
use hypatia_datasets::{Dataset, IMAGE_PIXELS, SetSizes};

/// FNV-1a over the levels of all pixels and the labels.
fn fingerprint(pixels: &[f32], labels: &[i32]) -> u64 {
    let levels = pixels.iter().map(|pixel| (pixel * 256.0) as u8);
    let labels = labels.iter().map(|label| *label as u8);
    levels
        .chain(labels)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn the_same_seed_gives_the_same_images_everywhere() {
    let digits = generate_digits(1, DigitSet::Train, 500);
    // The fingerprint was taken on x86-64 Linux; all the arithmetic is exact by IEEE 754.
    assert_eq!(fingerprint(digits.pixels(), digits.labels()), FINGERPRINT);
    assert_ne!(generate_digits(2, DigitSet::Train, 500), digits);
    assert_ne!(generate_digits(1, DigitSet::Valid, 500), digits);
}

const FINGERPRINT: u64 = 18_321_245_664_263_003_038;

#[test]
fn smaller_sets_are_beginnings_of_larger_ones() {
    let small = Dataset::generate(5, SetSizes { train: 7, valid: 0, test: 1 });
    let large = Dataset::generate(5, SetSizes { train: 20, valid: 3, test: 2 });
    assert_eq!((small.train.len(), small.valid.len(), small.test.len()), (7, 0, 1));
    assert_eq!(small.train.pixels(), &large.train.pixels()[..7 * IMAGE_PIXELS]);
    assert_eq!(small.train.labels(), &large.train.labels()[..7]);
    assert_eq!(small.test.pixels(), &large.test.pixels()[..IMAGE_PIXELS]);
}

#[test]
fn images_have_the_levels_and_the_ink_of_scanned_digits() {
    let digits = generate_digits(3, DigitSet::Test, 2000);
    let mut counts = [0; 10];
    digits.labels().iter().for_each(|label| counts[*label as usize] += 1);
    assert!(counts.iter().all(|count| (140..260).contains(count)), "{counts:?}");
    for (index, image) in digits.pixels().chunks_exact(IMAGE_PIXELS).enumerate() {
        assert!(image.iter().all(|pixel| (0.0..1.0).contains(pixel) && (pixel * 256.0).fract() == 0.0));
        let ink: f32 = image.iter().sum();
        assert!((10.0..300.0).contains(&ink), "image {index} has ink {ink}");
        let dark = image.iter().filter(|pixel| **pixel > 0.5).count();
        assert!((8..350).contains(&dark), "image {index} has {dark} dark pixels");
    }
}

/// A classifier by the nearest mean image is far from chance and far from perfect.
#[test]
fn digits_can_be_told_apart_but_not_too_easily() {
    let train = generate_digits(9, DigitSet::Train, 4000);
    let test = generate_digits(9, DigitSet::Test, 1000);
    let mut means = vec![[0.0_f32; IMAGE_PIXELS]; 10];
    let mut counts = [0.0_f32; 10];
    for (image, label) in train.pixels().chunks_exact(IMAGE_PIXELS).zip(train.labels()) {
        counts[*label as usize] += 1.0;
        means[*label as usize].iter_mut().zip(image).for_each(|(mean, pixel)| *mean += pixel);
    }
    for (mean, count) in means.iter_mut().zip(counts) {
        mean.iter_mut().for_each(|pixel| *pixel /= count);
    }
    let distance = |mean: &[f32; IMAGE_PIXELS], image: &[f32]| -> f32 {
        mean.iter().zip(image).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let wrong = test.pixels().chunks_exact(IMAGE_PIXELS).zip(test.labels()).filter(|(image, label)| {
        let nearest =
            (0..10).min_by(|a, b| distance(&means[*a], image).total_cmp(&distance(&means[*b], image)));
        nearest != Some(**label as usize)
    });
    let error = wrong.count() as f64 / test.len() as f64;
    assert!((0.08..0.4).contains(&error), "{error}");
}
