//! The idx format of the MNIST files: a magic number, the extents, the bytes.
//!
//! Reads arrays of unsigned bytes of an expected rank, exactly as long as their header says; other element types
//! are refused.

use std::path::Path;

use crate::count::Counted;
use crate::{DataError, DataFile};

/// Larger files are refused, so that a forged header cannot ask for all memory.
const MAX_BYTES: u64 = 1 << 30;

/// An array of bytes in row-major order.
#[derive(Debug, PartialEq)]
pub(super) struct IdxArray {
    /// Extents, outermost first.
    pub(super) shape: Vec<usize>,
    /// As many bytes as the product of the extents.
    pub(super) bytes: Vec<u8>,
}

/// Reads an idx file of bytes with `rank` axes.
pub(super) fn read_idx(path: &Path, rank: u8) -> Result<IdxArray, DataError> {
    let mut source = DataFile::open(path)?;
    let magic = source.read_up_to(4)?;
    let expected = 0x0800 | u32::from(rank);
    if magic != expected.to_be_bytes() {
        let found = match <[u8; 4]>::try_from(magic.as_slice()) {
            Ok(bytes) => format!("{:#010x}", u32::from_be_bytes(bytes)),
            Err(_) => format!("a file of {}", Counted(magic.len(), "byte")),
        };
        return Err(DataError::IdxMagic { path: path.to_owned(), rank, expected, found });
    }
    let header = source.read_up_to(4 * u64::from(rank))?;
    let (extents, _) = header.as_chunks::<4>();
    let shape: Vec<usize> = extents.iter().map(|extent| u32::from_be_bytes(*extent) as usize).collect();
    let start = 4 + 4 * u64::from(rank);
    let wrong_length = |expected: u64, found: String| DataError::IdxLength {
        path: path.to_owned(),
        shape: shape.clone(),
        expected,
        found,
    };
    if shape.len() < usize::from(rank) {
        return Err(wrong_length(start, source.offset().to_string()));
    }
    let length = shape.iter().try_fold(1_u64, |product, extent| product.checked_mul(*extent as u64));
    let Some(length) = length.filter(|length| *length <= MAX_BYTES) else {
        return Err(DataError::Layout {
            path: path.to_owned(),
            what: "extents in the header (bytes 4 and following)".to_owned(),
            expected: format!("at most {MAX_BYTES} bytes of content"),
            found: format!("{shape:?}"),
        });
    };
    let bytes = source.read_up_to(length)?;
    if (bytes.len() as u64) < length {
        return Err(wrong_length(start + length, source.offset().to_string()));
    }
    // This also reaches the end of a gzip file, where its checksum is compared.
    if !source.read_up_to(1)?.is_empty() {
        return Err(wrong_length(start + length, "more".to_owned()));
    }
    Ok(IdxArray { shape, bytes })
}
