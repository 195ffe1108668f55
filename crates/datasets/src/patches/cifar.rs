//! The binary files of CIFAR-10 (Krizhevsky, 2009): records of a label and three planes of 32 x 32 bytes.

use std::path::Path;

use super::{CHANNELS, ColourImages, MAX_BYTES, layout};
use crate::count::Counted;
use crate::{CLASSES, DataError, DataFile};

/// Rows, and columns, of an image.
pub const CIFAR_SIDE: usize = 32;
const PIXELS: usize = CIFAR_SIDE * CIFAR_SIDE;
const RECORD: usize = 1 + CHANNELS * PIXELS;

/// The images of a file and their labels, 0 to 9, equally many.
///
/// # Errors
///
/// A [`DataError`] for a file that is not made of whole records, or with a label that is none.
pub fn read_cifar10(path: &Path) -> Result<(ColourImages, Vec<u8>), DataError> {
    let records = DataFile::open(path)?.read_up_to(MAX_BYTES + 1)?;
    if records.len() as u64 > MAX_BYTES {
        return Err(layout(path, "length of the file", format!("at most {MAX_BYTES} bytes"), "more"));
    }
    if records.is_empty() || !records.len().is_multiple_of(RECORD) {
        return Err(layout(
            path,
            "length of the file",
            format!("CIFAR-10 records of {RECORD} bytes, at least one"),
            format!("{}, {} more than whole records", Counted(records.len(), "byte"), records.len() % RECORD),
        ));
    }
    let mut labels = Vec::with_capacity(records.len() / RECORD);
    let mut bytes = Vec::with_capacity(records.len());
    for (index, record) in records.chunks_exact(RECORD).enumerate() {
        let (label, planes) = (record[0], &record[1..]);
        if usize::from(label) >= CLASSES {
            return Err(layout(
                path,
                &format!("label of record {index} (byte {})", index * RECORD),
                "a class from 0 to 9",
                label.to_string(),
            ));
        }
        labels.push(label);
        for pixel in 0..PIXELS {
            bytes.extend((0..CHANNELS).map(|channel| planes[channel * PIXELS + pixel]));
        }
    }
    Ok((ColourImages::new(CIFAR_SIDE, CIFAR_SIDE, bytes, path.display().to_string()), labels))
}
