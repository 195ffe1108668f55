//! NumPy arrays as they come out of a pickle: booleans, integers and floats in row-major, little-endian order.

use std::fmt;
use std::sync::Arc;

use super::PickleErrorKind;
use crate::count::Counted;

/// Type of the elements of an [`Array`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// A byte that is 0 or not.
    Bool,
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 8-bit unsigned integer.
    UInt8,
    /// 16-bit unsigned integer.
    UInt16,
    /// 32-bit unsigned integer.
    UInt32,
    /// 64-bit unsigned integer.
    UInt64,
    /// 32-bit float.
    Float32,
    /// 64-bit float.
    Float64,
}

impl ElementType {
    /// From NumPy's code of kind and size, without byte order: `f4`, `i8`.
    pub(super) fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "b1" => Self::Bool,
            "i1" => Self::Int8,
            "i2" => Self::Int16,
            "i4" => Self::Int32,
            "i8" => Self::Int64,
            "u1" => Self::UInt8,
            "u2" => Self::UInt16,
            "u4" => Self::UInt32,
            "u8" => Self::UInt64,
            "f4" => Self::Float32,
            "f8" => Self::Float64,
            _ => return None,
        })
    }

    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 => 8,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        })
    }
}

/// A NumPy array. Its length in bytes is always the product of the extents times the size of an element.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    element: ElementType,
    bytes: Arc<Vec<u8>>,
}

/// Converts the little-endian elements of `$bytes`, each by `$convert`.
macro_rules! elements {
    ($bytes:expr, $type:ty, $convert:expr) => {{
        let (chunks, _) = $bytes.as_chunks::<{ size_of::<$type>() }>();
        chunks.iter().map(|chunk| <$type>::from_le_bytes(*chunk)).map($convert).collect()
    }};
}

/// A method that casts every element to one type, as NumPy's `astype` does.
macro_rules! cast_all {
    ($(#[$doc:meta])* $name:ident, $target:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> Vec<$target> {
            match self.element {
                ElementType::Bool => elements!(self.bytes, u8, |x| u8::from(x != 0) as $target),
                ElementType::Int8 => elements!(self.bytes, i8, |x| x as $target),
                ElementType::Int16 => elements!(self.bytes, i16, |x| x as $target),
                ElementType::Int32 => elements!(self.bytes, i32, |x| x as $target),
                ElementType::Int64 => elements!(self.bytes, i64, |x| x as $target),
                ElementType::UInt8 => elements!(self.bytes, u8, |x| x as $target),
                ElementType::UInt16 => elements!(self.bytes, u16, |x| x as $target),
                ElementType::UInt32 => elements!(self.bytes, u32, |x| x as $target),
                ElementType::UInt64 => elements!(self.bytes, u64, |x| x as $target),
                ElementType::Float32 => elements!(self.bytes, f32, |x| x as $target),
                ElementType::Float64 => elements!(self.bytes, f64, |x| x as $target),
            }
        }
    };
}

impl Array {
    /// The array of extent 0 that `_reconstruct` makes, to be filled by the state that follows.
    pub(super) fn empty() -> Self {
        Self { shape: vec![0], element: ElementType::Int8, bytes: Arc::default() }
    }

    /// The array of these bytes, which are copied only if they are not in row-major, little-endian order.
    pub(super) fn new(
        shape: Vec<usize>,
        element: ElementType,
        big_endian: bool,
        column_major: bool,
        bytes: &Arc<Vec<u8>>,
    ) -> Result<Self, PickleErrorKind> {
        let size = element.size();
        let expected = shape.iter().try_fold(size, |product, extent| product.checked_mul(*extent));
        if expected != Some(bytes.len()) {
            let expected = expected
                .map_or("more bytes than there can be".to_owned(), |n| Counted(n, "byte").to_string());
            return Err(PickleErrorKind::ArrayLength { shape, expected, found: bytes.len() });
        }
        let swap = big_endian && size > 1;
        let transpose = column_major && shape.iter().filter(|extent| **extent > 1).count() > 1;
        let mut bytes = Arc::clone(bytes);
        if transpose {
            bytes = Arc::new(to_row_major(&bytes, &shape, size));
        }
        if swap {
            let mut swapped = bytes.to_vec();
            swapped.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            bytes = Arc::new(swapped);
        }
        Ok(Self { shape, element, bytes })
    }

    /// Extents, outermost first; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the elements.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The elements, row-major and little-endian.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    cast_all! {
        /// All elements as float32, rounded to nearest.
        to_f32, f32
    }
    cast_all! {
        /// All elements as float64; integers beyond 2^53 are rounded.
        to_f64, f64
    }
    cast_all! {
        /// All elements as int64: fractions are cut off, values beyond its range become the nearest, NaN 0.
        /// An unsigned integer of 2^63 or more wraps, as in NumPy.
        to_i64, i64
    }
}

/// Reorders elements of `size` bytes whose first index runs fastest so that the last one does.
fn to_row_major(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    // Position in `bytes`, counted in elements, is the sum of index[a] * stride[a] with growing strides.
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while ordered.len() < bytes.len() {
        ordered.extend_from_slice(&bytes[position * size..(position + 1) * size]);
        // Count up like an odometer, the last index fastest, moving the position along.
        let mut stride: usize = shape.iter().product();
        for axis in (0..shape.len()).rev() {
            stride /= shape[axis];
            index[axis] += 1;
            position += stride;
            if index[axis] < shape[axis] {
                break;
            }
            position -= stride * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} array of shape {:?}", self.element, self.shape)
    }
}
