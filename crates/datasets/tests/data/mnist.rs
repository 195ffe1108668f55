//! MNIST in both forms, written small by these tests, whole and damaged.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use hypatia_datasets::{DataError, Dataset, IMAGE_PIXELS};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx_images(count: u32) -> Vec<u8> {
    let mut bytes = [0x0803, count, 28, 28].iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    bytes.extend((0..count as usize * IMAGE_PIXELS).map(|pixel| (pixel % 256) as u8));
    bytes
}

fn idx_labels(labels: &[u8]) -> Vec<u8> {
    let mut bytes =
        [0x0801, labels.len() as u32].iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    bytes.extend(labels);
    bytes
}

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels.idx1-ubyte",
];
const TRAIN_LABELS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2];

fn write_idx(directory: &Path) {
    let contents =
        [idx_images(12), gzip(&idx_labels(&TRAIN_LABELS)), gzip(&idx_images(2)), idx_labels(&[7, 2])];
    for (name, content) in FILES.iter().zip(contents) {
        fs::write(directory.join(name), content).unwrap();
    }
}

/// What Python 2 writes for an array under protocol 2.
fn array(extents: &[i32], code: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out =
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01(".to_vec();
    for extent in extents {
        out.push(b'J');
        out.extend(extent.to_le_bytes());
    }
    out.extend(b"tcnumpy\ndtype\nU\x02");
    out.extend(code.as_bytes());
    out.extend(b"K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T");
    out.extend((bytes.len() as i32).to_le_bytes());
    out.extend(bytes);
    out.extend(b"tb");
    out
}

fn set(pixels: &[f32], labels: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let mut out = array(&[labels.len() as i32, (pixels.len() / labels.len().max(1)) as i32], "f4", &bytes);
    let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    out.extend(array(&[labels.len() as i32], "i8", &bytes));
    out.push(0x86);
    out
}

fn pickle(sets: [Vec<u8>; 3]) -> Vec<u8> {
    let mut out = b"\x80\x02".to_vec();
    out.extend(sets.concat());
    out.extend(b"\x87.");
    out
}

fn good_set() -> Vec<u8> {
    set(&[0.5; 2 * IMAGE_PIXELS], &[3, 9])
}

/// The error of reading `content` as a file called `name`, with the path shortened.
fn error_of(name: &str, content: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    write_idx(directory.path());
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    let target = if name.contains("pkl") { path.as_path() } else { directory.path() };
    let error = Dataset::read(target).unwrap_err().to_string();
    error.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn four_idx_files_make_three_sets() {
    let directory = tempfile::tempdir().unwrap();
    write_idx(directory.path());
    let data = Dataset::read(directory.path()).unwrap();
    assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (10, 2, 2));
    assert_eq!(data.train.labels(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(data.valid.labels(), [1, 2]);
    assert_eq!(data.test.labels(), [7, 2]);
    // Pixels are divided by 256: byte 255 is 0.99609375.
    assert_eq!(data.train.pixels()[253..258], [253.0 / 256.0, 254.0 / 256.0, 0.99609375, 0.0, 1.0 / 256.0]);
    assert_eq!(data.valid.pixels()[0], (10 * IMAGE_PIXELS % 256) as f32 / 256.0);
    assert_eq!(data.valid.pixels().len(), 2 * IMAGE_PIXELS);
}

#[test]
fn a_pickle_makes_three_sets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mnist.pkl.gz");
    fs::write(&path, gzip(&pickle([good_set(), good_set(), good_set()]))).unwrap();
    let data = Dataset::read(&path).unwrap();
    assert_eq!(data.train.labels(), [3, 9]);
    assert_eq!(data.test.pixels(), [0.5; 2 * IMAGE_PIXELS]);
    // The directory that holds it stands for it, and gzip is told by content, not by name.
    assert_eq!(Dataset::read(directory.path()).unwrap().valid, data.valid);
    fs::write(&path, pickle([good_set(), good_set(), good_set()])).unwrap();
    assert_eq!(Dataset::read(&path).unwrap(), data);
}

#[test]
fn faults_of_idx_files_are_explained() {
    let images = "train-images-idx3-ubyte";
    assert_eq!(
        error_of(images, &idx_labels(&[1, 2, 3])),
        "DIR/train-images-idx3-ubyte: expected an idx file of bytes with 3 axes (magic number 0x00000803), found 0x00000801 at byte 0"
    );
    assert_eq!(
        error_of(images, b"\0\0"),
        "DIR/train-images-idx3-ubyte: expected an idx file of bytes with 3 axes (magic number 0x00000803), found a file of 2 bytes at byte 0"
    );
    assert_eq!(
        error_of(images, &idx_images(12)[..1000]),
        "DIR/train-images-idx3-ubyte: expected 9424 bytes for the extents [12, 28, 28] in the header, found 1000"
    );
    assert_eq!(
        error_of(images, &[idx_images(12), vec![0]].concat()),
        "DIR/train-images-idx3-ubyte: expected 9424 bytes for the extents [12, 28, 28] in the header, found more"
    );
    assert_eq!(
        error_of(images, &idx_images(12)[..7]),
        "DIR/train-images-idx3-ubyte: expected 16 bytes for the extents [] in the header, found 7"
    );
    let huge = [0x0803_u32, u32::MAX, u32::MAX, u32::MAX].map(u32::to_be_bytes).concat();
    assert_eq!(
        error_of(images, &huge),
        "DIR/train-images-idx3-ubyte: extents in the header (bytes 4 and following): expected at most 1073741824 bytes of content, found [4294967295, 4294967295, 4294967295]"
    );
    let mut other_size = idx_images(12);
    other_size[11] = 14;
    other_size[15] = 56;
    assert_eq!(
        error_of(images, &other_size),
        "DIR/train-images-idx3-ubyte: size of the images (bytes 8 to 15): expected 28 x 28 pixels, found 14 x 56"
    );
    assert_eq!(
        error_of("t10k-labels.idx1-ubyte", &idx_labels(&[7])),
        "DIR/t10k-labels.idx1-ubyte: number of labels (bytes 4 to 7): expected one label for each of the 2 images, found 1"
    );
    assert_eq!(
        error_of("t10k-labels.idx1-ubyte", &idx_labels(&[7, 10])),
        "DIR/t10k-labels.idx1-ubyte: test label 1: expected an integer from 0 to 9, found 10"
    );
}

#[test]
fn faults_of_gzip_are_told_from_faults_of_the_content() {
    let whole = gzip(&idx_labels(&TRAIN_LABELS));
    let labels = "train-labels-idx1-ubyte.gz";
    assert_eq!(
        error_of(labels, &whole[..whole.len() - 3]),
        "DIR/train-labels-idx1-ubyte.gz: truncated gzip file: expected more data after byte 20 of the uncompressed content, found the end of the file"
    );
    let mut changed = whole.clone();
    let checksum = changed.len() - 8;
    changed[checksum] ^= 1;
    assert_eq!(
        error_of(labels, &changed),
        "DIR/train-labels-idx1-ubyte.gz: corrupt gzip file: corrupt gzip stream does not have a matching checksum, after byte 20 of the uncompressed content"
    );
    let pickle = gzip(&pickle([good_set(), good_set(), good_set()]));
    let error = error_of("mnist.pkl.gz", &pickle[..pickle.len() / 2]);
    assert!(
        error.starts_with("DIR/mnist.pkl.gz: truncated gzip file: expected more data after byte "),
        "{error}"
    );
    let mut changed = pickle.clone();
    let checksum = changed.len() - 8;
    changed[checksum] ^= 1;
    assert!(error_of("mnist.pkl.gz", &changed).contains("matching checksum"));
}

#[test]
fn faults_of_the_pickle_are_explained() {
    let error = |sets| error_of("mnist.pkl", &pickle(sets));
    assert_eq!(
        error_of("mnist.pkl", b"\x80\x02]."),
        "DIR/mnist.pkl: content of the pickle: expected a tuple of three pairs (images, labels), found a list of 0"
    );
    assert_eq!(
        error_of("mnist.pkl", b""),
        "DIR/mnist.pkl: number of pickles in the file: expected 1, found 0"
    );
    assert_eq!(
        error([good_set(), b"N".to_vec(), good_set()]),
        "DIR/mnist.pkl: entry 1, the validation set: expected a pair of arrays (images, labels), found None"
    );
    assert_eq!(
        error([good_set(), good_set(), set(&[0.5; 20], &[1, 2])]),
        "DIR/mnist.pkl: entry 2.0, the test images: expected a float32 or float64 array of shape [n, 784] with n > 0, found a float32 array of shape [2, 10]"
    );
    assert_eq!(
        error([set(&[0.5; 2 * IMAGE_PIXELS], &[3, -1]), good_set(), good_set()]),
        "DIR/mnist.pkl: training label 1: expected an integer from 0 to 9, found -1"
    );
    let mut pixels = [0.5; 2 * IMAGE_PIXELS];
    pixels[IMAGE_PIXELS + 3] = f32::NAN;
    assert_eq!(
        error([set(&pixels, &[3, 9]), good_set(), good_set()]),
        "DIR/mnist.pkl: training image 1, pixel 3: expected a value from 0 to 1, found NaN"
    );
    pixels[3] = 255.0;
    assert_eq!(
        error([set(&pixels, &[3, 9]), good_set(), good_set()]),
        "DIR/mnist.pkl: training image 0, pixel 3: expected a value from 0 to 1, found 255"
    );
    // Labels as floats, one of them no number.
    let images = array(&[1, IMAGE_PIXELS as i32], "f4", &[0; 4 * IMAGE_PIXELS]);
    let labels = array(&[1], "f8", &f64::NAN.to_le_bytes());
    let nan = [images, labels, vec![0x86]].concat();
    assert_eq!(
        error([nan, good_set(), good_set()]),
        "DIR/mnist.pkl: training label 0: expected an integer from 0 to 9, found NaN"
    );
    assert_eq!(
        error_of("mnist.pkl", b"cos\nsystem\n(S'ls'\ntR."),
        "DIR/mnist.pkl: pickle, byte 0: expected nothing but data and NumPy arrays, found a request for os.system, which is refused"
    );
}

#[test]
fn a_path_without_data_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("t10k-images-idx3-ubyte.gz"), b"").unwrap();
    let error = Dataset::read(directory.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("expected mnist.pkl.gz or the four idx files of MNIST (gzipped or not), found no train-images-idx3-ubyte, no train-labels-idx1-ubyte, no t10k-labels-idx1-ubyte"),
        "{error}"
    );
    let missing = Dataset::read(&directory.path().join("none")).unwrap_err();
    assert!(matches!(missing, DataError::Open { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        which in 0..5_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let directory = tempfile::tempdir().unwrap();
        write_idx(directory.path());
        let path = directory.path().join(FILES.get(which).unwrap_or(&"mnist.pkl.gz"));
        if which == 4 {
            fs::write(&path, gzip(&pickle([good_set(), good_set(), good_set()]))).unwrap();
        }
        let mut bytes = fs::read(&path).unwrap();
        for (index, byte) in damage {
            // Most damage belongs into the headers.
            let position = index.index(bytes.len().min(64));
            bytes[position] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, bytes).unwrap();
        let _ = Dataset::read(if which == 4 { &path } else { directory.path() });
    }
}
