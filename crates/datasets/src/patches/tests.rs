use std::fs;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn header(text: &str) -> Vec<u8> {
    let mut file = npy::MAGIC.to_vec();
    let padded = format!("{text:<117}\n");
    file.extend([1, 0, padded.len() as u8, 0]);
    file.extend(padded.as_bytes());
    file
}

const HEADER: &str = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2, 3), }";

fn read_bytes(name: &str, bytes: &[u8]) -> Result<ColourImages, DataError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    ColourImages::read(&path)
}

fn message(name: &str, bytes: &[u8]) -> String {
    let text = read_bytes(name, bytes).unwrap_err().to_string();
    text.split_once(&format!("{name}: ")).unwrap().1.to_owned()
}

#[test]
fn an_array_of_bytes_is_read() {
    let file = [header(HEADER), (0..12).collect()].concat();
    let images = read_bytes("a.npy", &file).unwrap();
    assert_eq!((images.len(), images.height(), images.width()), (2, 1, 2));
    assert_eq!(images.bytes(), (0..12).collect::<Vec<u8>>());
}

#[test]
fn what_is_wrong_with_an_array_is_named() {
    let pixels: Vec<u8> = (0..12).collect();
    let with = |text: &str| message("a.npy", &[header(text), pixels.clone()].concat());
    assert_eq!(
        with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 2, 3), }"),
        "element type: expected '|u1', bytes, found '<f4'"
    );
    assert_eq!(
        with("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 1, 2, 3), }"),
        "order of the elements: expected row-major, found column-major (fortran_order: True)"
    );
    assert_eq!(
        with("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 6), }"),
        "shape: expected (n, height, width, 3), n, height and width at least 1, found [2, 6]"
    );
    assert_eq!(
        with("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2, 3), }"),
        "pixels: expected 24 bytes, found the end of the file after 12"
    );
    assert_eq!(
        with("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 2, 3), }"),
        "pixels: expected 6 bytes, found more"
    );
    assert_eq!(
        with("{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 4000000000, 4000000000, 3), }"),
        "shape: expected at most 1073741824 bytes, found [4000000000, 4000000000, 4000000000, 3]"
    );
    assert_eq!(
        with("[1]"),
        "header: expected {'descr': ..., 'fortran_order': ..., 'shape': ...}, found \"[1]\""
    );
    assert_eq!(
        message("a.npy", b"PK"),
        "bytes 0 to 5: expected the magic string of a NumPy file, found [50, 4b]"
    );
    assert_eq!(
        message("a.npy", b"\x93NUMPY\x09\x00"),
        "version of the format (byte 6): expected 1, 2 or 3, found 9"
    );
}

/// A CIFAR-10 file of so many records, record `i` with label `i % 10`.
fn cifar(records: usize) -> Vec<u8> {
    (0..records).flat_map(|i| [vec![(i % 10) as u8], vec![i as u8; 3072]].concat()).collect()
}

#[test]
fn what_is_wrong_with_a_cifar_file_is_named() {
    assert_eq!(
        message("data.bin", &cifar(2)[..4000]),
        "length of the file: expected CIFAR-10 records of 3073 bytes, at least one, found 4000 bytes, 927 more than whole records"
    );
    let mut file = cifar(2);
    file[3073] = 10;
    assert_eq!(
        message("data.bin", &file),
        "label of record 1 (byte 3073): expected a class from 0 to 9, found 10"
    );
}

#[test]
fn a_directory_holds_one_array_or_batches() {
    let directory = tempfile::tempdir().unwrap();
    let read = || ColourImages::read(directory.path());
    let text = read().unwrap_err().to_string();
    assert!(text.ends_with("data_batch*.bin, found no files"), "{text}");
    fs::write(directory.path().join("data_batch_2.bin"), cifar(1)).unwrap();
    fs::write(directory.path().join("data_batch_1.bin"), cifar(2)).unwrap();
    fs::write(directory.path().join("test_batch.bin"), cifar(5)).unwrap();
    assert_eq!(read().unwrap().len(), 3);
    fs::write(directory.path().join("a.npy"), [header(HEADER), (0..12).collect()].concat()).unwrap();
    assert_eq!(read().unwrap().len(), 2);
    fs::write(directory.path().join("b.npy"), [header(HEADER), (0..12).collect()].concat()).unwrap();
    let text = read().unwrap_err().to_string();
    assert!(text.ends_with("found 2 files *.npy"), "{text}");
}

#[test]
fn patches_are_cut_out_of_larger_images() {
    // Red is the row, green the column, blue the image: a patch shows where it came from.
    let bytes = (0..3 * 6 * 5).flat_map(|i| [(i / 5 % 6) as u8, (i % 5) as u8, (i / 30) as u8]).collect();
    let images = ColourImages::new(6, 5, bytes, "grid".to_owned());
    let patches = images.clone().cut(4, 500, 1).unwrap();
    assert_eq!((patches.len(), patches.height(), patches.width()), (500, 4, 4));
    let mut corners = Vec::new();
    for patch in patches.bytes().chunks(48) {
        corners.push((patch[2], patch[0], patch[1]));
        for (place, pixel) in patch.chunks(3).enumerate() {
            let (row, column) = ((place / 4) as u8, (place % 4) as u8);
            assert_eq!(pixel, [patch[0] + row, patch[1] + column, patch[2]]);
        }
    }
    corners.sort_unstable();
    corners.dedup();
    assert_eq!(corners.len(), 3 * 3 * 2);
    let error = images.cut(6, 1, 1).unwrap_err().to_string();
    assert!(error.contains("at least 6 x 6 pixels, found 6 x 5"), "{error}");
}

#[test]
fn generated_patches_depend_on_the_seed_alone() {
    let patches = ColourImages::generate(7, 16, 300);
    assert_eq!(patches, ColourImages::generate(7, 16, 300));
    assert_ne!(patches.checksum(), ColourImages::generate(8, 16, 300).checksum());
    // The channels of natural images are strongly correlated, with much contrast.
    let mean = |of: &dyn Fn(&[u8]) -> f64| {
        let pixels = patches.bytes().chunks(3);
        let count = pixels.len() as f64;
        pixels.map(of).sum::<f64>() / count
    };
    let means = [0, 1, 2].map(|c| mean(&|pixel| f64::from(pixel[c])));
    let covariance = |a: usize, b: usize| {
        mean(&|pixel| (f64::from(pixel[a]) - means[a]) * (f64::from(pixel[b]) - means[b]))
    };
    assert!(covariance(0, 0).sqrt() > 40.0);
    let correlation = covariance(0, 2) / (covariance(0, 0) * covariance(2, 2)).sqrt();
    assert!((0.5..0.98).contains(&correlation), "{correlation}");
}

fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no real data at {}", path.display());
    None
}

/// Figures of the data's own description.
#[test]
fn the_natural_patches_have_their_published_statistics() {
    let Some(path) = shared_data("patches") else { return };
    let patches = ColourImages::read(&path).unwrap();
    assert_eq!((patches.len(), patches.height(), patches.width()), (10_240, 16, 16));
    let count = patches.bytes().len() as f64;
    let mean = patches.bytes().iter().map(|byte| f64::from(*byte)).sum::<f64>() / count;
    let squares = patches.bytes().iter().map(|byte| (f64::from(*byte) - mean).powi(2)).sum::<f64>();
    assert!((mean - 105.948).abs() < 5e-4, "{mean}");
    assert!(((squares / count).sqrt() - 62.094).abs() < 5e-4);
}

/// Figures of the data's own description.
#[test]
fn the_cifar_images_have_their_published_statistics() {
    let Some(path) = shared_data("cifar10/data_batch_1_first4000.bin") else { return };
    let (images, labels) = read_cifar10(&path).unwrap();
    let mut classes = [0; 10];
    labels.iter().for_each(|label| classes[usize::from(*label)] += 1);
    assert_eq!(classes, [396, 366, 420, 384, 422, 393, 414, 385, 407, 413]);
    let sums = images
        .bytes()
        .chunks(3)
        .fold([0_u64; 3], |sums, pixel| [0, 1, 2].map(|channel| sums[channel] + u64::from(pixel[channel])));
    let means = sums.map(|sum| sum as f64 / 255.0 / (4000.0 * 1024.0));
    for (found, published) in means.into_iter().zip([0.4916, 0.4818, 0.4447]) {
        assert!((found - published).abs() < 6e-5, "{means:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_file_makes_the_reader_panic(
        position in 0_usize..140,
        byte in any::<u8>(),
        length in 0_usize..140,
        text in "[{}()',:0-9a-z|<>\" ]{0,80}",
    ) {
        let mut file = [header(HEADER), (0..12).collect()].concat();
        if let Some(place) = file.get_mut(position) {
            *place = byte;
        }
        let _ = read_bytes("a.npy", &file);
        file.truncate(length);
        let _ = read_bytes("a.npy", &file);
        let _ = read_bytes("a.npy", &[header(&text), (0..12).collect()].concat());
    }
}
