//! Element types, and single values of them.
//!
//! A [`Literal`] compares by bits, so operators that hold one are `Eq`, `Ord` and `Hash`.
//! There are no half-precision types yet: a new one is an arm in each match of this file and in [`crate::array`].

use std::fmt;

/// The type of a tensor's elements. Declared from narrow to wide: of two kinds the later one is the common type.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DType {
    /// Truth value, stored as one byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer; indices and extents have this type.
    I64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl DType {
    /// Every element type, for tests that go through all of them.
    pub const ALL: [DType; 6] = [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F32, DType::F64];

    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Whether this is a floating-point type, the only ones that carry gradients.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    /// Whether this is an integer type; `bool` is not.
    pub fn is_int(self) -> bool {
        matches!(self, DType::U8 | DType::I32 | DType::I64)
    }

    /// The least and the largest integer; `None` for floats and truth values.
    pub fn int_range(self) -> Option<(i64, i64)> {
        match self {
            DType::U8 => Some((0, u8::MAX.into())),
            DType::I32 => Some((i32::MIN.into(), i32::MAX.into())),
            DType::I64 => Some((i64::MIN, i64::MAX)),
            DType::Bool | DType::F32 | DType::F64 => None,
        }
    }

    /// The common type of two operands. An integer beside a float takes the float's own type, so nothing
    /// becomes `f64` unasked (NumPy and Theano widen `i32 + f32` to `f64`).
    pub fn promote(self, other: DType) -> DType {
        self.max(other)
    }

    /// The name used in text and messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One element. Floats are held as bits: `-0.0` differs from `0.0`, and a NaN equals itself.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Literal {
    /// A truth value.
    Bool(bool),
    /// An unsigned byte.
    U8(u8),
    /// A 32-bit integer.
    I32(i32),
    /// A 64-bit integer.
    I64(i64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
}

impl Literal {
    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            Literal::Bool(_) => DType::Bool,
            Literal::U8(_) => DType::U8,
            Literal::I32(_) => DType::I32,
            Literal::I64(_) => DType::I64,
            Literal::F32(_) => DType::F32,
            Literal::F64(_) => DType::F64,
        }
    }

    /// `value` as an element of `dtype`, converted as [`Literal::cast`] does.
    pub fn from_f64(value: f64, dtype: DType) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(value != 0.0),
            DType::U8 => Literal::U8(value as u8),
            DType::I32 => Literal::I32(float_to_int(value, i64::from(i32::MIN), i64::from(i32::MAX)) as i32),
            DType::I64 => Literal::I64(float_to_int(value, i64::MIN, i64::MAX)),
            DType::F32 => Literal::F32((value as f32).to_bits()),
            DType::F64 => Literal::F64(value.to_bits()),
        }
    }

    /// `value` as an element of `dtype`; integers wrap as in two's complement.
    pub fn from_i64(value: i64, dtype: DType) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(value != 0),
            DType::U8 => Literal::U8(value as u8),
            DType::I32 => Literal::I32(value as i32),
            DType::I64 => Literal::I64(value),
            DType::F32 => Literal::F32((value as f32).to_bits()),
            DType::F64 => Literal::F64((value as f64).to_bits()),
        }
    }

    /// The value as a 64-bit float (exact for all but large `i64`).
    pub fn to_f64(self) -> f64 {
        match self {
            Literal::Bool(x) => f64::from(u8::from(x)),
            Literal::U8(x) => f64::from(x),
            Literal::I32(x) => f64::from(x),
            Literal::I64(x) => x as f64,
            Literal::F32(x) => f64::from(f32::from_bits(x)),
            Literal::F64(x) => f64::from_bits(x),
        }
    }

    /// The value of an integer or truth value; `None` for floats.
    pub fn to_i64(self) -> Option<i64> {
        match self {
            Literal::Bool(x) => Some(i64::from(x)),
            Literal::U8(x) => Some(i64::from(x)),
            Literal::I32(x) => Some(i64::from(x)),
            Literal::I64(x) => Some(x),
            Literal::F32(_) | Literal::F64(_) => None,
        }
    }

    /// Conversion between element types. Floats to integers truncate and saturate, and a NaN becomes the
    /// smallest integer, so that a NaN label never passes for class 0. To `bool`: whether it is not zero. To its own
    /// type: the same bits.
    pub fn cast(self, dtype: DType) -> Literal {
        match self.to_i64() {
            _ if self.dtype() == dtype => self,
            Some(x) => Literal::from_i64(x, dtype),
            None => Literal::from_f64(self.to_f64(), dtype),
        }
    }
}

/// Truncates and saturates; a NaN becomes `low`.
fn float_to_int(value: f64, low: i64, high: i64) -> i64 {
    if value.is_nan() { low } else { (value as i64).clamp(low, high) }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Literal::Bool(x) => write!(f, "{x}"),
            Literal::U8(x) => write!(f, "{x}"),
            Literal::I32(x) => write!(f, "{x}"),
            Literal::I64(x) => write!(f, "{x}"),
            Literal::F32(x) => write!(f, "{:?}", f32::from_bits(x)),
            Literal::F64(x) => write!(f, "{:?}", f64::from_bits(x)),
        }
    }
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}{}", self.dtype())
    }
}
