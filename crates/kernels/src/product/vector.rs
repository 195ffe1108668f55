//! What a matrix-product kernel asks of a vector register, and its plain Rust form.
//!
//! The kernels are written once over [`Vector`]; each instruction set implements it. All methods are inlined into a
//! function that enables the instruction set, and nothing but such a function may use them.
#![allow(unsafe_code, reason = "vectors read and write raw memory")]

use super::kernels::Kernels;
use crate::features::InstructionSet;
use std::fmt;
use std::ops::{Add, Mul};

/// The most lanes of any vector.
pub(crate) const MAX_LANES: usize = 16;

/// A number that products are made of: `f32` or `f64`.
pub trait Element:
    sealed::Sealed
    + Copy
    + fmt::Debug
    + PartialEq
    + Add<Output = Self>
    + Mul<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// The name of the type in plans.
    const FLOAT: super::Float;
    /// The identity element of sums.
    const ZERO: Self;
    /// Rounds to the nearest number of this type.
    fn round_from(value: f64) -> Self;
}

/// Keeps [`Element`] to the types that have kernels, and finds these.
pub(crate) mod sealed {
    use super::{InstructionSet, Kernels};
    /// Gives the kernels of a type.
    pub trait Sealed: Sized + 'static {
        #[expect(private_interfaces, reason = "sealed: only this crate can name or call it")]
        #[doc(hidden)]
        fn kernels(set: InstructionSet) -> &'static Kernels<Self>;
    }
}

macro_rules! element {
    ($type:ty, $float:ident, $kernels:ident) => {
        impl Element for $type {
            const FLOAT: super::Float = super::Float::$float;
            const ZERO: Self = 0.0;
            fn round_from(value: f64) -> Self {
                value as Self
            }
        }
        impl sealed::Sealed for $type {
            #[expect(private_interfaces, reason = "sealed: only this crate can name or call it")]
            fn kernels(set: InstructionSet) -> &'static Kernels<Self> {
                match set {
                    InstructionSet::Portable => &super::portable::$kernels,
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => &super::avx2::$kernels,
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 => &super::avx512::$kernels,
                    #[cfg(not(target_arch = "x86_64"))]
                    InstructionSet::Avx2 | InstructionSet::Avx512 => &super::portable::$kernels,
                }
            }
        }
    };
}
element!(f32, F32, F32);
element!(f64, F64, F64);

/// A vector register of `LANES` numbers.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; those with pointers need memory that is valid for
/// what they read or write: `LANES` elements, or the first `count` of the mask, at any alignment.
pub(crate) trait Vector: Copy {
    /// The type of a lane.
    type Element: Element;
    /// Which lanes, always the first few, a load or a store touches.
    type Mask: Copy;
    /// The number of lanes, at most [`MAX_LANES`].
    const LANES: usize;

    /// The mask of the first `count` lanes; of all when `count` is larger.
    unsafe fn mask(count: usize) -> Self::Mask;
    unsafe fn splat(value: Self::Element) -> Self;
    unsafe fn load(from: *const Self::Element) -> Self;
    /// Loads the lanes of the mask; the others are zero, and their memory is not touched.
    unsafe fn load_masked(from: *const Self::Element, mask: Self::Mask) -> Self;
    unsafe fn store(self, to: *mut Self::Element);
    /// Stores the lanes of the mask; the memory of the others is not touched.
    unsafe fn store_masked(self, to: *mut Self::Element, mask: Self::Mask);
    /// `self * by + plus`, rounded once where the instruction set has it.
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self;
    unsafe fn multiply(self, by: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// The sums of the lanes of the first `LANES` vectors, each in the same order: that of vector `l` in lane `l`.
    unsafe fn sums(vectors: &[Self; MAX_LANES]) -> Self;
    /// Asks for the cache line of an address, which may be any.
    unsafe fn prefetch(from: *const Self::Element);
    /// The same, into the second-level cache only.
    unsafe fn prefetch_far(from: *const Self::Element);
    /// Transposes the square of the first `LANES` vectors.
    unsafe fn transpose(square: &mut [Self; MAX_LANES]);
}
