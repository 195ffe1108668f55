//! NumPy's file format (NEP 1) for arrays of bytes of shape `[n, height, width, 3]` in row-major order.
//!
//! Versions 1 to 3 of the format; other element types, orders and shapes are refused by name.

use std::path::Path;

use super::{CHANNELS, ColourImages, MAX_BYTES, layout};
use crate::count::Counted;
use crate::{DataError, DataFile};

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// Longer headers are refused; one for four extents has 128 bytes.
const LONGEST_HEADER: u64 = 1 << 16;

/// Reads all images of a file.
pub(super) fn read_images(path: &Path) -> Result<ColourImages, DataError> {
    let mut source = DataFile::open(path)?;
    let start = source.read_up_to(8)?;
    let version = start.get(MAGIC.len()).copied().unwrap_or(0);
    let length_bytes = match version {
        1 => 2,
        2 | 3 => 4,
        other => {
            return Err(layout(path, "version of the format (byte 6)", "1, 2 or 3", other.to_string()));
        }
    };
    let length = source.read_up_to(length_bytes)?;
    let truncated = |what: &str, expected: u64, found: usize| {
        layout(
            path,
            what,
            Counted(expected, "byte").to_string(),
            format!("the end of the file after {found}"),
        )
    };
    if (length.len() as u64) < length_bytes {
        return Err(truncated("length of the header", length_bytes, length.len()));
    }
    let length = length.iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    if length > LONGEST_HEADER {
        let expected = format!("at most {LONGEST_HEADER} bytes");
        return Err(layout(path, "length of the header", expected, length.to_string()));
    }
    let header = source.read_up_to(length)?;
    if (header.len() as u64) < length {
        return Err(truncated("header", length, header.len()));
    }
    let header = String::from_utf8_lossy(&header);
    let Some(Header { element, column_major, shape }) = Header::parse(&header) else {
        let found: String = header.trim_end().chars().take(100).collect();
        let expected = "{'descr': ..., 'fortran_order': ..., 'shape': ...}";
        return Err(layout(path, "header", expected, format!("{found:?}")));
    };
    if !matches!(element.as_str(), "|u1" | "u1" | "<u1" | ">u1" | "=u1") {
        return Err(layout(path, "element type", "'|u1', bytes", format!("'{element}'")));
    }
    if column_major {
        return Err(layout(path, "order of the elements", "row-major", "column-major (fortran_order: True)"));
    }
    let wanted = format!("(n, height, width, {CHANNELS}), n, height and width at least 1");
    let &[count, height, width, CHANNELS] = shape.as_slice() else {
        return Err(layout(path, "shape", wanted, format!("{shape:?}")));
    };
    if count == 0 || height == 0 || width == 0 {
        return Err(layout(path, "shape", wanted, format!("{shape:?}")));
    }
    let length = shape.iter().try_fold(1_u64, |product, extent| product.checked_mul(*extent as u64));
    let Some(length) = length.filter(|length| *length <= MAX_BYTES) else {
        return Err(layout(path, "shape", format!("at most {MAX_BYTES} bytes"), format!("{shape:?}")));
    };
    let bytes = source.read_up_to(length)?;
    if (bytes.len() as u64) < length {
        return Err(truncated("pixels", length, bytes.len()));
    }
    // This also reaches the end of a gzip file, where its checksum is compared.
    if !source.read_up_to(1)?.is_empty() {
        return Err(layout(path, "pixels", Counted(length, "byte").to_string(), "more"));
    }
    Ok(ColourImages::new(height, width, bytes, path.display().to_string()))
}

/// What the header of a file says.
#[derive(Debug, PartialEq)]
struct Header {
    element: String,
    column_major: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the dictionary that NumPy writes: three keys in any order.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = Literal(text);
        let (mut element, mut column_major, mut shape) = (None, None, None);
        rest.expect("{")?;
        while rest.expect("}").is_none() {
            let key = rest.quoted()?;
            rest.expect(":")?;
            match key {
                "descr" => element = Some(rest.quoted()?.to_owned()),
                "fortran_order" => {
                    column_major = Some(match rest.expect("True") {
                        Some(()) => true,
                        None => rest.expect("False").map(|()| false)?,
                    });
                }
                "shape" => shape = Some(rest.integers()?),
                _ => return None,
            }
            if rest.expect(",").is_none() && !rest.0.trim_start().starts_with('}') {
                return None;
            }
        }
        rest.0.trim().is_empty().then_some(())?;
        Some(Self { element: element?, column_major: column_major?, shape: shape? })
    }
}

/// The rest of a Python literal that is still to be read.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn expect(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    /// A string in single or double quotes, without escapes.
    fn quoted(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
        let (inside, rest) = text.get(1..)?.split_once(quote)?;
        self.0 = rest;
        (!inside.contains('\\')).then_some(inside)
    }

    /// A tuple of numbers.
    fn integers(&mut self) -> Option<Vec<usize>> {
        self.expect("(")?;
        let (inside, rest) = self.0.split_once(')')?;
        self.0 = rest;
        let inside = inside.trim().trim_end_matches(',');
        let number = |text: &str| text.trim().parse().ok();
        if inside.is_empty() { Some(Vec::new()) } else { inside.split(',').map(number).collect() }
    }
}
