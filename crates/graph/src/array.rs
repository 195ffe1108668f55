//! Values: dense row-major arrays of any element type, aligned to 64 bytes so that vector loads never straddle lines.
//!
//! An [`Array`] always owns contiguous memory; there are no strided views here (the compiled code has those).
//! `ndarray` is the interface to the outside: conversions both ways stand at the end.

use std::fmt;

use smallvec::SmallVec;

use crate::dtype::{DType, Literal};

/// One cache line, the unit of allocation; it gives the alignment.
#[derive(Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Extents of an array, outermost first.
pub type Extents = SmallVec<[usize; 4]>;

/// A dense row-major array with run-time element type and shape.
#[derive(Clone)]
pub struct Array {
    dtype: DType,
    shape: Extents,
    lines: Vec<Line>,
}

/// Rust types that are elements of tensors.
pub trait Element: Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The element type it stands for.
    const DTYPE: DType;
    /// How it lies in memory.
    type Stored: bytemuck::Pod;
    /// To memory.
    fn store(self) -> Self::Stored;
    /// From memory.
    fn load(stored: Self::Stored) -> Self;
}

macro_rules! element {
    ($($ty:ty => $dtype:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            type Stored = $ty;
            fn store(self) -> $ty { self }
            fn load(stored: $ty) -> $ty { stored }
        }
    )*};
}
element!(u8 => U8, i32 => I32, i64 => I64, f32 => F32, f64 => F64);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    type Stored = u8;
    fn store(self) -> u8 {
        u8::from(self)
    }
    fn load(stored: u8) -> bool {
        stored != 0
    }
}

/// Number of elements of a shape.
pub fn element_count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Row-major strides of a shape, in elements.
pub fn row_major_strides(shape: &[usize]) -> SmallVec<[usize; 4]> {
    let mut strides: SmallVec<[usize; 4]> = shape.iter().map(|_| 1).collect();
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

impl Array {
    /// An array of zeros (`false` for `bool`).
    pub fn zeros(dtype: DType, shape: &[usize]) -> Array {
        let bytes = element_count(shape) * dtype.size();
        Array { dtype, shape: shape.into(), lines: vec![Line([0; 64]); bytes.div_ceil(64)] }
    }

    /// The same; `None` where the system does not give the memory.
    pub fn try_zeros(dtype: DType, shape: &[usize]) -> Option<Array> {
        let count = element_count(shape).checked_mul(dtype.size())?.div_ceil(64);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        lines.resize(count, Line([0; 64]));
        Some(Array { dtype, shape: shape.into(), lines })
    }

    /// An array of that shape with the elements of `data` in row-major order.
    ///
    /// # Panics
    /// Never: too few elements are filled with zeros, too many are dropped. Use [`Array::try_new`] to have the
    /// count checked.
    pub fn new<T: Element>(shape: &[usize], data: &[T]) -> Array {
        let mut array = Array::zeros(T::DTYPE, shape);
        for (slot, &x) in array.stored_mut::<T>().iter_mut().zip(data) {
            *slot = x.store();
        }
        array
    }

    /// As [`Array::new`]; `None` where the number of elements is not that of the shape.
    pub fn try_new<T: Element>(shape: &[usize], data: &[T]) -> Option<Array> {
        (element_count(shape) == data.len()).then(|| Array::new(shape, data))
    }

    /// A rank-0 array.
    pub fn scalar<T: Element>(value: T) -> Array {
        Array::new(&[], &[value])
    }

    /// A vector.
    pub fn vector<T: Element>(data: &[T]) -> Array {
        Array::new(&[data.len()], data)
    }

    /// All elements the same literal.
    pub fn full(shape: &[usize], value: Literal) -> Array {
        let mut array = Array::zeros(value.dtype(), shape);
        for index in 0..array.len() {
            array.set(index, value);
        }
        array
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        element_count(&self.shape)
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under another shape of equal size; `None` where the sizes differ.
    pub fn reshaped(mut self, shape: &[usize]) -> Option<Array> {
        if element_count(shape) != self.len() {
            return None;
        }
        self.shape = shape.into();
        Some(self)
    }

    /// The elements as bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len() * self.dtype.size()]
    }

    /// The elements as bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.len() * self.dtype.size();
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..bytes]
    }

    fn stored<T: Element>(&self) -> &[T::Stored] {
        bytemuck::cast_slice(self.bytes())
    }

    fn stored_mut<T: Element>(&mut self) -> &mut [T::Stored] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// The elements as a slice; `None` where `T` is not how they lie in memory (`bool` lies as `u8`).
    pub fn as_slice<T: Element<Stored = T> + bytemuck::Pod>(&self) -> Option<&[T]> {
        (T::DTYPE == self.dtype || (T::DTYPE == DType::U8 && self.dtype == DType::Bool))
            .then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// As [`Array::as_slice`], to write.
    pub fn as_mut_slice<T: Element<Stored = T> + bytemuck::Pod>(&mut self) -> Option<&mut [T]> {
        (T::DTYPE == self.dtype).then(|| bytemuck::cast_slice_mut(self.bytes_mut()))
    }

    /// The elements in row-major order; `None` where `T` is not the element type.
    pub fn to_vec<T: Element>(&self) -> Option<Vec<T>> {
        (T::DTYPE == self.dtype).then(|| self.stored::<T>().iter().map(|&x| T::load(x)).collect())
    }

    /// The only element of an array of one element, as a 64-bit float; `None` where there are more or fewer.
    pub fn item(&self) -> Option<f64> {
        (self.len() == 1).then(|| self.get(0).to_f64())
    }

    /// Element at a row-major position.
    ///
    /// # Panics
    /// Where `index` is not below [`Array::len`], as slices do.
    pub fn get(&self, index: usize) -> Literal {
        match self.dtype {
            DType::Bool => Literal::Bool(self.stored::<bool>()[index] != 0),
            DType::U8 => Literal::U8(self.stored::<u8>()[index]),
            DType::I32 => Literal::I32(self.stored::<i32>()[index]),
            DType::I64 => Literal::I64(self.stored::<i64>()[index]),
            DType::F32 => Literal::F32(self.stored::<f32>()[index].to_bits()),
            DType::F64 => Literal::F64(self.stored::<f64>()[index].to_bits()),
        }
    }

    /// Writes an element, converted to the array's type.
    ///
    /// # Panics
    /// Where `index` is not below [`Array::len`], as slices do.
    pub fn set(&mut self, index: usize, value: Literal) {
        match value.cast(self.dtype) {
            Literal::Bool(x) => self.stored_mut::<bool>()[index] = u8::from(x),
            Literal::U8(x) => self.stored_mut::<u8>()[index] = x,
            Literal::I32(x) => self.stored_mut::<i32>()[index] = x,
            Literal::I64(x) => self.stored_mut::<i64>()[index] = x,
            Literal::F32(x) => self.stored_mut::<f32>()[index] = f32::from_bits(x),
            Literal::F64(x) => self.stored_mut::<f64>()[index] = f64::from_bits(x),
        }
    }

    /// Every element converted to another type, as [`Literal::cast`].
    pub fn cast(&self, dtype: DType) -> Array {
        if dtype == self.dtype {
            return self.clone();
        }
        let mut array = Array::zeros(dtype, &self.shape);
        for index in 0..self.len() {
            array.set(index, self.get(index));
        }
        array
    }

    /// As an `ndarray`; `None` where `T` is not the element type.
    pub fn to_ndarray<T: Element>(&self) -> Option<ndarray::ArrayD<T>> {
        ndarray::ArrayD::from_shape_vec(self.shape.to_vec(), self.to_vec::<T>()?).ok()
    }
}

impl<T: Element, D: ndarray::Dimension> From<&ndarray::Array<T, D>> for Array {
    fn from(values: &ndarray::Array<T, D>) -> Array {
        let data: Vec<T> = values.iter().copied().collect();
        Array::new(values.shape(), &data)
    }
}

impl<T: Element, D: ndarray::Dimension> From<ndarray::Array<T, D>> for Array {
    fn from(values: ndarray::Array<T, D>) -> Array {
        Array::from(&values)
    }
}

macro_rules! from_element {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Array {
            fn from(value: $ty) -> Array { Array::scalar(value) }
        }
    )*};
}
from_element!(bool, u8, i32, i64, f32, f64);

impl PartialEq for Array {
    /// Same type, shape and bits; for floats that tells `0.0` from `-0.0` and makes a NaN equal itself.
    fn eq(&self, other: &Array) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} [", self.dtype, self.shape.as_slice())?;
        for index in 0..self.len().min(16) {
            write!(f, "{}{}", if index > 0 { ", " } else { "" }, self.get(index))?;
        }
        write!(f, "{}]", if self.len() > 16 { ", ..." } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_place_and_type() {
        let a = Array::new(&[2, 3], &[1i32, 2, 3, 4, 5, 6]);
        assert_eq!(a.get(4), Literal::I32(5));
        assert_eq!(a.to_vec::<i32>().unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(a.to_vec::<f32>(), None);
        assert_eq!(a.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(row_major_strides(&[2, 3, 4]).as_slice(), [12, 4, 1]);
    }

    #[test]
    fn casts_saturate_and_a_nan_is_no_class() {
        let a = Array::vector(&[f32::NAN, -1.9, 3e10, 0.5]);
        assert_eq!(a.cast(DType::I32).to_vec::<i32>().unwrap(), [i32::MIN, -1, i32::MAX, 0]);
        assert_eq!(a.cast(DType::Bool).to_vec::<bool>().unwrap(), [true, true, true, true]);
    }

    #[test]
    fn ndarray_goes_both_ways() {
        let values = ndarray::array![[1.0f64, 2.0], [3.0, 4.0]];
        let a = Array::from(&values.clone().reversed_axes());
        assert_eq!(a.to_vec::<f64>().unwrap(), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(a.to_ndarray::<f64>().unwrap(), values.reversed_axes().into_dyn());
    }
}
