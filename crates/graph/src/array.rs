//! Values: dense row-major arrays of any element type, aligned to 64 bytes so that vector loads never straddle lines.
//!
//! An [`Array`] always owns contiguous memory; there are no strided views here (the compiled code has those).
//! `ndarray` is the interface to the outside: conversions both ways stand at the end.

use std::fmt;
use std::panic::Location;

use smallvec::SmallVec;

use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::{DType, Literal};
use crate::shape::TensorType;

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

/// Number of elements of a shape; `usize::MAX` where that is more than a `usize` holds.
pub fn element_count(shape: &[usize]) -> usize {
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |count, &n| count.saturating_mul(n)) }
}

/// Row-major strides of a shape, in elements. They hold for every shape of an array with elements.
pub fn row_major_strides(shape: &[usize]) -> SmallVec<[usize; 4]> {
    let mut strides: SmallVec<[usize; 4]> = shape.iter().map(|_| 1).collect();
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// Whether a tensor of these extents could have an address for every element; extents of 0 count as 1, so that no
/// order of multiplication overflows.
pub(crate) fn fits_in_memory(extents: &[usize]) -> bool {
    let count = extents.iter().try_fold(1usize, |count, &n| count.checked_mul(n.max(1)));
    count.is_some_and(|count| count <= 1 << 48)
}

impl Array {
    /// An array of zeros (`false` for `bool`).
    ///
    /// # Errors
    /// More elements than memory can hold, or than the system gives memory for.
    #[track_caller]
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Array, Diagnostic> {
        Array::allocate(dtype, shape, element_count(shape), Location::caller())
    }

    fn allocate(dtype: DType, shape: &[usize], count: usize, site: Site) -> Result<Array, Diagnostic> {
        let lines = fits_in_memory(shape).then(|| (count * dtype.size()).div_ceil(64));
        let reserve = |count: usize| {
            let mut lines = Vec::new();
            lines.try_reserve_exact(count).ok()?;
            lines.resize(count, Line([0; 64]));
            Some(lines)
        };
        match lines.and_then(reserve) {
            Some(lines) => Ok(Array { dtype, shape: shape.into(), lines }),
            None => Err(Diagnostic::new("out of memory for an array").at(Some(site)).with(
                "array",
                TensorType::known(dtype, shape).to_string(),
                None,
            )),
        }
    }

    /// An array of that shape with the elements of `data` in row-major order.
    ///
    /// # Errors
    /// Another number of elements than the shape has, or more than the system gives memory for.
    #[track_caller]
    pub fn new<T: Element>(shape: &[usize], data: &[T]) -> Result<Array, Diagnostic> {
        let site = Location::caller();
        let count = element_count(shape);
        if count != data.len() {
            return Err(Diagnostic::new("an array is given another number of elements than its shape has")
                .at(Some(site))
                .with("expected", format!("{count} of {}", TensorType::known(T::DTYPE, shape)), None)
                .with("found", data.len().to_string(), None));
        }
        let mut array = Array::allocate(T::DTYPE, shape, count, site)?;
        array.store(data);
        Ok(array)
    }

    /// An array of elements that there are, one for each place.
    fn of<T: Element>(shape: &[usize], data: &[T]) -> Array {
        let lines = size_of_val(data).div_ceil(64);
        let mut array = Array { dtype: T::DTYPE, shape: shape.into(), lines: vec![Line([0; 64]); lines] };
        array.store(data);
        array
    }

    fn store<T: Element>(&mut self, data: &[T]) {
        for (slot, &x) in self.stored_mut::<T>().iter_mut().zip(data) {
            *slot = x.store();
        }
    }

    /// A rank-0 array.
    pub fn scalar<T: Element>(value: T) -> Array {
        Array::of(&[], &[value])
    }

    /// A vector.
    pub fn vector<T: Element>(data: &[T]) -> Array {
        Array::of(&[data.len()], data)
    }

    /// All elements the same literal.
    ///
    /// # Errors
    /// As [`Array::zeros`].
    #[track_caller]
    pub fn full(shape: &[usize], value: Literal) -> Result<Array, Diagnostic> {
        let mut array = Array::zeros(value.dtype(), shape)?;
        for index in 0..array.len() {
            array.set(index, value);
        }
        Ok(array)
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
        let lines = (self.len() * dtype.size()).div_ceil(64);
        let mut array = Array { dtype, shape: self.shape.clone(), lines: vec![Line([0; 64]); lines] };
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

/// What a value is given as: an array or what becomes one, or an array whose making may have failed. Expressions made of
/// one that failed keep the reason, and the function that uses them reports it.
pub trait IntoArray {
    /// The array, or why there is none.
    fn into_array(self) -> Result<Array, Diagnostic>;
}

impl<T: Into<Array>> IntoArray for T {
    fn into_array(self) -> Result<Array, Diagnostic> {
        Ok(self.into())
    }
}

impl IntoArray for Result<Array, Diagnostic> {
    fn into_array(self) -> Result<Array, Diagnostic> {
        self
    }
}

impl<T: Element, D: ndarray::Dimension> From<&ndarray::Array<T, D>> for Array {
    fn from(values: &ndarray::Array<T, D>) -> Array {
        let data: Vec<T> = values.iter().copied().collect();
        Array::of(values.shape(), &data)
    }
}

impl<T: Element, D: ndarray::Dimension> From<ndarray::Array<T, D>> for Array {
    fn from(values: ndarray::Array<T, D>) -> Array {
        Array::from(&values)
    }
}

impl From<Literal> for Array {
    /// A rank-0 array.
    fn from(value: Literal) -> Array {
        match value {
            Literal::Bool(x) => Array::scalar(x),
            Literal::U8(x) => Array::scalar(x),
            Literal::I32(x) => Array::scalar(x),
            Literal::I64(x) => Array::scalar(x),
            Literal::F32(x) => Array::scalar(f32::from_bits(x)),
            Literal::F64(x) => Array::scalar(f64::from_bits(x)),
        }
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
        let a = Array::new(&[2, 3], &[1i32, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(a.get(4), Literal::I32(5));
        assert_eq!(a.to_vec::<i32>().unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(a.to_vec::<f32>(), None);
        assert_eq!(a.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(row_major_strides(&[2, 3, 4]).as_slice(), [12, 4, 1]);
    }

    #[test]
    fn elements_that_do_not_fill_the_shape_are_an_error() {
        for found in [0, 5, 7] {
            let message = Array::new(&[2, 3], &vec![1f32; found]).unwrap_err().to_string();
            assert!(message.contains("expected  6 of f32[2, 3]"), "{message}");
            assert!(
                message.contains(&format!("found     {found}")) && message.contains("array.rs"),
                "{message}"
            );
        }
        assert!(Array::vector(&[1f32; 6]).reshaped(&[usize::MAX, 6]).is_none());
    }

    /// Extents whose product is 4 in 64 bits, and others that no memory holds.
    #[test]
    fn extents_that_wrap_are_an_error() {
        let shapes: [&[usize]; 5] =
            [&[(1 << 62) + 1, 4], &[usize::MAX, 2], &[1 << 32, 1 << 32], &[0, 1 << 40, 1 << 40], &[1 << 47]];
        for shape in shapes {
            assert!(Array::zeros(DType::F32, shape).is_err(), "{shape:?}");
            assert!(Array::full(shape, Literal::F64(0)).is_err(), "{shape:?}");
            assert!(Array::new(shape, &[0f32; 4]).is_err(), "{shape:?}");
            assert!(Array::vector(&[0f32; 4]).reshaped(shape).is_none(), "{shape:?}");
        }
        assert_eq!(element_count(&[(1 << 62) + 1, 4]), usize::MAX);
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
